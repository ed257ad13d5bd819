//! The three examples of Keras' guide on customising what happens in `fit`, with numbers computed on the host.

use crate::{base, close, linear, mean, predictions, quiet, sgd, silent, uniform};
use wengert::prelude::*;

/// Example 1: a training step, nothing else.
struct CustomModel(Functional);

impl Model for CustomModel {
    base!(0);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y) = batch.xy()?;
        let ((loss, (y_pred, non_trainable)), grads) =
            value_and_grad(|tv| self.compute_loss_and_updates(tv, &non_trainable, &x, &y, Mode::Train), &trainable)?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;
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

/// Mean over batches of 32 of the mean squared error of each: the last of 1000 rows has 8 rows and counts as much.
fn mean_of_batches(y: &[f32], y_pred: &[f64]) -> f64 {
    let batches: Vec<f64> = y.chunks(32).zip(y_pred.chunks(32)).map(|(y, p)| mean(y, p, |e| e * e)).collect();
    batches.iter().sum::<f64>() / batches.len() as f64
}

#[test]
fn a_custom_step_has_the_history_of_its_metrics() {
    let ((x, xs), (y, ys)) = (uniform(1, 1000, 32), uniform(2, 1000, 1));
    let mut model = CustomModel(linear(32));
    model.compile(sgd(0.0)).unwrap();
    let options = Fit { epochs: 3, shuffle: false, validation_data: Some((&x, &y).into()), ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    let names: Vec<&str> = history.history.iter().map(|entry| entry.0.as_str()).collect();
    assert_eq!(names, ["loss", "mae", "val_loss", "val_mae"]);
    assert_eq!(history.epoch, [0, 1, 2]);
    // At a rate of 0 the weights stay, so every epoch has the same scores, those of the host.
    let y_pred = predictions(&model.0, &xs);
    for epoch in 0..3 {
        close(history.get("loss").unwrap()[epoch], mean_of_batches(&ys, &y_pred));
        close(history.get("mae").unwrap()[epoch], mean(&ys, &y_pred, f64::abs));
        // Validation works with only train_step overridden. Its loss is the default step's, over samples.
        close(history.get("val_loss").unwrap()[epoch], mean(&ys, &y_pred, |e| e * e));
        close(history.get("val_mae").unwrap()[epoch], mean(&ys, &y_pred, f64::abs));
    }
    assert_eq!(history.last("val_loss"), history.get("val_loss").map(|values| values[2]));
    let scores = model.evaluate_blocking((&x, &y), quiet()).unwrap();
    assert_eq!(scores.get("loss"), history.last("val_loss"));
    assert_eq!(scores.get("mae"), history.last("val_mae"));
}

#[test]
fn a_custom_step_trains_as_the_default_one_does() {
    let ((x, _), (y, _)) = (uniform(1, 100, 4), uniform(2, 100, 1));
    let (mut own, mut built_in) = (CustomModel(crate::mlp()), crate::mlp());
    own.compile(crate::adam()).unwrap();
    built_in.compile(crate::adam()).unwrap();
    let a = own.fit_blocking((&x, &y), Fit { epochs: 3, ..silent() }).unwrap();
    let b = built_in.fit_blocking((&x, &y), Fit { epochs: 3, ..silent() }).unwrap();
    assert_eq!(crate::bits(&own.0), crate::bits(&built_in));
    // Mean absolute error is over samples in both; the loss differs, since the guide's tracker ignores batch sizes.
    close(a.last("mae").unwrap(), b.last("mae").unwrap());
    assert_ne!(a.last("loss"), b.last("loss"));
    assert!(b.get("loss").unwrap()[2] < b.get("loss").unwrap()[0]);
}

/// Example 2: trackers of one's own, and everything by hand; `compile` gives only the optimizer.
struct ByHand {
    network: Functional,
    loss: Loss,
    loss_tracker: Metric,
    mae: Metric,
}

impl ByHand {
    fn new() -> ByHand {
        ByHand {
            network: linear(4),
            loss: wengert::losses::MeanSquaredError.into(),
            loss_tracker: Metric::from(Mean).named("loss"),
            mae: Metric::from(wengert::metrics::MeanAbsoluteError).named("mae"),
        }
    }
}

impl Model for ByHand {
    base!(network);

    fn metrics(&self) -> Vec<Metric> {
        vec![self.loss_tracker.clone(), self.mae.clone()]
    }

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y) = batch.xy()?;
        let ((loss, (y_pred, non_trainable)), grads) = value_and_grad(
            |tv| {
                let (y_pred, non_trainable) = self.stateless_call(tv, &non_trainable, &x, Mode::Train)?;
                Ok((self.loss.call(&y, &y_pred, None), (y_pred, non_trainable)))
            },
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;
        let loss_vars = self.loss_tracker.stateless_update_state(&metrics[0], Observed::value(&loss));
        let mae_vars = self.mae.stateless_update_state(&metrics[1], Observed::pair(&y, &y_pred));
        let logs = Logs::from([
            ("loss", self.loss_tracker.stateless_result(&loss_vars)),
            ("mae", self.mae.stateless_result(&mae_vars)),
        ]);
        Ok((logs, (trainable, non_trainable, optimizer, vec![loss_vars, mae_vars])))
    }
}

