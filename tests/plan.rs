//! What a step promises: replay gives the bits of a fresh recording, nothing is made in the steady state, purity is
//! checked with a line to look at, and the state is what it was after any error.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::cell::Cell;

use common::training::{Batch, Training, batch};
use wengert::error::{Error, ErrorKind, Result};
use wengert::gpu::{Device, Stats};
use wengert::grad::grad;
use wengert::graph::{Tensor, Tree};
use wengert::layers::{Conv2D, Mode, Sequential, Variables};
use wengert::lower::Options;
use wengert::random::threefry;
use wengert::read;
use wengert::step::{Logs, Purity, Step};

fn device() -> Device {
    Device::blocking().unwrap()
}

/// The bits of every leaf.
fn bits(device: &Device, state: &impl Tree) -> Vec<Vec<u32>> {
    let leaf = |t: &Tensor| match t.dtype() {
        wengert::dtype::DType::F32 => t.to_vec_on::<f32>(device).unwrap().into_iter().map(f32::to_bits).collect(),
        wengert::dtype::DType::I32 => t.to_vec_on::<i32>(device).unwrap().into_iter().map(|v| v as u32).collect(),
        _ => t.to_vec_on::<u32>(device).unwrap(),
    };
    state.leaves().iter().map(leaf).collect()
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::new(values, [values.len()])
}

fn values(device: &Device, tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_on(device).unwrap()
}

/// A step without batch or logs.
fn plain(step: &mut Step, state: &mut Tensor, f: impl Fn(Tensor) -> Tensor) -> Result<()> {
    step.run(state, &(), |s, ()| Ok((Logs::default(), f(s)))).map(drop)
}

#[test]
fn replay_gives_the_bits_of_a_fresh_recording() {
    let (device, training) = (device(), Training::classifier(0.25));
    let (mut replayed, mut fresh) = (training.state(1), training.state(1));
    let mut step = Step::new(&device);
    for number in 0..20 {
        let batch = batch(16, number);
        let logs = training.run(&mut step, &mut replayed, &batch).read_blocking().unwrap();
        let expected = training.run(&mut Step::new(&device), &mut fresh, &batch).read_blocking().unwrap();
        assert_eq!(logs, expected, "run {number}");
        assert_eq!(bits(&device, &replayed), bits(&device, &fresh), "run {number}");
    }
    assert_ne!(bits(&device, &replayed), bits(&device, &training.state(1)));
}

#[test]
fn a_step_agrees_with_eager_evaluation() {
    let (device, training) = (device(), Training::classifier(0.25));
    let (mut state, mut eager) = (training.state(2), training.state(2));
    let mut step = Step::new(&device);
    for number in 0..3 {
        let batch = batch(16, number);
        let logs = training.run(&mut step, &mut state, &batch).read_blocking().unwrap();
        let (expected, next) = training.step(eager, &batch).unwrap();
        let loss = f64::from(values(&device, expected.get("loss").unwrap())[0]);
        // Another order of fusion rounds sums of a few dozen terms differently.
        assert!((f64::from(logs[0].1) - loss).abs() <= 1e-5 * loss, "step {number}: {logs:?}, eager {loss}");
        for (index, (got, expected)) in state.leaves().iter().zip(next.leaves()).enumerate() {
            if got.dtype() != wengert::dtype::DType::F32 {
                assert_eq!(bits(&device, got), bits(&device, &expected));
                continue;
            }
            for (a, b) in values(&device, got).iter().zip(values(&device, &expected)) {
                // Adam divides by the root of tiny second moments: see tests/train_step.rs.
                assert!((a - b).abs() <= 5e-6 * (1.0 + b.abs()), "step {number}, leaf {index}: {a}, eager {b}");
            }
        }
        eager = next;
    }
}

#[test]
fn batches_of_one_submission_are_single_runs() {
    let (device, training) = (device(), Training::classifier(0.25));
    let (mut together, mut single) = (training.state(3), training.state(3));
    let (mut step, mut other) = (Step::new(&device), Step::new(&device));
    let batches: Vec<Batch> = (0..5).map(|number| batch(16, number)).collect();
    for group in [&batches[..3], &batches[3..]] {
        let before = device.stats();
        let logs = step.run_tagged(7, &mut together, group, |s, b| training.step(s, b)).unwrap();
        if group.len() == 2 {
            assert_eq!((device.stats() - before).submissions, 1);
        }
        let last = group.iter().map(|batch| training.run(&mut other, &mut single, batch)).last().unwrap();
        assert_eq!(logs.read_blocking().unwrap(), last.read_blocking().unwrap());
        assert_eq!(bits(&device, &together), bits(&device, &single));
    }
    let before = bits(&device, &together);
    let uneven = [batch(16, 0), batch(5, 1)];
    let error = step.run_tagged(7, &mut together, &uneven, |s, b| training.step(s, b)).unwrap_err();
    assert!(error.to_string().contains("must be alike"), "{error}");
    assert_eq!(bits(&device, &together), before);
}

