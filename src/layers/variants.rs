//! Networks made from a network: with other layers frozen, or with other outputs.
//!
//! Both share layers and names with the network they come from, and neither has values, so that no weights are copied:
//! whoever keeps a state rearranges it for a freezing ([`Network::rearrange`]), and gives it as it is to a network with
//! other outputs. Deliberately absent: freezing of single variables, and of layers within a network that is a layer;
//! that one is frozen as a whole.

use std::sync::Arc;

use super::network::unique;
use super::{LayerRef, Network, Symbolic, Variables};
use crate::collections::{Set, Table};
use crate::error::{Error, Result};
use crate::graph::Tensor;

/// Which layers: a name, a handle, or `..` for all.
#[derive(Clone, Debug)]
pub enum Which<'a> {
    /// The layer of this name.
    Name(&'a str),
    /// The layer itself.
    Layer(&'a LayerRef),
    /// All layers.
    All,
}

impl<'a> From<&'a str> for Which<'a> {
    fn from(name: &'a str) -> Which<'a> {
        Which::Name(name)
    }
}

impl<'a> From<&'a LayerRef> for Which<'a> {
    fn from(layer: &'a LayerRef) -> Which<'a> {
        Which::Layer(layer)
    }
}

impl From<std::ops::RangeFull> for Which<'_> {
    fn from(_: std::ops::RangeFull) -> Self {
        Which::All
    }
}

impl Network {
    /// Names of the inputs: those given, or "input_layer" with a number behind.
    pub fn input_names(&self) -> Vec<String> {
        self.graph.ports[..self.graph.inputs].iter().map(|port| port.name.to_string()).collect()
    }

    /// Names of the outputs: those of the layers they come from, with a number behind where a layer makes several.
    pub fn output_names(&self) -> Vec<String> {
        let mut taken = Set::new();
        let name = |&port: &usize| unique(&self.graph.ports[port].name, &mut taken).to_string();
        self.graph.outputs.iter().map(name).collect()
    }

    /// The layer of a name.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument), with the names there are.
    pub fn get_layer(&self, name: &str) -> Result<&LayerRef> {
        let found = self.graph.layers.iter().find(|entry| &*entry.name == name);
        found.map(|entry| &entry.layer).ok_or_else(|| self.no_layer(name))
    }

