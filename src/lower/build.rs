//! First pass: recorded nodes become a flat list of values, views folded, repeats removed.
//!
//! What would leave the device idle is split here too: long folds and long products with few results. Deliberately
//! absent: constant folding of arithmetic; a scalar expression costs nothing inside a fused kernel.

use std::sync::Arc;

use super::program::{Id, Kind, Program, Val};
use super::recording::scalar;
use super::space::times;
use crate::collections::{Set, Table};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{
    Contraction, Fold, Kernel, Lowering, Map, Node, Reduction, Scan, Spec, Tensor, Through, View, ViewOp,
};

/// With the number of the later computation that a value belongs to.
type Key = (Kind, Vec<Id>, DType, usize, usize);

/// That a value is computed for later: see [`Lowering::Later`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    /// Equal values of another number are not shared.
    pub number: usize,
    /// What is to be computed before.
    after: Option<Id>,
    /// It is the barrier's own value, or a view of it: what is computed from it has to wait.
    direct: bool,
}

/// Sums of fewer terms are not split.
const LONG: usize = 4096;
/// Split sums have at most so many parts, ...
const PARTS: usize = 256;
/// ... about so many partial results in all, ...
const RESULTS: usize = 1 << 16;
/// ... each of so many products at least, or ...
const STRETCH: usize = 512;
/// ... of so many terms.
const TERMS: usize = 32;
/// An operand is copied into rows that begin on four elements in products of so many multiply-adds, ...
const ALIGNED: usize = 1 << 25;
/// ... which read each of its elements so often.
const READ: usize = 128;

/// For each axis of `shape` the axes of `fine` that it consists of, if it is made by joining neighbours.
fn refined(fine: &[usize], shape: &[usize]) -> Option<Vec<std::ops::Range<usize>>> {
    let mut at = 0;
    let mut parts = Vec::with_capacity(shape.len());
    for &length in shape {
        let (start, mut product) = (at, 1);
        while product < length && at < fine.len() {
            product *= fine[at];
            at += 1;
        }
        if product != length {
            return None;
        }
        parts.push(start..at);
    }
    parts.last_mut()?.end = fine.len();
    fine[at..].iter().all(|&length| length == 1).then_some(parts)
}

fn copying() -> Kind {
    Kind::Map(Map { text: "$0", helpers: "", heavy: false })
}

#[derive(Default)]
pub(super) struct Builder<'a> {
    pub program: Program,
    pub ids: Table<(u64, usize), Id>,
    pub seen: Table<Key, Id>,
    /// Outputs that are computed for later.
    pub late: Table<(u64, usize), Late>,
    /// For what the node at hand is computed.
    pub now: Option<Late>,
    /// Later computations so far.
    pub numbers: usize,
    /// A program of the same graph for other sizes, whose splits are to be kept, and which numbers are one.
    pub model: Option<&'a Program>,
    /// Nodes whose values lie at another place in each turn of a loop.
    pub moving: Set<u64>,
    /// Operands of loops, by node.
    pub loops: Table<u64, Vec<Id>>,
    /// The first thing an op got wrong.
    pub defect: Option<Error>,
}

