//! The guide, 2 of 4: everything by hand. The model has a loss and trackers of its own, and `compile` is given only an
//! optimizer. `metrics()` lists the trackers, so `fit` resets them at the start of every epoch and reports them.
//!
//!     cargo run --release --example guide_2_by_hand

use wengert::losses::MeanSquaredError;
use wengert::metrics::MeanAbsoluteError;
use wengert::prelude::*;

struct CustomModel {
    network: Functional,
    loss_fn: Loss,
    loss_tracker: Metric,
    mae_metric: Metric,
}

impl CustomModel {
    fn new(inputs: Symbolic, outputs: Symbolic) -> Result<CustomModel> {
        Ok(CustomModel {
            network: Functional::new(&[inputs], &[outputs])?,
            loss_fn: MeanSquaredError.into(),
            loss_tracker: Metric::from(Mean).named("loss"),
            mae_metric: Metric::from(MeanAbsoluteError).named("mae"),
        })
    }
}

impl Model for CustomModel {
    fn base(&self) -> &Functional {
        &self.network
    }
    fn base_mut(&mut self) -> &mut Functional {
        &mut self.network
    }

    // What `fit` resets and reports. A metric that is not listed here is neither.
    fn metrics(&self) -> Vec<Metric> {
        vec![self.loss_tracker.clone(), self.mae_metric.clone()]
    }

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y) = batch.xy()?;

        // The loss as a function of the weights, and its gradients.
        let ((loss, (y_pred, non_trainable)), grads) = value_and_grad(
            |trainable| {
                let (y_pred, non_trainable) = self.stateless_call(trainable, &non_trainable, &x, Mode::Train)?;
                Ok((self.loss_fn.call(&y, &y_pred, None), (y_pred, non_trainable)))
            },
            &trainable,
        )?;

        // Update the trainable and the optimizer variables.
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;

        // Update the trackers: their variables come and go in the order of `metrics()`.
        let loss_vars = self.loss_tracker.stateless_update_state(&metrics[0], Observed::value(&loss));
        let mae_vars = self.mae_metric.stateless_update_state(&metrics[1], Observed::pair(&y, &y_pred));
        let logs = Logs::from([
            ("loss", self.loss_tracker.stateless_result(&loss_vars)),
            ("mae", self.mae_metric.stateless_result(&mae_vars)),
        ]);
        Ok((logs, (trainable, non_trainable, optimizer, vec![loss_vars, mae_vars])))
    }
}

async fn run() -> Result<()> {
    let inputs = Input([32]);
    let outputs = Dense::new(1).on(&inputs);
    let mut model = CustomModel::new(inputs, outputs)?;

    // No loss and no metrics to give here.
    model
        .compile(Compile { optimizer: Adam { learning_rate: 0.01, ..Adam::default() }.into(), ..Compile::default() })?;

    let (x, y) = mean_of_features();
    let history = model.fit((&x, &y), Fit { epochs: 5, ..Fit::default() }).await?;
    for (epoch, (loss, mae)) in history.epoch.iter().zip(pairs(&history)) {
        say(&format!("after epoch {}: loss {loss:.5}, mean absolute error {mae:.4}", epoch + 1));
    }
    Ok(())
}

/// 1000 rows of 32 numbers between 0 and 1, and the mean of each row: what one neuron can learn.
fn mean_of_features() -> (Tensor, Tensor) {
    let x = random::threefry::uniform([0, 1], 1000 * 32, 0.0, 1.0);
    let y: Vec<f32> = x.chunks(32).map(|row| row.iter().sum::<f32>() / 32.0).collect();
    (Tensor::new(&x, [1000, 32]), Tensor::new(&y, [1000, 1]))
}

fn pairs(history: &History) -> impl Iterator<Item = (f64, f64)> {
    let of = |name: &str| history.get(name).unwrap_or_default().to_vec();
    of("loss").into_iter().zip(of("mae"))
}

fn main() {
    wengert::main(run())
}
