//! A compiled program bound to buffers: the flat list of dispatches that a replay encodes.
//!
//! Floor 1. `Bound` is made once: it allocates temporaries, writes the kernels for the buffers at hand, creates
//! pipelines, bind groups and one uniform buffer for all sizes and scalars. Replaying it creates nothing.
//! [`Plan`] is what people print. Deliberately absent: recording and state, see `step`; and any decision about what
//! is computed where, see `lower`.

use std::collections::HashMap;
use std::fmt;

use crate::error::Result;
use crate::gpu::{Access, BindGroup, Buffer, Device, Encoder, Pipeline, Range};
use crate::graph::Slot;
use crate::lower::kernel::{Binding, Context};
use crate::lower::program::Id;
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
}

/// One line of a printed plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What the dispatch computes: the kernel family and the ops in it.
    pub label: String,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Bytes of the tensors it touches, each counted once.
    pub bytes: u64,
    /// Floating-point operations of the matrix products in it.
    pub flops: u64,
    /// The WGSL it runs.
    pub source: String,
}

/// A compiled program with its buffers, pipelines and bind groups.
pub(crate) struct Bound {
    items: Vec<Item>,
    copies: Vec<(Slot, Slot, u64)>,
    /// Buffers that the bind groups refer to, kept alive: those of the plan's placement, then others.
    buffers: Vec<Buffer>,
    temporaries: usize,
    /// What it looks like.
    pub plan: Plan,
}

impl Bound {
    /// Binds a compiled program. `given` are the places of leaves and results; `temporaries` are the buffers of its
    /// placement.
    pub fn new(
        device: &Device,
        compiled: &Compiled,
        given: &HashMap<Id, Slot>,
        temporaries: Vec<Buffer>,
    ) -> Result<Bound> {
        let mut slots = given.clone();
        let mut buffers = temporaries;
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
        let mut kernels = Vec::new();
        for job in &compiled.schedule.jobs {
            kernels.extend(context.kernels(job)?);
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
                }
            }
            let pipeline = device.pipeline(&kernel.label, &kernel.source, &accesses)?;
            let group = device.bind_group(&pipeline, &ranges);
            items.push(Item { pipeline, group, grid: kernel.grid });
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
        Ok(Bound { items, copies, buffers, temporaries: own, plan })
    }

    /// The buffers of its placement.
    pub fn temporaries(&self) -> &[Buffer] {
        &self.buffers[..self.temporaries]
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

/// What a step was compiled to: `println!("{plan}")` shows each dispatch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The dispatches, in order.
    pub lines: Vec<Line>,
    /// Results copied over the state they replace at the end of each step.
    pub copies: usize,
    /// Results written straight over the state they replace.
    pub in_place: usize,
    /// Bytes of the buffers that hold temporaries.
    pub temporaries: u64,
    /// Most bytes of temporaries alive at once: what no placement can go below.
    pub live: u64,
}

impl Plan {
    /// Dispatches of one step.
    pub fn dispatches(&self) -> usize {
        self.lines.len()
    }
}

/// Bytes with a unit, as people read them.
fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan: {} dispatches, {} copies, {} of the state updated in place, temporaries {} (live at most {})",
            self.lines.len(),
            self.copies,
            self.in_place,
            human(self.temporaries),
            human(self.live)
        )?;
        for (index, line) in self.lines.iter().enumerate() {
            let [x, y, z] = line.grid;
            let grid = if z > 1 { format!("{x}x{y}x{z}") } else { format!("{x}x{y}") };
            let flops = if line.flops > 0 { format!("{:.1} MFLOP", line.flops as f64 / 1e6) } else { String::new() };
            writeln!(f, "{index:>3}  {grid:>10}  {:>10}  {flops:>13}  {}", human(line.bytes), line.label)?;
        }
        Ok(())
    }
}

/// A plan with the time each dispatch took in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The plan.
    pub plan: Plan,
    /// Seconds of each dispatch, in order.
    pub seconds: Vec<f64>,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: f64 = self.seconds.iter().sum();
        writeln!(f, "{} dispatches in {:.3} ms", self.seconds.len(), total * 1e3)?;
        for (line, seconds) in self.plan.lines.iter().zip(&self.seconds) {
            let rate = |amount: u64| amount as f64 / seconds / 1e9;
            let flops = if line.flops > 0 { format!("{:.1} GFLOP/s", rate(line.flops)) } else { String::new() };
            writeln!(
                f,
                "{:>9.3} ms  {:>4.1} %  {:>6.1} GB/s  {flops:>14}  {}",
                seconds * 1e3,
                100.0 * seconds / total,
                rate(line.bytes),
                line.label
            )?;
        }
        Ok(())
    }
}
