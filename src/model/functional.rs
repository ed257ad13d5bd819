//! [`Functional`]: a network with its variables and its training configuration.
//!
//! It is what models are made from: by itself, from a [`Sequential`](crate::layers::Sequential), or inside a struct of
//! one's own that overrides steps. Deliberately absent: training; the entry points come with [`Train`](super::Train).

use std::sync::Mutex;

use super::History;
use super::compile::Settings;
use super::options::Compile;
use super::state::{Store, at_home, lock};
use crate::collections::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Device;
use crate::graph::Tensor;
use crate::layers::{Mode, Network, Sequential, Symbolic, Variable, Variables, Which};
use crate::losses::Loss;
use crate::metrics::Metric;
use crate::optimizers::{ITERATION, Optimizer};
use crate::plan::Plan;
use crate::step::{assign_all, part_from_holders};

/// A network with its variables, optimizer, loss and metrics.
pub struct Functional {
    network: Network,
    /// The same with other layers frozen, from the next `compile` on.
    refrozen: Option<Network>,
    /// Of the outputs.
    names: Vec<String>,
    pub(super) settings: Settings,
    pub(super) store: Mutex<Store>,
    device: Mutex<Option<Device>>,
    /// Of the newest training.
    pub(super) history: Mutex<History>,
}

impl Functional {
    /// The network that computes `outputs` from `inputs`, with variables initialised from seed 0.
    ///
    /// # Errors
    /// What was wrong with a layer or its inputs, with the layer's name and both shapes.
    pub fn new(inputs: &[Symbolic], outputs: &[Symbolic]) -> Result<Functional> {
        Functional::of(Network::new(inputs, outputs)?)
    }

    /// A model of a network, with variables initialised from seed 0.
    pub fn of(network: Network) -> Result<Functional> {
        let (trainable, non_trainable) = network.init(0)?;
        let store = Mutex::new(Store::new(trainable, non_trainable, Vec::new()));
        let (refrozen, names, settings) = (None, network.output_names(), Settings::default());
        Ok(Functional {
            network,
            refrozen,
            names,
            settings,
            store,
            device: Mutex::new(None),
            history: Mutex::default(),
        })
    }

    /// Initialises the variables anew from a seed: the same seed gives the same bits on every machine. An optimizer
    /// starts over too.
    pub fn seed(self, seed: u64) -> Result<Functional> {
        let (trainable, non_trainable) = self.network.init(seed)?;
        let optimizer =
            if self.settings.compiled { self.settings.optimizer.variables(&trainable)? } else { Vec::new() };
        *at_home(&self.store)? = Store::new(trainable, non_trainable, optimizer);
        Ok(self)
    }

    /// Chooses the device; otherwise the first entry point opens the default one.
    pub fn on(self, device: &Device) -> Functional {
        *lock(&self.device) = Some(device.clone());
        lock(&self.store).steps = None;
        self
    }

    /// The device, opening the default one if none was chosen.
    pub async fn device(&self) -> Result<Device> {
        if let Some(device) = self.chosen() {
            return Ok(device);
        }
        let opened = Device::new().await?;
        // Somebody else may have been quicker; there is one device for a network.
        Ok(lock(&self.device).get_or_insert(opened).clone())
    }

    /// The device, if there is one yet.
    pub(super) fn chosen(&self) -> Option<Device> {
        lock(&self.device).clone()
    }

    /// Works on the device of other networks, unless variables lie on another one already.
    pub(super) fn join(&self, device: &Device) -> Result<()> {
        if lock(&self.device).get_or_insert_with(|| device.clone()) == device {
            return Ok(());
        }
        let mut store = at_home(&self.store)?;
        let all = store.trainable.iter().chain(&store.non_trainable).chain(&store.optimizer);
        if all.filter_map(Tensor::device).any(|other| other != *device) {
            let what = "the networks of a model are on different devices; give all of them one with `on`".into();
            return Err(Error::new(ErrorKind::Device { what, place: None }));
        }
        *lock(&self.device) = Some(device.clone());
        store.steps = None;
        Ok(())
    }

    /// Numbers of trainable and of other variables.
    pub(super) fn counts(&self) -> (usize, usize) {
        let variables = self.network.variables();
        let trainable = variables.iter().filter(|variable| variable.trainable).count();
        (trainable, variables.len() - trainable)
    }

    /// The layers.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The optimizer; RMSprop before `compile`.
    pub fn optimizer(&self) -> &Optimizer {
        &self.settings.optimizer
    }

