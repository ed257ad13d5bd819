//! [`Transfer`]: one submission that moves values, and what tensors hold once it is on its way.
//!
//! Everything that uploads, copies or overwrites a tensor outside a replay goes through here, so that a value is
//! changed only together with the commands that change it. Deliberately absent: decisions about what lies where.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Device, Encoder};
use crate::graph::{Node, Slot, Tensor, Value};
use crate::lower::Options;
use crate::read::{evaluate, seen_on_device};

/// Host data up to this many elements is kept when it is uploaded, since reading it back costs nothing then.
const KEPT: usize = 1 << 14;

/// Moves of values that make one submission.
pub(crate) struct Transfer {
    device: Device,
    encoder: Option<Encoder>,
    values: Vec<(Arc<Node>, usize, Value)>,
}

impl Transfer {
    /// Nothing to move yet.
    pub fn new(device: &Device) -> Transfer {
        Transfer { device: device.clone(), encoder: None, values: Vec::new() }
    }

    /// The submission in the making, for work that follows the moves.
    pub fn encoder(&mut self) -> &mut Encoder {
        self.encoder.get_or_insert_with(|| self.device.encoder())
    }

    /// New memory for `tensor`.
    pub fn alloc(&self, tensor: &Tensor) -> Result<Slot> {
        let (node, output) = tensor.node()?;
        Ok(Slot { buffer: self.device.alloc(node.outputs()[output].bytes())?, offset: 0 })
    }

    /// Where a tensor with a value lies, uploading it if it is still on the host.
    pub fn slot(&mut self, tensor: &Tensor) -> Result<Slot> {
        let (node, output) = tensor.node()?;
        let value = node.value(output);
        if let Some(slot) = value.device {
            same_device(&slot, &self.device)?;
            return Ok(slot);
        }
        let already = self.values.iter().find(|(n, o, _)| Arc::ptr_eq(n, node) && *o == output);
        if let Some((_, _, Value { device: Some(slot), .. })) = already {
            return Ok(slot.clone());
        }
        let slot = self.alloc(tensor)?;
        self.fill(tensor, &slot)?;
        let host = value.host.filter(|bits| bits.len() <= KEPT);
        self.set(tensor, Value { host, device: Some(slot.clone()), placeholder: false })?;
        Ok(slot)
    }

    /// Uploads or copies the value of a tensor to a place.
    pub fn fill(&mut self, tensor: &Tensor, slot: &Slot) -> Result<()> {
        fill(self.encoder(), &[tensor], slot, 0)
    }

    /// Copies `bytes` bytes.
    pub fn copy(&mut self, from: &Slot, to: &Slot, bytes: u64) {
        self.encoder().copy(&from.buffer, from.offset, &to.buffer, to.offset, bytes);
    }

    /// What `tensor` holds once this is submitted.
    pub fn set(&mut self, tensor: &Tensor, value: Value) -> Result<()> {
        let (node, output) = tensor.node()?;
        self.values.push((node.clone(), output, value));
        Ok(())
    }

    /// Submits the moves, if there are any, and gives tensors their values.
    pub fn submit(self) -> Result<()> {
        if let Some(encoder) = self.encoder {
            encoder.submit()?;
        }
        for (node, output, value) in self.values {
            node.set_value(output, value);
        }
        Ok(())
    }
}

