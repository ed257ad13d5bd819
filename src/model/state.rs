//! The state of training: the tuples that steps map, and how they are lent.
//!
//! A network keeps its variables in a [`Store`]. While a step runs they are in the step's hands, as one tuple gathered
//! from all networks; the [`Loan`] hands them back when it drops, so the model has its newest complete state after an
//! error and after a `fit` whose future was dropped. Deliberately absent: a copy of anything.

use std::mem::take;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::functional::Functional;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::layers::Variables;
use crate::metrics::Metric;

/// `(trainable, non_trainable, optimizer, metrics)`; the last two have one list for each optimizer and each metric.
pub type TrainState = (Vec<Tensor>, Vec<Tensor>, Vec<Variables>, Vec<Variables>);

/// `(trainable, non_trainable, metrics)`.
pub type TestState = (Vec<Tensor>, Vec<Tensor>, Vec<Variables>);

/// `(trainable, non_trainable)`.
pub type PredictState = (Vec<Tensor>, Vec<Tensor>);

/// The variables of one network, of its optimizer, and of the model's metrics (in the first network).
#[derive(Debug, Default)]
pub(super) struct Store {
    pub trainable: Vec<Tensor>,
    pub non_trainable: Vec<Tensor>,
    pub optimizer: Variables,
    pub metrics: Vec<Variables>,
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
        return Err(Error::State { what: what.into() });
    }
    Ok(store)
}

/// The variables of all networks, in the hands of a step until dropped.
pub(super) struct Loan<'m> {
    networks: Vec<&'m Functional>,
    /// For each network its trainable and non-trainable variables.
    counts: Vec<(usize, usize)>,
    pub state: TrainState,
}

impl<'m> Loan<'m> {
    /// Gathers the state. Metrics that have no variables yet, or others, get their initial ones.
    pub fn take(networks: Vec<&'m Functional>, metrics: &[Metric]) -> Result<Loan<'m>> {
        for network in &networks {
            drop(at_home(&network.store)?);
        }
        let mut loan = Loan { networks, counts: Vec::new(), state: TrainState::default() };
        for (index, network) in loan.networks.iter().enumerate() {
            let mut store = lock(&network.store);
            store.lent = true;
            loan.counts.push((store.trainable.len(), store.non_trainable.len()));
            loan.state.0.append(&mut store.trainable);
            loan.state.1.append(&mut store.non_trainable);
            loan.state.2.push(take(&mut store.optimizer));
            if index == 0 {
                loan.state.3 = take(&mut store.metrics);
            }
        }
        fit_metrics(&mut loan.state.3, metrics);
        Ok(loan)
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let (trainable, non_trainable, optimizer, metrics) = take(&mut self.state);
        let (mut trainable, mut non_trainable) = (trainable.into_iter(), non_trainable.into_iter());
        let mut optimizer = optimizer.into_iter();
        let mut metrics = Some(metrics);
        for (network, &(own, fixed)) in self.networks.iter().zip(&self.counts) {
            let mut store = lock(&network.store);
            store.trainable = trainable.by_ref().take(own).collect();
            store.non_trainable = non_trainable.by_ref().take(fixed).collect();
            store.optimizer = optimizer.next().unwrap_or_default();
            if let Some(metrics) = metrics.take() {
                store.metrics = metrics;
            }
            store.lent = false;
        }
    }
}

/// Makes variables match metrics: those that already do stay as they are.
fn fit_metrics(variables: &mut Vec<Variables>, metrics: &[Metric]) {
    variables.resize(metrics.len(), Vec::new());
    for (variables, metric) in variables.iter_mut().zip(metrics) {
        let initial = metric.initial();
        let alike =
            variables.len() == initial.len() && variables.iter().zip(&initial).all(|(a, b)| a.spec() == b.spec());
        if !alike {
            *variables = initial;
        }
    }
}
