//! [`Callback`]: hooks around epochs and steps, and [`Run`]: what they see.
//!
//! Hooks return futures, since saving or reading waits for the device; the default ones are empty. They get the run,
//! never the model: what may be changed from outside a step (the learning rate, stopping) has a method, and what a step
//! froze cannot be changed unnoticed. Deliberately absent: numbers read for every step; [`Run::read_logs`] is there for
//! callbacks that want to wait. The order and the numbers are those of Keras 3: callbacks in the order given and the bar
//! last, so that it and the history have what callbacks add to the scores; with 16 steps per execution the hooks of
//! batches come with 0 and 15, 16 and 31, and so on.

use futures::future::{LocalBoxFuture, ready};

use super::state::CallbackState;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::model::{Checkpoint, Functional, Scores};
use crate::step::Logs;

/// What a hook returns: `Box::pin(async move { ... })`.
pub type Hook<'a> = LocalBoxFuture<'a, Result<()>>;

/// The hook that does nothing.
pub fn nothing<'a>() -> Hook<'a> {
    Box::pin(ready(Ok(())))
}

macro_rules! hooks {
    ($($(#[$doc:meta])+ $hook:ident)*) => {
        /// Something that happens around the steps of `fit`, `evaluate` and `predict`. An error ends the loop and is
        /// returned by the entry point; the model keeps its newest complete state, and no further hook is called.
        pub trait Callback {
            $($(#[$doc])+
            fn $hook<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
                let _ = run;
                nothing()
            })*

            /// After the hooks of a moment in which a callback asked for a [`checkpoint`](Run::checkpoint). All
            /// callbacks see it, whoever asked.
            fn on_checkpoint<'a>(&'a mut self, checkpoint: &'a Checkpoint, run: &'a mut Run<'_>) -> Hook<'a> {
                let _ = (checkpoint, run);
                nothing()
            }

            /// What must be in a checkpoint for the callback to go on where it was; nothing for one that remembers
            /// nothing. Asked before `restore` too, for the kind.
            fn state(&self) -> Option<CallbackState> {
                None
            }

            /// Goes on from a state of this kind, after `on_train_begin`. If the training goes on in the middle of an
            /// epoch, once more after `on_epoch_begin`, which so leaves no trace a second time.
            fn restore(&mut self, state: &CallbackState) -> Result<()> {
                let _ = state;
                Ok(())
            }
        }
    };
}

hooks! {
    /// Before the first epoch.
    on_train_begin
    /// After the last epoch, or the one that stopped.
    on_train_end
    /// Before an epoch, after the metrics were reset.
    on_epoch_begin
    /// After an epoch and its validation; [`Run::scores`] are the epoch's, and what is added to them goes to the history
    /// and the bar.
    on_epoch_end
    /// Before a submission (of one step, or of as many as are fused); [`Run::batch`] is its first batch.
    on_batch_begin
    /// After a submission, of which [`Run::batch`] is the last batch. The device may still be at work on it.
    on_batch_end
    /// Before an evaluation, that of `evaluate` or the validation of `fit`, after the metrics were reset.
    on_test_begin
    /// After an evaluation, whose scores are [`Run::scores`].
    on_test_end
    /// Before a batch of evaluation.
    on_test_batch_begin
    /// After a batch of evaluation was submitted.
    on_test_batch_end
    /// Before a prediction.
    on_predict_begin
    /// After a prediction.
    on_predict_end
    /// Before a batch of prediction.
    on_predict_batch_begin
    /// After a batch of prediction was submitted.
    on_predict_batch_end
}

/// A training, evaluation or prediction that is going on.
pub struct Run<'m> {
    /// Number of the epoch, from 0.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Steps of this epoch, evaluation or prediction that were submitted.
    pub step: usize,
    /// Steps of an epoch, evaluation or prediction; 0 where their number is not known before they end.
    pub steps: usize,
    /// Number of the batch that a hook is called for, from 0: before a submission its first, afterwards its last.
    pub batch: usize,
    /// The newest complete epoch's numbers, or those of an evaluation that ended.
    pub scores: Scores,
    /// Set to end what is going on: no further step is taken. An epoch that has begun its steps is still validated and
    /// reported; a validation is
    /// finished and ends the training then; an evaluation has the scores of what it has seen.
    pub stop: bool,
    /// Whether this is the validation of a training.
    pub validating: bool,
    pub(crate) checkpoint: bool,
    pub(crate) resume: Option<Checkpoint>,
    logs: Logs,
    networks: Vec<&'m Functional>,
}

impl<'m> Run<'m> {
    pub(crate) fn new(networks: Vec<&'m Functional>, epochs: usize, steps: usize) -> Run<'m> {
        let (scores, logs) = (Scores::default(), Logs::default());
        let (stop, validating, checkpoint, resume) = (false, false, false, None);
        Run { epoch: 0, epochs, step: 0, steps, batch: 0, scores, stop, validating, checkpoint, resume, logs, networks }
    }

    /// The validation, of so many steps, of this training.
    pub(crate) fn validation(&self, steps: usize) -> Run<'m> {
        let run = Run::new(self.networks.clone(), self.epochs, steps);
        Run { epoch: self.epoch, validating: true, ..run }
    }

    pub(crate) fn start_epoch(&mut self, epoch: usize) {
        self.epoch = epoch;
        self.step = 0;
        self.batch = 0;
        self.logs = Logs::default();
    }

    pub(crate) fn start_step(&mut self) {
        self.batch = self.step;
    }

    pub(crate) fn finish_step(&mut self, steps: usize, logs: Logs) {
        self.step += steps;
        self.batch = self.step.saturating_sub(1);
        self.logs = logs;
    }

    /// Asks for a checkpoint of the training, which [`on_checkpoint`](Callback::on_checkpoint) gets as soon as all
    /// callbacks have had this hook. After the last step of an epoch, and in its validation, that is when the epoch has
    /// ended, so that a training never goes on between its last step and its validation. Outside of a training there
    /// is nothing to take a checkpoint of.
    pub fn checkpoint(&mut self) {
        self.checkpoint = true;
    }

    /// Goes on from a checkpoint: in `on_train_begin`, before which no other callback may rely on the variables.
    pub fn resume_from(&mut self, checkpoint: Checkpoint) {
        self.resume = Some(checkpoint);
    }

    /// The logs of the newest step, on the device.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Waits for the newest step and reads its logs.
    pub async fn read_logs(&self) -> Result<Scores> {
        Ok(self.logs.read().await?.into_iter().map(|(name, value)| (name, f64::from(value))).collect())
    }

    /// The networks in training, with their learning rates and variables.
    pub fn networks(&self) -> &[&'m Functional] {
        &self.networks
    }

    /// A network by its number among [`networks`](crate::model::Model::networks).
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument) if there are not so many.
    pub fn network(&self, index: usize) -> Result<&'m Functional> {
        self.networks.get(index).copied().ok_or_else(|| {
            Error::argument(format!("there is no network {index} among {}; they count from 0", self.networks.len()))
        })
    }

    /// The learning rate of the first network's optimizer.
    pub async fn learning_rate(&self) -> Result<f64> {
        match self.networks.first() {
            Some(network) => network.learning_rate().await,
            None => Ok(f64::NAN),
        }
    }

    /// Sets the learning rate of the first network's optimizer; the next step uses it.
    pub async fn set_learning_rate(&self, rate: f64) -> Result<()> {
        match self.networks.first() {
            Some(network) => network.set_learning_rate(rate).await,
            None => Ok(()),
        }
    }

    /// The first network's variables as they are after the newest step, by name. They keep these values, whatever the
    /// training does next.
    pub fn variables(&self) -> Result<Vec<(String, Tensor)>> {
        self.networks.first().map_or(Ok(Vec::new()), |network| network.variables())
    }
}