impl Builder<'_> {
    fn refuse(&mut self, node: &Node, what: &str) {
        let why = format!("{} {what} ({})", node.op().name(), node.place());
        self.defect.get_or_insert(Error::new(ErrorKind::Validation { why }));
    }

    fn number(&self) -> usize {
        self.now.map_or(0, |late| late.number)
    }

    /// Adds a node: what its outputs lower to.
    pub fn node(&mut self, node: &Node) -> Result<()> {
        let (mut inputs, mut specs, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for input in node.inputs() {
            let (input, output) = input.node()?;
            keys.push((input.number(), output));
            inputs.push(self.ids[&(input.number(), output)]);
            specs.push(input.outputs()[output].clone());
        }
        let late = |builder: &Builder| -> Vec<Option<Late>> {
            keys.iter().map(|key| builder.late.get(key).copied()).collect()
        };
        let late = if self.late.is_empty() { Vec::new() } else { late(self) };
        let newest = late.iter().flatten().max_by_key(|late| (late.number, late.direct)).copied();
        for (output, lowering) in node.op().lower(&specs, node.outputs()).into_iter().enumerate() {
            self.now = newest;
            let key = (node.number(), output);
            let own = match &lowering {
                Lowering::Later => {
                    self.numbers += 1;
                    let given = |id: &&Id| matches!(self.program.vals[**id].kind, Kind::Leaf(_) | Kind::Scalar(_));
                    let after = inputs[1..].iter().filter(|id| !given(id)).max().copied();
                    Some(Late { number: self.numbers, after, direct: true })
                }
                Lowering::Same(input) => late.get(*input).copied().flatten(),
                Lowering::View(_) | Lowering::Window(..) => newest,
                _ => newest.map(|late| Late { direct: false, ..late }),
            };
            let id = self.lowered(node, output, lowering, &inputs, &specs);
            self.ids.insert(key, id);
            if let Some(own) = own {
                self.late.insert(key, own);
            }
        }
        self.now = None;
        Ok(())
    }

    fn push(&mut self, kind: Kind, inputs: Vec<Id>, spec: (DType, usize), node: &Node) -> Id {
        self.push_as(node.op().name(), kind, inputs, spec, node)
    }

    fn push_as(&mut self, name: &str, kind: Kind, inputs: Vec<Id>, spec: (DType, usize), node: &Node) -> Id {
        let key = (kind, inputs, spec.0, spec.1, self.number());
        if let Some(&id) = self.seen.get(&key) {
            return id;
        }
        let id = self.program.vals.len();
        self.program.vals.push(Val {
            kind: key.0.clone(),
            inputs: key.1.clone(),
            after: self.now.filter(|late| late.direct).and_then(|late| late.after),
            dtype: spec.0,
            numel: spec.1,
            name: name.into(),
            place: node.place().clone(),
        });
        self.seen.insert(key, id);
        id
    }

    /// A number known on the host. Equal ones are one value, except where they are not in the model: one over the rows of a
    /// batch may happen to be what some constant is, and in the next batch it is not.
    fn number_of(&mut self, bits: u32, dtype: DType, node: &Node) -> Id {
        let next = self.program.vals.len();
        let id = match self.model.and_then(|model| model.scalars.get(self.program.scalars.len())) {
            Some(&id) if id == next => {
                self.seen.remove(&(Kind::Scalar(bits), vec![], dtype, 1, self.number()));
                self.push(Kind::Scalar(bits), vec![], (dtype, 1), node)
            }
            Some(&id)
                if self
                    .program
                    .vals
                    .get(id)
                    .is_some_and(|val| (&val.kind, val.dtype) == (&Kind::Scalar(bits), dtype)) =>
            {
                id
            }
            _ => self.push(Kind::Scalar(bits), vec![], (dtype, 1), node),
        };
        self.program.scalars.push(id);
        id
    }

    pub fn leaf(&mut self, node: &Arc<Node>, output: usize, stand_in: bool) -> Result<Id> {
        let spec = &node.outputs()[output];
        if !stand_in && let Some(only) = scalar(node, output) {
            return Ok(self.number_of(only, spec.dtype, node));
        }
        let leaf = self.program.leaves.len();
        self.program.leaves.push(Tensor::of(node.clone(), output));
        let id = self.push(Kind::Leaf(leaf), vec![], (spec.dtype, spec.shape.numel()), node);
        if self.moving.contains(&node.number()) {
            self.program.moving.insert(id);
        }
        Ok(id)
    }

    pub fn lowered(&mut self, node: &Node, output: usize, lowering: Lowering, inputs: &[Id], specs: &[Spec]) -> Id {
        let spec = &node.outputs()[output];
        let size = (spec.dtype, spec.shape.numel());
        match lowering {
            Lowering::View(op) => self.view(&op, inputs[0], &specs[0], size, node),
            Lowering::Fold(fold) => self.fold(fold, inputs[0], size, node),
            Lowering::Map(map) => self.push(Kind::Map(map), inputs.to_vec(), size, node),
            Lowering::Window(windows, through) => {
                self.push(Kind::Window(windows, through), inputs.to_vec(), size, node)
            }
            Lowering::Iota { inner, length } => self.push(Kind::Iota { inner, length }, vec![], size, node),
            Lowering::Gather { length, count, inner } => {
                self.push(Kind::Gather { length, count, inner }, inputs.to_vec(), size, node)
            }
            Lowering::Contraction(c) => self.product(c, [inputs[0], inputs[1]], size, node),
            Lowering::Same(input) => inputs[input],
            Lowering::Later => inputs[0],
            Lowering::Scan(scan) => {
                let operands = self.loop_operands(&scan, inputs, specs, node);
                self.push(Kind::Scan(scan, output), operands, size, node)
            }
            Lowering::Kernel(kernel) => {
                let operands = self.kernel_operands(&kernel, inputs, specs, node);
                self.push(Kind::Kernel(kernel, output), operands, size, node)
            }
            // An op that says it is given has no value here: a mistake of the op's.
            Lowering::Leaf => {
                self.refuse(node, "is computed, but lowers to a leaf");
                self.push(Kind::Scalar(0), vec![], size, node)
            }
        }
    }

    fn view(&mut self, op: &ViewOp, source: Id, spec: &Spec, size: (DType, usize), node: &Node) -> Id {
        let shape = &spec.shape;
        let val = &self.program.vals[source];
        let spreads = !matches!(op, ViewOp::Pad(_));
        if matches!(val.kind, Kind::Scalar(_)) && spreads && size.1 > 0 {
            return source;
        }
        let folded = match &val.kind {
            Kind::View(below) => below
                .then(&ViewOp::Reshape(shape.clone()))
                .and_then(|below| below.then(op))
                .map(|view| (val.inputs[0], view)),
            _ => None,
        };
        let folded = folded.or_else(|| match (&val.kind, op) {
            // Axes of what is seen that lie behind one axis of this shape keep together.
            (Kind::View(below), ViewOp::Permute(axes)) => {
                let parts = refined(&below.shape, shape)?;
                let axes = axes.iter().flat_map(|&axis| parts[axis].clone()).collect();
                Some((val.inputs[0], below.then(&ViewOp::Permute(axes))?))
            }
            _ => None,
        });
        let (source, view) = match folded {
            Some(folded) => folded,
            None => match View::whole(shape).then(op) {
                Some(view) => (source, view),
                // A whole tensor takes any single op: only chains can leave the strided form.
                None => {
                    self.refuse(node, "is a view that is not strided");
                    return source;
                }
            },
        };
        if view.is_identity() && self.program.vals[source].numel == size.1 {
            return source;
        }
        self.push(Kind::View(view), vec![source], size, node)
    }

    /// What a loop reads lies whole in buffers, and what it carries is a copy of its own, which it overwrites.
    fn loop_operands(&mut self, scan: &Scan, inputs: &[Id], specs: &[Spec], node: &Node) -> Vec<Id> {
        if let Some(operands) = self.loops.get(&node.number()) {
            return operands.clone();
        }
        let mut operands = Vec::with_capacity(inputs.len());
        for (at, (&input, spec)) in inputs.iter().zip(specs).enumerate() {
            let numel = spec.shape.numel();
            operands.push(match () {
                () if at < scan.carries => self.carried_copy(input, numel),
                () if self.program.is_whole(input, numel) => input,
                () => self.copy(input, (spec.dtype, numel), node),
            });
        }
        self.loops.insert(node.number(), operands.clone());
        operands
    }

    /// A copy that no other value shares, for the computation that the node at hand belongs to.
    fn carried_copy(&mut self, id: Id, numel: usize) -> Id {
        let copy = self.program.copy_of(id, numel);
        self.program.vals[copy].after = self.now.filter(|late| late.direct).and_then(|late| late.after);
        copy
    }

    /// What a kernel of an op's own reads are views of what lies in a buffer, under the operand's shape.
    fn kernel_operands(&mut self, kernel: &Kernel, inputs: &[Id], specs: &[Spec], node: &Node) -> Vec<Id> {
        let mut operands = Vec::with_capacity(inputs.len());
        for (k, (&input, spec)) in inputs.iter().zip(specs).enumerate() {
            let size = (spec.dtype, spec.shape.numel());
            let (source, view) = match self.program.strided(input, &spec.shape, kernel.is_by_fours(k)) {
                Some(strided) => strided,
                None => (self.copy(input, size, node), View::whole(&spec.shape)),
            };
            operands.push(self.push(Kind::View(view), vec![source], size, node));
        }
        operands
    }

    /// A long product with few results would leave the device idle: it becomes a product along stretches of K, whose
    /// results are added up.
    fn product(&mut self, c: Contraction, [a, b]: [Id; 2], size: (DType, usize), node: &Node) -> Id {
        let a = self.operand(a, (c.batch, c.m, c.k), node);
        let b = self.operand(b, (c.batch, c.k, c.n), node);
        let (a, b) = match c.batch {
            1 => {
                let large = times([c.m, c.n, c.k]) >= ALIGNED;
                let a = self.aligned(a, (c.m, c.k), large && c.n >= READ, node);
                (a, self.aligned(b, (c.k, c.n), large && c.m >= READ, node))
            }
            _ => (a, b),
        };
        let results = c.batch * c.m * c.n;
        let parts = match self.alike() {
            // A batch and stretches would share one index.
            Some(&Kind::Contraction(_, parts)) if c.batch == 1 => parts,
            _ if c.batch == 1 && results > 0 && c.k >= LONG => (RESULTS / results).min(c.k / STRETCH).clamp(1, PARTS),
            _ => 1,
        };
        let product = self.push(Kind::Contraction(c, parts), vec![a, b], (size.0, parts * results), node);
        let sum = Fold { reduction: Reduction::Sum, outer: 1, length: parts, inner: results };
        if parts == 1 { product } else { self.push(Kind::Fold(sum, 1), vec![product], size, node) }
    }

    /// An operand of a product must be a matrix whose rows or columns lie dense; any other view of it is copied first.
    fn operand(&mut self, id: Id, sizes: (usize, usize, usize), node: &Node) -> Id {
        if self.program.matrix(id, sizes).is_some() {
            return id;
        }
        // Windows over what is nowhere stored: the image is copied rather than its windows.
        let id = self.over_a_copy(id, node);
        if self.program.matrix(id, sizes).is_some() {
            return id;
        }
        let size = (self.program.vals[id].dtype, sizes.0 * sizes.1 * sizes.2);
        match self.turned_copy(id, sizes, size, node) {
            Some(turned) => turned,
            None => self.copy(id, size, node),
        }
    }

    /// The operand of a single product over a copy whose rows begin on four elements, where it is worth one: four elements are
    /// loaded at once then. A product and its derivatives share the copy.
    fn aligned(&mut self, id: Id, (rows, columns): (usize, usize), worth: bool, node: &Node) -> Id {
        let Some(matrix) = self.program.matrix(id, (1, rows, columns)) else { return id };
        if matrix.ld.is_multiple_of(4) || matrix.windows.is_some() {
            return id;
        }
        let (lines, dense) = if matrix.transposed { (columns, rows) } else { (rows, columns) };
        let width = dense.next_multiple_of(4);
        let padded = View {
            shape: [lines, width].into(),
            strides: vec![matrix.ld as isize, 1],
            offset: matrix.offset as isize,
            inside: Some(vec![(0, lines), (0, dense)]),
        };
        let (kind, inputs) = (Kind::View(padded), vec![matrix.source]);
        let size = (self.program.vals[id].dtype, lines * width);
        let key = (kind, inputs, size.0, size.1, self.number());
        let alike = |model: &Program| {
            let like = model.vals.get(self.program.vals.len());
            like.is_some_and(|val| {
                val.inputs == key.1 && matches!(&val.kind, Kind::View(view) if view.inside.is_some())
            })
        };
        if !self.seen.contains_key(&key) && !self.model.map_or(worth, alike) {
            return id;
        }
        let padded = self.push(key.0, key.1, size, node);
        let copy = self.copy(padded, size, node);
        let (width, one) = (width as isize, 1);
        let strides = if matrix.transposed { vec![one, width] } else { vec![width, one] };
        let view = View { shape: [rows, columns].into(), strides, offset: 0, inside: None };
        self.push(Kind::View(view), vec![copy], (size.0, rows * columns), node)
    }

    /// The transposed view of a copy that has been made of the transposed matrices: a product and its derivative read
    /// the same operand in both orders.
    fn turned_copy(
        &mut self,
        id: Id,
        (batch, rows, columns): (usize, usize, usize),
        size: (DType, usize),
        node: &Node,
    ) -> Option<Id> {
        let Val { kind: Kind::View(view), inputs, .. } = &self.program.vals[id] else { return None };
        let parts = refined(&view.shape, &[batch, rows, columns])?;
        let axes = [0, 2, 1].into_iter().flat_map(|axis: usize| parts[axis].clone()).collect();
        let turned = Kind::View(view.then(&ViewOp::Permute(axes))?);
        let turned = *self.seen.get(&(turned, inputs.clone(), size.0, size.1, self.number()))?;
        let copy = *self.seen.get(&(copying(), vec![turned], size.0, size.1, self.number()))?;
        let view = View::whole(&[batch, columns, rows].into()).then(&ViewOp::Permute(vec![0, 2, 1]))?;
        Some(self.push(Kind::View(view), vec![copy], size, node))
    }

    /// Windows, or a view of some, over a copy of their image.
    fn over_a_copy(&mut self, id: Id, node: &Node) -> Id {
        let Val { kind, inputs, dtype, numel, .. } = self.program.vals[id].clone();
        let below = match (&kind, inputs.first()) {
            (Kind::Window(windows, Through::Cut), Some(&image)) => {
                // An image that is one number everywhere is a value of one element.
                let images = numel.checked_div(windows.of_image()).unwrap_or_default();
                self.copy(image, (dtype, images * windows.pixels()), node)
            }
            (Kind::View(_), Some(&cut)) if matches!(self.program.vals[cut].kind, Kind::Window(..)) => {
                self.over_a_copy(cut, node)
            }
            _ => return id,
        };
        self.push(kind, vec![below], (dtype, numel), node)
    }

    fn copy(&mut self, id: Id, size: (DType, usize), node: &Node) -> Id {
        self.push_as("copy", copying(), vec![id], size, node)
    }

    /// A long fold to few results would leave the device idle: it becomes one along stretches of its length, and one over
    /// the results of those.
    fn fold(&mut self, fold: Fold, source: Id, size: (DType, usize), node: &Node) -> Id {
        let results = fold.outer * fold.inner;
        let parts = match self.alike() {
            Some(&Kind::Fold(_, parts)) => parts,
            _ if fold.length == 1 => return source,
            _ if results > 0 && fold.length >= LONG => (RESULTS / results).min(fold.length / TERMS).clamp(1, PARTS),
            _ => 1,
        };
        let folded = self.push(Kind::Fold(fold, parts), vec![source], (size.0, parts * results), node);
        let rest = Fold { length: parts, ..fold };
        if parts == 1 { folded } else { self.push(Kind::Fold(rest, 1), vec![folded], size, node) }
    }

    /// How the next value came about in the program that this one is to be like.
    fn alike(&self) -> Option<&Kind> {
        Some(&self.model?.vals.get(self.program.vals.len())?.kind)
    }
}
