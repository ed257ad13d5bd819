//! Writes whole kernels: one WGSL module for each dispatch, and what to bind to it.
//!
//! A group runs in one of three forms. *Threads*: each thread owns a few elements, or one result of a fold and loops
//! over its elements. *Rows*: a workgroup shares each row, which stays in registers between the folds over it.
//! *Product*: a tuned matrix-product shader with the group's maps in its store seam. Inside a region every group runs
//! as threads of the one workgroup. Tensors that share a buffer share a binding. Deliberately absent: device objects
//! other than the buffers' identity; `plan` makes pipelines and bind groups of what is written here.

use std::fmt::Write;

use super::Target;
use super::emit::{At, Emitter, Unit, combine, wgsl_type};
use super::fuse::Fused;
use super::pack::Wide;
use super::program::{Id, Kind, Program, fold_stretch, product_stretch};
use super::schedule::Job;
use super::space::{Level, Space};
use super::turns::{self, Turns, Way};
use crate::collections::Table;
use crate::error::Result;
use crate::gpu::{Access, Class, Range};
use crate::graph::{Contraction, Slot};
use crate::sort::sort;

/// One dispatch, written out.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What it computes, for people.
    pub label: String,
    /// The WGSL.
    pub source: String,
    /// What to bind, in order.
    pub bindings: Vec<Binding>,
    /// Workgroups.
    pub grid: [u32; 3],
}

/// What one binding of a kernel is.
#[derive(Clone, Debug)]
pub enum Binding {
    /// A uniform with these words.
    Uniform(Vec<u32>),
    /// A range of a storage buffer.
    Storage(Range, Access),
    /// The uniform that says which turn of a loop it is.
    Turns,
}

/// Everything a kernel is written from.
pub struct Context<'a> {
    /// The values.
    pub program: &'a Program,
    /// The groups.
    pub fused: &'a Fused,
    /// The same groups in the plan whose kernels are to be used again, which decide the form of each kernel: lanes,
    /// threads, tiles. Those of `fused` itself, unless this is a plan for a smaller batch.
    pub forms: &'a Fused,
    /// Groups that stand for several.
    pub wide: &'a Table<usize, Wide>,
    /// Where each stored or given value lies.
    pub slots: &'a Table<Id, Slot>,
    /// The device it is for.
    pub target: &'a Target,
    /// The loop that it is the body of, if it is one.
    pub turns: Option<Turns<'a>>,
}

/// Threads of a workgroup in a region and in kernels of few threads.
pub(super) const WIDTH: u32 = 64;
/// Threads of a workgroup in long elementwise kernels.
const WIDE: u32 = 256;
/// An elementwise kernel of so many units is long.
const LONG: usize = 1 << 16;
/// Vectors of four that a thread of a long elementwise kernel takes on a CPU, where threads are lanes of one another's
/// instructions: what does not depend on the element is loaded once for all of them, and neighbours lie in one line of the cache.
const EACH: usize = 2;
/// Words of a uniform that every device binds.
const UNIFORM: usize = 1 << 14;
/// Rows longer than this are shared by a workgroup.
pub(super) const ROW: usize = 32;

/// Folds of at most so many elements that are read in several passes are written out without a loop.
const UNROLLED: usize = 9;

/// In which pass the elements in `full` are stored, of as many as there are stages of folds and perhaps one more: with
/// the last folds, unless some element depends on those.
pub(super) fn last_pass(stages: &Table<Id, usize>, folds: usize, full: &[Id]) -> usize {
    let stage = |id| stages.get(id).copied().unwrap_or(folds);
    full.iter().map(stage).max().unwrap_or(0).max(folds.saturating_sub(1))
}

/// Whether a group's rows are shared by workgroups rather than owned by threads.
pub fn is_cooperative(space: Space) -> bool {
    matches!(space, Space::Folded { length, inner: 1, .. } if length > ROW)
}

