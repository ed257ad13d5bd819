//! The coefficient of determination, R squared.
//!
//! A file of its own because its batches are merged by their means, as no other metric's are. Deliberately absent: the
//! adjusted form, which needs the number of regressors.

use super::table::measures;
use super::zeros;
use super::{Measure, Observed, Variables};
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::losses::table::options;
use crate::losses::{align, divide_no_nan, weight_like};

options! {
    /// R squared: the part of the variance of the targets that predictions explain, `1 - sum(w (y - y_pred)^2) /
    /// sum(w (y - mean)^2)`, averaged over outputs. An output whose targets are all equal has 0.
    R2Score {
        /// How many outputs a sample has, the length of the last axis; 1 serves `[batch]` too.
        outputs: usize = 1,
    }
}
measures! { R2Score ["r2_score"] }

impl Measure for R2Score {
    fn name(&self) -> &str {
        "r2_score"
    }

    /// Weight seen, mean of the targets, their squared distance from it, and that from the predictions, per output.
    fn initial(&self) -> Variables {
        (0..4).map(|_| zeros(&[self.outputs])).collect()
    }

    fn update(&self, variables: &[Tensor], observed: &Observed) -> Result<Variables> {
        let (y, y_pred) = observed.as_pair("r2_score")?;
        let (y, p) = align("r2_score", y, y_pred);
        let shape = p.ok()?.shape();
        if shape.last() != Some(&self.outputs) && !(self.outputs == 1 && shape.rank() == 1) {
            let what = format!("metric r2_score of {} outputs has predictions {shape}", self.outputs);
            return Err(Error::argument(what));
        }
        let weight = match &observed.weight {
            Some(weight) => weight_like(weight, &p),
            None => Tensor::ones(shape.clone()),
        };
        let rows = [shape.numel() / self.outputs.max(1), self.outputs];
        let (y, p, weight) = (y.reshape(rows), p.reshape(rows), weight.reshape(rows));
        // Batches are merged by their means (Chan, Golub and LeVeque 1979): a difference of large sums of squares, as
        // in the textbook's formula, would leave nothing of a small variance in f32.
        let [seen, mean, spread, missed] = [0, 1, 2, 3].map(|i| &variables[i]);
        let more = weight.sum(0);
        let all = seen + &more;
        let own = divide_no_nan(&(&weight * &y).sum(0), &more);
        let part = divide_no_nan(&more, &all);
        let apart = &own - mean;
        let within = (&weight * (&y - &own).square()).sum(0);
        Ok(vec![
            all,
            mean + &apart * &part,
            spread + within + apart.square() * seen * part,
            missed + (weight * (y - p).square()).sum(0),
        ])
    }

    fn result(&self, variables: &[Tensor]) -> Tensor {
        let (spread, missed) = (&variables[2], &variables[3]);
        // What is NaN stays so, although nothing is divided where there is no spread.
        let unspread = missed.is_nan().select(missed, 0.0);
        spread.eq(0.0).select(unspread, 1.0 - divide_no_nan(missed, spread)).mean(..)
    }
}
