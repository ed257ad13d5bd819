//! [`Body`]: a recorded graph as plain data, for an op that has one inside.
//!
//! The function of a loop is recorded once, on stand-ins; what comes out is cut off from them and kept as a list of ops,
//! which can be recorded again on any operands: to compile it, to interpret it, to walk it backwards. Tensors that the
//! function reached beyond its arguments become further operands. Deliberately absent: tensors, so an op that holds a
//! body holds neither memory nor history.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::node::{Node, OnBehalf, Spec, Tensor, nowhere};
use super::primitive::Primitive;
use crate::collections::Table;
use crate::error::{Place, Result};
use crate::sort::sort_by_key;

/// One application of an op. Operands are outputs of inputs, constants and lines, counted in this order.
struct Line {
    op: Arc<dyn Primitive>,
    inputs: Vec<(usize, usize)>,
    outputs: usize,
    place: Place,
}

/// A graph with numbered inputs and outputs.
pub struct Body {
    inputs: Vec<Spec>,
    constants: Vec<(Arc<[u32]>, Spec)>,
    lines: Vec<Line>,
    roots: Vec<(usize, usize)>,
    outputs: Vec<Spec>,
    hash: u64,
}

/// Whether a tensor is a number that the host knows and nothing else: it is a part of a body rather than an operand.
fn constant(node: &Node, output: usize) -> Option<Arc<[u32]>> {
    let value = node.value(output);
    let alone = value.device.is_none() && !value.placeholder && node.inputs().is_empty();
    value.host.filter(|bits| alone && bits.len() == 1)
}

impl Body {
    /// What computes `roots` from `inputs`, stand-ins that are older than anything recorded for it. Returns also the
    /// tensors it reaches beyond them, which are its further inputs.
    pub fn of(inputs: &[Tensor], roots: &[Tensor]) -> Result<(Body, Vec<Tensor>)> {
        let mut given: Table<(u64, usize), usize> = Table::new();
        let (mut specs, mut oldest) = (Vec::new(), u64::MAX);
        for input in inputs {
            let (node, output) = input.node()?;
            given.insert((node.number(), output), specs.len());
            specs.push(node.outputs()[output].clone());
            oldest = oldest.min(node.number());
        }
        let mut own: Table<u64, Arc<Node>> = Table::new();
        let mut constants: Vec<(Arc<[u32]>, Spec)> = Vec::new();
        let mut by_constant: Table<(u64, usize), usize> = Table::new();
        let mut captured = Vec::new();
        let mut outputs = Vec::with_capacity(roots.len());
        let mut stack = Vec::new();
        for root in roots {
            let (node, output) = root.node()?;
            outputs.push(node.outputs()[output].clone());
            stack.push(root.clone());
        }
        while let Some(tensor) = stack.pop() {
            let (node, output) = tensor.node()?;
            let key = (node.number(), output);
            if given.contains_key(&key) || by_constant.contains_key(&key) || own.contains_key(&node.number()) {
                continue;
            }
            let value = node.value(output);
            if let Some(bits) = constant(node, output) {
                by_constant.insert(key, constants.len());
                constants.push((bits, node.outputs()[output].clone()));
            } else if node.number() < oldest || value.is_known() || value.placeholder {
                given.insert(key, specs.len());
                specs.push(node.outputs()[output].clone());
                captured.push(tensor.clone());
            } else {
                stack.extend(node.inputs());
                own.insert(node.number(), node.clone());
            }
        }
        let mut nodes: Vec<Arc<Node>> = own.into_values().collect();
        sort_by_key(&mut nodes, |node| node.number());
        let first = specs.len() + constants.len();
        let order: Table<u64, usize> = nodes.iter().zip(first..).map(|(node, at)| (node.number(), at)).collect();
        let locate = |tensor: &Tensor| -> Result<(usize, usize)> {
            let (node, output) = tensor.node()?;
            let key = (node.number(), output);
            let at = given.get(&key).copied().or_else(|| by_constant.get(&key).map(|at| specs.len() + at));
            Ok(at.map_or_else(|| (order[&node.number()], output), |at| (at, 0)))
        };
        let mut lines = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let inputs = node.inputs().iter().map(locate).collect::<Result<_>>()?;
            let (op, place) = (node.op().clone(), node.place().clone());
            lines.push(Line { op, inputs, outputs: node.outputs().len(), place });
        }
        let roots = roots.iter().map(locate).collect::<Result<Vec<_>>>()?;
        let mut hasher = DefaultHasher::new();
        (&specs, &constants, &roots).hash(&mut hasher);
        for line in &lines {
            line.op.identify(&mut hasher);
            (&line.inputs, line.outputs).hash(&mut hasher);
        }
        let hash = hasher.finish();
        Ok((Body { inputs: specs, constants, lines, roots, outputs, hash }, captured))
    }

    /// Records it on other operands, each line in the name of the place it was first recorded at.
    pub fn record(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        let mut all: Vec<Vec<Tensor>> = inputs.iter().map(|input| vec![input.clone()]).collect();
        let constant =
            |(bits, spec): &(Arc<[u32]>, Spec)| vec![Tensor::from_bits(bits.clone(), spec.clone(), nowhere())];
        all.extend(self.constants.iter().map(constant));
        for line in &self.lines {
            let _behalf = OnBehalf::of(&line.place);
            let inputs: Vec<&Tensor> = line.inputs.iter().map(|&(at, output)| &all[at][output]).collect();
            all.push(Tensor::record(line.op.clone(), &inputs, line.outputs));
        }
        self.roots.iter().map(|&(at, output)| all[at][output].clone()).collect()
    }

    /// Whether another body is recorded alike, perhaps for other shapes.
    fn is_like(&self, other: &Body) -> bool {
        let same =
            |(a, b): (&Line, &Line)| a.op.name() == b.op.name() && (&a.inputs, a.outputs) == (&b.inputs, b.outputs);
        (self.inputs.len(), self.constants.len(), self.lines.len(), &self.roots)
            == (other.inputs.len(), other.constants.len(), other.lines.len(), &other.roots)
            && self.lines.iter().zip(&other.lines).all(same)
    }

    /// New stand-ins for its inputs.
    pub fn stand_ins(&self) -> Vec<Tensor> {
        self.inputs.iter().map(|spec| Tensor::placeholder(spec.clone(), nowhere())).collect()
    }

    /// Shapes and dtypes of its inputs.
    pub fn inputs(&self) -> &[Spec] {
        &self.inputs
    }

    /// Shapes and dtypes of its outputs.
    pub fn outputs(&self) -> &[Spec] {
        &self.outputs
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        (self.hash, &self.inputs, &self.outputs) == (other.hash, &other.inputs, &other.outputs)
    }
}

