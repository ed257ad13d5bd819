//! Product kernels: a tuned matrix-product shader whose store function holds the group's maps.
//!
//! The shader comes from [`gemm`] as text with seams. Here its operands are bound as they lie, its load functions find
//! windows where an operand consists of them, and its store function becomes the group's epilogue.

use super::bindings::Bound;
use super::emit::{At, Emitter, Unit, wgsl_type};
use super::index::along;
use super::kernel::{Binding, Context, Kernel, helpers, uniform, words};
use super::program::{Id, Kind, Matrix};
use super::space::{Level, Space};
use super::turns;
use super::{gemm, gemm_text};
use crate::collections::Set;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Shader;
use crate::graph::{Contraction, Through, Windows};

impl Context<'_> {
    /// The product of a group, the matrices that it multiplies, and what is asked of a tile for it.
    fn multiplied(&self, group: usize, c: Contraction, parts: usize) -> Result<(Id, [Matrix; 2], gemm::Problem)> {
        let defect = || Error::new(ErrorKind::Validation { why: "a product kernel without a product".into() });
        let product = self.product_member(group).ok_or_else(defect)?;
        let inputs = &self.program.vals[product].inputs;
        let a = self.program.matrix(inputs[0], (c.batch, c.m, c.k)).ok_or_else(defect)?;
        let b = self.program.matrix(inputs[1], (c.batch, c.k, c.n)).ok_or_else(defect)?;
        let operand = |m: &Matrix| match m.windows {
            // Lines are found by their number, so that is what a batch counts.
            Some(w) => gemm::Operand {
                transposed: m.transposed,
                ld: m.ld,
                batch_stride: m.batch_stride / w.elements(),
                outer: None,
                vec4: w.channels.is_multiple_of(4),
            },
            None => gemm::Operand {
                transposed: m.transposed,
                ld: m.ld,
                batch_stride: m.batch_stride,
                outer: m.outer,
                vec4: m.ld.is_multiple_of(4)
                    && m.batch_stride.is_multiple_of(4)
                    && m.outer.is_none_or(|(_, stride)| stride.is_multiple_of(4)),
            },
        };
        let (x, y) = (operand(&a), operand(&b));
        let rolled = self.is_heavy(group);
        let problem = gemm::Problem { batch: c.batch, parts, m: c.m, n: c.n, k: c.k, a: x, b: y, rolled };
        Ok((product, [a, b], problem))
    }

    /// The product that a group computes, as a tile is asked to.
    pub(super) fn problem(&self, group: usize) -> Option<gemm::Problem> {
        let Space::Product(c, parts) = self.fused.groups[group].space else { return None };
        self.multiplied(group, c, parts).ok().map(|(_, _, problem)| problem)
    }

    /// A tuned matrix product whose store seam holds the group's maps.
    pub(super) fn product(&self, group: usize, c: Contraction, parts: usize) -> Result<Kernel> {
        let (product, [a, b], problem) = self.multiplied(group, c, parts)?;
        let (x, y) = (problem.a, problem.b);
        let like = match self.forms.groups[group].space {
            Space::Product(form, _) => gemm::Problem { batch: form.batch, m: form.m, n: form.n, k: form.k, ..problem },
            _ => problem,
        };
        let chosen = gemm::select_like(&problem, &like, self.target);
        let lanes = if chosen.stores_vec4 { 4 } else { 1 };
        let mut unit = Unit::default();
        let mut e = Emitter::new(self.program, self.fused, group, &mut unit);
        let (m, n) = (e.unit.param(c.m as u32), e.unit.param(c.n as u32));
        e.line(&format!("let e = (z * {m} + i) * {n} + j;"));
        let at = At { var: "e".into(), level: Level::Full };
        e.define(product, &at, lanes, "v");
        match c.batch * parts {
            1 => e.know("e", &[(c.n, "j"), (0, "i")]),
            _ => e.know("e", &[(c.n, "j"), (c.m, "i"), (0, "z")]),
        }
        self.finish(&mut e, group, &at, lanes);
        let mut body = e.close();
        // Loads for the column alone are made once for it rather than for each of its rows: less to run, and for the
        // driver to compile (a product of 32 x 64 tiles with bias and relu: 0.74 s became 0.41 on lavapipe).
        let dtype = |tensor: usize| self.program.vals[unit.tensors[tensor].0].dtype;
        let hoisted = chosen.source.contains("column(j0)").then(|| hoist(&mut body, dtype)).flatten();
        // A binding begins where its operand does, or with the tensor where the store function reads from there as well.
        let start = |m: &Matrix| match unit.tensors.iter().any(|(id, _)| *id == m.source) {
            true => 0,
            false => m.offset as u64 * 4,
        };
        let bound = |matrix: &Matrix, var: &'static str, start: u64, vec4: bool| Bound {
            var: var.into(),
            ids: vec![matrix.source],
            start,
            end: self.program.vals[matrix.source].bytes(),
            written: false,
            stored: DType::F32,
            vec4,
            declared: true,
        };
        // Two writable bindings of one range are refused by browsers. All bindings of a buffer are writable where one is,
        // so operands that lie in one tensor share a binding where the result lies in its buffer.
        let (start_a, start_b, one) = (start(&a), start(&b), self.writes_beside(group, &a, &b)?);
        let (starts, vec4) = match one {
            true => ([start_a.min(start_b); 2], [x.vec4 && y.vec4; 2]),
            false => ([start_a, start_b], [x.vec4, y.vec4]),
        };
        let mut bounds = vec![bound(&a, "a", starts[0], vec4[0])];
        bounds.extend((!one).then(|| bound(&b, "b", starts[1], vec4[1])));
        // What an operand begins behind its binding.
        let mut behind = |m: &Matrix, start: u64| {
            let words = (m.offset as u64 * 4).saturating_sub(start) / 4;
            (words > 0).then(|| unit.param(words as u32))
        };
        let behind = [behind(&a, starts[0]), behind(&b, starts[1])];
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
        let mut declarations =
            format!("{declarations}{}{accessors}{}", uniform("q", 1 + bounds.len(), &unit), helpers(&unit));
        if unit.turns {
            declarations += &turns::declare(2 + bounds.len());
        }
        // The result goes where the seam says; the shader's own output binding is not used.
        let gone = |line: &&str| line.contains("> c: array") || (one && line.contains("> b: array"));
        let mut text: String = text.lines().filter(|line| !gone(line)).fold(String::new(), |t, l| t + l + "\n");
        if one && x.vec4 && !y.vec4 {
            text = text.replace(" a: array<vec4<S>>;", " a: array<S>;");
        }
        let mut shader = Shader::new(text).seam(seam, &format!("{{\n{body}}}"));
        let operands = [(&a, "load_a", "a", "x", "z"), (&b, "load_b", if one { "a" } else { "b" }, "y", "w")];
        for (at, (matrix, load, name, ld, first)) in operands.into_iter().enumerate() {
            if let Some(windows) = &matrix.windows {
                shader = shader.seam(load, &window_load(windows, name, &format!("s.{first}"), vec4[at]));
            } else if one || behind[at].is_some() {
                let first = behind[at].iter().fold(first.to_string(), |first, behind| format!("{first} + {behind}"));
                shader = shader.seam(load, &format!("{{ {} }}", gemm_text::load(name, vec4[at], ld, &first)));
            }
        }
        let declarations = match hoisted {
            Some((variables, loads)) => {
                shader = shader.seam("column", &format!("{{\n{loads}}}"));
                variables + &declarations
            }
            None => declarations,
        };
        let source = shader.declare(&declarations).build()?;
        let windows = if a.windows.or(b.windows).is_some() { "windows " } else { "" };
        Ok(Kernel {
            label: format!("{} {windows}{}", chosen.name, self.label(&[group])),
            source: source.to_string(),
            bindings: [Binding::Uniform(chosen.params)]
                .into_iter()
                .chain(self.with_access(ranges, &bounds))
                .chain([Binding::Uniform(words(&unit))])
                .chain(unit.turns.then_some(Binding::Turns))
                .collect(),
            grid: chosen.grid,
        })
    }

    /// Whether a group writes into the buffer in which both operands of its product lie, as parts of one tensor.
    fn writes_beside(&self, group: usize, a: &Matrix, b: &Matrix) -> Result<bool> {
        if a.source != b.source {
            return Ok(false);
        }
        let buffer = self.slot(a.source)?.buffer.id();
        let outputs = self.outputs(group).iter().map(|&id| Ok(self.slot(id)?.buffer.id() == buffer));
        outputs.collect::<Result<Vec<_>>>().map(|same| same.contains(&true))
    }

    /// Whether what a group computes behind its product is long in text.
    fn is_heavy(&self, group: usize) -> bool {
        let mut stack = self.outputs(group).to_vec();
        let mut seen = Set::new();
        while let Some(id) = stack.pop() {
            let val = &self.program.vals[id];
            let elsewhere = self.fused.group_of[id].is_some_and(|other| other != group);
            if elsewhere || matches!(val.kind, Kind::Contraction(..)) || !seen.insert(id) {
                continue;
            }
            if matches!(&val.kind, Kind::Map(map) if map.heavy) && val.numel > 1 {
                return true;
            }
            stack.extend(&val.inputs);
        }
        false
    }
}

