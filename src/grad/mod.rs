//! Reverse-mode differentiation: [`value_and_grad`], [`grad`], and [`checkpoint`], which trades time for memory.
//!
//! Floor 2. The function is recorded, then its tape is walked backwards, and each op's own rule appends more nodes. So
//! a derivative is a graph like any other: it fuses, and it can be differentiated again. Deliberately absent: a flag
//! on tensors, a second kind of tensor, and any rule; rules live with their ops.

mod checkpoint;

pub use checkpoint::checkpoint;

use std::cell::RefCell;
use std::sync::Arc;

use crate::collections::{Set, Table};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Derivative, Node, OnBehalf, Taping, Tensor, Tree, here};
use crate::sort::sort_by_key;

/// The value of `f` at `at`, what it returns beside, and the gradient: `((loss, aux), gradients)`.
///
/// `f` returns its scalar f32 loss and anything else worth keeping. Gradients have the structure of `at`, whose leaves
/// are f32. As in JAX only the *argument* is differentiated; tensors that `f` captures are constants, even where they
/// were computed from the same ones. A leaf that the loss does not reach gets zeros and a warning.
///
/// # Errors
/// The error of a poisoned loss or gradient; [`ErrorKind::NotDifferentiable`] where the path from a leaf to the loss runs
/// through an op without a derivative; [`ErrorKind::Shape`] or [`ErrorKind::DType`] where the loss is not one f32.
#[track_caller]
pub fn value_and_grad<W: Tree, A>(f: impl FnOnce(&W) -> Result<(Tensor, A)>, at: &W) -> Result<((Tensor, A), W)> {
    let place = here();
    let _taping = Taping::start();
    // Own nodes for the arguments: what else is computed from the same tensors is not on the path.
    let mut arguments = Vec::new();
    let argument = at.map(&mut |leaf| {
        let own = Tensor::apply(Argument, &[leaf]);
        arguments.push(own.clone());
        own
    });
    let (loss, aux) = f(&argument)?;
    let (node, output) = loss.node()?;
    let spec = &node.outputs()[output];
    if spec.dtype != DType::F32 {
        let (op, why) = ("value_and_grad".into(), "the loss must be f32".into());
        return Err(Error::new(ErrorKind::DType { op, inputs: vec![spec.dtype], why, place }));
    }
    if spec.shape.numel() != 1 {
        let why = "the loss must be one number; take its mean or sum".into();
        return Err(Error::new(ErrorKind::Shape {
            op: "value_and_grad".into(),
            inputs: vec![spec.shape.clone()],
            why,
            place,
        }));
    }
    let seed = Tensor::ones(loss.shape());
    let mut gradients = pull(&[(loss.clone(), seed)], &arguments)?.into_iter();
    let mut failed = None;
    let gradients = at.map(&mut |leaf| {
        let gradient = gradients.next().flatten().unwrap_or_else(|| {
            warn_unreached(leaf);
            Tensor::zeros(leaf.shape())
        });
        if let Some(error) = gradient.error() {
            failed.get_or_insert(error.clone());
        }
        gradient
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(((loss, aux), gradients)),
    }
}

/// The gradient of a scalar function alone; see [`value_and_grad`].
#[track_caller]
pub fn grad<W: Tree>(f: impl FnOnce(&W) -> Result<Tensor>, at: &W) -> Result<W> {
    Ok(value_and_grad(|at| Ok((f(at)?, ())), at)?.1)
}

/// A derivative as a function of the operands and the cotangent of the result.
type Vjp = dyn Fn(&[Tensor], &Tensor) -> Vec<Tensor> + Send + Sync;

/// `output`, computed from `inputs` in any way, with a derivative of one's own: `vjp(inputs, g)` gives the cotangent of
/// each input from that of the output, in tensor ops, so it has derivatives too. The derivative of how `output` was
/// computed is not used.
///
/// ```
/// use wengert::grad::{custom_vjp, grad};
/// use wengert::graph::Tensor;
/// # wengert::host::main(async {
/// // Rounds, and passes the cotangent on as if it had not ("straight through").
/// let round = |x: &Tensor| custom_vjp(&x.round(), &[x], |_, g| vec![g.clone()]);
/// let x = Tensor::new(&[0.4f32, 1.7], [2]);
/// let g = grad(|x| Ok(round(x).sum(..)), &x)?;
/// # let device = wengert::gpu::Device::new().await?;
/// assert_eq!(g.read_on::<f32>(&device).await?, [1.0, 1.0]);
/// # Ok::<(), wengert::error::Error>(())
/// # });
/// ```
#[track_caller]
pub fn custom_vjp(
    output: &Tensor,
    inputs: &[&Tensor],
    vjp: impl Fn(&[Tensor], &Tensor) -> Vec<Tensor> + Send + Sync + 'static,
) -> Tensor {
    let operands = [&[output], inputs].concat();
    Tensor::apply(Custom(Arc::new(vjp)), &operands)
}

/// Nodes of their own for tensors that a derivative is taken by: what else is computed from them is not on the path.
pub(crate) fn arguments(tensors: &[&Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| Tensor::apply(Argument, &[tensor])).collect()
}

/// Cotangents of `arguments` from those of some tensors; `None` where these do not depend on one.
pub(crate) fn pull(seeds: &[(Tensor, Tensor)], arguments: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
    let mut ends: Set<u64> = Set::new();
    for argument in arguments {
        let (node, _) = argument.node()?;
        if argument.dtype() != DType::F32 {
            let (op, why) = ("value_and_grad".into(), "only f32 has derivatives".into());
            let place = node.place().clone();
            return Err(Error::new(ErrorKind::DType { op, inputs: vec![node.outputs()[0].dtype], why, place }));
        }
        ends.insert(node.number());
    }
    // What is older than the first argument cannot depend on one.
    let oldest = ends.iter().copied().min().unwrap_or(u64::MAX);
    let mut nodes: Table<u64, (Arc<Node>, Vec<Tensor>)> = Table::new();
    let mut stack = Vec::new();
    for (seeded, _) in seeds {
        stack.push(seeded.node()?.0.clone());
    }
    while let Some(node) = stack.pop() {
        if node.number() < oldest || nodes.contains_key(&node.number()) {
            continue;
        }
        let inputs = if ends.contains(&node.number()) { Vec::new() } else { node.inputs() };
        for input in &inputs {
            stack.push(input.node()?.0.clone());
        }
        nodes.insert(node.number(), (node, inputs));
    }
    let mut tape: Vec<(Arc<Node>, Vec<Tensor>)> = nodes.into_values().collect();
    sort_by_key(&mut tape, |(node, _)| node.number());
    let mut on_path = ends.clone();
    for (node, inputs) in &tape {
        let reaches = |input: &Tensor| {
            input.dtype() == DType::F32 && input.node().is_ok_and(|(n, _)| on_path.contains(&n.number()))
        };
        if inputs.iter().any(reaches) {
            on_path.insert(node.number());
        }
    }
    let mut cotangents: Table<u64, Vec<Option<Tensor>>> = Table::new();
    for (seeded, cotangent) in seeds {
        let (node, output) = seeded.node()?;
        if on_path.contains(&node.number()) {
            add(&mut cotangents, node, output, cotangent.clone());
        }
    }
    for (node, inputs) in tape.iter().rev().filter(|(node, _)| !ends.contains(&node.number())) {
        let Some(mut own) = cotangents.remove(&node.number()) else { continue };
        let _behalf = OnBehalf::of(node.place());
        let outputs: Vec<Tensor> = (0..node.outputs().len()).map(|output| Tensor::of(node.clone(), output)).collect();
        // A failed cotangent goes where a healthy one would. It is an error only if it arrives at an argument: an op on
        // the way may end the path, as stop_gradient does. Rules are asked with zeros, so that none meets it.
        let mut failed = own.iter().flatten().find_map(|cotangent| cotangent.error().cloned());
        if failed.is_some() {
            let zeros =
                |(cotangent, output): (Option<Tensor>, &Tensor)| cotangent.map(|_| Tensor::zeros(output.shape()));
            own = own.into_iter().zip(&outputs).map(zeros).collect();
        }
        let mut passed = match node.op().vjp(inputs, &outputs, &own) {
            Derivative::Vjp(passed) => passed,
            Derivative::Zero => continue,
            Derivative::NotDifferentiable => {
                let (op, place) = (node.op().name().into(), node.place().clone());
                failed.get_or_insert(Error::new(ErrorKind::NotDifferentiable { op, place }));
                vec![Some(Tensor::zeros([])); inputs.len()]
            }
        };
        if let Some(error) = failed {
            passed.iter_mut().flatten().for_each(|cotangent| *cotangent = Tensor::poisoned(error.clone()));
        }
        for (input, cotangent) in inputs.iter().zip(passed) {
            let (from, output) = input.node()?;
            let Some(cotangent) = cotangent.filter(|_| on_path.contains(&from.number())) else { continue };
            if input.dtype() != DType::F32 {
                continue;
            }
            // A rule that gives another shape would train something else, silently.
            if cotangent.error().is_none() && cotangent.spec() != input.spec() {
                let inputs = vec![input.shape(), cotangent.shape()];
                let (op, why) =
                    (format!("derivative of {}", node.op().name()), "it is not of its operand's shape".into());
                return Err(Error::new(ErrorKind::Shape { op, inputs, why, place: node.place().clone() }));
            }
            add(&mut cotangents, from, output, cotangent);
        }
    }
    let cotangent = |argument: &Tensor| {
        let (node, output) = argument.node()?;
        Ok(cotangents.get(&node.number()).and_then(|own| own[output].clone()))
    };
    arguments.iter().map(cotangent).collect()
}

/// Adds to the cotangent of one output of a node.
fn add(cotangents: &mut Table<u64, Vec<Option<Tensor>>>, node: &Node, output: usize, cotangent: Tensor) {
    let sums = cotangents.or_insert_with(node.number(), || vec![None; node.outputs().len()]);
    sums[output] = Some(match sums[output].take() {
        Some(sum) => sum + cotangent,
        None => cotangent,
    });
}

thread_local! {
    static WARNED: RefCell<Set<String>> = RefCell::default();
}

/// Once for each place, since a step is recorded many times.
fn warn_unreached(leaf: &Tensor) {
    let Ok((node, _)) = leaf.node() else { return };
    let what = format!("{} {}", node.outputs()[0], node.place());
    if WARNED.with_borrow_mut(|warned| warned.insert(what.clone())) {
        log::warn!("value_and_grad: the loss does not reach a parameter, which gets a gradient of zeros: {what}");
    }
}

/// Identity of its first operand, with a derivative by the others.
struct Custom(Arc<Vjp>);

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Custom")
    }
}

