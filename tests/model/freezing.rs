//! Frozen layers, and networks made from a network.

use crate::{bits, close, quiet, silent, uniform};
use wengert::graph::Spec;
use wengert::prelude::*;

/// Three layers: "first", a shift by a running mean, "last".
fn stack() -> Functional {
    Sequential::new([4])
        .add(Dense::new(5).activation("tanh").named("first"))
        .add(Shift.named("shift"))
        .add(Dense::new(1).named("last"))
        .build()
        .unwrap()
}

/// Subtracts a running mean and adds a weight: what a normalisation does with its statistics.
#[derive(Debug)]
struct Shift;

impl Layer for Shift {
    fn kind(&self) -> &str {
        "shift"
    }
    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let width = inputs[0].shape[1];
        let (beta, mean) =
            (Variable::weight("beta", [width], "zeros".into()), Variable::state("mean", [width], "zeros".into()));
        Ok(vec![beta, mean])
    }
    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let (x, mean) = (&inputs[0], context.state(0));
        if context.mode() == Mode::Train && !context.is_frozen() {
            let seen = x.mean(0);
            context.set_state(0, &mean * 0.5 + &seen * 0.5);
            return x - seen + context.weight(0);
        }
        x - mean + context.weight(0)
    }
}

fn data() -> (Tensor, Tensor) {
    (uniform(1, 32, 4).0, uniform(2, 32, 1).0)
}

