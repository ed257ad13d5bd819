//! What devices limit: workgroups in one dimension, bytes of a binding, writable bindings of one range. And tensors of no
//! elements, which everything must take.
//!
//! A map alone cannot reach 65,536 workgroups here: four elements a lane and 256 lanes, that is 256 MiB, above what a
//! portable device binds. What numbers its workgroups is the same for folds, which can.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use std::borrow::Cow;

use common::{Random, read};
use wengert::dtype::DType;
use wengert::error::{Error, ErrorKind, Result};
use wengert::gpu::{Device, DeviceOptions};
use wengert::grad::{grad, value_and_grad};
use wengert::graph::interpret::{Array, Given, interpret};
use wengert::graph::{Kernel, Lowering, Misfit, Primitive, Spec, Tensor};
use wengert::layers::{Dense, Mode, Sequential};
use wengert::lower::Options;
use wengert::lower::place::Strategy;
use wengert::ops::{Attend, Conv, Window, attention, concat, scan, stack};
use wengert::optimizers::{Adam, Optimizer};
use wengert::random;
use wengert::step::{Logs, Step};

fn device() -> Device {
    Device::blocking().unwrap()
}

fn portable() -> Device {
    pollster::block_on(Device::with(DeviceOptions { portable: true, ..DeviceOptions::default() })).unwrap()
}

fn floats(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(&Random::new(seed).floats(shape.iter().product(), (-1.0, 1.0), false), shape)
}

/// The values must be those of the interpreter, to a few units in the last place of the largest.
fn agree(device: &Device, what: &str, tensors: &[Tensor]) {
    let wanted = interpret(tensors, &Given::new()).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (tensor, wanted) in tensors.iter().zip(&wanted) {
        close(what, &read(tensor, device).unwrap_or_else(|error| panic!("{what}: {error}")), &wanted.data);
    }
}

fn close(what: &str, got: &[f64], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(1f64, |most, x| most.max(x.abs()));
    for (at, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let same = (got - wanted).abs() <= 1e-5 * largest || (got.is_nan() && wanted.is_nan());
        assert!(same, "{what} at {at}: {got}, not {wanted}");
    }
}

// ---- more workgroups than one dimension has ----

/// The most workgroups of a dispatch of the plan for `f` of nothing, and its result.
fn workgroups(device: &Device, f: impl Fn() -> Tensor) -> (u64, Vec<f64>) {
    let shape = f().shape();
    let (mut step, mut state) = (Step::new(device), Tensor::new(&vec![0f32; shape.numel()], shape));
    step.run(&mut state, &(), |_: Tensor, _: &()| Ok((Logs::default(), f()))).unwrap();
    let lines = &step.plan().unwrap().lines;
    assert!(lines.iter().all(|line| line.grid.iter().all(|&n| n <= 65535)), "{}", step.plan().unwrap());
    let most = lines.iter().map(|line| line.grid.iter().map(|&n| u64::from(n)).product()).max().unwrap();
    (most, read(&state, device).unwrap())
}

#[test]
fn rows_are_more_than_one_dimension_of_workgroups() {
    let device = device();
    // A workgroup each; what every row adds up to is known.
    let (most, got) = workgroups(&device, || {
        let row = Tensor::iota([140_000, 40], 1).cast(DType::F32);
        (row * 0.1).softmax(-1).sum(-1)
    });
    assert!(most > 65535, "{most}");
    close("softmax of long rows", &got, &vec![1.0; 140_000]);
    // Short ones are threads' own.
    let x = floats(1, &[140_000, 2]);
    let weight = floats(2, &[140_000, 2]);
    let derivative = grad(|x: &Tensor| Ok((x.softmax(-1) * &weight).sum(..)), &x).unwrap();
    agree(&device, "softmax of short rows and its derivative", &[x.softmax(-1), derivative]);
}

#[test]
fn results_of_folds_are_more_than_one_dimension_of_workgroups() {
    let device = device();
    // One lane each, since their number is odd.
    const MANY: usize = 65_536 * 256 + 77;
    // Taken modulo 1000 as integers: f32 does not hold so many.
    let number = |axis: usize, shape: [usize; 2]| {
        let n = Tensor::iota(shape, axis);
        (&n - &n / Tensor::scalar(1000u32) * Tensor::scalar(1000u32)).cast(DType::F32)
    };
    let sums: [(&str, &dyn Fn() -> Tensor); 2] =
        [("rows", &|| number(0, [MANY, 2]).sum(1)), ("columns", &|| number(1, [2, MANY]).sum(0))];
    for (what, f) in sums {
        let (most, got) = workgroups(&device, f);
        assert!(most > 65535, "{what}: {most}");
        let wrong = got.iter().enumerate().find(|&(at, &got)| got != 2.0 * (at % 1000) as f64);
        assert!(wrong.is_none() && got.len() == MANY, "{what}: {wrong:?}");
    }
}

