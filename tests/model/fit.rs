//! `compile` and the options of `fit`.

use std::cell::RefCell;

use crate::{adam, base, bits, linear, mlp, numbered, quiet, sgd, silent, uniform, unseen};
use wengert::prelude::*;

/// Logs the mean of the inputs, from which the rows of a batch are known, and how many they are.
struct Rows(Functional);

impl Model for Rows {
    base!(0);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let x = batch.x()?;
        Ok(([("mean", x.mean(..)), ("rows", Tensor::scalar(x.dim(0) as f32))].into(), state))
    }

    fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
        Ok(([("mean", batch.x()?.mean(..))].into(), state))
    }
}

fn rows() -> Rows {
    let mut model = Rows(linear(1));
    model.compile(sgd(0.0)).unwrap();
    model
}

/// The means of the batches of every step.
fn means(x: &Tensor, options: Fit<'_>) -> (Vec<(usize, f64, f64)>, History) {
    let seen = RefCell::new(Vec::new());
    let mut see = LambdaCallback::new().on_batch_end(|run| {
        let scores = pollster::block_on(run.read_logs()).unwrap();
        seen.borrow_mut().push((run.epoch, scores.get("mean").unwrap(), scores.get("rows").unwrap()));
    });
    let history =
        rows().fit_blocking(x, Fit { callbacks: vec![&mut see], verbose: Verbose::Silent, ..options }).unwrap();
    drop(see);
    (seen.into_inner(), history)
}

#[test]
fn an_epoch_sees_every_row_once_and_the_last_batch_is_smaller() {
    let x = numbered(1000);
    let (steps, _) = means(&x, Fit { epochs: 2, ..silent() });
    assert_eq!(steps.len(), 64);
    for epoch in 0..2 {
        let own: Vec<_> = steps.iter().filter(|step| step.0 == epoch).collect();
        let sizes: Vec<f64> = own.iter().map(|step| step.2).collect();
        assert_eq!(sizes, [vec![32.0; 31], vec![8.0]].concat());
        let total: f64 = own.iter().map(|step| step.1 * step.2).sum();
        assert!((total - 499_500.0).abs() < 1.0, "{total}");
    }
    assert_ne!(steps[0].1, steps[32].1, "every epoch has an order of its own");
    let (again, _) = means(&x, Fit { epochs: 2, ..silent() });
    assert_eq!(steps, again);
    let (other, _) = means(&x, Fit { epochs: 2, seed: 1, ..silent() });
    assert_ne!(steps, other);
    let (straight, _) = means(&x, Fit { shuffle: false, ..silent() });
    assert_eq!((straight[0].1, straight[31].1), (15.5, 995.5));
}

#[test]
fn a_seed_gives_the_same_bits_and_another_one_others() {
    let ((x, _), (y, _)) = (uniform(1, 50, 4), uniform(2, 50, 1));
    let train = |weights: u64, order: u64| {
        let mut model = mlp().seed(weights).unwrap();
        model.compile(adam()).unwrap();
        model.fit_blocking((&x, &y), Fit { batch_size: 8, epochs: 2, seed: order, ..silent() }).unwrap();
        bits(&model)
    };
    let first = train(0, 0);
    assert!(first == train(0, 0));
    assert!(first != train(0, 1));
    assert!(first != train(1, 0));
}

#[test]
fn fused_steps_give_the_same_bits_with_fewer_submissions() {
    let ((x, _), (y, _)) = (uniform(1, 83, 4), uniform(2, 83, 1));
    let train = |steps_per_execution: usize| {
        let mut model = mlp();
        model.compile(Compile { steps_per_execution, ..adam() }).unwrap();
        let device = pollster::block_on(model.device()).unwrap();
        let groups = RefCell::new(Vec::new());
        let mut see = LambdaCallback::new().on_batch_end(|run| groups.borrow_mut().push(run.step));
        let history = {
            let options = Fit { batch_size: 8, epochs: 2, callbacks: vec![&mut see], ..silent() };
            model.fit_blocking((&x, &y), options).unwrap()
        };
        drop(see);
        (bits(&model), history, device.stats().submissions, groups.into_inner())
    };
    let (single, one_by_one, many, groups) = train(1);
    assert_eq!(groups.len(), 22);
    for k in [2, 3, 4, 16] {
        let (fused, history, few, groups) = train(k);
        assert!(single == fused, "{k} steps in one submission gave other weights");
        assert_eq!(one_by_one, history);
        // Ten batches of 8 rows in groups, the batch of 3 rows by itself.
        let epoch: Vec<usize> = (0..10_usize.div_ceil(k)).map(|i| ((i + 1) * k).min(10)).chain([11]).collect();
        assert_eq!(groups, [epoch.clone(), epoch].concat());
        assert_eq!(many - few, 22 - groups.len() as u64);
    }
}

