//! Combinations of what saves memory or dispatches: budgets, checkpoints, loops on the device, attention's own kernel,
//! fused steps, plans that share memory, state that somebody else holds.
//!
//! Each alone has its file (`memory`, `scan`, `loops`, `attention`). What only replays or places differently must leave
//! every bit; where kernels are fused otherwise, results agree to rounding.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::training::Training;
use wengert::error::Result;
use wengert::gpu::Device;
use wengert::grad::{checkpoint, value_and_grad};
use wengert::graph::Tensor;
use wengert::layers::{Conv2D, Dense, Flatten, MaxPooling2D, Sequential};
use wengert::ops::{Attend, Keep, attention, scan};
use wengert::optimizers::Adam;
use wengert::plan::Plan;
use wengert::random::threefry;
use wengert::step::{Logs, Step};

fn device() -> Device {
    Device::blocking().unwrap()
}

fn uniform(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(&threefry::uniform(threefry::key(seed), shape.iter().product(), -1.0, 1.0), shape)
}

fn read(device: &Device, state: &[Tensor]) -> Vec<Vec<f32>> {
    state.iter().map(|tensor| tensor.to_vec_on(device).unwrap()).collect()
}

const TURNS: usize = 24;
const ROWS: usize = 32;
const WIDTH: usize = 48;

/// A recurrence `h = tanh(x + h w)` over `[TURNS, rows, WIDTH]`, its states stacked.
fn recurrence(xs: &Tensor, w: &Tensor) -> Result<Tensor> {
    let start = Tensor::zeros([xs.dim(1), WIDTH]);
    let (_, all) = scan(xs.dim(0), start, xs.clone(), |h: Tensor, x| {
        let h = (h.matmul(w) + x).tanh();
        Ok((h.clone(), h))
    })?;
    Ok(all)
}

/// A projection of every state, then the recurrence.
fn recurrent(x: &Tensor, w: &[Tensor]) -> Result<Tensor> {
    let rows = x.dim(1);
    let projected = x.reshape([TURNS * rows, WIDTH]).matmul(&w[0]).gelu().matmul(&w[0]);
    recurrence(&projected.reshape([TURNS, rows, WIDTH]), &w[1])
}

const STEPS: usize = 32;
const HEADS: usize = 2;

fn normal(x: &Tensor) -> Tensor {
    let centred = x - x.mean(Keep(-1));
    &centred / (centred.square().mean(Keep(-1)) + 1e-5).sqrt()
}

/// A block of a transformer over `[rows, STEPS, WIDTH]`: attention and two products with gelu, each behind a norm.
fn transformer(x: &Tensor, w: &[Tensor]) -> Result<Tensor> {
    let rows = x.dim(0);
    let flat = |x: &Tensor| x.reshape([rows * STEPS, WIDTH]);
    let heads = |x: Tensor| x.reshape([rows, STEPS, HEADS, WIDTH / HEADS]);
    let y = normal(&flat(x));
    let [q, k, v] = [0, 1, 2].map(|at| heads(y.matmul(&w[at])));
    let seen = attention(&q, &k, &v, &Attend { causal: true, ..Attend::default() });
    let x = flat(x) + flat(&seen).matmul(&w[3]);
    let x = &x + normal(&x).matmul(&w[4]).gelu().matmul(&w[4].t());
    Ok(x.reshape([rows, STEPS, WIDTH]))
}

/// A layer over some weights.
type Layer = fn(&Tensor, &[Tensor]) -> Result<Tensor>;

/// What is trained: a layer, weights for each, and how many layers.
#[derive(Clone, Copy)]
struct Model {
    layer: Layer,
    weights: usize,
    layers: usize,
    /// The shape of an input for so many rows.
    input: fn(usize) -> [usize; 3],
}

const RECURRENT: Model = Model { layer: recurrent, weights: 2, layers: 4, input: |rows| [TURNS, rows, WIDTH] };
const TRANSFORMER: Model = Model { layer: transformer, weights: 5, layers: 2, input: |rows| [rows, STEPS, WIDTH] };

impl Model {
    fn start(&self) -> Vec<Tensor> {
        (0..self.weights * self.layers).map(|at| &uniform(at as u64, &[WIDTH, WIDTH]) * 0.2).collect()
    }

    fn batch(&self, seed: u64, rows: usize) -> Tensor {
        uniform(100 + seed, &(self.input)(rows))
    }

