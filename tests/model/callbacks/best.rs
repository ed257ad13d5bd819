//! What is done with the best epoch: training ends, weights are restored or saved.

use wengert::callbacks::Direction;
use wengert::prelude::*;

use super::{Folder, after, compiled, data, made_up};
use crate::{bits, silent};

#[test]
fn early_stopping_waits_and_restores_the_best_weights() {
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
    let refused = |stopping: &mut dyn Callback| {
        let options = Fit { callbacks: vec![stopping], ..silent() };
        compiled().fit_blocking((&x, &y), options).unwrap_err().to_string()
    };
    let error = refused(&mut EarlyStopping::new("f1_score"));
    assert_eq!(error, "there is no score \"f1_score\" to monitor; there are loss, mae");
    // Keras refuses it too.
    let error = refused(&mut EarlyStopping::new("wealth"));
    assert_eq!(error, "whether more of \"wealth\" is better cannot be told from its name; set a direction");
    // An epoch without validation is not judged.
    let mut stopping = EarlyStopping::new("val_loss");
    let options = Fit { epochs: 3, callbacks: vec![&mut stopping], ..silent() };
    assert_eq!(compiled().fit_blocking((&x, &y), options).unwrap().epoch.len(), 3);
}

#[test]
fn a_baseline_and_a_late_start_are_heeded() {
    let (x, y) = data();
    let fit = |stopping: &mut EarlyStopping, scores: &[f64]| {
        let mut given = made_up("score", scores);
        let options = Fit { epochs: scores.len(), callbacks: vec![&mut given, stopping], ..silent() };
        let mut model = compiled();
        (model.fit_blocking((&x, &y), options).unwrap().epoch.len(), bits(&model))
    };
    // Better and better, but never than 1.
    let rising = [0.1, 0.2, 0.3, 0.2, 0.4, 0.5];
    let (epochs, weights) =
        fit(&mut EarlyStopping::new("score").patience(2).baseline(1.0).restore_best_weights(), &rising);
    assert_eq!(epochs, 4);
    assert!(weights == after(3));
    assert_eq!(fit(&mut EarlyStopping::new("score").patience(2).baseline(0.15), &rising).0, 6);
    // The first epochs are not looked at, neither as the best nor as no progress.
    let falling = [0.9, 0.8, 0.1, 0.2, 0.3, 0.25, 0.2, 0.1];
    let mut late = EarlyStopping::new("score").patience(2).start_from_epoch(2).restore_best_weights();
    let (epochs, weights) = fit(&mut late, &falling);
    assert_eq!((epochs, late.best(), late.stopped_epoch()), (7, Some((4, 0.3)), Some(6)));
    assert!(weights == after(5));
    // NaN is never the best; if there is nothing else, the first epoch is restored, as in Keras.
    let mut stopping = EarlyStopping::new("score").patience(3).restore_best_weights();
    let (epochs, weights) = fit(&mut stopping, &[f64::NAN; 5]);
    assert_eq!((epochs, stopping.best()), (3, None));
    assert!(weights == after(1));
    let mut stopping = EarlyStopping::new("score").patience(3).restore_best_weights();
    assert_eq!(fit(&mut stopping, &[f64::NAN, 0.5, f64::NAN, 0.25]).0, 4);
    assert_eq!(stopping.best(), Some((1, 0.5)));
}

#[test]
fn checkpoints_are_of_every_epoch_or_of_the_best() {
    let (x, y) = data();
    let folder = Folder::new("checkpoints");
    let (path, read) = (|name: &str| folder.path(name), |name: &str| folder.read(name));
    let mut all = ModelCheckpoint::new(&path("{epoch}.safetensors"));
    let mut best = ModelCheckpoint::new(&path("best.safetensors")).save_best_only("loss");
    let mut worst = ModelCheckpoint::new(&path("worst.safetensors")).save_best_only("loss").direction(Direction::Max);
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
}

