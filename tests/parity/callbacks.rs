//! Decisions of callbacks: when training stops, which epoch is kept, what the learning rate becomes, what is saved, and
//! under which name.
//!
//! Keras' callbacks were given made-up scores; the rules of this crate are given the same. Decisions are whole numbers
//! and equal; rates are products of the same two numbers and equal in every bit.

use wengert::callbacks::Direction;
use wengert::callbacks::rules::{Cadence, Improvement, Plateau, Stopping};

use crate::reference::Reference;

/// The cases of a kind: everything before the last part of a name.
fn cases(reference: &Reference, kind: &str) -> Vec<String> {
    let mut cases: Vec<String> = reference
        .names()
        .into_iter()
        .filter(|name| name.starts_with(&format!("{kind}/")))
        .filter_map(|name| name.rsplit_once('/'))
        .map(|(case, _)| case.to_string())
        .collect();
    cases.dedup();
    assert!(cases.len() >= 20, "{kind}: {} cases", cases.len());
    cases
}

fn some(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

#[test]
fn training_stops_where_it_does_in_keras() {
    let reference = Reference::open("callbacks");
    let (mut stops, mut late) = (0, 0);
    for case in cases(&reference, "stopping") {
        let options = reference.values(&format!("{case}/options"));
        let decisions = reference.values(&format!("{case}/decisions"));
        let mut rule = Stopping::new(Improvement { up: options[0] == 1.0, min_delta: options[1] });
        (rule.patience, rule.baseline, rule.start_from_epoch) =
            (options[2] as usize, some(options[3]), options[4] as usize);
        let mut stopped = -1.0;
        let mut kept = -1.0;
        for (epoch, &score) in reference.values(&format!("{case}/scores")).iter().enumerate() {
            let verdict = rule.observe(epoch, score);
            if verdict.keep {
                kept = epoch as f64;
            }
            if verdict.stop {
                stopped = epoch as f64;
                break;
            }
        }
        assert_eq!([stopped, kept], decisions[..2], "{case}: {options:?}");
        assert_eq!(rule.kept().map_or(-1.0, |epoch| epoch as f64), kept);
        assert_eq!(rule.best().map(|best| best.1), some(decisions[2]), "{case}");
        stops += usize::from(stopped >= 0.0);
        late += usize::from(stopped > kept + 1.0);
    }
    // Otherwise the cases would say little.
    assert!(stops > 40 && late > 20, "{stops} stop, {late} of them after a wait");
}

#[test]
fn learning_rates_fall_as_they_do_in_keras() {
    let reference = Reference::open("callbacks");
    let mut falls = 0;
    for case in cases(&reference, "plateau") {
        let options = reference.values(&format!("{case}/options"));
        let mut rule = Plateau::new(Improvement { up: options[0] == 1.0, min_delta: options[1] });
        (rule.factor, rule.patience, rule.cooldown, rule.min_lr) =
            (options[2], options[3] as usize, options[4] as usize, options[5]);
        let mut rate = options[6];
        let rates: Vec<f64> = (reference.values(&format!("{case}/scores")).iter())
            .map(|&score| {
                let lower = rule.observe(score, rate);
                falls += usize::from(lower.is_some());
                rate = lower.unwrap_or(rate);
                rate
            })
            .collect();
        assert_eq!(rates, reference.values(&format!("{case}/rates")), "{case}: {options:?}");
    }
    assert!(falls > 200, "{falls}");
}

#[test]
fn the_best_epochs_are_those_of_keras() {
    let reference = Reference::open("callbacks");
    for case in cases(&reference, "saving") {
        let options = reference.values(&format!("{case}/options"));
        let improvement = Improvement { up: options[0] == 1.0, min_delta: 0.0 };
        let mut best = some(options[1]);
        let scores = reference.values(&format!("{case}/scores")).iter().enumerate();
        let saved = scores.filter(|(_, score)| {
            let better = improvement.better(**score, best);
            best = if better { Some(**score) } else { best };
            better
        });
        let saved: Vec<f64> = saved.map(|(epoch, _)| epoch as f64).collect();
        assert_eq!(saved, reference.values(&format!("{case}/epochs")), "{case}: {options:?}");
    }
}

#[test]
fn checkpoints_of_batches_are_due_when_they_are_in_keras() {
    let reference = Reference::open("callbacks");
    for case in cases(&reference, "cadence") {
        let options: Vec<usize> = reference.values(&format!("{case}/options")).iter().map(|&n| n as usize).collect();
        let [every, fused, steps, epochs] = options[..] else { panic!("{case}") };
        let mut cadence = Cadence::new(every);
        let mut saved = Vec::new();
        for epoch in 0..epochs {
            for first in (0..steps).step_by(fused) {
                let last = (first + fused).min(steps) - 1;
                if cadence.due(last) {
                    saved.extend([epoch as f64, last as f64]);
                }
            }
        }
        assert_eq!(saved, reference.values(&format!("{case}/saved")), "{case}: {options:?}");
    }
}

#[test]
fn a_metric_is_better_in_the_direction_that_keras_knows() {
    let reference = Reference::open("callbacks");
    let names: Vec<&str> = reference.names().into_iter().filter_map(|name| name.strip_prefix("direction/")).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let up = Some(reference.values(&format!("direction/{name}")) == [1.0]);
        for name in [name.to_string(), format!("val_{name}"), format!("{name}_1"), format!("val_out_{name}_12")] {
            assert_eq!(Direction::Auto.up(&name), up, "{name}");
        }
        assert_eq!(Direction::Max.up(name), Some(true));
        assert_eq!(Direction::Min.up(name), Some(false));
    }
    assert_eq!(Direction::Auto.up("val_loss"), Some(false));
    assert_eq!(Direction::Auto.up("learning_rate"), None);
}
