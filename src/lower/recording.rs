//! A graph as recorded: which nodes it has, and the structural [`Signature`] that guards purity.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::build::Builder;
use super::program::Program;
use crate::collections::{Set, Table};
use crate::error::{Place, Result};
use crate::graph::{Lowering, Node, Primitive, Spec, Tensor};
use crate::sort::sort_by_key;

/// The structure of a graph, comparable between recordings: one hash a node, in order.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    /// Hash of everything up to the roots.
    pub hash: u64,
    nodes: Vec<Trace>,
}

/// What a signature remembers of a node.
#[derive(Clone, Debug)]
struct Trace {
    hash: u64,
    place: Place,
    op: Arc<dyn Primitive>,
    outputs: Vec<Spec>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs: Vec<_> = self.outputs.iter().map(ToString::to_string).collect();
        let (name, attributes) = (self.op.name(), self.op.attributes());
        if attributes.is_empty() {
            write!(f, "{name} {}", outputs.join(", "))
        } else {
            write!(f, "{name}[{attributes}] {}", outputs.join(", "))
        }
    }
}

impl Signature {
    /// The first node by which `other` differs from `self`: what it is there, and where it was recorded.
    pub fn difference(&self, other: &Signature) -> Option<(String, Place)> {
        if self.hash == other.hash {
            return None;
        }
        let differs = self.nodes.iter().zip(&other.nodes).find(|(a, b)| a.hash != b.hash);
        Some(match differs {
            Some((was, now)) => {
                let (before, after) = (was.to_string(), now.to_string());
                let same = before == after;
                let why = if same { format!("{after} changed") } else { format!("{before} became {after}") };
                (why, now.place.clone())
            }
            None => {
                let longest = if self.nodes.len() > other.nodes.len() { self } else { other };
                let shared = self.nodes.len().min(other.nodes.len());
                match longest.nodes.get(shared).or(longest.nodes.last()) {
                    Some(node) => {
                        let why = format!("{} nodes became {} ({node})", self.nodes.len(), other.nodes.len());
                        (why, node.place.clone())
                    }
                    None => ("the outputs changed".into(), crate::graph::nowhere()),
                }
            }
        })
    }
}

/// How captured tensors enter a signature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Captures {
    /// Small host constants by content, others by identity: another tensor in the same place is another step.
    Identity,
    /// By shape only, but for the scalars that a program holds.
    Shape,
}

/// Constants up to this many elements enter a signature by content.
const SMALL: usize = 64;

/// A graph as recorded: nodes in order, without their history beyond known values.
pub struct Recording {
    nodes: Vec<Arc<Node>>,
    roots: Vec<(u64, usize)>,
    /// The nodes of which some output that is wanted has no value. Of the others only values are taken.
    computed: Set<u64>,
}

impl Recording {
    /// Walks back from `roots` to values that are known or stand-ins. Iterative, since chains may be long.
    pub fn of(roots: &[Tensor]) -> Result<Recording> {
        let (mut seen, mut computed): (Set<u64>, Set<u64>) = Default::default();
        let mut found: Vec<(u64, Arc<Node>)> = Vec::new();
        let mut stack: Vec<(Arc<Node>, usize)> = Vec::new();
        let mut ends = Vec::with_capacity(roots.len());
        for root in roots {
            let (node, output) = root.node()?;
            ends.push((node.number(), output));
            stack.push((node.clone(), output));
        }
        while let Some((node, output)) = stack.pop() {
            let number = node.number();
            if computed.contains(&number) {
                continue;
            }
            if !node.is_given(output) {
                computed.insert(number);
                // Operands are never poisoned: recording one gives its error at once.
                node.visit_inputs(&mut |input| {
                    stack.extend(input.node().ok().map(|(node, output)| (node.clone(), output)));
                });
            }
            if seen.insert(number) {
                found.push((number, node));
            }
        }
        // What is nearly in order is sorted in one pass.
        found.reverse();
        sort_by_key(&mut found, |(number, _)| *number);
        // What is captured stands before its first reader, not where it was made: a constant that the first recording made
        // and later ones found would be younger than the stand-ins of the one and older than those of the others.
        let is_captured = |node: &Node| !computed.contains(&node.number()) && !node.is_stand_in();
        let mut nodes: Vec<Arc<Node>> = Vec::with_capacity(found.len());
        let mut placed: Set<u64> = Set::default();
        let place_captured = |nodes: &mut Vec<Arc<Node>>, placed: &mut Set<u64>, tensor: &Tensor| {
            if let Ok((node, _)) = tensor.node()
                && is_captured(node)
                && placed.insert(node.number())
            {
                nodes.push(node.clone());
            }
        };
        for (_, node) in found.into_iter().filter(|(_, node)| !is_captured(node)) {
            if computed.contains(&node.number()) {
                node.visit_inputs(&mut |input| place_captured(&mut nodes, &mut placed, input));
            }
            nodes.push(node);
        }
        roots.iter().for_each(|root| place_captured(&mut nodes, &mut placed, root));
        Ok(Recording { nodes, roots: ends, computed })
    }

