//! Writes whole kernels: one WGSL module for each dispatch, and what to bind to it.
//!
//! A group runs in one of three forms. *Threads*: each thread owns a few elements, or one result of a fold and loops
//! over its elements. *Rows*: a workgroup shares each row, which stays in registers between the folds over it.
//! *Product*: a tuned matrix-product shader with the group's maps in its store seam. Inside a region every group runs
//! as threads of the one workgroup. Tensors that share a buffer share a binding. Deliberately absent: device objects
//! other than the buffers' identity; `plan` makes pipelines and bind groups of what is written here.

use std::collections::HashMap;
use std::fmt::Write;

use super::Target;
use super::emit::{At, Emitter, Keep, Touch, Unit, along, combine, wgsl_type};
use super::fuse::{Fused, Level, Space};
use super::gemm;
use super::pack::Wide;
use super::program::{Id, Kind, Matrix, Program};
use super::schedule::Job;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Access, Range, Shader};
use crate::graph::{Contraction, Slot, Through, Windows};

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
    /// Bytes read and written at least, each tensor counted once.
    pub bytes: u64,
    /// Floating-point operations of the products in it.
    pub flops: u64,
}

/// What one binding of a kernel is.
#[derive(Clone, Debug)]
pub enum Binding {
    /// A uniform with these words.
    Uniform(Vec<u32>),
    /// A range of a storage buffer.
    Storage(Range, Access),
}

/// Everything a kernel is written from.
pub struct Context<'a> {
    /// The values.
    pub program: &'a Program,
    /// The groups.
    pub fused: &'a Fused,
    /// Groups that stand for several.
    pub wide: &'a HashMap<usize, Wide>,
    /// Where each stored or given value lies.
    pub slots: &'a HashMap<Id, Slot>,
    /// The device it is for.
    pub target: &'a Target,
}

/// Threads of a workgroup in a region and in kernels of few threads.
const WIDTH: u32 = 64;
/// Threads of a workgroup in long elementwise kernels.
const WIDE: u32 = 256;
/// Rows longer than this are shared by a workgroup.
const ROW: usize = 32;

/// Whether a group's rows are shared by workgroups rather than owned by threads.
pub fn is_cooperative(space: Space) -> bool {
    matches!(space, Space::Folded { length, inner: 1, .. } if length > ROW)
}

