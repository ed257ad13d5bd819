//! What a dispatch reads, writes and computes, counted on the program.
//!
//! Bytes are those of whole tensors, each once: what has to come from memory and go back to it if caches were perfect.
//! Values that a region hands from one level to the next are written but not counted as read. Of packed kernels every
//! tensor counts. Deliberately absent: how a kernel is written; padding and repeated loads are its own affair.

use crate::collections::{Set, Sorted};
use crate::lower::program::{Id, Kind};
use crate::lower::schedule::Job;
use crate::lower::space::{Level, level, reads};
use crate::lower::{Compiled, space::Space};

/// What one dispatch does to memory, and the operations it takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub reads: Sorted<Id>,
    pub writes: Sorted<Id>,
    /// Floating-point operations of matrix products: two for each multiply-add.
    pub flops: u64,
    /// Elementwise operations, and one for each element of a fold.
    pub ops: u64,
}

impl Traffic {
    pub fn of(compiled: &Compiled, job: &Job) -> Traffic {
        let (program, fused) = (&compiled.program, &compiled.fused);
        let groups: Set<usize> = job.groups().into_iter().collect();
        let mut traffic = Traffic::default();
        let stop = |id: Id| fused.is_member(id) || matches!(program.vals[id].kind, Kind::Leaf(_));
        for &group in groups.iter() {
            let group = &fused.groups[group];
            for &member in &group.members {
                let at = level(program, member, group.space);
                let found = reads(program, &stop, member, at, group.space).into_iter().map(|read| read.0);
                traffic
                    .reads
                    .extend(found.filter(|&id| fused.group_of[id].is_none_or(|other| !groups.contains(&other))));
                traffic.count(compiled, member, at, group.space);
            }
            traffic.writes.extend(&group.outputs);
        }
        traffic
    }

    /// Counts the operations of a member and of what is recomputed for it.
    fn count(&mut self, compiled: &Compiled, member: Id, at: Level, space: Space) {
        let program = &compiled.program;
        let times = |kind: &Kind| match (kind, at) {
            (Kind::Fold(fold, _), _) => fold.outer * fold.length * fold.inner,
            (_, Level::Reduced) => space.reduced().unwrap_or_else(|| space.full()),
            _ => space.full(),
        };
        let times = times(&program.vals[member].kind) as u64;
        let (mut stack, mut seen) = (vec![member], Set::new());
        while let Some(id) = stack.pop() {
            let val = &program.vals[id];
            match val.kind {
                Kind::Contraction(c, _) => {
                    self.flops += 2 * [c.batch, c.m, c.n, c.k].map(|size| size as u64).iter().product::<u64>();
                }
                // Of several outputs the first counts.
                Kind::Kernel(ref kernel, 0) => self.flops += kernel.flops,
                Kind::Map(_) if &*val.name != "copy" => self.ops += times,
                Kind::Fold(..) => self.ops += times,
                _ => {}
            }
            let inline = |input: &Id| !compiled.fused.is_member(*input);
            stack.extend(val.inputs.iter().copied().filter(inline).filter(|&input| seen.insert(input)));
        }
    }

    /// Bytes read and bytes written.
    pub fn bytes(&self, compiled: &Compiled) -> (u64, u64) {
        let bytes = |ids: &Sorted<Id>| ids.iter().map(|&id| compiled.program.vals[id].bytes()).sum();
        (bytes(&self.reads), bytes(&self.writes))
    }
}