/// Uploads or copies the values of like tensors to places `stride` bytes apart: what comes from the host in one upload,
/// what lies one behind the other on the device in one copy.
pub(super) fn fill(encoder: &mut Encoder, tensors: &[&Tensor], slot: &Slot, stride: u64) -> Result<()> {
    let mut at = 0;
    while let Some(tensor) = tensors.get(at) {
        let (node, output) = tensor.node()?;
        let (bytes, value) = (node.outputs()[output].bytes(), node.value(output));
        let offset = slot.offset + at as u64 * stride;
        let begin = at;
        at += 1;
        if let Some(bits) = value.host {
            let mut rows = vec![bits];
            while let Some((node, output)) = tensors.get(at).map(|tensor| tensor.node()).transpose()?
                && let Some(bits) = node.value(output).host
            {
                rows.push(bits);
                at += 1;
            }
            let whole = (at - begin - 1) as u64 * stride + bytes;
            encoder.upload_with(whole as usize, &slot.buffer, offset, |mut room| {
                for (row, bits) in rows.iter().enumerate() {
                    let (start, end) = (row * stride as usize, row * stride as usize + bytes as usize);
                    room.slice(start..end).copy_from_slice(bytemuck::cast_slice(bits));
                    if row + 1 < rows.len() {
                        room.slice(end..start + stride as usize).fill(0);
                    }
                }
            })?;
            continue;
        }
        let lies = |tensor: &Tensor| -> Result<Option<Slot>> {
            let (node, output) = tensor.node()?;
            let Value { host, device, .. } = node.value(output);
            Ok(if host.is_some() { None } else { device.or_else(|| seen_on_device(tensor)) })
        };
        let Some(from) = lies(tensor)? else {
            return Err(Error::new(ErrorKind::ReadInsideStep {
                op: node.op().name().into(),
                place: node.place().clone(),
            }));
        };
        same_device(&from, &slot.buffer.device())?;
        let mut end = from.offset + bytes;
        while bytes == stride
            && let Some(next) = tensors.get(at).map(|tensor| lies(tensor)).transpose()?.flatten()
            && next.buffer == from.buffer
            && next.offset == end
        {
            end += bytes;
            at += 1;
        }
        encoder.copy(&from.buffer, from.offset, &slot.buffer, offset, end - from.offset);
    }
    Ok(())
}

/// An error where a tensor lies on another device.
pub(super) fn same_device(slot: &Slot, device: &Device) -> Result<()> {
    if slot.buffer.device() == *device {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Device {
        what: "a tensor lies on another device than the one it is used on".into(),
        place: None,
    }))
}

/// Overwrites `target` with `value`; see [`assign_all`].
pub fn assign(device: &Device, target: &Tensor, value: &Tensor) -> Result<()> {
    assign_all(device, &[(target.clone(), value.clone())])
}

/// Overwrites each target with the value of its partner, one after the other, in one submission: weights that are
/// loaded, metrics that are reset, a learning rate that changes.
///
/// A target that lies on a device stays where it is, so plans that use it stay valid; the write is ordered with the
/// steps before and after it. One that lies nowhere takes over the host data. Every handle on a target sees the new
/// value. Both have the same shape and dtype. On an error nothing is overwritten.
pub fn assign_all(device: &Device, pairs: &[(Tensor, Tensor)]) -> Result<()> {
    let mut values = Vec::with_capacity(pairs.len());
    for (target, value) in pairs {
        let ((node, output), (from, source)) = (target.node()?, value.node()?);
        let (is, given) = (&node.outputs()[output], &from.outputs()[source]);
        if is != given {
            return Err(Error::state(format!("a tensor of {is} cannot be assigned {given}")));
        }
        if node.value(output).placeholder {
            return Err(Error::new(ErrorKind::ReadInsideStep { op: "assign".into(), place: node.place().clone() }));
        }
        values.push(value.clone());
        // Of several outputs the others are computed before one is overwritten: they are not to be had afterwards.
        if node.visible() > 1 {
            values.push(target.clone());
        }
    }
    evaluate(device, &values, &Options::default())?;
    let mut transfer = Transfer::new(device);
    for (target, value) in pairs.iter().filter(|(target, value)| !target.same(value)) {
        let ((node, output), (from, source)) = (target.node()?, value.node()?);
        let (lies, new) = (node.value(output).device, from.value(source));
        let value = match (lies, new.host) {
            (None, Some(host)) => Value { host: Some(host), ..Value::default() },
            (lies, _) => {
                let slot = lies.map_or_else(|| transfer.alloc(target), Ok)?;
                same_device(&slot, device)?;
                transfer.fill(value, &slot)?;
                Value { device: Some(slot), ..Value::default() }
            }
        };
        transfer.set(target, value)?;
    }
    let targets: Vec<Arc<Node>> = transfer.values.iter().map(|(node, _, _)| node.clone()).collect();
    transfer.submit()?;
    // A target that was a computation is a value from now on.
    for node in targets {
        if node.are_known(node.outputs().len()) {
            node.detach();
        }
    }
    Ok(())
}
