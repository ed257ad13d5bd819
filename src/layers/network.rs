//! [`Network`]: a finished graph of layers as a pure function of its variables.
//!
//! It names the layers, numbers their variables and calls them in order. Deliberately absent: the variables' values.
//! They travel as two lists, trainable and non-trainable, in the order of [`Network::variables`]; whoever trains
//! keeps them.

use std::fmt;
use std::sync::Arc;

use super::symbolic::{Source, entry};
use super::{Context, Layer, LayerRef, Mode, Symbolic, Variable, Variables, summary};
use crate::collections::{Set, Table};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::graph::{Scope, Spec, Tensor, here};
use crate::random::threefry;
use crate::shape::Shape;
use crate::sort::sort_by_key;

/// One layer and where its variables lie.
#[derive(Clone)]
pub(super) struct Entry {
    pub name: Arc<str>,
    pub layer: LayerRef,
    /// As the layer asks for them.
    pub variables: Vec<Variable>,
    /// Whether the optimizer leaves all of them alone.
    pub frozen: bool,
    /// Where those lie that the layer wants trained: among the trainable tensors of the network, unless frozen.
    weights: Vec<usize>,
    /// Where the others lie among the network's non-trainable tensors.
    states: Vec<usize>,
}

/// A tensor of the network: an input or the output of a call.
#[derive(Clone)]
pub(super) struct Port {
    pub name: Arc<str>,
    /// With a batch of 1.
    pub spec: Spec,
    /// What it was built from.
    pub symbolic: Symbolic,
}

/// One call of a layer; it makes port `inputs.len() of the network + its own index`.
#[derive(Clone)]
pub(super) struct Call {
    pub layer: usize,
    pub inputs: Vec<usize>,
}

#[derive(Clone)]
pub(super) struct Graph {
    pub inputs: usize,
    pub ports: Vec<Port>,
    pub calls: Vec<Call>,
    pub layers: Vec<Entry>,
    pub outputs: Vec<usize>,
    variables: Vec<Variable>,
}

impl Graph {
    /// Numbers the variables: in the order of the layers, in one list those that are trained and in another the rest.
    pub fn place_variables(&mut self) {
        self.variables.clear();
        let mut counts = [0, 0];
        for entry in &mut self.layers {
            (entry.weights, entry.states) = (Vec::new(), Vec::new());
            for variable in &entry.variables {
                let name = format!("{}/{}", entry.name, variable.name);
                let trainable = variable.trainable && !entry.frozen;
                self.variables.push(Variable { name, trainable, ..variable.clone() });
                let list = if variable.trainable { &mut entry.weights } else { &mut entry.states };
                let count = &mut counts[usize::from(!trainable)];
                list.push(*count);
                *count += 1;
            }
        }
    }
}

/// A graph of layers from inputs to outputs. Cheap to clone.
///
/// ```
/// use wengert::layers::{Dense, Input, Layer, Mode, Network};
/// use wengert::graph::Tensor;
///
/// let x = Input([32]);
/// let y = Dense::new(1).on(&x);
/// let network = Network::new(&[x], &[y])?;
/// let (trainable, non_trainable) = network.init(0)?;
///
/// let batch = Tensor::zeros([8, 32]);
/// let (outputs, non_trainable) = network.call(&trainable, &non_trainable, &[batch], Mode::Infer)?;
/// assert_eq!(outputs[0].shape(), [8, 1].into());
/// # Ok::<(), wengert::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Network {
    pub(super) name: Arc<str>,
    pub(super) graph: Arc<Graph>,
}

/// The name for a layer of `kind`, Keras' way: the first is bare, the next is numbered 1.
pub(super) fn unique(kind: &str, taken: &mut Set<Arc<str>>) -> Arc<str> {
    let mut name: Arc<str> = kind.into();
    let mut number = 0;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{kind}_{number}").into();
    }
    name
}

