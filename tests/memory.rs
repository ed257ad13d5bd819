//! Memory for temporaries: how little a plan takes, what plans share, and what is computed again instead of kept.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::training::{Training, batch};
use wengert::error::{Error, ErrorKind, Result};
use wengert::gpu::Device;
use wengert::grad::{checkpoint, grad, value_and_grad};
use wengert::graph::{Tensor, Tree};
use wengert::random::threefry;
use wengert::step::{Logs, Step};

fn device() -> Device {
    Device::blocking().unwrap()
}

fn uniform(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(&threefry::uniform(threefry::key(seed), shape.iter().product(), -1.0, 1.0), shape)
}

fn values(device: &Device, tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_on(device).unwrap()
}

/// Bytes of all buffers that somebody holds.
fn held(device: &Device) -> u64 {
    device.wait_blocking().unwrap();
    device.trim();
    device.stats().bytes_allocated
}

const WIDTH: usize = 128;
const ROWS: usize = 256;

/// Layers of tanh, two products each.
fn block(x: &Tensor, w: &Tensor) -> Tensor {
    x.matmul(w).tanh().matmul(w).tanh()
}

/// A descent over `layers` blocks, each in a checkpoint that captures its weight or gets it as an input, or in none.
#[derive(Clone, Copy, PartialEq)]
enum Keeping {
    All,
    Inputs,
    Captured,
    Nested,
}

fn descend(weights: Vec<Tensor>, x: &Tensor, keeping: Keeping) -> Result<(Logs, Vec<Tensor>)> {
    let (loss, gradients) = value_and_grad(
        |weights: &Vec<Tensor>| {
            let mut x = x.clone();
            let single = checkpoint(|t: &[Tensor]| Ok(vec![block(&t[0], &t[1])]));
            match keeping {
                Keeping::All => x = weights.iter().fold(x, |x, w| block(&x, w)),
                Keeping::Inputs => {
                    for w in weights {
                        x = single(&[x, w.clone()])?.remove(0);
                    }
                }
                Keeping::Captured => {
                    for w in weights {
                        let w = w.clone();
                        x = checkpoint(move |t| Ok(vec![block(&t[0], &w)]))(&[x])?.remove(0);
                    }
                }
                Keeping::Nested => {
                    for some in weights.chunks(4) {
                        let outer = checkpoint(|t: &[Tensor]| {
                            let inner = checkpoint(|t: &[Tensor]| Ok(vec![block(&t[0], &t[1])]));
                            let mut x = t[0].clone();
                            for w in &t[1..] {
                                x = inner(&[x, w.clone()])?.remove(0);
                            }
                            Ok(vec![x])
                        });
                        x = outer(&[&[x], some].concat())?.remove(0);
                    }
                }
            }
            Ok((x.square().mean(..), ()))
        },
        &weights,
    )?;
    let updated = weights.iter().zip(&gradients).map(|(w, g)| w - &(g * 10.0)).collect();
    Ok((Logs::from([("loss", loss.0)]), updated))
}

#[test]
fn a_checkpoint_keeps_inputs_only_and_gives_the_same_gradients() {
    let device = device();
    let start = || (0..16).map(|layer| &uniform(layer, &[WIDTH, WIDTH]) * 0.16).collect::<Vec<_>>();
    let x = uniform(99, &[ROWS, WIDTH]);
    let run = |keeping| {
        let (mut step, mut weights) = (Step::new(&device), start());
        step.run(&mut weights, &x, |weights, x: &Tensor| descend(weights, x, keeping)).unwrap();
        let plan = step.plan().unwrap().clone();
        println!("temporaries {} live {}, {} dispatches", plan.temporaries, plan.live, plan.dispatches());
        (weights.iter().map(|w| values(&device, w)).collect::<Vec<_>>(), plan)
    };
    let (expected, plain) = run(Keeping::All);
    assert!(expected.iter().zip(start()).all(|(new, old)| *new != values(&device, &old)));
    let tensor = (ROWS * WIDTH * 4) as u64;
    // Two activations a layer are kept.
    assert!(plain.temporaries >= 31 * tensor, "{plain}");
    for (keeping, most) in [(Keeping::Inputs, 22), (Keeping::Captured, 22), (Keeping::Nested, 14)] {
        let (got, plan) = run(keeping);
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            assert!((got - expected).abs() <= 1e-5, "{got} {expected}");
        }
        assert!(plan.temporaries <= most * tensor, "{plan}");
    }
}

#[test]
fn a_checkpoint_has_second_derivatives_and_several_outputs() {
    let device = device();
    let x = Tensor::new(&[0.3f32, -0.7, 1.1], [3]);
    let key = Tensor::new(&[3u32, 4], [2]);
    let f = |t: &[Tensor]| {
        let noise = wengert::random::uniform(&t[1], [3]) + 0.5;
        Ok(vec![t[0].sin() * &noise, t[0].square(), t[1].clone()])
    };
    let second = |call: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>| {
        let first = |x: &Tensor| {
            grad(
                |x: &Tensor| {
                    let y = call(&[x.clone(), key.clone()])?;
                    Ok((&y[0] * &y[1]).sum(..))
                },
                x,
            )
        };
        let twice = grad(|x: &Tensor| Ok(first(x)?.square().sum(..)), &x).unwrap();
        (values(&device, &first(&x).unwrap()), values(&device, &twice))
    };
    let (plain, again) = (second(&f), second(&checkpoint(f)));
    for (a, b) in plain.0.iter().chain(&plain.1).zip(again.0.iter().chain(&again.1)) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{plain:?} {again:?}");
    }
    // An error inside is the checkpoint's.
    let wrong = checkpoint(|t: &[Tensor]| Ok(vec![t[0].matmul(&t[0])]));
    assert!(wrong(&[x]).is_err());
}

