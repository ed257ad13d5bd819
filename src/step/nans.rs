//! `debug_nans`: a step whose logs and state are looked at after every run, and, if something in them is not finite, is
//! done once more op by op to say where that began.
//!
//! State and batch of the failed run are still there: the state was copied on the device before. The function is called on
//! them as on any tensors, every op is computed by a kernel of its own, and of those whose result is not finite the search
//! goes back from what was found to an op, an input or a leaf of the state that has nothing but finite operands. Then the
//! state is put back, so that it is what it was. Deliberately absent: any cost for steps that do not ask; and guesses: an
//! infinity that a later op turns into a finite number is no fault.

use std::sync::Arc;

use super::Step;
use super::entry::Entry;
use super::finite::{NonFinite, non_finite};
use super::logs::Logs;
use super::transfer::Transfer;
use crate::collections::{Set, Table};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Device, Range};
use crate::graph::display::number as written;
use crate::graph::{Lowering, Node, Slot, Spec, Tensor, Tree};
use crate::lower::Options;
use crate::lower::recording::Recording;
use crate::read::evaluate;

/// Nodes that are computed together.
const TOGETHER: usize = 32;
/// Origins whose operands are read for the message.
const TOLD: usize = 16;

impl Step {
    /// Runs the function for each batch in turn, and looks at what it leaves.
    pub(super) fn run_watched<S: Tree, B: Tree>(
        &mut self,
        tag: u64,
        state: &mut S,
        batches: &[B],
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Logs> {
        let mut latest = Logs::default();
        for batch in batches.chunks(1) {
            self.prepare(tag, state, batch, &f)?;
            let before = copied(&self.device, state)?;
            let mut encoder = self.device.encoder();
            latest = self.encode(&mut encoder, batch)?;
            encoder.submit()?;
            let Some(entry) = self.entries.last() else { continue };
            pollster::block_on(look(&self.device, entry, state, &before, &batch[0], &f))?;
        }
        Ok(latest)
    }
}

/// An error, with the state put back, if the latest run left something that is not finite.
async fn look<S: Tree, B: Tree>(
    device: &Device,
    entry: &Entry,
    state: &S,
    before: &[Tensor],
    batch: &B,
    f: impl Fn(S, &B) -> Result<(Logs, S)>,
) -> Result<()> {
    let mut bad = entry.non_finite(device, state).await?;
    if bad.is_empty() {
        return Ok(());
    }
    // A leaf of the state that was infinite before is meant to be, like the least number seen so far before any was.
    let leaves: Vec<usize> = bad.iter().map(|b| b.0).filter(|&at| at < before.len()).collect();
    let mut slots = Vec::new();
    for &at in &leaves {
        slots.extend(place(&before[at])?.map(|slot| (slot, before[at].shape().numel())));
    }
    let was = non_finite(device, &slots).await?;
    bad.retain(|b| leaves.iter().position(|&at| at == b.0).is_none_or(|index| was[index].is_none()));
    if bad.is_empty() {
        return Ok(());
    }
    Err(explain(device, state, before, batch, &bad, &|at| entry.label(at), f).await?)
}

/// Tensors that hold the values of the leaves now, whatever becomes of those.
pub(super) fn copied(device: &Device, state: &impl Tree) -> Result<Vec<Tensor>> {
    let mut transfer = Transfer::new(device);
    let mut copies = Vec::new();
    for tensor in state.leaves() {
        let (node, output) = tensor.node()?;
        let (spec, value) = (node.outputs()[output].clone(), node.value(output));
        let copy = transfer.alloc(&tensor)?;
        if let Some(slot) = value.device {
            transfer.copy(&slot, &copy, spec.bytes());
        }
        copies.push(Tensor::from_slot(copy, spec, node.place().clone()));
    }
    transfer.submit()?;
    Ok(copies)
}

/// Copies values back over the leaves they were copied from.
fn put_back(device: &Device, state: &impl Tree, copies: &[Tensor]) -> Result<()> {
    let mut transfer = Transfer::new(device);
    for (tensor, copy) in state.leaves().iter().zip(copies) {
        let (to, from) = (place(tensor)?, place(copy)?);
        if let (Some(to), Some(from), Some(spec)) = (to, from, copy.spec()) {
            transfer.copy(&from, &to, spec.bytes());
        }
    }
    transfer.submit()
}

fn place(tensor: &Tensor) -> Result<Option<Slot>> {
    let (node, output) = tensor.node()?;
    Ok(node.value(output).device)
}

impl Entry {
    /// What the latest run left that is not finite: of the step's outputs, new state and then logs, which, what it is
    /// called, and what was found in it.
    pub async fn non_finite(&self, device: &Device, state: &impl Tree) -> Result<Vec<(usize, String, NonFinite)>> {
        let (mut outputs, mut slots) = (Vec::new(), Vec::new());
        for (at, tensor) in state.leaves().iter().enumerate() {
            let Some(slot) = place(tensor)?.filter(|_| self.overwritten[at] && tensor.dtype() == DType::F32) else {
                continue;
            };
            slots.push((slot, tensor.shape().numel()));
            outputs.push((at, format!("the state's {}", self.label(at))));
        }
        for (at, (slot, name)) in self.log_slots().into_iter().zip(&self.names).enumerate() {
            slots.push((slot, 1));
            outputs.push((self.state.len() + at, format!("the log {name}")));
        }
        let found = non_finite(device, &slots).await?;
        let bad = outputs.into_iter().zip(found).filter_map(|((at, name), found)| Some((at, name, found?)));
        let mut bad: Vec<_> = bad.collect();
        // A log says more than one of many parameters.
        bad.sort_by_key(|(at, ..)| (*at < self.state.len(), *at));
        Ok(bad)
    }
}

/// A tensor with the same value as another that nobody else holds.
fn alone(tensor: &Tensor) -> Tensor {
    let Ok((node, output)) = tensor.node() else { return tensor.clone() };
    let (spec, place, value) = (node.outputs()[output].clone(), node.place().clone(), node.value(output));
    match (value.host, value.device) {
        (Some(bits), _) => Tensor::from_bits(bits, spec, place),
        (None, Some(slot)) => Tensor::from_slot(slot, spec, place),
        (None, None) => tensor.clone(),
    }
}

/// Does a step again, op by op, and says where what is `bad` in its outputs began. Puts the state back.
pub(super) async fn explain<S: Tree, B: Tree>(
    device: &Device,
    state: &S,
    before: &[Tensor],
    batch: &B,
    bad: &[(usize, String, NonFinite)],
    label: &dyn Fn(usize) -> String,
    f: impl Fn(S, &B) -> Result<(Logs, S)>,
) -> Result<Error> {
    put_back(device, state, before)?;
    let mut names: Table<u64, String> = Table::new();
    let mut name = |tensor: &Tensor, name: String| {
        if let Ok((node, _)) = tensor.node() {
            names.insert(node.number(), name);
        }
    };
    let mut at = 0;
    let given = state.map(&mut |_| {
        let tensor = alone(&before[at]);
        name(&tensor, format!("the state's {} held", label(at)));
        at += 1;
        tensor
    });
    let mut at = 0;
    let inputs = batch.map(&mut |tensor| {
        let tensor = alone(tensor);
        name(&tensor, format!("the input x{at} of the step holds"));
        at += 1;
        tensor
    });
    let (logs, new) = f(given, &inputs)?;
    let mut outputs = new.leaves();
    outputs.extend(logs.iter().map(|(_, tensor)| tensor.clone()));
    let roots: Vec<Tensor> = bad.iter().filter_map(|(at, ..)| outputs.get(*at).cloned()).collect();
    let mut replay = Replay::new(&roots)?;
    replay.run(device).await?;
    let reached = bad.first().map(|(_, name, found)| format!("{name} became {found}")).unwrap_or_default();
    let what = match replay.origin() {
        Some(origin) => format!("{}; {reached}", replay.describe(&origin, &names)),
        None => format!("{reached}, but no op gave such a number when the step was done again op by op"),
    };
    Ok(Error::new(ErrorKind::NonFinite { what }))
}

/// One output of a node.
type Output = (u64, usize);

/// A graph that is computed node by node.
struct Replay {
    nodes: Vec<Arc<Node>>,
    /// The operands, which evaluated nodes let go of.
    operands: Table<u64, Vec<Output>>,
    roots: Vec<Output>,
    /// What is not finite.
    bad: Table<Output, NonFinite>,
    /// The elements that the first bad operations read, as text.
    told: Table<u64, String>,
}

impl Replay {
    fn new(roots: &[Tensor]) -> Result<Replay> {
        let recording = Recording::of(roots)?;
        let nodes = recording.nodes().to_vec();
        let ends = |tensors: &[Tensor]| -> Result<Vec<Output>> {
            tensors.iter().map(|t| t.node().map(|(node, output)| (node.number(), output))).collect()
        };
        let mut operands = Table::new();
        for node in &nodes {
            // What has a value is not computed again, whatever it came from.
            let inputs = if recording.computes(node) { ends(&node.inputs())? } else { Vec::new() };
            operands.insert(node.number(), inputs);
        }
        let roots = ends(roots)?;
        Ok(Replay { nodes, operands, roots, bad: Table::new(), told: Table::new() })
    }