    /// Whether a node is computed, and not merely had.
    pub fn computes(&self, node: &Node) -> bool {
        self.computed.contains(&node.number())
    }

    /// The nodes: ops as they were recorded, each behind the values that it is the first to read.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Values without the roots `but` that somebody besides these nodes holds: the program, for it may go on with them. Of
    /// what merely views another value the other counts; coordinates cost nothing to compute again.
    pub fn held(&self, but: &[Tensor]) -> Vec<Tensor> {
        // The recording holds each node once itself.
        let mut holders: Table<u64, usize> = Table::default();
        let pending = || self.nodes.iter().filter(|node| self.computes(node));
        for node in pending() {
            node.visit_inputs(&mut |input| {
                if let Ok((input, _)) = input.node() {
                    *holders.or_insert(input.number(), 1) += 1;
                }
            });
        }
        let wanted: Set<u64> = but.iter().filter_map(|t| t.node().ok()).map(|(node, _)| node.number()).collect();
        let mut through: Set<u64> = Set::default();
        let mut held = Vec::new();
        for node in pending().rev().filter(|node| !wanted.contains(&node.number())) {
            let inside = holders.get(&node.number()).copied().unwrap_or(1);
            if Arc::strong_count(node) <= inside && !through.contains(&node.number()) {
                continue;
            }
            let mut specs = Vec::new();
            node.visit_inputs(&mut |input| specs.extend(input.spec().cloned()));
            match node.op().lower(&specs, node.outputs()).as_slice() {
                [Lowering::View(_)] => node.visit_inputs(&mut |input| {
                    through.extend(input.node().ok().map(|(node, _)| node.number()));
                }),
                [Lowering::Iota { .. }] => {}
                _ => held.extend((0..node.visible()).map(|output| Tensor::of(node.clone(), output))),
            }
        }
        held
    }

    /// Values not known that were recorded before node `than` and are read by later ones or wanted as `roots`.
    pub fn older(&self, than: u64, roots: &[Tensor]) -> Result<Vec<Tensor>> {
        let late = self.nodes.iter().filter(|node| node.number() >= than && self.computes(node));
        let mut found: Vec<Tensor> = Vec::new();
        for tensor in late.flat_map(|node| node.inputs()).chain(roots.iter().cloned()) {
            let (node, output) = tensor.node()?;
            if node.number() < than && !node.is_given(output) && !found.iter().any(|other| other.same(&tensor)) {
                found.push(tensor);
            }
        }
        Ok(found)
    }

    /// The structure with captured tensors by identity: what must not change between runs of a step.
    pub fn signature(&self, stand_ins: &Table<u64, usize>) -> Signature {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let hash = self.hash(Captures::Identity, stand_ins, &mut |node, hash| {
            let (place, op, outputs) = (node.place().clone(), node.op().clone(), node.outputs().to_vec());
            nodes.push(Trace { hash, place, op, outputs });
        });
        Signature { hash, nodes }
    }

