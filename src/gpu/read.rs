//! The way of bytes back: one copy, one submission, one await, however many ranges.
//!
//! Staging buffers are kept and reused, except the largest. Ranges that together exceed what one buffer may hold go into
//! several, still in one submission, so what is read is one moment's state. Deliberately absent: a blocking read (its
//! callers have one through their own executor) and reading while a step is recorded.

use std::sync::Mutex;

use futures::channel::oneshot;

use super::buffer::{Range, Raw};
use super::stats::add;
use super::{Device, lock};
use crate::collections::Table;
use crate::error::{Error, Result};

/// Staging buffers are powers of two from here on.
const SMALLEST: u64 = 4096;
/// Larger ones are not kept: reading a whole model is rare, and its size would be held for ever.
const KEPT: u64 = 16 << 20;
/// The most that one staging buffer takes.
const WINDOW: u64 = 256 << 20;

/// Staging buffers that wait for work, by size.
#[derive(Default)]
pub(super) struct Readback(Mutex<Table<u64, Vec<Raw>>>);

impl Readback {
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// A part of a range and where in its window it goes.
struct Piece {
    range: usize,
    offset: u64,
    len: u64,
    at: u64,
}

/// Bytes on their way back. Dropping it gives them up.
pub(crate) struct Reading {
    device: Device,
    sizes: Vec<u64>,
    windows: Vec<Window>,
    submission: Option<wgpu::SubmissionIndex>,
}

/// One staging buffer and what goes through it.
struct Window {
    pieces: Vec<Piece>,
    raw: Raw,
    used: u64,
    answer: oneshot::Receiver<Mapped>,
    arrived: bool,
}

type Mapped = std::result::Result<(), wgpu::BufferAsyncError>;

impl Device {
    /// The bytes of `ranges` after all work submitted so far. Offsets are multiples of 4.
    ///
    /// The vectors are bytes without alignment: convert with `bytemuck::pod_collect_to_vec`, do not cast in place.
    pub(crate) async fn read(&self, ranges: &[Range]) -> Result<Vec<Vec<u8>>> {
        self.ask(ranges)?.wait().await
    }

    /// Submits a read for [`Reading::look`] to look for.
    pub(crate) fn ask(&self, ranges: &[Range]) -> Result<Reading> {
        let sizes = ranges.iter().map(|range| range.size).collect();
        let planned = plan(ranges, WINDOW.min(self.limits().max_buffer_size))?;
        let mut reading = Reading { device: self.clone(), sizes, windows: Vec::new(), submission: None };
        if planned.is_empty() {
            return Ok(reading);
        }
        let mut encoder = self.encoder();
        let mut staged = Vec::new();
        for pieces in planned {
            let used = pieces.last().map_or(0, |piece| piece.at + piece.len);
            let raw = self.readback(used)?;
            for piece in &pieces {
                let Some(range) = ranges.get(piece.range) else { continue };
                encoder.copy_raw(range.buffer.raw(), range.offset + piece.offset, &raw.buffer, piece.at, piece.len);
            }
            staged.push((pieces, raw, used));
        }
        reading.submission = Some(encoder.submit()?.index().clone());
        for (pieces, raw, used) in staged {
            let (sender, answer) = oneshot::channel();
            // The receiver may have been dropped, which is its right.
            raw.buffer.map_async(wgpu::MapMode::Read, ..used, move |result| drop(sender.send(result)));
            reading.windows.push(Window { pieces, raw, used, answer, arrived: false });
        }
        Ok(reading)
    }

    fn readback(&self, len: u64) -> Result<Raw> {
        let size = len.next_power_of_two().max(SMALLEST);
        let size = if size > self.limits().max_buffer_size { len } else { size };
        if let Some(raw) = lock(&self.inner().readback.0).get_mut(&size).and_then(Vec::pop) {
            return Ok(raw);
        }
        self.create(size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false)
    }
}

impl Reading {
    /// Waits for the bytes.
    pub async fn wait(mut self) -> Result<Vec<Vec<u8>>> {
        if !self.windows.is_empty() {
            add(&self.device.inner().counters.waits, 1);
        }
        for window in self.windows.iter_mut().filter(|window| !window.arrived) {
            let (_, never) = oneshot::channel();
            let answer = std::mem::replace(&mut window.answer, never);
            let mapped = self.device.drive(answer, self.submission.clone()).await?;
            mapped.map_err(|_| self.device.silence("a read buffer could not be mapped"))?;
        }
        self.collect()
    }