impl Context<'_> {
    /// Writes the kernels of a job: one, or several where it would bind more buffers than the device allows. How many
    /// buffers that is depends on which tensors share one, so it is known only here.
    pub fn kernels(&self, job: &Job) -> Result<Vec<Kernel>> {
        let kernel = self.write(job)?;
        let buffers = kernel.bindings.iter().filter(|binding| matches!(binding, Binding::Storage(..))).count();
        match job.halves() {
            Some(halves) if buffers > self.target.bindings => {
                let [mut first, second] = [self.kernels(&halves[0])?, self.kernels(&halves[1])?];
                first.extend(second);
                Ok(first)
            }
            _ => Ok(vec![kernel]),
        }
    }

    /// Writes the kernel of a job.
    pub fn write(&self, job: &Job) -> Result<Kernel> {
        let mut unit = Unit::default();
        let groups = job.groups();
        match job {
            Job::Single(group) => {
                let space = self.fused.groups[*group].space;
                if let Space::Product(c) = space {
                    return self.product(*group, c);
                }
                if is_cooperative(space) {
                    return self.rows(*group);
                }
                let (body, items) = self.threads(&mut unit, *group, self.lanes(*group), "t");
                let width = if items >= 1 << 16 { WIDE } else { WIDTH };
                let end = unit.param(items as u32);
                let body = format!("if (t < {end}) {{\n{body}}}\n");
                self.assemble(unit, &groups, &body, width, items.div_ceil(width as usize), Thread::Global)
            }
            Job::Siblings(groups) => {
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
                self.assemble(unit, &groups, &text, WIDTH, 1, Thread::Lane)
            }
        }
    }

    fn outputs(&self, group: usize) -> &[Id] {
        self.wide.get(&group).map_or(&self.fused.groups[group].outputs, |wide| &wide.outputs)
    }

    fn level(&self, id: Id, space: Space) -> Level {
        super::fuse::level(self.program, id, space)
    }

    fn lanes(&self, group: usize) -> usize {
        match self.fused.groups[group].space {
            Space::Elements(n) if n >= 16 || self.wide.contains_key(&group) => 4,
            Space::Folded { inner, .. } if inner % 4 == 0 && inner > 0 => 4,
            _ => 1,
        }
    }

    /// The body of a group as threads, for the item in variable `item`, and how many items there are.
    fn threads(&self, unit: &mut Unit, group: usize, lanes: usize, item: &str) -> (String, usize) {
        let space = self.fused.groups[group].space;
        let mut e = Emitter::new(self.program, self.fused, group, unit);
        match space {
            Space::Elements(n) => {
                let n = self.wide.get(&group).map_or(n, |wide| wide.elements);
                let var = if lanes == 4 { e.bind("e", &format!("{item} * 4u")) } else { item.to_string() };
                self.finish(&mut e, group, &At { var, level: Level::Full }, lanes);
                (e.close(), n.div_ceil(lanes))
            }
            Space::Product(c) => {
                self.serial_product(&mut e, group, c, item);
                (e.close(), space.full())
            }
            Space::Folded { outer, length, inner } => {
                self.thread_fold(&mut e, group, (outer, length, inner), lanes, item);
                (e.close(), (outer * inner).div_ceil(lanes))
            }
        }
    }

    /// Computes and stores all outputs at one index; every load comes before the first store.
    fn finish(&self, e: &mut Emitter, group: usize, at: &At, lanes: usize) {
        let space = self.fused.groups[group].space;
        let outputs: Vec<Id> =
            self.outputs(group).iter().copied().filter(|&id| self.level(id, space) == at.level).collect();
        let values: Vec<String> = outputs.iter().map(|&id| e.value(id, at, lanes)).collect();
        for (id, value) in outputs.into_iter().zip(values) {
            e.store(id, at, lanes, &value);
        }
    }

    fn serial_product(&self, e: &mut Emitter, group: usize, c: Contraction, item: &str) {
        let Some(product) = self.product_member(group) else { return };
        let [a, b] = self.program.vals[product].inputs[..] else { return };
        let [m, n, k] = [c.m, c.n, c.k].map(|size| e.unit.param(size as u32));
        let row = e.bind("i", &format!("{item} / {n}"));
        let column = e.bind("i", &format!("{item} - {row} * {n}"));
        let matrix = if c.batch == 1 { None } else { Some(e.bind("i", &format!("{row} / {m}"))) };
        match &matrix {
            Some(matrix) => {
                let i = e.bind("i", &format!("{row} - {matrix} * {m}"));
                e.know(item, &[(c.n, &column), (c.m, &i), (0, matrix)]);
            }
            None => e.know(item, &[(c.n, &column), (0, &row)]),
        }
        let left = e.bind("i", &format!("{row} * {k}"));
        let right = match &matrix {
            Some(matrix) => e.bind("i", &format!("{matrix} * {k} * {n} + {column}")),
            None => column.clone(),
        };
        let sum = e.unit.name("f");
        e.line(&format!("var {sum} = 0.0;"));
        e.open();
        let x = e.bind("i", &format!("{left} + k"));
        let y = e.bind("i", &format!("{right} + k * {n}"));
        e.know(&x, &[(c.k, "k"), (0, &row)]);
        if matrix.is_none() {
            e.know(&y, &[(c.n, &column), (0, "k")]);
        }
        let x = e.value(a, &At { var: x, level: Level::Other }, 1);
        let y = e.value(b, &At { var: y, level: Level::Other }, 1);
        e.line(&format!("{sum} += {x} * {y};"));
        let body = e.close();
        e.line(&format!("for (var k = 0u; k < {k} + zero; k++) {{\n{body}}}"));
        let at = At { var: item.to_string(), level: Level::Full };
        e.define(product, &at, 1, &sum);
        self.finish(e, group, &at, 1);
    }

    fn product_member(&self, group: usize) -> Option<Id> {
        let members = &self.fused.groups[group].members;
        members.iter().copied().find(|&id| matches!(self.program.vals[id].kind, Kind::Contraction(_)))
    }

    /// Each thread owns a result (four neighbours with four lanes) and loops over its elements, once for each stage
    /// of folds and once more for elements that depend on the last.
    fn thread_fold(&self, e: &mut Emitter, group: usize, space: (usize, usize, usize), lanes: usize, item: &str) {
        let (outer, length, inner) = space;
        let space = self.fused.groups[group].space;
        let result = if lanes == 4 { e.bind("o", &format!("{item} * 4u")) } else { item.to_string() };
        let count = e.unit.param(length as u32);
        // What the result's index and the elements' are made of.
        let mut axes: Vec<(usize, String)> = vec![(length, "k".into()), (0, result.clone())];
        let (base, step) = if inner == 1 {
            (e.bind("i", &format!("{result} * {count}")), None)
        } else {
            let by = e.unit.param(inner as u32);
            let base = if outer == 1 {
                axes = vec![(inner, result.clone()), (0, "k".into())];
                result.clone()
            } else {
                let block = e.bind("i", &format!("{result} / {by}"));
                let column = e.bind("i", &format!("{result} - {block} * {by}"));
                e.know(&result, &[(inner, &column), (0, &block)]);
                let base = e.bind("i", &format!("{block} * {count} * {by} + {column}"));
                axes = vec![(inner, column), (length, "k".into()), (0, block)];
                base
            };
            (base, Some(by))
        };
        let axes: Vec<(usize, &str)> = axes.iter().map(|(length, name)| (*length, name.as_str())).collect();
        let reduced = At { var: result, level: Level::Reduced };
        e.reduced = Some((reduced.clone(), lanes));
        let outputs = self.outputs(group).to_vec();
        let stages = e.stages(&[&self.fused.groups[group].members[..], &outputs[..]].concat());
        let folds = e.folds(&stages);
        let full: Vec<Id> = outputs.iter().copied().filter(|&id| self.level(id, space) == Level::Full).collect();
        for pass in 0..=folds.len() {
            let now = folds.get(pass).map_or(&[][..], Vec::as_slice);
            // Elements are stored in the last pass, when nothing reads what they may overwrite any more.
            let store = if pass == folds.len() { &full[..] } else { &[] };
            if now.is_empty() && store.is_empty() {
                continue;
            }
            let sums: Vec<String> = now.iter().map(|_| e.unit.name("f")).collect();
            for (&fold, sum) in now.iter().zip(&sums) {
                let dtype = wgsl_type(self.program.vals[fold].dtype, lanes);
                let identity = self.identity(fold);
                e.line(&format!("var {sum} = {dtype}({identity});"));
            }
            e.open();
            let offset = step.as_ref().map_or("k".to_string(), |by| format!("k * {by}"));
            let var = e.bind("l", &format!("{base} + {offset}"));
            e.know(&var, &axes);
            let at = At { var, level: Level::Full };
            for (&fold, sum) in now.iter().zip(&sums) {
                self.accumulate(e, fold, &at, lanes, sum, None);
            }
            let values: Vec<String> = store.iter().map(|&id| e.value(id, &at, lanes)).collect();
            for (&id, value) in store.iter().zip(&values) {
                e.store(id, &at, lanes, value);
            }
            let body = e.close();
            e.line(&format!("for (var k = 0u; k < {count} + zero; k++) {{\n{body}}}"));
            for (&fold, sum) in now.iter().zip(&sums) {
                let value = e.bind("v", sum);
                e.define(fold, &reduced, lanes, &value);
            }
        }
        self.finish(e, group, &reduced, lanes);
    }

    fn identity(&self, fold: Id) -> &'static str {
        match self.program.vals[fold].kind {
            Kind::Fold(f) => f.reduction.identity(self.program.vals[fold].dtype),
            _ => "0",
        }
    }

    /// Combines the element at `at` into `sum`, where `exists` holds.
    fn accumulate(&self, e: &mut Emitter, fold: Id, at: &At, lanes: usize, sum: &str, exists: Option<&str>) {
        let val = &self.program.vals[fold];
        let Kind::Fold(f) = val.kind else { return };
        let mut x = e.value(val.inputs[0], at, lanes);
        if let Some(exists) = exists {
            let dtype = wgsl_type(val.dtype, lanes);
            x = e.bind("v", &format!("select({dtype}({}), {x}, {exists})", f.reduction.identity(val.dtype)));
        }
        let combined = combine(e.unit, f.reduction, val.dtype, lanes, sum, &x);
        e.line(&format!("{sum} = {combined};"));
    }

    /// A workgroup for each row. The row's loads stay in registers while it is short enough.
    fn rows(&self, group: usize) -> Result<Kernel> {
        let space = self.fused.groups[group].space;
        let Space::Folded { outer, length, .. } = space else {
            return Err(Error::Validation { why: "a row kernel without rows".into() });
        };
        let lanes = if length % 4 == 0 { 4 } else { 1 };
        let subgroup = self.target.subgroup.filter(|&size| size <= WIDTH && WIDTH.is_multiple_of(size));
        // One subgroup needs no barrier, and short rows do not fill more.
        let width = match subgroup {
            Some(size) if length <= 32 * size as usize => size,
            _ => WIDTH,
        };
        let steps = length.div_ceil(width as usize * lanes);
        let mut unit = Unit::default();
        let mut e = Emitter::new(self.program, self.fused, group, &mut unit);
        let outputs = self.outputs(group).to_vec();
        let stages = e.stages(&[&self.fused.groups[group].members[..], &outputs[..]].concat());
        let folds = e.folds(&stages);
        let full: Vec<Id> = outputs.iter().copied().filter(|&id| self.level(id, space) == Level::Full).collect();
        let (rows, count) = (e.unit.param(outer as u32), e.unit.param(length as u32));
        e.line(&format!("let row = min(block, {rows} - 1u);\nlet owned = block < {rows};\nlet base = row * {count};"));
        let reduced = At { var: "row".into(), level: Level::Reduced };
        e.reduced = Some((reduced.clone(), 1));
        let passes = folds.len() + usize::from(!full.is_empty());
        if steps <= 8 && passes > 1 {
            e.keep = Some(Keep { step: "j".into(), steps, ..Keep::default() });
        }
        let bound = if steps <= 8 { format!("{steps}u") } else { format!("{} + zero", e.unit.param(steps as u32)) };
        let mut text = String::new();
        for pass in 0..passes {
            let now = folds.get(pass).map_or(&[][..], Vec::as_slice);
            let store = if pass == folds.len() { &full[..] } else { &[] };
            let sums: Vec<String> = now.iter().map(|_| e.unit.name("f")).collect();
            for (&fold, sum) in now.iter().zip(&sums) {
                let (dtype, identity) = (wgsl_type(self.program.vals[fold].dtype, lanes), self.identity(fold));
                e.line(&format!("var {sum} = {dtype}({identity});"));
            }
            e.open();
            let scale = if lanes == 4 { " * 4u" } else { "" };
            e.line(&format!("let c = (j * {width}u + lane){scale};\nlet exists = c < {count};"));
            e.line("let p = select(0u, c, exists);\nlet l = base + p;");
            e.know("l", &[(length, "p"), (0, "row")]);
            let at = At { var: "l".into(), level: Level::Full };
            for (&fold, sum) in now.iter().zip(&sums) {
                self.accumulate(&mut e, fold, &at, lanes, sum, Some("exists"));
            }
            let values: Vec<String> = store.iter().map(|&id| e.value(id, &at, lanes)).collect();
            if !store.is_empty() {
                e.line("if (exists && owned) {");
                for (&id, value) in store.iter().zip(&values) {
                    e.store(id, &at, lanes, value);
                }
                e.line("}");
            }
            let body = e.close();
            e.line(&format!("for (var j = 0u; j < {bound}; j++) {{\n{body}}}"));
            self.share(&mut e, now, &sums, lanes, width, subgroup, &reduced);
        }
        e.line("if (owned && lane == 0u) {");
        // Reduced values were computed by every lane alike; one stores them.
        let kept = e.keep.take();
        let mut tail = Vec::new();
        for &id in outputs.iter().filter(|&&id| self.level(id, space) == Level::Reduced) {
            tail.push((id, e.value(id, &reduced, 1)));
        }
        for (id, value) in tail {
            e.store(id, &reduced, 1, &value);
        }
        e.line("}");
        if let Some(keep) = kept {
            text.push_str(&keep.declarations);
        }
        text.push_str(&e.close());
        self.assemble(unit, &[group], &text, width, outer, Thread::Block)
    }

    /// Combines the lanes' partial results of a row, so that every lane holds the whole.
    #[allow(clippy::too_many_arguments)]
    fn share(
        &self,
        e: &mut Emitter,
        folds: &[Id],
        sums: &[String],
        lanes: usize,
        width: u32,
        subgroup: Option<u32>,
        reduced: &At,
    ) {
        let reduction = |id: Id| match self.program.vals[id].kind {
            Kind::Fold(f) => f.reduction,
            _ => crate::graph::Reduction::Sum,
        };
        let mut partial = Vec::new();
        for (&id, sum) in folds.iter().zip(sums) {
            let dtype = self.program.vals[id].dtype;
            let mut one = sum.clone();
            if lanes == 4 {
                let low = combine(e.unit, reduction(id), dtype, 1, &format!("{sum}.x"), &format!("{sum}.y"));
                let low = e.bind("v", &low);
                let high = combine(e.unit, reduction(id), dtype, 1, &format!("{sum}.z"), &format!("{sum}.w"));
                let high = e.bind("v", &high);
                let all = combine(e.unit, reduction(id), dtype, 1, &low, &high);
                one = e.bind("v", &all);
            }
            partial.push(one);
        }
        // Partial results go through workgroup memory in rounds of `parts` until each lane can finish alone.
        let size = subgroup.unwrap_or(8).min(width);
        for ((&id, one), _) in folds.iter().zip(&mut partial).zip(sums) {
            if subgroup.is_some() {
                *one = self.across_subgroup(e, reduction(id), id, one, size);
            }
        }
        if subgroup.is_none() || width > size {
            let rounds: &[(u32, u32)] = if subgroup.is_some() { &[(0, 0)] } else { &[(width, 8), (0, 0)] };
            let count = width / size;
            let names: Vec<String> = folds.iter().map(|_| e.unit.name("shared")).collect();
            for (&id, name) in folds.iter().zip(&names) {
                let dtype = wgsl_type(self.program.vals[id].dtype, 1);
                let length = if subgroup.is_some() { count } else { width };
                writeln!(e.unit.globals, "var<workgroup> {name}: array<{dtype}, {length}>;").ok();
            }
            if rounds.len() == 1 {
                for (one, name) in partial.iter().zip(&names) {
                    e.line(&format!("if (lane % {size}u == 0u) {{ {name}[lane / {size}u] = {one}; }}"));
                }
                e.line("workgroupBarrier();");
                for ((&id, one), name) in folds.iter().zip(&mut partial).zip(&names) {
                    *one = self.serial(e, reduction(id), id, name, "0u", count);
                }
            } else {
                for (one, name) in partial.iter().zip(&names) {
                    e.line(&format!("{name}[lane] = {one};"));
                }
                e.line("workgroupBarrier();");
                let seconds: Vec<String> = folds.iter().map(|_| e.unit.name("shared")).collect();
                for ((&id, name), second) in folds.iter().zip(&names).zip(&seconds) {
                    let dtype = wgsl_type(self.program.vals[id].dtype, 1);
                    writeln!(e.unit.globals, "var<workgroup> {second}: array<{dtype}, {size}>;").ok();
                    e.open();
                    let start = format!("lane * {count}u");
                    let value = self.serial(e, reduction(id), id, name, &start, count);
                    e.line(&format!("{second}[lane] = {value};"));
                    let body = e.close();
                    e.line(&format!("if (lane < {size}u) {{\n{body}}}"));
                }
                e.line("workgroupBarrier();");
                for ((&id, one), second) in folds.iter().zip(&mut partial).zip(&seconds) {
                    *one = self.serial(e, reduction(id), id, second, "0u", size);
                }
            }
        }
        for (&id, one) in folds.iter().zip(&partial) {
            e.define(id, reduced, 1, one);
        }
    }

    fn across_subgroup(
        &self,
        e: &mut Emitter,
        reduction: crate::graph::Reduction,
        id: Id,
        one: &str,
        size: u32,
    ) -> String {
        use crate::graph::Reduction;
        match (reduction, self.program.vals[id].dtype) {
            (Reduction::Sum, _) => e.bind("v", &format!("subgroupAdd({one})")),
            (Reduction::Max, DType::I32 | DType::U32) => e.bind("v", &format!("subgroupMax({one})")),
            (Reduction::Min, DType::I32 | DType::U32) => e.bind("v", &format!("subgroupMin({one})")),
            // NaN must pass, so the built-in extrema of floats do not serve.
            (_, dtype) => {
                let (mut one, mut mask) = (one.to_string(), 1);
                while mask < size {
                    let other = e.bind("v", &format!("subgroupShuffleXor({one}, {mask}u)"));
                    let both = combine(e.unit, reduction, dtype, 1, &one, &other);
                    one = e.bind("v", &both);
                    mask *= 2;
                }
                one
            }
        }
    }

    /// Combines `count` elements of workgroup memory in order.
    fn serial(
        &self,
        e: &mut Emitter,
        reduction: crate::graph::Reduction,
        id: Id,
        name: &str,
        start: &str,
        count: u32,
    ) -> String {
        let sum = e.unit.name("f");
        e.line(&format!("var {sum} = {name}[{start}];"));
        let both = combine(e.unit, reduction, self.program.vals[id].dtype, 1, &sum, &format!("{name}[{start} + s]"));
        e.line(&format!("for (var s = 1u; s < {count}u; s++) {{ {sum} = {both}; }}"));
        e.bind("v", &sum)
    }

    /// A tuned matrix product whose store seam holds the group's maps.
    fn product(&self, group: usize, c: Contraction) -> Result<Kernel> {
        let defect = || Error::Validation { why: "a product kernel without a product".into() };
        let product = self.product_member(group).ok_or_else(defect)?;
        let inputs = &self.program.vals[product].inputs;
        let a = self.program.matrix(inputs[0], (c.batch, c.m, c.k)).ok_or_else(defect)?;
        let b = self.program.matrix(inputs[1], (c.batch, c.k, c.n)).ok_or_else(defect)?;
        let operand = |m: &Matrix, rows: usize, columns: usize| match m.windows {
            // Lines are found by their number, so that is what a batch counts.
            Some(w) => gemm::Operand {
                transposed: m.transposed,
                ld: m.ld,
                batch_stride: m.batch_stride / w.elements(),
                vec4: w.channels.is_multiple_of(4),
            },
            None => gemm::Operand {
                transposed: m.transposed,
                ld: m.ld,
                batch_stride: m.batch_stride,
                vec4: m.ld.is_multiple_of(4)
                    && m.batch_stride.is_multiple_of(4)
                    && (if m.transposed { rows } else { columns }).is_multiple_of(4),
            },
        };
        let problem = gemm::Problem {
            batch: c.batch,
            m: c.m,
            n: c.n,
            k: c.k,
            a: operand(&a, c.m, c.k),
            b: operand(&b, c.k, c.n),
        };
        let chosen = gemm::select(&problem, self.target);
        let lanes = if chosen.stores_vec4 { 4 } else { 1 };
        let mut unit = Unit::default();
        let mut e = Emitter::new(self.program, self.fused, group, &mut unit);
        let (m, n) = (e.unit.param(c.m as u32), e.unit.param(c.n as u32));
        e.line(&format!("let e = (z * {m} + i) * {n} + j;"));
        let at = At { var: "e".into(), level: Level::Full };
        e.define(product, &at, lanes, "v");
        match c.batch {
            1 => e.know("e", &[(c.n, "j"), (0, "i")]),
            _ => e.know("e", &[(c.n, "j"), (c.m, "i"), (0, "z")]),
        }
        self.finish(&mut e, group, &at, lanes);
        let body = e.close();
        let bound = |matrix: &Matrix, var: &'static str, vec4: bool| Bound {
            var: var.into(),
            ids: vec![matrix.source],
            start: matrix.offset as u64 * 4,
            end: self.program.vals[matrix.source].bytes(),
            written: false,
            stored: DType::F32,
            vec4,
            declared: true,
        };
        let mut bounds = vec![bound(&a, "a", problem.a.vec4), bound(&b, "b", problem.b.vec4)];
        let accessors = self.accessors(&mut unit, &mut bounds, false)?;
        let seam = if chosen.stores_vec4 { "store_c" } else { "store_c1" };
        let mut text = chosen.source.clone();
        let mut declarations = String::new();
        let mut ranges = Vec::new();
        for (index, bound) in bounds.iter().enumerate() {
            ranges.push(self.range(bound)?);
            if bound.declared {
                if self.is_written(bound, &bounds) {
                    let (read, write) = ("var<storage, read> ", "var<storage, read_write> ");
                    text = text.replace(&format!("{read}{}:", bound.var), &format!("{write}{}:", bound.var));
                }
            } else {
                declarations += &self.declare(bound, 1 + index, &bounds);
            }
        }
        let declarations = format!("{declarations}{}{accessors}{}", uniform(1 + bounds.len(), &unit), helpers(&unit));
        // The result goes where the seam says; the shader's own output binding is not used.
        let text: String =
            text.lines().filter(|line| !line.contains("> c: array")).fold(String::new(), |t, l| t + l + "\n");
        let mut shader = Shader::new(text).seam(seam, &format!("{{\n{body}}}"));
        for (load, x, first, operand, matrix) in
            [("load_a", "a", "s.z", problem.a, &a), ("load_b", "b", "s.w", problem.b, &b)]
        {
            if let Some(windows) = &matrix.windows {
                shader = shader.seam(load, &window_load(windows, x, first, operand.vec4));
            }
        }
        let source = shader.declare(&declarations).build()?;
        let windows = if a.windows.or(b.windows).is_some() { "windows " } else { "" };
        Ok(Kernel {
            label: format!("{} {windows}{}", chosen.name, self.label(&[group])),
            source: source.to_string(),
            bindings: [Binding::Uniform(chosen.params)]
                .into_iter()
                .chain(self.with_access(ranges, &bounds))
                .chain([Binding::Uniform(words(&unit))])
                .collect(),
            grid: chosen.grid,
            bytes: self.bytes(&unit) + self.program.vals[a.source].bytes() + self.program.vals[b.source].bytes(),
            flops: 2 * (c.batch * c.m * c.n * c.k) as u64,
        })
    }

    fn assemble(
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
        let mut source = uniform(0, &unit);
        let mut ranges = Vec::new();
        for (index, bound) in bounds.iter().enumerate() {
            source += &self.declare(bound, 1 + index, &bounds);
            ranges.push(self.range(bound)?);
        }
        source += &unit.globals;
        source += &helpers(&unit);
        source += &accessors;
        // A loop bound that is nothing but a word of the uniform makes lavapipe specialise the shader to its value
        // at every dispatch, which takes milliseconds. Adding a zero it cannot see through prevents that.
        let zero = if body.contains("zero") { "let zero = groups.z - 1u;\n" } else { "" };
        let index = match thread {
            Thread::Global => format!("let t = (group.y * groups.x + group.x) * {width}u + lane;\n"),
            Thread::Block => "let block = group.y * groups.x + group.x;\n".into(),
            Thread::Lane => String::new(),
        };
        write!(
            source,
            "@compute @workgroup_size({width})\nfn main(\n    @builtin(workgroup_id) group: vec3<u32>,\n    \
             @builtin(num_workgroups) groups: vec3<u32>,\n    @builtin(local_invocation_index) lane: u32,\n) {{\n{zero}{index}{body}}}\n"
        )
        .ok();
        let blocks = blocks.max(1);
        let x = blocks.min(65535);
        Ok(Kernel {
            label: self.label(groups),
            source,
            bindings: [Binding::Uniform(words(&unit))].into_iter().chain(self.with_access(ranges, &bounds)).collect(),
            grid: [x as u32, blocks.div_ceil(x) as u32, 1],
            bytes: self.bytes(&unit),
            flops: 0,
        })
    }

    fn label(&self, groups: &[usize]) -> String {
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

    fn bytes(&self, unit: &Unit) -> u64 {
        let packed = |id: &Id| self.wide.values().find(|wide| wide.firsts.contains(id));
        let bytes = |id: &Id| packed(id).map_or(self.program.vals[*id].bytes(), |wide| wide.elements as u64 * 4);
        unit.tensors.iter().map(|(id, _)| bytes(id)).sum()
    }

    fn slot(&self, id: Id) -> Result<&Slot> {
        let missing = || Error::Validation { why: format!("{} has no place", self.program.vals[id].name) };
        self.slots.get(&id).ok_or_else(missing)
    }

    /// Assigns every tensor of the unit to a binding and declares its accessor functions.
    fn accessors(&self, unit: &mut Unit, bounds: &mut Vec<Bound>, share: bool) -> Result<String> {
        if let Some(why) = unit.defect.take() {
            return Err(Error::Validation { why });
        }
        let tensors = unit.tensors.clone();
        let mut binding = Vec::new();
        for (id, touch) in &tensors {
            let slot = self.slot(*id)?;
            let written = touch.write || touch.write4;
            let (start, end) = (slot.offset, slot.offset + self.extent(*id));
            let dtype = self.program.vals[*id].dtype;
            let found = bounds.iter().position(|bound| {
                if bound.declared {
                    return bound.ids.contains(id) && !written;
                }
                share
                    && self.slots.get(&bound.ids[0]).is_some_and(|s| s.buffer.id() == slot.buffer.id())
                    && bound.end.max(end) - bound.start.min(start) <= self.target.binding_bytes
            });
            let at = match found {
                Some(at) => at,
                None => {
                    let var = format!("b{}", bounds.len());
                    bounds.push(Bound {
                        var,
                        ids: vec![],
                        start,
                        end,
                        written: false,
                        stored: dtype,
                        vec4: false,
                        declared: false,
                    });
                    bounds.len() - 1
                }
            };
            let bound = &mut bounds[at];
            if !bound.declared {
                bound.start = bound.start.min(start);
                bound.end = bound.end.max(end);
                bound.vec4 |= touch.read4 || touch.write4;
                if dtype.wgsl_stored() != bound.stored.wgsl_stored() {
                    bound.stored = DType::U32;
                }
            }
            bound.written |= written;
            if !bound.ids.contains(id) {
                bound.ids.push(*id);
            }
            binding.push(at);
        }
        let mut text = String::new();
        for (index, ((id, touch), &at)) in tensors.iter().zip(&binding).enumerate() {
            let bound = &bounds[at];
            let slot = self.slot(*id)?;
            let start = if bound.declared { slot.offset + bound.start } else { bound.start };
            // A product's own operand may begin later than the tensor: its accessor counts back.
            let base = unit.param(((slot.offset as i64 - start as i64) / 4) as i32 as u32);
            text += &accessor(index, *touch, self.program.vals[*id].dtype, bound, &base);
        }
        Ok(text)
    }

    /// Bytes a kernel may touch from the start of a tensor: one that begins a pack stands for all of it.
    fn extent(&self, id: Id) -> u64 {
        let wide = self.wide.values().find(|wide| wide.firsts.contains(&id));
        wide.map_or(self.program.vals[id].bytes().max(4).next_multiple_of(16), |wide| wide.elements as u64 * 4)
    }

    fn range(&self, bound: &Bound) -> Result<Range> {
        let slot = self.slot(bound.ids[0])?;
        let (start, end) = if bound.declared {
            (slot.offset + bound.start, slot.offset + bound.end)
        } else {
            (bound.start, bound.end)
        };
        let end = end.next_multiple_of(16).min(slot.buffer.size());
        Ok(Range { buffer: slot.buffer.clone(), offset: start, size: end.saturating_sub(start).max(16) })
    }

    /// A buffer that one binding writes must be bound for writing by all.
    fn is_written(&self, bound: &Bound, bounds: &[Bound]) -> bool {
        let buffer = |b: &Bound| self.slots.get(&b.ids[0]).map(|slot| slot.buffer.id());
        bounds.iter().any(|other| other.written && buffer(other) == buffer(bound))
    }

    fn with_access(&self, ranges: Vec<Range>, bounds: &[Bound]) -> Vec<Binding> {
        let access = |bound: &Bound| if self.is_written(bound, bounds) { Access::ReadWrite } else { Access::Read };
        ranges.into_iter().zip(bounds).map(|(range, bound)| Binding::Storage(range, access(bound))).collect()
    }

    fn declare(&self, bound: &Bound, binding: usize, bounds: &[Bound]) -> String {
        let access = if self.is_written(bound, bounds) { "read_write" } else { "read" };
        let stored = bound.stored.wgsl_stored();
        let element = if bound.vec4 { format!("vec4<{stored}>") } else { stored.into() };
        format!("@group(0) @binding({binding}) var<storage, {access}> {}: array<{element}>;\n", bound.var)
    }
}

