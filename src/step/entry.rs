//! [`Entry`]: one recorded form of a step, its plan, and the state brought to where the plan wants it.
//!
//! Deliberately absent: recording, see `record`, and the commands that move values, see `transfer`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::logs::{Logs, Ring};
use super::memory::Memory;
use super::record::{Recorded, specs};
use super::transfer::{Transfer, fill, same_device};
use crate::error::Result;
use crate::gpu::{Device, Encoder};
use crate::graph::{Slot, Spec, Tensor, Tree, Value};
use crate::lower::pack::offsets;
use crate::lower::program::{Id, Kind, Program, Val};
use crate::lower::recording::Signature;
use crate::lower::remat::compile_within;
use crate::lower::{Compiled, Options, Request, Target, compile};
use crate::plan::{Bound, Plan};

/// One recorded and compiled form of a step.
pub(super) struct Entry {
    tag: u64,
    pub(super) state: Vec<Spec>,
    pub(super) batch: Vec<Spec>,
    /// What a further recording must be equal to.
    pub signature: Signature,
    pub(super) compiled: Compiled,
    /// Leaves of the state, by position, that must lie one behind the other.
    layouts: Vec<Vec<usize>>,
    /// For each leaf of the state its value in the program.
    pub(super) leaves: Vec<Id>,
    /// Which leaves a run overwrites.
    pub(super) overwritten: Vec<bool>,
    /// The values of batch and logs, in order.
    pub(super) given: [Vec<Id>; 2],
    inputs: Vec<(Id, Slot)>,
    pub(super) captured: Vec<(Id, Tensor)>,
    pub(super) names: Vec<String>,
    pub(super) logs: Vec<(Id, Slot)>,
    ring: Option<Arc<Ring>>,
    /// The plan, once it is bound to where everything lies.
    pub bound: Option<Bound>,
    /// Where state and captured tensors lay when it was bound.
    places: Vec<(u64, u64)>,
    /// What the leaves of the state are called.
    pub(super) labels: Arc<[String]>,
    /// What is uploaded, in bytes: for the first run, then for each.
    pub(super) uploads: [Vec<u64>; 2],
    /// What there is to say of the plan, once somebody has asked.
    pub(super) described: OnceLock<Plan>,
    /// Runs so far.
    pub runs: u64,
}

/// Whether the leaves of a tree have these specs.
pub(super) fn matches(tree: &impl Tree, specs: &[Spec]) -> bool {
    let (mut index, mut same) = (0, true);
    tree.visit(&mut |tensor| {
        same &= specs.get(index).is_some() && tensor.spec() == specs.get(index);
        index += 1;
    });
    same && index == specs.len()
}

impl Entry {
    /// Whether this is the form for such a state and batch.
    pub fn is_for(&self, tag: u64, state: &impl Tree, batch: &impl Tree) -> bool {
        self.tag == tag && matches(state, &self.state) && self.takes(batch)
    }

    /// Whether this may be the form of what was recorded for a larger batch.
    pub fn is_larger(&self, tag: u64, recorded: &Recorded) -> bool {
        let larger = |specs: &[Spec], tensors: &[Tensor]| {
            let pairs = specs.iter().zip(tensors);
            specs.len() == tensors.len()
                && pairs.into_iter().all(|(spec, tensor)| tensor.shape().numel() <= spec.shape.numel())
        };
        self.tag == tag
            && self.names == recorded.names
            && larger(&self.state, &recorded.state)
            && larger(&self.batch, &recorded.batch)
    }

    /// Whether a batch is like the one recorded.
    pub fn takes(&self, batch: &impl Tree) -> bool {
        matches(batch, &self.batch)
    }

