//! [`Work`]: one step of training, evaluation or prediction.
//!
//! An entry point asks a model for its networks and metrics once; after that a step borrows the state, replays, and
//! hands it back. Deliberately absent: waiting, loops and numbers, which are `fit`'s.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::functional::Functional;
use super::state::{Loan, Part, fit_metrics};
use super::{Model, PredictState, TestState, TrainState};
use crate::data::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Device;
use crate::graph::{Spec, Tensor, Tree, nowhere};
use crate::layers::Variables;
use crate::metrics::Metric;
use crate::plan::Memory;
use crate::step::{Logs, Step, Tuned, assign_all, part_from_holders, tune};

/// A model at work, and what was asked of it at the beginning.
pub(super) struct Work<'m, M: ?Sized> {
    pub model: &'m M,
    pub device: Device,
    pub networks: Vec<&'m Functional>,
    pub metrics: Vec<Metric>,
    /// First values of the metrics' variables.
    pub initial: Vec<Variables>,
    /// Changes with the kind of model and everything else that makes another step of the same network.
    generation: u64,
    /// Whether steps are called for every batch instead of recorded.
    eager: bool,
    /// Whether steps look for numbers that are none.
    debug_nans: bool,
}

/// Where a predict step leaves its outputs, for each tag of a step and shapes of a batch.
pub(super) type Output = (u64, Vec<Spec>, Vec<Tensor>);

/// Places kept for outputs.
const OUTPUTS: usize = 16;

/// Whether every network can be trained: known before any device is opened.
pub(super) fn ready_to_train<M: Model + ?Sized>(model: &M) -> Result<()> {
    let networks = model.networks();
    networks.iter().enumerate().try_for_each(|(at, network)| match network.ready_to_train() {
        Err(error) if at > 0 && matches!(error.kind(), ErrorKind::NotCompiled { .. }) => {
            Err(Error::new(ErrorKind::NotCompiled { needs: "an optimizer for each of its networks" }))
        }
        ready => ready,
    })
}

/// Calls a step on the state itself instead of recording it, so that everything in it can be read. What it returns
/// goes where a recorded step would have put it, by way of a recorded step that does nothing else.
fn eagerly<S: Tree>(
    device: &Device,
    step: &mut Step,
    tag: u64,
    state: &mut S,
    batch: &Batch,
    f: impl Fn(S, &Batch) -> Result<(Logs, S)>,
) -> Result<Logs> {
    for tensor in state.leaves().iter().chain(&batch.leaves()) {
        tensor.to(device)?;
    }
    let (logs, new) = f(state.map(&mut |tensor| tensor.clone()), batch)?;
    let (names, values): (Vec<String>, Vec<Tensor>) = logs.iter().map(|(n, t)| (n.to_string(), t.clone())).unzip();
    // Logs of other names are another step, though their shapes are the same.
    let mut hasher = DefaultHasher::new();
    (tag, &names).hash(&mut hasher);
    let f = |_: S, (new, values): &(S, Vec<Tensor>)| {
        let logs = names.iter().cloned().zip(values.iter().cloned()).collect();
        Ok((logs, new.map(&mut |tensor| tensor.clone())))
    };
    step.run_tagged(hasher.finish(), state, &[(new, values)], f)
}

impl<'m, M: Model + ?Sized> Work<'m, M> {
    /// Opens the default device if none of the networks has one; all of them work on the same.
    pub async fn new(model: &'m M) -> Result<Work<'m, M>> {
        let networks = model.networks();
        let base = model.base();
        if !networks.first().is_some_and(|first| std::ptr::eq(*first, base)) {
            return Err(Error::state("the first of a model's networks() must be its base()"));
        }
        let device = match networks.iter().find_map(|network| network.chosen()) {
            Some(device) => device,
            None => base.device().await?,
        };
        networks.iter().try_for_each(|network| network.join(&device))?;
        let metrics = model.metrics();
        let initial = metrics.iter().map(Metric::initial).collect();
        // A network is also used by itself besides the model it is in, whose steps are others.
        let mut hasher = DefaultHasher::new();
        let generation: u64 = networks.iter().map(|network| network.settings.generation).sum();
        (std::any::type_name::<M>(), generation).hash(&mut hasher);
        let generation = hasher.finish();
        let (eager, debug_nans) = (base.settings.run_eagerly, base.settings.debug_nans);
        Ok(Work { model, device, networks, metrics, initial, generation, eager, debug_nans })
    }

    pub fn networks(&self) -> Vec<&'m Functional> {
        self.networks.clone()
    }

