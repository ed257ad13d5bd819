//! What a step tells of itself: its plan, the memory it takes, the time of its dispatches, and what each pass did.
//!
//! Deliberately absent: anything that a run needs.

use web_time::Instant;

use super::Step;
use super::entry::{Entry, stride};
use super::logs::{Logs, RING};
use super::record::record;
use crate::error::{ErrorKind, Result};
use crate::gpu::staged;
use crate::graph::display::Graph;
use crate::graph::{Spec, Tensor, Tree};
use crate::lower::pack::ALIGN;
use crate::plan::expression::{Names, Writer};
use crate::plan::{Explanation, Given, HostSpan, Memory, Plan, Profile, Role};

/// Bytes as they are allocated.
fn aligned(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(ALIGN)
}

impl Entry {
    /// The plan, if it is bound.
    pub fn plan(&self) -> Option<&Plan> {
        let bound = self.bound.as_ref()?;
        Some(self.described.get_or_init(|| bound.describe(&self.compiled, &self.outside())))
    }

    /// What a leaf of the state is called.
    pub fn label(&self, at: usize) -> String {
        self.labels.get(at).cloned().unwrap_or_else(|| format!("s{at}"))
    }

    /// Notes what state and batch upload.
    pub fn will_upload(&mut self, state: &impl Tree, batch: &impl Tree) {
        let is_away = |tensor: &Tensor| tensor.node().is_ok_and(|(node, output)| node.value(output).device.is_none());
        let bytes = |tensor: &Tensor| tensor.spec().filter(|_| is_away(tensor)).map_or(0, Spec::bytes);
        let captured = self.captured.iter().map(|(_, tensor)| bytes(tensor));
        let first = state.leaves().iter().map(bytes).chain(captured).collect();
        // A batch that holds host data is uploaded at each run, wherever else it lies.
        let is_host = |tensor: &Tensor| tensor.node().is_ok_and(|(node, output)| node.value(output).host.is_some());
        let each = |tensor: &Tensor| tensor.spec().filter(|_| is_host(tensor)).map_or(0, Spec::bytes);
        self.uploads = [first, batch.leaves().iter().map(each).collect()];
    }

    /// The memory that the step takes; what sizes and scalars take is estimated.
    pub fn memory(&self) -> Memory {
        let sum = |specs: &[Spec]| specs.iter().map(|spec| aligned(spec.bytes())).sum::<u64>();
        let steps = self.room_steps().max(1) as u64;
        let inputs: u64 = self.batch.iter().map(|spec| aligned(stride(spec) * steps)).sum();
        let captured = self.captured.iter().filter_map(|(_, tensor)| tensor.spec().cloned()).collect::<Vec<_>>();
        let logs = self.given[1].len() as u64 * ALIGN * (RING + steps);
        Memory {
            state: sum(&self.state),
            inputs: inputs.max(ALIGN),
            captured: sum(&captured),
            logs,
            temporaries: self.compiled.temporaries().into_iter().map(aligned).sum(),
            uniforms: self.compiled.schedule.jobs.len() as u64 * ALIGN,
            staging: staged(&self.uploads[0], &self.uploads[1]),
        }
    }

    /// What is known of the values that come from outside.
    pub(super) fn outside(&self) -> Given {
        let mut names = Names::default();
        let mut roles = Vec::new();
        let mut give = |id, name: String, spec: Option<&Spec>, role| {
            names.names.or_insert(id, name);
            if let Some(spec) = spec {
                names.specs.insert(id, spec.clone());
            }
            roles.push((id, role));
        };
        for (at, (&id, spec)) in self.leaves.iter().zip(&self.state).enumerate() {
            give(id, self.label(at), Some(spec), Role::State);
        }
        for (at, (&id, spec)) in self.given[0].iter().zip(&self.batch).enumerate() {
            give(id, format!("x{at}"), Some(spec), Role::Input);
        }
        for (at, (id, tensor)) in self.captured.iter().enumerate() {
            give(*id, format!("c{at}"), tensor.spec(), Role::Captured);
        }
        for (&id, name) in self.given[1].iter().zip(&self.names) {
            give(id, name.clone(), None, Role::Log);
        }
        Given { names, roles, memory: self.memory() }.with_results(&self.compiled)
    }
}

