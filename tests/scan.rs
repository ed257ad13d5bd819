//! Loops as one op: what they compute, what they cost, what they refuse. Each form of a scan is also an example of the
//! registry, so tests/ops.rs holds it against its reference and against differences.
#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use std::time::Instant;

use common::Random;
use wengert::error::{Error, ErrorKind, Result};
use wengert::gpu::Device;
use wengert::grad::{grad, value_and_grad};
use wengert::graph::Tensor;
use wengert::graph::display::collect;
use wengert::graph::interpret::{Given, interpret};
use wengert::initializers::Initializer;
use wengert::layers::{Cell, Network, Recurrent};
use wengert::ops::{scan, scan_reversed, stack};
use wengert::plan::Plan;
use wengert::prelude::*;
use wengert::step::{Logs, Step};

fn device() -> Device {
    Device::blocking().unwrap()
}

fn random(seed: u64, shape: &[usize], size: f64) -> Tensor {
    Tensor::new(&Random::new(seed).floats(shape.iter().product(), (-size, size), false), shape)
}

fn exact(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    interpret(tensors, &Given::new()).unwrap().into_iter().map(|array| array.data).collect()
}

/// The largest difference, relative to the largest number.
fn difference(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let pairs = || a.iter().zip(b).inspect(|(a, b)| assert_eq!(a.len(), b.len()));
    let one = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let largest = b.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
        a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max)
    };
    assert_eq!(a.len(), b.len());
    pairs().map(one).fold(0.0, f64::max)
}

fn read(device: &Device, tensors: &[Tensor]) -> Vec<Vec<f64>> {
    tensors.iter().map(|t| t.to_vec_on::<f64>(device).unwrap()).collect()
}

// ---- what it refuses, and the ends ----

#[test]
fn a_carry_that_changes_names_both_shapes() {
    let (h, xs) = (random(1, &[2, 3], 1.0), random(2, &[4, 2, 3], 1.0));
    let line = line!() + 1;
    let error = scan(4, h.clone(), xs.clone(), |h, x| Ok((h.sum(1), x))).unwrap_err();
    let ErrorKind::Shape { inputs, place, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((&inputs[0][..], &inputs[1][..]), (&[2, 3][..], &[2][..]));
    assert_eq!((place.at.file(), place.at.line()), (file!(), line), "{error}");
    let error = scan(4, h.clone(), xs.clone(), |h, x| Ok((h.cast(DType::I32), x))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DType { .. }) && error.to_string().contains("i32"), "{error}");
    let error = scan(4, vec![h.clone()], xs.clone(), |h, x| Ok((vec![h[0].clone(); 2], x))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::State { .. }) && error.to_string().contains("2"), "{error}");
    let error = scan(5, h.clone(), xs.clone(), |h, x| Ok((h, x))).unwrap_err();
    assert!(error.to_string().contains("5 steps") && error.to_string().contains("[4, 2, 3]"), "{error}");
    let error = scan(4, h, (xs, Tensor::scalar(1.0f32)), |h, x| Ok((h, x))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Shape { .. }), "{error}");
}

#[test]
fn what_fails_in_the_body_surfaces_with_its_line() {
    let (h, xs) = (random(1, &[2, 3], 1.0), random(2, &[4, 2, 3], 1.0));
    let error = scan(4, h.clone(), xs.clone(), |h, x| Ok((h, x + random(3, &[5], 1.0)))).unwrap_err();
    let ErrorKind::Shape { op, place, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((op.as_str(), place.at.file(), place.at.line()), ("add", file!(), line!() - 2), "{error}");
    let poisoned = &h + random(3, &[5], 1.0);
    assert!(matches!(scan(4, poisoned, xs.clone(), |h, x| Ok((h, x))).unwrap_err().kind(), ErrorKind::Shape { .. }));
    let failed = Error::argument("on purpose");
    let refuse = |_: Tensor, _: Tensor| Err::<(Tensor, Tensor), _>(failed.clone());
    assert_eq!(scan(4, h.clone(), xs.clone(), refuse).unwrap_err(), failed);
    let error = scan(4, h.clone(), xs.clone(), |h, x| Ok((h, Tensor::scalar(x.to_vec::<f32>()?[0])))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReadInsideStep { .. }), "{error}");
    // Something without a derivative inside: the path to `h` is refused, one around it is not.
    let loss = |h: &Tensor, x: &Tensor| {
        let (h, _) = scan(4, h.clone(), x.clone(), |h, x| Ok((h.max(..) * h.sign() + x, ())))?;
        Ok(h.sum(..))
    };
    grad(|h| loss(h, &xs), &h).unwrap();
}

