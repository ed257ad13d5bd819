//! Reading tensors: the eager side of the same compiler.
//!
//! Floor 1. Reading a tensor that has no value yet compiles just what it needs through the passes a step goes
//! through, runs it once, and remembers the value; its history is then let go. Deliberately absent: eager kernels.

use std::collections::HashMap;

use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::gpu::{Device, Range};
use crate::graph::{Slot, Tensor, Value};
use crate::lower::program::{Kind, Recording};
use crate::lower::{Options, Request, Target, compile};
use crate::plan::{Bound, Plan};
use crate::step::on_device;

/// Computes tensors on `device` in one submission, without waiting. Returns the plan, if anything was to be done.
pub fn evaluate(device: &Device, tensors: &[Tensor], options: &Options) -> Result<Option<Plan>> {
    let mut wanted: Vec<Tensor> = Vec::new();
    for tensor in tensors {
        let (node, output) = tensor.node()?;
        if !node.value(output).is_known() && !wanted.iter().any(|t| t.same(tensor)) {
            wanted.push(tensor.clone());
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let recording = Recording::of(&wanted)?;
    for node in recording.nodes() {
        if (0..node.outputs().len()).any(|output| node.value(output).placeholder) {
            let (asked, _) = wanted[0].node()?;
            return Err(Error::ReadInsideStep { op: asked.op().name().into(), place: asked.place().clone() });
        }
    }
    let mut program = recording.program(&HashMap::new())?;
    let leaves = std::mem::take(&mut program.leaves);
    let mut given = HashMap::new();
    for (id, val) in program.vals.iter().enumerate() {
        if let Kind::Leaf(leaf) = val.kind {
            given.insert(id, on_device(&leaves[leaf], device)?);
        }
    }
    let roots = std::mem::take(&mut program.roots);
    let mut request = Request::default();
    let mut results: Vec<Slot> = Vec::new();
    for (tensor, root) in wanted.iter().zip(roots) {
        let computed = !matches!(program.vals[root].kind, Kind::Leaf(_) | Kind::Scalar(_) | Kind::View(_));
        let numel = tensor.shape().numel();
        let root = if computed && program.vals[root].numel == numel && !request.results.contains(&root) {
            root
        } else {
            let copy = program.copy_of(root);
            program.vals[copy].numel = numel;
            copy
        };
        program.roots.push(root);
        request.results.push(root);
        let slot = Slot { buffer: device.alloc((numel * 4) as u64)?, offset: 0 };
        given.insert(root, slot.clone());
        results.push(slot);
    }
    let compiled = compile(program, &request, &Target::of(device), options);
    let bound = Bound::new(device, &compiled, &given)?;
    let mut encoder = device.encoder();
    bound.encode(&mut encoder);
    encoder.submit()?;
    for (tensor, slot) in wanted.iter().zip(results) {
        let (node, output) = tensor.node()?;
        node.set_value(output, Value { device: Some(slot), ..Value::default() });
        let all_known = (0..node.outputs().len()).all(|output| node.value(output).is_known());
        if all_known && !crate::graph::is_taping() {
            node.detach();
        }
    }
    Ok(Some(bound.plan))
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
                return Err(Error::Device { what, place: Some(node.place().clone()) });
            }
            found = Some(device);
        }
    }
    Ok(found)
}

impl Tensor {
    /// Puts the tensor on a device, computing it there if it has no value yet. Returns itself.
    pub fn to(&self, device: &Device) -> Result<Tensor> {
        evaluate(device, std::slice::from_ref(self), &Options::default())?;
        on_device(self, device)?;
        Ok(self.clone())
    }

    /// Waits for the value and reads it, elements in row-major order. Computes it first if need be, on the device
    /// its operands lie on.
    pub async fn read<E: Element>(&self) -> Result<Vec<E>> {
        let bits = self.read_bits(None).await?;
        Ok(bits.into_iter().map(E::from_bits).collect())
    }

    /// [`read`](Tensor::read), computing on `device` where nothing lies on a device yet.
    pub async fn read_on<E: Element>(&self, device: &Device) -> Result<Vec<E>> {
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

    /// The bits of the elements.
    pub(crate) async fn read_bits(&self, device: Option<&Device>) -> Result<Vec<u32>> {
        let (node, output) = self.node()?;
        if let Some(bits) = node.value(output).host {
            return Ok(bits.to_vec());
        }
        if node.value(output).placeholder {
            return Err(Error::ReadInsideStep { op: "an input of the step".into(), place: node.place().clone() });
        }
        let device = match device_of(self)? {
            Some(device) => device,
            None => match device {
                Some(device) => device.clone(),
                None => {
                    // A graph of stand-ins has no device either, and that is the better message.
                    for n in Recording::of(std::slice::from_ref(self))?.nodes() {
                        if (0..n.outputs().len()).any(|output| n.value(output).placeholder) {
                            return Err(Error::ReadInsideStep {
                                op: node.op().name().into(),
                                place: node.place().clone(),
                            });
                        }
                    }
                    let what = "nothing in the graph lies on a device; use read_on, or move an operand with to";
                    return Err(Error::Device { what: what.into(), place: Some(node.place().clone()) });
                }
            },
        };
        evaluate(&device, std::slice::from_ref(self), &Options::default())?;
        let slot = on_device(self, &device)?;
        let bytes = node.outputs()[output].bytes();
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let read = device.read(&[Range::new(&slot.buffer, slot.offset, bytes)]).await?;
        Ok(read[0].chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}
