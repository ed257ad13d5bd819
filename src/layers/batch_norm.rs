//! [`BatchNormalization`]: normalises every feature over the batch, and keeps running statistics for inference.
//!
//! Deliberately absent: renormalisation and statistics shared by several devices.

use super::check::{along, axes, invalid, resolved};
use super::{Context, Layer, Mode, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::host::Float;
use crate::initializers::Initializer;
use crate::ops::Keep;
use crate::ops::standardize::{Moments, standardized};

/// `gamma (x - mean) / sqrt(variance + epsilon) + beta` (Ioffe and Szegedy 2015), a pair of statistics for each position
/// along `axis`.
///
/// While training they are those of the batch, with the population variance (divided by n), and the moving ones go
/// towards them: `moving = moving momentum + batch (1 - momentum)`. Otherwise the moving ones are used. Variables:
/// `gamma`, `beta`, and `moving_mean`, `moving_variance` in the non-trainable state.
#[derive(Clone, Debug)]
pub struct BatchNormalization {
    /// The axis of the features, -1 by default; 1 where channels come first.
    pub axis: i32,
    /// How much of the moving statistics stays at each step, 0.99 by default.
    pub momentum: f64,
    /// Added to the variance, 0.001 by default.
    pub epsilon: f64,
    /// Whether there is a beta.
    pub center: bool,
    /// Whether there is a gamma.
    pub scale: bool,
    /// Zeros by default.
    pub beta_initializer: Initializer,
    /// Ones by default.
    pub gamma_initializer: Initializer,
    /// Zeros by default.
    pub moving_mean_initializer: Initializer,
    /// Ones by default.
    pub moving_variance_initializer: Initializer,
}

/// One sample of the batch: distances from it cost no digits where the mean is much larger than the deviation. The statistics
/// do not depend on which, so neither do derivatives.
fn origin(x: &Tensor, over: &[i32]) -> Tensor {
    over.iter().fold(x.clone(), |x, &axis| x.slice(axis, ..1.min(x.dim(axis as usize)))).stop_gradient()
}

/// Mean and variance over some axes, which stay with length 1.
fn statistics(x: &Tensor, over: &[i32]) -> (Tensor, Tensor) {
    let origin = origin(x, over);
    ((x - &origin).mean(Keep(over)) + origin, moments(x, over).variance)
}

fn moments(x: &Tensor, over: &[i32]) -> Moments {
    let distance = x - origin(x, over);
    let near = &distance - distance.mean(Keep(over));
    let variance = near.square().mean(Keep(over));
    Moments { near, shift: None, variance }
}

impl Default for BatchNormalization {
    fn default() -> BatchNormalization {
        BatchNormalization {
            axis: -1,
            momentum: 0.99,
            epsilon: 1e-3,
            center: true,
            scale: true,
            beta_initializer: Initializer::Zeros,
            gamma_initializer: Initializer::Ones,
            moving_mean_initializer: Initializer::Zeros,
            moving_variance_initializer: Initializer::Ones,
        }
    }
}

impl BatchNormalization {
    /// With Keras' defaults.
    pub fn new() -> BatchNormalization {
        BatchNormalization::default()
    }
}

impl Layer for BatchNormalization {
    fn kind(&self) -> &str {
        "batch_normalization"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(invalid(
                self.kind(),
                format!("the momentum lies between 0 and 1, not at {}", Float(self.momentum)),
            ));
        }
        let axes = axes(self.kind(), inputs, &[self.axis])?;
        let features = inputs[0].shape[axes[0]];
        let gamma = self.scale.then(|| Variable::weight("gamma", [features], self.gamma_initializer.clone()));
        let beta = self.center.then(|| Variable::weight("beta", [features], self.beta_initializer.clone()));
        let moving = [
            Variable::state("moving_mean", [features], self.moving_mean_initializer.clone()),
            Variable::state("moving_variance", [features], self.moving_variance_initializer.clone()),
        ];
        Ok(gamma.into_iter().chain(beta).chain(moving).collect())
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let kept = resolved(x, &[self.axis]);
        let gamma = self.scale.then(|| along(&context.weight(0), x, &kept));
        let y = match context.mode() {
            // A frozen one keeps and uses its statistics in training too.
            Mode::Train if !context.is_frozen() => {
                let over: Vec<i32> =
                    (0..x.rank()).filter(|axis| !kept.contains(axis)).map(|axis| axis as i32).collect();
                let (mean, variance) = statistics(x, &over);
                for (i, batch) in [(0, mean), (1, variance)] {
                    let moving = context.state(i);
                    let batch = batch.reshape(moving.shape());
                    context.set_state(i, moving * self.momentum + batch * (1.0 - self.momentum));
                }
                let y = standardized(x, over, self.epsilon, moments);
                gamma.iter().fold(y, |y, gamma| y * gamma)
            }
            _ => {
                let inverse = (along(&context.state(1), x, &kept) + self.epsilon).rsqrt();
                (x - along(&context.state(0), x, &kept)) * gamma.iter().fold(inverse, |scale, gamma| scale * gamma)
            }
        };
        if self.center { y + along(&context.weight(usize::from(self.scale)), x, &kept) } else { y }
    }
}
