//! Compiles the body of a loop: a program of its own, whose state is what is carried from turn to turn.
//!
//! What nobody reads is left out here: results, and what is carried only for their sake. Deliberately absent: unrolling;
//! a plan does not grow with the number of turns.

use std::sync::Arc;

use super::fuse::Fused;
use super::program::{Id, Kind, Program, Val};
use super::recording::Recording;
use super::space::Space;
use super::turns::Stride;
use super::{Compiled, Options, Request, Target, compile};
use crate::collections::{Set, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Scan;

/// A loop of a program, compiled.
#[derive(Clone, Debug)]
pub struct Looped {
    /// Turns.
    pub length: usize,
    /// One turn.
    pub compiled: Compiled,
    /// Values of the body that lie where values of the program lie, the stacked ones in their first turn or last.
    pub places: Vec<(Id, Id)>,
    /// How those that are stacked advance.
    pub strides: Table<Id, Stride>,
    /// What is carried: where it begins, and the output that it ends as, if that is read.
    pub carried: Vec<(Id, Option<Id>)>,
}

/// The outputs of a loop, in order; the group has as members all of them and as outputs those that are read.
fn outputs(program: &Program, fused: &Fused, group: usize) -> Vec<(Id, bool)> {
    let group = &fused.groups[group];
    group.members.iter().map(|&id| (id, group.outputs.contains(&id) && program.vals[id].numel > 0)).collect()
}

/// The loops of a program, by group.
pub fn loops(
    program: &Program,
    fused: &Fused,
    target: &Target,
    options: &Options,
) -> Result<Table<usize, Arc<Looped>>> {
    let mut found = Table::new();
    for at in (0..fused.groups.len()).filter(|&at| fused.groups[at].space == Space::Loop) {
        let turn = Turn::of(program, fused, at, None)?;
        let compiled = compile(turn.program.clone(), &turn.request, target, options)?;
        found.insert(at, Arc::new(turn.looped(compiled)));
    }
    Ok(found)
}

/// The same loops for smaller tensors, whose kernels are those of `larger`; `None` where they cannot be.
pub fn smaller(
    program: &Program,
    fused: &Fused,
    larger: &Table<usize, Arc<Looped>>,
) -> Option<Table<usize, Arc<Looped>>> {
    let one = |(&at, looped): (&usize, &Arc<Looped>)| {
        let turn = Turn::of(program, fused, at, Some(&looped.compiled.program)).ok()?;
        let compiled = looped.compiled.smaller(turn.program.clone(), &turn.request)?;
        Some((at, Arc::new(turn.looped(compiled))))
    };
    larger.iter().map(one).collect()
}

/// Whether a product or a loop reads a value where it lies.
fn is_operand(program: &Program, value: Id) -> bool {
    let source = |mut id: Id| {
        while let Kind::View(_) | Kind::Window(..) = program.vals[id].kind {
            id = program.vals[id].inputs[0];
        }
        id
    };
    (program.vals.iter().filter(|val| matches!(val.kind, Kind::Contraction(..) | Kind::Scan(..) | Kind::Kernel(..))))
        .any(|val| val.inputs.iter().any(|&input| source(input) == value))
}

/// The leaves that some roots are computed from.
fn reached(program: &Program, roots: impl Iterator<Item = Id>) -> Set<Id> {
    let mut stack: Vec<Id> = roots.collect();
    let mut seen = Set::new();
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            stack.extend(&program.vals[id].inputs);
        }
    }
    seen
}

/// One turn of a loop, to be compiled.
struct Turn {
    length: usize,
    program: Program,
    request: Request,
    places: Vec<(Id, Id)>,
    strides: Table<Id, Stride>,
    carried: Vec<(Id, Option<Id>)>,
}

impl Turn {
    /// The turn of a group; long sums are split as in `model`, if it is given.
    fn of(program: &Program, fused: &Fused, group: usize, model: Option<&Program>) -> Result<Turn> {
        let first = &program.vals[fused.groups[group].members[0]];
        match &first.kind {
            Kind::Scan(scan, _) => turn(scan, &first.inputs, &outputs(program, fused, group), model),
            _ => Err(Error::new(ErrorKind::Validation { why: format!("{} is no loop", first.name) })),
        }
    }

    fn looped(self, compiled: Compiled) -> Looped {
        let Turn { length, places, strides, carried, .. } = self;
        Looped { length, compiled, places, strides, carried }
    }
}