    /// Compiles what was recorded under `tag`. Kernels and temporaries are those of `model`'s plan where that is the same
    /// for a larger batch.
    pub fn new(
        device: &Device,
        tag: u64,
        recorded: Recorded,
        model: Option<&Entry>,
        options: &Options,
        budget: Option<u64>,
    ) -> Result<Entry> {
        let Recorded { signature, recording, stand_ins, state, batch, names, outputs } = recorded;
        let (state_specs, batch_specs) = (specs(&state)?, specs(&batch)?);
        // Sums split as in the model are right for any graph, but only for its like what the graph needs.
        let alike = match model {
            Some(model) => Some((model, recording.program(&stand_ins, Some(&model.compiled.program))?))
                .filter(|(model, program)| model.compiled.begins_like(program)),
            None => None,
        };
        let (model, mut program) = match alike {
            Some((model, program)) => (Some(model), program),
            None => (None, recording.program(&stand_ins, None)?),
        };
        let mut by_number: HashMap<u64, Id> = HashMap::new();
        for (id, val) in program.vals.iter().enumerate() {
            if let Kind::Leaf(leaf) = val.kind
                && let Ok((node, _)) = program.leaves[leaf].node()
            {
                by_number.insert(node.number(), id);
            }
        }
        // A leaf that nothing reads still has a place that its new value goes to.
        let mut leaf = |tensor: &Tensor, spec: &Spec, program: &mut Program| -> Result<Id> {
            let (node, _) = tensor.node()?;
            if let Some(&id) = by_number.get(&node.number()) {
                return Ok(id);
            }
            program.leaves.push(tensor.clone());
            let id = program.push(Val {
                kind: Kind::Leaf(program.leaves.len() - 1),
                inputs: vec![],
                after: None,
                dtype: spec.dtype,
                numel: spec.shape.numel(),
                name: "state".into(),
                place: node.place().clone(),
            });
            by_number.insert(node.number(), id);
            Ok(id)
        };
        let mut leaves = Vec::new();
        for (tensor, spec) in state.iter().zip(&state_specs) {
            leaves.push(leaf(tensor, spec, &mut program)?);
        }
        let mut inputs = Vec::new();
        for (tensor, spec) in batch.iter().zip(&batch_specs) {
            inputs.push(leaf(tensor, spec, &mut program)?);
        }
        // Every root that changes something is a value computed for it alone.
        let mut request = Request { state: leaves.iter().copied().collect(), ..Request::default() };
        let mut taken = HashSet::new();
        let roots = std::mem::take(&mut program.roots);
        let mut overwritten = vec![false; leaves.len()];
        let mut logged = Vec::new();
        for (index, root) in roots.into_iter().enumerate() {
            if leaves.get(index) == Some(&root) {
                continue;
            }
            let numel = outputs[index].shape().numel();
            let root = if taken.insert(root) { program.computed(root, numel) } else { program.copy_of(root, numel) };
            program.roots.push(root);
            match leaves.get(index) {
                Some(&leaf) => {
                    overwritten[index] = true;
                    request.replaces.push((leaf, root));
                }
                None => {
                    request.results.push(root);
                    logged.push(root);
                }
            }
        }
        let captured: Vec<(Id, Tensor)> = (program.vals.iter().enumerate())
            .filter_map(|(id, val)| match val.kind {
                Kind::Leaf(leaf) if !leaves.contains(&id) && !inputs.contains(&id) => {
                    Some((id, program.leaves[leaf].clone()))
                }
                _ => None,
            })
            .collect();
        // The leaves were stand-ins of this recording; holding on to them would hold the recorded graph.
        program.leaves.clear();
        let alike = model.and_then(|model| model.compiled.smaller(program.clone(), &request));
        let (target, mut moved) = (Target::of(device), HashMap::new());
        let compiled = match (alike, budget) {
            (Some(compiled), _) => compiled,
            (None, None) => compile(program, &request, &target, options)?,
            (None, Some(budget)) => {
                let (compiled, places) = compile_within(program, &request, &target, options, budget)?;
                moved = places;
                compiled
            }
        };
        // Where values are computed again, others have other numbers.
        let now = |id: Id| moved.get(&id).copied().unwrap_or(id);
        leaves.iter_mut().for_each(|id| *id = now(*id));
        let inputs: Vec<Id> = inputs.into_iter().map(now).collect();
        let captured = captured.into_iter().map(|(id, tensor)| (now(id), tensor)).collect();
        let logged: Vec<Id> = logged.into_iter().map(now).collect();
        let index: HashMap<Id, usize> = leaves.iter().enumerate().map(|(index, &id)| (id, index)).collect();
        let place = |pack: &Vec<Id>| pack.iter().filter_map(|id| index.get(id).copied()).collect();
        let layouts = compiled.layouts.iter().map(place).collect();
        Ok(Entry {
            tag,
            state: state_specs,
            batch: batch_specs,
            signature,
            compiled,
            layouts,
            leaves,
            overwritten,
            given: [inputs, logged],
            inputs: Vec::new(),
            captured,
            names,
            logs: Vec::new(),
            ring: None,
            bound: None,
            places: Vec::new(),
            labels: Arc::default(),
            uploads: Default::default(),
            described: OnceLock::new(),
            runs: 0,
        })
    }

