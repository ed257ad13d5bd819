//! A training whose numbers are no numbers any more.

use std::cell::RefCell;

use wengert::prelude::*;

use super::{compiled, data};
use crate::{mlp, sgd, silent};

/// A data set on which a rate far too high soon fails.
fn diverging() -> Functional {
    let mut model = mlp();
    model.compile(sgd(1e4)).unwrap();
    model
}

#[test]
fn a_training_that_diverges_is_stopped() {
    let (x, y) = data();
    let mut terminate = TerminateOnNaN::new();
    let options = Fit { batch_size: 4, epochs: 50, callbacks: vec![&mut terminate], ..silent() };
    let history = diverging().fit_blocking((&x, &y), options).unwrap();
    assert!(history.epoch.len() < 50);
    assert!(!history.last("loss").unwrap().is_finite());
    assert_eq!(terminate.found().unwrap().0, history.epoch.len() - 1);
    let options = Fit { epochs: 2, callbacks: vec![&mut terminate], ..silent() };
    compiled().fit_blocking((&x, &y), options).unwrap();
    // In the middle of a long epoch too.
    let mut terminate = TerminateOnNaN::new();
    let steps = RefCell::new(0);
    let mut count = LambdaCallback::new().on_batch_end(|run| *steps.borrow_mut() = run.step);
    let options = Fit {
        batch_size: 4,
        steps_per_epoch: Some(1_000_000),
        callbacks: vec![&mut count, &mut terminate],
        ..silent()
    };
    diverging().fit_blocking((&x, &y), options).unwrap();
    drop(count);
    assert!(terminate.found().is_some() && steps.into_inner() < 1_000_000);
}

#[test]
fn every_batch_is_looked_at_if_it_is_asked_for() {
    let (x, y) = data();
    // The loss of each step on its own shows which one it was.
    let first = || {
        let losses = RefCell::new(Vec::new());
        let mut see = LambdaCallback::new()
            .on_batch_end(|run| losses.borrow_mut().push(pollster::block_on(run.read_logs()).unwrap()));
        let options = Fit { batch_size: 4, epochs: 1, shuffle: false, steps_per_epoch: Some(64), ..silent() };
        diverging().fit_blocking((&x, &y), Fit { callbacks: vec![&mut see], ..options }).unwrap();
        drop(see);
        let not = |scores: &Scores| scores.iter().any(|(_, value)| !value.is_finite());
        losses.into_inner().iter().position(not).unwrap()
    };
    let first = first();
    for every in [1, 5] {
        let mut terminate = TerminateOnNaN::new().every(every);
        let steps = RefCell::new(0);
        let mut count = LambdaCallback::new().on_batch_end(|run| *steps.borrow_mut() = run.step);
        let callbacks: Vec<&mut dyn Callback> = vec![&mut count, &mut terminate];
        let options = Fit { batch_size: 4, shuffle: false, steps_per_epoch: Some(64), callbacks, ..silent() };
        diverging().fit_blocking((&x, &y), options).unwrap();
        drop(count);
        assert_eq!(steps.into_inner(), (first + 1).next_multiple_of(every));
        assert_eq!(terminate.found().map(|found| found.0), Some(0));
    }
    // As an error: no callback hears of the end of the training.
    let mut terminate = TerminateOnNaN::new().every(1).raise_error();
    let mut end = LambdaCallback::new().on_epoch_end(|_| panic!("an epoch")).on_train_end(|_| panic!("a training"));
    let callbacks: Vec<&mut dyn Callback> = vec![&mut terminate, &mut end];
    let options = Fit { batch_size: 4, shuffle: false, steps_per_epoch: Some(64), callbacks, ..silent() };
    let error = diverging().fit_blocking((&x, &y), options).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NonFinite { .. }), "{error}");
    assert!(error.to_string().contains(&format!("after {} steps", first + 1)), "{error}");
    // A training whose numbers are in order is not touched.
    let mut terminate = TerminateOnNaN::new().every(1).raise_error();
    compiled().fit_blocking((&x, &y), Fit { epochs: 3, callbacks: vec![&mut terminate], ..silent() }).unwrap();
    assert_eq!(terminate.found(), None);
}