/// The calls that `outputs` need, in order of creation, without looking behind `inputs`.
fn reach(inputs: &[Symbolic], outputs: &[Symbolic]) -> Result<Vec<Symbolic>> {
    let mut seen: Set<u64> = inputs.iter().map(|x| x.0.number).collect();
    let mut calls = Vec::new();
    let mut stack = outputs.to_vec();
    while let Some(x) = stack.pop() {
        if !seen.insert(x.0.number) {
            continue;
        }
        match &x.0.source {
            Source::Input { .. } => {
                let what = "an output is computed from an input that is not among the network's inputs; list it";
                return Err(Error::argument(what));
            }
            Source::Call { inputs, .. } => stack.extend(inputs.iter().cloned()),
        }
        calls.push(x);
    }
    sort_by_key(&mut calls, |x| x.0.number);
    Ok(calls)
}

/// The same error within the layer's unique name.
fn within(error: Error, name: &Arc<str>) -> Error {
    let moved = |place: &Place| Place { at: place.at, within: name.clone() };
    match error.kind() {
        ErrorKind::Shape { op, inputs, why, place } => {
            let (op, inputs, why, place) = (op.clone(), inputs.clone(), why.clone(), moved(place));
            Error::new(ErrorKind::Shape { op, inputs, why, place })
        }
        ErrorKind::DType { op, inputs, why, place } => {
            let (op, inputs, why, place) = (op.clone(), inputs.clone(), why.clone(), moved(place));
            Error::new(ErrorKind::DType { op, inputs, why, place })
        }
        _ => error,
    }
}

impl Network {
    /// The network that computes `outputs` from `inputs`. Inputs may be outputs of layers: then it begins there.
    ///
    /// Errors: whatever did not fit when the layers were called; an input that is not listed; a name given twice; a
    /// shared layer that would need other variables at another call.
    pub fn new(inputs: &[Symbolic], outputs: &[Symbolic]) -> Result<Network> {
        let mut graph = Graph {
            inputs: inputs.len(),
            ports: Vec::new(),
            calls: Vec::new(),
            layers: Vec::new(),
            outputs: Vec::new(),
            variables: Vec::new(),
        };
        let calls = reach(inputs, outputs)?;
        let mut taken: Set<Arc<str>> = Set::new();
        let mut named: Vec<&LayerRef> = Vec::new();
        for call in &calls {
            if let Source::Call { layer, .. } = &call.0.source
                && let Some(name) = layer.name()
                && !named.iter().any(|other| other.same(layer) && other.name() == Some(name))
            {
                if !taken.insert(name.into()) {
                    return Err(Error::argument(format!("two layers are named {name}; names must be unique")));
                }
                named.push(layer);
            }
        }
        for input in inputs {
            if let Source::Input { name: Some(name) } = &input.0.source
                && !taken.insert(name.clone())
            {
                let what =
                    format!("an input is named {name}, and so is another input or a layer; names must be unique");
                return Err(Error::argument(what));
            }
        }
        let mut port_of: Table<u64, usize> = Table::new();
        for input in inputs {
            if port_of.insert(input.0.number, graph.ports.len()).is_some() {
                return Err(Error::argument("an input is listed twice"));
            }
            let name = match &input.0.source {
                Source::Input { name: Some(name) } => name.clone(),
                _ => unique("input_layer", &mut taken),
            };
            graph.ports.push(Port { spec: input.0.spec.clone()?, name, symbolic: input.clone() });
        }
        for call in &calls {
            let Source::Call { layer, inputs, variables } = &call.0.source else { continue };
            let index = match graph.layers.iter().position(|entry| entry.layer.same(layer)) {
                Some(index) => index,
                None => {
                    let name = match layer.name() {
                        Some(name) => name.into(),
                        None => unique(layer.layer().kind(), &mut taken),
                    };
                    graph.layers.push(Entry {
                        name,
                        layer: layer.clone(),
                        variables: variables.clone(),
                        frozen: layer.is_frozen(),
                        weights: Vec::new(),
                        states: Vec::new(),
                    });
                    graph.layers.len() - 1
                }
            };
            let entry = &graph.layers[index];
            let spec = call.0.spec.clone().map_err(|error| within(error, &entry.name))?;
            if !entry.variables.iter().map(Variable::spec).eq(variables.iter().map(Variable::spec)) {
                let what = format!("{} is shared, but its calls need variables of different shapes", entry.name);
                return Err(Error::state(what));
            }
            port_of.insert(call.0.number, graph.ports.len());
            graph.ports.push(Port { name: entry.name.clone(), spec, symbolic: call.clone() });
            // Every input was created, and so numbered, before the call.
            graph.calls.push(Call { layer: index, inputs: inputs.iter().map(|x| port_of[&x.0.number]).collect() });
        }
        graph.outputs = outputs.iter().map(|x| port_of[&x.0.number]).collect();
        graph.place_variables();
        Ok(Network { name: "functional".into(), graph: Arc::new(graph) })
    }