    /// Makes room for batch and logs.
    fn allocate(&mut self, device: &Device) -> Result<()> {
        let [inputs, logged] = &self.given;
        let (starts, bytes) = offsets(self.batch.iter().map(Spec::bytes));
        let buffer = device.alloc(bytes)?;
        let slot = |offset: u64| Slot { buffer: buffer.clone(), offset };
        let ring = if logged.is_empty() { None } else { Some(Arc::new(Ring::new(device, logged.len())?)) };
        let place = |ring: &Arc<Ring>| logged.iter().enumerate().map(|(at, &id)| (id, ring.slot(at))).collect();
        self.inputs = inputs.iter().copied().zip(starts.into_iter().map(slot)).collect();
        (self.logs, self.ring) = (ring.as_ref().map(place).unwrap_or_default(), ring);
        Ok(())
    }

    /// Brings the state to where the plan wants it and binds the plan to where everything lies. Whatever has to move
    /// is moved by a submission of its own, so that the state is complete at any moment.
    pub fn settle<S: Tree>(&mut self, device: &Device, state: &mut S, memory: &Memory) -> Result<()> {
        if self.is_shared(state) {
            drop_clones(device, state, &self.overwritten)?;
        }
        self.let_go_of_outgrown(memory);
        if self.bound.is_some() && self.is_settled(state) {
            return Ok(());
        }
        if self.bound.is_none() {
            self.allocate(device)?;
        }
        let tensors = state.leaves();
        let mut slots = Vec::with_capacity(tensors.len());
        for tensor in &tensors {
            let (node, output) = tensor.node()?;
            slots.push(node.value(output).device);
        }
        let apart = || {
            let buffers = slots.iter().flatten().map(|slot| slot.buffer.id());
            self.compiled.together && buffers.collect::<HashSet<_>>().len() > 1
        };
        if !laid_out(&slots, &self.layouts, &self.state) || apart() {
            slots = lay_out(device, &tensors, &self.layouts, &self.state)?;
        }
        let mut given = HashMap::new();
        let mut places = Vec::new();
        for ((tensor, slot), &id) in tensors.iter().zip(slots).zip(&self.leaves) {
            let Some(slot) = slot else { continue };
            same_device(&slot, device)?;
            // What the host remembers is outdated by the first run.
            let (node, output) = tensor.node()?;
            node.set_value(output, Value { device: Some(slot.clone()), ..Value::default() });
            places.push((slot.buffer.id(), slot.offset));
            given.insert(id, slot);
        }
        let mut transfer = Transfer::new(device);
        for (id, tensor) in &self.captured {
            let slot = transfer.slot(tensor)?;
            places.push((slot.buffer.id(), slot.offset));
            given.insert(*id, slot);
        }
        transfer.submit()?;
        if self.bound.is_none() || self.places != places {
            given.extend(self.inputs.iter().chain(&self.logs).cloned());
            // What it was bound to before is free for it.
            self.bound = None;
            let temporaries = memory.take(device, &self.compiled.placement.buffers)?;
            self.bound = Some(Bound::new(device, &self.compiled, &given, temporaries)?);
            self.described = OnceLock::new();
            self.places = places;
        }
        Ok(())
    }

    /// Drops the bound plan where the memory it shares with others has been replaced by a larger one.
    pub fn let_go_of_outgrown(&mut self, memory: &Memory) {
        self.bound = self.bound.take().filter(|bound| memory.holds(bound.temporaries()));
    }

    /// Whether everything lies where the plan was bound to.
    fn is_settled(&self, state: &impl Tree) -> bool {
        let (mut places, mut settled) = (self.places.iter(), true);
        let mut check = |tensor: &Tensor, host: bool| {
            let value = tensor.node().map(|(node, output)| node.value(output)).unwrap_or_default();
            let place = value.device.as_ref().map(|slot| (slot.buffer.id(), slot.offset));
            settled &= place.is_some() && place.as_ref() == places.next() && (host || value.host.is_none());
        };
        state.visit(&mut |tensor| check(tensor, false));
        self.captured.iter().for_each(|(_, tensor)| check(tensor, true));
        settled
    }

    /// Whether somebody besides the state holds a tensor that a run overwrites.
    fn is_shared(&self, state: &impl Tree) -> bool {
        let (mut index, mut shared) = (0, false);
        state.visit(&mut |tensor| {
            shared |= self.overwritten[index] && tensor.handles() > 1;
            index += 1;
        });
        shared
    }

    /// Encodes one replay for a batch.
    pub fn encode(&mut self, encoder: &mut Encoder, batch: &impl Tree) -> Result<()> {
        let (mut inputs, mut filled) = (self.inputs.iter(), Ok(()));
        batch.visit(&mut |tensor| {
            if let (Ok(()), Some((_, slot))) = (&filled, inputs.next()) {
                filled = fill(encoder, tensor, slot);
            }
        });
        filled?;
        if let Some(bound) = &self.bound {
            bound.encode(encoder);
        }
        if let Some(ring) = &self.ring {
            ring.push(encoder);
        }
        Ok(())
    }

