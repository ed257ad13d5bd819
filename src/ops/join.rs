//! Joining tensors: concat and stack.
//!
//! A join is the sum of its parts, each padded to the whole. Pads are views, so the sum is one expression that loads
//! every element once, from the part it lies in, and the derivatives are slices.

use super::Example;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind};
use crate::graph::{OnBehalf, Tensor, here};

/// Tensors one behind the other along an axis; the other axes agree. At least one tensor.
#[track_caller]
pub fn concat(tensors: &[&Tensor], axis: i32) -> Tensor {
    // A closure does not pass on its caller's line.
    let _behalf = OnBehalf::of(&here());
    let Some((first, rest)) = tensors.split_first() else {
        return Tensor::poisoned(Error::argument(format!("concat: nothing to join ({})", here())));
    };
    if let Some(poisoned) = tensors.iter().find(|t| t.error().is_some()) {
        return (*poisoned).clone();
    }
    let shape = first.shape();
    let Some(at) = shape.axis(axis as isize) else {
        return first.misfit("concat", format!("there is no axis {axis}"));
    };
    let without = |t: &Tensor| {
        let mut shape = t.shape().to_vec();
        (at < shape.len()).then(|| shape.remove(at));
        shape
    };
    if rest.iter().any(|t| t.rank() != first.rank() || without(t) != without(first)) {
        let inputs = tensors.iter().map(|t| t.shape()).collect();
        let why = format!("all axes but {axis} must agree");
        return Tensor::poisoned(Error::new(ErrorKind::Shape { op: "concat".into(), inputs, why, place: here() }));
    }
    if rest.iter().any(|t| t.dtype() != first.dtype()) {
        let inputs = tensors.iter().map(|t| t.dtype()).collect();
        let why = "they must be alike; cast one".into();
        return Tensor::poisoned(Error::new(ErrorKind::DType { op: "concat".into(), inputs, why, place: here() }));
    }
    let whole: usize = tensors.iter().map(|t| t.dim(at)).sum();
    let mut start = 0;
    let padded = tensors.iter().map(|t| {
        let mut widths = vec![(0, 0); shape.rank()];
        widths[at] = (start, whole - start - t.dim(at));
        start += t.dim(at);
        t.pad(&widths)
    });
    let joined = padded.reduce(|a, b| if a.dtype() == DType::Bool { a.or(b) } else { a + b });
    joined.unwrap_or_else(|| (*first).clone())
}

/// Tensors of one shape along a new axis.
#[track_caller]
pub fn stack(tensors: &[&Tensor], axis: i32) -> Tensor {
    let _behalf = OnBehalf::of(&here());
    let spread: Vec<Tensor> = tensors.iter().map(|t| t.unsqueeze(axis)).collect();
    concat(&spread.iter().collect::<Vec<_>>(), axis)
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-3.0, 3.0);
    let f = DType::F32;
    vec![
        Example::new("concat", &[(&[3, 4], f, D), (&[2, 4], f, D), (&[1, 4], f, D)], |x| {
            concat(&[&x[0], &x[1], &x[2]], 0)
        }),
        Example::new("concat columns", &[(&[3, 4], f, D), (&[3, 5], f, D)], |x| concat(&[&x[0], &x[1]], -1)),
        Example::new("concat with nothing", &[(&[3, 4], f, D), (&[3, 0], f, D)], |x| concat(&[&x[0], &x[1]], 1)),
        Example::new("concat i32", &[(&[3], DType::I32, D), (&[2], DType::I32, D)], |x| concat(&[&x[0], &x[1]], 0)),
        Example::new("concat bool", &[(&[3], DType::Bool, (0.0, 1.0)), (&[2], DType::Bool, (0.0, 1.0))], |x| {
            concat(&[&x[0], &x[1]], 0)
        }),
        Example::new("stack", &[(&[3, 4], f, D), (&[3, 4], f, D)], |x| stack(&[&x[0], &x[1]], 1)),
    ]
}
