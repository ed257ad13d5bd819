//! [`Step`]: a pure function over a state, recorded once and replayed.
//!
//! Floor 1. The first run with given shapes records the function on stand-ins for the leaves of state and batch,
//! compiles it and binds it; later runs upload the batch and encode the same dispatches. The state's tensors stay
//! where they are and are overwritten in place, so the newest complete state is always the one the caller holds.
//! Purity is checked by recording again and comparing. Deliberately absent: the closure, which is passed at each run,
//! so that a model can own its steps; and waiting: nothing here asks the device for anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Encoder, Range};
use crate::graph::{Slot, Spec, Tensor, Tree, Value, nowhere};
use crate::lower::pack::{ALIGN, offsets};
use crate::lower::program::{Captures, Id, Kind, Recording, Signature, Val};
use crate::lower::{Compiled, Options, Request, Target, compile};
use crate::plan::{Bound, Plan, Profile};

/// Named scalars that a step returns, in the order given.
///
/// Inside a step they are tensors being recorded; what [`Step::run`] returns lies on the device and is read with
/// [`Logs::read`], at any later time up to [`RING`] steps.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    entries: Vec<(String, Tensor)>,
    ring: Option<(Arc<Ring>, u64)>,
}

/// How many steps' logs stay readable.
pub const RING: u64 = 512;

/// The device memory that logs are copied to after each step.
#[derive(Debug)]
struct Ring {
    buffer: Buffer,
    entry: u64,
    written: AtomicU64,
}

impl Logs {
    /// The names and tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|entry| entry.0 == name).map(|entry| &entry.1)
    }

    /// Adds a scalar.
    pub fn push(&mut self, name: impl Into<String>, value: Tensor) {
        self.entries.push((name.into(), value));
    }

    /// Number of scalars.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Waits for the step and reads all scalars at once.
    pub async fn read(&self) -> Result<Vec<(String, f32)>> {
        let Some((ring, sequence)) = &self.ring else {
            return match self.entries.first() {
                None => Ok(Vec::new()),
                Some((name, _)) => Err(Error::State {
                    what: format!("the log {name} belongs to a step that is being recorded; read what run returned"),
                }),
            };
        };
        if ring.written.load(Ordering::Relaxed) >= sequence + RING {
            let what = format!("logs are readable for {RING} steps, these are older; read them earlier");
            return Err(Error::State { what });
        }
        let start = (sequence % RING) * ring.entry;
        let bytes = ring.buffer.device().read(&[Range::new(&ring.buffer, start, ring.entry)]).await?;
        let value = |index: usize| {
            let at = index * ALIGN as usize;
            bytes[0].get(at..at + 4).map_or(f32::NAN, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        Ok(self.entries.iter().enumerate().map(|(index, (name, _))| (name.clone(), value(index))).collect())
    }

    /// [`read`](Logs::read), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(&self) -> Result<Vec<(String, f32)>> {
        pollster::block_on(self.read())
    }
}

impl<N: Into<String>> FromIterator<(N, Tensor)> for Logs {
    fn from_iter<I: IntoIterator<Item = (N, Tensor)>>(entries: I) -> Logs {
        Logs { entries: entries.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect(), ring: None }
    }
}

impl<N: Into<String>> Extend<(N, Tensor)> for Logs {
    fn extend<I: IntoIterator<Item = (N, Tensor)>>(&mut self, entries: I) {
        self.entries.extend(entries.into_iter().map(|(name, tensor)| (name.into(), tensor)));
    }
}

impl<N: Into<String>, const K: usize> From<[(N, Tensor); K]> for Logs {
    fn from(entries: [(N, Tensor); K]) -> Logs {
        entries.into_iter().collect()
    }
}

/// When a step is recorded again to check that it is pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purity {
    /// At every run: debug builds.
    Always,
    /// At the second and third run and at every hundredth: release builds.
    Sometimes,
}

/// Plans kept at most; a partial last batch, validation and prediction are a few.
const PLANS: usize = 16;