    /// The loss of `compile`: of the first output that has one.
    pub fn loss(&self) -> Option<&Loss> {
        self.settings.losses.first().map(|entry| &entry.1)
    }

    /// A tracker of the loss, one for the loss of each output if there are several, then the metrics of `compile`.
    pub fn metrics(&self) -> Vec<Metric> {
        self.settings.metrics.iter().map(|entry| entry.0.clone()).collect()
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> &[String] {
        &self.names
    }

    /// The forward pass of a network with one input and one output.
    pub fn stateless_call(
        &self,
        trainable: &[Tensor],
        non_trainable: &[Tensor],
        x: &Tensor,
        mode: Mode,
    ) -> Result<(Tensor, Variables)> {
        let (mut outputs, non_trainable) =
            self.network.call(trainable, non_trainable, std::slice::from_ref(x), mode)?;
        match (outputs.pop(), outputs.is_empty()) {
            (Some(output), true) => Ok((output, non_trainable)),
            _ => {
                let names = self.names.join(", ");
                let what = format!("one output was asked for, the network has several: {names}; ask for all of them");
                Err(Error::state(what))
            }
        }
    }

    pub(super) fn compile(&mut self, options: Compile) -> Result<()> {
        let mut settings = Settings::new(options, &self.names, self.settings.generation + 1)?;
        let network = self.refrozen.as_ref().unwrap_or(&self.network);
        let names = network.variables().iter().filter(|variable| variable.trainable).map(|variable| &*variable.name);
        settings.optimizer = settings.optimizer.for_parameters(names);
        let mut store = at_home(&self.store)?;
        let (trainable, fixed) = self.network.rearrange(store.trainable.clone(), store.non_trainable.clone(), network);
        store.optimizer = settings.optimizer.variables(&trainable)?;
        (store.trainable, store.non_trainable) = (trainable, fixed);
        store.metrics = Vec::new();
        store.steps = None;
        drop(store);
        self.network = self.refrozen.take().unwrap_or_else(|| self.network.clone());
        self.settings = settings;
        Ok(())
    }

    /// Freezes layers, or lets them be trained again: `set_trainable("dense", false)`, by handle, or `..` for all. As in
    /// Keras it takes effect with the next [`compile`](super::Train::compile), and training without it is refused.
    /// Frozen layers keep their weights, which have no optimizer variables, and their running statistics.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`], with the names there are.
    pub fn set_trainable<'a>(&mut self, layers: impl Into<Which<'a>>, trainable: bool) -> Result<()> {
        let changed = self.refrozen.as_ref().unwrap_or(&self.network).with_trainable(layers, trainable)?;
        // Back to how it was compiled: there is nothing to take effect.
        self.refrozen = (changed.frozen() != self.network.frozen()).then_some(changed);
        Ok(())
    }

    /// Whether training would do what was asked for.
    pub(super) fn ready_to_train(&self) -> Result<()> {
        if !self.settings.compiled {
            return Err(Error::new(ErrorKind::NotCompiled { needs: "an optimizer" }));
        }
        if self.refrozen.is_some() {
            let what = "layers were frozen or unfrozen after compile; call compile again, which lets it take effect";
            return Err(Error::state(what));
        }
        Ok(())
    }

    /// A model of inner layers' outputs with the weights of this moment: features. It has the layers that these need,
    /// and its own state from here on; inside a step use [`tap`](Network::tap), which shares the state.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for a tensor that the network does not compute.
    pub fn extract(&self, outputs: &[Symbolic]) -> Result<Functional> {
        let network = self.network.tap(outputs)?.pruned();
        let all: Table<String, Tensor> = self.variables()?.into_iter().collect();
        let (trainable, fixed): (Vec<_>, Vec<_>) = network.variables().iter().partition(|v| v.trainable);
        let values = |of: Vec<&Variable>| of.into_iter().filter_map(|v| all.get(&v.name).cloned()).collect();
        let store = Mutex::new(Store::new(values(trainable), values(fixed), Vec::new()));
        let names = network.output_names();
        let device = Mutex::new(self.chosen());
        let (settings, history) = (Settings::default(), Mutex::default());
        Ok(Functional { network, refrozen: None, names, settings, store, device, history })
    }

    /// All variables of the network with their names ("dense/kernel"): first the trainable ones, then the others. The
    /// tensors keep the values of this moment, whatever becomes of the model.
    pub fn variables(&self) -> Result<Vec<(String, Tensor)>> {
        let store = at_home(&self.store)?;
        let (trainable, fixed): (Vec<_>, Vec<_>) = self.network.variables().iter().partition(|v| v.trainable);
        let names = trainable.into_iter().chain(fixed).map(|variable| variable.name.clone());
        Ok(names.zip(store.trainable.iter().chain(&store.non_trainable).cloned()).collect())
    }

