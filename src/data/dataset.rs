//! [`Data`]: a data set in host memory.
//!
//! It is checked once, when it is made, so that a training that started does not stop over its data. The tensors stay
//! as they were given and are shared; parts of a data set are ranges of rows, and only [`rows`](Data::rows) copies.
//! Deliberately absent: data sets larger than memory, and a set resident on a device.

use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Place, Result};
use crate::graph::{Spec, Tensor, here};
use crate::host::Float;

use super::Batch;

/// A set of samples: inputs, targets and weights whose first axes agree, with values on the host.
#[derive(Clone, Debug)]
pub struct Data {
    inputs: Vec<Column>,
    targets: Vec<Column>,
    sample_weights: Vec<Column>,
    first: usize,
    len: usize,
}

/// One tensor of the set.
#[derive(Clone, Debug)]
struct Column {
    bits: Arc<[u32]>,
    spec: Spec,
    /// Elements of one row.
    width: usize,
}

impl Data {
    /// A data set of whole tensors: whatever a [`Batch`] is made from.
    ///
    /// # Errors
    /// The error of a poisoned tensor; [`ErrorKind::Data`](crate::error::ErrorKind::Data) if there are no inputs or no rows, if a tensor is a scalar, if
    /// numbers of rows differ, or if a tensor has no value on the host.
    pub fn new(whole: impl Into<Batch>) -> Result<Data> {
        let whole = whole.into();
        let named = |name: &str, tensors: &[Tensor]| -> Result<Vec<(String, Column)>> {
            let name = |i: usize| if tensors.len() == 1 { name.to_string() } else { format!("{name} {i}") };
            tensors.iter().enumerate().map(|(i, t)| Ok((name(i), Column::new(&name(i), t)?))).collect()
        };
        let inputs = named("the input", &whole.inputs)?;
        let targets = named("the target", &whole.targets)?;
        let weight = named("the sample weight", &whole.sample_weights)?;

        let Some((first_name, first)) = inputs.first() else {
            return Err(Error::data("a data set needs at least one input"));
        };
        let len = first.spec.shape[0];
        for (name, column) in inputs.iter().chain(&targets).chain(&weight) {
            let rows = column.spec.shape[0];
            if rows != len {
                return Err(Error::data(format!("{first_name} has {len} rows, but {name} has {rows}")));
            }
        }
        if len == 0 {
            return Err(Error::data(format!("the data set is empty: {first_name} has 0 rows")));
        }

        let columns = |named: Vec<(String, Column)>| named.into_iter().map(|(_, column)| column);
        Ok(Data {
            inputs: columns(inputs).collect(),
            targets: columns(targets).collect(),
            sample_weights: columns(weight).collect(),
            first: 0,
            len,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: a data set has rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The given rows, in that order, as new host tensors. A row beyond the last poisons them.
    #[track_caller]
    pub fn rows(&self, rows: &[usize]) -> Batch {
        let place = here();
        let gather = |column: &Column| match rows.iter().find(|&&row| row >= self.len) {
            Some(row) => Tensor::poisoned(Error::data(format!(
                "row {row} of a data set of {} rows was asked ({place})",
                self.len
            ))),
            None => column.gather(self.first, rows, place.clone()),
        };
        Batch {
            inputs: self.inputs.iter().map(gather).collect(),
            targets: self.targets.iter().map(gather).collect(),
            sample_weights: self.sample_weights.iter().map(gather).collect(),
        }
    }

    /// The first rows to train on, and the last `n - floor(n (1 - fraction))` of all `n` to validate on: the rule of
    /// Keras' `validation_split`, applied before any shuffling. Copies nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument) if `fraction` is not between 0 and 1; [`ErrorKind::Data`](crate::error::ErrorKind::Data) if either part would be empty.
    pub fn split(&self, fraction: f64) -> Result<(Data, Data)> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::argument(format!(
                "a split of {} is not a fraction of the rows; give one between 0 and 1",
                Float(fraction)
            )));
        }
        let at = (self.len as f64 * (1.0 - fraction)).floor() as usize;
        if at == 0 || at == self.len {
            return Err(Error::data(format!(
                "a split of {} leaves no rows in one part of a data set of {}",
                Float(fraction),
                self.len
            )));
        }
        let part = |first, len| Data { first: self.first + first, len, ..self.clone() };
        Ok((part(0, at), part(at, self.len - at)))
    }
}