#[test]
fn products_of_many_matrices() {
    let device = device();
    const MANY: usize = 140_000;
    let (a, b) = (floats(1, &[MANY, 1, 3]), floats(2, &[MANY, 3, 2]));
    let loss = |x: &Vec<Tensor>| Ok(x[0].matmul(&x[1]).square().sum(..));
    let mut all = grad(loss, &vec![a.clone(), b.clone()]).unwrap();
    all.push(a.matmul(&b));
    agree(&device, "batched products", &all);
    let (most, _) = workgroups(&device, || a.matmul(&b));
    assert!(most > 65535, "{most}");
}

/// 2 x + 1, a workgroup for each element.
#[derive(Debug)]
struct Each {
    workgroups: [u32; 3],
}

impl Primitive for Each {
    fn name(&self) -> &str {
        "each"
    }

    fn attributes(&self) -> Cow<'_, str> {
        format!("{:?}", self.workgroups).into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        let [x, y, _] = self.workgroups;
        // A barrier must be reached by all lanes of a workgroup.
        let text = "
            var<workgroup> shared_value: f32;
            fn run(group: vec3<u32>, lane: u32) {
                let at = (group.z * size_1() + group.y) * size_0() + group.x;
                if (lane == 0u) { shared_value = 2.0 * load_0(at); }
                workgroupBarrier();
                if (lane == 1u) { store_0(at, shared_value + 1.0); }
            }";
        vec![Lowering::Kernel(Kernel {
            text: text.into(),
            subgroups: vec![],
            words: vec![x, y],
            width: 2,
            workgroups: self.workgroups,
            flops: 0,
        })]
    }

    fn reference(&self, inputs: &[Array], outputs: &[Spec]) -> Vec<Array> {
        vec![Array::new(outputs[0].shape.clone(), inputs[0].data.iter().map(|x| 2.0 * x + 1.0).collect())]
    }
}

#[test]
fn kernels_of_ones_own_ask_for_any_grid() {
    for device in [device(), portable()] {
        for workgroups in [[66_001, 1, 1], [2, 66_001, 1], [3, 1, 65_537], [7, 5, 3]] {
            let x = floats(1, &[workgroups.iter().map(|&n| n as usize).product()]);
            agree(&device, &format!("{workgroups:?}"), &[Tensor::apply(Each { workgroups }, &[&x])]);
        }
        // Sequences too many for one dimension.
        let [q, k, v] = [1, 2, 3].map(|seed| floats(seed, &[40_000, 2, 1, 4]));
        agree(&device, "attention", &[attention(&q, &k, &v, &Attend::default())]);
    }
}

// ---- more bytes than a binding has ----

#[test]
fn what_exceeds_a_binding_is_refused_while_it_is_recorded() {
    let device = portable();
    let limit = device.limits().max_storage_buffer_binding_size as usize;
    assert!(limit <= 128 << 20, "a portable device grants what WebGPU does");
    let many = limit / 4 + 1;
    let allocated = device.stats().bytes_allocated;
    let refused =
        |what: &str, result: Result<()>, line: u32| match result.as_ref().map_err(|error| (error, error.kind())) {
            Err((error, &ErrorKind::Limit { need, have, .. })) => {
                assert_eq!(have, limit as u64, "{what}: {error}");
                assert!(need > have && error.to_string().contains(&format!("limits.rs:{line}")), "{what}: {error}");
            }
            other => panic!("{what}: {other:?}"),
        };
    // An operand, a result and a temporary of a step, of which nothing is allocated.
    let large = Tensor::new(&vec![1f32; many], [many]);
    let line = line!() + 1;
    let folds = |s: Tensor, x: &Tensor| Ok((Logs::default(), s + x.sum(..)));
    refused("an operand", Step::new(&device).memory(&Tensor::scalar(0f32), &large, folds).map(drop), line);
    let line = line!() + 1;
    let spreads = |s: Tensor, _: &()| Ok((Logs::default(), s.exp()));
    refused("a leaf of the state", Step::new(&device).memory(&large, &(), spreads).map(drop), line);
    let columns = many / 256 + 1;
    let line = line!() + 2;
    let squares = |s: Tensor, _: &()| {
        let x = s.broadcast_to([256, columns]).exp().matmul(&Tensor::ones([columns, 4]));
        Ok((Logs::default(), s + x.sum(..)))
    };
    refused("a temporary", Step::new(&device).memory(&Tensor::scalar(0f32), &(), squares).map(drop), line);
    assert_eq!(device.stats().bytes_allocated, allocated);
    // What is folded as it is computed needs no memory: that is no reason to refuse it.
    let sum = (Tensor::iota([many + 3], 0).cast(DType::F32) * 0.0 + 1.0).sum(..);
    assert_eq!(sum.to_vec_on::<f32>(&device).unwrap(), [(many + 3) as f32]);
}