/// The variables of all networks at one moment. The device keeps the values, so nothing is read back.
#[derive(Clone, Debug)]
pub struct Snapshot(Vec<Vec<(usize, Tensor)>>);

impl Snapshot {
    /// The variables with names, for the state of a callback.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let of = |(network, variables): (usize, &Vec<(usize, Tensor)>)| -> Vec<(String, Tensor)> {
            variables.iter().map(|(at, tensor)| (format!("snapshot/{network}/{at}"), tensor.clone())).collect()
        };
        self.0.iter().enumerate().flat_map(of).collect()
    }

    /// The snapshot in the state of a callback, if there is one.
    pub fn of(state: &CallbackState) -> Option<Snapshot> {
        let mut networks: Vec<Vec<(usize, Tensor)>> = Vec::new();
        for (name, tensor) in state.tensors() {
            let Some((network, at)) = name.strip_prefix("snapshot/").and_then(|rest| rest.split_once('/')) else {
                continue;
            };
            let (Ok(network), Ok(at)) = (network.parse::<usize>(), at.parse::<usize>()) else { continue };
            // Names are in the order of their letters: 10 comes before 2. A number beyond any model is no network's.
            if network < state.tensors().len() {
                networks.resize(networks.len().max(network + 1), Vec::new());
                networks[network].push((at, tensor.clone()));
            }
        }
        Some(Snapshot(networks)).filter(|snapshot| !snapshot.0.is_empty())
    }
}

impl Run<'_> {
    /// The variables of all networks as they are after the newest step.
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::error::ErrorKind::State) inside a step.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let of = |network: &&Functional| {
            Ok(network.variables()?.into_iter().map(|(_, tensor)| tensor).enumerate().collect())
        };
        self.networks.iter().map(of).collect::<Result<_>>().map(Snapshot)
    }

    /// Gives all networks the variables of a snapshot; their optimizers stay as they are.
    pub async fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        for (network, variables) in self.networks.iter().zip(&snapshot.0) {
            network.assign(&network.device().await?, variables)?;
        }
        Ok(())
    }
}
