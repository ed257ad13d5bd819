//! [`TensorBoard`]: scalars for TensorBoard to draw.
//!
//! Names, steps and folders are those of Keras. Deliberately absent: histograms, images and embeddings of weights,
//! graphs and traces of the device; a plan prints itself and its profile.

#![cfg(not(target_arch = "wasm32"))]

use std::collections::VecDeque;
use std::future::ready;
use std::path::{Path, PathBuf};

use web_time::Instant;

use super::callback::{Callback, Hook, Run, nothing};
use super::event_file::EventFile;
use super::rate::LEARNING_RATE;
use super::state::CallbackState;
use crate::error::{ErrorKind, Result};
use crate::step::Asked;

/// Writes scores as scalars that TensorBoard reads, in two folders below the given one.
///
/// In `train`, at the number of each epoch: `epoch_loss` and so on for each score, and `epoch_learning_rate`. In
/// `validation`: the same names for the scores of validation, and at the number of updates so far
/// `evaluation_loss_vs_iterations` and so on for those of every evaluation. Each `fit` begins a new file, but one that
/// goes on from a checkpoint goes on with the files, cut to what they had when the checkpoint was taken. Logs of batches
/// that were still on their way from the device then are missing.
///
/// ```
/// use wengert::callbacks::TensorBoard;
///
/// let board = TensorBoard::new("logs/first").update_freq(100);
/// ```
pub struct TensorBoard {
    folder: PathBuf,
    every: Option<usize>,
    speed: bool,
    train: EventFile,
    validation: EventFile,
    asked: VecDeque<(usize, Asked)>,
    due: usize,
    /// When the epoch began or, after so many steps, went on.
    began: Option<Instant>,
    before: usize,
    took: Option<f64>,
}

impl TensorBoard {
    /// Writes into a folder, one for each training to compare.
    pub fn new(folder: impl AsRef<Path>) -> TensorBoard {
        let folder = folder.as_ref();
        TensorBoard {
            folder: folder.into(),
            every: None,
            speed: false,
            train: EventFile::new(folder.join(TRAIN)),
            validation: EventFile::new(folder.join(VALIDATION)),
            asked: VecDeque::new(),
            due: 0,
            began: None,
            before: 0,
            took: None,
        }
    }

    /// Also writes `batch_loss` and so on after every so many batches, at the number of steps since the first epoch. The
    /// numbers are asked for and written when they have come, so no step waits for them; each asking costs the device a
    /// small copy.
    pub fn update_freq(mut self, batches: usize) -> Self {
        self.every = Some(batches.max(1));
        self
    }

    /// Also writes `epoch_steps_per_second`, validation not counted.
    pub fn write_steps_per_second(mut self) -> Self {
        self.speed = true;
        self
    }

    fn new_files(&mut self) {
        self.train = EventFile::new(self.folder.join(TRAIN));
        self.validation = EventFile::new(self.folder.join(VALIDATION));
    }

    fn after_batch(&mut self, run: &Run<'_>, every: usize) -> Result<()> {
        let step = steps(run);
        if step / every > self.due {
            self.due = step / every;
            self.asked.extend(run.logs().ask()?.map(|asked| (step, asked)));
        }
        self.write_arrived()
    }

    /// Writes what has come, in the order of steps.
    fn write_arrived(&mut self) -> Result<()> {
        while let Some((step, asked)) = self.asked.front_mut() {
            let Some(logs) = asked.look()? else { break };
            let step = *step;
            self.asked.pop_front();
            let scalars = logs.into_iter().map(|(name, value)| (format!("batch_{name}"), value.into()));
            self.train.scalars(step, scalars)?;
        }
        Ok(())
    }

    async fn after_epoch(&mut self, run: &Run<'_>) -> Result<()> {
        // The epoch's scores are of its last step, so what was asked for before has come.
        self.write_arrived()?;
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for (name, value) in run.scores.iter() {
            match name.strip_prefix("val_") {
                Some(name) => validation.push((format!("epoch_{name}"), value)),
                None => train.push((format!("epoch_{name}"), value)),
            }
        }
        if run.scores.get(LEARNING_RATE).is_none() {
            train.push((format!("epoch_{LEARNING_RATE}"), run.learning_rate().await?));
        }
        self.stop_clock();
        if let Some(seconds) = self.took.filter(|_| self.speed) {
            let steps = run.step - self.before;
            train.push(("epoch_steps_per_second".into(), steps as f64 / seconds));
        }
        self.train.scalars(run.epoch, train)?;
        if validation.is_empty() {
            return Ok(());
        }
        self.validation.scalars(run.epoch, validation)
    }

    async fn after_test(&mut self, run: &Run<'_>) -> Result<()> {
        let network = run.network(0)?;
        let iterations = match network.iterations().await {
            // A model may have steps of its own and no optimizer.
            Err(error) if matches!(error.kind(), ErrorKind::NotCompiled { .. }) => return Ok(()),
            iterations => iterations?,
        };
        let scalars = run.scores.iter().map(|(name, value)| (format!("evaluation_{name}_vs_iterations"), value));
        self.validation.scalars(network.optimizer().updates(iterations), scalars)?;
        if !run.validating {
            self.validation = EventFile::new(self.folder.join(VALIDATION));
        }
        Ok(())
    }

    fn stop_clock(&mut self) {
        if let Some(began) = self.began.take() {
            self.took = Some(began.elapsed().as_secs_f64());
        }
    }
}

/// Steps of the epochs before this one and of this one: a count that goes on where a training that was resumed left off.
fn steps(run: &Run<'_>) -> usize {
    run.epoch * run.steps + run.step
}

const TRAIN: &str = "train";
const VALIDATION: &str = "validation";

/// What the numbers of a place in a file are called in a state.
const PLACE: [&str; 4] = ["time", "process", "number", "bytes"];

impl Callback for TensorBoard {
    fn on_train_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        self.new_files();
        self.asked.clear();
        nothing()
    }

    fn state(&self) -> Option<CallbackState> {
        let mut state = CallbackState::new("tensorboard");
        for (folder, file) in [(TRAIN, &self.train), (VALIDATION, &self.validation)] {
            for (what, number) in PLACE.iter().zip(file.place()) {
                state = state.with_count(&format!("{folder}/{what}"), number as usize);
            }
        }
        Some(state)
    }

    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        for (folder, file) in [(TRAIN, &mut self.train), (VALIDATION, &mut self.validation)] {
            let place = PLACE.map(|what| state.count(&format!("{folder}/{what}")).map(|number| number as u64));
            if let [Some(time), Some(process), Some(number), Some(bytes)] = place {
                *file = EventFile::resume(self.folder.join(folder), [time, process, number, bytes])?;
            }
        }
        Ok(())
    }

    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        self.due = self.every.map_or(0, |every| steps(run) / every);
        (self.began, self.before, self.took) = (Some(Instant::now()), run.step, None);
        nothing()
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let Some(every) = self.every else { return nothing() };
        Box::pin(ready(self.after_batch(run, every)))
    }

    fn on_test_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        self.stop_clock();
        nothing()
    }

    fn on_test_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(self.after_test(run))
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(self.after_epoch(run))
    }

    fn on_train_end<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        self.new_files();
        nothing()
    }
}