    fn borrow(&self) -> Result<Loan<'_>> {
        let mut loan = Loan::take(&self.networks)?;
        // Metrics that have no variables yet, or others, get their initial ones.
        fit_metrics(&mut loan.state.3, &self.initial, &self.metrics);
        let (state, steps) = loan.parts(&self.device);
        if steps.named.replace(self.generation) != Some(self.generation) {
            let [network, optimizer, metrics] = self.names(state);
            steps.train.names(network.iter().chain(&optimizer).chain(&metrics));
            steps.test.names(network.iter().chain(&metrics));
            steps.train.watch_nans(self.debug_nans);
            steps.test.watch_nans(self.debug_nans);
        }
        Ok(loan)
    }

    /// What the variables of the networks, the optimizers and the metrics are called in plans and messages.
    fn names(&self, state: &TrainState) -> [Vec<String>; 3] {
        let several = self.networks.len() > 1;
        let (mut own, mut fixed, mut optimizer) = (Vec::new(), Vec::new(), Vec::new());
        for (index, network) in self.networks.iter().enumerate() {
            let prefix = if several { format!("{index}/") } else { String::new() };
            let variables = network.network().variables();
            let name = |trainable: bool| {
                let some = variables.iter().filter(move |variable| variable.trainable == trainable);
                some.map(|variable| format!("{prefix}{}", variable.name))
            };
            own.extend(name(true));
            fixed.extend(name(false));
            if state.2.get(index).is_some_and(|variables| !variables.is_empty()) {
                let parameters: Vec<&str> =
                    variables.iter().filter(|variable| variable.trainable).map(|variable| &*variable.name).collect();
                let paths = network.optimizer().variable_paths(&parameters);
                optimizer.extend(paths.into_iter().map(|path| format!("{prefix}{path}")));
            }
        }
        let metrics = self.metrics.iter().zip(&state.3);
        let metrics = metrics.flat_map(|(m, all)| (0..all.len()).map(|at| format!("metrics/{}/{at}", m.name())));
        own.extend(fixed);
        [own, optimizer, metrics.collect()]
    }

    /// The train step as steps take it: one type for all of them.
    fn step(&self) -> impl Fn(TrainState, &Batch) -> Result<(Logs, TrainState)> {
        |state, batch| self.train_step(state, batch)
    }

    /// The train step, with the metrics' results as logs.
    fn train_step(&self, state: TrainState, batch: &Batch) -> Result<(Logs, TrainState)> {
        let before = state.3.clone();
        let (logs, state) = self.model.train_step(state, batch.clone())?;
        let logs = self.report(logs, &before, &state.3)?;
        Ok((logs, state))
    }

    /// The memory that training on batches like this one takes; they come from the host.
    pub fn memory(&self, batch: &Batch) -> Result<Memory> {
        let mut loan = self.borrow()?;
        let (state, steps) = loan.parts(&self.device);
        let batch = like(batch);
        steps.train.memory_tagged(self.generation, state, &batch, self.step())
    }

    /// Finds the fastest variants of what the train step multiplies, see [`Step::tune`](crate::step::Step::tune).
    pub async fn tune(&self, batch: &Batch) -> Result<Vec<Tuned>> {
        let products = {
            let mut loan = self.borrow()?;
            let (state, steps) = loan.parts(&self.device);
            steps.train.products(self.generation, state, &like(batch), self.step())?
        };
        tune(&self.device, &products).await
    }

    /// Compiles the train step for batches like this one, and runs nothing.
    pub fn meet(&self, batch: &Batch) -> Result<()> {
        if self.eager {
            return Ok(());
        }
        let mut loan = self.borrow()?;
        let (state, steps) = loan.parts(&self.device);
        steps.train.prepare(self.generation, state, std::slice::from_ref(batch), self.step())
    }

    /// Replays the train step for each batch, in one submission.
    pub fn train(&self, batches: &[Batch]) -> Result<Logs> {
        let mut loan = self.borrow()?;
        let (state, steps) = loan.parts(&self.device);
        if !self.eager {
            return steps.train.run_tagged(self.generation, state, batches, self.step());
        }
        let mut logs = Logs::default();
        for batch in batches {
            logs = eagerly(&self.device, &mut steps.train, self.generation, state, batch, self.step())?;
        }
        Ok(logs)
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
        if self.eager {
            return eagerly(&self.device, &mut steps.test, self.generation, &mut part.state, batch, f);
        }
        steps.test.run_tagged(self.generation, &mut part.state, std::slice::from_ref(batch), f)
    }

    /// Replays the predict step, of one output or of all. The outputs, on the device, keep their values while somebody
    /// holds them.
    pub fn predict(&self, batch: &Batch, all: bool) -> Result<Vec<Tensor>> {
        // Metrics may be those of a model around this one, which is in training.
        let mut loan = Loan::take(&self.networks)?;
        let (state, steps) = loan.parts(&self.device);
        let step = |state: PredictState, batch: Batch| match all {
            true => self.model.predict_step_all(state, batch),
            false => self.model.predict_step(state, batch).map(|output| vec![output]),
        };
        if self.eager {
            for tensor in state.leaves().iter().chain(&batch.leaves()) {
                tensor.to(&self.device)?;
            }
            let outputs = step((state.0.clone(), state.1.clone()), batch.clone())?;
            return outputs.iter().map(|output| output.to(&self.device)).collect();
        }
        let specs: Vec<Spec> = batch.leaves().iter().filter_map(|tensor| tensor.spec().cloned()).collect();
        let tag = self.generation ^ u64::from(all);
        let known = steps.outputs.iter().position(|output| (output.0, &output.1) == (tag, &specs));
        let room = match known {
            Some(at) => steps.outputs.remove(at).2,
            None => self.room_for_outputs(state, batch, &step)?,
        };
        let mut part: Part<'_, (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>)> = Part::of(state);
        part.state.2 = room;
        let f = |(trainable, non_trainable, _): (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>), batch: &Batch| {
            let outputs = step((trainable.clone(), non_trainable.clone()), batch.clone())?;
            Ok((Logs::default(), (trainable, non_trainable, outputs)))
        };
        steps.predict.run_tagged(tag, &mut part.state, std::slice::from_ref(batch), f)?;
        let outputs = std::mem::take(&mut part.state.2);
        if steps.outputs.len() == OUTPUTS {
            steps.outputs.remove(0);
        }
        steps.outputs.push((tag, specs, outputs.clone()));
        Ok(outputs)
    }

    /// Tensors like the outputs for such a batch, found by recording the step once. They are a part of the state that
    /// every run overwrites.
    fn room_for_outputs(
        &self,
        state: &TrainState,
        batch: &Batch,
        step: &dyn Fn(PredictState, Batch) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let stand_in = |t: &Tensor| match t.spec() {
            Some(spec) => Tensor::placeholder(spec.clone(), nowhere()),
            None => t.clone(),
        };
        let state: PredictState = (state.0.map(&mut { stand_in }), state.1.map(&mut { stand_in }));
        let room = |output: &Tensor| {
            let (node, index) = output.node()?;
            let spec = node.outputs()[index].clone();
            Tensor::from_bits(vec![0; spec.shape.numel()].into(), spec, nowhere()).to(&self.device)
        };
        step(state, batch.map(&mut { stand_in }))?.iter().map(room).collect()
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
            return Err(Error::state(what));
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

/// A batch of zeros on the host with the shapes and dtypes of another.
fn like(batch: &Batch) -> Batch {
    batch.map(&mut |tensor| match tensor.spec() {
        Some(spec) => Tensor::from_bits(vec![0; spec.shape.numel()].into(), spec.clone(), nowhere()),
        None => tensor.clone(),
    })
}
