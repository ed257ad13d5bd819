//! Sums of columns that ride along with row kernels.
//!
//! The gradients of a layer norm's scale and shift, and of a bias before it, are sums over the very rows that the kernel of
//! the input's gradient has in registers; as kernels of their own they read everything again. A sum over stretches of the
//! rows can be carried by the workgroups of a row kernel, each with a stretch to itself, and a small kernel adds up the
//! stretches. `fuse` puts such a sum into the rows' group by itself; here sums over all rows are divided in two where that
//! lets them ride. Deliberately absent: sums of few rows, and reductions other than sums.

use super::Compiled;
use super::Target;
use super::program::{Id, Kind, Program};
use super::rows::carried;
use super::schedule::SMALL;
use super::space::{Level, Space, level};
use crate::collections::Table;
use crate::dtype::DType;
use crate::graph::{Fold, Reduction};

/// Rows of a stretch at least: its partial results cost a row to write and one to read.
const ROWS: usize = 16;
/// Stretches at most: one thread adds them up.
const STRETCHES: usize = 256;

/// The sums of columns that may ride along with the rows of some kernel, each with the stretches to divide it into: those of a kernel
/// that has no other business, where another one folds rows of the same shape.
pub fn candidates(compiled: &Compiled, target: &Target) -> Vec<(Id, usize)> {
    let vals = &compiled.program.vals;
    let spaces: Vec<Space> = compiled.fused.groups.iter().map(|group| group.space).collect();
    let mut found = Vec::new();
    for group in &compiled.fused.groups {
        let Space::Folded { outer: 1, length, inner, parts: 1 } = group.space else { continue };
        let parts = (length / ROWS).min(STRETCHES);
        let divided = Space::Folded { outer: 1, length, inner, parts };
        if length * inner <= SMALL || inner > carried(target) || !spaces.iter().any(|&rows| divided.rides_on(rows)) {
            continue;
        }
        let sum = |id: Id| matches!(vals[id].kind, Kind::Fold(Fold { reduction: Reduction::Sum, .. }, 1));
        if group.members.iter().all(|&id| sum(id) && vals[id].dtype == DType::F32) {
            found.extend(group.members.iter().map(|&fold| (fold, parts)));
        }
    }
    found
}

/// A program with sums divided in two, and where its values are now: each sum behind the one over its stretches.
pub fn split(program: &Program, folds: &[(Id, usize)]) -> (Program, Table<Id, Id>) {
    let parts: Table<Id, usize> = folds.iter().copied().collect();
    let mut to = Table::new();
    let mut made = Program { leaves: program.leaves.clone(), ..Program::default() };
    for (id, val) in program.vals.iter().enumerate() {
        let mut val = val.clone();
        val.inputs.iter_mut().for_each(|input| *input = to[&*input]);
        val.after = val.after.map(|after| to[&after]);
        if let (Some(&parts), &Kind::Fold(fold, 1)) = (parts.get(&id), &val.kind) {
            let mut first = val.clone();
            (first.kind, first.numel) = (Kind::Fold(fold, parts), parts * val.numel);
            val.inputs = vec![made.push(first)];
            val.kind = Kind::Fold(Fold { length: parts, ..fold }, 1);
        }
        to.insert(id, made.push(val));
    }
    made.roots = program.roots.iter().map(|root| to[root]).collect();
    made.moving = program.moving.iter().map(|id| to[id]).collect();
    (made, to)
}

/// Whether the first half of a sum that was divided rides along with rows.
pub fn rides(compiled: &Compiled, fold: Id) -> bool {
    let first = compiled.program.vals[fold].inputs[0];
    let group = compiled.fused.group_of[first].map(|group| &compiled.fused.groups[group]);
    group.is_some_and(|group| level(&compiled.program, first, group.space) == Level::Column)
}
