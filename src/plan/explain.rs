//! What each pass of the compiler did to one graph, in words: for the reader of a plan who asks why it looks so.
//!
//! One function a pass, in the order in which they run; each prints what the pass decided and nothing that it did not.
//! Groups are numbered as they are after packing, which makes one of several.
//! Deliberately absent: anything that decides.

use std::fmt::{self, Write};

use super::expression::Writer;
use super::report::human;
use crate::lower::Compiled;
use crate::lower::program::{Id, Kind};
use crate::lower::schedule::Job;
use crate::lower::space::{Level, Space, level};

/// What the passes made of a step, one text each: `println!("{explanation}")`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Names of the passes and what they made, in the order in which they ran.
    pub passes: Vec<(&'static str, String)>,
}

impl Explanation {
    /// What one pass made: `graph`, `program`, `fuse`, `pack`, `schedule`, `place`, `kernel`.
    pub fn pass(&self, name: &str) -> Option<&str> {
        self.passes.iter().find(|pass| pass.0 == name).map(|pass| pass.1.as_str())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, text) in &self.passes {
            writeln!(f, "== {name}\n{text}")?;
        }
        Ok(())
    }
}

/// Writes what a pass decided.
type Tell = fn(&mut String, &Compiled, &Writer<'_>) -> fmt::Result;

/// The passes between the recorded graph and the kernels.
pub(crate) fn passes(compiled: &Compiled, writer: &Writer<'_>) -> Vec<(&'static str, String)> {
    let all: [(&'static str, Tell); 5] =
        [("program", program), ("fuse", fuse), ("pack", pack), ("schedule", schedule), ("place", place)];
    let text = |write: Tell| {
        let mut out = String::new();
        // Writing to a string does not fail.
        write(&mut out, compiled, writer).ok();
        out
    };
    all.into_iter().map(|(name, write)| (name, text(write))).collect()
}

fn names(writer: &Writer<'_>, ids: impl IntoIterator<Item = Id>) -> String {
    ids.into_iter().map(|id| writer.name(id)).collect::<Vec<_>>().join(", ")
}

fn program(out: &mut String, compiled: &Compiled, writer: &Writer<'_>) -> fmt::Result {
    let vals = &compiled.program.vals;
    let shown = |id: &Id| !matches!(vals[*id].kind, Kind::Scalar(_));
    let views = vals.iter().filter(|val| matches!(val.kind, Kind::View(_))).count();
    writeln!(out, "{} values, {views} of them views", vals.len())?;
    for id in (0..vals.len()).filter(shown) {
        let (name, spec) = (writer.name(id), writer.spec(id));
        match &vals[id].kind {
            Kind::Leaf(_) => writeln!(out, "{name} {spec}")?,
            Kind::View(view) => {
                let source = writer.name(vals[id].inputs[0]);
                write!(out, "{name} {spec} = {source} with strides {:?}", view.strides)?;
                if view.offset != 0 {
                    write!(out, " from {}", view.offset)?;
                }
                writeln!(out, "{}", if view.inside.is_some() { ", zero around" } else { "" })?;
            }
            _ => {
                let named = |other: Id| other != id && shown(&other);
                writeln!(out, "{name} {spec} = {}", writer.expression(id, &named))?;
            }
        }
    }
    writeln!(out, "return {}", names(writer, compiled.program.roots.iter().copied()))
}

/// What the threads of a group run over.
fn space(space: Space) -> String {
    match space {
        Space::Elements(n) => format!("{n} elements"),
        Space::Folded { outer, length, inner: 1, parts: 1 } => format!("{outer} rows of {length}"),
        Space::Folded { outer: 1, length, inner, parts: 1 } => format!("{inner} columns of {length}"),
        Space::Folded { outer, length, inner, parts: 1 } => format!("{outer} x {inner} columns of {length}"),
        Space::Folded { outer, length, inner, parts } => {
            format!("{outer} x {inner} folds of {length} in {parts} parts")
        }
        Space::Product(c, parts) => {
            let batch = if c.batch > 1 { format!("{} x ", c.batch) } else { String::new() };
            let parts = if parts > 1 { format!(" in {parts} parts") } else { String::new() };
            format!("product {batch}{} x {} over {}{parts}", c.m, c.n, c.k)
        }
        Space::Loop => "a loop".into(),
        Space::Kernel => "a kernel of its own".into(),
    }
}

fn fuse(out: &mut String, compiled: &Compiled, writer: &Writer<'_>) -> fmt::Result {
    let fused = &compiled.fused;
    let members: usize = fused.groups.iter().map(|group| group.members.len()).sum();
    let written: usize = fused.groups.iter().map(|group| group.outputs.len()).sum();
    let groups = fused.groups.len();
    writeln!(out, "{groups} groups with {members} members, {written} of them written to memory")?;
    for (index, group) in fused.groups.iter().enumerate() {
        let alike = compiled.wide.get(&index).map(|wide| group.outputs.len() / wide.outputs.len().max(1));
        let packed = alike
            .map_or(String::new(), |alike| format!(", and {} groups more that are alike", alike.saturating_sub(1)));
        let carried = group.members.iter().find_map(|&id| match compiled.program.vals[id].kind {
            Kind::Fold(_, parts) if level(&compiled.program, id, group.space) == Level::Column => Some(parts),
            _ => None,
        });
        let carried = carried.map_or(String::new(), |parts| format!(", along with columns in {parts} stretches"));
        writeln!(out, "g{index}: {}{carried}{packed}", space(group.space))?;
        for &member in &group.members {
            let stop = |id: Id| id != member && fused.is_member(id);
            let mark = if group.outputs.contains(&member) { "*" } else { " " };
            let (name, spec) = (writer.name(member), writer.spec(member));
            writeln!(out, "  {mark} {name} {spec} = {}", writer.expression(member, &stop))?;
        }
    }
    Ok(())
}

fn pack(out: &mut String, compiled: &Compiled, writer: &Writer<'_>) -> fmt::Result {
    if compiled.wide.is_empty() {
        return writeln!(out, "nothing packs");
    }
    let mut wide: Vec<_> = compiled.wide.iter().collect();
    wide.sort_by_key(|entry| entry.0);
    for (&group, wide) in wide {
        let all = &compiled.fused.groups[group].outputs;
        let many = all.len() / wide.outputs.len().max(1);
        let elements = wide.elements;
        writeln!(out, "g{group} stands for {many} groups and runs over {elements} elements; it writes")?;
        for outputs in all.chunks(wide.outputs.len().max(1)) {
            writeln!(out, "    {}", names(writer, outputs.iter().copied()))?;
        }
    }
    for layout in &compiled.layouts {
        writeln!(out, "one behind the other: {}", names(writer, layout.iter().copied()))?;
    }
    Ok(())
}

fn schedule(out: &mut String, compiled: &Compiled, writer: &Writer<'_>) -> fmt::Result {
    let groups = |list: &[usize]| list.iter().map(|group| format!("g{group}")).collect::<Vec<_>>().join(" ");
    for (index, job) in compiled.schedule.jobs.iter().enumerate() {
        match job {
            Job::Single(group) => writeln!(out, "{index:>3}  g{group}")?,
            Job::Siblings(list) => writeln!(out, "{index:>3}  side by side: {}", groups(list))?,
            Job::Region(levels) => {
                let levels: Vec<String> = levels.iter().map(|level| groups(level)).collect();
                writeln!(out, "{index:>3}  one workgroup: {}", levels.join(" | barrier | "))?;
            }
        }
    }
    let mut in_place: Vec<(Id, Id)> = compiled.schedule.in_place.iter().map(|(&value, &leaf)| (leaf, value)).collect();
    in_place.sort_unstable();
    let leaves = names(writer, in_place.iter().map(|pair| pair.0));
    writeln!(out, "overwritten in place: {}", if leaves.is_empty() { "nothing" } else { &leaves })?;
    if !compiled.copies.is_empty() {
        writeln!(out, "copied at the end: {}", names(writer, compiled.copies.iter().map(|copy| copy.1)))?;
    }
    Ok(())
}

fn place(out: &mut String, compiled: &Compiled, writer: &Writer<'_>) -> fmt::Result {
    let placement = &compiled.placement;
    let total: u64 = placement.buffers.iter().sum();
    let alone: u64 = placement.ranges.keys().map(|&id| compiled.program.vals[id].bytes()).sum();
    let (count, live) = (placement.buffers.len(), human(placement.live));
    writeln!(out, "{} of temporaries in {count} buffers of {}; live at most {live}", human(alone), human(total))?;
    let mut ranges: Vec<_> = placement.ranges.iter().map(|(&id, range)| (range.buffer, range.offset, id)).collect();
    ranges.sort_unstable();
    for (buffer, offset, id) in ranges {
        let (name, spec) = (writer.name(id), writer.spec(id));
        writeln!(out, "  T{buffer} + {offset:<8}  {name} {spec}, {}", human(compiled.program.vals[id].bytes()))?;
    }
    Ok(())
}
