//! The real MNIST with a training step of one's own: 784-512-512-10, cross-entropy, Adam.
//!
//!     cargo run --release --example mnist_mlp -- [epochs] [seed]
//!
//! The four files of MNIST are looked for in `$WENGERT_DATA`, then in the user's cache folder.

use wengert::data::Batch;
use wengert::data::mnist;
use wengert::error::Result;
use wengert::grad::value_and_grad;
use wengert::host::say;
use wengert::layers::{Dense, Mode, Sequential};
use wengert::losses::SparseCategoricalCrossentropy;
use wengert::metrics::Observed;
use wengert::model::{Compile, Fit, Functional, Model, Train, TrainState};
use wengert::step::Logs;

struct Classifier(Functional);

impl Model for Classifier {
    fn base(&self) -> &Functional {
        &self.0
    }

    fn base_mut(&mut self) -> &mut Functional {
        &mut self.0
    }

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y) = batch.xy()?;
        let ((loss, (y_pred, non_trainable)), gradients) = value_and_grad(
            |trainable| self.compute_loss_and_updates(trainable, &non_trainable, &x, &y, Mode::Train),
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &gradients, &trainable)?;
        let (logs, metrics) = (self.metrics().into_iter().zip(metrics))
            .map(|(metric, variables)| {
                let observed = match metric.name() {
                    "loss" => Observed::value(&loss),
                    _ => Observed::pair(&y, &y_pred),
                };
                let variables = metric.stateless_update_state(&variables, observed);
                ((metric.name().to_string(), metric.stateless_result(&variables)), variables)
            })
            .unzip();
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }
}

async fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (epochs, seed) = (arguments.next().unwrap_or(3), arguments.next().unwrap_or(0));
    let mnist = mnist::load()?;
    let network = Sequential::new([784])
        .add(Dense::new(512).activation("relu"))
        .add(Dense::new(512).activation("relu"))
        .add(Dense::new(10))
        .build()?
        .seed(seed)?;
    say(&network.summary());
    let mut model = Classifier(network);
    model.compile(Compile {
        optimizer: "adam".into(),
        loss: SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
        metrics: vec!["accuracy".into()],
        ..Default::default()
    })?;
    let (x, y) = (mnist.train.flat(), mnist.train.y());
    let options = Fit {
        batch_size: 128,
        epochs: epochs as usize,
        seed,
        validation_data: Some((mnist.test.flat(), mnist.test.y()).into()),
        validation_batch_size: Some(1000),
        ..Default::default()
    };
    let history = model.fit((x, y), options).await?;
    say(&format!("test accuracy: {:.4}", history.last("val_accuracy").unwrap_or(f64::NAN)));
    if let Some(plan) = model.base().plan() {
        say(&plan.to_string());
    }
    Ok(())
}

fn main() {
    env_logger::init();
    wengert::host::main(run())
}
