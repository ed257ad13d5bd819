//! Steps that loop inside one dispatch: the bits of single steps, one dispatch, nothing made.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::cell::Cell;

use common::training::{Batch, State, Training};
use wengert::error::ErrorKind;
use wengert::gpu::Device;
use wengert::graph::{Tensor, Tree};
use wengert::prelude::*;
use wengert::random::threefry;
use wengert::step::{Logs, Purity, Step};

fn device() -> Device {
    Device::blocking().unwrap()
}

fn bits(device: &Device, state: &impl Tree) -> Vec<Vec<u32>> {
    let leaf = |t: &Tensor| match t.dtype() {
        DType::F32 => t.to_vec_on::<f32>(device).unwrap().into_iter().map(f32::to_bits).collect(),
        DType::I32 => t.to_vec_on::<i32>(device).unwrap().into_iter().map(|v| v as u32).collect(),
        _ => t.to_vec_on::<u32>(device).unwrap(),
    };
    state.leaves().iter().map(leaf).collect()
}

/// Rows for the guide's model.
fn rows(rows: usize) -> Batch {
    let x = threefry::uniform(threefry::key(1), rows * 32, -1.0, 1.0);
    let y = threefry::uniform(threefry::key(2), rows, -1.0, 1.0);
    (Tensor::new(&x, [rows, 32]), Tensor::new(&y, [rows, 1]))
}

/// Batches of `size` rows each, cut out of all rows.
fn cut((x, y): &Batch, size: usize) -> Vec<Batch> {
    (0..x.dim(0) / size).map(|at| at * size..(at + 1) * size).map(|r| (x.slice(0, r.clone()), y.slice(0, r))).collect()
}

/// The same on the host, each for itself.
fn on_host(device: &Device, batches: &[Batch]) -> Vec<Batch> {
    let own = |t: &Tensor| Tensor::new(&t.to_vec_on::<f32>(device).unwrap(), t.shape());
    batches.iter().map(|batch| batch.map(&mut |t| own(t))).collect()
}

#[test]
fn the_steps_of_a_small_model_are_one_dispatch_with_the_bits_of_single_steps() {
    let (device, training) = (device(), Training::guide());
    let all = rows(21 * 16);
    let resident = all.map(&mut |t| t.to(&device).unwrap());
    // Of 16 rows, and of 3: a column of three numbers is no whole group of four.
    for size in [16, 3] {
        let host = on_host(&device, &cut(&all, size)[..21]);
        let (mut single, mut one) = (training.state(3), Step::new(&device));
        let mut logs = Vec::new();
        let states: Vec<_> = (host.iter())
            .map(|batch| {
                logs.push(training.run(&mut one, &mut single, batch).read_blocking().unwrap());
                bits(&device, &single)
            })
            .collect();
        for batches in [host, cut(&resident, size)] {
            let (mut state, mut step): (State, _) = (training.state(3), Step::new(&device));
            let mut seen = 0;
            for k in [1, 8, 4, 8] {
                let group = &batches[seen..seen + k];
                seen += k;
                let before = device.stats();
                let ran = step.run_tagged(0, &mut state, group, |s, b| training.step(s, b)).unwrap();
                let made = device.stats() - before;
                assert_eq!((made.dispatches, step.plan().unwrap().dispatches()), (1, 1), "{k} steps of {size} rows");
                if seen > 9 {
                    assert_eq!((made.buffers, made.bind_groups, made.pipelines), (0, 0, 0), "{made:?}");
                    assert_eq!(made.submissions, 1);
                    // One for all values of a leaf, where they lie one behind the other, and one for the logs.
                    let rows = if made.bytes_uploaded == 0 && size == 3 { k + 1 } else { 2 };
                    assert_eq!(made.copies, rows as u64 + 1, "{made:?}");
                }
                assert_eq!(bits(&device, &state), states[seen - 1], "{k} steps of {size} rows");
                assert_eq!(ran.read_blocking().unwrap(), logs[seen - 1]);
            }
        }
    }
}

#[test]
fn logs_of_many_steps_go_round_the_ring_and_long_groups_are_several_dispatches() {
    let device = device();
    let mut state = Tensor::scalar(0.0f32);
    let mut step = Step::new(&device).purity(Purity::Sometimes);
    let f = |s: Tensor, x: &Tensor| {
        let next = &s + x;
        Ok((Logs::from([("sum", next.clone()), ("last", x.clone())]), next))
    };
    let batches: Vec<Tensor> = (1..=300).map(|x| Tensor::scalar(x as f32)).collect();
    for round in 1..=4 {
        let before = device.stats();
        let logs = step.run_tagged(0, &mut state, &batches, f).unwrap();
        assert_eq!((device.stats() - before).dispatches, 2, "256 and 44");
        let expected = [("sum".to_string(), round as f32 * 45150.0), ("last".to_string(), 300.0)];
        assert_eq!(logs.read_blocking().unwrap(), expected);
    }
}

