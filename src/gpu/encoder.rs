//! One submission in the making: uploads, dispatches, copies and clears, in order.
//!
//! Consecutive dispatches share one compute pass, because on the drivers measured a pass costs as much as a small
//! dispatch; copies and clears close it. Whoever records keeps every buffer alive until [`Encoder::submit`] returns.
//! Deliberately absent: bind groups or pipelines made on the way. Replay encodes prepared ones only.

use web_time::Instant;

use super::buffer::Buffer;
use super::pipeline::{BindGroup, Pipeline};
use super::profile::{Profile, Span, Timings};
use super::staging::Lease;
use super::stats::{Stats, add};
use super::{Device, lock};
use crate::error::{Error, ErrorKind, Result};

/// A submission in the making.
pub(crate) struct Encoder {
    device: Device,
    /// Declared before the encoder, so that a pass left open ends first.
    pass: Option<wgpu::ComputePass<'static>>,
    raw: wgpu::CommandEncoder,
    /// What the open pass has set, to set it only when it changes.
    bound: Option<(Pipeline, BindGroup, Option<u32>)>,
    lease: Lease,
    /// Buffers that this encoder itself needs until it is submitted.
    keep: Vec<Buffer>,
    profile: Option<Profile>,
    /// The first thing that was wrong, returned by `submit`.
    failed: Option<Error>,
    count: Stats,
}

/// Work that was handed to the device.
pub(crate) struct Submission {
    index: wgpu::SubmissionIndex,
    timings: Option<Timings>,
}

impl Submission {
    pub fn index(&self) -> &wgpu::SubmissionIndex {
        &self.index
    }

    /// When each dispatch ran, in order of recording, if the encoder was a profiling one.
    pub async fn spans(self) -> Result<Vec<Span>> {
        match self.timings {
            Some(timings) => timings.read().await,
            None => Err(Error::argument("this submission was not profiled")),
        }
    }
}

impl Device {
    /// Starts a submission.
    pub(crate) fn encoder(&self) -> Encoder {
        Encoder {
            raw: self.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None }),
            pass: None,
            bound: None,
            lease: Lease::new(self),
            keep: Vec::new(),
            profile: None,
            failed: None,
            count: Stats::default(),
            device: self.clone(),
        }
    }

    /// Starts a submission that times each of its dispatches; see [`Submission::spans`].
    pub(crate) fn encoder_profiled(&self) -> Result<Encoder> {
        let profile = Profile::new(self)?;
        Ok(Encoder { profile: Some(profile), ..self.encoder() })
    }
}

impl Encoder {
    /// Writes `bytes` to `dst` at `offset`; both the length and the offset are multiples of 4.
    #[cfg_attr(target_arch = "wasm32", allow(dead_code))] // only what waits for the device uploads so, as tests do
    pub fn upload(&mut self, bytes: &[u8], dst: &Buffer, offset: u64) -> Result<()> {
        self.upload_with(bytes.len(), dst, offset, |mut room| room.copy_from_slice(bytes))
    }