    /// The same network under another name, which messages and `summary` use.
    pub fn named(mut self, name: &str) -> Network {
        self.name = name.into();
        self
    }

    /// The name: "functional" or "sequential" unless another was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The layers with their unique names, in the order they were first called.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &dyn Layer)> {
        self.graph.layers.iter().map(|entry| (&*entry.name, entry.layer.layer()))
    }

    /// All variables under their full names ("dense/kernel"), layer by layer. The trainable tensors are those of the
    /// trainable ones among them, in this order, the non-trainable tensors those of the others.
    pub fn variables(&self) -> &[Variable] {
        &self.graph.variables
    }

    /// Shapes of the inputs without the batch axis.
    pub fn input_shapes(&self) -> Vec<Shape> {
        self.graph.ports[..self.graph.inputs].iter().map(|port| entry(&port.spec.shape)).collect()
    }

    /// Shapes of the outputs without the batch axis.
    pub fn output_shapes(&self) -> Vec<Shape> {
        self.graph.outputs.iter().map(|&port| entry(&self.graph.ports[port].spec.shape)).collect()
    }

    /// Number of parameters: elements of all variables but the states of seed generators.
    pub fn count_params(&self) -> usize {
        self.graph.variables.iter().map(Variable::count).sum()
    }

    /// Keras' table of the layers.
    pub fn summary(&self) -> String {
        summary::summary(&self.name, &self.graph, &self.graph.variables)
    }

    /// First values of the variables, on the host: trainable, then non-trainable. Variable `i` of
    /// [`variables`](Network::variables) draws from `fold_in(key(seed), i)`: equal seeds give equal bits everywhere.
    pub fn init(&self, seed: u64) -> Result<(Variables, Variables)> {
        let key = threefry::key(seed);
        let (mut trainable, mut non_trainable) = (Vec::new(), Vec::new());
        for (index, variable) in self.graph.variables.iter().enumerate() {
            let tensor = variable.init.tensor(&variable.spec(), threefry::fold_in(key, index as u32))?;
            if variable.trainable { &mut trainable } else { &mut non_trainable }.push(tensor);
        }
        Ok((trainable, non_trainable))
    }

    /// The outputs and the new non-trainable tensors: a pure function of variables, inputs and mode.
    ///
    /// Errors: a wrong number of tensors or a variable of another shape (`ErrorKind::State`), an input of another shape
    /// (`ErrorKind::Shape`, with both), fractions where whole numbers are taken (`ErrorKind::DType`), and what poisoned an
    /// output. Whole numbers and truth values are cast to what an input takes.
    #[track_caller]
    pub fn call(
        &self,
        trainable: &[Tensor],
        non_trainable: &[Tensor],
        inputs: &[Tensor],
        mode: Mode,
    ) -> Result<(Vec<Tensor>, Variables)> {
        self.run(trainable, non_trainable, inputs, mode, false)
    }

    /// [`call`](Network::call), of a network that is a layer of another, which may have frozen it.
    #[track_caller]
    pub(super) fn run(
        &self,
        trainable: &[Tensor],
        non_trainable: &[Tensor],
        inputs: &[Tensor],
        mode: Mode,
        frozen: bool,
    ) -> Result<(Vec<Tensor>, Variables)> {
        self.check_variables(trainable, true)?;
        self.check_variables(non_trainable, false)?;
        let mut ports = self.fitting(inputs)?;
        let mut states = non_trainable.to_vec();
        for call in &self.graph.calls {
            let entry = &self.graph.layers[call.layer];
            let pick = |from: &[Tensor], at: &[usize]| at.iter().map(|&i| from[i].clone()).collect();
            let weights = if entry.frozen { pick(&states, &entry.weights) } else { pick(trainable, &entry.weights) };
            let mut context = Context::new(mode, weights, pick(&states, &entry.states));
            context.frozen = frozen || entry.frozen;
            let inputs: Vec<_> = call.inputs.iter().map(|&port| ports[port].clone()).collect();
            let _scope = Scope::enter(&entry.name);
            ports.push(entry.layer.layer().call(&inputs, &mut context));
            for (&at, state) in entry.states.iter().zip(context.into_states()?) {
                states[at] = state;
            }
        }
        let outputs: Vec<Tensor> = self.graph.outputs.iter().map(|&port| ports[port].clone()).collect();
        for tensor in outputs.iter().chain(&states) {
            tensor.ok()?;
        }
        Ok((outputs, states))
    }

    fn check_variables(&self, tensors: &[Tensor], trainable: bool) -> Result<()> {
        let kind = if trainable { "trainable" } else { "non-trainable" };
        let expected: Vec<_> = self.graph.variables.iter().filter(|v| v.trainable == trainable).collect();
        if expected.len() != tensors.len() {
            let (have, need) = (tensors.len(), expected.len());
            let what = format!("{} has {need} {kind} variables, {have} were given", self.name);
            return Err(Error::state(what));
        }
        for (variable, tensor) in expected.into_iter().zip(tensors) {
            let (node, output) = tensor.node()?;
            let (given, wanted) = (&node.outputs()[output], variable.spec());
            if *given != wanted {
                let what = format!("variable {} is {wanted}, {given} was given", variable.name);
                return Err(Error::state(what));
            }
        }
        Ok(())
    }

    /// The inputs, whole numbers and truth values cast to what the network takes, as in Keras. Numbers with a fraction
    /// would lose it, so those are not.
    #[track_caller]
    fn fitting(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let expected = &self.graph.ports[..self.graph.inputs];
        if inputs.len() != expected.len() {
            let what = format!("{} takes {} inputs, {} were given", self.name, expected.len(), inputs.len());
            return Err(Error::argument(what));
        }
        let place = here();
        let fit = |(port, tensor): (&Port, &Tensor)| {
            let (node, output) = tensor.node()?;
            let (given, wanted) = (&node.outputs()[output], entry(&port.spec.shape));
            if given.shape.is_empty() || entry(&given.shape) != wanted {
                return Err(Error::new(ErrorKind::Shape {
                    op: format!("{} of {}", port.name, self.name),
                    inputs: vec![given.shape.clone()],
                    why: format!("the network takes {}", summary::batched(&wanted)),
                    place: place.clone(),
                }));
            }
            if given.dtype == port.spec.dtype {
                return Ok(tensor.clone());
            }
            if given.dtype.is_float() {
                return Err(Error::new(ErrorKind::DType {
                    op: format!("{} of {}", port.name, self.name),
                    inputs: vec![given.dtype],
                    why: format!("the network takes {}; cast the tensor, which cuts fractions off", port.spec.dtype),
                    place: place.clone(),
                }));
            }
            Ok(tensor.cast(port.spec.dtype))
        };
        expected.iter().zip(inputs).map(fit).collect()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("name", &self.name)
            .field("inputs", &self.input_shapes())
            .field("outputs", &self.output_shapes())
            .field("layers", &self.graph.layers.len())
            .finish()
    }
}
