//! Finds kernels that differ only in the tensors they run over, and makes them one.
//!
//! An optimizer written per parameter records the same elementwise update once for each of them. If the tensors at
//! each place of the update (parameters, gradients, first and second moments) lie in the same order at the same
//! distances, the whole update is one kernel over one range. This pass finds such groups and says which tensors must
//! be laid out together; `place` and the step's state do so. Deliberately absent: knowledge of optimizers; any
//! elementwise update of several tensors packs.

use crate::collections::{Set, Sorted, Table};
use std::fmt::Write;
use std::ops::Range;

use super::fuse::{Fused, dependencies};
use super::program::{Id, Kind, Program};
use super::space::{Level, Space, reads};

/// Tensors that lie one behind the other, each starting at a multiple of [`ALIGN`].
pub type Pack = Vec<Id>;

/// Alignment of every tensor on a device, in bytes: what any adapter accepts as a binding offset.
pub const ALIGN: u64 = 256;

/// What packing decided.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    /// Leaves and temporaries to lay out together.
    pub packs: Vec<Pack>,
    /// The groups that now stand for several.
    pub wide: Table<usize, Wide>,
}

/// A group that stands for several alike.
#[derive(Clone, Debug)]
pub struct Wide {
    /// Elements it runs over, padding included.
    pub elements: usize,
    /// Outputs of the first of the groups.
    pub outputs: Vec<Id>,
    /// The tensors that begin its packs: reaching one may reach all of the pack.
    pub firsts: Vec<Id>,
}

/// Offsets of the parts of a pack, in bytes, and the length of the whole.
pub fn offsets(sizes: impl IntoIterator<Item = u64>) -> (Vec<u64>, u64) {
    let mut end = 0u64;
    let starts = sizes
        .into_iter()
        .map(|bytes| {
            let start = end;
            end += bytes.max(1).next_multiple_of(ALIGN);
            start
        })
        .collect();
    (starts, end)
}

/// Cuts tensors of these bytes into runs that lie one behind the other in `most` bytes; one that is larger is a run of its
/// own.
pub fn runs(bytes: &[u64], most: u64) -> Vec<Range<usize>> {
    let (mut runs, mut start, mut end) = (Vec::new(), 0, 0);
    for (at, bytes) in bytes.iter().enumerate() {
        let own = bytes.max(&1).next_multiple_of(ALIGN);
        if at > start && end + own > most {
            runs.push(start..at);
            (start, end) = (at, 0);
        }
        end += own;
    }
    if start < bytes.len() {
        runs.push(start..bytes.len());
    }
    runs
}

/// One group seen as a computation over named places.
struct Shape {
    text: String,
    /// Leaves and temporaries it reads and values it writes, by place.
    places: Vec<Id>,
}

/// Groups, each with its places.
type Members = Vec<(usize, Vec<Id>)>;

/// Merges groups that are alike. `state` are the leaves that may be laid out anew, `replaces` pairs them with the
/// values that replace them, `pinned` are values whose place is fixed otherwise.
/// No pack takes more than `most` bytes, those of a binding.
pub fn pack(
    program: &Program,
    fused: &mut Fused,
    state: &Set<Id>,
    replaces: &[(Id, Id)],
    pinned: &Set<Id>,
    most: u64,
) -> Packs {
    let replaced: Table<Id, Id> = replaces.iter().map(|&(leaf, value)| (value, leaf)).collect();
    let mut alike: Vec<(String, Members)> = Vec::new();
    let mut index: Table<String, usize> = Table::new();
    for group in 0..fused.groups.len() {
        let Some(shape) = shape(program, fused, group, state, &replaced, pinned) else { continue };
        let slot = *index.or_insert_with(shape.text.clone(), || {
            alike.push((shape.text, Vec::new()));
            alike.len() - 1
        });
        alike[slot].1.push((group, shape.places));
    }
    let mut before = dependencies(program, fused);
    let mut packs = Packs::default();
    let mut taken: Set<Id> = Set::new();
    let mut gone: Set<usize> = Set::new();
    // No pack is larger than a binding.
    let mut fitting: Vec<(Vec<u64>, Members)> = Vec::new();
    for (_, mut groups) in alike {
        let full = |(group, _): &(usize, Vec<Id>)| 4 * fused.groups[*group].space.full() as u64;
        let mut bytes: Vec<u64> = groups.iter().map(full).collect();
        for run in runs(&bytes, most).into_iter().rev() {
            fitting.push((bytes.split_off(run.start), groups.split_off(run.start)));
        }
    }
    for (bytes, groups) in fitting.into_iter().filter(|(_, groups)| groups.len() > 1) {
        let places = groups[0].1.len();
        let columns: Vec<Pack> = (0..places).map(|p| groups.iter().map(|(_, ids)| ids[p]).collect()).collect();
        let mut all = Set::new();
        // Every tensor stands in one place of one pack only, or the layouts would contradict each other.
        if !columns.iter().flatten().all(|&id| all.insert(id) && !taken.contains(&id)) {
            continue;
        }
        // One group must not wait for another that it will be one with.
        let members: Set<usize> = groups.iter().map(|(group, _)| *group).collect();
        if depends_within(&before, &members) {
            continue;
        }
        taken.extend(all);
        let first = groups[0].0;
        let outputs = fused.groups[first].outputs.clone();
        let firsts = columns.iter().map(|column| column[0]).chain(outputs.iter().copied()).collect();
        packs.wide.insert(first, Wide { elements: (offsets(bytes).1 / 4) as usize, outputs, firsts });
        for (group, _) in groups.iter().skip(1) {
            let moved = fused.groups[*group].clone();
            for &member in &moved.members {
                fused.group_of[member] = Some(first);
            }
            fused.groups[first].outputs.extend(&moved.outputs);
            fused.groups[first].members.extend(&moved.members);
            gone.insert(*group);
        }
        // What waits for one of them waits for all, and the next ones to be packed must not be waited for by these.
        for waits in &mut before {
            let count = waits.len();
            waits.retain(|group| !members.contains(group));
            if waits.len() < count {
                waits.insert(first);
            }
        }
        before[first] = members.iter().flat_map(|&group| std::mem::take(&mut before[group])).collect();
        packs.packs.extend(columns.into_iter().filter(|column| !replaced.contains_key(&column[0])));
    }
    compact(fused, &gone, &mut packs);
    packs
}

