//! [`Memory`]: the device memory that a step takes, by what it is for.
//!
//! Every figure but that of the uniforms is known from the compiled program, before anything is allocated. Deliberately
//! absent: pipelines and bind groups, whose size no interface tells, and what others keep on the device: a data set that
//! lies there, checkpoints, plans of other batch sizes, the buffers through which somebody reads.

use std::fmt;

use super::report::human;

/// Bytes of device memory that a step takes while it is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The leaves of the state: parameters, the optimizer's variables, those of metrics and layers.
    pub state: u64,
    /// The leaves of the batch.
    pub inputs: u64,
    /// Tensors from outside the step.
    pub captured: u64,
    /// The scalars that the step returns, in the ring in which those of the last 512 steps stay readable.
    pub logs: u64,
    /// Values within the step.
    pub temporaries: u64,
    /// Sizes and scalars of all dispatches; before the plan is bound to buffers, an estimate.
    pub uniforms: u64,
    /// Host-visible memory through which state and batches are uploaded, as it is when steps follow each other without
    /// waiting; a program that waits for every step may have less.
    pub staging: u64,
}

impl Memory {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|part| part.1).sum()
    }

    fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("state", self.state),
            ("inputs", self.inputs),
            ("captured", self.captured),
            ("logs", self.logs),
            ("temporaries", self.temporaries),
            ("uniforms", self.uniforms),
            ("staging", self.staging),
        ]
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory: {}", human(self.total()))?;
        for (name, bytes) in self.parts().into_iter().filter(|part| part.1 > 0) {
            writeln!(f, "  {name:<11}  {:>10}", human(bytes))?;
        }
        Ok(())
    }
}
