//! [`Flatten`] and [`Reshape`]: other shapes of the same elements, per batch entry.

use super::{Context, Layer};
use crate::error::Error;
use crate::graph::{Tensor, here};

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
        let fixed: usize = self.target.iter().filter_map(|&axis| usize::try_from(axis).ok()).product();
        let open = self.target.iter().filter(|&&axis| axis == -1).count();
        let valid = self.target.iter().all(|&axis| axis >= -1);
        let rest = match (valid, open) {
            (true, 0) if fixed == elements => 1,
            (true, 1) if fixed > 0 && elements.is_multiple_of(fixed) => elements / fixed,
            _ => {
                let why = format!("the {elements} elements of a batch entry do not fill {:?}", self.target);
                return Tensor::poisoned(Error::Shape {
                    op: "reshape".into(),
                    inputs: vec![shape],
                    why,
                    place: here(),
                });
            }
        };
        let axes = self.target.iter().map(|&axis| usize::try_from(axis).unwrap_or(rest));
        inputs[0].reshape(std::iter::once(inputs[0].dim(0)).chain(axes).collect::<Vec<_>>())
    }
}
