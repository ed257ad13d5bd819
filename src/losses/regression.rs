//! Losses of real-valued targets. Targets and predictions have one shape, `[batch, .., features]`; values per sample
//! are means over the last axis.

use super::EPSILON;
use super::table::losses;
use crate::graph::Tensor;
use crate::ops::Keep;

losses! {
    /// `mean((y_pred - y)^2)`.
    MeanSquaredError ["mean_squared_error", "mse"] |_, y, p| last_mean(&(p - y).square());

    /// `mean(|y_pred - y|)`.
    MeanAbsoluteError ["mean_absolute_error", "mae"] |_, y, p| last_mean(&(p - y).abs());

    /// `100 mean(|y_pred - y| / max(|y|, 1e-7))`: a target of 0 makes it huge.
    MeanAbsolutePercentageError ["mean_absolute_percentage_error", "mape"]
        |_, y, p| last_mean(&((&y - p) / y.abs().maximum(EPSILON)).abs()) * 100.0;

    /// `mean((log(1 + y_pred) - log(1 + y))^2)`, of what is at least 1e-7.
    MeanSquaredLogarithmicError ["mean_squared_logarithmic_error", "msle"]
        |_, y, p| last_mean(&(p.maximum(EPSILON).log1p() - y.maximum(EPSILON).log1p()).square());

    /// `mean(e^2 / 2)` for errors up to `delta`, `mean(delta |e| - delta^2 / 2)` beyond (Huber 1964).
    Huber ["huber", "huber_loss"] {
        /// Where the parabola becomes a line.
        delta: f64 = 1.0,
    } |this, y, p| {
        let error = p - y;
        let size = error.abs();
        let line = &size * this.delta - this.delta * this.delta / 2.0;
        last_mean(&size.le(this.delta).select(error.square() * 0.5, line))
    };

    /// `mean(log(cosh(y_pred - y)))`: half the square of small errors, the magnitude of large ones less log 2.
    LogCosh ["log_cosh", "logcosh"] |_, y, p| {
        // log(cosh(x)) = x + log(1 + e^(-2x)) - log(2), which never overflows.
        let error = p - y;
        last_mean(&(&error + (&error * -2.0).softplus() - std::f64::consts::LN_2))
    };

    /// Minus the cosine of the angle between target and prediction, along the last axis: -1 for equal directions. The
    /// direction of a vector of zeros is zero.
    CosineSimilarity ["cosine_similarity"] |_, y, p| -cosine(&y, &p);

    /// `mean(y_pred - y log(y_pred + 1e-7))`: the negative log-likelihood of counts, less what does not depend on the
    /// prediction.
    Poisson ["poisson"] |_, y, p| last_mean(&(&p - y * (&p + EPSILON).log()));
}

/// The mean over the last axis; a scalar is its own, and so is one number for each sample.
#[track_caller]
pub(crate) fn last_mean(x: &Tensor) -> Tensor {
    if x.rank() < 2 { x.clone() } else { x.mean(-1) }
}

/// The product of both directions, summed over the last axis.
#[track_caller]
pub(crate) fn cosine(y: &Tensor, p: &Tensor) -> Tensor {
    let direction = |x: &Tensor| {
        let square = x.square().sum(Keep(-1));
        // 1 / max(|x|, 1e-7), with the derivative of the constant where that is what counts. 1e-14 exists in f32.
        x * square.maximum(EPSILON * EPSILON).rsqrt()
    };
    (direction(y) * direction(p)).sum(-1)
}
