//! Orders the kernels, decides which results may overwrite the state they replace, and joins small kernels.
//!
//! Large kernels run as soon as their inputs exist, in recording order, or if that lowers the peak of memory, the one
//! first that frees most. Everything small waits until no large one can run; then all small kernels that are ready, and those they make ready, become one *region*: a single workgroup
//! that runs them level by level with barriers in between. Kernels of middling size wait likewise and share a
//! dispatch side by side. A tiny model is one region from end to end. Deliberately absent: an order with
//! more dispatches, whatever it saves.

use crate::collections::{Set, Sorted, Table};

use super::fuse::{Fused, dependencies};
use super::pack::Wide;
use super::program::{Id, Kind, Program};
use super::space::{Level, Space, level, reads};

/// A dispatch: groups and how they share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// One group alone.
    Single(usize),
    /// Independent groups side by side, each on its own threads.
    Siblings(Vec<usize>),
    /// Levels of groups in one workgroup, with a barrier between levels.
    Region(Vec<Vec<usize>>),
}

impl Job {
    /// The job as two that run one after the other, if it holds more than one group.
    pub fn halves(&self) -> Option<[Job; 2]> {
        match self {
            Job::Single(_) => None,
            Job::Siblings(groups) => {
                let (a, b) = groups.split_at(groups.len() / 2);
                (!a.is_empty()).then(|| [a, b].map(|half| Job::Siblings(half.to_vec())))
            }
            Job::Region(levels) => match &levels[..] {
                [only] => Job::Siblings(only.clone())
                    .halves()
                    .map(|halves| halves.map(|half| Job::Region(vec![half.groups()]))),
                _ => {
                    let (a, b) = levels.split_at(levels.len() / 2);
                    (!a.is_empty()).then(|| [a, b].map(|half| Job::Region(half.to_vec())))
                }
            },
        }
    }

    /// All groups of the job.
    pub fn groups(&self) -> Vec<usize> {
        match self {
            Job::Single(group) => vec![*group],
            Job::Siblings(groups) => groups.clone(),
            Job::Region(levels) => levels.concat(),
        }
    }
}

/// The order of dispatches and what they overwrite.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Dispatches in order.
    pub jobs: Vec<Job>,
    /// New values that are written straight over the leaf they replace: value to leaf.
    pub in_place: Table<Id, Id>,
}

impl Schedule {
    /// Whether every group runs. Groups that wait for each other never do.
    pub fn is_whole(&self, fused: &Fused) -> bool {
        self.jobs.iter().map(|job| job.groups().len()).sum::<usize>() == fused.groups.len()
    }
}

/// Work up to which a group may join a region: about what one workgroup does in the time a dispatch costs.
pub const SMALL: usize = 4096;
/// Work up to which a group waits for siblings.
const MIDDLING: usize = 1 << 20;
/// Results up to which it does: on a CPU driver a branch that is not taken still costs its instructions, so what has
/// many threads runs alone (Adam of 670,000 parameters beside two bias gradients: 3.1 ms, alone 1.8).
const NARROW: usize = 1 << 14;

/// Work up to which it goes on waiting while row kernels run.
const LIGHT: usize = 1 << 16;

/// Values computed in one region: a driver's compiler takes more than linear time in the length of a shader.
const REGION: usize = 1024;

struct Graph<'a> {
    program: &'a Program,
    fused: &'a Fused,
    /// For each group the groups that must run before it.
    before: Vec<Sorted<usize>>,
    /// For each leaf the groups that read it, each with the levels it reads at.
    readers: Table<Id, Vec<(usize, Sorted<Level>)>>,
    /// For each group the values of other groups, and its own, that it reads.
    reads: Vec<Sorted<Id>>,
    /// What is written over a leaf, and so takes no memory.
    in_place: Table<Id, Id>,
}

