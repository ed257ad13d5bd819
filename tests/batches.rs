//! The last batch of an epoch has fewer rows: its plan uses the kernels and the memory of the full batch's, and
//! computes the same numbers as a plan of its own.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::Random;
use common::training::{State, Training};
use wengert::dtype::DType;
use wengert::gpu::{Class, DeviceOptions};
use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::graph::interpret::{Given, interpret};
use wengert::layers::Network;
use wengert::ops::Keep;
use wengert::prelude::*;
use wengert::step::{Logs, Step};

/// Trains one step on `full` rows and one on each of `rest`; the latter must make no pipeline, and give what a step
/// that never saw another batch gives. Sums are of at most `terms` for each row.
fn check(what: &str, network: impl Fn() -> Network, row: &[usize], terms: usize, full: usize, rest: &[usize]) {
    let descent = SGD { learning_rate: 1.0, ..SGD::default() };
    compare(what, &Training::of(network(), descent), row, terms, (full, rest), |state| state.0.clone());
    // A first step of Adam's has the gradient's sign and little else, so its moments are compared.
    compare(what, &Training::of(network(), Adam::default()), row, terms, (full, rest), |state| state.2[2..].to_vec());
}

fn compare(
    what: &str,
    model: &Training,
    row: &[usize],
    terms: usize,
    (full, rest): (usize, &[usize]),
    looked_at: impl Fn(&State) -> Variables,
) {
    let device = Device::blocking().unwrap();
    let mut random = Random::new(3);
    let mut batch = |rows: usize| {
        let shape = [&[rows], row].concat();
        let x = Tensor::new(&random.floats(shape.iter().product(), (-1.0, 1.0), false), shape);
        let labels: Vec<i32> = (0..rows).map(|_| random.below(3) as i32).collect();
        (x, Tensor::new(&labels, [rows]))
    };
    let (mut state, mut step) = (model.state(0), Step::new(&device));
    model.run(&mut step, &mut state, &batch(full));
    let full_plan = step.plan().unwrap().clone();
    for &rows in rest {
        let small = batch(rows);
        let before = device.stats();
        let (mut reused, mut alone) = (model.state(0), model.state(0));
        model.run(&mut step, &mut reused, &small);
        let made = device.stats() - before;
        for (a, b) in full_plan.lines.iter().zip(&step.plan().unwrap().lines).filter(|(a, b)| a.source != b.source) {
            println!("{}\n{}\n{}", a.label, a.source, b.source);
        }
        assert_eq!(made.pipelines, 0, "{what}, {rows} rows after {full}:\n{}", step.plan().unwrap());
        model.run(&mut Step::new(&device), &mut alone, &small);
        let read = |tensor: &Tensor| tensor.to_vec_on::<f32>(&device).unwrap();
        let metrics = |state: &State| state.3.concat();
        let pairs = [looked_at(&reused), metrics(&reused)].concat();
        for (reused, alone) in pairs.iter().zip([looked_at(&alone), metrics(&alone)].concat()) {
            let (reused, alone) = (read(reused), read(&alone));
            let largest = alone.iter().fold(0f32, |m, x| m.max(x.abs()));
            // Sums in another order: rounding that adds up like a random walk, with a factor of 8 for luck.
            let allowed = 8.0 * ((rows * terms) as f32).sqrt() * f32::EPSILON * largest;
            for (at, (a, b)) in reused.iter().zip(&alone).enumerate() {
                assert!((a - b).abs() <= allowed, "{what}, {rows} rows, [{at}]: {a} and {b}");
            }
        }
    }
}