    /// The output of the layer of a name, of its first call: to build on, or for [`tap`](Network::tap).
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument), with the names there are.
    pub fn output_of(&self, name: &str) -> Result<Symbolic> {
        let made = &self.graph.ports[self.graph.inputs..];
        let found = made.iter().find(|port| &*port.name == name);
        found.map(|port| port.symbolic.clone()).ok_or_else(|| self.no_layer(name))
    }

    fn no_layer(&self, name: &str) -> Error {
        let names: Vec<&str> = self.graph.layers.iter().map(|entry| &*entry.name).collect();
        Error::argument(format!("{} has no layer \"{name}\"; it has {}", self.name, names.join(", ")))
    }

    /// The network with the same variables, in the same order, and other outputs, all of which it computes on its way:
    /// features, or losses of inner layers. It takes whatever state this one has.
    ///
    /// ```
    /// # use wengert::layers::{Dense, Input, Layer, Mode, Network};
    /// # use wengert::graph::Tensor;
    /// let x = Input([32]);
    /// let hidden = Dense::new(8).on(&x);
    /// let network = Network::new(&[x], &[Dense::new(1).on(&hidden)])?;
    /// let (trainable, non_trainable) = network.init(0)?;
    ///
    /// let inputs = [Tensor::zeros([4, 32])];
    /// let (features, _) = network.tap(&[hidden])?.call(&trainable, &non_trainable, &inputs, Mode::Infer)?;
    /// assert_eq!(features[0].shape(), [4, 8].into());
    /// # Ok::<(), wengert::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument) for a tensor that this network does not compute.
    pub fn tap(&self, outputs: &[Symbolic]) -> Result<Network> {
        let port = |wanted: &Symbolic| {
            let same = |port: &super::network::Port| Arc::ptr_eq(&port.symbolic.0, &wanted.0);
            self.graph.ports.iter().position(same).ok_or_else(|| {
                Error::argument(format!("{} does not compute {wanted:?}; tap what its layers return", self.name))
            })
        };
        let outputs = outputs.iter().map(port).collect::<Result<_>>()?;
        let mut graph = (*self.graph).clone();
        graph.outputs = outputs;
        Ok(Network { graph: Arc::new(graph), ..self.clone() })
    }

    /// The network without the layers that none of its outputs needs, and so with fewer variables. Inputs stay.
    pub(crate) fn pruned(&self) -> Network {
        let graph = &*self.graph;
        let mut needed = vec![false; graph.ports.len()];
        needed[..graph.inputs].fill(true);
        graph.outputs.iter().for_each(|&port| needed[port] = true);
        // A call uses ports before its own only, so one pass from the end finds all.
        for (index, call) in graph.calls.iter().enumerate().rev() {
            if needed[graph.inputs + index] {
                call.inputs.iter().for_each(|&port| needed[port] = true);
            }
        }
        let of_layer = |layer: usize| {
            graph.calls.iter().enumerate().any(|(i, call)| call.layer == layer && needed[graph.inputs + i])
        };
        let layers: Vec<bool> = (0..graph.layers.len()).map(of_layer).collect();
        fn kept<T: Clone>(all: &[T], keep: &[bool]) -> Vec<T> {
            all.iter().zip(keep).filter(|(_, keep)| **keep).map(|(item, _)| item.clone()).collect()
        }
        let place = |keep: &[bool], at: usize| keep[..at].iter().filter(|keep| **keep).count();
        let mut small = graph.clone();
        small.ports = kept(&graph.ports, &needed);
        small.calls = kept(&graph.calls, &needed[graph.inputs..]);
        small.layers = kept(&graph.layers, &layers);
        for call in &mut small.calls {
            call.layer = place(&layers, call.layer);
            call.inputs.iter_mut().for_each(|port| *port = place(&needed, *port));
        }
        small.outputs.iter_mut().for_each(|port| *port = place(&needed, *port));
        small.place_variables();
        Network { graph: Arc::new(small), ..self.clone() }
    }

    /// Whether each of the layers is frozen, in their order: also those that have nothing to train, only running statistics.
    pub(crate) fn frozen(&self) -> Vec<bool> {
        self.graph.layers.iter().map(|entry| entry.frozen).collect()
    }

    /// Whether the layer of a name is frozen.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument), with the names there are.
    pub fn is_frozen(&self, name: &str) -> Result<bool> {
        let found = self.graph.layers.iter().find(|entry| &*entry.name == name);
        found.map(|entry| entry.frozen).ok_or_else(|| self.no_layer(name))
    }

    /// The same network with layers whose variables are trained or not. The variables of frozen ones are among the
    /// non-trainable ones.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument) for a layer that it does not have.
    pub fn with_trainable<'a>(&self, layers: impl Into<Which<'a>>, trainable: bool) -> Result<Network> {
        let which = layers.into();
        let mut graph = (*self.graph).clone();
        let mut found = matches!(which, Which::All);
        for entry in &mut graph.layers {
            let meant = match &which {
                Which::Name(name) => *entry.name == **name,
                Which::Layer(layer) => entry.layer.same(layer),
                Which::All => true,
            };
            if meant {
                (entry.frozen, found) = (!trainable, true);
            }
        }
        if !found {
            return Err(match which {
                Which::Name(name) => self.no_layer(name),
                other => Error::argument(format!("{} has no layer {other:?}", self.name)),
            });
        }
        graph.place_variables();
        Ok(Network { graph: Arc::new(graph), ..self.clone() })
    }

    /// The state of this network as that of `other`, which differs in what is frozen: variables go by their names.
    pub(crate) fn rearrange(
        &self,
        trainable: Variables,
        non_trainable: Variables,
        other: &Network,
    ) -> (Variables, Variables) {
        let (own, rest): (Vec<_>, Vec<_>) = self.variables().iter().partition(|v| v.trainable);
        let names = own.into_iter().chain(rest).map(|v| v.name.as_str());
        let mut values: Table<&str, Tensor> = names.zip(trainable.into_iter().chain(non_trainable)).collect();
        let (mut trainable, mut non_trainable) = (Vec::new(), Vec::new());
        for variable in other.variables() {
            let list = if variable.trainable { &mut trainable } else { &mut non_trainable };
            list.extend(values.remove(variable.name.as_str()));
        }
        (trainable, non_trainable)
    }
}