fn turn(scan: &Scan, operands: &[Id], outputs: &[(Id, bool)], model: Option<&Program>) -> Result<Turn> {
    let (carries, length) = (scan.carries, scan.length);
    let moves = carries..carries + scan.sequences;
    let inputs = scan.body.stand_ins();
    let recording = Recording::of(&scan.body.record(&inputs))?;
    let (mut stand_ins, mut moving) = (Table::new(), Set::new());
    for (at, input) in inputs.iter().enumerate() {
        let number = input.node()?.0.number();
        stand_ins.insert(number, at);
        if moves.contains(&at) {
            moving.insert(number);
        }
    }
    let mut program = recording.body(&stand_ins, moving, model)?;
    let mut leaves: Table<usize, Id> = Table::new();
    for (id, val) in program.vals.iter().enumerate() {
        if let Kind::Leaf(leaf) = val.kind
            && let Some(&at) = stand_ins.get(&program.leaves[leaf].node()?.0.number())
        {
            leaves.insert(at, id);
        }
    }
    // What nothing reads is carried nevertheless.
    for (at, input) in inputs.iter().enumerate().take(carries) {
        let (node, output) = input.node()?;
        let spec = &node.outputs()[output];
        leaves.or_insert_with(at, || {
            program.leaves.push(input.clone());
            program.push(Val {
                kind: Kind::Leaf(program.leaves.len() - 1),
                inputs: vec![],
                after: None,
                dtype: spec.dtype,
                numel: spec.shape.numel(),
                name: "carry".into(),
                place: node.place().clone(),
            })
        });
    }
    let roots = std::mem::take(&mut program.roots);
    let results = roots.len() - carries;
    let is_read = |output: usize| outputs.get(output).is_some_and(|output| output.1);
    let kept = |carry: usize| is_read(carries + results + carry);
    let mut live: Vec<bool> = (0..carries).map(|carry| is_read(carry) || kept(carry)).collect();
    loop {
        let carried = (0..carries).filter(|&carry| live[carry]).map(|carry| roots[carry]);
        let read = (0..results).filter(|&at| is_read(carries + at)).map(|at| roots[carries + at]);
        let reached = reached(&program, carried.chain(read));
        let more: Vec<usize> = (0..carries).filter(|at| !live[*at] && reached.contains(&leaves[at])).collect();
        if more.is_empty() {
            break;
        }
        more.into_iter().for_each(|carry| live[carry] = true);
    }
    let mut request = Request::default();
    let (mut taken, mut places, mut strides) = (Set::new(), Vec::new(), Table::new());
    let stride = |numel: usize| {
        let forward = Stride::forward(numel, length);
        match scan.reverse {
            true => Stride { words: -(numel as i32), first: (numel * (length - 1)) as u32, ..forward },
            false => forward,
        }
    };
    for carry in (0..carries).filter(|&carry| live[carry] && roots[carry] != leaves[&carry]) {
        let (root, leaf) = (roots[carry], leaves[&carry]);
        let numel = program.vals[leaf].numel;
        let own = taken.insert(root) && !matches!(program.vals[root].kind, Kind::Scan(..));
        let root = if own { program.computed(root, numel) } else { program.copy_of(root, numel) };
        program.roots.push(root);
        request.replaces.push((leaf, root));
    }
    for at in (0..results).filter(|&at| is_read(carries + at)) {
        let (root, numel) = (roots[carries + at], scan.body.outputs()[carries + at].shape.numel());
        // A product finds its operands by where they begin, which a result does not do twice.
        let own =
            taken.insert(root) && !is_operand(&program, root) && !matches!(program.vals[root].kind, Kind::Scan(..));
        let root = if own { program.computed(root, numel) } else { program.copy_of(root, numel) };
        program.roots.push(root);
        request.results.push(root);
        places.push((root, outputs[carries + at].0));
        strides.insert(root, stride(numel));
    }
    for carry in (0..carries).filter(|&carry| kept(carry)) {
        let numel = program.vals[leaves[&carry]].numel;
        let root = program.copy_of(leaves[&carry], numel);
        program.roots.push(root);
        request.results.push(root);
        places.push((root, outputs[carries + results + carry].0));
        strides.insert(root, stride(numel));
    }
    for (at, &operand) in operands.iter().enumerate() {
        let Some(&leaf) = leaves.get(&at) else { continue };
        places.push((leaf, operand));
        if moves.contains(&at) {
            strides.insert(leaf, stride(program.vals[leaf].numel));
        }
    }
    program.leaves.clear();
    let carried = (0..carries).map(|at| (operands[at], is_read(at).then_some(outputs[at].0))).collect();
    Ok(Turn { length, program, request, places, strides, carried })
}

/// For each size a buffer of its own among those there are, and all that there are then.
pub fn share(mut have: Vec<u64>, sizes: &[u64]) -> (Vec<usize>, Vec<u64>) {
    let mut taken: Vec<usize> = Vec::new();
    for &bytes in sizes {
        let at = (0..have.len()).find(|at| have[*at] >= bytes && !taken.contains(at)).unwrap_or(have.len());
        if at == have.len() {
            have.push(bytes);
        }
        taken.push(at);
    }
    (taken, have)
}

/// Bytes of the buffers that the loops of a program have for their temporaries, by how deep the loops are: loops beside
/// each other run one after the other.
pub fn scratch(compiled: &Compiled) -> Vec<Vec<u64>> {
    fn walk(compiled: &Compiled, depth: usize, all: &mut Vec<Vec<u64>>) {
        for looped in compiled.schedule.jobs.iter().filter_map(|job| compiled.loops.get(job.groups().first()?)) {
            all.resize_with(all.len().max(depth + 1), Vec::new);
            let known = std::mem::take(&mut all[depth]);
            all[depth] = share(known, &looped.compiled.placement.buffers).1;
            walk(&looped.compiled, depth + 1, all);
        }
    }
    let mut all = Vec::new();
    walk(compiled, 0, &mut all);
    all
}
