//! Recorded steps: a replay is the step recorded anew, bit for bit; it allocates nothing; it is pure or an error; and
//! whatever goes wrong, the state is the last complete one.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use std::cell::Cell;

use common::{Random, read};
use wengert::dtype::DType;
use wengert::error::{Error, Result};
use wengert::gpu::Device;
use wengert::grad::value_and_grad;
use wengert::graph::{Scope, Tensor, Tree};
use wengert::lower::Options;
use wengert::random;
use wengert::read::evaluate;
use wengert::step::{Logs, Purity, Step};

// ---- a small network with Adam by hand ----

/// Parameters, both moments, the step count, and the key of the dropout.
type State = (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>, Tensor, Tensor);
type Batch = (Tensor, Tensor);

const SHAPES: [&[usize]; 6] = [&[24, 32], &[32], &[32, 16], &[16], &[16, 5], &[5]];
const ROWS: usize = 32;

fn initial(seed: u64) -> State {
    let mut random = Random::new(seed);
    let weights = SHAPES.iter().map(|&shape| random.leaf(&shape.into(), DType::F32, (-0.3, 0.3), false)).collect();
    let zeros = || SHAPES.iter().map(|&shape| zeros_of(shape)).collect();
    (weights, zeros(), zeros(), Tensor::scalar(0i32), random::key(seed))
}

fn zeros_of(shape: &[usize]) -> Tensor {
    Tensor::new(&vec![0f32; shape.iter().product()], shape)
}

fn batch(number: u64) -> Batch {
    let mut random = Random::new(1000 + number);
    let x = random.leaf(&[ROWS, 24].into(), DType::F32, (-1.0, 1.0), false);
    let y = random.leaf(&[ROWS].into(), DType::I32, (0.0, 4.0), false);
    (x, y)
}

/// One step: two hidden layers, dropout, cross-entropy, and Adam (Kingma and Ba 2015, algorithm 1).
fn train((weights, m, v, count, key): State, (x, y): &Batch) -> Result<(Logs, State)> {
    let ((loss, accuracy), gradients) = value_and_grad(
        |w: &Vec<Tensor>| {
            let h = (x.matmul(&w[0]) + &w[1]).relu();
            let keep = random::bernoulli(&random::fold_in(&key, &count), 0.9, h.shape());
            let h = keep.select(h * (1.0 / 0.9), 0.0);
            let logits = (h.matmul(&w[2]) + &w[3]).tanh().matmul(&w[4]) + &w[5];
            let loss = -(y.one_hot(5) * logits.log_softmax(-1)).sum(-1).mean(..);
            Ok((loss, logits.argmax(-1).eq(y).cast(DType::F32).mean(..)))
        },
        &weights,
    )?;
    let count = count + 1.0;
    let exponent = count.cast(DType::F32);
    let correction = |beta: f64| 1.0 - Tensor::scalar(beta).pow(&exponent);
    let (mut new, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for ((w, g), (m, v)) in weights.iter().zip(&gradients).zip(m.iter().zip(&v)) {
        let m = m * 0.9 + g * 0.1;
        let v = v * 0.999 + g.square() * 0.001;
        new.push(w - 0.01 * (&m / correction(0.9)) / ((&v / correction(0.999)).sqrt() + 1e-7));
        first.push(m);
        second.push(v);
    }
    Ok((Logs::from([("loss", loss), ("accuracy", accuracy)]), (new, first, second, count, key)))
}

/// The bits of every leaf.
fn bits(state: &impl Tree, device: &Device) -> Vec<Vec<u32>> {
    // Reading as u32 gives the bits as they lie, whatever the dtype.
    state.leaves().iter().map(|t| t.to_vec_on::<u32>(device).unwrap()).collect()
}

#[test]
fn twenty_replays_are_twenty_steps_recorded_anew() {
    let device = Device::blocking().unwrap();
    let (mut replayed, mut fresh) = (initial(1), initial(1));
    let mut step = Step::new(&device);
    for number in 0..20 {
        let logs = step.run(&mut replayed, &batch(number), train).unwrap();
        let anew = Step::new(&device).run(&mut fresh, &batch(number), train).unwrap();
        assert_eq!(logs.read_blocking().unwrap(), anew.read_blocking().unwrap(), "logs of step {number}");
        assert_eq!(bits(&replayed, &device), bits(&fresh, &device), "state after step {number}");
    }
    assert_ne!(bits(&replayed, &device), bits(&initial(1), &device));
}

#[test]
fn a_step_and_eager_evaluation_agree() {
    let device = Device::blocking().unwrap();
    let (mut stepped, mut eager) = (initial(2), initial(2));
    let mut step = Step::new(&device);
    for number in 0..3 {
        step.run(&mut stepped, &batch(number), train).unwrap();
        // Every leaf of the new state is a graph until it is read.
        let (_, next) = train(eager, &batch(number)).unwrap();
        evaluate(&device, &next.leaves(), &Options::default()).unwrap();
        eager = next;
        for (index, (a, b)) in stepped.leaves().iter().zip(eager.leaves()).enumerate() {
            let (a, b) = (read(a, &device).unwrap(), read(&b, &device).unwrap());
            // Two plans may sum in another order: 1e-7 of a gradient, which Adam's division by its root magnifies.
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
            assert!(a.len() == b.len() && a.iter().zip(&b).all(close), "step {number}, leaf {index}: {a:?} {b:?}");
        }
    }
}

#[test]
fn batches_in_one_submission_are_as_many_steps() {
    let device = Device::blocking().unwrap();
    for k in [2, 5] {
        let (mut together, mut single) = (initial(3), initial(3));
        let batches: Vec<Batch> = (0..k).map(batch).collect();
        let mut step = Step::new(&device);
        // Twice, so that the second time is a replay.
        for _ in 0..2 {
            let before = device.stats();
            let last = step.run_tagged(0, &mut together, &batches, train).unwrap();
            let first_time = step.plan().unwrap().dispatches() as u64 * k;
            assert_eq!((device.stats() - before).dispatches, first_time);
            let mut one = Step::new(&device);
            let mut logs = Logs::default();
            for batch in &batches {
                logs = one.run(&mut single, batch, train).unwrap();
            }
            assert_eq!(last.read_blocking().unwrap(), logs.read_blocking().unwrap());
            assert_eq!(bits(&together, &device), bits(&single, &device));
        }
    }
}

#[test]
fn a_steady_step_creates_nothing_and_submits_once() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = initial(4);
    for number in 0..2 {
        step.run(&mut state, &batch(number), train).unwrap();
    }
    let before = device.stats();
    for number in 2..12 {
        step.run(&mut state, &batch(number), train).unwrap();
    }
    let spent = device.stats() - before;
    let made = (spent.buffers, spent.bind_groups, spent.pipelines);
    assert_eq!((made, spent.submissions, spent.waits), ((0, 0, 0), 10, 0), "{spent}");
    assert_eq!(spent.dispatches, 10 * step.plan().unwrap().dispatches() as u64);
    assert_eq!(spent.bytes_uploaded, 10 * (ROWS as u64 * 24 * 4 + ROWS as u64 * 4));
    assert_eq!(spent.bytes_read, 0);
}

