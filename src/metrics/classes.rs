//! Metrics that keep something for each class: confusion matrix, mean intersection over union, F1.
//!
//! The result is one number; what it was made of stays readable in the variables. How many classes there are is an
//! option, since variables are made before anything was seen.

use super::table::{choices, measures};
use super::zeros;
use super::{Measure, Metric, Observed, Variables};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::losses::{align, divide_no_nan, labels, weight_like};
use crate::ops::Keep;

/// Weighted counts of samples by true class (row) and predicted class (column), f32 `[classes, classes]`: the only
/// variable. The result is the accuracy, the part of the samples on the diagonal.
///
/// Targets are class numbers or one-hot, predictions scores `[batch, .., classes]`; with two classes they may be one
/// probability of class 1, `[batch, .., 1]`. Numbers that are no class are not counted.
#[derive(Clone, Copy, Debug)]
pub struct ConfusionMatrix {
    /// How many classes.
    pub classes: usize,
    /// Targets that are not counted, such as padding.
    pub ignore_class: Option<i32>,
}

/// Mean over classes of intersection over union, from a [`ConfusionMatrix`]: of a class, the samples on the diagonal
/// over those of its row or column. Classes that neither occur nor are predicted do not count.
#[derive(Clone, Copy, Debug)]
pub struct MeanIoU {
    /// How many classes.
    pub classes: usize,
    /// Targets that are not counted, such as padding.
    pub ignore_class: Option<i32>,
}

impl ConfusionMatrix {
    /// Of so many classes.
    pub fn new(classes: usize) -> ConfusionMatrix {
        ConfusionMatrix { classes, ignore_class: None }
    }

    /// Counts of a batch.
    fn matrix(&self, metric: &str, observed: &Observed) -> Result<Tensor> {
        let (y, y_pred) = observed.as_pair(metric)?;
        let shape = y_pred.ok()?.shape();
        let scores = match shape.last() {
            Some(1) if self.classes == 2 => y_pred.clone(),
            Some(&last) if last == self.classes => y_pred.clone(),
            _ => {
                let what = format!("metric {metric} of {} classes has predictions {shape}", self.classes);
                return Err(Error::argument(what));
            }
        };
        let one = shape.last() == Some(&1) && self.classes == 2;
        let truth = if !one && y.shape() == shape { y.argmax(-1) } else { labels(metric, y, y_pred) };
        let decided = if one { scores.gt(0.5).cast(DType::I32).squeeze(-1) } else { scores.argmax(-1) };
        let best = scores.max(-1);
        let mut weight = match &observed.weight {
            Some(weight) => weight_like(weight, &best),
            None => Tensor::ones(best.shape()),
        };
        weight = best.is_nan().select(&best, weight);
        if let Some(ignored) = self.ignore_class {
            weight = truth.eq(f64::from(ignored)).select(0.0, weight);
        }
        let rows = |class: &Tensor| class.one_hot(self.classes).reshape([best.shape().numel(), self.classes]);
        let decided = rows(&decided) * weight.reshape([best.shape().numel(), 1]);
        Ok(rows(&truth).t().matmul(&decided))
    }
}

impl MeanIoU {
    /// Of so many classes.
    pub fn new(classes: usize) -> MeanIoU {
        MeanIoU { classes, ignore_class: None }
    }

    fn matrix(&self) -> ConfusionMatrix {
        ConfusionMatrix { classes: self.classes, ignore_class: self.ignore_class }
    }
}

/// What lies on the diagonal.
fn diagonal(matrix: &Tensor) -> Tensor {
    let on = Tensor::iota(matrix.shape(), 0).eq(Tensor::iota(matrix.shape(), 1));
    on.select(matrix, 0.0).sum(-1)
}

impl Measure for ConfusionMatrix {
    fn name(&self) -> &str {
        "confusion_matrix"
    }

    fn initial(&self) -> Variables {
        vec![zeros(&[self.classes, self.classes])]
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        Ok(vec![&variables[0] + self.matrix(self.name(), observed)?])
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        divide_no_nan(&diagonal(&variables[0]).sum(..), &variables[0].sum(..))
    }
}

impl Measure for MeanIoU {
    fn name(&self) -> &str {
        "mean_io_u"
    }

