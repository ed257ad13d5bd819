//! `--host`: what the host does for a step: recording, hashing, compiling, encoding, and the eager form of a step.
//!
//! Times are medians. A recording is the step function on real tensors with everything it made dropped again. The
//! figures of encoding are differences between submissions of one and of many replays, divided by the replays between,
//! with the batch on the device, so that neither the submission nor the upload is in them; `plan` is a step recorded and
//! bound anew less a replay: all that a first step does but making pipelines.

use std::time::Instant;

use wengert::collections::Table;
use wengert::graph::Tree;
use wengert::lower::recording::Recording;
use wengert::lower::{Options, Request, Target, compile};
use wengert::prelude::*;

use crate::common::models::{Model, State};

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds of `f`, at the median of `n` times.
fn time(n: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let once = |_| {
        let started = Instant::now();
        f().map(|()| started.elapsed().as_secs_f64())
    };
    (0..n).map(once).collect::<Result<_>>().map(median)
}

/// How many nodes `f` records.
fn recorded<T>(f: impl FnOnce() -> Result<T>) -> Result<u64> {
    let now = || Tensor::scalar(0.0f32).node().map(|(node, _)| node.number());
    let before = now()?;
    let kept = f()?;
    let after = now()?;
    drop(kept);
    Ok(after - before - 1)
}

pub fn run(case: &Model, device: &Device) -> Result<()> {
    const TIMES: usize = 201;
    let mut state = case.state()?;
    let step = |state: State| case.step(state, &case.batch);
    let leaves = |(logs, state): (Logs, State)| -> Vec<Tensor> {
        let logged = logs.iter().map(|(_, tensor)| tensor.clone());
        state.leaves().into_iter().chain(logged).collect()
    };
    let nodes = recorded(|| step(state.clone()))? as f64;
    let record = time(TIMES, || step(state.clone()).map(drop))?;
    let roots = leaves(step(state.clone())?);
    let hash = time(TIMES, || {
        let recording = Recording::of(&roots)?;
        let stand_ins = Table::new();
        std::hint::black_box(recording.signature(&stand_ins));
        Ok(())
    })?;
    let recording = Recording::of(&roots)?;
    let program = recording.program(&Table::new(), None)?;
    let build = time(21, || recording.program(&Table::new(), None).map(drop))?;
    let target = Target::of(device);
    let request = Request { results: program.roots.clone(), ..Request::default() };
    let passes = time(21, || compile(program.clone(), &request, &target, &Options::default()).map(drop))?;

    let batch = case.batch.map(&mut |tensor| tensor.to(device).unwrap_or_else(Tensor::poisoned));
    let mut replay = Step::new(device).purity(wengert::step::Purity::Sometimes);
    let f = |state: State, batch: &(Tensor, Tensor)| case.step(state, batch);
    for _ in 0..3 {
        replay.run(&mut state, &batch, f)?;
    }
    let mut submission = |k: usize| -> Result<f64> {
        let batches = vec![batch.clone(); k];
        let mut times = Vec::new();
        for _ in 0..41 {
            device.wait_blocking()?;
            let started = Instant::now();
            replay.run_tagged(0, &mut state, &batches, f)?;
            times.push(started.elapsed().as_secs_f64());
        }
        Ok(median(times))
    };
    let (one, many) = (submission(1)?, submission(9)?);
    let encode = (many - one) / 8.0;
    let dispatches = replay.plan().map_or(0, |plan| plan.dispatches());
    let mut anew = Vec::new();
    for _ in 0..11 {
        device.wait_blocking()?;
        replay.clear();
        let started = Instant::now();
        replay.run(&mut state, &batch, f)?;
        anew.push(started.elapsed().as_secs_f64());
    }
    let plan = median(anew) - one;
    println!(
        "{{\"case\":\"{}_host\",\"nodes\":{nodes},\"ns_record_per_node\":{:.0},\"ns_hash_per_node\":{:.0},\"us_build\":{:.0},\"us_passes\":{:.0},\"ms_plan\":{:.2},\"us_encode\":{:.1},\"us_encode_per_dispatch\":{:.2},\"us_submission\":{:.1}}}",
        case.name,
        record / nodes * 1e9,
        hash / nodes * 1e9,
        build * 1e6,
        passes * 1e6,
        plan * 1e3,
        encode * 1e6,
        encode / dispatches as f64 * 1e6,
        one * 1e6,
    );
    Ok(())
}

