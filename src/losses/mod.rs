//! Losses: how far predictions are from targets, as one scalar to be minimised.
//!
//! Floor 3. A [`Loss`] is a function from targets and predictions to one value for each sample (a mean over the last
//! axis, or a sum over classes) and a [`Reduction`] of these values. The usual ones are structs with public options
//! that become a `Loss` through `From`; each is one row of a table (`table.rs`). Formulas, clipping and weights are
//! Keras'. Deliberately absent: broadcasting of targets against predictions, which turns `[32]` against `[32, 1]` into a
//! `[32, 32]` that trains to nonsense.

mod crossentropy;
mod hinge;
mod regression;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub use crossentropy::{
    BinaryCrossentropy, BinaryFocalCrossentropy, CategoricalCrossentropy, KLDivergence, SparseCategoricalCrossentropy,
};
pub(crate) use crossentropy::{labels, no_classes};
pub use hinge::{CategoricalHinge, Hinge, SquaredHinge};
pub use regression::{
    CosineSimilarity, Huber, LogCosh, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError,
    MeanSquaredLogarithmicError, Poisson,
};
pub(crate) use regression::{cosine, last_mean};

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use table::{Named, find};

use crate::choice::{Choice, Registered};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Tensor, here};
use crate::shape::Shape;
use crate::threads::{MaybeSend, MaybeSync};

/// A function of targets and predictions.
pub trait Pairwise: Fn(&Tensor, &Tensor) -> Tensor + MaybeSend + MaybeSync {}
impl<F: Fn(&Tensor, &Tensor) -> Tensor + MaybeSend + MaybeSync> Pairwise for F {}

/// How values per sample become the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their weighted sum over their number, whatever the weights. Keras' "mean" is the same.
    #[default]
    SumOverBatchSize,
    /// Their weighted sum.
    Sum,
    /// Their weighted sum over the sum of the weights; 0 if that is 0.
    MeanWithSampleWeight,
    /// The weighted values themselves.
    None,
}

impl FromStr for Reduction {
    type Err = Error;

    /// Keras' names: "sum_over_batch_size" and "mean", "sum", "mean_with_sample_weight", "none".
    fn from_str(name: &str) -> Result<Reduction> {
        const ROWS: [Named<Reduction>; 4] = [
            (&["sum_over_batch_size", "mean"], || Reduction::SumOverBatchSize),
            (&["sum"], || Reduction::Sum),
            (&["mean_with_sample_weight"], || Reduction::MeanWithSampleWeight),
            (&["none"], || Reduction::None),
        ];
        find("reduction", ROWS.iter().copied(), name)
    }
}

/// Small enough to change nothing, large enough that its logarithm exists in f32: Keras' epsilon.
pub const EPSILON: f64 = 1e-7;

/// A loss. Cheap to clone.
#[derive(Clone)]
pub struct Loss {
    /// The name.
    pub name: Arc<str>,
    /// Values per sample of targets and predictions.
    pub function: Arc<dyn Pairwise>,
    /// Which of these values count, as bools or weights of their shape; all do where this is absent. The others are
    /// left out of sums and of what means divide by.
    pub counts: Option<Arc<dyn Pairwise>>,
    /// What becomes of them.
    pub reduction: Reduction,
}

/// What `compile` takes as a loss: a name, a [`Loss`], one of the structs here, or a closure.
pub type LossChoice = Choice<Loss>;

impl Loss {
    /// A loss of one's own: `f(&y, &y_pred)` gives one value for each sample.
    pub fn new(name: &str, f: impl Pairwise + 'static) -> Loss {
        Loss { name: name.into(), function: Arc::new(f), counts: None, reduction: Reduction::default() }
    }

    /// The same loss over those values only for which `f(&y, &y_pred)` holds.
    pub fn counting(mut self, f: impl Pairwise + 'static) -> Loss {
        self.counts = Some(Arc::new(f));
        self
    }

    /// The same loss with another reduction.
    pub fn reduction(mut self, reduction: Reduction) -> Loss {
        self.reduction = reduction;
        self
    }

    /// Values per sample, before weights and reduction.
    #[track_caller]
    pub fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        (self.function)(y, y_pred)
    }

    /// What counts, as f32.
    #[track_caller]
    pub(crate) fn counted(&self, y: &Tensor, y_pred: &Tensor) -> Option<Tensor> {
        self.counts.as_ref().map(|counts| counts(y, y_pred).cast(DType::F32))
    }

    /// The loss: a scalar, unless the reduction is [`Reduction::None`].
    ///
    /// `sample_weight` is `[batch]` or has the shape of the values per sample; it multiplies them.
    #[track_caller]
    pub fn call(&self, y: &Tensor, y_pred: &Tensor, sample_weight: Option<&Tensor>) -> Tensor {
        let (values, counts) = (self.values(y, y_pred), self.counted(y, y_pred));
        let number = values.shape().numel().max(1) as f64;
        let weight = weights(&values, sample_weight, counts.as_ref());
        let weighted = match &weight {
            Some(weight) => values * weight,
            None => values,
        };
        match (self.reduction, weight, counts) {
            (Reduction::None, ..) => weighted,
            (Reduction::Sum, ..) => weighted.sum(..),
            (Reduction::MeanWithSampleWeight, Some(by), _) | (Reduction::SumOverBatchSize, _, Some(by)) => {
                divide_no_nan(&weighted.sum(..), &by.sum(..))
            }
            (Reduction::MeanWithSampleWeight | Reduction::SumOverBatchSize, ..) => weighted.sum(..) / number,
        }
    }
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loss({}, {:?})", self.name, self.reduction)
    }
}