#[test]
fn no_steps_and_nothing_in_them() {
    let device = device();
    let h = random(1, &[2, 3], 1.0);
    let (last, all) =
        scan(0, h.clone(), Tensor::zeros([0, 2, 3]), |h, x| Ok((h + &x, (x.sum(1), x.argmax(1))))).unwrap();
    assert_eq!(last.to_vec_on::<f32>(&device).unwrap(), h.to_vec_on::<f32>(&device).unwrap());
    assert_eq!((&all.0.shape()[..], &all.1.shape()[..]), (&[0, 2][..], &[0, 2][..]));
    assert_eq!((all.0.dtype(), all.1.dtype()), (DType::F32, DType::I32));
    assert!(all.0.to_vec_on::<f32>(&device).unwrap().is_empty());
    // Tensors without elements go round like others.
    let run =
        |h: Tensor, x| scan(3, (h, Tensor::zeros([0, 2])), x, |(h, none), x: Tensor| Ok(((h + &x, none), x))).unwrap();
    let ((last, none), all) = run(h.clone(), Tensor::ones([3, 2, 3]));
    let expected: Vec<f32> = h.to_vec_on::<f32>(&device).unwrap().iter().map(|h| h + 3.0).collect();
    assert_eq!(last.to_vec_on::<f32>(&device).unwrap(), expected);
    assert_eq!((none.to_vec_on::<f32>(&device).unwrap().len(), &all.shape()[..]), (0, &[3, 2, 3][..]));
}

#[test]
fn carries_swap_stay_and_count() {
    let device = device();
    let init = (Tensor::scalar(1.0f32), Tensor::scalar(2.0f32), Tensor::scalar(7i32), Tensor::scalar(9.0f32));
    let run = |length, reverse: bool| {
        let body = |(a, b, n, stays): (Tensor, Tensor, Tensor, Tensor), x: Tensor| {
            let next = &n + Tensor::scalar(1i32);
            Ok(((b.clone(), a, next, stays), (x * 10.0 + b, n)))
        };
        let xs = Tensor::new(&(0..length).map(|x| x as f32).collect::<Vec<_>>(), [length]);
        if reverse { scan_reversed(length, init.clone(), xs, body) } else { scan(length, init.clone(), xs, body) }
            .unwrap()
    };
    let ((a, b, n, stays), (ys, counts)) = run(5, false);
    let float = |t: &Tensor| t.to_vec_on::<f32>(&device).unwrap();
    assert_eq!((float(&a), float(&b), float(&stays)), (vec![2.0], vec![1.0], vec![9.0]));
    assert_eq!(n.to_vec_on::<i32>(&device).unwrap(), [12]);
    assert_eq!(float(&ys), [2.0, 11.0, 22.0, 31.0, 42.0]);
    assert_eq!(counts.to_vec_on::<i32>(&device).unwrap(), [7, 8, 9, 10, 11]);
    let (_, (ys, counts)) = run(5, true);
    assert_eq!(float(&ys), [2.0, 11.0, 22.0, 31.0, 42.0]);
    assert_eq!(counts.to_vec_on::<i32>(&device).unwrap(), [11, 10, 9, 8, 7]);
}

#[test]
fn a_loop_in_a_step_may_end_in_the_state_and_in_the_logs() {
    let device = device();
    let mut state = (random(1, &[2, 3], 1.0), Tensor::scalar(0.0f32));
    let start = state.0.to_vec_on::<f32>(&device).unwrap();
    let mut step = Step::new(&device);
    for round in 1..=3 {
        let f = |(h, total): (Tensor, Tensor), xs: &Tensor| {
            let ((last, sum), _) =
                scan(4, (h.clone(), total), xs.clone(), |(h, sum), x: Tensor| Ok(((h + 1.0, sum + x.sum(..)), ())))?;
            // Reads what the state was, beside what replaces it.
            let moved = (&last - &h).mean(..);
            Ok((Logs::from([("sum", sum.clone()), ("moved", moved)]), (last, sum)))
        };
        let logs = step.run(&mut state, &Tensor::ones([4, 2]), f).unwrap().read_blocking().unwrap();
        assert_eq!((logs[0].1, logs[1].1), (8.0 * round as f32, 4.0));
    }
    let expected: Vec<f32> = start.iter().map(|h| (0..12).fold(*h, |h, _| h + 1.0)).collect();
    assert_eq!(state.0.to_vec::<f32>().unwrap(), expected);
}

