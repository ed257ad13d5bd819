//! What the passes work on: a flat list of single-output values.
//!
//! Values are in recording order, each with how it comes about and the indices of its inputs. Scalars known on the host
//! stay values of their own kind, because they travel in the plan's uniform and never in shader text. `build` makes a
//! program of recorded nodes.

use std::sync::Arc;

use crate::collections::Set;
use crate::dtype::DType;
use crate::error::Place;
use crate::shape::Shape;

use crate::graph::{Contraction, Fold, Kernel, Map, Reduction, Scan, Tensor, Through, View, ViewOp, Windows};

/// Index of a value in its program.
pub type Id = usize;

/// How a value comes about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One element known on the host, by its bits.
    Scalar(u32),
    /// Given from outside: index into [`Program::leaves`].
    Leaf(usize),
    /// An expression of the inputs at one index.
    Map(Map),
    /// A reduction of the only input, along so many stretches of its length, which are results of their own.
    Fold(Fold, usize),
    /// A strided window of the only input.
    View(View),
    /// The only input read through sliding windows.
    Window(Windows, Through),
    /// The coordinate along an axis.
    Iota { inner: usize, length: usize },
    /// Rows of the first input picked by the second.
    Gather { length: usize, count: usize, inner: usize },
    /// A batched matrix product; or a single one along so many stretches of K, which are results of their own.
    Contraction(Contraction, usize),
    /// One output of a loop over the inputs, the first of which are copies made for it to carry.
    Scan(Scan, usize),
    /// One output of a kernel that the op has brought.
    Kernel(Kernel, usize),
}

/// Length of each of `parts` stretches of a fold; only the last may be shorter, or empty.
pub fn fold_stretch(length: usize, parts: usize) -> usize {
    if parts == 1 { length } else { length.div_ceil(parts).next_multiple_of(4) }
}

/// Length of each of `parts` stretches of a product: products step along K in up to 32.
pub fn product_stretch(k: usize, parts: usize) -> usize {
    if parts == 1 { k } else { k.div_ceil(parts).next_multiple_of(32) }
}

/// One value of a program.
#[derive(Clone, Debug)]
pub struct Val {
    /// How it comes about.
    pub kind: Kind,
    /// What it is computed from.
    pub inputs: Vec<Id>,
    /// A value that must be computed before this one, although it is not computed from it.
    pub after: Option<Id>,
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub numel: usize,
    /// Name of the op, for plans and messages.
    pub name: Arc<str>,
    /// Where it was recorded.
    pub place: Place,
}

impl Val {
    /// Bytes it takes when stored.
    pub fn bytes(&self) -> u64 {
        (self.numel as u64).saturating_mul(self.dtype.bytes() as u64)
    }
}

impl Val {
    /// Whether another value comes about as this one does, for as many elements or fewer.
    pub fn is_like(&self, other: &Val) -> bool {
        let kinds = match (&self.kind, &other.kind) {
            (Kind::Scalar(_), Kind::Scalar(_))
            | (Kind::View(_), Kind::View(_))
            | (Kind::Iota { .. }, Kind::Iota { .. })
            | (Kind::Gather { .. }, Kind::Gather { .. }) => true,
            (Kind::Fold(a, parts), Kind::Fold(b, same)) => a.reduction == b.reduction && parts == same,
            (Kind::Contraction(_, parts), Kind::Contraction(_, same)) => parts == same,
            (Kind::Scan(a, output), Kind::Scan(b, same)) => a.is_like(b) && output == same,
            (Kind::Kernel(a, output), Kind::Kernel(b, same)) => a.is_like(b) && output == same,
            (Kind::Window(a, through), Kind::Window(b, same)) => a == b && through == same,
            (a, b) => a == b,
        };
        kinds
            && self.inputs == other.inputs
            && self.after == other.after
            && self.dtype == other.dtype
            && other.numel <= self.numel
    }
}

/// A flattened graph.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Values in an order in which inputs come first.
    pub vals: Vec<Val>,
    /// The tensors behind [`Kind::Leaf`].
    pub leaves: Vec<Tensor>,
    /// What the program is run for, one for each root.
    pub roots: Vec<Id>,
    /// Leaves that lie at another place in each turn of a loop: only accessors find them there.
    pub moving: Set<Id>,
    /// For each number that was asked for, in turn, the value that it is. Of a program as it was built.
    pub scalars: Vec<Id>,
}

