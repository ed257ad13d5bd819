//! Losses of real-valued targets. Targets and predictions have one shape, `[batch, .., features]`; values per sample
//! are means over the last axis.

use super::align;
use crate::graph::Tensor;

/// `mean((y_pred - y)^2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeanSquaredError;

impl MeanSquaredError {
    /// Values per sample.
    #[track_caller]
    pub fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        let (y, y_pred) = align("mean_squared_error", y, y_pred);
        last_mean(&(y_pred - y).square())
    }
}

/// `mean(|y_pred - y|)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeanAbsoluteError;

impl MeanAbsoluteError {
    /// Values per sample.
    #[track_caller]
    pub fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        let (y, y_pred) = align("mean_absolute_error", y, y_pred);
        last_mean(&(y_pred - y).abs())
    }
}

/// The mean over the last axis; a scalar is its own.
#[track_caller]
pub(crate) fn last_mean(x: &Tensor) -> Tensor {
    if x.rank() == 0 { x.clone() } else { x.mean(-1) }
}
