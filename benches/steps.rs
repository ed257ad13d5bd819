//! Whole training steps: `cargo bench --bench steps -- [case...]` prints a line of JSON for each case.
//!
//! A step is forward, backward, optimizer and metrics; the state stays on the device, the batch is uploaded from the
//! host. Steps are queued as `fit` queues them and the device is waited for at both ends of a timed block; the figure is
//! the median over blocks. `_read` reads the loss back after every step, `_k16` hands sixteen steps to the device in one
//! submission, `_resident` likewise with rows of a data set that lies on the device. Dispatches and submissions are
//! counted by the device's own counters, and by the Vulkan layer vkcount where VKCOUNT_FILE names its file. `--plan`
//! prints each plan, `--profile` the time of each dispatch, `--arena` has all temporaries lie in one slab, `--tune`
//! has the tiles of products found by trying, and says what each takes, `--texts` prints all kernels without timing them.
//! `--times=64` has batches 64 times as long, which lie on the device, for a chip that the cases' own would not fill.
//!
//! `fit_seed` is what `fit` adds to a step: the model of `step_seed` through `fit`, against the same steps replayed from
//! batches that lie ready, in blocks that alternate. `--learn=FILE` trains the model of `step_tfm` on a text instead of
//! timing anything, and prints the loss as it goes.
//!
//! `cold_mlp` and `warm_mlp` are first steps, see `steps/first.rs`; `--host` prints what the host does for a step, and
//! the eager form of one, see `steps/host.rs`.

mod common;
#[path = "steps/first.rs"]
mod first;
#[path = "steps/host.rs"]
mod host;

use std::time::Instant;

use common::models::{Model, SEQUENCES, STEPS, State, cnn, mlp, seed, sequences, tfm, uniform};
use wengert::lower::Options;
use wengert::lower::place::Strategy;
use wengert::prelude::*;
use wengert::random::threefry;

/// Trains on random pieces of a text; characters are their ASCII codes less 31, and 0.
fn learn(case: &Model, file: &str) -> Result<()> {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let text: Vec<i32> = bytes.iter().map(|&byte| i32::from(byte.clamp(31, 126)) - 31).collect();
    let device = Device::blocking()?;
    let mut step = Step::new(&device);
    let mut state = case.state()?;
    for at in 0..=600 {
        let places = threefry::uniform(threefry::key(at), SEQUENCES, 0.0, (text.len() - STEPS - 1) as f32);
        let batch = sequences(&text, places.iter().map(|&place| place as usize));
        let logs = step.run(&mut state, &batch, |state: State, batch| case.step(state, batch))?;
        if at % 100 == 0 {
            println!("{at} {:?}", logs.read_blocking()?);
            // The metrics are means since here.
            state.3 = case.metrics.iter().map(Metric::initial).collect();
        }
    }
    Ok(())
}

/// How steps are handed to the device.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Queued,
    Read,
    Fused(usize),
    Resident(usize),
}

/// Dispatches and submissions as the Vulkan layer counts them.
fn vulkan_counts() -> Option<(u64, u64)> {
    let bytes = std::fs::read(std::env::var_os("VKCOUNT_FILE")?).ok()?;
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?));
    Some((word(0)?, word(2)?))
}

