//! The models whose whole steps are timed, and their step as a user would write it.
//!
//! Deliberately absent: anything that times.

use wengert::graph::Spec;
use wengert::layers::{Conv2D, MaxPooling2D, Network};
use wengert::metrics;
use wengert::prelude::*;
use wengert::random::threefry;

pub type State = (Variables, Variables, Variables, Vec<Variables>);

/// What a case trains.
pub struct Model {
    pub name: &'static str,
    pub network: Network,
    pub loss: Loss,
    pub metrics: Vec<Metric>,
    pub optimizer: Optimizer,
    pub batch: (Tensor, Tensor),
}

pub fn uniform(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(&threefry::uniform(threefry::key(seed), shape.iter().product(), -1.0, 1.0), shape)
}

pub fn seed() -> Result<Model> {
    Ok(Model {
        name: "step_seed",
        network: Sequential::new([32]).add(Dense::new(1)).network()?,
        loss: wengert::losses::get("mse")?,
        metrics: vec![Metric::from(Mean).named("loss"), metrics::get("mae")?],
        optimizer: Adam::default().into(),
        batch: (uniform(1, &[32, 32]), uniform(2, &[32, 1])),
    })
}

pub fn mlp() -> Result<Model> {
    let network = Sequential::new([784])
        .add(Dense::new(512).activation("relu"))
        .add(Dense::new(512).activation("relu"))
        .add(Dense::new(10))
        .network()?;
    let labels: Vec<i32> = (0..128).map(|row| row * 7 % 10).collect();
    Ok(Model {
        name: "step_mlp",
        network,
        loss: SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
        metrics: vec![Metric::from(Mean).named("loss"), metrics::get("accuracy")?],
        optimizer: Adam::default().into(),
        batch: (uniform(1, &[128, 784]), Tensor::new(&labels, [128])),
    })
}

/// 28x28x1, two convolutions of 3x3 with relu and a maximum over 2x2 behind each, 128 and 10 units.
pub fn cnn() -> Result<Model> {
    let network = Sequential::new([28, 28, 1])
        .add(Conv2D::new(32, 3).activation("relu"))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(64, 3).activation("relu"))
        .add(MaxPooling2D::new(2))
        .add(Flatten)
        .add(Dense::new(128).activation("relu"))
        .add(Dense::new(10))
        .network()?;
    let labels: Vec<i32> = (0..64).map(|row| row * 7 % 10).collect();
    Ok(Model {
        name: "step_cnn",
        network,
        loss: SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
        metrics: vec![Metric::from(Mean).named("loss"), metrics::get("accuracy")?],
        optimizer: Adam::default().into(),
        batch: (uniform(1, &[64, 28, 28, 1]), Tensor::new(&labels, [64])),
    })
}

/// Characters, characters a transformer sees at once, sequences of a batch.
pub const VOCABULARY: usize = 96;
pub const STEPS: usize = 64;
pub const SEQUENCES: usize = 16;

/// Adds a learnt vector for each place in a sequence.
#[derive(Debug)]
struct Positions;

impl Layer for Positions {
    fn kind(&self) -> &str {
        "positions"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        Ok(vec![Variable::weight("embeddings", inputs[0].shape[1..].to_vec(), "uniform".into())])
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        &inputs[0] + context.weight(0)
    }
}

/// Two pre-norm blocks of width 128, 4 causal heads and a feed-forward of 512 with gelu; 429,664 parameters.
pub fn tfm() -> Result<Model> {
    const WIDTH: usize = 128;
    let tokens = Symbolic::input([STEPS], DType::I32);
    let mut x = Positions.on(Embedding::new(VOCABULARY, WIDTH).on(&tokens));
    for _ in 0..2 {
        let y = LayerNormalization::new().on(&x);
        x = Add.on([&x, &MultiHeadAttention::new(4, WIDTH / 4).use_causal_mask(true).on([&y, &y])]);
        let y = Dense::new(4 * WIDTH).activation("gelu").on(LayerNormalization::new().on(&x));
        x = Add.on([&x, &Dense::new(WIDTH).on(&y)]);
    }
    let logits = Dense::new(VOCABULARY).on(LayerNormalization::new().on(&x));
    let text: Vec<i32> = (0..SEQUENCES * STEPS + 1).map(|i| (i * i * 7 + i * 13) as i32 % VOCABULARY as i32).collect();
    Ok(Model {
        name: "step_tfm",
        network: Network::new(&[tokens], &[logits])?,
        loss: SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
        metrics: vec![Metric::from(Mean).named("loss"), metrics::get("accuracy")?],
        optimizer: Adam::default().into(),
        batch: sequences(&text, (0..SEQUENCES).map(|row| row * STEPS)),
    })
}

/// Sequences that begin at these places, and what follows each of their characters.
pub fn sequences(text: &[i32], starts: impl Iterator<Item = usize> + Clone) -> (Tensor, Tensor) {
    let rows = |ahead: usize| -> Vec<i32> {
        starts.clone().flat_map(|at| text[at + ahead..at + ahead + STEPS].iter().copied()).collect()
    };
    (Tensor::new(&rows(0), [SEQUENCES, STEPS]), Tensor::new(&rows(1), [SEQUENCES, STEPS]))
}

impl Model {
    pub fn state(&self) -> Result<State> {
        let (trainable, non_trainable) = self.network.init(0)?;
        let optimizer = self.optimizer.variables(&trainable)?;
        Ok((trainable, non_trainable, optimizer, self.metrics.iter().map(Metric::initial).collect()))
    }

    pub fn step(&self, state: State, (x, y): &(Tensor, Tensor)) -> Result<(Logs, State)> {
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
