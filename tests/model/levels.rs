//! What the guide promises around its examples: levels of use that keep what fit does, and ways to build a model.

use std::cell::RefCell;

use crate::{base, bits, mlp, quiet, silent, uniform};
use wengert::layers::Network;
use wengert::prelude::*;

/// The guide's step on whatever network.
struct CustomModel(Functional);

impl Model for CustomModel {
    base!(0);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y) = batch.xy()?;
        let ((loss, (y_pred, non_trainable)), grads) =
            value_and_grad(|tv| self.compute_loss_and_updates(tv, &non_trainable, &x, &y, Mode::Train), &trainable)?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;
        let (logs, metrics) = update(&self.metrics(), metrics, &loss, &y, &y_pred);
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }
}

fn update(
    metrics: &[Metric],
    variables: Vec<Variables>,
    loss: &Tensor,
    y: &Tensor,
    y_pred: &Tensor,
) -> (Logs, Vec<Variables>) {
    let each = |(metric, vars): (&Metric, Variables)| {
        let vars = match metric.name() {
            "loss" => metric.stateless_update_state(&vars, Observed::value(loss)),
            _ => metric.stateless_update_state(&vars, Observed::pair(y, y_pred)),
        };
        ((metric.name().to_string(), metric.stateless_result(&vars)), vars)
    };
    metrics.iter().zip(variables).map(each).unzip()
}

fn network() -> Network {
    let layers = Sequential::new([4]).add(Dense::new(8).activation("tanh"));
    layers.add(Dropout::new(0.25)).add(Dense::new(1)).network().unwrap()
}

fn data() -> (Tensor, Tensor) {
    (uniform(1, 83, 4).0, uniform(2, 83, 1).0)
}

#[test]
fn a_custom_step_keeps_callbacks_and_fused_steps_and_the_counter_of_dropout() {
    let (x, y) = data();
    let train = |steps_per_execution: usize| {
        let mut model = CustomModel(Functional::of(network()).unwrap());
        model.compile(Compile { steps_per_execution, ..crate::adam() }).unwrap();
        let device = pollster::block_on(model.0.device()).unwrap();
        let submissions = || device.stats().submissions;
        let (seen, before) = (RefCell::new(Vec::new()), RefCell::new(0));
        let mut see =
            LambdaCallback::new().on_epoch_begin(|_| *before.borrow_mut() = submissions()).on_batch_end(|run| {
                seen.borrow_mut().push((run.epoch, run.step, submissions() - *before.borrow()));
            });
        let options = Fit { batch_size: 8, epochs: 2, callbacks: vec![&mut see], ..silent() };
        let history = model.fit_blocking((&x, &y), options).unwrap();
        drop(see);
        let counter = model.0.variables().unwrap().pop().unwrap().1.to_vec_on::<u32>(&device).unwrap()[1];
        (bits(&model.0), history, counter, seen.into_inner())
    };
    let (single, history, counter, seen) = train(1);
    assert_eq!(seen.len(), 22);
    assert_eq!(counter, 22, "one mask for each step");
    let (fused, same_history, counter, seen) = train(5);
    assert!(single == fused);
    assert_eq!((history, counter), (same_history, 22));
    // The second epoch makes nothing anew: two groups of five, and the batch of 3 rows.
    let second: Vec<_> = seen.into_iter().filter(|entry| entry.0 == 1).collect();
    assert_eq!(second, [(1, 5, 1), (1, 10, 2), (1, 11, 3)]);
}

#[test]
fn three_ways_to_build_a_model_train_alike() {
    let (x, y) = data();
    let train = |model: &mut dyn Model| {
        model.compile(crate::adam()).unwrap();
        model.fit_blocking((&x, &y), Fit { epochs: 2, ..silent() }).unwrap();
        bits(model.base())
    };
    let input = Input([4]);
    let hidden = Dense::new(8).activation("tanh").on(&input);
    let functional = || Functional::new(std::slice::from_ref(&input), &[Dense::new(1).on(&hidden)]).unwrap();
    let expected = train(&mut mlp());
    assert!(expected == train(&mut functional()));
    assert!(expected == train(&mut CustomModel(functional())));
    assert!(expected == train(&mut CustomModel(mlp())));
}

