//! Whole trajectories of `fit`: History, scores, predictions and final weights, from the same initial weights.
//!
//! All runs are compared to the tolerance of single operations, although they are some dozen steps long, but for the one
//! of a hundred steps, which has a bound of its own.

use safetensors::tensor::{Dtype, TensorView, serialize};
use wengert::prelude::*;

use crate::reference::{Reference, TOLERANCE, close, device};

fn reference() -> Reference {
    Reference::open("fit")
}

fn silent<'a>() -> Fit<'a> {
    Fit { verbose: Verbose::Silent, shuffle: false, ..Fit::default() }
}

fn unseen<'a>() -> Predict<'a> {
    Predict { verbose: Verbose::Silent, ..Predict::default() }
}

fn quiet<'a>() -> Evaluate<'a> {
    Evaluate { verbose: Verbose::Silent, ..Evaluate::default() }
}

/// Gives a model the initial weights of a case.
fn start(numbers: &Reference, case: &str, model: Functional) -> Functional {
    let model = model.on(device());
    let prefix = format!("{case}/init/");
    let read = |name: &&str| {
        let bytes: Vec<u8> = numbers.values(name).iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        (name[prefix.len()..].to_string(), numbers.shape(name).to_vec(), bytes)
    };
    let all: Vec<_> = numbers.names().iter().filter(|name| name.starts_with(&prefix)).map(read).collect();
    let views =
        all.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let loaded = pollster::block_on(model.set_weights(&serialize(views, None).unwrap())).unwrap();
    assert!(loaded.missing.is_empty() && loaded.unused.is_empty(), "{loaded:?}");
    model
}

/// The weights at a moment of a case, to a tolerance of their largest magnitude then or at the start: a weight is what
/// it was and what was added to it, and may come close to 0.
fn weights(numbers: &Reference, case: &str, moment: &str, model: &Functional, tolerance: f64) {
    for (name, tensor) in model.variables().unwrap() {
        let magnitude = |name: &str| numbers.values(name).iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let (was, is) = (magnitude(&format!("{case}/init/{name}")), format!("{case}/{moment}/{name}"));
        let tolerance = tolerance * (was / magnitude(&is)).max(1.0);
        numbers.check_within(&is, &tensor, tolerance);
    }
}

/// All names of a group with their numbers, and no others.
fn scores<'s>(numbers: &Reference, group: &str, scores: impl Iterator<Item = (&'s str, &'s [f64])>, tolerance: f64) {
    let mut seen = Vec::new();
    for (name, values) in scores {
        let name = format!("{group}/{name}");
        close(&name, values, numbers.values(&name), tolerance);
        seen.push(name);
    }
    seen.sort_unstable();
    let expected: Vec<&str> =
        numbers.names().into_iter().filter(|name| name.starts_with(&format!("{group}/"))).collect();
    assert_eq!(seen, expected);
}

fn finish(numbers: &Reference, case: &str, model: &Functional, history: &History, tolerance: f64) {
    let entries = history.history.iter().map(|(name, values)| (name.as_str(), values.as_slice()));
    scores(numbers, &format!("{case}/history"), entries, tolerance);
    weights(numbers, case, "final", model, tolerance);
}

fn evaluated(numbers: &Reference, case: &str, found: &Scores) {
    let values: Vec<[f64; 1]> = found.values().into_iter().map(|value| [value]).collect();
    let entries = found.iter().zip(&values).map(|((name, _), value)| (name, value.as_slice()));
    scores(numbers, &format!("{case}/evaluated"), entries, TOLERANCE);
}

#[test]
fn the_model_of_the_guide() {
    let numbers = reference();
    let network = Sequential::new([32]).add(Dense::new(1)).build().unwrap();
    let mut model = start(&numbers, "guide", network);
    let optimizer = Adam { learning_rate: 1e-2, ..Adam::default() }.into();
    let metrics = vec!["mae".into()];
    model.compile(Compile { optimizer, loss: "mse".into(), metrics, ..Compile::default() }).unwrap();
    let (x, y) = (numbers.tensor("guide/x"), numbers.tensor("guide/y"));
    let history = model.fit_blocking((&x, &y), Fit { epochs: 4, validation_split: 0.2, ..silent() }).unwrap();
    finish(&numbers, "guide", &model, &history, TOLERANCE);
    let listed = model.evaluate_blocking((&x, &y), quiet()).unwrap().values();
    close("guide/listed", &listed, numbers.values("guide/listed"), TOLERANCE);
    let some = Data::new(&x).unwrap().rows(&(0..40).collect::<Vec<_>>());
    numbers.check_within("guide/predicted/dense", &model.predict_blocking(some, unseen()).unwrap(), TOLERANCE);
}