// ---- derivatives ----

/// What a scan does, step by step.
fn unrolled(
    length: usize,
    mut h: Tensor,
    xs: &Tensor,
    f: impl Fn(Tensor, Tensor) -> (Tensor, Tensor),
) -> (Tensor, Tensor) {
    let mut all = Vec::new();
    for at in 0..length {
        let (next, y) = f(h, xs.slice(0, at..at + 1).squeeze(0));
        h = next;
        all.push(y);
    }
    (h, stack(&all.iter().collect::<Vec<_>>(), 0))
}

#[test]
fn first_and_second_derivatives_are_those_of_the_unrolled_loop() {
    let device = device();
    let at = vec![random(1, &[2, 5], 1.0), random(2, &[6, 2, 5], 1.0), random(3, &[5, 5], 0.5), random(4, &[5], 0.5)];
    // The weight once in a product with a plain operand, once elsewhere; the bias in the carry and the results.
    let body = |w: Tensor, b: Tensor| {
        move |h: Tensor, x: Tensor| {
            let next = (&x + (&h * 0.5).matmul(&w) + &b).tanh();
            (next.clone(), next * h.sigmoid() + &w.slice(0, 0..2) * &b)
        }
    };
    let loss = |at: &Vec<Tensor>, looped: bool| -> Result<Tensor> {
        let f = body(at[2].clone(), at[3].clone());
        let (h, ys) = match looped {
            true => scan(6, at[0].clone(), at[1].clone(), |h, x| Ok(f(h, x)))?,
            false => unrolled(6, at[0].clone(), &at[1], f),
        };
        Ok(h.square().sum(..) + ys.sin().sum(..))
    };
    let first = |looped| grad(|at| loss(at, looped), &at).unwrap();
    let weighed = |gradient: &Vec<Tensor>| gradient.iter().map(|g| g.square().sum(..)).reduce(|a, b| a + b).unwrap();
    let second = |looped| grad(|at| Ok(weighed(&grad(|at| loss(at, looped), at)?)), &at).unwrap();
    for (ours, expected) in [(first(true), first(false)), (second(true), second(false))] {
        let reference = exact(&expected);
        // Both are exact formulas in f64: only the order of sums differs.
        assert!(difference(&exact(&ours), &reference) < 1e-12);
        // f32 carries about 1e-7 through six steps and some dozens of terms.
        assert!(difference(&read(&device, &ours), &reference) < 2e-5);
    }
}

/// One step of an LSTM as its definition says, without the layer.
fn lstm(h: &Tensor, c: &Tensor, x: &Tensor, w: &[Tensor]) -> (Tensor, Tensor) {
    let z = x.matmul(&w[0]) + h.matmul(&w[1]) + &w[2];
    let units = h.dim(1);
    let gate = |i: usize| z.slice(-1, i * units..(i + 1) * units);
    let c = gate(1).sigmoid() * c + gate(0).sigmoid() * gate(2).tanh();
    (gate(3).sigmoid() * c.tanh(), c)
}

fn gru(h: &Tensor, x: &Tensor, w: &[Tensor]) -> Tensor {
    let (x, inner) =
        (x.matmul(&w[0]) + w[2].slice(0, 0..1).squeeze(0), h.matmul(&w[1]) + w[2].slice(0, 1..2).squeeze(0));
    let units = h.dim(1);
    let gate = |t: &Tensor, i: usize| t.slice(-1, i * units..(i + 1) * units);
    let (z, r) = ((gate(&x, 0) + gate(&inner, 0)).sigmoid(), (gate(&x, 1) + gate(&inner, 1)).sigmoid());
    let g = (gate(&x, 2) + r * gate(&inner, 2)).tanh();
    &z * h + (1.0 - &z) * g
}

