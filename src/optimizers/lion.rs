//! Lion (Chen and others 2023, "Symbolic Discovery of Optimization Algorithms"): only the sign of a momentum.

use super::rule::{moved, within_one};
use super::{Optimizer, Rule, Variables};
use crate::error::{Error, Result};
use crate::graph::Tensor;

/// ```text
/// p -= lr sign(beta_1 m + (1 - beta_1) g)
/// m = beta_2 m + (1 - beta_2) g
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// 0.001 by default. All steps have this size, so it is commonly a third to a tenth of Adam's.
    pub learning_rate: f64,
    /// 0.9 by default; above 0, or only the gradient's sign would count.
    pub beta_1: f64,
    /// 0.99 by default.
    pub beta_2: f64,
}

impl Default for Lion {
    fn default() -> Lion {
        Lion { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.99 }
    }
}

impl Rule for Lion {
    fn name(&self) -> &str {
        "lion"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        vec![vec!["momentum"]]
    }

    fn check(&self) -> Result<()> {
        if self.beta_1 == 0.0 {
            return Err(Error::argument("beta_1 of lion is above 0; without a momentum it is sign descent"));
        }
        within_one(self.name(), &[("beta_1", self.beta_1), ("beta_2", self.beta_2)])
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let p = p - moved(&slots[0], g, self.beta_1).sign() * &scalars[0];
        (p, vec![moved(&slots[0], g, self.beta_2)])
    }
}

impl From<Lion> for Optimizer {
    fn from(rule: Lion) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}
