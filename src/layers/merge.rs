//! Several inputs, one output: [`Add`], [`Subtract`], [`Multiply`], [`Average`], [`Maximum`], [`Minimum`],
//! [`Concatenate`] and [`Dot`].

use std::ops::RangeInclusive;

use super::check::misfit;
use super::normalization::unit;
use super::{Context, Layer, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::ops;

/// Inputs of one rank: those of a lower one get axes of length 1 behind the batch.
fn aligned(inputs: &[Tensor]) -> impl Iterator<Item = Tensor> {
    let rank = inputs.iter().map(Tensor::rank).max().unwrap_or(0);
    inputs.iter().map(move |x| {
        let shape = x.shape();
        match shape.dims() {
            [batch, rest @ ..] if shape.rank() < rank => {
                x.reshape([&[*batch], vec![1; rank - shape.rank()].as_slice(), rest].concat())
            }
            _ => x.clone(),
        }
    })
}

macro_rules! merge {
    ($(#[$documentation:meta])* $name:ident $kind:literal $accepts:expr, $f:expr) => {
        $(#[$documentation])*
        ///
        /// Inputs broadcast behind the batch axis: one of lower rank gets axes of length 1 there.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl Layer for $name {
            fn kind(&self) -> &str {
                $kind
            }

            fn accepts(&self) -> RangeInclusive<usize> {
                $accepts
            }

            fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
                let merge: fn(Tensor, Tensor) -> Tensor = $f;
                aligned(inputs).reduce(merge).unwrap_or_else(|| Tensor::zeros([]))
            }
        }
    };
}
merge! {
    /// The sum of its inputs.
    Add "add" 1..=usize::MAX, |a, b| a + b
}
merge! {
    /// The first of two inputs less the second.
    Subtract "subtract" 2..=2, |a, b| a - b
}
merge! {
    /// The product of its inputs, element by element.
    Multiply "multiply" 1..=usize::MAX, |a, b| a * b
}
merge! {
    /// The largest of its inputs, element by element.
    Maximum "maximum" 1..=usize::MAX, |a, b| a.maximum(b)
}
merge! {
    /// The smallest of its inputs, element by element.
    Minimum "minimum" 1..=usize::MAX, |a, b| a.minimum(b)
}

/// The mean of its inputs, element by element. They broadcast as those of [`Add`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Average;

impl Layer for Average {
    fn kind(&self) -> &str {
        "average"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        Add.call(inputs, context) * (1.0 / inputs.len() as f64)
    }
}

/// Its inputs side by side along one axis, the last by default.
#[derive(Clone, Copy, Debug)]
pub struct Concatenate {
    /// The axis; negative from the end. The batch axis is not allowed.
    pub axis: i32,
}

impl Default for Concatenate {
    fn default() -> Concatenate {
        Concatenate { axis: -1 }
    }
}

impl Layer for Concatenate {
    fn kind(&self) -> &str {
        "concatenate"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        if inputs[0].shape.axis(self.axis as isize).is_none_or(|axis| axis == 0) {
            return Err(misfit(self.kind(), inputs, format!("axis {} is not one behind the batch", self.axis)));
        }
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        ops::concat(&inputs.iter().collect::<Vec<_>>(), self.axis)
    }
}

/// The scalar product of two inputs along one axis of each; the result has the other axes of the first, then those of
/// the second, behind the batch. Of two vectors a sample it is `[batch, 1]`.
#[derive(Clone, Debug)]
pub struct Dot {
    /// The axis of each input, not the batch.
    pub axes: [i32; 2],
    /// Whether vectors along these axes are divided by their norm first: then the result is the cosine of the angle.
    pub normalize: bool,
}

impl Dot {
    /// Along these axes.
    pub fn new(axes: [i32; 2]) -> Dot {
        Dot { axes, normalize: false }
    }
}

impl Layer for Dot {
    fn kind(&self) -> &str {
        "dot"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let axis = |i: usize| inputs[i].shape.axis(self.axes[i] as isize).filter(|&axis| axis > 0);
        match (axis(0), axis(1)) {
            (Some(a), Some(b)) if inputs[0].shape[a] == inputs[1].shape[b] => Ok(Vec::new()),
            (Some(a), Some(b)) => {
                let (m, n) = (inputs[0].shape[a], inputs[1].shape[b]);
                Err(misfit(self.kind(), inputs, format!("{m} elements along axis {a} do not meet {n} along axis {b}")))
            }
            _ => Err(misfit(self.kind(), inputs, format!("{:?} are not axes behind the batch", self.axes))),
        }
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        // Keras' smallest norm.
        let side = |i: usize| match self.normalize {
            true => unit(&inputs[i], &[self.axes[i]], 1e-7),
            false => inputs[i].clone(),
        };
        let flat = |x: Tensor, axis: i32| {
            let shape = x.shape();
            let at = shape.axis(axis as isize).unwrap_or(0);
            let others: Vec<usize> = (1..shape.rank()).filter(|&i| i != at).collect();
            let free: Vec<usize> = others.iter().map(|&i| shape[i]).collect();
            let order = [&[0], &others[..], &[at]].concat();
            (x.permute(order).reshape([x.dim(0), free.iter().product(), x.dim(at)]), free)
        };
        let ((a, left), (b, right)) = (flat(side(0), self.axes[0]), flat(side(1), self.axes[1]));
        let free = [left, right].concat();
        let free = if free.is_empty() { vec![1] } else { free };
        a.matmul(&b.t()).reshape([&[a.dim(0)], &free[..]].concat())
    }
}