#[test]
fn a_step_without_a_batch_loops_as_well() {
    let device = device();
    let mut state = Tensor::new(&[1i32, 1], [2]);
    let mut step = Step::new(&device);
    let f = |s: Tensor, (): &()| Ok((Logs::default(), Tensor::clone(&s) + s.flip(0)));
    let before = device.stats();
    step.run_tagged(0, &mut state, &[(); 5], f).unwrap();
    // Both elements of the new state read both of the old, which are overwritten when all is computed.
    assert_eq!((device.stats() - before).dispatches, 1);
    assert_eq!(step.plan().unwrap().copies, 0);
    assert_eq!(state.to_vec::<i32>().unwrap(), [32, 32]);
}

#[test]
fn a_batch_that_views_the_state_has_the_values_from_before_the_run() {
    let device = device();
    let mut state = Tensor::new(&[1.0f32, 2.0, 3.0, 4.0], [4]).to(&device).unwrap();
    for _ in 0..2 {
        let batches = [state.slice(0, 0..2), state.slice(0, 2..4)];
        let f = |s: Tensor, x: &Tensor| Ok((Logs::default(), s * 0.0 + x.sum(..)));
        Step::new(&device).run_tagged(0, &mut state, &batches, f).unwrap();
    }
    assert_eq!(state.to_vec::<f32>().unwrap(), [14.0; 4]);
}

#[test]
fn purity_is_checked_whatever_the_number_of_steps_in_a_run() {
    let device = device();
    for k in [2, 4, 16] {
        let (mut step, mut state) = (Step::new(&device).purity(Purity::Sometimes), Tensor::scalar(0.0f32));
        let baked = Cell::new(1.0);
        let batches = vec![(); k];
        let mut run =
            || step.run_tagged(0, &mut state, &batches, |s: Tensor, ()| Ok((Logs::default(), s + baked.get())));
        (0..3).for_each(|_| drop(run().unwrap()));
        baked.set(2.0);
        let found = (3..)
            .find(|_| matches!(run(), Err(error) if matches!(error.kind(), ErrorKind::StepChanged { .. })))
            .unwrap();
        assert!((found + 1) * k >= 100 && found * k <= 100, "run {found} of {k} steps");
        let mut early = Step::new(&device).purity(Purity::Sometimes);
        let mut run =
            || early.run_tagged(0, &mut state, &batches, |s: Tensor, ()| Ok((Logs::default(), s + baked.get())));
        run().unwrap();
        baked.set(3.0);
        assert!(
            matches!(run(), Err(error) if matches!(error.kind(), ErrorKind::StepChanged { .. })),
            "the second run of {k} steps"
        );
    }
}

#[test]
fn fit_runs_the_steps_of_an_execution_in_one_dispatch() {
    let device = device();
    let (x, y) = rows(10 * 32 + 5);
    let train = |steps_per_execution: usize| {
        let mut model = Sequential::new([32]).add(Dense::new(1)).build().unwrap().on(&device);
        let compile =
            Compile { loss: "mse".into(), metrics: vec!["mae".into()], steps_per_execution, ..Compile::default() };
        model.compile(Compile { optimizer: "adam".into(), ..compile }).unwrap();
        let fit = |epochs| Fit { epochs, verbose: Verbose::Silent, shuffle: false, ..Fit::default() };
        model.fit_blocking((&x, &y), fit(1)).unwrap();
        let before = device.stats();
        let history = model.fit_blocking((&x, &y), fit(1)).unwrap();
        let made = device.stats() - before;
        assert_eq!((made.bind_groups, made.pipelines), (0, 0), "{made:?}");
        let weights: Vec<Tensor> = model.variables().unwrap().into_iter().map(|(_, tensor)| tensor).collect();
        (history, bits(&device, &weights), made.dispatches)
    };
    let (history, weights, dispatches) = train(1);
    let (same, fused, fewer) = train(4);
    assert_eq!((dispatches, fewer), (11, 4), "ten whole batches in groups of 4, 4 and 2, then the rest");
    assert_eq!((history, weights), (same, fused));
}
