//! Cross-entropies: -log of the probability given to what was observed.
//!
//! From probabilities (the default) they are clipped to [1e-7, 1 - 1e-7] first; from logits the logarithm is taken of
//! softmax or sigmoid in one stable expression, which is both more exact and one pass.

use super::regression::last_mean;
use super::{EPSILON, align};
use crate::dtype::DType;
use crate::error::Error;
use crate::graph::{Tensor, here};

/// `-mean(y log(p) + (1 - y) log(1 - p))` over the last axis, for targets between 0 and 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct BinaryCrossentropy {
    /// Predictions are logits, not probabilities.
    pub from_logits: bool,
    /// Moves targets towards 1/2: `y (1 - s) + s / 2`.
    pub label_smoothing: f64,
}

impl BinaryCrossentropy {
    /// Values per sample.
    #[track_caller]
    pub fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        let (y, p) = align("binary_crossentropy", y, y_pred);
        let y = smooth(y, self.label_smoothing, 2);
        last_mean(&if self.from_logits {
            // -log(sigmoid(x)) = softplus(-x). The two-term form keeps small losses exact and is smooth at 0.
            &y * (-&p).softplus() + (1.0 - &y) * p.softplus()
        } else {
            let p = p.clip(EPSILON, 1.0 - EPSILON);
            -(&y * p.log() + (1.0 - &y) * (1.0 - &p).log())
        })
    }
}

/// `-sum(y log(p))` over classes, the last axis, for targets that are distributions (one-hot).
#[derive(Clone, Copy, Debug, Default)]
pub struct CategoricalCrossentropy {
    /// Predictions are logits, not probabilities.
    pub from_logits: bool,
    /// Moves targets towards the uniform distribution: `y (1 - s) + s / classes`.
    pub label_smoothing: f64,
}

impl CategoricalCrossentropy {
    /// Values per sample.
    #[track_caller]
    pub fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        let op = "categorical_crossentropy";
        if let Some(refused) = no_classes(op, y, y_pred) {
            return refused;
        }
        let (y, p) = align(op, y, y_pred);
        let y = smooth(y, self.label_smoothing, p.shape().last().copied().unwrap_or(1));
        -(y * log_probability(&p, self.from_logits)).sum(-1)
    }
}

/// `-log(p[y])`, for targets that are class numbers: integers (f32 ones are cast) `[batch, ..]` or `[batch, .., 1]`
/// beside predictions `[batch, .., classes]`. A number that is no class gives 0, as in Keras.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseCategoricalCrossentropy {
    /// Predictions are logits, not probabilities.
    pub from_logits: bool,
}

impl SparseCategoricalCrossentropy {
    /// Values per sample.
    #[track_caller]
    pub fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        let op = "sparse_categorical_crossentropy";
        if let Some(refused) = no_classes(op, y, y_pred) {
            return refused;
        }
        let labels = labels(op, y, y_pred);
        let log_p = log_probability(y_pred, self.from_logits);
        let class = Tensor::iota(y_pred.shape(), y_pred.rank() - 1).cast(DType::I32).eq(labels.unsqueeze(-1));
        // Selected, not multiplied: a class that was masked out may have the logarithm -inf.
        -class.select(log_p, 0.0).sum(-1)
    }
}

/// Class numbers as i32, of the shape of the predictions without the classes.
#[track_caller]
pub(crate) fn labels(op: &str, y: &Tensor, y_pred: &Tensor) -> Tensor {
    let (given, predicted) = (y.shape(), y_pred.shape());
    let batch = &predicted.dims()[..predicted.rank().saturating_sub(1)];
    if y.spec().is_some() && given.dims() != batch && given.split_last() != Some((&1, batch)) {
        let why = "targets must be class numbers, one for each row of the predictions; one-hot ones are for the \
                   categorical form"
            .into();
        let inputs = vec![given, predicted];
        return Tensor::poisoned(Error::Shape { op: op.into(), inputs, why, place: here() });
    }
    y.cast(DType::I32).reshape(batch)
}

#[track_caller]
fn no_classes(op: &str, y: &Tensor, y_pred: &Tensor) -> Option<Tensor> {
    let poisoned = [y, y_pred].into_iter().find(|t| t.spec().is_none());
    poisoned.cloned().or_else(|| {
        let why = "predictions need an axis of classes, [batch, .., classes]".into();
        let inputs = vec![y.shape(), y_pred.shape()];
        let error = || Error::Shape { op: op.into(), inputs, why, place: here() };
        (y_pred.rank() == 0).then(|| Tensor::poisoned(error()))
    })
}

#[track_caller]
fn smooth(y: Tensor, smoothing: f64, classes: usize) -> Tensor {
    if smoothing == 0.0 { y } else { y * (1.0 - smoothing) + smoothing / classes.max(1) as f64 }
}

/// Logarithm of the probability of each class.
#[track_caller]
fn log_probability(p: &Tensor, from_logits: bool) -> Tensor {
    if from_logits {
        return p.log_softmax(-1);
    }
    // Rows are scaled to sum 1 first, as Keras does; a softmax leaves nothing to scale.
    let total = p.sum(crate::ops::Keep(-1));
    (p / total).clip(EPSILON, 1.0 - EPSILON).log()
}