/// How a matrix of a product lies in the tensor it is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The stored or given value it is read from.
    pub source: Id,
    /// First element.
    pub offset: usize,
    /// Columns lie dense rather than rows.
    pub transposed: bool,
    /// Elements from one dense line to the next.
    pub ld: usize,
    /// Elements from one matrix of the batch to the next; 0 if all share one.
    pub batch_stride: usize,
    /// Where one stride does not do: so many matrices, and elements from the first of those to the first behind them.
    pub outer: Option<(usize, usize)>,
    /// The dense lines are windows over the source rather than elements of it.
    pub windows: Option<Windows>,
}

impl Program {
    /// Whether another program, as recorded, may be that of the same graph with a smaller batch.
    pub fn begins_like(&self, other: &Program) -> bool {
        other.vals.len() <= self.vals.len() && self.vals.iter().zip(&other.vals).all(|(a, b)| a.is_like(b))
    }

    /// Reads a value as `batch` matrices of `rows` by `columns`, if its view allows it.
    pub fn matrix(&self, id: Id, (batch, rows, columns): (usize, usize, usize)) -> Option<Matrix> {
        let val = &self.vals[id];
        let shape: crate::shape::Shape = [batch, rows, columns].into();
        let (seen, view) = match &val.kind {
            Kind::View(view) => (
                val.inputs[0],
                view.then(&ViewOp::Reshape(shape)).or_else(|| {
                    // Heads of a sequence lie side by side in it: the batch has two strides.
                    let behind = |axis: usize| view.shape[axis..].iter().product::<usize>();
                    let matrices = |axis: usize| behind(axis) / (rows * columns).max(1);
                    let inner = (1..view.shape.rank()).map(matrices).find(|&inner| inner > 1 && inner < batch)?;
                    let shape = [batch / inner, inner, rows, columns];
                    (batch % inner == 0).then(|| view.then(&ViewOp::Reshape(shape.into())))?
                })?,
            ),
            _ => (id, View::whole(&shape)),
        };
        let (source, windows) = match self.vals[seen].kind {
            Kind::Window(windows, Through::Cut) => (self.vals[seen].inputs[0], Some(windows)),
            _ => (seen, None),
        };
        if self.moving.contains(&source) {
            return None;
        }
        // Neither a view, where a chain of them has no strided form, nor a constant lies in a buffer.
        if matches!(self.vals[source].kind, Kind::View(_) | Kind::Window(..) | Kind::Scalar(_)) {
            return None;
        }
        if view.inside.is_some() || view.offset < 0 || view.strides.iter().any(|&stride| stride < 0) {
            return None;
        }
        let (outer, batch_stride, row, column) = match view.strides[..] {
            [batch, row, column] => (None, batch, row, column),
            [outer, batch, row, column] => (Some((view.shape[1], outer as usize)), batch, row, column),
            _ => return None,
        };
        let (transposed, ld) = match () {
            () if column == 1 || columns == 1 => (false, row as usize),
            () if row == 1 || rows == 1 => (true, column as usize),
            () => return None,
        };
        let (offset, batch_stride) = (view.offset as usize, if batch == 1 { 0 } else { batch_stride as usize });
        match windows {
            Some(_) if outer.is_some() => return None,
            // A line is a whole window.
            Some(windows) => {
                let line = windows.elements();
                let lines = if transposed { columns } else { rows };
                let dense = if transposed { rows } else { columns };
                if dense != line || (ld != line && lines > 1) || offset != 0 || !batch_stride.is_multiple_of(line) {
                    return None;
                }
            }
            // A binding has to start at a multiple of 256 bytes on any adapter.
            None if !offset.is_multiple_of(64) => return None,
            None => {}
        }
        Some(Matrix { source, offset, transposed, ld, batch_stride, outer, windows })
    }

