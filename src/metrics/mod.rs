//! Metrics: what is watched while training, accumulated on the device.
//!
//! Floor 3. A [`Metric`] keeps nothing: its variables are a list of tensors that travels with the step's state.
//! [`Metric::stateless_update_state`] gives the new ones, [`Metric::stateless_result`] the value so far, and
//! [`Metric::initial`] the first ones, to which they are reset at each epoch. A metric of one's own implements
//! [`Measure`]; most are means over samples, every loss among them, and each of these is one row of a table. A NaN
//! among the predictions makes the result NaN. Deliberately absent: composite metrics, since a model's metrics are a
//! flat list; and results that are not one number: `fit`, bar and History know numbers with names. What has more to say
//! keeps it in its variables ([`ConfusionMatrix`], [`F1Score`]), and several thresholds are several metrics.

mod accuracy;
mod area;
mod classes;
mod counts;
mod mean;
mod r2;
mod table;
#[cfg(test)]
mod tests;

pub use crate::layers::Variables;

/// Zeros on the host, a tensor of its own each time: what a variable begins as.
fn zeros(shape: &[usize]) -> Tensor {
    Tensor::new(&vec![0f32; shape.iter().product()], shape)
}

pub use crate::losses::{
    BinaryCrossentropy, BinaryFocalCrossentropy, CategoricalCrossentropy, CategoricalHinge, Hinge, Huber, KLDivergence,
    LogCosh, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError, MeanSquaredLogarithmicError, Poisson,
    SparseCategoricalCrossentropy, SquaredHinge,
};
pub use accuracy::{
    Accuracy, BinaryAccuracy, CategoricalAccuracy, Crossentropy, SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy, TopKCategoricalAccuracy,
};
pub use area::{Auc, Curve, Summation};
pub use classes::{Average, ConfusionMatrix, F1Score, MeanIoU};
pub use counts::{FalseNegatives, FalsePositives, Precision, Recall, TrueNegatives, TruePositives};
pub use mean::{CosineSimilarity, Mean, RootMeanSquaredError, Sum};
pub use r2::R2Score;

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use crate::choice::{Choice, Registered};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Tensor;
use crate::losses::table::find;
use crate::losses::{self, Loss, Pairwise};
use crate::threads::{MaybeSend, MaybeSync};

/// What a metric is updated with: a value, or targets and predictions, and weights for either.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The value or the pair.
    pub what: What,
    /// Weights of the samples, or of the values.
    pub weight: Option<Tensor>,
}

/// A value or a pair.
#[derive(Clone, Debug)]
pub enum What {
    /// A loss, or any other tensor of values.
    Value(Tensor),
    /// Targets and predictions.
    Pair(Tensor, Tensor),
}

impl Observed {
    /// A value, such as a loss.
    pub fn value(value: &Tensor) -> Observed {
        Observed { what: What::Value(value.clone()), weight: None }
    }

    /// Targets and predictions.
    pub fn pair(y: &Tensor, y_pred: &Tensor) -> Observed {
        Observed { what: What::Pair(y.clone(), y_pred.clone()), weight: None }
    }

    /// The same with weights, if there are any: `weighted(&w)`, `weighted(None)`, `weighted(maybe.as_ref())`.
    pub fn weighted<'a>(mut self, weight: impl Into<Option<&'a Tensor>>) -> Observed {
        self.weight = weight.into().cloned();
        self
    }

    /// The pair, or an error that names the metric.
    fn as_pair(&self, metric: &str) -> Result<(&Tensor, &Tensor)> {
        match &self.what {
            What::Pair(y, y_pred) => Ok((y, y_pred)),
            What::Value(_) => {
                let what = format!("metric {metric} compares targets and predictions; give it Observed::pair");
                Err(Error::argument(what))
            }
        }
    }
}

