//! From nothing to a trained network in a minute: digits drawn by the crate itself, a training step of one's own.
//!
//!     cargo run --release --example quickstart
//!
//! Writes the model, a picture of its training, and the plan of a step as text and as a picture to target/quickstart/.

use wengert::callbacks::curve_svg;
use wengert::data::digits;
use wengert::prelude::*;

/// A classifier that trains by a step written out: what `fit` does with it is up to this function.
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

        // The loss, the predictions, and the gradients of the loss by every weight.
        let ((loss, (y_pred, non_trainable)), gradients) = value_and_grad(
            |trainable| self.compute_loss_and_updates(trainable, &non_trainable, &x, &y, Mode::Train),
            &trainable,
        )?;

        // New weights, new optimizer variables.
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &gradients, &trainable)?;

        // New metric variables, and the metrics' results as logs.
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
    let device = Device::new().await?;
    say(&format!("{device:?}\n"));

    let network = Sequential::new([784])
        .add(Dense::new(256).activation("relu"))
        .add(Dense::new(128).activation("relu"))
        .add(Dense::new(10))
        .build()?
        .on(&device);
    say(&network.summary());

    let mut model = Classifier(network);
    model.compile(Compile {
        optimizer: "adam".into(),
        loss: SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
        metrics: vec!["accuracy".into()],
        ..Compile::default()
    })?;

    let (train, test) = (digits(24_000, 1), digits(4_000, 2));
    let history = model
        .fit(
            (train.flat(), train.y()),
            Fit { batch_size: 128, epochs: 6, validation_split: 1.0 / 6.0, ..Fit::default() },
        )
        .await?;
    let options = Evaluate { batch_size: 500, verbose: Verbose::Silent, ..Evaluate::default() };
    let scores = model.evaluate((test.flat(), test.y()), options).await?;
    say(&format!("\ntest accuracy: {:.3}", scores.get("accuracy").unwrap_or(f64::NAN)));

    let folder = std::path::Path::new("target/quickstart");
    model.base().save_weights(folder.join("model.safetensors")).await?;
    wengert::io::write(folder.join("training.svg"), curve_svg("Digits", &history.history).as_bytes())?;
    let plan = model.base().plan().unwrap_or_default();
    wengert::io::write(folder.join("plan.txt"), format!("{plan:#}").as_bytes())?;
    wengert::io::write(folder.join("graph.svg"), plan.svg("A training step of the quickstart").as_bytes())
}

fn main() {
    env_logger::init();
    wengert::main(run())
}
