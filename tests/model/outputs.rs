//! Several inputs and outputs: losses, weights and metrics for each, as a list or by name.

use crate::{bits, close, mean, numbered, quiet, silent, uniform};
use wengert::prelude::*;

/// Two inputs of widths 2 and 3; outputs "price" `[1]` and "stars" `[1]`, both linear in both inputs.
fn two() -> Functional {
    let (a, b) = (Input([2]).named("size"), Input([3]).named("place"));
    let joined = Concatenate::default().on([&a, &b]);
    let price = Dense::new(1).named("price").on(&joined);
    let stars = Dense::new(1).named("stars").on(&joined);
    Functional::new(&[a, b], &[price, stars]).unwrap()
}

struct Rows {
    a: Tensor,
    b: Tensor,
    price: (Tensor, Vec<f32>),
    stars: (Tensor, Vec<f32>),
}

fn rows(n: usize) -> Rows {
    Rows { a: uniform(1, n, 2).0, b: uniform(2, n, 3).0, price: uniform(3, n, 1), stars: uniform(4, n, 1) }
}

impl Rows {
    fn batch(&self) -> Batch {
        let inputs = vec![self.a.clone(), self.b.clone()];
        (inputs, vec![self.price.0.clone(), self.stars.0.clone()]).into()
    }
}

fn still() -> Compile {
    Compile { optimizer: SGD { learning_rate: 0.0, ..SGD::default() }.into(), ..Compile::default() }
}

/// What the network predicts for both outputs.
fn predicted(model: &Functional, rows: &Rows) -> [Vec<f64>; 2] {
    let inputs = vec![rows.a.clone(), rows.b.clone()];
    let all = pollster::block_on(model.predict_all(inputs, Predict { batch_size: 7, ..crate::unseen() })).unwrap();
    let values = |t: &Tensor| t.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].shape(), [rows.a.dim(0), 1].into());
    [values(&all[0]), values(&all[1])]
}

fn names(history: &History) -> Vec<&str> {
    history.history.iter().map(|entry| entry.0.as_str()).collect()
}

#[test]
fn each_output_has_its_loss_its_weight_and_its_metrics() {
    let rows = rows(40);
    // The same as lists, by name, and with one loss for both where that says the same.
    let lists = Compile {
        loss: ["mse", "mae"].into(),
        loss_weights: [1.0, 0.25].into(),
        metrics: vec!["mae".into(), ["mse", "rmse"].into()],
        ..still()
    };
    let named = Compile {
        loss: [("stars", "mae"), ("price", "mse")].into(),
        loss_weights: [("stars", 0.25)].into(),
        metrics: vec![("stars", ["mse", "rmse"]).into(), ("price", "mae").into()],
        ..still()
    };
    for options in [lists, named] {
        let mut model = two();
        model.compile(options).unwrap();
        let [price, stars] = predicted(&model, &rows);
        let (mse, abs) = (|e: f64| e * e, f64::abs);
        let (first, second) = (mean(&rows.price.1, &price, mse), mean(&rows.stars.1, &stars, abs));
        let history = model.fit_blocking(rows.batch(), Fit { batch_size: 16, ..silent() }).unwrap();
        let expected = ["loss", "price_loss", "stars_loss", "price_mae", "stars_mse", "stars_rmse"];
        assert_eq!(names(&history), expected);
        let scores = model.evaluate_blocking(rows.batch(), quiet()).unwrap();
        assert_eq!(scores.iter().map(|(name, _)| name).collect::<Vec<_>>(), expected);
        for get in [&|name: &str| history.last(name).unwrap(), &|name: &str| scores.get(name).unwrap()]
            as [&dyn Fn(&str) -> f64; 2]
        {
            close(get("loss"), first + 0.25 * second);
            close(get("price_loss"), first);
            close(get("stars_loss"), second);
            close(get("price_mae"), mean(&rows.price.1, &price, abs));
            close(get("stars_mse"), mean(&rows.stars.1, &stars, mse));
            close(get("stars_rmse"), mean(&rows.stars.1, &stars, mse).sqrt());
        }
    }
}