#[test]
fn trackers_of_ones_own_are_reset_and_reported() {
    let ((x, xs), (y, ys)) = (uniform(1, 100, 4), uniform(2, 100, 1));
    let mut model = ByHand::new();
    let optimizer = SGD { learning_rate: 0.0, ..SGD::default() }.into();
    model.compile(Compile { optimizer, ..Compile::default() }).unwrap();
    let history = model.fit_blocking((&x, &y), Fit { epochs: 2, shuffle: false, ..silent() }).unwrap();
    let y_pred = predictions(&model.network, &xs);
    // Were they not reset, nothing would tell the epochs apart at a rate of 0; so the second has other rows too.
    for epoch in 0..2 {
        close(history.get("loss").unwrap()[epoch], mean_of_batches(&ys, &y_pred));
        close(history.get("mae").unwrap()[epoch], mean(&ys, &y_pred, f64::abs));
    }
    let options = Fit { epochs: 2, batch_size: 50, steps_per_epoch: Some(1), shuffle: false, ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    close(history.get("mae").unwrap()[0], mean(&ys[..50], &y_pred[..50], f64::abs));
    close(history.get("mae").unwrap()[1], mean(&ys[50..], &y_pred[50..], f64::abs));
    // The default test step asks for a loss that compile was not given.
    let error = model.evaluate_blocking((&x, &y), quiet()).unwrap_err();
    assert_eq!(error, Error::new(ErrorKind::NotCompiled { needs: "a loss" }));
}

/// A step that logs by itself and leaves the metrics alone.
struct Logging(Functional);

impl Model for Logging {
    base!(0);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let x = batch.x()?;
        Ok(([("largest", x.max(..)), ("loss", x.sum(..))].into(), state))
    }
}

#[test]
fn what_only_a_step_logs_is_reported_and_an_idle_tracker_is_not() {
    let mut model = Logging(linear(1));
    model.compile(sgd(0.0)).unwrap();
    let options = Fit { batch_size: 3, shuffle: false, ..silent() };
    let history = model.fit_blocking(crate::numbered(6), options).unwrap();
    // The last step's numbers, in the step's order; "mae" saw nothing and is not there.
    let expected = [("largest".to_string(), vec![5.0]), ("loss".to_string(), vec![12.0])];
    assert_eq!(history.history, expected);
}

/// Example 3: sample weights.
struct Weighted(Functional);

impl Model for Weighted {
    base!(0);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y, weight) = batch.xyw()?;
        let ((loss, (y_pred, non_trainable)), grads) = value_and_grad(
            |tv| {
                let (y_pred, non_trainable) = self.stateless_call(tv, &non_trainable, &x, Mode::Train)?;
                let loss = self.compute_loss(&x, &y, &y_pred, weight.as_ref())?;
                Ok((loss, (y_pred, non_trainable)))
            },
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;
        let (logs, metrics) = (self.metrics().into_iter().zip(metrics))
            .map(|(metric, vars)| {
                let observed = match metric.name() {
                    "loss" => Observed::value(&loss),
                    _ => Observed::pair(&y, &y_pred).weighted(weight.as_ref()),
                };
                let vars = metric.stateless_update_state(&vars, observed);
                ((metric.name().to_string(), metric.stateless_result(&vars)), vars)
            })
            .unzip();
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }
}

