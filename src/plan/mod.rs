//! A compiled program bound to buffers: the flat list of dispatches that a replay encodes.
//!
//! Floor 1. `Bound` is made once: it allocates temporaries, writes the kernels for the buffers at hand, creates
//! pipelines, bind groups and one uniform buffer for all sizes and scalars. Replaying it creates nothing.
//! [`Plan`] is what people print. Deliberately absent: recording and state, see `step`; and any decision about what
//! is computed where, see `lower`.

mod describe;
mod explain;
pub(crate) mod expression;
mod layout;
mod memory;
mod profile;
mod report;
mod svg;
mod trace;
mod traffic;
mod write;

pub(crate) use describe::Given;
pub use explain::Explanation;
pub(crate) use explain::passes;
pub use memory::Memory;
pub use profile::{HostSpan, Profile};
pub use report::{Computed, Line, Loop, Plan, Role, Stored};

use crate::collections::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Access, BindGroup, Buffer, Device, Encoder, Pipeline, Range, Span, Wanted};
use crate::graph::Slot;
use crate::lower::kernel::Binding;
use crate::lower::program::Id;
use crate::lower::{Compiled, Target, loops};
use traffic::Traffic;
pub(crate) use write::Replays;
use write::{Act, Origin, Turned, Writer};

/// Uniform ranges start at multiples of this many bytes, which every adapter accepts.
const UNIFORM_ALIGN: usize = 256;

impl Target {
    /// What the compiler needs to know of `device`.
    pub fn of(device: &Device) -> Target {
        let limits = device.limits();
        Target {
            class: device.class(),
            subgroup: device.subgroup_size(),
            bindings: limits.max_storage_buffers_per_shader_stage as usize,
            binding_bytes: limits.max_storage_buffer_binding_size,
            choices: device.choices(),
        }
    }
}

/// One prepared dispatch.
struct Item {
    pipeline: Pipeline,
    group: BindGroup,
    grid: [u32; 3],
    /// Whether it asks which turn of a loop it is.
    turns: bool,
}

/// What a browser refuses in the bindings of a dispatch though a driver may not notice: a buffer that is bound to be read
/// and to be written, and ranges that overlap where one is written.
fn refused(accesses: &[Access], ranges: &[Range]) -> Option<&'static str> {
    let storage = |access: Access| matches!(access, Access::Read | Access::ReadWrite);
    let all = || accesses.iter().zip(ranges).enumerate().filter(|(_, (access, _))| storage(**access));
    for (at, (access, range)) in all() {
        for (_, (other, with)) in
            all().filter(|(other, (_, with))| *other > at && with.buffer.id() == range.buffer.id())
        {
            if access != other {
                return Some("a buffer is bound to be read and to be written");
            }
            let overlap = range.offset < with.offset + with.size && with.offset < range.offset + range.size;
            if *access == Access::ReadWrite && overlap {
                return Some("two writable bindings overlap");
            }
        }
    }
    None
}

/// A compiled program with its buffers, pipelines and bind groups.
pub(crate) struct Bound {
    items: Vec<Item>,
    acts: Vec<Act>,
    /// Where in the table of turns the single ones begin.
    singles: u32,
    /// Buffers that the bind groups refer to, kept alive: those for temporaries, then others.
    buffers: Vec<Buffer>,
    temporaries: usize,
    most: usize,
    /// What each dispatch is for.
    origins: Vec<Origin>,
    /// Where each value lies.
    slots: Table<Id, Slot>,
    /// Bytes of sizes and scalars.
    uniforms: u64,
    /// What it looks like, as far as a glance tells; see [`Bound::describe`].
    pub plan: Plan,
}

