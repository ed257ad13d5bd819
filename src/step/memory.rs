//! [`Memory`]: the temporaries of all plans that run one after the other, as those of a step or of a model do.
//!
//! A plan takes the buffers that are there. Where it needs larger ones, or more, it makes them, and they take the place of
//! the smaller ones: plans that were bound to those are bound anew when they run next. So plans that share a memory hold
//! what the largest of them needs, not the sum. Deliberately absent: shrinking; and locks while a plan runs, since the
//! commands of one queue run in order.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::gpu::{Buffer, Device, Opaque};
use crate::sort::sort_by_key;

/// Buffers for temporaries, largest first; a clone is the same memory.
#[derive(Clone)]
pub(super) struct Memory(Opaque<Mutex<Vec<Buffer>>>);

impl Memory {
    /// A memory that holds nothing yet.
    pub fn new() -> Memory {
        Memory(Opaque::new(Mutex::new(Vec::new())))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer for each of these sizes, made where those there are do not do.
    pub fn take(&self, device: &Device, sizes: &[u64]) -> Result<Vec<Buffer>> {
        let mut held = self.lock();
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        sort_by_key(&mut order, |&index| std::cmp::Reverse(sizes[index]));
        let mut taken = vec![None; sizes.len()];
        // Both are in falling order, so the buffers stay in order when one grows.
        for (rank, index) in order.into_iter().enumerate() {
            match held.get(rank) {
                Some(buffer) if buffer.size() >= sizes[index] => {}
                Some(_) => held[rank] = device.alloc(sizes[index])?,
                None => held.push(device.alloc(sizes[index])?),
            }
            taken[index] = Some(held[rank].clone());
        }
        Ok(taken.into_iter().flatten().collect())
    }

    /// Whether all of these belong to it still.
    pub fn holds(&self, buffers: &[Buffer]) -> bool {
        let held = self.lock();
        buffers.iter().all(|buffer| held.iter().any(|other| other.id() == buffer.id()))
    }

    /// Lets go of all buffers.
    pub fn clear(&self) {
        self.lock().clear();
    }
}
