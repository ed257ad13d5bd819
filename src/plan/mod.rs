//! A compiled program bound to buffers: the flat list of dispatches that a replay encodes.
//!
//! Floor 1. `Bound` is made once: it allocates temporaries, writes the kernels for the buffers at hand, creates
//! pipelines, bind groups and one uniform buffer for all sizes and scalars. Replaying it creates nothing.
//! [`Plan`] is what people print. Deliberately absent: recording and state, see `step`; and any decision about what
//! is computed where, see `lower`.

mod report;

pub use report::{Line, Loop, Plan, Profile};

use std::collections::HashMap;

use crate::error::Result;
use crate::gpu::{Access, BindGroup, Buffer, Device, Encoder, Pipeline, Range};
use crate::graph::Slot;
use crate::lower::kernel::{Binding, Context, Kernel};
use crate::lower::loops::Looped;
use crate::lower::program::Id;
use crate::lower::turns::{Stride, Turns, Way};
use crate::lower::{Compiled, Target};

/// Uniform ranges start at multiples of this many bytes, which every adapter accepts.
const UNIFORM_ALIGN: usize = 256;

impl Target {
    /// What the compiler needs to know of `device`.
    pub fn of(device: &Device) -> Target {
        let limits = device.limits();
        Target {
            class: device.class(),
            subgroup: device.subgroup_size(),
            bindings: limits.max_storage_buffers_per_shader_stage as usize,
            binding_bytes: limits.max_storage_buffer_binding_size,
        }
    }
}

/// One prepared dispatch.
struct Item {
    pipeline: Pipeline,
    group: BindGroup,
    grid: [u32; 3],
    /// Whether it asks which turn of a loop it is.
    turns: bool,
}

/// What a replay does, in order.
enum Act {
    /// A dispatch, and where in the table of turns its own are, if it runs those of a whole loop.
    Dispatch(usize, Option<Turned>),
    /// Copies bytes.
    Copy(Slot, Slot, u64),
    /// Does so many times what follows it.
    Loop(usize, Vec<Act>),
}

/// Which turns one dispatch runs.
#[derive(Clone, Copy)]
enum Turned {
    /// As many as there are replays at once.
    Replays,
    /// All of a loop: the number of the entry that says so.
    All(usize),
}

/// What it takes to run a plan several times in one dispatch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replays<'a> {
    /// What lies at another place in each replay.
    pub strides: &'a HashMap<Id, Stride>,
    /// Replays at most.
    pub most: usize,
}

/// A compiled program with its buffers, pipelines and bind groups.
pub(crate) struct Bound {
    items: Vec<Item>,
    acts: Vec<Act>,
    /// Where in the table of turns the single ones begin.
    singles: u32,
    /// Buffers that the bind groups refer to, kept alive: those of the plan's placement, then others.
    buffers: Vec<Buffer>,
    temporaries: usize,
    most: usize,
    /// What it looks like.
    pub plan: Plan,
}

