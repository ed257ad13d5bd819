//! Accuracies: the fraction of predictions that hit.
//!
//! A sample with a NaN among its predictions is NaN, and so is the mean: a comparison would make a miss of it, or a hit,
//! and nobody would notice that the model is gone.

use super::table::metrics;
use crate::dtype::DType;
use crate::graph::Tensor;
use crate::losses::{self, align, labels, no_classes};

metrics! {
    /// Whether predictions beyond a threshold equal their targets, 0 or 1.
    BinaryAccuracy ["binary_accuracy"] {
        /// A prediction above it is a 1; 0.5 by default. For logits it is 0.
        threshold: f64 = 0.5,
    } |this, y, p| binary(y, p, this.threshold);

    /// Whether the largest prediction is at the largest target, which is one-hot or another distribution.
    CategoricalAccuracy ["categorical_accuracy"] |_, y, p| categorical(y, p);

    /// Whether the largest prediction is at the target, a class number.
    SparseCategoricalAccuracy ["sparse_categorical_accuracy"] |_, y, p| sparse(y, p);

    /// "accuracy": binary, categorical or sparse by the shapes it sees.
    Accuracy ["accuracy", "acc"] |_, y, p| match form(y, p) {
        Form::Binary => binary(y, p, 0.5),
        Form::Sparse => sparse(y, p),
        Form::Categorical => categorical(y, p),
    };

    /// "crossentropy": binary, categorical or sparse by the shapes it sees, from probabilities.
    Crossentropy ["crossentropy", "ce"] |_, y, p| match form(y, p) {
        Form::Binary => losses::BinaryCrossentropy::default().values(y, p),
        Form::Sparse => losses::SparseCategoricalCrossentropy::default().values(y, p),
        Form::Categorical => losses::CategoricalCrossentropy::default().values(y, p),
    };

    /// Whether fewer than `k` predictions are larger than the one at the largest target, which is one-hot.
    TopKCategoricalAccuracy ["top_k_categorical_accuracy"] {
        /// How many places there are; those that tie share one.
        k: usize = 5,
    } |this, y, p| {
        let (y, p) = align("top_k_categorical_accuracy", y, p);
        within(&y.argmax(-1), &p, this.k)
    };

    /// Whether fewer than `k` predictions are larger than the one at the target, a class number.
    SparseTopKCategoricalAccuracy ["sparse_top_k_categorical_accuracy"] {
        /// How many places there are; those that tie share one.
        k: usize = 5,
    } |this, y, p| {
        let op = "sparse_top_k_categorical_accuracy";
        no_classes(op, y, p).unwrap_or_else(|| within(&labels(op, y, p), p, this.k))
    };
}

/// 1 for a hit, 0 for a miss, NaN where what was decided on is.
#[track_caller]
fn hits(hit: Tensor, decided_on: &Tensor) -> Tensor {
    decided_on.is_nan().select(decided_on, hit.cast(DType::F32))
}

#[track_caller]
fn binary(y: &Tensor, y_pred: &Tensor, threshold: f64) -> Tensor {
    let (y, y_pred) = align("binary_accuracy", y, y_pred);
    hits(y.eq(y_pred.gt(threshold).cast(DType::F32)), &y_pred)
}

#[track_caller]
fn categorical(y: &Tensor, y_pred: &Tensor) -> Tensor {
    let (y, y_pred) = align("categorical_accuracy", y, y_pred);
    hits(y.argmax(-1).eq(y_pred.argmax(-1)), &y_pred.max(-1))
}

#[track_caller]
fn sparse(y: &Tensor, y_pred: &Tensor) -> Tensor {
    let op = "sparse_categorical_accuracy";
    no_classes(op, y, y_pred).unwrap_or_else(|| hits(labels(op, y, y_pred).eq(y_pred.argmax(-1)), &y_pred.max(-1)))
}

/// Whether the prediction for a class is among the `k` best. For a number that is no class there is none.
#[track_caller]
fn within(class: &Tensor, y_pred: &Tensor, k: usize) -> Tensor {
    if y_pred.rank() == 0 {
        return y_pred.max(-1);
    }
    let at = Tensor::iota(y_pred.shape(), y_pred.rank() - 1).cast(DType::I32).eq(class.unsqueeze(-1));
    let own = at.select(y_pred, f64::from(f32::MIN)).max(-1);
    let better = y_pred.gt(own.unsqueeze(-1)).cast(DType::F32).sum(-1);
    hits(better.lt(k as f64), &y_pred.max(-1))
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