impl<'a> Graph<'a> {
    fn new(program: &'a Program, fused: &'a Fused) -> Graph<'a> {
        let (before, readers, reads, in_place) = (Vec::new(), Table::new(), Vec::new(), Table::new());
        Graph { program, fused, before, readers, reads, in_place }
    }

    /// For each stored value the groups that have yet to read it, and one more if it is read at the end.
    fn unread(&self) -> Table<Id, usize> {
        let mut unread = Table::new();
        self.reads.iter().flatten().chain(&self.program.roots).for_each(|&id| *unread.or_insert(id, 0) += 1);
        unread
    }

    /// Bytes that a group's results take.
    fn takes(&self, group: usize) -> u64 {
        let outputs = self.fused.groups[group].outputs.iter().filter(|id| !self.in_place.contains_key(id));
        outputs.map(|&id| self.program.vals[id].bytes()).sum()
    }

    /// The values that are not needed any more once a group has run.
    fn frees<'b>(&'b self, group: usize, unread: &'b Table<Id, usize>) -> impl Iterator<Item = Id> + 'b {
        let own = &self.fused.groups[group].members;
        self.reads[group].iter().copied().filter(move |id| unread.get(id) == Some(&1) && !own.contains(id))
    }

    fn freed(&self, group: usize, unread: &Table<Id, usize>) -> u64 {
        let temporary = |id: &Id| !self.in_place.contains_key(id);
        self.frees(group, unread).filter(temporary).map(|id| self.program.vals[id].bytes()).sum()
    }

    /// Most bytes of temporaries alive at once.
    fn peak(&self, jobs: &[Job]) -> u64 {
        let mut unread = self.unread();
        let (mut alive, mut peak) = (0u64, 0);
        for job in jobs {
            let groups = job.groups();
            alive += groups.iter().map(|&group| self.takes(group)).sum::<u64>();
            peak = peak.max(alive);
            for group in groups {
                alive = alive.saturating_sub(self.freed(group, &unread));
                self.read(group, &mut unread);
            }
        }
        peak
    }

    /// Notes that a group has run.
    fn read(&self, group: usize, unread: &mut Table<Id, usize>) {
        for id in &self.reads[group] {
            if let Some(count) = unread.get_mut(id) {
                *count -= 1;
            }
        }
    }

    /// How many values a group computes, recomputed ones included.
    fn values(&self, group: usize) -> usize {
        let members = &self.fused.groups[group].members;
        let mut seen: Set<Id> = members.iter().copied().collect();
        let mut stack = members.clone();
        while let Some(id) = stack.pop() {
            let inline = |input: &Id| !self.fused.is_member(*input);
            stack.extend(
                self.program.vals[id].inputs.iter().copied().filter(inline).filter(|&input| seen.insert(input)),
            );
        }
        seen.len()
    }

    fn depends(&self, group: usize, on: usize) -> bool {
        let mut seen = Set::new();
        let mut stack = vec![group];
        while let Some(group) = stack.pop() {
            if group == on {
                return true;
            }
            if seen.insert(group) {
                stack.extend(&self.before[group]);
            }
        }
        false
    }

    /// Whether `value` can be written over `leaf`: its own group reads the leaf only at the very elements it writes,
    /// and every other reader can run earlier.
    fn overwrites(&self, value: Id, leaf: Id) -> Option<(usize, Vec<usize>)> {
        let group = self.fused.group_of[value]?;
        // What a loop carries is written before the loop runs, perhaps before others have read the leaf.
        if matches!(self.program.vals[value].kind, Kind::Scan(..)) {
            return None;
        }
        let space = self.fused.groups[group].space;
        let at = level(self.program, value, space);
        let mut earlier = Vec::new();
        for (reader, levels) in self.readers.get(&leaf).into_iter().flatten() {
            if *reader == group {
                if levels.iter().any(|&l| l != at) {
                    return None;
                }
            } else if self.depends(*reader, group) {
                return None;
            } else {
                earlier.push(*reader);
            }
        }
        Some((group, earlier))
    }
}

/// Schedules all groups. `replaces` pairs leaves of the state with the values that replace them.
pub fn schedule(
    program: &Program,
    fused: &Fused,
    replaces: &[(Id, Id)],
    fuse: bool,
    wide: &Table<usize, Wide>,
) -> Schedule {
    let mut graph = Graph { program, fused, before: dependencies(program, fused), ..Graph::new(program, fused) };
    for (index, group) in fused.groups.iter().enumerate() {
        let stop = |id: Id| fused.is_member(id) || matches!(program.vals[id].kind, Kind::Leaf(_));
        let (mut leaves, mut values): (Table<Id, Sorted<Level>>, _) = (Table::new(), Sorted::new());
        for &member in &group.members {
            for (id, at) in reads(program, &stop, member, level(program, member, group.space), group.space) {
                if fused.is_member(id) {
                    values.insert(id);
                } else {
                    leaves.or_default(id).insert(at);
                }
            }
        }
        graph.reads.push(values);
        for (leaf, levels) in leaves {
            graph.readers.or_default(leaf).push((index, levels));
        }
    }
    for &(leaf, value) in replaces {
        if graph.in_place.contains_key(&value) {
            continue;
        }
        if let Some((group, earlier)) = graph.overwrites(value, leaf) {
            graph.before[group].extend(earlier);
            graph.in_place.insert(value, leaf);
        }
    }
    let recorded = order(&graph, fuse, wide, Next::Recorded);
    let freeing = if fuse { Some(order(&graph, fuse, wide, Next::Freeing)) } else { None };
    let jobs = match freeing {
        Some(freeing) if freeing.len() <= recorded.len() && graph.peak(&freeing) < graph.peak(&recorded) => freeing,
        _ => recorded,
    };
    Schedule { jobs, in_place: graph.in_place }
}

