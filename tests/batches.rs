//! The last batch of an epoch has fewer rows: its plan uses the kernels and the memory of the full batch's, and
//! computes the same numbers as a plan of its own.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::Random;
use wengert::grad::value_and_grad;
use wengert::graph::Tensor;
use wengert::layers::{Context, Layer, Network, Variable};
use wengert::metrics;
use wengert::ops::{Conv, Padding, Window};
use wengert::prelude::*;
use wengert::step::{Logs, Step};

type State = (Variables, Variables, Variables, Vec<Variables>);

/// Convolution, relu and a pool, from ops alone.
#[derive(Debug)]
struct Block(usize);

impl Layer for Block {
    fn kind(&self) -> &str {
        "block"
    }
    fn variables(&self, inputs: &[wengert::graph::Spec]) -> Result<Vec<Variable>> {
        let channels = inputs[0].shape[3];
        Ok(vec![
            Variable::weight("kernel", [3, 3, channels, self.0], "glorot_uniform".into()),
            Variable::weight("bias", [self.0], "zeros".into()),
        ])
    }
    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let options = Conv { padding: Padding::Same, ..Conv::default() };
        let y = (inputs[0].conv2d(&context.weight(0), &options) + context.weight(1)).relu();
        y.max_pool2d(&Window { kernel: [2, 2], stride: [2, 2], ..Window::default() })
    }
}

struct Trained {
    network: Network,
    loss: Loss,
    metrics: Vec<Metric>,
    optimizer: Optimizer,
}

impl Trained {
    fn new(network: Network) -> Trained {
        let loss = SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into();
        let metrics = vec![Metric::from(Mean).named("loss"), metrics::get("accuracy").unwrap()];
        Trained { network, loss, metrics, optimizer: Adam::default().into() }
    }

    fn state(&self) -> State {
        let (trainable, non_trainable) = self.network.init(0).unwrap();
        let optimizer = self.optimizer.variables(&trainable).unwrap();
        (trainable, non_trainable, optimizer, self.metrics.iter().map(Metric::initial).collect())
    }

    fn step(&self, state: State, (x, y): &(Tensor, Tensor)) -> Result<(Logs, State)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let ((loss, (y_pred, non_trainable)), gradients) = value_and_grad(
            |trainable| {
                let inputs = std::slice::from_ref(x);
                let (outputs, updated) = self.network.call(trainable, &non_trainable, inputs, Mode::Train)?;
                let y_pred = outputs[0].clone();
                Ok((self.loss.call(y, &y_pred, None), (y_pred, updated)))
            },
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer.stateless_apply(&optimizer, &gradients, &trainable)?;
        let (logs, metrics) = (self.metrics.iter().zip(metrics))
            .map(|(metric, variables)| {
                let observed = match metric.name() {
                    "loss" => Observed::value(&loss),
                    _ => Observed::pair(y, &y_pred),
                };
                let variables = metric.stateless_update_state(&variables, observed);
                ((metric.name().to_string(), metric.stateless_result(&variables)), variables)
            })
            .unzip();
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }
}