#[test]
fn a_smaller_batch_uses_the_kernels_of_the_full_one() {
    let mlp = || {
        Sequential::new([40])
            .add(Dense::new(96).activation("relu"))
            .add(Dropout::new(0.2))
            .add(Dense::new(64).activation("gelu"))
            .add(Dense::new(10))
            .network()
            .unwrap()
    };
    check("mlp", mlp, &[40], 1, 128, &[96, 37, 5, 2]);
    let tiny = || Sequential::new([32]).add(Dense::new(8)).add(Dense::new(3)).network().unwrap();
    check("tiny", tiny, &[32], 1, 32, &[8, 7, 3]);
    let cnn = || {
        let conv = |filters| Conv2D::new(filters, 3).padding("same").activation("relu");
        Sequential::new([20, 20, 1])
            .add(conv(16))
            .add(MaxPooling2D::new(2))
            .add(conv(20))
            .add(MaxPooling2D::new(2))
            .add(Flatten)
            .add(Dense::new(32).activation("relu"))
            .add(Dense::new(10))
            .network()
            .unwrap()
    };
    check("cnn", cnn, &[20, 20, 1], 400, 64, &[32, 25, 3]);
    let norms = || {
        let block = |layers: Sequential| layers.add(Dense::new(96)).add(LayerNormalization::new());
        block(block(Sequential::new([40]))).add(Dense::new(10)).network().unwrap()
    };
    check("norms", norms, &[40], 1, 128, &[96, 37, 3]);
    let lstm = || Sequential::new([6, 5]).add(LSTM::new(32)).add(Dense::new(3)).network().unwrap();
    check("lstm", lstm, &[6, 5], 6, 32, &[24, 9]);
}

/// Rows of 301 and 299 elements begin anywhere; of a large product they are copied to where four are loaded at once. The derivatives
/// read the same copies, and a last batch too small to be worth one uses the kernels that read them.
#[test]
fn rows_of_odd_length_are_copied_once_for_a_product_and_its_derivatives() {
    let odd = || Sequential::new([301]).add(Dense::new(299).activation("tanh")).add(Dense::new(3)).network().unwrap();
    let device = Device::blocking().unwrap();
    let model = Training::of(odd(), SGD::default());
    let (mut step, mut state) = (Step::new(&device), model.state(0));
    model.run(&mut step, &mut state, &(Tensor::ones([512, 301]), Tensor::new(&[1i32; 512], [512])));
    // The batch, the kernel, and the cotangent of what they give.
    let plan = step.plan().unwrap();
    assert_eq!(plan.lines.iter().filter(|line| line.label == "copy").count(), 3, "{plan}");
    check("odd", odd, &[301], 1, 512, &[300, 17, 2]);
}

/// Of a layer with gelu its derivative needs what goes in, and the product behind it what comes out: one can be had from the
/// other in a kernel that reads that one anyway.
#[test]
fn what_is_computed_again_for_nothing_is_so_in_a_smaller_batch() {
    let blocks = || {
        let mut layers = Sequential::new([64]);
        for _ in 0..4 {
            layers = layers.add(Dense::new(256).activation("gelu")).add(Dense::new(64));
        }
        layers.add(Dense::new(10)).network().unwrap()
    };
    let device = Device::blocking().unwrap();
    let model = Training::of(blocks(), SGD::default());
    let (mut step, mut state) = (Step::new(&device), model.state(0));
    model.run(&mut step, &mut state, &(Tensor::ones([128, 64]), Tensor::new(&[1i32; 128], [128])));
    let plan = step.plan().unwrap();
    // At the turning point four layers of 256 would hold both, 128 KiB each; all but the last hold one.
    assert!(plan.live <= 7 * 128 * 256 * 4, "{plan}");
    check("gelu", blocks, &[64], 1, 128, &[96, 37, 3, 2]);
}

/// What a step of one log gives for batches in turn.
fn logged(batches: &[Tensor], f: impl Fn(&Tensor) -> Tensor) -> Vec<f32> {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut run = |batch: &Tensor| {
        let logs = step.run(&mut (), batch, |_, batch| Ok((Logs::from([("value", f(batch))]), ()))).unwrap();
        logs.read_blocking().unwrap()[0].1
    };
    batches.iter().map(&mut run).collect()
}

