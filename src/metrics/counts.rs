//! Decisions against truths: true and false positives and negatives, precision and recall.
//!
//! A prediction above a threshold is a decision for 1, a target that is not 0 is true. All elements of a batch are
//! alike, those of a row of labels too. A NaN prediction is counted as NaN.

use super::table::measures;
use super::{Measure, Observed, Variables};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::losses::table::options;
use crate::losses::{align, divide_no_nan, weight_like};

/// What makes a decision of a prediction.
struct Decision {
    threshold: Option<f64>,
    top_k: Option<usize>,
    class_id: Option<usize>,
}

/// Weighted counts of a batch, scalars.
struct Counts {
    true_positives: Tensor,
    false_positives: Tensor,
    true_negatives: Tensor,
    false_negatives: Tensor,
}

impl Decision {
    fn counts(&self, metric: &str, observed: &Observed) -> Result<Counts> {
        let (y, y_pred) = observed.as_pair(metric)?;
        let (mut y, y_pred) = align(metric, y, y_pred);
        let classes = y_pred.shape().last().copied().unwrap_or(0);
        if (self.top_k.is_some() && y_pred.rank() < 1) || self.class_id.is_some_and(|id| id >= classes) {
            let shape = y_pred.ok()?.shape();
            let what = format!("metric {metric} needs an axis of classes that has its class_id, not {shape}");
            return Err(Error::argument(what));
        }
        let above = |threshold: f64| y_pred.gt(threshold);
        let decided = match (self.threshold, self.top_k) {
            (None, None) => above(0.5),
            (Some(threshold), None) => above(threshold),
            (None, Some(k)) => best(&y_pred, k),
            (Some(threshold), Some(k)) => above(threshold).and(best(&y_pred, k)),
        };
        let mut positive = y_pred.is_nan().select(&y_pred, decided.cast(DType::F32));
        if let Some(id) = self.class_id {
            (y, positive) = (y.slice(-1, id..id + 1), positive.slice(-1, id..id + 1));
        }
        let mut truth = y.ne(0.0).cast(DType::F32);
        let mut falsehood = 1.0 - &truth;
        if let Some(weight) = &observed.weight {
            let weight = weight_like(weight, &truth);
            (truth, falsehood) = (truth * &weight, falsehood * weight);
        }
        let negative = 1.0 - &positive;
        Ok(Counts {
            true_positives: (&positive * &truth).sum(..),
            false_positives: (positive * &falsehood).sum(..),
            true_negatives: (&negative * falsehood).sum(..),
            false_negatives: (negative * truth).sum(..),
        })
    }
}

/// The `k` largest of each row; of equal ones the first. Each element is compared with each of its row.
fn best(x: &Tensor, k: usize) -> Tensor {
    let (rank, shape) = (x.rank(), x.shape());
    let pairs = [shape.dims(), &shape.dims()[rank.saturating_sub(1)..]].concat();
    let (own, other) = (x.unsqueeze(-1), x.unsqueeze(-2));
    let earlier = Tensor::iota(pairs.clone(), rank).lt(Tensor::iota(pairs, rank.saturating_sub(1)));
    let ahead = other.gt(&own).or(other.eq(&own).and(&earlier));
    ahead.cast(DType::F32).sum(-1).lt(k as f64)
}

/// Rows: documentation, type, name, options, what they decide by, the counts kept, and the result of these.
macro_rules! counts {
    ($($(#[$doc:meta])* $metric:ident $name:literal {$($fields:tt)*} |$this:ident| $decision:expr,
        [$($kept:ident),*] $result:expr;)*) => {
        $(
            options! { $(#[$doc])* $metric {$($fields)*} }

            impl Measure for $metric {
                fn name(&self) -> &str {
                    $name
                }

                fn initial(&self) -> Variables {
                    vec![$({ let _ = stringify!($kept); Tensor::scalar(0f32) }),*]
                }

                fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
                    let $this = self;
                    let counts = $decision.counts($name, observed)?;
                    Ok(variables.iter().zip([$(counts.$kept),*]).map(|(sum, more)| sum + more).collect())
                }

                fn result(&self, variables: &[Tensor]) -> Tensor {
                    let result: fn(&[Tensor]) -> Tensor = $result;
                    result(variables)
                }
            }
        )*
        measures! { $($metric [$name])* }
    };
}

fn beyond(threshold: f64) -> Decision {
    Decision { threshold: Some(threshold), top_k: None, class_id: None }
}

/// The first count over the sum of both; 0 if that is 0.
fn share(counts: &[Tensor]) -> Tensor {
    divide_no_nan(&counts[0], &(&counts[0] + &counts[1]))
}

counts! {
    /// How many decisions for 1 are right.
    TruePositives "true_positives" {
        /// A prediction above it is a 1.
        threshold: f64 = 0.5,
    } |this| beyond(this.threshold), [true_positives] |counts| counts[0].clone();

    /// How many decisions for 1 are wrong.
    FalsePositives "false_positives" {
        /// A prediction above it is a 1.
        threshold: f64 = 0.5,
    } |this| beyond(this.threshold), [false_positives] |counts| counts[0].clone();

    /// How many decisions for 0 are right.
    TrueNegatives "true_negatives" {
        /// A prediction above it is a 1.
        threshold: f64 = 0.5,
    } |this| beyond(this.threshold), [true_negatives] |counts| counts[0].clone();

    /// How many decisions for 0 are wrong.
    FalseNegatives "false_negatives" {
        /// A prediction above it is a 1.
        threshold: f64 = 0.5,
    } |this| beyond(this.threshold), [false_negatives] |counts| counts[0].clone();

    /// The part of the decisions for 1 that are right; 0 if there are none.
    Precision "precision" {
        /// A prediction above it is a 1. None is 0.5, or with `top_k` no threshold.
        threshold: Option<f64> = None,
        /// Only the so many largest predictions of a row can be a 1.
        top_k: Option<usize> = None,
        /// Only this element of each row counts.
        class_id: Option<usize> = None,
    } |this| Decision { threshold: this.threshold, top_k: this.top_k, class_id: this.class_id },
        [true_positives, false_positives] share;

    /// The part of the targets 1 that were found; 0 if there are none.
    Recall "recall" {
        /// A prediction above it is a 1. None is 0.5, or with `top_k` no threshold.
        threshold: Option<f64> = None,
        /// Only the so many largest predictions of a row can be a 1.
        top_k: Option<usize> = None,
        /// Only this element of each row counts.
        class_id: Option<usize> = None,
    } |this| Decision { threshold: this.threshold, top_k: this.top_k, class_id: this.class_id },
        [true_positives, false_negatives] share;
}