impl Eq for Body {}

impl Hash for Body {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.hash.hash(hasher);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.lines.iter().map(|line| line.op.name()).collect();
        write!(f, "Body({})", names.join(" "))
    }
}

/// A body that runs `length` times, one turn after the other.
///
/// Its inputs are what is carried from turn to turn, the turn's slices of the sequences, and what is the same in all turns;
/// its outputs the new carry and the turn's slices of the results. The op's operands are the first carry, the sequences,
/// whose first axis is the turn, and the rest; its outputs the last carry, the results, stacked likewise, and the carry that
/// each turn began with, stacked too, which is computed only if something reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// What one turn computes.
    pub body: Arc<Body>,
    /// Turns, at least one.
    pub length: usize,
    /// Whether the last slices come first.
    pub reverse: bool,
    /// Tensors carried.
    pub carries: usize,
    /// Sequences.
    pub sequences: usize,
}

impl Scan {
    /// Shape and dtype of an output of the op.
    pub fn output(&self, at: usize) -> Option<Spec> {
        let (results, outputs) = (self.body.outputs.len(), &self.body.outputs);
        let spec = outputs.get(if at < results { at } else { at - results })?;
        Some(match at < self.carries {
            true => spec.clone(),
            false => Spec::new([&[self.length], spec.shape.dims()].concat(), spec.dtype),
        })
    }

    /// Whether another is the same loop, perhaps over tensors of other shapes.
    pub fn is_like(&self, other: &Scan) -> bool {
        (self.length, self.reverse, self.carries, self.sequences)
            == (other.length, other.reverse, other.carries, other.sequences)
            && self.body.is_like(&other.body)
    }
}
