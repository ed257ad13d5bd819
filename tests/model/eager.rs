//! Steps that are called for every batch instead of recorded.

use std::sync::Mutex;

use crate::{adam, base, bits, mlp, quiet, silent, uniform};
use wengert::prelude::*;

/// Reads in its steps what it computes, and decides by it.
struct Watched {
    network: Functional,
    seen: Mutex<Vec<f32>>,
}

impl Watched {
    fn new() -> Watched {
        Watched { network: mlp(), seen: Mutex::default() }
    }
}

impl Model for Watched {
    base!(network);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let before = state.0[0].to_vec::<f32>()?[0];
        let (x, y) = batch.xy()?;
        let ((_, in_loss), grads) = value_and_grad(
            |tv| {
                let (y_pred, _) = self.stateless_call(tv, &state.1, &x, Mode::Train)?;
                let loss = self.compute_loss(&x, &y, &y_pred, None)?;
                // Within the function that is differentiated too.
                let value = loss.to_vec::<f32>()?[0];
                Ok((loss, if value > 0.0 { y_pred } else { -y_pred }))
            },
            &state.0,
        )?;
        let read = [before, grads[0].to_vec::<f32>()?[0], in_loss.to_vec::<f32>()?[0]];
        assert!(read.iter().all(|value| value.is_finite()));
        self.seen.lock().unwrap().push(before);
        self.network.train_step(state, batch)
    }

    fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
        state.0[0].to_vec::<f32>()?;
        self.network.test_step(state, batch)
    }

    fn predict_step(&self, state: PredictState, batch: Batch) -> Result<Tensor> {
        state.0[0].to_vec::<f32>()?;
        self.network.predict_step(state, batch)
    }
}

#[test]
fn an_eager_step_can_be_read_in_and_trains_alike() {
    let ((x, _), (y, _)) = (uniform(1, 20, 4), uniform(2, 20, 1));
    let options = || Fit { batch_size: 8, epochs: 2, validation_split: 0.2, ..silent() };
    let mut recorded = mlp();
    recorded.compile(adam()).unwrap();
    let expected = recorded.fit_blocking((&x, &y), options()).unwrap();
    for steps_per_execution in [1, 2] {
        let mut model = Watched::new();
        model.compile(Compile { run_eagerly: true, steps_per_execution, ..adam() }).unwrap();
        let history = model.fit_blocking((&x, &y), options()).unwrap();
        let seen = model.seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 4, "it is called for every batch");
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
        for (name, values) in &expected.history {
            for (a, b) in values.iter().zip(history.get(name).unwrap()) {
                crate::close(*a, *b);
            }
        }
        let scores = model.evaluate_blocking((&x, &y), quiet()).unwrap();
        crate::close(scores.get("loss").unwrap(), recorded.evaluate_blocking((&x, &y), quiet()).unwrap().values()[0]);
        let predict =
            |model: &dyn Model| model.predict_blocking(&x, Predict { batch_size: 8, ..crate::unseen() }).unwrap();
        let (a, b) = (predict(&model).to_vec::<f32>().unwrap(), predict(&recorded).to_vec::<f32>().unwrap());
        a.iter().zip(&b).for_each(|(a, b)| crate::close(f64::from(*a), f64::from(*b)));
        // Compiled again it is recorded, and may not read.
        model.compile(adam()).unwrap();
        let error = model.fit_blocking((&x, &y), options()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ReadInsideStep { .. }), "{error}");
    }
}

#[test]
fn an_eager_step_that_fails_leaves_the_state() {
    struct Fails(Functional);
    impl Model for Fails {
        base!(0);
        fn train_step(
            &self,
            (mut trainable, fixed, optimizer, metrics): TrainState,
            _: Batch,
        ) -> Result<(Logs, TrainState)> {
            trainable.pop();
            Ok((Logs::default(), (trainable, fixed, optimizer, metrics)))
        }
    }
    let ((x, _), (y, _)) = (uniform(1, 8, 4), uniform(2, 8, 1));
    let mut model = Fails(mlp());
    model.compile(Compile { run_eagerly: true, ..adam() }).unwrap();
    let before = bits(&model.0);
    assert!(
        matches!(model.fit_blocking((&x, &y), silent()), Err(error) if matches!(error.kind(), ErrorKind::State { .. }))
    );
    assert!(before == bits(&model.0));
}

#[test]
fn an_error_of_any_batch_ends_an_eager_group() {
    struct Faulty(Functional, Mutex<usize>);
    impl Model for Faulty {
        base!(0);
        fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
            let mut calls = self.1.lock().unwrap();
            *calls += 1;
            if *calls == 2 { Err(Error::state("the second batch")) } else { self.0.train_step(state, batch) }
        }
    }
    let mut model = Faulty(mlp(), Mutex::default());
    model.compile(Compile { run_eagerly: true, steps_per_execution: 4, ..adam() }).unwrap();
    let ((x, _), (y, _)) = (uniform(1, 16, 4), uniform(2, 16, 1));
    let error = model.fit_blocking((&x, &y), Fit { batch_size: 4, ..silent() }).unwrap_err();
    assert!(error.to_string().contains("the second batch"), "{error}");
}
