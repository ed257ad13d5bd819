//! [`Ema`]: averages of the parameters over the updates, which often generalise better than the last parameters.

use super::variables::is_multiple;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::host::Float;

/// Exponential moving averages of the parameters (Polyak and Juditsky 1992; Keras' `use_ema`).
///
/// After each batch `average = momentum average + (1 - momentum) p`; up to the first update inclusive, the average is the
/// parameter. With an accumulation of gradients the average moves with every batch, as in Keras on JAX. `fit` puts the
/// averages into the model when it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ema {
    /// 0.99 by default.
    pub momentum: f64,
    /// After every so many updates the parameters become their averages; never, by default, before `fit` ends.
    pub overwrite_frequency: Option<u32>,
}

impl Default for Ema {
    fn default() -> Ema {
        Ema { momentum: 0.99, overwrite_frequency: None }
    }
}

impl Ema {
    pub(super) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.momentum) {
            let what = format!("the momentum of averages lies between 0 and 1, it is {}", Float(self.momentum));
            return Err(Error::argument(what));
        }
        if self.overwrite_frequency == Some(0) {
            return Err(Error::argument("parameters are overwritten after 1 update at least, not 0"));
        }
        Ok(())
    }

    /// The scalars of one step, from the number of the update, the first of which is 1.
    pub(super) fn at(&self, update: &Tensor) -> Averaging {
        let first = update.eq(1.0);
        Averaging {
            of_average: first.select(0.0, self.momentum),
            of_parameter: first.select(1.0, 1.0 - self.momentum),
            overwrite: self.overwrite_frequency.map(|every| is_multiple(update, every)),
        }
    }
}

/// [`Ema`] in one step.
pub(super) struct Averaging {
    of_average: Tensor,
    of_parameter: Tensor,
    overwrite: Option<Tensor>,
}

impl Averaging {
    /// The parameter, overwritten or not, and the new average.
    pub fn apply(&self, parameter: Tensor, average: &Tensor) -> (Tensor, Tensor) {
        let average = average * &self.of_average + &parameter * &self.of_parameter;
        let parameter = match &self.overwrite {
            Some(overwrite) => overwrite.select(&average, parameter),
            None => parameter,
        };
        (parameter, average)
    }
}