#[test]
fn gradients_of_recurrent_layers_are_those_of_their_definition() {
    let device = device();
    let x = random(7, &[3, 12, 5], 1.0);
    let step = |x: &Tensor, at: usize| x.slice(1, at..at + 1).squeeze(1);
    let lstm_by_hand = |x: &Tensor, w: &[Tensor]| {
        let start = (Tensor::zeros([3, 4]), Tensor::zeros([3, 4]));
        (0..12).fold(start, |(h, c), at| lstm(&h, &c, &step(x, at), w)).0
    };
    let gru_by_hand = |x: &Tensor, w: &[Tensor]| (0..12).fold(Tensor::zeros([3, 4]), |h, at| gru(&h, &step(x, at), w));
    type ByHand<'a> = &'a dyn Fn(&Tensor, &[Tensor]) -> Tensor;
    let cases: [(Network, ByHand, usize, &[usize]); 2] = [
        (Sequential::new([12, 5]).add(LSTM::new(4)).network().unwrap(), &lstm_by_hand, 16, &[16]),
        (Sequential::new([12, 5]).add(GRU::new(4)).network().unwrap(), &gru_by_hand, 12, &[2, 12]),
    ];
    for (network, by_hand, columns, bias) in cases {
        let weights =
            vec![random(1, &[5, columns], 0.6), random(2, &[4, columns], 0.6), random(3, bias, 0.6), x.clone()];
        let layer = |w: &Vec<Tensor>| -> Result<Tensor> {
            let inputs = std::slice::from_ref(&w[3]);
            Ok(network.call(&w[..3], &[], inputs, Mode::Train)?.0[0].square().sum(..))
        };
        let ours = grad(layer, &weights).unwrap();
        let expected = exact(&grad(|w| Ok(by_hand(&w[3], &w[..3]).square().sum(..)), &weights).unwrap());
        assert!(difference(&exact(&ours), &expected) < 1e-12);
        // Twelve steps of sums of about twenty terms in f32.
        assert!(difference(&read(&device, &ours), &expected) < 1e-5);
    }
}

