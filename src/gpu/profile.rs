//! How long each dispatch takes, by the device's own clock.
//!
//! Natively two timestamps are written around each dispatch inside the shared pass; where only passes can be timed (in a
//! browser), each dispatch gets a pass of its own, so there the sum includes the passes. Deliberately absent from
//! ordinary encoders: timing changes what it measures.

use super::Device;
use super::buffer::{Buffer, Range};
use crate::error::{Error, Result};

/// Dispatches per query set: WebGPU allows 4096 queries in one, and each dispatch takes two.
const PER_SET: usize = 2048;

/// Query sets being filled.
pub(super) struct Profile {
    device: Device,
    inside: bool,
    sets: Vec<wgpu::QuerySet>,
    count: usize,
}

/// Where one dispatch's two timestamps go.
pub(super) struct Mark {
    pub set: wgpu::QuerySet,
    pub begin: u32,
}

impl Profile {
    pub fn new(device: &Device) -> Result<Profile> {
        let features = device.features();
        if !features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(Error::argument(format!("{device:?} has no timestamp queries, so no profile")));
        }
        let inside = features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        Ok(Profile { device: device.clone(), inside, sets: Vec::new(), count: 0 })
    }

    /// Whether timestamps go inside a pass rather than at its ends.
    pub fn inside(&self) -> bool {
        self.inside
    }

    /// The place for the next dispatch.
    pub fn next(&mut self) -> Result<Mark> {
        let place = self.count % PER_SET;
        if place == 0 {
            let descriptor =
                wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 * PER_SET as u32 };
            let make = || self.device.raw().create_query_set(&descriptor);
            self.sets.push(self.device.guarded_now("a query set", make)?);
        }
        let Some(set) = self.sets.last() else { return Err(Error::argument("no query set")) };
        self.count += 1;
        Ok(Mark { set: set.clone(), begin: 2 * place as u32 })
    }

    /// Records the copy of all timestamps into buffers.
    pub fn resolve(self, encoder: &mut wgpu::CommandEncoder) -> Result<Timings> {
        let mut ranges = Vec::new();
        for (i, set) in self.sets.iter().enumerate() {
            let dispatches = (self.count - i * PER_SET).min(PER_SET) as u64;
            let bytes = dispatches * 16;
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let buffer = Buffer::unpooled(&self.device, self.device.create(bytes, usage, false)?);
            encoder.resolve_query_set(set, 0..2 * dispatches as u32, buffer.raw(), 0);
            ranges.push(Range::new(&buffer, 0, bytes));
        }
        Ok(Timings { device: self.device, ranges })
    }
}

/// When one dispatch ran.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Seconds after the first dispatch of the submission began.
    pub start: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Timestamps on their way.
pub(super) struct Timings {
    device: Device,
    ranges: Vec<Range>,
}

impl Timings {
    /// When each dispatch ran.
    pub async fn read(self) -> Result<Vec<Span>> {
        let tick = f64::from(self.device.inner().queue.get_timestamp_period()) * 1e-9;
        let read = self.device.read(&self.ranges).await?;
        let ticks: Vec<u64> = read.iter().flat_map(|bytes| bytemuck::pod_collect_to_vec::<u8, u64>(bytes)).collect();
        let first = ticks.first().copied().unwrap_or_default();
        // A clock that stands still, or is set back between two dispatches, gives 0 rather than centuries.
        let between = |from: u64, to: u64| to.saturating_sub(from) as f64 * tick;
        let span = |pair: &[u64]| Span { start: between(first, pair[0]), seconds: between(pair[0], pair[1]) };
        Ok(ticks.chunks_exact(2).map(span).collect())
    }
}
