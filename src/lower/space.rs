//! What the threads of a kernel run over, and at which of its indices a value is computed and read.
//!
//! Groups merge, leaves are overwritten and values stay in registers where everything is read at the index it is computed
//! at; that is decided here alone. Deliberately absent: who merges with whom.

use super::kernel::ROW;
use super::program::{Id, Kind, Program, Val};
use crate::collections::{Set, Sorted};
use crate::graph::{Contraction, Fold, View};

/// What the threads of a group run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// So many elements, all alike.
    Elements(usize),
    /// Folds of `[outer, length, inner]` to `[outer, parts, inner]`, and maps before and after them.
    Folded { outer: usize, length: usize, inner: usize, parts: usize },
    /// A matrix product along stretches of K, and maps over its result.
    Product(Contraction, usize),
    /// A loop, which is a program of its own.
    Loop,
    /// A kernel that an op has brought.
    Kernel,
}

/// At which of a space's two indices a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// One for each element.
    Full,
    /// One for each result of a fold.
    Reduced,
    /// One for each column of a stretch of rows, of a fold that rides along with folds over the rows.
    Column,
    /// At some other index; computed elsewhere.
    Other,
}

/// The product, or the largest number there is: on a page that is 2^32 - 1, and a product of matrices soon does more.
pub(super) fn times<const N: usize>(factors: [usize; N]) -> usize {
    if factors.contains(&0) { 0 } else { factors.into_iter().fold(1, usize::saturating_mul) }
}

impl Space {
    /// Elements at the full level.
    pub fn full(self) -> usize {
        match self {
            Space::Elements(n) => n,
            Space::Folded { outer, length, inner, .. } => times([outer, length, inner]),
            Space::Product(c, parts) => times([parts, c.batch, c.m, c.n]),
            Space::Loop | Space::Kernel => 0,
        }
    }

    /// Elements at the reduced level, where there is one.
    pub fn reduced(self) -> Option<usize> {
        match self {
            Space::Folded { outer, inner, parts, .. } => Some(outer * parts * inner),
            _ => None,
        }
    }

    /// Multiply-adds or elements touched: what decides whether a group is small.
    pub fn work(self) -> usize {
        match self {
            Space::Product(c, _) => times([c.batch, c.m, c.n, c.k.max(1)]),
            Space::Loop | Space::Kernel => usize::MAX,
            _ => self.full(),
        }
    }

    /// Whether folds of this space, of columns in stretches, can be computed along with folds over the rows, of `rows`: whoever
    /// has a row in registers adds it to the sums of its stretch.
    pub fn rides_on(self, rows: Space) -> bool {
        let (
            Space::Folded { outer: 1, length, inner, parts },
            Space::Folded { outer, length: columns, inner: 1, parts: 1 },
        ) = (self, rows)
        else {
            return false;
        };
        parts > 1 && length == outer && inner == columns && columns % 4 == 0 && columns > ROW
    }

    /// The space of groups of both, where row kernels may carry sums of so many columns.
    pub(super) fn join(self, other: Space, carried: usize) -> Option<Space> {
        let within = |rows: Space| matches!(rows, Space::Folded { length, .. } if length <= carried);
        match (self, other) {
            (Space::Loop | Space::Kernel, _) | (_, Space::Loop | Space::Kernel) => None,
            (a, b) if a.rides_on(b) => within(b).then_some(b),
            (a, b) if b.rides_on(a) => within(a).then_some(a),
            (a, b) if a == b && !matches!(a, Space::Product(..)) => Some(a),
            (Space::Elements(n), s) | (s, Space::Elements(n)) if n == s.full() || s.reduced() == Some(n) => Some(s),
            _ => None,
        }
    }
}

/// The level at which a reader at `level` of `space` reads the source of `view`.
pub fn through(view: &View, source_numel: usize, numel: usize, level: Level, space: Space) -> Level {
    if level == Level::Other {
        return Level::Other;
    }
    if view.is_identity() && source_numel == numel {
        return level;
    }
    if let (Level::Full, Space::Folded { outer, length, inner, parts: 1 }) = (level, space)
        && view.inside.is_none()
        && view.offset == 0
        && source_numel == outer * inner
        && numel == space.full()
    {
        let spread: Vec<(usize, isize)> =
            View { shape: [outer, length, inner].into(), strides: vec![inner as isize, 0, 1], offset: 0, inside: None }
                .merged();
        if view.merged() == spread {
            return Level::Reduced;
        }
    }
    Level::Other
}

/// The values a member reads for which `stop` holds, each with the level it is read at. What it has to wait for counts as
/// read at another index.
pub fn reads(
    program: &Program,
    stop: &dyn Fn(Id) -> bool,
    member: Id,
    level: Level,
    space: Space,
) -> Sorted<(Id, Level)> {
    let mut found = Sorted::new();
    let mut seen = Set::default();
    let val = &program.vals[member];
    let below = match val.kind {
        Kind::Fold(fold, parts) if space == folded(fold, parts) && level == Level::Reduced => Level::Full,
        Kind::Fold(..) if level == Level::Column => Level::Full,
        Kind::Fold(..) => Level::Other,
        Kind::Contraction(..) | Kind::Gather { .. } | Kind::Window(..) | Kind::Scan(..) | Kind::Kernel(..) => {
            Level::Other
        }
        _ => level,
    };
    let mut stack: Vec<(Id, Level)> = val.inputs.iter().map(|&input| (input, below)).collect();
    stack.extend(val.after.map(|before| (before, Level::Other)));
    while let Some((id, level)) = stack.pop() {
        if !seen.insert((id, level)) {
            continue;
        }
        if stop(id) {
            found.insert((id, level));
            continue;
        }
        let val = &program.vals[id];
        let level = match &val.kind {
            Kind::View(view) => through(view, program.vals[val.inputs[0]].numel, val.numel, level, space),
            Kind::Gather { .. } | Kind::Window(..) => Level::Other,
            _ => level,
        };
        stack.extend(val.inputs.iter().map(|&input| (input, level)));
        stack.extend(val.after.map(|before| (before, Level::Other)));
    }
    found
}

/// The space of a value alone.
pub fn of(val: &Val) -> Space {
    match val.kind {
        Kind::Fold(fold, parts) => folded(fold, parts),
        Kind::Contraction(c, parts) => Space::Product(c, parts),
        Kind::Scan(..) => Space::Loop,
        Kind::Kernel(..) => Space::Kernel,
        _ => Space::Elements(val.numel),
    }
}

/// The space of a fold.
pub fn folded(fold: Fold, parts: usize) -> Space {
    Space::Folded { outer: fold.outer, length: fold.length, inner: fold.inner, parts }
}

/// The level a member of a group is computed at.
pub fn level(program: &Program, member: Id, space: Space) -> Level {
    let val = &program.vals[member];
    match val.kind {
        Kind::Fold(fold, parts) if folded(fold, parts).rides_on(space) => Level::Column,
        Kind::Fold(..) => Level::Reduced,
        _ if val.numel == space.full() => Level::Full,
        _ => Level::Reduced,
    }
}
