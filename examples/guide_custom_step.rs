//! The guide, 1 of 4: a training step of one's own, and still all of `fit`. Next: `guide_2_by_hand`.
//!
//!     cargo run --release --example guide_custom_step                  natively
//!     cargo run -p xtask -- web guide_custom_step                       as a page in target/web/

use wengert::prelude::*;

struct CustomModel(Functional);

impl Model for CustomModel {
    fn base(&self) -> &Functional {
        &self.0
    }
    fn base_mut(&mut self) -> &mut Functional {
        &mut self.0
    }

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y) = batch.xy()?;

        // Compute the gradients.
        let ((loss, (y_pred, non_trainable)), grads) =
            value_and_grad(|tv| self.compute_loss_and_updates(tv, &non_trainable, &x, &y, Mode::Train), &trainable)?;

        // Update the trainable and the optimizer variables.
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;

        // Update the metrics; return their results and the new state.
        let (logs, metrics) = self
            .metrics()
            .into_iter()
            .zip(metrics)
            .map(|(metric, vars)| {
                let vars = match metric.name() {
                    "loss" => metric.stateless_update_state(&vars, Observed::value(&loss)),
                    _ => metric.stateless_update_state(&vars, Observed::pair(&y, &y_pred)),
                };
                ((metric.name().to_string(), metric.stateless_result(&vars)), vars)
            })
            .unzip();
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }
}

async fn run() -> Result<()> {
    // Construct and compile an instance of CustomModel.
    let inputs = Input([32]);
    let outputs = Dense::new(1).on(&inputs);
    let mut model = CustomModel(Functional::new(&[inputs], &[outputs])?);
    model.compile(Compile {
        optimizer: "adam".into(),
        loss: "mse".into(),
        metrics: vec!["mae".into()],
        ..Default::default()
    })?;

    // Just use `fit` as usual.
    let x = Tensor::new(&random::threefry::uniform([0, 1], 1000 * 32, 0.0, 1.0), [1000, 32]);
    let y = Tensor::new(&random::threefry::uniform([0, 2], 1000, 0.0, 1.0), [1000, 1]);
    let history = model.fit((&x, &y), Fit { epochs: 3, ..Fit::default() }).await?;

    say(&format!("loss by epoch: {:.4?}", history.get("loss").unwrap_or_default()));
    say(&format!("evaluated: {}", model.evaluate((&x, &y), Evaluate::default()).await?));
    Ok(())
}

fn main() {
    wengert::main(run())
}
