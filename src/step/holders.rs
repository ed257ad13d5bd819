//! Where the leaves of a state lie: in memory that is nobody else's, and together where a plan wants that.
//!
//! A run overwrites the state in place. Whoever else holds one of its tensors keeps the value: the state gets a node of its
//! own with the memory, and theirs a copy. Deliberately absent: what is only read, which may be held by anybody.

use super::transfer::Transfer;
use crate::collections::Set;
use crate::error::Result;
use crate::gpu::Device;
use crate::graph::{Slot, Spec, Tensor, Tree, Value};
use crate::lower::pack::{offsets, runs};

/// Gives the state new nodes where somebody else holds the old ones, which keep a copy of their value. A tensor that
/// stands twice in the state becomes two.
pub(super) fn drop_clones<S: Tree>(device: &Device, state: &mut S, overwritten: &[bool]) -> Result<()> {
    let (mut transfer, mut taken) = (Transfer::new(device), Set::new());
    let (mut overwritten, mut failed) = (overwritten.iter(), None);
    let fresh = state.map(&mut |tensor| {
        if !overwritten.next().is_some_and(|&is| is) || tensor.handles() <= 1 {
            return tensor.clone();
        }
        parted(tensor, &mut transfer, &mut taken).unwrap_or_else(|error| {
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

/// A new node for a tensor that somebody else holds too. It has the memory, unless one before it has, and the other's node a copy.
fn parted(tensor: &Tensor, transfer: &mut Transfer, taken: &mut Set<(u64, u64)>) -> Result<Tensor> {
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
pub(super) fn laid_out(slots: &[Option<Slot>], layouts: &[Vec<usize>], specs: &[Spec]) -> bool {
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
pub(super) fn lay_out(
    device: &Device,
    tensors: &[Tensor],
    layouts: &[Vec<usize>],
    specs: &[Spec],
) -> Result<Vec<Option<Slot>>> {
    let mut transfer = Transfer::new(device);
    let limit = device.limits().max_storage_buffer_binding_size;
    let packed: Set<usize> = layouts.iter().flatten().copied().collect();
    let alone: Vec<usize> = (0..tensors.len()).filter(|index| !packed.contains(index)).collect();
    let own: Vec<u64> = alone.iter().map(|&index| specs[index].bytes()).collect();
    let mut all: Vec<Vec<usize>> = layouts.to_vec();
    all.extend(runs(&own, limit).into_iter().map(|run| alone[run].to_vec()));
    let sizes: Vec<(Vec<u64>, u64)> =
        all.iter().map(|run| offsets(run.iter().map(|&index| specs[index].bytes()))).collect();
    let together = sizes.iter().map(|s| s.1).sum::<u64>() <= limit;
    let shared = if together { Some(device.alloc(sizes.iter().map(|s| s.1).sum())?) } else { None };
    let mut slots = vec![None; tensors.len()];
    let mut base = 0;
    for (run, (starts, bytes)) in all.iter().zip(&sizes) {
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