#[test]
fn a_single_loss_is_for_all_outputs_and_one_may_have_none() {
    let rows = rows(16);
    let mut model = two();
    model.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let [price, stars] = predicted(&model, &rows);
    let square = |e: f64| e * e;
    let scores = model.evaluate_blocking(rows.batch(), quiet()).unwrap();
    close(scores.get("loss").unwrap(), mean(&rows.price.1, &price, square) + mean(&rows.stars.1, &stars, square));
    // Only one output has a loss: there is one target, and no tracker besides that of the loss.
    model.compile(Compile { loss: [("stars", "mse")].into(), ..still() }).unwrap();
    let only = (vec![rows.a.clone(), rows.b.clone()], vec![rows.stars.0.clone()]);
    let scores = model.evaluate_blocking(only, quiet()).unwrap();
    assert_eq!(scores.values().len(), 1);
    close(scores.get("loss").unwrap(), mean(&rows.stars.1, &stars, square));
    // With one output a weight scales the loss, as in Keras.
    let mut one = crate::linear(2);
    let x = rows.a.clone();
    one.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let plain = one.evaluate_blocking((&x, &rows.price.0), quiet()).unwrap().values()[0];
    one.compile(Compile { loss: "mse".into(), loss_weights: [3.0].into(), ..still() }).unwrap();
    close(one.evaluate_blocking((&x, &rows.price.0), quiet()).unwrap().values()[0], 3.0 * plain);
}

#[test]
fn sample_weights_are_for_all_outputs_or_for_each() {
    let rows = rows(12);
    let mut model = two();
    let metrics = || vec!["mae".into(), "mae".into()];
    let options = Compile { loss: "mse".into(), metrics: metrics(), weighted_metrics: metrics(), ..still() };
    model.compile(options).unwrap();
    let [price, stars] = predicted(&model, &rows);
    let w: Vec<f32> = (0..12).map(|i| (i % 3) as f32).collect();
    let v: Vec<f32> = (0..12).map(|i| 1.0 + (i % 2) as f32).collect();
    let tensor = |w: &[f32]| Tensor::new(w, [12]);
    let weighted = |y: &[f32], p: &[f64], w: &[f32], f: fn(f64) -> f64| -> f64 {
        y.iter().zip(p).zip(w).map(|((y, p), w)| f64::from(*w) * f(p - f64::from(*y))).sum()
    };
    let square: fn(f64) -> f64 = |e| e * e;
    for (weights, second) in [(vec![tensor(&w)], &w), (vec![tensor(&w), tensor(&v)], &v)] {
        let batch = Batch { sample_weights: weights, ..rows.batch() };
        let scores = model.evaluate_blocking(batch, Evaluate { batch_size: 5, ..quiet() }).unwrap();
        let get = |name: &str| scores.get(name).unwrap();
        close(get("price_loss"), weighted(&rows.price.1, &price, &w, square) / 12.0);
        close(get("stars_loss"), weighted(&rows.stars.1, &stars, second, square) / 12.0);
        close(get("price_mae"), mean(&rows.price.1, &price, f64::abs));
        let total: f32 = second.iter().sum();
        close(get("stars_weighted_mae"), weighted(&rows.stars.1, &stars, second, f64::abs) / f64::from(total));
    }
}

#[test]
fn named_tensors_are_put_in_order() {
    let rows = rows(8);
    let model = two();
    let inputs = [("place", &rows.b), ("size", &rows.a)];
    let targets = [("stars", &rows.stars.0), ("price", &rows.price.0)];
    let batch = model.by_name(&inputs, &targets, &[]).unwrap();
    assert!(batch.inputs[0].same(&rows.a) && batch.inputs[1].same(&rows.b));
    assert!(batch.targets[0].same(&rows.price.0) && batch.targets[1].same(&rows.stars.0));
    assert!(batch.sample_weights.is_empty());
    let w = Tensor::new(&[2.0f32; 8], [8]);
    let batch = model.by_name(&inputs, &targets, &[("stars", &w)]).unwrap();
    assert_eq!(batch.sample_weights[0].to_vec::<f32>().unwrap(), [1.0; 8]);
    assert!(batch.sample_weights[1].same(&w));
    let message = |result: Result<Batch>| result.unwrap_err().to_string();
    assert_eq!(
        message(model.by_name(&[("sice", &rows.a)], &[], &[])),
        "there is no input \"sice\"; the inputs are size, place"
    );
    assert_eq!(message(model.by_name(&inputs[..1], &[], &[])), "the input \"size\" is missing");
    let twice = [("size", &rows.a), ("size", &rows.a)];
    assert_eq!(message(model.by_name(&twice, &[], &[])), "the input \"size\" is given twice");
    let error = message(model.by_name(&inputs, &[("star", &w)], &[]));
    assert_eq!(error, "there is no output \"star\"; the outputs are price, stars");
    // Into fit at once.
    let mut model = two();
    model.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let data = model.by_name(&inputs, &targets, &[]).unwrap();
    assert_eq!(names(&model.fit_blocking(data, silent()).unwrap()), ["loss", "price_loss", "stars_loss"]);
}

