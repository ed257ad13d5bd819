//! Means and sums, and the metrics that are means over samples of some function.

use super::table::{measures, metrics};
use super::{Measure, Metric, Observed, Variables, What};
use crate::choice::Choice;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Tensor, here};
use crate::losses::{self, Loss, align, cosine, divide_no_nan};

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
        let error = Error::new(ErrorKind::Shape { op: "sample_weight".into(), inputs, why, place: here() });
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
        What::Pair(..) => Err(Error::argument(format!("metric {metric} takes values; give it Observed::value"))),
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

/// The mean over samples of a function of targets and predictions; its reduction plays no part.
#[derive(Clone, Debug)]
pub(super) struct MeanOf {
    pub loss: Loss,
    /// What becomes of the mean.
    pub finish: fn(&Tensor) -> Tensor,
}

impl From<Loss> for MeanOf {
    fn from(loss: Loss) -> MeanOf {
        MeanOf { loss, finish: Tensor::clone }
    }
}

impl Measure for MeanOf {
    fn name(&self) -> &str {
        &self.loss.name
    }

    fn initial(&self) -> Variables {
        zeros()
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        let (y, y_pred) = observed.as_pair(&self.loss.name)?;
        let (values, weight) = (self.loss.values(y, y_pred), observed.weight.as_ref());
        let Some(counts) = self.loss.counted(y, y_pred) else {
            return Ok(accumulate(variables, &values, weight));
        };
        Ok(accumulate(variables, &values, losses::weights(&values, weight, Some(&counts)).as_ref()))
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        (self.finish)(&ratio(variables))
    }
}

measures! { Mean ["mean"] Sum ["sum"] }

metrics! {
    /// Square root of the mean of `(y_pred - y)^2`.
    RootMeanSquaredError ["root_mean_squared_error", "rmse"] |_, y, p| {
        let (y, p) = align("root_mean_squared_error", y, p);
        (p - y).square()
    }, Tensor::sqrt;

    /// Mean cosine of the angle between target and prediction, along the last axis: 1 for equal directions. The loss of
    /// this name has the other sign.
    CosineSimilarity ["cosine_similarity"] |_, y, p| {
        let (y, p) = align("cosine_similarity", y, p);
        cosine(&y, &p)
    };
}

/// Losses as metrics: means over samples of their values.
macro_rules! means_of_losses {
    ($($loss:ident)*) => {
        $(
            impl From<losses::$loss> for Metric {
                fn from(options: losses::$loss) -> Metric {
                    Loss::from(options).into()
                }
            }

            impl From<losses::$loss> for Choice<Metric> {
                fn from(options: losses::$loss) -> Choice<Metric> {
                    Choice::Object(options.into())
                }
            }
        )*
    };
}
means_of_losses! {
    MeanSquaredError MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredLogarithmicError Huber LogCosh Poisson
    BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy SparseCategoricalCrossentropy KLDivergence
    Hinge SquaredHinge CategoricalHinge
}