    fn initial(&self) -> Variables {
        self.matrix().initial()
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        Ok(vec![&variables[0] + self.matrix().matrix(self.name(), observed)?])
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        let both = diagonal(&variables[0]);
        let either = variables[0].sum(0) + variables[0].sum(1) - &both;
        // Not `ne`, which for NaN is false on some devices.
        let occur = either.eq(0.0).select(0.0, 1.0).sum(..);
        divide_no_nan(&divide_no_nan(&both, &either).sum(..), &occur)
    }
}

impl From<ConfusionMatrix> for Metric {
    fn from(measure: ConfusionMatrix) -> Metric {
        Metric::new(measure)
    }
}

impl From<MeanIoU> for Metric {
    fn from(measure: MeanIoU) -> Metric {
        Metric::new(measure)
    }
}
choices! { ConfusionMatrix MeanIoU }

/// How scores of classes become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Average {
    /// Their mean.
    #[default]
    Macro,
    /// The score of the counts of all classes together.
    Micro,
    /// Their mean, weighted by how often each is true.
    Weighted,
}

/// Harmonic mean of precision and recall, `2 tp / (2 tp + fp + fn)`; 0 where there is nothing to count.
///
/// Targets and predictions are `[batch, .., classes]`. The variables are true positives, false positives and false
/// negatives of each class, f32 `[classes]`. By default there is one class, `[batch]` or `[batch, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct F1Score {
    /// How many classes.
    pub classes: usize,
    /// A prediction above it is a 1. None makes a 1 of the largest of each row, unless that is 0.
    pub threshold: Option<f64>,
    /// How the scores of classes become one.
    pub average: Average,
}

impl Default for F1Score {
    fn default() -> F1Score {
        F1Score { classes: 1, threshold: Some(0.5), average: Average::Macro }
    }
}
measures! { F1Score ["f1_score"] }

impl F1Score {
    /// Of so many classes, of which each row has one.
    pub fn new(classes: usize) -> F1Score {
        F1Score { classes, threshold: None, average: Average::Macro }
    }
}

impl Measure for F1Score {
    fn name(&self) -> &str {
        "f1_score"
    }

    fn initial(&self) -> Variables {
        (0..3).map(|_| zeros(&[self.classes])).collect()
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        let (y, y_pred) = observed.as_pair("f1_score")?;
        let (mut y, mut p) = align("f1_score", y, y_pred);
        let shape = p.ok()?.shape();
        if self.classes == 1 && shape.last() != Some(&1) && shape.rank() == 1 {
            (y, p) = (y.unsqueeze(-1), p.unsqueeze(-1));
        }
        if p.shape().last() != Some(&self.classes) {
            let what = format!("metric f1_score of {} classes has predictions {shape}", self.classes);
            return Err(Error::argument(what));
        }
        let decided = match self.threshold {
            Some(threshold) => p.gt(threshold),
            None => p.ge(p.max(Keep(-1))).and(p.abs().gt(1e-9)),
        };
        let positive = p.is_nan().select(&p, decided.cast(DType::F32));
        let weight = observed.weight.as_ref().map(|weight| weight_like(weight, &p));
        let sum = |counts: Tensor| {
            let counts = weight.as_ref().map_or(counts.clone(), |weight| counts * weight);
            counts.reshape([counts.shape().numel() / self.classes.max(1), self.classes]).sum(0)
        };
        let counts = [sum(&positive * &y), sum(&positive * (1.0 - &y)), sum((1.0 - &positive) * &y)];
        Ok(variables.iter().zip(counts).map(|(sum, more)| sum + more).collect())
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        let score = |counts: &[Tensor]| {
            let twice = &counts[0] * 2.0;
            divide_no_nan(&twice, &(&twice + &counts[1] + &counts[2]))
        };
        match self.average {
            Average::Macro => score(variables).mean(..),
            Average::Micro => score(&variables.iter().map(|count| count.sum(..)).collect::<Vec<_>>()),
            Average::Weighted => {
                let true_ones = &variables[0] + &variables[2];
                divide_no_nan(&(score(variables) * &true_ones).sum(..), &true_ones.sum(..))
            }
        }
    }
}