/// Records a pure function once for each kind of input and replays it.
pub struct Step {
    device: Device,
    options: Options,
    purity: Purity,
    entries: Vec<Entry>,
}

struct Key {
    tag: u64,
    state: Vec<Spec>,
    batch: Vec<Spec>,
}

/// One recorded and compiled form of the step.
struct Entry {
    tag: u64,
    state: Vec<Spec>,
    batch: Vec<Spec>,
    signature: Signature,
    compiled: Compiled,
    /// For each leaf of the state its value in the program.
    leaves: Vec<Id>,
    /// Which leaves a run overwrites.
    overwritten: Vec<bool>,
    inputs: Vec<(Id, Slot)>,
    captured: Vec<(Id, Tensor)>,
    names: Vec<String>,
    logs: Vec<(Id, Slot)>,
    log_buffer: Option<Buffer>,
    ring: Option<Arc<Ring>>,
    bound: Option<Bound>,
    /// Where state and captured tensors lay when it was bound.
    places: Vec<(u64, u64)>,
    runs: u64,
}

impl Step {
    /// A step on `device` that has recorded nothing yet.
    pub fn new(device: &Device) -> Step {
        Step::with(device, Options::default())
    }

    /// A step with compiler options.
    pub fn with(device: &Device, options: Options) -> Step {
        let purity = if cfg!(debug_assertions) { Purity::Always } else { Purity::Sometimes };
        Step { device: device.clone(), options, purity, entries: Vec::new() }
    }

    /// Sets when purity is checked.
    pub fn purity(mut self, purity: Purity) -> Step {
        self.purity = purity;
        self
    }

    /// The device it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Forgets all plans, so that the next run records anew: for deliberate changes of the function.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The plan of the latest run.
    pub fn plan(&self) -> Option<&Plan> {
        self.entries.last().and_then(|entry| entry.bound.as_ref()).map(|bound| &bound.plan)
    }