    fn output(&self, weights: &[Tensor], x: &Tensor, again: bool) -> Result<Tensor> {
        let layer = self.layer;
        let mut x = x.clone();
        for own in weights.chunks(self.weights) {
            x = match again {
                true => {
                    let inputs = [std::slice::from_ref(&x), own].concat();
                    checkpoint(move |t: &[Tensor]| Ok(vec![layer(&t[0], &t[1..])?]))(&inputs)?.remove(0)
                }
                false => layer(&x, own)?,
            };
        }
        Ok(x)
    }

    /// A step of descent; `again` with a checkpoint around every layer.
    fn train(&self, weights: Vec<Tensor>, x: &Tensor, again: bool) -> Result<(Logs, Vec<Tensor>)> {
        let loss = |weights: &Vec<Tensor>| Ok((self.output(weights, x, again)?.square().mean(..), ()));
        let ((loss, ()), gradients) = value_and_grad(loss, &weights)?;
        let weights = weights.iter().zip(&gradients).map(|(w, g)| w - g * 0.1).collect();
        Ok((Logs::from([("loss", loss)]), weights))
    }

    fn evaluate(&self, weights: Vec<Tensor>, x: &Tensor) -> Result<(Logs, Vec<Tensor>)> {
        Ok((Logs::from([("loss", self.output(&weights, x, false)?.square().mean(..))]), weights))
    }

    /// Losses, weights and the plan of three steps.
    fn run(&self, device: &Device, mut step: Step, again: bool) -> (Vec<f32>, Vec<Vec<f32>>, Plan) {
        let (mut weights, mut losses) = (self.start(), Vec::new());
        for seed in 0..3 {
            let logs = step.run(&mut weights, &self.batch(seed, ROWS), |w, x: &Tensor| self.train(w, x, again));
            losses.push(logs.unwrap().read_blocking().unwrap()[0].1);
        }
        (losses, read(device, &weights), step.plan().unwrap().clone())
    }
}

/// Equal to rounding: kernels fuse otherwise where values are computed again.
fn close(what: &str, (losses, weights): (&[f32], &[Vec<f32>]), (others, expected): (&[f32], &[Vec<f32>])) {
    for (a, b) in losses.iter().zip(others) {
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{what}: {losses:?} {others:?}");
    }
    for (at, (a, b)) in weights.iter().flatten().zip(expected.iter().flatten()).enumerate() {
        assert!((a - b).abs() <= 1e-4 * (0.01 + b.abs()), "{what} at {at}: {a} {b}");
    }
}

/// A budget is so many hundredths of what a plan takes without one: a plain one, and one with checkpoints.
fn computed_again(model: Model, name: &str, percent: [u64; 2]) {
    let device = device();
    let (losses, expected, plain) = model.run(&device, Step::new(&device), false);
    assert!(losses[2] < losses[0], "{losses:?}");
    assert!(plain.live <= plain.temporaries && plain.temporaries * 100 <= plain.live * 110, "{name}: {plain}");
    let (again, weights, checkpointed) = model.run(&device, Step::new(&device), true);
    close(&format!("{name} in checkpoints"), (&again, &weights), (&losses, &expected));
    assert!(checkpointed.temporaries < plain.temporaries, "{name}: {checkpointed}");
    for checkpoints in [false, true] {
        let what = format!("{name} within a budget, checkpoints {checkpoints}");
        let (without, percent) = if checkpoints { (&checkpointed, percent[1]) } else { (&plain, percent[0]) };
        let budget = without.temporaries * percent / 100;
        let (again, weights, plan) = model.run(&device, Step::new(&device).memory_budget(budget), checkpoints);
        println!(
            "{what}: {} -> {} bytes, {} -> {} dispatches",
            plain.temporaries,
            plan.temporaries,
            plain.dispatches(),
            plan.dispatches()
        );
        assert!(plan.temporaries <= budget, "{what}: {plan}");
        close(&what, (&again, &weights), (&losses, &expected));
    }
}

#[test]
fn loops_within_a_budget_and_in_checkpoints() {
    // With checkpoints nothing is left to win: what costs nothing is computed again without a budget as well.
    computed_again(RECURRENT, "recurrent", [90, 100]);
}

#[test]
fn attention_within_a_budget_and_in_checkpoints() {
    computed_again(TRANSFORMER, "transformer", [85, 98]);
}

