//! Decides which values are stored and which kernel computes each of them.
//!
//! A value is either *stored* or recomputed wherever it is read. Each stored value starts as a group of its own, with
//! the cone of unstored values above it; groups then merge along the edges between them, as long as every value is
//! read at the index it is computed at and nothing outside would have to run in between. What a merged group alone
//! reads is never written to memory. Three kinds of [`Space`] cover all: elementwise, folded, and a product with its
//! epilogue. Deliberately absent: patterns of ops; softmax, layer norm and cross-entropy fuse because their indices
//! fit, not because anybody listed them.

use super::place::SMALL;
use super::program::{Id, Kind, Program};
use super::space::{Level, Space, level, of, reads};
use crate::collections::{Set, Sorted, Table};
use crate::sort::{sort, sort_by_key};

/// Values computed by one kernel.
#[derive(Clone, Debug)]
pub struct Group {
    /// What its threads run over.
    pub space: Space,
    /// The values it computes, in order; others are recomputed inside as needed.
    pub members: Vec<Id>,
    /// Those of them that are written to memory.
    pub outputs: Vec<Id>,
}

/// The result of fusing.
#[derive(Clone, Debug)]
pub struct Fused {
    /// The kernels, in no particular order.
    pub groups: Vec<Group>,
    /// For each value the group that computes it, if it is a member of one.
    pub group_of: Vec<Option<usize>>,
}

impl Fused {
    /// Whether a value is computed by a group rather than inline.
    pub fn is_member(&self, id: Id) -> bool {
        self.group_of[id].is_some()
    }
}

/// A kernel computes values that lie at most so far apart on the tape, so that compiling stays linear in long chains.
const REACH: usize = 512;
/// Values recomputed for one stored value.
const CONE: usize = 48;
/// Values one kernel computes.
const MEMBERS: usize = 64;
/// Tensors an epilogue of a product may read besides the operands, and results it may write.
const EPILOGUE: usize = 2;
/// With fewer threads than this, a large producer is not drawn into a fold.
const PARALLEL: usize = 1024;

/// For each group the groups whose results it reads.
pub fn dependencies(program: &Program, fused: &Fused) -> Vec<Sorted<usize>> {
    let stop = |id: Id| fused.is_member(id);
    let before = |(index, group): (usize, &Group)| {
        let reads = |&m: &Id| reads(program, &stop, m, level(program, m, group.space), group.space);
        let ids = group.members.iter().flat_map(reads);
        ids.filter_map(|(id, _)| fused.group_of[id]).filter(|&other| other != index).collect()
    };
    fused.groups.iter().enumerate().map(before).collect()
}

/// What a kernel may hold, and how the storage buffers that it binds are counted.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    /// As many as a kernel may bind.
    pub cap: usize,
    /// Columns of which a row kernel can carry sums.
    pub carried: usize,
    /// What lies in the one buffer of the state: its leaves, and what is written over them. Nothing, if every tensor is to
    /// count as a buffer of its own.
    pub(crate) state: Set<Id>,
    /// Whether groups merge only if no way leads back through any others. Looking at the likely ones first saves time in
    /// the square of a program's length, and that it went wrong shows in a schedule that is not whole.
    pub thorough: bool,
}

/// Where a tensor lies, as far as that decides how many buffers a kernel binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    State,
    Small,
    Own(Id),
}

impl Buffers {
    fn place(&self, program: &Program, id: Id) -> Place {
        let given = matches!(program.vals[id].kind, Kind::Leaf(_));
        match () {
            () if self.state.contains(&id) => Place::State,
            () if !self.state.is_empty() && !given && program.vals[id].bytes() <= SMALL => Place::Small,
            () => Place::Own(id),
        }
    }
}

