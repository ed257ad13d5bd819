//! The machine: one GPU device and everything that talks to it.
//!
//! Floor 0. A [`Device`] owns the wgpu device and queue, a pool of buffers, a cache of pipelines, an upload ring, the
//! error slot and the back-pressure; an encoder turns prepared dispatches, copies and uploads into one submission.
//! It is here so that the floors above speak only of buffers, pipelines and submissions and never of mapping, error
//! scopes or browsers. Deliberately absent: tensors, shapes of tensors, any knowledge of ops, and panics for anything
//! that a user or a device can cause. No static holds a wgpu object.
//!
//! Two rules keep the steady state free of allocation: uploads go through chunks that are mapped again once their
//! submission is done, and buffers return to the pool when their last handle drops. Queue order makes that reuse
//! safe on the device; it is the *encoder's* user who must keep every buffer alive until the submission is made.

mod adapter;
mod buffer;
#[cfg(not(target_arch = "wasm32"))]
mod cache;
mod ceilings;
mod choices;
mod compile;
mod device;
mod encoder;
mod fault;
mod flow;
mod opaque;
mod pipeline;
mod profile;
mod read;
#[cfg(not(target_arch = "wasm32"))]
mod selftest;
pub mod shader;
mod staging;
mod stats;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use adapter::Class;
pub use buffer::{Buffer, Range};
pub use ceilings::Ceilings;
pub use choices::Choices;
pub use compile::Compiling;
pub(crate) use compile::Wanted;
pub use device::{Device, DeviceOptions};
pub(crate) use encoder::Encoder;
pub(crate) use opaque::Opaque;
pub(crate) use pipeline::{Access, BindGroup, Pipeline};
pub use profile::Span;
pub(crate) use read::Reading;
pub use shader::Shader;
pub(crate) use staging::staged;
pub use stats::Stats;

/// Shared ownership: wgpu's objects are `Send + Sync` natively and neither in a browser.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Shared<T> = std::sync::Arc<T>;
/// Shared ownership: wgpu's objects are `Send + Sync` natively and neither in a browser.
#[cfg(target_arch = "wasm32")]
pub(crate) type Shared<T> = std::rc::Rc<T>;

/// Locks, ignoring poison: every critical section here leaves its data whole even if a callback panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
