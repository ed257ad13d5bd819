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

pub(crate) use describe::Given;
pub use explain::Explanation;
pub(crate) use explain::passes;
pub use memory::Memory;
pub use profile::{HostSpan, Profile};
pub use report::{Computed, Line, Plan, Role, Stored};

use std::collections::HashMap;

use crate::error::Result;
use crate::gpu::{Access, BindGroup, Buffer, Device, Encoder, Pipeline, Range, Wanted};
use crate::graph::Slot;
use crate::lower::kernel::{Binding, Context};
use crate::lower::program::Id;
use crate::lower::schedule::Job;
use crate::lower::{Compiled, Target};
use traffic::Traffic;

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
}

/// A compiled program with its buffers, pipelines and bind groups.
pub(crate) struct Bound {
    items: Vec<Item>,
    copies: Vec<(Slot, Slot, u64)>,
    /// Buffers that the bind groups refer to, kept alive: those of the plan's placement, then others.
    buffers: Vec<Buffer>,
    temporaries: usize,
    /// What each dispatch is for.
    jobs: Vec<Job>,
    /// Where each value lies.
    slots: HashMap<Id, Slot>,
    /// Bytes of sizes and scalars.
    uniforms: u64,
    /// What it looks like, as far as a glance tells; see [`Bound::describe`].
    pub plan: Plan,
}

impl Bound {
    /// Binds a compiled program. `given` are the places of leaves and results; `temporaries` are buffers for the plan's
    /// placement, if there are any already.
    pub fn new(
        device: &Device,
        compiled: &Compiled,
        given: &HashMap<Id, Slot>,
        temporaries: &[Buffer],
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
        let context = Context {
            program: &compiled.program,
            fused: &compiled.fused,
            forms: compiled.forms.as_ref().unwrap_or(&compiled.fused),
            wide: &compiled.wide,
            slots: &slots,
            target: &target,
        };
        let (mut jobs, mut kernels) = (Vec::new(), Vec::new());
        for job in &compiled.schedule.jobs {
            for (job, kernel) in context.kernels(job)? {
                jobs.push(job);
                kernels.push(kernel);
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
                }
            }
            bindings.push((accesses, ranges));
        }
        let wanted = kernels.iter().zip(&bindings);
        let wanted: Vec<Wanted> = wanted
            .map(|(kernel, (accesses, _))| Wanted { label: &kernel.label, wgsl: &kernel.source, bindings: accesses })
            .collect();
        let pipelines = device.compile(&wanted)?;
        let (mut items, mut lines) = (Vec::new(), Vec::new());
        for (((job, kernel), (_, ranges)), pipeline) in jobs.iter().zip(kernels).zip(bindings).zip(pipelines) {
            let group = device.bind_group(&pipeline, &ranges);
            items.push(Item { pipeline, group, grid: kernel.grid });
            buffers.extend(ranges.into_iter().map(|range| range.buffer));
            let traffic = Traffic::of(compiled, job);
            let ((read, written), (label, grid, source)) =
                (traffic.bytes(compiled), (kernel.label, kernel.grid, kernel.source));
            let (flops, ops) = (traffic.flops, traffic.ops);
            lines.push(Line { label, grid, read, written, flops, ops, source, ..Line::default() });
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
            ..Plan::default()
        };
        let uniforms = uniform.size();
        Ok(Bound { items, copies, buffers, temporaries: own, jobs, slots, uniforms, plan })
    }

    /// The buffers of its placement, for plans that never run at the same time.
    pub fn temporaries(&self) -> Vec<Buffer> {
        self.buffers[..self.temporaries].to_vec()
    }

    /// Encodes one replay.
    pub fn encode(&self, encoder: &mut Encoder) {
        for item in &self.items {
            encoder.dispatch(&item.pipeline, &item.group, item.grid);
        }
        for (from, to, bytes) in &self.copies {
            encoder.copy(&from.buffer, from.offset, &to.buffer, to.offset, *bytes);
        }
    }
}
