//! [`Flatten`], [`Reshape`], [`Permute`] and [`RepeatVector`]: other shapes of the same elements, per batch entry.
//!
//! All are views.

use super::check::{invalid, misfit, rank};
use super::{Context, Layer, Variable};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor, here};
use crate::sort::sort;

/// `[batch, ..]` to `[batch, product of the others]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flatten;

impl Layer for Flatten {
    fn kind(&self) -> &str {
        "flatten"
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let shape = inputs[0].shape();
        let features: usize = shape.iter().skip(1).product();
        inputs[0].reshape([inputs[0].dim(0), features])
    }
}

/// `[batch, ..]` to `[batch, target]`; one axis of the target may be -1, which takes what is left.
#[derive(Clone, Debug)]
pub struct Reshape {
    /// Axes behind the batch.
    pub target: Vec<i32>,
}

impl Reshape {
    /// Reshapes to `target`, without the batch axis.
    pub fn new(target: impl AsRef<[i32]>) -> Reshape {
        Reshape { target: target.as_ref().to_vec() }
    }
}

impl Layer for Reshape {
    fn kind(&self) -> &str {
        "reshape"
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let shape = inputs[0].shape();
        let elements: usize = shape.iter().skip(1).product();
        let axes = self.target.iter().filter_map(|&axis| usize::try_from(axis).ok());
        let fixed = axes.fold(1usize, |fixed, axis| fixed.saturating_mul(axis));
        let open = self.target.iter().filter(|&&axis| axis == -1).count();
        let valid = self.target.iter().all(|&axis| axis >= -1);
        let rest = match (valid, open) {
            (true, 0) if fixed == elements => 1,
            (true, 1) if fixed > 0 && elements.is_multiple_of(fixed) => elements / fixed,
            _ => {
                let why = format!("the {elements} elements of a batch entry do not fill {:?}", self.target);
                return Tensor::poisoned(Error::new(ErrorKind::Shape {
                    op: "reshape".into(),
                    inputs: vec![shape],
                    why,
                    place: here(),
                }));
            }
        };
        let axes = self.target.iter().map(|&axis| usize::try_from(axis).unwrap_or(rest));
        inputs[0].reshape(std::iter::once(inputs[0].dim(0)).chain(axes).collect::<Vec<_>>())
    }
}

/// Axes in another order: axis `i` behind the batch becomes axis `dims[i - 1]` of the input, both counted from 1.
#[derive(Clone, Debug)]
pub struct Permute {
    /// Each of 1 to the number of axes behind the batch once.
    pub dims: Vec<usize>,
}

impl Permute {
    /// `Permute::new([2, 1])` swaps the two axes behind the batch.
    pub fn new(dims: impl AsRef<[usize]>) -> Permute {
        Permute { dims: dims.as_ref().to_vec() }
    }
}

impl Layer for Permute {
    fn kind(&self) -> &str {
        "permute"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let mut sorted = self.dims.clone();
        sort(&mut sorted);
        if !sorted.iter().copied().eq(1..=self.dims.len()) {
            let what = format!("{:?} does not name each of 1 to {} once", self.dims, self.dims.len());
            return Err(invalid(self.kind(), what));
        }
        if inputs[0].shape.rank() != self.dims.len() + 1 {
            let why = format!("{:?} orders {} axes behind the batch", self.dims, self.dims.len());
            return Err(misfit(self.kind(), inputs, why));
        }
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        inputs[0].permute(std::iter::once(0).chain(self.dims.iter().copied()).collect::<Vec<_>>())
    }
}

/// A vector `n` times: `[batch, features]` to `[batch, n, features]`.
#[derive(Clone, Copy, Debug)]
pub struct RepeatVector {
    /// How often, at least once.
    pub n: usize,
}

impl RepeatVector {
    /// `n` times.
    pub fn new(n: usize) -> RepeatVector {
        RepeatVector { n }
    }
}

impl Layer for RepeatVector {
    fn kind(&self) -> &str {
        "repeat_vector"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        if self.n == 0 {
            return Err(invalid(self.kind(), "a vector is repeated at least once"));
        }
        rank(self.kind(), inputs, 2, "vectors, [batch, features]").map(|()| Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        inputs[0].unsqueeze(1).broadcast_to([inputs[0].dim(0), self.n, inputs[0].dim(1)])
    }
}
