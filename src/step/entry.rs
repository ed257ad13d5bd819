//! [`Entry`]: one recorded form of a step, its plan, and the state brought to where the plan wants it.
//!
//! Deliberately absent: recording, see `record`, and the commands that move values, see `transfer`.

use std::sync::{Arc, OnceLock};

use super::holders::{drop_clones, laid_out, lay_out};
use super::logs::{Logs, Ring};
use super::memory::Memory;
use super::record::{Recorded, specs};
use super::transfer::{Transfer, fill, same_device};
use crate::collections::{Set, Table};
use crate::error::Result;
use crate::gpu::{Device, Encoder};
use crate::graph::{Slot, Spec, Tensor, Tree, Value};
use crate::lower::free::{Free, compile_free};
use crate::lower::pack::{ALIGN, offsets, runs};
use crate::lower::program::{Id, Kind, Program, Val};
use crate::lower::recording::Signature;
use crate::lower::remat::compile_within;
use crate::lower::turns::Stride;
use crate::lower::{Compiled, Options, Request, Target};
use crate::plan::{Bound, Plan, Replays};

/// One recorded and compiled form of a step.
pub(super) struct Entry {
    tag: u64,
    pub(super) state: Vec<Spec>,
    pub(super) batch: Vec<Spec>,
    /// What a further recording must be equal to.
    pub signature: Signature,
    pub(super) compiled: Compiled,
    /// What is computed again to take less memory for nothing, if anything is.
    free: Option<Free>,
    /// Leaves of the state, by position, that must lie one behind the other.
    layouts: Vec<Vec<usize>>,
    /// For each leaf of the state its value in the program.
    pub(super) leaves: Vec<Id>,
    /// Which leaves a run overwrites.
    pub(super) overwritten: Vec<bool>,
    /// The values of batch and logs, in order.
    pub(super) given: [Vec<Id>; 2],
    pub(super) captured: Vec<(Id, Tensor)>,
    pub(super) names: Vec<String>,
    ring: Option<Arc<Ring>>,
    /// Where batches and logs lie.
    room: Option<Room>,
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
    /// Runs so far, each of one step or several.
    runs: u64,
    /// Steps so far.
    steps: u64,
}

/// Steps that one dispatch runs at most: enough that launching it costs nothing, too few for any watchdog.
const TOGETHER: usize = 256;

/// Where the batches and logs of the steps of one dispatch lie: for each leaf those of all steps one behind the other.
struct Room {
    /// Steps there is room for.
    steps: usize,
    inputs: Vec<Slot>,
    logs: Option<Slot>,
    strides: Table<Id, Stride>,
}

