//! [`Functional`]: a network with its variables and its training configuration.
//!
//! It is what models are made from: by itself, from a [`Sequential`](crate::layers::Sequential), or inside a struct of
//! one's own that overrides steps. Deliberately absent: training; the entry points come with [`Train`](super::Train).

use std::sync::Mutex;

use super::options::Compile;
use super::state::{Store, at_home, lock};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::graph::Tensor;
use crate::layers::{Mode, Network, Sequential, Symbolic, Variables};
use crate::losses::Loss;
use crate::metrics::{Mean, Metric};
use crate::optimizers::{LEARNING_RATE, Optimizer, RMSprop};
use crate::plan::Plan;
use crate::step::{assign_all, part_from_holders};

/// What `compile` settled.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub optimizer: Optimizer,
    pub loss: Option<Loss>,
    pub metrics: Vec<Metric>,
    pub steps_per_execution: usize,
    /// Whether `compile` was called.
    pub compiled: bool,
    /// Grows with every change that makes another step of the same function.
    pub generation: u64,
}

/// A network with its variables, optimizer, loss and metrics.
pub struct Functional {
    network: Network,
    pub(super) settings: Settings,
    pub(super) store: Mutex<Store>,
    device: Mutex<Option<Device>>,
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
        let settings = Settings {
            optimizer: RMSprop::default().into(),
            loss: None,
            metrics: Vec::new(),
            steps_per_execution: 1,
            compiled: false,
            generation: 0,
        };
        let store = Mutex::new(Store::new(trainable, non_trainable, Vec::new()));
        Ok(Functional { network, settings, store, device: Mutex::new(None) })
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
            return Err(Error::Device { what, place: None });
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

    /// The loss of `compile`.
    pub fn loss(&self) -> Option<&Loss> {
        self.settings.loss.as_ref()
    }

    /// A tracker of the loss, then the metrics of `compile`.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = vec![Metric::from(Mean).named("loss")];
        metrics.extend(self.settings.metrics.iter().cloned());
        metrics
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
            _ => Err(Error::State { what: "the network has several outputs; use network().call".into() }),
        }
    }

    pub(super) fn compile(&mut self, options: Compile) -> Result<()> {
        if options.steps_per_execution == 0 {
            return Err(Error::Argument { what: "steps_per_execution is 1 at least".into() });
        }
        let optimizer = options.optimizer.resolve()?.unwrap_or_else(|| RMSprop::default().into());
        let loss = options.loss.resolve()?;
        let mut metrics: Vec<Metric> = Vec::new();
        for metric in options.metrics {
            let Some(metric) = metric.resolve()? else { continue };
            // As in Keras, a name that occurs again gets a number.
            let taken = |name: &str| name == "loss" || metrics.iter().any(|other| other.name() == name);
            let name = metric.name().to_string();
            let free = std::iter::once(name.clone())
                .chain((1..).map(|number| format!("{name}_{number}")))
                .find(|name| !taken(name))
                .unwrap_or(name);
            metrics.push(if free == metric.name() { metric } else { metric.named(&free) });
        }
        let mut store = at_home(&self.store)?;
        store.optimizer = optimizer.variables(&store.trainable)?;
        store.metrics = Vec::new();
        store.steps = None;
        drop(store);
        self.settings = Settings {
            optimizer,
            loss,
            metrics,
            steps_per_execution: options.steps_per_execution,
            compiled: true,
            generation: self.settings.generation + 1,
        };
        Ok(())
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

    /// The learning rate in force.
    pub async fn learning_rate(&self) -> Result<f64> {
        let variable = self.learning_rate_variable()?;
        let device = self.device().await?;
        Ok(variable.read_on::<f64>(&device).await?.first().copied().unwrap_or(f64::NAN))
    }

    /// Sets the learning rate; the next step uses it, and nothing is recorded anew.
    ///
    /// # Errors
    /// [`Error::NonFinite`]; [`Error::NotCompiled`].
    pub async fn set_learning_rate(&self, rate: f64) -> Result<()> {
        if !rate.is_finite() {
            return Err(Error::NonFinite { what: format!("a learning rate of {rate}") });
        }
        let device = self.device().await?;
        // A checkpoint that is not read yet keeps its values.
        part_from_holders(&device, &mut at_home(&self.store)?.optimizer)?;
        assign_all(&device, &[(self.learning_rate_variable()?, Tensor::scalar(rate))])
    }

    fn learning_rate_variable(&self) -> Result<Tensor> {
        let store = at_home(&self.store)?;
        store.optimizer.get(LEARNING_RATE).cloned().ok_or(Error::NotCompiled { needs: "an optimizer" })
    }

    /// The plan of the newest training step: `println!("{plan}")` shows each dispatch.
    pub fn plan(&self) -> Option<Plan> {
        lock(&self.store).steps.as_ref()?.train.plan().cloned()
    }

    /// Number of parameters.
    pub fn count_params(&self) -> usize {
        self.network.count_params()
    }

    /// Keras' table of layers, output shapes and parameters.
    pub fn summary(&self) -> String {
        self.network.summary()
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