#[test]
fn equal_seeds_give_equal_bits() {
    let device = Device::blocking().unwrap();
    let run = |device: &Device, seed: u64| {
        let mut state = initial(5);
        state.4 = random::key(seed);
        let mut step = Step::new(device);
        for number in 0..4 {
            step.run(&mut state, &batch(number), train).unwrap();
        }
        bits(&state.0, device)
    };
    let first = run(&device, 9);
    assert_eq!(first, run(&device, 9));
    assert_eq!(first, run(&Device::blocking().unwrap(), 9));
    assert_ne!(first, run(&device, 10), "the key decides what is dropped");
}

/// Three products forwards and five backwards, and small kernels between them that join what they can. Unfused, it
/// is a dispatch an op.
#[test]
fn a_small_network_takes_few_dispatches() {
    let device = Device::blocking().unwrap();
    let count = |fuse: bool| {
        let mut step = Step::with(&device, Options { fuse, ..Options::default() });
        step.run(&mut initial(6), &batch(0), train).unwrap();
        let plan = step.plan().unwrap();
        println!("{plan}");
        (plan.dispatches(), plan.copies, plan.in_place)
    };
    let (dispatches, copies, in_place) = count(true);
    assert!(dispatches <= 12, "{dispatches} dispatches");
    // Six parameters, twelve moments and the count are overwritten where they lie; the key stays.
    assert_eq!((copies, in_place), (0, 19));
    let (unfused, ..) = count(false);
    assert!(unfused > 100, "{unfused} dispatches unfused");
}

// ---- purity ----

fn no_logs<S>(state: S) -> Result<(Logs, S)> {
    Ok((Logs::default(), state))
}

fn numbers(values: &[f32]) -> Tensor {
    Tensor::new(values, [values.len()])
}

#[track_caller]
fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec::<f32>().unwrap()
}

