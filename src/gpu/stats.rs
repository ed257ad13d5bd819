//! Counters of what was asked of the device.
//!
//! They exist to be asserted on: "a steady step makes no buffer, no bind group and no wait" is a test, not a hope.
//! Deliberately absent: times (see the profiler) and anything per tensor.

use std::fmt;
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a device has done since it was made. Take it twice and subtract to see what lies between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Compute dispatches submitted.
    pub dispatches: u64,
    /// Calls of `queue.submit`.
    pub submissions: u64,
    /// Compute passes submitted; each costs a barrier.
    pub passes: u64,
    /// Buffer-to-buffer copies submitted, those of uploads and reads included.
    pub copies: u64,
    /// Buffer clears submitted.
    pub clears: u64,
    /// wgpu buffers created: a pool hit is not one.
    pub buffers: u64,
    /// Bytes of all wgpu buffers alive now, pooled and staging ones included. The one value that can fall.
    pub bytes_allocated: u64,
    /// The highest `bytes_allocated` so far.
    pub bytes_peak: u64,
    /// Bytes sent to the device.
    pub bytes_uploaded: u64,
    /// Bytes read back from the device.
    pub bytes_read: u64,
    /// Bind groups created.
    pub bind_groups: u64,
    /// Pipelines compiled: a cache hit is not one.
    pub pipelines: u64,
    /// Times the host waited for the device.
    pub waits: u64,
}

impl Sub for Stats {
    type Output = Stats;

    /// What happened between `earlier` and `self`. Memory that shrank in between counts as 0.
    fn sub(self, earlier: Stats) -> Stats {
        Stats {
            dispatches: self.dispatches.saturating_sub(earlier.dispatches),
            submissions: self.submissions.saturating_sub(earlier.submissions),
            passes: self.passes.saturating_sub(earlier.passes),
            copies: self.copies.saturating_sub(earlier.copies),
            clears: self.clears.saturating_sub(earlier.clears),
            buffers: self.buffers.saturating_sub(earlier.buffers),
            bytes_allocated: self.bytes_allocated.saturating_sub(earlier.bytes_allocated),
            bytes_peak: self.bytes_peak.saturating_sub(earlier.bytes_peak),
            bytes_uploaded: self.bytes_uploaded.saturating_sub(earlier.bytes_uploaded),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            bind_groups: self.bind_groups.saturating_sub(earlier.bind_groups),
            pipelines: self.pipelines.saturating_sub(earlier.pipelines),
            waits: self.waits.saturating_sub(earlier.waits),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} dispatches in {} passes, {} copies, {} clears, {} submissions, {} waits; {} buffers, {} bind groups, \
             {} pipelines made; {} held (peak {}), {} up, {} down",
            self.dispatches,
            self.passes,
            self.copies,
            self.clears,
            self.submissions,
            self.waits,
            self.buffers,
            self.bind_groups,
            self.pipelines,
            Bytes(self.bytes_allocated),
            Bytes(self.bytes_peak),
            Bytes(self.bytes_uploaded),
            Bytes(self.bytes_read),
        )
    }
}

/// A number of bytes as people write it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit < 4 {
            value /= 1024.0;
            unit += 1;
        }
        let name = ["B", "KiB", "MiB", "GiB", "TiB"][unit];
        if unit == 0 { write!(f, "{} {name}", self.0) } else { write!(f, "{value:.1} {name}") }
    }
}

/// The live counters behind [`Stats`]; relaxed, because they order nothing.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub dispatches: AtomicU64,
    pub submissions: AtomicU64,
    pub passes: AtomicU64,
    pub copies: AtomicU64,
    pub clears: AtomicU64,
    pub buffers: AtomicU64,
    pub bytes_allocated: AtomicU64,
    pub bytes_peak: AtomicU64,
    pub bytes_uploaded: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bind_groups: AtomicU64,
    pub pipelines: AtomicU64,
    pub waits: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Counters {
    /// A wgpu buffer came into being.
    pub fn created(&self, bytes: u64) {
        add(&self.buffers, 1);
        let now = self.bytes_allocated.fetch_add(bytes, Relaxed) + bytes;
        self.bytes_peak.fetch_max(now, Relaxed);
    }

    /// A wgpu buffer went away.
    pub fn dropped(&self, bytes: u64) {
        self.bytes_allocated.fetch_sub(bytes, Relaxed);
    }

    /// Begins anew, but for what is alive.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn begin(&self) {
        let Counters { dispatches, submissions, passes, copies, clears, buffers, .. } = self;
        let Counters { bytes_allocated, bytes_peak, bytes_uploaded, bytes_read, bind_groups, pipelines, waits, .. } =
            self;
        let counted = [dispatches, submissions, passes, copies, clears, buffers];
        let counted = counted.into_iter().chain([bytes_uploaded, bytes_read, bind_groups, pipelines, waits]);
        counted.for_each(|counter| counter.store(0, Relaxed));
        bytes_peak.store(bytes_allocated.load(Relaxed), Relaxed);
    }

    pub fn snapshot(&self) -> Stats {
        Stats {
            dispatches: self.dispatches.load(Relaxed),
            submissions: self.submissions.load(Relaxed),
            passes: self.passes.load(Relaxed),
            copies: self.copies.load(Relaxed),
            clears: self.clears.load(Relaxed),
            buffers: self.buffers.load(Relaxed),
            bytes_allocated: self.bytes_allocated.load(Relaxed),
            bytes_peak: self.bytes_peak.load(Relaxed),
            bytes_uploaded: self.bytes_uploaded.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bind_groups: self.bind_groups.load(Relaxed),
            pipelines: self.pipelines.load(Relaxed),
            waits: self.waits.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_and_display() {
        let counters = Counters::default();
        counters.created(1000);
        let before = counters.snapshot();
        counters.created(3000);
        counters.dropped(1000);
        add(&counters.waits, 2);
        let between = counters.snapshot() - before;
        assert_eq!((between.buffers, between.waits, between.bytes_allocated), (1, 2, 2000));
        assert_eq!(counters.snapshot().bytes_peak, 4000);
        assert!(between.to_string().contains("2.0 KiB held"), "{between}");
    }
}
