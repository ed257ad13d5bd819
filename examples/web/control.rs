//! What happens between the steps of `fit`: numbers are passed on, messages are obeyed, snapshots are kept.

use std::collections::VecDeque;

use futures::StreamExt;
use js_sys::{Float32Array, Uint8Array};
use wasm_bindgen::JsValue;
use web_time::{Duration, Instant};
use wengert::model::AskedCheckpoint;
use wengert::prelude::*;
use wengert::step::Asked;

use crate::model::fingerprint;
use crate::trainer::{Message, Page, Shared, Snapshot};

/// Every number of so many first steps is reported, for comparing with the native program.
const ALL_OF: usize = 20;
/// After that a page has enough to draw with numbers this often.
const EVERY: Duration = Duration::from_millis(50);
/// Steps between the snapshots that a training goes on from when its device is lost.
const SNAPSHOT: usize = 50;

/// What happens between the steps of `fit`.
pub struct Control<'a> {
    shared: &'a mut Shared,
    device: Device,
    paused: bool,
    /// What the next checkpoint is wanted for, besides being a snapshot.
    saving: bool,
    stopping: bool,
    /// Numbers on their way back, with the step they belong to.
    asked: VecDeque<(usize, Asked)>,
    asked_at: Instant,
    /// A snapshot on its way back.
    coming: Option<(usize, AskedCheckpoint)>,
}

impl<'a> Control<'a> {
    pub fn new(shared: &'a mut Shared, device: &Device) -> Control<'a> {
        Control {
            shared,
            device: device.clone(),
            paused: false,
            saving: false,
            stopping: false,
            asked: VecDeque::new(),
            asked_at: Instant::now(),
            coming: None,
        }
    }

    /// Asks for the newest numbers now and then, and passes on those that have come.
    fn report(&mut self, run: &Run<'_>) -> Result<()> {
        let step = run.epoch * run.steps + run.step;
        if step <= ALL_OF || (self.asked.is_empty() && self.asked_at.elapsed() >= EVERY) {
            self.asked_at = Instant::now();
            self.asked.extend(run.logs().ask()?.map(|asked| (step, asked)));
        }
        self.pass_on()
    }

    fn pass_on(&mut self) -> Result<()> {
        while let Some((step, asked)) = self.asked.front_mut() {
            let Some(numbers) = asked.look()? else { break };
            let number = |name: &str| numbers.iter().find(|entry| entry.0 == name).map_or(f32::NAN, |entry| entry.1);
            let stats = self.device.stats();
            self.shared.page.tell(
                "step",
                [
                    ("step", (*step).into()),
                    ("loss", number("loss").into()),
                    ("accuracy", number("accuracy").into()),
                    ("batchLoss", number("batch_loss").into()),
                    ("gradientNorm", number("gradient_norm").into()),
                    ("memory", (stats.bytes_allocated as f64).into()),
                    ("buffers", (stats.buffers as f64).into()),
                    ("seconds", self.device.seconds_per_submission().into()),
                ],
            );
            self.asked.pop_front();
        }
        if let Some((step, asked)) = &mut self.coming
            && let Some(file) = asked.look()?
        {
            self.shared.snapshot = Some(Snapshot { step: *step, file });
            self.coming = None;
        }
        Ok(())
    }

    /// Does what messages say; while paused, until one says to go on. `checkpoint` is of this very moment, where there is
    /// one; what needs one otherwise asks `fit` for it, which comes back here.
    async fn listen(&mut self, run: &mut Run<'_>, checkpoint: Option<&Checkpoint>) -> Result<()> {
        loop {
            let message = match self.shared.inbox.try_recv() {
                Ok(message) => Some(message),
                Err(_) if self.paused => self.shared.inbox.next().await,
                Err(_) => return Ok(()),
            };
            match message {
                None => return Ok(()),
                Some(Message::Pause) => self.pause().await?,
                Some(Message::PauseAt(step)) => self.shared.pause_at = Some(step),
                Some(Message::Resume) => {
                    self.paused = false;
                    self.shared.page.tell("resumed", []);
                }
                Some(Message::Weights) => tell_weights(&self.shared.page, run.network(0)?).await?,
                Some(Message::Predict(pixels)) => tell_prediction(&self.shared.page, run.network(0)?, &pixels).await?,
                Some(message @ (Message::Save | Message::Stop)) => {
                    match message {
                        Message::Save => self.saving = true,
                        _ => self.stopping = true,
                    }
                    match checkpoint {
                        Some(checkpoint) => self.keep(checkpoint, run).await?,
                        None => run.checkpoint(),
                    }
                    if self.stopping || checkpoint.is_none() {
                        return Ok(());
                    }
                }
                // Another training is wanted: this one ends first.
                Some(message) => {
                    self.shared.later = Some(message);
                    run.stop = true;
                    return Ok(());
                }
            }
        }
    }

    async fn pause(&mut self) -> Result<()> {
        self.paused = true;
        self.device.wait().await?;
        self.pass_on()?;
        self.shared.page.tell("paused", []);
        Ok(())
    }

    /// Takes in the snapshot that is on its way: of many steps ago, so there is hardly anything to wait for.
    async fn settle(&mut self) -> Result<()> {
        if let Some((step, asked)) = self.coming.take() {
            self.shared.snapshot = Some(Snapshot { step, file: asked.wait().await? });
        }
        Ok(())
    }

    /// Waits for a checkpoint's bytes and does with them what was asked for.
    async fn keep(&mut self, checkpoint: &Checkpoint, run: &mut Run<'_>) -> Result<()> {
        self.coming = None;
        let snapshot = Snapshot { step: steps_of(checkpoint), file: checkpoint.to_bytes().await? };
        if std::mem::take(&mut self.saving) {
            tell_saved(&self.shared.page, &snapshot, run.network(0)?).await?;
        }
        self.shared.snapshot = Some(snapshot);
        run.stop |= self.stopping;
        Ok(())
    }
}

impl Callback for Control<'_> {
    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            self.report(run)?;
            let step = run.epoch * run.steps + run.step;
            if step.is_multiple_of(SNAPSHOT) {
                run.checkpoint();
            }
            if self.shared.pause_at == Some(step) {
                self.pause().await?;
            }
            self.listen(run, None).await
        })
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            let score = |name: &str| JsValue::from(run.scores.get(name).unwrap_or(f64::NAN));
            self.shared.page.tell(
                "epoch",
                [
                    ("epoch", (run.epoch + 1).into()),
                    ("step", (run.epoch * run.steps + run.step).into()),
                    ("loss", score("loss")),
                    ("accuracy", score("accuracy")),
                    ("testLoss", score("val_loss")),
                    ("testAccuracy", score("val_accuracy")),
                ],
            );
            if !run.stop {
                run.checkpoint();
            }
            Ok(())
        })
    }

    fn on_checkpoint<'a>(&'a mut self, checkpoint: &'a Checkpoint, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            if self.saving || self.stopping {
                self.keep(checkpoint, run).await?;
            } else {
                self.settle().await?;
                self.coming = Some((steps_of(checkpoint), checkpoint.ask()?));
            }
            self.listen(run, Some(checkpoint)).await
        })
    }

    fn on_train_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            self.device.wait().await?;
            self.settle().await?;
            self.pass_on()?;
            self.shared.page.tell("end", [("step", (run.epoch * run.steps + run.step).into())]);
            Ok(())
        })
    }
}