impl Step {
    /// Calls the leaves of the state by these names in plans and messages, in the order of [`Tree::visit`]; without
    /// names they are `s0`, `s1`... Inputs are `x0`, `x1`..., captured tensors `c0`, `c1`...
    pub fn named(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Step {
        self.names(names);
        self
    }

    /// [`named`](Step::named), of a step that exists.
    pub(crate) fn names(&mut self, names: impl IntoIterator<Item = impl Into<String>>) {
        self.labels = names.into_iter().map(Into::into).collect::<Vec<_>>().into();
        for entry in &mut self.entries {
            entry.labels = self.labels.clone();
            entry.described = Default::default();
        }
    }

    /// The plan for such a state and batch, bound to memory and ready to run; nothing is run. The state is brought to the
    /// device.
    ///
    /// # Errors
    /// Those of [`run`](Step::run).
    pub fn plan_for<S: Tree, B: Tree>(
        &mut self,
        state: &mut S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Plan> {
        self.prepare(0, state, std::slice::from_ref(batch), f)?;
        Ok(self.plan().cloned().unwrap_or_default())
    }

    /// The memory that runs on such a state and batch take. Records and compiles, but allocates nothing of it: a way to ask
    /// whether a model or a batch fits.
    ///
    /// ```
    /// use wengert::prelude::*;
    ///
    /// let (mut step, state) = (Step::new(&Device::blocking()?), Tensor::zeros([1000, 1000]));
    /// let f = |s: Tensor, x: &Tensor| Ok((Logs::default(), x.matmul(&s).tanh().matmul(&s.t())));
    /// let memory = step.memory(&state, &Tensor::ones([1000, 1000]), f)?;
    /// println!("{memory}");
    /// assert!(memory.total() >= 3 * 4_000_000);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of recording and compiling.
    pub fn memory<S: Tree, B: Tree>(
        &mut self,
        state: &S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Memory> {
        self.memory_tagged(0, state, batch, f)
    }

    /// [`memory`](Step::memory), of the form of the function that has a tag.
    pub(crate) fn memory_tagged<S: Tree, B: Tree>(
        &mut self,
        tag: u64,
        state: &S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Memory> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.is_for(tag, state, batch)) {
            return Ok(entry.plan().map_or_else(|| entry.memory(), |plan| *plan.memory()));
        }
        let recorded = record(&self.device, &self.options, state, batch, &f)?;
        let mut entry = Entry::new(&self.device, tag, recorded, None, &self.options, self.budget)?;
        entry.will_upload(state, batch);
        Ok(entry.memory())
    }

    /// What each pass of the compiler makes of the function, for such a state and batch. Nothing is run; the state is
    /// brought to the device.
    ///
    /// # Errors
    /// Those of [`run`](Step::run).
    pub fn explain<S: Tree, B: Tree>(
        &mut self,
        state: &mut S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Explanation> {
        self.prepare(0, state, std::slice::from_ref(batch), &f)?;
        let recorded = record(&self.device, &self.options, state, batch, &f)?;
        let mut passes = vec![("graph", Graph::of(&recorded.outputs)?.to_string())];
        if let Some(entry) = self.entries.last() {
            let outside = entry.outside();
            passes.extend(crate::plan::passes(&entry.compiled, &Writer::new(&entry.compiled.program, &outside.names)));
        }
        let first = self.plan().and_then(|plan| plan.lines.first()).map(|line| line.source.clone());
        passes.push(("kernel", first.unwrap_or_default()));
        Ok(Explanation { passes })
    }

    /// Runs the function once and times each dispatch, beside the device's [ceilings](crate::gpu::Device::ceilings).
    ///
    /// # Errors
    /// Those of [`run`](Step::run), and [`ErrorKind::Argument`] where the device has no
    /// timestamps.
    pub async fn profile<S: Tree, B: Tree>(
        &mut self,
        state: &mut S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Profile> {
        let batches = std::slice::from_ref(batch);
        let begin = Instant::now();
        let mut host: Vec<HostSpan> = Vec::new();
        let mut note = |name: &'static str| {
            let start = host.last().map_or(0.0, |span| span.start + span.seconds);
            host.push(HostSpan { name, start, seconds: begin.elapsed().as_secs_f64() - start });
        };
        self.prepare(0, state, batches, f)?;
        note("prepare");
        let mut encoder = self.device.encoder_profiled()?;
        self.encode(&mut encoder, batches)?;
        note("encode");
        let submission = encoder.submit()?;
        note("submit");
        let spans = submission.spans().await?;
        let spans = match self.entries.last().and_then(|entry| entry.bound.as_ref()) {
            Some(bound) => bound.by_line(&spans),
            None => spans,
        };
        let ceilings = match self.device.ceilings().await {
            // A device that is full is no reason to lose the times.
            Err(error) if matches!(error.kind(), ErrorKind::OutOfMemory { .. }) => None,
            measured => Some(measured?),
        };
        let plan = self.plan().cloned().unwrap_or_default();
        Ok(Profile { plan, spans, host, ceilings })
    }
}