#[test]
fn fewer_but_longer_rows_are_summed_to_their_end() {
    // As many elements in all as buckets of texts have: fewer rows, each longer than those the kernel was written for.
    let batches = [Tensor::new(&[1f32; 6400], [64, 100]), Tensor::new(&[1f32; 3200], [16, 200])];
    assert_eq!(logged(&batches, |x| x.sum(1).max(..)), [100.0, 200.0]);
}

#[test]
fn rows_that_become_columns_are_summed_as_columns() {
    let columns: Vec<f32> = (0..3200).map(|i| (i % 4) as f32).collect();
    let batches = [Tensor::new(&[1f32; 6400], [64, 100, 1]), Tensor::new(&columns, [16, 50, 4])];
    assert_eq!(logged(&batches, |x| x.sum(1).max(..)), [100.0, 150.0]);
}

#[test]
fn a_long_product_does_not_split_the_products_of_another_graph() {
    let batches = [Tensor::new(&[1f32; 16384], [8192, 2]), Tensor::new(&[1f32; 12], [3, 2, 2])];
    // Both products are the fourth value of their programs.
    let product = |x: &Tensor| match x.rank() {
        2 => x.t().matmul(x).max(..),
        _ => x.slice(0, 0..2).matmul(&x.slice(0, 0..2).t()).sum(..),
    };
    assert_eq!(logged(&batches, product), [8192.0, 16.0]);
}

/// The gradients of a layer norm, of the bias before it among them. On CPUs sums of columns ride along with the rows that one
/// subgroup has, each workgroup with a stretch of them, the last of which is short or empty.
#[test]
fn sums_of_columns_ride_along_with_rows() {
    let portable = DeviceOptions { portable: true, ..DeviceOptions::default() };
    for device in [Device::blocking().unwrap(), pollster::block_on(Device::with(portable)).unwrap()] {
        let carried = match device.class() {
            Class::Cpu => 32 * device.subgroup_size().unwrap_or(0) as usize,
            _ => 0,
        };
        for (rows, columns) in [(130, 36), (200, 128), (127, 260), (1000, 1024), (37, 256), (4100, 64)] {
            let mut random = Random::new((rows * columns) as u64);
            let mut leaf = |shape: &[usize]| random.leaf(&shape.into(), DType::F32, (-1.0, 1.0), false);
            let state = vec![leaf(&[columns]), leaf(&[columns]), leaf(&[columns])];
            let batch = (leaf(&[rows, columns]), leaf(&[rows, columns]));
            let slopes = |state: &Vec<Tensor>, batch: &(Tensor, Tensor)| {
                grad(
                    |at: &Vec<Tensor>| {
                        let x = &batch.0 + &at[0];
                        let centred = &x - x.mean(Keep(-1));
                        let scale = (centred.square().mean(Keep(-1)) + 1e-3).rsqrt();
                        Ok(((centred * scale * &at[1] + &at[2]).tanh() * &batch.1).sum(..))
                    },
                    state,
                )
            };
            let wanted = interpret(&slopes(&state, &batch).unwrap(), &Given::new()).unwrap();
            let (mut step, mut got) = (Step::new(&device), state);
            let f = |state: Vec<Tensor>, batch: &(Tensor, Tensor)| Ok((Logs::default(), slopes(&state, batch)?));
            let text = step.explain(&mut got, &batch, f).unwrap().to_string();
            step.run(&mut got, &batch, f).unwrap();
            let rides = columns <= carried;
            assert_eq!(text.contains("along with"), rides, "{rows} x {columns}: {text}");
            for (got, wanted) in got.iter().zip(&wanted) {
                // Rounding of sums of so many terms of about one adds up like a random walk; a factor of 8 for luck.
                let allowed = 8.0 * (rows as f64).sqrt() * f64::from(f32::EPSILON) * 4.0;
                for (at, (g, w)) in got.to_vec_on::<f32>(&device).unwrap().iter().zip(&wanted.data).enumerate() {
                    assert!((f64::from(*g) - w).abs() <= allowed, "{rows} x {columns} [{at}]: {g} and {w}");
                }
            }
        }
    }
}
