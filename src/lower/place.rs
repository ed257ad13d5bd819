//! Gives every stored temporary a range of a buffer.
//!
//! WebGPU forbids binding one buffer to be read and written in the same dispatch unless all its bindings are
//! `read_write`. So large temporaries live in a few slabs, none of which is read and written by one dispatch, which
//! keeps inputs read-only; small ones live in one slab of their own, so that a region of many small values binds a
//! single buffer. Within a slab, ranges are shared by lifetime, and a tensor lies at the lowest offset that is free.
//! Several orders are tried and the smallest result is kept. The arena strategy does not keep readers and writers
//! apart. Lifetimes are inclusive in dispatches: an output never lands on an input of its own dispatch. Deliberately
//! absent: state, inputs and results, whose places are given from outside.

use crate::collections::{Sorted, Table};
use crate::sort::{sort, sort_by_key};

use super::fuse::Fused;
use super::pack::{Pack, offsets};
use super::program::{Id, Program};
use super::schedule::Schedule;

/// Where temporaries live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Large ones in slabs whose readers and writers never meet in a dispatch, small ones in one slab.
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
    pub ranges: Table<Id, Range>,
    /// Largest sum of bytes alive at once, those inside a loop included: what no placement can go below.
    pub live: u64,
}

impl Placement {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().sum()
    }
}

/// Temporaries up to this size share the slab of small ones.
pub(super) const SMALL: u64 = 16 << 10;
/// Keeping readers and writers apart may cost so many hundredths of the bytes alive at once; where it would cost more,
/// everything lies in one slab.
const SLACK: u64 = 110;
/// With more blocks than this one order has to do: placing takes time in the square of their number.
const MANY: usize = 2000;
/// With so many blocks at most, each order is improved in so many rounds.
const FEW: usize = 256;
const ROUNDS: usize = 12;
/// Where that leaves more than [`SLACK`] in one slab (slabs whose readers lie apart may not reach it), orders that differ from the best in one place are tried: so many, divided by the
/// number of blocks.
const TRIED: usize = 40_000;

/// A tensor of a block.
#[derive(Clone, Debug)]
struct Part {
    id: Id,
    /// First byte within the block.
    start: u64,
    bytes: u64,
    /// The dispatch that writes it first and the last one that touches it.
    first: usize,
    last: usize,
}

impl Part {
    fn meets(&self, other: &Part) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// What is placed as a unit: one tensor, or a pack. Each tensor of a pack takes its range for its own life only.
#[derive(Clone, Debug, Default)]
struct Block {
    parts: Vec<Part>,
    bytes: u64,
    /// Dispatches that write or read some of it.
    written: Sorted<usize>,
    read: Sorted<usize>,
}

impl Block {
    fn first(&self) -> usize {
        self.parts.iter().map(|part| part.first).min().unwrap_or(0)
    }

    fn life(&self) -> u64 {
        let last = self.parts.iter().map(|part| part.last).max().unwrap_or(0);
        (last - self.first()) as u64 + 1
    }

    /// Whether a dispatch reads one of them and writes the other.
    fn clashes(&self, other: &Block) -> bool {
        !self.written.is_disjoint(&other.read) || !other.written.is_disjoint(&self.read)
    }
}

/// What decides how long values live.
pub struct Lives<'a> {
    /// Whether a value's place is given from outside.
    pub fixed: &'a dyn Fn(Id) -> bool,
    /// Values that are read after the dispatches.
    pub kept: &'a [Id],
    /// Values that a loop overwrites with others: where it begins, and what it ends as. Both lie in one place.
    pub carried: &'a [(Id, Id)],
    /// The values that a group reads.
    pub reads: &'a dyn Fn(usize) -> Vec<Id>,
    /// Bytes alive at most inside a group that is a loop, in buffers of its own.
    pub inside: &'a dyn Fn(usize) -> u64,
}

/// A buffer in the making.
#[derive(Default)]
struct Slab {
    bytes: u64,
    blocks: Vec<usize>,
}

