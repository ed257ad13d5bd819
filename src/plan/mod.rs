//! A compiled program bound to buffers: the flat list of dispatches that a replay encodes.
//!
//! Floor 1. `Bound` is made once: it allocates temporaries, writes the kernels for the buffers at hand, creates
//! pipelines, bind groups and one uniform buffer for all sizes and scalars. Replaying it creates nothing.
//! [`Plan`] is what people print. Deliberately absent: recording and state, see `step`; and any decision about what
//! is computed where, see `lower`.

mod report;

pub use report::{Line, Plan, Profile};

use std::collections::HashMap;

use crate::error::Result;
use crate::gpu::{Access, BindGroup, Buffer, Device, Encoder, Pipeline, Range};
use crate::graph::Slot;
use crate::lower::kernel::{Binding, Context};
use crate::lower::program::Id;
use crate::lower::turns::{Stride, Turns, Way};
use crate::lower::{Compiled, Target};

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

/// What it takes to run a plan several times in one dispatch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replays<'a> {
    /// What lies at another place in each replay.
    pub strides: &'a HashMap<Id, Stride>,
    /// Replays at most.
    pub most: usize,
}

/// A compiled program with its buffers, pipelines and bind groups.
pub(crate) struct Bound {
    items: Vec<Item>,
    copies: Vec<(Slot, Slot, u64)>,
    /// Buffers that the bind groups refer to, kept alive: those of the plan's placement, then others.
    buffers: Vec<Buffer>,
    temporaries: usize,
    most: usize,
    /// What it looks like.
    pub plan: Plan,
}

impl Bound {
    /// Binds a compiled program. `given` are the places of leaves and results; `temporaries` are buffers for the plan's
    /// placement, if there are any already. With `replays`, a plan that is one workgroup runs as many in one dispatch.
    pub fn new(
        device: &Device,
        compiled: &Compiled,
        given: &HashMap<Id, Slot>,
        temporaries: &[Buffer],
        replays: Option<Replays>,
    ) -> Result<Bound> {
        let mut slots = given.clone();
        let mut buffers = temporaries.to_vec();
        for &bytes in &compiled.placement.buffers[buffers.len().min(compiled.placement.buffers.len())..] {
            buffers.push(device.alloc(bytes)?);
        }
        let own = buffers.len();
        for (&id, range) in &compiled.placement.ranges {
            slots.insert(id, Slot { buffer: buffers[range.buffer].clone(), offset: range.offset });
        }
        for (value, leaf) in &compiled.schedule.in_place {
            if let Some(slot) = given.get(leaf) {
                slots.insert(*value, slot.clone());
            }
        }
        let target = Target::of(device);
        let context = |turns| Context {
            program: &compiled.program,
            fused: &compiled.fused,
            forms: compiled.forms.as_ref().unwrap_or(&compiled.fused),
            wide: &compiled.wide,
            slots: &slots,
            target: &target,
            turns,
        };
        let mut kernels = Vec::new();
        let mut most = 1;
        if let Some((replays, job)) = replays.zip(compiled.workgroup()) {
            let inside = context(Some(Turns { strides: replays.strides, way: Way::Inside })).kernels(&job)?;
            // Where it would bind too many buffers it is no longer one dispatch.
            if inside.len() == 1 {
                (kernels, most) = (inside, replays.most);
            }
        }
        if kernels.is_empty() {
            for job in &compiled.schedule.jobs {
                kernels.extend(context(None).kernels(job)?);
            }
        }
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
        // For each number of turns the words that say so.
        let table = (words.len() * 4).next_multiple_of(UNIFORM_ALIGN);
        if kernels.iter().any(|kernel| kernel.bindings.iter().any(|binding| matches!(binding, Binding::Turns))) {
            for turns in 1..=most {
                words.resize((words.len() * 4).next_multiple_of(UNIFORM_ALIGN) / 4, 0);
                words.extend([0, turns as u32, 0, 0]);
            }
        }
        let uniform = device.uniform(&words)?;
        let mut at = 0usize;
        let mut items = Vec::new();
        let mut lines = Vec::new();
        for kernel in kernels {
            let mut accesses = Vec::new();
            let mut ranges = Vec::new();
            for binding in kernel.bindings {
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
            let pipeline = device.pipeline(&kernel.label, &kernel.source, &accesses)?;
            let group = device.bind_group(&pipeline, &ranges);
            let turns = accesses.contains(&Access::Turns);
            items.push(Item { pipeline, group, grid: kernel.grid, turns });
            buffers.extend(ranges.into_iter().map(|range| range.buffer));
            let (label, grid, bytes, flops) = (kernel.label, kernel.grid, kernel.bytes, kernel.flops);
            lines.push(Line { label, grid, bytes, flops, source: kernel.source });
        }
        let mut copies = Vec::new();
        for (value, leaf) in &compiled.copies {
            if let (Some(from), Some(to)) = (slots.get(value), slots.get(leaf)) {
                copies.push((from.clone(), to.clone(), compiled.program.vals[*value].bytes()));
            }
        }
        device.check()?;
        let plan = Plan {
            lines,
            copies: copies.len(),
            in_place: compiled.schedule.in_place.len(),
            temporaries: compiled.placement.buffers.iter().sum(),
            live: compiled.placement.live,
        };
        Ok(Bound { items, copies, buffers, temporaries: own, most, plan })
    }

    /// The buffers of its placement, for plans that never run at the same time.
    pub fn temporaries(&self) -> Vec<Buffer> {
        self.buffers[..self.temporaries].to_vec()
    }

    /// How many replays may be encoded at once.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Encodes so many replays, one to [`most`](Bound::most).
    pub fn encode(&self, encoder: &mut Encoder, replays: usize) {
        for item in &self.items {
            let offset = item.turns.then(|| (replays - 1) as u32 * UNIFORM_ALIGN as u32);
            encoder.dispatch_at(&item.pipeline, &item.group, offset, item.grid);
        }
        for (from, to, bytes) in &self.copies {
            encoder.copy(&from.buffer, from.offset, &to.buffer, to.offset, *bytes);
        }
    }
}
