//! What a program may expect that never makes a step: a loop that does not read stays bounded, one that reads a little
//! computes everything once, and steps are left alone.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::sync::{Arc, Mutex};

use common::training::{Training, batch};
use wengert::gpu::Device;
use wengert::graph::{Tensor, Tree};
use wengert::random::threefry;
use wengert::step::{Logs, Purity, Step};

fn device() -> Device {
    Device::blocking().unwrap()
}

#[test]
fn a_loop_that_never_reads_stays_bounded() {
    const STEPS: usize = 100_000;
    let device = device();
    let mut x = Tensor::new(&[0.0f32, 1.0, 2.0, 4.0], [4]).to(&device).unwrap();
    let mut nodes = Vec::new();
    let mut settled = None;
    for step in 0..STEPS {
        x = &x * 0.5 + 1.0;
        if step % 100 == 0 {
            nodes.push(Arc::downgrade(x.node().unwrap().0));
        }
        if step == 10_000 {
            settled = Some(device.stats());
        }
    }
    let spent = device.stats() - settled.unwrap();
    assert_eq!((spent.pipelines, spent.bytes_read), (0, 0), "every part of the loop is the same program: {spent}");
    // A chain of at most 512 nodes waits, two of which are recorded by a round.
    let alive = nodes.iter().filter(|node| node.strong_count() > 0).count();
    assert!(alive <= 4, "{alive} of the {} nodes looked at are alive", nodes.len());
    assert!(device.stats().bytes_peak < 16 << 20, "{}", device.stats());
    assert!(spent.submissions as usize >= 2 * (STEPS - 10_000) / 512, "{spent}");
    assert_eq!(x.to_vec::<f32>().unwrap(), [2.0; 4]);
}

#[test]
fn steps_of_training_whose_loss_alone_is_read_are_computed_once() {
    let (device, training) = (device(), Training::classifier(0.0));
    let mut eager = training.state(1).map(&mut |t: &Tensor| t.to(&device).unwrap());
    let (mut step, mut state) = (Step::new(&device), training.state(1));
    let mut dispatches = Vec::new();
    for number in 0..24 {
        let batch = batch(16, number);
        let before = device.stats();
        let (logs, next) = training.step(eager, &batch).unwrap();
        eager = next;
        let loss = logs.get("loss").unwrap().to_vec::<f32>().unwrap()[0];
        let spent = device.stats() - before;
        dispatches.push(spent.dispatches);
        if number >= 12 {
            assert_eq!(spent.pipelines, 0, "run {number} is the same program: {spent}");
        }
        let replayed = training.run(&mut step, &mut state, &batch).read_blocking().unwrap()[0].1;
        // Another order of fusion rounds sums of a few dozen terms differently, and 24 steps pass it on.
        assert!((loss - replayed).abs() <= 1e-4 * replayed.abs(), "run {number}: {loss}, replayed {replayed}");
    }
    let sum = |from: usize| dispatches[from..from + 6].iter().sum::<u64>();
    assert_eq!(sum(12), sum(18), "the work does not grow: {dispatches:?}");
}

#[test]
fn what_a_program_does_not_hold_is_not_stored() {
    let device = device();
    let x = Tensor::new(&threefry::uniform(threefry::key(1), 4096, 0.5, 1.0), [4096]).to(&device).unwrap();
    let chain = |x: &Tensor, rounds: usize| (0..rounds).fold(x.clone(), |y, _| (&y * 0.5 + 0.25).sqrt());
    // Long, but one kernel after another in registers: nothing on the way is held.
    let (short, long) = (chain(&x, 10), chain(&x, 60));
    short.to_vec::<f32>().unwrap();
    let before = device.stats();
    long.to_vec::<f32>().unwrap();
    let alone = device.stats() - before;
    // The same, with values on the way that the program keeps: they are computed along with it, in one submission.
    let mut held = vec![chain(&x, 20)];
    (0..2).for_each(|_| held.push(chain(&held[held.len() - 1], 20)));
    let beside = &held[1] * 3.0;
    let before = device.stats();
    assert_eq!(held[2].to_vec::<f32>().unwrap(), long.to_vec::<f32>().unwrap());
    let together = device.stats() - before;
    assert_eq!((alone.submissions, together.submissions), (2, 3), "one to compute, one for each read");
    let before = device.stats();
    held.iter().chain([&beside]).for_each(|t| drop(t.to_vec::<f32>().unwrap()));
    assert_eq!((device.stats() - before).dispatches, 0, "they were computed");
}

#[test]
fn steps_are_never_evaluated_in_the_middle() {
    let device = device();
    let known = Tensor::new(&[1.0f32, 2.0], [2]).to(&device).unwrap();
    let mut state = Tensor::new(&[1.0f32, 2.0], [2]);
    let mut step = Step::new(&device).purity(Purity::Always);
    let f = |s: Tensor, _: &()| {
        // A chain on the state, and one on what is captured: evaluated, it would be another tensor each time.
        let long = |x: &Tensor| (0..1000).fold(x.clone(), |x, _| &x * 0.5 + 1.0);
        Ok((Logs::default(), long(&s) + long(&known)))
    };
    for _ in 0..3 {
        step.run(&mut state, &(), f).unwrap();
    }
    assert_eq!(state.to_vec::<f32>().unwrap(), [4.0, 4.0]);
    assert_eq!(known.to_vec::<f32>().unwrap(), [1.0, 2.0]);
}

#[test]
fn the_pipelines_of_a_step_are_made_at_once_and_told_of() {
    let (device, training) = (device(), Training::classifier(0.25));
    let mut state = training.state(1);
    // Its variables are drawn on the device.
    state.leaves().iter().for_each(|tensor| drop(tensor.to(&device).unwrap()));
    let told = Arc::new(Mutex::new(Vec::new()));
    let (listener, thread) = (told.clone(), std::thread::current().id());
    device.on_compiling(move |now| {
        assert_eq!(std::thread::current().id(), thread);
        assert!(!now.label.is_empty());
        listener.lock().unwrap().push((now.done, now.of));
    });
    let before = device.stats();
    let mut step = Step::new(&device);
    training.run(&mut step, &mut state, &batch(16, 0));
    let made = (device.stats() - before).pipelines as usize;
    assert!((1..=step.plan().unwrap().dispatches()).contains(&made));
    let expected: Vec<_> = (1..=made).map(|done| (done, made)).collect();
    assert_eq!(*told.lock().unwrap(), expected, "all in one go, before the first of them ran");
    training.run(&mut step, &mut state, &batch(16, 1));
    assert_eq!(told.lock().unwrap().len(), made, "none is new");
}