/// How blocks are put into slabs.
#[derive(Clone, Copy)]
struct Rule {
    /// No slab is read and written by one dispatch.
    apart: bool,
    /// Where a slab would have to grow by all of a block, a new one is opened instead.
    fresh: bool,
    /// Bytes of a slab at most, unless one block alone has more.
    limit: u64,
}

/// Slabs, and for each block its slab and offset.
struct Attempt {
    slabs: Vec<u64>,
    places: Vec<(usize, u64)>,
}

impl Attempt {
    fn bytes(&self) -> u64 {
        self.slabs.iter().sum()
    }
}

/// Places every output whose place is not fixed. `packs` are laid out as units. No buffer is larger than `limit`,
/// unless one tensor or pack is.
pub fn place(
    program: &Program,
    fused: &Fused,
    schedule: &Schedule,
    packs: &[Pack],
    lives: &Lives,
    strategy: Strategy,
    limit: u64,
) -> Placement {
    let blocks = blocks(program, fused, schedule, packs, lives);
    let live = most_alive(blocks.iter(), &[]);
    let all: Vec<usize> = (0..blocks.len()).collect();
    let arena = || smallest(&blocks, &all, &[Rule { apart: false, fresh: false, limit }]);
    let attempt = match strategy {
        Strategy::Arena => arena(),
        Strategy::Whole => {
            let (small, large): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&block| blocks[block].bytes <= SMALL);
            let one = smallest(&blocks, &small, &[Rule { apart: false, fresh: false, limit }]);
            let rules = [false, true].map(|fresh| Rule { apart: true, fresh, limit });
            let apart = joined(one, smallest(&blocks, &large, &rules), &large);
            let wasteful = apart.bytes() * 100 > live * SLACK;
            let arena = wasteful.then(arena).filter(|arena| arena.bytes() < apart.bytes());
            arena.unwrap_or(apart)
        }
    };
    let jobs = schedule.jobs.iter().map(|job| job.groups().into_iter().map(lives.inside).sum());
    let live = most_alive(blocks.iter(), &jobs.collect::<Vec<u64>>());
    let mut ranges = Table::new();
    for (block, &(buffer, offset)) in blocks.iter().zip(&attempt.places) {
        ranges.extend(block.parts.iter().map(|part| (part.id, Range { buffer, offset: offset + part.start })));
    }
    for (begins, ends) in lives.carried {
        if let Some(&range) = ranges.get(ends) {
            ranges.insert(*begins, range);
        }
    }
    Placement { buffers: attempt.slabs, ranges, live }
}

/// When a temporary is written first and touched last, and the dispatches that write and read it.
#[derive(Default)]
struct Life {
    first: usize,
    last: usize,
    written: Sorted<usize>,
    read: Sorted<usize>,
}

/// The temporaries with their lives and with what touches them.
fn blocks(program: &Program, fused: &Fused, schedule: &Schedule, packs: &[Pack], lives: &Lives) -> Vec<Block> {
    let Lives { fixed, kept, carried, reads, .. } = lives;
    let mut life: Table<Id, Life> = Table::new();
    for (time, job) in schedule.jobs.iter().enumerate() {
        for group in job.groups() {
            for &output in fused.groups[group].outputs.iter().filter(|&&id| !fixed(id)) {
                let written = Sorted::from_iter([time]);
                life.or_insert(output, Life { first: time, last: time, written, ..Life::default() });
            }
            for id in reads(group) {
                if let Some(life) = life.get_mut(&id) {
                    life.last = time;
                    life.read.insert(time);
                }
            }
        }
    }
    for id in *kept {
        if let Some(life) = life.get_mut(id) {
            life.last = schedule.jobs.len();
        }
    }
    for (begins, ends) in *carried {
        if let Some(before) = life.remove(begins)
            && let Some(life) = life.get_mut(ends)
        {
            life.first = before.first;
            life.written.extend(before.written);
            life.read.extend(before.read);
        }
    }
    let mut block = |ids: &[Id]| {
        let (starts, bytes) = offsets(ids.iter().map(|&id| program.vals[id].bytes()));
        let ends = starts.iter().skip(1).copied().chain([bytes]);
        let mut block = Block { bytes, ..Block::default() };
        for ((&id, &start), end) in ids.iter().zip(&starts).zip(ends) {
            let Some(Life { first, last, written, read }) = life.remove(&id) else { continue };
            block.parts.push(Part { id, start, bytes: end - start, first, last });
            block.written.extend(written);
            block.read.extend(read);
        }
        block
    };
    let whole = |pack: &&Pack| pack.iter().all(|id| fused.group_of[*id].is_some() && !fixed(*id));
    let mut blocks: Vec<Block> = packs.iter().filter(whole).map(|pack| block(pack)).collect();
    let mut rest: Vec<Id> = fused.groups.iter().flat_map(|group| group.outputs.iter().copied()).collect();
    sort(&mut rest);
    blocks.extend(rest.into_iter().map(|id| block(&[id])));
    blocks.retain(|block| !block.parts.is_empty());
    blocks
}