#[test]
fn outputs_train_together_and_on_single_batches() {
    let rows = rows(32);
    let compile = || Compile { optimizer: "adam".into(), loss: ["mse", "mse"].into(), ..Compile::default() };
    let mut model = two();
    model.compile(compile()).unwrap();
    let history = model
        .fit_blocking(rows.batch(), Fit { epochs: 30, batch_size: 8, validation_split: 0.25, ..silent() })
        .unwrap();
    let loss = history.get("loss").unwrap();
    assert!(loss[29] < 0.9 * loss[0], "{loss:?}");
    close(loss[29], history.last("price_loss").unwrap() + history.last("stars_loss").unwrap());
    assert!(history.last("val_stars_loss").is_some());
    // One update of fit is one of train_on_batch.
    let (mut by_hand, mut by_fit) = (two(), two());
    by_hand.compile(compile()).unwrap();
    by_fit.compile(compile()).unwrap();
    pollster::block_on(by_hand.train_on_batch(rows.batch())).unwrap();
    by_fit.fit_blocking(rows.batch(), Fit { shuffle: false, ..silent() }).unwrap();
    assert!(bits(&by_hand) == bits(&by_fit));
    let tested = pollster::block_on(by_hand.test_on_batch(rows.batch())).unwrap();
    assert_eq!(tested.values().len(), 3);
}

#[test]
fn an_override_of_the_single_loss_takes_effect_in_all_steps() {
    /// The loss of `compile` and a penalty on large predictions.
    struct Penalised(Functional);
    impl Model for Penalised {
        crate::base!(0);
        fn compute_loss(&self, x: &Tensor, y: &Tensor, y_pred: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
            assert_eq!(x.dim(1), 4);
            Ok(self.0.compute_loss(x, y, y_pred, weight)? + y_pred.square().mean(..))
        }
    }
    let ((x, xs), (y, ys)) = (uniform(1, 16, 4), uniform(2, 16, 1));
    let mut model = Penalised(crate::linear(4));
    model.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let p = crate::predictions(&model.0, &xs);
    let expected = mean(&ys, &p, |e| e * e) + mean(&[0.0; 16], &p, |e| e * e);
    let history = model.fit_blocking((&x, &y), silent()).unwrap();
    close(history.last("loss").unwrap(), expected);
    close(model.evaluate_blocking((&x, &y), quiet()).unwrap().values()[0], expected);
}

#[test]
fn what_does_not_fit_the_outputs_is_refused_with_their_names() {
    let message = |options: Compile| two().compile(options).unwrap_err().to_string();
    let error = message(Compile { loss: ["mse", "mse", "mse"].into(), ..still() });
    assert!(error.starts_with("loss: give one for each of the outputs price, stars"), "{error}");
    let error = message(Compile { loss: [("prize", "mse")].into(), ..still() });
    assert_eq!(error, "loss: there is no output \"prize\"; the outputs are price, stars");
    let error = message(Compile { metrics: vec!["mae".into()], ..still() });
    assert!(error.starts_with("metrics: give one for each of the outputs price, stars"), "{error}");
    let error = message(Compile { loss: "mse".into(), loss_weights: [1.0].into(), ..still() });
    assert_eq!(error, "loss_weights: 1 were given for 2 outputs: price, stars");
    let error = message(Compile { loss: "mse".into(), loss_weights: [("stars", f64::NAN)].into(), ..still() });
    assert!(error.contains("loss weight of NaN"), "{error}");
    let error = message(Compile { optimizer: ["adam", "sgd"].into(), ..Compile::default() });
    assert_eq!(error, "2 choices were given where one is wanted");

    let rows = rows(4);
    let mut model = two();
    model.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let inputs = vec![rows.a.clone(), rows.b.clone()];
    let error = model.fit_blocking((inputs.clone(), vec![rows.price.0.clone()]), silent()).unwrap_err().to_string();
    assert_eq!(error, "1 targets were given to a model with 2 outputs, price, stars; give one for each, in this order");
    let error = model.fit_blocking(inputs.clone(), silent()).unwrap_err().to_string();
    assert!(error.contains("no targets for the loss mean_squared_error"), "{error}");
    let error = model.predict_blocking(inputs, crate::unseen()).unwrap_err().to_string();
    assert!(error.contains("2 outputs; predict_all"), "{error}");
    let error = model.fit_blocking((&rows.a, &rows.price.0), silent()).unwrap_err().to_string();
    assert!(error.contains("takes 2 inputs, 1 were given"), "{error}");
    let short = (vec![rows.a.clone(), numbered(3)], vec![]);
    assert_eq!(
        model.fit_blocking(short, silent()).unwrap_err().to_string(),
        "the input 0 has 4 rows, but the input 1 has 3"
    );
    // And the usual mistake with one output.
    let mut one = crate::linear(2);
    one.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let error = one.fit_blocking(&rows.a, silent()).unwrap_err().to_string();
    assert_eq!(
        error,
        "there are no targets for the loss mean_squared_error to compare the predictions with; give (x, y)"
    );
}

