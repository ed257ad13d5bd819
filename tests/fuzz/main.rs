//! Random programs hold the compiler to the f64 interpreter, each result within the error that the program itself allows.
//!
//! Graphs are evaluated fused, unfused, in whole buffers and in an arena (`eager`); steps run over a state that is
//! updated in place, with full and smaller batches (`steps`). `WENGERT_FUZZ=20000` runs as many of each instead of two
//! thousand in all, `WENGERT_FUZZ_SEED=17` that one alone, both as many from there on.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

#[path = "../common/mod.rs"]
mod common;
mod eager;
mod functions;
mod graphs;
mod steps;
mod structured;

use std::collections::BTreeSet;

use common::translate::{for_browser, translate_all};
use eager::What;
use wengert::gpu::{Device, DeviceOptions};

/// A device keeps every pipeline that it made, so it is left behind after so many programs.
const PROGRAMS: usize = 100;

/// Kernels that Chromium is shown of each test.
const SHOWN: usize = 1000;

/// Runs `default` seeds, or as many as the environment says. Every other device is a portable one. What was compiled is
/// translated for other machines as well.
fn fuzz(name: &str, default: u64, check: impl Fn(&Device, u64) -> Result<(), String>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (count, first) = (number("WENGERT_FUZZ"), number("WENGERT_FUZZ_SEED"));
    let start = first.unwrap_or(0);
    let all = start..start + count.unwrap_or(if first.is_some() { 1 } else { default });
    let (mut failures, mut shown) = (Vec::new(), BTreeSet::new());
    let seeds: Vec<u64> = all.clone().collect();
    for (turn, seeds) in seeds.chunks(PROGRAMS).enumerate() {
        let mut options = DeviceOptions::default();
        options.portable |= turn % 2 == 1;
        let portable = options.portable;
        let device = pollster::block_on(Device::with(options)).unwrap();
        for &seed in seeds {
            if let Err(text) = check(&device, seed) {
                eprintln!("{text}\n");
                failures.push((seed, portable));
            }
        }
        let mut texts = BTreeSet::new();
        translate_all(&device, &mut texts);
        if portable && shown.len() < SHOWN {
            shown.extend(texts);
        }
        if failures.len() >= 5 {
            break;
        }
    }
    for_browser(name, &shown);
    let how = "one alone with WENGERT_FUZZ_SEED, and WENGERT_PORTABLE=1 where it says true";
    assert!(failures.is_empty(), "of {all:?} these fail: {failures:?}; {how}");
}

#[test]
fn random_graphs_agree_with_the_interpreter_however_they_are_compiled() {
    fuzz("graphs", 1200, |device, seed| eager::check(device, What::Values, seed));
}

#[test]
fn so_do_their_derivatives() {
    fuzz("derivatives", 300, |device, seed| eager::check(device, What::Derivatives, seed));
}

#[test]
fn random_steps_agree_with_the_interpreter_whatever_batches_came_before() {
    fuzz("steps", 500, steps::check);
}
