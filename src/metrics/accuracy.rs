//! Accuracies: the fraction of predictions that hit.

use super::mean::mean_metric;
use crate::dtype::DType;
use crate::graph::Tensor;
use crate::losses::{self, align, labels, last_mean};

/// Whether predictions beyond a threshold equal their targets, 0 or 1.
#[derive(Clone, Copy, Debug)]
pub struct BinaryAccuracy {
    /// A prediction above it is a 1; 0.5 by default. For logits it is 0.
    pub threshold: f64,
}

impl Default for BinaryAccuracy {
    fn default() -> BinaryAccuracy {
        BinaryAccuracy { threshold: 0.5 }
    }
}

impl BinaryAccuracy {
    fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        let (y, y_pred) = align("binary_accuracy", y, y_pred);
        last_mean(&y.eq(y_pred.gt(self.threshold).cast(DType::F32)).cast(DType::F32))
    }
}
mean_metric!(BinaryAccuracy, "binary_accuracy", |this, y, y_pred| this.values(y, y_pred), |mean| mean);

/// Whether the largest prediction is at the largest target, which is one-hot or another distribution.
#[derive(Clone, Copy, Debug, Default)]
pub struct CategoricalAccuracy;

fn categorical(y: &Tensor, y_pred: &Tensor) -> Tensor {
    let (y, y_pred) = align("categorical_accuracy", y, y_pred);
    y.argmax(-1).eq(y_pred.argmax(-1)).cast(DType::F32)
}
mean_metric!(CategoricalAccuracy, "categorical_accuracy", |_this, y, y_pred| categorical(y, y_pred), |mean| mean);

/// Whether the largest prediction is at the target, a class number.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseCategoricalAccuracy;

fn sparse(y: &Tensor, y_pred: &Tensor) -> Tensor {
    let labels = labels("sparse_categorical_accuracy", y, y_pred);
    labels.eq(y_pred.argmax(-1)).cast(DType::F32)
}
mean_metric!(SparseCategoricalAccuracy, "sparse_categorical_accuracy", |_this, y, y_pred| sparse(y, y_pred), |mean| {
    mean
});

/// "accuracy": binary, categorical or sparse by the shapes it sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accuracy;
mean_metric!(
    Accuracy,
    "accuracy",
    |_this, y, y_pred| match form(y, y_pred) {
        Form::Binary => BinaryAccuracy::default().values(y, y_pred),
        Form::Sparse => sparse(y, y_pred),
        Form::Categorical => categorical(y, y_pred),
    },
    |mean| mean
);

/// "crossentropy": binary, categorical or sparse by the shapes it sees, from probabilities.
pub(super) fn crossentropy(y: &Tensor, y_pred: &Tensor) -> Tensor {
    match form(y, y_pred) {
        Form::Binary => losses::BinaryCrossentropy::default().values(y, y_pred),
        Form::Sparse => losses::SparseCategoricalCrossentropy::default().values(y, y_pred),
        Form::Categorical => losses::CategoricalCrossentropy::default().values(y, y_pred),
    }
}

enum Form {
    Binary,
    Sparse,
    Categorical,
}

/// Keras' rule: one output is binary; fewer axes in the targets, or a last one of length 1, are class numbers.
fn form(y: &Tensor, y_pred: &Tensor) -> Form {
    let (given, predicted) = (y.shape(), y_pred.shape());
    // A scalar prediction per sample, [batch], has one output too.
    if predicted.rank() < 2 || predicted.last() == Some(&1) {
        Form::Binary
    } else if given.rank() < predicted.rank() || given.last() == Some(&1) {
        Form::Sparse
    } else {
        Form::Categorical
    }
}