    /// The trainable variables, in the order of the state, with the values of this moment.
    pub fn trainable(&self) -> Result<Vec<Tensor>> {
        Ok(at_home(&self.store)?.trainable.clone())
    }

    /// The variables of each metric, in the order of [`Model::metrics`](super::Model::metrics), with the values of this
    /// moment: after `evaluate` those of the data it was given. The matrix of a
    /// [`ConfusionMatrix`](crate::metrics::ConfusionMatrix) is read here.
    pub fn metric_variables(&self) -> Result<Vec<Variables>> {
        Ok(at_home(&self.store)?.metrics.clone())
    }

    /// The learning rate of the next step: the number, or the schedule's value.
    pub async fn learning_rate(&self) -> Result<f64> {
        let rate = self.optimizer().rate_in_force(&self.optimizer_variables()?)?;
        let device = self.device().await?;
        Ok(rate.read_on::<f64>(&device).await?.first().copied().unwrap_or(f64::NAN))
    }

    /// Sets the learning rate; the next step uses it, and nothing is recorded anew.
    ///
    /// # Errors
    /// [`ErrorKind::NonFinite`]; [`ErrorKind::NotCompiled`]; [`ErrorKind::Argument`] if the rate follows a schedule.
    pub async fn set_learning_rate(&self, rate: f64) -> Result<()> {
        if !rate.is_finite() {
            return Err(Error::new(ErrorKind::NonFinite { what: format!("a learning rate of {rate}") }));
        }
        let device = self.device().await?;
        // A checkpoint that is not read yet keeps its values. It is parted from before the variable is taken, or the
        // write would miss the model's own.
        part_from_holders(&device, &mut at_home(&self.store)?.optimizer)?;
        let variables = self.optimizer_variables()?;
        assign_all(&device, &[(self.optimizer().rate_variable(&variables)?.clone(), Tensor::scalar(rate))])
    }

    /// Puts the averages of the parameters in their place, if the optimizer keeps any and has made some.
    pub(super) async fn adopt_averages(&self, device: &Device) -> Result<()> {
        let variables = at_home(&self.store)?.optimizer.clone();
        match self.optimizer().averages(&variables, self.counts().0) {
            Some(averages) if self.iterations().await? > 0 => {
                self.assign(device, &averages.iter().cloned().enumerate().collect::<Vec<_>>())
            }
            _ => Ok(()),
        }
    }

    /// Batches that the optimizer has seen.
    ///
    /// # Errors
    /// [`ErrorKind::NotCompiled`].
    pub async fn iterations(&self) -> Result<usize> {
        let variables = self.optimizer_variables()?;
        let variable = variables.get(ITERATION).ok_or(Error::new(ErrorKind::NotCompiled { needs: "an optimizer" }))?;
        let device = self.device().await?;
        Ok(variable.read_on::<i32>(&device).await?.first().map_or(0, |&count| count.max(0) as usize))
    }

    fn optimizer_variables(&self) -> Result<Variables> {
        let variables = at_home(&self.store)?.optimizer.clone();
        if variables.is_empty() {
            Err(Error::new(ErrorKind::NotCompiled { needs: "an optimizer" }))
        } else {
            Ok(variables)
        }
    }

    /// The epochs of the newest training so far, also of one that ended with an error: Keras' `model.history`.
    pub fn history(&self) -> History {
        lock(&self.history).clone()
    }

    /// The plan of the newest training step: `println!("{plan}")` shows each dispatch.
    pub fn plan(&self) -> Option<Plan> {
        lock(&self.store).steps.as_ref()?.train.plan().cloned()
    }

    /// Number of parameters.
    pub fn count_params(&self) -> usize {
        self.network.count_params()
    }

    /// Keras' table of layers, output shapes and parameters. What was frozen counts as not trainable, before the
    /// `compile` that lets it take effect too.
    pub fn summary(&self) -> String {
        self.refrozen.as_ref().unwrap_or(&self.network).summary()
    }
}

impl std::fmt::Debug for Functional {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Functional({}, {} parameters)", self.network.name(), self.count_params())
    }
}

impl Sequential {
    /// The model of this stack of layers.
    pub fn build(self) -> Result<Functional> {
        Functional::of(self.network()?)
    }
}