impl Bound {
    /// Binds a compiled program. `given` are the places of leaves and results; `temporaries` are buffers for the plan's
    /// placement, if there are any already. With `replays`, a plan that is one workgroup runs as many in one dispatch.
    pub fn new(
        device: &Device,
        compiled: &Compiled,
        given: &HashMap<Id, Slot>,
        temporaries: &[Buffer],
        replays: Option<Replays>,
    ) -> Result<Bound> {
        let mut slots = given.clone();
        let mut buffers = temporaries.to_vec();
        for &bytes in &compiled.placement.buffers[buffers.len().min(compiled.placement.buffers.len())..] {
            buffers.push(device.alloc(bytes)?);
        }
        let own = buffers.len();
        for (&id, range) in &compiled.placement.ranges {
            slots.insert(id, Slot { buffer: buffers[range.buffer].clone(), offset: range.offset });
        }
        for (value, leaf) in &compiled.schedule.in_place {
            if let Some(slot) = given.get(leaf) {
                slots.insert(*value, slot.clone());
            }
        }
        let target = Target::of(device);
        let mut writer = Writer {
            device,
            target: &target,
            replays,
            kernels: Vec::new(),
            loops: Vec::new(),
            scratch: Vec::new(),
            most: 1,
            whole: Vec::new(),
            turns: 0,
        };
        let acts = writer.program(compiled, &slots, None, 0)?;
        let Writer { kernels, loops, scratch, most, whole, turns, .. } = writer;
        // All sizes and scalars of the plan share one buffer, written once.
        let mut words: Vec<u32> = Vec::new();
        for kernel in &kernels {
            for binding in &kernel.bindings {
                if let Binding::Uniform(own) = binding {
                    words.resize((words.len() * 4).next_multiple_of(UNIFORM_ALIGN) / 4, 0);
                    words.extend(own);
                }
            }
        }
        // First and last turn, for each dispatch that there may be: so many from the beginning, then one at a time.
        let table = (words.len() * 4).next_multiple_of(UNIFORM_ALIGN);
        let mut entries: Vec<[u32; 2]> = Vec::new();
        if kernels.iter().any(|kernel| kernel.bindings.iter().any(|binding| matches!(binding, Binding::Turns))) {
            entries.extend((1..=most as u32).map(|turns| [0, turns]));
            entries.extend(whole.iter().map(|&turns| [0, turns as u32]));
            entries.extend((0..turns as u32).map(|turn| [turn, turn + 1]));
        }
        let singles = (most + whole.len()) as u32;
        for entry in entries {
            words.resize((words.len() * 4).next_multiple_of(UNIFORM_ALIGN) / 4, 0);
            words.extend([entry[0], entry[1], 0, 0]);
        }
        let uniform = device.uniform(&words)?;
        let mut at = 0usize;
        let mut items = Vec::new();
        let mut lines = Vec::new();
        for kernel in kernels {
            let mut accesses = Vec::new();
            let mut ranges = Vec::new();
            for binding in kernel.bindings {
                match binding {
                    Binding::Uniform(own) => {
                        at = at.next_multiple_of(UNIFORM_ALIGN);
                        accesses.push(Access::Uniform);
                        ranges.push(Range::new(&uniform, at as u64, own.len() as u64 * 4));
                        at += own.len() * 4;
                    }
                    Binding::Storage(range, access) => {
                        accesses.push(access);
                        ranges.push(range);
                    }
                    Binding::Turns => {
                        accesses.push(Access::Turns);
                        ranges.push(Range::new(&uniform, table as u64, 16));
                    }
                }
            }
            let pipeline = device.pipeline(&kernel.label, &kernel.source, &accesses)?;
            let group = device.bind_group(&pipeline, &ranges);
            let turns = accesses.contains(&Access::Turns);
            items.push(Item { pipeline, group, grid: kernel.grid, turns });
            buffers.extend(ranges.into_iter().map(|range| range.buffer));
            let (label, grid, bytes, flops) = (kernel.label, kernel.grid, kernel.bytes, kernel.flops);
            lines.push(Line { label, grid, bytes, flops, source: kernel.source });
        }
        device.check()?;
        let plan = Plan {
            lines,
            loops,
            copies: acts.iter().filter(|act| matches!(act, Act::Copy(..))).count(),
            in_place: compiled.schedule.in_place.len(),
            temporaries: compiled
                .placement
                .buffers
                .iter()
                .chain(scratch.iter().flatten().map(|(bytes, _)| bytes))
                .sum(),
            live: compiled.placement.live,
        };
        buffers.extend(scratch.into_iter().flatten().map(|(_, buffer)| buffer));
        Ok(Bound { items, acts, singles, buffers, temporaries: own, most, plan })
    }

    /// The buffers of its placement, for plans that never run at the same time.
    pub fn temporaries(&self) -> Vec<Buffer> {
        self.buffers[..self.temporaries].to_vec()
    }

    /// How many replays may be encoded at once.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Encodes so many replays, one to [`most`](Bound::most).
    pub fn encode(&self, encoder: &mut Encoder, replays: usize) {
        self.act(&self.acts, encoder, replays, 0);
    }

    fn act(&self, acts: &[Act], encoder: &mut Encoder, replays: usize, turn: usize) {
        for act in acts {
            match act {
                Act::Dispatch(item, turned) => {
                    let item = &self.items[*item];
                    let entry = match turned {
                        Some(Turned::Replays) => replays as u32 - 1,
                        Some(Turned::All(entry)) => (self.most + entry) as u32,
                        None => self.singles + turn as u32,
                    };
                    let offset = item.turns.then_some(entry * UNIFORM_ALIGN as u32);
                    encoder.dispatch_at(&item.pipeline, &item.group, offset, item.grid);
                }
                Act::Copy(from, to, bytes) => {
                    encoder.copy(&from.buffer, from.offset, &to.buffer, to.offset, *bytes);
                }
                Act::Loop(count, acts) => (0..*count).for_each(|turn| self.act(acts, encoder, replays, turn)),
            }
        }
    }