/// Takes the loads that depend on the column `j` alone out of the body of a store function. Returns the variables that
/// hold what was loaded and the text that loads it; `None` if there are none. `dtype` is that of a tensor.
fn hoist(body: &mut String, dtype: impl Fn(usize) -> DType) -> Option<(String, String)> {
    let (mut rest, mut variables, mut loads) = (String::new(), String::new(), String::new());
    // What the store function alone knows.
    let mut own: Set<&str> = ["z", "i", "e", "v"].into();
    for line in body.lines() {
        let binding = line.strip_prefix("let ").and_then(|line| line.strip_suffix(';')?.split_once(" = "));
        let Some((name, expression)) = binding else {
            // A store; anything else may define names.
            if !line.starts_with('w') {
                return None;
            }
            rest = rest + line + "\n";
            continue;
        };
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
        // `q[0].z` is a component and no name.
        if words.filter_map(|word| word.split('.').next()).any(|word| own.contains(word)) {
            own.insert(name);
            rest = rest + line + "\n";
            continue;
        }
        loads = loads + line + "\n";
        let tensor = expression.strip_prefix('r').and_then(|load| load.split_once("v(")?.0.parse().ok());
        match tensor {
            Some(tensor) => {
                variables += &format!("var<private> column_{name}: {};\n", wgsl_type(dtype(tensor), 4));
                loads += &format!("column_{name} = {name};\n");
                rest += &format!("let {name} = column_{name};\n");
            }
            // Indices are cheap, and may be wanted by both.
            None => rest = rest + line + "\n",
        }
    }
    if variables.is_empty() {
        return None;
    }
    *body = rest;
    Some((variables, loads))
}

