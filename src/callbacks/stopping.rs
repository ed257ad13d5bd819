//! [`EarlyStopping`] and [`TerminateOnNaN`]: callbacks that end a training.

use super::callback::{Callback, Hook, Run, Snapshot};
use super::latest::Latest;
use super::monitor::{Direction, Monitor};
use super::nothing;
use super::state::CallbackState;
use crate::error::Result;
use crate::model::Scores;

/// Stops when a score has not become better for some epochs.
///
/// ```
/// use wengert::callbacks::EarlyStopping;
///
/// let stopping = EarlyStopping::new("val_loss").patience(3).min_delta(1e-4).restore_best_weights();
/// ```
pub struct EarlyStopping {
    monitor: Monitor,
    patience: usize,
    restore: bool,
    waited: usize,
    best: Option<(usize, Option<Snapshot>)>,
    stopped: Option<usize>,
}

impl EarlyStopping {
    /// Watches a score ("val_loss"), with a patience of 0: the first epoch that is not better is the last.
    pub fn new(monitor: &str) -> EarlyStopping {
        let monitor = Monitor::new(monitor);
        EarlyStopping { monitor, patience: 0, restore: false, waited: 0, best: None, stopped: None }
    }

    /// Epochs without a better score that are still tolerated, as Keras counts them: training stops at the end of the
    /// `patience`-th one.
    pub fn patience(mut self, epochs: usize) -> Self {
        self.patience = epochs;
        self
    }

    /// What a score must change by at least, to count as better; 0 unless set.
    pub fn min_delta(mut self, delta: f64) -> Self {
        self.monitor.min_delta = delta;
        self
    }

    /// Which way the score is better; told from its name unless set.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.monitor.direction = direction;
        self
    }

    /// Gives all networks their weights of the best epoch at the end, whether or not it ended early.
    pub fn restore_best_weights(mut self) -> Self {
        self.restore = true;
        self
    }

    /// The epoch, from 0, that training was stopped after.
    pub fn stopped_epoch(&self) -> Option<usize> {
        self.stopped
    }

    /// The best epoch, from 0, and its score.
    pub fn best(&self) -> Option<(usize, f64)> {
        Some((self.best.as_ref()?.0, self.monitor.best?))
    }
}

impl Callback for EarlyStopping {
    fn on_train_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        (self.waited, self.best, self.stopped, self.monitor.best) = (0, None, None, None);
        nothing()
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            let Some(better) = self.monitor.better(&run.scores)? else { return Ok(()) };
            if better {
                let snapshot = if self.restore { Some(run.snapshot()?) } else { None };
                self.best = Some((run.epoch, snapshot));
                self.waited = 0;
                return Ok(());
            }
            self.waited += 1;
            if self.waited >= self.patience {
                self.stopped = Some(run.epoch);
                run.stop = true;
            }
            Ok(())
        })
    }

    fn state(&self) -> Option<CallbackState> {
        let (best_epoch, snapshot) = match &self.best {
            Some((epoch, snapshot)) => (Some(*epoch), snapshot.as_ref()),
            None => (None, None),
        };
        let state = CallbackState::new("early_stopping")
            .with_count("waited", self.waited)
            .with("best", self.monitor.best)
            .with_count("best_epoch", best_epoch)
            .with_count("stopped_epoch", self.stopped);
        Some(state.with_tensors(snapshot.map(Snapshot::tensors).unwrap_or_default()))
    }

    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        self.waited = state.count("waited").unwrap_or(0);
        self.monitor.best = state.number("best");
        self.best = state.count("best_epoch").map(|epoch| (epoch, Snapshot::of(state)));
        self.stopped = state.count("stopped_epoch");
        Ok(())
    }

    fn on_train_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            // The snapshot is let go, so that its memory is not held as long as the callback.
            match self.best.as_mut().and_then(|(_, snapshot)| snapshot.take()) {
                Some(snapshot) => run.restore(&snapshot).await,
                None => Ok(()),
            }
        })
    }
}

/// Stops when a log is not a finite number: during an epoch soon after, without waiting for each step.
#[derive(Default)]
pub struct TerminateOnNaN {
    latest: Latest,
    found: Option<(usize, String)>,
}

impl TerminateOnNaN {
    /// Watches all logs.
    pub fn new() -> TerminateOnNaN {
        TerminateOnNaN::default()
    }

    /// The epoch, from 0, in which it was found, and the name of the log.
    pub fn found(&self) -> Option<(usize, &str)> {
        self.found.as_ref().map(|(epoch, name)| (*epoch, name.as_str()))
    }
}

fn not_finite(scores: &Scores) -> Option<String> {
    scores.iter().find(|(_, value)| !value.is_finite()).map(|(name, _)| name.to_string())
}

impl Callback for TerminateOnNaN {
    fn on_epoch_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        self.latest = Latest::default();
        nothing()
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            let name = not_finite(self.latest.look(run)?);
            self.note(name, run);
            Ok(())
        })
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let name = not_finite(&run.scores);
        self.note(name, run);
        nothing()
    }
}

impl TerminateOnNaN {
    fn note(&mut self, name: Option<String>, run: &mut Run<'_>) {
        let Some(name) = name.filter(|_| !run.stop) else { return };
        log::warn!("{name} is not finite in epoch {}; training stops", run.epoch + 1);
        self.found = Some((run.epoch, name));
        run.stop = true;
    }
}
