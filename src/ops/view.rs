//! Views: the same elements under another index.
//!
//! reshape, permute, broadcast_to, slice, pad and what is made of them. A view is never a kernel and never a copy: it
//! folds into the loads of whatever reads it. Their derivatives are views again, except that a broadcast sums.

use std::borrow::Cow;
use std::ops::{Bound, RangeBounds};

use super::{Example, Keep};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Derivative, Lowering, Misfit, Primitive, Spec, Tensor, ViewOp, here};
use crate::shape::Shape;
use crate::sort::sort;

impl Tensor {
    #[track_caller]
    fn view(&self, op: ViewOp) -> Tensor {
        Tensor::apply(Viewed(op), &[self])
    }

    /// Poisons an op whose arguments do not fit this tensor.
    #[track_caller]
    pub(crate) fn misfit(&self, op: &str, why: String) -> Tensor {
        match self.error() {
            Some(_) => self.clone(),
            None => Tensor::poisoned(Error::new(ErrorKind::Shape {
                op: op.into(),
                inputs: vec![self.shape()],
                why,
                place: here(),
            })),
        }
    }

    /// The same elements in row-major order under another shape of as many elements.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if self.spec().is_some_and(|spec| spec.shape == shape) {
            self.clone()
        } else {
            self.view(ViewOp::Reshape(shape))
        }
    }

    /// All axes but the first `keep` joined into one: `[2, 3, 4]` with `keep` 1 is `[2, 12]`.
    #[track_caller]
    pub fn flatten(&self, keep: usize) -> Tensor {
        let shape = self.shape();
        let keep = keep.min(shape.rank());
        let rest = shape[keep..].iter().product();
        self.reshape([&shape[..keep], &[rest]].concat())
    }

    /// Axis `i` of the result is axis `axes[i]`.
    #[track_caller]
    pub fn permute(&self, axes: impl AsRef<[usize]>) -> Tensor {
        self.view(ViewOp::Permute(axes.as_ref().to_vec()))
    }

    /// The last two axes swapped.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        let rank = self.rank();
        if rank < 2 {
            return self.misfit("t", "two axes are needed".into());
        }
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        self.view(ViewOp::Permute(axes))
    }

    /// NumPy broadcasting to a larger shape.
    #[track_caller]
    pub fn broadcast_to(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if self.spec().is_some_and(|spec| spec.shape == shape) {
            self.clone()
        } else {
            self.view(ViewOp::Broadcast(shape))
        }
    }

    /// The elements of a range along one axis (negative axes count from the end).
    #[track_caller]
    pub fn slice(&self, axis: i32, range: impl RangeBounds<usize>) -> Tensor {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => Some(end.saturating_add(1)),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => None,
        };
        self.range(axis, start, end)
    }

    #[track_caller]
    fn range(&self, axis: i32, start: usize, end: Option<usize>) -> Tensor {
        let Some(axis) = self.shape().axis(axis as isize) else {
            return self.misfit("slice", format!("there is no axis {axis}"));
        };
        let end = end.unwrap_or_else(|| self.dim(axis));
        if start > end || end > self.dim(axis) {
            return self.misfit("slice", format!("{start}..{end} is not within axis {axis}"));
        }
        let whole = self.shape().iter().map(|&length| (0, length, 1)).collect::<Vec<_>>();
        let mut slices = whole;
        if let Some(slice) = slices.get_mut(axis) {
            *slice = (start, end - start, 1);
        }
        self.view(ViewOp::Slice(slices))
    }

    /// Zeros added before and after, one pair for each axis.
    #[track_caller]
    pub fn pad(&self, widths: &[(usize, usize)]) -> Tensor {
        self.view(ViewOp::Pad(widths.to_vec()))
    }

    /// One axis back to front.
    #[track_caller]
    pub fn flip(&self, axis: i32) -> Tensor {
        let Some(axis) = self.shape().axis(axis as isize) else {
            return self.misfit("flip", format!("there is no axis {axis}"));
        };
        let slice = |(at, &length): (usize, &usize)| match at == axis && length > 0 {
            true => (length - 1, length, -1),
            false => (0, length, 1),
        };
        self.view(ViewOp::Slice(self.shape().iter().enumerate().map(slice).collect()))
    }

    /// Without an axis of length 1.
    #[track_caller]
    pub fn squeeze(&self, axis: i32) -> Tensor {
        match self.shape().axis(axis as isize) {
            Some(axis) if self.dim(axis) == 1 => {
                let mut shape = self.shape().to_vec();
                shape.remove(axis);
                self.reshape(shape)
            }
            Some(_) => self.misfit("squeeze", format!("axis {axis} is not of length 1")),
            None => self.misfit("squeeze", format!("there is no axis {axis}")),
        }
    }

    /// With a new axis of length 1 before `axis`; -1 puts it last.
    #[track_caller]
    pub fn unsqueeze(&self, axis: i32) -> Tensor {
        let rank = self.rank() as i32 + 1;
        let at = if axis < 0 { axis + rank } else { axis };
        if !(0..rank).contains(&at) {
            return self.misfit("unsqueeze", format!("there is no axis {axis}"));
        }
        let mut shape = self.shape().to_vec();
        shape.insert(at as usize, 1);
        self.reshape(shape)
    }
}