/// What one run of a steady step asks of the device.
fn steady(device: &Device, training: &Training, make: impl Fn(u32) -> Batch) -> (Stats, usize) {
    let mut state = training.state(4);
    let mut step = Step::new(device);
    training.run(&mut step, &mut state, &make(0));
    training.run(&mut step, &mut state, &make(1));
    let mut all = None;
    for number in 2..8 {
        // The upload ring grows with the work in flight, and is given back by what was finished.
        device.wait_blocking().unwrap();
        let before = device.stats();
        training.run(&mut step, &mut state, &make(number));
        let made = device.stats() - before;
        assert_eq!((made.buffers, made.bind_groups, made.pipelines), (0, 0, 0), "run {number}: {made:?}");
        assert_eq!((made.submissions, made.waits, made.bytes_read), (1, 0, 0), "run {number}: {made:?}");
        assert_eq!(made.dispatches, all.get_or_insert(made).dispatches, "run {number}");
    }
    (all.unwrap(), step.plan().unwrap().dispatches())
}

#[test]
fn a_steady_step_makes_nothing_and_is_one_submission() {
    let device = device();
    let (stats, planned) = steady(&device, &Training::classifier(0.25), |number| batch(16, number));
    assert_eq!(stats.dispatches, planned as u64);
    let wide = |number| {
        let x = threefry::uniform(threefry::fold_in(threefry::key(6), number), 32 * 32, 0.0, 1.0);
        (Tensor::new(&x, [32, 32]), Tensor::new(&x[..32], [32, 1]))
    };
    let (stats, _) = steady(&device, &Training::guide(), wide);
    assert_eq!(stats.dispatches, 1, "the guide's model is one dispatch: {stats:?}");
}

#[test]
fn a_whole_training_step_is_few_dispatches() {
    let (device, training) = (device(), Training::classifier(0.25));
    for rows in [16, 256] {
        let (mut state, mut step) = (training.state(4), Step::new(&device));
        training.run(&mut step, &mut state, &batch(rows, 0));
        let dispatches = step.plan().unwrap().dispatches();
        assert!((1..=16).contains(&dispatches), "{rows} rows:\n{}", step.plan().unwrap());
    }
}

#[test]
fn equal_seeds_give_equal_bits() {
    let (device, training) = (device(), Training::classifier(0.25));
    let run = |seed| {
        let (mut state, mut step) = (training.state(seed), Step::new(&device));
        (0..4).for_each(|number| drop(training.run(&mut step, &mut state, &batch(16, number))));
        bits(&device, &state)
    };
    assert_eq!(run(9), run(9));
    assert_ne!(run(9), run(10));
}

#[test]
fn a_partial_batch_is_a_second_plan_from_known_pipelines() {
    let device = device();
    let mut step = Step::new(&device);
    let mut state = vector(&[0.0; 4]);
    let f = |s: Tensor, x: &Tensor| Ok((Logs::default(), &s + (x * 0.5).tanh().sum(0)));
    let pipelines = |step: &mut Step, state: &mut Tensor, rows: usize| {
        let before = device.stats();
        step.run(state, &Tensor::ones([rows, 4]).to(&device).unwrap(), f).unwrap();
        (device.stats() - before).pipelines
    };
    assert!(pipelines(&mut step, &mut state, 64) > 0);
    let first = step.plan().unwrap().to_string();
    assert_eq!(pipelines(&mut step, &mut state, 60), 0, "{first}\n{}", step.plan().unwrap());
    assert_eq!(pipelines(&mut step, &mut state, 64), 0);
    // Which kernels are chosen depends on sizes, so this holds for a last batch about as large as the others.
    let training = Training::classifier(0.25);
    let (mut whole, mut step) = (training.state(1), Step::new(&device));
    for (rows, partial) in [(256, 250), (16, 14)] {
        training.run(&mut step, &mut whole, &batch(rows, 0));
        let (first, before) = (step.plan().unwrap().to_string(), device.stats());
        training.run(&mut step, &mut whole, &batch(partial, 1));
        let made = device.stats() - before;
        assert_eq!(made.pipelines, 0, "{rows}, {partial}:\n{first}\n{}", step.plan().unwrap());
    }
    let expected = 188.0 * 0.5f32.tanh();
    values(&device, &state).iter().for_each(|v| assert!((v - expected).abs() < 1e-3, "{v}, expected {expected}"));
}