#[test]
fn a_host_counter_in_a_step_is_an_error_that_names_its_line() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device).purity(Purity::Always);
    let mut state = numbers(&[1.0, 2.0, 3.0]);
    let counter = Cell::new(0.0);
    let mut line = 0;
    let mut run = |state: &mut Tensor| {
        counter.set(counter.get() + 1.0);
        line = line!() + 1;
        step.run(state, &(), |s: Tensor, _: &()| no_logs(s + counter.get()))
    };
    run(&mut state).unwrap();
    let error = run(&mut state).unwrap_err();
    let Error::StepChanged { why, place } = &error else { panic!("{error}") };
    assert!(place.at.file().ends_with("plan.rs") && place.at.line() == line, "{error}");
    assert_eq!(why, "leaf f32[] changed");
    let text = error.to_string();
    assert!(
        text.contains("a host value must not be baked into a step") && text.contains(&format!("plan.rs:{line}")),
        "{text}"
    );
    assert_eq!(values(&state), [2.0, 3.0, 4.0], "the step that was refused changed nothing");
}

#[test]
fn the_same_counter_in_the_state_is_none() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device).purity(Purity::Always);
    let mut state = (numbers(&[1.0, 2.0]), Tensor::scalar(0f32));
    for _ in 0..4 {
        step.run(&mut state, &(), |(s, n): (Tensor, Tensor), _: &()| {
            let n = n + 1.0;
            no_logs((s + &n, n))
        })
        .unwrap();
    }
    assert_eq!(values(&state.0), [11.0, 12.0]);
}

#[test]
fn a_captured_tensor_that_was_replaced_is_an_error() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device).purity(Purity::Always);
    let mut state = numbers(&[0.0; 100]);
    // Larger than what is compared by content.
    let make = |by: f32| Tensor::new(&[by; 100], [100]).to(&device).unwrap();
    let table = make(1.0);
    let with = |table: &Tensor| {
        let table = table.clone();
        move |s: Tensor, _: &()| no_logs(s + &table)
    };
    step.run(&mut state, &(), with(&table)).unwrap();
    step.run(&mut state, &(), with(&table)).unwrap();
    let error = step.run(&mut state, &(), with(&make(1.0))).unwrap_err();
    assert!(matches!(&error, Error::StepChanged { why, .. } if why == "leaf f32[100] changed"), "{error}");
    assert_eq!(values(&state)[99], 2.0);
    // Meant to differ: another tag, or a step that forgot.
    step.run_tagged(1, &mut state, &[()], with(&make(10.0))).unwrap();
    assert_eq!(values(&state)[99], 12.0);
    step.clear();
    step.run(&mut state, &(), with(&make(100.0))).unwrap();
    assert_eq!(values(&state)[99], 112.0);
}

// ---- the state ----

#[test]
fn a_state_may_permute_its_own_leaves() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let start: Vec<Vec<f32>> = (0..3).map(|i| vec![i as f32; 70]).collect();
    let mut state: Vec<Tensor> = start.iter().map(|v| numbers(v)).collect();
    let mut host = start;
    for _ in 0..5 {
        step.run(&mut state, &(), |s: Vec<Tensor>, _: &()| no_logs(vec![s[1].clone(), &s[2] + &s[0], s[0].clone()]))
            .unwrap();
        let sum: Vec<f32> = host[2].iter().zip(&host[0]).map(|(a, b)| a + b).collect();
        host = vec![host[1].clone(), sum, host[0].clone()];
        assert_eq!(state.iter().map(values).collect::<Vec<_>>(), host);
    }
}

#[test]
fn a_leaf_read_at_other_places_than_it_is_written_at_is_not_overwritten_too_early() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = (Random::new(1).leaf(&[9, 9].into(), DType::F32, (-1.0, 1.0), true), numbers(&[1.0; 9]));
    for _ in 0..4 {
        let (a, b) = (read(&state.0, &device).unwrap(), read(&state.1, &device).unwrap());
        step.run(&mut state, &(), |(a, b): (Tensor, Tensor), _: &()| {
            // Transposed, reversed and summed: elements of the old value are needed after the first are new.
            no_logs((a.t().flip(0) * 0.5, (&b + a.sum(0)) * 0.5))
        })
        .unwrap();
        let first: Vec<f64> = (0..81).map(|i| a[(i % 9) * 9 + 8 - i / 9] * 0.5).collect();
        let second: Vec<f64> = (0..9).map(|j| (b[j] + (0..9).map(|i| a[i * 9 + j]).sum::<f64>()) * 0.5).collect();
        assert_eq!(read(&state.0, &device).unwrap(), first);
        assert_eq!(read(&state.1, &device).unwrap(), second);
    }
}

