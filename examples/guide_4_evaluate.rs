//! The guide, 4 of 4: an evaluation step of one's own. It gets no optimizer variables and returns no new weights;
//! `evaluate` calls it for every batch, and so does the validation of `fit`.
//!
//!     cargo run --release --example guide_4_evaluate

use wengert::prelude::*;

struct CustomModel(Functional);

impl Model for CustomModel {
    fn base(&self) -> &Functional {
        &self.0
    }
    fn base_mut(&mut self) -> &mut Functional {
        &mut self.0
    }

    fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
        let (trainable, non_trainable, metrics) = state;
        let (x, y) = batch.xy()?;

        // Predictions and loss; nothing is dropped and no statistics are updated.
        let (y_pred, _) = self.stateless_call(&trainable, &non_trainable, &x, Mode::Infer)?;
        let loss = self.compute_loss(&x, &y, &y_pred, None)?;

        // Update the metrics; return their results and the new state.
        let (logs, metrics) = (self.metrics().into_iter().zip(metrics))
            .map(|(metric, vars)| {
                let vars = match metric.name() {
                    "loss" => metric.stateless_update_state(&vars, Observed::value(&loss)),
                    _ => metric.stateless_update_state(&vars, Observed::pair(&y, &y_pred)),
                };
                ((metric.name().to_string(), metric.stateless_result(&vars)), vars)
            })
            .unzip();
        Ok((logs, (trainable, non_trainable, metrics)))
    }
}

async fn run() -> Result<()> {
    let inputs = Input([32]);
    let outputs = Dense::new(1).on(&inputs);
    let mut model = CustomModel(Functional::new(&[inputs], &[outputs])?);
    // Evaluation needs no optimizer.
    model.compile(Compile { loss: "mse".into(), metrics: vec!["mae".into()], ..Compile::default() })?;

    let x = Tensor::new(&random::threefry::uniform([0, 1], 1000 * 32, 0.0, 1.0), [1000, 32]);
    let y = Tensor::new(&random::threefry::uniform([0, 2], 1000, 0.0, 1.0), [1000, 1]);
    let scores = model.evaluate((&x, &y), Evaluate::default()).await?;

    // By name, or as a list: the loss first, then the metrics as they were compiled.
    say(&format!("evaluated: {scores}"));
    say(&format!("as a list: {:.4?}", scores.values()));
    Ok(())
}

fn main() {
    wengert::main(run())
}