#[test]
fn plans_with_loops_share_memory() {
    let device = device();
    for model in [RECURRENT, TRANSFORMER] {
        // Training, a smaller batch, and evaluation of a larger one, in turn.
        let run = |mut steps: [Step; 2]| {
            let (mut weights, mut losses) = (model.start(), Vec::new());
            for seed in 0..3 {
                for rows in [ROWS, ROWS / 2] {
                    let train = |w, x: &Tensor| model.train(w, x, false);
                    let logs = steps[0].run(&mut weights, &model.batch(seed, rows), train).unwrap();
                    losses.push(logs.read_blocking().unwrap()[0].1.to_bits());
                }
                let logs =
                    steps[1].run(&mut weights, &model.batch(seed, 2 * ROWS), |w, x: &Tensor| model.evaluate(w, x));
                losses.push(logs.unwrap().read_blocking().unwrap()[0].1.to_bits());
            }
            let bits = read(&device, &weights).concat().into_iter().map(f32::to_bits).collect::<Vec<_>>();
            device.wait_blocking().unwrap();
            device.trim();
            (losses, bits, device.stats().bytes_allocated)
        };
        let first = Step::new(&device);
        let (losses, bits, shared) = run([first.beside(), first]);
        let (expected, same, apart) = run([Step::new(&device), Step::new(&device)]);
        assert_eq!((losses, bits), (expected, same));
        assert!(shared < apart, "{shared} bytes shared, {apart} apart");
    }
}

#[test]
fn fused_steps_that_loop_have_the_bits_of_single_ones() {
    let device = device();
    for (model, again) in [(RECURRENT, false), (RECURRENT, true), (TRANSFORMER, false)] {
        let batches: Vec<Tensor> = (0..4).map(|seed| model.batch(seed, ROWS / 4)).collect();
        let train = |w, x: &Tensor| model.train(w, x, again);
        let (mut single, mut fused) = (model.start(), model.start());
        let (mut one, mut all) = (Step::new(&device), Step::new(&device));
        for _ in 0..2 {
            let last = batches.iter().map(|batch| one.run(&mut single, batch, train).unwrap()).last().unwrap();
            let before = device.stats();
            let logs = all.run_tagged(0, &mut fused, &batches, train).unwrap();
            assert!((device.stats() - before).submissions <= 2, "the state may move first");
            assert_eq!(logs.read_blocking().unwrap(), last.read_blocking().unwrap());
        }
        assert_eq!(read(&device, &fused), read(&device, &single));
    }
}

#[test]
fn state_that_somebody_holds_changes_nothing_but_stays() {
    let device = device();
    for model in [RECURRENT, TRANSFORMER] {
        let train = |w, x: &Tensor| model.train(w, x, false);
        let run = |hold: bool| {
            let (mut step, mut weights) = (Step::new(&device), model.start());
            let mut held: Vec<(Vec<Tensor>, Vec<Vec<f32>>)> = Vec::new();
            for seed in 0..3 {
                step.run(&mut weights, &model.batch(seed, ROWS / 4), train).unwrap();
                if hold {
                    held.push((weights.clone(), read(&device, &weights)));
                }
            }
            for (clones, values) in &held {
                assert_eq!(read(&device, clones), *values);
            }
            read(&device, &weights)
        };
        assert_eq!(run(true), run(false));
    }
}

/// Once, kernels that had merged such that they waited for each other ran in no order, and so not at all.
#[test]
fn convolutions_and_adam_within_budgets_run_all_that_there_is() {
    let device = device();
    let network = Sequential::new([28, 28, 1])
        .add(Conv2D::new(32, 3).activation("relu"))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(64, 3).activation("relu"))
        .add(MaxPooling2D::new(2))
        .add(Flatten)
        .add(Dense::new(128).activation("relu"))
        .add(Dense::new(10));
    let training = Training::of(network.network().unwrap(), Adam::default());
    let labels: Vec<i32> = (0..64).map(|row| row * 7 % 10).collect();
    let batch = (uniform(1, &[64, 28, 28, 1]), Tensor::new(&labels, [64]));
    let run = |budget: Option<u64>| {
        let mut step = Step::new(&device);
        if let Some(bytes) = budget {
            step = step.memory_budget(bytes);
        }
        let mut state = training.state(1);
        let losses: Vec<f32> =
            (0..3).map(|_| training.run(&mut step, &mut state, &batch).read_blocking().unwrap()[0].1).collect();
        (losses, read(&device, &state.0), step.plan().unwrap().clone())
    };
    let (losses, expected, plain) = run(None);
    for percent in [99, 96] {
        let budget = plain.temporaries * percent / 100;
        let (again, weights, plan) = run(Some(budget));
        assert!(plan.temporaries <= budget && plan.dispatches() >= plain.dispatches(), "{percent}: {plan}");
        close(&format!("within {percent} %"), (&again, &weights), (&losses, &expected));
    }
}
