//! [`Add`] and [`Concatenate`]: several inputs, one output.

use std::ops::RangeInclusive;

use super::{Context, Layer, Variable};
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor, here};
use crate::ops;

/// The sum of its inputs. They broadcast behind the batch axis: an input of lower rank gets axes of length 1 there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Add;

impl Layer for Add {
    fn kind(&self) -> &str {
        "add"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let rank = inputs.iter().map(Tensor::rank).max().unwrap_or(0);
        let aligned = |x: &Tensor| {
            let shape = x.shape();
            match shape.dims() {
                [batch, rest @ ..] if shape.rank() < rank => {
                    x.reshape([&[*batch], vec![1; rank - shape.rank()].as_slice(), rest].concat())
                }
                _ => x.clone(),
            }
        };
        inputs.iter().skip(1).fold(aligned(&inputs[0]), |sum, x| sum + aligned(x))
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
            return Err(Error::Shape {
                op: "concatenate".into(),
                inputs: inputs.iter().map(|input| input.shape.clone()).collect(),
                why: format!("axis {} is not one behind the batch", self.axis),
                place: here(),
            });
        }
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        ops::concat(&inputs.iter().collect::<Vec<_>>(), self.axis)
    }
}