/// What a thread is numbered by.
enum Thread {
    /// `t`: its number in the whole dispatch.
    Global,
    /// `block`: its workgroup.
    Block,
    /// `lane` alone.
    Lane,
}

/// One storage binding and the tensors reached through it.
struct Bound {
    var: String,
    ids: Vec<Id>,
    start: u64,
    end: u64,
    written: bool,
    stored: DType,
    vec4: bool,
    /// Declared by the shader file already; `start` and `end` are relative to the tensor.
    declared: bool,
}

/// The body of a load function that finds elements `j..j + 4` of window `first + i` in the image `x`.
fn window_load(w: &Windows, x: &str, first: &str, vec4: bool) -> String {
    let [[h, width], [rows, columns], [_, kw], c] = [w.image, w.count, w.kernel, [w.channels; 2]];
    let c = c[0];
    let mut text = format!(
        "{{ let r = {first} + i; let across = r % {columns}u; let q = r / {columns}u; let down = q % {rows}u; let n = q / {rows}u; "
    );
    let mut element = |j: &str, by: &str| {
        let ([y, inside_y], [x_, inside_x]) = {
            let text = |axis, at: &str, k: &str| along(w, Through::Cut, axis, at, k);
            let (y, a) = text(0, "down", &format!("kh{by}"));
            let (x, b) = text(1, "across", &format!("kw{by}"));
            ([Some(y), a], [Some(x), b])
        };
        let _ = write!(
            text,
            "let c{by} = ({j}) % {c}u; let t{by} = ({j}) / {c}u; let kw{by} = t{by} % {kw}u; let kh{by} = t{by} / {kw}u; \
             let y{by} = {}; let x{by} = {}; ",
            y.unwrap_or_default(),
            x_.unwrap_or_default()
        );
        let inside: Vec<String> = [(inside_y, "y"), (inside_x, "x")]
            .into_iter()
            .filter_map(|(condition, axis)| Some(condition?.replace('$', &format!("{axis}{by}"))))
            .collect();
        let at = format!("((n * {h}u + y{by}) * {width}u + x{by}) * {c}u + c{by}");
        (at, (!inside.is_empty()).then(|| inside.join(" && ")))
    };
    let outside = format!("bitcast<f32>({}u)", w.outside);
    if vec4 {
        let (at, inside) = element("j", "");
        text += &match inside {
            None => format!("return {x}[({at}) >> 2u]; }}"),
            Some(inside) => format!(
                "let ok = {inside}; return select(vec4<f32>({outside}), {x}[select(0u, {at}, ok) >> 2u], ok); }}"
            ),
        };
        return text;
    }
    let loads: Vec<(String, Option<String>)> =
        (0..4).map(|lane| element(&format!("j + {lane}u"), &lane.to_string())).collect();
    let loads = loads.into_iter().map(|(at, inside)| match inside {
        None => format!("{x}[{at}]"),
        Some(inside) => format!("select({outside}, {x}[select(0u, {at}, {inside})], {inside})"),
    });
    text + &format!("return vec4<f32>({}); }}", loads.collect::<Vec<_>>().join(", "))
}

