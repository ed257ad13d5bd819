//! [`scan`]: a loop as one op, `jax.lax.scan`.
//!
//! The body is recorded once and compiled once, whatever the number of steps. The derivative is a scan in the other
//! direction, which recomputes what is inside a step from the carry that the step began with; so memory grows by the
//! carry for each step and no more, and a second derivative is a scan again. Deliberately absent: loops whose length
//! depends on a value, for a plan is fixed before it runs.

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;

use super::Example;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Place, Result};
use crate::grad::pull;
use crate::graph::{Body, Derivative, Lowering, Misfit, Primitive, Scan, Spec, Tensor, Tree, View, here, nowhere};

/// Calls `f(carry, x) -> (carry, y)` for each of `length` steps, as `jax.lax.scan` does: `carry` begins as `init`, `x` are
/// the step's slices of `xs` along their first axis, and the `y` of all steps are stacked along a new first axis. Returns
/// the last carry and the stacked `y`.
///
/// `f` is called once, on stand-ins. Tensors it captures, such as weights, are differentiated like `init` and `xs`.
/// For its derivative the loop keeps the carry that each step began with, and nothing else.
///
/// ```
/// use wengert::graph::Tensor;
/// use wengert::ops::scan;
/// # wengert::host::main(async {
/// let x = Tensor::new(&[1.0f32, 2.0, 3.0], [3]);
/// let (total, sums) = scan(3, Tensor::scalar(0.0f32), x, |sum, x| {
///     let sum = sum + x;
///     Ok((sum.clone(), sum))
/// })?;
/// # let device = wengert::gpu::Device::new().await?;
/// assert_eq!(total.read_on::<f32>(&device).await?, [6.0]);
/// assert_eq!(sums.read_on::<f32>(&device).await?, [1.0, 3.0, 6.0]);
/// # Ok::<(), wengert::error::Error>(())
/// # });
/// ```
///
/// # Errors
/// The error of a poisoned operand, or of what `f` returns; [`ErrorKind::Shape`] where the first axis of a leaf of `xs` is
/// not `length`, [`ErrorKind::Shape`], [`ErrorKind::DType`] or [`ErrorKind::State`] where the carry that `f` returns is not like the
/// one it got.
#[track_caller]
pub fn scan<S: Tree, X: Tree, Y: Tree>(
    length: usize,
    init: S,
    xs: X,
    f: impl FnOnce(S, X) -> Result<(S, Y)>,
) -> Result<(S, Y)> {
    run(length, false, init, xs, f)
}

/// [`scan`] from the last step to the first: `y` of a step is stacked where its `x` was.
///
/// # Errors
/// Those of [`scan`].
#[track_caller]
pub fn scan_reversed<S: Tree, X: Tree, Y: Tree>(
    length: usize,
    init: S,
    xs: X,
    f: impl FnOnce(S, X) -> Result<(S, Y)>,
) -> Result<(S, Y)> {
    run(length, true, init, xs, f)
}

#[track_caller]
fn run<S: Tree, X: Tree, Y: Tree>(
    length: usize,
    reverse: bool,
    init: S,
    xs: X,
    f: impl FnOnce(S, X) -> Result<(S, Y)>,
) -> Result<(S, Y)> {
    let (place, first, sequences) = (here(), init.leaves(), xs.leaves());
    let own = stand_ins(length, &first, &sequences, &place)?;
    let (carry, x) = (filled(&init, &mut own.iter().cloned()), filled(&xs, &mut own[first.len()..].iter().cloned()));
    let (next, y) = f(carry, x)?;
    let outputs = looped(length, reverse, [first, sequences], &own, [next.leaves(), y.leaves()], place)?;
    let mut outputs = outputs.into_iter();
    let last = filled(&init, &mut outputs);
    Ok((last, filled(&y, &mut outputs)))
}

/// A tree like another, with these leaves.
fn filled<T: Tree>(like: &T, leaves: &mut dyn Iterator<Item = Tensor>) -> T {
    like.map(&mut |leaf| leaves.next().unwrap_or_else(|| leaf.clone()))
}

/// What a step reads: the carry, then its slices.
fn stand_ins(length: usize, first: &[Tensor], sequences: &[Tensor], place: &Place) -> Result<Vec<Tensor>> {
    let mut own = Vec::new();
    for (at, leaf) in first.iter().chain(sequences).enumerate() {
        let Some(mut spec) = leaf.ok()?.spec().cloned() else { continue };
        if at >= first.len() {
            if spec.shape.first() != Some(&length) {
                let why = format!("the first axis of what is scanned must be its {length} steps");
                return Err(Error::new(ErrorKind::Shape {
                    op: "scan".into(),
                    inputs: vec![spec.shape],
                    why,
                    place: place.clone(),
                }));
            }
            spec = Spec::new(spec.shape[1..].to_vec(), spec.dtype);
        }
        own.push(Tensor::placeholder(spec, place.clone()));
    }
    Ok(own)
}