    /// The bytes if they have come by now; once. Never waits: natively the device is looked at, no more.
    pub fn look(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        #[cfg(not(target_arch = "wasm32"))]
        self.device.turn(wgpu::PollType::Poll)?;
        for window in self.windows.iter_mut().filter(|window| !window.arrived) {
            match window.answer.try_recv() {
                Ok(Some(Ok(()))) => window.arrived = true,
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) | Err(_) => return Err(self.device.silence("a read buffer could not be mapped")),
            }
        }
        self.collect().map(Some)
    }

    /// Takes the bytes out of the mapped buffers and keeps those for other reads.
    fn collect(&mut self) -> Result<Vec<Vec<u8>>> {
        let room = |&size: &u64| Vec::with_capacity(size.next_multiple_of(4) as usize);
        let mut results: Vec<Vec<u8>> = self.sizes.iter().map(room).collect();
        for Window { pieces, raw, used, .. } in self.windows.drain(..) {
            let view = raw.buffer.slice(..used).get_mapped_range();
            let view = view.map_err(|_| self.device.silence("a read buffer is not mapped"))?;
            for piece in &pieces {
                let bytes = view.get(piece.at as usize..(piece.at + piece.len) as usize);
                if let (Some(result), Some(bytes)) = (results.get_mut(piece.range), bytes) {
                    result.extend_from_slice(bytes);
                }
            }
            drop(view);
            raw.buffer.unmap();
            if raw.buffer.size() <= KEPT {
                lock(&self.device.inner().readback.0).or_default(raw.buffer.size()).push(raw);
            }
        }
        for (result, &size) in results.iter_mut().zip(&self.sizes) {
            result.truncate(size as usize);
            add(&self.device.inner().counters.bytes_read, size);
        }
        self.device.check()?;
        Ok(results)
    }
}

/// Lays the ranges, rounded up to words, end to end into windows of at most `window` bytes.
fn plan(ranges: &[Range], window: u64) -> Result<Vec<Vec<Piece>>> {
    let window = (window / 4 * 4).max(4);
    let mut windows: Vec<Vec<Piece>> = Vec::new();
    let mut used = window;
    for (i, range) in ranges.iter().enumerate() {
        let size = range.size.next_multiple_of(4);
        let fits = range.offset.checked_add(size).is_some_and(|end| end <= range.buffer.size());
        if !range.offset.is_multiple_of(4) || !fits {
            let (have, offset) = (range.buffer.size(), range.offset);
            let what = format!("a read of {} bytes at {offset} of {have} is not whole words inside it", range.size);
            return Err(Error::argument(what));
        }
        let mut offset = 0;
        while offset < size {
            if used == window {
                windows.push(Vec::new());
                used = 0;
            }
            let len = (size - offset).min(window - used);
            if let Some(pieces) = windows.last_mut() {
                pieces.push(Piece { range: i, offset, len, at: used });
            }
            offset += len;
            used += len;
        }
    }
    Ok(windows)
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn windows_cut_ranges_and_keep_their_order() {
        let device = Device::blocking().unwrap();
        let buffer = device.alloc(100).unwrap();
        let ranges = [Range::new(&buffer, 0, 24), Range::new(&buffer, 8, 0), Range::new(&buffer, 4, 6)];
        let cut = plan(&ranges, 16).unwrap();
        let cut: Vec<Vec<_>> =
            cut.iter().map(|w| w.iter().map(|p| (p.range, p.offset, p.len, p.at)).collect()).collect();
        assert_eq!(cut, [vec![(0, 0, 16, 0)], vec![(0, 16, 8, 0), (2, 0, 8, 8)]]);
        assert!(plan(&[Range::new(&buffer, 2, 4)], 16).is_err());
        assert!(plan(&[Range::new(&buffer, 4, 256)], 16).is_err());
    }
}
