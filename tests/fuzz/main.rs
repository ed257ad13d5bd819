//! Random programs hold the compiler to the f64 interpreter, each result within the error that the program itself allows.
//!
//! Graphs are evaluated fused, unfused, in whole buffers and in an arena (`eager`); steps run over a state that is
//! updated in place, with full and smaller batches (`steps`). `WENGERT_FUZZ=20000` runs as many of each instead of a few
//! hundred, `WENGERT_FUZZ_SEED=17` that one alone, both as many from there on.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

#[path = "../common/mod.rs"]
mod common;
mod eager;
mod functions;
mod graphs;
mod steps;
mod structured;

use eager::What;
use wengert::gpu::Device;

/// A device keeps every pipeline that it made, so it is left behind after so many programs.
const PROGRAMS: u64 = 50;

/// Runs `default` seeds, or as many as the environment says.
fn fuzz(default: u64, check: impl Fn(&Device, u64) -> Result<(), String>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (count, first) = (number("WENGERT_FUZZ"), number("WENGERT_FUZZ_SEED"));
    let start = first.unwrap_or(0);
    let all = start..start + count.unwrap_or(if first.is_some() { 1 } else { default });
    let mut failures = Vec::new();
    let mut device = Device::blocking().unwrap();
    for seed in all.clone() {
        if (seed - start) % PROGRAMS == PROGRAMS - 1 {
            device = Device::blocking().unwrap();
        }
        if let Err(text) = check(&device, seed) {
            eprintln!("{text}\n");
            failures.push(seed);
        }
        if failures.len() == 5 {
            break;
        }
    }
    assert!(failures.is_empty(), "of {all:?} these fail: {failures:?}; one alone with WENGERT_FUZZ_SEED");
}

#[test]
fn random_graphs_agree_with_the_interpreter_however_they_are_compiled() {
    fuzz(80, |device, seed| eager::check(device, What::Values, seed));
}

#[test]
fn so_do_their_derivatives() {
    fuzz(20, |device, seed| eager::check(device, What::Derivatives, seed));
}

#[test]
fn random_steps_agree_with_the_interpreter_whatever_batches_came_before() {
    fuzz(40, steps::check);
}
