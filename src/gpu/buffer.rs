//! Device memory: counted raw buffers, handles that return to a pool, and the pool.
//!
//! A [`Buffer`] is a cheap clone; the last handle to drop gives the memory back to the pool of its exact size, where
//! the next request for that size finds it. Commands on one queue run in order, so a buffer may be handed out again
//! while older submissions still use it. Deliberately absent: explicit freeing, and cleared contents: what a new
//! buffer holds is undefined, because it may have been somebody else's.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::stats::Counters;
use super::{Device, Opaque, lock};
use crate::collections::Table;
use crate::error::{Error, ErrorKind, Result};

/// Sizes are multiples of this: WebGPU's own alignment of bound ranges, so that any 256-aligned offset may be bound.
const GRAIN: u64 = 256;

/// A wgpu buffer that the counters know of from its creation to its end.
#[derive(Debug)]
pub(super) struct Raw {
    pub buffer: wgpu::Buffer,
    counters: Arc<Counters>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.counters.dropped(self.buffer.size());
        // Natively wgpu keeps the memory until no submission needs it. In a browser a drop does nothing at all, and
        // destroying is safe for work that was submitted before.
        #[cfg(target_arch = "wasm32")]
        self.buffer.destroy();
    }
}

/// Device memory. Cloning counts references; the last drop gives the memory back for reuse.
///
/// A bind group or an unsubmitted encoder does not keep the contents: whoever made it keeps the `Buffer` too.
#[derive(Clone)]
pub struct Buffer(Opaque<Handle>);

struct Handle {
    /// `Some` until the drop moves it into the pool.
    raw: Option<Raw>,
    /// A second reference, so that access needs no check of the first.
    buffer: wgpu::Buffer,
    id: u64,
    device: Device,
    pooled: bool,
}

impl Buffer {
    fn new(device: &Device, raw: Raw, pooled: bool) -> Buffer {
        let buffer = raw.buffer.clone();
        Buffer(Opaque::new(Handle { raw: Some(raw), buffer, id: device.unique(), device: device.clone(), pooled }))
    }

    /// A handle on memory that is freed, not pooled, at the end.
    pub(super) fn unpooled(device: &Device, raw: Raw) -> Buffer {
        Buffer::new(device, raw, false)
    }

    /// Bytes, at least what was asked for.
    pub fn size(&self) -> u64 {
        self.0.buffer.size()
    }

    /// A number that no other buffer of the device has had; reused memory gets a new one.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The wgpu buffer underneath.
    pub fn raw(&self) -> &wgpu::Buffer {
        &self.0.buffer
    }

    /// The device this memory is on.
    pub fn device(&self) -> Device {
        self.0.device.clone()
    }

    /// The whole buffer as a range.
    pub fn whole(&self) -> Range {
        Range { buffer: self.clone(), offset: 0, size: self.size() }
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Buffer) -> bool {
        self.0.same(&other.0)
    }
}

impl Eq for Buffer {}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer(#{}, {} bytes)", self.0.id, self.size())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take().filter(|_| self.pooled) {
            lock(&self.device.inner().pool).give(raw);
        }
    }
}

/// A part of a buffer, as it is bound or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The buffer.
    pub buffer: Buffer,
    /// First byte. A bound range must start at a multiple of 256 to be portable.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl Range {
    /// A part of `buffer`.
    pub fn new(buffer: &Buffer, offset: u64, size: u64) -> Range {
        Range { buffer: buffer.clone(), offset, size }
    }

    pub(super) fn binding(&self) -> wgpu::BufferBinding<'_> {
        wgpu::BufferBinding { buffer: self.buffer.raw(), offset: self.offset, size: NonZeroU64::new(self.size) }
    }
}

/// Buffers that nobody holds, by size.
///
/// It never holds more bytes than were once in use at the same time, so a program's memory is at most twice its
/// peak; beyond that the buffer idle for longest goes.
#[derive(Default)]
pub(super) struct Pool {
    idle: Table<u64, Vec<(u64, Raw)>>,
    idle_bytes: u64,
    used_bytes: u64,
    used_peak: u64,
    clock: u64,
}

