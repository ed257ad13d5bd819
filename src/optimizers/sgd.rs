//! Stochastic gradient descent, plain or with momentum.

use super::rule::within_one;
use super::{Optimizer, Rule, Variables};
use crate::error::Result;
use crate::graph::Tensor;

/// `p -= lr g`; with momentum `m = momentum m - lr g` and `p += m`, or Nesterov's `p += momentum m - lr g` (Sutskever,
/// Martens, Dahl and Hinton 2013).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SGD {
    /// 0.01 by default.
    pub learning_rate: f64,
    /// 0 by default: none, and nothing is kept.
    pub momentum: f64,
    /// Looks ahead along the momentum; false by default.
    pub nesterov: bool,
}

impl Default for SGD {
    fn default() -> SGD {
        SGD { learning_rate: 0.01, momentum: 0.0, nesterov: false }
    }
}

impl Rule for SGD {
    fn name(&self) -> &str {
        "sgd"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        if self.momentum == 0.0 { Vec::new() } else { vec![vec!["momentum"]] }
    }

    fn check(&self) -> Result<()> {
        within_one(self.name(), &[("momentum", self.momentum)])
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let step = g * &scalars[0];
        match slots.first() {
            None => (p - step, Vec::new()),
            Some(m) => {
                let m = m * self.momentum - &step;
                let p = if self.nesterov { p + (&m * self.momentum - step) } else { p + &m };
                (p, vec![m])
            }
        }
    }
}

impl From<SGD> for Optimizer {
    fn from(rule: SGD) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}
