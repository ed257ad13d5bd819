//! Attention at sizes where its kernels loop, against f64; its memory; and a kernel that an op from outside the crate
//! brings itself.
//!
//! `tests/ops.rs` has attention at sizes that derivatives can be checked at.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use std::borrow::Cow;

use common::{Random, read};
use wengert::dtype::DType;
use wengert::gpu::{Device, DeviceOptions};
use wengert::grad::grad;
use wengert::graph::interpret::{Array, Given, interpret};
use wengert::graph::{Kernel, Lowering, Misfit, Primitive, Spec, Tensor};
use wengert::ops::{Attend, attention};
use wengert::step::{Logs, Step};

fn leaf(random: &mut Random, shape: [usize; 4]) -> Tensor {
    Tensor::new(&random.floats(shape.iter().product(), (-1.5, 1.5), false), shape)
}

/// Values and gradients, on a device with subgroups and on a portable one. Rounding of sums over keys and of scores in
/// an exponential: a hundred units in the last place of the largest result.
#[test]
fn values_and_gradients_agree_with_the_reference() {
    for portable in [false, true] {
        let options = DeviceOptions { portable, ..DeviceOptions::default() };
        agrees(&pollster::block_on(Device::with(options)).unwrap());
    }
}

fn agrees(device: &Device) {
    // batch, queries, keys, heads, length of keys, of values; causal, masked, seen through permuted axes
    let cases = [
        ([2, 70, 70, 3, 32, 32], true, false, false),
        ([1, 33, 129, 2, 64, 32], false, false, false),
        ([2, 65, 40, 1, 7, 5], true, false, false),
        ([1, 20, 90, 2, 16, 16], false, true, false),
        ([2, 67, 67, 2, 8, 12], true, true, true),
        ([3, 1, 64, 2, 128, 128], false, false, false),
        ([2, 64, 1, 2, 4, 4], true, false, true),
        // Too long for registers: products and a softmax.
        ([1, 9, 9, 1, 130, 4], true, false, false),
    ];
    let mut random = Random::new(11);
    for ([b, t, s, h, d, e], causal, masked, permuted) in cases {
        let heads = |random: &mut Random, steps: usize, length: usize| match permuted {
            true => leaf(random, [b, h, steps, length]).permute([0, 2, 1, 3]),
            false => leaf(random, [b, steps, h, length]),
        };
        let (q, k, v) = (heads(&mut random, t, d), heads(&mut random, s, d), heads(&mut random, s, e));
        let probe = leaf(&mut random, [b, t, h, e]);
        let mask = Tensor::new(&random.floats(b * t * s, (0.0, 1.0), false), [b, 1, t, s]).gt(0.4);
        let options = Attend { causal, mask: masked.then_some(&mask), ..Attend::default() };
        let o = attention(&q, &k, &v, &options);
        let loss = |x: &Vec<Tensor>| Ok((attention(&x[0], &x[1], &x[2], &options) * &probe).sum(..));
        let mut all = grad(loss, &vec![q, k, v]).unwrap();
        all.push(o);
        let wanted = interpret(&all, &Given::new()).unwrap();
        for (which, (tensor, wanted)) in all.iter().zip(&wanted).enumerate() {
            let got = read(tensor, device).unwrap();
            let largest = wanted.data.iter().fold(0f64, |m, x| m.max(x.abs()));
            for (at, (got, wanted)) in got.iter().zip(&wanted.data).enumerate() {
                let off = (got - wanted).abs();
                assert!(
                    off <= 100.0 * f64::from(f32::EPSILON) * largest,
                    "{:?} causal {causal} masked {masked}, result {which} [{at}]: {got}, not {wanted}",
                    [b, t, s, h, d, e]
                );
            }
        }
    }
}

/// Bytes of temporaries of a training step of attention over so many steps.
fn temporaries(device: &Device, steps: usize) -> u64 {
    let mut random = Random::new(steps as u64);
    let mut state: Vec<Tensor> = (0..3).map(|_| leaf(&mut random, [1, steps, 2, 16])).collect();
    let mut step = Step::new(device);
    let run = |state: Vec<Tensor>, _: &()| {
        let loss = |x: &Vec<Tensor>| {
            Ok(attention(&x[0], &x[1], &x[2], &Attend { causal: true, ..Attend::default() }).square().mean(..))
        };
        let gradients = grad(loss, &state)?;
        Ok((Logs::default(), state.iter().zip(&gradients).map(|(x, g)| x - g * 0.1).collect()))
    };
    step.run(&mut state, &(), run).unwrap();
    step.plan().unwrap().temporaries
}