    /// The logs of the latest run.
    pub fn logs(&self) -> Logs {
        self.ring.as_ref().map_or_else(Logs::default, |ring| ring.latest(&self.names))
    }
}

/// Gives the state new nodes where somebody else holds the old ones, which keep a copy of their value. A tensor that
/// stands twice in the state becomes two.
fn drop_clones<S: Tree>(device: &Device, state: &mut S, overwritten: &[bool]) -> Result<()> {
    let mut transfer = Transfer::new(device);
    let mut index = 0;
    let mut taken = HashSet::new();
    let mut own = |tensor: &Tensor| -> Result<Tensor> {
        index += 1;
        if !overwritten[index - 1] || tensor.handles() <= 1 {
            return Ok(tensor.clone());
        }
        let (node, output) = tensor.node()?;
        let (value, spec, place) = (node.value(output), node.outputs()[output].clone(), node.place().clone());
        let Some(slot) = value.device else {
            return Ok(value.host.map_or_else(|| tensor.clone(), |bits| Tensor::from_bits(bits, spec, place)));
        };
        let copy = transfer.alloc(tensor)?;
        let first = taken.insert((slot.buffer.id(), slot.offset));
        transfer.copy(&slot, &copy, spec.bytes());
        if first {
            transfer.set(tensor, Value { host: value.host, device: Some(copy.clone()), placeholder: false })?;
        }
        Ok(Tensor::from_slot(if first { slot } else { copy }, spec, place))
    };
    let mut failed = None;
    let fresh = state.map(&mut |tensor| {
        own(tensor).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            tensor.clone()
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    transfer.submit()?;
    *state = fresh;
    Ok(())
}

/// Gives the owner of tensors, all of which it is about to overwrite, new nodes for those that somebody else holds too.
pub(crate) fn part_from_holders(device: &Device, tensors: &mut Vec<Tensor>) -> Result<()> {
    if tensors.iter().all(|tensor| tensor.handles() <= 1) {
        return Ok(());
    }
    let all = vec![true; tensors.len()];
    drop_clones(device, tensors, &all)
}

/// Whether every leaf is on the device and the packs lie as wanted.
fn laid_out(slots: &[Option<Slot>], layouts: &[Vec<usize>], specs: &[Spec]) -> bool {
    slots.iter().all(Option::is_some)
        && layouts.iter().all(|pack| {
            let (starts, _) = offsets(pack.iter().map(|&index| specs[index].bytes()));
            let Some(Some(first)) = pack.first().map(|&index| &slots[index]) else { return true };
            pack.iter().zip(starts).all(|(&index, start)| {
                slots[index]
                    .as_ref()
                    .is_some_and(|slot| slot.buffer.id() == first.buffer.id() && slot.offset == first.offset + start)
            })
        })
}

/// Moves all of the state into new buffers, packs first; one buffer for all unless that would not fit a binding.
fn lay_out(device: &Device, tensors: &[Tensor], layouts: &[Vec<usize>], specs: &[Spec]) -> Result<Vec<Option<Slot>>> {
    let mut transfer = Transfer::new(device);
    let mut runs: Vec<Vec<usize>> = layouts.to_vec();
    let packed: HashSet<usize> = runs.iter().flatten().copied().collect();
    runs.push((0..tensors.len()).filter(|index| !packed.contains(index)).collect());
    let sizes: Vec<(Vec<u64>, u64)> =
        runs.iter().map(|run| offsets(run.iter().map(|&index| specs[index].bytes()))).collect();
    let limit = device.limits().max_storage_buffer_binding_size;
    let together = sizes.iter().map(|s| s.1).sum::<u64>() <= limit;
    let shared = if together { Some(device.alloc(sizes.iter().map(|s| s.1).sum())?) } else { None };
    let mut slots = vec![None; tensors.len()];
    let mut base = 0;
    for (run, (starts, bytes)) in runs.iter().zip(&sizes) {
        let buffer = match &shared {
            Some(buffer) => buffer.clone(),
            None => {
                base = 0;
                device.alloc(*bytes)?
            }
        };
        for (&index, start) in run.iter().zip(starts) {
            let slot = Slot { buffer: buffer.clone(), offset: base + start };
            transfer.fill(&tensors[index], &slot)?;
            slots[index] = Some(slot);
        }
        base += bytes;
    }
    for (tensor, slot) in tensors.iter().zip(&slots) {
        transfer.set(tensor, Value { device: slot.clone(), ..Value::default() })?;
    }
    transfer.submit()?;
    Ok(slots)
}
