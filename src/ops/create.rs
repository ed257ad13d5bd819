//! Tensors made from nothing: constants and coordinates.
//!
//! A constant of many elements is one scalar, spread; it costs no memory until something needs it stored.

use std::borrow::Cow;

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Lowering, Misfit, Primitive, Spec, Tensor};
use crate::ops::arithmetic::scalar;
use crate::shape::Shape;

impl Tensor {
    /// `value` in every element, f32.
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: f64) -> Tensor {
        scalar(value, DType::F32).broadcast_to(shape)
    }

    /// Zeros, f32.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> Tensor {
        Tensor::full(shape, 0.0)
    }

    /// Ones, f32.
    #[track_caller]
    pub fn ones(shape: impl Into<Shape>) -> Tensor {
        Tensor::full(shape, 1.0)
    }

    /// The coordinate along `axis` at every element, u32: `iota([2, 3], 1)` is `[[0, 1, 2], [0, 1, 2]]`.
    #[track_caller]
    pub fn iota(shape: impl Into<Shape>, axis: usize) -> Tensor {
        Tensor::apply(Iota { shape: shape.into(), axis }, &[])
    }
}

/// The coordinate along an axis.
#[derive(Debug)]
struct Iota {
    shape: Shape,
    axis: usize,
}

impl Iota {
    fn inner(&self) -> usize {
        self.shape[self.axis + 1..].iter().product()
    }
}

impl Primitive for Iota {
    fn name(&self) -> &str {
        "iota"
    }

    fn attributes(&self) -> Cow<'_, str> {
        format!("{} axis {}", self.shape, self.axis).into()
    }

    fn infer(&self, _: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        if self.axis >= self.shape.rank() {
            return Err(Misfit::Shape(format!("{} has no axis {}", self.shape, self.axis)));
        }
        Ok(vec![Spec::new(self.shape.clone(), DType::U32)])
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::Iota { inner: self.inner().max(1), length: self.shape[self.axis].max(1) }]
    }

    #[cfg(feature = "reference")]
    fn reference(&self, _: &[crate::graph::interpret::Array], _: &[Spec]) -> Vec<crate::graph::interpret::Array> {
        let (inner, length) = (self.inner().max(1), self.shape[self.axis].max(1));
        let data = (0..self.shape.numel()).map(|i| (i / inner % length) as f64).collect();
        vec![crate::graph::interpret::Array::new(self.shape.clone(), data)]
    }
}