#[test]
fn a_loop_of_ones_own_computes_what_fit_does() {
    let (x, y) = data();
    let mut model = mlp();
    model.compile(crate::adam()).unwrap();
    let (network, optimizer) = (model.network().clone(), model.optimizer().clone());
    // Level 3: the state is a tuple in hand, the step a closure.
    let (trainable, non_trainable) = network.init(0).unwrap();
    let variables = optimizer.variables(&trainable).unwrap();
    let metrics = model.metrics();
    let mut state: TrainState =
        (trainable, non_trainable, vec![variables], metrics.iter().map(Metric::initial).collect());
    let loss = wengert::losses::get("mse").unwrap();
    let step = |(trainable, non_trainable, optimizer_variables, vars): TrainState, batch: &Batch| {
        let (x, y) = batch.xy()?;
        let ((value, (y_pred, non_trainable)), grads) = value_and_grad(
            |tv| {
                let (y_pred, updated) = network.call(tv, &non_trainable, std::slice::from_ref(&x), Mode::Train)?;
                Ok((loss.call(&y, &y_pred[0], None), (y_pred[0].clone(), updated)))
            },
            &trainable,
        )?;
        let (trainable, optimizer_variables) = optimizer.stateless_apply(&optimizer_variables, &grads, &trainable)?;
        let (logs, vars) = update(&metrics, vars, &value, &y, &y_pred);
        Ok((logs, (trainable, non_trainable, optimizer_variables, vars)))
    };
    let device = pollster::block_on(model.device()).unwrap();
    let mut runner = Step::new(&device);
    let rows = Data::new((&x, &y)).unwrap();
    let batches: Vec<Vec<usize>> = (0..83).collect::<Vec<_>>().chunks(32).map(<[usize]>::to_vec).collect();
    let mut logs = Logs::default();
    for batch in &batches {
        logs = runner.run(&mut state, &rows.rows(batch), step).unwrap();
    }
    let by_hand = logs.read_blocking().unwrap();
    let mut custom = CustomModel(mlp().on(&device));
    custom.compile(crate::adam()).unwrap();
    let history = custom.fit_blocking((&x, &y), Fit { shuffle: false, ..silent() }).unwrap();
    for (name, value) in by_hand {
        assert_eq!(history.last(&name), Some(f64::from(value)), "{name}");
    }
    for (a, b) in state.0.iter().zip(custom.0.trainable().unwrap()) {
        assert_eq!(a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    }
}

#[test]
fn numbers_of_the_host_may_be_f64() {
    let values: Vec<f64> = uniform(1, 64, 4).1.iter().map(|&x| f64::from(x)).collect();
    let targets: Vec<f64> = values.chunks(4).map(|row| row.iter().sum()).collect();
    let (x, y) = (Tensor::new(&values, [64, 4]), Tensor::new(&targets, [64, 1]));
    assert_eq!((x.dtype(), y.dtype()), (DType::F32, DType::F32));
    let mut model = crate::linear(4);
    model.compile(crate::sgd(0.1)).unwrap();
    let loss = model.fit_blocking((&x, &y), Fit { epochs: 20, ..silent() }).unwrap();
    assert!(loss.last("loss").unwrap() < 0.1 * loss.get("loss").unwrap()[0]);
}

#[test]
fn the_forward_pass_is_a_function_of_its_variables() {
    let model = Functional::of(network()).unwrap();
    let device = pollster::block_on(model.device()).unwrap();
    let (trainable, fixed) = model.network().init(3).unwrap();
    let (x, _) = data();
    let call = |mode| model.stateless_call(&trainable, &fixed, &x, mode).unwrap();
    let read = |t: &Tensor| t.to_vec_on::<f32>(&device).unwrap();
    let counter = |fixed: &[Tensor]| fixed[0].to_vec_on::<u32>(&device).unwrap();
    let ((first, after), (again, _)) = (call(Mode::Train), call(Mode::Train));
    // The same variables give the same mask; the new ones are returned, and the given ones stay.
    assert_eq!(read(&first), read(&again));
    assert_eq!((counter(&after)[1], counter(&fixed)[1]), (counter(&fixed)[1] + 1, counter(&fixed)[1]));
    let (other, _) = model.stateless_call(&trainable, &after, &x, Mode::Train).unwrap();
    assert_ne!(read(&first), read(&other));
    let (inferred, unchanged) = call(Mode::Infer);
    assert_ne!(read(&first), read(&inferred));
    assert_eq!(counter(&unchanged), counter(&fixed));
}

#[test]
fn the_state_is_a_flat_list_of_buffers_in_the_order_of_the_guide() {
    /// Looks at the state it is given.
    struct Looks(Functional);
    impl Model for Looks {
        base!(0);
        fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
            let shapes = |list: &[Tensor]| list.iter().map(Tensor::shape).collect::<Vec<_>>();
            assert_eq!(shapes(&state.0), [[4, 8].into(), [8].into(), [8, 1].into(), [1].into()]);
            assert_eq!(shapes(&state.1), [[2].into()]);
            // The count of steps, the rate, then two moments for each trainable.
            assert_eq!((state.2.len(), state.2[0].len()), (1, 2 + 2 * 4));
            // The tracker of the loss and the mean absolute error: a sum and a count each.
            assert_eq!(state.3.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
            assert_eq!(state.leaves().len(), 4 + 1 + 10 + 4);
            self.0.train_step(state, batch)
        }
    }
    let (x, y) = data();
    let mut model = Looks(Functional::of(network()).unwrap());
    model.compile(crate::adam()).unwrap();
    model.fit_blocking((&x, &y), silent()).unwrap();
}

#[test]
fn the_model_remembers_its_newest_history() {
    let (x, y) = data();
    let mut model = CustomModel(mlp());
    model.compile(crate::adam()).unwrap();
    assert_eq!(model.0.history(), History::default());
    let history = model.fit_blocking((&x, &y), Fit { epochs: 3, ..silent() }).unwrap();
    assert_eq!((history.epochs, history.steps, history.epoch.len()), (3, 3, 3));
    assert_eq!(model.0.history(), history);
    // Also what a training that failed had done.
    let mut fail = Fails;
    let options = Fit { epochs: 3, callbacks: vec![&mut fail], ..silent() };
    assert!(model.fit_blocking((&x, &y), options).is_err());
    assert_eq!(model.0.history().epoch, [0]);
    model.evaluate_blocking((&x, &y), quiet()).unwrap();
    assert_eq!(model.0.history().epoch, [0]);
}

/// Fails in the second epoch.
struct Fails;

impl Callback for Fails {
    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let failed = run.epoch == 1;
        Box::pin(async move { if failed { Err(Error::argument("on purpose")) } else { Ok(()) } })
    }
}

