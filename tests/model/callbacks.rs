//! Callbacks: when they are called, what they see, and what they may change.

use std::cell::RefCell;

use crate::{adam, bits, mlp, sgd, silent, uniform};
use wengert::prelude::*;

fn data() -> (Tensor, Tensor) {
    (uniform(1, 32, 4).0, uniform(2, 32, 1).0)
}

fn compiled() -> Functional {
    let mut model = mlp();
    model.compile(adam()).unwrap();
    model
}

fn after(epochs: usize) -> Vec<u8> {
    let (mut model, (x, y)) = (compiled(), data());
    model.fit_blocking((&x, &y), Fit { epochs, ..silent() }).unwrap();
    bits(&model)
}

/// Notes every hook.
#[derive(Default)]
struct Notes(Vec<String>);

macro_rules! note {
    ($($hook:ident)*) => {
        impl Callback for Notes {
            $(fn $hook<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
                self.0.push(format!("{} {} {}", stringify!($hook), run.epoch, run.step));
                wengert::callbacks::nothing()
            })*
        }
    };
}
note! { on_train_begin on_train_end on_epoch_begin on_epoch_end on_batch_begin on_batch_end }

#[test]
fn hooks_come_in_order() {
    let (x, y) = data();
    let mut notes = Notes::default();
    let options = Fit { batch_size: 16, epochs: 2, callbacks: vec![&mut notes], ..silent() };
    compiled().fit_blocking((&x, &y), options).unwrap();
    let epoch = |e: usize| {
        vec![
            format!("on_epoch_begin {e} 0"),
            format!("on_batch_begin {e} 0"),
            format!("on_batch_end {e} 1"),
            format!("on_batch_begin {e} 1"),
            format!("on_batch_end {e} 2"),
            format!("on_epoch_end {e} 2"),
        ]
    };
    let all = [vec!["on_train_begin 0 0".into()], epoch(0), epoch(1), vec!["on_train_end 1 2".into()]].concat();
    assert_eq!(notes.0, all);
}

#[test]
fn a_callback_sees_the_scores_of_its_epoch_and_can_stop() {
    let (x, y) = data();
    let seen = RefCell::new(Vec::new());
    let mut stop = LambdaCallback::new().on_epoch_end(|run| {
        let scores = run.scores.clone();
        run.stop = run.epoch == 2;
        seen.borrow_mut().push(scores);
    });
    let options = Fit { epochs: 9, validation_data: Some((&x, &y).into()), callbacks: vec![&mut stop], ..silent() };
    let history = compiled().fit_blocking((&x, &y), options).unwrap();
    drop(stop);
    assert_eq!(history.epoch, [0, 1, 2]);
    let seen = seen.into_inner();
    for (epoch, scores) in seen.iter().enumerate() {
        for name in ["loss", "mae", "val_loss", "val_mae"] {
            assert_eq!(scores.get(name), Some(history.get(name).unwrap()[epoch]));
        }
    }
    // In the middle of an epoch: the step is the last, and the epoch is still reported.
    let mut stop = LambdaCallback::new().on_batch_end(|run| run.stop = run.step == 3);
    let options = Fit { batch_size: 4, epochs: 9, callbacks: vec![&mut stop], ..silent() };
    let mut notes = Notes::default();
    let options =
        Fit { callbacks: options.callbacks.into_iter().chain([&mut notes as &mut dyn Callback]).collect(), ..options };
    let history = compiled().fit_blocking((&x, &y), options).unwrap();
    assert_eq!(history.epoch, [0]);
    assert_eq!(notes.0[notes.0.len() - 2..], ["on_epoch_end 0 3", "on_train_end 0 3"]);
    // Before it began: no epoch at all.
    struct Never;
    impl Callback for Never {
        fn on_train_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
            run.stop = true;
            wengert::callbacks::nothing()
        }
    }
    let mut model = compiled();
    let history = model.fit_blocking((&x, &y), Fit { callbacks: vec![&mut Never], ..silent() }).unwrap();
    assert!(history.epoch.is_empty() && history.history.is_empty());
    assert!(bits(&model) == bits(&mlp()));
}

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

