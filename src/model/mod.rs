//! Models: what is trained, and how. [`Model`] has the override points, [`Train`] the entry points.
//!
//! Floor 4. A step is a pure function of a state tuple, as in Keras' guide on customising `fit` with JAX; every method
//! of [`Model`] has a working default, so a model overrides what it changes and keeps the rest: callbacks, progress
//! bar, History, validation, step fusing. State lives in [`Functional`], is lent to a step while it runs, and is handed
//! back whatever happens. Deliberately absent: a way to override an entry point by accident (they come with a blanket
//! implementation), and grouping of state that the case of one network and one optimizer would have to see.

mod checkpoint;
mod compile;
pub(crate) mod crc;
mod fit;
mod functional;
mod header;
mod history;
mod options;
mod outputs;
mod resume;
mod source;
mod state;
mod tensors;
mod train;
mod weights;
mod work;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use checkpoint::Arrived;
pub use checkpoint::{AskedCheckpoint, Checkpoint, DataOrder, Progress};
pub use functional::Functional;
pub use history::{History, Scores};
pub use options::{Compile, Evaluate, Fit, LossWeights, Predict, Verbose};
pub use source::{Source, Stream};
pub use state::{NetworkState, PredictState, TestState, TrainState};
pub use train::Train;
pub use weights::{Layout, LoadWeights, Loaded, Rename};

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::grad::value_and_grad;
use crate::graph::Tensor;
use crate::layers::{Mode, Variables};
use crate::metrics::Metric;
use crate::optimizers::Optimizer;
use crate::step::Logs;
use crate::threads::{MaybeSend, MaybeSync};

/// What is trained. A struct of one's own holds a [`Functional`] and overrides what it wants otherwise.
///
/// The steps are *recorded*: they see stand-ins for state and batch, run once for each shape of batch, and must be
/// pure. A counter, a random number or a decision taken on the host would be frozen into them, so it is an error.
pub trait Model: MaybeSend + MaybeSync {
    /// The network with its state and what `compile` was given.
    fn base(&self) -> &Functional;

    /// The same, to be changed.
    fn base_mut(&mut self) -> &mut Functional;

    /// All networks whose variables make up the state, in the order of the state, the first of them
    /// [`base`](Model::base). One unless overridden.
    fn networks(&self) -> Vec<&Functional> {
        vec![self.base()]
    }

    /// The metrics whose variables are the last part of the state: a tracker named "loss", with several losses one for each
    /// of them, then those of `compile`.
    /// `fit` resets all of them at the start of every epoch, `evaluate` at its own.
    fn metrics(&self) -> Vec<Metric> {
        self.base().metrics()
    }

    /// The optimizer of the first network.
    fn optimizer(&self) -> &Optimizer {
        self.base().optimizer()
    }

    /// The forward pass with explicit variables: outputs and the new non-trainable variables.
    fn stateless_call(
        &self,
        trainable: &[Tensor],
        non_trainable: &[Tensor],
        x: &Tensor,
        mode: Mode,
    ) -> Result<(Tensor, Variables)> {
        self.base().stateless_call(trainable, non_trainable, x, mode)
    }

    /// The forward pass for any number of inputs and outputs, in the network's order. For one of each it is
    /// [`stateless_call`](Model::stateless_call).
    fn stateless_call_all(
        &self,
        trainable: &[Tensor],
        non_trainable: &[Tensor],
        inputs: &[Tensor],
        mode: Mode,
    ) -> Result<(Vec<Tensor>, Variables)> {
        match inputs {
            [x] if self.base().output_names().len() == 1 => {
                let (y_pred, updated) = self.stateless_call(trainable, non_trainable, x, mode)?;
                Ok((vec![y_pred], updated))
            }
            _ => self.base().network().call(trainable, non_trainable, inputs, mode),
        }
    }

    /// The loss of `compile`, one number.
    fn compute_loss(&self, x: &Tensor, y: &Tensor, y_pred: &Tensor, sample_weight: Option<&Tensor>) -> Result<Tensor> {
        let _ = x;
        self.base().compute_loss(y, y_pred, sample_weight)
    }

    /// The loss for any number of outputs, and what each of them contributed, before its weight. For one output it is
    /// [`compute_loss`](Model::compute_loss), which is given the first input, and nothing to each.
    fn compute_losses(&self, batch: &Batch, y_pred: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        match (batch.inputs.as_slice(), batch.targets.as_slice(), y_pred) {
            ([x, ..], [y], [y_pred]) => {
                self.base().check_weights(batch)?;
                Ok((self.compute_loss(x, y, y_pred, batch.weight_of(0))?, Vec::new()))
            }
            _ => self.base().compute_losses(batch, y_pred),
        }
    }