#[test]
fn memory_grows_with_the_steps_and_not_with_their_square() {
    let device = Device::blocking().unwrap();
    let [some, twice] = [512, 1024].map(|steps| temporaries(&device, steps));
    assert!(twice <= 2 * some + 4096, "{some} bytes, then {twice}");
    // The scores alone would be 8 MiB.
    assert!(twice < 2 << 20, "{twice}");
}

#[test]
fn what_does_not_fit_is_told() {
    let x = |shape: [usize; 4]| Tensor::zeros(shape);
    let failed = attention(&x([2, 5, 3, 8]), &x([2, 5, 3, 4]), &x([2, 5, 3, 8]), &Attend::default());
    let text = failed.error().unwrap().to_string();
    assert!(
        text.contains("attention") && text.contains("[2, 5, 3, 4]") && text.contains("tests/attention.rs"),
        "{text}"
    );
}

/// Sums from the beginning of each row to each place in it: `[rows, n]` to `[rows, n]`, and the total `[rows]`.
#[derive(Debug)]
struct RunningSum;

impl Primitive for RunningSum {
    fn name(&self) -> &str {
        "running_sum"
    }

    fn attributes(&self) -> Cow<'_, str> {
        "".into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        match *inputs[0].shape.dims() {
            [rows, _] => Ok(vec![inputs[0].clone(), Spec::new([rows], DType::F32)]),
            _ => Err(Misfit::Shape("it takes rows".into())),
        }
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        let [rows, n] = [inputs[0].shape[0], inputs[0].shape[1]];
        let text = "
            fn run(group: vec3<u32>, lane: u32) {
                let row = group.x * 32u + lane;
                if (row < size_0()) {
                    var sum = 0.0;
                    for (var i = 0u; i < size_1(); i++) {
                        sum += load_0(row * stride_0_0() + i * stride_0_1());
                        store_0(row * size_1() + i, sum);
                    }
                    store_1(row, sum);
                }
            }";
        let kernel = Kernel {
            text: text.into(),
            subgroups: vec![],
            words: vec![rows as u32, n as u32],
            width: 32,
            workgroups: [rows.div_ceil(32) as u32, 1, 1],
            flops: (rows * n) as u64,
        };
        vec![Lowering::Kernel(kernel); 2]
    }

    fn reference(&self, inputs: &[Array], outputs: &[Spec]) -> Vec<Array> {
        let (mut sums, mut totals) = (Vec::new(), Vec::new());
        for row in inputs[0].data.chunks(inputs[0].shape[1]) {
            let mut sum = 0.0;
            sums.extend(row.iter().map(|x| {
                sum += x;
                sum
            }));
            totals.push(sum);
        }
        vec![Array::new(outputs[0].shape.clone(), sums), Array::new(outputs[1].shape.clone(), totals)]
    }
}

fn running_sum(x: &Tensor) -> [Tensor; 2] {
    let both = Tensor::record(std::sync::Arc::new(RunningSum), &[x], 2);
    both.try_into().unwrap()
}

#[test]
fn an_op_from_outside_brings_a_kernel_of_its_own() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut random = Random::new(3);
    let mut pipelines = 0;
    // The smaller batch is the larger one's plan.
    for (turn, rows) in [48, 48, 7].into_iter().enumerate() {
        // Seen transposed: its strides are not those of a tensor that lies so.
        let x = Tensor::new(&random.floats(rows * 5, (-1.0, 1.0), false), [5, rows]).t();
        let function = |x: &Tensor| {
            let [sums, totals] = running_sum(&(x * 2.0).relu());
            let [seen, _] = running_sum(x);
            (sums + &seen * 3.0).sum(..) + totals.square().sum(..)
        };
        let wanted = interpret(&[function(&x)], &Given::new()).unwrap()[0].data[0];
        let mut state = Vec::<Tensor>::new();
        let run = |state: Vec<Tensor>, x: &Tensor| Ok((Logs::from([("sum", function(x))]), state));
        let got = step.run(&mut state, &x, run).unwrap().read_blocking().unwrap()[0].1;
        assert!((f64::from(got) - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), "{got}, not {wanted}");
        let made = device.stats().pipelines;
        assert!(turn == 0 || made == pipelines, "{made} pipelines after {pipelines}");
        pipelines = made;
    }
}
