//! Adam (Kingma and Ba 2015), and AdamW, which is Adam with decoupled weight decay.

use super::{Optimizer, Rule, Variables};
use crate::graph::Tensor;

/// Adam in Keras' form, epsilon outside the bias correction:
///
/// ```text
/// m += (g - m) (1 - beta_1)
/// v += (g^2 - v) (1 - beta_2)
/// p -= m alpha / (sqrt(v) + epsilon),  alpha = lr sqrt(1 - beta_2^t) / (1 - beta_1^t)
/// ```
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
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }
}

impl Rule for Adam {
    fn name(&self) -> &str {
        "adam"
    }

    fn slots(&self) -> Vec<&'static str> {
        vec!["momentum", "velocity"]
    }

    fn scalars(&self, step: &Tensor, learning_rate: &Tensor) -> Vec<Tensor> {
        let rest = |beta: f64| 1.0 - Tensor::full([], beta).powi(step);
        vec![learning_rate * rest(self.beta_2).sqrt() / rest(self.beta_1)]
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let (m, v) = (&slots[0], &slots[1]);
        let m = m + (g - m) * (1.0 - self.beta_1);
        let v = v + (g.square() - v) * (1.0 - self.beta_2);
        let p = p - &m * &scalars[0] / (v.sqrt() + self.epsilon);
        (p, vec![m, v])
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
    /// 0.004 by default.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> AdamW {
        let Adam { learning_rate, beta_1, beta_2, epsilon } = Adam::default();
        AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay: 0.004 }
    }
}

impl From<AdamW> for Optimizer {
    fn from(options: AdamW) -> Optimizer {
        let AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay } = options;
        Optimizer::from(Adam { learning_rate, beta_1, beta_2, epsilon }).weight_decay(weight_decay)
    }
}
