//! Models: what is trained, and how. [`Model`] has the override points, [`Train`] the entry points.
//!
//! Floor 4. A step is a pure function of a state tuple, as in Keras' guide on customising `fit` with JAX; every method
//! of [`Model`] has a working default, so a model overrides what it changes and keeps the rest: callbacks, progress
//! bar, History, validation, step fusing. State lives in [`Functional`], is lent to a step while it runs, and is handed
//! back whatever happens. Deliberately absent: a way to override an entry point by accident (they come with a blanket
//! implementation), and grouping of state that the case of one network and one optimizer would have to see.

mod checkpoint;
mod fit;
mod functional;
mod history;
mod options;
mod resume;
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
pub use options::{Compile, Evaluate, Fit, Predict, Verbose};
pub use state::{NetworkState, PredictState, TestState, TrainState};
pub use train::Train;
pub use weights::{Layout, LoadWeights, Loaded, Rename};

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::grad::value_and_grad;
use crate::graph::Tensor;
use crate::layers::{Mode, Variables};
use crate::metrics::{Metric, Observed};
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

    /// The metrics whose variables are the last part of the state: a tracker named "loss", then those of `compile`.
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

    /// The loss of `compile`, one number.
    fn compute_loss(&self, x: &Tensor, y: &Tensor, y_pred: &Tensor, sample_weight: Option<&Tensor>) -> Result<Tensor> {
        let _ = x;
        let loss = self.base().loss().ok_or(Error::NotCompiled { needs: "a loss" })?;
        loss.call(y, y_pred, sample_weight).ok().cloned()
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

    /// One update: `(logs, state)` from state and batch.
    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y, weight) = batch.xyw()?;
        let ((loss, (y_pred, non_trainable)), gradients) = value_and_grad(
            |trainable| {
                let (y_pred, updated) = self.stateless_call(trainable, &non_trainable, &x, Mode::Train)?;
                let loss = self.compute_loss(&x, &y, &y_pred, weight.as_ref())?;
                Ok((loss, (y_pred, updated)))
            },
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &gradients, &trainable)?;
        let (logs, metrics) = update_metrics(self.metrics(), metrics, &loss, &y, &y_pred, weight.as_ref());
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }

    /// One batch of evaluation: as [`train_step`](Model::train_step), without an update.
    fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
        let (trainable, non_trainable, metrics) = state;
        let (x, y, weight) = batch.xyw()?;
        let (y_pred, _) = self.stateless_call(&trainable, &non_trainable, &x, Mode::Infer)?;
        let loss = self.compute_loss(&x, &y, &y_pred, weight.as_ref())?;
        let (logs, metrics) = update_metrics(self.metrics(), metrics, &loss, &y, &y_pred, weight.as_ref());
        Ok((logs, (trainable, non_trainable, metrics)))
    }

    /// The predictions for one batch, one row for each of its rows: those of the first network.
    fn predict_step(&self, state: PredictState, batch: Batch) -> Result<Tensor> {
        let (mut trainable, mut non_trainable) = state;
        let (own, fixed) = self.base().counts();
        trainable.truncate(own);
        non_trainable.truncate(fixed);
        Ok(self.stateless_call(&trainable, &non_trainable, &batch.x()?, Mode::Infer)?.0)
    }
}

/// Keras' rule: the loss tracker weighs each batch by its size, every other metric sees targets and predictions.
fn update_metrics(
    metrics: Vec<Metric>,
    variables: Vec<Variables>,
    loss: &Tensor,
    y: &Tensor,
    y_pred: &Tensor,
    weight: Option<&Tensor>,
) -> (Logs, Vec<Variables>) {
    let update = |(metric, variables): (Metric, Variables)| {
        let observed = match metric.name() {
            "loss" => Observed::value(loss).weighted(&Tensor::scalar(y.dim(0) as f32)),
            _ => Observed::pair(y, y_pred).weighted(weight),
        };
        let variables = metric.stateless_update_state(&variables, observed);
        ((metric.name().to_string(), metric.stateless_result(&variables)), variables)
    };
    metrics.into_iter().zip(variables).map(update).unzip()
}

impl Model for Functional {
    fn base(&self) -> &Functional {
        self
    }

    fn base_mut(&mut self) -> &mut Functional {
        self
    }
}