#[test]
fn a_host_counter_baked_in_is_found_with_its_line() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device).purity(Purity::Always), vector(&[1.0, 2.0]));
    let (counter, line) = (Cell::new(0.0), Cell::new(0));
    let mut run = |state: &mut Tensor| {
        plain(&mut step, state, |s| {
            counter.set(counter.get() + 1.0);
            line.set(line!() + 1);
            &s + counter.get()
        })
    };
    run(&mut state).unwrap();
    let error = run(&mut state).unwrap_err();
    let ErrorKind::StepChanged { place, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((place.at.file(), place.at.line()), (file!(), line.get()));
    let message = error.to_string();
    assert!(message.contains(&format!("{}:{}:", file!(), line.get())), "{message}");
    assert!(message.contains("keep it in the state"), "{message}");
    assert_eq!(values(&device, &state), [2.0, 3.0]);
    // A deliberate change is recorded anew.
    step.clear();
    plain(&mut step, &mut state, |s| &s * 2.0).unwrap();
    assert_eq!(values(&device, &state), [4.0, 6.0]);
}

#[test]
fn another_op_in_the_same_place_is_found() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device).purity(Purity::Always), vector(&[1.0, 2.0]));
    let flip = Cell::new(false);
    let f = |s: Tensor| if flip.replace(true) { s.exp() } else { s.sin() };
    plain(&mut step, &mut state, f).unwrap();
    let message = plain(&mut step, &mut state, f).unwrap_err().to_string();
    assert!(message.contains("sin") && message.contains("became exp"), "{message}");
}

#[test]
fn a_constant_made_in_the_first_recording_is_the_same_step_in_later_ones() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device).purity(Purity::Always), vector(&[1.0; 100]));
    let made = std::cell::OnceCell::new();
    for _ in 0..3 {
        plain(&mut step, &mut state, |s| s + made.get_or_init(|| vector(&[0.5; 100]))).unwrap();
    }
    assert_eq!(values(&device, &state), [2.5; 100]);
}

#[test]
fn a_captured_tensor_may_be_used_but_not_replaced() {
    let device = device();
    let ones = || Tensor::new(&[1.0f32; 100], [100]);
    let computed = ones() * 2.0;
    for captured in [ones(), ones().to(&device).unwrap(), computed] {
        let (mut step, mut state) = (Step::new(&device).purity(Purity::Always), Tensor::new(&[0.0f32; 100], [100]));
        for _ in 0..3 {
            plain(&mut step, &mut state, |s| &s + &captured).unwrap();
        }
        assert_eq!(values(&device, &state)[99], 3.0 * values(&device, &captured)[99]);
        let other = ones().to(&device).unwrap();
        let error = plain(&mut step, &mut state, |s| &s + &other).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::StepChanged { .. }), "{error}");
        assert!(error.to_string().contains(file!()), "{error}");
        // The step goes on with the tensor it knows.
        plain(&mut step, &mut state, |s| &s + &captured).unwrap();
        assert_eq!(values(&device, &state)[0], 4.0 * values(&device, &captured)[0]);
    }
}

#[test]
fn a_state_may_permute_its_own_leaves() {
    let device = device();
    let mut state = (vector(&[1.0, 2.0]), vector(&[3.0, 4.0]), vector(&[5.0, 6.0]));
    let mut step = Step::new(&device);
    let mut expected = [[1.0f32, 2.0], [3.0, 4.0], [5.0, 6.0]];
    for _ in 0..4 {
        step.run(&mut state, &(), |(a, b, c), ()| Ok((Logs::default(), (b, c * 2.0, a)))).unwrap();
        expected = [expected[1], expected[2].map(|v| v * 2.0), expected[0]];
        for (got, expected) in state.leaves().iter().zip(&expected) {
            assert_eq!(values(&device, got), expected);
        }
    }
}

#[test]
fn a_clone_of_a_leaf_keeps_its_value() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device), vector(&[1.0, 2.0]));
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(state.clone());
        plain(&mut step, &mut state, |s| &s + 1.0).unwrap();
    }
    for (number, kept) in kept.iter().enumerate() {
        assert_eq!(values(&device, kept), [1.0 + number as f32, 2.0 + number as f32]);
    }
    assert_eq!(values(&device, &state), [5.0, 6.0]);
}