#[test]
fn paths_have_scores_in_them_and_what_is_wrong_with_them_is_found() {
    let (x, y) = data();
    let folder = Folder::new("paths");
    let fit = |checkpoint: &mut ModelCheckpoint| {
        let validation_data = Some((&x, &y).into());
        let options = Fit { epochs: 2, validation_data, callbacks: vec![checkpoint], ..silent() };
        compiled().fit_blocking((&x, &y), options)
    };
    let history = fit(&mut ModelCheckpoint::new(&folder.path("{epoch:02d}-{val_loss:.3f}.safetensors"))).unwrap();
    for (epoch, loss) in history.get("val_loss").unwrap().iter().enumerate() {
        assert!(folder.read(&format!("{:02}-{loss:.3}.safetensors", epoch + 1)) == after(epoch + 1));
    }
    // Nothing is trained for a path that cannot be.
    let mut model = compiled();
    let mut wrong = ModelCheckpoint::new(&folder.path("{epoch:02x}"));
    model.fit_blocking((&x, &y), Fit { callbacks: vec![&mut wrong], ..silent() }).unwrap_err();
    assert!(bits(&model) == after(0));
    let error = fit(&mut ModelCheckpoint::new(&folder.path("{f1:.2f}"))).unwrap_err().to_string();
    assert_eq!(error, "there is no number \"f1\" for a path; there are epoch, loss, mae, val_loss, val_mae");
}

#[test]
fn a_threshold_is_what_the_first_has_to_be_better_than() {
    let (x, y) = data();
    let folder = Folder::new("threshold");
    let scores = [0.5, 0.4, 0.3, 0.35, 0.2];
    let mut given = made_up("error", &scores);
    let mut checkpoint =
        ModelCheckpoint::new(&folder.path("{epoch}")).save_best_only("error").initial_value_threshold(0.4);
    let mut fit = |from, to| {
        let callbacks: Vec<&mut dyn Callback> = vec![&mut given, &mut checkpoint];
        let options = Fit { initial_epoch: from, epochs: to, callbacks, ..silent() };
        compiled().fit_blocking((&x, &y), options).unwrap();
        let mut saved: Vec<String> =
            std::fs::read_dir(&folder.0).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        saved.sort();
        saved
    };
    assert_eq!(fit(0, 4), ["3"]);
    // The next training goes on from there.
    assert_eq!(fit(3, 5), ["3", "5"]);
}

#[test]
fn a_checkpoint_every_few_batches_is_of_that_batch() {
    let (x, y) = data();
    let folder = Folder::new("batches");
    let fit = |checkpoint: &mut ModelCheckpoint, steps_per_execution, shuffle| {
        let mut model = crate::mlp();
        model.compile(Compile { steps_per_execution, ..crate::adam() }).unwrap();
        // 8 steps an epoch.
        let options = Fit { batch_size: 4, epochs: 2, shuffle, callbacks: vec![checkpoint], ..silent() };
        model.fit_blocking((&x, &y), options).unwrap();
    };
    let names = || {
        let mut names: Vec<String> =
            std::fs::read_dir(&folder.0).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    fit(&mut ModelCheckpoint::new(&folder.path("a-{epoch}-{batch}")).save_freq(3), 1, true);
    // Counted across epochs.
    assert_eq!(names(), ["a-1-3", "a-1-6", "a-2-1", "a-2-4", "a-2-7"]);
    let steps = |count: usize| {
        let mut model = compiled();
        let options = Fit { batch_size: 4, steps_per_epoch: Some(count), ..silent() };
        model.fit_blocking((&x, &y), options).unwrap();
        bits(&model)
    };
    assert!(folder.read("a-1-3") == steps(3) && folder.read("a-2-4") == steps(12));
    // With 4 steps in a submission: at the first end of one by which there are 3.
    std::fs::remove_dir_all(&folder.0).unwrap();
    let mut fused = ModelCheckpoint::new(&folder.path("b-{epoch}-{batch}-{loss:.1f}")).save_freq(3);
    fit(&mut fused, 4, true);
    let whole: Vec<String> = names().iter().map(|name| name.rsplit_once('-').unwrap().0.to_string()).collect();
    assert_eq!(whole, ["b-1-4", "b-1-8", "b-2-4", "b-2-8"]);
}
