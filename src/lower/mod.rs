//! The compiler: from recorded nodes to the text and order of dispatches.
//!
//! Floor 1. Passes run in the order of this list, each a plain function whose result can be printed:
//! `build` flattens nodes to a [`program`] and folds views, [`fuse`] decides what is stored and which kernel computes it, [`pack`]
//! finds kernels that differ only in their tensors (an optimizer's), [`schedule`] orders them and joins small ones
//! into shared dispatches, [`place`] gives every stored value a range of a buffer, `kernel` writes the WGSL.
//! The compiler matches on [`crate::graph::Lowering`] alone. Deliberately absent: any name of an op, and any wgpu
//! object; those meet in `plan`.

mod bindings;
mod build;
mod columns;
pub mod emit;
pub mod free;
pub mod fuse;
pub mod gemm;
mod gemm_text;
mod index;
pub(crate) mod kernel;
pub mod loops;
mod own;
pub mod pack;
pub mod place;
mod product;
pub mod program;
pub mod recording;
pub mod remat;
mod rows;
pub mod schedule;
pub mod space;
pub mod turns;

/// What the compiler needs to know of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Adapter class, for the choice of kernel families.
    pub class: crate::gpu::Class,
    /// The one subgroup size every shader runs with, where subgroup operations may be used.
    pub subgroup: Option<u32>,
    /// Storage buffers one dispatch may bind.
    pub bindings: usize,
    /// Largest binding in bytes.
    pub binding_bytes: u64,
    /// Variants of kernels that were measured to be best there.
    pub choices: crate::gpu::Choices,
}

/// Choices a caller may make; the defaults are what training uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Fuse; otherwise every op is a dispatch of its own (the tests compare both).
    pub fuse: bool,
    /// Where temporaries live.
    pub strategy: place::Strategy,
}

impl Default for Options {
    fn default() -> Options {
        Options { fuse: true, strategy: place::Strategy::Whole }
    }
}

use crate::collections::{Set, Sorted, Table};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use fuse::{Buffers, Fused};
use loops::Looped;
use pack::{Pack, Wide};
use place::Placement;
use program::{Id, Kind, Program};
use schedule::{Job, Schedule};

/// What a program is compiled for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Leaves of the state with the values that replace them; a leaf that stays is not listed.
    pub replaces: Vec<(Id, Id)>,
    /// All leaves of the state: they may be laid out anew.
    pub state: Set<Id>,
    /// Values that are given a place by the caller: logs and results.
    pub results: Vec<Id>,
}

/// A compiled program: everything but buffers.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The values.
    pub program: Program,
    /// Which kernel computes which.
    pub fused: Fused,
    /// The kernels of the larger batch whose forms these have, if it is not the first of its kind.
    pub forms: Option<Fused>,
    /// What it was compiled for.
    pub request: Request,
    /// Kernels that stand for several.
    pub wide: Table<usize, Wide>,
    /// Leaves of the state that must lie one behind the other.
    pub layouts: Vec<Pack>,
    /// All leaves of the state must lie in one buffer, or some kernel would bind too many.
    pub together: bool,
    /// The loops, by group.
    pub loops: Table<usize, Arc<Looped>>,
    /// The order of dispatches.
    pub schedule: Schedule,
    /// Where temporaries live.
    pub placement: Placement,
    /// Values copied over the leaf they replace when everything has run.
    pub copies: Vec<(Id, Id)>,
}

/// Runs all passes.
pub fn compile(program: Program, request: &Request, target: &Target, options: &Options) -> Result<Compiled> {
    let cap = target.bindings.min(16);
    let apart = Buffers { cap, carried: rows::carried(target), ..Buffers::default() };
    let bytes = request.state.iter().map(|&id| program.vals[id].bytes().max(1).next_multiple_of(pack::ALIGN));
    if options.fuse && !request.state.is_empty() && bytes.sum::<u64>() <= target.binding_bytes {
        // The state can lie in one buffer. Where that lets a kernel touch more tensors than may be bound, it has to.
        let replacing = request.replaces.iter().map(|&(_, value)| value);
        let state = request.state.iter().copied().chain(replacing).collect();
        let joint = Buffers { state, ..apart.clone() };
        let mut compiled = fused(program, request, target, options, &joint)?;
        compiled.together = !compiled.binds_at_most(cap, false);
        if !compiled.together || compiled.binds_at_most(cap, true) {
            return Ok(compiled);
        }
        return fused(compiled.program, request, target, options, &apart);
    }
    fused(program, request, target, options, &apart)
}