/// The last carry and what is stacked, of a body that computes `new` and `results` from its `own` stand-ins.
#[track_caller]
fn looped(
    length: usize,
    reverse: bool,
    [first, sequences]: [Vec<Tensor>; 2],
    own: &[Tensor],
    [new, results]: [Vec<Tensor>; 2],
    place: Place,
) -> Result<Vec<Tensor>> {
    if new.len() != first.len() {
        let what = format!("scan: the carry had {} tensors, the body returned {}", first.len(), new.len());
        return Err(Error::state(what));
    }
    for (at, (was, is)) in first.iter().zip(&new).enumerate() {
        let (Some(was), Some(is)) = (was.spec(), is.ok()?.spec()) else { continue };
        if was != is {
            let (op, why) = ("scan".into(), format!("tensor {at} of the carry was {was}, the body returned {is}"));
            return Err(match was.dtype == is.dtype {
                true => {
                    Error::new(ErrorKind::Shape { op, inputs: vec![was.shape.clone(), is.shape.clone()], why, place })
                }
                false => Error::new(ErrorKind::DType { op, inputs: vec![was.dtype, is.dtype], why, place }),
            });
        }
    }
    let (body, captured) = Body::of(own, &[&new[..], &results[..]].concat())?;
    if length == 0 {
        let none = |leaf: &Tensor| match leaf.spec() {
            Some(spec) => Tensor::from_bits(Vec::new().into(), stacked(0, spec), place.clone()),
            None => leaf.clone(),
        };
        return Ok(first.into_iter().chain(results.iter().map(none)).collect());
    }
    let scan = Scan { body: Arc::new(body), length, reverse, carries: first.len(), sequences: sequences.len() };
    Ok(recorded(scan, &[first, sequences, captured].concat()))
}

#[track_caller]
fn recorded(scan: Scan, operands: &[Tensor]) -> Vec<Tensor> {
    let outputs = scan.body.outputs().len() + scan.carries;
    Tensor::record(Arc::new(Scanned(scan)), &operands.iter().collect::<Vec<_>>(), outputs)
}

/// See [`Scan`].
#[derive(Debug)]
struct Scanned(Scan);

/// The spec of what is stacked for each step.
fn stacked(length: usize, spec: &Spec) -> Spec {
    Spec::new([&[length], spec.shape.dims()].concat(), spec.dtype)
}

/// The product of two matrices that a tensor is, whatever its shape.
fn product(tensor: &Tensor) -> Option<[Tensor; 2]> {
    let mut at = tensor.clone();
    loop {
        let (node, _) = at.node().ok()?;
        let inputs = node.inputs();
        let specs: Vec<Spec> = inputs.iter().filter_map(|input| input.spec().cloned()).collect();
        match (node.op().lower(&specs, node.outputs()).as_slice(), &inputs[..]) {
            ([Lowering::View(view)], [source]) if view.shape(&source.shape()).numel() == source.shape().numel() => {
                // A transposed product is another product.
                let same = View::whole(&source.shape()).then(view)?.is_identity();
                at = same.then(|| source.clone())?;
            }
            ([Lowering::Contraction(c)], [a, b]) if c.batch == 1 => return Some([a.clone(), b.clone()]),
            _ => return None,
        }
    }
}

/// What a tensor is a view of, if it has the same elements in the same order.
fn source(tensor: &Tensor) -> Tensor {
    let (mut at, mut views, mut found) = (tensor.clone(), Vec::new(), tensor.clone());
    while let Ok((node, _)) = at.node() {
        let inputs = node.inputs();
        let specs: Vec<Spec> = inputs.iter().filter_map(|input| input.spec().cloned()).collect();
        let lowered = if inputs.len() == 1 { node.op().lower(&specs, node.outputs()) } else { Vec::new() };
        let [Lowering::View(view)] = lowered.as_slice() else { break };
        views.push(view.clone());
        let below = inputs[0].clone();
        at = below.clone();
        let whole = views.iter().rev().try_fold(View::whole(&below.shape()), |all, view| all.then(view));
        if whole.is_some_and(|view| view.is_identity() && view.shape.numel() == below.shape().numel()) {
            found = below;
        }
    }
    found
}

