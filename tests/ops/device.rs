//! Ops on a device against their f64 references, and against known answers where a table of examples cannot say it.
//!
//! Everything is async and takes its device, so that the same checks run natively and in a browser (`tests/web/ops.rs`).
//! Deliberately absent: derivatives against differences, which need no device.

use std::collections::BTreeMap;

use super::common::{Random, blank, bool_if, read_async};
use wengert::dtype::DType;
use wengert::error::{ErrorKind, Result};
use wengert::gpu::Device;
use wengert::grad::grad;
use wengert::graph::display::collect;
use wengert::graph::interpret::{Array, Given, interpret};
use wengert::graph::{Lowering, Reduction, Spec, Tensor};
use wengert::ops::{Example, Keep, concat, registry, stack};
use wengert::random::{self, threefry};
use wengert::shape::Shape;
use wengert::step::{Logs, Step};

/// The inner product of a tensor with fixed random numbers: a loss that every element enters in its own way.
pub fn weighed(tensor: &Tensor, seed: u64) -> Tensor {
    let upstream = Random::new(seed).leaf(&tensor.shape(), DType::F32, (-1.0, 1.0), false);
    (tensor.cast(DType::F32) * upstream).sum(..)
}

/// `at` with the float operands replaced, in order, by `floats`.
pub fn with_floats(at: &[Tensor], floats: &[Tensor]) -> Vec<Tensor> {
    let mut floats = floats.iter();
    at.iter().map(|t| if t.dtype() == DType::F32 { floats.next().unwrap_or(t) } else { t }.clone()).collect()
}

/// How an operand lies in its leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lies {
    Plain,
    /// The leaf holds the transpose.
    Transposed,
    /// The leaf is the last axis alone.
    Spread,
}

/// An example fed with data of one shape.
struct Case {
    name: String,
    example: Example,
    leaves: Vec<Tensor>,
    operands: Vec<(Shape, DType, Lies)>,
}

impl Case {
    fn new(example: &Example, shapes: &[Shape], lies: &[Lies], coarse: bool, random: &mut Random) -> Case {
        let (mut leaves, mut operands) = (Vec::new(), Vec::new());
        for ((sample, shape), &lies) in example.inputs.iter().zip(shapes).zip(lies) {
            let leaf = match lies {
                Lies::Plain => shape.clone(),
                Lies::Transposed => [shape[1], shape[0]].into(),
                Lies::Spread => shape[1..].into(),
            };
            leaves.push(random.leaf(&leaf, sample.dtype, sample.domain, coarse));
            operands.push((shape.clone(), sample.dtype, lies));
        }
        let name = format!("{} of {shapes:?} {lies:?}", example.name);
        Case { name, example: example.clone(), leaves, operands }
    }

    fn operands(&self, leaves: &[Tensor]) -> Vec<Tensor> {
        let operand = |(leaf, (shape, dtype, lies)): (&Tensor, &(Shape, DType, Lies))| {
            let whole = bool_if(leaf, *dtype);
            match lies {
                Lies::Plain => whole,
                Lies::Transposed => whole.t(),
                Lies::Spread => whole.broadcast_to(shape),
            }
        };
        leaves.iter().zip(&self.operands).map(operand).collect()
    }

    /// The op alone.
    fn alone(&self, leaves: &[Tensor]) -> Tensor {
        (self.example.apply)(&self.operands(leaves))
    }

    /// The op between maps that are exact and leave its operands what they are.
    fn amid(&self, leaves: &[Tensor]) -> Tensor {
        let before = |x: &Tensor| match x.dtype() {
            DType::F32 => x * 0.5 * 2.0,
            DType::I32 => -(-x),
            DType::U32 => x + 1.0 - 1.0,
            DType::Bool => x.not().not(),
        };
        let result = (self.example.apply)(&self.operands(leaves).iter().map(before).collect::<Vec<_>>());
        match result.dtype() {
            DType::F32 => result * -0.5,
            DType::I32 | DType::U32 => result + 1.0,
            DType::Bool => result.not(),
        }
    }

