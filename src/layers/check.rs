//! What layers check before they ask for variables: ranks, axes, options, with one wording for all.
//!
//! Deliberately absent: checks of values; a layer sees shapes only.

use std::ops::Range;

use super::{Context, Layer};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor, here};
use crate::host::Float;
use crate::sort::sort;

/// Inputs that a layer cannot take.
pub(super) fn misfit(layer: &str, inputs: &[Spec], why: impl Into<String>) -> Error {
    let inputs = inputs.iter().map(|input| input.shape.clone()).collect();
    Error::new(ErrorKind::Shape { op: layer.into(), inputs, why: why.into(), place: here() })
}

/// An option that cannot be.
pub(super) fn invalid(layer: &str, what: impl std::fmt::Display) -> Error {
    Error::argument(format!("{layer}: {what}"))
}

/// The first input must have `rank` axes; `form` says what they are.
pub(super) fn rank(layer: &str, inputs: &[Spec], rank: usize, form: &str) -> Result<()> {
    match inputs[0].shape.rank() == rank {
        true => Ok(()),
        false => Err(misfit(layer, inputs, format!("it takes {form}, of rank {rank}"))),
    }
}

/// The axes, counted from the front, sorted and each once; none may be the batch.
pub(super) fn axes(layer: &str, inputs: &[Spec], axes: &[i32]) -> Result<Vec<usize>> {
    let shape = &inputs[0].shape;
    let mut resolved = Vec::with_capacity(axes.len());
    for &axis in axes {
        match shape.axis(axis as isize) {
            None => return Err(misfit(layer, inputs, format!("there is no axis {axis}"))),
            Some(0) => return Err(misfit(layer, inputs, format!("axis {axis} is the batch; choose one behind it"))),
            Some(at) => resolved.push(at),
        }
    }
    sort(&mut resolved);
    resolved.dedup();
    match resolved.is_empty() {
        true => Err(invalid(layer, "at least one axis is needed")),
        false => Ok(resolved),
    }
}

/// The same axes in a call, where what does not fit was refused before.
pub(super) fn resolved(x: &Tensor, axes: &[i32]) -> Vec<usize> {
    let mut resolved: Vec<usize> = axes.iter().filter_map(|&axis| x.shape().axis(axis as isize)).collect();
    sort(&mut resolved);
    resolved.dedup();
    resolved
}

/// A fraction, as dropout takes it.
pub(super) fn fraction(layer: &str, rate: f64) -> Result<()> {
    match (0.0..=1.0).contains(&rate) {
        true => Ok(()),
        false => Err(invalid(layer, format!("the rate is a fraction between 0 and 1, not {}", Float(rate)))),
    }
}

/// A vector along some axes of `x`, with axes of length 1 elsewhere, so that it broadcasts.
pub(super) fn along(vector: &Tensor, x: &Tensor, axes: &[usize]) -> Tensor {
    let shape = x.shape();
    let ones = shape.iter().enumerate().map(|(axis, &length)| if axes.contains(&axis) { length } else { 1 });
    vector.reshape(ones.collect::<Vec<_>>())
}

/// Calls a layer within another, with a part of the outer one's variables, and takes over its new state.
pub(super) fn call_within(
    layer: &dyn Layer,
    inputs: &[Tensor],
    context: &mut Context,
    weights: Range<usize>,
    states: Range<usize>,
) -> Tensor {
    let mut part = context.part(weights, states.clone());
    let y = layer.call(inputs, &mut part);
    match part.into_states() {
        Ok(new) => {
            for (at, state) in states.zip(new) {
                context.set_state(at, state);
            }
            y
        }
        Err(error) => Tensor::poisoned(error),
    }
}