/// The largest sum of bytes alive in one dispatch; `inside` are further bytes of each.
fn most_alive<'a>(blocks: impl Iterator<Item = &'a Block>, inside: &[u64]) -> u64 {
    let mut change: Vec<i64> = Vec::new();
    let mut at = |time: usize, bytes: i64| {
        if change.len() <= time {
            change.resize(time + 1, 0);
        }
        change[time] += bytes;
    };
    for (time, &bytes) in inside.iter().enumerate() {
        at(time, bytes as i64);
        at(time + 1, -(bytes as i64));
    }
    for part in blocks.flat_map(|block| &block.parts) {
        at(part.first, part.bytes as i64);
        at(part.last + 1, -(part.bytes as i64));
    }
    let mut alive = 0;
    change.into_iter().fold(0, |most: i64, change| {
        alive += change;
        most.max(alive)
    }) as u64
}

/// The smallest of what the rules give in several orders, each of which is improved for a while.
fn smallest(blocks: &[Block], which: &[usize], rules: &[Rule]) -> Attempt {
    let sorted = |key: &dyn Fn(&Block) -> (u64, u64)| {
        let mut order = which.to_vec();
        sort_by_key(&mut order, |&block| (key(&blocks[block]), blocks[block].parts[0].id));
        order
    };
    let by_size = sorted(&|b| (u64::MAX - b.bytes, b.first() as u64));
    let mut orders = vec![by_size];
    if which.len() <= MANY {
        orders.push(sorted(&|b| (u64::MAX - b.bytes.saturating_mul(b.life()), 0)));
        orders.push(sorted(&|b| (b.first() as u64, u64::MAX - b.bytes)));
        orders.push(sorted(&|b| (u64::MAX - b.life(), u64::MAX - b.bytes)));
        orders.push(sorted(&|b| (u64::MAX - b.bytes, u64::MAX - b.first() as u64)));
        // As they come, but the small ones into what the others leave.
        let most = which.iter().map(|&block| blocks[block].bytes).max().unwrap_or(0);
        orders.push(sorted(&|b| (u64::from(b.bytes < most / 4), b.first() as u64)));
    }
    let size = |attempt: &Attempt| (attempt.bytes(), attempt.slabs.len());
    let mut best: Option<(Attempt, Vec<usize>, Rule)> = None;
    let least = most_alive(which.iter().map(|&block| &blocks[block]), &[]);
    for mut order in orders {
        for &rule in rules {
            for _ in 0..if which.len() <= FEW { ROUNDS } else { 1 } {
                let attempt = attempt(blocks, &order, rule);
                // What made the buffers as large as they are goes first.
                let end = |&at: &usize| attempt.places[order[at]].1 + blocks[order[at]].bytes;
                let top = (0..order.len()).max_by_key(end);
                if best.as_ref().is_none_or(|(best, ..)| size(&attempt) < size(best)) {
                    best = Some((attempt, order.clone(), rule));
                }
                if let Some(top) = top {
                    order[..=top].rotate_right(1);
                }
                if best.as_ref().is_some_and(|(best, ..)| best.bytes() <= least) {
                    break;
                }
            }
        }
    }
    let Some((mut best, mut order, rule)) = best else { return nothing(blocks.len()) };
    let tries = if !rule.apart && (3..=FEW).contains(&which.len()) { TRIED / which.len() } else { 0 };
    let mut draws = 1u64;
    for _ in 0..tries {
        if best.bytes() * 100 <= least * SLACK {
            break;
        }
        // Knuth's linear congruential generator: the same at every compilation.
        draws = draws.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let later = 1 + (draws >> 33) as usize % (which.len() - 1);
        let earlier = (draws >> 7) as usize % later;
        order[earlier..=later].rotate_right(1);
        let other = attempt(blocks, &order, rule);
        if size(&other) <= size(&best) {
            best = other;
        } else {
            order[earlier..=later].rotate_left(1);
        }
    }
    best
}

