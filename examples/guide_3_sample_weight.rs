//! The guide, 3 of 4: a training step that heeds sample weights. A batch then has three parts, and both the loss and
//! the metrics are given the weights.
//!
//!     cargo run --release --example guide_3_sample_weight
//!
//! Every fourth target here is wrong. Trained on all rows alike the model learns from the wrong ones too; with weight 0
//! for these rows it does not.

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
        // The weights are there only if `fit` was given some.
        let (x, y, sample_weight) = batch.xyw()?;

        let ((loss, (y_pred, non_trainable)), grads) = value_and_grad(
            |trainable| {
                let (y_pred, non_trainable) = self.stateless_call(trainable, &non_trainable, &x, Mode::Train)?;
                let loss = self.compute_loss(&x, &y, &y_pred, sample_weight.as_ref())?;
                Ok((loss, (y_pred, non_trainable)))
            },
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;

        let (logs, metrics) = (self.metrics().into_iter().zip(metrics))
            .map(|(metric, vars)| {
                let observed = match metric.name() {
                    "loss" => Observed::value(&loss),
                    _ => Observed::pair(&y, &y_pred).weighted(sample_weight.as_ref()),
                };
                let vars = metric.stateless_update_state(&vars, observed);
                ((metric.name().to_string(), metric.stateless_result(&vars)), vars)
            })
            .unzip();
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }
}

fn model() -> Result<CustomModel> {
    let inputs = Input([32]);
    let outputs = Dense::new(1).on(&inputs);
    let mut model = CustomModel(Functional::new(&[inputs], &[outputs])?);
    model.compile(Compile {
        optimizer: Adam { learning_rate: 0.01, ..Adam::default() }.into(),
        loss: "mse".into(),
        metrics: vec!["mae".into()],
        ..Compile::default()
    })?;
    Ok(model)
}

async fn run() -> Result<()> {
    let x = random::threefry::uniform([0, 1], 1000 * 32, 0.0, 1.0);
    let right: Vec<f32> = x.chunks(32).map(|row| row.iter().sum::<f32>() / 32.0).collect();
    let wrong = |row: usize| row.is_multiple_of(4);
    let given: Vec<f32> = right.iter().enumerate().map(|(row, y)| if wrong(row) { 2.0 } else { *y }).collect();
    let weights: Vec<f32> = (0..1000).map(|row| if wrong(row) { 0.0 } else { 1.0 }).collect();
    let (x, right) = (Tensor::new(&x, [1000, 32]), Tensor::new(&right, [1000, 1]));
    let (given, weights) = (Tensor::new(&given, [1000, 1]), Tensor::new(&weights, [1000]));

    let options = || Fit { epochs: 10, verbose: Verbose::Silent, ..Fit::default() };
    let quiet = || Evaluate { verbose: Verbose::Silent, ..Evaluate::default() };
    for (how, data) in [("all rows alike", Batch::from((&x, &given))), ("weighted", (&x, &given, &weights).into())] {
        let mut model = model()?;
        let history = model.fit(data, options()).await?;
        let scores = model.evaluate((&x, &right), quiet()).await?;
        say(&format!(
            "{how}: mean absolute error in training {:.3}, against the right targets {:.3}",
            history.last("mae").unwrap_or(f64::NAN),
            scores.get("mae").unwrap_or(f64::NAN)
        ));
    }
    Ok(())
}

fn main() {
    wengert::main(run())
}
