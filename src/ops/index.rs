//! Picking by index: take and one_hot.
//!
//! The derivative of a gather adds rows that were picked more than once. It is a product with the one-hot matrix of
//! the indices: ordered, so that the same step gives the same bits, and differentiable again.

use std::borrow::Cow;

use super::Example;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Derivative, Lowering, Misfit, Primitive, Spec, Tensor};

impl Tensor {
    /// Rows picked along `axis` by integers of any shape, which takes the axis' place. An index beyond the axis is
    /// clamped to it.
    #[track_caller]
    pub fn take(&self, indices: &Tensor, axis: i32) -> Tensor {
        match self.shape().axis(axis as isize) {
            Some(axis) if self.dim(axis) > 0 => Tensor::apply(Take { axis }, &[self, indices]),
            Some(_) => self.misfit("take", format!("axis {axis} is empty")),
            None => self.misfit("take", format!("there is no axis {axis}")),
        }
    }

    /// 1 at the position each integer names along a new last axis of length `classes`, 0 elsewhere, f32. Integers
    /// outside name nothing.
    #[track_caller]
    pub fn one_hot(&self, classes: usize) -> Tensor {
        let shape = self.shape();
        let position = Tensor::iota([shape.dims(), &[classes]].concat(), shape.rank());
        self.unsqueeze(-1).eq(position.cast(self.dtype())).cast(DType::F32)
    }
}

/// `out[o, i, n] = x[o, index[i], n]`, with `o` the axes before and `n` those behind `axis`.
#[derive(Debug)]
struct Take {
    axis: usize,
}

impl Primitive for Take {
    fn name(&self) -> &str {
        "take"
    }

    fn attributes(&self) -> Cow<'_, str> {
        self.axis.to_string().into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let [x, index] = inputs else { return Err(Misfit::Shape("two operands were expected".into())) };
        if !matches!(index.dtype, DType::I32 | DType::U32) {
            return Err(Misfit::DType("indices are i32 or u32".into()));
        }
        let shape = [&x.shape[..self.axis], index.shape.dims(), &x.shape[self.axis + 1..]].concat();
        Ok(vec![Spec::new(shape, x.dtype)])
    }

    fn vjp(&self, inputs: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let Some(g) = &cotangents[0] else { return Derivative::Zero };
        let (shape, index) = (inputs[0].shape(), &inputs[1]);
        let outer: usize = shape[..self.axis].iter().product();
        let inner: usize = shape[self.axis + 1..].iter().product();
        let count = index.shape().numel();
        let last = (shape[self.axis] - 1) as f64;
        // The clamp of the forward direction, so that what an outside index read gets its derivative.
        let picked = index.reshape([count]).clip(0.0, last).one_hot(shape[self.axis]).t();
        let sums = picked.unsqueeze(0).matmul(&g.reshape([outer, count, inner]));
        Derivative::Vjp(vec![Some(sums.reshape(shape)), None])
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        let shape = &inputs[0].shape;
        vec![Lowering::Gather {
            length: shape[self.axis],
            count: inputs[1].shape.numel(),
            inner: shape[self.axis + 1..].iter().product(),
        }]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let (x, index) = (&inputs[0], &inputs[1]);
        let inner: usize = x.shape[self.axis + 1..].iter().product();
        let (length, count) = (x.shape[self.axis], index.data.len());
        let value = |at: usize| {
            let (row, n) = (at / inner, at % inner);
            let (o, i) = (row / count, row % count);
            let pick = index.data[i].clamp(0.0, (length - 1) as f64) as usize;
            x.data[(o * length + pick) * inner + n]
        };
        let data = (0..outputs[0].shape.numel()).map(value).collect();
        vec![crate::graph::interpret::Array::new(outputs[0].shape.clone(), data)]
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-3.0, 3.0);
    let (f, i) = (DType::F32, DType::I32);
    vec![
        Example::new("take rows", &[(&[7, 5], f, D), (&[9], i, (0.0, 6.0))], |x| x[0].take(&x[1], 0)),
        Example::new("take rows of four", &[(&[7, 8], f, D), (&[9], i, (0.0, 6.0))], |x| x[0].take(&x[1], 0)),
        Example::new("take columns", &[(&[4, 7], f, D), (&[2, 3], i, (-2.0, 9.0))], |x| x[0].take(&x[1], -1)),
        Example::new("take u32", &[(&[3, 7, 2], f, D), (&[4], DType::U32, (0.0, 6.0))], |x| x[0].take(&x[1], 1)),
        Example::new("one_hot", &[(&[6], i, (-1.0, 5.0))], |x| x[0].one_hot(5)),
    ]
}
