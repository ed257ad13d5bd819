//! The way of bytes to the device: a ring of chunks.
//!
//! wgpu's own `write_buffer` makes a staging buffer at each call. Natively this ring keeps host-visible chunks that stay
//! mapped while they are filled, are unmapped for their submission and mapped again when it is done. A size that is wanted
//! again before its first chunk is back is a stream, and gets its whole ring at once; when all of that is in flight, an
//! upload waits for the oldest, so a stream makes no buffer after its second step. In a browser mapping is a round trip
//! to another process, so there a chunk is a buffer on the device, filled by `write_buffer`; since that takes effect
//! before the whole submission, every upload of one encoder has a region of its own, and since it is ordered after
//! earlier submissions, a chunk is free again as soon as it was submitted. Deliberately absent: a bound on what one
//! submission uploads.

use std::mem;
use std::sync::Mutex;

use super::buffer::Raw;
use super::{Device, Shared, lock};
use crate::collections::Table;
use crate::error::Result;

/// Chunks are powers of two from here on. Below, saving memory is not worth more sizes.
const SMALLEST: u64 = 256 * 1024;
/// Uploads start at multiples of this; mapped ranges need 8, drivers copy faster from 16.
const ALIGN: u64 = 16;

/// Chunks of a ring: enough that the device has work while the host waits for one. Fewer where they are large.
#[cfg(not(target_arch = "wasm32"))]
fn ring(size: u64) -> usize {
    ((16 << 20) / size).clamp(3, 8) as usize
}

/// Bytes of chunks that there are once a submission has uploaded `first`, and then one after the other has uploaded
/// `each`, without waiting; in whole words, each.
pub(crate) fn staged(first: &[u64], each: &[u64]) -> u64 {
    // Of each size: how often it is asked for, and how many are in use at once.
    let mut asked: Table<u64, (usize, usize)> = Table::new();
    for uploads in [first, each, each] {
        let mut counts: Table<u64, usize> = Table::new();
        // What `Lease::reserve` does: the chunk with more room stays open.
        let mut room = 0u64;
        for &len in uploads.iter().filter(|&&len| len > 0) {
            let used = len.next_multiple_of(ALIGN);
            if len <= room {
                room = room.saturating_sub(used);
                continue;
            }
            let size = len.next_power_of_two().max(SMALLEST);
            *counts.or_default(size) += 1;
            room = room.max(size.saturating_sub(used));
        }
        for (size, count) in counts {
            let (all, most) = asked.or_default(size);
            (*all, *most) = (*all + count, count.max(*most));
        }
    }
    #[cfg(not(target_arch = "wasm32"))]
    let made = |size: u64, (all, most): (usize, usize)| if all > 1 { most.max(ring(size)) } else { most };
    #[cfg(target_arch = "wasm32")]
    let made = |_: u64, (_, most): (usize, usize)| most;
    asked.into_iter().map(|(size, counts)| size * made(size, counts) as u64).sum()
}

/// Chunks by size.
#[derive(Default)]
pub(super) struct Staging(Mutex<Table<u64, Chunks>>);

#[derive(Default)]
struct Chunks {
    free: Vec<Raw>,
    /// How many there are, those in use included.
    #[cfg(not(target_arch = "wasm32"))]
    made: usize,
}

impl Staging {
    fn take(&self, size: u64) -> Option<Raw> {
        lock(&self.0).get_mut(&size)?.free.pop()
    }

    fn give(&self, raw: Raw) {
        lock(&self.0).or_default(raw.buffer.size()).free.push(raw);
    }

    pub fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// The chunks that one encoder fills. Dropped without a submission, they go back as they are.
pub(super) struct Lease {
    device: Device,
    staging: Shared<Staging>,
    full: Vec<Raw>,
    open: Option<(Raw, u64)>,
    /// Where a browser's bytes are made before they are handed over.
    #[cfg(target_arch = "wasm32")]
    scratch: Vec<u8>,
}

impl Lease {
    pub fn new(device: &Device) -> Lease {
        Lease {
            staging: device.inner().staging.clone(),
            device: device.clone(),
            full: Vec::new(),
            open: None,
            #[cfg(target_arch = "wasm32")]
            scratch: Vec::new(),
        }
    }

