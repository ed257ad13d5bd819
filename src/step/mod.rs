//! [`Step`]: a pure function over a state, recorded once and replayed.
//!
//! Floor 1. The first run with given shapes records the function on stand-ins for the leaves of state and batch,
//! compiles it and binds it; later runs upload the batch and encode the same dispatches. The state's tensors stay
//! where they are and are overwritten in place, so the newest complete state is always the one the caller holds.
//! Purity is checked by recording again and comparing. Deliberately absent: the closure, which is passed at each run,
//! so that a model can own its steps; and waiting: nothing here asks the device for anything.

mod describe;
mod entry;
#[cfg(not(target_arch = "wasm32"))]
mod finite;
mod holders;
mod logs;
mod memory;
#[cfg(not(target_arch = "wasm32"))]
mod nans;
mod record;
mod transfer;
mod tune;

pub(crate) use holders::part_from_holders;
pub use logs::{Asked, Logs, RING};
pub(crate) use transfer::Transfer;
pub use transfer::{assign, assign_all};
pub use tune::Tuned;
pub(crate) use tune::tune;

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Device, Encoder};
use crate::graph::{Tensor, Tree, Value};
use crate::lower::Options;
use crate::plan::Plan;
use crate::read::{evaluate, seen_on_device};
use entry::Entry;
use memory::Memory;
use record::record;

/// When a step is recorded again to check that it is pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purity {
    /// At every run: debug builds.
    Always,
    /// At the second and third run and then once in every hundred steps: release builds.
    Sometimes,
}

/// Plans kept at most; a partial last batch, validation and prediction are a few.
const PLANS: usize = 16;

/// Records a pure function once for each kind of input and replays it.
pub struct Step {
    device: Device,
    options: Options,
    purity: Purity,
    entries: Vec<Entry>,
    /// Bytes that the temporaries of a plan may take.
    budget: Option<u64>,
    /// The temporaries of all plans.
    memory: Memory,
    /// What the leaves of the state are called.
    labels: Arc<[String]>,
    debug_nans: bool,
}

impl Step {
    /// A step on `device` that has recorded nothing yet.
    pub fn new(device: &Device) -> Step {
        Step::with(device, Options::default())
    }

    /// A step with compiler options.
    pub fn with(device: &Device, options: Options) -> Step {
        let purity = if cfg!(debug_assertions) { Purity::Always } else { Purity::Sometimes };
        let (labels, memory) = (Arc::default(), Memory::new());
        let (device, entries, budget, debug_nans) = (device.clone(), Vec::new(), None, false);
        Step { device, options, purity, entries, budget, memory, labels, debug_nans }
    }

    /// A further step, with nothing recorded yet, whose plans share the memory for temporaries with this one's: that of a
    /// model's training, evaluation and prediction, say. Together they take what the largest plan needs.
    pub fn beside(&self) -> Step {
        let further = Step::with(&self.device, self.options.clone());
        let (purity, budget, memory) = (self.purity, self.budget, self.memory.clone());
        Step { purity, budget, memory, labels: self.labels.clone(), debug_nans: self.debug_nans, ..further }
    }

    /// Sets when purity is checked.
    pub fn purity(mut self, purity: Purity) -> Step {
        self.purity = purity;
        self
    }

    /// Bounds the memory for temporaries: where a plan would take more bytes, it computes values again rather than keep
    /// them from the forward to the backward pass, the cheapest first. Results are the same but for the rounding of
    /// kernels that fuse otherwise. Plans made before keep what they take. Bounding takes time at the first run, since
    /// the step is compiled several times. Running a step that cannot do with so little is [`ErrorKind::Limit`], which says
    /// how few bytes were reached.
    pub fn memory_budget(mut self, bytes: u64) -> Step {
        self.budget = Some(bytes);
        self
    }

    /// Looks at logs and state after every run, and finds where a NaN or an infinity in them began: the run ends with
    /// [`ErrorKind::NonFinite`] naming the op, its operands, the layer and the caller's line, and the state is what it was
    /// before that batch.
    /// Waits for every run, and keeps a copy of the state meanwhile. Not in a browser, which must not wait.
    pub fn debug_nans(mut self, on: bool) -> Step {
        self.watch_nans(on);
        self
    }

    /// [`debug_nans`](Step::debug_nans), of a step that exists.
    pub(crate) fn watch_nans(&mut self, on: bool) {
        self.debug_nans = on;
    }

