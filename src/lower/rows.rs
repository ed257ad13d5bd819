//! Row kernels: a workgroup shares each row, which stays in registers between the folds over it.
//!
//! A row that one subgroup can hold needs no barrier; others combine the lanes' partial results through workgroup memory,
//! in an order that does not depend on anything. Rows too long to keep are read again in each pass.

use std::fmt::Write;

use super::Target;
use super::emit::{At, Emitter, Keep, Unit, combine, wgsl_type};
use super::kernel::{Context, Kernel, Thread, WIDTH, last_pass};
use super::program::{Id, Kind, fold_stretch};
use super::space::{Level, Space};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Class;

/// Turns of a row up to which its loads stay in registers.
const KEPT: usize = 8;
/// Elements for each lane of a subgroup up to which a row is that one's alone.
const NARROW: usize = 32;
/// Turns of a longer row that are written out one after the other.
const AT_ONCE: usize = 4;

/// Columns of which a row kernel can carry sums: on a CPU those of a row that one subgroup has in registers, for what lives
/// across a barrier lies in memory there (layer norm and its gradient of 1024 x 1024 on lavapipe: 2.7 ms became 5.5, or 4.1 by one
/// subgroup that reads its rows again). None on a GPU: a workgroup for each stretch would be few, and nothing was
/// measured there.
pub(super) fn carried(target: &Target) -> usize {
    match (target.class, target.subgroup) {
        (Class::Cpu, Some(size)) => NARROW * size as usize,
        _ => 0,
    }
}

