//! [`Accumulation`]: updates with the mean gradient of several batches, decided on the device by the iteration count.

use super::variables::is_multiple;
use crate::error::{Error, Result};
use crate::graph::Tensor;

/// A batch among those that make one update. Every step runs the same plan: what the update gives is chosen where one is
/// due, and what was there before elsewhere.
pub(super) struct Accumulation {
    batches: f64,
    /// Whether this batch completes an update.
    due: Tensor,
}

impl Accumulation {
    pub fn check(batches: u32) -> Result<()> {
        match batches {
            2..=0x4000_0000 => Ok(()),
            _ => Err(Error::argument("gradients are accumulated over 2 batches at least, and 2^30 at most")),
        }
    }

    /// That of the batch of a number, the first of which is 1, and the number of the update that it is for.
    pub fn at(batches: u32, batch: &Tensor) -> (Accumulation, Tensor) {
        let (due, batches) = (is_multiple(batch, batches), f64::from(batches));
        (Accumulation { batches, due }, (batch - 1.0) / batches + 1.0)
    }

    /// The mean gradient so far, which is of use where an update is due, and the new accumulated gradient.
    pub fn add(&self, gradient: &Tensor, accumulated: &Tensor) -> (Tensor, Tensor) {
        let sum = gradient + accumulated;
        let accumulated = self.due.select(0.0, &sum);
        (sum / self.batches, accumulated)
    }

    /// The new value where an update is due, else the old one.
    pub fn choose(&self, new: Tensor, old: &Tensor) -> Tensor {
        self.due.select(new, old)
    }
}
