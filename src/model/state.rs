//! The state of training: the tuples that steps map, and how they are lent.
//!
//! A network keeps its variables in a [`Store`]. While a step runs they are in the step's hands, as one tuple gathered
//! from all networks; the [`Loan`] hands them back when it drops, so the model has its newest complete state after an
//! error and after a `fit` whose future was dropped. Deliberately absent: a copy of anything.

use std::mem::take;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::functional::Functional;
use super::work::Output;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::graph::Tensor;
use crate::layers::Variables;
use crate::metrics::Metric;
use crate::optimizers::Optimizer;
use crate::step::Step;

/// `(trainable, non_trainable, optimizer, metrics)`; the last two have one list for each optimizer and each metric.
pub type TrainState = (Vec<Tensor>, Vec<Tensor>, Vec<Variables>, Vec<Variables>);

/// `(trainable, non_trainable, metrics)`.
pub type TestState = (Vec<Tensor>, Vec<Tensor>, Vec<Variables>);

/// `(trainable, non_trainable)`.
pub type PredictState = (Vec<Tensor>, Vec<Tensor>);

/// The variables of one network and of its optimizer, for steps of models that have several: see
/// [`split`](super::Train::split).
#[derive(Clone, Debug, Default)]
pub struct NetworkState {
    /// What the optimizer updates.
    pub trainable: Variables,
    /// What the layers update.
    pub non_trainable: Variables,
    /// The optimizer's own.
    pub optimizer: Variables,
}

impl NetworkState {
    /// The state after an update by gradients; `non_trainable` is what the forward pass returned.
    ///
    /// # Errors
    /// Those of [`stateless_apply`](Optimizer::stateless_apply).
    #[track_caller]
    pub fn update(self, optimizer: &Optimizer, gradients: &[Tensor], non_trainable: Variables) -> Result<NetworkState> {
        let (trainable, optimizer) = optimizer.stateless_apply(&self.optimizer, gradients, &self.trainable)?;
        Ok(NetworkState { trainable, non_trainable, optimizer })
    }

    /// The state of the whole model, of its networks in their order and its metrics.
    pub fn join(networks: impl IntoIterator<Item = NetworkState>, metrics: Vec<Variables>) -> TrainState {
        let mut whole = (Vec::new(), Vec::new(), Vec::new(), metrics);
        for network in networks {
            whole.0.extend(network.trainable);
            whole.1.extend(network.non_trainable);
            whole.2.push(network.optimizer);
        }
        whole
    }
}

/// The recorded steps of a model.
pub(super) struct Steps {
    pub train: Step,
    pub test: Step,
    pub predict: Step,
    /// Where predict steps leave their outputs.
    pub outputs: Vec<Output>,
    /// What the variables were last named for.
    pub named: Option<u64>,
}

impl Steps {
    fn new(device: &Device, memory_budget: Option<u64>) -> Steps {
        let mut train = Step::new(device);
        if let Some(bytes) = memory_budget {
            train = train.memory_budget(bytes);
        }
        let [test, predict] = [(); 2].map(|()| train.beside());
        Steps { train, test, predict, outputs: Vec::new(), named: None }
    }
}

/// The variables of one network and of its optimizer; in a model's first network also those of its metrics, and its
/// steps.
#[derive(Default)]
pub(super) struct Store {
    pub trainable: Vec<Tensor>,
    pub non_trainable: Vec<Tensor>,
    pub optimizer: Variables,
    pub metrics: Vec<Variables>,
    pub steps: Option<Steps>,
    /// Whether an epoch of training is under way, whose metrics these are.
    pub in_epoch: bool,
    lent: bool,
}

impl Store {
    pub fn new(trainable: Vec<Tensor>, non_trainable: Vec<Tensor>, optimizer: Variables) -> Store {
        Store { trainable, non_trainable, optimizer, ..Store::default() }
    }
}

/// Locks, ignoring poison: the values are whole at any moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A network's variables, unless a step has them.
pub(super) fn at_home(store: &Mutex<Store>) -> Result<MutexGuard<'_, Store>> {
    let store = lock(store);
    if store.lent {
        let what = "a step is running, and it has the variables; use the ones it was given";
        return Err(Error::state(what));
    }
    Ok(store)
}

/// An epoch of a training, until dropped.
pub(super) struct InEpoch<'m>(&'m Functional);