    /// How a value can be seen under a shape by a kernel that takes strides: the stored or given value, and a view of it;
    /// `None` if it has to be copied. `four` where it is to be loaded by fours.
    pub fn strided(&self, id: Id, shape: &Shape, four: bool) -> Option<(Id, View)> {
        let val = &self.vals[id];
        let (source, view) = match &val.kind {
            Kind::View(view) => (val.inputs[0], view.then(&ViewOp::Reshape(shape.clone()))?),
            _ if val.numel == shape.numel() => (id, View::whole(shape)),
            _ => return None,
        };
        if matches!(self.vals[source].kind, Kind::Scalar(_) | Kind::View(_) | Kind::Window(..)) || view.inside.is_some()
        {
            return None;
        }
        if view.offset < 0 || view.strides.iter().any(|&stride| stride < 0) {
            return None;
        }
        if four {
            let (last, others) = view.strides.split_last()?;
            let ragged = |n: isize| n % 4 != 0;
            if *last != 1 || ragged(*shape.last()? as isize) || ragged(view.offset) || others.iter().any(|&s| ragged(s))
            {
                return None;
            }
        }
        Some((source, view))
    }

    /// How often each value is used, roots included.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.vals.len()];
        for val in &self.vals {
            val.inputs.iter().for_each(|&input| uses[input] += 1);
        }
        self.roots.iter().for_each(|&root| uses[root] += 1);
        uses
    }

    /// Appends a value.
    pub fn push(&mut self, val: Val) -> Id {
        self.vals.push(val);
        self.vals.len() - 1
    }

    /// The value itself if it is computed with `numel` elements, else a stored copy of it.
    pub fn computed(&mut self, id: Id, numel: usize) -> Id {
        let val = &self.vals[id];
        if !matches!(val.kind, Kind::Leaf(_) | Kind::Scalar(_) | Kind::View(_) | Kind::Window(..)) && val.numel == numel
        {
            return id;
        }
        self.copy_of(id, numel)
    }

    /// The outputs of the loop, or of the op's own kernel, that a value is an output of: they stand one behind the other.
    pub fn together(&self, id: Id) -> Option<std::ops::Range<Id>> {
        let output = match self.vals[id].kind {
            Kind::Scan(_, output) | Kind::Kernel(_, output) => output,
            _ => return None,
        };
        let first = id.checked_sub(output)?;
        let same = |(at, val): &(usize, &Val)| match (&self.vals[id].kind, &val.kind) {
            (Kind::Scan(a, _), Kind::Scan(b, own)) => a == b && own == at,
            (Kind::Kernel(a, _), Kind::Kernel(b, own)) => a == b && own == at,
            _ => false,
        };
        let count = self.vals[first..].iter().enumerate().take_while(same).count();
        Some(first..first + count)
    }

    /// Values that loops are given to carry, and overwrite.
    pub fn carried(&self) -> impl Iterator<Item = Id> {
        self.vals.iter().flat_map(|val| match &val.kind {
            Kind::Scan(scan, _) => val.inputs[..scan.carries].to_vec(),
            _ => Vec::new(),
        })
    }

    /// Whether a value lies whole in a buffer, where a loop can find it.
    pub fn is_whole(&self, id: Id, numel: usize) -> bool {
        let val = &self.vals[id];
        let held = !matches!(val.kind, Kind::Scalar(_) | Kind::View(_) | Kind::Window(..));
        held && val.numel == numel && !self.moving.contains(&id)
    }

    /// A stored copy of a value in `numel` elements, as many as it has; of a constant, as many as are asked for.
    pub fn copy_of(&mut self, source: Id, numel: usize) -> Id {
        let Val { dtype, place, .. } = self.vals[source].clone();
        let (inputs, name) = (vec![source], "copy".into());
        let map = Map { text: "$0", helpers: "", heavy: false };
        self.push(Val { kind: Kind::Map(map), inputs, after: None, dtype, numel, name, place })
    }
}

impl Reduction {
    /// The result of combining nothing, as WGSL of one scalar of `dtype`.
    pub fn identity(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (Reduction::Sum, DType::F32) => "0.0",
            (Reduction::Prod, DType::F32) => "1.0",
            (Reduction::Max, DType::F32) => "-0x1.fffffep+127f",
            (Reduction::Min, DType::F32) => "0x1.fffffep+127f",
            (Reduction::Sum, DType::I32) => "0i",
            (Reduction::Prod, DType::I32) => "1i",
            (Reduction::Max, DType::I32) => "i32(-2147483648)",
            (Reduction::Min, DType::I32) => "2147483647i",
            (Reduction::Sum | Reduction::Max, DType::U32 | DType::Bool) => "0u",
            (Reduction::Prod, DType::U32 | DType::Bool) => "1u",
            (Reduction::Min, DType::U32 | DType::Bool) => "4294967295u",
        }
    }
}
