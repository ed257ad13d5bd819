//! Whatever a training is made of goes on: each kind of optimizer, frozen layers, streams, and what callbacks write.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Folder, Keep, bytes, data};
use crate::callbacks::files::{of, scalars};
use crate::{bits, mlp, sgd, silent};
use wengert::callbacks::nothing;
use wengert::optimizers::schedules::{CosineDecay, ExponentialDecay};
use wengert::optimizers::{Clip, Ema, Nadam, Optimizer};
use wengert::prelude::*;

fn whole(model: &Functional) -> Vec<u8> {
    bytes(&pollster::block_on(model.checkpoint()).unwrap())
}

/// Trains, and again from each of its moments: variables of all kinds, history and later checkpoints are the same.
fn resumes(what: &str, compiled: impl Fn() -> Functional, fit: impl Fn(&mut Functional, Fit<'_>) -> Result<History>) {
    let (mut keep, mut model) = (Keep::default(), compiled());
    let history = fit(&mut model, Fit { callbacks: vec![&mut keep], ..silent() }).unwrap();
    assert!(keep.0.len() > 4 && model.history() == history, "{what}");
    for (at, checkpoint) in keep.0.iter().enumerate() {
        let (mut again, mut resumed) = (Keep::default(), compiled());
        let resume_from = Some(checkpoint.clone());
        let other = fit(&mut resumed, Fit { callbacks: vec![&mut again], resume_from, ..silent() }).unwrap();
        assert!((&other, &resumed.history()) == (&history, &history), "{what}, {at}");
        assert!(whole(&resumed) == whole(&model), "{what}, {at}");
        let rest: Vec<_> = keep.0[at + 1..].iter().map(bytes).collect();
        assert!(again.0.iter().map(bytes).collect::<Vec<_>>() == rest, "{what}, {at}");
    }
}

#[test]
fn schedules_averages_and_accumulated_gradients_go_on() {
    let (x, y) = data();
    let adam = || Optimizer::from(Adam::default());
    let nadam = Optimizer::from(Nadam::default()).learning_rate(ExponentialDecay::new(0.02, 2, 0.7));
    let momentum = SGD { learning_rate: 0.1, momentum: 0.9, ..SGD::default() };
    let averaged = Ema { momentum: 0.8, overwrite_frequency: Some(3) };
    let optimizers = [
        ("a schedule", adam().learning_rate(CosineDecay::new(0.02, 5)), false),
        ("averages", adam().ema(averaged), false),
        ("accumulation", Optimizer::from(momentum).gradient_accumulation_steps(4).clip(Clip::GlobalNorm(0.1)), false),
        ("all of them", nadam.ema(averaged).gradient_accumulation_steps(2).weight_decay(0.1), false),
        ("a frozen layer", adam().ema(Ema::default()), true),
    ];
    for (what, optimizer, frozen) in optimizers {
        let compiled = || {
            let mut model = mlp();
            if frozen {
                model.set_trainable("dense", false).unwrap();
            }
            let optimizer = optimizer.clone().into();
            model.compile(Compile { optimizer, loss: "mse".into(), ..Compile::default() }).unwrap();
            model
        };
        resumes(what, compiled, |model, options| {
            model.fit_blocking((&x, &y), Fit { batch_size: 45, epochs: 3, ..options })
        });
    }
}

/// Batches of 9 rows, in no order that is ever repeated.
fn batches<'d>(x: &'d Tensor, y: &'d Tensor) -> impl Iterator<Item = Result<Batch>> + 'd {
    let data = Data::new((x, y)).unwrap();
    (0..).map(move |step: usize| Ok(data.rows(&(0..9).map(|row| (step * step + row) % 90).collect::<Vec<_>>())))
}

#[test]
fn a_stream_passes_over_what_was_trained_on() {
    let (x, y) = data();
    let compiled = |steps_per_execution: usize| {
        let mut model = mlp();
        model.compile(Compile { steps_per_execution, ..sgd(0.1) }).unwrap();
        model
    };
    for fused in [1, 2] {
        // It begins later, as a training may that goes on without a checkpoint.
        let options = || Fit { epochs: 4, initial_epoch: 1, steps_per_epoch: Some(4), ..silent() };
        resumes(
            "a stream",
            || compiled(fused),
            |model, Fit { callbacks, resume_from, .. }| {
                model.fit_blocking(Stream::new(batches(&x, &y)), Fit { callbacks, resume_from, ..options() })
            },
        );
    }
    let (mut keep, mut model) = (Keep::default(), compiled(1));
    let options = || Fit { epochs: 2, steps_per_epoch: Some(4), ..silent() };
    model.fit_blocking(Stream::new(batches(&x, &y)), Fit { callbacks: vec![&mut keep], ..options() }).unwrap();
    let resume_from = || Some(keep.0[5].clone());
    let short = Stream::new(batches(&x, &y).take(5));
    let error = compiled(1).fit_blocking(short, Fit { resume_from: resume_from(), ..options() }).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Data { what } if what.contains("ends after 5 batches")), "{error}");
    let error = compiled(1).fit_blocking((&x, &y), Fit { resume_from: resume_from(), ..options() }).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::State { what } if what.contains("rows of a stream")), "{error}");
}

