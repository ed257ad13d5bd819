//! Gives every stored temporary a range of a buffer.
//!
//! WebGPU forbids binding one buffer to be read and written in the same dispatch unless all its bindings are
//! `read_write`. So large temporaries live in whole buffers shared by lifetime, which keeps inputs read-only, and
//! small ones in one slab of their own, so that a region of many small values binds a single buffer. The arena
//! strategy puts everything into one slab. Lifetimes are inclusive in dispatches: an output never lands on an input
//! of its own dispatch. Deliberately absent: state, inputs and results, whose places are given from outside.

use std::collections::HashMap;

use super::fuse::Fused;
use super::pack::{ALIGN, Pack, offsets};
use super::program::{Id, Program};
use super::schedule::Schedule;

/// Where temporaries live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Large ones in whole buffers shared by lifetime, small ones in one slab.
    Whole,
    /// All in one slab.
    Arena,
}

/// A range within one of a plan's own buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which buffer.
    pub buffer: usize,
    /// First byte.
    pub offset: u64,
}

/// Buffers to allocate and where each temporary lies in them.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Bytes of each buffer.
    pub buffers: Vec<u64>,
    /// Temporary to range.
    pub ranges: HashMap<Id, Range>,
    /// Largest sum of bytes alive at once: what no placement can go below.
    pub live: u64,
}

/// Temporaries up to this size share the slab of small ones.
const SMALL: u64 = 16 << 10;

struct Block {
    parts: Vec<(Id, u64)>,
    bytes: u64,
    first: usize,
    last: usize,
}

/// What decides how long values live.
pub struct Lives<'a> {
    /// Whether a value's place is given from outside.
    pub fixed: &'a dyn Fn(Id) -> bool,
    /// Values that are read after the dispatches.
    pub kept: &'a [Id],
    /// Values that a loop overwrites with others: where it begins, and what it ends as.
    pub carried: &'a [(Id, Id)],
    /// The values that a group reads.
    pub reads: &'a dyn Fn(usize) -> Vec<Id>,
}

/// Places every output whose place is not fixed. `packs` are laid out as units.
pub fn place(
    program: &Program,
    fused: &Fused,
    schedule: &Schedule,
    packs: &[Pack],
    lives: &Lives,
    strategy: Strategy,
) -> Placement {
    let Lives { fixed, kept, carried, reads } = lives;
    let mut life: HashMap<Id, (usize, usize)> = HashMap::new();
    for (time, job) in schedule.jobs.iter().enumerate() {
        for group in job.groups() {
            for &output in fused.groups[group].outputs.iter().filter(|&&id| !fixed(id)) {
                life.entry(output).or_insert((time, time));
            }
            for id in reads(group) {
                if let Some(life) = life.get_mut(&id) {
                    life.1 = time;
                }
            }
        }
    }
    for id in *kept {
        if let Some(life) = life.get_mut(id) {
            life.1 = schedule.jobs.len();
        }
    }
    // Both lie in one place.
    for (begins, ends) in *carried {
        if let Some(before) = life.remove(begins)
            && let Some(life) = life.get_mut(ends)
        {
            life.0 = before.0;
        }
    }
    let mut blocks = Vec::new();
    for pack in packs {
        if !pack.iter().all(|id| life.contains_key(id)) {
            continue;
        }
        let lives: Vec<_> = pack.iter().filter_map(|id| life.remove(id)).collect();
        let (starts, bytes) = offsets(pack.iter().map(|&id| program.vals[id].bytes()));
        blocks.push(Block {
            parts: pack.iter().copied().zip(starts).collect(),
            bytes,
            first: lives.iter().map(|l| l.0).min().unwrap_or(0),
            last: lives.iter().map(|l| l.1).max().unwrap_or(0),
        });
    }
    blocks.extend(life.into_iter().map(|(id, (first, last))| {
        let bytes = program.vals[id].bytes().max(1).next_multiple_of(ALIGN);
        Block { parts: vec![(id, 0)], bytes, first, last }
    }));
    blocks.sort_by_key(|b| (b.first, std::cmp::Reverse(b.bytes), b.parts[0].0));
    let mut placement = Placement::default();
    for time in 0..=schedule.jobs.len() {
        let live = blocks.iter().filter(|b| b.first <= time && time <= b.last).map(|b| b.bytes).sum();
        placement.live = placement.live.max(live);
    }
    let (slab, whole): (Vec<Block>, Vec<Block>) =
        blocks.into_iter().partition(|b| strategy == Strategy::Arena || b.bytes <= SMALL);
    if !slab.is_empty() {
        let bytes = first_fit(&slab, &mut placement.ranges);
        placement.buffers.push(bytes);
    }
    // (buffer, free from this dispatch on)
    let mut free: Vec<(usize, usize)> = Vec::new();
    for block in &whole {
        let fits = |&(buffer, from): &(usize, usize)| from <= block.first && placement.buffers[buffer] >= block.bytes;
        let best = (0..free.len()).filter(|&i| fits(&free[i])).min_by_key(|&i| placement.buffers[free[i].0]);
        // None is large enough: the largest free one grows.
        let grows =
            || (0..free.len()).filter(|&i| free[i].1 <= block.first).max_by_key(|&i| placement.buffers[free[i].0]);
        let slot = best.or_else(grows).unwrap_or_else(|| {
            placement.buffers.push(0);
            free.push((placement.buffers.len() - 1, 0));
            free.len() - 1
        });
        let buffer = free[slot].0;
        placement.buffers[buffer] = placement.buffers[buffer].max(block.bytes);
        free[slot].1 = block.last + 1;
        placement.ranges.extend(block.parts.iter().map(|&(id, offset)| (id, Range { buffer, offset })));
    }
    for (begins, ends) in *carried {
        if let Some(&range) = placement.ranges.get(ends) {
            placement.ranges.insert(*begins, range);
        }
    }
    placement
}

/// Puts blocks at the lowest offset free over their whole life; returns the length of the slab.
fn first_fit(blocks: &[Block], ranges: &mut HashMap<Id, Range>) -> u64 {
    let mut placed: Vec<(u64, u64, usize, usize)> = Vec::new();
    let mut order: Vec<&Block> = blocks.iter().collect();
    order.sort_by_key(|b| (std::cmp::Reverse(b.bytes), b.first));
    let mut length = 0;
    for block in order {
        let mut busy: Vec<(u64, u64)> =
            placed.iter().filter(|p| p.2 <= block.last && block.first <= p.3).map(|p| (p.0, p.1)).collect();
        busy.sort_unstable();
        let mut offset = 0;
        for (start, end) in busy {
            if start >= offset + block.bytes {
                break;
            }
            offset = offset.max(end);
        }
        placed.push((offset, offset + block.bytes, block.first, block.last));
        length = length.max(offset + block.bytes);
        let parts = block.parts.iter().map(|&(id, at)| (id, Range { buffer: 0, offset: offset + at }));
        ranges.extend(parts);
    }
    length
}