#[test]
fn random_loops_agree_with_the_interpreter() {
    let device = device();
    let mut numbers = Random::new(11);
    for case in 0..10 {
        let [length, rows, columns] = [1 + numbers.below(6), 1 + numbers.below(9), 1 + numbers.below(12)];
        let leaf = |seed: u64, shape: &[usize]| random(100 * case + seed, shape, 1.0);
        let at = vec![
            leaf(1, &[rows, columns]),
            leaf(2, &[length, rows, columns]),
            leaf(3, &[columns, columns]),
            leaf(4, &[columns]),
        ];
        let ops: Vec<usize> = (0..4).map(|_| numbers.below(9)).collect();
        let (result, reverse) = (numbers.below(6), numbers.chance(0.5));
        let what = format!("{case}: {length} steps of {rows} x {columns}, ops {ops:?}, result {result}, {reverse}");
        let loss = |at: &Vec<Tensor>| -> Result<(Tensor, (Tensor, Tensor))> {
            let step = |h: Tensor, x: Tensor| {
                let apply = |v: Tensor, op: &usize| match op {
                    0 => v.matmul(&at[2]),
                    1 => v + &x,
                    2 => v * &at[3],
                    3 => v.softmax(-1),
                    4 => &v - v.mean(1).unsqueeze(1),
                    5 => v.sigmoid(),
                    6 => v.flip(1),
                    7 => v + x.sum(0),
                    _ => v.slice(1, 0..1) * &x,
                };
                let next = (ops.iter().fold(h.clone(), apply) * 0.5).tanh();
                let y = match result {
                    0 => next.clone(),
                    1 => h * &x,
                    2 => next.sum(1),
                    3 => x,
                    4 => at[3].clone(),
                    _ => x.matmul(&at[2]).slice(0, 0..1),
                };
                Ok((next, y))
            };
            let (h, xs) = (at[0].clone(), at[1].clone());
            let (last, ys) = if reverse { scan_reversed(length, h, xs, step) } else { scan(length, h, xs, step) }?;
            Ok((last.square().sum(..) + ys.sin().sum(..), (last, ys)))
        };
        let ((_, (last, ys)), mut all) = value_and_grad(loss, &at).unwrap();
        all.extend([last, ys]);
        let expected = exact(&all);
        for (index, (got, expected)) in read(&device, &all).iter().zip(&expected).enumerate() {
            let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            let apart = got.iter().zip(expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            // Sums of up to a hundred terms around 1, which may cancel, through six steps that the hyperbolic tangent
            // keeps from growing.
            assert!(apart < 1e-5 * (1.0 + largest), "{what}, tensor {index}: {apart} of {largest}");
        }
    }
}

// ---- what it costs ----

type Trained = (Variables, Variables);

/// One step of plain descent of a recurrent layer of 16 units on 8 sequences of 3 features.
fn descend<C: Cell>(device: &Device, layer: Recurrent<C>, steps: usize) -> (Plan, usize) {
    let network = Sequential::new([steps, 3]).add(layer).add(Dense::new(1)).network().unwrap();
    let mut state: Trained = network.init(0).unwrap();
    let (x, y) = (random(1, &[8, steps, 3], 1.0), random(2, &[8, 1], 1.0));
    let mut nodes = 0;
    let mut step = Step::new(device);
    let recorded = std::cell::Cell::new(0);
    let f = |(w, s): Trained, (x, y): &(Tensor, Tensor)| {
        let ((loss, s), gradients) = value_and_grad(
            |w| {
                let (outputs, s) = network.call(w, &s, std::slice::from_ref(x), Mode::Train)?;
                Ok(((&outputs[0] - y).square().mean(..), s))
            },
            &w,
        )?;
        let new: Variables = w.iter().zip(&gradients).map(|(w, g)| w - g * 0.1).collect();
        recorded.set(collect(&new)?.len());
        Ok((Logs::from([("loss", loss)]), (new, s)))
    };
    let before: f32 = step.run(&mut state, &(x.clone(), y.clone()), f).unwrap().read_blocking().unwrap()[0].1;
    let after = step.run(&mut state, &(x.clone(), y.clone()), f).unwrap().read_blocking().unwrap()[0].1;
    assert!(after < before, "{after} after {before}");
    nodes += recorded.get();
    (step.plan().unwrap().clone(), nodes)
}

fn costs<C: Cell>(make: impl Fn() -> Recurrent<C>, gates: u64, carried: u64) {
    let device = device();
    // Both so long that sums over all steps are split, into so many parts that what adds them up has kernels of its own.
    let ((short, few), (long, many)) = (descend(&device, make(), 900), descend(&device, make(), 1000));
    assert_eq!(few, many, "nodes recorded");
    assert_eq!(short.lines.len(), long.lines.len(), "{short}\n{long}");
    assert_eq!(short.loops.len(), long.loops.len());
    println!("{long}");
    let text = |plan: &Plan| plan.to_string().lines().count();
    assert_eq!(text(&short), text(&long));
    // For each step and sequence: what is carried, the projected input, its cotangent, each of 16 units, and the inputs
    // in the order of the loop; a hundredth more for the parts of split sums. A GRU also keeps the cotangent of the state's projection, which is not that of the input's.
    let each = 4 * 8 * (16 * (carried + 2 * gates + if carried == 1 { gates } else { 0 }) + 3);
    let grown = long.temporaries - short.temporaries;
    assert!(grown <= 100 * (each + each / 100), "{grown} bytes, {} a step, allowed {each}\n{long}", grown / 100);
    let turns: usize = long.loops.iter().map(|l| l.count * l.lines.len()).sum();
    assert!(long.dispatches() >= turns && turns.is_multiple_of(1000), "{long}");
}

#[test]
fn an_lstm_over_a_thousand_steps_costs_what_it_must() {
    costs(|| LSTM::new(16), 4, 2);
}

#[test]
fn a_gru_over_a_thousand_steps_costs_what_it_must() {
    costs(|| GRU::new(16), 3, 1);
}

#[test]
fn a_small_body_is_one_dispatch() {
    let device = device();
    let (w, xs) = (random(1, &[4, 4], 0.5), random(2, &[300, 2, 4], 1.0));
    let (h, _) = scan(300, Tensor::zeros([2, 4]), xs, |h, x| Ok(((x + h.matmul(&w)).tanh(), ()))).unwrap();
    // Before it is read, which makes an end of it.
    let wanted = exact(std::slice::from_ref(&h));
    let before = device.stats();
    let got = h.to_vec_on::<f64>(&device).unwrap();
    assert_eq!((device.stats() - before).dispatches, 2, "zeros, then the loop");
    assert!(difference(&[got], &wanted) < 1e-5);
}

#[test]
fn a_steady_step_with_a_loop_makes_nothing() {
    let device = device();
    let mut step = Step::new(&device);
    let w = random(1, &[32, 32], 0.2);
    let mut state = w.clone();
    let f = |w: Tensor, xs: &Tensor| {
        let g = grad(
            |w| Ok(scan(7, Tensor::zeros([8, 32]), xs.clone(), |h, x| Ok(((x + h.matmul(w)).tanh(), ())))?.0.sum(..)),
            &w,
        )?;
        Ok((Logs::default(), w - g * 0.01))
    };
    let run = |step: &mut Step, state: &mut Tensor| step.run(state, &random(2, &[7, 8, 32], 1.0), f).map(drop);
    (0..2).for_each(|_| run(&mut step, &mut state).unwrap());
    for _ in 0..3 {
        device.wait_blocking().unwrap();
        let before = device.stats();
        run(&mut step, &mut state).unwrap();
        let made = device.stats() - before;
        assert_eq!((made.buffers, made.bind_groups, made.pipelines, made.submissions), (0, 0, 0, 1), "{made:?}");
        assert_eq!(made.dispatches as usize, step.plan().unwrap().dispatches());
    }
    if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        println!("skipped the profile: {device:?} has no timestamps");
        return;
    }
    let batch = random(2, &[7, 8, 32], 1.0);
    let profile = pollster::block_on(step.profile(&mut state, &batch, f)).unwrap();
    assert_eq!(profile.spans.len(), profile.plan.lines.len());
    assert!(profile.spans.iter().all(|span| span.seconds > 0.0), "{profile}");
}

