//! [`ModelCheckpoint`]: weights as a file after an epoch. Deliberately absent: optimizer and progress, see
//! [`save_weights`](crate::model::Functional::save_weights).

#![cfg(not(target_arch = "wasm32"))]

use std::path::PathBuf;

use super::callback::{Callback, Hook, Run};
use super::monitor::{Direction, Monitor};
use super::state::CallbackState;
use crate::error::{Error, Result};

/// Saves a network's weights after every epoch, or after those that were the best so far.
///
/// ```
/// use wengert::callbacks::ModelCheckpoint;
///
/// let best = ModelCheckpoint::new("best.safetensors").save_best_only("val_accuracy");
/// let all = ModelCheckpoint::new("weights/{epoch}.safetensors");
/// ```
pub struct ModelCheckpoint {
    path: String,
    monitor: Option<Monitor>,
    network: usize,
}

impl ModelCheckpoint {
    /// Saves to a path, in which `{epoch}` stands for the number of the epoch, from 1.
    pub fn new(path: &str) -> ModelCheckpoint {
        ModelCheckpoint { path: path.into(), monitor: None, network: 0 }
    }

    /// Saves only where a score is better than ever before.
    pub fn save_best_only(mut self, monitor: &str) -> Self {
        self.monitor = Some(Monitor::new(monitor));
        self
    }

    /// Which way the score is better; told from its name unless set.
    pub fn direction(mut self, direction: Direction) -> Self {
        if let Some(monitor) = &mut self.monitor {
            monitor.direction = direction;
        }
        self
    }

    /// Saves another network than the first, by its number among [`networks`](crate::model::Model::networks).
    pub fn network(mut self, index: usize) -> Self {
        self.network = index;
        self
    }

    async fn save(&mut self, run: &Run<'_>) -> Result<()> {
        let due = match &mut self.monitor {
            Some(monitor) => monitor.better(&run.scores)?.unwrap_or(false),
            None => true,
        };
        if !due {
            return Ok(());
        }
        let Some(network) = run.networks().get(self.network) else {
            let what = format!("network {} of a model of {} cannot be saved", self.network, run.networks().len());
            return Err(Error::Argument { what });
        };
        let path = PathBuf::from(self.path.replace("{epoch}", &(run.epoch + 1).to_string()));
        network.save_weights(path).await
    }
}

impl Callback for ModelCheckpoint {
    fn state(&self) -> Option<CallbackState> {
        let monitor = self.monitor.as_ref()?;
        Some(CallbackState::new("model_checkpoint").with("best", monitor.best))
    }

    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        if let Some(monitor) = &mut self.monitor {
            monitor.best = state.number("best");
        }
        Ok(())
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(self.save(run))
    }
}
