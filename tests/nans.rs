//! `debug_nans`: a step that leaves a NaN or an infinity ends with the op, its operands, the layer and the line where that
//! began, and with the state it had.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::cell::Cell;

use common::training::{Training, batch};
use wengert::graph::{Scope, Tree};
use wengert::prelude::*;

fn device() -> Device {
    Device::blocking().unwrap()
}

fn watched(device: &Device) -> Step {
    Step::new(device).debug_nans(true)
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::new(values, [values.len()])
}

/// The text of an error, which must be of the one kind.
fn text<T>(result: Result<T>) -> String {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::NonFinite { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("no error"),
    }
}

/// A step that takes a logarithm or a root, and the line that does.
fn logarithm_or_root(logarithm: bool, w: Tensor, x: &Tensor) -> Result<(Logs, Tensor)> {
    let y = {
        let _scope = Scope::enter("model/dense");
        let scaled = x * &w;
        if logarithm { scaled.log() } else { scaled.sqrt() }.sum(..)
    };
    Ok((Logs::from([("loss", y.clone())]), w - y * 0.0))
}
const LINE: u32 = line!() - 4;

#[test]
fn a_logarithm_or_a_root_of_a_negative_number_is_named_with_layer_and_line() {
    let device = device();
    for (logarithm, op) in [(true, "log"), (false, "sqrt")] {
        // WGSL lets a device say what a logarithm of a negative number is.
        if logarithm && vector(&[-0.5]).log().to_vec_on::<f32>(&device).unwrap()[0].is_finite() {
            println!("skipped: log(-0.5) is a number on {device:?}");
            continue;
        }
        let mut step = watched(&device).named(["w"]);
        let mut state = vector(&[1.0, 2.0, 3.0]);
        let f = |w: Tensor, x: &Tensor| logarithm_or_root(logarithm, w, x);
        step.run(&mut state, &Tensor::new(&[1.0f32; 6], [2, 3]), f).unwrap();
        let bad = Tensor::new(&[1.0f32, 1.0, 1.0, 1.0, -0.25, 1.0], [2, 3]);
        let message = text(step.run(&mut state, &bad, f));
        let column = if logarithm { 31 } else { 53 };
        let at = format!("(at {}:{LINE}:{column}, within model/dense)", file!());
        let expected = format!("not finite: {op}(-0.5) gave NaN at [1, 1] of f32[2, 3] {at}; the log loss became NaN");
        assert_eq!(message, expected);
        // The state is that of before, and training goes on.
        assert_eq!(state.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        step.run(&mut state, &Tensor::new(&[2.0f32; 6], [2, 3]), f).unwrap();
    }
}

#[test]
fn an_overflow_in_a_gradient_is_named_by_the_line_it_is_the_derivative_of() {
    let (device, line) = (device(), Cell::new(0));
    let mut step = watched(&device).named(["w"]);
    let mut state = vector(&[0.0, 1e-30]);
    let f = |w: Tensor, x: &Tensor| {
        let loss = |w: &Tensor| {
            line.set(line!() + 1);
            let scaled = w * x;
            Ok(((scaled * 1e20).sum(..), ()))
        };
        let ((loss, ()), gradient) = value_and_grad(loss, &w)?;
        Ok((Logs::from([("loss", loss)]), w - gradient * 0.1))
    };
    let before = state.to_vec::<f32>().unwrap();
    let message = text(step.run(&mut state, &vector(&[1.0, 1e20]), f));
    let at = format!("(at {}:{}:26)", file!(), line.get());
    let expected =
        format!("not finite: mul(1e20, 1e20) gave infinity at [1] of f32[2] {at}; the state's w became -infinity");
    assert_eq!(message, expected);
    assert_eq!(state.to_vec::<f32>().unwrap(), before);
    step.run(&mut state, &vector(&[1.0, 1e-20]), f).unwrap();
}

#[test]
fn what_is_given_is_named_as_given() {
    let device = device();
    let mut step = watched(&device).named(["w", "count"]);
    let f = |(w, count): (Tensor, Tensor), x: &(Tensor, Tensor)| {
        let y = (&x.0 * &w + &x.1).mean(..);
        Ok((Logs::from([("loss", y.clone())]), (w - y, count + Tensor::scalar(1i32))))
    };
    let start = || (vector(&[1.0, 2.0]), Tensor::new(&[0i32], []));
    let mut state = start();
    let good = vector(&[1.0, 2.0]);
    step.run(&mut state, &(good.clone(), good.clone()), f).unwrap();
    let message = text(step.run(&mut state, &(good.clone(), vector(&[0.0, f32::NEG_INFINITY])), f));
    let reached = "; the log loss became -infinity";
    assert!(
        message.starts_with("not finite: the input x1 of the step holds -infinity at [1] of f32[2] (at "),
        "{message}"
    );
    assert!(message.contains(file!()) && message.ends_with(reached), "{message}");
    assert_eq!(state.1.to_vec::<i32>().unwrap(), [1]);
    let mut state = (vector(&[f32::NAN, 2.0]), start().1);
    let message = text(step.run(&mut state, &(good.clone(), good), f));
    assert!(message.starts_with("not finite: the state's w held NaN at [0] of f32[2] (at "), "{message}");
    let captured = vector(&[1.0, f32::INFINITY, f32::NAN]);
    let f = |w: Tensor, (): &()| Ok((Logs::default(), w + &captured));
    let message = text(watched(&device).run(&mut vector(&[1.0, 2.0, 3.0]), &(), f));
    let start = "not finite: a tensor that the step captured holds infinity at [1] of f32[3] (at ";
    assert!(message.starts_with(start) && message.ends_with("; the state's s0 became infinity"), "{message}");
}

#[test]
fn an_infinity_that_a_later_op_takes_away_is_no_fault() {
    let device = device();
    let mut step = watched(&device);
    // The logarithm of 0 is chosen nowhere; and a least value so far begins with infinity, and may stay it.
    let mut state = (vector(&[0.0, 0.0]), Tensor::new(&[f32::INFINITY], []));
    let f = |(sum, least): (Tensor, Tensor), x: &Tensor| {
        let safe = Tensor::select(&x.gt(0.0), x.log(), 0.0);
        Ok((Logs::from([("sum", safe.sum(..))]), (sum + safe, least)))
    };
    for x in [[0.0, 1.0], [1.0, 0.0]] {
        step.run(&mut state, &vector(&x), f).unwrap();
    }
    // Where it matters, the other one is named, although it comes later.
    let f = |(sum, least): (Tensor, Tensor), x: &Tensor| {
        let safe = Tensor::select(&x.gt(0.0), x.log(), 0.0);
        let root = (x - 2.0).sqrt();
        Ok((Logs::from([("sum", (&safe + root).sum(..))]), (sum + safe, least)))
    };
    let message = text(watched(&device).run(&mut state, &vector(&[0.0, 4.0]), f));
    assert!(message.starts_with("not finite: sqrt(-2) gave NaN at [0] of f32[2]"), "{message}");
}

#[test]
fn a_clean_training_is_the_same_to_the_bit() {
    let (device, training) = (device(), Training::classifier(0.25));
    let (mut plain, mut watched_state) = (training.state(1), training.state(1));
    let (mut step, mut watched) = (Step::new(&device), watched(&device));
    for number in 0..4 {
        let batch = batch(16, number);
        let logs = training.run(&mut step, &mut plain, &batch).read_blocking().unwrap();
        assert_eq!(training.run(&mut watched, &mut watched_state, &batch).read_blocking().unwrap(), logs);
    }
    let bits = |state: &common::training::State| -> Vec<Vec<u32>> {
        let leaves = state.leaves();
        let floats = leaves.iter().filter(|tensor| tensor.spec().is_some_and(|spec| spec.dtype == DType::F32));
        let bits = |tensor: &Tensor| tensor.to_vec_on::<f32>(&device).unwrap().into_iter().map(f32::to_bits).collect();
        floats.map(bits).collect()
    };
    assert_eq!(bits(&watched_state), bits(&plain));
}

/// Rows of which the 20th has the target 0.
fn data() -> (Tensor, Tensor) {
    let x: Vec<f32> = (0..64).map(|i| (i % 7) as f32 * 0.1 + 0.1).collect();
    let y: Vec<f32> = (0..32).map(|i| if i == 20 { 0.0 } else { 1.0 }).collect();
    (Tensor::new(&x, [32, 2]), Tensor::new(&y, [32, 1]))
}

#[test]
fn fit_ends_where_a_loss_divides_zero_by_zero() {
    let line = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let seen = line.clone();
    let relative = move |y: &Tensor, y_pred: &Tensor| {
        // Nothing over nothing where the target is zero.
        seen.store(line!() + 1, std::sync::atomic::Ordering::Relaxed);
        (Tensor::select(&y.gt(0.0), y_pred - y, 0.0) / y).square().mean(-1)
    };
    for steps_per_execution in [1, 4] {
        let mut model = Sequential::new([2]).add(Dense::new(1)).build().unwrap();
        let options = Compile {
            optimizer: "sgd".into(),
            loss: Loss::new("relative", relative.clone()).into(),
            steps_per_execution,
            debug_nans: true,
            ..Compile::default()
        };
        model.compile(options).unwrap();
        let (x, y) = data();
        let fit = || Fit { batch_size: 4, shuffle: false, verbose: Verbose::Silent, ..Fit::default() };
        let message = text(model.fit_blocking((&x, &y), fit()));
        let line = line.load(std::sync::atomic::Ordering::Relaxed);
        assert!(message.starts_with("not finite: div(0, 0) gave NaN at [0, 0] of f32[4, 1] (at "), "{message}");
        assert!(message.contains(&format!("{}:{line}:", file!())), "{message}");
        assert!(message.ends_with("; the log loss became NaN"), "{message}");
        let evaluated = Evaluate { batch_size: 32, verbose: Verbose::Silent, ..Evaluate::default() };
        let message = text(model.evaluate_blocking((&x, &y), evaluated));
        assert!(message.starts_with("not finite: div(0, 0) gave NaN at [20, 0] of f32[32, 1] (at "), "{message}");
        // Five batches of good rows were trained on, and the variables are those of then.
        assert_eq!(pollster::block_on(model.iterations()).unwrap(), 5);
        let weights = model.variables().unwrap();
        for (name, tensor) in weights {
            assert!(tensor.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()), "{name}");
        }
    }
}