    /// Equal for recordings that the same program computes from other leaves.
    pub fn shape(&self) -> u64 {
        self.hash(Captures::Shape, &Table::new(), &mut |_, _| {})
    }

    /// The tensors that are leaves of [`program`](Recording::program) without stand-ins, in its order.
    pub fn leaves(&self) -> Vec<Tensor> {
        let outputs = |node: &Arc<Node>| given(node).map(|output| (node.clone(), output)).collect();
        let all = self.nodes.iter().flat_map(|node| -> Vec<_> { outputs(node) });
        all.filter(|(node, output)| scalar(node, *output).is_none()).map(|(n, output)| Tensor::of(n, output)).collect()
    }

    /// Hashes ops, edges, shapes, dtypes, small constants, and the captured tensors as told.
    fn hash(&self, captures: Captures, stand_ins: &Table<u64, usize>, each: &mut dyn FnMut(&Arc<Node>, u64)) -> u64 {
        let by_content = if captures == Captures::Identity { SMALL } else { 1 };
        let mut order: Table<u64, usize> = Table::default();
        order.reserve(self.nodes.len());
        let mut whole = DefaultHasher::new();
        for (index, node) in self.nodes.iter().enumerate() {
            order.insert(node.number(), index);
            let mut hasher = DefaultHasher::new();
            node.op().identify(&mut hasher);
            node.outputs().hash(&mut hasher);
            if let Some(stand_in) = stand_ins.get(&node.number()) {
                ("stand-in", stand_in).hash(&mut hasher);
            } else {
                for output in given(node) {
                    let value = node.value(output);
                    match value.host {
                        Some(bits) if bits.len() <= by_content => bits.hash(&mut hasher),
                        _ if captures == Captures::Identity => (node.number(), output).hash(&mut hasher),
                        _ => ("captured", output).hash(&mut hasher),
                    }
                }
                if self.computes(node) {
                    node.visit_inputs(&mut |input| {
                        if let Ok((input, output)) = input.node() {
                            (order.get(&input.number()), output).hash(&mut hasher);
                        }
                    });
                }
            }
            let hash = hasher.finish();
            hash.hash(&mut whole);
            each(node, hash);
        }
        for (number, output) in &self.roots {
            (order.get(number), output).hash(&mut whole);
        }
        whole.finish()
    }

    /// Flattens to values. `stand_ins` are leaves even where they hold host data. Long sums are split as in `model`, if
    /// it is given, and the same numbers are one value.
    pub fn program(&self, stand_ins: &Table<u64, usize>, model: Option<&Program>) -> Result<Program> {
        self.body(stand_ins, Set::new(), model)
    }

    /// The program of one turn of a loop, in which the values of some nodes lie at another place each time.
    pub fn body(&self, stand_ins: &Table<u64, usize>, moving: Set<u64>, model: Option<&Program>) -> Result<Program> {
        let mut builder = Builder { model, moving, ..Builder::default() };
        for node in &self.nodes {
            let stands_in = stand_ins.contains_key(&node.number());
            if self.computes(node) && !stands_in {
                builder.node(node)?;
            }
            for output in given(node) {
                let id = builder.leaf(node, output, stands_in)?;
                builder.ids.insert((node.number(), output), id);
            }
        }
        builder.program.roots = self.roots.iter().map(|root| builder.ids[root]).collect();
        match builder.defect {
            Some(defect) => Err(defect),
            None => Ok(builder.program),
        }
    }
}

/// The outputs that are there.
fn given(node: &Node) -> impl Iterator<Item = usize> {
    (0..node.outputs().len()).filter(|&output| node.is_given(output))
}

/// The bits of a single element known on the host.
pub(super) fn scalar(node: &Node, output: usize) -> Option<u32> {
    match node.value(output).host.as_deref() {
        Some(&[only]) => Some(only),
        _ => None,
    }
}
