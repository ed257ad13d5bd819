//! What an operand may be, NumPy broadcasting of two of them, and the operators of the language.
//!
//! A host scalar is weak: it takes the dtype of the tensor it meets, and is an error where that cannot hold it.
//! Deliberately absent: promotion between tensors, and operators on integers of the host (`x + 1.0` serves all dtypes).

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::Arc;

use super::elementwise::{Elementwise, Row};
use crate::dtype::DType;
use crate::error::Error;
use crate::graph::{Spec, Tensor, here};
use crate::host::Float;
use crate::shape::Shape;

/// A tensor, or a host scalar that becomes one of the dtype it meets.
pub trait Operand {
    /// The operand beside a tensor of `dtype`.
    #[track_caller]
    fn beside(self, dtype: DType) -> Tensor;

    /// The dtype, if it has one of its own.
    fn dtype(&self) -> Option<DType>;
}

impl Operand for &Tensor {
    fn beside(self, _: DType) -> Tensor {
        self.clone()
    }
    fn dtype(&self) -> Option<DType> {
        Some(Tensor::dtype(self))
    }
}

impl Operand for Tensor {
    fn beside(self, _: DType) -> Tensor {
        self
    }
    fn dtype(&self) -> Option<DType> {
        Some(Tensor::dtype(self))
    }
}

impl Operand for f64 {
    #[track_caller]
    fn beside(self, dtype: DType) -> Tensor {
        scalar(self, dtype)
    }
    fn dtype(&self) -> Option<DType> {
        None
    }
}

/// A rank-0 tensor of `dtype`, poisoned if the dtype cannot hold the value.
#[track_caller]
pub(crate) fn scalar(value: f64, dtype: DType) -> Tensor {
    let whole = |low: f64, high: f64| value.fract() == 0.0 && (low..=high).contains(&value);
    let bits = match dtype {
        DType::F32 => {
            Some((value as f32).to_bits()).filter(|_| !value.is_finite() || value.abs() <= f64::from(f32::MAX))
        }
        DType::I32 => whole(f64::from(i32::MIN), f64::from(i32::MAX)).then_some(value as i32 as u32),
        DType::U32 => whole(0.0, f64::from(u32::MAX)).then_some(value as u32),
        DType::Bool => whole(0.0, 1.0).then_some(value as u32),
    };
    match bits {
        Some(bits) => Tensor::from_bits(Arc::new([bits]), Spec::new([], dtype), here()),
        None => Tensor::poisoned(Error::argument(format!("{} is not a value of {dtype} ({})", Float(value), here()))),
    }
}

/// Records a row for operands broadcast to one shape. Shapes that do not broadcast are left for the row to refuse.
#[track_caller]
pub(super) fn broadcast_apply(row: &'static Row, operands: &[&Tensor]) -> Tensor {
    let shape = (operands.iter()).try_fold(Shape::scalar(), |shape, operand| shape.broadcast(&operand.shape()));
    match shape {
        Some(shape) => {
            // Not by a closure, which would not pass on its caller's line.
            let mut spread = Vec::with_capacity(operands.len());
            for operand in operands {
                spread.push(operand.broadcast_to(&shape));
            }
            Tensor::apply(Elementwise(row), &spread.iter().collect::<Vec<_>>())
        }
        None => Tensor::apply(Elementwise(row), operands),
    }
}

macro_rules! operator {
    ($($trait:ident $method:ident;)*) => {$(
        operator!(@ $trait $method, [Tensor, &Tensor], [Tensor, &Tensor, f64]);
        impl $trait<Tensor> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                Tensor::$method(&scalar(self, other.dtype()), other)
            }
        }
        impl $trait<&Tensor> for f64 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                Tensor::$method(&scalar(self, other.dtype()), other)
            }
        }
    )*};
    (@ $trait:ident $method:ident, [$($left:ty),*], $rights:tt) => {$(
        operator!(@@ $trait $method, $left, $rights);
    )*};
    (@@ $trait:ident $method:ident, $left:ty, [$($right:ty),*]) => {$(
        impl $trait<$right> for $left {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: $right) -> Tensor {
                Tensor::$method(&self, other)
            }
        }
    )*};
}
operator! {
    Add add;
    Sub sub;
    Mul mul;
    Div div;
}

impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}
