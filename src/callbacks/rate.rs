//! [`LearningRateScheduler`] and [`ReduceLROnPlateau`]: the learning rate, changed between epochs.
//!
//! The rate is a variable on the device, so the next step has it and nothing is recorded anew; both add it to the scores
//! of the epoch. Deliberately absent: rates that change with every step, which an optimizer computes by itself.

use std::future::ready;

use super::callback::{Callback, Hook, Run};
use super::monitor::{Direction, Monitor};
use super::rules::{Improvement, Plateau};
use super::state::CallbackState;
use crate::error::{Error, ErrorKind, Result};
use crate::host::say;

/// The name of the learning rate among the scores, as in Keras.
pub(super) const LEARNING_RATE: &str = "learning_rate";

/// Sets the learning rate before each epoch to what a function of the epoch, from 0, and of the rate says.
///
/// ```
/// use wengert::callbacks::LearningRateScheduler;
///
/// let schedule = LearningRateScheduler::new(|epoch, rate| if epoch < 10 { rate } else { rate * 0.9 });
/// ```
pub struct LearningRateScheduler<'f> {
    schedule: Box<dyn FnMut(usize, f64) -> f64 + 'f>,
    network: usize,
    verbose: bool,
}

impl<'f> LearningRateScheduler<'f> {
    /// A schedule for the first network's optimizer.
    pub fn new(schedule: impl FnMut(usize, f64) -> f64 + 'f) -> LearningRateScheduler<'f> {
        LearningRateScheduler { schedule: Box::new(schedule), network: 0, verbose: false }
    }

    /// For the optimizer of another network than the first, by its number among
    /// [`networks`](crate::model::Model::networks).
    pub fn network(mut self, index: usize) -> Self {
        self.network = index;
        self
    }

    /// Says what it sets.
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    async fn begin(&mut self, run: &Run<'_>) -> Result<()> {
        let network = run.network(self.network)?;
        let rate = (self.schedule)(run.epoch, network.learning_rate().await?);
        network.set_learning_rate(rate).await?;
        if self.verbose {
            say(&format!("\nEpoch {}: LearningRateScheduler setting learning rate to {rate}.", run.epoch + 1));
        }
        Ok(())
    }
}

impl Callback for LearningRateScheduler<'_> {
    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(self.begin(run))
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            let rate = run.network(self.network)?.learning_rate().await?;
            run.scores.set(&name(self.network), rate);
            Ok(())
        })
    }
}

/// The name of the rate of one of several networks.
fn name(network: usize) -> String {
    if network == 0 { LEARNING_RATE.into() } else { format!("{LEARNING_RATE}_{network}") }
}

/// Multiplies the learning rate by a factor when a score has not become better for some epochs.
///
/// ```
/// use wengert::callbacks::ReduceLROnPlateau;
///
/// let reduce = ReduceLROnPlateau::new("val_loss").factor(0.2).patience(5).min_lr(1e-5);
/// ```
pub struct ReduceLROnPlateau {
    monitor: Monitor,
    rule: Plateau,
    network: usize,
    verbose: bool,
}

impl ReduceLROnPlateau {
    /// Watches a score ("val_loss"): after 10 epochs that are not better by 1e-4, a tenth of the rate.
    pub fn new(monitor: &str) -> ReduceLROnPlateau {
        let mut monitor = Monitor::new(monitor);
        monitor.min_delta = 1e-4;
        // Which way is better is settled when the training begins.
        let rule = Plateau::new(Improvement { up: false, min_delta: 0.0 });
        ReduceLROnPlateau { monitor, rule, network: 0, verbose: false }
    }

    /// What the rate is multiplied by, above 0 and below 1.
    pub fn factor(mut self, factor: f64) -> Self {
        self.rule.factor = factor;
        self
    }

    /// Epochs without a better score after which the rate is lowered.
    pub fn patience(mut self, epochs: usize) -> Self {
        self.rule.patience = epochs;
        self
    }

    /// What a score must change by at least, to count as better; 1e-4 unless set.
    pub fn min_delta(mut self, delta: f64) -> Self {
        self.monitor.min_delta = delta;
        self
    }

    /// Epochs after the rate was lowered that are not counted; none unless set.
    pub fn cooldown(mut self, epochs: usize) -> Self {
        self.rule.cooldown = epochs;
        self
    }

    /// The rate is not lowered below this; 0 unless set.
    pub fn min_lr(mut self, rate: f64) -> Self {
        self.rule.min_lr = rate;
        self
    }

    /// Which way the score is better; told from its name unless set.
    pub fn direction(mut self, direction: Direction) -> Self {
        self.monitor.direction = direction;
        self
    }

    /// For the optimizer of another network than the first, by its number among
    /// [`networks`](crate::model::Model::networks).
    pub fn network(mut self, index: usize) -> Self {
        self.network = index;
        self
    }

    /// Says when it lowers the rate.
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    fn begin(&mut self) -> Result<()> {
        let Plateau { factor, min_lr, .. } = self.rule;
        if !(factor > 0.0 && factor < 1.0) {
            let what = format!("the factor that lowers a learning rate is above 0 and below 1, not {factor}");
            return Err(Error::argument(what));
        }
        if !min_lr.is_finite() {
            return Err(Error::new(ErrorKind::NonFinite { what: format!("a least learning rate of {min_lr}") }));
        }
        self.rule.improvement = self.monitor.improvement()?;
        self.rule.reset();
        Ok(())
    }

    async fn look(&mut self, run: &mut Run<'_>) -> Result<()> {
        let network = run.network(self.network)?;
        let rate = network.learning_rate().await?;
        run.scores.set(&name(self.network), rate);
        let Some(score) = self.monitor.score(&run.scores)? else { return Ok(()) };
        let Some(lower) = self.rule.observe(score, rate) else { return Ok(()) };
        network.set_learning_rate(lower).await?;
        if self.verbose {
            say(&format!("\nEpoch {}: ReduceLROnPlateau reducing learning rate to {lower}.", run.epoch + 1));
        }
        Ok(())
    }
}

impl Callback for ReduceLROnPlateau {
    fn on_train_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        let begun = self.begin();
        Box::pin(ready(begun))
    }

    fn state(&self) -> Option<CallbackState> {
        let state = CallbackState::new("reduce_lr_on_plateau").with("best", self.rule.best);
        Some(state.with_count("waited", self.rule.waited).with_count("cooling", self.rule.cooling))
    }

    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        self.rule.best = state.number("best");
        self.rule.waited = state.count("waited").unwrap_or(0);
        self.rule.cooling = state.count("cooling").unwrap_or(0);
        Ok(())
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(self.look(run))
    }
}
