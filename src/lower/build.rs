//! First pass: recorded nodes become a flat list of values, views folded, repeats removed.
//!
//! What would leave the device idle is split here too: long folds and long products with few results. Deliberately
//! absent: constant folding of arithmetic; a scalar expression costs nothing inside a fused kernel.

use std::collections::HashMap;
use std::sync::Arc;

use super::program::{Id, Kind, Program, Val};
use super::recording::scalar;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Contraction, Fold, Lowering, Map, Node, Reduction, Spec, Tensor, View, ViewOp};

type Key = (Kind, Vec<Id>, DType, usize);

/// Sums of fewer terms are not split where they belong to a product.
const TERMS: usize = 4096;
/// Split products have about so many partial results, ...
const RESULTS: usize = 1 << 16;
/// ... each the sum of so many terms at least.
const STRETCH: usize = 512;

#[derive(Default)]
pub(super) struct Builder {
    pub program: Program,
    pub ids: HashMap<(u64, usize), Id>,
    seen: HashMap<Key, Id>,
    /// The first thing an op got wrong.
    pub defect: Option<Error>,
}

impl Builder {
    fn refuse(&mut self, node: &Node, what: &str) {
        let why = format!("{} {what} ({})", node.op().name(), node.place());
        self.defect.get_or_insert(Error::Validation { why });
    }

    fn push(&mut self, kind: Kind, inputs: Vec<Id>, spec: (DType, usize), node: &Node) -> Id {
        self.push_as(node.op().name(), kind, inputs, spec, node)
    }

    fn push_as(&mut self, name: &str, kind: Kind, inputs: Vec<Id>, spec: (DType, usize), node: &Node) -> Id {
        let key = (kind, inputs, spec.0, spec.1);
        if let Some(&id) = self.seen.get(&key) {
            return id;
        }
        let id = self.program.vals.len();
        self.program.vals.push(Val {
            kind: key.0.clone(),
            inputs: key.1.clone(),
            dtype: spec.0,
            numel: spec.1,
            name: name.into(),
            place: node.place().clone(),
        });
        self.seen.insert(key, id);
        id
    }

    pub fn leaf(&mut self, node: &Arc<Node>, output: usize, stand_in: bool) -> Result<Id> {
        let spec = &node.outputs()[output];
        if !stand_in && let Some(only) = scalar(node, output) {
            return Ok(self.push(Kind::Scalar(only), vec![], (spec.dtype, 1), node));
        }
        let leaf = self.program.leaves.len();
        self.program.leaves.push(Tensor::of(node.clone(), output));
        Ok(self.push(Kind::Leaf(leaf), vec![], (spec.dtype, spec.shape.numel()), node))
    }

    pub fn lowered(&mut self, node: &Node, output: usize, lowering: Lowering, inputs: &[Id], specs: &[Spec]) -> Id {
        let spec = &node.outputs()[output];
        let size = (spec.dtype, spec.shape.numel());
        match lowering {
            Lowering::View(op) => self.view(&op, inputs[0], &specs[0], size, node),
            Lowering::Fold(fold) if fold.length == 1 => inputs[0],
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

    /// A long product with few results would leave the device idle: it becomes several, whose results are added up.
    fn product(&mut self, c: Contraction, [a, b]: [Id; 2], size: (DType, usize), node: &Node) -> Id {
        let results = c.batch * c.m * c.n;
        let most = (RESULTS / results.max(1)).min(c.k / STRETCH);
        let parts = [64, 49, 32, 25, 16, 8, 7, 5, 4, 3, 2]
            .into_iter()
            .find(|&parts| parts <= most && c.k.is_multiple_of(parts));
        if let (1, TERMS.., Some(parts)) = (c.batch, c.k, parts)
            && let Some(a) = self.stretches(a, [c.m, c.k], 1, parts, node)
            && let Some(b) = self.stretches(b, [c.k, c.n], 0, parts, node)
        {
            let part = Contraction { batch: parts, k: c.k / parts, ..c };
            let partial = self.push(Kind::Contraction(part), vec![a, b], (size.0, parts * results), node);
            let sum = Fold { reduction: Reduction::Sum, outer: 1, length: parts, inner: results };
            return self.push(Kind::Fold(sum), vec![partial], size, node);
        }
        let a = self.operand(a, (c.batch, c.m, c.k), node);
        let b = self.operand(b, (c.batch, c.k, c.n), node);
        self.push(Kind::Contraction(c), vec![a, b], size, node)
    }

    /// A matrix as `parts` matrices side by side along an axis, if that is a view that products read as it lies.
    fn stretches(&mut self, id: Id, shape: [usize; 2], axis: usize, parts: usize, node: &Node) -> Option<Id> {
        let mut split = shape.to_vec();
        split[axis] /= parts;
        let sizes = (parts, split[0], split[1]);
        split.insert(axis, parts);
        let order = if axis == 0 { vec![0, 1, 2] } else { vec![1, 0, 2] };
        let val = &self.program.vals[id];
        let (source, view) = match &val.kind {
            Kind::View(view) => (val.inputs[0], view.then(&ViewOp::Reshape(shape.into()))?),
            _ => (id, View::whole(&shape.into())),
        };
        let view = view.then(&ViewOp::Reshape(split.into()))?.then(&ViewOp::Permute(order))?;
        let size = (val.dtype, val.numel);
        let id = if view.is_identity() { source } else { self.push(Kind::View(view), vec![source], size, node) };
        self.program.matrix(id, sizes).is_some().then_some(id)
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
        self.copy(id, (self.program.vals[id].dtype, sizes.0 * sizes.1 * sizes.2), node)
    }

    /// Windows, or a view of some, over a copy of their image.
    fn over_a_copy(&mut self, id: Id, node: &Node) -> Id {
        let Val { kind, inputs, dtype, numel, .. } = self.program.vals[id].clone();
        let below = match (&kind, inputs.first()) {
            (Kind::Window(..), Some(&image)) => self.copy(image, (dtype, self.program.vals[image].numel), node),
            (Kind::View(_), Some(&cut)) if matches!(self.program.vals[cut].kind, Kind::Window(..)) => {
                self.over_a_copy(cut, node)
            }
            _ => return id,
        };
        self.push(kind, vec![below], (dtype, numel), node)
    }

    fn copy(&mut self, id: Id, size: (DType, usize), node: &Node) -> Id {
        let map = Map { text: "$0", helpers: "", heavy: false };
        self.push_as("copy", Kind::Map(map), vec![id], size, node)
    }

    /// A long fold to few results would leave the device idle: it becomes two, the first of many partial results.
    fn fold(&mut self, fold: Fold, source: Id, size: (DType, usize), node: &Node) -> Id {
        let results = fold.outer * fold.inner;
        let split = (results > 0 && results < 256 && fold.length >= 8192)
            .then(|| [256, 128, 64, 32, 125, 100, 49, 25].into_iter().find(|parts| fold.length.is_multiple_of(*parts)))
            .flatten();
        let Some(parts) = split else {
            return self.push(Kind::Fold(fold), vec![source], size, node);
        };
        let first = Fold { outer: fold.outer * parts, length: fold.length / parts, ..fold };
        let partial = self.push(Kind::Fold(first), vec![source], (size.0, results * parts), node);
        self.push(Kind::Fold(Fold { length: parts, ..fold }), vec![partial], size, node)
    }
}