/// The distinct places of the tensors that the expression of a value loads. Numbers that are computed for the step alone lie
/// together among the small temporaries.
fn sources(program: &Program, stored: &[bool], buffers: &Buffers, id: Id) -> usize {
    let (mut found, mut seen, mut stack) = (Sorted::new(), Set::default(), program.vals[id].inputs.clone());
    while let Some(id) = stack.pop() {
        let val = &program.vals[id];
        if !seen.insert(id) {
            continue;
        }
        if stored[id] || matches!(val.kind, Kind::Leaf(_)) {
            let number = stored[id] && val.numel == 1 && !program.roots.contains(&id);
            found.insert(if number { Place::Small } else { buffers.place(program, id) });
        } else {
            stack.extend(&val.inputs);
        }
    }
    found.len()
}

/// Which values are stored before any merging.
fn stored(program: &Program, fuse: bool, buffers: &Buffers) -> Vec<bool> {
    let cap = buffers.cap;
    let vals = &program.vals;
    // Readers, seen through views; a view that spreads its source makes every reader recompute it many times.
    let mut readers = vec![0usize; vals.len()];
    let mut spread = vec![false; vals.len()];
    let mut wanted = vec![false; vals.len()];
    for &root in &program.roots {
        wanted[root] = true;
        readers[root] += 1;
    }
    for id in (0..vals.len()).rev() {
        for &input in &vals[id].inputs {
            match vals[id].kind {
                Kind::View(_) | Kind::Window(..) => {
                    readers[input] += readers[id];
                    spread[input] |= spread[id] || vals[id].numel > vals[input].numel;
                }
                Kind::Contraction(..) | Kind::Kernel(..) => {
                    readers[input] += 1;
                    let mut source = input;
                    while let Kind::View(_) | Kind::Window(..) = vals[source].kind {
                        source = vals[source].inputs[0];
                    }
                    wanted[source] = true;
                }
                Kind::Scan(..) => {
                    readers[input] += 1;
                    wanted[input] = true;
                }
                _ => readers[input] += 1,
            }
        }
    }
    let mut stored = vec![false; vals.len()];
    // Values that become the epilogue of a fold or a product if they are written: it has no other reader, nor has what
    // lies between.
    let mut behind = vec![false; vals.len()];
    // Size of the cone recomputed with each value: (values, loads, holds something heavy).
    let mut cone: Vec<(usize, usize, bool)> = Vec::with_capacity(vals.len());
    for (id, val) in vals.iter().enumerate() {
        let below = val.inputs.iter().fold((0, 0, false), |sum, &input| {
            let (values, loads, heavy) = cone[input];
            (sum.0 + values, sum.1 + loads, sum.2 || heavy)
        });
        let (size, keep) = match &val.kind {
            Kind::Scalar(_) => ((0, 0, false), false),
            Kind::Leaf(_) => ((0, 1, false), false),
            Kind::View(_) | Kind::Window(..) => (below, false),
            Kind::Fold(..) | Kind::Contraction(..) | Kind::Scan(..) | Kind::Kernel(..) => (below, true),
            Kind::Iota { .. } => ((1, 0, false), wanted[id] || !fuse),
            Kind::Map(_) | Kind::Gather { .. } => {
                let heavy = matches!(&val.kind, Kind::Map(map) if map.heavy);
                let size = (below.0 + 1, below.1, below.2 || heavy);
                let many = readers[id] > 1;
                let cheap = size.0 <= 2 && size.1 <= 2 && !size.2 && !val.inputs.iter().any(|&input| behind[input]);
                let keep = wanted[id]
                    || !fuse
                    || size.0 > CONE
                    || (val.numel == 1 && (many || spread[id]) && (size.2 || size.0 > 3))
                    || (val.numel != 1 && ((many && !cheap) || (spread[id] && (size.2 || size.0 > 4))));
                (size, keep)
            }
        };
        // What would load more tensors than can be bound, as a join of many or the sum of the derivatives of many slices
        // does, takes its largest operands from memory.
        if matches!(val.kind, Kind::Map(_)) && size.1 >= cap {
            while sources(program, &stored, buffers, id) >= cap {
                let mut largest = None;
                for &input in &val.inputs {
                    let mut source = input;
                    while let (Kind::View(_) | Kind::Window(..), false) = (&vals[source].kind, stored[source]) {
                        source = vals[source].inputs[0];
                    }
                    if matches!(vals[source].kind, Kind::Map(_)) && !stored[source] {
                        largest = largest.max(Some((sources(program, &stored, buffers, source), source)));
                    }
                }
                let Some((_, operand)) = largest else { break };
                stored[operand] = true;
            }
        }
        stored[id] = keep;
        behind[id] = readers[id] == 1
            && match val.kind {
                Kind::Fold(..) | Kind::Contraction(..) => true,
                Kind::Map(_) | Kind::View(_) => {
                    !keep && val.inputs.iter().any(|&input| behind[input] && vals[input].numel == val.numel)
                }
                _ => false,
            };
        cone.push(if keep { (0, 1, false) } else { size });
    }
    stored
}

