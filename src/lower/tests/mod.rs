//! The passes and the machine together, on a handful of ops made up here: what a user's own op would look like.

mod robust;

use std::borrow::Cow;

use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::Device;
use crate::graph::interpret::{Array, interpret};
use crate::graph::{Contraction, Fold, Lowering, Map, Misfit, Primitive, Reduction, Spec, Tensor, View, ViewOp};
use crate::lower::Options;
use crate::lower::place::Strategy;
use crate::read::evaluate;
use crate::step::{Logs, Step};

#[derive(Debug)]
enum Op {
    Map(&'static str, fn(&[f64]) -> f64, bool),
    Fold(Fold, Spec),
    View(ViewOp),
    Product(Contraction, Spec),
}

impl Primitive for Op {
    fn name(&self) -> &str {
        match self {
            Op::Map(text, ..) => text,
            Op::Fold(..) => "fold",
            Op::View(_) => "view",
            Op::Product(..) => "matmul",
        }
    }

    fn attributes(&self) -> Cow<'_, str> {
        Cow::Owned(match self {
            Op::Map(..) => String::new(),
            Op::Fold(fold, _) => format!("{fold:?}"),
            Op::View(view) => format!("{view:?}"),
            Op::Product(c, _) => format!("{c:?}"),
        })
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Ok(vec![match self {
            Op::Map(..) => inputs[0].clone(),
            Op::Fold(_, spec) | Op::Product(_, spec) => spec.clone(),
            Op::View(view) => Spec::new(view.shape(&inputs[0].shape), inputs[0].dtype),
        }])
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![match self {
            Op::Map(text, _, heavy) => Lowering::Map(Map { text, helpers: "", heavy: *heavy }),
            Op::Fold(fold, _) => Lowering::Fold(*fold),
            Op::View(view) => Lowering::View(view.clone()),
            Op::Product(c, _) => Lowering::Contraction(*c),
        }]
    }

    fn reference(&self, x: &[Array], outputs: &[Spec]) -> Vec<Array> {
        let shape = outputs[0].shape.clone();
        let n = shape.numel();
        let data = match self {
            Op::Map(_, f, _) => (0..n).map(|i| f(&x.iter().map(|a| a.data[i]).collect::<Vec<_>>())).collect(),
            Op::Fold(f, _) => (0..n)
                .map(|o| {
                    let at = |k| x[0].data[(o / f.inner) * f.length * f.inner + k * f.inner + o % f.inner];
                    match f.reduction {
                        Reduction::Max => (0..f.length).map(at).fold(f64::MIN, f64::max),
                        _ => (0..f.length).map(at).sum(),
                    }
                })
                .collect(),
            Op::View(op) => {
                let view = View::whole(&x[0].shape).then(op).unwrap();
                (0..n).map(|i| view.source(i).map_or(0.0, |s| x[0].data[s])).collect()
            }
            Op::Product(c, _) => (0..n)
                .map(|e| {
                    let (row, j) = (e / c.n, e % c.n);
                    let z = row / c.m;
                    (0..c.k).map(|k| x[0].data[row * c.k + k] * x[1].data[(z * c.k + k) * c.n + j]).sum()
                })
                .collect(),
        };
        vec![Array { shape, data }]
    }
}