    /// The lines of the plan that a replay's dispatches belong to, in order.
    pub fn order(&self) -> Vec<usize> {
        fn walk(acts: &[Act], order: &mut Vec<usize>) {
            for act in acts {
                match act {
                    Act::Dispatch(item, _) => order.push(*item),
                    Act::Copy(..) => {}
                    Act::Loop(count, acts) => (0..*count).for_each(|_| walk(acts, order)),
                }
            }
        }
        let mut order = Vec::new();
        walk(&self.acts, &mut order);
        order
    }
}

/// What kernels are written from, for any loop or none.
fn context<'a>(
    compiled: &'a Compiled,
    slots: &'a HashMap<Id, Slot>,
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
struct Writer<'a> {
    device: &'a Device,
    target: &'a Target,
    replays: Option<Replays<'a>>,
    kernels: Vec<Kernel>,
    loops: Vec<Loop>,
    /// Temporaries of loops by how deep they are: loops beside each other run one after the other.
    scratch: Vec<Vec<(u64, Buffer)>>,
    /// Replays that one dispatch may run.
    most: usize,
    /// Turns of the loops that run within a dispatch.
    whole: Vec<usize>,
    /// Turns at most of those that do not.
    turns: usize,
}

impl Writer<'_> {
    /// What a replay of a program does, whose leaves and results lie in `slots`.
    fn program(
        &mut self,
        compiled: &Compiled,
        slots: &HashMap<Id, Slot>,
        strides: Option<&HashMap<Id, Stride>>,
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
        if let Some((replays, job)) = self.replays.filter(|_| depth == 0).zip(compiled.workgroup()) {
            let mut kernels =
                context(Some(Turns { strides: replays.strides, copies: &compiled.copies, way: Way::Inside }))
                    .kernels(&job)?;
            // Where it would bind too many buffers it is no longer one dispatch.
            if kernels.len() == 1 {
                self.kernels.append(&mut kernels);
                self.most = replays.most;
                return Ok(vec![Act::Dispatch(self.kernels.len() - 1, Some(Turned::Replays))]);
            }
        }
        let context = context(strides.map(|strides| Turns { strides, copies: &[], way: Way::Outside }));
        let mut acts = Vec::new();
        for job in &compiled.schedule.jobs {
            match job.groups()[..] {
                [group] if compiled.loops.contains_key(&group) => {
                    acts.extend(self.looped(&compiled.loops[&group], &slots, depth + 1)?);
                }
                _ => {
                    for kernel in context.kernels(job)? {
                        acts.push(Act::Dispatch(self.kernels.len(), None));
                        self.kernels.push(kernel);
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

    /// What a loop does, in one dispatch if a turn is one workgroup.
    fn looped(&mut self, looped: &Looped, outer: &HashMap<Id, Slot>, depth: usize) -> Result<Vec<Act>> {
        let compiled = &looped.compiled;
        let mut slots = HashMap::new();
        for (inner, place) in &looped.places {
            slots.extend(outer.get(place).map(|slot| (*inner, slot.clone())));
        }
        let buffers = self.scratch(&compiled.placement.buffers, depth)?;
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
            if let [kernel] = &kernels[..] {
                let label = format!("{} turns of {}", looped.length, kernel.label);
                self.kernels.push(Kernel { label, ..kernel.clone() });
                self.whole.push(looped.length);
                return Ok(vec![Act::Dispatch(self.kernels.len() - 1, Some(Turned::All(self.whole.len() - 1)))]);
            }
        }
        let (first, at) = (self.kernels.len(), self.loops.len());
        self.loops.push(Loop { count: looped.length, lines: first..first });
        self.turns = self.turns.max(looped.length);
        let acts = self.program(compiled, &slots, Some(&looped.strides), depth)?;
        self.loops[at].lines.end = self.kernels.len();
        Ok(vec![Act::Loop(looped.length, acts)])
    }

    /// Buffers for the temporaries of a loop.
    fn scratch(&mut self, sizes: &[u64], depth: usize) -> Result<Vec<Buffer>> {
        self.scratch.resize_with(self.scratch.len().max(depth + 1), Vec::new);
        let mut taken = Vec::new();
        for &bytes in sizes {
            let free =
                |(at, (have, _)): (usize, &(u64, Buffer))| (*have >= bytes && !taken.contains(&at)).then_some(at);
            let at = match self.scratch[depth].iter().enumerate().find_map(free) {
                Some(at) => at,
                None => {
                    self.scratch[depth].push((bytes, self.device.alloc(bytes)?));
                    self.scratch[depth].len() - 1
                }
            };
            taken.push(at);
        }
        Ok(taken.into_iter().map(|at| self.scratch[depth][at].1.clone()).collect())
    }
}
