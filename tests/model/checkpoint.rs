//! Checkpoints: a training that is interrupted, even by the end of its process, computes the bits of one that is not.
//!
//! The test binary starts itself again for the other process (the ignored test `another_process`), which may kill itself
//! in the middle of an epoch.

mod resumed;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::gan::{gan, ring};
use crate::{adam, bits, linear, mlp, sgd, silent, uniform};
use wengert::model::Progress;
use wengert::prelude::*;

/// Steps of an epoch of [`training`]: 90 rows by 16, the last batch of 10.
const STEPS: usize = 6;
const EPOCHS: usize = 5;

/// A folder of this test's own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("wengert-checkpoint-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Dropout, Adam and two metrics.
fn dropped(fused: usize) -> Functional {
    let network = Sequential::new([4])
        .add(Dense::new(8).activation("tanh"))
        .add(Dropout::new(0.3))
        .add(Dense::new(8).activation("relu"))
        .add(Dropout::new(0.2))
        .add(Dense::new(1));
    let mut model = network.build().unwrap();
    model.compile(Compile { steps_per_execution: fused, ..adam() }).unwrap();
    model
}

fn data() -> (Tensor, Tensor) {
    (uniform(1, 90, 4).0, uniform(2, 90, 1).0)
}

/// Kills the process in the middle of an epoch, as soon as there is a checkpoint of the middle of another moment.
struct Kill<'a>(&'a Path);

impl Callback for Kill<'_> {
    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let saved = Checkpoint::read(self.0).ok();
        let progress = saved.as_ref().and_then(Checkpoint::progress);
        let middle =
            |progress: &Progress| progress.step > 0 && (progress.epoch, progress.step) != (run.epoch, run.step);
        if run.step < run.steps && progress.is_some_and(middle) {
            std::process::abort();
        }
        wengert::callbacks::nothing()
    }
}

/// Multiplies the learning rate at the beginning of every epoch: twice for none.
struct Decay;

impl Callback for Decay {
    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            let rate = run.learning_rate().await?;
            run.set_learning_rate(rate * 0.9).await
        })
    }
}

/// Notes the epoch and step that training begins with.
#[derive(Default)]
struct First(Option<(usize, usize)>);

impl Callback for First {
    fn on_batch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        self.0.get_or_insert((run.epoch, run.step));
        wengert::callbacks::nothing()
    }
}

/// What came of a training: the whole state with the history, as bytes, and where it began.
#[derive(Debug, PartialEq)]
struct Outcome {
    state: Vec<u8>,
    history: String,
    first: (usize, usize),
}

impl Outcome {
    fn of(model: &impl Model, history: &History, first: First) -> Outcome {
        let state = pollster::block_on(async { model.checkpoint().await?.to_bytes().await }).unwrap();
        Outcome { state, history: format!("{history:?}"), first: first.0.unwrap() }
    }

    fn write(&self, path: &Path) {
        let text = format!("{} {}\n{}", self.first.0, self.first.1, self.history);
        std::fs::write(path.with_extension("text"), text).unwrap();
        std::fs::write(path, &self.state).unwrap();
    }

    fn read(path: &Path) -> Outcome {
        let text = std::fs::read_to_string(path.with_extension("text")).unwrap();
        let (first, history) = text.split_once('\n').unwrap();
        let (epoch, step) = first.split_once(' ').unwrap();
        let first = (epoch.parse().unwrap(), step.parse().unwrap());
        Outcome { state: std::fs::read(path).unwrap(), history: history.into(), first }
    }

    /// Equal but for where it began, which was in the middle of an epoch.
    fn continues(&self, whole: &Outcome) {
        assert!(self.first.1 > 0, "it began with {:?}", self.first);
        assert_eq!(self.history, whole.history);
        assert!(self.state == whole.state);
    }
}

