//! Fills in what a plan says of its dispatches and slots, from the compiled program and the buffers it is bound to.
//!
//! Done when somebody asks for the plan, not when it is made: a step that nobody looks at does not pay for it.

use std::sync::Arc;

use super::Bound;
use super::expression::{Names, Writer};
use super::memory::Memory;
use super::report::{Computed, Line, Plan, Role, Stored};
use super::traffic::Traffic;
use crate::collections::Table;
use crate::lower::Compiled;
use crate::lower::program::{Id, Kind};
use crate::lower::schedule::Job;
use crate::sort::sort;

/// What is known of the values that come from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Names and shapes.
    pub names: Names,
    /// What they are, in the order in which they are listed.
    pub roles: Vec<(Id, Role)>,
    /// Memory, uniforms excepted.
    pub memory: Memory,
}

impl Given {
    /// Names for what is replaced or written: results go by the name of what they replace.
    pub fn with_results(mut self, compiled: &Compiled) -> Given {
        for (leaf, value) in &compiled.request.replaces {
            if let Some(name) = self.names.names.get(leaf).cloned() {
                self.names.names.insert(*value, format!("{name}'"));
            }
        }
        self
    }
}

impl Bound {
    /// The plan with everything that can be said of it.
    pub fn describe(&self, compiled: &Compiled, given: &Given) -> Plan {
        let mut plan = self.plan.clone();
        plan.memory = Memory { uniforms: self.uniforms, ..given.memory };
        let writer = Writer::new(&compiled.program, &given.names);
        let index = self.list(compiled, given, &writer, &mut plan.values);
        let of = |line: &mut Line, job: &Job, compiled: &Compiled, index: &Table<Id, usize>, writer: &Writer<'_>| {
            let traffic = Traffic::of(compiled, job);
            line.reads = traffic.reads.iter().filter_map(|id| index.get(id).copied()).collect();
            line.writes = traffic.writes.iter().filter_map(|id| index.get(id).copied()).collect();
            line.computes = computes(compiled, job, writer);
        };
        for (line, origin) in plan.lines.iter_mut().zip(&self.origins) {
            match &origin.looped {
                None => of(line, &origin.job, compiled, &index, &writer),
                Some(looped) => {
                    // What a loop is given goes by the names it has outside; a loop within another has no names there.
                    let direct = compiled.loops.values().any(|own| Arc::ptr_eq(own, looped));
                    let (mut names, mut inner) = (Names::default(), Table::new());
                    for (id, outside) in looped.places.iter().filter(|_| direct) {
                        names.names.insert(*id, writer.name(*outside));
                        inner.extend(index.get(outside).map(|&at| (*id, at)));
                    }
                    let body = &looped.compiled;
                    of(line, &origin.job, body, &inner, &Writer::new(&body.program, &names));
                }
            }
        }
        plan
    }

    /// Lists everything that has a place; returns for each value the index of its entry.
    fn list(
        &self,
        compiled: &Compiled,
        given: &Given,
        writer: &Writer<'_>,
        values: &mut Vec<Stored>,
    ) -> Table<Id, usize> {
        let mut buffers: Vec<u64> = Vec::new();
        let mut index = Table::new();
        let mut temporaries: Vec<Id> = compiled.placement.ranges.keys().copied().collect();
        sort(&mut temporaries);
        let temporaries = temporaries.into_iter().map(|id| (id, Role::Temporary));
        for (id, role) in given.roles.iter().copied().chain(temporaries) {
            let Some(slot) = self.slots.get(&id).filter(|_| !index.contains_key(&id)) else { continue };
            let buffer = buffers.iter().position(|&buffer| buffer == slot.buffer.id()).unwrap_or_else(|| {
                buffers.push(slot.buffer.id());
                buffers.len() - 1
            });
            index.insert(id, values.len());
            values.push(Stored {
                name: writer.name(id),
                spec: writer.spec(id),
                role,
                buffer,
                offset: slot.offset,
                bytes: compiled.program.vals[id].bytes(),
            });
        }
        for (value, leaf) in &compiled.schedule.in_place {
            if let Some(&at) = index.get(leaf) {
                index.insert(*value, at);
            }
        }
        index
    }
}

/// The expressions of a dispatch: its outputs, and what more than one of its values is computed from.
fn computes(compiled: &Compiled, job: &Job, writer: &Writer<'_>) -> Vec<Computed> {
    let fused = &compiled.fused;
    let levels: Vec<Vec<usize>> = match job {
        Job::Region(levels) => levels.clone(),
        _ => vec![job.groups()],
    };
    let mut all = Vec::new();
    for (level, groups) in levels.iter().enumerate() {
        for &index in groups {
            let group = &fused.groups[index];
            let wide = compiled.wide.get(&index);
            let outputs = wide.map_or(&group.outputs, |wide| &wide.outputs);
            let alike = wide.map_or(1, |wide| group.outputs.len() / wide.outputs.len().max(1));
            let shown: Vec<Id> = match wide {
                // The members of all that are alike lie side by side.
                Some(_) => outputs.clone(),
                None => {
                    let uses = |id: Id| readers(compiled, &group.members, id);
                    group.members.iter().copied().filter(|id| outputs.contains(id) || uses(*id) > 1).collect()
                }
            };
            let named = |id: Id| shown.contains(&id) || fused.group_of[id].is_some_and(|other| other != index);
            for &id in &shown {
                let text = writer.expression(id, &|other| other != id && named(other));
                all.push(Computed { name: writer.name(id), spec: writer.spec(id), text, level, alike });
            }
        }
    }
    all
}

/// How many values of a group read a member of it, as written: through views and whatever is recomputed.
fn readers(compiled: &Compiled, members: &[Id], of: Id) -> usize {
    let vals = &compiled.program.vals;
    if vals[of].numel == 0 || matches!(vals[of].kind, Kind::Leaf(_)) {
        return 0;
    }
    let mut count = 0;
    for &member in members.iter().filter(|&&member| member > of) {
        let mut stack = vals[member].inputs.clone();
        let mut steps = 0;
        while let Some(id) = stack.pop() {
            steps += 1;
            if id == of {
                count += 1;
            } else if !compiled.fused.is_member(id) && id > of && steps < 256 {
                stack.extend(&vals[id].inputs);
            }
        }
    }
    count
}
