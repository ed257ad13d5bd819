//! Adamax (Kingma and Ba 2015, section 7.1): Adam with the infinity norm in place of the second moment.

use super::rule::{towards, unbiased, within_one};
use super::{Optimizer, Rule, Variables};
use crate::error::Result;
use crate::graph::Tensor;

/// ```text
/// m += (g - m) (1 - beta_1)
/// u = max(beta_2 u, |g|)
/// p -= lr m / ((1 - beta_1^t) (u + epsilon))
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adamax {
    /// 0.001 by default.
    pub learning_rate: f64,
    /// 0.9 by default.
    pub beta_1: f64,
    /// 0.999 by default.
    pub beta_2: f64,
    /// 1e-7 by default.
    pub epsilon: f64,
}

impl Default for Adamax {
    fn default() -> Adamax {
        Adamax { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }
}

impl Rule for Adamax {
    fn name(&self) -> &str {
        "adamax"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        vec![vec!["momentum", "norm"]]
    }

    fn check(&self) -> Result<()> {
        within_one(self.name(), &[("beta_1", self.beta_1), ("beta_2", self.beta_2)])
    }

    fn scalars(&self, t: &Tensor, learning_rate: &Tensor, _: &[Tensor]) -> Vec<Tensor> {
        vec![learning_rate / unbiased(self.beta_1, t)]
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let m = towards(&slots[0], g, 1.0 - self.beta_1);
        let u = (&slots[1] * self.beta_2).maximum(g.abs());
        (p - &m * &scalars[0] / (&u + self.epsilon), vec![m, u])
    }
}

impl From<Adamax> for Optimizer {
    fn from(rule: Adamax) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}