impl Data {
    /// The same rows, each weighed by its class, as Keras' `class_weight` does: the class is the target rounded to an
    /// integer, or the place of the largest one where a row has several; classes that are not listed weigh 1.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument) if there are sample weights already, not one target, or more than one class in a row of it.
    pub fn class_weighted(mut self, weights: &[(usize, f64)]) -> Result<Data> {
        let refused = |what: &str| Err(Error::argument(format!("class_weight: {what}")));
        if !self.sample_weights.is_empty() {
            return refused("the data has sample weights; give either, or multiply the sample weights yourself");
        }
        let [target] = self.targets.as_slice() else {
            return refused(match self.targets.len() {
                0 => "there are no targets; give (x, y)",
                _ => "it is for one target; give sample weights, which there may be one of for each",
            });
        };
        if target.spec.shape.rank() > 2 {
            return refused("a target must be [rows], [rows, 1] or one-hot [rows, classes]; give sample weights");
        }
        let number = |bits: u32| match target.spec.dtype {
            DType::F32 => f64::from(f32::from_bits(bits)),
            DType::I32 => f64::from(bits as i32),
            DType::U32 | DType::Bool => f64::from(bits),
        };
        let weight = |row: &[u32]| {
            let class = match row {
                // Ties go to the even number, as in NumPy.
                [one] => number(*one).round_ties_even(),
                several => {
                    let larger =
                        |best: usize, i: usize| if number(several[i]) > number(several[best]) { i } else { best };
                    (0..several.len()).fold(0, larger) as f64
                }
            };
            weights.iter().find(|(of, _)| *of as f64 == class).map_or(1.0, |(_, weight)| *weight) as f32
        };
        // Of all rows, also of those that are not in this part: columns are shared by the parts and start together.
        let rows = target.spec.shape[0];
        let bits = (0..rows).map(|row| weight(&target.bits[row * target.width..][..target.width]).to_bits()).collect();
        self.sample_weights = vec![Column { bits, spec: Spec::new([rows], DType::F32), width: 1 }];
        Ok(self)
    }
}

impl Column {
    fn new(name: &str, tensor: &Tensor) -> Result<Column> {
        let (node, output) = tensor.node()?;
        let spec = node.outputs()[output].clone();
        if spec.shape.rank() == 0 {
            return Err(Error::data(format!("{name} is a scalar and has no rows; give it an axis of samples")));
        }
        let Some(bits) = node.value(output).host else {
            let what = format!(
                "{name} has no value on the host; read it first and make the data set of a tensor of what was read"
            );
            return Err(Error::data(what));
        };
        let width = spec.shape[1..].iter().product();
        Ok(Column { bits, spec, width })
    }