/// Groups the program.
pub fn fuse(program: &Program, fuse: bool, buffers: &Buffers) -> Fused {
    let stored = stored(program, fuse, buffers);
    let count = program.vals.len();
    let mut work = Merger {
        program,
        stored: &stored,
        groups: (0..count).map(|_| None).collect(),
        of: vec![None; count],
        readers: vec![Vec::new(); count],
        root: vec![false; count],
        buffers,
    };
    program.roots.iter().for_each(|&root| work.root[root] = true);
    for (id, val) in program.vals.iter().enumerate().filter(|(id, _)| stored[*id]) {
        // The outputs of a loop or of an op's own kernel are computed together, and stand one behind the other.
        if let Kind::Scan(..) | Kind::Kernel(..) = val.kind
            && let Some(before) = id.checked_sub(1).filter(|&before| {
                let same = |a: &Kind, b: &Kind| match (a, b) {
                    (Kind::Scan(a, _), Kind::Scan(b, _)) => a == b,
                    (Kind::Kernel(a, _), Kind::Kernel(b, _)) => a == b,
                    _ => false,
                };
                same(&program.vals[before].kind, &val.kind) && program.vals[before].inputs == val.inputs
            })
            && let Some(draft) = work.of[before].and_then(|key| work.groups[key].as_mut())
        {
            draft.members.push(id);
            work.of[id] = work.of[before];
            continue;
        }
        let space = of(val);
        let level = if matches!(val.kind, Kind::Fold(..)) { Level::Reduced } else { Level::Full };
        let needs: Sorted<Id> =
            reads(program, &|id| stored[id], id, level, space).into_iter().map(|(id, _)| id).collect();
        needs.iter().for_each(|&need| work.readers[need].push(id));
        work.groups[id] = Some(Draft { space, members: vec![id], needs });
        work.of[id] = Some(id);
    }
    if fuse {
        work.merge();
    }
    work.finish()
}

struct Draft {
    space: Space,
    members: Vec<Id>,
    /// Stored values read from other groups (and, harmlessly, from itself).
    needs: Sorted<Id>,
}

struct Merger<'a> {
    program: &'a Program,
    stored: &'a [bool],
    /// By the first member ever put in.
    groups: Vec<Option<Draft>>,
    of: Vec<Option<usize>>,
    /// For each stored value the members that read it.
    readers: Vec<Vec<Id>>,
    root: Vec<bool>,
    buffers: &'a Buffers,
}

