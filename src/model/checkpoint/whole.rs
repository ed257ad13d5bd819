//! Taking a checkpoint of a model at work, and giving its values back.
//!
//! Variables are found by name, and all of them must be there with their shapes: what trains on must be what was saved.
//! Values are assigned where the variables lie, so recorded steps stay valid. Deliberately absent: loading a part, which
//! is what weights files are for.

use super::{Checkpoint, Progress};
use crate::callbacks::CallbackState;
use crate::collections::Table;
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor};
use crate::metrics::Metric;
use crate::model::Model;
use crate::model::functional::Functional;
use crate::model::state::{Store, at_home, fit_metrics};
use crate::model::work::Work;
use crate::sort::sort;
use crate::step::{assign_all, part_from_holders};

impl<M: Model + ?Sized> Work<'_, M> {
    /// The training as it is after the newest step. Nothing is waited for.
    pub fn checkpoint(&self, progress: Option<Progress>, callbacks: Vec<CallbackState>) -> Result<Checkpoint> {
        let mut tensors = Vec::new();
        for (index, network) in self.networks.iter().enumerate() {
            let mut store = at_home(&network.store)?;
            if index == 0 {
                fit_metrics(&mut store.metrics, &self.initial, &self.metrics);
            }
            let names = names(index, network, &store, &self.metrics);
            tensors.extend(names.into_iter().zip(in_order(&store).cloned()));
        }
        Ok(Checkpoint { tensors, progress, callbacks })
    }

    /// Sets all variables to those of a checkpoint.
    ///
    /// # Errors
    /// [`ErrorKind::State`] with what is missing, unexpected or of another shape; nothing is changed then.
    pub fn restore(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut given: Table<&str, &Tensor> = checkpoint.tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let (mut values, mut wrong): (Vec<Vec<Tensor>>, Vec<String>) = Default::default();
        for (index, network) in self.networks.iter().enumerate() {
            let mut store = at_home(&network.store)?;
            if index == 0 {
                fit_metrics(&mut store.metrics, &self.initial, &self.metrics);
            }
            let mut own = Vec::new();
            for (name, variable) in names(index, network, &store, &self.metrics).into_iter().zip(in_order(&store)) {
                match given.remove(name.as_str()) {
                    Some(value) if value.spec() == variable.spec() => own.push(value.clone()),
                    Some(value) => {
                        let spec = |t: &Tensor| t.spec().map_or("poisoned".into(), Spec::to_string);
                        wrong.push(format!("{name} is {} and was {}", spec(variable), spec(value)));
                    }
                    None => wrong.push(format!("it has no {name}")),
                }
            }
            values.push(own);
        }
        let mut unexpected: Vec<&str> = given.into_keys().collect();
        sort(&mut unexpected);
        wrong.extend(unexpected.into_iter().map(|name| format!("the model has no {name}")));
        if !wrong.is_empty() {
            let what = format!("the checkpoint is of another model or compile: {}", shortened(&wrong));
            return Err(Error::state(what));
        }
        for (network, values) in self.networks.iter().zip(values) {
            let mut store = at_home(&network.store)?;
            let store = &mut *store;
            let lists = [&mut store.trainable, &mut store.non_trainable, &mut store.optimizer];
            for list in lists.into_iter().chain(&mut store.metrics) {
                part_from_holders(&self.device, list)?;
            }
            assign_all(&self.device, &in_order(store).cloned().zip(values).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// The first few of a list of complaints.
pub(in crate::model) fn shortened(wrong: &[String]) -> String {
    const FEW: usize = 6;
    let more = if wrong.len() > FEW { format!(", and {} more", wrong.len() - FEW) } else { String::new() };
    format!("{}{more}", wrong[..wrong.len().min(FEW)].join(", "))
}

/// The variables of a network, its optimizer and, of the first one, the metrics.
fn in_order(store: &Store) -> impl Iterator<Item = &Tensor> {
    let network = store.trainable.iter().chain(&store.non_trainable);
    network.chain(&store.optimizer).chain(store.metrics.iter().flatten())
}

/// Their names in the file.
fn names(index: usize, network: &Functional, store: &Store, metrics: &[Metric]) -> Vec<String> {
    let variables = network.network().variables();
    let (trainable, fixed): (Vec<_>, Vec<_>) = variables.iter().partition(|variable| variable.trainable);
    let mut names: Vec<String> =
        trainable.iter().chain(&fixed).map(|variable| format!("weights/{index}/{}", variable.name)).collect();
    // There are none of a network that was not compiled.
    if !store.optimizer.is_empty() {
        let parameters: Vec<&str> = trainable.iter().map(|variable| &*variable.name).collect();
        let paths = network.optimizer().variable_paths(&parameters);
        names.extend(paths.into_iter().map(|own| format!("optimizer/{index}/{own}")));
    }
    let metrics = if index == 0 { metrics } else { &[] };
    for (number, (metric, variables)) in metrics.iter().zip(&store.metrics).enumerate() {
        names.extend((0..variables.len()).map(|at| format!("metrics/{number}/{}/{at}", metric.name())));
    }
    names
}
