//! Nadam (Dozat 2016): Adam with Nesterov's momentum and a momentum that grows.

use super::rule::{towards, unbiased, within_one};
use super::{Optimizer, Rule, Variables};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::Tensor;

/// ```text
/// u_t = beta_1 (1 - 0.96^t / 2),  U_t = u_1 u_2 .. u_t
/// m += (g - m) (1 - beta_1)
/// v += (g^2 - v) (1 - beta_2)
/// p -= lr (m u_(t+1) / (1 - U_(t+1)) + g (1 - u_t) / (1 - U_t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nadam {
    /// 0.001 by default.
    pub learning_rate: f64,
    /// 0.9 by default.
    pub beta_1: f64,
    /// 0.999 by default.
    pub beta_2: f64,
    /// 1e-7 by default.
    pub epsilon: f64,
}

impl Default for Nadam {
    fn default() -> Nadam {
        Nadam { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }
}

impl Rule for Nadam {
    fn name(&self) -> &str {
        "nadam"
    }

    fn slots(&self) -> Vec<Vec<&'static str>> {
        vec![vec!["momentum", "velocity"]]
    }

    fn shared(&self) -> Vec<(&'static str, f64)> {
        vec![("u_product", 1.0)]
    }

    fn check(&self) -> Result<()> {
        within_one(self.name(), &[("beta_1", self.beta_1), ("beta_2", self.beta_2)])
    }

    fn scalars(&self, t: &Tensor, learning_rate: &Tensor, shared: &[Tensor]) -> Vec<Tensor> {
        let u = |t: &Tensor| (1.0 - (t.cast(DType::F32) * 0.96f64.ln()).exp() * 0.5) * self.beta_1;
        let (now, next) = (u(t), u(&(t + 1.0)));
        let product = &shared[0] * &now;
        let of_momentum = learning_rate * &next / (1.0 - &product * &next);
        let of_gradient = learning_rate * (1.0 - now) / (1.0 - &product);
        vec![product, of_momentum, of_gradient, unbiased(self.beta_2, t)]
    }

    fn update(&self, p: &Tensor, g: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
        let m = towards(&slots[0], g, 1.0 - self.beta_1);
        let v = towards(&slots[1], &g.square(), 1.0 - self.beta_2);
        let step = &m * &scalars[1] + g * &scalars[2];
        (p - step / ((&v / &scalars[3]).sqrt() + self.epsilon), vec![m, v])
    }
}

impl From<Nadam> for Optimizer {
    fn from(rule: Nadam) -> Optimizer {
        Optimizer::new(rule, rule.learning_rate)
    }
}