/// Saves after each epoch, and keeps handles on the variables.
struct Saves {
    folder: std::path::PathBuf,
    kept: Vec<Vec<(String, Tensor)>>,
}

impl Callback for Saves {
    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            run.networks()[0].save_weights(self.folder.join(format!("{}.safetensors", run.epoch))).await?;
            self.kept.push(run.variables()?);
            Ok(())
        })
    }
}

#[test]
fn what_a_callback_saved_or_kept_is_of_its_moment() {
    let (x, y) = data();
    let folder = std::env::temp_dir().join(format!("wengert-callbacks-{}", std::process::id()));
    let mut saves = Saves { folder: folder.clone(), kept: Vec::new() };
    let mut model = compiled();
    let options = Fit { epochs: 3, callbacks: vec![&mut saves], ..silent() };
    model.fit_blocking((&x, &y), options).unwrap();
    assert!(bits(&model) == after(3), "holding on to variables does not change the training");
    let device = pollster::block_on(model.device()).unwrap();
    for epoch in 0..3 {
        let file = std::fs::read(folder.join(format!("{epoch}.safetensors"))).unwrap();
        assert!(file == after(epoch + 1), "epoch {epoch}");
        let loaded = mlp();
        pollster::block_on(loaded.set_weights(&file)).unwrap();
        for ((name, kept), (_, saved)) in saves.kept[epoch].iter().zip(loaded.variables().unwrap()) {
            let (kept, saved) = (kept.to_vec_on::<f32>(&device).unwrap(), saved.to_vec_on::<f32>(&device).unwrap());
            assert_eq!(kept, saved, "{name} of epoch {epoch}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Fails at the end of an epoch.
struct Fails(usize);

impl Callback for Fails {
    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let failed = run.epoch == self.0;
        Box::pin(
            async move { if failed { Err(Error::Io { path: "disk".into(), why: "full".into() }) } else { Ok(()) } },
        )
    }
}

#[test]
fn an_error_of_a_callback_ends_the_training_and_the_model_keeps_its_state() {
    let (x, y) = data();
    let mut model = compiled();
    let mut fails = Fails(1);
    let options = Fit { epochs: 5, callbacks: vec![&mut fails], ..silent() };
    assert_eq!(model.fit_blocking((&x, &y), options).unwrap_err().to_string(), "disk: full");
    assert!(bits(&model) == after(2));
    model.fit_blocking((&x, &y), Fit { initial_epoch: 2, epochs: 3, ..silent() }).unwrap();
    assert!(bits(&model) == after(3));
}

#[test]
fn a_callback_may_evaluate_the_network_in_training() {
    let (x, y) = data();
    struct Checks(Tensor, Tensor, Vec<f64>);
    impl Callback for Checks {
        fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
            Box::pin(async move {
                let scores = run.networks()[0].evaluate((&self.0, &self.1), crate::quiet()).await?;
                self.2.push(scores.get("loss").unwrap_or(f64::NAN));
                Ok(())
            })
        }
    }
    let mut checks = Checks(x.clone(), y.clone(), Vec::new());
    let mut model = compiled();
    model.fit_blocking((&x, &y), Fit { epochs: 3, callbacks: vec![&mut checks], ..silent() }).unwrap();
    assert!(bits(&model) == after(3));
    assert!(checks.2.len() == 3 && checks.2.is_sorted_by(|a, b| a > b), "{:?}", checks.2);
}

/// A data set on which a rate far too high soon fails.
fn diverging() -> Functional {
    let mut model = mlp();
    model.compile(sgd(1e4)).unwrap();
    model
}

#[test]
fn early_stopping_waits_and_restores_the_best_weights() {
    use wengert::callbacks::Direction;
    // Validation on targets of the other sign gets worse as training gets better.
    let (x, y) = data();
    let against = Tensor::new(&y.to_vec::<f32>().unwrap().iter().map(|v| -v).collect::<Vec<_>>(), [32, 1]);
    let fit = |stopping: &mut EarlyStopping, epochs: usize| {
        let mut model = compiled();
        let validation_data = Some((&x, &against).into());
        let options = Fit { epochs, validation_data, callbacks: vec![stopping], ..silent() };
        let history = model.fit_blocking((&x, &y), options).unwrap();
        (history, bits(&model))
    };
    let (all, _) = fit(&mut EarlyStopping::new("loss").patience(99), 12);
    let scores = all.get("val_loss").unwrap();
    assert_eq!(all.epoch.len(), 12);
    // Keras' rule on the scores of the whole training: when it must stop, and what was best until then.
    let rule = |patience: usize, delta: f64| {
        let (mut best, mut at, mut waited) = (f64::INFINITY, 0, 0);
        for (epoch, &score) in scores.iter().enumerate() {
            if score < best - delta {
                (best, at, waited) = (score, epoch, 0);
            } else {
                waited += 1;
                if waited >= patience {
                    return (Some(epoch), at);
                }
            }
        }
        (None, at)
    };
    for (patience, delta) in [(0, 0.0), (1, 0.0), (3, 0.0), (2, 1e-3), (50, 0.0)] {
        let mut stopping = EarlyStopping::new("val_loss").patience(patience).min_delta(delta);
        let (history, _) = fit(&mut stopping, 12);
        let (stopped, best) = rule(patience, delta);
        assert_eq!(stopping.stopped_epoch(), stopped);
        assert_eq!(history.epoch.len(), stopped.map_or(12, |epoch| epoch + 1));
        assert_eq!(stopping.best(), Some((best, scores[best])));
        // Whether it stopped or not, the weights are those after the best epoch.
        let mut restoring = EarlyStopping::new("val_loss").patience(patience).min_delta(delta).restore_best_weights();
        for _ in 0..2 {
            assert!(fit(&mut restoring, 12).1 == after(best + 1), "patience {patience}: epoch {best}");
        }
    }
    // "Better" may be up: the loss itself falls, so the second epoch is worse already.
    let (history, _) = fit(&mut EarlyStopping::new("loss").direction(Direction::Max), 12);
    assert_eq!(history.epoch.len(), 2);
    let mut unknown = EarlyStopping::new("f1");
    let options = Fit { callbacks: vec![&mut unknown], ..silent() };
    let error = compiled().fit_blocking((&x, &y), options).unwrap_err().to_string();
    assert_eq!(error, "there is no score \"f1\" to monitor; there are loss, mae");
    // An epoch without validation is not judged.
    let mut stopping = EarlyStopping::new("val_loss");
    let options = Fit { epochs: 3, callbacks: vec![&mut stopping], ..silent() };
    assert_eq!(compiled().fit_blocking((&x, &y), options).unwrap().epoch.len(), 3);
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
fn checkpoints_are_of_every_epoch_or_of_the_best() {
    let (x, y) = data();
    let folder = std::env::temp_dir().join(format!("wengert-checkpoints-{}", std::process::id()));
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    let mut all = ModelCheckpoint::new(&path("{epoch}.safetensors"));
    let mut best = ModelCheckpoint::new(&path("best.safetensors")).save_best_only("loss");
    let mut worst = ModelCheckpoint::new(&path("worst.safetensors"))
        .save_best_only("loss")
        .direction(wengert::callbacks::Direction::Max);
    let options = Fit { epochs: 3, callbacks: vec![&mut all, &mut best, &mut worst], ..silent() };
    compiled().fit_blocking((&x, &y), options).unwrap();
    for epoch in 1..=3 {
        assert!(read(&format!("{epoch}.safetensors")) == after(epoch));
    }
    assert!(read("best.safetensors") == after(3));
    assert!(read("worst.safetensors") == after(1));
    let mut other = ModelCheckpoint::new(&path("other.safetensors")).network(1);
    let error = compiled().fit_blocking((&x, &y), Fit { callbacks: vec![&mut other], ..silent() }).unwrap_err();
    assert!(error.to_string().contains("network 1"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}