    /// The device it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Forgets all plans, so that the next run records anew: for deliberate changes of the function.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.memory.clear();
    }

    /// The plan of the latest run.
    pub fn plan(&self) -> Option<&Plan> {
        self.entries.last()?.plan()
    }

    /// Runs `f(state, batch) -> (logs, state)` once, updating the state in place.
    ///
    /// On an error the state is what it was.
    pub fn run<S: Tree, B: Tree>(
        &mut self,
        state: &mut S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Logs> {
        self.run_tagged(0, state, std::slice::from_ref(batch), f)
    }

    /// Runs the function once for each batch, all in one submission; a step so small that its plan is one workgroup loops
    /// over them inside one dispatch. The batches must be alike; rows cut out of a tensor that lies on the device are
    /// copied from there, neighbours at once. Returns the logs of the last. `tag` separates forms of the function that are meant to differ (modes, a model's generation).
    pub fn run_tagged<S: Tree, B: Tree>(
        &mut self,
        tag: u64,
        state: &mut S,
        batches: &[B],
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Logs> {
        if batches.is_empty() {
            return Ok(Logs::default());
        }
        if self.debug_nans {
            #[cfg(not(target_arch = "wasm32"))]
            return self.run_watched(tag, state, batches, f);
            #[cfg(target_arch = "wasm32")]
            return Err(Error::argument("debug_nans waits for every step, which a page must not"));
        }
        self.prepare(tag, state, batches, f)?;
        let mut encoder = self.device.encoder();
        let logs = self.encode(&mut encoder, batches)?;
        encoder.submit()?;
        Ok(logs)
    }

    /// Makes the last entry the one for these inputs, recorded, checked and bound.
    pub(crate) fn prepare<S: Tree, B: Tree>(
        &mut self,
        tag: u64,
        state: &mut S,
        batches: &[B],
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<()> {
        let Some(first) = batches.first() else { return Ok(()) };
        self.evaluate(state, batches)?;
        match self.entries.iter().position(|entry| entry.is_for(tag, state, first)) {
            Some(at) => {
                let due = self.purity == Purity::Always || self.entries[at].is_check_due(batches.len());
                if due {
                    let recorded = record(&self.device, &self.options, state, first, &f)?;
                    if let Some((why, place)) = self.entries[at].signature.difference(&recorded.signature) {
                        return Err(Error::new(ErrorKind::StepChanged { why, place }));
                    }
                }
                // The latest is kept last.
                self.entries[at..].rotate_left(1);
            }
            None => {
                let recorded = record(&self.device, &self.options, state, first, &f)?;
                let model = self.entries.iter().find(|entry| entry.is_larger(tag, &recorded));
                let mut entry = Entry::new(&self.device, tag, recorded, model, &self.options, self.budget)?;
                entry.will_upload(state, first);
                entry.labels = self.labels.clone();
                if self.entries.len() == PLANS {
                    self.entries.remove(0);
                }
                self.entries.push(entry);
            }
        }
        let Some(entry) = self.entries.last_mut() else { return Ok(()) };
        if !batches[1..].iter().all(|batch| entry.takes(batch)) {
            return Err(Error::state("batches that run in one submission must be alike"));
        }
        entry.settle(&self.device, state, &self.memory, batches.len())?;
        // Where the memory grew, the other plans do not keep what they had before.
        let older = self.entries.len() - 1;
        self.entries[..older].iter_mut().for_each(|entry| entry.let_go_of_outgrown(&self.memory));
        Ok(())
    }

    /// Computes what state and batches hold as graphs; an error if any of it lies on another device.
    fn evaluate<S: Tree, B: Tree>(&self, state: &S, batches: &[B]) -> Result<()> {
        let mut pending = Vec::new();
        let mut failed = None;
        let mut look = |tensor: &Tensor, copied: bool| match tensor.node() {
            Ok((node, output)) => match node.value(output) {
                // Before anything moves, and whether or not the host remembers the value too: that depends on its size.
                Value { device: Some(slot), .. } if slot.buffer.device() != self.device => {
                    let what = "a tensor of the state or batch lies on another device than the step runs on".into();
                    failed.get_or_insert(Error::new(ErrorKind::Device { what, place: Some(node.place().clone()) }));
                }
                value if value.is_known() => {}
                // Rows of a data set on this device are copied from where they lie.
                _ if copied && seen_on_device(tensor).is_some_and(|slot| slot.buffer.device() == self.device) => {}
                _ => pending.push(tensor.clone()),
            },
            Err(error) => failed = failed.take().or(Some(error)),
        };
        state.visit(&mut |tensor| look(tensor, false));
        batches.iter().for_each(|batch| batch.visit(&mut |tensor| look(tensor, true)));
        match failed {
            Some(error) => Err(error),
            None => evaluate(&self.device, &pending, &self.options).map(drop),
        }
    }

    /// Encodes one replay of the last entry for each batch.
    fn encode<B: Tree>(&mut self, encoder: &mut Encoder, batches: &[B]) -> Result<Logs> {
        let Some(entry) = self.entries.last_mut() else { return Ok(Logs::default()) };
        entry.encode(encoder, batches)?;
        entry.ran(batches.len());
        Ok(entry.logs())
    }
}
