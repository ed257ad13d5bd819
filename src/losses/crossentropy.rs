//! Cross-entropies: -log of the probability given to what was observed.
//!
//! From probabilities (the default) they are clipped to [1e-7, 1 - 1e-7] first; from logits the logarithm is taken of
//! softmax or sigmoid in one stable expression, which is both more exact and one pass.

use super::table::{Named, losses};
use super::{EPSILON, Loss, last_mean};
use crate::choice::Choice;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind};
use crate::graph::{Tensor, here};

losses! {
    /// `-mean(y log(p) + (1 - y) log(1 - p))` over the last axis, for targets between 0 and 1.
    BinaryCrossentropy ["binary_crossentropy", "bce"] {
        /// Predictions are logits, not probabilities.
        from_logits: bool = false,
        /// Moves targets towards 1/2: `y (1 - s) + s / 2`.
        label_smoothing: f64 = 0.0,
    } |this, y, p| last_mean(&binary(&smooth(y, this.label_smoothing, 2), &p, this.from_logits));

    /// Binary cross-entropy times `(1 - q)^gamma`, with `q` the probability given to what was observed: what is
    /// already right counts less (Lin et al. 2017).
    BinaryFocalCrossentropy ["binary_focal_crossentropy"] {
        /// Predictions are logits, not probabilities.
        from_logits: bool = false,
        /// Moves targets towards 1/2: `y (1 - s) + s / 2`.
        label_smoothing: f64 = 0.0,
        /// How much less.
        gamma: f64 = 2.0,
        /// Weight of the targets 1; those 0 have one minus it. None weighs both alike.
        alpha: Option<f64> = None,
    } |this, y, p| {
        let y = smooth(y, this.label_smoothing, 2);
        let entropy = binary(&y, &p, this.from_logits);
        let p = if this.from_logits { p.sigmoid() } else { p };
        let missed = 1.0 - (&y * &p + (1.0 - &y) * (1.0 - &p));
        let focal = missed.pow(this.gamma) * entropy;
        last_mean(&match this.alpha {
            Some(alpha) => focal * (&y * alpha + (1.0 - &y) * (1.0 - alpha)),
            None => focal,
        })
    };

    /// `-sum(y log(p))` over classes, the last axis, for targets that are distributions (one-hot).
    CategoricalCrossentropy ["categorical_crossentropy"] {
        /// Predictions are logits, not probabilities.
        from_logits: bool = false,
        /// Moves targets towards the uniform distribution: `y (1 - s) + s / classes`.
        label_smoothing: f64 = 0.0,
    } |this, y, p| {
        if let Some(refused) = no_classes("categorical_crossentropy", &y, &p) {
            return refused;
        }
        let y = smooth(y, this.label_smoothing, p.shape().last().copied().unwrap_or(1));
        -(y * log_probability(&p, this.from_logits)).sum(-1)
    };

    /// `sum(y log(y / p))` over the last axis, for targets and predictions that are distributions, clipped to
    /// [1e-7, 1].
    KLDivergence ["kl_divergence", "kullback_leibler_divergence", "kld"] |_, y, p| {
        let (y, p) = (y.clip(EPSILON, 1.0), p.clip(EPSILON, 1.0));
        (&y * (&y / p).log()).sum(-1)
    };
}

/// `-log(p[y])`, for targets that are class numbers: integers (f32 ones are cast) `[batch, ..]` or `[batch, .., 1]`
/// beside predictions `[batch, .., classes]`. A number that is no class gives NaN and no derivative, as in optax and in
/// Keras on TensorFlow: silence would hide labels that count from 1. Numbers without meaning have `ignore_class`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SparseCategoricalCrossentropy {
    /// Predictions are logits, not probabilities.
    pub from_logits: bool,
    /// A number that marks what has no class, such as padding: it gives 0 and is not counted in means.
    pub ignore_class: Option<i32>,
}

pub(crate) const SPARSE: Named<Loss> =
    (&["sparse_categorical_crossentropy"], || SparseCategoricalCrossentropy::default().into());