#[test]
fn plans_of_a_step_share_their_temporaries() {
    let device = device();
    let weights = || (0..8).map(|layer| &uniform(layer, &[WIDTH, WIDTH]) * 0.16).collect::<Vec<_>>();
    let (large, small) = (uniform(1, &[ROWS, WIDTH]), uniform(2, &[ROWS / 2, WIDTH]));
    let train = |w, x: &Tensor| descend(w, x, Keeping::All);
    let test = |w: Vec<Tensor>, x: &Tensor| {
        let y = w.iter().fold(x.clone(), |x, w| block(&x, w));
        Ok((Logs::from([("loss", y.square().mean(..))]), w))
    };
    let needs = |step: &Step| step.plan().unwrap().temporaries;
    for training_first in [true, false] {
        let mut state = weights();
        let mut step = Step::new(&device);
        let mut evaluation = step.beside();
        if !training_first {
            evaluation.run(&mut state, &large, test).unwrap();
        }
        step.run(&mut state, &large, train).unwrap();
        let (trained, before) = (needs(&step), held(&device));
        // A smaller batch, another form, and another step of the same model.
        step.run(&mut state, &small, train).unwrap();
        step.run_tagged(1, &mut state, std::slice::from_ref(&large), test).unwrap();
        evaluation.run(&mut state, &large, test).unwrap();
        let evaluated = needs(&evaluation);
        assert!(evaluated >= 200_000 && trained > 4 * evaluated, "{evaluated} {trained}");
        // What is new are batches and logs.
        let batches = (3 * ROWS * WIDTH * 4) as u64;
        let grown = held(&device) - before;
        assert!(grown < batches + 1_000_000, "{grown}");
        assert!(grown < trained / 2, "{grown} {trained}");
        // Nothing is made once all have run.
        let counted = device.stats();
        for _ in 0..2 {
            step.run(&mut state, &large, train).unwrap();
            step.run(&mut state, &small, train).unwrap();
            step.run_tagged(1, &mut state, std::slice::from_ref(&large), test).unwrap();
            evaluation.run(&mut state, &large, test).unwrap();
            device.wait_blocking().unwrap();
        }
        let spent = device.stats() - counted;
        assert_eq!((spent.bind_groups, spent.pipelines), (0, 0), "{spent}");
    }
}

#[test]
fn temporaries_take_little_more_than_what_is_alive() {
    let device = device();
    let training = Training::classifier(0.25);
    let (mut step, mut state) = (Step::new(&device), training.state(1));
    training.run(&mut step, &mut state, &batch(16, 1));
    let plan = step.plan().unwrap();
    assert!(plan.temporaries * 100 <= plan.live * 110, "{plan}");
}

/// Runs three steps with and without a budget of so many hundredths of what the plan takes; says what it takes then.
fn budgeted<S: Tree>(state: impl Fn() -> S, x: &Tensor, f: impl Fn(S, &Tensor) -> Result<(Logs, S)>, percent: u64) {
    let device = device();
    let run = |budget: Option<u64>| {
        let mut step = Step::new(&device);
        if let Some(bytes) = budget {
            step = step.memory_budget(bytes);
        }
        let (mut state, mut losses) = (state(), Vec::new());
        for _ in 0..3 {
            losses.push(step.run(&mut state, x, &f)?.read_blocking()?[0].1);
        }
        let values: Vec<Vec<f32>> = state.leaves().iter().map(|t| values(&device, t)).collect();
        Ok((step.plan().unwrap().clone(), losses, values))
    };
    let (plain, losses, expected) = run(None).unwrap();
    let budget = plain.temporaries * percent / 100;
    let (plan, again, got) = run(Some(budget)).unwrap();
    println!(
        "{} -> {} bytes, {} -> {} dispatches",
        plain.temporaries,
        plan.temporaries,
        plain.dispatches(),
        plan.dispatches()
    );
    assert!(plan.temporaries <= budget, "{plan}");
    for (a, b) in losses.iter().zip(&again) {
        assert!((a - b).abs() <= 1e-5 * a.abs(), "{losses:?} {again:?}");
    }
    for (a, b) in expected.iter().flatten().zip(got.iter().flatten()) {
        assert!((a - b).abs() <= 1e-4 * (0.01 + a.abs()), "{a} {b}");
    }
    let error: Result<_> = run(Some(1000));
    match error.map_err(Error::into_kind) {
        Err(ErrorKind::Limit { need, have: 1000, .. }) => {
            println!("no less than {need}");
            assert!(need <= budget && need > 1000, "{need}");
        }
        other => panic!("{:?}", other.map(|(plan, ..)| plan.temporaries)),
    }
}

#[test]
fn a_deep_network_fits_a_budget_by_computing_again() {
    let state = || (0..12).map(|layer| &uniform(layer, &[WIDTH, WIDTH]) * 0.16).collect::<Vec<_>>();
    budgeted(state, &uniform(1, &[ROWS, WIDTH]), |w, x| descend(w, x, Keeping::All), 50);
}