fn run(case: &Model, way: Way, flags: &[String]) -> Result<()> {
    let device = Device::blocking()?;
    let arena = flags.iter().any(|flag| flag == "--arena");
    let strategy = if arena { Strategy::Arena } else { Strategy::Whole };
    let options = Options { strategy, ..Options::default() };
    let mut step = Step::with(&device, options).purity(wengert::step::Purity::Sometimes);
    let mut state = case.state()?;
    let f = |state: State, batch: &(Tensor, Tensor)| case.step(state, batch);
    let repeated = |t: &Tensor, times: usize| wengert::ops::concat(&vec![t; times], 0).to(&device);
    let longer = flags.iter().find_map(|flag| flag.strip_prefix("--times=")?.parse().ok());
    let batch = match longer {
        Some(times) => (repeated(&case.batch.0, times)?, repeated(&case.batch.1, times)?),
        None => case.batch.clone(),
    };
    if flags.iter().any(|flag| flag == "--tune") {
        pollster::block_on(step.tune(&state, &batch, f))?.iter().for_each(|tuned| eprintln!("{tuned}"));
    }
    let fused = if let Way::Fused(k) | Way::Resident(k) = way { k } else { 1 };
    let mut batches = vec![batch.clone(); fused];
    if let Way::Resident(k) = way {
        let (x, y, rows) = (repeated(&batch.0, k)?, repeated(&batch.1, k)?, batch.0.dim(0));
        let cut = |at: usize| at * rows..(at + 1) * rows;
        batches = (0..k).map(|at| (x.slice(0, cut(at)), y.slice(0, cut(at)))).collect();
    }
    let mut once = |step: &mut Step| -> Result<()> {
        pollster::block_on(device.ready())?;
        let logs = step.run_tagged(0, &mut state, &batches, f)?;
        if way == Way::Read {
            logs.read_blocking()?;
        }
        Ok(())
    };
    for _ in 0..4 {
        once(&mut step)?;
    }
    device.wait_blocking()?;
    // Blocks of about a tenth of a second.
    let started = Instant::now();
    once(&mut step)?;
    device.wait_blocking()?;
    let waits = std::env::var_os("WENGERT_BENCH_WAIT").is_some();
    let per_block = if waits { 1 } else { ((0.1 / started.elapsed().as_secs_f64()) as usize).clamp(2, 200) };
    // A whole block more, so that what grows with the work in flight has grown.
    for _ in 0..per_block {
        once(&mut step)?;
    }
    device.wait_blocking()?;
    let (counted, layer) = (device.stats(), vulkan_counts());
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..21 {
        let started = Instant::now();
        for _ in 0..per_block {
            once(&mut step)?;
        }
        device.wait_blocking()?;
        times.push(started.elapsed().as_secs_f64() * 1e3 / (per_block * fused) as f64);
    }
    let spent = device.stats() - counted;
    let steps = (times.len() * per_block * fused) as f64;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let suffix = match way {
        Way::Queued => String::new(),
        Way::Read => "_read".into(),
        Way::Fused(k) => format!("_k{k}"),
        Way::Resident(k) => format!("_k{k}_resident"),
    };
    let suffix = suffix + &longer.map_or(String::new(), |times| format!("_x{times}"));
    let layer = match (layer, vulkan_counts()) {
        (Some(before), Some(after)) => format!(
            ",\"vk_dispatches\":{:.3},\"vk_submits\":{:.3}",
            (after.0 - before.0) as f64 / steps,
            (after.1 - before.1) as f64 / steps
        ),
        _ => String::new(),
    };
    println!(
        "{{\"case\":\"{}{suffix}\",\"ms_median\":{median:.4},\"n\":{steps},\"steps_per_s\":{:.1},\"dispatches\":{:.3},\"submits\":{:.4},\"buffers\":{},\"bind_groups\":{},\"pipelines\":{}{layer}}}",
        case.name,
        1e3 / median,
        spent.dispatches as f64 / steps,
        spent.submissions as f64 / steps,
        spent.buffers,
        spent.bind_groups,
        spent.pipelines,
    );
    if flags.iter().any(|flag| flag == "--plan") {
        println!("{}", step.plan().cloned().unwrap_or_default());
    }
    if let Some(line) = flags.iter().find_map(|flag| flag.strip_prefix("--source=")?.parse::<usize>().ok()) {
        println!("{}", step.plan().map_or("", |plan| &plan.lines[line].source));
    }
    if flags.iter().any(|flag| flag == "--profile") {
        let mut state = case.state()?;
        for _ in 0..3 {
            pollster::block_on(step.profile(&mut state, &batch, f))?;
        }
        println!("{}", pollster::block_on(step.profile(&mut state, &batch, f))?);
    }
    Ok(())
}

/// The plan of a case and all of its kernels, to compare what two versions of the compiler make.
fn texts(case: &Model) -> Result<()> {
    let (mut step, mut state) = (Step::new(&Device::blocking()?), case.state()?);
    step.run(&mut state, &case.batch, |state: State, batch| case.step(state, batch))?;
    let plan = step.plan().cloned().unwrap_or_default();
    println!("{}\n{plan}", case.name);
    plan.lines.iter().for_each(|line| println!("// {}\n{}", line.label, line.source));
    Ok(())
}

