//! Reading tensors: the eager side of the same compiler.
//!
//! Floor 1. Reading a tensor that has no value yet compiles what it needs, and in a large graph what else the program holds
//! there, through the passes a step goes through, runs it once, and remembers the values; their history is then let go.
//! What merely views host data is read where it lies. Deliberately absent: eager kernels.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::collections::Table;
use crate::dtype::{DType, Element};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Device, Range, Reading};
use crate::graph::{Lowering, Slot, Spec, Tensor, Value, View, is_taping, pending};
use crate::lower::program::{Id, Kind, Val};
use crate::lower::recording::Recording;
use crate::lower::{Compiled, Options, Request, Target, compile};
use crate::plan::{Bound, Plan};
use crate::step::Transfer;

/// Graphs of more nodes than this are computed once: see [`evaluate`].
const LONG: usize = 128;

/// Evaluates tensors that a program goes on computing with and has not read; whether it could. What cannot be stays as it
/// is, and whoever reads it learns why.
pub(crate) fn flush(tensors: &[Tensor]) -> bool {
    let flush = || match tensors.first().map_or(Ok(None), device_of)? {
        Some(device) => {
            evaluate(&device, tensors, &Options::default())?;
            // A loop may be faster than the device, and what is queued takes memory too.
            #[cfg(not(target_arch = "wasm32"))]
            pollster::block_on(device.ready())?;
            Ok(())
        }
        None => Ok(()),
    };
    let flushed: Result<()> = flush();
    flushed.inspect_err(|why| log::debug!("a long chain is not evaluated yet: {why}")).is_ok()
}

