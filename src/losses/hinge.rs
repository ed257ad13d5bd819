//! Margins: nothing is lost once a prediction is right by 1.

use super::table::losses;
use crate::graph::Tensor;

losses! {
    /// `mean(max(1 - y y_pred, 0))`, for targets -1 and 1; if all are 0 or 1, 0 means -1.
    Hinge ["hinge"] |_, y, p| super::last_mean(&margin(&y, &p));

    /// `mean(max(1 - y y_pred, 0)^2)`, for targets -1 and 1; if all are 0 or 1, 0 means -1.
    SquaredHinge ["squared_hinge"] |_, y, p| super::last_mean(&margin(&y, &p).square());

    /// `max(1 + max((1 - y) y_pred) - sum(y y_pred), 0)` over classes, the last axis, for one-hot targets: by how much
    /// the true class fails to beat the best of the others by 1.
    CategoricalHinge ["categorical_hinge"] |_, y, p| {
        let (right, wrong) = ((&y * &p).sum(-1), ((1.0 - y) * p).max(-1));
        (wrong - right + 1.0).maximum(0.0)
    };
}

#[track_caller]
fn margin(y: &Tensor, p: &Tensor) -> Tensor {
    // Keras' rule: it is the whole batch of targets that is binary or not.
    let binary = y.eq(0.0).or(y.eq(1.0)).cast(crate::dtype::DType::F32).min(..).eq(1.0);
    let sign = binary.select(y * 2.0 - 1.0, y);
    (1.0 - sign * p).maximum(0.0)
}