impl crate::graph::Primitive for Custom {
    fn name(&self) -> &str {
        "custom_vjp"
    }

    fn infer(&self, inputs: &[crate::graph::Spec]) -> Result<Vec<crate::graph::Spec>, crate::graph::Misfit> {
        Ok(vec![inputs[0].clone()])
    }

    fn vjp(&self, inputs: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let Some(g) = &cotangents[0] else { return Derivative::Zero };
        let passed = (self.0)(&inputs[1..], g);
        Derivative::Vjp([None].into_iter().chain(passed.into_iter().map(Some)).collect())
    }

    fn lower(&self, inputs: &[crate::graph::Spec], _: &[crate::graph::Spec]) -> Vec<crate::graph::Lowering> {
        vec![crate::graph::Lowering::View(crate::graph::ViewOp::Reshape(inputs[0].shape.clone()))]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        _: &[crate::graph::Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        vec![inputs[0].clone()]
    }
}

/// Identity: marks what a derivative is taken by.
#[derive(Debug)]
struct Argument;

impl crate::graph::Primitive for Argument {
    fn name(&self) -> &str {
        "argument"
    }

    fn infer(&self, inputs: &[crate::graph::Spec]) -> Result<Vec<crate::graph::Spec>, crate::graph::Misfit> {
        Ok(inputs.to_vec())
    }

    fn vjp(&self, _: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        Derivative::Vjp(cotangents.to_vec())
    }

    fn lower(&self, inputs: &[crate::graph::Spec], _: &[crate::graph::Spec]) -> Vec<crate::graph::Lowering> {
        vec![crate::graph::Lowering::View(crate::graph::ViewOp::Reshape(inputs[0].shape.clone()))]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        _: &[crate::graph::Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        inputs.to_vec()
    }
}