#[track_caller]
fn map(text: &'static str, f: fn(&[f64]) -> f64, inputs: &[&Tensor]) -> Tensor {
    Tensor::apply(Op::Map(text, f, text.contains("exp")), inputs)
}
#[track_caller]
fn add(a: &Tensor, b: &Tensor) -> Tensor {
    map("$0 + $1", |x| x[0] + x[1], &[a, b])
}
#[track_caller]
fn sub(a: &Tensor, b: &Tensor) -> Tensor {
    map("$0 - $1", |x| x[0] - x[1], &[a, b])
}
#[track_caller]
fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    map("$0 * $1", |x| x[0] * x[1], &[a, b])
}
#[track_caller]
fn exp(a: &Tensor) -> Tensor {
    map("exp($0)", |x| x[0].exp(), &[a])
}
#[track_caller]
fn relu(a: &Tensor) -> Tensor {
    map("select(T(0.0), $0, $0 > T(0.0))", |x| x[0].max(0.0), &[a])
}
#[track_caller]
fn view(a: &Tensor, op: ViewOp) -> Tensor {
    Tensor::apply(Op::View(op), &[a])
}
#[track_caller]
fn broadcast(a: &Tensor, shape: &[usize]) -> Tensor {
    view(a, ViewOp::Broadcast(shape.into()))
}
#[track_caller]
fn reshape(a: &Tensor, shape: &[usize]) -> Tensor {
    view(a, ViewOp::Reshape(shape.into()))
}
#[track_caller]
fn fold(a: &Tensor, reduction: Reduction, axis: usize) -> Tensor {
    let shape = a.shape();
    let mut rest = shape.dims().to_vec();
    rest.remove(axis);
    let f = Fold {
        reduction,
        outer: shape[..axis].iter().product(),
        length: shape[axis],
        inner: shape[axis + 1..].iter().product(),
    };
    Tensor::apply(Op::Fold(f, Spec::new(rest, DType::F32)), &[a])
}
#[track_caller]
fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    let c = Contraction { batch: 1, m: a.dim(0), k: a.dim(1), n: b.dim(1) };
    Tensor::apply(Op::Product(c, Spec::new([c.m, c.n], DType::F32)), &[a, b])
}
fn softmax(x: &Tensor) -> Tensor {
    let (rows, columns) = (x.dim(0), x.dim(1));
    let spread = |t: &Tensor| broadcast(&reshape(t, &[rows, 1]), &[rows, columns]);
    let e = exp(&sub(x, &spread(&fold(x, Reduction::Max, 1))));
    let total = fold(&e, Reduction::Sum, 1);
    map("$0 / $1", |x| x[0] / x[1], &[&e, &spread(&total)])
}
#[track_caller]
fn data(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(12345);
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        })
        .collect();
    Tensor::new(&values, shape)
}

fn check(device: &Device, what: &str, make: impl Fn() -> Tensor) {
    for (fuse, strategy) in [(true, Strategy::Whole), (false, Strategy::Whole), (true, Strategy::Arena)] {
        let t = make();
        let expected = interpret(std::slice::from_ref(&t), &Default::default()).unwrap();
        let options = Options { fuse, strategy };
        let plan = match evaluate(device, std::slice::from_ref(&t), &options) {
            Ok(plan) => plan,
            Err(error) => panic!("{what} fuse={fuse}: {error}"),
        };
        let got: Vec<f32> = t.to_vec().unwrap();
        for (i, (g, e)) in got.iter().zip(&expected[0].data).enumerate() {
            let close = (f64::from(*g) - e).abs() <= 1e-5 * (1.0 + e.abs());
            if !close {
                let plan = plan.unwrap();
                let text: String = plan.lines.iter().map(|l| format!("// {}\n{}\n", l.label, l.source)).collect();
                panic!("{what} fuse={fuse} {strategy:?} at {i}: {g} != {e}\n{plan}\n{text}");
            }
        }
        assert_eq!(got.len(), expected[0].data.len());
    }
}