fn classifier(case: &str, weighted_metrics: Vec<&str>, class_weight: Vec<(usize, f64)>, weighted: bool) {
    let numbers = reference();
    let network = Sequential::new([6])
        .add(Dense::new(8).activation("tanh").named("hidden"))
        .add(Dense::new(3).activation("softmax").named("scores"));
    let mut model = start(&numbers, case, network.build().unwrap());
    model
        .compile(Compile {
            optimizer: SGD { learning_rate: 0.2, momentum: 0.9, ..SGD::default() }.into(),
            loss: "sparse_categorical_crossentropy".into(),
            metrics: vec!["accuracy".into()],
            weighted_metrics: weighted_metrics.into_iter().map(Into::into).collect(),
            ..Compile::default()
        })
        .unwrap();
    let (x, y) = (numbers.tensor("classifier/x"), numbers.ints("classifier/y"));
    let data = || match weighted {
        true => Batch::from((&x, &y, &numbers.tensor("classifier/weights"))),
        false => (&x, &y).into(),
    };
    let options = Fit { batch_size: 16, epochs: 3, validation_split: 0.25, class_weight, ..silent() };
    let history = model.fit_blocking(data(), options).unwrap();
    finish(&numbers, case, &model, &history, TOLERANCE);
    evaluated(&numbers, case, &model.evaluate_blocking(data(), quiet()).unwrap());
}

#[test]
fn a_classifier_with_class_weights() {
    classifier("by_class", vec!["accuracy"], vec![(0, 0.5), (2, 3.0)], false);
}

#[test]
fn a_classifier_with_sample_weights() {
    classifier("by_sample", vec!["accuracy", "sparse_categorical_crossentropy"], Vec::new(), true);
}

fn two(case: &str, options: Compile, weighted: bool) {
    let numbers = reference();
    let (left, right) = (Input([3]).named("left"), Input([2]).named("right"));
    let joined = Concatenate::default().on([&left, &right]);
    let hidden = Dense::new(6).activation("tanh").named("hidden").on(&joined);
    let price = Dense::new(1).named("price").on(&hidden);
    let kind = Dense::new(2).activation("softmax").named("kind").on(&hidden);
    let mut model = start(&numbers, case, Functional::new(&[left, right], &[price, kind]).unwrap());
    model
        .compile(Compile {
            optimizer: RMSprop { learning_rate: 1e-2, ..RMSprop::default() }.into(),
            loss: [("price", "mse"), ("kind", "categorical_crossentropy")].into(),
            loss_weights: [("price", 1.0), ("kind", 0.3)].into(),
            ..options
        })
        .unwrap();
    let tensor = |name: &str| numbers.tensor(&format!("two/{name}"));
    let data = |weighted: bool| {
        let weights = if weighted { vec![tensor("w"), tensor("v")] } else { Vec::new() };
        Batch::from((vec![tensor("a"), tensor("b")], vec![tensor("y"), tensor("z")], weights))
    };
    let history = model.fit_blocking(data(weighted), Fit { batch_size: 16, epochs: 3, ..silent() }).unwrap();
    finish(&numbers, case, &model, &history, TOLERANCE);
    evaluated(&numbers, case, &model.evaluate_blocking(data(false), quiet()).unwrap());
    let predicted = pollster::block_on(model.predict_all(data(false).inputs, unseen())).unwrap();
    for (name, tensor) in model.output_names().iter().zip(&predicted) {
        numbers.check(&format!("{case}/predicted/{name}"), tensor);
    }
}

#[test]
fn two_inputs_and_two_outputs() {
    let metrics = vec![("price", ["mae", "mse"]).into(), ("kind", "accuracy").into()];
    two("two_plain", Compile { metrics, ..Compile::default() }, false);
}

