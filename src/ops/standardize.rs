//! Standardisation: distances from the mean in units of the deviation, what layer, group and batch normalisation are made of.
//!
//! Its adjoint is explicit. By composition the sums of the derivative wait for one another: that of `g (x - mean)` gives the
//! cotangent of the variance, and only with that the cotangent of the mean can be summed, in which the variance has no part in
//! the end. Written out, both sums run along with that of the variance: a pass over rows less, and of columns, whose passes
//! are over memory, a dispatch. Second derivatives are those of the adjoint, by composition.

use super::{Axes, Example, Keep};
use crate::dtype::DType;
use crate::grad::custom_vjp;
use crate::graph::Tensor;

/// What a tensor is standardised by.
pub(crate) struct Moments {
    /// Distances from something near the mean.
    pub near: Tensor,
    /// The mean of these, unless it is zero: what `near` is off by.
    pub shift: Option<Tensor>,
    /// Mean square distance from the mean.
    pub variance: Tensor,
}

impl Moments {
    /// A mean that is large against the deviation is rounded to more than the deviation's last digits. So what its rounding
    /// left is measured as well, with the squares: it is so small that its own square takes nothing from theirs.
    pub fn of(x: &Tensor, over: &[i32]) -> Moments {
        let mean = |x: &Tensor| x.mean(Keep(over));
        // Nothing depends on where the distances begin.
        let near = x - mean(x).stop_gradient();
        let shift = mean(&near);
        let variance = mean(&near.square()) - shift.square();
        Moments { near, shift: Some(shift), variance }
    }

    fn centred(&self) -> Tensor {
        self.shift.as_ref().map_or(self.near.clone(), |shift| &self.near - shift)
    }
}

/// Elements in deviations from the mean, by moments over some axes that `moments` finds.
#[track_caller]
pub(crate) fn standardized(
    x: &Tensor,
    over: Vec<i32>,
    epsilon: f64,
    moments: fn(&Tensor, &[i32]) -> Moments,
) -> Tensor {
    let found = moments(x, &over);
    let y = found.centred() * (&found.variance + epsilon).rsqrt();
    custom_vjp(&y, &[x], move |inputs, g| {
        let mean = |x: &Tensor| x.mean(Keep(&over[..]));
        let found = moments(&inputs[0], &over);
        let inverse = (&found.variance + epsilon).rsqrt();
        let (level, mut slope) = (mean(g), mean(&(g * &found.near)));
        if let Some(shift) = &found.shift {
            slope = slope - shift * &level;
        }
        vec![(g - level - found.centred() * (slope * inverse.square())) * inverse]
    })
}

impl Tensor {
    /// `(x - mean) / sqrt(variance + epsilon)` over axes, of the shape of `x`, f32: mean 0 and deviation 1, unless all elements are
    /// nearly equal. The variance is the population's.
    ///
    /// Poisoned if an axis does not exist.
    #[track_caller]
    pub fn standardize(&self, axes: impl Axes, epsilon: f64) -> Tensor {
        let shape = self.shape();
        let Some(over) = axes.resolve(&shape) else {
            return self.misfit("standardize", format!("one of the axes does not exist in {shape}"));
        };
        standardized(self, over.into_iter().map(|axis| axis as i32).collect(), epsilon, Moments::of)
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-3.0, 3.0);
    let f = DType::F32;
    vec![
        Example::new("standardize", &[(&[6, 64], f, D)], |x| x[0].standardize(-1, 1e-3)),
        Example::new("standardize long rows", &[(&[3, 1000], f, D)], |x| x[0].standardize(-1, 1e-3)),
        Example::new("standardize columns", &[(&[40, 6], f, D)], |x| x[0].standardize(0, 1e-3)),
        Example::new("standardize apart", &[(&[3, 5, 4], f, D)], |x| x[0].standardize([0, 2], 1e-3)),
        Example::new("layer norm", &[(&[6, 64], f, D), (&[64], f, D), (&[64], f, D)], |x| {
            x[0].standardize(-1, 1e-3) * &x[1] + &x[2]
        }),
    ]
}
