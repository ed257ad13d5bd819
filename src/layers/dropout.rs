//! [`Dropout`], [`SpatialDropout1D`] and [`SpatialDropout2D`]: drop elements or channels at random while training.

use super::check::{fraction, rank};
use super::{Context, Layer, Mode, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::random;
use crate::shape::Shape;

/// Sets a fraction `rate` of the elements to zero while training and scales the others by `1 / (1 - rate)`, so that
/// the mean stays (Srivastava et al. 2014, in its inverted form). The identity otherwise.
///
/// Its variable is the state of a seed generator, u32 `[seed, counter]`. As in Keras on JAX the state is itself the
/// key of the mask, and each training call adds 1 to the counter: no two calls draw the same mask, and recomputing
/// one does.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Fraction of elements to drop, between 0 and 1.
    pub rate: f64,
    /// Fixes the masks whatever the seed of the network.
    pub seed: Option<u32>,
}

impl Dropout {
    /// Drops a fraction `rate` of the elements.
    pub fn new(rate: f64) -> Dropout {
        Dropout { rate, seed: None }
    }

    /// Fixes the masks.
    pub fn seed(mut self, seed: u32) -> Dropout {
        self.seed = Some(seed);
        self
    }
}

impl Layer for Dropout {
    fn kind(&self) -> &str {
        "dropout"
    }

    fn variables(&self, _: &[Spec]) -> Result<Vec<Variable>> {
        fraction(self.kind(), self.rate)?;
        Ok(if self.rate > 0.0 { vec![Variable::seed(self.seed)] } else { Vec::new() })
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        dropped(&inputs[0], self.rate, inputs[0].shape(), context)
    }
}

/// [`Dropout`] as other layers use it: one draw for each element of `noise`, which broadcasts to `x`. The seed is the
/// context's first state.
pub(super) fn dropped(x: &Tensor, rate: f64, noise: impl Into<Shape>, context: &mut Context) -> Tensor {
    if context.mode() == Mode::Infer || rate <= 0.0 {
        return x.clone();
    }
    let state = context.state(0);
    let keep = 1.0 - rate;
    // Nothing is kept at rate 1; a scale of 1/0 would make the derivative 0 times infinity.
    let scale = if keep > 0.0 { keep.recip() } else { 0.0 };
    let mask = random::bernoulli(&state, keep, noise);
    context.set_state(0, state + Tensor::new(&[0u32, 1], [2]));
    mask.select(x * scale, 0.0)
}

macro_rules! spatial_dropout {
    ($(#[$documentation:meta])* $name:ident $kind:literal $rank:literal $form:literal) => {
        $(#[$documentation])*
        #[derive(Clone, Debug)]
        pub struct $name {
            /// Fraction of channels to drop, between 0 and 1.
            pub rate: f64,
            /// Fixes the masks whatever the seed of the network.
            pub seed: Option<u32>,
        }

        impl $name {
            /// Drops a fraction `rate` of the channels.
            pub fn new(rate: f64) -> $name {
                $name { rate, seed: None }
            }
        }

        impl Layer for $name {
            fn kind(&self) -> &str {
                $kind
            }

            fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
                rank(self.kind(), inputs, $rank, $form)?;
                Dropout { rate: self.rate, seed: self.seed }.variables(inputs)
            }

            fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
                let x = &inputs[0];
                let mut noise = [1; $rank];
                (noise[0], noise[$rank - 1]) = (x.dim(0), x.dim($rank - 1));
                dropped(x, self.rate, noise, context)
            }
        }
    };
}
spatial_dropout! {
    /// [`Dropout`] of whole channels of `[batch, steps, channels]` (Tompson et al. 2015): neighbours in a channel tell
    /// nearly the same, so that dropping single ones hides little.
    SpatialDropout1D "spatial_dropout1d" 3 "sequences, [batch, steps, channels]"
}
spatial_dropout! {
    /// [`Dropout`] of whole channels of images, `[batch, height, width, channels]`; see [`SpatialDropout1D`].
    SpatialDropout2D "spatial_dropout2d" 4 "images, [batch, height, width, channels]"
}
