//! Reductions over axes: sum, mean, extrema, products, and what is made of them.
//!
//! A fold runs over one block of adjacent axes; axes that are not adjacent are brought together by a permutation,
//! which is a view and costs nothing. Deliberately absent: an accumulation order that depends on the device's timing;
//! the same plan gives the same bits every time.

use std::borrow::Cow;
use std::ops::RangeFull;

use super::Example;
use crate::dtype::DType;
use crate::error::Result;
use crate::grad::custom_vjp;
use crate::graph::{Derivative, Fold, Lowering, Misfit, Primitive, Reduction, Spec, Tensor};
use crate::shape::Shape;
use crate::sort::sort;

/// Which axes to reduce: `..` for all, one `i32`, an array of them (negative ones count from the end), or any of these
/// within [`Keep`].
pub trait Axes {
    /// The axes in ascending order, each once; `None` if one does not exist.
    fn resolve(&self, shape: &Shape) -> Option<Vec<usize>>;

    /// Whether reduced axes stay with length 1.
    fn keep(&self) -> bool {
        false
    }
}

/// Reduced axes stay, with length 1, so that the result broadcasts against what was reduced.
#[derive(Clone, Copy, Debug)]
pub struct Keep<A>(pub A);

impl<A: Axes> Axes for Keep<A> {
    fn resolve(&self, shape: &Shape) -> Option<Vec<usize>> {
        self.0.resolve(shape)
    }
    fn keep(&self) -> bool {
        true
    }
}

impl Axes for RangeFull {
    fn resolve(&self, shape: &Shape) -> Option<Vec<usize>> {
        Some((0..shape.rank()).collect())
    }
}

impl Axes for i32 {
    fn resolve(&self, shape: &Shape) -> Option<Vec<usize>> {
        [*self].as_slice().resolve(shape)
    }
}

impl<const N: usize> Axes for [i32; N] {
    fn resolve(&self, shape: &Shape) -> Option<Vec<usize>> {
        self.as_slice().resolve(shape)
    }
}

impl Axes for &[i32] {
    fn resolve(&self, shape: &Shape) -> Option<Vec<usize>> {
        let mut axes: Vec<usize> = self.iter().map(|&axis| shape.axis(axis as isize)).collect::<Option<_>>()?;
        sort(&mut axes);
        axes.dedup();
        Some(axes)
    }
}

/// Reductions. An extremum of nothing is the largest finite value of the other sign; the sum of nothing is 0.
impl Tensor {
    /// Sum over axes. Integers wrap.
    #[track_caller]
    pub fn sum(&self, axes: impl Axes) -> Tensor {
        self.reduce("sum", Reduction::Sum, &axes)
    }

    /// Product over axes. It has no derivative.
    #[track_caller]
    pub fn prod(&self, axes: impl Axes) -> Tensor {
        self.reduce("prod", Reduction::Prod, &axes)
    }

    /// Largest over axes; NaN if any is NaN. Equal largest elements share the derivative.
    #[track_caller]
    pub fn max(&self, axes: impl Axes) -> Tensor {
        self.reduce("max", Reduction::Max, &axes)
    }

    /// Smallest over axes; NaN if any is NaN. Equal smallest elements share the derivative.
    #[track_caller]
    pub fn min(&self, axes: impl Axes) -> Tensor {
        self.reduce("min", Reduction::Min, &axes)
    }

    /// Arithmetic mean over axes; of nothing it is NaN.
    #[track_caller]
    pub fn mean(&self, axes: impl Axes) -> Tensor {
        let shape = self.shape();
        let count: usize = axes.resolve(&shape).iter().flatten().map(|&axis| shape[axis]).product();
        self.sum(axes) * (1.0 / count as f64)
    }

    /// Population variance over axes: the mean square distance from the mean.
    #[track_caller]
    pub fn var(&self, axes: impl Axes) -> Tensor {
        let shape = self.shape();
        let Some(resolved) = axes.resolve(&shape) else { return self.sum(axes) };
        let (mut kept, mut count) = (shape.to_vec(), 1);
        resolved.iter().for_each(|&axis| count *= std::mem::replace(&mut kept[axis], 1));
        let resolved: Vec<i32> = resolved.iter().map(|&axis| axis as i32).collect();
        let distances = move |x: &Tensor| x - x.mean(Keep(&resolved[..]));
        let variance = distances(self).square().mean(axes);
        // The derivative by the mean is zero, so it is not summed up.
        custom_vjp(&variance, &[self], move |inputs, g| {
            vec![distances(&inputs[0]) * (g.reshape(kept.clone()) * (2.0 / count as f64))]
        })
    }

