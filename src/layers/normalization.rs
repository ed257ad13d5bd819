//! Normalisation of each sample by itself: [`LayerNormalization`], [`RMSNormalization`], [`GroupNormalization`],
//! [`UnitNormalization`].
//!
//! None of them has state. Over the last axis each is one row program forward. Deliberately absent: spectral
//! normalisation, which is about weights.

use super::check::{along, axes, invalid, misfit, resolved};
use super::{Context, Layer, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;
use crate::ops::Keep;
use crate::ops::standardize::Moments;

fn signed(axes: &[usize]) -> Vec<i32> {
    axes.iter().map(|&axis| axis as i32).collect()
}

/// `gamma (x - mean) / sqrt(variance + epsilon) + beta` over some axes of each sample (Ba et al. 2016). Variables:
/// `gamma` and `beta` of the shape of these axes.
#[derive(Clone, Debug)]
pub struct LayerNormalization {
    /// The axes, the last by default.
    pub axis: Vec<i32>,
    /// Added to the variance, 0.001 by default.
    pub epsilon: f64,
    /// Whether there is a beta.
    pub center: bool,
    /// Whether there is a gamma.
    pub scale: bool,
    /// Keras' `rms_scaling`: `gamma x / sqrt(variance + epsilon)`, neither centred nor shifted. Keras warns that this
    /// is not root mean square normalisation; for that there is [`RMSNormalization`].
    pub rms_scaling: bool,
    /// Zeros by default.
    pub beta_initializer: Initializer,
    /// Ones by default.
    pub gamma_initializer: Initializer,
}

impl Default for LayerNormalization {
    fn default() -> LayerNormalization {
        LayerNormalization {
            axis: vec![-1],
            epsilon: 1e-3,
            center: true,
            scale: true,
            rms_scaling: false,
            beta_initializer: Initializer::Zeros,
            gamma_initializer: Initializer::Ones,
        }
    }
}

impl LayerNormalization {
    /// With Keras' defaults.
    pub fn new() -> LayerNormalization {
        LayerNormalization::default()
    }
}

impl Layer for LayerNormalization {
    fn kind(&self) -> &str {
        "layer_normalization"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let axes = axes(self.kind(), inputs, &self.axis)?;
        let shape: Vec<usize> = axes.iter().map(|&axis| inputs[0].shape[axis]).collect();
        let gamma = Variable::weight("gamma", shape.clone(), self.gamma_initializer.clone());
        let beta = Variable::weight("beta", shape, self.beta_initializer.clone());
        let gamma = (self.scale || self.rms_scaling).then_some(gamma);
        Ok(gamma.into_iter().chain((self.center && !self.rms_scaling).then_some(beta)).collect())
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let axes = resolved(x, &self.axis);
        let over = signed(&axes);
        let mut y = match self.rms_scaling {
            true => x * (Moments::of(x, &over).variance + self.epsilon).rsqrt(),
            false => x.standardize(&over[..], self.epsilon),
        };
        let scaled = self.scale || self.rms_scaling;
        if scaled {
            y = y * along(&context.weight(0), x, &axes);
        }
        let centred = self.center && !self.rms_scaling;
        if centred { y + along(&context.weight(usize::from(scaled)), x, &axes) } else { y }
    }
}

/// `scale x / sqrt(mean(x^2) + epsilon)` over some axes of each sample (Zhang and Sennrich 2019). Variable: `scale`.
#[derive(Clone, Debug)]
pub struct RMSNormalization {
    /// The axes, the last by default.
    pub axis: Vec<i32>,
    /// Added to the mean square, 1e-6 by default.
    pub epsilon: f64,
}

impl Default for RMSNormalization {
    fn default() -> RMSNormalization {
        RMSNormalization { axis: vec![-1], epsilon: 1e-6 }
    }
}

impl RMSNormalization {
    /// With Keras' defaults.
    pub fn new() -> RMSNormalization {
        RMSNormalization::default()
    }
}

impl Layer for RMSNormalization {
    fn kind(&self) -> &str {
        "rms_normalization"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let axes = axes(self.kind(), inputs, &self.axis)?;
        let shape: Vec<usize> = axes.iter().map(|&axis| inputs[0].shape[axis]).collect();
        Ok(vec![Variable::weight("scale", shape, Initializer::Ones)])
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let axes = resolved(x, &self.axis);
        let square = x.square().mean(Keep(&signed(&axes)[..]));
        x * (square + self.epsilon).rsqrt() * along(&context.weight(0), x, &axes)
    }
}

/// Layer normalisation of groups of channels, each with all its positions (Wu and He 2018). Variables: `gamma` and
/// `beta`, one of each for a channel.
#[derive(Clone, Debug)]
pub struct GroupNormalization {
    /// Number of groups, 32 by default; it divides the channels. -1 makes each channel one: instance normalisation.
    pub groups: i32,
    /// The axis of the channels, -1 by default.
    pub axis: i32,
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
}

impl GroupNormalization {
    /// `groups` groups, otherwise with Keras' defaults.
    pub fn new(groups: i32) -> GroupNormalization {
        GroupNormalization {
            groups,
            axis: -1,
            epsilon: 1e-3,
            center: true,
            scale: true,
            beta_initializer: Initializer::Zeros,
            gamma_initializer: Initializer::Ones,
        }
    }

    fn count(&self, channels: usize) -> Option<usize> {
        match usize::try_from(self.groups) {
            Ok(groups) => (groups > 0 && channels.is_multiple_of(groups)).then_some(groups),
            Err(_) => (self.groups == -1).then_some(channels),
        }
    }
}

impl Default for GroupNormalization {
    fn default() -> GroupNormalization {
        GroupNormalization::new(32)
    }
}

impl Layer for GroupNormalization {
    fn kind(&self) -> &str {
        "group_normalization"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        if self.groups == 0 || self.groups < -1 {
            let why = format!("the number of groups is positive, or -1 for one a channel, not {}", self.groups);
            return Err(invalid(self.kind(), why));
        }
        let channels = inputs[0].shape[axes(self.kind(), inputs, &[self.axis])?[0]];
        if self.count(channels).is_none() {
            let why = format!("{channels} channels do not make {} groups of one size", self.groups);
            return Err(misfit(self.kind(), inputs, why));
        }
        let gamma = self.scale.then(|| Variable::weight("gamma", [channels], self.gamma_initializer.clone()));
        let beta = self.center.then(|| Variable::weight("beta", [channels], self.beta_initializer.clone()));
        Ok(gamma.into_iter().chain(beta).collect())
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let shape = x.shape();
        let at = resolved(x, &[self.axis]);
        let axis = at.first().copied().unwrap_or(0);
        let channels = x.dim(axis);
        let groups = self.count(channels).unwrap_or(1).max(1);
        let mut split = shape.to_vec();
        split.splice(axis..(axis + 1).min(shape.rank()), [groups, channels / groups]);
        let over: Vec<i32> = (1..split.len()).filter(|&i| i != axis).map(|i| i as i32).collect();
        let mut y = x.reshape(split).standardize(&over[..], self.epsilon).reshape(shape);
        if self.scale {
            y = y * along(&context.weight(0), x, &at);
        }
        if self.center { y + along(&context.weight(usize::from(self.scale)), x, &at) } else { y }
    }
}

/// `x / sqrt(sum(x^2))` over some axes of each sample: vectors of length 1. Vectors of zeros stay so.
#[derive(Clone, Debug)]
pub struct UnitNormalization {
    /// The axes, the last by default.
    pub axis: Vec<i32>,
}

impl Default for UnitNormalization {
    fn default() -> UnitNormalization {
        UnitNormalization { axis: vec![-1] }
    }
}

impl UnitNormalization {
    /// Over the last axis.
    pub fn new() -> UnitNormalization {
        UnitNormalization::default()
    }
}

impl Layer for UnitNormalization {
    fn kind(&self) -> &str {
        "unit_normalization"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        axes(self.kind(), inputs, &self.axis)?;
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        unit(&inputs[0], &signed(&resolved(&inputs[0], &self.axis)), 1e-12)
    }
}

/// x over its Euclidean norm along some axes, the norm at least `epsilon`.
pub(super) fn unit(x: &Tensor, over: &[i32], epsilon: f64) -> Tensor {
    // Below the square of the smallest norm nothing is differentiated, where 1/sqrt has infinite slope.
    let square = x.square().sum(Keep(over)).maximum(epsilon * epsilon);
    x * square.rsqrt()
}