    /// Computes everything in the order of recording, and looks at it.
    async fn run(&mut self, device: &Device) -> Result<()> {
        let nodes = std::mem::take(&mut self.nodes);
        let by_number: Table<u64, &Arc<Node>> = nodes.iter().map(|node| (node.number(), node)).collect();
        // The last node that reads each, itself or through what is never computed.
        let mut last: Table<u64, u64> = Table::new();
        for node in nodes.iter().rev() {
            let number = node.number();
            let until = if passes_on(node) { last.get(&number).copied().unwrap_or(number) } else { number };
            for (operand, _) in &self.operands[&number] {
                let known = last.or_default(*operand);
                *known = until.max(*known);
            }
        }
        let options = Options { fuse: false, ..Options::default() };
        for chunk in nodes.chunks(TOGETHER) {
            let mut wanted: Vec<Tensor> = Vec::new();
            for node in chunk.iter().filter(|node| !passes_on(node)) {
                // Of what has a value nothing else can be had.
                let all = (0..node.outputs().len()).map(|output| Tensor::of(node.clone(), output));
                let given = self.operands[&node.number()].is_empty() && node.is_given(0);
                wanted.extend(all.enumerate().filter(|(at, _)| !given || node.is_given(*at)).map(|(_, tensor)| tensor));
            }
            evaluate(device, &wanted, &options)?;
            let mut transfer = Transfer::new(device);
            let (mut outputs, mut slots) = (Vec::new(), Vec::new());
            for tensor in wanted.iter().filter(|tensor| tensor.dtype() == DType::F32) {
                let (node, output) = tensor.node()?;
                outputs.push((node.number(), output));
                slots.push((transfer.slot(tensor)?, tensor.shape().numel()));
            }
            transfer.submit()?;
            let found = non_finite(device, &slots).await?;
            self.bad.extend(outputs.into_iter().zip(found).filter_map(|(output, found)| Some((output, found?))));
            for node in chunk {
                let number = node.number();
                if passes_on(node) {
                    // Every element of what it reads is in it.
                    let below = self.operands[&number].iter().find_map(|operand| self.bad.get(operand).copied());
                    self.bad.extend(below.map(|found| ((number, 0), found)));
                } else if let Some(text) = self.operands_of(device, node, &by_number).await? {
                    self.told.insert(number, text);
                }
            }
            let end = chunk.last().map_or(0, |node| node.number());
            let root = |number: u64| self.roots.iter().any(|root| root.0 == number);
            let done = |node: &&Arc<Node>| !root(node.number()) && !self.operands[&node.number()].is_empty();
            let finished = |node: &&Arc<Node>| last.get(&node.number()).is_some_and(|&last| last <= end);
            for node in nodes.iter().filter(|node| node.number() <= end).filter(done).filter(finished) {
                (0..node.outputs().len()).for_each(|output| node.set_value(output, Default::default()));
            }
        }
        self.nodes = nodes;
        Ok(())
    }

