//! Activations with options as layers: [`ReLU`], [`LeakyReLU`], [`PReLU`], [`ELU`], [`Softmax`].
//!
//! Those without are names of an [`Activation`](super::Activation).

use std::ops::RangeInclusive;

use super::check::{invalid, misfit};
use super::{Context, Layer, Variable};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;
use crate::ops::Keep;

fn not_negative(layer: &str, option: &str, value: f64) -> Result<()> {
    if value >= 0.0 { Ok(()) } else { Err(invalid(layer, format!("{option} cannot be {value}, it is at least 0"))) }
}

/// `x` above a threshold, at most `max_value`, and `negative_slope (x - threshold)` below.
#[derive(Clone, Debug, Default)]
pub struct ReLU {
    /// The largest result; none by default.
    pub max_value: Option<f64>,
    /// The slope below the threshold, 0 by default.
    pub negative_slope: f64,
    /// Where the result begins to grow, 0 by default.
    pub threshold: f64,
}

impl ReLU {
    /// max(x, 0).
    pub fn new() -> ReLU {
        ReLU::default()
    }
}

impl Layer for ReLU {
    fn kind(&self) -> &str {
        "re_lu"
    }

    fn variables(&self, _: &[Spec]) -> Result<Vec<Variable>> {
        not_negative(self.kind(), "max_value", self.max_value.unwrap_or(0.0))?;
        not_negative(self.kind(), "negative_slope", self.negative_slope)?;
        not_negative(self.kind(), "threshold", self.threshold)?;
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let x = &inputs[0];
        let above = if self.threshold == 0.0 { x.relu() } else { x.le(self.threshold).select(0.0, x) };
        let above = self.max_value.map_or(above.clone(), |most| above.minimum(most));
        match self.negative_slope {
            0.0 => above,
            slope => above - (self.threshold - x).relu() * slope,
        }
    }
}

/// `x`, and `negative_slope x` below 0.
#[derive(Clone, Debug)]
pub struct LeakyReLU {
    /// The slope below 0, 0.3 by default.
    pub negative_slope: f64,
}

impl Default for LeakyReLU {
    fn default() -> LeakyReLU {
        LeakyReLU { negative_slope: 0.3 }
    }
}

impl LeakyReLU {
    /// With this slope below 0.
    pub fn new(negative_slope: f64) -> LeakyReLU {
        LeakyReLU { negative_slope }
    }
}

impl Layer for LeakyReLU {
    fn kind(&self) -> &str {
        "leaky_re_lu"
    }

    fn variables(&self, _: &[Spec]) -> Result<Vec<Variable>> {
        not_negative(self.kind(), "negative_slope", self.negative_slope)?;
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let x = &inputs[0];
        x.lt(0.0).select(x * self.negative_slope, x)
    }
}

/// `x`, and `alpha x` below 0 with a learnt slope for each feature (He et al. 2015). Variable: `alpha`, of the shape of
/// a sample with length 1 along shared axes.
#[derive(Clone, Debug, Default)]
pub struct PReLU {
    /// Axes along which one slope serves all, counted with the batch: `[1, 2]` for one slope a channel of images.
    pub shared_axes: Vec<i32>,
    /// Zeros by default.
    pub alpha_initializer: Initializer,
}

impl PReLU {
    /// A slope for each feature.
    pub fn new() -> PReLU {
        PReLU::default()
    }
}

impl Layer for PReLU {
    fn kind(&self) -> &str {
        "p_re_lu"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let mut shape = inputs[0].shape.to_vec();
        for &axis in &self.shared_axes {
            match inputs[0].shape.axis(axis as isize) {
                Some(at) if at > 0 => shape[at] = 1,
                _ => return Err(misfit(self.kind(), inputs, format!("axis {axis} is not one behind the batch"))),
            }
        }
        Ok(vec![Variable::weight("alpha", &shape[1..], self.alpha_initializer.clone())])
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        x.relu() - context.weight(0) * (-x).relu()
    }
}

/// `x`, and `alpha (e^x - 1)` below 0 (Clevert et al. 2016).
#[derive(Clone, Debug)]
pub struct ELU {
    /// The negative limit, 1 by default.
    pub alpha: f64,
}

impl Default for ELU {
    fn default() -> ELU {
        ELU { alpha: 1.0 }
    }
}

impl ELU {
    /// With the limit -`alpha`.
    pub fn new(alpha: f64) -> ELU {
        ELU { alpha }
    }
}

impl Layer for ELU {
    fn kind(&self) -> &str {
        "elu"
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let x = &inputs[0];
        let negative = x.gt(0.0).select(0.0, x);
        // e^x - 1 = 2 t / (1 - t) with t = tanh(x / 2): near 0, where the left side keeps no digits, the right one does.
        let half = (negative * 0.5).tanh();
        x.gt(0.0).select(x, &half * (2.0 * self.alpha) / (1.0 - &half))
    }
}

/// Exponentials over their sum along some axes. A second input, if there is one, is a mask that broadcasts to the
/// first: Bool, or numbers that count from 0.5 up; where it is false the result is 0.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// The axes, the last by default.
    pub axis: Vec<i32>,
}

impl Default for Softmax {
    fn default() -> Softmax {
        Softmax { axis: vec![-1] }
    }
}

impl Softmax {
    /// Over the last axis.
    pub fn new() -> Softmax {
        Softmax::default()
    }
}

impl Layer for Softmax {
    fn kind(&self) -> &str {
        "softmax"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        1..=2
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        super::check::axes(self.kind(), inputs, &self.axis)?;
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        masked_softmax(&inputs[0], inputs.get(1), &self.axis)
    }
}

/// A softmax over the positions that a mask, if there is one, leaves; 0 at the others, also where none is left.
pub(super) fn masked_softmax(x: &Tensor, mask: Option<&Tensor>, axes: &[i32]) -> Tensor {
    let softmax = |x: &Tensor| match axes {
        [axis] => x.softmax(*axis),
        axes => (x - x.logsumexp(Keep(axes))).exp(),
    };
    match mask {
        None => softmax(x),
        Some(mask) => {
            let mask = bool_mask(mask);
            // As in Keras not the lowest number: the distances of masked scores must stay finite.
            mask.select(softmax(&mask.select(x, -1e9)), 0.0)
        }
    }
}

/// A mask as Bool: numbers count from 0.5 up.
pub(super) fn bool_mask(mask: &Tensor) -> Tensor {
    if mask.dtype() == DType::Bool { mask.clone() } else { mask.cast(DType::F32).gt(0.5) }
}
