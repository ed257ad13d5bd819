//! [`Clip`]: bounds on gradients, applied before the rule of an optimizer sees them.

use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::host::Float;

/// How gradients are bounded. One kind at a time, as in Keras.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Each element to [-c, c] (`clipvalue`).
    Value(f64),
    /// Each gradient to an L2 norm of at most c (`clipnorm`). Every parameter then has a factor of its own, and so an
    /// update of its own: many parameters are many dispatches.
    Norm(f64),
    /// All gradients together to an L2 norm of at most c (`global_clipnorm`), keeping their direction.
    GlobalNorm(f64),
}

impl Clip {
    pub(super) fn check(&self) -> Result<()> {
        let (Clip::Value(bound) | Clip::Norm(bound) | Clip::GlobalNorm(bound)) = *self;
        if bound > 0.0 && bound.is_finite() {
            return Ok(());
        }
        Err(Error::argument(format!("gradients are clipped to a positive bound, not {}", Float(bound))))
    }

    /// What gradients are multiplied by, for the kinds that ask for norms: c / max(norm, c), which is 1 within the bound
    /// and never a division by 0.
    pub(super) fn scales(&self, grads: &[Tensor]) -> Option<Vec<Tensor>> {
        let scale = |squares: Tensor, bound: f64| bound / squares.sqrt().maximum(bound);
        let squares = |gradient: &Tensor| gradient.square().sum(..);
        match *self {
            Clip::Value(_) => None,
            Clip::Norm(bound) => Some(grads.iter().map(|g| scale(squares(g), bound)).collect()),
            Clip::GlobalNorm(bound) => {
                let total = grads.iter().map(squares).reduce(|a, b| a + b);
                Some(total.map(|total| vec![scale(total, bound); grads.len()]).unwrap_or_default())
            }
        }
    }
}
