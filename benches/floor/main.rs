//! Hand-written kernels beside ours, in one process and in turns: `cargo bench --all-features --bench floor -- [case...]`.
//!
//! A floor is what somebody writes for one kernel at one size: the WGSL files of this folder over bare wgpu, without
//! bounds checks. Ours are the cases of `benches/common`, written as a user would. Both get the same inputs, both
//! results are held to the f64 reference, and then blocks of runs alternate. A line of JSON has both medians and their ratio, and the
//! ratio's range over the rounds. Deliberately absent: products, whose floor is the multiply-add peak of the first line.

mod bare;
#[path = "../common/mod.rs"]
mod common;

use std::time::Instant;

use bare::{Bare, Dispatch};
use common::cases::{self, Case, host};
use common::measure::{Running, VARIANTS, median};
use common::models::{self, State};
use wengert::prelude::*;

/// Blocks of each, in turns.
const ROUNDS: usize = 25;
/// Seconds of a block.
const BLOCK: f64 = 0.04;

/// A case by hand: what is dispatched, and which of its buffers hold which of the case's results.
struct Twin {
    dispatches: Vec<Dispatch>,
    results: Vec<(usize, wgpu::Buffer)>,
}

fn f32s(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(host(tensor)?.into_iter().map(|value| value as f32).collect())
}

/// The twin of a case, where somebody wrote one; `subgroup` is the size of every subgroup.
fn twin(bare: &Bare, case: &Case, subgroup: u32) -> Result<Option<Twin>> {
    let inputs = case.inputs.iter().map(|input| Ok(bare.buffer(&f32s(input)?))).collect::<Result<Vec<_>>>()?;
    let state = case.state.iter().map(|one| Ok(bare.buffer(&f32s(one)?))).collect::<Result<Vec<_>>>()?;
    // One workgroup of 256 for so many vectors of four.
    let vectors = |tensor: &Tensor| tensor.spec().map_or(0, |spec| spec.bytes() / 16);
    let each = |tensor: &Tensor| vectors(tensor).div_ceil(256) as u32;
    let buffers = |all: &[&wgpu::Buffer]| (0..).zip(all.iter().map(|&one| one.clone())).collect::<Vec<_>>();
    let dispatch = |text: &str, entry: &str, all: Vec<(u32, wgpu::Buffer)>, groups: u32| {
        bare.dispatch(text, entry, &all.iter().map(|(at, one)| (*at, one)).collect::<Vec<_>>(), groups)
    };
    let all: Vec<&wgpu::Buffer> = inputs.iter().chain(&state).collect();
    let sized = |text: &str| text.replace("const SIZE: u32 = 8u;", &format!("const SIZE: u32 = {subgroup}u;"));
    let rows = |text: &str| dispatch(&sized(&[include_str!("rows.wgsl"), text].concat()), "main", buffers(&all), 1024);
    let mut results = vec![0];
    let dispatches = match case.name.as_str() {
        "gelu_fma_4m" => vec![dispatch(include_str!("gelu_fma.wgsl"), "main", buffers(&all), each(&case.inputs[0]))],
        "gelu_tanh_fma_4m" => {
            vec![dispatch(include_str!("gelu_tanh_fma.wgsl"), "main", buffers(&all), each(&case.inputs[0]))]
        }
        "sum_4m" => {
            let (text, partial) = (sized(include_str!("sum.wgsl")), bare.buffer(&[0.0; 64]));
            let first = buffers(&[&inputs[0], &partial]);
            vec![
                dispatch(&text, "main", first, 64),
                dispatch(&text, "last", vec![(1, partial.clone()), (2, state[0].clone())], 1),
            ]
        }
        "softmax_1024" => vec![rows(include_str!("softmax.wgsl"))],
        "layernorm_1024" => vec![rows(include_str!("layernorm.wgsl"))],
        "adam_670k" => {
            // Parameters, the count, the rate, then both moments. Two elements are beyond the last vector of four.
            results = vec![0, 3, 4];
            let padded = |tensor: &Tensor| {
                let mut values = f32s(tensor)?;
                values.resize(values.len().next_multiple_of(4), 0.0);
                Ok::<_, Error>(bare.buffer(&values))
            };
            let (g, p) = (padded(&case.inputs[0])?, padded(&case.state[0])?);
            let (m, v) = (padded(&case.state[3])?, padded(&case.state[4])?);
            let groups = each(&case.state[0]) + 1;
            let dispatches = vec![dispatch(include_str!("adam.wgsl"), "main", buffers(&[&g, &p, &m, &v]), groups)];
            return Ok(Some(Twin { dispatches, results: results.into_iter().zip([p, m, v]).collect() }));
        }
        _ => return Ok(None),
    };
    Ok(Some(Twin { dispatches, results: results.into_iter().map(|at| (at, state[at].clone())).collect() }))
}

/// Whether the one run there has been left what the reference says.
fn check(bare: &Bare, case: &Case, twin: &Twin) -> Result<()> {
    let expected = case.expected()?;
    for (at, buffer) in &twin.results {
        let got = bare.read(buffer);
        let scale = expected[*at].iter().fold(0.0f64, |scale, (_, value)| scale.max(value.abs()));
        for &(index, want) in &expected[*at] {
            let error = (f64::from(got[index]) - want).abs();
            // The formula of its erf has an error of its own.
            let bound = case.bound(scale).max(if case.name == "gelu_fma_4m" { 1e-6 } else { 0.0 });
            assert!(error <= bound, "{} by hand: element {index} is {} for {want}", case.name, got[index]);
        }
    }
    Ok(())
}

