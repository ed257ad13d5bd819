//! The printable part of a plan: one line a dispatch, and the same with the times of one run.
//!
//! Deliberately absent: anything of a device. What is in here can be kept, compared and printed when the plan is gone.

use std::fmt;
use std::ops::Range;

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

/// Lines that run several times, in order, each time for another turn of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Turns.
    pub count: usize,
    /// Which lines; a loop inside of this one has its own entry.
    pub lines: Range<usize>,
}

/// What a step was compiled to: `println!("{plan}")` shows each dispatch.
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
        writeln!(f, "{} dispatches in {:.3} ms", self.plan.dispatches(), total * 1e3)?;
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