/// The steps of so many epochs through `fit`, and as bare replays.
fn fit_overhead(case: &Model) -> Result<()> {
    const EPOCHS: usize = 20;
    let device = Device::blocking()?;
    let mut model = Functional::of(case.network.clone())?.on(&device);
    model.compile(Compile {
        optimizer: case.optimizer.clone().into(),
        loss: case.loss.clone().into(),
        metrics: case.metrics[1..].iter().map(|metric| metric.clone().into()).collect(),
        ..Compile::default()
    })?;
    let (x, y) = (uniform(3, &[1024, 32]), uniform(4, &[1024, 1]));
    let rows: Vec<usize> = (0..1024).collect();
    let whole = Data::new((&x, &y))?;
    let batches: Vec<Batch> = rows.chunks(32).map(|rows| whole.rows(rows)).collect();

    let mut step = Step::new(&device).purity(wengert::step::Purity::Sometimes);
    let mut state = case.state()?;
    let f = |state: State, batch: &Batch| case.step(state, &batch.xy()?);
    let steps = EPOCHS * batches.len();
    let (mut fitted, mut bare) = (Vec::new(), Vec::new());
    let (mut read, mut waits) = (0, 0);
    for round in 0..30 {
        device.wait_blocking()?;
        let (counted, started) = (device.stats(), Instant::now());
        model.fit_blocking((&x, &y), Fit { epochs: EPOCHS, verbose: Verbose::Silent, ..Fit::default() })?;
        device.wait_blocking()?;
        let took = started.elapsed().as_secs_f64() * 1e6 / steps as f64;
        let spent = device.stats() - counted;
        let started = Instant::now();
        for batch in batches.iter().cycle().take(steps) {
            pollster::block_on(device.ready())?;
            step.run(&mut state, batch, f)?;
        }
        device.wait_blocking()?;
        // The first rounds record and compile.
        if round >= 3 {
            fitted.push(took);
            bare.push(started.elapsed().as_secs_f64() * 1e6 / steps as f64);
            (read, waits) = (spent.bytes_read, spent.waits);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let mut differences: Vec<f64> = fitted.iter().zip(&bare).map(|(fit, bare)| fit - bare).collect();
    println!(
        "{{\"case\":\"fit_seed\",\"us_fit\":{:.1},\"us_bare\":{:.1},\"us_overhead\":{:.1},\"n\":{},\"bytes_read_per_epoch\":{},\"waits_per_epoch\":{:.1}}}",
        median(&mut fitted),
        median(&mut bare),
        median(&mut differences),
        steps * differences.len(),
        read / EPOCHS as u64,
        waits as f64 / EPOCHS as f64,
    );
    Ok(())
}

fn main() -> Result<()> {
    // Cargo passes --bench.
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).filter(|word| word != "--bench").partition(|word| word.starts_with("--"));
    if let Some(file) = flags.iter().find_map(|flag| flag.strip_prefix("--learn=")) {
        return learn(&tfm()?, file);
    }
    if first::is_child(&flags, mlp)? {
        return Ok(());
    }
    if flags.iter().any(|flag| flag == "--host") {
        let wanted = |case: &Model| names.is_empty() || names.iter().any(|name| name == case.name);
        for case in [seed()?, mlp()?, cnn()?, tfm()?].iter().filter(|case| wanted(case)) {
            // One device: a batch that was moved to it stays there.
            let device = Device::blocking()?;
            host::run(case, &device)?;
            host::eager(case, &device, 9)?;
        }
        return host::synthetic();
    }
    if flags.iter().any(|flag| flag == "--texts") {
        return [seed()?, mlp()?, cnn()?, tfm()?].iter().try_for_each(texts);
    }
    for case in [seed()?, mlp()?, cnn()?, tfm()?] {
        for (way, suffix) in
            [(Way::Queued, ""), (Way::Read, "_read"), (Way::Fused(16), "_k16"), (Way::Resident(16), "_k16_resident")]
        {
            let name = format!("{}{suffix}", case.name);
            if names.is_empty() || names.contains(&name) {
                run(&case, way, &flags)?;
            }
        }
    }
    if names.is_empty() || names.iter().any(|name| name == "cold_mlp" || name == "warm_mlp") {
        first::run();
    }
    if names.is_empty() || names.iter().any(|name| name == "fit_seed") {
        fit_overhead(&seed()?)?;
    }
    Ok(())
}