#[test]
fn sample_weights_weigh() {
    let ((x, xs), (y, ys)) = (uniform(1, 64, 4), uniform(2, 64, 1));
    let weights: Vec<f32> = (0..64).map(|i| (i % 4) as f32).collect();
    let w = Tensor::new(&weights, [64]);
    let weighted = |y_pred: &[f64], f: fn(f64) -> f64| {
        let each = ys.iter().zip(y_pred).zip(&weights).map(|((y, p), w)| f64::from(*w) * f(p - f64::from(*y)));
        each.sum::<f64>()
    };
    // The guide's step weighs whatever metrics there are; the default one those that are to be weighted, as Keras does.
    let weighs = Compile { metrics: vec![], weighted_metrics: vec!["mae".into()], ..sgd(0.0) };
    let mut models: [(Box<dyn Model>, Compile); 2] =
        [(Box::new(Weighted(linear(4))), sgd(0.0)), (Box::new(linear(4)), weighs)];
    for (model, options) in &mut models {
        model.compile(options.clone()).unwrap();
        let history = model.fit_blocking((&x, &y, &w), silent()).unwrap();
        let y_pred = predictions(model.base(), &xs);
        // Keras: the loss divides by the number of samples, a metric by the sum of the weights.
        close(history.last("loss").unwrap(), weighted(&y_pred, |e| e * e) / 64.0);
        close(history.last("mae").unwrap(), weighted(&y_pred, f64::abs) / weights.iter().sum::<f32>() as f64);
        let scores = model.evaluate_blocking((&x, &y, &w), quiet()).unwrap();
        close(scores.get("loss").unwrap(), history.last("loss").unwrap());
        let evaluated = match options.metrics.len() {
            0 => history.last("mae").unwrap(),
            // Evaluated by the default step.
            _ => mean(&ys, &y_pred, f64::abs),
        };
        close(scores.get("mae").unwrap(), evaluated);
    }
}

/// Example 4: an evaluation step.
struct Tested(Functional);

impl Model for Tested {
    base!(0);

    fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
        let (trainable, non_trainable, metrics) = state;
        let (x, y) = batch.xy()?;
        let (y_pred, non_trainable) = self.stateless_call(&trainable, &non_trainable, &x, Mode::Infer)?;
        let loss = self.compute_loss(&x, &y, &y_pred, None)?;
        let (mut logs, metrics): (Logs, Vec<Variables>) = (self.metrics().into_iter().zip(metrics))
            .map(|(metric, vars)| {
                let vars = match metric.name() {
                    "loss" => metric.stateless_update_state(&vars, Observed::value(&loss)),
                    _ => metric.stateless_update_state(&vars, Observed::pair(&y, &y_pred)),
                };
                ((metric.name().to_string(), metric.stateless_result(&vars)), vars)
            })
            .unzip();
        logs.push("rows", Tensor::scalar(x.dim(0) as f32));
        Ok((logs, (trainable, non_trainable, metrics)))
    }
}

#[test]
fn a_custom_test_step_gives_loss_then_metrics_as_compiled() {
    let ((x, xs), (y, ys)) = (uniform(1, 1000, 4), uniform(2, 1000, 1));
    let mut model = Tested(linear(4));
    // No optimizer: evaluation needs none.
    model
        .compile(Compile { loss: "mse".into(), metrics: vec!["rmse".into(), "mae".into()], ..Compile::default() })
        .unwrap();
    let y_pred = predictions(&model.0, &xs);
    for _ in 0..2 {
        // The second time as the first: metrics start over.
        let scores = model.evaluate_blocking((&x, &y), quiet()).unwrap();
        let names: Vec<&str> = scores.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["loss", "rmse", "mae", "rows"]);
        close(scores.values()[0], mean_of_batches(&ys, &y_pred));
        close(scores.values()[1], mean(&ys, &y_pred, |e| e * e).sqrt());
        close(scores.values()[2], mean(&ys, &y_pred, f64::abs));
        assert_eq!(scores.values()[3], 8.0);
    }
}

/// A layer that counts its training calls.
#[derive(Debug)]
struct Counter;

impl Layer for Counter {
    fn kind(&self) -> &str {
        "counter"
    }
    fn variables(&self, _: &[wengert::graph::Spec]) -> Result<Vec<Variable>> {
        Ok(vec![Variable::state("calls", [], "zeros".into())])
    }
    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        if context.mode() == Mode::Train {
            context.set_state(0, context.state(0) + 1.0);
        }
        inputs[0].clone()
    }
}

#[test]
fn what_is_no_listed_metric_is_never_reset() {
    let mut model = Sequential::new([1]).add(Counter).add(Dense::new(1)).build().unwrap();
    model.compile(sgd(0.0)).unwrap();
    let x = crate::numbered(8);
    model.fit_blocking((&x, &x), Fit { batch_size: 2, epochs: 2, ..silent() }).unwrap();
    model.evaluate_blocking((&x, &x), quiet()).unwrap();
    let device = pollster::block_on(model.device()).unwrap();
    let (name, calls) = model.variables().unwrap().pop().unwrap();
    assert_eq!((name.as_str(), calls.to_vec_on::<f32>(&device).unwrap()), ("counter/calls", vec![8.0]));
}