#[test]
fn an_epoch_of_fewer_steps_goes_on_where_the_last_stopped() {
    let x = numbered(5);
    let options = || Fit { batch_size: 1, epochs: 3, steps_per_epoch: Some(2), shuffle: false, ..silent() };
    let order = |options| means(&x, options).0.iter().map(|step| (step.0, step.1)).collect::<Vec<_>>();
    assert_eq!(order(options()), [(0, 0.0), (0, 1.0), (1, 2.0), (1, 3.0), (2, 4.0), (2, 0.0)]);
    // A training that goes on later sees what it would have seen.
    assert_eq!(order(Fit { initial_epoch: 1, ..options() }), [(1, 2.0), (1, 3.0), (2, 4.0), (2, 0.0)]);
    assert_eq!(order(Fit { steps_per_epoch: Some(7), epochs: 1, ..options() })[4..], [(0, 4.0), (0, 0.0), (0, 1.0)]);
    let shuffled = |initial_epoch| order(Fit { shuffle: true, steps_per_epoch: None, initial_epoch, ..options() });
    assert_eq!(shuffled(0)[5..], shuffled(1));
}

#[test]
fn validation_takes_the_last_rows_before_shuffling() {
    let x = numbered(10);
    let (steps, history) = means(&x, Fit { batch_size: 2, validation_split: 0.2, ..silent() });
    assert_eq!(steps.len(), 4);
    assert_eq!(steps.iter().map(|step| step.1).sum::<f64>(), 14.0);
    assert_eq!(history.last("val_mean"), Some(8.5));
    // Explicit data wins, as in Keras.
    let given = Some((&numbered(3)).into());
    let (steps, history) = means(&x, Fit { batch_size: 5, validation_split: 0.2, validation_data: given, ..silent() });
    assert_eq!((steps.len(), history.last("val_mean")), (2, Some(1.0)));
}

#[test]
fn validation_may_be_rarer_than_epochs() {
    let x = numbered(4);
    let options = Fit { epochs: 5, validation_data: Some((&x).into()), validation_freq: 2, ..silent() };
    let (_, history) = means(&x, options);
    assert_eq!(history.epoch, [0, 1, 2, 3, 4]);
    assert_eq!((history.get("mean").unwrap().len(), history.get("val_mean").unwrap().len()), (5, 2));
    let (_, history) = means(&x, Fit { epochs: 5, initial_epoch: 3, ..silent() });
    assert_eq!(history.epoch, [3, 4]);
    let (steps, history) = means(&x, Fit { epochs: 3, initial_epoch: 3, ..silent() });
    assert_eq!((steps.len(), history), (0, History { epochs: 3, steps: 1, ..History::default() }));
}

#[test]
fn what_cannot_be_trained_on_is_refused_before_it_starts() {
    let (x, y) = (numbered(4), numbered(3));
    let message = |data: Batch, options: Fit<'_>| rows().fit_blocking(data, options).unwrap_err().to_string();
    let good = || Batch::from((&x, &x));
    assert_eq!(message((&x, &y).into(), silent()), "the input has 4 rows, but the target has 3");
    let empty = Tensor::new::<f32>(&[], [0, 1]);
    assert_eq!(message((&empty).into(), silent()), "the data set is empty: the input has 0 rows");
    for split in [1.0, -0.1, 1.5, f64::NAN] {
        assert!(message(good(), Fit { validation_split: split, ..silent() }).contains("validation_split"));
    }
    let zero = |options: Fit<'_>, name: &str| {
        // No step may have run: the epochs are what would fail last.
        let ran = RefCell::new(0);
        let mut see = LambdaCallback::new().on_batch_end(|_| *ran.borrow_mut() += 1);
        let options = Fit { callbacks: vec![&mut see], validation_data: Some((&x).into()), ..options };
        let message = message(good(), options);
        assert!(message.contains(name), "{message}");
        drop(see);
        assert_eq!(ran.into_inner(), 0);
    };
    zero(Fit { batch_size: 0, ..silent() }, "batch size of 0");
    zero(Fit { validation_batch_size: Some(0), ..silent() }, "validation_batch_size");
    zero(Fit { validation_freq: 0, ..silent() }, "validation_freq");
    zero(Fit { steps_per_epoch: Some(0), ..silent() }, "steps_per_epoch");
    let uneven = Fit { validation_data: Some((&x, &y).into()), ..silent() };
    assert_eq!(message(good(), uneven), "the input has 4 rows, but the target has 3");
    let error = rows().evaluate_blocking(&x, Evaluate { batch_size: 0, ..quiet() }).unwrap_err();
    assert!(error.to_string().contains("batch size of 0"));
    let error = rows().predict_blocking(&x, Predict { batch_size: 0, ..unseen() }).unwrap_err();
    assert!(error.to_string().contains("batch size of 0"));
}

