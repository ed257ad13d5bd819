//! A whole train step of floor 3 (network, loss, gradients, optimizer, metrics) on a device: it agrees with the f64
//! interpreter step by step, it learns, and its dropout repeats for equal seeds.

#![cfg(all(not(target_arch = "wasm32"), feature = "reference"))]

mod common;

use common::training::{Training, batch};
use wengert::dtype::DType;
use wengert::gpu::Device;
use wengert::graph::interpret::{Given, interpret};
use wengert::graph::{Tensor, Tree};
use wengert::metrics::Metric;
use wengert::optimizers::Clip;
use wengert::step::{Logs, Step};

/// With the options that a step may have besides.
fn clipped(dropout: f64) -> Training {
    let training = Training::classifier(dropout);
    let optimizer = training.optimizer.clip(Clip::GlobalNorm(5.0));
    Training { optimizer, ..training }
}

/// A tensor of f64 values, rounded to its dtype.
fn leaf(values: &[f64], like: &Tensor) -> Tensor {
    match like.dtype() {
        DType::F32 => Tensor::new(values, like.shape()),
        DType::I32 => Tensor::new(&values.iter().map(|&v| v as i32).collect::<Vec<_>>(), like.shape()),
        _ => Tensor::new(&values.iter().map(|&v| v as u32).collect::<Vec<_>>(), like.shape()),
    }
}

fn read(device: &Device, tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F32 => tensor.to_vec_on::<f64>(device).unwrap(),
        DType::I32 => tensor.to_vec_on::<i32>(device).unwrap().into_iter().map(f64::from).collect(),
        _ => tensor.to_vec_on::<u32>(device).unwrap().into_iter().map(f64::from).collect(),
    }
}

#[test]
fn steps_on_a_device_agree_with_the_interpreter() {
    let device = Device::blocking().unwrap();
    let training = clipped(0.25);
    let (mut state, mut reference) = (training.state(1), training.state(1));
    let mut step = Step::new(&device);
    for (number, rows) in [(0, 16), (1, 16), (2, 5)] {
        let batch = batch(rows, number);
        step.run(&mut state, &batch, |state, batch| training.step(state, batch)).unwrap();
        let (_, next) = training.step(reference, &batch).unwrap();
        let leaves = next.leaves();
        let mut values = interpret(&leaves, &Given::new()).unwrap().into_iter();
        reference = next.map(&mut |tensor| leaf(&values.next().unwrap().data, tensor));
        for (index, (got, expected)) in state.leaves().iter().zip(reference.leaves()).enumerate() {
            let (got, expected) = (read(&device, got), read(&device, &expected));
            for (a, b) in got.iter().zip(&expected) {
                // Adam divides by the root of tiny second moments, so an error of 1e-7 in a gradient may be 1e-4 of
                // the rate of 0.01 in a parameter.
                assert!((a - b).abs() <= 5e-6 * (1.0 + b.abs()), "step {number}, leaf {index}: {a}, expected {b}");
            }
        }
    }
}

#[test]
fn it_learns_and_dropout_repeats_for_equal_seeds() {
    let device = Device::blocking().unwrap();
    let training = clipped(0.1);
    let run = |seed: u64| {
        let mut state = training.state(seed);
        let mut step = Step::new(&device);
        let mut losses = Vec::new();
        for _ in 0..12 {
            state.3 = training.metrics.iter().map(Metric::initial).collect();
            let mut logs = Logs::default();
            for number in 0..8 {
                let rows = if number == 7 { 20 } else { 32 };
                logs = step.run(&mut state, &batch(rows, number), |s, b| training.step(s, b)).unwrap();
            }
            losses.push(logs.read_blocking().unwrap());
        }
        let weights: Vec<f32> = state.0.iter().flat_map(|t| t.to_vec::<f32>().unwrap()).collect();
        (losses, weights)
    };
    let (losses, weights) = run(3);
    let (first, last) = (&losses[0], &losses[11]);
    assert_eq!((first[0].0.as_str(), first[1].0.as_str()), ("loss", "accuracy"));
    assert!(last[0].1 < 0.5 * first[0].1, "{losses:?}");
    assert!(last[1].1 > 0.85, "{losses:?}");
    let (_, again) = run(3);
    assert!(weights.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert_ne!(weights, run(4).1);
}

/// Two ops of one name are two ops: plans of eager reads and signatures of steps tell them apart.
#[test]
fn ops_of_one_name_do_not_share_a_plan() {
    use wengert::ops::elementwise::FLOAT;
    use wengert::ops::{Elementwise, Row};
    static TWICE: Row = Row { name: "scale", text: "$0 * T(2.0)", reference: |x| x[0] * 2.0, ..FLOAT };
    static THRICE: Row = Row { name: "scale", text: "$0 * T(3.0)", reference: |x| x[0] * 3.0, ..FLOAT };
    let device = Device::blocking().unwrap();
    let x = Tensor::new(&[1.0f32, 2.0], [2]);
    let read = |row| Tensor::apply(Elementwise(row), &[&x]).to_vec_on::<f32>(&device).unwrap();
    assert_eq!(read(&TWICE), [2.0, 4.0]);
    assert_eq!(read(&THRICE), [3.0, 6.0]);
}
