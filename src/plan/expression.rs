//! Values of a program as people write them: `relu12 f32[128, 512] = relu(x0 @ s0 + s1)`.
//!
//! A program keeps numbers of elements, since kernels need no more; shapes are found again here, from those of the leaves.
//! What is merely viewed is named by how it is seen: `x^T`, `slice(x)`; a reshape or a broadcast not at all.
//! Deliberately absent: exactness. The WGSL of a dispatch says what runs, this says what it means.

use crate::collections::Table;
use crate::graph::display::number;
use crate::graph::{Reduction, Spec, Through, View};
use crate::lower::program::{Id, Kind, Program, Val};
use crate::shape::Shape;

/// Names and shapes of the values that are given to a program or taken from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Leaves of the state, inputs, captured tensors, results.
    pub names: Table<Id, String>,
    /// Shapes of leaves.
    pub specs: Table<Id, Spec>,
}

/// Writes values of a program.
pub(crate) struct Writer<'a> {
    program: &'a Program,
    names: &'a Names,
    shapes: Vec<Shape>,
}

/// Longer expressions are cut off.
const LONGEST: usize = 400;

/// How tightly an operator binds: 0 for a list of arguments, 5 for a name.
type Strength = u8;

impl<'a> Writer<'a> {
    pub fn new(program: &'a Program, names: &'a Names) -> Writer<'a> {
        let mut shapes: Vec<Shape> = Vec::with_capacity(program.vals.len());
        for (id, val) in program.vals.iter().enumerate() {
            let shape = shape(val, names.specs.get(&id), &shapes);
            shapes.push(shape);
        }
        Writer { program, names, shapes }
    }

    /// Shape and dtype of a value.
    pub fn spec(&self, id: Id) -> Spec {
        Spec::new(self.shapes[id].clone(), self.program.vals[id].dtype)
    }

    /// What a value is called.
    pub fn name(&self, id: Id) -> String {
        match self.names.names.get(&id) {
            Some(name) => name.clone(),
            None => format!("{}{id}", self.program.vals[id].name),
        }
    }

    /// The expression of a value, in which values that are `named` stand by their names.
    pub fn expression(&self, id: Id, named: &dyn Fn(Id) -> bool) -> String {
        let mut text = String::new();
        self.write(&mut text, id, 0, named);
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
            text.push_str(" ...");
        }
        text
    }

    /// An operand, in parentheses where it binds more loosely than `around`.
    fn operand(&self, out: &mut String, id: Id, around: Strength, named: &dyn Fn(Id) -> bool) {
        // A shared value is written out wherever it stands, so an end is needed before the text is whole.
        if out.len() > LONGEST {
            out.push('.');
        } else if named(id) || matches!(self.program.vals[id].kind, Kind::Leaf(_)) {
            out.push_str(&self.name(id));
        } else {
            self.write(out, id, around, named);
        }
    }

    fn write(&self, out: &mut String, id: Id, around: Strength, named: &dyn Fn(Id) -> bool) {
        let val = &self.program.vals[id];
        let infix = |out: &mut String, sign: &str, own: Strength| {
            let open = own < around;
            out.push_str(if open { "(" } else { "" });
            self.operand(out, val.inputs[0], own, named);
            out.push_str(sign);
            // a - (b - c), a / (b / c)
            self.operand(out, val.inputs[1], own + 1, named);
            out.push_str(if open { ")" } else { "" });
        };
        match (&val.kind, &*val.name) {
            (Kind::Scalar(bits), _) => out.push_str(&number(*bits, val.dtype)),
            (Kind::Leaf(_), _) => out.push_str(&self.name(id)),
            (Kind::Map(_), name) if val.inputs.len() == 2 && sign(name).is_some() => {
                let (sign, own) = sign(name).unwrap_or_default();
                infix(out, sign, own);
            }
            (Kind::Map(_), "copy") => self.operand(out, val.inputs[0], around, named),
            (Kind::Map(_), "neg") => {
                out.push('-');
                self.operand(out, val.inputs[0], 5, named);
            }
            (Kind::Contraction(..), _) => infix(out, " @ ", 4),
            (Kind::View(view), _) => match seen(view, self.program.vals[val.inputs[0]].numel) {
                "" => self.operand(out, val.inputs[0], around, named),
                "^T" => {
                    self.operand(out, val.inputs[0], 5, named);
                    out.push_str("^T");
                }
                how => self.call(out, how, &val.inputs, named),
            },
            (Kind::Window(_, through), _) => {
                let how = match through {
                    Through::Cut | Through::Pick => "windows",
                    Through::Lay | Through::Cover => "overlay",
                };
                self.call(out, how, &val.inputs, named);
            }
            // Products of which parts are added up are folded by a value of their own.
            (Kind::Fold(fold, _), _) => {
                let how = match fold.reduction {
                    Reduction::Sum => "sum",
                    Reduction::Prod => "prod",
                    Reduction::Max => "max",
                    Reduction::Min => "min",
                };
                self.call(out, how, &val.inputs, named);
            }
            (Kind::Iota { .. }, _) => out.push_str("iota"),
            (_, name) => self.call(out, name, &val.inputs, named),
        }
    }

    fn call(&self, out: &mut String, name: &str, inputs: &[Id], named: &dyn Fn(Id) -> bool) {
        out.push_str(name);
        out.push('(');
        for (index, &input) in inputs.iter().enumerate() {
            out.push_str(if index > 0 { ", " } else { "" });
            self.operand(out, input, 0, named);
        }
        out.push(')');
    }
}