#[test]
fn names_of_inputs_and_outputs_are_unique() {
    let x = Input([2]);
    let dense = Dense::new(1).shared();
    let (y, z) = (dense.on(&x), dense.on(&x));
    let model = Functional::new(std::slice::from_ref(&x), &[y, z]).unwrap();
    assert_eq!(model.output_names(), ["dense", "dense_1"]);
    assert_eq!(model.network().input_names(), ["input_layer"]);
    let (a, b) = (Input([2]).named("a"), Input([2]).named("a"));
    let sum = Add.on([&a, &b]);
    let error = Functional::new(&[a, b], &[sum]).unwrap_err().to_string();
    assert!(error.contains("an input is named a"), "{error}");
    // An output is named by its layer.
    let y = Dense::new(1).on(&x).named("y");
    assert!(Functional::new(&[x], &[y]).unwrap_err().to_string().contains("Dense::new(1).named(\"y\")"));
}

#[test]
fn a_target_is_never_taken_for_that_of_another_output() {
    let (rows, inputs) = (rows(8), |rows: &Rows| [("size", rows.a.clone()), ("place", rows.b.clone())]);
    let given = inputs(&rows);
    let inputs = given.each_ref().map(|(name, tensor)| (*name, tensor));
    let mut model = two();
    model.compile(Compile { loss: [("stars", "mse")].into(), ..still() }).unwrap();
    let message = |targets: &[(&str, &Tensor)]| model.by_name(&inputs, targets, &[]).unwrap_err().to_string();
    let error = message(&[("price", &rows.price.0)]);
    assert_eq!(
        error,
        "the target \"price\" has no loss, and others are missing; give all, or those that compile has losses for"
    );
    let own = model.by_name(&inputs, &[("stars", &rows.stars.0)], &[]).unwrap();
    let [_, stars] = predicted(&model, &rows);
    let loss = model.evaluate_blocking(own, quiet()).unwrap().get("loss").unwrap();
    close(loss, mean(&rows.stars.1, &stars, |e| e * e));
    // Weights are none, one, or one for each.
    let mut model = two();
    model.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let weights = vec![Tensor::ones([8]); 3];
    let error = model.fit_blocking(Batch { sample_weights: weights, ..rows.batch() }, silent()).unwrap_err();
    assert!(error.to_string().contains("3 sample weights were given for 2 outputs"), "{error}");
    let mut one = crate::linear(2);
    one.compile(Compile { loss: "mse".into(), ..still() }).unwrap();
    let batch = Batch {
        inputs: vec![rows.a.clone()],
        targets: vec![rows.price.0.clone()],
        sample_weights: vec![Tensor::ones([8]); 2],
    };
    let error = one.fit_blocking(batch, silent()).unwrap_err();
    assert!(error.to_string().contains("2 sample weights were given for 1 output;"), "{error}");
    let error =
        two().compile(Compile { loss: [("stars", "mse")].into(), loss_weights: [("price", 0.5)].into(), ..still() });
    assert_eq!(error.unwrap_err().to_string(), "loss_weights: the output \"price\" has no loss to weigh");
    let error = two().compile(Compile { loss_weights: [1.0, 0.5].into(), ..still() });
    assert_eq!(error.unwrap_err().to_string(), "loss_weights were given without a loss");
}