    /// Finds room for `len` bytes, lets `fill` write them, and returns where they are. `len` is a multiple of 4.
    pub fn write(&mut self, len: u64, fill: impl FnOnce(wgpu::WriteOnly<'_, [u8]>)) -> Result<(wgpu::Buffer, u64)> {
        let (buffer, offset) = self.reserve(len)?;
        #[cfg(not(target_arch = "wasm32"))]
        {
            let view = buffer.slice(offset..offset + len).get_mapped_range_mut();
            let mut view = view.map_err(|_| self.device.silence("a staging buffer is not mapped"))?;
            fill(view.slice(..));
        }
        #[cfg(target_arch = "wasm32")]
        {
            self.scratch.resize(len as usize, 0);
            fill(wgpu::WriteOnly::from_mut(&mut self.scratch[..]));
            self.device.inner().queue.write_buffer(&buffer, offset, &self.scratch);
        }
        Ok((buffer, offset))
    }

    fn reserve(&mut self, len: u64) -> Result<(wgpu::Buffer, u64)> {
        if let Some((raw, used)) = &mut self.open
            && *used + len <= raw.buffer.size()
        {
            let offset = *used;
            *used = (offset + len).next_multiple_of(ALIGN);
            return Ok((raw.buffer.clone(), offset));
        }
        let raw = self.chunk(len.next_power_of_two().max(SMALLEST), len)?;
        let buffer = raw.buffer.clone();
        // The chunk with more room left stays open for what follows.
        let used = len.next_multiple_of(ALIGN);
        let room = |(raw, used): &(Raw, u64)| raw.buffer.size().saturating_sub(*used);
        let new = (raw, used);
        match &self.open {
            Some(open) if room(open) > room(&new) => self.full.push(new.0),
            _ => self.full.extend(self.open.replace(new).map(|(raw, _)| raw)),
        }
        Ok((buffer, 0))
    }

    /// A free chunk of `size` bytes; if the device refuses that much in one buffer, one of `len`.
    fn chunk(&self, size: u64, len: u64) -> Result<Raw> {
        let size = if size > self.device.limits().max_buffer_size { len } else { size };
        if let Some(raw) = self.staging.take(size) {
            return Ok(raw);
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            // Chunks of finished submissions come back only when somebody looks.
            self.device.turn(wgpu::PollType::Poll)?;
            if let Some(raw) = self.staging.take(size) {
                return Ok(raw);
            }
            let made = lock(&self.staging.0).or_default(size).made;
            // Chunks of this very encoder do not come back before it is submitted: with nothing in flight, more are made.
            while made >= ring(size) && self.device.await_oldest()? {
                if let Some(raw) = self.staging.take(size) {
                    return Ok(raw);
                }
            }
            let more = if made == 1 { ring(size) - 1 } else { 1 };
            for _ in 0..more {
                let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
                self.staging.give(self.device.create(size, usage, true)?);
            }
            lock(&self.staging.0).or_default(size).made += more;
            match self.staging.take(size) {
                Some(raw) => Ok(raw),
                // Another thread was faster.
                None => self.chunk(size, len),
            }
        }
        #[cfg(target_arch = "wasm32")]
        self.device.create(size, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC, false)
    }

    /// Makes the bytes visible to the submission that follows.
    pub fn seal(&mut self) -> Sealed {
        let mut chunks = mem::take(&mut self.full);
        chunks.extend(self.open.take().map(|(raw, _)| raw));
        #[cfg(not(target_arch = "wasm32"))]
        for raw in &chunks {
            raw.buffer.unmap();
        }
        Sealed { staging: self.staging.clone(), chunks }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let open = self.open.take().map(|(raw, _)| raw);
        for raw in mem::take(&mut self.full).into_iter().chain(open) {
            self.staging.give(raw);
        }
    }
}

/// Chunks that belong to a submission.
pub(super) struct Sealed {
    staging: Shared<Staging>,
    chunks: Vec<Raw>,
}

impl Sealed {
    /// To be called once the submission is made: the chunks return to the ring when it is done.
    pub fn recycle(self) {
        for raw in self.chunks {
            #[cfg(not(target_arch = "wasm32"))]
            {
                let buffer = raw.buffer.clone();
                let staging = self.staging.clone();
                buffer.map_async(wgpu::MapMode::Write, .., move |mapped| {
                    // A chunk that cannot be mapped any more is dropped; the device is probably lost.
                    if mapped.is_ok() {
                        staging.give(raw);
                    }
                });
            }
            #[cfg(target_arch = "wasm32")]
            self.staging.give(raw);
        }
    }
}