    /// log of the sum of exponentials over axes, without overflow.
    #[track_caller]
    pub fn logsumexp(&self, axes: impl Axes) -> Tensor {
        let Some(resolved) = axes.resolve(&self.shape()) else { return self.sum(axes) };
        let resolved: Vec<i32> = resolved.iter().map(|&axis| axis as i32).collect();
        let max = self.max(Keep(&resolved[..])).stop_gradient();
        let sum = (self - &max).exp().sum(axes);
        let shape = sum.shape();
        sum.log() + max.reshape(shape)
    }

    /// Position of the first largest element along an axis, i32; of the first NaN if there is one.
    #[track_caller]
    pub fn argmax(&self, axis: i32) -> Tensor {
        let Some(at) = self.shape().axis(axis as isize) else {
            return self.misfit("argmax", format!("there is no axis {axis}"));
        };
        if self.dim(at) == 0 {
            return self.misfit("argmax", format!("axis {axis} is empty"));
        }
        let mut hit = self.eq(self.max(Keep(axis)));
        if self.dtype() == DType::F32 {
            hit = hit.or(self.is_nan());
        }
        let position = Tensor::iota(self.shape(), at).cast(DType::I32);
        hit.select(position, (self.dim(at) - 1) as f64).min(axis)
    }

    #[track_caller]
    fn reduce(&self, name: &'static str, reduction: Reduction, axes: &dyn Axes) -> Tensor {
        let shape = self.shape();
        let Some(axes_) = axes.resolve(&shape) else {
            return self.misfit(name, format!("one of the axes does not exist in {shape}"));
        };
        let (first, count) = (axes_.first().copied().unwrap_or(0), axes_.len());
        let kept: Vec<usize> = (0..shape.rank()).filter(|axis| !axes_.contains(axis)).collect();
        let adjacent = axes_.last().is_none_or(|&last| last + 1 == first + count);
        let reduced = if count == 0 {
            self.clone()
        } else if adjacent {
            Tensor::apply(Reduce { name, reduction, first, count }, &[self])
        } else {
            let order = [&kept[..], &axes_[..]].concat();
            Tensor::apply(Reduce { name, reduction, first: kept.len(), count }, &[&self.permute(order)])
        };
        if !axes.keep() {
            return reduced;
        }
        let with_ones: Vec<usize> =
            (0..shape.rank()).map(|axis| if axes_.contains(&axis) { 1 } else { shape[axis] }).collect();
        reduced.reshape(with_ones)
    }
}

/// A fold over `count` adjacent axes from `first` on.
#[derive(Debug)]
struct Reduce {
    name: &'static str,
    reduction: Reduction,
    first: usize,
    count: usize,
}

impl Reduce {
    fn fold(&self, shape: &Shape) -> Fold {
        let (reduction, end) = (self.reduction, self.first + self.count);
        Fold {
            reduction,
            outer: shape[..self.first].iter().product(),
            length: shape[self.first..end].iter().product(),
            inner: shape[end..].iter().product(),
        }
    }
}

impl Primitive for Reduce {
    fn name(&self) -> &str {
        self.name
    }