    /// Lets `fill` write `len` bytes for `dst` at `offset`. What it gets is mapped memory, which a CPU may write fast
    /// and read slowly or not at all, hence write-only; it must write all of it.
    pub fn upload_with(
        &mut self,
        len: usize,
        dst: &Buffer,
        offset: u64,
        fill: impl FnOnce(wgpu::WriteOnly<'_, [u8]>),
    ) -> Result<()> {
        let len = len as u64;
        let fits = offset.checked_add(len).is_some_and(|end| end <= dst.size());
        if !len.is_multiple_of(4) || !offset.is_multiple_of(4) || !fits {
            let what = format!("an upload of {len} bytes at {offset} into {} is not whole words inside it", dst.size());
            return Err(Error::argument(what));
        }
        if len == 0 {
            return Ok(());
        }
        let (chunk, at) = self.lease.write(len, fill)?;
        self.close();
        self.raw.copy_buffer_to_buffer(&chunk, at, dst.raw(), offset, len);
        self.count.copies += 1;
        self.count.bytes_uploaded += len;
        Ok(())
    }

    /// Copies `len` bytes. Lengths and offsets are multiples of 4. Within one buffer, which WebGPU forbids, the copy
    /// goes through a temporary.
    pub fn copy(&mut self, src: &Buffer, src_offset: u64, dst: &Buffer, dst_offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        if src == dst {
            match self.device.alloc(len) {
                Ok(between) => {
                    self.copy_raw(src.raw(), src_offset, between.raw(), 0, len);
                    self.copy_raw(between.raw(), 0, dst.raw(), dst_offset, len);
                    self.keep.push(between);
                }
                Err(error) => self.fail(error),
            }
        } else {
            self.copy_raw(src.raw(), src_offset, dst.raw(), dst_offset, len);
        }
    }

    pub(super) fn copy_raw(&mut self, src: &wgpu::Buffer, so: u64, dst: &wgpu::Buffer, offset: u64, len: u64) {
        self.close();
        self.raw.copy_buffer_to_buffer(src, so, dst, offset, len);
        self.count.copies += 1;
    }

    /// Sets `len` bytes to 0.
    pub fn clear(&mut self, buffer: &Buffer, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.close();
        self.raw.clear_buffer(buffer.raw(), offset, Some(len));
        self.count.clears += 1;
    }

    /// [`dispatch_at`](Encoder::dispatch_at) for a pipeline without [`Access::Turns`](super::Access::Turns).
    pub fn dispatch(&mut self, pipeline: &Pipeline, group: &BindGroup, grid: [u32; 3]) {
        self.dispatch_at(pipeline, group, None, grid);
    }

    /// Runs `pipeline` with `group` on `grid` workgroups, with an offset for the binding that has one; a grid with a 0
    /// runs nothing.
    pub fn dispatch_at(&mut self, pipeline: &Pipeline, group: &BindGroup, offset: Option<u32>, grid: [u32; 3]) {
        let have = self.device.limits().max_compute_workgroups_per_dimension;
        let need = grid.into_iter().max().unwrap_or(0);
        if need > have {
            let what = format!("a grid of {}", pipeline.label());
            return self.fail(Error::new(ErrorKind::Limit { what, need: need.into(), have: have.into() }));
        }
        // Nothing to run is still something to time, so that times stay in step with what was recorded.
        if grid.contains(&0) && self.profile.is_none() {
            return;
        }
        let (before, after) = match &mut self.profile {
            None => (None, None),
            Some(profile) => {
                let mark = match profile.next() {
                    Ok(mark) => mark,
                    Err(error) => return self.fail(error),
                };
                if profile.inside() {
                    (Some(mark), None)
                } else {
                    self.close();
                    (None, Some(mark))
                }
            }
        };
        if self.pass.is_none() {
            let writes = after.as_ref().map(|mark| wgpu::ComputePassTimestampWrites {
                query_set: &mark.set,
                beginning_of_pass_write_index: Some(mark.begin),
                end_of_pass_write_index: Some(mark.begin + 1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
            self.pass = Some(self.raw.begin_compute_pass(&descriptor).forget_lifetime());
            self.count.passes += 1;
        }
        let Some(pass) = &mut self.pass else { return };
        match &mut self.bound {
            Some((bound, ..)) if bound == pipeline => {}
            _ => pass.set_pipeline(pipeline.raw()),
        }
        match &self.bound {
            Some((_, bound, at)) if bound.same(group) && *at == offset => {}
            _ => pass.set_bind_group(0, &**group, offset.as_slice()),
        }
        self.bound = Some((pipeline.clone(), group.clone(), offset));
        if let Some(mark) = &before {
            pass.write_timestamp(&mark.set, mark.begin);
        }
        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        if let Some(mark) = &before {
            pass.write_timestamp(&mark.set, mark.begin + 1);
        }
        self.count.dispatches += 1;
        if after.is_some() {
            self.close();
        }
    }

    /// Hands everything to the device. Errors that wgpu finds at once are returned, and so is the first error of
    /// earlier work that nobody has asked for; nothing here waits.
    pub fn submit(mut self) -> Result<Submission> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.close();
        let inner = self.device.inner();
        let timings = match self.profile.take() {
            Some(profile) => Some(profile.resolve(&mut self.raw)?),
            None => None,
        };
        let sealed = self.lease.seal();
        let commands = self.raw.finish();
        let now = Instant::now();
        let turn = lock(&inner.turn);
        let index = inner.queue.submit([commands]);
        drop(turn);
        // Counted as in flight before the callback that counts it as done can run.
        inner.flow.started(index.clone(), now);
        let flow = inner.flow.clone();
        inner.queue.on_submitted_work_done(move || flow.finished());
        sealed.recycle();
        let (counters, count) = (&inner.counters, &self.count);
        add(&counters.submissions, 1);
        add(&counters.dispatches, count.dispatches);
        add(&counters.passes, count.passes);
        add(&counters.copies, count.copies);
        add(&counters.clears, count.clears);
        add(&counters.bytes_uploaded, count.bytes_uploaded);
        self.device.check()?;
        Ok(Submission { index, timings })
    }

    /// Ends the open pass.
    fn close(&mut self) {
        self.bound = None;
        self.pass = None;
    }

    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }
}