#[test]
fn of_several_networks_the_first_is_evaluated_and_predicts() {
    /// Two networks, of which only the training step is written.
    struct Pair {
        first: Functional,
        second: Functional,
    }
    impl Model for Pair {
        base!(first);
        fn networks(&self) -> Vec<&Functional> {
            vec![&self.first, &self.second]
        }
        fn train_step(&self, state: TrainState, _: Batch) -> Result<(Logs, TrainState)> {
            let ([first, second], metrics) = self.split(state)?;
            let rate = &second.optimizer[wengert::optimizers::LEARNING_RATE];
            Ok(([("rate", rate * 1.0)].into(), NetworkState::join([first, second], metrics)))
        }
    }
    let (x, y) = data();
    let mut alone = Functional::of(network()).unwrap();
    alone.compile(crate::sgd(0.1)).unwrap();
    let expected = alone.evaluate_blocking((&x, &y), quiet()).unwrap();
    let mut model = Pair { first: Functional::of(network()).unwrap(), second: mlp() };
    model.compile(crate::sgd(0.1)).unwrap();
    model.second.compile(crate::adam()).unwrap();
    assert_eq!(model.evaluate_blocking((&x, &y), quiet()).unwrap(), expected);
    // As validation too, and both networks keep their state.
    let before = (bits(&model.first), bits(&model.second));
    let options = Fit { validation_data: Some((&x, &y).into()), ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    assert_eq!(history.last("val_mae"), expected.get("mae"));
    assert!((history.last("rate").unwrap() - 1e-3).abs() < 1e-8);
    assert!(before == (bits(&model.first), bits(&model.second)));
    let predicted = |model: &dyn Model| model.predict_blocking(&x, crate::unseen()).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(predicted(&model), predicted(&alone));
}