    /// Runs `f(state, batch) -> (logs, state)` once, updating the state in place.
    ///
    /// On an error the state is what it was.
    pub fn run<S: Tree, B: Tree>(
        &mut self,
        state: &mut S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Logs> {
        self.run_tagged(0, state, std::slice::from_ref(batch), f)
    }

    /// Runs the function once for each batch, all in one submission. The batches must be alike. Returns the logs of
    /// the last. `tag` separates forms of the function that are meant to differ (modes, a model's generation).
    pub fn run_tagged<S: Tree, B: Tree>(
        &mut self,
        tag: u64,
        state: &mut S,
        batches: &[B],
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Logs> {
        if batches.is_empty() {
            return Ok(Logs::default());
        }
        self.prepare(tag, state, batches, f)?;
        let mut encoder = self.device.encoder();
        let logs = self.encode(&mut encoder, batches)?;
        encoder.submit()?;
        Ok(logs)
    }

    /// Runs the function once and times each dispatch.
    pub async fn profile<S: Tree, B: Tree>(
        &mut self,
        state: &mut S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Profile> {
        let batches = std::slice::from_ref(batch);
        self.prepare(0, state, batches, f)?;
        let mut encoder = self.device.encoder_profiled()?;
        self.encode(&mut encoder, batches)?;
        let seconds = encoder.submit()?.seconds().await?;
        let plan = self.plan().cloned().unwrap_or_default();
        Ok(Profile { plan, seconds })
    }

    /// Makes the last entry the one for these inputs, recorded, checked and bound.
    fn prepare<S: Tree, B: Tree>(
        &mut self,
        tag: u64,
        state: &mut S,
        batches: &[B],
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<()> {
        let Some(first) = batches.first() else { return Ok(()) };
        let key = Key { tag, state: specs(&state.leaves())?, batch: specs(&first.leaves())? };
        for batch in &batches[1..] {
            if specs(&batch.leaves())? != key.batch {
                return Err(Error::State { what: "batches that run in one submission must be alike".into() });
            }
        }
        let found =
            (self.entries.iter()).position(|e| e.tag == key.tag && e.state == key.state && e.batch == key.batch);
        match found {
            Some(at) => {
                let due = match self.purity {
                    Purity::Always => true,
                    Purity::Sometimes => matches!(self.entries[at].runs, 1 | 2) || self.entries[at].runs % 100 == 99,
                };
                if due {
                    let recorded = record(state, first, &f)?;
                    if let Some((why, place)) = self.entries[at].signature.difference(&recorded.signature) {
                        return Err(Error::StepChanged { why, place });
                    }
                }
                // The latest is kept last.
                let entry = self.entries.remove(at);
                self.entries.push(entry);
            }
            None => {
                let recorded = record(state, first, &f)?;
                let entry = Entry::new(&self.device, key, recorded, &self.options)?;
                if self.entries.len() == PLANS {
                    self.entries.remove(0);
                }
                self.entries.push(entry);
            }
        }
        match self.entries.last_mut() {
            Some(entry) => entry.settle(&self.device, state),
            None => Ok(()),
        }
    }

    /// Encodes one replay of the last entry for each batch.
    fn encode<B: Tree>(&mut self, encoder: &mut Encoder, batches: &[B]) -> Result<Logs> {
        let Some(entry) = self.entries.last_mut() else { return Ok(Logs::default()) };
        let Some(bound) = &entry.bound else { return Ok(Logs::default()) };
        for batch in batches {
            for (tensor, (_, slot)) in batch.leaves().iter().zip(&entry.inputs) {
                fill(encoder, tensor, slot)?;
            }
            bound.encode(encoder);
            if let (Some(ring), Some(buffer)) = (&entry.ring, &entry.log_buffer) {
                let sequence = ring.written.fetch_add(1, Ordering::Relaxed);
                encoder.copy(buffer, 0, &ring.buffer, (sequence % RING) * ring.entry, ring.entry);
            }
            entry.runs += 1;
        }
        Ok(entry.logged())
    }
}

fn specs(leaves: &[Tensor]) -> Result<Vec<Spec>> {
    leaves.iter().map(|t| t.node().map(|(node, output)| node.outputs()[output].clone())).collect()
}

/// Uploads or copies a batch tensor to where the plan reads it.
fn fill(encoder: &mut Encoder, tensor: &Tensor, slot: &Slot) -> Result<()> {
    let (node, output) = tensor.node()?;
    let value = node.value(output);
    if let Some(bits) = value.host {
        encoder.upload(bytemuck::cast_slice(&bits), &slot.buffer, slot.offset)
    } else if let Some(from) = value.device {
        encoder.copy(&from.buffer, from.offset, &slot.buffer, slot.offset, node.outputs()[output].bytes());
        Ok(())
    } else {
        let what = "a batch must hold values; evaluate it before the step";
        Err(Error::State { what: what.into() })
    }
}

struct Recorded {
    signature: Signature,
    recording: Recording,
    stand_ins: HashMap<u64, usize>,
    state: Vec<Tensor>,
    batch: Vec<Tensor>,
    /// Roots: the new state, then the logs.
    names: Vec<String>,
    outputs: Vec<Tensor>,
}

fn record<S: Tree, B: Tree>(state: &S, batch: &B, f: impl Fn(S, &B) -> Result<(Logs, S)>) -> Result<Recorded> {
    let mut stand_ins = HashMap::new();
    let mut replace = |tensor: &Tensor, list: &mut Vec<Tensor>| match tensor.node() {
        Ok((node, output)) => {
            let stand_in = Tensor::placeholder(node.outputs()[output].clone(), node.place().clone());
            if let Ok((node, _)) = stand_in.node() {
                stand_ins.insert(node.number(), stand_ins.len());
            }
            list.push(stand_in.clone());
            stand_in
        }
        Err(_) => tensor.clone(),
    };
    let (mut old, mut inputs) = (Vec::new(), Vec::new());
    let recorded_state = state.map(&mut |t| replace(t, &mut old));
    let recorded_batch = batch.map(&mut |t| replace(t, &mut inputs));
    let (logs, new) = f(recorded_state, &recorded_batch)?;
    let mut outputs = new.leaves();
    let (was, is) = (specs(&old)?, specs(&outputs)?);
    if was.len() != is.len() {
        let what = format!("the step got {} tensors of state and returned {}", was.len(), is.len());
        return Err(Error::State { what });
    }
    for (index, (was, is)) in was.iter().zip(&is).enumerate() {
        if was != is {
            return Err(Error::State {
                what: format!("tensor {index} of the state was {was}, the step returned {is}"),
            });
        }
    }
    let mut names = Vec::new();
    for (name, tensor) in logs.entries {
        let (node, output) = tensor.node()?;
        let spec = &node.outputs()[output];
        if spec.dtype != DType::F32 || spec.shape.numel() != 1 {
            return Err(Error::State { what: format!("the log {name} is {spec}; a log is one f32 number") });
        }
        names.push(name);
        outputs.push(tensor);
    }
    let recording = Recording::of(&outputs)?;
    let signature = recording.signature(Captures::Identity, &stand_ins);
    Ok(Recorded { signature, recording, stand_ins, state: old, batch: inputs, names, outputs })
}

impl Entry {
    fn new(device: &Device, key: Key, recorded: Recorded, options: &Options) -> Result<Entry> {
        let Recorded { signature, recording, stand_ins, state, batch, names, outputs } = recorded;
        let mut program = recording.program(&stand_ins)?;
        let mut by_number: HashMap<u64, Id> = HashMap::new();
        for (id, val) in program.vals.iter().enumerate() {
            if let Kind::Leaf(leaf) = val.kind
                && let Ok((node, _)) = program.leaves[leaf].node()
            {
                by_number.insert(node.number(), id);
            }
        }
        // A leaf that nothing reads still has a place that its new value goes to.
        let mut leaf = |tensor: &Tensor, spec: &Spec, program: &mut crate::lower::program::Program| -> Result<Id> {
            let (node, _) = tensor.node()?;
            if let Some(&id) = by_number.get(&node.number()) {
                return Ok(id);
            }
            program.leaves.push(tensor.clone());
            let id = program.push(Val {
                kind: Kind::Leaf(program.leaves.len() - 1),
                inputs: vec![],
                dtype: spec.dtype,
                numel: spec.shape.numel(),
                name: "state".into(),
                place: node.place().clone(),
            });
            by_number.insert(node.number(), id);
            Ok(id)
        };
        let mut leaves = Vec::new();
        for (tensor, spec) in state.iter().zip(&key.state) {
            leaves.push(leaf(tensor, spec, &mut program)?);
        }
        let mut inputs = Vec::new();
        for (tensor, spec) in batch.iter().zip(&key.batch) {
            inputs.push(leaf(tensor, spec, &mut program)?);
        }
        // Every root that changes something is a value computed for it alone.
        let mut request = Request { state: leaves.iter().copied().collect(), ..Request::default() };
        let mut taken = std::collections::HashSet::new();
        let roots = std::mem::take(&mut program.roots);
        let mut overwritten = vec![false; leaves.len()];
        let mut logged = Vec::new();
        for (index, root) in roots.into_iter().enumerate() {
            if leaves.get(index) == Some(&root) {
                continue;
            }
            let computed = !matches!(program.vals[root].kind, Kind::Leaf(_) | Kind::Scalar(_) | Kind::View(_));
            let numel = outputs[index].shape().numel();
            let root = if computed && program.vals[root].numel == numel && taken.insert(root) {
                root
            } else {
                let copy = program.copy_of(root);
                program.vals[copy].numel = numel;
                copy
            };
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
        let captured = (program.vals.iter().enumerate())
            .filter_map(|(id, val)| match val.kind {
                Kind::Leaf(leaf) if !leaves.contains(&id) && !inputs.contains(&id) => {
                    Some((id, program.leaves[leaf].clone()))
                }
                _ => None,
            })
            .collect();
        // The leaves were stand-ins of this recording; holding on to them would hold the recorded graph.
        program.leaves.clear();
        let (starts, bytes) = offsets(key.batch.iter().map(Spec::bytes));
        let input_buffer = device.alloc(bytes)?;
        let slot = |offset: u64| Slot { buffer: input_buffer.clone(), offset };
        let inputs = inputs.into_iter().zip(starts.into_iter().map(slot)).collect();
        let (log_buffer, ring, logs) = if logged.is_empty() {
            (None, None, Vec::new())
        } else {
            let entry = logged.len() as u64 * ALIGN;
            let buffer = device.alloc(entry)?;
            let place = |(index, id)| (id, Slot { buffer: buffer.clone(), offset: index as u64 * ALIGN });
            let logs = logged.into_iter().enumerate().map(place).collect();
            let ring = Ring { buffer: device.alloc(entry * RING)?, entry, written: AtomicU64::new(0) };
            (Some(buffer), Some(Arc::new(ring)), logs)
        };
        let compiled = compile(program, &request, &Target::of(device), options);
        Ok(Entry {
            tag: key.tag,
            state: key.state,
            batch: key.batch,
            signature,
            compiled,
            leaves,
            overwritten,
            inputs,
            captured,
            names,
            logs,
            log_buffer,
            ring,
            bound: None,
            places: Vec::new(),
            runs: 0,
        })
    }

    /// Brings the state to where the plan wants it and binds the plan to where everything lies. Whatever has to move
    /// is moved by a submission of its own, so that the state is complete at any moment.
    fn settle<S: Tree>(&mut self, device: &Device, state: &mut S) -> Result<()> {
        if self.is_shared(state) {
            drop_clones(device, state, &self.overwritten)?;
        }
        let tensors = state.leaves();
        let index: HashMap<Id, usize> = self.leaves.iter().enumerate().map(|(index, &id)| (id, index)).collect();
        let place = |pack: &Vec<Id>| pack.iter().filter_map(|id| index.get(id).copied()).collect();
        let layouts: Vec<Vec<usize>> = self.compiled.layouts.iter().map(place).collect();
        let mut slots = Vec::with_capacity(tensors.len());
        for tensor in &tensors {
            let (node, output) = tensor.node()?;
            slots.push(node.value(output).device);
        }
        if !laid_out(&slots, &layouts, &self.state) {
            slots = lay_out(device, &tensors, &layouts, &self.state)?;
        }
        let mut given = Vec::with_capacity(slots.len() + self.captured.len());
        for (slot, &id) in slots.into_iter().zip(&self.leaves) {
            if let Some(slot) = slot {
                same_device(&slot, device)?;
                given.push((id, slot));
            }
        }
        for (id, tensor) in &self.captured {
            given.push((*id, on_device(tensor, device)?));
        }
        let places: Vec<(u64, u64)> = given.iter().map(|(_, slot)| (slot.buffer.id(), slot.offset)).collect();
        if self.bound.is_none() || self.places != places {
            given.extend(self.inputs.iter().cloned());
            given.extend(self.logs.iter().cloned());
            self.bound = Some(Bound::new(device, &self.compiled, &given.into_iter().collect())?);
            self.places = places;
        }
        Ok(())
    }

    /// Whether somebody besides the state holds a tensor that a run overwrites.
    fn is_shared<S: Tree>(&self, state: &S) -> bool {
        let (mut index, mut shared) = (0, false);
        state.visit(&mut |tensor| {
            shared |= self.overwritten[index] && tensor.handles() > 1;
            index += 1;
        });
        shared
    }

    fn logged(&self) -> Logs {
        let Some(ring) = &self.ring else { return Logs::default() };
        let sequence = ring.written.load(Ordering::Relaxed) - 1;
        let start = (sequence % RING) * ring.entry;
        let entries = (self.names.iter().enumerate())
            .map(|(index, name)| {
                let slot = Slot { buffer: ring.buffer.clone(), offset: start + index as u64 * ALIGN };
                (name.clone(), Tensor::from_slot(slot, Spec::new([], DType::F32), nowhere()))
            })
            .collect();
        Logs { entries, ring: Some((ring.clone(), sequence)) }
    }
}

fn same_device(slot: &Slot, device: &Device) -> Result<()> {
    if slot.buffer.device() == *device {
        return Ok(());
    }
    Err(Error::Device { what: "a tensor lies on another device than the step runs on".into(), place: None })
}

/// The slot of a tensor with a value, uploading it if it is still on the host.
pub(crate) fn on_device(tensor: &Tensor, device: &Device) -> Result<Slot> {
    let (node, output) = tensor.node()?;
    let value = node.value(output);
    if let Some(slot) = value.device {
        same_device(&slot, device)?;
        return Ok(slot);
    }
    let Some(bits) = value.host else {
        return Err(Error::ReadInsideStep { op: node.op().name().into(), place: node.place().clone() });
    };
    let slot = Slot { buffer: device.alloc(bits.len() as u64 * 4)?, offset: 0 };
    let mut encoder = device.encoder();
    encoder.upload(bytemuck::cast_slice(&bits), &slot.buffer, 0)?;
    encoder.submit()?;
    // Small host data stays: reading it back costs nothing then.
    let host = (bits.len() <= 1 << 14).then_some(bits);
    node.set_value(output, Value { host, device: Some(slot.clone()), placeholder: false });
    Ok(slot)
}

/// Gives the state new nodes where somebody else holds the old ones, which keep a copy of their value.
fn drop_clones<S: Tree>(device: &Device, state: &mut S, overwritten: &[bool]) -> Result<()> {
    let mut encoder = device.encoder();
    let mut failed = None;
    let mut index = 0;
    let mut kept = Vec::new();
    let fresh = state.map(&mut |tensor| {
        let mine = index;
        index += 1;
        let Ok((node, output)) = tensor.node() else { return tensor.clone() };
        if !overwritten[mine] || tensor.handles() <= 1 {
            return tensor.clone();
        }
        let (value, spec) = (node.value(output), node.outputs()[output].clone());
        match (value.device, value.host) {
            (Some(slot), host) => match device.alloc(spec.bytes()) {
                Ok(copy) => {
                    encoder.copy(&slot.buffer, slot.offset, &copy, 0, spec.bytes());
                    let copy = Some(Slot { buffer: copy, offset: 0 });
                    kept.push((node.clone(), output, Value { host, device: copy, placeholder: false }));
                    Tensor::from_slot(slot, spec, node.place().clone())
                }
                Err(error) => {
                    failed.get_or_insert(error);
                    tensor.clone()
                }
            },
            (None, Some(bits)) => Tensor::from_bits(bits, spec, node.place().clone()),
            (None, None) => tensor.clone(),
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    encoder.submit()?;
    for (node, output, value) in kept {
        node.set_value(output, value);
    }
    *state = fresh;
    Ok(())
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
    let mut encoder = device.encoder();
    let mut runs: Vec<Vec<usize>> = layouts.to_vec();
    let packed: std::collections::HashSet<usize> = runs.iter().flatten().copied().collect();
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
            fill(&mut encoder, &tensors[index], &slot)?;
            slots[index] = Some(slot);
        }
        base += bytes;
    }
    encoder.submit()?;
    for (tensor, slot) in tensors.iter().zip(&slots) {
        let (node, output) = tensor.node()?;
        node.set_value(output, Value { device: slot.clone(), ..Value::default() });
    }
    Ok(slots)
}

/// Overwrites tensors in place where they lie on the device, in one submission; others get the value on the host.
pub fn assign_all(device: &Device, pairs: &[(Tensor, Tensor)]) -> Result<()> {
    let mut encoder = device.encoder();
    for (target, value) in pairs {
        let (node, output) = target.node()?;
        let (from, index) = value.node()?;
        match node.value(output).device {
            Some(slot) => fill(&mut encoder, value, &slot)?,
            None => node.set_value(output, from.value(index)),
        }
    }
    encoder.submit()?;
    Ok(())
}