/// The tensors that a walk backwards keeps for each step.
#[derive(Default)]
struct Kept {
    /// In one step, and stacked: known before the walk, or an output of it.
    steps: Vec<(Tensor, Stacked)>,
    outputs: Vec<Tensor>,
}

#[derive(Clone)]
enum Stacked {
    Operand(Tensor),
    Output(usize),
}

impl Kept {
    fn find(&self, tensor: &Tensor) -> Option<Stacked> {
        let source = source(tensor);
        self.steps.iter().find(|(step, _)| step.same(&source)).map(|(_, stacked)| stacked.clone())
    }

    fn keep(&mut self, tensor: &Tensor) -> Stacked {
        if let Some(known) = self.find(tensor) {
            return known;
        }
        self.outputs.push(tensor.clone());
        let stacked = Stacked::Output(self.outputs.len() - 1);
        self.steps.push((source(tensor), stacked.clone()));
        stacked
    }
}

/// How the cotangent of something that all steps share is summed over the steps.
enum Sum {
    /// In the carry of the walk.
    Carried(usize),
    /// As one product over all steps: the rows of the transposed left operand, and of the right one.
    Product(Stacked, Stacked, [usize; 3]),
}

impl Scanned {
    /// Cotangents of the operands.
    fn backwards(
        &self,
        inputs: &[Tensor],
        outputs: &[Tensor],
        given: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let Scan { body, length, reverse, carries, sequences } = &self.0;
        let (length, carries) = (*length, *carries);
        let shared = carries + sequences;
        let results = body.outputs().len() - carries;
        let own = body.stand_ins();
        let roots = body.record(&own);
        let is_float = |tensor: &Tensor| tensor.dtype() == DType::F32;
        let like = |spec: &Spec| Tensor::placeholder(spec.clone(), nowhere());
        // What the walk carries: cotangents of the carry, then sums for what is shared.
        let (mut carry, mut init, mut next) = (Vec::new(), Vec::new(), Vec::new());
        let mut seeds = Vec::new();
        let mut carried = vec![None; carries];
        for at in (0..carries).filter(|&at| is_float(&own[at])) {
            let g = like(&body.inputs()[at]);
            seeds.push((roots[at].clone(), g.clone()));
            carried[at] = Some(carry.len());
            carry.push(g);
            init.push(given[at].clone().unwrap_or_else(|| Tensor::zeros(own[at].shape())));
        }
        // What it reads for each step: what the step read, and the cotangents of what it gave.
        let mut steps: Vec<Tensor> = own[..shared].to_vec();
        let mut stacks = [&outputs[carries + results..], &inputs[carries..shared]].concat();
        let mut kept = Kept::default();
        let known = |step: &Tensor, stack: &Tensor| (step.clone(), Stacked::Operand(stack.clone()));
        kept.steps.extend(steps.iter().zip(&stacks).map(|(step, stack)| known(step, stack)));
        let mut of_kept = vec![None; carries];
        for (at, g) in given.iter().enumerate().skip(carries).filter_map(|(at, g)| Some((at, g.as_ref()?))) {
            let (result, begun) = (at - carries, at.checked_sub(carries + results));
            let step = like(begun.map_or_else(|| &body.outputs()[at], |carry| &body.inputs()[carry]));
            match begun {
                Some(carry) => of_kept[carry] = Some(step.clone()),
                None => seeds.push((roots[carries + result].clone(), step.clone())),
            }
            kept.steps.push(known(&step, g));
            steps.push(step);
            stacks.push(g.clone());
        }
        let floats: Vec<usize> = (0..own.len()).filter(|&at| is_float(&own[at])).collect();
        let arguments: Vec<Tensor> = floats.iter().map(|&at| own[at].clone()).collect();
        let mut passed = vec![None; own.len()];
        for (&at, g) in floats.iter().zip(pull(&seeds, &arguments)?) {
            if let Some(error) = g.as_ref().and_then(Tensor::error) {
                return Err(error.clone());
            }
            passed[at] = g;
        }
        for at in (0..carries).filter(|&at| carried[at].is_some()) {
            let through = match (passed[at].take(), of_kept[at].clone()) {
                (Some(a), Some(b)) => a + b,
                (a, b) => a.or(b).unwrap_or_else(|| Tensor::zeros(own[at].shape())),
            };
            next.push(through);
        }
        let along: Vec<Option<Stacked>> =
            passed[carries..shared].iter().map(|g| g.as_ref().map(|g| kept.keep(g))).collect();
        let mut sums = Vec::new();
        for (g, spec) in passed[shared..].iter().zip(&body.inputs()[shared..]) {
            let Some(g) = g else {
                sums.push(None);
                continue;
            };
            let hoisted = product(g).and_then(|[a, b]| {
                let ([_, m, k], n) = (a.dims::<3>().ok()?, b.dim(2));
                let rows = a.t();
                // Another product in every step would read and write the whole sum; this one writes its operands.
                let written = |t: &Tensor| if kept.find(t).is_some() { 0 } else { t.shape().numel() };
                (written(&rows) + written(&b) <= m * n)
                    .then(|| Sum::Product(kept.keep(&rows), kept.keep(&b), [m, k, n]))
            });
            sums.push(Some(hoisted.unwrap_or_else(|| {
                let sum = like(spec);
                next.push(&sum + g);
                init.push(Tensor::zeros(sum.shape()));
                carry.push(sum);
                Sum::Carried(carry.len() - 1)
            })));
        }
        let (carries_back, sequences_back) = (carry.len(), steps.len());
        let stand_ins = [&carry[..], &steps, &own[shared..]].concat();
        let (back, captured) = Body::of(&stand_ins, &[&next[..], &kept.outputs[..]].concat())?;
        let back =
            Scan { body: Arc::new(back), length, reverse: !reverse, carries: carries_back, sequences: sequences_back };
        let walked = recorded(back, &[&init[..], &stacks, &inputs[shared..], &captured].concat());
        let stack = |stacked: &Stacked| match stacked {
            Stacked::Operand(tensor) => tensor.clone(),
            Stacked::Output(at) => walked[carries_back + at].clone(),
        };
        let mut cotangents: Vec<Option<Tensor>> = carried.iter().map(|at| at.map(|at| walked[at].clone())).collect();
        for (along, x) in along.iter().zip(&inputs[carries..shared]) {
            cotangents.push(along.as_ref().map(|along| stack(along).reshape(x.shape())));
        }
        for (sum, operand) in sums.iter().zip(&inputs[shared..]) {
            cotangents.push(sum.as_ref().map(|sum| match sum {
                Sum::Carried(at) => walked[*at].clone(),
                Sum::Product(a, b, [m, k, n]) => {
                    let (a, b) = (stack(a).reshape([length * k, *m]), stack(b).reshape([length * k, *n]));
                    a.t().matmul(&b).reshape(operand.shape())
                }
            }));
        }
        Ok(cotangents)
    }
}