/// Computes tensors on `device` in one submission, without waiting. Returns the plan, if anything was to be done.
///
/// What is on the way is not stored, and computed again by whoever reads it. In a large graph that would be much, so what
/// a program still holds there is computed together: a training step on real tensors whose loss is read leaves its new
/// state computed too, though nobody reads that.
pub fn evaluate(device: &Device, tensors: &[Tensor], options: &Options) -> Result<Option<Plan>> {
    let mut wanted: Vec<Tensor> = Vec::new();
    for tensor in tensors {
        let (node, output) = tensor.node()?;
        // With its other outputs, or what is known would be computed again with them, from inputs that are kept for that.
        if !node.value(output).is_known() {
            for output in [output].into_iter().chain((0..node.visible()).filter(|&other| other != output)) {
                let one = Tensor::of(node.clone(), output);
                if !node.value(output).is_known() && !wanted.iter().any(|other| other.same(&one)) {
                    wanted.push(one);
                }
            }
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let recording = Recording::of(&wanted)?;
    if recording.nodes().iter().any(|node| node.is_stand_in()) {
        let (asked, _) = wanted[0].node()?;
        return Err(Error::new(ErrorKind::ReadInsideStep {
            op: asked.op().name().into(),
            place: asked.place().clone(),
        }));
    }
    let (recording, more) = if is_taping() { (recording, Vec::new()) } else { with_held(recording, &wanted)? };
    if !more.is_empty() {
        let all = [&wanted[..], &more[..]].concat();
        // Nobody has asked for the rest: what is wrong with it is no reason to fail.
        match compute(device, &Recording::of(&all)?, &all, options) {
            Ok(plan) => {
                drop((recording, wanted, more));
                let_go(all);
                return Ok(Some(plan));
            }
            Err(why) => log::debug!("computing only what is read: {why}"),
        }
    }
    let plan = compute(device, &recording, &wanted, options)?;
    drop((recording, more));
    let_go(wanted);
    Ok(Some(plan))
}

/// Frees the history of what was computed. Of an op that keeps outputs for a derivative, which were not, only if nobody but
/// who asked for it can come back to them.
fn let_go(computed: Vec<Tensor>) {
    if is_taping() {
        return;
    }
    for (at, tensor) in computed.iter().enumerate() {
        let Ok((node, _)) = tensor.node() else { continue };
        let same = |other: &&Tensor| other.node().is_ok_and(|(other, _)| Arc::ptr_eq(other, node));
        if computed[..at].iter().any(|other| same(&other)) {
            continue;
        }
        let own = computed[at..].iter().filter(same).count();
        let alone = || node.are_known(node.visible()) && Arc::strong_count(node) - own <= 1;
        if node.are_known(node.outputs().len()) || alone() {
            node.detach();
        }
    }
}

/// What a program holds of a large graph that `wanted`, of which a recording is given, are in.
fn with_held(recording: Recording, wanted: &[Tensor]) -> Result<(Recording, Vec<Tensor>)> {
    let above = pending::above(recording.nodes());
    if recording.nodes().len() + above.len() <= LONG {
        return Ok((recording, Vec::new()));
    }
    if above.is_empty() {
        let held = recording.held(wanted);
        return Ok((recording, held));
    }
    // Holders are counted, so there must be no recording but the one that counts.
    drop(recording);
    let heads: Vec<Tensor> = above.into_iter().map(|node| Tensor::of(node, 0)).chain(wanted.iter().cloned()).collect();
    let whole = Recording::of(&heads)?;
    drop(heads);
    let held = whole.held(wanted);
    drop(whole);
    Ok((Recording::of(wanted)?, held))
}

fn compute(device: &Device, recording: &Recording, wanted: &[Tensor], options: &Options) -> Result<Plan> {
    let eager = Eager::of(recording, wanted, device, options)?;
    let mut transfer = Transfer::new(device);
    let mut given = Table::new();
    for (&id, leaf) in eager.leaves.iter().zip(recording.leaves()) {
        given.insert(id, transfer.slot(&leaf)?);
    }
    let mut results: Vec<Slot> = Vec::new();
    for (tensor, &root) in wanted.iter().zip(&eager.results) {
        let slot = transfer.alloc(tensor)?;
        given.insert(root, slot.clone());
        results.push(slot);
    }
    let temporaries = eager.compiled.temporaries().into_iter().map(|bytes| device.alloc(bytes));
    let bound = Bound::new(device, &eager.compiled, &given, temporaries.collect::<Result<_>>()?, None)?;
    bound.encode(transfer.encoder(), 1);
    transfer.submit()?;
    for (tensor, slot) in wanted.iter().zip(results) {
        let (node, output) = tensor.node()?;
        node.set_value(output, Value { device: Some(slot), ..Value::default() });
    }
    Ok(bound.plan)
}

/// A compiled graph, for whichever tensors it is read for.
struct Eager {
    compiled: Compiled,
    /// The values of [`Recording::leaves`].
    leaves: Vec<Id>,
    /// The values of the tensors wanted.
    results: Vec<Id>,
}

/// What a plan was compiled for.
#[derive(PartialEq)]
struct Key {
    shape: u64,
    target: Target,
    options: Options,
}

/// Plans of a thread kept for further reads of the same graph.
const PLANS: usize = 64;
/// Longer programs are not kept: a loop that never read is not likely to be met again, and takes memory.
const LONGEST: usize = 1 << 14;

thread_local! {
    /// The latest used last. Nothing of a device is in here: buffers are given anew at each read, and pipelines are
    /// found in the device's own cache.
    static KNOWN: RefCell<Vec<(Key, Rc<Eager>)>> = const { RefCell::new(Vec::new()) };
}

impl Eager {
    /// The plan for reading `wanted`, which `recording` computes; compiled only if its like was not met before.
    fn of(recording: &Recording, wanted: &[Tensor], device: &Device, options: &Options) -> Result<Rc<Eager>> {
        let key = Key { shape: recording.shape(), target: Target::of(device), options: options.clone() };
        let found = KNOWN.with_borrow_mut(|known| {
            let at = known.iter().position(|(other, _)| *other == key)?;
            known[at..].rotate_left(1);
            known.last().map(|(_, eager)| eager.clone())
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let eager = Rc::new(Eager::compile(recording, wanted, &key.target, options)?);
        if eager.compiled.program.vals.len() <= LONGEST {
            KNOWN.with_borrow_mut(|known| {
                if known.len() == PLANS {
                    known.remove(0);
                }
                known.push((key, eager.clone()));
            });
        }
        Ok(eager)
    }

    fn compile(recording: &Recording, wanted: &[Tensor], target: &Target, options: &Options) -> Result<Eager> {
        let mut program = recording.program(&Table::new(), None)?;
        // The tensors themselves are not kept: they would hold their memory.
        program.leaves.clear();
        let leaf = |(id, val): (Id, &Val)| matches!(val.kind, Kind::Leaf(_)).then_some(id);
        let leaves = program.vals.iter().enumerate().filter_map(leaf).collect();
        let mut request = Request::default();
        for (tensor, root) in wanted.iter().zip(std::mem::take(&mut program.roots)) {
            let numel = tensor.shape().numel();
            let again = request.results.contains(&root);
            let root = if again { program.copy_of(root, numel) } else { program.computed(root, numel) };
            program.roots.push(root);
            request.results.push(root);
        }
        let compiled = compile(program, &request, target, options)?;
        Ok(Eager { compiled, leaves, results: request.results })
    }
}

/// Waits for tensors and reads the bits of all of them at once: one moment's values, and one wait.
pub(crate) async fn read_all(device: &Device, tensors: &[Tensor]) -> Result<Vec<Vec<u32>>> {
    evaluate(device, tensors, &Options::default())?;
    ask_all(tensors)?.wait().await
}

/// Asks for tensors that have values: what comes is what they hold now, whatever becomes of them. Those on a device lie
/// on one and the same.
pub(crate) fn ask_all(tensors: &[Tensor]) -> Result<AskedAll> {
    let (mut all, mut ranges, mut places) = (vec![Vec::new(); tensors.len()], Vec::new(), Vec::new());
    for (index, tensor) in tensors.iter().enumerate() {
        let (node, output) = tensor.node()?;
        let value = node.value(output);
        match (value.host, value.device) {
            (Some(bits), _) => all[index] = bits.to_vec(),
            (None, Some(slot)) => {
                ranges.push(Range::new(&slot.buffer, slot.offset, node.outputs()[output].bytes()));
                places.push(index);
            }
            (None, None) => {
                return Err(Error::new(ErrorKind::ReadInsideStep {
                    op: node.op().name().into(),
                    place: node.place().clone(),
                }));
            }
        }
    }
    let reading = ranges.first().map(|range| range.buffer.device().ask(&ranges)).transpose()?;
    Ok(AskedAll { all, places, reading })
}

/// Bits of tensors on their way back. The device copied them before anything that is submitted later.
pub(crate) struct AskedAll {
    /// Those that were on the host.
    all: Vec<Vec<u32>>,
    /// Where the others go.
    places: Vec<usize>,
    reading: Option<Reading>,
}

impl AskedAll {
    /// Waits for the bits.
    pub async fn wait(mut self) -> Result<Vec<Vec<u32>>> {
        let read = match self.reading.take() {
            Some(reading) => reading.wait().await?,
            None => Vec::new(),
        };
        Ok(self.filled(read))
    }

    /// The bits if they have come by now; once. Never waits.
    pub fn look(&mut self) -> Result<Option<Vec<Vec<u32>>>> {
        let read = match &mut self.reading {
            Some(reading) => reading.look()?,
            None => Some(Vec::new()),
        };
        Ok(read.map(|read| self.filled(read)))
    }

    fn filled(&mut self, read: Vec<Vec<u8>>) -> Vec<Vec<u32>> {
        for (&index, bytes) in self.places.iter().zip(read) {
            self.all[index] = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        }
        std::mem::take(&mut self.all)
    }
}

/// The device that the history of a tensor lies on.
fn device_of(tensor: &Tensor) -> Result<Option<Device>> {
    let mut found: Option<Device> = None;
    for node in Recording::of(std::slice::from_ref(tensor))?.nodes() {
        for output in 0..node.outputs().len() {
            let Some(slot) = node.value(output).device else { continue };
            let device = slot.buffer.device();
            if found.as_ref().is_some_and(|other| *other != device) {
                let what = "the graph holds tensors of two devices; move one of them".into();
                return Err(Error::new(ErrorKind::Device { what, place: Some(node.place().clone()) }));
            }
            found = Some(device);
        }
    }
    Ok(found)
}

/// The known value that a tensor merely views, and the view. `None` if it is anything else, or the views are not one
/// strided window.
fn seen(tensor: &Tensor) -> Option<(Value, View)> {
    let (mut views, mut at) = (Vec::new(), tensor.clone());
    // What was computed, or written in place, is not what its op makes of its inputs, which it may have let go of.
    let value = loop {
        let (node, output) = at.node().ok()?;
        let value = node.value(output);
        if value.is_known() {
            break value;
        }
        let inputs = node.inputs();
        let specs: Vec<Spec> = inputs.iter().filter_map(|input| input.spec().cloned()).collect();
        match (node.op().lower(&specs, node.outputs()).as_slice(), inputs.as_slice()) {
            ([Lowering::View(view)], [source]) => {
                views.push(view.clone());
                at = source.clone();
            }
            _ => return None,
        }
    };
    let view = views.iter().rev().try_fold(View::whole(&at.shape()), |view, op| view.then(op))?;
    Some((value, view))
}

/// Where the elements of a tensor without a value of its own lie on a device, if it views a piece of one that does: rows
/// of a resident data set are read where they are.
pub(crate) fn seen_on_device(tensor: &Tensor) -> Option<Slot> {
    let (value, view) = seen(tensor)?;
    let slot = value.device?;
    let numel = view.shape.numel();
    let dense = view.inside.is_none() && (numel < 2 || view.merged() == [(numel, 1)]);
    dense.then(|| Slot { offset: slot.offset + 4 * view.offset as u64, buffer: slot.buffer })
}

/// The bits of a tensor that only views what the host has: rows cut out of a data set need not go to a device, where
/// the whole of it may not fit into a buffer. `None` if it is anything else or larger, or the views are not one
/// strided window.
fn seen_on_host(tensor: &Tensor) -> Option<Vec<u32>> {
    let (value, view) = seen(tensor)?;
    let bits = value.host?;
    // What spreads is larger than what it views, perhaps larger than any memory.
    if view.shape.numel() > bits.len() {
        return None;
    }
    let element = |index: usize| view.source(index).map_or(0, |source| bits[source]);
    Some((0..view.shape.numel()).map(element).collect())
}

impl Tensor {
    /// Puts the tensor on a device, computing it there if it has no value yet. Returns itself.
    pub fn to(&self, device: &Device) -> Result<Tensor> {
        evaluate(device, std::slice::from_ref(self), &Options::default())?;
        let mut transfer = Transfer::new(device);
        transfer.slot(self)?;
        transfer.submit()?;
        Ok(self.clone())
    }

    /// Waits for the value and reads it, elements in row-major order. Computes it first if need be, on the device
    /// its operands lie on.
    ///
    /// # Errors
    /// [`ErrorKind::DType`] where `E` is not what the tensor holds: f32 and f64 are read from f32, i32 and i64 from i32, u32
    /// and u8 from u32, and any whole number from bool; [`cast`](Tensor::cast) first.
    pub async fn read<E: Element>(&self) -> Result<Vec<E>> {
        self.check_holds::<E>()?;
        let bits = self.read_bits(None).await?;
        Ok(bits.into_iter().map(E::from_bits).collect())
    }

    /// [`read`](Tensor::read), computing on `device` where nothing lies on a device yet.
    pub async fn read_on<E: Element>(&self, device: &Device) -> Result<Vec<E>> {
        self.check_holds::<E>()?;
        let bits = self.read_bits(Some(device)).await?;
        Ok(bits.into_iter().map(E::from_bits).collect())
    }

    /// [`read`](Tensor::read), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_vec<E: Element>(&self) -> Result<Vec<E>> {
        pollster::block_on(self.read())
    }

    /// [`read_on`](Tensor::read_on), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_vec_on<E: Element>(&self, device: &Device) -> Result<Vec<E>> {
        pollster::block_on(self.read_on(device))
    }

    /// Bits read as another type would be other numbers.
    fn check_holds<E: Element>(&self) -> Result<()> {
        let (node, output) = self.node()?;
        let dtype = node.outputs()[output].dtype;
        if dtype == E::DTYPE || (dtype == DType::Bool && !E::DTYPE.is_float()) {
            return Ok(());
        }
        let (rust, into) = (std::any::type_name::<E>(), E::DTYPE);
        Err(Error::new(ErrorKind::DType {
            op: "read".into(),
            inputs: vec![dtype],
            why: format!("{rust} is read from {into}; cast the tensor first, or read what it holds"),
            place: node.place().clone(),
        }))
    }

    /// The bits of the elements.
    pub(crate) async fn read_bits(&self, device: Option<&Device>) -> Result<Vec<u32>> {
        let (node, output) = self.node()?;
        if let Some(bits) = node.value(output).host {
            return Ok(bits.to_vec());
        }
        if node.value(output).placeholder {
            return Err(Error::new(ErrorKind::ReadInsideStep {
                op: "an input of the step".into(),
                place: node.place().clone(),
            }));
        }
        if let Some(bits) = seen_on_host(self) {
            return Ok(bits);
        }
        let device = match device_of(self)? {
            Some(device) => device,
            None => match device {
                Some(device) => device.clone(),
                None => {
                    // A graph of stand-ins has no device either, and that is the better message.
                    for n in Recording::of(std::slice::from_ref(self))?.nodes() {
                        if (0..n.outputs().len()).any(|output| n.value(output).placeholder) {
                            return Err(Error::new(ErrorKind::ReadInsideStep {
                                op: node.op().name().into(),
                                place: node.place().clone(),
                            }));
                        }
                    }
                    let what = "nothing in the graph lies on a device; use read_on, or move an operand with to";
                    return Err(Error::new(ErrorKind::Device { what: what.into(), place: Some(node.place().clone()) }));
                }
            },
        };
        evaluate(&device, std::slice::from_ref(self), &Options::default())?;
        let bytes = node.outputs()[output].bytes();
        let Some(slot) = node.value(output).device.filter(|_| bytes > 0) else { return Ok(Vec::new()) };
        let read = device.read(&[Range::new(&slot.buffer, slot.offset, bytes)]).await?;
        Ok(read[0].chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}
