//! The printable part of a plan: `{}` is one line a dispatch, `{:#}` adds what each computes and where everything lies.
//!
//! Deliberately absent: anything of a device. What is in here can be kept, compared and printed when the plan is gone.

use std::fmt;
use std::ops::Range;

use super::memory::Memory;
use crate::graph::Spec;

/// One dispatch of a printed plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// What the dispatch computes: the kernel family and the ops in it.
    pub label: String,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Bytes of the tensors it reads, each counted once; of a packed kernel those of the whole pack.
    pub read: u64,
    /// Bytes of the tensors it writes.
    pub written: u64,
    /// Floating-point operations of the matrix products in it, two for each multiply-add.
    pub flops: u64,
    /// Elementwise operations in it, and one for each element of a fold; a transcendental function counts one.
    pub ops: u64,
    /// The WGSL it runs.
    pub source: String,
    /// What it computes, in order. Empty in the plan of an eager read.
    pub computes: Vec<Computed>,
    /// What it reads: indices into [`Plan::values`].
    pub reads: Vec<usize>,
    /// What it writes: indices into [`Plan::values`].
    pub writes: Vec<usize>,
}

/// Lines that run several times, in order, each time for another turn of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Turns.
    pub count: usize,
    /// Which lines; a loop inside of this one has its own entry.
    pub lines: Range<usize>,
}

impl Line {
    /// Bytes read and written.
    pub fn bytes(&self) -> u64 {
        self.read + self.written
    }
}

/// A value that a dispatch computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    /// Its name; `w'` is what replaces `w`.
    pub name: String,
    /// Shape and dtype.
    pub spec: Spec,
    /// What it is computed from: operators for arithmetic, `@` for matrix products, `f(x)` for anything else.
    pub text: String,
    /// In a region the level, from 0: between levels lies a barrier.
    pub level: usize,
    /// How many values are computed alike, this one included: more than 1 in a packed kernel.
    pub alike: usize,
}

impl fmt::Display for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} = {}", self.name, self.spec, self.text)?;
        if self.alike > 1 {
            write!(f, "    and {} more alike", self.alike - 1)?;
        }
        Ok(())
    }
}

/// What a value in memory is to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A leaf of the state, overwritten where it lies if it changes.
    State,
    /// A leaf of the batch, uploaded or copied before each run.
    Input,
    /// A tensor from outside the step.
    Captured,
    /// A scalar that the step returns.
    Log,
    /// A result of an eager read.
    Result,
    /// A value within the step.
    Temporary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::State => "state",
            Role::Input => "input",
            Role::Captured => "captured",
            Role::Log => "log",
            Role::Result => "result",
            Role::Temporary => "temporary",
        })
    }
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Shape and dtype.
    pub spec: Spec,
    /// What it is to the plan.
    pub role: Role,
    /// Number of the buffer, in the order of first mention.
    pub buffer: usize,
    /// First byte in it.
    pub offset: u64,
    /// Bytes of its elements.
    pub bytes: u64,
}

/// What a step was compiled to: `println!("{plan}")` shows each dispatch, `println!("{plan:#}")` also what it computes,
/// and in which buffers everything lies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The dispatches, in order.
    pub lines: Vec<Line>,
    /// Loops over some of them, outer ones first. A loop that runs inside one dispatch is not among them.
    pub loops: Vec<Loop>,
    /// Results copied over the state they replace at the end of each step.
    pub copies: usize,
    /// Results written straight over the state they replace.
    pub in_place: usize,
    /// Bytes of the buffers that hold temporaries.
    pub temporaries: u64,
    /// Most bytes of temporaries alive at once: what no placement can go below.
    pub live: u64,
    /// Everything that lies in a buffer. Empty in the plan of an eager read.
    pub values: Vec<Stored>,
    pub(super) memory: Memory,
}

impl Plan {
    /// Dispatches of one step.
    pub fn dispatches(&self) -> usize {
        (0..self.lines.len()).map(|line| self.turns(line)).sum()
    }

    /// How often one line runs in a step.
    pub fn turns(&self, line: usize) -> usize {
        self.loops.iter().filter(|l| l.lines.contains(&line)).map(|l| l.count).product()
    }

    /// The memory that the step takes while it is replayed. [`Step::memory`](crate::step::Step::memory) tells before
    /// anything is allocated.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// Bytes with a unit, as people read them.
pub(super) fn human(bytes: u64) -> String {
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
            self.dispatches(),
            self.copies,
            self.in_place,
            human(self.temporaries),
            human(self.live)
        )?;
        for (index, line) in self.lines.iter().enumerate() {
            for l in self.loops.iter().filter(|l| l.lines.start == index) {
                writeln!(f, "     {:>8}  lines {index} to {}", format!("{} times", l.count), l.lines.end - 1)?;
            }
            let [x, y, z] = line.grid;
            let grid = if z > 1 { format!("{x}x{y}x{z}") } else { format!("{x}x{y}") };
            let flops = if line.flops > 0 { format!("{:.1} MFLOP", line.flops as f64 / 1e6) } else { String::new() };
            writeln!(f, "{index:>3}  {grid:>10}  {:>10}  {flops:>13}  {}", human(line.bytes()), line.label)?;
            if f.alternate() {
                writeln!(f, "{:17}reads {}, writes {}", "", human(line.read), human(line.written))?;
                let levels = line.computes.iter().map(|computed| computed.level).max().unwrap_or(0);
                let mut level = None;
                for computed in &line.computes {
                    if levels > 0 && level.replace(computed.level) != Some(computed.level) {
                        writeln!(f, "{:17}level {}", "", computed.level)?;
                    }
                    writeln!(f, "{:19}{computed}", "")?;
                }
            }
        }
        if f.alternate() && !self.values.is_empty() {
            writeln!(f, "\nslots:")?;
            let name = self.values.iter().map(|value| value.name.chars().count()).max().unwrap_or(0);
            let spec = self.values.iter().map(|value| value.spec.to_string().len()).max().unwrap_or(0);
            for value in &self.values {
                let (role, spec_text) = (value.role, value.spec.to_string());
                let place = format!("B{}", value.buffer);
                let (offset, bytes) = (value.offset, human(value.bytes));
                let text = &value.name;
                writeln!(f, "  {role:<9}  {text:<name$}  {spec_text:<spec$}  {place:>4} + {offset:<10} {bytes:>10}")?;
            }
            write!(f, "\n{}", self.memory)?;
        }
        Ok(())
    }
}
