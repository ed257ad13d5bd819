//! A small training: a network with its loss, optimizer and metrics, and one step of it as a user writes it.

use wengert::error::Result;
use wengert::grad::value_and_grad;
use wengert::graph::Tensor;
use wengert::layers::{Dense, Dropout, Mode, Network, Sequential, Variables};
use wengert::losses::{Loss, MeanSquaredError, SparseCategoricalCrossentropy};
use wengert::metrics::{self, Metric, Observed};
use wengert::optimizers::{Adam, Optimizer};
use wengert::random::threefry;
use wengert::step::{Logs, Step};

pub type State = (Variables, Variables, Variables, Vec<Variables>);
pub type Batch = (Tensor, Tensor);

/// A network with everything that a compiled model has around it.
pub struct Training {
    pub network: Network,
    pub loss: Loss,
    pub optimizer: Optimizer,
    pub metrics: Vec<Metric>,
}

impl Training {
    /// Classes by number, from logits; the loss and the accuracy as metrics.
    pub fn of(network: Network, optimizer: impl Into<Optimizer>) -> Training {
        Training {
            network,
            loss: SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
            optimizer: optimizer.into(),
            metrics: vec![Metric::new(metrics::Mean).named("loss"), metrics::get("accuracy").unwrap()],
        }
    }

    /// Eight features, three classes.
    pub fn classifier(dropout: f64) -> Training {
        let network = Sequential::new([8])
            .add(Dense::new(32).activation("relu"))
            .add(Dropout::new(dropout))
            .add(Dense::new(16).activation("tanh"))
            .add(Dense::new(3));
        Training::of(network.network().unwrap(), Adam { learning_rate: 0.01, ..Adam::default() })
    }

    /// That of Keras' guide on customising `fit`.
    pub fn guide() -> Training {
        Training {
            network: Sequential::new([32]).add(Dense::new(1)).network().unwrap(),
            loss: MeanSquaredError.into(),
            optimizer: Adam::default().into(),
            metrics: vec![Metric::new(metrics::Mean).named("loss"), metrics::get("mae").unwrap()],
        }
    }

    pub fn state(&self, seed: u64) -> State {
        let (trainable, non_trainable) = self.network.init(seed).unwrap();
        let optimizer = self.optimizer.variables(&trainable).unwrap();
        (trainable, non_trainable, optimizer, self.metrics.iter().map(Metric::initial).collect())
    }

    pub fn step(&self, state: State, (x, y): &Batch) -> Result<(Logs, State)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let ((loss, (y_pred, non_trainable)), grads) = value_and_grad(
            |trainable| {
                let inputs = std::slice::from_ref(x);
                let (mut outputs, states) = self.network.call(trainable, &non_trainable, inputs, Mode::Train)?;
                let y_pred = outputs.remove(0);
                Ok((self.loss.call(y, &y_pred, None), (y_pred, states)))
            },
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer.stateless_apply(&optimizer, &grads, &trainable)?;
        let (logs, metrics) = (self.metrics.iter().zip(&metrics))
            .map(|(metric, variables)| {
                let observed = match metric.name() {
                    "loss" => Observed::value(&loss),
                    _ => Observed::pair(y, &y_pred),
                };
                let variables = metric.stateless_update_state(variables, observed);
                ((metric.name().to_string(), metric.stateless_result(&variables)), variables)
            })
            .unzip();
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }

    pub fn run(&self, step: &mut Step, state: &mut State, batch: &Batch) -> Logs {
        step.run(state, batch, |s, b| self.step(s, b)).unwrap()
    }
}

/// Points whose class is the largest of their first three features.
pub fn batch(rows: usize, number: u32) -> Batch {
    let x = threefry::uniform(threefry::fold_in(threefry::key(5), number), rows * 8, -1.0, 1.0);
    let class = |row: &[f32]| (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as i32;
    let y: Vec<i32> = x.chunks(8).map(class).collect();
    (Tensor::new(&x, [rows, 8]), Tensor::new(&y, [rows]))
}
