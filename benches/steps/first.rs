//! `cold_mlp` and `warm_mlp`: from the start of a process to its first finished step.
//!
//! The program runs itself with the driver's cache and ours in a folder of their own, empty or left by an earlier run,
//! and takes the time from the start of the process to the line that says that the step is done.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use wengert::prelude::*;

use crate::common::models::{Model, State};

/// What the child is started with.
const CHILD: &str = "--first-step";

/// Whether this process is the child; then it has run its step.
pub fn is_child(flags: &[String], case: impl FnOnce() -> Result<Model>) -> Result<bool> {
    if !flags.iter().any(|flag| flag == CHILD) {
        return Ok(false);
    }
    let begun = Instant::now();
    let device = Device::blocking()?;
    let opened = begun.elapsed();
    let case = case()?;
    let mut state = case.state()?;
    let mut step = Step::new(&device);
    let ready = begun.elapsed();
    let f = |state: State, batch: &(Tensor, Tensor)| case.step(state, batch);
    if flags.iter().any(|flag| flag == "--profile") {
        // Drivers that compile at the first dispatch do so between its timestamps.
        println!("{}", pollster::block_on(step.profile(&mut state, &case.batch, f))?);
        return Ok(true);
    }
    step.run(&mut state, &case.batch, f)?;
    let submitted = begun.elapsed();
    device.wait_blocking()?;
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    println!(
        "\"ms_device\":{:.1},\"ms_state\":{:.1},\"ms_to_submission\":{:.1},\"ms_device_work\":{:.1},\"pipelines\":{}",
        ms(opened),
        ms(ready - opened),
        ms(submitted - ready),
        ms(begun.elapsed() - submitted),
        device.stats().pipelines,
    );
    Ok(true)
}

/// Seconds from the start of a process to its first finished step, and what it said.
fn first(caches: &Path) -> (f64, String) {
    let program = std::env::current_exe().expect("a running program has a path");
    let started = Instant::now();
    let mut child = Command::new(program)
        .arg(CHILD)
        .env("MESA_SHADER_CACHE_DIR", caches.join("driver"))
        .env("WENGERT_CACHE", caches.join("ours"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs already");
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).expect("the child writes text");
    }
    let took = started.elapsed().as_secs_f64();
    assert!(child.wait().is_ok_and(|status| status.success()), "the child failed");
    (took, line.trim().to_string())
}

/// Pairs of a cold and a warm start.
pub fn run() {
    const PAIRS: usize = 5;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let caches = std::env::temp_dir().join(format!("wengert-first-{}-{pair}", std::process::id()));
        // Mesa makes its folder, but not the one above.
        std::fs::create_dir_all(&caches).expect("the folder for temporary files can be written");
        cold.push(first(&caches));
        warm.push(first(&caches));
        // A folder that stays is no reason to lose the figures.
        let _ = std::fs::remove_dir_all(&caches);
    }
    for (name, mut times) in [("cold_mlp", cold), ("warm_mlp", warm)] {
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (seconds, parts) = &times[PAIRS / 2];
        println!("{{\"case\":\"{name}\",\"s_median\":{seconds:.3},\"n\":{PAIRS},{parts}}}");
    }
}