/// A whole training: of what, backed up to where, and whether it kills itself.
fn training(what: &str, fused: usize, backup: Option<&Path>, kill: bool) -> Outcome {
    let (mut first, mut decay) = (First::default(), Decay);
    let mut restore = backup.map(|path| BackupAndRestore::new(path).save_freq(4));
    let mut killer = backup.filter(|_| kill).map(Kill);
    let mut stopping = EarlyStopping::new("loss").patience(100).restore_best_weights();
    let mut callbacks: Vec<&mut dyn Callback> = vec![&mut decay, &mut first];
    callbacks.extend(restore.as_mut().map(|callback| callback as &mut dyn Callback));
    callbacks.extend(killer.as_mut().map(|callback| callback as &mut dyn Callback));
    let options = Fit { batch_size: 16, epochs: EPOCHS, seed: 5, ..silent() };
    let (x, y) = data();
    if what == "gan" {
        let mut model = gan();
        let optimizer = Adam { learning_rate: 0.002, ..Adam::default() }.into();
        model.generator.compile(Compile { optimizer, steps_per_execution: fused, ..Compile::default() }).unwrap();
        let history = model.fit_blocking(ring(90), Fit { callbacks, ..options }).unwrap();
        return Outcome::of(&model, &history, first);
    }
    callbacks.push(&mut stopping);
    let validation_data = Some((&uniform(3, 20, 4).0, &uniform(4, 20, 1).0).into());
    let mut model = dropped(fused);
    let history = model.fit_blocking((&x, &y), Fit { callbacks, validation_data, ..options }).unwrap();
    Outcome::of(&model, &history, first)
}

/// Runs [`another_process`] with arguments.
fn process(arguments: &[&str]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["checkpoint::another_process", "--exact", "--ignored", "--nocapture"]);
    command.env("WENGERT_TEST_ARGUMENTS", arguments.join("\n")).env("RUST_LOG", "warn").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "the other process of the tests below"]
fn another_process() {
    let arguments = std::env::var("WENGERT_TEST_ARGUMENTS").expect("started by another test");
    let arguments: Vec<&str> = arguments.split('\n').collect();
    let _ = env_logger::try_init();
    match arguments[..] {
        ["train", what, fused, backup, result] => {
            training(what, fused.parse().unwrap(), Some(Path::new(backup)), false).write(Path::new(result));
        }
        ["kill", what, fused, backup] => {
            training(what, fused.parse().unwrap(), Some(Path::new(backup)), true);
        }
        ["load", checkpoint, result] => {
            let mut model = dropped(1);
            model.load_blocking(checkpoint).unwrap();
            let (first, history) = second_half(&mut model);
            Outcome::of(&model, &history, first).write(Path::new(result));
        }
        _ => panic!("{arguments:?}"),
    }
}

fn killed_and_resumed(what: &str, fused: usize) {
    let folder = Folder::new(&format!("{what}-{fused}"));
    let (backup, result) = (folder.file("backup.safetensors"), folder.file("result"));
    let (path, fused_text) = (backup.to_str().unwrap(), fused.to_string());
    let killed = process(&["kill", what, &fused_text, path]);
    assert!(!killed.status.success() && backup.exists(), "{}", said(&killed));
    #[cfg(unix)]
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(6), "{}", said(&killed));
    // It may have been writing, too.
    let half = std::fs::read(&backup).unwrap();
    let partial = folder.file("backup.safetensors.4242.partial");
    std::fs::write(&partial, &half[..half.len() / 2]).unwrap();
    let resumed = process(&["train", what, &fused_text, path, result.to_str().unwrap()]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    Outcome::read(&result).continues(&training(what, fused, None, false));
    // The training has ended, so nothing is left of it.
    assert!(!backup.exists() && !partial.exists() && !wengert::io::previous(&backup).exists());
}

#[test]
fn a_killed_training_goes_on_with_the_same_bits() {
    killed_and_resumed("network", 1);
}

#[test]
fn a_killed_training_of_fused_steps_goes_on_with_the_same_bits() {
    killed_and_resumed("network", 4);
}

