//! [`Work`]: one step of training, evaluation or prediction.
//!
//! An entry point asks a model for its networks and metrics once; after that a step borrows the state, replays, and
//! hands it back. Deliberately absent: waiting, loops and numbers, which are `fit`'s.

use super::functional::Functional;
use super::state::{Loan, Part};
use super::{Model, PredictState, TestState, TrainState};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::graph::{Spec, Tensor, Tree, nowhere};
use crate::layers::Variables;
use crate::metrics::Metric;
use crate::step::{Logs, assign_all, part_from_holders};

/// A model at work, and what was asked of it at the beginning.
pub(super) struct Work<'m, M: ?Sized> {
    pub model: &'m M,
    pub device: Device,
    pub networks: Vec<&'m Functional>,
    pub metrics: Vec<Metric>,
    /// First values of the metrics' variables.
    pub initial: Vec<Variables>,
    /// Changes with everything that makes another step of the same function.
    generation: u64,
}

/// Where a predict step leaves its outputs, for each generation of the model and shapes of a batch.
pub(super) type Output = (u64, Vec<Spec>, Tensor);

/// Places kept for outputs.
const OUTPUTS: usize = 16;

/// Whether every network has an optimizer: known before any device is opened.
pub(super) fn ready_to_train<M: Model + ?Sized>(model: &M) -> Result<()> {
    let compiled = model.networks().iter().all(|network| network.settings.compiled);
    if compiled { Ok(()) } else { Err(Error::NotCompiled { needs: "an optimizer" }) }
}

impl<'m, M: Model + ?Sized> Work<'m, M> {
    /// Opens the default device if none of the networks has one; all of them work on the same.
    pub async fn new(model: &'m M) -> Result<Work<'m, M>> {
        let networks = model.networks();
        let base = model.base();
        if !networks.first().is_some_and(|first| std::ptr::eq(*first, base)) {
            return Err(Error::State { what: "the first of a model's networks() must be its base()".into() });
        }
        let device = match networks.iter().find_map(|network| network.chosen()) {
            Some(device) => device,
            None => base.device().await?,
        };
        networks.iter().try_for_each(|network| network.join(&device))?;
        let metrics = model.metrics();
        let initial = metrics.iter().map(Metric::initial).collect();
        let generation = networks.iter().map(|network| network.settings.generation).sum();
        Ok(Work { model, device, networks, metrics, initial, generation })
    }

    pub fn networks(&self) -> Vec<&'m Functional> {
        self.networks.clone()
    }

    fn borrow(&self) -> Result<Loan<'_>> {
        Loan::take(&self.networks, &self.initial, &self.metrics)
    }

    /// Replays the train step for each batch, in one submission.
    pub fn train(&self, batches: &[Batch]) -> Result<Logs> {
        let mut loan = self.borrow()?;
        let f = |state: TrainState, batch: &Batch| {
            let before = state.3.clone();
            let (logs, state) = self.model.train_step(state, batch.clone())?;
            let logs = self.report(logs, &before, &state.3)?;
            Ok((logs, state))
        };
        let (state, steps) = loan.parts(&self.device);
        steps.train.run_tagged(self.generation, state, batches, f)
    }

    /// Replays the test step.
    pub fn test(&self, batch: &Batch) -> Result<Logs> {
        let mut loan = self.borrow()?;
        let f = |state: TestState, batch: &Batch| {
            let before = state.2.clone();
            let (logs, state) = self.model.test_step(state, batch.clone())?;
            let logs = self.report(logs, &before, &state.2)?;
            Ok((logs, state))
        };
        let (state, steps) = loan.parts(&self.device);
        let mut part: Part<'_, TestState> = Part::of(state);
        steps.test.run_tagged(self.generation, &mut part.state, std::slice::from_ref(batch), f)
    }

    /// Replays the predict step. The outputs, on the device, keep their values while somebody holds them.
    pub fn predict(&self, batch: &Batch) -> Result<Tensor> {
        let mut loan = self.borrow()?;
        let (state, steps) = loan.parts(&self.device);
        let specs: Vec<Spec> = batch.leaves().iter().filter_map(|tensor| tensor.spec().cloned()).collect();
        let known = steps.outputs.iter().position(|output| (output.0, &output.1) == (self.generation, &specs));
        let output = match known {
            Some(at) => steps.outputs.remove(at).2,
            None => self.room_for_outputs(state, batch)?,
        };
        let mut part: Part<'_, (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>)> = Part::of(state);
        part.state.2 = vec![output];
        let f = |(trainable, non_trainable, _): (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>), batch: &Batch| {
            let output = self.model.predict_step((trainable.clone(), non_trainable.clone()), batch.clone())?;
            Ok((Logs::default(), (trainable, non_trainable, vec![output])))
        };
        steps.predict.run_tagged(self.generation, &mut part.state, std::slice::from_ref(batch), f)?;
        let Some(output) = part.state.2.pop() else {
            return Err(Error::State { what: "the predict step lost its outputs".into() });
        };
        if steps.outputs.len() == OUTPUTS {
            steps.outputs.remove(0);
        }
        steps.outputs.push((self.generation, specs, output.clone()));
        Ok(output)
    }

    /// A tensor like the outputs for such a batch, found by recording the step once. It is a part of the state that
    /// every run overwrites.
    fn room_for_outputs(&self, state: &TrainState, batch: &Batch) -> Result<Tensor> {
        let stand_in = |t: &Tensor| match t.spec() {
            Some(spec) => Tensor::placeholder(spec.clone(), nowhere()),
            None => t.clone(),
        };
        let state: PredictState = (state.0.map(&mut { stand_in }), state.1.map(&mut { stand_in }));
        let output = self.model.predict_step(state, batch.map(&mut { stand_in }))?;
        let (node, index) = output.node()?;
        let spec = node.outputs()[index].clone();
        Tensor::from_bits(vec![0; spec.shape.numel()].into(), spec, nowhere()).to(&self.device)
    }

    /// Sets the metrics' variables to their initial values, in place where they lie on the device.
    pub fn reset(&self) -> Result<()> {
        let mut loan = self.borrow()?;
        // A checkpoint that is not read yet keeps its values.
        loan.state.3.iter_mut().try_for_each(|variables| part_from_holders(&self.device, variables))?;
        let targets = loan.state.3.iter().flatten().cloned();
        let values = self.initial.iter().flatten().cloned();
        assign_all(&self.device, &targets.zip(values).collect::<Vec<_>>())
    }

    /// The results of the metrics that the step updated, then whatever else it logged: an epoch's scores are those of
    /// its metrics. A metric that the step left alone saw nothing and has no result.
    fn report(&self, logs: Logs, before: &[Variables], after: &[Variables]) -> Result<Logs> {
        if before.len() != after.len() {
            let (had, have) = (before.len(), after.len());
            let what = format!("the step was given the variables of {had} metrics and returned those of {have}");
            return Err(Error::State { what });
        }
        let same = |a: &Variables, b: &Variables| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b));
        let mut all: Logs = (self.metrics.iter().zip(before.iter().zip(after)))
            .filter(|(_, (before, after))| !same(before, after))
            .map(|(metric, (_, after))| (metric.name().to_string(), metric.stateless_result(after)))
            .collect();
        for (name, value) in logs.iter() {
            if all.get(name).is_none() {
                all.push(name, value.clone());
            }
        }
        Ok(all)
    }
}