impl Context<'_> {
    /// A workgroup for each row. The row's loads stay in registers while it is short enough.
    pub(super) fn rows(&self, group: usize) -> Result<Kernel> {
        let space = self.fused.groups[group].space;
        let form = self.forms.groups[group].space;
        let (Space::Folded { outer, length, parts, .. }, Space::Folded { outer: rows, length: columns, .. }) =
            (space, form)
        else {
            return Err(Error::new(ErrorKind::Validation { why: "a row kernel without rows".into() }));
        };
        // A single row may end within a quad, since what lies behind it is padding; of several, each begins on one.
        let aligned = length % 4 == 0 && columns % 4 == 0;
        let ragged = rows == 1 && outer == 1 && !aligned;
        let lanes = if ragged || aligned { 4 } else { 1 };
        let (stretch, columns) = (fold_stretch(length, parts), fold_stretch(columns, parts));
        let subgroup = self.target.subgroup.filter(|&size| size <= WIDTH && WIDTH.is_multiple_of(size));
        // One subgroup needs no barrier, and short rows do not fill more. Where a CPU has subgroups of 4, as SwiftShader, a
        // barrier costs more than all of a row of 1024: a third of the time without (docs/notes/bets.md). On CPUs of any kind
        // rows that are not kept anyway do without: drivers hold the variables of a kernel with barriers in memory.
        let long = columns.div_ceil(WIDTH as usize * lanes) > KEPT;
        let cpu = self.target.class == Class::Cpu;
        let narrow = |size: u32| columns <= NARROW * size as usize || (cpu && (size <= 4 || long));
        let width = match subgroup {
            Some(size) if narrow(size) => size,
            _ => WIDTH,
        };
        let size_of_one = subgroup.unwrap_or(1);
        let steps = columns.div_ceil(width as usize * lanes);
        // Long rows are read again rather than kept, several turns at a time: a turn of a loop costs as much as what is in it.
        let (steps, at_once) = if steps <= KEPT { (steps, 1) } else { (steps.next_multiple_of(AT_ONCE), AT_ONCE) };
        let mut unit = Unit::default();
        unit.held = steps > KEPT;
        let mut e = Emitter::new(self.program, self.fused, group, &mut unit);
        let outputs = self.outputs(group).to_vec();
        let stages = e.stages(&[&self.fused.groups[group].members[..], &outputs[..]].concat());
        let folds = e.folds(&stages);
        let of = |level: Level| outputs.iter().copied().filter(move |&id| self.level(id, space) == level);
        let full: Vec<Id> = of(Level::Full).collect();
        // Sums of columns that ride along, each with the array of its lanes' partial results. A workgroup then has a stretch of
        // rows instead of one.
        let carried: Vec<(Id, String)> = of(Level::Column).map(|id| (id, e.unit.name("a"))).collect();
        let stretches = carried.first().map(|&(id, _)| match self.program.vals[id].kind {
            Kind::Fold(fold, parts) => (parts, fold_stretch(fold.length, parts)),
            _ => (1, 1),
        });
        let (rows, whole) = (e.unit.param((outer * parts) as u32), e.unit.param(length as u32));
        let each = stretches.map(|(_, rows)| e.unit.param(rows as u32));
        let number = each.as_ref().map_or("block".into(), |each| format!("block * {each} + turn_of_rows"));
        e.line(&format!("let number = {number};\nlet row = min(number, {rows} - 1u);\nlet owned = number < {rows};"));
        let mut count = whole.clone();
        if parts == 1 {
            e.line(&format!("let base = row * {whole};"));
        } else {
            let (all, stretch) = (e.unit.param(parts as u32), e.unit.param(stretch as u32));
            e.line(&format!("let whole = row / {all};\nlet first = min((row - whole * {all}) * {stretch}, {whole});"));
            e.line(&format!("let count = min({stretch}, {whole} - first);\nlet base = whole * {whole} + first;"));
            count = "count".into();
        }
        let reduced = At { var: "row".into(), level: Level::Reduced };
        e.reduced = Some((reduced.clone(), 1));
        let last =
            [&full[..], &carried.iter().map(|&(id, _)| self.program.vals[id].inputs[0]).collect::<Vec<_>>()].concat();
        let passes = last_pass(&stages, folds.len(), &last) + 1;
        if steps <= KEPT && passes > 1 {
            e.keep = Some(Keep { step: "j".into(), steps, ..Keep::default() });
        }
        let turns = if steps <= KEPT { format!("{steps}u") } else { e.unit.param(steps as u32) };
        let bound = if steps <= KEPT { turns.clone() } else { format!("{turns} + zero") };
        // Each subgroup has a stretch of its own: drivers on CPUs run one after the other, each from the first turn to the last.
        let place = match subgroup {
            Some(size) if size < width => format!("(lane / {size}u * {turns} + j) * {size}u + lane % {size}u"),
            _ => format!("j * {width}u + lane"),
        };
        let mut text = String::new();
        for pass in 0..passes {
            let now = folds.get(pass).map_or(&[][..], Vec::as_slice);
            let store = if pass + 1 == passes { &full[..] } else { &[] };
            let sums: Vec<String> = now.iter().map(|_| e.unit.name("f")).collect();
            for (&fold, sum) in now.iter().zip(&sums) {
                let (dtype, identity) = (wgsl_type(self.program.vals[fold].dtype, lanes), self.identity(fold));
                e.line(&format!("var {sum} = {dtype}({identity});"));
            }
            e.open();
            let scale = if lanes == 4 { " * 4u" } else { "" };
            e.line(&format!("let c = ({place}){scale};\nlet some = c < {count};"));
            e.line(&match ragged {
                true => format!("let exists = (vec4<u32>(c) + vec4<u32>(0u, 1u, 2u, 3u)) < vec4<u32>({count});"),
                false => "let exists = some;".into(),
            });
            e.line("let p = select(0u, c, some);\nlet l = base + p;");
            if parts == 1 {
                e.know("l", &[(length, "p"), (0, "row")]);
            }
            let at = At { var: "l".into(), level: Level::Full };
            for (&fold, sum) in now.iter().zip(&sums) {
                self.accumulate(&mut e, fold, &at, lanes, sum, Some("exists"));
            }
            let values: Vec<String> = store.iter().map(|&id| e.value(id, &at, lanes)).collect();
            for (id, sums) in carried.iter().filter(|_| pass + 1 == passes) {
                self.accumulate(&mut e, *id, &at, lanes, &format!("{sums}[j]"), Some("exists && owned"));
            }
            if !store.is_empty() {
                e.line("if (some && owned) {");
                for (&id, value) in store.iter().zip(&values) {
                    e.store(id, &at, lanes, value);
                }
                e.line("}");
            }
            let body = e.close();
            e.line(&match at_once {
                1 => format!("for (var j = 0u; j < {bound}; j++) {{\n{body}}}"),
                _ => {
                    let turns = (0..at_once).map(|u| format!("{{\nlet j = i + {u}u;\n{body}}}\n"));
                    format!("for (var i = 0u; i < {bound}; i += {at_once}u) {{\n{}}}", turns.collect::<String>())
                }
            });
            // A barrier with nothing behind it costs as much as any other.
            if !now.is_empty() {
                self.share(&mut e, now, &sums, lanes, width, subgroup, &reduced);
            }
        }
        // Reduced values were computed by every lane alike; one stores them.
        let kept = e.keep.take();
        let mut tail = Vec::new();
        for &id in outputs.iter().filter(|&&id| self.level(id, space) == Level::Reduced) {
            tail.push((id, e.value(id, &reduced, 1)));
        }
        if !tail.is_empty() {
            // Lanes that have not come so far may still have to load what one of these is written over.
            let ids: Vec<Id> = tail.iter().map(|(id, _)| *id).collect();
            if (width > size_of_one || !cpu) && self.overwrites_what_is_read(e.unit, &ids)? {
                e.line("storageBarrier();");
            }
            e.line("if (owned && lane == 0u) {");
            for (id, value) in tail {
                e.store(id, &reduced, 1, &value);
            }
            e.line("}");
        }
        if let Some(keep) = kept {
            text.push_str(&keep.declarations);
        }
        let body = e.close();
        let (Some((blocks, _)), Some(each)) = (stretches, each) else {
            text.push_str(&body);
            return self.assemble(unit, &[group], &text, width, outer * parts, Thread::Block);
        };
        for (id, sums) in &carried {
            let (dtype, identity) = (wgsl_type(self.program.vals[*id].dtype, lanes), self.identity(*id));
            writeln!(text, "var {sums}: array<{dtype}, {steps}>;").ok();
            writeln!(text, "for (var j = 0u; j < {steps}u; j++) {{ {sums}[j] = {dtype}({identity}); }}").ok();
        }
        writeln!(text, "for (var turn_of_rows = 0u; turn_of_rows < {each} + zero; turn_of_rows++) {{\n{body}}}").ok();
        let mut e = Emitter::new(self.program, self.fused, group, &mut unit);
        e.line(&format!("let c = ({place}) * {lanes}u;\nlet l = block * {whole} + c;"));
        let at = At { var: "l".into(), level: Level::Column };
        for (id, sums) in &carried {
            e.store(*id, &at, lanes, &format!("{sums}[j]"));
        }
        let stores = e.close();
        writeln!(
            text,
            "for (var j = 0u; j < {steps}u; j++) {{\nif (({place}) * {lanes}u < {whole}) {{\n{stores}}}\n}}"
        )
        .ok();
        self.assemble(unit, &[group], &text, width, blocks, Thread::Block)
    }

    /// Whether a kernel loads a tensor where one of these values goes.
    fn overwrites_what_is_read(&self, unit: &Unit, values: &[Id]) -> Result<bool> {
        for &value in values {
            let to = self.slot(value)?;
            for (id, touch) in unit.tensors.iter().filter(|(id, _)| *id != value) {
                let from = self.slot(*id)?;
                if (touch.read || touch.read4) && from.buffer.id() == to.buffer.id() && from.offset == to.offset {
                    return Ok(true);
                }
            }
        }
        Ok(false)
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
            Kind::Fold(f, _) => f.reduction,
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
}
