//! [`Callback`]: hooks around epochs and steps, and [`Run`]: what they see.
//!
//! Hooks return futures, since saving or reading waits for the device; the default ones are empty. They get the run,
//! never the model: what may be changed from outside a step (the learning rate, stopping) has a method, and what a step
//! froze cannot be changed unnoticed. Deliberately absent: numbers read for every step; [`Run::read_logs`] is there for
//! callbacks that want to wait.

use futures::future::{LocalBoxFuture, ready};

use super::state::CallbackState;
use crate::error::Result;
use crate::graph::Tensor;
use crate::model::{Checkpoint, Functional, Scores};
use crate::step::Logs;

/// What a hook returns: `Box::pin(async move { ... })`.
pub type Hook<'a> = LocalBoxFuture<'a, Result<()>>;

/// The hook that does nothing.
pub fn nothing<'a>() -> Hook<'a> {
    Box::pin(ready(Ok(())))
}

/// Something that happens around the steps of `fit`. An error ends the training and is returned by `fit`; the model
/// keeps its newest complete state, and no further hook is called.
pub trait Callback {
    /// Before the first epoch.
    fn on_train_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let _ = run;
        nothing()
    }

    /// After the last epoch, or the one that stopped.
    fn on_train_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let _ = run;
        nothing()
    }

    /// Before an epoch, after the metrics were reset.
    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let _ = run;
        nothing()
    }

    /// After an epoch and its validation; [`Run::scores`] are the epoch's.
    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let _ = run;
        nothing()
    }

    /// Before a submission (of one step, or of as many as are fused).
    fn on_batch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let _ = run;
        nothing()
    }

    /// After a submission. The device may still be at work on it.
    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let _ = run;
        nothing()
    }

    /// After the hooks of a moment in which a callback asked for a [`checkpoint`](Run::checkpoint). All callbacks see
    /// it, whoever asked.
    fn on_checkpoint<'a>(&'a mut self, checkpoint: &'a Checkpoint, run: &'a mut Run<'_>) -> Hook<'a> {
        let _ = (checkpoint, run);
        nothing()
    }

    /// What must be in a checkpoint for the callback to go on where it was; nothing for one that remembers nothing.
    /// Asked before `restore` too, for the kind.
    fn state(&self) -> Option<CallbackState> {
        None
    }

    /// Goes on from a state of this kind, after `on_train_begin`.
    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

/// A training that is going on.
pub struct Run<'m> {
    /// Number of the epoch, from 0.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Steps of this epoch that were submitted.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// The newest complete epoch's numbers.
    pub scores: Scores,
    /// Set to end the training: no further step is taken. The epoch, if one is going on, is still validated and
    /// reported.
    pub stop: bool,
    pub(crate) checkpoint: bool,
    pub(crate) resume: Option<Checkpoint>,
    logs: Logs,
    networks: Vec<&'m Functional>,
}

impl<'m> Run<'m> {
    pub(crate) fn new(networks: Vec<&'m Functional>, epochs: usize, steps: usize) -> Run<'m> {
        let (scores, logs) = (Scores::default(), Logs::default());
        Run { epoch: 0, epochs, step: 0, steps, scores, stop: false, checkpoint: false, resume: None, logs, networks }
    }

    pub(crate) fn start_epoch(&mut self, epoch: usize) {
        self.epoch = epoch;
        self.step = 0;
        self.logs = Logs::default();
    }

    pub(crate) fn finish_step(&mut self, steps: usize, logs: Logs) {
        self.step += steps;
        self.logs = logs;
    }

    /// Asks for a checkpoint of the training, which [`on_checkpoint`](Callback::on_checkpoint) gets as soon as all
    /// callbacks have had this hook. After the last step of an epoch that is when the epoch has ended, so that a
    /// training never goes on between its last step and its validation.
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
    /// [`Error::State`](crate::error::Error::State) inside a step.
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

/// What a [`LambdaCallback`] calls.
type Function<'f> = Option<Box<dyn FnMut(&mut Run<'_>) + 'f>>;

/// A callback made of closures that need not wait.
#[derive(Default)]
pub struct LambdaCallback<'f> {
    epoch_begin: Function<'f>,
    epoch_end: Function<'f>,
    batch_end: Function<'f>,
}

impl<'f> LambdaCallback<'f> {
    /// A callback that does nothing yet.
    pub fn new() -> LambdaCallback<'f> {
        LambdaCallback::default()
    }

    /// Called before each epoch.
    pub fn on_epoch_begin(mut self, f: impl FnMut(&mut Run<'_>) + 'f) -> Self {
        self.epoch_begin = Some(Box::new(f));
        self
    }

    /// Called after each epoch.
    pub fn on_epoch_end(mut self, f: impl FnMut(&mut Run<'_>) + 'f) -> Self {
        self.epoch_end = Some(Box::new(f));
        self
    }

    /// Called after each submission.
    pub fn on_batch_end(mut self, f: impl FnMut(&mut Run<'_>) + 'f) -> Self {
        self.batch_end = Some(Box::new(f));
        self
    }
}

fn call<'a>(function: &mut Function<'_>, run: &mut Run<'_>) -> Hook<'a> {
    if let Some(function) = function {
        function(run);
    }
    nothing()
}

impl Callback for LambdaCallback<'_> {
    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        call(&mut self.epoch_begin, run)
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        call(&mut self.epoch_end, run)
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        call(&mut self.batch_end, run)
    }
}
