//! [`Logs`]: the scalars a step returns, and the ring of device memory they stay readable in.
//!
//! Deliberately absent: waiting. A step copies its logs into the ring within its own submission; whoever wants the
//! numbers reads them later, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Encoder, Range, Reading};
use crate::graph::{Slot, Tensor};
use crate::lower::pack::ALIGN;

/// Named scalars that a step returns, in the order given.
///
/// Inside a step they are tensors being recorded; what [`Step::run`](super::Step::run) returns lies on the device and is read with
/// [`Logs::read`], at any later time up to [`RING`] steps.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    entries: Vec<(String, Tensor)>,
    ring: Option<(Arc<Ring>, u64)>,
}

/// How many steps' logs stay readable.
pub const RING: u64 = 512;

/// The device memory that logs are copied to after each step.
#[derive(Debug)]
pub(super) struct Ring {
    buffer: Buffer,
    entry: u64,
    written: AtomicU64,
}

impl Ring {
    pub fn new(device: &Device, logs: usize) -> Result<Ring> {
        let entry = logs as u64 * ALIGN;
        Ok(Ring { buffer: device.alloc(entry * RING)?, entry, written: AtomicU64::new(0) })
    }

    /// Bytes that the logs of one step take.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Copies the logs of so many steps, which lie one behind the other from `slot` on, to the next places of the ring.
    pub fn push(&self, encoder: &mut Encoder, slot: &Slot, steps: u64) {
        let first = self.written.fetch_add(steps, Ordering::Relaxed);
        let mut done = 0;
        while done < steps {
            let place = (first + done) % RING;
            let together = (steps - done).min(RING - place);
            let (from, to) = (slot.offset + done * self.entry, place * self.entry);
            encoder.copy(&slot.buffer, from, &self.buffer, to, together * self.entry);
            done += together;
        }
    }

    /// The logs of the latest step.
    pub fn latest(self: &Arc<Ring>, names: &[String]) -> Logs {
        let sequence = self.written.load(Ordering::Relaxed) - 1;
        // The ring will be written again, so no tensor may stand for a place in it.
        let past = Tensor::poisoned(Error::state("the logs of a step that has run are read with read"));
        let entries = names.iter().map(|name| (name.clone(), past.clone())).collect();
        Logs { entries, ring: Some((self.clone(), sequence)) }
    }
}

impl Logs {
    /// The names and tensors; poisoned ones once the step has run, whose logs are read with [`read`](Logs::read).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|entry| entry.0 == name).map(|entry| &entry.1)
    }

    /// Adds a scalar.
    pub fn push(&mut self, name: impl Into<String>, value: Tensor) {
        self.entries.push((name.into(), value));
    }

    /// The names and tensors, by value.
    pub(super) fn into_entries(self) -> Vec<(String, Tensor)> {
        self.entries
    }

    /// Number of scalars.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Waits for the step and reads all scalars at once.
    pub async fn read(&self) -> Result<Vec<(String, f32)>> {
        match self.ask()? {
            None => Ok(Vec::new()),
            Some(asked) => Ok(named(asked.names, &asked.reading.wait().await?)),
        }
    }

    /// Asks for all scalars, for [`Asked::look`] to look for; nothing if there are none.
    pub fn ask(&self) -> Result<Option<Asked>> {
        let Some((ring, sequence)) = &self.ring else {
            return match self.entries.first() {
                None => Ok(None),
                Some((name, _)) => Err(Error::state(format!(
                    "the log {name} belongs to a step that is being recorded; read what run returned"
                ))),
            };
        };
        if ring.written.load(Ordering::Relaxed) > sequence + RING {
            let what = format!("logs are readable for {RING} steps, these are older; read them earlier");
            return Err(Error::state(what));
        }
        let range = Range::new(&ring.buffer, (sequence % RING) * ring.entry, ring.entry);
        let names = self.entries.iter().map(|entry| entry.0.clone()).collect();
        Ok(Some(Asked { names, reading: ring.buffer.device().ask(&[range])? }))
    }

    /// [`read`](Logs::read), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking(&self) -> Result<Vec<(String, f32)>> {
        pollster::block_on(self.read())
    }
}

/// Logs on their way back, for whoever must not wait for them.
pub struct Asked {
    names: Vec<String>,
    reading: Reading,
}

impl Asked {
    /// The names and numbers if they have come by now; once. Never waits.
    pub fn look(&mut self) -> Result<Option<Vec<(String, f32)>>> {
        let Some(bytes) = self.reading.look()? else { return Ok(None) };
        Ok(Some(named(std::mem::take(&mut self.names), &bytes)))
    }
}

fn named(names: Vec<String>, bytes: &[Vec<u8>]) -> Vec<(String, f32)> {
    let value = |index: usize| {
        let at = index * ALIGN as usize;
        let word = bytes.first().and_then(|bytes| bytes.get(at..at + 4));
        word.map_or(f32::NAN, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    names.into_iter().enumerate().map(|(index, name)| (name, value(index))).collect()
}

impl<N: Into<String>> FromIterator<(N, Tensor)> for Logs {
    fn from_iter<I: IntoIterator<Item = (N, Tensor)>>(entries: I) -> Logs {
        Logs { entries: entries.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect(), ring: None }
    }
}

impl<N: Into<String>> Extend<(N, Tensor)> for Logs {
    fn extend<I: IntoIterator<Item = (N, Tensor)>>(&mut self, entries: I) {
        self.entries.extend(entries.into_iter().map(|(name, tensor)| (name.into(), tensor)));
    }
}

impl<N: Into<String>, const K: usize> From<[(N, Tensor); K]> for Logs {
    fn from(entries: [(N, Tensor); K]) -> Logs {
        entries.into_iter().collect()
    }
}