/// Times blocks of both in turns and prints a line. Each takes a number of runs, and waits.
fn compare(name: &str, mut ours: impl FnMut(usize) -> Result<()>, mut theirs: impl FnMut(usize)) -> Result<()> {
    let mut time = |runs: usize, by_hand: bool| -> Result<f64> {
        let started = Instant::now();
        if by_hand {
            theirs(runs)
        } else {
            ours(runs)?
        }
        Ok(started.elapsed().as_secs_f64() * 1e3 / runs as f64)
    };
    let mut runs = [1, 1];
    for by_hand in [false, true] {
        time(3, by_hand)?;
        runs[usize::from(by_hand)] = ((BLOCK * 1e3 / time(3, by_hand)?) as usize).clamp(1, 1000);
        time(runs[usize::from(by_hand)], by_hand)?;
    }
    let (mut mine, mut floor, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        mine.push(time(runs[0], false)?);
        floor.push(time(runs[1], true)?);
        ratios.push(mine[mine.len() - 1] / floor[floor.len() - 1]);
    }
    ratios.sort_by(f64::total_cmp);
    let (ours, floor) = (median(&mut mine), median(&mut floor));
    // The middle half of the rounds.
    let (low, high) = (ratios[ROUNDS / 4], ratios[ROUNDS - 1 - ROUNDS / 4]);
    let ratio = ours / floor;
    println!(
        "{{\"case\":\"{name}\",\"ms_median\":{ours:.4},\"ms_floor\":{floor:.4},\"ratio\":{ratio:.3},\"quartiles\":[{low:.3},{high:.3}],\"n\":{ROUNDS}}}"
    );
    Ok(())
}

/// The guide's model, `steps` steps in a submission, on the same batches.
fn step_seed(device: &Device, bare: &Bare, steps: usize) -> Result<()> {
    let model = models::seed()?;
    let batches: Vec<(Tensor, Tensor)> = (0..steps as u64)
        .map(|at| {
            let (x, y) = (models::uniform(2 * at + 1, &[32, 32]), models::uniform(2 * at + 2, &[32, 1]));
            Ok((x.to(device)?, y.to(device)?))
        })
        .collect::<Result<_>>()?;
    let host = |at: u64, shape: &[usize]| f32s(&models::uniform(at, shape));
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for at in 0..steps as u64 {
        x.extend(host(2 * at + 1, &[32, 32])?);
        y.extend(host(2 * at + 2, &[32, 1])?);
    }
    let mut state = model.state()?;
    let mut begin = vec![0.0; 256];
    begin[..32].copy_from_slice(&f32s(&state.0[0])?);
    let (x, y, held) = (bare.buffer(&x), bare.buffer(&y), bare.buffer(&begin));
    let text =
        include_str!("step_seed.wgsl").replace("const STEPS: u32 = 1u;", &format!("const STEPS: u32 = {steps}u;"));
    let twin = [bare.dispatch(&text, "main", &[(0, &x), (1, &y), (2, &held)], 1)];

    let mut step = Step::new(device).purity(wengert::step::Purity::Sometimes);
    let f = |state: State, batch: &(Tensor, Tensor)| model.step(state, batch);
    step.run_tagged(0, &mut state, &batches, f)?;
    bare.run(&twin, 1);
    let by_hand = bare.read(&held);
    for (at, weight) in pollster::block_on(state.0[0].read::<f32>())?.into_iter().enumerate() {
        assert!((weight - by_hand[at]).abs() < 1e-5, "step_seed by hand: weight {at} is {} for {weight}", by_hand[at]);
    }
    let ours = |runs: usize| -> Result<()> {
        for _ in 0..runs {
            pollster::block_on(device.ready())?;
            step.run_tagged(0, &mut state, &batches, f)?;
        }
        device.wait_blocking()
    };
    let name = if steps == 1 { "step_seed".into() } else { format!("step_seed_k{steps}") };
    // A submission for each run, as ours.
    compare(&name, ours, |runs| bare.submit(&twin, runs))
}

fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |case: &str| names.is_empty() || names.iter().any(|part| case.contains(part.as_str()));
    let device = pollster::block_on(VARIANTS[0].device())?;
    let bare = pollster::block_on(Bare::new(&device.info().name));
    println!("{device:?}, {}", pollster::block_on(device.ceilings())?);
    let info = device.info();
    // A power of two up to 64 on all devices that have one size.
    let subgroup = (info.subgroup_min_size == info.subgroup_max_size).then_some(info.subgroup_min_size);
    let Some(subgroup) = subgroup.filter(|size| (4..=64).contains(size)) else {
        eprintln!("the hand-written kernels want subgroups of one size: skipped");
        return Ok(());
    };
    for (name, make) in cases::timed() {
        if !wanted(name) {
            continue;
        }
        let case = make(name)?;
        let Some(twin) = twin(&bare, &case, subgroup)? else { continue };
        let mut running = pollster::block_on(Running::new(&device, &VARIANTS[0], &case))?;
        pollster::block_on(running.check())?;
        bare.run(&twin.dispatches, 1);
        check(&bare, &case, &twin)?;
        let ours = |runs: usize| running.block(runs).and_then(|()| device.wait_blocking());
        compare(name, ours, |runs| bare.run(&twin.dispatches, runs))?;
    }
    for (name, steps) in [("step_seed", 1), ("step_seed_k16", 16)] {
        if wanted(name) {
            step_seed(&device, &bare, steps)?;
        }
    }
    Ok(())
}