/// Runs all passes, with one way of counting buffers.
fn fused(
    program: Program,
    request: &Request,
    target: &Target,
    options: &Options,
    buffers: &Buffers,
) -> Result<Compiled> {
    let packing = options.fuse && !request.state.is_empty();
    let fused = fuse::fuse(&program, options.fuse, buffers);
    within(&program, &fused, target)?;
    if packing {
        let mut packed = fused.clone();
        let mut pinned: Set<Id> = request.results.iter().copied().collect();
        pinned.extend(program.carried());
        let most = target.binding_bytes;
        let packs = pack::pack(&program, &mut packed, &request.state, &request.replaces, &pinned, most);
        let schedule = schedule::schedule(&program, &packed, &request.replaces, true, &packs.wide);
        // A packed kernel writes over all of its leaves or over none.
        let written = |group: &usize| {
            let replaced = |id: &&Id| request.replaces.iter().any(|(_, value)| value == *id);
            packed.groups[*group].outputs.iter().filter(replaced).all(|id| schedule.in_place.contains_key(id))
        };
        if packs.wide.keys().all(written) && schedule.is_whole(&packed) {
            return finish(program, packed, packs, schedule, request, target, options);
        }
    }
    let schedule = schedule::schedule(&program, &fused, &request.replaces, options.fuse, &Table::new());
    if !schedule.is_whole(&fused) {
        if !buffers.thorough {
            return self::fused(program, request, target, options, &Buffers { thorough: true, ..buffers.clone() });
        }
        return Err(Error::new(ErrorKind::Validation {
            why: "kernels wait for each other, a defect of the compiler".into(),
        }));
    }
    finish(program, fused, pack::Packs::default(), schedule, request, target, options)
}

fn finish(
    program: Program,
    fused: Fused,
    packs: pack::Packs,
    schedule: Schedule,
    request: &Request,
    target: &Target,
    options: &Options,
) -> Result<Compiled> {
    let loops = loops::loops(&program, &fused, target, options)?;
    let (layouts, temporaries): (Vec<Pack>, Vec<Pack>) =
        packs.packs.into_iter().partition(|pack| request.state.contains(&pack[0]));
    let copies: Vec<(Id, Id)> = (request.replaces.iter())
        .filter(|(leaf, value)| schedule.in_place.get(value) != Some(leaf))
        .map(|&(leaf, value)| (value, leaf))
        .collect();
    let fixed = |id: Id| schedule.in_place.contains_key(&id) || request.results.contains(&id);
    let kept: Vec<Id> = copies.iter().map(|c| c.0).collect();
    let stop = |id: Id| fused.is_member(id);
    let reads = |group: usize| {
        let space = fused.groups[group].space;
        let members = fused.groups[group].members.iter();
        members
            .flat_map(|&m| space::reads(&program, &stop, m, space::level(&program, m, space), space))
            .map(|r| r.0)
            .collect()
    };
    let carried: Vec<(Id, Id)> =
        loops.values().flat_map(|l| l.carried.iter().filter_map(|&(first, last)| Some((first, last?)))).collect();
    let inside = |group: usize| loops.get(&group).map_or(0, |looped| looped.compiled.placement.live);
    let lives = place::Lives { fixed: &fixed, kept: &kept, carried: &carried, reads: &reads, inside: &inside };
    let limit = target.binding_bytes;
    let placement = place::place(&program, &fused, &schedule, &temporaries, &lives, options.strategy, limit);
    let request = request.clone();
    let (wide, forms, together) = (packs.wide, None, false);
    Ok(Compiled { wide, layouts, together, copies, placement, program, fused, forms, request, loops, schedule })
}