/// Bytes from the batch of one step to that of the next: four elements may be read at once.
pub(super) fn stride(spec: &Spec) -> u64 {
    spec.bytes().next_multiple_of(16)
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

    /// The program as recorded, without what is computed again for nothing.
    fn recorded(&self) -> &Program {
        self.free.as_ref().map_or(&self.compiled.program, |free| &free.program)
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
            Some(model) => Some((model, recording.program(&stand_ins, Some(model.recorded()))?))
                .filter(|(model, program)| model.recorded().begins_like(program)),
            None => None,
        };
        let (model, mut program) = match alike {
            Some((model, program)) => (Some(model), program),
            None => (None, recording.program(&stand_ins, None)?),
        };
        let mut by_number: Table<u64, Id> = Table::new();
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
        let mut taken = Set::new();
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
        let alike = model.and_then(|model| {
            let Some(free) = &model.free else {
                return Some((model.compiled.smaller(program.clone(), &request)?, None, Table::new()));
            };
            let (repeated, request, moved) = free.repeated(&program, &request);
            Some((model.compiled.smaller(repeated, &request)?, Some(free.of(program.clone())), moved))
        });
        let target = Target::of(device);
        let (compiled, free, moved) = match (alike, budget) {
            (Some(alike), _) => alike,
            (None, None) => compile_free(program, &request, &target, options)?,
            (None, Some(budget)) => compile_within(program, &request, &target, options, budget)?,
        };
        // Where values are computed again, others have other numbers.
        let now = |id: Id| moved.get(&id).copied().unwrap_or(id);
        leaves.iter_mut().for_each(|id| *id = now(*id));
        let inputs: Vec<Id> = inputs.into_iter().map(now).collect();
        let captured = captured.into_iter().map(|(id, tensor)| (now(id), tensor)).collect();
        let logged: Vec<Id> = logged.into_iter().map(now).collect();
        let index: Table<Id, usize> = leaves.iter().enumerate().map(|(index, &id)| (id, index)).collect();
        let place = |pack: &Vec<Id>| pack.iter().filter_map(|id| index.get(id).copied()).collect();
        let layouts = compiled.layouts.iter().map(place).collect();
        Ok(Entry {
            tag,
            state: state_specs,
            batch: batch_specs,
            signature,
            compiled,
            free,
            layouts,
            leaves,
            overwritten,
            given: [inputs, logged],
            captured,
            names,
            ring: None,
            room: None,
            bound: None,
            places: Vec::new(),
            labels: Arc::default(),
            uploads: Default::default(),
            described: OnceLock::new(),
            runs: 0,
            steps: 0,
        })
    }

    /// Brings the state to where the plan wants it and binds the plan to where everything lies. Whatever has to move
    /// is moved by a submission of its own, so that the state is complete at any moment. There will be room for so many
    /// steps, as far as one dispatch runs them.
    pub fn settle<S: Tree>(&mut self, device: &Device, state: &mut S, memory: &Memory, steps: usize) -> Result<()> {
        self.make_room(device, steps)?;
        if self.is_shared(state) {
            drop_clones(device, state, &self.overwritten)?;
        }
        self.let_go_of_outgrown(memory);
        if self.bound.is_some() && self.is_settled(state) {
            return Ok(());
        }
        self.bind(device, &state.leaves(), memory)
    }

    /// Binds the plan to where the state lies, or will lie from now on.
    fn bind(&mut self, device: &Device, tensors: &[Tensor], memory: &Memory) -> Result<()> {
        let mut slots = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let (node, output) = tensor.node()?;
            slots.push(node.value(output).device);
        }
        let apart = || {
            let buffers = slots.iter().flatten().map(|slot| slot.buffer.id());
            self.compiled.together && buffers.collect::<Set<_>>().len() > 1
        };
        if !laid_out(&slots, &self.layouts, &self.state) || apart() {
            slots = lay_out(device, tensors, &self.layouts, &self.state)?;
        }
        let mut given = Table::new();
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
            let Some(room) = &self.room else { return Ok(()) };
            let [inputs, logged] = &self.given;
            given.extend(inputs.iter().copied().zip(room.inputs.iter().cloned()));
            given.extend(logged.iter().copied().zip(self.log_slots()));
            let replays = Replays { strides: &room.strides, most: room.steps };
            // What it was bound to before is free for it.
            self.bound = None;
            let temporaries = memory.take(device, &self.compiled.temporaries())?;
            self.bound = Some(Bound::new(device, &self.compiled, &given, temporaries, Some(replays))?);
            self.described = OnceLock::new();
            self.places = places;
        }
        Ok(())
    }

    /// Drops the bound plan where the memory it shares with others has been replaced by a larger one.
    pub fn let_go_of_outgrown(&mut self, memory: &Memory) {
        self.bound = self.bound.take().filter(|bound| memory.holds(bound.temporaries()));
    }

    /// Makes room for the batches and logs of so many steps, if one dispatch can run them and there is not enough.
    fn make_room(&mut self, device: &Device, steps: usize) -> Result<()> {
        let within = self.bound.as_ref().is_none_or(|bound| bound.most() > 1 || self.room_steps() == 1);
        let limit = device.limits().max_storage_buffer_binding_size;
        // As many as one buffer has room for.
        let each = self.batch.iter().map(|spec| stride(spec).next_multiple_of(ALIGN)).sum::<u64>().max(1);
        let fit = usize::try_from(limit / each).unwrap_or(usize::MAX).max(1);
        let wanted = if within && self.compiled.workgroup().is_some() { steps.min(TOGETHER).min(fit) } else { 1 };
        if self.room.is_some() && self.room_steps() >= wanted {
            return Ok(());
        }
        let [ids, logged] = &self.given;
        if self.ring.is_none() && !logged.is_empty() {
            self.ring = Some(Arc::new(Ring::new(device, logged.len())?));
        }
        let mut inputs = Vec::with_capacity(self.batch.len());
        let sizes: Vec<u64> = self.batch.iter().map(|spec| stride(spec) * wanted as u64).collect();
        for run in runs(&sizes, limit) {
            let (starts, bytes) = offsets(sizes[run].iter().copied());
            let buffer = device.alloc(bytes)?;
            inputs.extend(starts.into_iter().map(|offset| Slot { buffer: buffer.clone(), offset }));
        }
        let mut strides = Table::new();
        let words = self.batch.iter().map(|spec| stride(spec) as usize / 4);
        strides.extend(ids.iter().copied().zip(words.map(|words| Stride::forward(words, wanted))));
        let logs = match &self.ring {
            Some(ring) => Some(Slot { buffer: device.alloc(ring.entry() * wanted as u64)?, offset: 0 }),
            None => None,
        };
        let words = self.ring.as_ref().map_or(0, |ring| ring.entry() as usize / 4);
        strides.extend(logged.iter().map(|&id| (id, Stride::forward(words, wanted))));
        self.room = Some(Room { steps: wanted, inputs, logs, strides });
        self.bound = None;
        Ok(())
    }

    /// Where a dispatch leaves the logs of its first step.
    pub(super) fn log_slots(&self) -> Vec<Slot> {
        let Some(all) = self.room.as_ref().and_then(|room| room.logs.as_ref()) else { return Vec::new() };
        (0..self.names.len() as u64).map(|at| Slot { offset: all.offset + at * ALIGN, ..all.clone() }).collect()
    }

    pub(super) fn room_steps(&self) -> usize {
        self.room.as_ref().map_or(0, |room| room.steps)
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

    /// Encodes one replay for each batch, as many as possible in one dispatch.
    pub fn encode<B: Tree>(&mut self, encoder: &mut Encoder, batches: &[B]) -> Result<()> {
        let (Some(bound), Some(room)) = (&self.bound, &self.room) else { return Ok(()) };
        for together in batches.chunks(bound.most()) {
            let leaves: Vec<Vec<Tensor>> = together.iter().map(Tree::leaves).collect();
            for (at, (slot, spec)) in room.inputs.iter().zip(&self.batch).enumerate() {
                let column: Vec<&Tensor> = leaves.iter().map(|leaves| &leaves[at]).collect();
                fill(encoder, &column, slot, stride(spec))?;
            }
            bound.encode(encoder, together.len());
            if let (Some(ring), Some(logs)) = (&self.ring, &room.logs) {
                ring.push(encoder, logs, together.len() as u64);
            }
        }
        Ok(())
    }

    /// Whether a run of so many steps is one at which purity is checked: the second, the third, and one in every hundred
    /// steps.
    pub fn is_check_due(&self, steps: usize) -> bool {
        matches!(self.runs, 1 | 2) || self.steps % 100 + steps as u64 >= 100
    }

    /// Notes a run of so many steps.
    pub fn ran(&mut self, steps: usize) {
        self.runs += 1;
        self.steps += steps as u64;
    }

    /// The logs of the latest run.
    pub fn logs(&self) -> Logs {
        self.ring.as_ref().map_or_else(Logs::default, |ring| ring.latest(&self.names))
    }
}