    /// The derivatives of the op by its float operands; nothing where it has none.
    fn backward(&self, leaves: &[Tensor]) -> Result<Vec<Tensor>> {
        let at = self.operands(leaves);
        let floats: Vec<Tensor> = at.iter().filter(|t| t.dtype() == DType::F32).cloned().collect();
        match grad(|w: &Vec<Tensor>| Ok(weighed(&(self.example.apply)(&with_floats(&at, w)), 1)), &floats) {
            Err(error) if matches!(error.kind(), ErrorKind::NotDifferentiable { .. }) => Ok(Vec::new()),
            other => other,
        }
    }
}

/// The cases of one example: representative, off any multiple of a workgroup or of four, of one element, of none,
/// of three axes and with ties, transposed, broadcast, and of several workgroups.
fn cases(example: &Example, seed: u64) -> Vec<Case> {
    let random = &mut Random::new(seed);
    let own: Vec<Shape> = example.inputs.iter().map(|s| s.shape.clone()).collect();
    let plain = vec![Lies::Plain; own.len()];
    let mut cases = Vec::new();
    if example.any_shape {
        for (shape, coarse) in [
            (Shape::from([4, 6]), false),
            ([67].into(), false),
            ([1].into(), false),
            ([0].into(), false),
            ([3, 5, 7].into(), true),
            ([65, 64].into(), false),
        ] {
            cases.push(Case::new(example, &vec![shape; own.len()], &plain, coarse, random));
        }
        for (at, lies) in [(0, Lies::Transposed), (own.len() - 1, Lies::Spread)] {
            let mut one = plain.clone();
            one[at] = lies;
            cases.push(Case::new(example, &own, &one, false, random));
        }
    } else {
        cases.push(Case::new(example, &own, &plain, false, random));
        let flipped: Vec<Lies> =
            own.iter().map(|s| if s.rank() == 2 { Lies::Transposed } else { Lies::Plain }).collect();
        if flipped.contains(&Lies::Transposed) {
            cases.push(Case::new(example, &own, &flipped, true, random));
        }
    }
    cases
}

/// What reductions may add to the error of a result.
///
/// Each of N - 1 additions rounds by at most u = 2^-24 of a partial sum. Partial sums of terms of random sign are
/// about ||x||_2, and of terms of one sign at most sqrt(N) ||x||_2; N independent roundings add up like sqrt(N). So
/// u sqrt(N) ||x||_2, with 4 for luck; the bound that holds for any order of any terms, u N ||x||_1, would hide a
/// lost element (Higham and Mary 2019 on why the probabilistic one is what happens).
fn rounding_of_reductions(roots: &[Tensor]) -> f64 {
    let norm = |squares: &mut dyn Iterator<Item = f64>| squares.sum::<f64>().sqrt();
    let mut largest = 0.0f64;
    for node in collect(roots).unwrap() {
        let inputs = node.inputs();
        let specs: Vec<Spec> = inputs.iter().filter_map(|t| t.spec().cloned()).collect();
        for lowering in node.op().lower(&specs, node.outputs()) {
            let values = || interpret(&inputs, &Given::new()).unwrap();
            match lowering {
                Lowering::Fold(f) if f.reduction == Reduction::Sum => {
                    let x = &values()[0].data;
                    for at in 0..f.outer * f.inner {
                        let base = at / f.inner * f.length * f.inner + at % f.inner;
                        let norm = norm(&mut (0..f.length).map(|k| x[base + k * f.inner].powi(2)));
                        largest = largest.max((f.length as f64).sqrt() * norm);
                    }
                }
                Lowering::Contraction(c) if c.k > 0 => {
                    let x = values();
                    for at in 0..c.batch * c.m * c.n {
                        let (row, j) = (at / c.n, at % c.n);
                        let (a, b) = (&x[0].data[row * c.k..], &x[1].data[row / c.m * c.k * c.n + j..]);
                        let norm = norm(&mut (0..c.k).map(|k| (a[k] * b[k * c.n]).powi(2)));
                        largest = largest.max((c.k as f64).sqrt() * norm);
                    }
                }
                _ => {}
            }
        }
    }
    4.0 * largest * f64::from(f32::EPSILON) / 2.0
}