/// Which of the large kernels that could run does so.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// The one recorded first.
    Recorded,
    /// The one that frees most memory, less what it takes.
    Freeing,
}

/// Among so many ready kernels the one that frees most is looked for.
const CHOICE: usize = 32;

fn order(graph: &Graph, fuse: bool, wide: &Table<usize, Wide>, next: Next) -> Vec<Job> {
    let groups = &graph.fused.groups;
    let work = |group: usize| wide.get(&group).map_or_else(|| groups[group].space.work(), |wide| wide.elements);
    let small = |group: usize| fuse && work(group) <= SMALL;
    let results = |group: usize| groups[group].space.reduced().unwrap_or(work(group));
    let middling = |group: usize| {
        let product = matches!(groups[group].space, Space::Product(..));
        fuse && !product && work(group) <= MIDDLING && results(group) <= NARROW
    };
    let mut waiting: Vec<usize> = graph.before.iter().map(|before| before.len()).collect();
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); groups.len()];
    for (group, before) in graph.before.iter().enumerate() {
        before.iter().for_each(|&b| after[b].push(group));
    }
    // Ready groups by the recording order of their last member.
    let key = |group: usize| (groups[group].members.last().copied().unwrap_or(0), group);
    let mut ready: [Sorted<(Id, usize)>; 3] = Default::default();
    let class = |group: usize| if small(group) { 2 } else { usize::from(middling(group)) };
    for group in 0..groups.len() {
        if waiting[group] == 0 {
            ready[class(group)].insert(key(group));
        }
    }
    let mut jobs = Vec::new();
    let finish = |group: usize, waiting: &mut Vec<usize>, ready: &mut [Sorted<(Id, usize)>; 3]| {
        for &next in &after[group] {
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready[class(next)].insert(key(next));
            }
        }
    };
    let mut unread = if next == Next::Freeing { graph.unread() } else { Table::new() };
    loop {
        let first = match next {
            Next::Recorded => ready[0].first().copied(),
            // The first of equals, as recorded.
            Next::Freeing => ready[0]
                .iter()
                .take(CHOICE)
                .copied()
                .min_by_key(|&(_, group)| graph.takes(group) as i128 - i128::from(graph.freed(group, &unread))),
        };
        if let Some(first) = first {
            let group = first.1;
            ready[0].remove(&first);
            graph.read(group, &mut unread);
            jobs.push(Job::Single(group));
            finish(group, &mut waiting, &mut ready);
        } else if !ready[2].is_empty() {
            let (mut levels, mut values) = (Vec::new(), 0);
            while !ready[2].is_empty() && values < REGION {
                let mut level = Vec::new();
                for next in std::mem::take(&mut ready[2]) {
                    // What does not go in any more begins the next region.
                    if values >= REGION {
                        ready[2].insert(next);
                        continue;
                    }
                    values += graph.values(next.1);
                    level.push(next.1);
                }
                for &group in &level {
                    graph.read(group, &mut unread);
                    finish(group, &mut waiting, &mut ready);
                }
                levels.push(level);
            }
            jobs.push(match &levels[..] {
                [only] if only.len() == 1 => Job::Single(only[0]),
                _ => Job::Region(levels),
            });
        } else if !ready[1].is_empty() {
            let level: Vec<usize> = std::mem::take(&mut ready[1]).into_iter().map(|(_, group)| group).collect();
            let (rows, mut threads): (Vec<usize>, Vec<usize>) =
                level.into_iter().partition(|&group| super::kernel::is_cooperative(groups[group].space));
            // What would get a dispatch for itself and keeps little alive waits for siblings, while others can run.
            if !rows.is_empty() && threads.iter().all(|&group| work(group) <= LIGHT) {
                ready[1].extend(threads.drain(..).map(key));
            }
            rows.iter().chain(&threads).for_each(|&group| {
                graph.read(group, &mut unread);
                finish(group, &mut waiting, &mut ready);
            });
            jobs.extend(rows.into_iter().map(Job::Single));
            match threads.len() {
                0 => {}
                1 => jobs.extend(threads.pop().map(Job::Single)),
                _ => jobs.push(Job::Siblings(threads)),
            }
        } else {
            return jobs;
        }
    }
}