/// Trains one step on `full` rows and one on each of `rest`; the latter must make no pipeline, and give what a step
/// that never saw another batch gives.
fn check(what: &str, model: &Trained, row: &[usize], classes: usize, full: usize, rest: &[usize]) {
    let device = Device::blocking().unwrap();
    let mut random = Random::new(3);
    let mut batch = |rows: usize| {
        let shape = [&[rows], row].concat();
        let x = Tensor::new(&random.floats(shape.iter().product(), (-1.0, 1.0), false), shape);
        let labels: Vec<i32> = (0..rows).map(|_| random.below(classes) as i32).collect();
        (x, Tensor::new(&labels, [rows]))
    };
    let (mut state, mut step) = (model.state(), Step::new(&device));
    let first = batch(full);
    step.run(&mut state, &first, |s, b| model.step(s, b)).unwrap();
    let full_plan = step.plan().unwrap().clone();
    for &rows in rest {
        let small = batch(rows);
        let before = device.stats();
        let mut alone = model.state();
        let mut reused = model.state();
        step.run(&mut reused, &small, |s, b| model.step(s, b)).unwrap();
        let made = device.stats() - before;
        for (a, b) in full_plan.lines.iter().zip(&step.plan().unwrap().lines).filter(|(a, b)| a.source != b.source) {
            println!("{}\n{}\n{}", a.label, a.source, b.source);
        }
        assert_eq!(made.pipelines, 0, "{what}, {rows} rows after {full}:\n{}", step.plan().unwrap());
        Step::new(&device).run(&mut alone, &small, |s, b| model.step(s, b)).unwrap();
        let read = |state: &State| -> Vec<f32> {
            let all = state.0.iter().chain(&state.2).chain(state.3.iter().flatten());
            all.filter(|t| Tensor::dtype(t) == wengert::dtype::DType::F32)
                .flat_map(|t| t.to_vec_on::<f32>(&device).unwrap())
                .collect()
        };
        for (at, (a, b)) in read(&reused).into_iter().zip(read(&alone)).enumerate() {
            // Adam's first step is a sign where a gradient is near zero; sums in another order may flip it.
            let close = (a - b).abs() <= 1e-4 * b.abs().max(1.0) || (a - b).abs() <= 2.1e-3;
            assert!(close, "{what}, {rows} rows, element {at}: {a} and {b}");
        }
    }
}

#[test]
fn a_smaller_batch_uses_the_kernels_of_the_full_one() {
    let mlp = Sequential::new([40])
        .add(Dense::new(96).activation("relu"))
        .add(Dropout::new(0.2))
        .add(Dense::new(64).activation("gelu"))
        .add(Dense::new(10))
        .network()
        .unwrap();
    check("mlp", &Trained::new(mlp), &[40], 10, 128, &[96, 37, 5, 2]);
    let tiny = Sequential::new([32]).add(Dense::new(8)).add(Dense::new(3)).network().unwrap();
    check("tiny", &Trained::new(tiny), &[32], 3, 32, &[8, 7, 3]);
    let cnn = Sequential::new([20, 20, 1])
        .add(Block(16))
        .add(Block(20))
        .add(Flatten)
        .add(Dense::new(32).activation("relu"))
        .add(Dense::new(10))
        .network()
        .unwrap();
    check("cnn", &Trained::new(cnn), &[20, 20, 1], 10, 64, &[32, 25, 3]);
}

/// What a step of one log gives for batches in turn.
fn logged(batches: &[Tensor], f: impl Fn(&Tensor) -> Tensor) -> Vec<f32> {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut run = |batch: &Tensor| {
        let logs = step.run(&mut (), batch, |_, batch| Ok((Logs::from([("value", f(batch))]), ()))).unwrap();
        logs.read_blocking().unwrap()[0].1
    };
    batches.iter().map(&mut run).collect()
}

#[test]
fn fewer_but_longer_rows_are_summed_to_their_end() {
    // As many elements in all as buckets of texts have: fewer rows, each longer than those the kernel was written for.
    let batches = [Tensor::new(&[1f32; 6400], [64, 100]), Tensor::new(&[1f32; 3200], [16, 200])];
    assert_eq!(logged(&batches, |x| x.sum(1).max(..)), [100.0, 200.0]);
}

#[test]
fn rows_that_become_columns_are_summed_as_columns() {
    let columns: Vec<f32> = (0..3200).map(|i| (i % 4) as f32).collect();
    let batches = [Tensor::new(&[1f32; 6400], [64, 100, 1]), Tensor::new(&columns, [16, 50, 4])];
    assert_eq!(logged(&batches, |x| x.sum(1).max(..)), [100.0, 150.0]);
}

#[test]
fn a_long_product_does_not_split_the_products_of_another_graph() {
    let batches = [Tensor::new(&[1f32; 16384], [8192, 2]), Tensor::new(&[1f32; 12], [3, 2, 2])];
    // Both products are the fourth value of their programs.
    let product = |x: &Tensor| match x.rank() {
        2 => x.t().matmul(x).max(..),
        _ => x.slice(0, 0..2).matmul(&x.slice(0, 0..2).t()).sum(..),
    };
    assert_eq!(logged(&batches, product), [8192.0, 16.0]);
}