/// The unit in the last place of an f32 result, of 1 for results below 1.
fn unit(value: f64) -> f64 {
    value.abs().max(1.0).log2().floor().exp2() * f64::from(f32::EPSILON)
}

/// What a tensor must be: its f64 value and the error allowed.
struct Wanted {
    what: String,
    spec: Spec,
    data: Vec<f64>,
    allowed: Vec<f64>,
}

impl Wanted {
    /// Within `ulp` units of each result and what its reductions round.
    fn value(what: String, tensor: &Tensor, ulp: f64) -> Wanted {
        let Array { data, .. } = interpret(std::slice::from_ref(tensor), &Given::new())
            .unwrap_or_else(|error| panic!("{what}: {error}"))
            .remove(0);
        let rounding = rounding_of_reductions(std::slice::from_ref(tensor));
        let allowed = data.iter().map(|&x| ulp * unit(x) + rounding).collect();
        Wanted { what, spec: tensor.spec().unwrap().clone(), data, allowed }
    }

    /// Derivatives are compositions of a handful of ops: the error of the largest intermediate is what counts, so the
    /// unit is that of the largest result.
    fn derivative(what: String, tensor: &Tensor, ulp: f64) -> Wanted {
        let mut wanted = Wanted::value(what, tensor, ulp);
        let largest = wanted.data.iter().map(|&x| unit(x)).fold(0.0, f64::max);
        wanted.allowed.iter_mut().for_each(|allowed| *allowed += (4.0 * ulp + 16.0) * largest);
        wanted
    }

    fn check(&self, how: &str, got: &[f64]) -> Option<String> {
        let what = &self.what;
        if got.len() != self.data.len() {
            return Some(format!("{what}, {how}: {} elements, not {}", got.len(), self.data.len()));
        }
        let float = self.spec.dtype == DType::F32;
        for (at, ((&got, &want), &allowed)) in got.iter().zip(&self.data).zip(&self.allowed).enumerate() {
            let close = got == want || (float && ((got - want).abs() <= allowed || (got.is_nan() && want.is_nan())));
            if !close {
                let units = (got - want).abs() / unit(want);
                return Some(format!(
                    "{what}, {how}: [{at}] is {got}, not {want}: {units:.1} units, allowed {:.1}",
                    allowed / unit(want)
                ));
            }
        }
        None
    }
}

