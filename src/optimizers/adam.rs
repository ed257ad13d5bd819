//! Adam (Kingma and Ba 2015), and AdamW, which is Adam with decoupled weight decay.

use super::rule::{towards, unbiased, within_one};
use super::{Optimizer, Rule, Variables};
use crate::error::Result;
use crate::graph::Tensor;

/// Adam in Keras' form, epsilon outside the bias correction:
///
/// ```text
/// m += (g - m) (1 - beta_1)
/// v += (g^2 - v) (1 - beta_2)
/// p -= m alpha / (sqrt(v) + epsilon),  alpha = lr sqrt(1 - beta_2^t) / (1 - beta_1^t)
/// ```
///
/// With `amsgrad` (Reddi, Kale and Kumar 2018) the root is of the largest `v` so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// 0.001 by default.
    pub learning_rate: f64,
    /// 0.9 by default.
    pub beta_1: f64,
    /// 0.999 by default.
    pub beta_2: f64,
    /// 1e-7 by default, not the paper's 1e-8.
    pub epsilon: f64,
    /// False by default.
    pub amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, amsgrad: false }
    }
}

impl Rule for Adam {
    fn name(&self) -> &str {
        "adam"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        let mut slots = vec![vec!["momentum", "velocity"]];
        slots.extend(self.amsgrad.then(|| vec!["velocity_hat"]));
        slots
    }

    fn check(&self) -> Result<()> {
        within_one(self.name(), &[("beta_1", self.beta_1), ("beta_2", self.beta_2)])
    }

    fn scalars(&self, t: &Tensor, learning_rate: &Tensor, _: &[Tensor]) -> Vec<Tensor> {
        vec![learning_rate * unbiased(self.beta_2, t).sqrt() / unbiased(self.beta_1, t)]
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let m = towards(&slots[0], g, 1.0 - self.beta_1);
        let v = towards(&slots[1], &g.square(), 1.0 - self.beta_2);
        let largest = slots.get(2).map(|largest| largest.maximum(&v));
        let p = p - &m * &scalars[0] / (largest.as_ref().unwrap_or(&v).sqrt() + self.epsilon);
        (p, [m, v].into_iter().chain(largest).collect())
    }
}

impl From<Adam> for Optimizer {
    fn from(rule: Adam) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}

/// [`Adam`] with decoupled weight decay (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// 0.001 by default.
    pub learning_rate: f64,
    /// 0.9 by default.
    pub beta_1: f64,
    /// 0.999 by default.
    pub beta_2: f64,
    /// 1e-7 by default.
    pub epsilon: f64,
    /// False by default.
    pub amsgrad: bool,
    /// 0.004 by default.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> AdamW {
        let Adam { learning_rate, beta_1, beta_2, epsilon, amsgrad } = Adam::default();
        AdamW { learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay: 0.004 }
    }
}

impl From<AdamW> for Optimizer {
    fn from(options: AdamW) -> Optimizer {
        let AdamW { learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay } = options;
        let adam = Adam { learning_rate, beta_1, beta_2, epsilon, amsgrad };
        Optimizer::from(adam).named("adamw").weight_decay(weight_decay)
    }
}