/// Whether any of the groups is computed from another of them.
fn depends_within(before: &[Sorted<usize>], members: &Set<usize>) -> bool {
    let mut seen = Set::new();
    let mut stack: Vec<usize> = members.iter().flat_map(|&group| before[group].iter().copied()).collect();
    while let Some(group) = stack.pop() {
        if members.contains(&group) {
            return true;
        }
        if seen.insert(group) {
            stack.extend(&before[group]);
        }
    }
    false
}

fn compact(fused: &mut Fused, gone: &Set<usize>, packs: &mut Packs) {
    let mut renumbered = Table::new();
    let groups = std::mem::take(&mut fused.groups);
    for (old, group) in groups.into_iter().enumerate().filter(|(old, _)| !gone.contains(old)) {
        renumbered.insert(old, fused.groups.len());
        fused.groups.push(group);
    }
    for group in fused.group_of.iter_mut().flatten() {
        *group = renumbered[group];
    }
    packs.wide = std::mem::take(&mut packs.wide).into_iter().map(|(old, wide)| (renumbered[&old], wide)).collect();
}

/// Describes a group as text in which packable tensors are numbered places. `None` if it cannot be packed.
fn shape(
    program: &Program,
    fused: &Fused,
    group: usize,
    state: &Set<Id>,
    replaced: &Table<Id, Id>,
    pinned: &Set<Id>,
) -> Option<Shape> {
    let Space::Elements(numel) = fused.groups[group].space else { return None };
    if numel < 2 {
        return None;
    }
    let members = &fused.groups[group].members;
    let mut shape = Shape { text: String::new(), places: Vec::new() };
    let mut names: Table<Id, usize> = Table::new();
    // Members refer to tensors at their own index; anything else must be shared by all the groups.
    let stop = |id: Id| fused.is_member(id) || matches!(program.vals[id].kind, Kind::Leaf(_));
    let mut levels: Table<Id, Level> = Table::new();
    for &member in members {
        for (id, level) in reads(program, &stop, member, Level::Full, fused.groups[group].space) {
            let known = levels.or_insert(id, level);
            if *known != level {
                return None;
            }
        }
    }
    let mut stack: Vec<(Id, bool)> = fused.groups[group].members.iter().rev().map(|&m| (m, true)).collect();
    while let Some((id, top)) = stack.pop() {
        if let Some(name) = names.get(&id) {
            write!(shape.text, "n{name};").ok()?;
            continue;
        }
        let val = &program.vals[id];
        if !top && stop(id) && !members.contains(&id) {
            if levels.get(&id) == Some(&Level::Full) {
                let movable = if fused.is_member(id) {
                    !pinned.contains(&id) && !replaced.contains_key(&id)
                } else {
                    state.contains(&id)
                };
                if !movable || val.dtype.bytes() != 4 {
                    return None;
                }
                shape.places.push(id);
                // The one is laid out with the state, the other with the temporaries.
                let kind = if fused.is_member(id) { "temporary" } else { "leaf" };
                write!(shape.text, "{kind} {};", val.dtype).ok()?;
            } else if val.numel == 1 {
                write!(shape.text, "shared {id};").ok()?;
            } else {
                return None;
            }
            names.insert(id, names.len());
            continue;
        }
        match &val.kind {
            Kind::Map(map) => {
                let helpers = map.helpers.as_ptr();
                write!(shape.text, "{}:{}/{} {helpers:p};", map.text, val.dtype, val.inputs.len()).ok()?;
            }
            Kind::Scalar(bits) => write!(shape.text, "scalar {bits};").ok()?,
            // A view that reads something shared by all, or nothing but a reshape.
            Kind::View(view)
                if view.is_identity() || (view.inside.is_none() && view.strides.iter().all(|&s| s == 0)) =>
            {
                write!(shape.text, "view {};", view.is_identity()).ok()?;
            }
            _ => return None,
        }
        names.insert(id, names.len());
        for &input in val.inputs.iter().rev() {
            stack.push((input, false));
        }
    }
    for &output in &fused.groups[group].outputs {
        if pinned.contains(&output) {
            return None;
        }
        match replaced.get(&output) {
            // Written over its leaf: the leaf must stand in a place, so that the order is the same.
            Some(leaf) if shape.places.contains(leaf) => {
                let place = shape.places.iter().position(|p| p == leaf)?;
                write!(shape.text, "over {place} {};", names.get(&output)?).ok()?;
            }
            Some(_) => return None,
            None => {
                shape.places.push(output);
                write!(shape.text, "new {};", names.get(&output)?).ok()?;
            }
        }
    }
    Some(shape)
}