impl<'m> InEpoch<'m> {
    pub fn begin(base: &'m Functional) -> InEpoch<'m> {
        lock(&base.store).in_epoch = true;
        InEpoch(base)
    }
}

impl Drop for InEpoch<'_> {
    fn drop(&mut self) {
        lock(&self.0.store).in_epoch = false;
    }
}

/// The variables of all networks, in the hands of a step until dropped.
pub(super) struct Loan<'m> {
    /// Those that lent, each with the numbers of its trainable and non-trainable variables.
    lenders: Vec<(&'m Functional, usize, usize)>,
    pub state: TrainState,
    pub steps: Option<Steps>,
}

impl<'m> Loan<'m> {
    /// Gathers the state.
    pub fn take(networks: &[&'m Functional]) -> Result<Loan<'m>> {
        let mut loan = Loan { lenders: Vec::new(), state: TrainState::default(), steps: None };
        for network in networks {
            // If one of several has lent its variables already, dropping the loan returns what came before it.
            let mut store = at_home(&network.store)?;
            store.lent = true;
            if loan.lenders.is_empty() {
                loan.state.3 = take(&mut store.metrics);
                loan.steps = store.steps.take();
            }
            loan.lenders.push((network, store.trainable.len(), store.non_trainable.len()));
            loan.state.0.append(&mut store.trainable);
            loan.state.1.append(&mut store.non_trainable);
            loan.state.2.push(take(&mut store.optimizer));
        }
        Ok(loan)
    }

    /// The state and the steps that map it.
    pub fn parts(&mut self, device: &Device) -> (&mut TrainState, &mut Steps) {
        let budget = self.lenders.first().and_then(|(network, ..)| network.settings.memory_budget);
        (&mut self.state, self.steps.get_or_insert_with(|| Steps::new(device, budget)))
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let (trainable, non_trainable, optimizer, metrics) = take(&mut self.state);
        let (mut trainable, mut non_trainable) = (trainable.into_iter(), non_trainable.into_iter());
        let mut optimizer = optimizer.into_iter();
        let mut first = Some((metrics, self.steps.take()));
        for &(network, own, fixed) in &self.lenders {
            let mut store = lock(&network.store);
            store.trainable = trainable.by_ref().take(own).collect();
            store.non_trainable = non_trainable.by_ref().take(fixed).collect();
            store.optimizer = optimizer.next().unwrap_or_default();
            if let Some((metrics, steps)) = first.take() {
                (store.metrics, store.steps) = (metrics, steps);
            }
            store.lent = false;
        }
    }
}

/// What a step may need of a train state.
pub(super) trait PartOf: Default {
    fn take(whole: &mut TrainState) -> Self;
    fn put_back(self, whole: &mut TrainState);
}

impl PartOf for TestState {
    fn take(whole: &mut TrainState) -> TestState {
        (take(&mut whole.0), take(&mut whole.1), take(&mut whole.3))
    }

    fn put_back(self, whole: &mut TrainState) {
        (whole.0, whole.1, whole.3) = self;
    }
}

/// With the outputs, which are no part of the train state.
impl PartOf for (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>) {
    fn take(whole: &mut TrainState) -> Self {
        (take(&mut whole.0), take(&mut whole.1), Vec::new())
    }

    fn put_back(self, whole: &mut TrainState) {
        (whole.0, whole.1, _) = self;
    }
}

/// A part of a lent state in the hands of a step that needs no more. It is put back when dropped, so that a step that
/// panics loses nothing.
pub(super) struct Part<'l, S: PartOf> {
    whole: &'l mut TrainState,
    pub state: S,
}

impl<'l, S: PartOf> Part<'l, S> {
    pub fn of(whole: &'l mut TrainState) -> Part<'l, S> {
        let state = S::take(whole);
        Part { whole, state }
    }
}

impl<S: PartOf> Drop for Part<'_, S> {
    fn drop(&mut self) {
        take(&mut self.state).put_back(self.whole);
    }
}

/// Makes variables match metrics: those that already do stay as they are.
pub(super) fn fit_metrics(variables: &mut Vec<Variables>, initial: &[Variables], metrics: &[Metric]) {
    variables.resize(metrics.len(), Vec::new());
    for ((variables, metric), initial) in variables.iter_mut().zip(metrics).zip(initial) {
        let alike =
            variables.len() == initial.len() && variables.iter().zip(initial).all(|(a, b)| a.spec() == b.spec());
        if !alike {
            *variables = metric.initial();
        }
    }
}