/// Evaluates many tensors in one plan of a step whose state they become.
async fn in_a_step(
    device: &Device,
    leaves: &Vec<Tensor>,
    outputs: &[Spec],
    f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Vec<Vec<f64>>> {
    let mut state: Vec<Tensor> = outputs.iter().map(|spec| blank(&spec.shape, spec.dtype, device)).collect();
    Step::new(device).run(&mut state, leaves, |_, leaves: &Vec<Tensor>| Ok((Logs::default(), f(leaves)?)))?;
    let mut values = Vec::new();
    for tensor in &state {
        values.push(read_async(tensor, device).await?);
    }
    Ok(values)
}

pub async fn values_agree_with_the_reference(device: &Device) -> usize {
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut compared = 0;
    for (example, seed) in registry().iter().zip(1u64..) {
        let cases = cases(example, seed);
        let leaves: Vec<Tensor> = cases.iter().flat_map(|case| case.leaves.clone()).collect();
        let all = |leaves: &[Tensor]| -> Result<Vec<Tensor>> {
            let mut rest = leaves;
            let mut outputs = Vec::new();
            for case in &cases {
                let (own, others) = rest.split_at(case.leaves.len());
                rest = others;
                outputs.push(case.alone(own));
                outputs.push(case.amid(own));
                outputs.extend(case.backward(own)?);
            }
            Ok(outputs)
        };
        let mut wanted = Vec::new();
        for case in &cases {
            let (name, ulp) = (&case.name, example.ulp);
            wanted.push(Wanted::value(name.clone(), &case.alone(&case.leaves), ulp));
            wanted.push(Wanted::value(format!("{name} between maps"), &case.amid(&case.leaves), ulp));
            let derivatives = case.backward(&case.leaves).unwrap_or_else(|error| panic!("{name}: {error}"));
            for (derivative, at) in derivatives.iter().zip(0..) {
                wanted.push(Wanted::derivative(format!("{name}, derivative {at}"), derivative, ulp));
            }
        }
        let mut note = |wanted: &Wanted, how: &str, got: &[f64]| {
            compared += 1;
            wrong.entry(example.name.clone()).or_default().extend(wanted.check(how, got));
        };
        let specs: Vec<Spec> = wanted.iter().map(|wanted| wanted.spec.clone()).collect();
        let got = in_a_step(device, &leaves, &specs, all).await;
        let got = got.unwrap_or_else(|error| panic!("{}: {error}", example.name));
        for (wanted, got) in wanted.iter().zip(&got) {
            note(wanted, "in a step", got);
        }
        for case in &cases {
            let got = read_async(&case.alone(&case.leaves), device).await;
            let got = got.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let wanted = wanted.iter().find(|wanted| wanted.what == case.name).unwrap();
            note(wanted, "read eagerly", &got);
        }
    }
    wrong.retain(|_, messages| !messages.is_empty());
    let shown: Vec<&str> = wrong.values().flatten().map(String::as_str).collect();
    assert!(shown.is_empty(), "{} of {compared} results are wrong:\n{}", shown.len(), shown.join("\n"));
    compared
}

// ---- what the table cannot say: NaN, infinity, and random bits ----

/// Equal in every value, NaN included.
#[track_caller]
fn same(got: &[f64], want: &[f64]) {
    let equal = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
    assert!(got.len() == want.len() && got.iter().zip(want).all(equal), "{got:?}\n{want:?}");
}

pub async fn nan_and_infinity_pass(device: &Device) {
    let (nan, inf, max) = (f32::NAN, f32::INFINITY, f32::MAX);
    // Seven and eight elements: one lane at a time, and four.
    for n in [7, 8] {
        let x = Tensor::new(&[nan, -1.0, 2.0, inf, -inf, -nan, max, 0.0][..n], [n]);
        let y = Tensor::new(&[1.0, nan, nan, 1.0, nan, 3.0, inf, nan][..n], [n]);
        let outputs = [
            x.relu(),
            x.maximum(&y),
            x.minimum(&y),
            x.maximum(0.5),
            x.clip(-0.5, 1.0),
            x.is_nan(),
            x.is_finite(),
            // Only what is chosen counts, wherever the other choice is NaN.
            y.is_nan().select(0.0, &y),
            y.is_nan().select(&y, 0.0),
            y.is_nan().not().select(&y, &x),
            x.abs(),
        ];
        let (nan, inf, max) = (f64::NAN, f64::INFINITY, f64::from(max));
        let wanted: [[f64; 8]; 11] = [
            [nan, 0.0, 2.0, inf, 0.0, nan, max, 0.0],
            [nan, nan, nan, inf, nan, nan, inf, nan],
            [nan, nan, nan, 1.0, nan, nan, max, nan],
            [nan, 0.5, 2.0, inf, 0.5, nan, max, 0.5],
            [nan, -0.5, 1.0, 1.0, -0.5, nan, 1.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
            [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
            [1.0, 0.0, 0.0, 1.0, 0.0, 3.0, inf, 0.0],
            [0.0, nan, nan, 0.0, nan, 0.0, 0.0, nan],
            [1.0, -1.0, 2.0, 1.0, -inf, 3.0, inf, 0.0],
            [nan, 1.0, 2.0, inf, inf, nan, max, 0.0],
        ];
        let mut got: Vec<Vec<f64>> =
            outputs.iter().map(|t| interpret(std::slice::from_ref(t), &Given::new()).unwrap().remove(0).data).collect();
        for tensor in &outputs {
            got.push(read_async(tensor, device).await.unwrap());
        }
        for (got, wanted) in got.iter().zip(wanted.iter().chain(&wanted)) {
            same(got, &wanted[..n]);
        }
    }
}

pub async fn folds_pass_nan(device: &Device) {
    // Rows that fit one thread, one workgroup, and neither; read by rows and by columns.
    for (rows, columns) in [(3, 5), (5, 64), (3, 1000), (2, 9001)] {
        let mut data = Random::new(5).floats(rows * columns, (-3.0, 3.0), false);
        let at = 2 * columns / 3;
        (data[at], data[columns - 1]) = (f32::NAN, f32::NAN);
        // The last row has an infinity, which is an ordinary largest element.
        data[(rows - 1) * columns + 1] = f32::INFINITY;
        let rest = &data[columns..];
        let (x, y) = (Tensor::new(&data, [rows, columns]), Tensor::new(&data, [rows, columns]).t());
        for (x, axis) in [(&x, 1), (&y, 0)] {
            let (max, min, argmax) = (x.max(axis), x.min(axis), x.argmax(axis));
            let row = |r: usize| rest[(r - 1) * columns..][..columns].iter().map(|&v| f64::from(v));
            let of = |first: f64, f: &dyn Fn(usize) -> f64| -> Vec<f64> {
                std::iter::once(first).chain((1..rows).map(f)).collect()
            };
            let largest = |r: usize| row(r).fold(f64::MIN, f64::max);
            same(&read_async(&max, device).await.unwrap(), &of(f64::NAN, &largest));
            same(&read_async(&min, device).await.unwrap(), &of(f64::NAN, &|r| row(r).fold(f64::MAX, f64::min)));
            let position = |r: usize| row(r).position(|v| v == largest(r)).unwrap() as f64;
            same(&read_async(&argmax, device).await.unwrap(), &of(at as f64, &position));
        }
    }
}

pub async fn random_numbers_are_those_of_the_host(device: &Device) {
    let seed = 0xdead_beef_0123_4567;
    let (key, host) = (random::key(seed), threefry::key(seed));
    for n in [1, 7, 64, 100_003] {
        let bits: Vec<u32> = (0..n).map(|i| threefry::bits(host, i)).collect();
        assert_eq!(random::bits(&key, [n as usize]).read_on::<u32>(device).await.unwrap(), bits);
        let uniform: Vec<u32> = bits.iter().map(|&b| threefry::unit(b).to_bits()).collect();
        let got = random::uniform(&key, [n as usize]).read_on::<f32>(device).await.unwrap();
        assert_eq!(got.iter().map(|u| u.to_bits()).collect::<Vec<_>>(), uniform);
        let coins = random::bernoulli(&key, 0.25, [n as usize]).read_on::<u32>(device).await.unwrap();
        assert!(coins.iter().zip(&bits).all(|(&coin, &b)| coin == u32::from(threefry::unit(b) < 0.25)));
    }
    // The index of an element counts row-major, whatever the shape, and only what is read is computed.
    let last = random::bits(&key, [1 << 14, 1 << 15]).slice(0, (1 << 14) - 1..).slice(1, (1 << 15) - 9..);
    let wanted: Vec<u32> = ((1 << 29) - 9..1 << 29).map(|i| threefry::bits(host, i)).collect();
    assert_eq!(last.read_on::<u32>(device).await.unwrap(), wanted);
    // Keys of keys, by numbers of the host and of the device, the largest included.
    for data in [0, 1, 77, u32::MAX] {
        let child = threefry::fold_in(host, data);
        assert_eq!(random::fold_in(&key, f64::from(data)).read_on::<u32>(device).await.unwrap(), child);
        let grandchild = random::fold_in(&random::fold_in(&key, Tensor::scalar(data)), 5.0);
        assert_eq!(grandchild.read_on::<u32>(device).await.unwrap(), threefry::fold_in(child, 5));
    }
}

/// The reference of a view goes through the same strides as the compiler, so both are held against answers by hand.
pub async fn views_and_joins_give_the_answers_of_numpy(device: &Device) {
    let x = Tensor::new(&[0f32, 1.0, 2.0, 3.0, 4.0, 5.0], [2, 3]);
    let y = Tensor::new(&[6f32, 7.0, 8.0], [3]);
    let at = Tensor::new(&[2i32, 0, 9, -1], [2, 2]);
    let cases: Vec<(Tensor, &[usize], &[f64])> = vec![
        (x.reshape([3, 2]), &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        (x.t(), &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        (x.unsqueeze(0).permute([2, 0, 1]), &[3, 1, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        (y.broadcast_to([2, 3]), &[2, 3], &[6.0, 7.0, 8.0, 6.0, 7.0, 8.0]),
        (y.unsqueeze(-1).broadcast_to([3, 2]), &[3, 2], &[6.0, 6.0, 7.0, 7.0, 8.0, 8.0]),
        (x.slice(1, 1..), &[2, 2], &[1.0, 2.0, 4.0, 5.0]),
        (x.slice(0, 1..2).squeeze(0), &[3], &[3.0, 4.0, 5.0]),
        (x.slice(-1, ..=1), &[2, 2], &[0.0, 1.0, 3.0, 4.0]),
        (y.pad(&[(1, 2)]), &[6], &[0.0, 6.0, 7.0, 8.0, 0.0, 0.0]),
        (x.pad(&[(1, 0), (0, 1)]), &[3, 4], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 5.0, 0.0]),
        (x.flip(0), &[2, 3], &[3.0, 4.0, 5.0, 0.0, 1.0, 2.0]),
        (x.flip(-1), &[2, 3], &[2.0, 1.0, 0.0, 5.0, 4.0, 3.0]),
        (x.flatten(0), &[6], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        (x.t().flip(0).slice(0, ..2).flatten(0), &[4], &[2.0, 5.0, 1.0, 4.0]),
        (concat(&[&x, &y.unsqueeze(0)], 0), &[3, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        (concat(&[&x.slice(1, 2..), &x], 1), &[2, 4], &[2.0, 0.0, 1.0, 2.0, 5.0, 3.0, 4.0, 5.0]),
        (stack(&[&y, &(&y + 10.0)], 1), &[3, 2], &[6.0, 16.0, 7.0, 17.0, 8.0, 18.0]),
        // Indices beyond the axis are clamped.
        (x.take(&at, 1), &[2, 2, 2], &[2.0, 0.0, 2.0, 0.0, 5.0, 3.0, 5.0, 3.0]),
        (y.take(&at.flatten(0).slice(0, ..2), 0), &[2], &[8.0, 6.0]),
        (at.flatten(0).one_hot(3), &[4, 3], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        (Tensor::iota([2, 3], 0), &[2, 3], &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        (Tensor::iota([2, 3], 1), &[2, 3], &[0.0, 1.0, 2.0, 0.0, 1.0, 2.0]),
        (x.matmul(&y.unsqueeze(1)), &[2, 1], &[23.0, 86.0]),
        (x.sum(0), &[3], &[3.0, 5.0, 7.0]),
        (x.mean(Keep(0)), &[1, 3], &[1.5, 2.5, 3.5]),
        (x.reshape([2, 1, 3]).max([0, 2]), &[1], &[5.0]),
        (x.prod(1), &[2], &[0.0, 60.0]),
        (x.var(0), &[3], &[2.25, 2.25, 2.25]),
        (x.argmax(0), &[3], &[1.0, 1.0, 1.0]),
    ];
    for (number, (tensor, shape, wanted)) in cases.iter().enumerate() {
        assert_eq!(tensor.shape().dims(), *shape, "{number}");
        same(&interpret(std::slice::from_ref(tensor), &Given::new()).unwrap()[0].data, wanted);
        same(&read_async(tensor, device).await.unwrap(), wanted);
    }
}
