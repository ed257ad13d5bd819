//! [`Rule`]: how one parameter moves, and what several rules compute alike.

use std::fmt::{self, Debug, Formatter};

use super::Variables;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::host::Float;
use crate::threads::{MaybeSend, MaybeSync};

/// How one parameter moves. An optimizer of one's own implements it and becomes one by
/// [`Optimizer::new`](super::Optimizer::new).
pub trait Rule: MaybeSend + MaybeSync + 'static {
    /// The field's name in lower case.
    fn name(&self) -> &str;

    /// Names of the tensors kept for each parameter, of its shape, in blocks: those of one block alternate from
    /// parameter to parameter in the list of variables, and blocks follow each other.
    fn slots(&self) -> Vec<Vec<&'static str>>;

    /// The value that all elements of a slot start from.
    fn initial(&self, slot: &str) -> f64 {
        let _ = slot;
        0.0
    }

    /// Numbers kept once for all parameters, with the values that they start from.
    fn shared(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// What is wrong with the options, [`ErrorKind::Argument`](crate::error::ErrorKind::Argument).
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Scalars that the update needs, computed once a step: from the number of this update (i32, the first is 1), the
    /// learning rate and the shared numbers. The first of them replace the shared numbers. By default the learning rate
    /// alone.
    fn scalars(&self, update: &Tensor, learning_rate: &Tensor, shared: &[Tensor]) -> Vec<Tensor> {
        let _ = (update, shared);
        vec![learning_rate.clone()]
    }

    /// The new parameter and its new slots, block after block, as elementwise expressions that are the same for all
    /// parameters.
    fn update(
        &self,
        parameter: &Tensor,
        gradient: &Tensor,
        slots: &[Tensor],
        scalars: &[Tensor],
    ) -> (Tensor, Variables);
}

impl Debug for dyn Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `1 - beta^t`, the bias that an average with momentum `beta` has after `t` terms (i32).
///
/// By `1 - e^-2y = 2 tanh(y) / (1 + tanh(y))`, which loses nothing for small `t`: with beta rounded to f32,
/// `1 - 0.999^1` would be off by 1.3e-5 of itself.
pub(super) fn unbiased(beta: f64, t: &Tensor) -> Tensor {
    let half = -beta.max(f64::MIN_POSITIVE).ln() / 2.0;
    let tanh = (t.cast(DType::F32) * half).tanh();
    &tanh * 2.0 / (&tanh + 1.0)
}

/// `old + (new - old) share`, the moving average as Adam and its kin write it.
pub(super) fn towards(old: &Tensor, new: &Tensor, share: f64) -> Tensor {
    old + (new - old) * share
}

/// `rho old + (1 - rho) new`, the same as RMSprop and its kin write it.
pub(super) fn moved(old: &Tensor, new: &Tensor, rho: f64) -> Tensor {
    old * rho + new * (1.0 - rho)
}

/// An error unless each of the options lies in `0..=1`.
pub(super) fn within_one(rule: &str, options: &[(&str, f64)]) -> Result<()> {
    match options.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
        Some((option, value)) => {
            Err(Error::argument(format!("{option} of {rule} lies between 0 and 1, it is {}", Float(*value))))
        }
        None => Ok(()),
    }
}