#[test]
fn fit_without_fault_only_takes_longer_and_debugging_is_of_one_kind() {
    let run = |debug_nans| {
        let mut model = Sequential::new([2]).add(Dense::new(1)).build().unwrap();
        model
            .compile(Compile { optimizer: "adam".into(), loss: "mse".into(), debug_nans, ..Compile::default() })
            .unwrap();
        let (x, y) = data();
        let fit = Fit { batch_size: 5, epochs: 2, verbose: Verbose::Silent, ..Fit::default() };
        model.fit_blocking((&x, &y), fit).unwrap().history
    };
    assert_eq!(run(true), run(false));
    let mut model = Sequential::new([2]).add(Dense::new(1)).build().unwrap();
    let options = Compile { loss: "mse".into(), debug_nans: true, run_eagerly: true, ..Compile::default() };
    let error = model.compile(options).unwrap_err();
    assert!(error.to_string().contains("choose one of them"), "{error}");
}

#[test]
fn a_convolution_is_searched_without_writing_its_windows() {
    let mut model = Sequential::new([12, 12, 3])
        .add(Conv2D::new(8, 3).activation("relu"))
        .add(MaxPooling2D::new(2))
        .add(Flatten)
        .add(Dense::new(4))
        .build()
        .unwrap();
    model.compile(Compile { loss: "mse".into(), debug_nans: true, ..Compile::default() }).unwrap();
    let large = |value: f32| Tensor::new(&vec![value; 4 * 12 * 12 * 3], [4, 12, 12, 3]);
    let y = Tensor::new(&[0.0f32; 16], [4, 4]);
    let fit = || Fit { batch_size: 4, verbose: Verbose::Silent, ..Fit::default() };
    model.fit_blocking((&large(0.5), &y), fit()).unwrap();
    let message = text(model.fit_blocking((&large(3e38), &y), fit()));
    // The largest numbers overflow when they are added up, here or, with luck of the weights, in the layer behind.
    assert!(message.starts_with("not finite: matmul gave "), "{message}");
    assert!(["conv2d", "dense"].iter().any(|layer| message.contains(&format!("within {layer}"))), "{message}");
}