fn values(model: &Functional) -> Vec<(String, Vec<f32>)> {
    let device = pollster::block_on(model.device()).unwrap();
    let mut all: Vec<_> = (model.variables().unwrap().into_iter())
        .map(|(name, tensor)| (name, tensor.to_vec_on::<f32>(&device).unwrap()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Names of the variables that training changed.
fn changed(model: &mut Functional) -> Vec<String> {
    let before = values(model);
    let (x, y) = data();
    model.fit_blocking((&x, &y), Fit { batch_size: 8, ..silent() }).unwrap();
    let after = values(model);
    before.into_iter().zip(after).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect()
}

#[test]
fn a_frozen_layer_stays_and_has_no_optimizer_variables() {
    let mut model = stack();
    model.compile(crate::adam()).unwrap();
    let all = ["first/bias", "first/kernel", "last/bias", "last/kernel", "shift/beta", "shift/mean"];
    assert_eq!(changed(&mut model), all);
    let before = values(&model);
    model.set_trainable("first", false).unwrap();
    model.set_trainable("shift", false).unwrap();
    model.compile(crate::adam()).unwrap();
    assert_eq!(before, values(&model), "compile changes no weights");
    assert_eq!(model.trainable().unwrap().len(), 2);
    assert_eq!(model.optimizer().variables(&model.trainable().unwrap()).unwrap().len(), 2 + 2 * 2);
    // The running mean of a frozen layer stays too, and is used: the layer works as it does when predicting.
    assert_eq!(changed(&mut model), ["last/bias", "last/kernel"]);
    model.set_trainable(.., true).unwrap();
    model.compile(crate::adam()).unwrap();
    assert_eq!(changed(&mut model), all);
    model.set_trainable(.., false).unwrap();
    model.compile(crate::adam()).unwrap();
    assert!(changed(&mut model).is_empty());
}

#[test]
fn a_frozen_layer_with_statistics_computes_as_in_inference() {
    let (x, y) = data();
    let mut model = stack();
    model.compile(crate::sgd(0.0)).unwrap();
    // At a rate of 0 only the running mean moves; training uses the batch's own.
    let trained = model.fit_blocking((&x, &y), silent()).unwrap().last("loss").unwrap();
    let evaluated = model.evaluate_blocking((&x, &y), quiet()).unwrap().get("loss").unwrap();
    assert!((trained - evaluated).abs() > 1e-4, "{trained} and {evaluated}");
    model.set_trainable("shift", false).unwrap();
    model.compile(crate::sgd(0.0)).unwrap();
    let trained = model.fit_blocking((&x, &y), silent()).unwrap().last("loss").unwrap();
    close(trained, evaluated);
}

#[test]
fn a_frozen_batch_normalization_keeps_and_uses_its_statistics() {
    let (x, y) = data();
    let layers = Sequential::new([4]).add(wengert::layers::BatchNormalization::default().named("norm"));
    let mut model = layers.add(Dense::new(1).named("last")).build().unwrap();
    model.compile(crate::sgd(0.0)).unwrap();
    assert_eq!(changed(&mut model), ["norm/moving_mean", "norm/moving_variance"]);
    model.set_trainable("norm", false).unwrap();
    model.compile(crate::sgd(0.0)).unwrap();
    let evaluated = model.evaluate_blocking((&x, &y), quiet()).unwrap().get("loss").unwrap();
    close(model.fit_blocking((&x, &y), silent()).unwrap().last("loss").unwrap(), evaluated);
    model.compile(crate::sgd(0.1)).unwrap();
    assert_eq!(changed(&mut model), ["last/bias", "last/kernel"]);
}

#[test]
fn freezing_takes_effect_at_compile_and_not_before() {
    let (x, y) = data();
    let mut model = stack();
    model.compile(crate::adam()).unwrap();
    let before = model.summary();
    model.set_trainable("first", false).unwrap();
    let error = model.fit_blocking((&x, &y), silent()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::State { what } if what.contains("call compile again")), "{error}");
    assert!(pollster::block_on(model.train_on_batch((&x, &y))).is_err());
    // Nothing else is held up by it.
    model.evaluate_blocking((&x, &y), quiet()).unwrap();
    model.predict_blocking(&x, crate::unseen()).unwrap();
    // Taken back, there is nothing left to compile.
    model.set_trainable("first", true).unwrap();
    model.fit_blocking((&x, &y), silent()).unwrap();
    assert_eq!(model.summary(), before);
    let error = model.set_trainable("second", false).unwrap_err().to_string();
    assert_eq!(error, "sequential has no layer \"second\"; it has first, shift, last");
    let stranger = Dense::new(1).shared();
    assert!(model.set_trainable(&stranger, false).is_err());
}

#[test]
fn layers_are_frozen_by_handle_or_when_built() {
    let x = Input([4]);
    let shared = Dense::new(3).shared();
    let hidden = shared.on(&x);
    let y = Dense::new(1).frozen().on(&hidden);
    let mut model = Functional::new(&[x], &[y]).unwrap();
    let count = |model: &Functional| model.trainable().unwrap().len();
    assert_eq!((count(&model), model.count_params()), (2, 4 * 3 + 3 + 4));
    model.compile(crate::adam()).unwrap();
    assert_eq!(changed(&mut model), ["dense/bias", "dense/kernel"]);
    model.set_trainable(&shared, false).unwrap();
    model.compile(crate::adam()).unwrap();
    assert_eq!(count(&model), 0);
}

#[test]
fn a_network_that_is_a_layer_is_frozen_as_a_whole() {
    let inner = Sequential::new([4]).add(Dense::new(5).named("first")).add(Shift).network().unwrap().named("inner");
    let mut model = Sequential::new([4]).add(inner).add(Dense::new(1).named("last")).build().unwrap();
    model.set_trainable("inner", false).unwrap();
    model.compile(crate::adam()).unwrap();
    assert_eq!(changed(&mut model), ["last/bias", "last/kernel"]);
}

#[test]
fn dropout_goes_on_in_a_frozen_layer() {
    let mut model = Sequential::new([4]).add(Dropout::new(0.5)).add(Dense::new(1)).build().unwrap();
    model.set_trainable(.., false).unwrap();
    model.compile(crate::adam()).unwrap();
    let seed = |model: &Functional| bits(model);
    let (x, y) = data();
    let before = seed(&model);
    model.fit_blocking((&x, &y), silent()).unwrap();
    assert!(before != seed(&model), "the counter of its masks counts");
}

#[test]
fn the_summary_counts_what_is_trainable() {
    let mut model = stack();
    let lines = |model: &Functional| {
        let text = model.summary();
        text.lines().filter(|line| line.contains("params:")).map(|line| line.trim().to_string()).collect::<Vec<_>>()
    };
    let before =
        ["Total params: 41 (164.00 B)", "Trainable params: 36 (144.00 B)", "Non-trainable params: 5 (20.00 B)"];
    assert_eq!(lines(&model), before);
    model.set_trainable("first", false).unwrap();
    let after =
        ["Total params: 41 (164.00 B)", "Trainable params: 11 (44.00 B)", "Non-trainable params: 30 (120.00 B)"];
    assert_eq!(lines(&model), after);
    model.compile(crate::adam()).unwrap();
    assert_eq!(lines(&model), after);
}

#[test]
fn weights_go_by_name_whatever_is_frozen() {
    let (mut frozen, plain) = (stack().seed(5).unwrap(), stack());
    frozen.set_trainable("first", false).unwrap();
    frozen.compile(crate::adam()).unwrap();
    let loaded = pollster::block_on(plain.set_weights(&bits(&frozen))).unwrap();
    assert_eq!((loaded.matched.len(), loaded.missing.len()), (6, 0));
    assert_eq!(values(&plain), values(&frozen));
    // Initialised anew, a variable is the same whether frozen or not.
    let again = frozen.seed(7).unwrap();
    assert_eq!(values(&again), values(&stack().seed(7).unwrap()));
}

#[test]
fn features_are_the_outputs_of_inner_layers() {
    let (x, y) = data();
    let mut model = stack();
    model.compile(crate::adam()).unwrap();
    model.fit_blocking((&x, &y), silent()).unwrap();
    let inner = model.network().output_of("shift").unwrap();
    let features = model.extract(std::slice::from_ref(&inner)).unwrap();
    let rows = features.predict_blocking(&x, crate::unseen()).unwrap();
    assert_eq!(rows.shape(), [32, 5].into());
    // What the features do not need is not there, neither in the summary nor in a file of weights.
    let names: Vec<_> = features.variables().unwrap().into_iter().map(|variable| variable.0).collect();
    assert_eq!(names, ["first/kernel", "first/bias", "shift/beta", "shift/mean"]);
    assert_eq!(features.count_params(), model.count_params() - 6);
    assert!(!features.summary().contains("last"), "{}", features.summary());
    // From the features the last layer makes the predictions.
    let device = pollster::block_on(model.device()).unwrap();
    let weight = |name: &str| model.variables().unwrap().into_iter().find(|v| v.0 == name).unwrap().1;
    let by_hand = (rows.matmul(&weight("last/kernel")) + weight("last/bias")).to_vec_on::<f32>(&device).unwrap();
    let predicted = model.predict_blocking(&x, crate::unseen()).unwrap().to_vec::<f32>().unwrap();
    by_hand.iter().zip(&predicted).for_each(|(a, b)| close(f64::from(*a), f64::from(*b)));
    // They are of their moment: the model goes on without them.
    model.fit_blocking((&x, &y), silent()).unwrap();
    let again = features.predict_blocking(&x, crate::unseen()).unwrap();
    assert_eq!(again.to_vec::<f32>().unwrap(), rows.to_vec::<f32>().unwrap());
    // What the network does not compute.
    let stranger = Dense::new(1).on(Input([4]));
    assert!(model.extract(&[stranger]).unwrap_err().to_string().contains("does not compute"));
    assert!(model.network().output_of("none").is_err());
    assert_eq!(model.network().get_layer("last").unwrap().layer().kind(), "dense");
    let error = model.network().get_layer("none").unwrap_err().to_string();
    assert!(error.contains("it has first, shift, last"), "{error}");
}

#[test]
fn a_tap_shares_the_state_of_a_step() {
    /// A loss of the predictions and of an inner layer.
    struct Tapped(Functional);
    impl Model for Tapped {
        crate::base!(0);
        fn test_step(&self, (trainable, fixed, metrics): TestState, batch: Batch) -> Result<(Logs, TestState)> {
            let network = self.0.network();
            let outputs = [network.output_of("first")?, network.output_of("last")?];
            let (y, _) = network.tap(&outputs)?.call(&trainable, &fixed, &batch.inputs, Mode::Infer)?;
            let logs = [("hidden", y[0].square().mean(..)), ("mse", (&y[1] - &batch.targets[0]).square().mean(..))];
            Ok((logs.into(), (trainable, fixed, metrics)))
        }
    }
    let (x, y) = data();
    let mut model = Tapped(stack());
    model.compile(crate::adam()).unwrap();
    let expected = model.0.evaluate_blocking((&x, &y), quiet()).unwrap().get("loss").unwrap();
    let scores = model.evaluate_blocking((&x, &y), quiet()).unwrap();
    close(scores.get("mse").unwrap(), expected);
    assert!(scores.get("hidden").unwrap() > 0.0);
}

/// Nothing of it is trained, frozen or not, and yet it matters whether it is.
#[test]
fn a_layer_of_statistics_alone_is_frozen_and_thawed() {
    let statistics = BatchNormalization { center: false, scale: false, ..BatchNormalization::default() };
    let mut model = Sequential::new([4]).add(statistics.named("bn")).add(Dense::new(1)).build().unwrap();
    let options = || Compile { optimizer: SGD::default().into(), loss: "mse".into(), ..Compile::default() };
    model.compile(options()).unwrap();
    for (trainable, moved) in [(false, false), (true, true)] {
        model.set_trainable("bn", trainable).unwrap();
        let (x, y) = data();
        let error = model.fit_blocking((&x, &y), silent()).unwrap_err();
        assert!(error.to_string().contains("call compile again"), "{error}");
        model.compile(options()).unwrap();
        let names = changed(&mut model);
        assert_eq!(names.iter().any(|name| name == "bn/moving_mean"), moved, "{names:?}");
    }
}

#[test]
fn a_wrapper_is_frozen_and_not_the_layer_in_it() {
    let wrapped = |layer: wengert::layers::LayerRef| Sequential::new([3, 4]).add(layer).build();
    let error = wrapped(TimeDistributed::new(Dense::new(2).frozen()).into()).unwrap_err().to_string();
    assert!(error.contains("TimeDistributed::new(layer).frozen()"), "{error}");
    let model = wrapped(TimeDistributed::new(Dense::new(2)).frozen()).unwrap();
    assert!(model.network().variables().iter().all(|variable| !variable.trainable));
    let error = Sequential::new([4]).add(Reshape::new([2_000_000_000; 3])).build().unwrap_err();
    assert!(error.to_string().contains("do not fill"), "{error}");
}
