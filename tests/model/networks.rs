//! Networks of several shapes under `fit`.

use crate::{adam, bits, silent, uniform, unseen};
use wengert::prelude::*;

#[test]
fn dropout_draws_from_its_seed() {
    let ((x, _), (y, _)) = (uniform(1, 64, 4), uniform(2, 64, 1));
    let train = |seed: u32| {
        let mut model = Sequential::new([4])
            .add(Dense::new(16).activation("relu"))
            .add(Dropout::new(0.5).seed(seed))
            .add(Dense::new(1))
            .build()
            .unwrap();
        model.compile(adam()).unwrap();
        model.fit_blocking((&x, &y), Fit { epochs: 2, ..silent() }).unwrap();
        let predict = || model.predict_blocking(&x, unseen()).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(predict(), predict(), "nothing is dropped when predicting");
        (bits(&model), predict())
    };
    let (first, second) = (train(1), train(2));
    assert!(first == train(1));
    assert_ne!(first.1, second.1);
}

#[test]
fn the_counter_of_dropout_goes_on() {
    let (x, _) = uniform(1, 12, 4);
    let mut model = Sequential::new([4]).add(Dropout::new(0.5)).add(Dense::new(1)).build().unwrap();
    model.compile(adam()).unwrap();
    let y = uniform(2, 12, 1).0;
    let device = pollster::block_on(model.device()).unwrap();
    let counter =
        |model: &Functional| model.variables().unwrap().pop().unwrap().1.to_vec_on::<u32>(&device).unwrap()[1];
    let start = counter(&model);
    model.fit_blocking((&x, &y), Fit { batch_size: 4, epochs: 2, ..silent() }).unwrap();
    model.evaluate_blocking((&x, &y), crate::quiet()).unwrap();
    assert_eq!(counter(&model), start + 6);
}

#[test]
fn two_branches_are_added_and_concatenated() {
    let x = Input([4]);
    let left = Dense::new(8).activation("tanh").on(&x);
    let right = Dense::new(8).on(&x);
    let sum = Add.on([&left, &right]);
    let both = Concatenate::default().on([&sum, &left]);
    let y = Dense::new(1).on(&both);
    let mut model = Functional::new(&[x], &[y]).unwrap();
    assert_eq!(model.count_params(), 2 * (4 * 8 + 8) + 17);
    model.compile(adam()).unwrap();
    let (x, values) = uniform(1, 256, 4);
    let target: Vec<f32> = values.chunks(4).map(|row| (3.0 * row[0]).tanh() + row[1] - row[2]).collect();
    let y = Tensor::new(&target, [256, 1]);
    let history = model.fit_blocking((&x, &y), Fit { epochs: 30, ..silent() }).unwrap();
    let loss = history.get("loss").unwrap();
    assert!(loss[29] < 0.2 * loss[0], "{loss:?}");
}

#[test]
fn several_inputs_and_targets_are_a_step_of_ones_own() {
    struct TwoHeads(Functional);
    impl Model for TwoHeads {
        crate::base!(0);
        fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
            let (trainable, non_trainable, optimizer, metrics) = state;
            let ((loss, non_trainable), grads) = value_and_grad(
                |tv| {
                    let network = self.0.network();
                    let (y, updated) = network.call(tv, &non_trainable, &batch.inputs, Mode::Train)?;
                    let error = |i: usize| (&y[i] - &batch.targets[i]).square().mean(..);
                    Ok((error(0) + error(1), updated))
                },
                &trainable,
            )?;
            let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;
            Ok(([("loss", loss)].into(), (trainable, non_trainable, optimizer, metrics)))
        }
    }
    let (a, b) = (Input([2]), Input([3]));
    let joined = Concatenate::default().on([&a, &b]);
    let (y, z) = (Dense::new(1).on(&joined), Dense::new(1).on(&joined));
    let mut model = TwoHeads(Functional::new(&[a, b], &[y, z]).unwrap());
    model.compile(Compile { optimizer: "adam".into(), ..Compile::default() }).unwrap();
    let tensor = |seed: u32, width: usize| uniform(seed, 40, width).0;
    let data = || (vec![tensor(1, 2), tensor(2, 3)], vec![tensor(3, 1), tensor(4, 1)]);
    let history = model.fit_blocking(data(), Fit { epochs: 20, batch_size: 40, ..silent() }).unwrap();
    let loss = history.get("loss").unwrap();
    assert!(loss[19] < loss[0], "{loss:?}");
    // The ready-made call is for one output, and says so.
    let error = pollster::block_on(model.predict_on_batch(tensor(1, 2))).unwrap_err();
    assert!(error.to_string().contains('2'), "{error}");
}

/// Every step adds to the same gradients: sums of more tensors than a shader can bind.
#[test]
fn a_recurrent_network_of_many_steps_trains() {
    let ids = Tensor::new(&(0..8 * 40).map(|i| i % 11).collect::<Vec<i32>>(), [8, 40]);
    let inputs = Input([40]);
    let states = GRU::new(6).return_sequences(true).on(Embedding::new(11, 5).on(&inputs));
    let mut model = Functional::new(&[inputs], &[Dense::new(11).activation("softmax").on(&states)]).unwrap();
    let loss = "sparse_categorical_crossentropy".into();
    model
        .compile(Compile {
            optimizer: Adam { learning_rate: 0.03, ..Adam::default() }.into(),
            loss,
            ..Compile::default()
        })
        .unwrap();
    let history = model.fit_blocking((&ids, &ids), Fit { epochs: 15, ..silent() }).unwrap();
    let losses = history.get("loss").unwrap();
    assert!(losses[14] < 0.8 * losses[0], "{losses:?}");
}

/// The default steps work on the first of several networks; averages of one that is not trained are not made.
#[test]
fn of_several_networks_the_first_is_trained_by_default() {
    struct Taught {
        student: Functional,
        teacher: Functional,
    }
    impl Model for Taught {
        crate::base!(student);
        fn networks(&self) -> Vec<&Functional> {
            vec![&self.student, &self.teacher]
        }
    }
    let one = |name: &str| Sequential::new([4]).add(Dense::new(1).named(name)).build().unwrap();
    let mut model = Taught { student: one("student"), teacher: one("teacher") };
    let compile = || Compile {
        optimizer: Optimizer::from(Adam::default()).ema(wengert::optimizers::Ema::default()).into(),
        loss: "mse".into(),
        ..Compile::default()
    };
    model.compile(compile()).unwrap();
    let ((x, _), (y, _)) = (uniform(1, 16, 4), uniform(2, 16, 1));
    let error = model.fit_blocking((&x, &y), silent()).unwrap_err().to_string();
    assert!(error.contains("not compiled with an optimizer for each of its networks"), "{error}");
    model.teacher.compile(compile()).unwrap();
    let before = (bits(&model.student), bits(&model.teacher));
    model.fit_blocking((&x, &y), silent()).unwrap();
    assert_ne!(bits(&model.student), before.0);
    assert!(bits(&model.teacher) == before.1, "the teacher has not changed");
}
