//! [`Dropout`]: drops elements at random while training.

use super::{Context, Layer, Mode, Variable};
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor};
use crate::random;

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
        if !(0.0..=1.0).contains(&self.rate) {
            let what = format!("dropout: the rate is a fraction between 0 and 1, not {}", self.rate);
            return Err(Error::Argument { what });
        }
        Ok(if self.rate > 0.0 { vec![Variable::seed(self.seed)] } else { Vec::new() })
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        if context.mode() == Mode::Infer || self.rate <= 0.0 {
            return x.clone();
        }
        let state = context.state(0);
        let keep = 1.0 - self.rate;
        // Nothing is kept at rate 1; a scale of 1/0 would make the derivative 0 times infinity.
        let scale = if keep > 0.0 { keep.recip() } else { 0.0 };
        let mask = random::bernoulli(&state, keep, x.shape());
        context.set_state(0, state + Tensor::new(&[0u32, 1], [2]));
        mask.select(x * scale, 0.0)
    }
}