    fn gather(&self, first: usize, rows: &[usize], place: Place) -> Tensor {
        let width = self.width;
        // Zeros of known length are allocated as the shared slice itself; a vector would have to be copied into one.
        let mut bits: Arc<[u32]> = std::iter::repeat_n(0, rows.len() * width).collect();
        let out = Arc::make_mut(&mut bits);
        let mut done = 0;
        // Neighbouring rows are one copy: an unshuffled batch is one altogether.
        for run in rows.chunk_by(|a, b| a + 1 == *b) {
            let (from, n) = ((first + run[0]) * width, run.len() * width);
            out[done..done + n].copy_from_slice(&self.bits[from..from + n]);
            done += n;
        }
        let mut shape = self.spec.shape.to_vec();
        shape[0] = rows.len();
        Tensor::from_bits(bits, Spec::new(shape, self.spec.dtype), place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// n rows of [i, -i] and the label i.
    fn numbered(n: usize) -> Batch {
        let x: Vec<f32> = (0..n).flat_map(|i| [i as f32, -(i as f32)]).collect();
        let y: Vec<i32> = (0..n as i32).collect();
        (Tensor::new(&x, [n, 2]), Tensor::new(&y, [n])).into()
    }

    fn labels(batch: &Batch) -> Vec<u32> {
        let (node, output) = batch.targets[0].node().unwrap();
        node.value(output).host.unwrap().to_vec()
    }

    fn message(result: Result<Data>) -> String {
        match result.map_err(Error::into_kind) {
            Err(ErrorKind::Data { what }) => what,
            other => panic!("a data error was expected, got {other:?}"),
        }
    }

    #[test]
    fn rows_are_gathered_in_the_order_asked() {
        let data = Data::new(numbered(10)).unwrap();
        let batch = data.rows(&[7, 2, 3, 4, 9, 2]);
        let (x, y) = batch.xy().unwrap();
        assert_eq!((x.shape(), y.shape()), ([6, 2].into(), [6].into()));
        assert_eq!((x.dtype(), y.dtype()), (DType::F32, DType::I32));
        assert_eq!(labels(&batch), [7, 2, 3, 4, 9, 2]);
        let (node, output) = x.node().unwrap();
        let x: Vec<f32> = node.value(output).host.unwrap().iter().map(|&b| f32::from_bits(b)).collect();
        assert_eq!(x, [7.0, -7.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0, 9.0, -9.0, 2.0, -2.0]);
        assert_eq!(data.rows(&[]).size(), 0);
    }

    #[test]
    fn weights_come_along_and_inputs_may_be_alone() {
        let x = Tensor::new(&[1.0, 2.0, 3.0], [3]);
        let data = Data::new((&x, &x, &Tensor::new(&[0.5, 1.0, 2.0], [3]))).unwrap();
        assert_eq!(data.rows(&[2, 0]).sample_weights[0].shape(), [2].into());
        let data = Data::new(&x).unwrap();
        assert_eq!((data.len(), data.rows(&[0]).targets.len()), (3, 0));
    }

    #[test]
    fn classes_weigh_their_rows() {
        let weights = [(0, 0.5), (2, 4.0)];
        let of = |y: Tensor, rows: &[usize]| {
            let x = Tensor::new(&vec![0.0; y.dim(0)], [y.dim(0)]);
            let batch = Data::new((x, y)).unwrap().class_weighted(&weights).unwrap().rows(rows);
            let (node, output) = batch.sample_weights[0].node().unwrap();
            node.value(output).host.unwrap().iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<f32>>()
        };
        let expected = [0.5, 1.0, 4.0, 1.0];
        assert_eq!(of(Tensor::new(&[0, 1, 2, 3], [4]), &[0, 1, 2, 3]), expected);
        assert_eq!(of(Tensor::new(&[0.2, 0.9, 2.0, -1.0], [4, 1]), &[0, 1, 2, 3]), expected);
        let one_hot = [0.9, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0, 0.4, 0.6, 0.2, 0.3, 0.3];
        assert_eq!(of(Tensor::new(&one_hot, [4, 3]), &[3, 2, 1, 0]), [1.0, 4.0, 1.0, 0.5]);
        // A part of a set weighs its own rows.
        let data = Data::new(numbered(4)).unwrap().split(0.5).unwrap().1.class_weighted(&weights).unwrap();
        let weight = data.rows(&[0]).sample_weights[0].clone();
        let (node, output) = weight.node().unwrap();
        assert_eq!(node.value(output).host.unwrap()[0], 4f32.to_bits());
        // What cannot be weighed by class.
        let x = Tensor::new(&[1.0; 2], [2]);
        let cube = Tensor::new(&[1.0; 8], [2, 2, 2]);
        let refused = [
            (Batch::from((&x, &x, &x)), "sample weights"),
            (Batch::from(&x), "no targets"),
            (Batch::from((vec![x.clone()], vec![x.clone(), x.clone()])), "one target"),
            (Batch::from((&x, &cube)), "one-hot"),
        ];
        for (batch, about) in refused {
            match Data::new(batch).unwrap().class_weighted(&weights).map_err(Error::into_kind) {
                Err(ErrorKind::Argument { what }) => assert!(what.contains(about), "{what}"),
                other => panic!("an error about {about} was expected, got {other:?}"),
            }
        }
    }

    #[test]
    fn a_row_that_does_not_exist_poisons() {
        let batch = Data::new(numbered(4)).unwrap().rows(&[0, 4]);
        let Some(ErrorKind::Data { what }) = batch.inputs[0].error().map(Error::kind) else { panic!("not poisoned") };
        assert!(what.starts_with("row 4 of a data set of 4 rows was asked (at src/data/dataset.rs"), "{what}");
    }

    #[test]
    fn data_that_cannot_be_used_is_refused() {
        let x = Tensor::new(&[1.0; 6], [3, 2]);
        let short = Tensor::new(&[0; 2], [2]);
        assert_eq!(message(Data::new((&x, &short))), "the input has 3 rows, but the target has 2");
        assert_eq!(
            message(Data::new((vec![x.clone(), short.clone()], vec![]))),
            "the input 0 has 3 rows, but the input 1 has 2"
        );
        assert_eq!(message(Data::new((&x, &x, &short))), "the input has 3 rows, but the sample weight has 2");
        let empty = Tensor::new::<f32>(&[], [0, 2]);
        assert_eq!(message(Data::new(&empty)), "the data set is empty: the input has 0 rows");
        assert_eq!(message(Data::new(Batch::default())), "a data set needs at least one input");
        assert!(message(Data::new((&x, &Tensor::scalar(1.0)))).starts_with("the target is a scalar"));
    }

    #[test]
    fn poison_surfaces_and_unread_tensors_are_named() {
        let x = Tensor::new(&[1.0; 3], [3]);
        let poisoned = Tensor::new(&[1.0; 3], [4]);
        assert!(matches!(Data::new((&x, &poisoned)), Err(error) if matches!(error.kind(), ErrorKind::Shape { .. })));
        let unread = Tensor::placeholder(Spec::new([3], DType::F32), here());
        assert!(message(Data::new(&unread)).contains("the input has no value on the host; read it first"));
    }

    /// floor(n (1 - s)) in the arithmetic of Python, from which 0.2 of 1000 is 200 and 0.1 of 10 is 1.
    #[test]
    fn splitting_is_that_of_keras() {
        let data = Data::new(numbered(10)).unwrap();
        for (fraction, train) in [(0.2, 8), (0.1, 9), (0.25, 7), (0.33, 6), (0.9, 0), (0.05, 9)] {
            match data.split(fraction) {
                Ok((a, b)) => {
                    assert_eq!((a.len(), b.len()), (train, 10 - train));
                    assert_eq!(labels(&a.rows(&[train - 1])), [train as u32 - 1]);
                    assert_eq!(labels(&b.rows(&[0])), [train as u32]);
                }
                Err(error) => {
                    assert!(train == 0 && matches!(error.kind(), ErrorKind::Data { .. }), "{fraction}: {error}")
                }
            }
        }
        assert!(matches!(data.split(0.0), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. })));
        assert!(matches!(data.split(1.0), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. })));
        assert!(matches!(data.split(f64::NAN), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. })));
        // A part is a data set of its own.
        let (_, last) = data.split(0.5).unwrap();
        let (_, last) = last.split(0.4).unwrap();
        assert_eq!(labels(&last.rows(&[0, 1])), [8, 9]);
        assert!(last.rows(&[2]).inputs[0].error().is_some());
    }
}