    fn attributes(&self) -> Cow<'_, str> {
        format!("{}..{}", self.first, self.first + self.count).into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let Spec { shape, dtype } = &inputs[0];
        if *dtype == DType::Bool {
            return Err(Misfit::DType("it takes numbers; cast first".into()));
        }
        let rest = [&shape[..self.first], &shape[self.first + self.count..]].concat();
        Ok(vec![Spec::new(rest, *dtype)])
    }

    fn vjp(&self, inputs: &[Tensor], outputs: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let Some(g) = &cotangents[0] else { return Derivative::Zero };
        let shape = inputs[0].shape();
        let mut ones = shape.to_vec();
        ones[self.first..self.first + self.count].fill(1);
        let spread = |x: &Tensor| x.reshape(ones.clone()).broadcast_to(&shape);
        match self.reduction {
            Reduction::Sum => Derivative::Vjp(vec![Some(spread(g))]),
            Reduction::Prod => Derivative::NotDifferentiable,
            Reduction::Max | Reduction::Min => {
                let axes: Vec<i32> = (self.first..self.first + self.count).map(|axis| axis as i32).collect();
                let hit = inputs[0].eq(spread(&outputs[0])).cast(DType::F32);
                let share = g / hit.sum(&axes[..]);
                Derivative::Vjp(vec![Some(hit * spread(&share))])
            }
        }
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::Fold(self.fold(&inputs[0].shape))]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let fold = self.fold(&inputs[0].shape);
        let (low, high) = match outputs[0].dtype {
            DType::F32 => (f64::from(f32::MIN), f64::from(f32::MAX)),
            DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            DType::U32 | DType::Bool => (0.0, f64::from(u32::MAX)),
        };
        let nan = |a: f64, b: f64| a.is_nan() || b.is_nan();
        let result = |at: usize| {
            let base = at / fold.inner * fold.length * fold.inner + at % fold.inner;
            let x = (0..fold.length).map(|k| inputs[0].data[base + k * fold.inner]);
            let value = match self.reduction {
                Reduction::Sum => x.sum(),
                Reduction::Prod => x.product(),
                Reduction::Max => x.fold(low, |a, b| if nan(a, b) { f64::NAN } else { a.max(b) }),
                Reduction::Min => x.fold(high, |a, b| if nan(a, b) { f64::NAN } else { a.min(b) }),
            };
            match outputs[0].dtype {
                DType::I32 => f64::from(value as i64 as i32),
                DType::U32 => f64::from(value as i64 as u32),
                DType::F32 | DType::Bool => value,
            }
        };
        let data = (0..outputs[0].shape.numel()).map(result).collect();
        vec![crate::graph::interpret::Array::new(outputs[0].shape.clone(), data)]
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-3.0, 3.0);
    let f = DType::F32;
    vec![
        Example::new("sum all", &[(&[5, 7], f, D)], |x| x[0].sum(..)),
        Example::new("sum of many", &[(&[3, 9000], f, D)], |x| x[0].sum(-1)),
        Example::new("sum rows", &[(&[9, 33], f, D)], |x| x[0].sum(-1)),
        Example::new("sum columns", &[(&[9, 33], f, D)], |x| x[0].sum(0)),
        Example::new("sum middle", &[(&[3, 5, 8], f, D)], |x| x[0].sum(1)),
        Example::new("sum apart", &[(&[3, 5, 4], f, D)], |x| x[0].sum([0, 2])),
        Example::new("sum kept", &[(&[3, 5], f, D)], |x| x[0].sum(Keep(-1))),
        Example::new("sum of nothing", &[(&[3, 0], f, D)], |x| x[0].sum(-1)),
        Example::new("sum i32", &[(&[3, 5], DType::I32, (-9.0, 9.0))], |x| x[0].sum(-1)),
        Example::new("sum u32", &[(&[3, 5], DType::U32, (0.0, 9.0))], |x| x[0].sum(0)),
        Example::new("prod", &[(&[3, 5], f, (0.5, 1.5))], |x| x[0].prod(-1)),
        Example::new("mean", &[(&[3, 5], f, D)], |x| x[0].mean(0)),
        Example::new("var", &[(&[3, 50], f, D)], |x| x[0].var(-1)),
        Example::new("max", &[(&[4, 35], f, D)], |x| x[0].max(-1)),
        Example::new("max columns", &[(&[4, 35], f, D)], |x| x[0].max(0)),
        Example::new("max i32", &[(&[4, 9], DType::I32, (-9.0, 9.0))], |x| x[0].max(-1)),
        Example::new("max of nothing", &[(&[2, 0], f, D)], |x| x[0].max(-1)),
        Example::new("min", &[(&[4, 35], f, D)], |x| x[0].min(-1)),
        Example::new("min u32", &[(&[4, 9], DType::U32, (0.0, 9.0))], |x| x[0].min(0)),
        Example::new("logsumexp", &[(&[4, 9], f, (-30.0, 30.0))], |x| x[0].logsumexp(-1)),
        Example::new("argmax", &[(&[4, 35], f, D)], |x| x[0].argmax(-1)),
        Example::new("argmax i32", &[(&[9, 6], DType::I32, (-2.0, 2.0))], |x| x[0].argmax(0)),
    ]
}
