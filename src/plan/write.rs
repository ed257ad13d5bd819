//! Writes the kernels of a program and of the loops in it, and says what a replay does with them.
//!
//! A loop whose turn is one workgroup becomes one dispatch; any other one becomes a list of dispatches that is encoded once
//! for each turn. Deliberately absent: pipelines and bind groups, which are made of what is written here.

use std::sync::Arc;

use super::report::Loop;
use crate::collections::Table;
use crate::error::Result;
use crate::gpu::{Buffer, Device};
use crate::graph::Slot;
use crate::lower::kernel::{Context, Kernel};
use crate::lower::loops::{Looped, share};
use crate::lower::program::Id;
use crate::lower::schedule::Job;
use crate::lower::turns::{Stride, Turns, Way};
use crate::lower::{Compiled, Target};

/// What a replay does, in order.
pub(super) enum Act {
    /// A dispatch, and where in the table of turns its own are, if it runs those of a whole loop.
    Dispatch(usize, Option<Turned>),
    /// Copies bytes.
    Copy(Slot, Slot, u64),
    /// Does so many times what follows it.
    Loop(usize, Vec<Act>),
}

/// Which turns one dispatch runs.
#[derive(Clone, Copy)]
pub(super) enum Turned {
    /// As many as there are replays at once.
    Replays,
    /// All of a loop: the number of the entry that says so.
    All(usize),
}

/// What a dispatch is for.
pub(super) struct Origin {
    /// The loop that it belongs to, the innermost.
    pub looped: Option<Arc<Looped>>,
    pub job: Job,
    /// Turns of that loop that it runs.
    pub turns: u64,
}

impl Origin {
    /// The program that its job is part of.
    pub fn compiled<'a>(&'a self, whole: &'a Compiled) -> &'a Compiled {
        self.looped.as_ref().map_or(whole, |looped| &looped.compiled)
    }
}

/// What it takes to run a plan several times in one dispatch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replays<'a> {
    /// What lies at another place in each replay.
    pub strides: &'a Table<Id, Stride>,
    /// Replays at most.
    pub most: usize,
}

/// What kernels are written from, for any loop or none.
fn context<'a>(
    compiled: &'a Compiled,
    slots: &'a Table<Id, Slot>,
    target: &'a Target,
) -> impl Fn(Option<Turns<'a>>) -> Context<'a> {
    move |turns| Context {
        program: &compiled.program,
        fused: &compiled.fused,
        forms: compiled.forms.as_ref().unwrap_or(&compiled.fused),
        wide: &compiled.wide,
        slots,
        target,
        turns,
    }
}

/// Writes the kernels of a program and of the loops in it.
pub(super) struct Writer<'a> {
    pub device: &'a Device,
    pub target: &'a Target,
    pub replays: Option<Replays<'a>>,
    pub kernels: Vec<Kernel>,
    pub origins: Vec<Origin>,
    pub loops: Vec<Loop>,
    /// Temporaries of loops by how deep they are: loops beside each other run one after the other.
    pub scratch: Vec<Vec<(u64, Buffer)>>,
    /// Replays that one dispatch may run.
    pub most: usize,
    /// Turns of the loops that run within a dispatch.
    pub whole: Vec<usize>,
    /// Turns at most of those that do not.
    pub turns: usize,
}