#[test]
fn a_killed_training_of_two_networks_goes_on_with_the_same_bits() {
    killed_and_resumed("gan", 1);
    killed_and_resumed("gan", 4);
}

#[test]
fn where_the_newest_checkpoint_is_truncated_the_one_before_is_used() {
    let folder = Folder::new("previous");
    let (backup, result) = (folder.file("backup.safetensors"), folder.file("result"));
    let path = backup.to_str().unwrap();
    let killed = process(&["kill", "network", "1", path]);
    let whole = std::fs::read(&backup).unwrap();
    // The very first checkpoint has none before it.
    let previous = wengert::io::previous(&backup);
    if !previous.exists() {
        std::fs::copy(&backup, &previous).unwrap();
    }
    std::fs::write(&backup, &whole[..whole.len() - 5]).unwrap();
    let resumed = process(&["train", "network", "1", path, result.to_str().unwrap()]);
    assert!(resumed.status.success(), "{}", said(&resumed));
    let warning = said(&resumed);
    assert!(warning.contains("truncated") && warning.contains("training goes on from"), "{warning}, {}", said(&killed));
    let (resumed, uninterrupted) = (Outcome::read(&result), training("network", 1, None, false));
    assert!(resumed.first > (0, 0));
    assert!((resumed.state, resumed.history) == (uninterrupted.state, uninterrupted.history));
    // With neither, training does not begin, and both files stay for somebody to look at.
    std::fs::write(&backup, &whole[..100]).unwrap();
    std::fs::write(&previous, b"nonsense").unwrap();
    let mut restore = BackupAndRestore::new(&backup);
    let (mut model, (x, y)) = (dropped(1), data());
    let error = model.fit_blocking((&x, &y), Fit { callbacks: vec![&mut restore], ..silent() }).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Format { what, why } if what == path && why.contains("truncated")),
        "{error}"
    );
    assert!(backup.exists() && previous.exists());
}

fn first_half(model: &mut impl Model, epochs: usize) {
    let (x, y) = data();
    model.fit_blocking((&x, &y), Fit { batch_size: 16, epochs, ..silent() }).unwrap();
}

fn second_half(model: &mut Functional) -> (First, History) {
    let (mut first, (x, y)) = (First::default(), data());
    let callbacks: Vec<&mut dyn Callback> = vec![&mut first];
    let options = Fit { batch_size: 16, epochs: 6, initial_epoch: 3, callbacks, ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    (first, history)
}

#[test]
fn a_model_that_was_saved_trains_on_in_another_process() {
    let folder = Folder::new("saved");
    let (file, result) = (folder.file("model.safetensors"), folder.file("result"));
    let mut model = dropped(1);
    first_half(&mut model, 3);
    model.save_blocking(&file).unwrap();
    let other = process(&["load", file.to_str().unwrap(), result.to_str().unwrap()]);
    assert!(other.status.success(), "{}", said(&other));
    let mut whole = dropped(1);
    first_half(&mut whole, 6);
    let loaded = Outcome::read(&result);
    assert!(
        loaded.first == (3, 0) && loaded.state == Outcome::of(&whole, &History::default(), First(Some((0, 0)))).state
    );
    // And in this one, with the same scores by epoch.
    let (first, history) = second_half(&mut model);
    assert_eq!(format!("{history:?}"), loaded.history);
    assert!(Outcome::of(&model, &history, first) == loaded);
}

/// Keeps the bytes of every checkpoint, which it asks for after every step and epoch.
#[derive(Default)]
struct Keep(Vec<Checkpoint>);

impl Callback for Keep {
    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        run.checkpoint();
        wengert::callbacks::nothing()
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        run.checkpoint();
        wengert::callbacks::nothing()
    }

    fn on_checkpoint<'a>(&'a mut self, checkpoint: &'a Checkpoint, _: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            self.0.push(Checkpoint::from_bytes(&checkpoint.to_bytes().await?)?);
            Ok(())
        })
    }
}

