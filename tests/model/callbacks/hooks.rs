//! The order of hooks, the numbers in them, and who sees what.

use std::cell::RefCell;

use wengert::prelude::*;

use super::{compiled, data};
use crate::{adam, mlp, quiet, silent, uniform, unseen};

/// Notes every hook, with the epoch and the batch.
#[derive(Default)]
pub struct Notes(pub Vec<String>);

macro_rules! note {
    ($($hook:ident)*) => {
        impl Callback for Notes {
            $(fn $hook<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
                let hook = stringify!($hook).strip_prefix("on_").unwrap();
                self.0.push(format!("{hook} {} {}", run.epoch, run.batch));
                wengert::callbacks::nothing()
            })*
        }

        /// The same of closures.
        fn closures<'f>(notes: &'f RefCell<Vec<String>>) -> LambdaCallback<'f> {
            LambdaCallback::new()$(.$hook(move |run| {
                let hook = stringify!($hook).strip_prefix("on_").unwrap();
                notes.borrow_mut().push(format!("{hook} {} {}", run.epoch, run.batch));
            }))*
        }
    };
}
note! {
    on_train_begin on_train_end on_epoch_begin on_epoch_end on_batch_begin on_batch_end
    on_test_begin on_test_end on_test_batch_begin on_test_batch_end
    on_predict_begin on_predict_end on_predict_batch_begin on_predict_batch_end
}

/// Of keras 3.15.1 for 16 steps per execution, 48 steps and one batch of validation, `train_batch` written `batch`.
const KERAS: &str = "train_begin 0 0, epoch_begin 0 0, batch_begin 0 0, batch_end 0 15, batch_begin 0 16, batch_end 0 31, \
    batch_begin 0 32, batch_end 0 47, test_begin 0 0, test_batch_begin 0 0, test_batch_end 0 0, test_end 0 0, \
    epoch_end 0 47, train_end 0 47";

#[test]
fn hooks_come_in_order_with_the_numbers_of_keras() {
    let ((x, y), (train_x, train_y)) = (data(), (uniform(1, 192, 4).0, uniform(2, 192, 1).0));
    let mut model = mlp();
    model.compile(Compile { steps_per_execution: 16, ..adam() }).unwrap();
    let (mut notes, closures_notes) = (Notes::default(), RefCell::default());
    let mut closures = closures(&closures_notes);
    let options = Fit {
        batch_size: 4,
        validation_data: Some((&x, &y).into()),
        validation_batch_size: Some(32),
        callbacks: vec![&mut notes, &mut closures],
        ..silent()
    };
    model.fit_blocking((&train_x, &train_y), options).unwrap();
    assert_eq!(notes.0.join(", "), KERAS);
    notes.0.clear();
    let options = Evaluate { batch_size: 16, callbacks: vec![&mut notes, &mut closures], ..quiet() };
    model.evaluate_blocking((&x, &y), options).unwrap();
    let test = "test_begin 0 0, test_batch_begin 0 0, test_batch_end 0 0, test_batch_begin 0 1, test_batch_end 0 1, test_end 0 1";
    assert_eq!(notes.0.join(", "), test);
    notes.0.clear();
    let options = Predict { batch_size: 16, callbacks: vec![&mut notes, &mut closures], ..unseen() };
    model.predict_blocking(&x, options).unwrap();
    let predict = test.replace("test", "predict");
    assert_eq!(notes.0.join(", "), predict);
    drop(closures);
    assert_eq!(closures_notes.into_inner().join(", "), format!("{KERAS}, {test}, {predict}"));
}

#[test]
fn what_a_callback_adds_is_seen_by_those_after_it_and_by_the_history() {
    let (x, y) = data();
    let seen = RefCell::new(Vec::new());
    let look = |run: &mut Run<'_>| seen.borrow_mut().push(run.scores.get("twice"));
    let mut before = LambdaCallback::new().on_epoch_end(look);
    let mut add = LambdaCallback::new().on_epoch_end(|run| {
        let twice = 2.0 * run.scores.get("loss").unwrap();
        run.scores.set("twice", twice);
    });
    let mut after = LambdaCallback::new().on_epoch_end(look);
    let options = Fit { epochs: 2, callbacks: vec![&mut before, &mut add, &mut after], ..silent() };
    let history = compiled().fit_blocking((&x, &y), options).unwrap();
    drop((before, after));
    let twice: Vec<f64> = history.get("loss").unwrap().iter().map(|loss| 2.0 * loss).collect();
    assert_eq!(history.get("twice").unwrap(), twice);
    assert_eq!(seen.into_inner(), [None, Some(twice[0]), None, Some(twice[1])]);
}

#[test]
fn evaluation_and_prediction_end_when_a_callback_says_so() {
    let (x, y) = data();
    let model = compiled();
    let stop = || {
        LambdaCallback::new()
            .on_test_batch_end(|run| run.stop |= run.batch == 1)
            .on_predict_batch_end(|run| run.stop |= run.batch == 1)
    };
    let mut stops = stop();
    let options = Predict { batch_size: 8, callbacks: vec![&mut stops], ..unseen() };
    let some = model.predict_blocking(&x, options).unwrap();
    assert_eq!(some.shape(), [16, 1].into());
    let all = model.predict_blocking(&x, unseen()).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(some.to_vec::<f32>().unwrap(), all[..16]);
    let ended = RefCell::new(Vec::new());
    let mut end = LambdaCallback::new()
        .on_test_end(|run| ended.borrow_mut().push((run.step, run.scores.clone(), run.validating)));
    let options = Evaluate { batch_size: 8, callbacks: vec![&mut stops, &mut end], ..quiet() };
    let scores = model.evaluate_blocking((&x, &y), options).unwrap();
    // A validation is finished, and the training ends after it.
    let validation_data = Some((&x, &y).into());
    let callbacks: Vec<&mut dyn Callback> = vec![&mut stops, &mut end];
    let options = Fit { epochs: 9, validation_data, validation_batch_size: Some(8), callbacks, ..silent() };
    let history = compiled().fit_blocking((&x, &y), options).unwrap();
    drop(end);
    let ended = ended.into_inner();
    assert_eq!((history.epoch.len(), ended.len()), (1, 2));
    assert_eq!((ended[0].0, &ended[0].1, ended[0].2), (2, &scores, false));
    assert_eq!((ended[1].0, ended[1].1.get("loss"), ended[1].2), (4, history.last("val_loss"), true));
}