impl Writer<'_> {
    /// What a replay of a program does, whose leaves and results lie in `slots`.
    pub fn program(
        &mut self,
        compiled: &Compiled,
        slots: &Table<Id, Slot>,
        looped: Option<&Arc<Looped>>,
        depth: usize,
    ) -> Result<Vec<Act>> {
        let mut slots = slots.clone();
        for looped in compiled.loops.values() {
            for (begins, ends) in &looped.carried {
                if let Some(slot) = ends.and_then(|ends| slots.get(&ends)).cloned() {
                    slots.insert(*begins, slot);
                }
            }
        }
        let context = context(compiled, &slots, self.target);
        // One replay at a time needs no loop, which costs a small step a twentieth of its time.
        let together = self.replays.filter(|replays| depth == 0 && replays.most > 1);
        if let Some((replays, job)) = together.zip(compiled.workgroup()) {
            let turns = Turns { strides: replays.strides, copies: &compiled.copies, way: Way::Inside };
            let kernels = context(Some(turns)).kernels(&job)?;
            // Where it would bind too many buffers it is no longer one dispatch.
            if let [(job, kernel)] = &kernels[..] {
                self.most = replays.most;
                let origin = Origin { looped: None, job: job.clone(), turns: 1 };
                return Ok(vec![self.dispatch(kernel.clone(), origin, Some(Turned::Replays))]);
            }
        }
        let context = context(looped.map(|looped| Turns { strides: &looped.strides, copies: &[], way: Way::Outside }));
        let mut acts = Vec::new();
        for job in &compiled.schedule.jobs {
            match job.groups()[..] {
                [group] if compiled.loops.contains_key(&group) => {
                    acts.extend(self.looped(&compiled.loops[&group], &slots, depth + 1)?);
                }
                _ => {
                    for (job, kernel) in context.kernels(job)? {
                        let origin = Origin { looped: looped.cloned(), job, turns: 1 };
                        acts.push(self.dispatch(kernel, origin, None));
                    }
                }
            }
        }
        for (value, leaf) in &compiled.copies {
            if let (Some(from), Some(to)) = (slots.get(value), slots.get(leaf)) {
                acts.push(Act::Copy(from.clone(), to.clone(), compiled.program.vals[*value].bytes()));
            }
        }
        Ok(acts)
    }

    fn dispatch(&mut self, kernel: Kernel, origin: Origin, turned: Option<Turned>) -> Act {
        self.kernels.push(kernel);
        self.origins.push(origin);
        Act::Dispatch(self.kernels.len() - 1, turned)
    }

    /// What a loop does, in one dispatch if a turn is one workgroup.
    fn looped(&mut self, looped: &Arc<Looped>, outer: &Table<Id, Slot>, depth: usize) -> Result<Vec<Act>> {
        let compiled = &looped.compiled;
        let mut slots = Table::new();
        for (inner, place) in &looped.places {
            slots.extend(outer.get(place).map(|slot| (*inner, slot.clone())));
        }
        // The outermost loops are one deep.
        let buffers = self.scratch(&compiled.placement.buffers, depth - 1)?;
        for (&id, range) in &compiled.placement.ranges {
            slots.insert(id, Slot { buffer: buffers[range.buffer].clone(), offset: range.offset });
        }
        for (value, leaf) in &compiled.schedule.in_place {
            if let Some(slot) = slots.get(leaf).cloned() {
                slots.insert(*value, slot);
            }
        }
        if let Some(job) = compiled.workgroup() {
            let turns = Turns { strides: &looped.strides, copies: &compiled.copies, way: Way::Inside };
            let kernels = context(compiled, &slots, self.target)(Some(turns)).kernels(&job)?;
            if let [(job, kernel)] = &kernels[..] {
                let label = format!("{} turns of {}", looped.length, kernel.label);
                let origin = Origin { looped: Some(looped.clone()), job: job.clone(), turns: looped.length as u64 };
                self.whole.push(looped.length);
                let turned = Turned::All(self.whole.len() - 1);
                return Ok(vec![self.dispatch(Kernel { label, ..kernel.clone() }, origin, Some(turned))]);
            }
        }
        let (first, at) = (self.kernels.len(), self.loops.len());
        self.loops.push(Loop { count: looped.length, lines: first..first });
        self.turns = self.turns.max(looped.length);
        let acts = self.program(compiled, &slots, Some(looped), depth)?;
        self.loops[at].lines.end = self.kernels.len();
        Ok(vec![Act::Loop(looped.length, acts)])
    }

    /// Buffers for the temporaries of a loop.
    fn scratch(&mut self, sizes: &[u64], depth: usize) -> Result<Vec<Buffer>> {
        self.scratch.resize_with(self.scratch.len().max(depth + 1), Vec::new);
        let have = &mut self.scratch[depth];
        let known: Vec<u64> = have.iter().map(|(bytes, _)| *bytes).collect();
        let (taken, all) = share(known, sizes);
        for &bytes in &all[have.len()..] {
            have.push((bytes, self.device.alloc(bytes)?));
        }
        Ok(taken.into_iter().map(|at| have[at].1.clone()).collect())
    }
}
