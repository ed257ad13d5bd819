//! The f64 interpreter: evaluates a graph on the host through every op's `reference`.
//!
//! It is the oracle the tests hold the compiler against, slow and plain on purpose. Deliberately absent: any use at
//! run time; the whole module sits behind the `reference` feature.

use std::sync::Arc;

use super::node::{Node, Spec, Tensor};
use super::{Lowering, Reduction};
use crate::collections::Table;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;

/// A dense host array. Integers and booleans are held as the f64 of their value, which is exact for 32 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Lengths of the axes.
    pub shape: Shape,
    /// Elements in row-major order.
    pub data: Vec<f64>,
}

impl Array {
    /// An array from its parts.
    pub fn new(shape: impl Into<Shape>, data: Vec<f64>) -> Array {
        Array { shape: shape.into(), data }
    }

    /// Elements of device bits of the given dtype.
    pub fn from_bits(bits: &[u32], spec: &Spec) -> Array {
        let value = |&bits: &u32| match spec.dtype {
            DType::F32 => f64::from(f32::from_bits(bits)),
            DType::I32 => f64::from(bits as i32),
            DType::U32 | DType::Bool => f64::from(bits),
        };
        Array { shape: spec.shape.clone(), data: bits.iter().map(value).collect() }
    }
}

/// Values given to leaves: by node number and output, as for placeholders of a recorded step.
pub type Given = Table<(u64, usize), Array>;

/// Evaluates `roots` in f64. Leaves take their value from `given` first, then from the host data they hold.
pub fn interpret(roots: &[Tensor], given: &Given) -> Result<Vec<Array>> {
    walk(roots, given, None)
}

/// As [`interpret`], with what `round` makes of each element of a float that an op computes, and of the number of terms that
/// were added up to it. With the roundings of a narrower type, drawn anew each time, results scatter about as far as the
/// device's may lie off.
pub fn interpret_rounded(
    roots: &[Tensor],
    given: &Given,
    mut round: impl FnMut(f64, usize) -> f64,
) -> Result<Vec<Array>> {
    walk(roots, given, Some(&mut round))
}

fn walk(roots: &[Tensor], given: &Given, mut round: Option<&mut dyn FnMut(f64, usize) -> f64>) -> Result<Vec<Array>> {
    let mut done: Table<u64, Vec<Array>> = Table::new();
    for root in roots {
        let mut stack: Vec<(Arc<Node>, bool)> = vec![(root.node()?.0.clone(), false)];
        while let Some((node, ready)) = stack.pop() {
            if done.contains_key(&node.number()) {
                continue;
            }
            let known = |output: usize| {
                given.get(&(node.number(), output)).cloned().or_else(|| {
                    let bits = node.value(output).host?;
                    Some(Array::from_bits(&bits, &node.outputs()[output]))
                })
            };
            if let Some(values) = (0..node.outputs().len()).map(known).collect::<Option<Vec<_>>>() {
                done.insert(node.number(), values);
            } else if ready {
                let inputs: Vec<Array> = (node.inputs().iter())
                    .map(|t| t.node().map(|(n, output)| done[&n.number()][output].clone()))
                    .collect::<Result<_>>()?;
                let mut outputs = node.op().reference(&inputs, node.outputs());
                if outputs.len() != node.outputs().len() {
                    return Err(Error::argument(format!("interpret: {} has no reference", node.op().name())));
                }
                if let Some(round) = &mut round {
                    let specs: Vec<Spec> = node.inputs().iter().filter_map(|input| input.spec().cloned()).collect();
                    let terms = match node.op().lower(&specs, node.outputs()).as_slice() {
                        [Lowering::Fold(fold)] if fold.reduction == Reduction::Sum => fold.length,
                        [Lowering::Contraction(c)] => c.k,
                        _ => 1,
                    };
                    let floats = outputs.iter_mut().zip(node.outputs()).filter(|(_, spec)| spec.dtype == DType::F32);
                    floats.flat_map(|(array, _)| &mut array.data).for_each(|value| *value = round(*value, terms));
                }
                done.insert(node.number(), outputs);
            } else if node.inputs().is_empty() && node.op().name() == "leaf" {
                let what = format!("interpret: a leaf has no value on the host ({})", node.place());
                return Err(Error::argument(what));
            } else {
                stack.push((node.clone(), true));
                for input in node.inputs() {
                    stack.push((input.node()?.0.clone(), false));
                }
            }
        }
    }
    roots.iter().map(|t| t.node().map(|(n, output)| done[&n.number()][output].clone())).collect()
}
