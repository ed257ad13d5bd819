//! Finds numbers that are none: the first NaN or infinity of tensors on a device, by their bits.
//!
//! One small dispatch for each tensor and one read for all. Deliberately absent: floats; WGSL may assume that neither NaN
//! nor infinity exists, so a shader can only look at bits.

use std::fmt;

use crate::error::Result;
use crate::gpu::shader::shader_text;
use crate::gpu::{Access, Device, Range};
use crate::graph::Slot;

const TEXT: &str = shader_text!("nonfinite.wgsl");
/// Threads of a workgroup, and workgroups at most.
const WIDTH: u64 = 256;
const GROUPS: u64 = 1024;
/// What an index is before anything was found.
const NONE: u32 = u32::MAX;
/// Uniform ranges start at multiples of this many bytes.
const ALIGN: u64 = 256;

/// A number that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NonFinite {
    /// The first element that is none, in row-major order.
    pub index: usize,
    /// Its bits.
    pub bits: u32,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.bits {
            0x7f80_0000 => "infinity",
            0xff80_0000 => "-infinity",
            _ => "NaN",
        })
    }
}

/// For each f32 tensor, of so many elements at a place, its first element that is not finite.
pub(super) async fn non_finite(device: &Device, tensors: &[(Slot, usize)]) -> Result<Vec<Option<NonFinite>>> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let pipeline =
        device.pipeline("numbers that are none", TEXT, &[Access::Uniform, Access::Read, Access::ReadWrite])?;
    let mut words = Vec::new();
    for (place, (_, numel)) in tensors.iter().enumerate() {
        words.resize(place * ALIGN as usize / 4, 0);
        words.extend([*numel as u32, place as u32, 0, 0]);
    }
    let uniform = device.uniform(&words)?;
    let found = device.alloc(tensors.len() as u64 * 4)?;
    let mut encoder = device.encoder();
    encoder.upload(bytemuck::cast_slice(&vec![NONE; tensors.len()]), &found, 0)?;
    let mut groups = Vec::with_capacity(tensors.len());
    for (place, (slot, numel)) in tensors.iter().enumerate().filter(|(_, (_, numel))| *numel > 0) {
        let ranges = [
            Range::new(&uniform, place as u64 * ALIGN, 16),
            Range::new(&slot.buffer, slot.offset, *numel as u64 * 4),
            Range::new(&found, 0, tensors.len() as u64 * 4),
        ];
        let group = device.bind_group(&pipeline, &ranges);
        encoder.dispatch(&pipeline, &group, [(*numel as u64).div_ceil(WIDTH).min(GROUPS) as u32, 1, 1]);
        groups.push(group);
    }
    encoder.submit()?;
    let read = device.read(&[Range::new(&found, 0, tensors.len() as u64 * 4)]).await?;
    let first: Vec<u32> = read.first().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).unwrap_or_default();
    let bad: Vec<usize> = (0..first.len()).filter(|&place| first[place] != NONE).collect();
    let element = |&place: &usize| {
        let slot = &tensors[place].0;
        Range::new(&slot.buffer, slot.offset + u64::from(first[place]) * 4, 4)
    };
    let read = device.read(&bad.iter().map(element).collect::<Vec<_>>()).await?;
    let mut all = vec![None; tensors.len()];
    for (place, bytes) in bad.into_iter().zip(read) {
        let bits = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        all[place] = Some(NonFinite { index: first[place] as usize, bits });
    }
    Ok(all)
}