#[test]
fn an_error_within_leaves_the_state_as_it_was() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device).purity(Purity::Always), vector(&[1.0, 2.0]));
    plain(&mut step, &mut state, |s| &s * 3.0).unwrap();
    let failed = Error::argument("on purpose");
    let run = |step: &mut Step, state: &mut Tensor| step.run(state, &(), |_, ()| Err(failed.clone()));
    assert_eq!(run(&mut step, &mut state).unwrap_err(), failed);
    assert_eq!(run(&mut Step::new(&device), &mut state).unwrap_err(), failed);
    let poisoned = plain(&mut Step::new(&device), &mut state, |s| &s + vector(&[1.0; 3])).unwrap_err();
    assert!(matches!(poisoned.kind(), ErrorKind::Shape { .. }), "{poisoned}");
    assert_eq!(values(&device, &state), [3.0, 6.0]);
    plain(&mut step, &mut state, |s| &s * 3.0).unwrap();
    assert_eq!(values(&device, &state), [9.0, 18.0]);
}

#[test]
fn reading_inside_a_step_names_op_and_line() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device), vector(&[1.0, 2.0]));
    let line = Cell::new(0);
    let error = step
        .run(&mut state, &(), |s, ()| {
            line.set(line!() + 1);
            let norm = s.square();
            norm.to_vec_on::<f32>(&device)?;
            Ok((Logs::default(), s))
        })
        .unwrap_err();
    let ErrorKind::ReadInsideStep { op, place } = error.kind() else { panic!("{error}") };
    assert_eq!((op.as_str(), place.at.line()), ("square", line.get()));
    assert!(error.to_string().contains(&format!("{}:{}:", file!(), line.get())), "{error}");
    let error = step
        .run(&mut state, &(), |s, ()| {
            s.to_vec_on::<f32>(&device)?;
            Ok((Logs::default(), s))
        })
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReadInsideStep { .. }), "{error}");
    assert_eq!(values(&device, &state), [1.0, 2.0]);
}

#[test]
fn a_step_returns_what_it_got() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device), vec![vector(&[1.0, 2.0]), vector(&[3.0])]);
    let mut run = |f: &dyn Fn(Vec<Tensor>) -> (Logs, Vec<Tensor>)| step.run(&mut state, &(), |s, ()| Ok(f(s)));
    let fewer = run(&|s| (Logs::default(), s[..1].to_vec())).unwrap_err().to_string();
    assert!(fewer.contains("got 2 tensors of state and returned 1"), "{fewer}");
    let shape = run(&|s| (Logs::default(), vec![s[0].clone(), s[0].clone()])).unwrap_err().to_string();
    assert!(shape.contains("tensor 1 of the state was f32[1], the step returned f32[2]"), "{shape}");
    let dtype = run(&|s| (Logs::default(), vec![s[0].gt(0.0), s[1].clone()])).unwrap_err().to_string();
    assert!(dtype.contains("tensor 0 of the state was f32[2], the step returned bool[2]"), "{dtype}");
    let many = run(&|s| (Logs::from([("norms", s[0].square())]), s)).unwrap_err().to_string();
    assert!(many.contains("the log norms is f32[2]; a log is one f32 number"), "{many}");
    let integer = run(&|s| (Logs::from([("best", s[0].argmax(0))]), s)).unwrap_err().to_string();
    assert!(integer.contains("the log best is i32[]"), "{integer}");
    let logs = run(&|s| (Logs::from([("one", s[1].square())]), s)).unwrap();
    assert_eq!(logs.read_blocking().unwrap(), [("one".to_string(), 9.0)]);
    assert_eq!(bits(&device, &state), [vec![1f32.to_bits(), 2f32.to_bits()], vec![3f32.to_bits()]]);
}

#[test]
fn two_devices_in_one_graph_are_an_error() {
    let (here, there) = (device(), device());
    let (a, b) = (vector(&[1.0, 2.0]).to(&here).unwrap(), vector(&[3.0, 4.0]).to(&there).unwrap());
    let both = &a + &b;
    for error in [both.to_vec_on::<f32>(&here).unwrap_err(), both.to_vec::<f32>().unwrap_err()] {
        assert!(matches!(error.kind(), ErrorKind::Device { .. }), "{error}");
        assert!(error.to_string().contains("device"), "{error}");
    }
    let mut step = Step::new(&here);
    let f = |s: Tensor, x: &Tensor| Ok((Logs::default(), &s + x));
    for (state, batch) in [(&a, &b), (&b, &a)] {
        let error = step.run(&mut state.clone(), batch, f).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Device { .. }), "{error}");
    }
    let error = plain(&mut step, &mut vector(&[0.0, 0.0]), |s| &s + &b).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Device { .. }), "{error}");
    assert_eq!((values(&here, &a), values(&there, &b)), (vec![1.0, 2.0], vec![3.0, 4.0]));
}

