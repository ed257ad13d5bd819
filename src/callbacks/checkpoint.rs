//! [`ModelCheckpoint`]: weights as a file, after an epoch or some batches. Deliberately absent: optimizer and progress,
//! see [`save_weights`](crate::model::Functional::save_weights).

#![cfg(not(target_arch = "wasm32"))]

use std::future::ready;
use std::path::PathBuf;

use super::callback::{Callback, Hook, Run};
use super::monitor::{Direction, Monitor};
use super::rules::{Cadence, Improvement};
use super::state::CallbackState;
use super::template::Template;
use crate::error::{Error, Result};
use crate::host::say;
use crate::model::Scores;

/// Saves a network's weights after every epoch, or after those that were the best so far.
///
/// ```
/// use wengert::callbacks::ModelCheckpoint;
///
/// let best = ModelCheckpoint::new("best.safetensors").save_best_only("val_accuracy");
/// let all = ModelCheckpoint::new("weights/{epoch:02d}-{val_loss:.2f}.safetensors");
/// ```
pub struct ModelCheckpoint {
    path: String,
    template: Option<Template>,
    monitor: Monitor,
    best_only: bool,
    improvement: Option<Improvement>,
    best: Option<f64>,
    every: Option<usize>,
    cadence: Cadence,
    network: usize,
    verbose: bool,
}

impl ModelCheckpoint {
    /// Saves to a path with fields as in Python: `{epoch}`, from 1, and the scores, all with a format if need be
    /// (`{epoch:02d}`, `{val_loss:.2f}`); a brace itself is written twice.
    pub fn new(path: &str) -> ModelCheckpoint {
        ModelCheckpoint {
            path: path.into(),
            template: None,
            monitor: Monitor::new("val_loss"),
            best_only: false,
            improvement: None,
            best: None,
            every: None,
            cadence: Cadence::new(1),
            network: 0,
            verbose: false,
        }
    }

    /// Saves only where a score is better than ever before, in an earlier `fit` too. An epoch that was not validated has
    /// no such score and is not saved.
    pub fn save_best_only(mut self, monitor: &str) -> Self {
        (self.monitor.name, self.best_only) = (monitor.into(), true);
        self
    }

    /// Which way the score is better; told from its name unless set.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.monitor.direction = direction;
        self
    }

    /// What the first score that is saved must be better than.
    pub fn initial_value_threshold(mut self, score: f64) -> Self {
        self.best = Some(score);
        self
    }

    /// Saves after every so many batches instead of every epoch; `{batch}`, from 1, is a field then. The scores are those
    /// of the epoch so far, and each file that needs them waits for them. With several steps per execution, after the
    /// first submission that completes so many.
    pub fn save_freq(mut self, batches: usize) -> Self {
        self.every = Some(batches);
        self
    }

    /// Saves another network than the first, by its number among [`networks`](crate::model::Model::networks).
    pub fn network(mut self, index: usize) -> Self {
        self.network = index;
        self
    }

    /// Says what it saves.
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    fn begin(&mut self, run: &Run<'_>) -> Result<()> {
        run.network(self.network)?;
        if self.every == Some(0) {
            return Err(Error::argument("a checkpoint is saved every 1 batch at least"));
        }
        self.improvement = if self.best_only { Some(self.monitor.improvement()?) } else { None };
        self.template = Some(Template::new(&self.path)?);
        self.cadence = Cadence::new(self.every.unwrap_or(1));
        Ok(())
    }

    async fn after_batches(&mut self, run: &Run<'_>) -> Result<()> {
        if !self.cadence.due(run.batch) {
            return Ok(());
        }
        let of_logs = |name: &str| name != "epoch" && name != "batch";
        let asked = self.template.iter().flat_map(Template::names).any(of_logs) || self.best_only;
        let scores = if asked { run.read_logs().await? } else { Scores::default() };
        self.save(run, &scores, Some(run.batch)).await
    }

    async fn save(&mut self, run: &Run<'_>, scores: &Scores, batch: Option<usize>) -> Result<()> {
        let mut note = String::new();
        if let Some(improvement) = &self.improvement {
            let Some(score) = self.monitor.score(scores)? else { return Ok(()) };
            if !improvement.better(score, self.best) {
                return Ok(());
            }
            let before = self.best.map_or("None".into(), |best| format!("{best:.5}"));
            note = format!("{} improved from {before} to {score:.5}, ", self.monitor.name);
            self.best = Some(score);
        }
        let Some(template) = &self.template else {
            return Err(Error::state("a checkpoint was asked for before the training began"));
        };
        let counts = [("epoch", Some(run.epoch)), ("batch", batch)];
        let counts = counts.into_iter().filter_map(|(name, n)| Some((name, n? as f64 + 1.0)));
        let path = PathBuf::from(template.fill(counts.chain(scores.iter()))?);
        if self.verbose {
            say(&format!("\nEpoch {}: {note}saving model to {}", run.epoch + 1, path.display()));
        }
        run.network(self.network)?.save_weights(path).await
    }
}

impl Callback for ModelCheckpoint {
    fn on_train_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let begun = self.begin(run);
        Box::pin(ready(begun))
    }

    fn state(&self) -> Option<CallbackState> {
        if self.every.is_none() && !self.best_only {
            return None;
        }
        let state = CallbackState::new("model_checkpoint").with("best", self.best);
        Some(state.with_count("since", self.cadence.since).with_count("last", self.cadence.last))
    }

    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        self.best = state.number("best");
        (self.cadence.since, self.cadence.last) = (state.count("since").unwrap_or(0), state.count("last"));
        Ok(())
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        if self.every.is_none() {
            return super::nothing();
        }
        Box::pin(self.after_batches(run))
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        if self.every.is_some() {
            return super::nothing();
        }
        Box::pin(async move {
            let scores = run.scores.clone();
            self.save(run, &scores, None).await
        })
    }
}