#[test]
fn what_compile_was_not_given_is_named() {
    let x = numbered(4);
    let mut model = linear(1);
    let error = model.fit_blocking((&x, &x), silent()).unwrap_err();
    assert_eq!(error.to_string(), "the model is not compiled with an optimizer; call compile first");
    assert!(pollster::block_on(model.train_on_batch((&x, &x))).is_err());
    assert!(pollster::block_on(model.learning_rate()).is_err());
    let error = model.evaluate_blocking((&x, &x), quiet()).unwrap_err();
    assert_eq!(error.to_string(), "the model is not compiled with a loss; call compile first");
    assert_eq!(model.predict_blocking(&x, unseen()).unwrap().shape(), [4, 1].into());
    // Only an optimizer: the default step wants a loss.
    model.compile(Compile { optimizer: "sgd".into(), ..Compile::default() }).unwrap();
    let error = model.fit_blocking((&x, &x), silent()).unwrap_err();
    assert_eq!(error, Error::new(ErrorKind::NotCompiled { needs: "a loss" }));
    // Only a loss: RMSprop is Keras' default.
    model.compile(Compile { loss: "mse".into(), ..Compile::default() }).unwrap();
    assert_eq!(model.optimizer().name(), "rmsprop");
    let history = model.fit_blocking((&x, &x), silent()).unwrap();
    assert_eq!(history.history.len(), 1);
    assert_eq!(Compile::default().steps_per_execution, 1);
    assert!(model.compile(Compile { steps_per_execution: 0, ..Compile::default() }).is_err());
    // A refused compile leaves what was there.
    assert!(model.fit_blocking((&x, &x), silent()).is_ok());
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let message = |options: Compile| linear(1).compile(options).unwrap_err().to_string();
    let optimizer = message(Compile { optimizer: "adamm".into(), ..Compile::default() });
    assert!(optimizer.contains("unknown optimizer \"adamm\"; known: sgd, adam"), "{optimizer}");
    let loss = message(Compile { loss: "l2".into(), ..Compile::default() });
    assert!(loss.contains("unknown loss \"l2\"") && loss.contains("mse"), "{loss}");
    let metric = message(Compile { metrics: vec!["mae".into(), "f7".into()], ..Compile::default() });
    assert!(metric.contains("unknown metric \"f7\"") && metric.contains("accuracy"), "{metric}");
}

#[test]
fn metrics_of_one_name_are_numbered() {
    let mut model = linear(1);
    let halved = |y: &Tensor, y_pred: &Tensor| (y_pred - y).abs().mean(-1) * 0.5;
    let metrics = vec!["mae".into(), "mae".into(), halved.into(), Metric::from(Mean).named("loss").into()];
    model.compile(Compile { loss: "mse".into(), metrics, ..Compile::default() }).unwrap();
    let names: Vec<String> = model.metrics().iter().map(|metric| metric.name().to_string()).collect();
    assert_eq!(names, ["loss", "mae", "mae_1", "metric", "loss_1"]);
}

