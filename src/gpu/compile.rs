//! Compiling the pipelines of a plan: all of them before its first dispatch.
//!
//! A driver takes milliseconds to seconds for a kernel, and most take them here, so texts that are new are shared out
//! among threads; each of them once, however often it occurs. Whoever waits can be told how far it is. In a browser
//! creating a pipeline only sends it off, and there are no threads: one after the other. Deliberately absent: pipelines
//! made ahead of need; what a plan is made of is known only when it is bound.

use super::pipeline::{Access, Pipeline};
use super::{Device, Shared, lock};
use crate::error::Result;
use crate::threads::{MaybeSend, MaybeSync};

/// A kernel that a plan needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// What it computes, for people.
    pub label: &'a str,
    /// The whole module.
    pub wgsl: &'a str,
    /// How it uses bindings 0.. of group 0.
    pub bindings: &'a [Access],
}

/// How far the compilation of a plan's kernels is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiling<'a> {
    /// Kernels that are compiled.
    pub done: usize,
    /// Kernels of the plan that are new to the device.
    pub of: usize,
    /// What the latest computes.
    pub label: &'a str,
}

/// Who is told.
#[cfg(not(target_arch = "wasm32"))]
pub(super) type Listener = Shared<dyn Fn(Compiling<'_>) + Send + Sync>;
/// Who is told.
#[cfg(target_arch = "wasm32")]
pub(super) type Listener = Shared<dyn Fn(Compiling<'_>)>;

impl Device {
    /// Has `listener` called, on the thread that waits, after each kernel that is compiled for a plan: the first step of
    /// a training may take seconds, and this is what there is to show meanwhile. Replaces the listener of before. The log
    /// has the same lines at level `debug`.
    pub fn on_compiling(&self, listener: impl Fn(Compiling<'_>) + MaybeSend + MaybeSync + 'static) {
        *lock(&self.inner().listener) = Some(Shared::new(listener));
    }

    /// The pipelines of a plan, in its order.
    pub(crate) fn compile(&self, wanted: &[Wanted]) -> Result<Vec<Pipeline>> {
        let fresh = self.unknown(wanted);
        if !fresh.is_empty() {
            let listener = lock(&self.inner().listener).clone();
            let mut done = 0;
            self.compile_each(&fresh, &mut |label| {
                done += 1;
                let now = Compiling { done, of: fresh.len(), label };
                log::debug!("compiled {} of {}: {label}", now.done, now.of);
                if let Some(listener) = &listener {
                    listener(now);
                }
            })?;
            #[cfg(not(target_arch = "wasm32"))]
            self.save_pipelines();
        }
        wanted.iter().map(|kernel| self.pipeline(kernel.label, kernel.wgsl, kernel.bindings)).collect()
    }

    /// One after the other.
    #[cfg(target_arch = "wasm32")]
    fn compile_each<'a>(&self, fresh: &[Wanted<'a>], told: &mut dyn FnMut(&'a str)) -> Result<()> {
        fresh.iter().try_for_each(|kernel| {
            self.pipeline(kernel.label, kernel.wgsl, kernel.bindings)?;
            told(kernel.label);
            Ok(())
        })
    }

    /// On as many threads as there are processors, the longest texts first: they take longest. The first error ends it.
    #[cfg(not(target_arch = "wasm32"))]
    fn compile_each<'a>(&self, fresh: &[Wanted<'a>], told: &mut dyn FnMut(&'a str)) -> Result<()> {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        use std::sync::mpsc;

        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(fresh.len());
        let mut order: Vec<&Wanted<'a>> = fresh.iter().collect();
        order.sort_by_key(|kernel| std::cmp::Reverse(kernel.wgsl.len()));
        let (next, order) = (AtomicUsize::new(0), &order);
        std::thread::scope(|scope| {
            let (send, finished) = mpsc::channel();
            for _ in 0..threads {
                let (send, next) = (send.clone(), &next);
                let work = move || {
                    while let Some(kernel) = order.get(next.fetch_add(1, Relaxed)) {
                        let made = self.pipeline(kernel.label, kernel.wgsl, kernel.bindings).map(|_| kernel.label);
                        // Nobody listens any more once there was an error.
                        if send.send(made).is_err() {
                            return;
                        }
                    }
                };
                // Where no thread is to be had, this one does the work.
                if let Err(why) = std::thread::Builder::new().name("compile".into()).spawn_scoped(scope, work) {
                    log::debug!("compiling without a further thread: {why}");
                    break;
                }
            }
            drop(send);
            finished.iter().try_for_each(|made| made.map(&mut *told))
        })?;
        // What no thread took.
        while let Some(kernel) = order.get(next.fetch_add(1, Relaxed)) {
            self.pipeline(kernel.label, kernel.wgsl, kernel.bindings)?;
            told(kernel.label);
        }
        Ok(())
    }
}