fn nothing(blocks: usize) -> Attempt {
    Attempt { slabs: Vec::new(), places: vec![(0, 0); blocks] }
}

/// Two attempts as one, whose second part concerns the blocks in `which`.
fn joined(mut first: Attempt, second: Attempt, which: &[usize]) -> Attempt {
    let before = first.slabs.len();
    for &block in which {
        let (slab, offset) = second.places[block];
        first.places[block] = (before + slab, offset);
    }
    first.slabs.extend(second.slabs);
    first
}

/// Puts blocks, in this order, where the buffers grow least.
fn attempt(blocks: &[Block], order: &[usize], rule: Rule) -> Attempt {
    let mut slabs: Vec<Slab> = Vec::new();
    let mut made = nothing(blocks.len());
    for &index in order {
        let block = &blocks[index];
        let mut best: Option<(u64, usize, u64)> = None;
        for (at, slab) in slabs.iter().enumerate() {
            if rule.apart && slab.blocks.iter().any(|&other| block.clashes(&blocks[other])) {
                continue;
            }
            let offset = lowest(block, slab.blocks.iter().map(|&other| (&blocks[other], made.places[other].1)));
            let end = offset + block.bytes;
            let grows = end.saturating_sub(slab.bytes);
            if end <= rule.limit.max(slab.bytes) && best.is_none_or(|best| grows < best.0) {
                best = Some((grows, at, offset));
            }
        }
        let (slab, offset) = match best {
            Some((grows, slab, offset)) if grows < block.bytes || !rule.fresh => (slab, offset),
            _ => {
                slabs.push(Slab::default());
                (slabs.len() - 1, 0)
            }
        };
        slabs[slab].bytes = slabs[slab].bytes.max(offset + block.bytes);
        slabs[slab].blocks.push(index);
        made.places[index] = (slab, offset);
    }
    made.slabs = slabs.into_iter().map(|slab| slab.bytes).collect();
    made
}

/// The lowest offset at which every tensor of a block is free for its whole life.
fn lowest<'a>(block: &Block, placed: impl Iterator<Item = (&'a Block, u64)>) -> u64 {
    // For each tensor the ranges taken while it lives, lowest first.
    let mut taken: Vec<Vec<(u64, u64)>> = vec![Vec::new(); block.parts.len()];
    for (other, at) in placed {
        for part in &other.parts {
            for (_, taken) in block.parts.iter().zip(&mut taken).filter(|(own, _)| own.meets(part)) {
                taken.push((at + part.start, at + part.start + part.bytes));
            }
        }
    }
    taken.iter_mut().for_each(|taken| sort(taken));
    let mut offset = 0;
    loop {
        let before = offset;
        for (part, taken) in block.parts.iter().zip(&taken) {
            for &(start, end) in taken {
                let own = offset + part.start;
                if start >= own + part.bytes {
                    break;
                }
                // Whatever is in the way is passed: offsets only grow.
                if end > own {
                    offset += end - own;
                }
            }
        }
        if offset == before {
            return offset;
        }
    }
}