#[test]
fn a_clone_of_a_leaf_keeps_its_old_value() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = (numbers(&[1.0, 2.0]), Tensor::scalar(10f32));
    let mut kept = vec![state.0.clone()];
    for _ in 0..3 {
        step.run(&mut state, &(), |(s, n): (Tensor, Tensor), _: &()| no_logs((s * 2.0, n))).unwrap();
        kept.push(state.0.clone());
    }
    step.run(&mut state, &(), |(s, n): (Tensor, Tensor), _: &()| no_logs((s * 2.0, n))).unwrap();
    let first: Vec<f32> = kept.iter().map(|t| values(t)[0]).collect();
    assert_eq!(first, [1.0, 2.0, 4.0, 8.0]);
    assert_eq!(values(&state.0), [16.0, 32.0]);
    // What is recorded from a clone is of its value at that time, too.
    let sum = &state.0 + &kept[1];
    step.run(&mut state, &(), |(s, n): (Tensor, Tensor), _: &()| no_logs((s * 2.0, n))).unwrap();
    assert_eq!(values(&sum), [18.0, 36.0]);
}

#[test]
fn an_error_inside_the_function_leaves_the_state_as_it_was() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device).purity(Purity::Always);
    let mut state = numbers(&[1.0, 2.0]);
    let fine = |s: Tensor, _: &()| no_logs(s + 1.0);
    step.run(&mut state, &(), fine).unwrap();
    let fails: [(&str, &dyn Fn(Tensor) -> Result<(Logs, Tensor)>); 6] = [
        ("no", &|_| Err(Error::Data { what: "no".into() })),
        ("shapes [2] and [3] do not fit", &|s| no_logs(s + numbers(&[1.0; 3]))),
        ("tensor 0 of the state was f32[2], the step returned f32[1]", &|s| no_logs(s.slice(0, 0..1))),
        ("tensor 0 of the state was f32[2], the step returned i32[2]", &|s| no_logs(s.cast(DType::I32))),
        ("the log loss is f32[2]; a log is one f32 number", &|s| Ok((Logs::from([("loss", s.clone())]), s))),
        ("prod has no derivative", &|s| no_logs(wengert::grad::grad(|s| Ok(s.prod(..)), &s)?)),
    ];
    for (number, (wanted, fail)) in fails.iter().enumerate() {
        // In the function's place, and as a function that is new.
        for tag in [0, 1 + number as u64] {
            let error = step.run_tagged(tag, &mut state, &[()], |s: Tensor, _: &()| fail(s)).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
            assert_eq!(values(&state), [2.0, 3.0]);
        }
    }
    step.run(&mut state, &(), fine).unwrap();
    assert_eq!(values(&state), [3.0, 4.0]);
}

#[test]
fn reading_inside_a_step_is_an_error_that_names_the_line() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = numbers(&[1.0, 2.0]);
    let read: [&dyn Fn(&Tensor) -> Result<Vec<f32>>; 3] =
        [&|s| s.to_vec(), &|s| s.exp().to_vec(), &|s| (s * 2.0).to_vec_on(&device)];
    let line = line!() - 1;
    for (number, read) in read.iter().enumerate() {
        let error = step.run(&mut state, &(), |s: Tensor, _: &()| no_logs(&s * f64::from(read(&s)?[0]))).unwrap_err();
        let Error::ReadInsideStep { op, place } = &error else { panic!("{error}") };
        assert_eq!(op, ["an input of the step", "exp", "mul"][number]);
        assert!(number == 0 || place.at.line() == line, "{error}");
        assert!(error.to_string().contains("return it as a log or in the state"), "{error}");
        assert_eq!(values(&state), [1.0, 2.0]);
    }
}

#[test]
fn logs_stay_readable_while_further_steps_run() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = Tensor::scalar(0f32);
    let mut all = Vec::new();
    for _ in 0..5 {
        let logs = step.run(&mut state, &(), |s: Tensor, _: &()| {
            let _scope = Scope::enter("count");
            let s = s + 1.0;
            Ok((Logs::from([("n", s.clone()), ("twice", &s * 2.0)]), s))
        });
        all.push(logs.unwrap());
    }
    for (logs, n) in all.iter().zip(1u8..) {
        let n = f32::from(n);
        assert_eq!(logs.read_blocking().unwrap(), [("n".to_string(), n), ("twice".to_string(), 2.0 * n)]);
    }
}

#[test]
fn batches_of_other_shapes_are_other_plans_of_the_same_state() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device).purity(Purity::Always);
    let mut state = Tensor::scalar(0f32);
    let f = |s: Tensor, x: &Tensor| no_logs(s + x.sum(..));
    for (number, rows) in [7, 7, 3, 7, 3, 0].into_iter().enumerate() {
        step.run(&mut state, &Tensor::new(&vec![1f32; rows], [rows]), f).unwrap();
        assert_eq!(values(&state), [[7.0, 14.0, 17.0, 24.0, 27.0, 27.0][number]]);
    }
    let unlike = [numbers(&[1.0; 7]), numbers(&[1.0; 3])];
    let error = step.run_tagged(0, &mut state, &unlike, f).unwrap_err();
    assert!(error.to_string().contains("must be alike"), "{error}");
    assert_eq!(values(&state), [27.0]);
}