/// The body of a load function that finds elements `j..j + 4` of window `first + i` in the image `x`.
fn window_load(w: &Windows, x: &str, first: &str, vec4: bool) -> String {
    let ([h, width], [rows, columns], c) = (w.image, w.count, w.channels);
    let mut text = format!(
        "{{ let r = {first} + i; let across = r % {columns}u; let q = r / {columns}u; \
         let down = q % {rows}u; let n = q / {rows}u; "
    );
    // The element of lane `e`: variables, then its index and what must hold for it to lie in the image.
    let mut element = |e: usize| {
        let (y, above) = along(w, Through::Cut, 0, "down", &format!("kh{e}"));
        let (x, beside) = along(w, Through::Cut, 1, "across", &format!("kw{e}"));
        text += &format!(
            "let c{e} = (j + {e}u) % {c}u; let t{e} = (j + {e}u) / {c}u; let kw{e} = t{e} % {kw}u; let kh{e} = t{e} / {kw}u; \
             let y{e} = {y}; let x{e} = {x}; ",
            kw = w.kernel[1]
        );
        let inside =
            [above.map(|c| c.replace('$', &format!("y{e}"))), beside.map(|c| c.replace('$', &format!("x{e}")))];
        let mut inside = inside.into_iter().flatten().collect::<Vec<_>>().join(" & ");
        if !inside.is_empty() {
            text += &format!("let ok{e} = {inside}; ");
            inside = format!("ok{e}");
        }
        (format!("((n * {h}u + y{e}) * {width}u + x{e}) * {c}u + c{e}"), inside)
    };
    let load = |(index, inside): (String, String), vec4: bool| {
        let (shift, ty) = if vec4 { (" >> 2u", "vec4<A>") } else { ("", "A") };
        match inside.is_empty() {
            true => format!("{ty}({x}[({index}){shift}])"),
            false => format!(
                "select({ty}(bitcast<f32>({}u)), {ty}({x}[select(0u, {index}, {inside}){shift}]), {inside})",
                w.outside
            ),
        }
    };
    if vec4 {
        let whole = load(element(0), true);
        return format!("{text}return {whole}; }}");
    }
    let four = [0, 1, 2, 3].map(|e| load(element(e), false)).join(", ");
    format!("{text}return vec4<A>({four}); }}")
}
