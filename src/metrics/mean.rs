//! Means and sums, and the metrics that are means over samples of some function.

use std::fmt;
use std::sync::Arc;

use super::{Measure, Observed, Variables, What};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Tensor, here};
use crate::losses::{self, Pairwise, divide_no_nan};

/// The variables of every mean: f32 scalars, the weighted sum of values and the sum of weights.
pub(super) fn zeros() -> Variables {
    vec![Tensor::scalar(0f32), Tensor::scalar(0f32)]
}

/// Sum over count; 0 if nothing was counted.
pub(super) fn ratio(variables: &[Tensor]) -> Tensor {
    divide_no_nan(&variables[0], &variables[1])
}

/// One value and one weight for each sample, Keras' way: the first axis is the samples. Values are averaged over the
/// axes that the weights do not have, weighted, and averaged over the others but the first, as the weights are.
#[track_caller]
fn samplewise(values: &Tensor, weight: Option<&Tensor>) -> (Tensor, Option<Tensor>) {
    let values = values.cast(DType::F32);
    let average = |x: Tensor, from: usize| {
        let axes: Vec<i32> = (from..x.rank()).map(|axis| axis as i32).collect();
        if axes.is_empty() { x } else { x.mean(&axes[..]) }
    };
    let Some(weight) = weight else {
        return (average(values, 1), None);
    };
    let weight = weight.cast(DType::F32);
    if weight.spec().is_none() || values.spec().is_none() {
        return (&values * weight, None);
    }
    // Trailing axes of length 1 that only one of both has mean nothing.
    let mut dims = weight.shape().dims().to_vec();
    while dims.len() > values.rank() && dims.last() == Some(&1) {
        dims.pop();
    }
    let (weight, values) = (weight.reshape(dims.clone()), average(values, dims.len()));
    let target = values.shape();
    if dims.len() != target.rank() || dims.iter().zip(target.iter()).any(|(&w, &v)| w != v && w != 1) {
        let why = "weights must be one for each sample, or have the shape of the values".into();
        let inputs = vec![weight.shape(), target];
        let error = Error::Shape { op: "sample_weight".into(), inputs, why, place: here() };
        return (Tensor::poisoned(error), None);
    }
    let weight = weight.broadcast_to(&target);
    (average(&values * &weight, 1), Some(average(weight, 1)))
}

/// The variables of a mean after more values.
#[track_caller]
pub(super) fn accumulate(variables: &[Tensor], values: &Tensor, weight: Option<&Tensor>) -> Variables {
    let (values, weight) = samplewise(values, weight);
    let total = &variables[0] + values.sum(..);
    let count = match weight {
        Some(weight) => &variables[1] + weight.sum(..),
        // A scalar counts as one sample.
        None => &variables[1] + values.dim(0) as f64,
    };
    vec![total, count]
}

/// The mean of values, such as losses; weights are optional.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mean;

fn value<'a>(metric: &str, observed: &'a Observed) -> Result<&'a Tensor> {
    match &observed.what {
        What::Value(value) => Ok(value),
        What::Pair(..) => {
            Err(Error::Argument { what: format!("metric {metric} takes values; give it Observed::value") })
        }
    }
}

impl Measure for Mean {
    fn name(&self) -> &str {
        "mean"
    }

    fn initial(&self) -> Variables {
        zeros()
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        Ok(accumulate(variables, value("mean", observed)?, observed.weight.as_ref()))
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        ratio(variables)
    }
}

/// The weighted sum of values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum;

impl Measure for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn initial(&self) -> Variables {
        vec![Tensor::scalar(0f32)]
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        let values = value("sum", observed)?.cast(DType::F32);
        let values = match &observed.weight {
            Some(weight) => &values * losses::weight_like(weight, &values),
            None => values,
        };
        Ok(vec![&variables[0] + values.sum(..)])
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        variables[0].clone()
    }
}

/// The mean over samples of a function of targets and predictions.
#[derive(Clone)]
pub struct MeanOf {
    name: Arc<str>,
    function: Arc<dyn Pairwise>,
}

impl MeanOf {
    pub(super) fn new(name: &str, function: Arc<dyn Pairwise>) -> MeanOf {
        MeanOf { name: name.into(), function }
    }
}

impl fmt::Debug for MeanOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeanOf({})", self.name)
    }
}

impl Measure for MeanOf {
    fn name(&self) -> &str {
        &self.name
    }

    fn initial(&self) -> Variables {
        zeros()
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        let (y, y_pred) = observed.as_pair(&self.name)?;
        Ok(accumulate(variables, &(self.function)(y, y_pred), observed.weight.as_ref()))
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        ratio(variables)
    }
}

/// A metric that is the mean over samples of `values`.
macro_rules! mean_metric {
    ($metric:ty, $name:literal, |$this:ident, $y:ident, $y_pred:ident| $values:expr, $result:expr) => {
        impl $crate::metrics::Measure for $metric {
            fn name(&self) -> &str {
                $name
            }

            fn initial(&self) -> $crate::metrics::Variables {
                $crate::metrics::mean::zeros()
            }

            fn update(
                &self,
                variables: &[$crate::graph::Tensor],
                observed: &$crate::metrics::Observed,
            ) -> $crate::error::Result<$crate::metrics::Variables> {
                let ($y, $y_pred) = observed.as_pair($name)?;
                let $this = self;
                Ok($crate::metrics::mean::accumulate(variables, &$values, observed.weight.as_ref()))
            }

            fn result(&self, variables: &[$crate::graph::Tensor]) -> $crate::graph::Tensor {
                let result: fn($crate::graph::Tensor) -> $crate::graph::Tensor = $result;
                result($crate::metrics::mean::ratio(variables))
            }
        }
    };
}
pub(super) use mean_metric;

/// Mean of `(y_pred - y)^2`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeanSquaredError;
mean_metric!(
    MeanSquaredError,
    "mean_squared_error",
    |_this, y, y_pred| losses::MeanSquaredError.values(y, y_pred),
    |mean| mean
);

/// Mean of `|y_pred - y|`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeanAbsoluteError;
mean_metric!(
    MeanAbsoluteError,
    "mean_absolute_error",
    |_this, y, y_pred| losses::MeanAbsoluteError.values(y, y_pred),
    |mean| mean
);

/// Square root of the mean of `(y_pred - y)^2`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RootMeanSquaredError;
mean_metric!(
    RootMeanSquaredError,
    "root_mean_squared_error",
    |_this, y, y_pred| losses::MeanSquaredError.values(y, y_pred),
    |mean| mean.sqrt()
);
