//! [`checkpoint`]: a derivative that computes a function again rather than keeping what it computed inside.
//!
//! The function is recorded as always; then its outputs pass through an op whose derivative records it once more, on
//! inputs that count as others ([`Lowering::Later`]), and walks that second tape backwards. So only inputs and outputs
//! live from the forward pass to the backward pass. Deliberately absent: a choice of what to keep inside; a step's
//! memory budget makes such choices.

use std::sync::Arc;

use super::{arguments, pull};
use crate::collections::Set;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Derivative, Lowering, Misfit, Primitive, Spec, Tensor, nowhere};
use crate::sort::sort_by_key;

/// A function of several tensors.
type Function = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync;

/// `f`, but its derivative computes it again instead of keeping its intermediate results from the forward pass: memory
/// for time, as `jax.checkpoint` does it. A chain of n equal blocks, each in a checkpoint, keeps n inputs; with further
/// checkpoints around each sqrt(n) of them it keeps about 2 sqrt(n).
///
/// Derivatives are taken by the inputs and also by what `f` captures, so that captured weights do not lose theirs. What
/// `f` computes from captured tensors alone is kept, so the tensors that matter should be inputs. What `f` draws at
/// random is a function of keys, and is drawn equal again. Checkpoints may be nested.
///
/// ```
/// use wengert::grad::{checkpoint, grad};
/// use wengert::graph::Tensor;
/// # wengert::host::main(async {
/// let block = checkpoint(|x: &[Tensor]| Ok(vec![x[0].sin().exp().sin()]));
/// let x = Tensor::new(&[0.5f32, 1.0], [2]);
/// let g = grad(|x| Ok(block(&[x.clone()])?[0].sum(..)), &x)?;
/// # let device = wengert::gpu::Device::new().await?;
/// let g = g.read_on::<f32>(&device).await?;
/// for (g, x) in g.into_iter().zip([0.5f32, 1.0]) {
///     assert!((g - x.sin().exp().cos() * x.sin().exp() * x.cos()).abs() < 1e-5);
/// }
/// # Ok::<(), wengert::error::Error>(())
/// # });
/// ```
///
/// # Errors
/// Those of `f`, and of a poisoned input or output.
pub fn checkpoint(
    f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> {
    let f: Arc<Function> = Arc::new(f);
    move |inputs: &[Tensor]| {
        let start = Tensor::placeholder(Spec::new([], DType::F32), nowhere()).node()?.0.number();
        // Nodes of their own: one of the inputs may be captured besides, and has a derivative by both.
        let own = arguments(&inputs.iter().collect::<Vec<_>>());
        let outputs = f(&own)?;
        for tensor in inputs.iter().chain(&outputs) {
            tensor.ok()?;
        }
        let captured = captured(start, &own, &outputs)?;
        let op = Checkpoint { f: f.clone(), outputs: outputs.len(), inputs: inputs.len() };
        let operands: Vec<&Tensor> = outputs.iter().chain(inputs).chain(&captured).collect();
        Ok(Tensor::record(Arc::new(op), &operands, outputs.len()))
    }
}

/// What `outputs` are computed from that was recorded before node `start`, besides `inputs`.
fn captured(start: u64, inputs: &[Tensor], outputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let (mut seen, mut found) = (Set::new(), Vec::<Tensor>::new());
    let mut stack = outputs.to_vec();
    while let Some(tensor) = stack.pop() {
        let (node, output) = tensor.node()?;
        if !seen.insert((node.number(), output)) || inputs.iter().any(|input| input.same(&tensor)) {
            continue;
        }
        if node.number() < start {
            found.push(tensor);
        } else {
            stack.extend(node.inputs());
        }
    }
    // In recording order, whatever the walk's.
    let number = |tensor: &Tensor| tensor.node().map(|(node, output)| (node.number(), output)).unwrap_or_default();
    sort_by_key(&mut found, number);
    Ok(found)
}

/// The first operands as they are. They were computed by `f` from the next operands, and from the rest, which it captures.
struct Checkpoint {
    f: Arc<Function>,
    outputs: usize,
    inputs: usize,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checkpoint")
    }
}

impl Checkpoint {
    /// The cotangents of inputs and captured tensors, on a tape that is recorded for it.
    fn backward(&self, operands: &[Tensor], cotangents: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let (inputs, captured) = operands[self.outputs..].split_at(self.inputs);
        let known: Vec<&Tensor> = cotangents.iter().flatten().collect();
        let later: Vec<Tensor> =
            inputs.iter().map(|input| Tensor::apply(Later, &[&[input], &known[..]].concat())).collect();
        let again = (self.f)(&later)?;
        let outputs: Vec<(Tensor, Tensor)> =
            again.into_iter().zip(cotangents).filter_map(|(output, own)| Some((output, own.clone()?))).collect();
        let sought: Vec<Tensor> = later.iter().chain(captured).cloned().collect();
        let differentiable: Vec<Tensor> =
            sought.iter().filter(|tensor| tensor.dtype() == DType::F32).cloned().collect();
        let mut found = pull(&outputs, &differentiable)?.into_iter();
        let cotangent = |tensor: &Tensor| if tensor.dtype() == DType::F32 { found.next().flatten() } else { None };
        Ok(sought.iter().map(cotangent).collect())
    }
}

impl Primitive for Checkpoint {
    fn name(&self) -> &str {
        "checkpoint"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Ok(inputs[..self.outputs].to_vec())
    }

    fn vjp(&self, inputs: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let none = vec![None; self.outputs];
        Derivative::Vjp(match self.backward(inputs, cotangents) {
            Ok(passed) => none.into_iter().chain(passed).collect(),
            Err(error) => {
                let poisoned =
                    |tensor: &Tensor| (tensor.dtype() == DType::F32).then(|| Tensor::poisoned(error.clone()));
                none.into_iter().chain(inputs[self.outputs..].iter().map(poisoned)).collect()
            }
        })
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        (0..self.outputs).map(Lowering::Same).collect()
    }

    #[cfg(feature = "reference")]
    fn reference(&self, inputs: &[crate::graph::interpret::Array], _: &[Spec]) -> Vec<crate::graph::interpret::Array> {
        inputs[..self.outputs].to_vec()
    }
}

/// The first operand, once the others are computed.
#[derive(Debug)]
struct Later;

impl Primitive for Later {
    fn name(&self) -> &str {
        "later"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Ok(vec![inputs[0].clone()])
    }

    fn vjp(&self, inputs: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let mut passed = vec![None; inputs.len()];
        passed[0].clone_from(&cotangents[0]);
        Derivative::Vjp(passed)
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::Later]
    }

    #[cfg(feature = "reference")]
    fn reference(&self, inputs: &[crate::graph::interpret::Array], _: &[Spec]) -> Vec<crate::graph::interpret::Array> {
        vec![inputs[0].clone()]
    }
}