/// Ends a training as a killed one ends, without any further hook.
struct Fail {
    after: usize,
}

impl Callback for Fail {
    fn on_batch_end<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        if self.after == 0 {
            return Box::pin(async { Err(Error::state("killed")) });
        }
        self.after -= 1;
        nothing()
    }
}

/// What lies in a folder, by name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().into(), std::fs::read(&path).unwrap())).collect()
}

/// Rates, tables, event files and weights as of a training that nobody interrupted, whenever it was.
#[test]
fn what_callbacks_decide_and_write_goes_on() {
    const STEPS: usize = 3;
    const EPOCHS: usize = 7;
    let (x, y) = data();
    let train = |folder: &Path, resume_from: Option<Checkpoint>, after: usize| {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
        let mut keep = Keep::default();
        let mut reduce = ReduceLROnPlateau::new("loss").min_delta(0.5).patience(2).factor(0.6).cooldown(1);
        let mut table = CSVLogger::new(path("log.csv"));
        let mut board = TensorBoard::new(folder).update_freq(2);
        let mut often = ModelCheckpoint::new(&path("{epoch}-{batch}.safetensors")).save_freq(4);
        let mut best = ModelCheckpoint::new(&path("best.safetensors")).save_best_only("loss");
        let mut fail = Fail { after };
        let callbacks: Vec<&mut dyn Callback> =
            vec![&mut keep, &mut reduce, &mut table, &mut board, &mut often, &mut best, &mut fail];
        let mut model = mlp();
        model.compile(sgd(0.1)).unwrap();
        let validation_data = Some((&x, &y).into());
        let options = Fit { batch_size: 32, epochs: EPOCHS, validation_data, resume_from, callbacks, ..silent() };
        let history = model.fit_blocking((&x, &y), options);
        (history, keep.0, bits(&model))
    };
    let folder = Folder::new("uninterrupted");
    let (history, _, weights) = train(&folder.0, None, usize::MAX);
    let (history, files) = (history.unwrap(), contents(&folder.0));
    let saved = ["2-1", "3-2", "4-3", "6-1", "7-2", "best"].map(|name| format!("{name}.safetensors"));
    let saved = saved.iter().map(String::as_str).chain(["log.csv"]);
    assert!(files.keys().eq(saved), "{:?}", files.keys());
    let rates = history.get("learning_rate").unwrap();
    assert!(rates[EPOCHS - 1] < rates[0] * 0.5, "{rates:?}");
    let [(events, _), (validation, _)] = ["train", "validation"].map(|name| scalars(&folder.0.join(name)));
    for at in 0..STEPS * EPOCHS - 1 {
        let resumed = Folder::new(&format!("interrupted-{at}"));
        // Killed almost an epoch later, so that what was written since is to be written again.
        let (error, kept, _) = train(&resumed.0, None, (at + STEPS).min(STEPS * EPOCHS - 1));
        assert!(matches!(&error, Err(error) if matches!(error.kind(), ErrorKind::State { .. })));
        let (again, _, same) = train(&resumed.0, Some(kept[at].clone()), usize::MAX);
        assert_eq!(again.unwrap(), history);
        assert!(same == weights && contents(&resumed.0) == files, "{at}");
        let (train, count) = scalars(&resumed.0.join("train"));
        assert_eq!(count, 1);
        for tag in ["epoch_loss", "epoch_mae", "epoch_learning_rate"] {
            assert_eq!(of(&train, tag), of(&events, tag), "{at}");
        }
        // Those of batches may have been on their way, but none comes twice.
        let (some, all) = (of(&train, "batch_loss"), of(&events, "batch_loss"));
        assert!(some.len() + 2 >= all.len() && some.iter().all(|batch| all.contains(batch)), "{at}: {some:?}");
        assert!(some.windows(2).all(|pair| pair[0].0 < pair[1].0), "{at}: {some:?}");
        assert_eq!(scalars(&resumed.0.join("validation")), (validation.clone(), 1), "{at}");
    }
}

/// Sums of 4,096 terms or more are cut, in so many parts as the first batch that was met has: 64 rows of 100 positions, and the
/// last batch has 45.
#[test]
fn a_smaller_batch_behind_a_checkpoint_adds_up_as_it_did() {
    let (x, y) = (crate::uniform(1, 109, 144).1, crate::uniform(2, 109, 1).0);
    let x = Tensor::new(&x, [109, 12, 12, 1]);
    let compiled = || {
        let conv = Conv2D::new(4, 3).activation("relu");
        let mut model = Sequential::new([12, 12, 1]).add(conv).add(Flatten).add(Dense::new(1)).build().unwrap();
        model.compile(sgd(0.05)).unwrap();
        model
    };
    resumes("a smaller batch", compiled, |model, options| {
        model.fit_blocking((&x, &y), Fit { batch_size: 64, epochs: 3, ..options })
    });
}