/// The table: names, and the loss of each with Keras' defaults.
pub(crate) fn rows() -> impl Iterator<Item = Named<Loss>> + Clone {
    let tables = [regression::ROWS, crossentropy::ROWS, std::slice::from_ref(&crossentropy::SPARSE), hinge::ROWS];
    tables.into_iter().flatten().copied()
}

/// The loss of a name, with Keras' defaults; case and underscores do not matter.
pub fn get(name: &str) -> Result<Loss> {
    find("loss", rows(), name)
}

impl Registered for Loss {
    fn get(name: &str) -> Result<Loss> {
        get(name)
    }
}

impl<F: Pairwise + 'static> From<F> for Choice<Loss> {
    /// A closure is a loss named "loss".
    fn from(f: F) -> Choice<Loss> {
        Choice::Object(Loss::new("loss", f))
    }
}

/// Targets as f32 in the shape of the predictions: `[batch]` and `[batch, 1]` are the same, anything else is refused.
#[track_caller]
pub(crate) fn align(op: &str, y: &Tensor, y_pred: &Tensor) -> (Tensor, Tensor) {
    let y = y.cast(DType::F32);
    let (a, b) = (y.shape(), y_pred.shape());
    let longer = |long: &Shape, short: &Shape| long.split_last() == Some((&1, short.dims()));
    if y.spec().is_none() || y_pred.spec().is_none() || a == b {
        (y, y_pred.clone())
    } else if longer(&a, &b) || longer(&b, &a) {
        // Keras squeezes whichever is longer, or expands the shorter when it has one axis; the elements are the same.
        let (long, short) = if a.rank() > b.rank() { (&a, &b) } else { (&b, &a) };
        let shape = if short.rank() == 1 { long } else { short };
        (y.reshape(shape), y_pred.reshape(shape))
    } else {
        let why = "targets and predictions must have the same shape; they do not broadcast, and class numbers go \
                   with the sparse forms"
            .into();
        let error =
            Tensor::poisoned(Error::new(ErrorKind::Shape { op: op.into(), inputs: vec![a, b], why, place: here() }));
        (error.clone(), error)
    }
}

/// Weights as f32 in the shape of `values`: missing axes are taken to be the last ones, so that `[batch]` weighs
/// samples and never columns.
#[track_caller]
pub(crate) fn weight_like(weight: &Tensor, values: &Tensor) -> Tensor {
    let weight = weight.cast(DType::F32);
    let (shape, target) = (weight.shape(), values.shape());
    if weight.spec().is_none() || values.spec().is_none() || shape == target {
        return weight;
    }
    let mut dims = shape.dims().to_vec();
    while dims.len() > target.rank() && dims.last() == Some(&1) {
        dims.pop();
    }
    dims.resize(target.rank().max(dims.len()), 1);
    let fits = dims.len() == target.rank() && dims.iter().zip(target.iter()).all(|(&w, &v)| w == v || w == 1);
    if !fits {
        let why = "weights must be one for each sample, or have the shape of the values per sample".into();
        let inputs = vec![shape, target];
        return Tensor::poisoned(Error::new(ErrorKind::Shape {
            op: "sample_weight".into(),
            inputs,
            why,
            place: here(),
        }));
    }
    weight.reshape(dims).broadcast_to(&target)
}

/// Weights in the shape of `values`: those of the samples, and 0 for what does not count. None is 1 everywhere.
#[track_caller]
pub(crate) fn weights(values: &Tensor, weight: Option<&Tensor>, counts: Option<&Tensor>) -> Option<Tensor> {
    match (weight.map(|weight| weight_like(weight, values)), counts) {
        (Some(weight), Some(counts)) => Some(weight * counts),
        (weight, counts) => weight.or(counts.cloned()),
    }
}

/// `a / b`, and 0 where `b` is 0.
#[track_caller]
pub(crate) fn divide_no_nan(a: &Tensor, b: &Tensor) -> Tensor {
    let zero = b.eq(0.0);
    // The divisor is made harmless too: a derivative multiplies what it discards by 0, and 0 times infinity is NaN.
    zero.select(0.0, a / zero.select(1.0, b))
}