#[test]
fn an_lstm_learns_what_a_thousand_steps_ago_was() {
    // The first input of each sequence is to be told at the end; all others are noise. Forget gates that start open over
    // such a distance (Tallec and Ollivier 2018) let the gradient come through.
    let (started, device) = (Instant::now(), device());
    let bias = Initializer::function(|shape, _| {
        let units = shape.numel() / 4;
        let gates = [-7.0, 9.0, 0.0, 0.0];
        (0..shape.numel()).map(|at| gates[at / units]).collect()
    });
    let layer = Recurrent { bias_initializer: bias, ..LSTM::new(8) };
    let layer =
        Recurrent { cell: wengert::layers::LSTMCell { unit_forget_bias: false, ..layer.cell.clone() }, ..layer };
    let network = Sequential::new([1000, 3]).add(layer).add(Dense::new(1)).network().unwrap();
    let optimizer: Optimizer = Adam { learning_rate: 0.02, ..Adam::default() }.into();
    let (w, _) = network.init(1).unwrap();
    let mut state = (w.clone(), optimizer.variables(&w).unwrap());
    let mut step = Step::new(&device).purity(wengert::step::Purity::Sometimes);
    let f = |(w, o): (Variables, Variables), (x, y): &(Tensor, Tensor)| {
        let ((loss, ()), gradients) = value_and_grad(
            |w| {
                let outputs = network.call(w, &[], std::slice::from_ref(x), Mode::Train)?.0;
                Ok(((&outputs[0] - y).square().mean(..), ()))
            },
            &w,
        )?;
        let (w, o) = optimizer.stateless_apply(&o, &gradients, &w)?;
        Ok((Logs::from([("loss", loss)]), (w, o)))
    };
    let mut losses = Vec::new();
    let mut numbers = Random::new(3);
    for _ in 0..80 {
        // Noise, the number to remember, and a mark that it is there.
        let mut x = numbers.floats(8 * 1000 * 3, (-0.01, 0.01), false);
        let y: Vec<f32> = (0..8).map(|row| if row % 2 == 0 { 1.0 } else { -1.0 }).collect();
        for (sequence, &number) in x.chunks_exact_mut(3000).zip(&y) {
            sequence[1..3].copy_from_slice(&[4.0 * number, 8.0]);
        }
        let batch = (Tensor::new(&x, [8, 1000, 3]), Tensor::new(&y, [8, 1]));
        losses.push(step.run(&mut state, &batch, f).unwrap().read_blocking().unwrap()[0].1);
    }
    println!("{losses:?} in {:?}\n{}", started.elapsed(), step.plan().unwrap());
    let last = losses[75..].iter().sum::<f32>() / 5.0;
    // Whoever does not remember has a loss of 1.
    assert!(last < 0.05, "{losses:?}");
}