/// Ops of two operands that are written between them, and how tightly they bind.
fn sign(name: &str) -> Option<(&'static str, Strength)> {
    Some(match name {
        "lt" => (" < ", 1),
        "le" => (" <= ", 1),
        "gt" => (" > ", 1),
        "ge" => (" >= ", 1),
        "eq" => (" == ", 1),
        "ne" => (" != ", 1),
        "add" => (" + ", 2),
        "sub" => (" - ", 2),
        "mul" => (" * ", 3),
        "div" => (" / ", 3),
        _ => return None,
    })
}

/// What a view shows of its source; nothing to say of one that only reshapes or spreads.
fn seen(view: &View, source: usize) -> &'static str {
    if view.inside.is_some() {
        return "pad";
    }
    // Axes that step, as they would lie row by row.
    let axes: Vec<(usize, isize)> = view.merged().into_iter().filter(|axis| axis.1 != 0).collect();
    let dense: usize = axes.iter().map(|axis| axis.0).product();
    if view.offset != 0 || dense != source {
        return "slice";
    }
    if axes.windows(2).all(|pair| pair[0].1 >= pair[1].1) {
        return "";
    }
    if axes.len() == 2 { "^T" } else { "permute" }
}

/// The shape of a value, from those of its inputs; as far as the program remembers.
fn shape(val: &Val, given: Option<&Spec>, shapes: &[Shape]) -> Shape {
    let longer = |dims: &[usize]| Shape::new(dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>());
    let found = match &val.kind {
        Kind::Leaf(_) => given.map(|spec| spec.shape.clone()),
        Kind::Scalar(_) => Some(Shape::scalar()),
        Kind::View(view) => Some(view.shape.clone()),
        // What has lost its axes on the way says less than what has them.
        Kind::Map(_) => (val.inputs.iter().map(|&input| &shapes[input]))
            .filter(|shape| shape.numel() == val.numel)
            .max_by_key(|shape| shape.rank())
            .cloned(),
        Kind::Fold(fold, parts) => {
            let kept = kept(&shapes[val.inputs[0]], fold.outer, fold.length);
            let kept = kept.filter(|_| *parts == 1);
            kept.or_else(|| Some(longer(&[fold.outer, *parts, fold.inner])))
        }
        Kind::Contraction(c, parts) if c.batch * parts == 1 => Some(Shape::new([c.m, c.n])),
        Kind::Contraction(c, parts) => Some(Shape::new([c.batch * parts, c.m, c.n])),
        Kind::Window(w, through) => {
            let image = w.image.to_vec();
            let windows = w.count.to_vec();
            let tail = match through {
                Through::Cover => [image, vec![w.channels]].concat(),
                Through::Lay => [image, w.kernel.to_vec(), vec![w.channels]].concat(),
                Through::Cut | Through::Pick => [windows, w.kernel.to_vec(), vec![w.channels]].concat(),
            };
            let one: usize = tail.iter().product();
            (one > 0).then(|| Shape::new([vec![val.numel / one], tail].concat()))
        }
        Kind::Gather { length, count, inner } => {
            let outer = shapes[val.inputs[0]].numel() / (length * inner).max(1);
            Some(longer(&[outer, *count, *inner]))
        }
        Kind::Iota { .. } => None,
        Kind::Scan(scan, output) => scan.output(*output).map(|spec| spec.shape),
        Kind::Kernel(..) => None,
    };
    found.filter(|shape| shape.numel() == val.numel).unwrap_or_else(|| longer(&[val.numel]))
}

/// The axes that a fold leaves of a shape.
fn kept(shape: &Shape, outer: usize, length: usize) -> Option<Shape> {
    let product = |axes: &[usize]| axes.iter().product::<usize>();
    let rank = shape.rank();
    let (first, last) = (0..=rank)
        .flat_map(|first| (first..=rank).rev().map(move |last| (first, last)))
        .find(|&(first, last)| product(&shape[..first]) == outer && product(&shape[first..last]) == length)?;
    Some(Shape::new([&shape[..first], &shape[last..]].concat()))
}