/// The op of every view.
#[derive(Debug)]
pub(crate) struct Viewed(pub(crate) ViewOp);

impl Primitive for Viewed {
    fn name(&self) -> &str {
        match self.0 {
            ViewOp::Reshape(_) => "reshape",
            ViewOp::Permute(_) => "permute",
            ViewOp::Broadcast(_) => "broadcast",
            ViewOp::Slice(_) => "slice",
            ViewOp::Pad(_) => "pad",
        }
    }

    fn attributes(&self) -> Cow<'_, str> {
        match &self.0 {
            // The shape of the result says it all.
            ViewOp::Reshape(_) | ViewOp::Broadcast(_) => "".into(),
            ViewOp::Permute(axes) => format!("{axes:?}").into(),
            ViewOp::Slice(slices) => format!("{slices:?}").into(),
            ViewOp::Pad(widths) => format!("{widths:?}").into(),
        }
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let source = &inputs[0].shape;
        let fail = |why: String| Err(Misfit::Shape(why));
        match &self.0 {
            ViewOp::Reshape(shape) if shape.numel() != source.numel() => {
                return fail(format!("{shape} has {} elements, not {}", shape.numel(), source.numel()));
            }
            ViewOp::Broadcast(shape) if source.broadcast(shape).as_ref() != Some(shape) => {
                return fail(format!("it does not broadcast to {shape}"));
            }
            ViewOp::Permute(axes) => {
                let mut sorted = axes.clone();
                sort(&mut sorted);
                if sorted != (0..source.rank()).collect::<Vec<_>>() {
                    return fail(format!("{axes:?} does not name each axis once"));
                }
            }
            ViewOp::Slice(slices) if slices.len() != source.rank() => {
                return fail("one range an axis is needed".into());
            }
            ViewOp::Slice(slices) => {
                let within = |(&(first, length, step), &whole): (&(usize, usize, isize), &usize)| {
                    let last = length.checked_sub(1).map(|n| first as i128 + n as i128 * step as i128);
                    step != 0
                        && first <= whole
                        && last.is_none_or(|last| first < whole && (0..whole as i128).contains(&last))
                };
                if !slices.iter().zip(source.iter()).all(within) {
                    return fail(format!("{slices:?} (first, length, step) is not within it"));
                }
            }
            ViewOp::Pad(widths) if widths.len() != source.rank() => {
                return fail(format!("{} pairs of widths were given", widths.len()));
            }
            ViewOp::Pad(widths) => {
                let sum = |(&d, w): (&usize, &(usize, usize))| d.checked_add(w.0)?.checked_add(w.1);
                if source.iter().zip(widths).map(sum).any(|length| length.is_none()) {
                    return fail(format!("{widths:?} is more than can be counted"));
                }
            }
            _ => {}
        }
        Ok(vec![Spec::new(self.0.shape(source), inputs[0].dtype)])
    }

    fn vjp(&self, inputs: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let Some(g) = &cotangents[0] else { return Derivative::Zero };
        let source = inputs[0].shape();
        Derivative::Vjp(vec![Some(match &self.0 {
            ViewOp::Reshape(_) => g.reshape(source),
            ViewOp::Permute(axes) => {
                let mut inverse = vec![0; axes.len()];
                axes.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
                g.permute(inverse)
            }
            ViewOp::Broadcast(shape) => unbroadcast(g, &source, shape),
            ViewOp::Slice(slices) => unslice(g, &source, slices),
            ViewOp::Pad(widths) => {
                let slices = source.iter().zip(widths).map(|(&length, w)| (w.0, length, 1)).collect();
                g.view(ViewOp::Slice(slices))
            }
        })])
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::View(self.0.clone())]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let shape = outputs[0].shape.clone();
        let view = crate::graph::View::whole(&inputs[0].shape).then(&self.0);
        let at = |i: usize| view.as_ref().and_then(|view| view.source(i)).map_or(0.0, |source| inputs[0].data[source]);
        vec![crate::graph::interpret::Array { data: (0..shape.numel()).map(at).collect(), shape }]
    }
}