impl Compiled {
    /// The products that kernels are chosen for, those inside loops as well.
    pub fn products(&self, target: &Target) -> Vec<gemm::Problem> {
        let Compiled { program, fused, forms, wide, loops, .. } = self;
        let slots = Table::new();
        let forms = forms.as_ref().unwrap_or(fused);
        let context = kernel::Context { program, fused, forms, wide, slots: &slots, target, turns: None };
        let own = (0..fused.groups.len()).filter_map(|group| context.problem(group));
        own.chain(loops.values().flat_map(|looped| looped.compiled.products(target))).collect()
    }

    /// Whether no group alone binds more than `cap` buffers; `together` if the state lies in one. Inputs, results and
    /// captured tensors count as a buffer each.
    fn binds_at_most(&self, cap: usize, together: bool) -> bool {
        let Compiled { program, fused, request, schedule, placement, wide, .. } = self;
        let stop = |id: Id| fused.is_member(id) || matches!(program.vals[id].kind, Kind::Leaf(_));
        let place = |id: Id| {
            let id = schedule.in_place.get(&id).copied().unwrap_or(id);
            match placement.ranges.get(&id) {
                Some(range) => (0, range.buffer),
                None if together && request.state.contains(&id) => (1, 0),
                None => (2, id),
            }
        };
        // A loop binds nothing itself: the kernels of its body do, for which every tensor counts.
        let mut kernels = fused.groups.iter().enumerate().filter(|(_, group)| group.space != space::Space::Loop);
        kernels.all(|(index, group)| {
            // A group that stands for several runs as the first of them, over packs.
            let first = wide.get(&index).map_or(group.members.len(), |wide| {
                let last = wide.outputs.iter().max().copied().unwrap_or(0);
                group.members.iter().position(|&member| member > last).unwrap_or(group.members.len())
            });
            let outputs = wide.get(&index).map_or(&group.outputs, |wide| &wide.outputs);
            let mut places = Sorted::from_iter(outputs.iter().map(|&id| place(id)));
            for &member in &group.members[..first] {
                let level = space::level(program, member, group.space);
                let reads = space::reads(program, &stop, member, level, group.space).into_iter();
                places.extend(reads.filter(|(id, _)| !group.members.contains(id)).map(|(id, _)| place(id)));
            }
            places.len() <= cap
        })
    }

    /// Bytes of the buffers for temporaries: those of the placement, then those of the loops.
    pub fn temporaries(&self) -> Vec<u64> {
        [self.placement.buffers.clone(), loops::scratch(self).concat()].concat()
    }

