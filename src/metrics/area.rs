//! Areas under curves: how well predictions rank, whatever the threshold.
//!
//! Predictions are compared with evenly spaced thresholds in [0, 1]. Deliberately absent: the exact area, which needs
//! all predictions sorted, and areas per label.

use super::table::measures;
use super::zeros;
use super::{Measure, Observed, Variables};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::losses::table::options;
use crate::losses::{align, divide_no_nan, weight_like};

/// What is drawn against what, each point at another threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Curve {
    /// The part of the targets 1 that are found, over the part of the targets 0 that are taken for 1.
    #[default]
    Roc,
    /// Precision over recall.
    Pr,
}

/// How the curve runs between its points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Summation {
    /// Straight; for [`Curve::Pr`] with counts that run straight, which precision does not (Davis and Goadrich 2006).
    #[default]
    Interpolation,
    /// At the lower of both points.
    Minoring,
    /// At the higher of both points.
    Majoring,
}

options! {
    /// Area under a curve of probabilities against targets 0 and 1, as Keras' AUC.
    Auc {
        /// Points of the curve, at least 2.
        num_thresholds: usize = 200,
        /// Which curve.
        curve: Curve = Curve::Roc,
        /// How it runs between its points.
        summation: Summation = Summation::Interpolation,
        /// Predictions are logits, not probabilities.
        from_logits: bool = false,
    }
}
measures! { Auc ["auc"] }

impl Auc {
    fn points(&self) -> usize {
        self.num_thresholds.max(2)
    }
}

impl Measure for Auc {
    fn name(&self) -> &str {
        "auc"
    }

    /// True and false positives at each threshold. The first lies below all predictions, so its counts are those of
    /// all targets 1 and 0.
    fn initial(&self) -> Variables {
        vec![zeros(&[self.points()]), zeros(&[self.points()])]
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        if self.num_thresholds < 2 {
            let what = format!("metric auc needs 2 thresholds or more, not {}", self.num_thresholds);
            return Err(Error::argument(what));
        }
        let (y, y_pred) = observed.as_pair("auc")?;
        let (y, y_pred) = align("auc", y, y_pred);
        let mut truth = y.ne(0.0).cast(DType::F32);
        let mut falsehood = 1.0 - &truth;
        if let Some(weight) = &observed.weight {
            let weight = weight_like(weight, &truth);
            (truth, falsehood) = (truth * &weight, falsehood * weight);
        }
        let (count, points) = (y_pred.ok()?.shape().numel(), self.points());
        let p = if self.from_logits { y_pred.sigmoid() } else { y_pred };
        // p > i / (n - 1), written without the quotient so that it rounds as Keras' buckets do; below 0 for the first.
        let scaled = (p.clip(0.0, 1.0) * (points - 1) as f64).reshape([1, count]);
        let at = Tensor::iota([points, 1], 0).cast(DType::F32);
        let above = scaled.gt(at.eq(0.0).select(-1.0, at)).cast(DType::F32);
        let above = scaled.is_nan().select(&scaled, above);
        let sums = |of: Tensor| (&above * of.reshape([1, count])).sum(-1);
        Ok(vec![&variables[0] + sums(truth), &variables[1] + sums(falsehood)])
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        let (tp, fp) = (&variables[0], &variables[1]);
        let last = self.points() - 1;
        let (here, next) = (|x: &Tensor| x.slice(0, ..last), |x: &Tensor| x.slice(0, 1..));
        let total = |x: &Tensor| x.slice(0, ..1).broadcast_to(x.shape());
        let recall = divide_no_nan(tp, &total(tp));
        let taken = tp + fp;
        if (self.curve, self.summation) == (Curve::Pr, Summation::Interpolation) {
            let won = here(tp) - next(tp);
            let slope = divide_no_nan(&won, &(here(&taken) - next(&taken)).maximum(0.0));
            let intercept = next(tp) - &slope * next(&taken);
            let both = here(&taken).gt(0.0).and(next(&taken).gt(0.0));
            let ratio = both.select(here(&taken), 1.0) / both.select(next(&taken), 1.0);
            return divide_no_nan(&(slope * (won + intercept * ratio.log())), &next(&total(tp))).sum(..);
        }
        let (x, y) = match self.curve {
            Curve::Roc => (divide_no_nan(fp, &total(fp)), recall),
            Curve::Pr => (recall, divide_no_nan(tp, &taken)),
        };
        let heights = match self.summation {
            Summation::Interpolation => (here(&y) + next(&y)) / 2.0,
            Summation::Minoring => here(&y).minimum(next(&y)),
            Summation::Majoring => here(&y).maximum(next(&y)),
        };
        ((here(&x) - next(&x)) * heights).sum(..)
    }
}