    /// The elements of operands that an elementwise op made its first bad element of, if it is one of the first to do so.
    async fn operands_of(
        &self,
        device: &Device,
        node: &Arc<Node>,
        nodes: &Table<u64, &Arc<Node>>,
    ) -> Result<Option<String>> {
        let (Some(found), operands) = (self.bad.get(&(node.number(), 0)), &self.operands[&node.number()]) else {
            return Ok(None);
        };
        if self.told.len() >= TOLD
            || operands.is_empty()
            || operands.iter().any(|operand| self.bad.contains_key(operand))
        {
            return Ok(None);
        }
        let mut elements = Vec::new();
        for (number, output) in operands {
            let (mut number, mut output) = (*number, *output);
            // A number spread over a tensor is told as itself.
            while let Some([below]) = nodes.get(&number).filter(|n| passes_on(n)).map(|_| &self.operands[&number][..]) {
                (number, output) = *below;
            }
            let Some(operand) = nodes.get(&number) else { return Ok(None) };
            let (spec, value) = (&operand.outputs()[output], operand.value(output));
            let same = spec.shape == node.outputs()[0].shape;
            if spec.dtype != DType::F32 || !(same || spec.shape.numel() == 1) {
                return Ok(None);
            }
            let index = if same { found.index } else { 0 };
            let bits = match (value.host, value.device) {
                (Some(bits), _) => bits.get(index).copied(),
                (None, Some(slot)) => {
                    let range = Range::new(&slot.buffer, slot.offset + index as u64 * 4, 4);
                    let read = device.read(&[range]).await?;
                    read.first().and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b))
                }
                (None, None) => None,
            };
            let Some(bits) = bits else { return Ok(None) };
            elements.push(written(bits, DType::F32));
        }
        Ok(Some(elements.join(", ")))
    }

    /// The earliest output that is not finite, leads to a root that is not, and has nothing but finite operands.
    fn origin(&self) -> Option<Output> {
        let is_bad = |output: &&Output| self.bad.contains_key(output);
        let mut stack: Vec<Output> = self.roots.iter().filter(is_bad).copied().collect();
        let (mut seen, mut origin): (Set<Output>, Option<Output>) = (Set::new(), None);
        while let Some(output) = stack.pop() {
            if !seen.insert(output) {
                continue;
            }
            let before = stack.len();
            stack.extend(self.operands[&output.0].iter().filter(is_bad));
            if stack.len() == before {
                origin = Some(origin.map_or(output, |first| first.min(output)));
            }
        }
        origin
    }

    /// What was found at an origin, and where.
    fn describe(&self, origin: &Output, names: &Table<u64, String>) -> String {
        let Some(node) = self.nodes.iter().find(|node| node.number() == origin.0) else { return String::new() };
        let (spec, found) = (&node.outputs()[origin.1], self.bad[origin]);
        let at = format!("{found} at {:?} of {spec} ({})", position(spec, found.index), node.place());
        if let Some(name) = names.get(&origin.0) {
            return format!("{name} {at}");
        }
        if self.operands[&origin.0].is_empty() {
            return format!("a tensor that the step captured holds {at}");
        }
        let op = node.op();
        match self.told.get(&origin.0) {
            Some(elements) => format!("{}({elements}) gave {at}", op.name()),
            None => format!("{} gave {at}", op.name()),
        }
    }
}

/// Whether a node only shows its operand, all of it and perhaps more than once: it is never computed by itself, which
/// might take memory that there is not.
fn passes_on(node: &Node) -> bool {
    let inputs = node.inputs();
    let specs: Vec<Spec> = inputs.iter().filter_map(|input| input.spec().cloned()).collect();
    // A computed node has let go of its operands, and a leaf has none.
    if specs.len() != inputs.len() || specs.is_empty() {
        return false;
    }
    let larger = node.outputs()[0].shape.numel() >= specs[0].shape.numel();
    larger && matches!(node.op().lower(&specs, node.outputs()).as_slice(), [Lowering::View(_) | Lowering::Window(..)])
}

/// The coordinates of an element.
fn position(spec: &Spec, index: usize) -> Vec<usize> {
    let (mut rest, mut place) = (index, Vec::new());
    for stride in spec.shape.strides() {
        place.push(rest / stride.max(1));
        rest %= stride.max(1);
    }
    place
}
