//! [`Profile`]: how long each dispatch of one run took, beside what the device could do at best.
//!
//! The share of the roofline is the time that the device would need at least, for the bytes at the bandwidth it was
//! measured to have or for the operations at its measured peak, whichever is longer, over the time it took. Deliberately
//! absent: advice.

use std::fmt;

use super::report::Plan;
use crate::gpu::{Ceilings, Span};

/// Something that the host did for the run.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpan {
    /// What it was.
    pub name: &'static str,
    /// Seconds after the call began.
    pub start: f64,
    /// Seconds.
    pub seconds: f64,
}

/// A plan with the time each dispatch took in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The plan.
    pub plan: Plan,
    /// When each dispatch ran, in order, by the device's clock; of one in a loop when its first turn began, and how long all
    /// its turns took.
    pub spans: Vec<Span>,
    /// What the host did, by its own clock.
    pub host: Vec<HostSpan>,
    /// What the device can do at best.
    pub ceilings: Option<Ceilings>,
}

impl Profile {
    /// Seconds of all dispatches.
    pub fn seconds(&self) -> f64 {
        self.spans.iter().map(|span| span.seconds).sum()
    }

    /// The share of the roofline that a dispatch reached; above 1 where caches hold what it reads. `None` without
    /// ceilings or without a measurable time.
    pub fn share(&self, dispatch: usize) -> Option<f64> {
        let (line, span) = (self.plan.lines.get(dispatch)?, self.spans.get(dispatch)?);
        let ceilings = self.ceilings?;
        let turns = self.plan.turns(dispatch) as f64;
        let bytes = turns * line.bytes() as f64 / ceilings.bytes_per_second;
        let flops = turns * (line.flops + line.ops) as f64 / ceilings.flops_per_second;
        (span.seconds > 0.0).then(|| bytes.max(flops) / span.seconds)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.seconds();
        write!(f, "{} dispatches in {:.3} ms", self.plan.dispatches(), total * 1e3)?;
        match &self.ceilings {
            Some(ceilings) => writeln!(f, "; ceilings of the device: {ceilings}")?,
            None => writeln!(f)?,
        }
        writeln!(f, "{:>3}  {:>10}  {:>6}  {:>8}  {:>9}  {:>8}", "", "us", "time", "GB/s", "GFLOP/s", "roofline")?;
        for (index, (line, span)) in self.plan.lines.iter().zip(&self.spans).enumerate() {
            let turns = self.plan.turns(index) as f64;
            let rate = |amount: u64, digits: usize| match amount > 0 && span.seconds > 0.0 {
                true => format!("{:.digits$}", turns * amount as f64 / span.seconds / 1e9),
                false => String::new(),
            };
            let share = self.share(index).map_or(String::new(), |share| format!("{:.0} %", 100.0 * share));
            let of_all = if total > 0.0 { 100.0 * span.seconds / total } else { 0.0 };
            writeln!(
                f,
                "{index:>3}  {:>10.1}  {of_all:>4.1} %  {:>8}  {:>9}  {share:>8}  {}",
                span.seconds * 1e6,
                rate(line.bytes(), 1),
                rate(line.flops + line.ops, 1),
                line.label
            )?;
        }
        Ok(())
    }
}
