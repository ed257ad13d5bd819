//! Adagrad (Duchi, Hazan and Singer 2011): steps shrink with the sum of all squared gradients.

use super::{Optimizer, Rule, Variables};
use crate::graph::Tensor;

/// ```text
/// a += g^2
/// p -= lr g / sqrt(a + epsilon)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// 0.001 by default.
    pub learning_rate: f64,
    /// What `a` starts from, 0.1 by default.
    pub initial_accumulator_value: f64,
    /// 1e-7 by default.
    pub epsilon: f64,
}

impl Default for Adagrad {
    fn default() -> Adagrad {
        Adagrad { learning_rate: 1e-3, initial_accumulator_value: 0.1, epsilon: 1e-7 }
    }
}

impl Rule for Adagrad {
    fn name(&self) -> &str {
        "adagrad"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        vec![vec!["accumulator"]]
    }

    fn initial(&self, _: &str) -> f64 {
        self.initial_accumulator_value
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let a = &slots[0] + g.square();
        let p = p - g * &scalars[0] / (&a + self.epsilon).sqrt();
        (p, vec![a])
    }
}

impl From<Adagrad> for Optimizer {
    fn from(rule: Adagrad) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}
