//! RMSprop (Hinton, lecture 6e of "Neural Networks for Machine Learning", 2012), Keras' default optimizer.

use super::rule::{moved, within_one};
use super::{Optimizer, Rule, Variables};
use crate::error::Result;
use crate::graph::Tensor;

/// ```text
/// v = rho v + (1 - rho) g^2
/// p -= lr g / sqrt(v + epsilon)
/// ```
///
/// Centered: `a = rho a + (1 - rho) g` and the root is of `v - a^2 + epsilon`, an estimate of the variance. With
/// momentum: `m = momentum m + lr g / sqrt(..)` and `p -= m`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RMSprop {
    /// 0.001 by default.
    pub learning_rate: f64,
    /// 0.9 by default.
    pub rho: f64,
    /// 0 by default: none, and nothing is kept for it.
    pub momentum: f64,
    /// 1e-7 by default.
    pub epsilon: f64,
    /// False by default.
    pub centered: bool,
}

impl Default for RMSprop {
    fn default() -> RMSprop {
        RMSprop { learning_rate: 1e-3, rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false }
    }
}

impl Rule for RMSprop {
    fn name(&self) -> &str {
        "rmsprop"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        let mut slots = vec![vec!["velocity"]];
        slots.extend((self.momentum > 0.0).then(|| vec!["momentum"]));
        slots.extend(self.centered.then(|| vec!["average_gradient"]));
        slots
    }

    fn check(&self) -> Result<()> {
        within_one(self.name(), &[("rho", self.rho), ("momentum", self.momentum)])
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let v = moved(&slots[0], &g.square(), self.rho);
        let average = self.centered.then(|| moved(&slots[slots.len() - 1], g, self.rho));
        let variance = match &average {
            Some(average) => &v - average.square(),
            None => v.clone(),
        };
        let step = g * &scalars[0] / (variance + self.epsilon).sqrt();
        let momentum = (self.momentum > 0.0).then(|| &slots[1] * self.momentum + &step);
        let p = p - momentum.as_ref().unwrap_or(&step);
        (p, [Some(v), momentum, average].into_iter().flatten().collect())
    }
}

impl From<RMSprop> for Optimizer {
    fn from(rule: RMSprop) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}