impl Pool {
    fn take(&mut self, size: u64) -> Option<Raw> {
        let (_, raw) = self.idle.get_mut(&size)?.pop()?;
        self.idle_bytes -= size;
        self.lent(size);
        Some(raw)
    }

    fn lent(&mut self, size: u64) {
        self.used_bytes += size;
        self.used_peak = self.used_peak.max(self.used_bytes);
    }

    fn give(&mut self, raw: Raw) {
        let size = raw.buffer.size();
        self.used_bytes -= size;
        self.idle_bytes += size;
        self.clock += 1;
        self.idle.or_default(size).push((self.clock, raw));
        while self.idle_bytes > self.used_peak && self.evict() {}
    }

    /// Drops the buffer that has been idle for longest; false if there is none.
    fn evict(&mut self) -> bool {
        // Within a size the oldest is in front, because reuse takes from the back.
        let oldest = |(size, idle): (&u64, &Vec<(u64, Raw)>)| idle.first().map(|(clock, _)| (*clock, *size));
        let Some((_, size)) = self.idle.iter().filter_map(oldest).min() else { return false };
        let Some(idle) = self.idle.get_mut(&size) else { return false };
        idle.remove(0);
        if idle.is_empty() {
            self.idle.remove(&size);
        }
        self.idle_bytes -= size;
        true
    }

    pub fn clear(&mut self) {
        self.idle.clear();
        self.idle_bytes = 0;
        self.used_peak = self.used_bytes;
    }
}

impl Device {
    /// Storage of at least `bytes` bytes with undefined contents: reused if the pool has it, else new.
    pub(crate) fn alloc(&self, bytes: u64) -> Result<Buffer> {
        let limits = self.limits();
        let have = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        if bytes > have {
            return Err(Error::new(ErrorKind::Limit { what: "a buffer".into(), need: bytes, have }));
        }
        // The last grain below a limit that is no multiple of it is still usable in words.
        let rounded = bytes.max(1).div_ceil(GRAIN) * GRAIN;
        let size = if rounded > have { bytes.div_ceil(4) * 4 } else { rounded };
        if let Some(raw) = lock(&self.inner().pool).take(size) {
            return Ok(Buffer::new(self, raw, true));
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let raw = match self.create(size, usage, false) {
            Err(error) if matches!(error.kind(), ErrorKind::OutOfMemory { .. }) => {
                // What the pool keeps for later may be what is missing now; freed memory returns with a poll.
                self.trim();
                #[cfg(not(target_arch = "wasm32"))]
                self.turn(wgpu::PollType::wait_indefinitely())?;
                self.create(size, usage, false)?
            }
            other => other?,
        };
        lock(&self.inner().pool).lent(size);
        Ok(Buffer::new(self, raw, true))
    }

    /// A uniform buffer with fixed contents, of which each binding takes a part.
    pub(crate) fn uniform(&self, words: &[u32]) -> Result<Buffer> {
        let size = (words.len().max(1) as u64 * 4).div_ceil(16) * 16;
        let raw = self.create(size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST, true)?;
        if !words.is_empty() {
            let bytes: &[u8] = bytemuck::cast_slice(words);
            let view = raw.buffer.slice(..bytes.len() as u64).get_mapped_range_mut();
            view.map_err(|_| self.silence("a new buffer is not mapped"))?.copy_from_slice(bytes);
        }
        raw.buffer.unmap();
        Ok(Buffer::unpooled(self, raw))
    }

    /// A new wgpu buffer.
    pub(super) fn create(&self, size: u64, usage: wgpu::BufferUsages, mapped: bool) -> Result<Raw> {
        let have = self.limits().max_buffer_size;
        if size > have {
            return Err(Error::new(ErrorKind::Limit { what: "a buffer".into(), need: size, have }));
        }
        if let Some(lost) = self.inner().slot.lost() {
            return Err(lost);
        }
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: mapped };
        let make = || self.raw().create_buffer(&descriptor);
        let buffer = self.guarded_now(&format!("a buffer of {size} bytes"), make)?;
        let counters = self.inner().counters.clone();
        counters.created(size);
        Ok(Raw { buffer, counters })
    }
}