#[test]
fn small_graphs_agree_with_the_interpreter() {
    let device = Device::blocking().unwrap();
    let d = &device;
    check(d, "add", || add(&data(&[67], 1), &data(&[67], 2)));
    check(d, "chain", || exp(&mul(&add(&data(&[4, 5], 1), &data(&[4, 5], 2)), &data(&[4, 5], 3))));
    check(d, "bias", || add(&data(&[6, 8], 1), &broadcast(&data(&[8], 2), &[6, 8])));
    check(d, "odd bias", || add(&data(&[6, 7], 1), &broadcast(&data(&[7], 2), &[6, 7])));
    check(d, "transpose", || add(&view(&data(&[5, 8], 1), ViewOp::Permute(vec![1, 0])), &data(&[8, 5], 2)));
    check(d, "pad", || view(&data(&[5, 8], 1), ViewOp::Pad(vec![(1, 2), (0, 3)])));
    check(d, "flip", || view(&data(&[5, 8], 1), ViewOp::Slice(vec![(4, 5, -1), (1, 3, 2)])));
    check(d, "sum rows", || fold(&data(&[9, 12], 1), Reduction::Sum, 1));
    check(d, "sum columns", || fold(&data(&[9, 12], 1), Reduction::Sum, 0));
    check(d, "sum middle", || fold(&data(&[3, 9, 12], 1), Reduction::Sum, 1));
    check(d, "sum long", || fold(&data(&[3, 1000], 1), Reduction::Sum, 1));
    check(d, "max long odd", || fold(&data(&[70, 333], 1), Reduction::Max, 1));
    check(d, "sum all", || fold(&data(&[70000], 1), Reduction::Sum, 0));
    check(d, "softmax short", || softmax(&data(&[128, 10], 1)));
    check(d, "softmax", || softmax(&data(&[33, 64], 1)));
    check(d, "softmax long", || softmax(&data(&[5, 1000], 1)));
    check(d, "softmax very long", || softmax(&data(&[3, 5001], 1)));
    check(d, "matmul", || matmul(&data(&[33, 20], 1), &data(&[20, 70], 2)));
    check(d, "matmul big", || matmul(&data(&[128, 784], 1), &data(&[784, 64], 2)));
    check(d, "matmul bias relu", || {
        let y = matmul(&data(&[128, 64], 1), &data(&[64, 96], 2));
        relu(&add(&y, &broadcast(&data(&[96], 3), &[128, 96])))
    });
    check(d, "matmul transposed", || {
        let t = |x: &Tensor| view(x, ViewOp::Permute(vec![1, 0]));
        matmul(&t(&data(&[64, 128], 1)), &t(&data(&[32, 64], 2)))
    });
    check(d, "matmul of a map", || matmul(&relu(&data(&[20, 30], 1)), &exp(&data(&[30, 40], 2))));
    check(d, "two layers", || {
        let h = relu(&matmul(&data(&[16, 64], 1), &data(&[64, 32], 2)));
        softmax(&matmul(&h, &data(&[32, 10], 3)))
    });
    check(d, "empty", || add(&data(&[0, 5], 1), &data(&[0, 5], 1)));
}

#[test]
fn a_step_updates_its_state_in_place_and_packs_alike_updates() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let shapes: [&[usize]; 3] = [&[40, 30], &[30], &[30, 7]];
    let mut state: (Vec<Tensor>, Tensor) =
        (shapes.iter().enumerate().map(|(i, s)| data(s, i as u32)).collect(), Tensor::scalar(0.0f32));
    let start: Vec<Vec<f32>> = state.0.iter().map(|t| t.to_vec().unwrap()).collect();
    let f = |(weights, count): (Vec<Tensor>, Tensor), x: &Tensor| -> Result<(Logs, (Vec<Tensor>, Tensor))> {
        let half = Tensor::scalar(0.5f32);
        let scaled: Vec<Tensor> = weights.iter().map(|w| mul(w, &broadcast(&half, w.shape().dims()))).collect();
        let count = add(&count, &Tensor::scalar(1.0f32));
        let total = fold(x, Reduction::Sum, 0);
        Ok((Logs::from([("sum", total), ("count", count.clone())]), (scaled, count)))
    };
    let mut logs = Logs::default();
    for i in 0..3 {
        logs = step.run(&mut state, &data(&[64], i), f).unwrap();
    }
    let read = logs.read_blocking().unwrap();
    let expected: f32 = data(&[64], 2).to_vec::<f32>().unwrap().iter().sum();
    assert!((read[0].1 - expected).abs() < 1e-4, "{read:?} {expected}");
    assert_eq!(read[1], ("count".into(), 3.0));
    for (t, s) in state.0.iter().zip(&start) {
        let now: Vec<f32> = t.to_vec().unwrap();
        assert!(now.iter().zip(s).all(|(a, b)| *a == b / 8.0));
    }
    let plan = step.plan().unwrap();
    println!("{plan}");
    assert!(plan.dispatches() <= 2, "{plan}");
    let before = device.stats();
    for i in 0..10 {
        // Running ahead would make the upload ring grow to what is in flight.
        device.wait_blocking().unwrap();
        step.run(&mut state, &data(&[64], i), f).unwrap();
    }
    let spent = device.stats() - before;
    assert_eq!((spent.submissions, spent.bind_groups, spent.pipelines, spent.buffers), (10, 0, 0, 0), "{spent}");
}