/// Sums over the axes that a broadcast from `source` to `shape` spread.
fn unbroadcast(g: &Tensor, source: &Shape, shape: &Shape) -> Tensor {
    let missing = shape.rank() - source.rank();
    let spread: Vec<i32> = (0..shape.rank())
        .filter(|&axis| axis < missing || source[axis - missing] != shape[axis])
        .map(|axis| axis as i32)
        .collect();
    g.sum(Keep(&spread[..])).reshape(source.clone())
}

/// Puts the elements of a slice back where they came from, among zeros.
fn unslice(g: &Tensor, source: &Shape, slices: &[(usize, usize, isize)]) -> Tensor {
    let mut g = g.clone();
    for (axis, (&(start, length, step), &whole)) in slices.iter().zip(source.iter()).enumerate() {
        if (start, length, step) == (0, whole, 1) {
            continue;
        }
        let shape = g.shape();
        if length == 0 {
            let mut widths = vec![(0, 0); shape.rank()];
            widths[axis] = (0, whole);
            g = g.pad(&widths);
            continue;
        }
        if step < 0 {
            g = g.flip(axis as i32);
        }
        let (gap, first) =
            (step.unsigned_abs(), if step < 0 { start - (length - 1) * step.unsigned_abs() } else { start });
        // Zeros between the elements: as a new innermost axis, padded and joined again.
        if gap > 1 && length > 1 {
            let mut widths = vec![(0, 0); shape.rank() + 1];
            widths[axis + 1] = (0, gap - 1);
            let mut joined = shape.to_vec();
            joined[axis] = length * gap;
            g = g.unsqueeze(axis as i32 + 1).pad(&widths).reshape(joined).slice(axis as i32, ..(length - 1) * gap + 1);
        }
        let mut widths = vec![(0, 0); shape.rank()];
        widths[axis] = (first, whole - first - g.dim(axis));
        g = g.pad(&widths);
    }
    g
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-3.0, 3.0);
    let f = DType::F32;
    vec![
        Example::new("reshape", &[(&[4, 6], f, D)], |x| x[0].reshape([3, 8]) * 2.0),
        Example::new("flatten", &[(&[2, 3, 4], f, D)], |x| x[0].flatten(1) * 2.0),
        Example::new("permute", &[(&[2, 3, 5], f, D)], |x| x[0].permute([2, 0, 1])),
        Example::new("t", &[(&[3, 5], f, D)], |x| x[0].t()),
        Example::new("t i32", &[(&[3, 5], DType::I32, D)], |x| x[0].t()),
        Example::new("t bool", &[(&[3, 5], DType::Bool, (0.0, 1.0))], |x| x[0].t()),
        Example::new("broadcast", &[(&[3, 1], f, D)], |x| x[0].broadcast_to([2, 3, 4])),
        Example::new("broadcast to many", &[(&[], f, D)], |x| x[0].broadcast_to([67])),
        Example::new("slice", &[(&[5, 6], f, D)], |x| x[0].slice(0, 1..4).slice(-1, 2..)),
        Example::new("slice to nothing", &[(&[5, 6], f, D)], |x| x[0].slice(0, 2..2)),
        Example::new("slice by steps", &[(&[5, 7], f, D)], |x| x[0].view(ViewOp::Slice(vec![(1, 2, 2), (6, 3, -3)]))),
        Example::new("pad", &[(&[3, 4], f, D)], |x| x[0].pad(&[(1, 2), (0, 3)])),
        Example::new("flip", &[(&[3, 4], f, D)], |x| x[0].flip(-1)),
        Example::new("squeeze and unsqueeze", &[(&[3, 1, 4], f, D)], |x| x[0].squeeze(1).unsqueeze(0) * 2.0),
    ]
}