impl Primitive for Scanned {
    fn hidden(&self) -> usize {
        self.0.carries
    }

    fn name(&self) -> &str {
        "scan"
    }

    fn attributes(&self) -> Cow<'_, str> {
        let Scan { length, reverse, body, .. } = &self.0;
        format!("{length} steps{} of {body:?}", if *reverse { " backwards" } else { "" }).into()
    }

    fn identify(&self, mut hasher: &mut dyn Hasher) {
        hasher.write(b"scan");
        std::hash::Hash::hash(&self.0, &mut hasher);
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let Scan { body, length, carries, sequences, .. } = &self.0;
        let wanted = body.inputs().iter().enumerate().map(|(at, spec)| match at {
            at if (*carries..carries + sequences).contains(&at) => stacked(*length, spec),
            _ => spec.clone(),
        });
        if !wanted.eq(inputs.iter().cloned()) {
            return Err(Misfit::Shape("the operands are not those of the body".into()));
        }
        let (last, results) = body.outputs().split_at(*carries);
        let stacked = |spec: &Spec| stacked(*length, spec);
        Ok(last.iter().cloned().chain(results.iter().map(stacked)).chain(last.iter().map(stacked)).collect())
    }

    fn vjp(&self, inputs: &[Tensor], outputs: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        Derivative::Vjp(self.backwards(inputs, outputs, cotangents).unwrap_or_else(|error| {
            let failed = |input: &Tensor| (input.dtype() == DType::F32).then(|| Tensor::poisoned(error.clone()));
            inputs.iter().map(failed).collect()
        }))
    }

    fn lower(&self, _: &[Spec], outputs: &[Spec]) -> Vec<Lowering> {
        outputs.iter().map(|_| Lowering::Scan(self.0.clone())).collect()
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        use crate::graph::interpret::{Array, Given, interpret};
        let Scan { body, length, reverse, carries, sequences } = &self.0;
        let own = body.stand_ins();
        let roots = body.record(&own);
        let mut carry = inputs[..*carries].to_vec();
        let mut all: Vec<Array> =
            outputs.iter().map(|spec| Array::new(spec.shape.clone(), vec![0.0; spec.shape.numel()])).collect();
        let put = |all: &mut Array, turn: usize, step: &Array| {
            let n = step.data.len();
            all.data[turn * n..(turn + 1) * n].copy_from_slice(&step.data);
        };
        for turn in 0..*length {
            let turn = if *reverse { length - 1 - turn } else { turn };
            let slice = |x: &Array| {
                let n = x.data.len() / length;
                Array::new(x.shape[1..].to_vec(), x.data[turn * n..(turn + 1) * n].to_vec())
            };
            let steps = inputs[*carries..carries + sequences].iter().map(slice);
            let values = carry.iter().cloned().chain(steps).chain(inputs[carries + sequences..].iter().cloned());
            let number = |t: &Tensor| t.node().map_or(0, |(node, _)| node.number());
            let given: Given = own.iter().map(|t| (number(t), 0)).zip(values).collect();
            // A body that cannot be interpreted leaves its loop without a reference as well.
            let Ok(new) = interpret(&roots, &given) else { return Vec::new() };
            let results = new.len() - carries;
            for (at, carry) in carry.iter().enumerate() {
                put(&mut all[carries + results + at], turn, carry);
            }
            for (at, result) in new[*carries..].iter().enumerate() {
                put(&mut all[carries + at], turn, result);
            }
            carry = new[..*carries].to_vec();
        }
        all[..*carries].clone_from_slice(&carry);
        all
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-1.0, 1.0);
    let f = DType::F32;
    /// Both parts of what a scan returns as one tensor.
    fn both(scanned: Result<(Tensor, Tensor)>) -> Tensor {
        match scanned {
            Ok((last, all)) => super::concat(&[&last.flatten(0), &all.flatten(0)], 0),
            Err(error) => Tensor::poisoned(error),
        }
    }
    fn cell(h: Tensor, x: &Tensor, w: &Tensor) -> Result<(Tensor, Tensor)> {
        let h = (x + h.matmul(w)).tanh();
        Ok((h.clone(), h * x))
    }
    vec![
        Example::new("scan", &[(&[3, 4], f, D), (&[5, 3, 4], f, D), (&[4, 4], f, D)], |x| {
            both(scan(5, x[0].clone(), x[1].clone(), |h, step| cell(h, &step, &x[2])))
        }),
        Example::new("scan backwards", &[(&[2, 3], f, D), (&[4, 2, 3], f, D), (&[3, 3], f, D)], |x| {
            both(scan_reversed(4, x[0].clone(), x[1].clone(), |h, step| cell(h, &step, &x[2])))
        }),
        Example::new(
            "scan of a wide cell",
            &[(&[8, 64], f, D), (&[3, 8, 64], f, D), (&[64, 64], f, (-0.1, 0.1))],
            |x| both(scan(3, x[0].clone(), x[1].clone(), |h, step| cell(h, &step, &x[2]))),
        ),
        Example::new("scan of one step", &[(&[3], f, D), (&[1, 3], f, D)], |x| {
            both(scan(1, x[0].clone(), x[1].clone(), |h, x| Ok((&h * &x, h + x))))
        }),
        Example::new("scan of odd columns", &[(&[17, 3], f, D), (&[4, 17, 3], f, D)], |x| {
            both(scan(4, x[0].clone(), x[1].clone(), |h, x| Ok((&h * 0.5 + x.sin(), h * x.sum(0)))))
        }),
        Example::new("scan with integers", &[(&[2, 3], f, D), (&[5, 2, 3], DType::I32, (0.0, 4.0))], |x| {
            let init = (x[0].clone(), Tensor::new(&[0i32; 6], [2, 3]));
            let scanned = scan(5, init, x[1].clone(), |(h, n), step| {
                let n = n + step;
                Ok(((&h * 0.9 + n.cast(DType::F32) * 0.1, n.clone()), h.square()))
            });
            both(scanned.map(|((last, count), all)| (last * count.cast(DType::F32), all)))
        }),
        Example::new("scan in a scan", &[(&[3], f, D), (&[4, 2, 3], f, D)], |x| {
            both(scan(4, x[0].clone(), x[1].clone(), |h, row| {
                let (h, _) = scan(2, h, row, |h, x| Ok((h.sin() * &x, x)))?;
                Ok((h.clone(), h + &x[0]))
            }))
        }),
    ]
}