#[test]
fn a_leaf_that_is_read_elsewhere_than_it_is_written_is_not_overwritten_too_early() {
    let device = device();
    let numbers: Vec<f32> = (0..81u16).map(|i| f32::from(i * 7 % 16) - 8.0).collect();
    let mut state = (Tensor::new(&numbers, [9, 9]), vector(&[1.0; 9]));
    let mut step = Step::new(&device);
    for _ in 0..4 {
        let (a, b) = (values(&device, &state.0), values(&device, &state.1));
        // Transposed, reversed and summed: elements of the old value are needed after the first are new.
        let f = |(a, b): (Tensor, Tensor), _: &()| Ok((Logs::default(), (a.t().flip(0) * 0.5, (&b + a.sum(0)) * 0.5)));
        step.run(&mut state, &(), f).unwrap();
        let first: Vec<f32> = (0..81).map(|i| a[(i % 9) * 9 + 8 - i / 9] * 0.5).collect();
        let second: Vec<f32> = (0..9).map(|j| (b[j] + (0..9).map(|i| a[i * 9 + j]).sum::<f32>()) * 0.5).collect();
        assert_eq!((values(&device, &state.0), values(&device, &state.1)), (first, second));
    }
}

#[test]
fn logs_stay_readable_while_further_steps_run() {
    let device = device();
    let (mut step, mut state) = (Step::new(&device), Tensor::scalar(0f32));
    let f = |s: Tensor, _: &()| {
        let s = s + 1.0;
        Ok((Logs::from([("n", s.clone()), ("twice", &s * 2.0)]), s))
    };
    let all: Vec<Logs> = (0..5).map(|_| step.run(&mut state, &(), f).unwrap()).collect();
    for (logs, n) in all.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0]) {
        assert_eq!(logs.read_blocking().unwrap(), [("n".to_string(), n), ("twice".to_string(), 2.0 * n)]);
    }
}

#[test]
fn a_convolution_is_a_product_over_windows_that_are_nowhere_written() {
    let device = device();
    let network = Sequential::new([16, 16, 4]).add(Conv2D::new(8, 3).activation("relu")).network().unwrap();
    let (weights, _) = network.init(1).unwrap();
    let call = |weights: &Variables, x: &Tensor| {
        Ok(network.call(weights, &[], std::slice::from_ref(x), Mode::Train)?.0.remove(0))
    };
    let x = Tensor::new(&threefry::uniform([5, 5], 2 * 16 * 16 * 4, -1.0, 1.0), [2, 16, 16, 4]);
    let evaluate = |tensors: &[Tensor]| read::evaluate(&device, tensors, &Options::default()).unwrap().unwrap();

    let plan = evaluate(&[call(&weights, &x).unwrap()]);
    assert_eq!((plan.dispatches(), plan.temporaries), (1, 0), "{plan}");
    assert!(plan.lines[0].label.contains("windows") && plan.lines[0].label.contains("relu"), "{plan}");
    let (image, kernel, result) = (2 * 16 * 16 * 4, 3 * 3 * 4 * 8, 2 * 14 * 14 * 8);
    assert_eq!(plan.lines[0].bytes(), 4 * (image + kernel + 8 + result), "{plan}");

    // Forward, the kernel's gradient and the image's: the bias' is a sum.
    let loss = |(weights, x): &(Variables, Tensor)| Ok(call(weights, x)?.square().sum(..));
    let (dw, dx) = grad(loss, &(weights, x)).unwrap();
    let plan = evaluate(&[dw[0].clone(), dw[1].clone(), dx]);
    println!("{plan}");
    assert_eq!(plan.lines.iter().filter(|line| line.label.contains("windows")).count(), 3, "{plan}");
    // The windows of the images would be 4 * 2 * 14 * 14 * 36 bytes, those of the cotangents twice as many.
    assert!(plan.temporaries < 4 * 2 * 14 * 14 * 36, "{plan}");
}

#[test]
fn what_was_computed_is_read_though_its_history_is_gone() {
    let device = Device::blocking().unwrap();
    let y = (Tensor::new(&[1f32, 2.0], [2]) + 1.0).to(&device).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [2.0, 3.0]);
    let view = y.reshape([2, 1]).to(&device).unwrap();
    assert_eq!(view.to_vec::<f32>().unwrap(), [2.0, 3.0]);
}