impl Bound {
    /// Binds a compiled program. `given` are the places of leaves and results; `temporaries` are the buffers that
    /// [`Compiled::temporaries`] asks for. With `replays`, a plan that is one workgroup runs as many in one dispatch.
    pub fn new(
        device: &Device,
        compiled: &Compiled,
        given: &Table<Id, Slot>,
        temporaries: Vec<Buffer>,
        replays: Option<Replays>,
    ) -> Result<Bound> {
        let mut slots = given.clone();
        let mut buffers = temporaries;
        let own = buffers.len();
        let mut rest = buffers.iter().skip(compiled.placement.buffers.len()).cloned();
        let own_scratch =
            loops::scratch(compiled).into_iter().map(|sizes| sizes.into_iter().zip(&mut rest).collect()).collect();
        for (&id, range) in &compiled.placement.ranges {
            slots.insert(id, Slot { buffer: buffers[range.buffer].clone(), offset: range.offset });
        }
        for (value, leaf) in &compiled.schedule.in_place {
            if let Some(slot) = given.get(leaf) {
                slots.insert(*value, slot.clone());
            }
        }
        let target = Target::of(device);
        let mut writer = Writer {
            device,
            target: &target,
            replays,
            kernels: Vec::new(),
            origins: Vec::new(),
            loops: Vec::new(),
            scratch: own_scratch,
            most: 1,
            whole: Vec::new(),
            turns: 0,
        };
        let acts = writer.program(compiled, &slots, None, 0)?;
        let Writer { mut kernels, origins, loops, scratch, most, whole, turns, .. } = writer;
        // All sizes and scalars of the plan share one buffer, written once.
        let mut words: Vec<u32> = Vec::new();
        for kernel in &kernels {
            for binding in &kernel.bindings {
                if let Binding::Uniform(own) = binding {
                    words.resize((words.len() * 4).next_multiple_of(UNIFORM_ALIGN) / 4, 0);
                    words.extend(own);
                }
            }
        }
        // First and last turn, for each dispatch that there may be: so many from the beginning, then one at a time.
        let table = (words.len() * 4).next_multiple_of(UNIFORM_ALIGN);
        let mut entries: Vec<[u32; 2]> = Vec::new();
        if kernels.iter().any(|kernel| kernel.bindings.iter().any(|binding| matches!(binding, Binding::Turns))) {
            entries.extend((1..=most as u32).map(|turns| [0, turns]));
            entries.extend(whole.iter().map(|&turns| [0, turns as u32]));
            entries.extend((0..turns as u32).map(|turn| [turn, turn + 1]));
        }
        let singles = (most + whole.len()) as u32;
        for entry in entries {
            words.resize((words.len() * 4).next_multiple_of(UNIFORM_ALIGN) / 4, 0);
            words.extend([entry[0], entry[1], 0, 0]);
        }
        let uniform = device.uniform(&words)?;
        let mut at = 0usize;
        let mut bindings: Vec<(Vec<Access>, Vec<Range>)> = Vec::with_capacity(kernels.len());
        for kernel in &mut kernels {
            let (mut accesses, mut ranges) = (Vec::new(), Vec::new());
            for binding in std::mem::take(&mut kernel.bindings) {
                match binding {
                    Binding::Uniform(own) => {
                        at = at.next_multiple_of(UNIFORM_ALIGN);
                        accesses.push(Access::Uniform);
                        ranges.push(Range::new(&uniform, at as u64, own.len() as u64 * 4));
                        at += own.len() * 4;
                    }
                    Binding::Storage(range, access) => {
                        accesses.push(access);
                        ranges.push(range);
                    }
                    Binding::Turns => {
                        accesses.push(Access::Turns);
                        ranges.push(Range::new(&uniform, table as u64, 16));
                    }
                }
            }
            if let Some(why) = refused(&accesses, &ranges) {
                return Err(Error::new(ErrorKind::Validation { why: format!("{}: {why}", kernel.label) }));
            }
            bindings.push((accesses, ranges));
        }
        let wanted = kernels.iter().zip(&bindings);
        let wanted: Vec<Wanted> = wanted
            .map(|(kernel, (accesses, _))| Wanted { label: &kernel.label, wgsl: &kernel.source, bindings: accesses })
            .collect();
        let pipelines = device.compile(&wanted)?;
        let (mut items, mut lines) = (Vec::new(), Vec::new());
        for (((origin, kernel), (accesses, ranges)), pipeline) in
            origins.iter().zip(kernels).zip(bindings).zip(pipelines)
        {
            let group = device.bind_group(&pipeline, &ranges);
            let turns = accesses.contains(&Access::Turns);
            items.push(Item { pipeline, group, grid: kernel.grid, turns });
            buffers.extend(ranges.into_iter().map(|range| range.buffer));
            let traffic = Traffic::of(origin.compiled(compiled), &origin.job);
            let ((read, written), (label, grid, source)) =
                (traffic.bytes(origin.compiled(compiled)), (kernel.label, kernel.grid, kernel.source));
            let [read, written, flops, ops] =
                [read, written, traffic.flops, traffic.ops].map(|amount| amount * origin.turns);
            lines.push(Line { label, grid, read, written, flops, ops, source, ..Line::default() });
        }
        device.check()?;
        let plan = Plan {
            lines,
            loops,
            copies: acts.iter().filter(|act| matches!(act, Act::Copy(..))).count(),
            in_place: compiled.schedule.in_place.len(),
            temporaries: compiled
                .placement
                .buffers
                .iter()
                .chain(scratch.iter().flatten().map(|(bytes, _)| bytes))
                .sum(),
            live: compiled.placement.live,
            ..Plan::default()
        };
        debug_assert_eq!(plan.temporaries, compiled.temporaries().iter().sum::<u64>(), "what was asked for");
        buffers.extend(scratch.into_iter().flatten().map(|(_, buffer)| buffer));
        let uniforms = uniform.size();
        Ok(Bound { items, acts, singles, buffers, temporaries: own, most, origins, slots, uniforms, plan })
    }