#[test]
fn two_outputs_with_sample_weights_of_their_own() {
    let metrics = vec!["mae".into(), "mse".into()];
    let weighted_metrics = vec!["mae".into(), "accuracy".into()];
    two("two_weighted", Compile { metrics, weighted_metrics, ..Compile::default() }, true);
}

#[test]
fn a_layer_frozen_between_two_trainings() {
    let numbers = reference();
    let network = Sequential::new([5])
        .add(Dense::new(7).activation("tanh").named("first"))
        .add(Dense::new(4).activation("tanh").named("middle"))
        .add(Dense::new(1).named("last"));
    let mut model = start(&numbers, "frozen", network.build().unwrap());
    let (x, y) = (numbers.tensor("frozen/x"), numbers.tensor("frozen/y"));
    let compile = || {
        let optimizer = Adam { learning_rate: 1e-2, ..Adam::default() }.into();
        Compile { optimizer, loss: "mse".into(), ..Compile::default() }
    };
    model.compile(compile()).unwrap();
    model.fit_blocking((&x, &y), Fit { batch_size: 16, epochs: 2, ..silent() }).unwrap();
    weights(&numbers, "frozen", "between", &model, TOLERANCE);
    model.set_trainable("middle", false).unwrap();
    model.compile(compile()).unwrap();
    let history = model.fit_blocking((&x, &y), Fit { batch_size: 16, epochs: 3, ..silent() }).unwrap();
    finish(&numbers, "frozen", &model, &history, TOLERANCE);
}

#[test]
fn later_epochs_with_rare_and_short_validation() {
    let numbers = reference();
    let network = Sequential::new([5]).add(Dense::new(1).named("last")).build().unwrap();
    let mut model = start(&numbers, "steps", network);
    let optimizer = SGD { learning_rate: 0.1, ..SGD::default() }.into();
    let metrics = vec!["mse".into()];
    model.compile(Compile { optimizer, loss: "mae".into(), metrics, ..Compile::default() }).unwrap();
    let (x, y) = (numbers.tensor("frozen/x"), numbers.tensor("frozen/y"));
    let first = Data::new((&x, &y)).unwrap().rows(&(0..20).collect::<Vec<_>>());
    let options = Fit {
        batch_size: 8,
        initial_epoch: 2,
        epochs: 6,
        validation_data: Some(first),
        validation_epochs: Some(vec![4, 6]),
        validation_batch_size: Some(8),
        validation_steps: Some(2),
        ..silent()
    };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    let epochs: Vec<f64> = history.epoch.iter().map(|&epoch| epoch as f64).collect();
    assert_eq!(epochs, numbers.values("steps/epoch"));
    finish(&numbers, "steps", &model, &history, TOLERANCE);
}

/// How far f32 may be from f64 after a hundred steps of Adam at a rate of 0.01.
///
/// A weight of magnitude up to 2 is rounded by up to 2^-24 at each step, 6e-6 if always the same way. A gradient is a
/// sum of some 8 products through two layers, each rounded: about 1e-6 relative; Adam divides by its own magnitude, so
/// an update has that error relative to the rate, a hundred of them 1e-6. Both errors change the gradients of the steps
/// after them; near the end of a hundred steps of a smooth loss that is a factor of a few, for which 10 is taken.
const HUNDRED_STEPS: f64 = 10.0 * (6e-6 + 1e-6);

#[test]
fn a_hundred_steps() {
    let numbers = reference();
    let network =
        Sequential::new([4]).add(Dense::new(16).activation("tanh").named("hidden")).add(Dense::new(1).named("last"));
    let mut model = start(&numbers, "hundred", network.build().unwrap());
    let optimizer = Adam { learning_rate: 1e-2, ..Adam::default() }.into();
    let metrics = vec!["mae".into()];
    model.compile(Compile { optimizer, loss: "mse".into(), metrics, ..Compile::default() }).unwrap();
    let (x, y) = (numbers.tensor("hundred/x"), numbers.tensor("hundred/y"));
    let history = model.fit_blocking((&x, &y), Fit { batch_size: 8, epochs: 20, ..silent() }).unwrap();
    finish(&numbers, "hundred", &model, &history, HUNDRED_STEPS);
}
