//! [`Clip`]: bounds on gradients, applied before the rule of an optimizer sees them.

use crate::error::{Error, Result};
use crate::graph::Tensor;

/// How gradients are bounded. One kind at a time, as in Keras.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Each element to [-c, c] (`clipvalue`).
    Value(f64),
    /// Each gradient to an L2 norm of at most c (`clipnorm`).
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
        Err(Error::Argument { what: format!("gradients are clipped to a positive bound, not {bound}") })
    }

    #[track_caller]
    pub(super) fn apply(&self, grads: &[Tensor]) -> Result<Vec<Tensor>> {
        self.check()?;
        // c / max(norm, c): 1 within the bound, and never a division by 0.
        let scale = |squares: Tensor, bound: f64| bound / squares.sqrt().maximum(bound);
        let squares = |gradient: &Tensor| gradient.square().sum(..);
        Ok(match *self {
            Clip::Value(bound) => grads.iter().map(|g| g.clip(-bound, bound)).collect(),
            Clip::Norm(bound) => grads.iter().map(|g| g * scale(squares(g), bound)).collect(),
            Clip::GlobalNorm(bound) => match grads.iter().map(squares).reduce(|a, b| a + b) {
                Some(total) => {
                    let scale = scale(total, bound);
                    grads.iter().map(|g| g * &scale).collect()
                }
                None => Vec::new(),
            },
        })
    }
}