    /// The buffers for temporaries.
    pub fn temporaries(&self) -> &[Buffer] {
        &self.buffers[..self.temporaries]
    }

    /// How many replays may be encoded at once.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Encodes so many replays, one to [`most`](Bound::most).
    pub fn encode(&self, encoder: &mut Encoder, replays: usize) {
        self.act(&self.acts, encoder, replays, 0);
    }

    fn act(&self, acts: &[Act], encoder: &mut Encoder, replays: usize, turn: usize) {
        for act in acts {
            match act {
                Act::Dispatch(item, turned) => {
                    let item = &self.items[*item];
                    let entry = match turned {
                        Some(Turned::Replays) => replays as u32 - 1,
                        Some(Turned::All(entry)) => (self.most + entry) as u32,
                        None => self.singles + turn as u32,
                    };
                    let offset = item.turns.then_some(entry * UNIFORM_ALIGN as u32);
                    encoder.dispatch_at(&item.pipeline, &item.group, offset, item.grid);
                }
                Act::Copy(from, to, bytes) => {
                    encoder.copy(&from.buffer, from.offset, &to.buffer, to.offset, *bytes);
                }
                Act::Loop(count, acts) => (0..*count).for_each(|turn| self.act(acts, encoder, replays, turn)),
            }
        }
    }

    /// What was measured of a replay's dispatches, by the lines of the plan: the turns of a loop are one.
    pub fn by_line(&self, spans: &[Span]) -> Vec<Span> {
        fn walk(acts: &[Act], order: &mut Vec<usize>) {
            for act in acts {
                match act {
                    Act::Dispatch(item, _) => order.push(*item),
                    Act::Copy(..) => {}
                    Act::Loop(count, acts) => (0..*count).for_each(|_| walk(acts, order)),
                }
            }
        }
        let mut order = Vec::new();
        walk(&self.acts, &mut order);
        let mut lines: Vec<Option<Span>> = vec![None; self.items.len()];
        for (line, span) in order.into_iter().zip(spans) {
            let seconds = lines[line].map_or(0.0, |before| before.seconds) + span.seconds;
            let start = lines[line].map_or(span.start, |before| before.start);
            lines[line] = Some(Span { start, seconds });
        }
        lines.into_iter().map(Option::unwrap_or_default).collect()
    }
}