fn uniform(binding: usize, unit: &Unit) -> String {
    format!(
        "@group(0) @binding({binding}) var<uniform> q: array<vec4<u32>, {}>;\n",
        unit.params.len().div_ceil(4).max(1)
    )
}

fn words(unit: &Unit) -> Vec<u32> {
    let mut words = unit.params.clone();
    words.resize(words.len().div_ceil(4).max(1) * 4, 0);
    words
}

fn helpers(unit: &Unit) -> String {
    unit.helpers.values().fold(String::new(), |text, helper| text + helper + "\n")
}

/// The functions through which one tensor is loaded and stored.
fn accessor(index: usize, touch: Touch, dtype: DType, bound: &Bound, base: &str) -> String {
    let (value, stored, held) = (dtype.wgsl(), dtype.wgsl_stored(), bound.stored.wgsl_stored());
    let load = |element: String, four: bool| {
        let wrap = |name: &str| if four { format!("vec4<{name}>") } else { name.to_string() };
        let element = if held == stored { element } else { format!("bitcast<{}>({element})", wrap(stored)) };
        match dtype {
            DType::Bool => format!("{element} != {}(0u)", wrap("u32")),
            _ => element,
        }
    };
    let keep = |four: bool| {
        let wrap = |name: &str| if four { format!("vec4<{name}>") } else { name.to_string() };
        let value = match dtype {
            DType::Bool => format!("select({0}(0u), {0}(1u), v)", wrap("u32")),
            _ => "v".into(),
        };
        if held == stored { value } else { format!("bitcast<{}>({value})", wrap(held)) }
    };
    let var = &bound.var;
    let one =
        if bound.vec4 { format!("{var}[({base} + i) >> 2u][({base} + i) & 3u]") } else { format!("{var}[{base} + i]") };
    let four = format!("{var}[({base} + i) >> 2u]");
    let mut text = String::new();
    if touch.read {
        writeln!(text, "fn r{index}(i: u32) -> {value} {{ return {}; }}", load(one.clone(), false)).ok();
    }
    if touch.read4 {
        writeln!(text, "fn r{index}v(i: u32) -> vec4<{value}> {{ return {}; }}", load(four.clone(), true)).ok();
    }
    if touch.write {
        writeln!(text, "fn w{index}(i: u32, v: {value}) {{ {one} = {}; }}", keep(false)).ok();
    }
    if touch.write4 {
        writeln!(text, "fn w{index}v(i: u32, v: vec4<{value}>) {{ {four} = {}; }}", keep(true)).ok();
    }
    text
}