    /// The loss, the predictions and the new non-trainable variables: what [`value_and_grad`] is given.
    fn compute_loss_and_updates(
        &self,
        trainable: &[Tensor],
        non_trainable: &[Tensor],
        x: &Tensor,
        y: &Tensor,
        mode: Mode,
    ) -> Result<(Tensor, (Tensor, Variables))> {
        let (y_pred, non_trainable) = self.stateless_call(trainable, non_trainable, x, mode)?;
        let loss = self.compute_loss(x, y, &y_pred, None)?;
        Ok((loss, (y_pred, non_trainable)))
    }

    /// One update: `(logs, state)` from state and batch. Of several networks the first is trained, and the others stay as
    /// they are.
    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (mut trainable, mut non_trainable, mut optimizer, metrics) = state;
        let (own, fixed) = self.base().counts();
        let others = trainable.split_off(own.min(trainable.len()));
        let other_fixed = non_trainable.split_off(fixed.min(non_trainable.len()));
        let other_optimizers = optimizer.split_off(1.min(optimizer.len()));
        let ((loss, (each, y_pred, non_trainable)), gradients) = value_and_grad(
            |trainable| {
                let (y_pred, updated) =
                    self.stateless_call_all(trainable, &non_trainable, &batch.inputs, Mode::Train)?;
                let (loss, each) = self.compute_losses(&batch, &y_pred)?;
                Ok((loss, (each, y_pred, updated)))
            },
            &trainable,
        )?;
        let (mut trainable, mut optimizer) = self.optimizer().stateless_apply(&optimizer, &gradients, &trainable)?;
        let (logs, metrics) = self.update_metrics(metrics, &batch, (&loss, &each), &y_pred)?;
        let mut non_trainable = non_trainable;
        trainable.extend(others);
        non_trainable.extend(other_fixed);
        optimizer.extend(other_optimizers);
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }

    /// One batch of evaluation: as [`train_step`](Model::train_step), without an update. Of several networks the first
    /// is evaluated.
    fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
        let (trainable, non_trainable, metrics) = state;
        let (own, fixed) = first_of(self.base(), &trainable, &non_trainable);
        let (y_pred, _) = self.stateless_call_all(own, fixed, &batch.inputs, Mode::Infer)?;
        let (loss, each) = self.compute_losses(&batch, &y_pred)?;
        let (logs, metrics) = self.update_metrics(metrics, &batch, (&loss, &each), &y_pred)?;
        Ok((logs, (trainable, non_trainable, metrics)))
    }

    /// The predictions for one batch, one row for each of its rows: those of the first network, which has one output.
    fn predict_step(&self, state: PredictState, batch: Batch) -> Result<Tensor> {
        let (own, fixed) = first_of(self.base(), &state.0, &state.1);
        match batch.inputs.as_slice() {
            [x] => Ok(self.stateless_call(own, fixed, x, Mode::Infer)?.0),
            _ => {
                let mut outputs = self.stateless_call_all(own, fixed, &batch.inputs, Mode::Infer)?.0;
                match (outputs.pop(), outputs.len()) {
                    (Some(only), 0) => Ok(only),
                    (_, others) => {
                        Err(Error::state(format!("the network has {} outputs; predict_all returns them", others + 1)))
                    }
                }
            }
        }
    }

    /// The predictions of every output of the first network, for `predict_all`.
    fn predict_step_all(&self, state: PredictState, batch: Batch) -> Result<Vec<Tensor>> {
        let (own, fixed) = first_of(self.base(), &state.0, &state.1);
        Ok(self.stateless_call_all(own, fixed, &batch.inputs, Mode::Infer)?.0)
    }
}

/// The variables of a model's first network among those of all.
fn first_of<'s>(
    network: &Functional,
    trainable: &'s [Tensor],
    non_trainable: &'s [Tensor],
) -> (&'s [Tensor], &'s [Tensor]) {
    let (own, fixed) = network.counts();
    (&trainable[..own.min(trainable.len())], &non_trainable[..fixed.min(non_trainable.len())])
}

impl Model for Functional {
    fn base(&self) -> &Functional {
        self
    }

    fn base_mut(&mut self) -> &mut Functional {
        self
    }
}
