//! Computing values again instead of keeping them, until a plan's temporaries fit a budget.
//!
//! The pass compiles, looks at the dispatch in which most bytes are alive, and picks from the values that are alive there
//! without being used the one whose memory is cheapest to win back: bytes per work done again. Its later readers get a
//! copy of it, and of what it is computed from as far as that is gone by then, and the program is compiled again. What
//! does not lower the peak is undone. Without a budget the same is done with what costs nothing ([`super::free`]). A copy waits (see [`Val::after`](super::program::Val::after)) for what its first reader reads besides.
//! Deliberately absent: sharing of equal values, which would undo all this; `build` alone does that, before.

use super::free::{Free, compile_free, composed, renumbered};
use super::program::{Id, Kind, Program};
use super::space;
use super::{Compiled, Options, Request, Target, compile};
use crate::collections::{Set, Sorted, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::sort::{sort, sort_by, sort_by_key};

/// Values given copies in one round at most, and attempts that lower nothing in a row before it is given up.
const ROUND: usize = 16;
const PATIENCE: usize = 24;

/// Compiles a program such that its temporaries take `budget` bytes at most. Also says where each leaf and root of the
/// program is now. Where the budget is kept for nothing, the result is that of [`compile_free`].
///
/// # Errors
/// [`ErrorKind::Limit`] with the fewest bytes that were reached.
pub fn compile_within(
    program: Program,
    request: &Request,
    target: &Target,
    options: &Options,
    budget: u64,
) -> Result<(Compiled, Option<Free>, Table<Id, Id>)> {
    let kept: Table<Id, Id> = (0..program.vals.len())
        .filter(|&id| matches!(program.vals[id].kind, Kind::Leaf(_)) || program.roots.contains(&id))
        .map(|id| (id, id))
        .collect();
    let (mut best, mut free, to) = compile_free(program, request, target, options)?;
    let mut moved = if to.is_empty() { kept } else { composed(&kept, &to) };
    let mut refused: Set<Id> = Set::new();
    let (mut count, mut failures) = (ROUND, 0);
    let bytes = |compiled: &Compiled| compiled.temporaries().iter().sum::<u64>();
    while bytes(&best) > budget {
        let found = candidates(&best, &refused, false);
        let need = bytes(&best);
        if found.is_empty() || failures > PATIENCE {
            let what = "the memory for temporaries of a step, with all computed again that helps,".into();
            return Err(Error::new(ErrorKind::Limit { what, need, have: budget }));
        }
        // As many as make up for what is over the budget, if the first estimate holds.
        let (mut chosen, mut won) = (Vec::new(), 0);
        for candidate in found.into_iter().take(count) {
            if won < need - budget {
                won += best.program.vals[candidate.value].bytes();
                chosen.push(candidate);
            }
        }
        let (mut program, mut request, mut places) = (best.program.clone(), best.request.clone(), None);
        for candidate in &chosen {
            let Some((next, to)) = again(&best, &program, candidate, places.as_ref()) else { continue };
            request = renumbered(&request, &to);
            places = Some(match places {
                None => to,
                Some(before) => composed(&before, &to),
            });
            program = next;
        }
        let Some(places) = places else {
            refused.extend(chosen.iter().map(|candidate| candidate.value));
            continue;
        };
        let next = compile(program, &request, target, options)?;
        let smaller = (next.placement.live, bytes(&next)) < (best.placement.live, need);
        if smaller && bytes(&next) <= need {
            (best, free) = (next, None);
            moved = composed(&moved, &places);
            refused = refused.iter().filter_map(|id| places.get(id).copied()).collect();
            (count, failures) = ((count * 2).min(ROUND), 0);
        } else if chosen.len() > 1 {
            count = chosen.len() / 2;
        } else {
            refused.insert(chosen[0].value);
            failures += 1;
        }
    }
    Ok((best, free, moved))
}

/// A value that may be computed again.
pub(super) struct Candidate {
    pub value: Id,
    /// Stored values that read it too late to keep it.
    readers: Sorted<Id>,
    /// It and what has to be computed again for it.
    pub cone: Sorted<Id>,
    /// What the copies wait for.
    after: Id,
}

/// When a stored value is written and read, in dispatches.
#[derive(Default)]
struct Life {
    first: usize,
    reads: Sorted<usize>,
}

/// What could be computed again to lower the peak, the cheapest first: when it is read next, or, `early`, with the last of what
/// it is made of.
pub(super) fn candidates(compiled: &Compiled, refused: &Set<Id>, early: bool) -> Vec<Candidate> {
    let Compiled { program, fused, schedule, placement, .. } = compiled;
    let stop = |id: Id| fused.is_member(id);
    let mut time_of = vec![0; fused.groups.len()];
    let mut lives: Table<Id, Life> = Table::new();
    for (time, job) in schedule.jobs.iter().enumerate() {
        for group in job.groups() {
            time_of[group] = time;
            for &output in fused.groups[group].outputs.iter().filter(|id| placement.ranges.contains_key(id)) {
                lives.or_default(output).first = time;
            }
        }
    }
    // Readers of each temporary: stored or computed on the way, by the time they run.
    let mut readers: Table<Id, Vec<(usize, Id)>> = Table::new();
    for (index, group) in fused.groups.iter().enumerate() {
        for &member in &group.members {
            let level = space::level(program, member, group.space);
            for (id, _) in space::reads(program, &stop, member, level, group.space) {
                if let Some(life) = lives.get_mut(&id) {
                    life.reads.insert(time_of[index]);
                    readers.or_default(id).push((time_of[index], member));
                }
            }
        }
    }
    for (value, _) in &compiled.copies {
        if let Some(life) = lives.get_mut(value) {
            life.reads.insert(schedule.jobs.len());
        }
    }
    let last = |life: &Life| life.reads.last().copied().unwrap_or(life.first);
    let mut change = vec![0i64; schedule.jobs.len() + 2];
    for (&id, life) in &lives {
        change[life.first] += program.vals[id].bytes() as i64;
        change[last(life) + 1] -= program.vals[id].bytes() as i64;
    }
    for (time, job) in schedule.jobs.iter().enumerate() {
        let inside = job.groups().into_iter().filter_map(|group| compiled.loops.get(&group));
        let bytes = inside.map(|looped| looped.compiled.placement.live as i64).sum::<i64>();
        change[time] += bytes;
        change[time + 1] -= bytes;
    }
    let (mut alive, mut peak) = (0, (0, 0));
    for (time, change) in change.into_iter().enumerate() {
        alive += change;
        if alive > peak.0 {
            peak = (alive, time);
        }
    }
    let peak = peak.1;
    let mut order: Vec<Id> = lives.keys().copied().collect();
    sort(&mut order);
    let mut found: Vec<(f64, Candidate)> = Vec::new();
    for &value in &order {
        let life = &lives[&value];
        let used = life.first == peak || life.reads.contains(&peak);
        if used || life.first > peak || last(life) < peak || refused.contains(&value) || program.roots.contains(&value)
        {
            continue;
        }
        let Some(&next) = life.reads.iter().find(|&&read| read > peak) else { continue };
        let late = |(time, _): &&(usize, Id)| *time > peak;
        let readers = Sorted::from_iter(readers[&value].iter().filter(late).map(|&(_, member)| member));
        let Some(&place) = readers.first() else { continue };
        // Written after the peak or in it, read by the first late reader or behind it, and recorded before.
        let waits = order.iter().filter(|&&id| id < place && id != value);
        let waits = waits.filter(|id| lives[id].first >= peak && lives[id].first < next && last(&lives[id]) >= next);
        let Some(&after) = waits.max_by_key(|id| (lives[id].first, **id)) else { continue };
        let until = if early { peak + 1 } else { next };
        let there = |id: Id| lives.get(&id).is_some_and(|life| life.first < next && last(life) >= until);
        let Some(cone) = cone(program, value, &there) else { continue };
        let work: usize = cone.iter().map(|&id| space::of(&program.vals[id]).work()).sum();
        let gain = program.vals[value].bytes() as f64 / work.max(1) as f64;
        found.push((gain, Candidate { value, readers, cone, after }));
    }
    sort_by(&mut found, |a, b| b.0.total_cmp(&a.0).then(b.1.value.cmp(&a.1.value)));
    found.into_iter().map(|found| found.1).collect()
}

/// A value with all that must be computed again for it; `there` are temporaries that still lie there. `None` if that is
/// too much, or a loop or a kernel of an op's own: their outputs are computed together, and a loop overwrites what it is
/// given to carry.
fn cone(program: &Program, value: Id, there: &dyn Fn(Id) -> bool) -> Option<Sorted<Id>> {
    const MOST: usize = 256;
    let mut cone = Sorted::new();
    let mut stack = vec![value];
    while let Some(id) = stack.pop() {
        let given = matches!(program.vals[id].kind, Kind::Leaf(_) | Kind::Scalar(_));
        if given || (id != value && there(id)) || !cone.insert(id) {
            continue;
        }
        if cone.len() > MOST || program.together(id).is_some() {
            return None;
        }
        stack.extend(&program.vals[id].inputs);
    }
    Some(cone)
}

/// What is computed again in a program, and for whom: the same in every program of its form.
#[derive(Clone, Debug)]
pub struct Again {
    value: Id,
    /// Stored values whose computation reads copies.
    readers: Sorted<Id>,
    /// The value and what has to be computed again for it.
    cone: Sorted<Id>,
    /// What lies between the value and its readers without being stored: each reader computes it anyway.
    between: Sorted<Id>,
    after: Id,
}

/// A program in which late readers of candidates read copies, and where its values are now. `places` says where those of the
/// compiled program are in `program`.
fn again(
    compiled: &Compiled,
    program: &Program,
    candidate: &Candidate,
    places: Option<&Table<Id, Id>>,
) -> Option<(Program, Table<Id, Id>)> {
    Some(planned(compiled, program, candidate, places)?.applied(program))
}

pub(super) fn planned(
    compiled: &Compiled,
    program: &Program,
    candidate: &Candidate,
    places: Option<&Table<Id, Id>>,
) -> Option<Again> {
    let now = |id: &Id| places.map_or(Some(*id), |places| places.get(id).copied());
    let value = now(&candidate.value)?;
    let readers = Sorted::from_iter(candidate.readers.iter().map(now).collect::<Option<Vec<Id>>>()?);
    let cone = Sorted::from_iter(candidate.cone.iter().map(now).collect::<Option<Vec<Id>>>()?);
    let after = now(&candidate.after)?;
    let stored: Set<Id> =
        (0..compiled.program.vals.len()).filter(|&id| compiled.fused.is_member(id)).filter_map(|id| now(&id)).collect();
    let place = *readers.first()?;
    if after >= place || cone.contains(&after) {
        return None;
    }
    let mut between: Sorted<Id> = Sorted::new();
    let mut reaches: Table<Id, bool> = Table::from([(value, true)]);
    for &reader in &readers {
        let mut stack: Vec<(Id, bool)> = program.vals[reader].inputs.iter().map(|&input| (input, false)).collect();
        while let Some((id, left)) = stack.pop() {
            if !left && (reaches.contains_key(&id) || stored.contains(&id) || id < value) {
                continue;
            }
            let inputs = &program.vals[id].inputs;
            if !left {
                stack.push((id, true));
                stack.extend(inputs.iter().map(|&input| (input, false)));
                continue;
            }
            let through = inputs.iter().any(|input| reaches.get(input) == Some(&true));
            reaches.insert(id, through);
            if through {
                between.insert(id);
            }
        }
    }
    between.is_disjoint(&cone).then_some(Again { value, readers, cone, between, after })
}

impl Again {
    /// A program with the copies, and where its values are now.
    pub(super) fn applied(&self, program: &Program) -> (Program, Table<Id, Id>) {
        let Again { value, readers, cone, between, after } = self;
        // Copies have numbers behind those of all values, and are then put where they belong.
        let (total, place) = (program.vals.len(), readers.first().copied().unwrap_or_default());
        let copies: Vec<Id> = cone.iter().chain(between).copied().collect();
        let copy: Table<Id, Id> = copies.iter().enumerate().map(|(at, &id)| (id, total + at)).collect();
        let own = |id: Id| copy.get(&id).copied().unwrap_or(id);
        let late = |id: Id| if id == *value || between.contains(&id) { own(id) } else { id };
        let mut all: Vec<_> = program.vals.clone();
        for &reader in readers {
            all[reader].inputs.iter_mut().for_each(|input| *input = late(*input));
        }
        for &id in &copies {
            let mut val = program.vals[id].clone();
            if cone.contains(&id) {
                val.inputs.iter_mut().for_each(|input| *input = own(*input));
                val.after = Some(*after);
            } else {
                val.inputs.iter_mut().for_each(|input| *input = late(*input));
            }
            all.push(val);
        }
        let mut order: Vec<Id> = (0..all.len()).collect();
        sort_by_key(&mut order, |&id| match copies.get(id.wrapping_sub(total)) {
            None => (id, 1, 0),
            Some(&from) if cone.contains(&from) => (place, 0, from),
            Some(&from) if from < place => (place, 0, total + from),
            Some(&from) => (from, 2, 0),
        });
        // What nothing needs any more goes.
        let mut needed = vec![false; all.len()];
        let mut stack = program.roots.clone();
        stack.extend((0..total).filter(|&id| matches!(all[id].kind, Kind::Leaf(_))));
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut needed[id], true) {
                stack.extend(all[id].inputs.iter().copied().chain(all[id].after));
                // No output of a loop or of an op's own kernel goes without the others.
                if id < total {
                    stack.extend(program.together(id).into_iter().flatten());
                }
            }
        }
        let mut to = Table::new();
        let mut made = Program { leaves: program.leaves.clone(), ..Program::default() };
        for id in order.into_iter().filter(|&id| needed[id]) {
            let mut val = all[id].clone();
            val.inputs.iter_mut().for_each(|input| *input = to[input]);
            val.after = val.after.map(|after| to[&after]);
            to.insert(id, made.vals.len());
            made.vals.push(val);
        }
        made.roots = program.roots.iter().map(|root| to[root]).collect();
        (made, to)
    }
}