impl SparseCategoricalCrossentropy {
    /// Values per sample.
    #[track_caller]
    pub fn values(&self, y: &Tensor, y_pred: &Tensor) -> Tensor {
        let op = "sparse_categorical_crossentropy";
        if let Some(refused) = no_classes(op, y, y_pred) {
            return refused;
        }
        let labels = labels(op, y, y_pred);
        let counts = self.ignore_class.map(|ignored| labels.ne(f64::from(ignored)));
        // Whatever was predicted for what is ignored, NaN included, reaches neither the loss nor its derivative.
        let y_pred = match &counts {
            Some(counts) => counts.unsqueeze(-1).select(y_pred, 0.0),
            None => y_pred.clone(),
        };
        let log_p = log_probability(&y_pred, self.from_logits);
        let class = Tensor::iota(y_pred.shape(), y_pred.rank() - 1).cast(DType::I32).eq(labels.unsqueeze(-1));
        // Selected, not multiplied: a class that was masked out may have the logarithm -inf.
        let values = -class.select(log_p, 0.0).sum(-1);
        // Looked for along the row, where the kernel is anyway: comparing the label itself would cost a dispatch.
        let found = class.cast(DType::F32).sum(-1).gt(0.0);
        let values = found.select(values, f64::NAN);
        counts.map_or_else(|| values.clone(), |counts| counts.select(&values, 0.0))
    }
}

impl From<SparseCategoricalCrossentropy> for Loss {
    fn from(options: SparseCategoricalCrossentropy) -> Loss {
        let name = "sparse_categorical_crossentropy";
        let loss = Loss::new(name, move |y: &Tensor, y_pred: &Tensor| options.values(y, y_pred));
        match options.ignore_class {
            Some(ignored) => loss.counting(move |y: &Tensor, y_pred: &Tensor| {
                no_classes(name, y, y_pred).unwrap_or_else(|| labels(name, y, y_pred).ne(f64::from(ignored)))
            }),
            None => loss,
        }
    }
}

impl From<SparseCategoricalCrossentropy> for Choice<Loss> {
    fn from(options: SparseCategoricalCrossentropy) -> Choice<Loss> {
        Choice::Object(options.into())
    }
}

/// Class numbers as i32, of the shape of the predictions without the classes.
#[track_caller]
pub(crate) fn labels(op: &str, y: &Tensor, y_pred: &Tensor) -> Tensor {
    let (given, predicted) = (y.shape(), y_pred.shape());
    let batch = &predicted.dims()[..predicted.rank().saturating_sub(1)];
    if y.spec().is_some() && y_pred.spec().is_some() && given.dims() != batch && given.split_last() != Some((&1, batch))
    {
        let why = "targets must be class numbers, one for each row of the predictions; one-hot ones are for the \
                   categorical form"
            .into();
        let inputs = vec![given, predicted];
        return Tensor::poisoned(Error::new(ErrorKind::Shape { op: op.into(), inputs, why, place: here() }));
    }
    y.cast(DType::I32).reshape(batch)
}

/// The error of predictions without an axis of classes, or that of what is poisoned already.
#[track_caller]
pub(crate) fn no_classes(op: &str, y: &Tensor, y_pred: &Tensor) -> Option<Tensor> {
    let poisoned = [y, y_pred].into_iter().find(|t| t.spec().is_none());
    poisoned.cloned().or_else(|| {
        let why = "predictions need an axis of classes, [batch, .., classes]".into();
        let inputs = vec![y.shape(), y_pred.shape()];
        let error = || Error::new(ErrorKind::Shape { op: op.into(), inputs, why, place: here() });
        (y_pred.rank() == 0).then(|| Tensor::poisoned(error()))
    })
}

#[track_caller]
fn smooth(y: Tensor, smoothing: f64, classes: usize) -> Tensor {
    if smoothing == 0.0 { y } else { y * (1.0 - smoothing) + smoothing / classes.max(1) as f64 }
}

/// `-(y log(p) + (1 - y) log(1 - p))`, element by element.
#[track_caller]
fn binary(y: &Tensor, p: &Tensor, from_logits: bool) -> Tensor {
    if from_logits {
        // -log(sigmoid(x)) = softplus(-x). The two-term form keeps small losses exact and is smooth at 0.
        y * (-p).softplus() + (1.0 - y) * p.softplus()
    } else {
        let p = p.clip(EPSILON, 1.0 - EPSILON);
        -(y * p.log() + (1.0 - y) * (1.0 - &p).log())
    }
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