/// Steps that were taken before a checkpoint.
pub fn steps_of(checkpoint: &Checkpoint) -> usize {
    checkpoint.progress().map_or(0, |progress| progress.epoch * progress.order.steps + progress.step)
}

pub async fn tell_saved(page: &Page, snapshot: &Snapshot, network: &Functional) -> Result<()> {
    let weights = fingerprint(network.weights().await?);
    page.tell(
        "saved",
        [
            ("step", snapshot.step.into()),
            ("file", Uint8Array::from(snapshot.file.as_slice()).into()),
            ("weights", weights.into()),
        ],
    );
    Ok(())
}

pub async fn tell_weights(page: &Page, network: &Functional) -> Result<()> {
    page.tell("weights", [("file", Uint8Array::from(network.weights().await?.as_slice()).into())]);
    Ok(())
}

/// Probabilities of the ten digits.
pub async fn tell_prediction(page: &Page, network: &Functional, pixels: &[f32]) -> Result<()> {
    let logits = network.predict_on_batch(Tensor::new(pixels, [1, 28, 28])).await?.read::<f32>().await?;
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let odds: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f32 = odds.iter().sum();
    let probabilities: Vec<f32> = odds.iter().map(|odds| odds / sum).collect();
    page.tell("prediction", [("probabilities", Float32Array::from(probabilities.as_slice()).into())]);
    Ok(())
}
