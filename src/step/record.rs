//! Recording a step: the function is called on stand-ins for the leaves of state and batch.
//!
//! Deliberately absent: any effect on the state. A recording that fails leaves everything as it was.

use super::logs::Logs;
use crate::collections::Table;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::graph::{Spec, Taping, Tensor, Tree, nowhere};
use crate::lower::Options;
use crate::lower::recording::{Recording, Signature};
use crate::read::evaluate;

/// A step as recorded.
pub(super) struct Recorded {
    pub signature: Signature,
    pub recording: Recording,
    /// Numbers of the nodes that stand for leaves.
    pub stand_ins: Table<u64, usize>,
    /// Stand-ins for the leaves of the state.
    pub state: Vec<Tensor>,
    /// Stand-ins for the leaves of the batch.
    pub batch: Vec<Tensor>,
    /// The new state, then the logs.
    pub outputs: Vec<Tensor>,
    /// Names of the logs.
    pub names: Vec<String>,
}

/// Records `f` and checks that it returns a state like the one it got.
pub(super) fn record<S: Tree, B: Tree>(
    device: &Device,
    options: &Options,
    state: &S,
    batch: &B,
    f: impl Fn(S, &B) -> Result<(Logs, S)>,
) -> Result<Recorded> {
    let (start, _) = (Tensor::placeholder(Spec::new([], DType::F32), nowhere()).node()).map(|n| (n.0.number(), n.1))?;
    let mut stand_ins = Table::new();
    let (mut old, mut inputs) = (Vec::new(), Vec::new());
    let recorded_state = state.map(&mut |t| stand_in(t, &mut stand_ins, &mut old));
    let recorded_batch = batch.map(&mut |t| stand_in(t, &mut stand_ins, &mut inputs));
    // Nothing is evaluated meanwhile: what it is captured as would depend on when.
    let taping = Taping::start();
    let (logs, new) = f(recorded_state, &recorded_batch)?;
    drop(taping);
    let leaves = Leaves { stand_ins, state: old, batch: inputs, new: new.leaves() };
    finish(device, options, start, leaves, logs)
}

/// What stands for a leaf, noted under its number and in a list; a poisoned leaf itself.
fn stand_in(leaf: &Tensor, stand_ins: &mut Table<u64, usize>, list: &mut Vec<Tensor>) -> Tensor {
    let Ok((node, output)) = leaf.node() else { return leaf.clone() };
    let stand_in = Tensor::placeholder(node.outputs()[output].clone(), node.place().clone());
    if let Ok((node, _)) = stand_in.node() {
        stand_ins.insert(node.number(), stand_ins.len());
    }
    list.push(stand_in.clone());
    stand_in
}

/// What the types of state and batch are needed for no more.
struct Leaves {
    stand_ins: Table<u64, usize>,
    state: Vec<Tensor>,
    batch: Vec<Tensor>,
    new: Vec<Tensor>,
}

/// Checks what was returned, and takes in what was recorded since the node of number `start`.
fn finish(device: &Device, options: &Options, start: u64, leaves: Leaves, logs: Logs) -> Result<Recorded> {
    let Leaves { stand_ins, state, batch, new: mut outputs } = leaves;
    let (was, is) = (specs(&state)?, specs(&outputs)?);
    if was.len() != is.len() {
        let what = format!("the step got {} tensors of state and returned {}", was.len(), is.len());
        return Err(Error::state(what));
    }
    for (index, (was, is)) in was.iter().zip(&is).enumerate() {
        if was != is {
            let what = format!("tensor {index} of the state was {was}, the step returned {is}");
            return Err(Error::state(what));
        }
    }
    let mut names = Vec::new();
    for (name, tensor) in logs.into_entries() {
        let (node, output) = tensor.node()?;
        let spec = &node.outputs()[output];
        if spec.dtype != DType::F32 || spec.shape.numel() != 1 {
            return Err(Error::state(format!("the log {name} is {spec}; a log is one f32 number")));
        }
        names.push(name);
        outputs.push(tensor);
    }
    let mut recording = Recording::of(&outputs)?;
    // What was recorded before the step is not a part of it: it is computed once and captured as a value.
    let older = recording.older(start, &outputs)?;
    if !older.is_empty() {
        evaluate(device, &older, options)?;
        recording = Recording::of(&outputs)?;
    }
    let signature = recording.signature(&stand_ins);
    Ok(Recorded { signature, recording, stand_ins, state, batch, outputs, names })
}

/// Shapes and dtypes, or the error of a poisoned one.
pub(super) fn specs(leaves: &[Tensor]) -> Result<Vec<Spec>> {
    leaves.iter().map(|t| t.node().map(|(node, output)| node.outputs()[output].clone())).collect()
}