// ---- writable bindings ----

/// The state that one step of `f` leaves, with all temporaries in a slab or not.
fn stepped(
    device: &Device,
    strategy: Strategy,
    state: &[Tensor],
    f: impl Fn(&[Tensor]) -> Vec<Tensor>,
) -> Vec<Vec<f64>> {
    let options = Options { strategy, ..Options::default() };
    let (mut step, mut state) = (Step::with(device, options), state.to_vec());
    step.run(&mut state, &(), |s: Vec<Tensor>, _: &()| Ok((Logs::default(), f(&s)))).unwrap();
    state.iter().map(|tensor| read(tensor, device).unwrap()).collect()
}

/// Browsers refuse two writable bindings of one range, and a buffer that is bound to be read and to be written; binding a
/// plan refuses both.
#[test]
fn a_product_of_a_tensor_with_itself_binds_it_once() {
    type Case = (&'static str, &'static [usize], fn(&Tensor) -> Tensor);
    let cases: &[Case] = &[
        ("x x", &[48, 48], |x| x.matmul(x)),
        ("x x^T", &[48, 44], |x| x.matmul(&x.t())),
        ("x^T x", &[44, 48], |x| x.t().matmul(x)),
        ("odd", &[47, 47], |x| x.matmul(&x.t())),
        ("large", &[192, 160], |x| x.matmul(&x.t())),
        ("a batch", &[4, 24, 24], |x| x.matmul(&x.permute([0, 2, 1]))),
        ("parts that begin elsewhere", &[128, 64], |x| x.slice(0, 0..64).matmul(&x.slice(0, 64..128).t())),
        ("parts the other way", &[128, 64], |x| x.slice(0, 64..128).matmul(&x.slice(0, 0..64))),
        ("fours by ones", &[64, 64], |x| x.matmul(&x.slice(1, 0..33))),
        ("ones by fours", &[64, 64], |x| x.slice(1, 0..33).matmul(&x.slice(0, 0..33))),
        ("itself added", &[48, 48], |x| (x.matmul(x) + x).relu()),
        ("what lies before added", &[128, 64], |x| x.slice(0, 64..128).matmul(&x.slice(0, 0..64)) + x.slice(0, 0..64)),
        ("windows", &[2, 12, 12, 4], |x| {
            let rows = x.windows(&Window { kernel: [3, 3], ..Window::default() }).reshape([200, 36]);
            rows.t().matmul(&rows)
        }),
    ];
    for device in [device(), portable()] {
        for (name, shape, f) in cases {
            let x = floats(3, shape);
            let through = |x: &Tensor| {
                // The operand and the result are temporaries.
                let y = f(&(x * 0.5).tanh());
                let columns = y.dim(y.rank() - 1);
                let flat = y.reshape([y.shape().numel() / columns, columns]);
                flat.t().matmul(&flat)
            };
            let wanted = interpret(&[through(&x), f(&x)], &Given::new()).unwrap();
            for strategy in [Strategy::Whole, Strategy::Arena] {
                let blank = |array: &Array| Tensor::new(&vec![0f32; array.data.len()], &array.shape);
                let state = [x.clone(), blank(&wanted[0]), blank(&wanted[1])];
                let got = stepped(&device, strategy, &state[..2], |s| vec![s[0].clone(), through(&s[0])]);
                close(&format!("{name}, {strategy:?}"), &got[1], &wanted[0].data);
                // Operand and result are leaves of the state.
                let both = [state[0].clone(), state[2].clone()];
                let got = stepped(&device, strategy, &both, |s| vec![&s[0] * 1.0, f(&s[0])]);
                close(&format!("{name} in the state, {strategy:?}"), &got[1], &wanted[1].data);
            }
        }
        // Where an operand begins behind what else is read of it.
        let (big, w) = (floats(1, &[128, 64]), floats(2, &[64, 64]));
        agree(&device, "what lies before", &[big.slice(0, 64..128).matmul(&w) + big.slice(0, 0..64)]);
    }
}