impl Context<'_> {
    /// Writes the kernels of a job, each with its part of it: one, or several where it would bind more buffers than the
    /// device allows, or more words than a uniform has. How many buffers that is depends on which tensors share one, so it is
    /// known only here.
    pub fn kernels(&self, job: &Job) -> Result<Vec<(Job, Kernel)>> {
        let kernel = self.write(job)?;
        let buffers = kernel.bindings.iter().filter(|binding| matches!(binding, Binding::Storage(..))).count();
        let words = |binding: &Binding| if let Binding::Uniform(words) = binding { words.len() } else { 0 };
        let uniform = kernel.bindings.iter().map(words).max().unwrap_or(0);
        match job.halves() {
            Some(halves) if buffers > self.target.bindings || uniform > UNIFORM => {
                let [mut first, second] = [self.kernels(&halves[0])?, self.kernels(&halves[1])?];
                first.extend(second);
                Ok(first)
            }
            _ => Ok(vec![(job.clone(), kernel)]),
        }
    }

    /// Writes the kernel of a job.
    pub fn write(&self, job: &Job) -> Result<Kernel> {
        let mut unit = Unit::default();
        let groups = job.groups();
        match job {
            Job::Single(group) => {
                let space = self.fused.groups[*group].space;
                if let Space::Product(c, parts) = space {
                    return self.product(*group, c, parts);
                }
                if space == Space::Kernel {
                    return self.own(*group);
                }
                if is_cooperative(self.forms.groups[*group].space) {
                    return self.rows(*group);
                }
                unit.held = true;
                let lanes = self.lanes(*group);
                let (body, items) = self.threads(&mut unit, *group, lanes, "t");
                let width = if self.units(*group, lanes, self.forms) >= LONG { WIDE } else { WIDTH };
                let end = unit.param(items as u32);
                let body = format!("if (t < {end}) {{\n{body}}}\n");
                self.assemble(unit, &groups, &body, width, items.div_ceil(width as usize), Thread::Global)
            }
            Job::Siblings(groups) => {
                unit.held = true;
                let (mut text, mut start) = (String::new(), 0);
                for (index, &group) in groups.iter().enumerate() {
                    let (body, items) = self.threads(&mut unit, group, self.lanes(group), "i");
                    let (low, high) = (unit.param(start as u32), unit.param((start + items) as u32));
                    let otherwise = if index == 0 { "" } else { "else " };
                    writeln!(text, "{otherwise}if (t >= {low} && t < {high}) {{\nlet i = t - {low};\n{body}}}").ok();
                    // Each sibling starts on a workgroup of its own, so that none diverges.
                    start += items.next_multiple_of(WIDTH as usize);
                }
                self.assemble(unit, groups, &text, WIDTH, start.div_ceil(WIDTH as usize), Thread::Global)
            }
            Job::Region(levels) => {
                unit.held = self.inside();
                let mut text = String::new();
                for (index, level) in levels.iter().enumerate() {
                    if index > 0 {
                        text.push_str("storageBarrier();\n");
                    }
                    for &group in level {
                        let (body, items) = self.threads(&mut unit, group, 1, "t");
                        let end = unit.param(items as u32);
                        writeln!(text, "for (var t = lane; t < {end}; t += {WIDTH}u) {{\n{body}}}").ok();
                    }
                }
                for (index, &(value, leaf)) in self.turns.iter().flat_map(|turns| turns.copies).enumerate() {
                    let (from, to) = (unit.tensor(value), unit.tensor(leaf));
                    unit.tensors[from].1.read = true;
                    unit.tensors[to].1.write = true;
                    let end = unit.param(self.program.vals[leaf].numel as u32);
                    let barrier = if index == 0 { "storageBarrier();\n" } else { "" };
                    let body = format!("w{to}(t, r{from}(t));");
                    writeln!(text, "{barrier}for (var t = lane; t < {end}; t += {WIDTH}u) {{ {body} }}").ok();
                }
                self.assemble(unit, &groups, &text, WIDTH, 1, Thread::Lane)
            }
        }
    }

    /// Whether the kernel holds the loop whose body it is.
    fn inside(&self) -> bool {
        self.turns.is_some_and(|turns| turns.way == Way::Inside)
    }

    pub(super) fn outputs(&self, group: usize) -> &[Id] {
        self.wide.get(&group).map_or(&self.fused.groups[group].outputs, |wide| &wide.outputs)
    }

    pub(super) fn level(&self, id: Id, space: Space) -> Level {
        super::space::level(self.program, id, space)
    }

    fn lanes(&self, group: usize) -> usize {
        let quads = |space: Space| match space {
            // What lies behind the last element of a tensor is padding.
            Space::Elements(n) => n >= 16 || self.wide.contains_key(&group),
            Space::Folded { inner, .. } => inner % 4 == 0 && inner > 0,
            Space::Product(..) | Space::Loop | Space::Kernel => false,
        };
        let (own, form) = (self.fused.groups[group].space, self.forms.groups[group].space);
        if quads(form) && (quads(own) || matches!(own, Space::Elements(_))) { 4 } else { 1 }
    }

    /// How many results or elements a group has, in units of `lanes`.
    fn units(&self, group: usize, lanes: usize, of: &Fused) -> usize {
        let space = of.groups[group].space;
        let n = self.wide.get(&group).map_or(space.full(), |wide| wide.elements);
        space.reduced().unwrap_or(n).div_ceil(lanes)
    }

    /// How many of its units each thread of a group takes.
    fn each(&self, group: usize, lanes: usize) -> usize {
        let elements = matches!(self.forms.groups[group].space, Space::Elements(_));
        let long = self.units(group, lanes, self.forms) >= LONG;
        if self.target.class == Class::Cpu && lanes == 4 && elements && long { EACH } else { 1 }
    }

    /// The body of a group as threads, for the item in variable `item`, and how many items there are.
    fn threads(&self, unit: &mut Unit, group: usize, lanes: usize, item: &str) -> (String, usize) {
        let space = self.fused.groups[group].space;
        let (units, each) = (self.units(group, lanes, self.fused), self.each(group, lanes));
        let mut e = Emitter::new(self.program, self.fused, group, unit);
        match space {
            Space::Elements(_) => {
                let var =
                    if lanes == 4 { e.bind("e", &format!("{item} * {}u", lanes * each)) } else { item.to_string() };
                self.finish(&mut e, group, &At { var: var.clone(), level: Level::Full }, lanes);
                for next in 1..each {
                    let var = e.bind("e", &format!("{var} + {}u", lanes * next));
                    let end = e.unit.param((units * lanes) as u32);
                    e.open();
                    self.finish(&mut e, group, &At { var: var.clone(), level: Level::Full }, lanes);
                    let body = e.close();
                    e.line(&format!("if ({var} < {end}) {{\n{body}}}"));
                }
            }
            Space::Product(c, parts) => self.serial_product(&mut e, group, c, parts, item),
            Space::Folded { .. } => self.thread_fold(&mut e, group, lanes, item),
            // Kernels of loops are those of their bodies, and an op's own is no part of another.
            Space::Loop | Space::Kernel => {}
        }
        (e.close(), units.div_ceil(each))
    }

    /// Computes and stores all outputs at one index; every load comes before the first store.
    pub(super) fn finish(&self, e: &mut Emitter, group: usize, at: &At, lanes: usize) {
        let space = self.fused.groups[group].space;
        let outputs: Vec<Id> =
            self.outputs(group).iter().copied().filter(|&id| self.level(id, space) == at.level).collect();
        let values: Vec<String> = outputs.iter().map(|&id| e.value(id, at, lanes)).collect();
        for (id, value) in outputs.into_iter().zip(values) {
            e.store(id, at, lanes, &value);
        }
    }

    /// A product small enough for a region: a thread for each result.
    fn serial_product(&self, e: &mut Emitter, group: usize, c: Contraction, parts: usize, item: &str) {
        let Some(product) = self.product_member(group) else { return };
        let [a, b] = self.program.vals[product].inputs[..] else { return };
        let [m, n, k] = [c.m, c.n, c.k].map(|size| e.unit.param(size as u32));
        let row = e.bind("i", &format!("{item} / {n}"));
        let column = e.bind("i", &format!("{item} - {row} * {n}"));
        let (mut left, mut right) = (row.clone(), column.clone());
        let (mut first, mut last) = ("0u".to_string(), k.clone());
        if c.batch * parts == 1 {
            e.know(item, &[(c.n, &column), (0, &row)]);
        } else {
            let matrix = e.bind("i", &format!("{row} / {m}"));
            let i = e.bind("i", &format!("{row} - {matrix} * {m}"));
            e.know(item, &[(c.n, &column), (c.m, &i), (0, &matrix)]);
            if parts > 1 {
                let stretch = e.unit.param(product_stretch(c.k, parts) as u32);
                first = e.bind("i", &format!("{matrix} * {stretch}"));
                last = format!("min({first} + {stretch}, {k})");
                left = i;
            } else {
                right = e.bind("i", &format!("{matrix} * {k} * {n} + {column}"));
            }
        }
        left = e.bind("i", &format!("{left} * {k}"));
        let sum = e.unit.name("f");
        e.line(&format!("var {sum} = 0.0;"));
        e.open();
        let x = e.bind("i", &format!("{left} + k"));
        let y = e.bind("i", &format!("{right} + k * {n}"));
        if c.batch * parts == 1 {
            e.know(&x, &[(c.k, "k"), (0, &row)]);
            e.know(&y, &[(c.n, &column), (0, "k")]);
        }
        let x = e.value(a, &At { var: x, level: Level::Other }, 1);
        let y = e.value(b, &At { var: y, level: Level::Other }, 1);
        e.line(&format!("{sum} += {x} * {y};"));
        let body = e.close();
        e.line(&format!("for (var k = {first}; k < {last} + zero; k++) {{\n{body}}}"));
        let at = At { var: item.to_string(), level: Level::Full };
        e.define(product, &at, 1, &sum);
        self.finish(e, group, &at, 1);
    }

    pub(super) fn product_member(&self, group: usize) -> Option<Id> {
        let members = &self.fused.groups[group].members;
        members.iter().copied().find(|&id| matches!(self.program.vals[id].kind, Kind::Contraction(..)))
    }

    /// Each thread owns a result (four neighbours with four lanes) and loops over its elements, once for each stage
    /// of folds and once more for elements that depend on the last.
    fn thread_fold(&self, e: &mut Emitter, group: usize, lanes: usize, item: &str) {
        let space = self.fused.groups[group].space;
        let Space::Folded { outer, length, inner, parts } = space else { return };
        let result = if lanes == 4 { e.bind("o", &format!("{item} * 4u")) } else { item.to_string() };
        let count = e.unit.param(length as u32);
        // The result's index as row, stretch and column, and what the index of an element is made of.
        let by = e.unit.param(inner as u32);
        let (mut block, mut column) = (None, None);
        if inner == 1 {
            block = Some(result.clone());
        } else if outer * parts == 1 {
            column = Some(result.clone());
        } else {
            let row = e.bind("i", &format!("{result} / {by}"));
            let within = e.bind("i", &format!("{result} - {row} * {by}"));
            e.know(&result, &[(inner, &within), (0, &row)]);
            (block, column) = (Some(row), Some(within));
        }
        let (mut first, mut last) = ("0u".to_string(), count.clone());
        if parts > 1 {
            let stretch = e.unit.param(fold_stretch(length, parts) as u32);
            let all = e.unit.param(parts as u32);
            let at = block.unwrap_or_default();
            let row = e.bind("i", &format!("{at} / {all}"));
            first = e.bind("i", &format!("({at} - {row} * {all}) * {stretch}"));
            last = format!("min({first} + {stretch}, {count})");
            block = Some(row);
        }
        let mut terms: Vec<String> = block.iter().map(|block| format!("{block} * {count} * {by}")).collect();
        terms.extend(column.clone());
        let base = e.bind("i", &terms.join(" + "));
        let mut axes: Vec<(usize, &str)> = column.iter().map(|column| (inner, column.as_str())).collect();
        axes.push((if block.is_some() { length } else { 0 }, "k"));
        axes.extend(block.iter().map(|block| (0, block.as_str())));
        let step = (inner > 1).then(|| by.clone());
        let reduced = At { var: result, level: Level::Reduced };
        e.reduced = Some((reduced.clone(), lanes));
        let outputs = self.outputs(group).to_vec();
        let stages = e.stages(&[&self.fused.groups[group].members[..], &outputs[..]].concat());
        let folds = e.folds(&stages);
        let full: Vec<Id> = outputs.iter().copied().filter(|&id| self.level(id, space) == Level::Full).collect();
        // Elements are stored in the last pass, when nothing reads what they may overwrite any more.
        let last_pass = last_pass(&stages, folds.len(), &full);
        // The loop variable's values where they are few: a pass then finds in registers what the one before has loaded.
        let few = |space| matches!(space, Space::Folded { length, parts: 1, .. } if length <= UNROLLED);
        let unrolled = (last_pass > 0 && few(space) && few(self.forms.groups[group].space)).then(|| {
            let at = |e: &mut Emitter, k: usize| {
                let offset = step.as_ref().map_or(format!("{k}u"), |by| format!("{k}u * {by}"));
                e.bind("l", &format!("{base} + {offset}"))
            };
            (0..length).map(|k| (format!("{k}u"), at(e, k))).collect::<Vec<_>>()
        });
        for pass in 0..=last_pass {
            let now = folds.get(pass).map_or(&[][..], Vec::as_slice);
            let store = if pass == last_pass { &full[..] } else { &[] };
            let sums: Vec<String> = now.iter().map(|_| e.unit.name("f")).collect();
            for (&fold, sum) in now.iter().zip(&sums) {
                let dtype = wgsl_type(self.program.vals[fold].dtype, lanes);
                let identity = self.identity(fold);
                e.line(&format!("var {sum} = {dtype}({identity});"));
            }
            let element = |e: &mut Emitter, var: &str, k: &str| {
                let coordinates: Vec<(usize, &str)> =
                    axes.iter().map(|&(own, name)| (own, if name == "k" { k } else { name })).collect();
                e.know(var, &coordinates);
                let at = At { var: var.into(), level: Level::Full };
                for (&fold, sum) in now.iter().zip(&sums) {
                    self.accumulate(e, fold, &at, lanes, sum, None);
                }
                let values: Vec<String> = store.iter().map(|&id| e.value(id, &at, lanes)).collect();
                for (&id, value) in store.iter().zip(&values) {
                    e.store(id, &at, lanes, value);
                }
            };
            if let Some(unrolled) = &unrolled {
                unrolled.iter().for_each(|(k, var)| element(e, var, k));
            } else {
                e.open();
                let offset = step.as_ref().map_or("k".to_string(), |by| format!("k * {by}"));
                let var = e.bind("l", &format!("{base} + {offset}"));
                element(e, &var, "k");
                let body = e.close();
                e.line(&format!("for (var k = {first}; k < {last} + zero; k++) {{\n{body}}}"));
            }
            for (&fold, sum) in now.iter().zip(&sums) {
                let value = e.bind("v", sum);
                e.define(fold, &reduced, lanes, &value);
            }
        }
        self.finish(e, group, &reduced, lanes);
    }

    pub(super) fn identity(&self, fold: Id) -> &'static str {
        match self.program.vals[fold].kind {
            Kind::Fold(f, _) => f.reduction.identity(self.program.vals[fold].dtype),
            _ => "0",
        }
    }

    /// Combines the element at `at` into `sum`, where `exists` holds.
    pub(super) fn accumulate(&self, e: &mut Emitter, fold: Id, at: &At, lanes: usize, sum: &str, exists: Option<&str>) {
        let val = &self.program.vals[fold];
        let Kind::Fold(f, _) = val.kind else { return };
        let mut x = e.value(val.inputs[0], at, lanes);
        if let Some(exists) = exists {
            let dtype = wgsl_type(val.dtype, lanes);
            x = e.bind("v", &format!("select({dtype}({}), {x}, {exists})", f.reduction.identity(val.dtype)));
        }
        let combined = combine(e.unit, f.reduction, val.dtype, lanes, sum, &x);
        e.line(&format!("{sum} = {combined};"));
    }

    pub(super) fn assemble(
        &self,
        mut unit: Unit,
        groups: &[usize],
        body: &str,
        width: u32,
        blocks: usize,
        thread: Thread,
    ) -> Result<Kernel> {
        let mut bounds = Vec::new();
        let accessors = self.accessors(&mut unit, &mut bounds, true)?;
        let inside = self.inside();
        let body = if inside { turns::repeat(body) } else { body.to_string() };
        let mut source = uniform(if unit.held { "words" } else { "q" }, 0, &unit);
        if unit.held {
            writeln!(source, "var<private> q: array<vec4<u32>, {}>;", unit.params.len().div_ceil(4).max(1)).ok();
        }
        let mut ranges = Vec::new();
        for (index, bound) in bounds.iter().enumerate() {
            source += &self.declare(bound, 1 + index, &bounds);
            ranges.push(self.range(bound)?);
        }
        let mut bindings = vec![Binding::Uniform(words(&unit))];
        bindings.extend(self.with_access(ranges, &bounds));
        if inside || unit.turns {
            source += &turns::declare(bindings.len());
            bindings.push(Binding::Turns);
        }
        if inside {
            source += "var<private> turn: u32;\n";
        }
        source += &unit.globals;
        source += &helpers(&unit);
        source += &accessors;
        // A loop bound that is nothing but a word of the uniform makes lavapipe specialise the shader to its value
        // at every dispatch, which takes milliseconds. Adding a zero it cannot see through prevents that.
        let held = if unit.held { "q = words;\n" } else { "" };
        let zero = if body.contains("zero") { "let zero = groups.z - 1u;\n" } else { "" };
        let index = match thread {
            Thread::Global => format!("let t = (group.y * groups.x + group.x) * {width}u + lane;\n"),
            Thread::Block => "let block = group.y * groups.x + group.x;\n".into(),
            Thread::Lane => String::new(),
        };
        write!(
            source,
            "@compute @workgroup_size({width})\nfn main(\n    @builtin(workgroup_id) group: vec3<u32>,\n    \
             @builtin(num_workgroups) groups: vec3<u32>,\n    @builtin(local_invocation_index) lane: u32,\n) {{\n{held}{zero}{index}{body}}}\n"
        )
        .ok();
        let blocks = blocks.max(1);
        let x = blocks.min(65535);
        Ok(Kernel { label: self.label(groups), source, bindings, grid: [x as u32, blocks.div_ceil(x) as u32, 1] })
    }

    pub(super) fn label(&self, groups: &[usize]) -> String {
        let mut names: Vec<&str> = Vec::new();
        for &group in groups {
            for &member in &self.fused.groups[group].members {
                let name = &*self.program.vals[member].name;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names.join("+")
    }
}

/// What a thread is numbered by.
pub(super) enum Thread {
    /// `t`: its number in the whole dispatch.
    Global,
    /// `block`: its workgroup.
    Block,
    /// `lane` alone.
    Lane,
}

pub(super) fn uniform(name: &str, binding: usize, unit: &Unit) -> String {
    format!(
        "@group(0) @binding({binding}) var<uniform> {name}: array<vec4<u32>, {}>;\n",
        unit.params.len().div_ceil(4).max(1)
    )
}

pub(super) fn words(unit: &Unit) -> Vec<u32> {
    let mut words = unit.params.clone();
    words.resize(words.len().div_ceil(4).max(1) * 4, 0);
    words
}

pub(super) fn helpers(unit: &Unit) -> String {
    let mut helpers: Vec<(&String, &String)> = unit.helpers.iter().map(|(name, (text, _))| (name, text)).collect();
    sort(&mut helpers);
    helpers.into_iter().fold(String::new(), |text, (_, helper)| text + helper + "\n")
}
