//! Learning rates that callbacks change.

use wengert::callbacks::rules::{Improvement, Plateau};
use wengert::prelude::*;

use super::{after, compiled, data, made_up};
use crate::{bits, mlp, sgd, silent};

/// Sets a learning rate before a step.
struct RateAt(usize, f64);

impl Callback for RateAt {
    fn on_batch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            if run.epoch == self.0 {
                run.set_learning_rate(self.1).await?;
                assert_eq!(run.learning_rate().await?, self.1);
            }
            Ok(())
        })
    }
}

#[test]
fn a_learning_rate_holds_from_the_next_step_on() {
    let (x, y) = data();
    let mut model = compiled();
    let mut rate = RateAt(2, 0.0);
    let options = Fit { epochs: 4, callbacks: vec![&mut rate], ..silent() };
    model.fit_blocking((&x, &y), options).unwrap();
    assert!(bits(&model) == after(2));
    // It is the rate that is changed, nothing is recorded anew and nothing is made.
    let mut model = mlp();
    model.compile(sgd(0.5)).unwrap();
    let mut other = mlp();
    other.compile(sgd(0.25)).unwrap();
    model.fit_blocking((&x, &y), Fit { callbacks: vec![&mut RateAt(0, 0.25)], ..silent() }).unwrap();
    other.fit_blocking((&x, &y), silent()).unwrap();
    assert!(bits(&model) == bits(&other));
}

/// A model with a rate that halves without rounding.
fn half() -> Functional {
    let mut model = mlp();
    model.compile(sgd(0.5)).unwrap();
    model
}

#[test]
fn a_schedule_sets_the_rate_of_each_epoch() {
    let (x, y) = data();
    let mut seen = Vec::new();
    let mut model = half();
    let mut schedule = LearningRateScheduler::new(|epoch, rate| {
        seen.push((epoch, rate));
        if epoch < 2 { rate } else { rate * 0.5 }
    });
    let options = Fit { epochs: 4, callbacks: vec![&mut schedule], ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    drop(schedule);
    assert_eq!(seen, [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.25)]);
    assert_eq!(history.get("learning_rate").unwrap(), [0.5, 0.5, 0.25, 0.125]);
    assert_eq!(pollster::block_on(model.learning_rate()).unwrap(), 0.125);
    // The steps had those rates.
    let mut other = half();
    for (epoch, rate) in [0.5, 0.5, 0.25, 0.125].into_iter().enumerate() {
        pollster::block_on(other.set_learning_rate(rate)).unwrap();
        other.fit_blocking((&x, &y), Fit { initial_epoch: epoch, epochs: epoch + 1, ..silent() }).unwrap();
    }
    assert!(bits(&model) == bits(&other));
    let mut none = LearningRateScheduler::new(|_, _| f64::NAN);
    let error = half().fit_blocking((&x, &y), Fit { callbacks: vec![&mut none], ..silent() }).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NonFinite { .. }));
    let mut other = LearningRateScheduler::new(|_, rate| rate).network(1);
    half().fit_blocking((&x, &y), Fit { callbacks: vec![&mut other], ..silent() }).unwrap_err();
}

#[test]
fn a_plateau_lowers_the_rate_from_the_next_epoch_on() {
    let (x, y) = data();
    let scores = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5];
    let mut given = made_up("error", &scores);
    let mut reduce = ReduceLROnPlateau::new("error").factor(0.5).patience(2).cooldown(1).min_lr(0.1);
    let mut model = half();
    let options = Fit { epochs: scores.len(), callbacks: vec![&mut given, &mut reduce], ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    let mut rule = Plateau::new(Improvement { up: false, min_delta: 1e-4 });
    (rule.factor, rule.patience, rule.cooldown, rule.min_lr) = (0.5, 2, 1, 0.1);
    let mut rate = 0.5f32;
    let mut rates = Vec::new();
    for score in scores {
        // As in Keras the history has the rate that the epoch was trained with.
        rates.push(f64::from(rate));
        rate = rule.observe(score, f64::from(rate)).map_or(rate, |rate| rate as f32);
    }
    assert_eq!(history.get("learning_rate").unwrap(), rates);
    assert_eq!(pollster::block_on(model.learning_rate()).unwrap(), f64::from(rate));
    assert!(rates.contains(&0.125) && rate == 0.1, "{rates:?}");
    for factor in [0.0, 1.0, f64::NAN] {
        let mut wrong = ReduceLROnPlateau::new("loss").factor(factor);
        let error = half().fit_blocking((&x, &y), Fit { callbacks: vec![&mut wrong], ..silent() }).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Argument { .. }), "{error}");
    }
}
