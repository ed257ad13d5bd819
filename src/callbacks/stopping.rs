//! [`EarlyStopping`]: ends a training that does not get better.
//!
//! Deliberately absent: the decision, which is [`Stopping`]'s, and weights on the host; the best ones stay on the device.

use super::callback::{Callback, Hook, Run, Snapshot, nothing};
use super::monitor::{Direction, Monitor};
use super::rules::{Improvement, Stopping};
use super::state::CallbackState;
use crate::error::{Error, ErrorKind, Result};
use crate::host::say;

/// Stops when a score has not become better for some epochs. A score that an epoch does not have ends the training with an
/// error, unless it is one of validation ("val_..."): an epoch may lack those.
///
/// ```
/// use wengert::callbacks::EarlyStopping;
///
/// let stopping = EarlyStopping::new("val_loss").patience(3).min_delta(1e-4).restore_best_weights();
/// ```
pub struct EarlyStopping {
    monitor: Monitor,
    rule: Stopping,
    restore: bool,
    verbose: bool,
    snapshot: Option<Snapshot>,
    stopped: Option<usize>,
}

impl EarlyStopping {
    /// Watches a score ("val_loss"), with a patience of 0: the first epoch that is not better is the last.
    pub fn new(monitor: &str) -> EarlyStopping {
        let monitor = Monitor::new(monitor);
        // Which way is better is settled when the training begins.
        let rule = Stopping::new(Improvement { up: false, min_delta: 0.0 });
        EarlyStopping { monitor, rule, restore: false, verbose: false, snapshot: None, stopped: None }
    }

    /// Epochs without a better score that are still tolerated, as Keras counts them: training stops at the end of the
    /// `patience`-th one.
    pub fn patience(mut self, epochs: usize) -> Self {
        self.rule.patience = epochs;
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

    /// A score to be better than: epochs that are not use up the patience, even if each is better than the last.
    pub fn baseline(mut self, score: f64) -> Self {
        self.rule.baseline = Some(score);
        self
    }

    /// The first epoch, from 0, that is looked at.
    pub fn start_from_epoch(mut self, epoch: usize) -> Self {
        self.rule.start_from_epoch = epoch;
        self
    }

    /// Gives all networks their weights of the best epoch at the end, whether or not it ended early. They are kept on
    /// the device, so it holds the weights twice.
    pub fn restore_best_weights(mut self) -> Self {
        self.restore = true;
        self
    }

    /// Says when it stops and what it restores.
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    /// The epoch, from 0, that training was stopped after.
    pub fn stopped_epoch(&self) -> Option<usize> {
        self.stopped
    }

    /// The best epoch, from 0, and its score.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.rule.best()
    }

    fn look(&mut self, run: &mut Run<'_>) -> Result<()> {
        let Some(score) = self.monitor.score(&run.scores)? else { return Ok(()) };
        let verdict = self.rule.observe(run.epoch, score);
        if verdict.keep && self.restore {
            // The old one goes first, so that its memory is there for the new one.
            self.snapshot = None;
            self.snapshot = Some(run.snapshot()?);
        }
        if verdict.stop {
            self.stopped = Some(run.epoch);
            run.stop = true;
        }
        Ok(())
    }

    async fn end(&mut self, run: &Run<'_>) -> Result<()> {
        if let Some(epoch) = self.stopped.filter(|_| self.verbose) {
            say(&format!("Epoch {}: early stopping", epoch + 1));
        }
        // The snapshot is let go, so that its memory is not held as long as the callback.
        let Some(snapshot) = self.snapshot.take() else { return Ok(()) };
        if let Some(epoch) = self.rule.kept().filter(|_| self.verbose) {
            say(&format!("Restoring model weights from the end of the best epoch: {}.", epoch + 1));
        }
        run.restore(&snapshot).await
    }
}

impl Callback for EarlyStopping {
    fn on_train_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            if self.rule.baseline.is_some_and(f64::is_nan) {
                return Err(Error::new(ErrorKind::NonFinite { what: "the baseline of early stopping".into() }));
            }
            self.rule.improvement = self.monitor.improvement()?;
            self.rule.reset();
            (self.snapshot, self.stopped) = (None, None);
            Ok(())
        })
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move { self.look(run) })
    }

    fn state(&self) -> Option<CallbackState> {
        let state = CallbackState::new("early_stopping")
            .with_count("waited", self.rule.waited)
            .with("best", self.rule.best.map(|best| best.1))
            .with_count("best_epoch", self.rule.best.map(|best| best.0))
            .with_count("kept_epoch", self.rule.kept)
            .with_count("stopped_epoch", self.stopped);
        Some(state.with_tensors(self.snapshot.as_ref().map(Snapshot::tensors).unwrap_or_default()))
    }

    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        self.rule.waited = state.count("waited").unwrap_or(0);
        self.rule.best = state.count("best_epoch").zip(state.number("best"));
        self.rule.kept = state.count("kept_epoch");
        self.stopped = state.count("stopped_epoch");
        self.snapshot = Snapshot::of(state).filter(|_| self.restore);
        Ok(())
    }

    fn on_train_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        if self.stopped.is_none() && self.snapshot.is_none() {
            return nothing();
        }
        Box::pin(self.end(run))
    }
}
