//! [`Batch`]: the inputs, targets and weights that a step gets.
//!
//! A plain structure with public fields, so that a model with several inputs or none of the targets is an ordinary
//! case; the accessors are for the usual one. Deliberately absent: names of inputs and outputs, which belong to the
//! model; [`by_name`](crate::model::Train::by_name) puts named tensors into its order.

use crate::error::{Error, Result};
use crate::graph::{Tensor, Tree};

/// Rows to train or evaluate on: every tensor has one row for each sample along its first axis.
///
/// Made from `x`, `(x, y)` or `(x, y, sample_weight)`, by reference or by value; the same as vectors serves models with
/// several inputs or outputs.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// What the model is called with.
    pub inputs: Vec<Tensor>,
    /// What the loss compares the predictions to; empty for prediction and for losses of the inputs alone.
    pub targets: Vec<Tensor>,
    /// How much each sample counts in the loss and in weighted metrics, shape `[rows]` or that of the loss's values:
    /// none, one for all outputs, or one for each.
    pub sample_weights: Vec<Tensor>,
}

impl Batch {
    /// The only input.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::error::ErrorKind::Data) if there are none or several; use [`inputs`](Batch::inputs) then.
    pub fn x(&self) -> Result<Tensor> {
        match self.inputs.as_slice() {
            [x] => Ok(x.clone()),
            _ => Err(self.not("one input")),
        }
    }

    /// The only input and the only target.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::error::ErrorKind::Data) if there is not exactly one of each; use the fields then.
    pub fn xy(&self) -> Result<(Tensor, Tensor)> {
        match (self.inputs.as_slice(), self.targets.as_slice()) {
            ([x], [y]) => Ok((x.clone(), y.clone())),
            _ => Err(self.not("one input and one target")),
        }
    }

    /// [`xy`](Batch::xy) and the sample weights, if there are any.
    ///
    /// # Errors
    /// As for [`xy`](Batch::xy).
    pub fn xyw(&self) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let (x, y) = self.xy()?;
        Ok((x, y, self.weight_of(0).cloned()))
    }

    /// The sample weights for an output, if there are any: its own, or the only ones.
    pub fn weight_of(&self, output: usize) -> Option<&Tensor> {
        match self.sample_weights.as_slice() {
            [all] => Some(all),
            each => each.get(output),
        }
    }

    /// Number of rows: the length of the first input's first axis, 0 without inputs.
    pub fn size(&self) -> usize {
        self.inputs.first().map_or(0, |x| x.dim(0))
    }

    fn not(&self, wanted: &str) -> Error {
        let count = |n: usize, name: &str| format!("{n} {name}{}", if n == 1 { "" } else { "s" });
        let (inputs, targets) = (count(self.inputs.len(), "input"), count(self.targets.len(), "target"));
        Error::data(format!("the batch has {inputs} and {targets}, {wanted} was expected"))
    }
}

impl Tree for Batch {
    fn visit(&self, f: &mut dyn FnMut(&Tensor)) {
        self.inputs.visit(f);
        self.targets.visit(f);
        self.sample_weights.visit(f);
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Batch {
        // Fields are evaluated as written, which is the order of `visit`.
        Batch { inputs: self.inputs.map(f), targets: self.targets.map(f), sample_weights: self.sample_weights.map(f) }
    }
}

impl From<&Batch> for Batch {
    fn from(batch: &Batch) -> Batch {
        batch.clone()
    }
}

impl From<Tensor> for Batch {
    fn from(x: Tensor) -> Batch {
        Batch { inputs: vec![x], ..Batch::default() }
    }
}

impl From<(Tensor, Tensor)> for Batch {
    fn from((x, y): (Tensor, Tensor)) -> Batch {
        Batch { inputs: vec![x], targets: vec![y], ..Batch::default() }
    }
}

impl From<(Tensor, Tensor, Tensor)> for Batch {
    fn from((x, y, weight): (Tensor, Tensor, Tensor)) -> Batch {
        Batch { inputs: vec![x], targets: vec![y], sample_weights: vec![weight] }
    }
}

impl From<&Tensor> for Batch {
    fn from(x: &Tensor) -> Batch {
        x.clone().into()
    }
}

impl From<(&Tensor, &Tensor)> for Batch {
    fn from((x, y): (&Tensor, &Tensor)) -> Batch {
        (x.clone(), y.clone()).into()
    }
}

impl From<(&Tensor, &Tensor, &Tensor)> for Batch {
    fn from((x, y, weight): (&Tensor, &Tensor, &Tensor)) -> Batch {
        (x.clone(), y.clone(), weight.clone()).into()
    }
}

impl From<(Vec<Tensor>, Vec<Tensor>)> for Batch {
    fn from((inputs, targets): (Vec<Tensor>, Vec<Tensor>)) -> Batch {
        Batch { inputs, targets, ..Batch::default() }
    }
}

impl From<(Vec<Tensor>, Vec<Tensor>, Vec<Tensor>)> for Batch {
    fn from((inputs, targets, sample_weights): (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>)) -> Batch {
        Batch { inputs, targets, sample_weights }
    }
}

impl From<Vec<Tensor>> for Batch {
    fn from(inputs: Vec<Tensor>) -> Batch {
        Batch { inputs, ..Batch::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn rows(n: usize) -> Tensor {
        Tensor::new(&vec![0.0; 2 * n], [n, 2])
    }

    #[test]
    fn the_usual_tuples_are_batches() {
        let (x, y, w) = (rows(3), rows(3), Tensor::new(&[1.0; 3], [3]));
        for batch in [Batch::from((&x, &y)), Batch::from((x.clone(), y.clone()))] {
            let (bx, by, bw) = batch.xyw().unwrap();
            assert!(bx.same(&x) && by.same(&y) && bw.is_none());
        }
        for batch in [Batch::from((&x, &y, &w)), Batch::from((x.clone(), y.clone(), w.clone()))] {
            assert!(batch.xyw().unwrap().2.is_some_and(|b| b.same(&w)));
        }
        for batch in [Batch::from(&x), Batch::from(x.clone())] {
            assert!(batch.x().unwrap().same(&x));
            assert_eq!((batch.size(), batch.targets.len()), (3, 0));
        }
        assert_eq!(Batch::default().size(), 0);
    }

    #[test]
    fn what_is_missing_is_counted() {
        let message = |result: Result<(Tensor, Tensor)>| result.unwrap_err().to_string();
        let two = Batch::from((vec![rows(1), rows(1)], vec![rows(1)]));
        assert_eq!(message(two.xy()), "the batch has 2 inputs and 1 target, one input and one target was expected");
        let none = Batch::from(rows(1));
        assert_eq!(message(none.xy()), "the batch has 1 input and 0 targets, one input and one target was expected");
        assert!(matches!(two.x(), Err(error) if matches!(error.kind(), ErrorKind::Data { .. })));
    }

    #[test]
    fn visiting_and_mapping_keep_one_order() {
        let batch = Batch {
            inputs: vec![rows(1), rows(2)],
            targets: vec![rows(3)],
            sample_weights: vec![Tensor::new(&[1.0; 4], [4])],
        };
        let mut mapped = Vec::new();
        let copy = batch.map(&mut |t| {
            mapped.push(t.dim(0));
            t.clone()
        });
        assert_eq!(mapped, [1, 2, 3, 4]);
        assert!(copy.leaves().iter().zip(batch.leaves()).all(|(a, b)| a.same(&b)));
        assert_eq!(copy.leaves().len(), 4);
    }
}