    /// The same kernels for the same graph with a smaller batch; `None` if that is not what `program` is. Nothing is
    /// decided anew, temporaries included, so that a last partial batch needs neither pipelines nor memory.
    pub fn smaller(&self, program: Program, request: &Request) -> Option<Compiled> {
        let same = self.request == *request
            && self.program.roots == program.roots
            && self.program.vals.len() == program.vals.len()
            && self.program.vals.iter().zip(&program.vals).all(|(a, b)| a.is_like(b));
        if !same {
            return None;
        }
        let mut fused = self.fused.clone();
        // What leaves are read at decides which of them may be overwritten.
        let stop = |id: Id| fused.group_of[id].is_some() || matches!(program.vals[id].kind, Kind::Leaf(_));
        let mut spaces = Vec::with_capacity(fused.groups.len());
        for (index, group) in fused.groups.iter().enumerate() {
            if matches!(group.space, space::Space::Loop | space::Space::Kernel) {
                spaces.push(group.space);
                continue;
            }
            // A group that stands for several has the members of all.
            if self.wide.contains_key(&index) {
                if group.members.iter().any(|&m| program.vals[m].numel != self.program.vals[m].numel) {
                    return None;
                }
                spaces.push(group.space);
                continue;
            }
            let own = |&m: &Id| space::of(&program.vals[m]);
            let rides = |m: &Id| space::level(&self.program, *m, group.space) == space::Level::Column;
            let space = match group.space {
                space::Space::Elements(_) => own(&group.members[0]),
                _ => {
                    let mut spaces = group.members.iter().filter(|m| !rides(m)).map(own);
                    spaces.find(|space| !matches!(space, space::Space::Elements(_)))?
                }
            };
            // A row kernel takes as many steps as its own rows need, and has no columns.
            let form = self.forms.as_ref().map_or(group.space, |forms| forms.groups[index].space);
            if let (space::Space::Folded { length: most, .. }, space::Space::Folded { length, inner, .. }) =
                (form, space)
                && kernel::is_cooperative(form)
                && (length > most || inner != 1)
            {
                return None;
            }
            // Everything must be read at the index it was read at.
            for &m in &group.members {
                let reads = |p: &Program, s| space::reads(p, &stop, m, space::level(p, m, s), s);
                if reads(&self.program, group.space) != reads(&program, space) {
                    return None;
                }
                let (level, before) = (space::level(&program, m, space), space::level(&self.program, m, group.space));
                let numel = match level {
                    space::Level::Full => space.full(),
                    space::Level::Column => own(&m).reduced()?,
                    _ => space.reduced()?,
                };
                if level != before || program.vals[m].numel != numel {
                    return None;
                }
            }
            spaces.push(space);
        }
        for (group, space) in fused.groups.iter_mut().zip(spaces) {
            group.space = space;
        }
        let loops = loops::smaller(&program, &fused, &self.loops)?;
        let forms = self.forms.as_ref().unwrap_or(&self.fused).clone();
        Some(Compiled { program, fused, forms: Some(forms), loops, ..self.clone() })
    }

    /// The one workgroup that all of it is, if it is so small: its turns may then run within one dispatch.
    pub fn workgroup(&self) -> Option<Job> {
        if self.copies.iter().any(|&(_, leaf)| self.program.vals[leaf].numel > schedule::SMALL) {
            return None;
        }
        match &self.schedule.jobs[..] {
            [Job::Region(levels)] => Some(Job::Region(levels.clone())),
            [Job::Single(group)] => {
                let space = self.fused.groups[*group].space;
                let work = self.wide.get(group).map_or_else(|| space.work(), |wide| wide.elements);
                (work <= schedule::SMALL).then(|| Job::Region(vec![vec![*group]]))
            }
            _ => None,
        }
    }
}

/// An error where the device cannot hold or index what the kernels run over.
fn within(program: &Program, fused: &Fused, target: &Target) -> Result<()> {
    for val in &program.vals {
        let leaves = val.inputs.iter().map(|&input| &program.vals[input]);
        let largest = leaves.filter(|leaf| matches!(leaf.kind, Kind::Leaf(_))).map(|leaf| leaf.bytes()).max();
        if let Some(need) = largest.filter(|&bytes| bytes > target.binding_bytes) {
            let what = format!("the bytes of an operand of {} ({})", val.name, val.place);
            return Err(Error::new(ErrorKind::Limit { what, need, have: target.binding_bytes }));
        }
    }
    for group in &fused.groups {
        let val = &program.vals[group.members[0]];
        let limit = |what: &str, need: u64, have: u64| {
            let what = format!("{what} of {} ({})", val.name, val.place);
            if need > have { Err(Error::new(ErrorKind::Limit { what, need, have })) } else { Ok(()) }
        };
        // Indices are u32, and so is what elements are counted by in a page.
        limit("the elements", group.space.full() as u64, u64::from(u32::MAX) - 1)?;
        let mut outputs = group.outputs.iter();
        outputs.try_for_each(|&output| limit("the bytes", program.vals[output].bytes(), target.binding_bytes))?;
    }
    Ok(())
}

#[cfg(all(test, feature = "reference", not(target_arch = "wasm32")))]
mod tests;