// ---- no elements ----

/// An op of floats, with operands of these shapes.
type Empty = (&'static str, &'static [&'static [usize]], fn(&[Tensor]) -> Tensor);

const EMPTY: &[Empty] = &[
    ("unary", &[&[0, 5]], |x| x[0].exp() + x[0].tanh()),
    ("binary", &[&[0, 5], &[5]], |x| &x[0] * &x[1]),
    ("select", &[&[3, 0], &[3, 0]], |x| x[0].gt(&x[1]).select(&x[0], &x[1])),
    ("cast", &[&[0]], |x| x[0].cast(DType::I32).cast(DType::F32)),
    ("sum of nothing", &[&[0, 5]], |x| x[0].sum(0)),
    ("sums that are none", &[&[0, 5]], |x| x[0].sum(1)),
    ("sum of all", &[&[4, 0, 3]], |x| x[0].sum(..)),
    ("product of nothing", &[&[2, 0]], |x| x[0].stop_gradient().prod(1) * x[0].sum(1)),
    ("largest of none", &[&[0, 3]], |x| x[0].max(1)),
    ("variance", &[&[0, 3]], |x| x[0].var(1)),
    ("logsumexp", &[&[0, 3]], |x| x[0].logsumexp(1)),
    ("softmax", &[&[0, 3]], |x| x[0].softmax(-1)),
    ("softmax of nothing", &[&[3, 0]], |x| x[0].log_softmax(-1)),
    ("no rows", &[&[0, 4], &[4, 3]], |x| x[0].matmul(&x[1])),
    ("no columns", &[&[2, 4], &[4, 0]], |x| x[0].matmul(&x[1])),
    ("nothing to add up", &[&[2, 0], &[0, 3]], |x| x[0].matmul(&x[1])),
    ("nothing to add up, and a bias", &[&[2, 0], &[0, 3], &[3]], |x| (x[0].matmul(&x[1]) + &x[2]).relu()),
    ("no matrices", &[&[0, 2, 3], &[0, 3, 4]], |x| x[0].matmul(&x[1])),
    ("reshape", &[&[0, 6]], |x| x[0].reshape([3, 0, 2])),
    ("permute", &[&[2, 0, 3]], |x| x[0].permute([2, 0, 1])),
    ("slice", &[&[4, 3]], |x| x[0].slice(0, 2..2)),
    ("pad", &[&[0, 3]], |x| x[0].pad(&[(1, 2), (0, 1)])),
    ("flip", &[&[3, 0]], |x| x[0].flip(0)),
    ("broadcast", &[&[1, 3]], |x| x[0].broadcast_to([0, 3])),
    ("concat", &[&[0, 3], &[2, 3]], |x| concat(&[&x[0], &x[1]], 0)),
    ("concat of nothing", &[&[0, 3], &[0, 3]], |x| concat(&[&x[0], &x[1]], 0)),
    ("stack", &[&[0], &[0]], |x| stack(&[&x[0], &x[1]], 1)),
    ("take nothing", &[&[4, 3]], |x| x[0].take(&Tensor::new(&[] as &[i32], [0]), 0)),
    ("take from no rows", &[&[0, 3]], |x| x[0].take(&Tensor::new(&[1i32, 2], [2]), 1)),
    ("convolution", &[&[0, 6, 6, 2], &[3, 3, 2, 4]], |x| x[0].conv2d(&x[1], &Conv::default())),
    ("no filters", &[&[2, 6, 6, 2], &[3, 3, 2, 0]], |x| x[0].conv2d(&x[1], &Conv::default())),
    ("pooling", &[&[0, 4, 4, 3]], |x| {
        let window = Window { kernel: [2, 2], stride: [2, 2], ..Window::default() };
        x[0].max_pool2d(&window) + x[0].avg_pool2d(&window)
    }),
    ("attention", &[&[0, 3, 2, 4], &[0, 3, 2, 4], &[0, 3, 2, 4]], |x| {
        attention(&x[0], &x[1], &x[2], &Attend { causal: true, ..Attend::default() })
    }),
    ("no queries", &[&[2, 0, 2, 4], &[2, 3, 2, 4], &[2, 3, 2, 4]], |x| {
        attention(&x[0], &x[1], &x[2], &Attend::default())
    }),
    ("a loop of no turns", &[&[2, 3], &[0, 2, 3]], |x| {
        scan(0, x[0].clone(), x[1].clone(), |h, x| Ok((h * x, ()))).unwrap().0
    }),
    ("a loop over nothing", &[&[0, 3], &[4, 0, 3]], |x| {
        scan(4, x[0].clone(), x[1].clone(), |h, x| Ok(((&h * x).tanh(), h))).unwrap().1
    }),
];

#[test]
fn ops_take_tensors_of_no_elements_and_so_do_their_derivatives() {
    let device = device();
    for (name, shapes, f) in EMPTY {
        let x: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| floats(seed, shape)).collect();
        let mut all = vec![f(&x)];
        all[0].ok().unwrap_or_else(|error| panic!("{name}: {error}"));
        let gradients = grad(|x: &Vec<Tensor>| Ok(f(x).square().sum(..)), &x);
        let gradients = gradients.unwrap_or_else(|error| panic!("{name}: {error}"));
        for (gradient, x) in gradients.iter().zip(&x) {
            assert_eq!(gradient.shape(), x.shape(), "{name}");
        }
        all.extend(gradients);
        // Before they are read, which makes an end of them.
        let wanted = interpret(&all, &Given::new()).unwrap();
        agree(&device, name, &all);
        // Beside others, inside a step.
        let kept = Tensor::new(&vec![0f32; wanted[0].data.len()], &wanted[0].shape);
        let state: Vec<Tensor> = std::iter::once(kept).chain(x.iter().cloned()).collect();
        let got = stepped(&device, Strategy::Whole, &state, |s| {
            let gradients = grad(|x: &Vec<Tensor>| Ok(f(x).square().sum(..)), &s[1..].to_vec()).unwrap();
            std::iter::once(f(&s[1..])).chain(gradients).collect()
        });
        got.iter().zip(&wanted).for_each(|(got, wanted)| close(name, got, &wanted.data));
    }
    // What draws, and integers.
    let key = random::key(3);
    for shape in [[0, 3], [3, 0]] {
        let drawn = [random::uniform(&key, shape), random::normal(&key, shape), random::bernoulli(&key, 0.5, shape)];
        assert!(drawn.iter().all(|x| read(x, &device).unwrap().is_empty()));
    }
    assert!(read(&random::permutation(&key, 0), &device).unwrap().is_empty());
    let none = Tensor::new(&[] as &[i32], [0]);
    assert_eq!(read(&none.one_hot(3).sum(0), &device).unwrap(), [0.0; 3]);
    assert_eq!(read(&Tensor::zeros([0, 4]).argmax(1), &device).unwrap(), [0.0; 0]);
}

#[test]
fn an_optimizer_takes_a_batch_of_no_rows_and_a_parameter_of_no_elements() {
    let device = device();
    let network = Sequential::new([6]).add(Dense::new(5).activation("relu")).add(Dense::new(2)).network().unwrap();
    let (mut start, fixed) = network.init(1).unwrap();
    start.push(Tensor::zeros([0, 7]).to(&device).unwrap());
    let optimizer: Optimizer = Adam::default().into();
    let mut state = (start.clone(), optimizer.variables(&start).unwrap());
    let train = |(weights, moments): (Vec<Tensor>, Vec<Tensor>), x: &Tensor| {
        let loss = |weights: &Vec<Tensor>| {
            let Some((none, own)) = weights.split_last() else { return Err(Error::state("no weights")) };
            let (outputs, _) = network.call(own, &fixed, std::slice::from_ref(x), Mode::Train)?;
            Ok((outputs[0].square().sum(..) + none.sum(..), ()))
        };
        let ((loss, ()), gradients) = value_and_grad(loss, &weights)?;
        let (weights, moments) = optimizer.stateless_apply(&moments, &gradients, &weights)?;
        Ok((Logs::from([("loss", loss)]), (weights, moments)))
    };
    let mut step = Step::new(&device);
    let mut loss = |state: &mut _, x: &Tensor| step.run(state, x, train).unwrap().read_blocking().unwrap()[0].1;
    assert_eq!(loss(&mut state, &Tensor::zeros([0, 6]).to(&device).unwrap()), 0.0);
    // Nothing was seen, so nothing moves.
    for (now, before) in state.0.iter().zip(&start) {
        assert_eq!(read(now, &device).unwrap(), read(before, &device).unwrap());
    }
    // The same step learns from a batch that has rows.
    let x = floats(4, &[3, 6]);
    let first = loss(&mut state, &x);
    let later = (0..20).map(|_| loss(&mut state, &x)).last().unwrap();
    assert!(later < first, "{first} {later}");
}