fn bytes(checkpoint: &Checkpoint) -> Vec<u8> {
    pollster::block_on(checkpoint.to_bytes()).unwrap()
}

/// Every moment of a training is one to resume from, also one that is about to stop early, and what comes later is the
/// same: states, scores, early stopping's patience and the weights it gives back.
#[test]
fn a_training_resumes_from_each_of_its_steps() {
    let options = || Fit { batch_size: 32, epochs: 9, validation_split: 0.2, ..silent() };
    let stopping = || EarlyStopping::new("val_loss").patience(2).restore_best_weights();
    let compiled = || {
        let mut model = mlp();
        // Overshoots, so that some epochs are worse.
        model.compile(sgd(1.6)).unwrap();
        model
    };
    let (x, y) = data();
    let (mut keep, mut stop, mut model) = (Keep::default(), stopping(), compiled());
    let history = model.fit_blocking((&x, &y), Fit { callbacks: vec![&mut keep, &mut stop], ..options() }).unwrap();
    let stopped = stop.stopped_epoch().expect("it stops early");
    assert!(stop.best().unwrap().0 + 2 == stopped && stopped < 8 && history.epoch.len() == stopped + 1);
    let positions: Vec<_> = keep.0.iter().map(|c| c.progress().unwrap()).map(|p| (p.epoch, p.step, p.stop)).collect();
    let all: Vec<_> = (0..=stopped).flat_map(|e| [(e, 1, false), (e, 2, false), (e + 1, 0, e == stopped)]).collect();
    assert_eq!(positions, all);
    for (at, checkpoint) in keep.0.iter().enumerate() {
        let (mut again, mut stop, mut resumed) = (Keep::default(), stopping(), compiled());
        let callbacks: Vec<&mut dyn Callback> = vec![&mut again, &mut stop];
        let resume_from = Some(checkpoint.clone());
        let other = resumed.fit_blocking((&x, &y), Fit { callbacks, resume_from, ..options() }).unwrap();
        assert_eq!(format!("{other:?}"), format!("{history:?}"));
        assert_eq!((stop.stopped_epoch(), stop.best()), (Some(stopped), stop.best()));
        assert!(bits(&resumed) == bits(&model), "{:?}", positions[at]);
        let rest: Vec<_> = keep.0[at + 1..].iter().map(bytes).collect();
        assert!(again.0.iter().map(bytes).collect::<Vec<_>>() == rest, "{:?}", positions[at]);
    }
}

#[test]
fn a_checkpoint_keeps_its_values_and_waits_for_nothing() {
    let (mut model, device) = (dropped(1), pollster::block_on(Device::new()).unwrap());
    model = model.on(&device);
    first_half(&mut model, 1);
    device.wait_blocking().unwrap();
    let before = device.stats();
    let checkpoint = pollster::block_on(model.checkpoint()).unwrap();
    let asked = checkpoint.ask().unwrap();
    let spent = device.stats() - before;
    assert_eq!((spent.waits, spent.submissions), (0, 1), "{spent}");
    let now = bytes(&checkpoint);
    drop(checkpoint);
    let held = pollster::block_on(model.checkpoint()).unwrap();
    pollster::block_on(model.set_learning_rate(0.5)).unwrap();
    first_half(&mut model, 1);
    // One was asked for before the steps, the other is read after them.
    assert!(pollster::block_on(asked.wait()).unwrap() == now && bytes(&held) == now);
    assert!(bytes(&pollster::block_on(model.checkpoint()).unwrap()) != now);
}

