//! Layers of one expression: [`Lambda`], [`Rescaling`], [`Identity`].

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Context, Layer, Unary};
use crate::dtype::DType;
use crate::graph::Tensor;
use crate::threads::{MaybeSend, MaybeSync};

/// A function of several tensors.
pub trait Several: Fn(&[Tensor]) -> Tensor + MaybeSend + MaybeSync {}
impl<F: Fn(&[Tensor]) -> Tensor + MaybeSend + MaybeSync> Several for F {}

/// A function as a layer, without variables: `Lambda::new(|x| x * 2.0)`. The first axis of the result is the batch.
#[derive(Clone)]
pub struct Lambda {
    function: Arc<dyn Several>,
    inputs: usize,
}

impl Lambda {
    /// A function of one tensor.
    pub fn new(f: impl Unary + 'static) -> Lambda {
        Lambda { function: Arc::new(move |x: &[Tensor]| f(&x[0])), inputs: 1 }
    }

    /// A function of `inputs` tensors.
    pub fn of(inputs: usize, f: impl Several + 'static) -> Lambda {
        Lambda { function: Arc::new(f), inputs }
    }
}

impl fmt::Debug for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lambda")
    }
}

impl Layer for Lambda {
    fn kind(&self) -> &str {
        "lambda"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        self.inputs..=self.inputs
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        (self.function)(inputs)
    }
}

/// `x scale + offset`, f32 also of whole numbers: `Rescaling::new(1.0 / 255.0)` for pixels.
#[derive(Clone, Debug)]
pub struct Rescaling {
    /// The factor.
    pub scale: f64,
    /// What is added, 0 by default.
    pub offset: f64,
}

impl Rescaling {
    /// `x scale`.
    pub fn new(scale: f64) -> Rescaling {
        Rescaling { scale, offset: 0.0 }
    }

    /// Sets what is added.
    pub fn offset(mut self, offset: f64) -> Rescaling {
        self.offset = offset;
        self
    }
}

impl Layer for Rescaling {
    fn kind(&self) -> &str {
        "rescaling"
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        inputs[0].cast(DType::F32) * self.scale + self.offset
    }
}

/// Its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Layer for Identity {
    fn kind(&self) -> &str {
        "identity"
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        inputs[0].clone()
    }
}