#[test]
fn a_steady_step_makes_nothing() {
    let ((x, _), (y, _)) = (uniform(1, 64, 4), uniform(2, 64, 1));
    let mut model = mlp();
    model.compile(adam()).unwrap();
    let device = pollster::block_on(model.device()).unwrap();
    let stats = RefCell::new(Vec::new());
    let mut see = LambdaCallback::new().on_batch_end(|run| {
        // How many upload buffers there are depends on how far the device lags behind, so it must not.
        device.wait_blocking().unwrap();
        if run.epoch > 0 {
            stats.borrow_mut().push(device.stats());
        }
    });
    let options = Fit { batch_size: 8, epochs: 4, callbacks: vec![&mut see], ..silent() };
    model.fit_blocking((&x, &y), options).unwrap();
    drop(see);
    for epoch in stats.into_inner().chunks(8) {
        for pair in epoch.windows(2) {
            let step = pair[1] - pair[0];
            assert_eq!(step.submissions, 1, "{step}");
            assert_eq!((step.buffers, step.bind_groups, step.pipelines, step.bytes_read), (0, 0, 0, 0), "{step}");
        }
    }
}

#[test]
fn training_and_validation_share_what_they_made() {
    let ((x, _), (y, _)) = (uniform(1, 60, 4), uniform(2, 60, 1));
    let mut model = mlp();
    model.compile(adam()).unwrap();
    let device = pollster::block_on(model.device()).unwrap();
    let mut ends = Vec::new();
    // How many upload buffers there are depends on how far the device lags behind, so it must not: not in validation either,
    // nor where metrics are set back.
    let mut see = LambdaCallback::new()
        .on_epoch_begin(|_| device.wait_blocking().unwrap())
        .on_batch_end(|_| device.wait_blocking().unwrap())
        .on_test_begin(|_| device.wait_blocking().unwrap())
        .on_test_batch_end(|_| device.wait_blocking().unwrap())
        .on_epoch_end(|_| ends.push(device.stats()));
    let options = Fit { epochs: 4, validation_split: 0.25, callbacks: vec![&mut see], ..silent() };
    model.fit_blocking((&x, &y), options).unwrap();
    drop(see);
    let epoch = ends[3] - ends[2];
    assert_eq!((epoch.buffers, epoch.bind_groups, epoch.pipelines), (0, 0, 0), "{epoch}");
}

#[test]
fn a_stop_at_the_beginning_of_an_epoch_leaves_no_epoch_behind() {
    let ((x, _), (y, _)) = (uniform(1, 16, 4), uniform(2, 16, 1));
    for stop in [0, 2] {
        let mut model = mlp();
        model.compile(adam()).unwrap();
        let mut ends = Vec::new();
        let mut see = LambdaCallback::new()
            .on_epoch_begin(|run| run.stop = run.epoch == stop)
            .on_epoch_end(|run| ends.push(run.epoch));
        let mut early = EarlyStopping::new("loss").patience(9);
        let callbacks: Vec<&mut dyn Callback> = vec![&mut see, &mut early];
        let options = Fit { epochs: 4, validation_split: 0.25, callbacks, ..silent() };
        let history = model.fit_blocking((&x, &y), options).unwrap();
        drop(see);
        assert_eq!((history.epoch.len(), ends.len()), (stop, stop));
        assert_eq!(history.get("loss").map_or(0, |losses| losses.len()), stop);
    }
}

#[test]
fn predictions_without_an_axis_of_their_own_are_one_for_each_sample() {
    let ((x, _), (y, values)) = (uniform(1, 40, 4), uniform(2, 40, 1));
    let classes: Vec<f32> = values.iter().map(|value| f32::from(*value > 0.0)).collect();
    let flat = || Sequential::new([4]).add(Dense::new(1)).add(Lambda::new(|x: &Tensor| x.squeeze(-1))).build().unwrap();
    let column = || Sequential::new([4]).add(Dense::new(1)).build().unwrap();
    let fit = |mut model: Functional, classes: Tensor| {
        model.compile(Compile { metrics: vec!["mae".into()], ..adam() }).unwrap();
        let class_weight = vec![(1, 3.0)];
        let options = Fit { class_weight, shuffle: false, epochs: 2, batch_size: 32, ..silent() };
        model.fit_blocking((&x, &classes), options).unwrap()
    };
    let (a, b) = (fit(flat(), Tensor::new(&classes, [40])), fit(column(), Tensor::new(&classes, [40, 1])));
    for ((name, a), (_, b)) in a.history.iter().zip(&b.history) {
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{name}: {a} and {b}"));
    }
    drop(y);
}