#[test]
fn all_bits_of_a_model_come_back() {
    let (model, mut other) = (dropped(1), dropped(1).seed(9).unwrap());
    let strange: Vec<f32> = [0x7fc0_1234u32, 0xffa0_0001, 0x8000_0000, 1].map(f32::from_bits).repeat(8);
    let device = pollster::block_on(model.device()).unwrap();
    let kernel = model.variables().unwrap()[0].1.clone();
    wengert::step::assign(&device, &kernel, &Tensor::new(&strange, [4, 8])).unwrap();
    let checkpoint = pollster::block_on(model.checkpoint()).unwrap();
    let file = bytes(&checkpoint);
    pollster::block_on(other.restore(&Checkpoint::from_bytes(&file).unwrap())).unwrap();
    assert!(bytes(&pollster::block_on(other.checkpoint()).unwrap()) == file);
    let back = other.variables().unwrap()[0].1.to_vec_on::<f32>(&device).unwrap();
    assert!(back.iter().map(|x| x.to_bits()).eq(strange.iter().map(|x| x.to_bits())));
    let names: Vec<&str> = checkpoint.tensors().iter().map(|(name, _)| name.as_str()).collect();
    for name in ["weights/0/dense/kernel", "weights/0/dropout/seed_generator_state", "optimizer/0/iteration"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for name in ["optimizer/0/learning_rate", "optimizer/0/dense_1/bias/velocity", "metrics/1/mae/0"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn a_checkpoint_of_something_else_is_refused_and_changes_nothing() {
    let mut model = dropped(1);
    first_half(&mut model, 1);
    let own = pollster::block_on(model.checkpoint()).unwrap();
    let before = bytes(&own);
    let mut refused = |other: &Functional| {
        let checkpoint = pollster::block_on(other.checkpoint()).unwrap();
        let error = pollster::block_on(model.restore(&checkpoint)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::State { .. }));
        assert!(bytes(&pollster::block_on(model.checkpoint()).unwrap()) == before);
        error.to_string()
    };
    let message = refused(&mlp());
    assert!(message.contains("it has no weights/0/dropout/seed_generator_state"), "{message}");
    let mut other = dropped(1);
    other.compile(sgd(0.1)).unwrap();
    let message = refused(&other);
    assert!(message.contains("it has no optimizer/0/dense/kernel/"), "{message}");
    other.compile(Compile { metrics: vec!["mse".into()], ..adam() }).unwrap();
    let message = refused(&other);
    assert!(
        message.contains("it has no metrics/1/mae/0") && message.contains("the model has no metrics/1/"),
        "{message}"
    );
    let mut wider = Sequential::new([4]).add(Dense::new(3)).build().unwrap();
    wider.compile(adam()).unwrap();
    let mut narrow = linear(4);
    narrow.compile(adam()).unwrap();
    let checkpoint = pollster::block_on(wider.checkpoint()).unwrap();
    let message = pollster::block_on(narrow.restore(&checkpoint)).unwrap_err().to_string();
    assert!(message.contains("weights/0/dense/kernel is f32[4, 1] and was f32[4, 3]"), "{message}");
}

#[test]
fn a_training_on_other_rows_does_not_resume() {
    let (mut keep, mut model, (x, y)) = (Keep::default(), dropped(1), data());
    let options = || Fit { batch_size: 16, ..silent() };
    model.fit_blocking((&x, &y), Fit { callbacks: vec![&mut keep], ..options() }).unwrap();
    assert_eq!(keep.0.len(), STEPS);
    let before = bits(&model);
    let mut refused = |fit: Fit<'_>| {
        let fit = Fit { resume_from: Some(keep.0[2].clone()), epochs: 2, ..fit };
        let error = model.fit_blocking((&x, &y), fit).unwrap_err().to_string();
        assert!(before == bits(&model));
        error
    };
    let message = refused(Fit { batch_size: 32, ..options() });
    assert!(message.contains("with batch_size 16") && message.contains("has 32"), "{message}");
    let message = refused(Fit { seed: 1, ..options() });
    assert!(message.contains("with seed 0") && message.contains("has 1"), "{message}");
    let message = refused(Fit { shuffle: false, ..options() });
    assert!(message.contains("has none, unshuffled"), "{message}");
    let message = refused(Fit { validation_split: 0.1, ..options() });
    assert!(message.contains("with rows 90") && message.contains("has 81"), "{message}");
    let message = refused(Fit { steps_per_epoch: Some(4), ..options() });
    assert!(message.contains("with steps_per_epoch 6") && message.contains("has 4"), "{message}");
}

#[test]
fn files_that_are_none_are_named_by_what_is_wrong() {
    let model = dropped(1);
    let file = bytes(&pollster::block_on(model.checkpoint()).unwrap());
    let why = |bytes: &[u8]| match Checkpoint::from_bytes(bytes).map_err(Error::into_kind) {
        Err(ErrorKind::Format { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    for length in [0, 7, 8, 300, file.len() - 1] {
        assert!(why(&file[..length]).contains("truncated"), "{length}");
    }
    assert!(why(&bits(&model)).contains("no checkpoint of a training; weights are loaded by load_weights"));
    assert!(why(b"PK\x03\x04 and the rest of an archive").contains("no safetensors file"));
    let mut damaged = file.clone();
    *damaged.last_mut().unwrap() ^= 4;
    assert!(why(&damaged).contains("damaged: the check sum"));
    let at = file.windows(9).position(|text| text == b"format\\t2").unwrap() + 8;
    let mut later = file.clone();
    later[at] = b'7';
    assert!(why(&later).contains("has format 7, this version reads format 2"), "{}", why(&later));
    // Whatever the bytes are, they are read or refused.
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut target = dropped(1);
    for at in 0..2000 {
        let noise = random::threefry::bits([3, 1], at) as usize;
        let mut broken = file.clone();
        broken[(noise >> 8) % header] = noise as u8;
        if let Ok(checkpoint) = Checkpoint::from_bytes(&broken) {
            let _ = pollster::block_on(target.restore(&checkpoint));
        }
    }
    let error = Checkpoint::read("/no/such/file").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Io { .. }), "{error}");
}

#[test]
fn a_backup_may_be_kept_and_is_complete() {
    let folder = Folder::new("kept");
    let file = folder.file("deep/backup.safetensors");
    let mut restore = BackupAndRestore::new(&file).delete_checkpoint(false);
    let (mut model, (x, y)) = (dropped(1), data());
    let mut history = History::default();
    for _ in 0..2 {
        // The second time there is nothing left to do.
        let options = Fit { epochs: 3, callbacks: vec![&mut restore], ..silent() };
        history = model.fit_blocking((&x, &y), options).unwrap();
        assert_eq!(history.epoch, [0, 1, 2]);
    }
    let checkpoint = Checkpoint::read(&file).unwrap();
    let progress = checkpoint.progress().unwrap();
    assert_eq!((progress.epoch, progress.step, &progress.history), (3, 0, &history));
    assert_eq!(Checkpoint::read(wengert::io::previous(&file)).unwrap().progress().unwrap().epoch, 2);
    // Further epochs are as if there had been no pause.
    let options = Fit { epochs: 5, callbacks: vec![&mut restore], ..silent() };
    let longer = model.fit_blocking((&x, &y), options).unwrap();
    let mut whole = dropped(1);
    assert_eq!(whole.fit_blocking((&x, &y), Fit { epochs: 5, ..silent() }).unwrap(), longer);
    assert!(bits(&whole) == bits(&model));
    let error = model
        .fit_blocking((&x, &y), Fit { callbacks: vec![&mut BackupAndRestore::new(&file).save_freq(0)], ..silent() });
    assert!(matches!(&error, Err(error) if matches!(error.kind(), ErrorKind::Argument { .. })));
    // A folder that cannot be written to is an error of the training, not silence.
    std::fs::write(folder.file("in the way"), b"").unwrap();
    let mut nowhere = BackupAndRestore::new(folder.file("in the way/backup"));
    let error = model.fit_blocking((&x, &y), Fit { callbacks: vec![&mut nowhere], ..silent() });
    assert!(matches!(&error, Err(error) if matches!(error.kind(), ErrorKind::Io { .. })), "{error:?}");
}
