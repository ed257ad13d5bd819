//! Where errors of the device go, and how one is caught on purpose.
//!
//! wgpu reports most errors to a handler, far from the call that caused them, and in a browser later still. The slot
//! keeps the first one until somebody asks ([`Device::check`]); a lost device stays lost. `guarded` is the other way:
//! an error scope around one closure, for the few places (plan creation, allocation) that must know at once.
//! Deliberately absent: logging instead of returning, and panics.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Device, lock};
use crate::error::{Error, ErrorKind, Result};

/// The first error nobody caught, and whether the device is gone.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Whether there is anything to find, so that the usual check costs one load.
    full: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    first: Option<Error>,
    lost: Option<Error>,
}

impl Slot {
    /// Keeps `error` unless an earlier one waits: the first is the cause, the rest are usually its consequences.
    pub fn record(&self, error: Error) {
        let mut state = lock(&self.state);
        if state.first.is_none() && state.lost.is_none() {
            state.first = Some(error);
        } else {
            log::debug!("a further device error: {error}");
        }
        self.full.store(true, Ordering::Release);
    }

    /// The device is gone for good.
    pub fn lose(&self, why: String) {
        lock(&self.state).lost.get_or_insert(Error::new(ErrorKind::DeviceLost { why }));
        self.full.store(true, Ordering::Release);
    }

    /// The loss, if there was one.
    pub fn lost(&self) -> Option<Error> {
        if !self.full.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.state).lost.clone()
    }

    /// Takes the first error; a loss is returned again each time.
    pub fn check(&self) -> Result<()> {
        if !self.full.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = lock(&self.state);
        if let Some(error) = state.first.take() {
            self.full.store(state.lost.is_some(), Ordering::Release);
            return Err(error);
        }
        state.lost.clone().map_or(Ok(()), Err)
    }
}

/// wgpu's error as ours. `what` says what was being done.
pub(super) fn translate(error: wgpu::Error, what: &str) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::new(ErrorKind::OutOfMemory { what: what.into() }),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::new(ErrorKind::Validation {
                why: if what.is_empty() { description } else { format!("{what}: {description}") },
            })
        }
    }
}

/// The kinds of errors a scope catches, outermost first.
#[cfg(not(target_arch = "wasm32"))]
const FILTERS: [wgpu::ErrorFilter; 3] =
    [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];

impl Device {
    /// The first error since the last check that no call returned: a refused command, exhausted memory, a lost
    /// device. It is taken, except that a lost device stays lost.
    pub fn check(&self) -> Result<()> {
        self.inner().slot.check()
    }

    /// The error to return where the device did not answer: what the slot knows, or a loss for reason `why`.
    pub(super) fn silence(&self, why: &str) -> Error {
        self.check().err().unwrap_or_else(|| Error::new(ErrorKind::DeviceLost { why: why.into() }))
    }

    /// Runs `f` under error scopes and awaits their verdict. The scopes are closed before the first await, so work
    /// of other tasks is never inside them.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) async fn guarded<T>(&self, what: &str, f: impl FnOnce() -> T) -> Result<T> {
        let (value, verdicts) = {
            let scopes = FILTERS.map(|filter| self.raw().push_error_scope(filter));
            let value = f();
            let [internal, memory, validation] = scopes;
            // Scopes nest, so they close in reverse order.
            let validation = validation.pop();
            let memory = memory.pop();
            (value, (memory, validation, internal.pop()))
        };
        let (memory, validation, internal) = verdicts;
        let errors = [memory.await, validation.await, internal.await];
        match errors.into_iter().flatten().next() {
            Some(error) => Err(translate(error, what)),
            None => Ok(value),
        }
    }

    /// [`guarded`](Device::guarded) where nothing can be awaited. Native scopes answer at once; a browser's do not,
    /// so there `f` runs bare and its errors surface in the slot.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn guarded_now<T>(&self, what: &str, f: impl FnOnce() -> T) -> Result<T> {
        use futures::FutureExt;
        // A native verdict is a ready future; should that ever change, the wait is still bounded by the device.
        match self.guarded(what, f).now_or_never() {
            Some(verdict) => verdict,
            None => Err(Error::new(ErrorKind::Validation { why: format!("{what}: the error scope did not answer") })),
        }
    }

    /// [`guarded`](Device::guarded) where nothing can be awaited. Native scopes answer at once; a browser's do not,
    /// so there `f` runs bare and its errors surface in the slot.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn guarded_now<T>(&self, _what: &str, f: impl FnOnce() -> T) -> Result<T> {
        Ok(f())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_taken_and_a_loss_stays() {
        let slot = Slot::default();
        assert_eq!(slot.check(), Ok(()));
        slot.record(Error::new(ErrorKind::Validation { why: "first".into() }));
        slot.record(Error::new(ErrorKind::Validation { why: "second".into() }));
        assert_eq!(slot.check(), Err(Error::new(ErrorKind::Validation { why: "first".into() })));
        assert_eq!(slot.check(), Ok(()));
        slot.lose("gone".into());
        slot.record(Error::new(ErrorKind::Validation { why: "a consequence".into() }));
        for _ in 0..2 {
            assert_eq!(slot.check(), Err(Error::new(ErrorKind::DeviceLost { why: "gone".into() })));
        }
    }
}
