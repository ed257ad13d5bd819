//! Callbacks: when they are called, what they see, and what they may change.

mod best;
pub mod files;
mod hooks;
mod nan;
mod rates;
mod steady;

use std::cell::RefCell;
use std::path::PathBuf;

use crate::{adam, bits, mlp, silent, uniform};
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

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("wengert-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Folder(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Puts made-up scores, one for each epoch, among those of the training.
fn made_up<'f>(name: &'f str, values: &'f [f64]) -> LambdaCallback<'f> {
    LambdaCallback::new().on_epoch_end(move |run| run.scores.set(name, values[run.epoch]))
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
    let mut notes = hooks::Notes::default();
    let options =
        Fit { callbacks: options.callbacks.into_iter().chain([&mut notes as &mut dyn Callback]).collect(), ..options };
    let history = compiled().fit_blocking((&x, &y), options).unwrap();
    assert_eq!(history.epoch, [0]);
    assert_eq!(notes.0[notes.0.len() - 2..], ["epoch_end 0 2", "train_end 0 2"]);
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
        Box::pin(async move {
            if failed { Err(Error::new(ErrorKind::Io { path: "disk".into(), why: "full".into() })) } else { Ok(()) }
        })
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

/// Its own metric besides those of `compile`, which the network of a model does not know of.
struct Tracked(Functional, Metric);

impl Model for Tracked {
    crate::base!(0);
    fn metrics(&self) -> Vec<Metric> {
        [self.0.metrics(), vec![self.1.clone()]].concat()
    }
}

#[test]
fn metrics_of_an_epoch_go_on_behind_an_evaluation_and_a_prediction() {
    struct Look<'a>(&'a Tensor, &'a Tensor);
    impl Callback for Look<'_> {
        fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
            Box::pin(async move {
                let network = run.network(0)?;
                network.predict_on_batch(self.0).await?;
                network.evaluate((self.0, self.1), crate::quiet()).await?;
                Ok(())
            })
        }
    }
    let ((x, _), (y, _)) = (uniform(1, 24, 4), uniform(2, 24, 1));
    let fit = |callbacks: Vec<&mut dyn Callback>| {
        let mut model = Tracked(mlp(), Metric::from(wengert::metrics::MeanAbsoluteError).named("mae"));
        model.compile(Compile { optimizer: SGD::default().into(), loss: "mse".into(), ..Compile::default() }).unwrap();
        model.fit_blocking((&x, &y), Fit { batch_size: 8, epochs: 2, callbacks, ..silent() }).unwrap().history
    };
    let plain = fit(Vec::new());
    assert!(plain.iter().any(|(name, _)| name == "mae"));
    assert_eq!(fit(vec![&mut Look(&x, &y)]), plain);
}

#[test]
fn every_metric_is_saved_before_it_has_seen_anything() {
    use wengert::metrics::{Auc, ConfusionMatrix, F1Score, MeanIoU, R2Score};
    let all = [
        Metric::from(Auc::default()),
        ConfusionMatrix::new(3).into(),
        F1Score::new(3).into(),
        MeanIoU::new(3).into(),
        R2Score::default().into(),
        wengert::metrics::get("accuracy").unwrap(),
    ];
    for metric in all {
        let (name, initial) = (metric.name(), metric.initial());
        for (at, tensor) in initial.iter().enumerate() {
            assert!(initial[..at].iter().all(|other| !other.same(tensor)), "{name}: {at} is another's");
            tensor.to_vec::<f32>().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
