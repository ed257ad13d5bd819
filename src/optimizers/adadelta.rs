//! Adadelta (Zeiler 2012): the scale of past steps over the scale of past gradients.

use super::rule::{moved, within_one};
use super::{Optimizer, Rule, Variables};
use crate::error::Result;
use crate::graph::Tensor;

/// ```text
/// a = rho a + (1 - rho) g^2
/// d = -g sqrt(s + epsilon) / sqrt(a + epsilon)
/// s = rho s + (1 - rho) d^2
/// p += lr d
/// ```
///
/// The paper's form has a learning rate of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adadelta {
    /// 0.001 by default.
    pub learning_rate: f64,
    /// 0.95 by default.
    pub rho: f64,
    /// 1e-7 by default.
    pub epsilon: f64,
}

impl Default for Adadelta {
    fn default() -> Adadelta {
        Adadelta { learning_rate: 1e-3, rho: 0.95, epsilon: 1e-7 }
    }
}

impl Rule for Adadelta {
    fn name(&self) -> &str {
        "adadelta"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        vec![vec!["accumulated_grad", "accumulated_delta_var"]]
    }

    fn check(&self) -> Result<()> {
        within_one(self.name(), &[("rho", self.rho)])
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let root = |x: &Tensor| (x + self.epsilon).sqrt();
        let a = moved(&slots[0], &g.square(), self.rho);
        let step = g * root(&slots[1]) / root(&a);
        let s = moved(&slots[1], &step.square(), self.rho);
        (p - step * &scalars[0], vec![a, s])
    }
}

impl From<Adadelta> for Optimizer {
    fn from(rule: Adadelta) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}