impl Merger<'_> {
    fn drafts(&self) -> impl Iterator<Item = (usize, &Draft)> {
        self.groups.iter().enumerate().filter_map(|(key, draft)| draft.as_ref().map(|draft| (key, draft)))
    }

    fn draft(&self, key: usize) -> &Draft {
        self.groups[key].as_ref().expect("a group that was not merged into another")
    }

    fn merge(&mut self) {
        self.merge_producers(false);
        // Siblings that read some tensor in common (sharing a scalar saves nothing) and run over the same space.
        let mut by_space: Table<[usize; 5], Vec<usize>> = Table::new();
        for (key, draft) in self.drafts() {
            let space = match draft.space {
                Space::Elements(n) => [n, 0, 0, 0, 0],
                // Beside the rows that they may ride along with.
                Space::Folded { outer: 1, length, inner, parts } if parts > 1 => [0, length, inner, 1, 1],
                Space::Folded { outer, length, inner, parts } => [0, outer, length, inner, parts],
                Space::Product(..) | Space::Loop | Space::Kernel => continue,
            };
            by_space.or_default(space).push(key);
        }
        let mut spaces: Vec<([usize; 5], Vec<usize>)> = by_space.into_iter().collect();
        sort_by_key(&mut spaces, |(space, _)| *space);
        for (_, keys) in spaces {
            for (i, &second) in keys.iter().enumerate() {
                for &first in &keys[i.saturating_sub(8)..i] {
                    let (Some(a), Some(b)) = (&self.groups[first], &self.groups[second]) else { continue };
                    let shared = |&id: &Id| self.program.vals[id].numel > 1;
                    let (a, b) = (self.leaves(a), self.leaves(b));
                    if a.iter().any(|id| shared(id) && b.contains(id)) && self.try_merge(first, second) {
                        break;
                    }
                }
            }
        }
        // Products last, so that an update of several results stays whole and either fits behind a product or not.
        self.merge_producers(true);
    }

    /// Merges producers into their consumers, until nothing changes for a consumer.
    fn merge_producers(&mut self, products: bool) {
        let order: Vec<usize> = self.drafts().map(|(key, _)| key).collect();
        for &consumer in &order {
            'again: while let Some(draft) = &self.groups[consumer] {
                let producers = Sorted::from_iter(draft.needs.iter().filter_map(|&id| self.of[id]));
                for producer in producers.into_iter().rev().filter(|&p| p != consumer) {
                    let product = matches!(self.draft(producer).space, Space::Product(..));
                    if product == products && self.try_merge(producer, consumer) {
                        continue 'again;
                    }
                }
                break;
            }
        }
    }

    /// Everything a draft reads from memory: values of other groups and leaves of more than one element.
    fn leaves(&self, draft: &Draft) -> Sorted<Id> {
        let mut found = Sorted::new();
        let mut seen = Set::default();
        let mut stack: Vec<Id> = draft.members.iter().flat_map(|&m| self.program.vals[m].inputs.clone()).collect();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.program.vals[id].kind {
                _ if self.stored[id] => {
                    if draft.members.binary_search(&id).is_err() {
                        found.insert(id);
                    }
                }
                Kind::Leaf(_) => {
                    found.insert(id);
                }
                _ => stack.extend(&self.program.vals[id].inputs),
            }
        }
        found
    }

    /// Whether a chain of groups leads from `from` to `to` over at least one other group.
    fn detour(&self, from: usize, to: usize) -> bool {
        let first = self.draft(from).members[0];
        let producers = |group: usize| self.draft(group).needs.iter().filter_map(|&id| self.of[id]);
        let mut seen: Set<usize> = [to, from].into_iter().collect();
        let mut stack: Vec<usize> = producers(to).filter(|&g| g != to && g != from).collect();
        while let Some(group) = stack.pop() {
            if !seen.insert(group) {
                continue;
            }
            for next in producers(group) {
                if next == from {
                    return true;
                }
                // Members are in recording order: what ends before `from` begins hardly depends on it, namely only through
                // a group that has merged with something later.
                if self.buffers.thorough || self.draft(next).members.last().is_some_and(|&last| last > first) {
                    stack.push(next);
                }
            }
        }
        false
    }

    fn try_merge(&mut self, first: usize, second: usize) -> bool {
        let (Some(a), Some(b)) = (&self.groups[first], &self.groups[second]) else { return false };
        let Some(space) = a.space.join(b.space, self.buffers.carried) else { return false };
        let size = a.members.len() + b.members.len();
        let (low, high) = (a.members[0].min(b.members[0]), *a.members.iter().chain(&b.members).max().unwrap_or(&0));
        if size > MEMBERS || high - low > REACH {
            return false;
        }
        // A product only ever takes maps of its own result behind it.
        if matches!(b.space, Space::Product(..)) {
            return false;
        }
        if let Space::Folded { outer, length, inner, parts } = space {
            let threads = outer * parts * if inner == 1 && length > 32 { 64 } else { inner };
            if a.space != b.space && threads < PARALLEL && space.full() > 8 * PARALLEL {
                return false;
            }
        }
        let mut members: Vec<Id> = a.members.iter().chain(&b.members).copied().collect();
        sort(&mut members);
        let mut needs = Sorted::new();
        let mut stretches = None;
        let level_of = |id: Id| level(self.program, id, space);
        for &member in &members {
            let level = level(self.program, member, space);
            // All sums that ride along have the same stretches of rows.
            if let (Kind::Fold(_, parts), Level::Column) = (&self.program.vals[member].kind, level)
                && stretches.get_or_insert(*parts) != parts
            {
                return false;
            }
            for (id, at) in reads(self.program, &|id| self.stored[id], member, level, space) {
                if members.binary_search(&id).is_ok() && at != level_of(id) {
                    return false;
                }
                needs.insert(id);
            }
        }
        if self.detour(first, second) || self.detour(second, first) {
            return false;
        }
        let merged = Draft { space, members, needs };
        let inside: Set<Id> = merged.members.iter().copied().collect();
        let writes: Vec<Id> = merged.members.iter().copied().filter(|&m| self.read_outside(m, &inside)).collect();
        let written = writes.len();
        let leaves = self.leaves(&merged);
        // Numbers that are computed for the step alone lie together among the small temporaries: one buffer for all.
        let number = |&&id: &&Id| self.program.vals[id].numel == 1 && self.stored[id] && !self.root[id];
        let numbers = leaves.iter().filter(number).count();
        let read = leaves.len() - numbers.saturating_sub(1);
        let bound = if self.buffers.state.is_empty() {
            read + written
        } else {
            let places = leaves.iter().chain(&writes).map(|&id| self.buffers.place(self.program, id));
            Sorted::from_iter(places).len()
        };
        if bound > self.buffers.cap {
            return false;
        }
        // A product repeats its epilogue for every element of a register tile: a bias, a mask and a residual pay, an
        // optimizer's update does not.
        if matches!(space, Space::Product(..)) && (read > 2 + EPILOGUE || written > EPILOGUE) {
            return false;
        }
        for &member in &merged.members {
            self.of[member] = Some(second);
        }
        self.groups[first] = None;
        self.groups[second] = Some(merged);
        true
    }

    fn read_outside(&self, id: Id, inside: &Set<Id>) -> bool {
        self.root[id] || self.readers[id].iter().any(|reader| !inside.contains(reader))
    }

    fn finish(self) -> Fused {
        let mut group_of = vec![None; self.program.vals.len()];
        let mut needed: Set<Id> = self.program.roots.iter().copied().collect();
        for (_, draft) in self.drafts() {
            needed.extend(draft.needs.iter().filter(|id| !draft.members.contains(id)));
        }
        let groups: Vec<Group> = (self.groups.into_iter().flatten())
            .enumerate()
            .map(|(index, draft)| {
                draft.members.iter().for_each(|&m| group_of[m] = Some(index));
                // A kernel of an op's own writes all that it computes.
                let wanted = |m: &Id| draft.space == Space::Kernel || needed.contains(m);
                let outputs = draft.members.iter().copied().filter(wanted).collect();
                Group { space: draft.space, members: draft.members, outputs }
            })
            .collect();
        Fused { groups, group_of }
    }
}