/// How a metric accumulates: its variables, their update and the result.
pub trait Measure: MaybeSend + MaybeSync + 'static {
    /// The name it has unless given another one.
    fn name(&self) -> &str;

    /// First values of the variables, on the host.
    fn initial(&self) -> Variables;

    /// The variables after one more observation. There are as many as in `initial`; an error is returned as such or
    /// as a poisoned tensor.
    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables>;

    /// The value so far, a scalar.
    fn result(&self, variables: &[Tensor]) -> Tensor;
}

impl Debug for dyn Measure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metric. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metric {
    name: Arc<str>,
    measure: Arc<dyn Measure>,
}

/// What `compile` takes as a metric: a name, a [`Metric`], one of the structs here, or a closure.
pub type MetricChoice = Choice<Metric>;

impl Metric {
    /// A metric that accumulates as `measure` does.
    pub fn new(measure: impl Measure) -> Metric {
        Metric { name: measure.name().into(), measure: Arc::new(measure) }
    }

    /// The mean over samples of `f(&y, &y_pred)`, which gives one value for each sample.
    pub fn mean_of(name: &str, f: impl Pairwise + 'static) -> Metric {
        Loss::new(name, f).into()
    }

    /// The same metric under another name, which logs use.
    pub fn named(mut self, name: &str) -> Metric {
        self.name = name.into();
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// First values of the variables: what they are reset to.
    pub fn initial(&self) -> Variables {
        self.measure.initial()
    }

    /// The variables after one more observation. If something does not fit they are poisoned.
    #[track_caller]
    pub fn stateless_update_state(&self, variables: &[Tensor], observed: Observed) -> Variables {
        let poisoned = |error: Error| vec![Tensor::poisoned(error); self.initial().len()];
        match self.check(variables).and_then(|()| self.measure.update(variables, &observed)) {
            Ok(variables) => variables,
            Err(error) => poisoned(error),
        }
    }

    /// The value so far, a scalar. Before the first observation it is 0.
    #[track_caller]
    pub fn stateless_result(&self, variables: &[Tensor]) -> Tensor {
        match self.check(variables) {
            Ok(()) => self.measure.result(variables),
            Err(error) => Tensor::poisoned(error),
        }
    }

    fn check(&self, variables: &[Tensor]) -> Result<()> {
        let (have, need) = (variables.len(), self.initial().len());
        if have != need {
            let what = format!("metric {} has {need} variables, {have} were given", self.name);
            return Err(Error::state(what));
        }
        Ok(())
    }
}

/// The metric of a name, with Keras' defaults; it is called by the name given, and case and underscores do not matter.
/// Every loss is a metric too. "accuracy" and "crossentropy" become the binary, categorical or sparse form when they
/// first see shapes.
pub fn get(name: &str) -> Result<Metric> {
    let rows = [accuracy::ROWS, counts::MEASURES, area::MEASURES, classes::MEASURES, r2::MEASURES, mean::ROWS];
    let rows = rows.into_iter().chain([mean::MEASURES]).flatten().copied();
    let metric = match (find("metric", rows, name), losses::get(name)) {
        (Ok(metric), _) => metric,
        (_, Ok(loss)) => loss.into(),
        (Err(error), Err(loss)) => match (error.kind(), loss.kind()) {
            (ErrorKind::UnknownName { kind, name, known }, ErrorKind::UnknownName { known: losses, .. }) => {
                let (name, known) = (name.clone(), [&known[..], losses].concat());
                return Err(Error::new(ErrorKind::UnknownName { kind, name, known }));
            }
            _ => return Err(error),
        },
    };
    Ok(metric.named(name))
}

impl From<Loss> for Metric {
    /// The mean over samples of a loss' values.
    fn from(loss: Loss) -> Metric {
        Metric::new(mean::MeanOf::from(loss))
    }
}

impl Registered for Metric {
    fn get(name: &str) -> Result<Metric> {
        get(name)
    }
}

impl<F: Pairwise + 'static> From<F> for Choice<Metric> {
    /// A closure is the mean over samples of its values, named "metric".
    fn from(f: F) -> Choice<Metric> {
        Choice::Object(Metric::mean_of("metric", f))
    }
}