/// A step of a thousand ops and more of every kind, to see how compiling grows.
pub fn synthetic() -> Result<()> {
    let device = Device::blocking()?;
    let weight = |seed| super::uniform(seed, &[64, 64]);
    for depth in [40, 80, 160, 320] {
        let f = |state: Vec<Tensor>, x: &Tensor| {
            let mut y = x.clone();
            for layer in 0..depth {
                let w = &state[layer % state.len()];
                y = match layer % 4 {
                    0 => (y.matmul(w) + w.mean(0)).tanh(),
                    1 => (&y - y.mean(Keep(1))) * 0.5 + w.sum(0) * 0.01,
                    2 => y.t().matmul(w).relu() + &y * 0.1,
                    _ => y.softmax(1) + w.exp().mean(0) * 0.1,
                };
            }
            let next = state.iter().map(|w| w * 0.99 + y.mean(..) * 0.001).collect();
            Ok((Logs::default(), next))
        };
        let mut state: Vec<Tensor> = (0..8).map(weight).collect();
        let batch = weight(9);
        let nodes = recorded(|| f(state.clone(), &batch))?;
        let mut step = Step::new(&device);
        step.run(&mut state, &batch, f)?;
        let (mut replays, mut anew) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            for times in [&mut replays, &mut anew] {
                device.wait_blocking()?;
                let started = Instant::now();
                step.run(&mut state, &batch, f)?;
                times.push(started.elapsed().as_secs_f64());
                step.clear();
            }
            step.run(&mut state, &batch, f)?;
        }
        let plan = median(anew) - median(replays);
        let dispatches = step.plan().map_or(0, |plan| plan.dispatches());
        println!(
            "{{\"case\":\"synthetic_{nodes}\",\"dispatches\":{dispatches},\"ms_plan\":{:.2},\"us_plan_per_node\":{:.1}}}",
            plan * 1e3,
            plan / nodes as f64 * 1e6
        );
    }
    Ok(())
}

/// The step function on real tensors, its loss read each time, against the replayed step, in alternating blocks.
pub fn eager(case: &Model, device: &Device, blocks: usize) -> Result<()> {
    const STEPS: usize = 10;
    let on = |tensor: &Tensor| tensor.to(device).unwrap_or_else(Tensor::poisoned);
    let f = |state: State, batch: &(Tensor, Tensor)| case.step(state, batch);
    let (mut eager, mut state) = (case.state()?.map(&mut |t| on(t)), case.state()?);
    let mut step = Step::new(device).purity(wengert::step::Purity::Sometimes);
    let (mut loose, mut replayed) = (Vec::new(), Vec::new());
    let mut loss = (0.0, 0.0);
    for block in 0..blocks + 2 {
        let started = Instant::now();
        for _ in 0..STEPS {
            let (logs, next) = f(eager, &case.batch)?;
            eager = next;
            loss.0 = logs.get("loss").map_or(Ok(vec![]), |loss| loss.to_vec_on::<f32>(device))?[0];
        }
        let took = started.elapsed().as_secs_f64() / STEPS as f64;
        device.wait_blocking()?;
        let started = Instant::now();
        for _ in 0..STEPS {
            loss.1 = step.run(&mut state, &case.batch, f)?.read_blocking()?[0].1;
        }
        // The first blocks compile.
        if block >= 2 {
            loose.push(took);
            replayed.push(started.elapsed().as_secs_f64() / STEPS as f64);
        }
    }
    let (loose, replayed) = (median(loose), median(replayed));
    println!(
        "{{\"case\":\"{}_eager\",\"ms_eager\":{:.3},\"ms_replayed\":{:.3},\"ratio\":{:.2},\"losses\":[{},{}]}}",
        case.name,
        loose * 1e3,
        replayed * 1e3,
        loose / replayed,
        loss.0,
        loss.1
    );
    Ok(())
}
