//! The worker's side of the page: one task owns the model, and messages are the only way to it.
//!
//! While `fit` runs, messages are looked at between steps by [`Control`], a callback in `control.rs`; otherwise by [`Session::serve`].
//! Nothing here waits for a step: numbers are asked for and looked at when they have come, and `fit` itself gives the
//! worker's event loop its turns whenever enough work is queued. No timer and no animation frame drives it, so it goes on
//! in a tab that nobody sees.

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use js_sys::{Function, Object, Reflect};
use wasm_bindgen::prelude::*;
use wengert::data::Images;
use wengert::prelude::*;

use crate::control::{Control, steps_of, tell_prediction, tell_saved, tell_weights};
use crate::model::{Classifier, Settings, fingerprint, random_numbers};

/// What the page can ask for.
pub enum Message {
    Start(Settings),
    Restore(Settings, Vec<u8>),
    Images(Vec<[Vec<u8>; 2]>),
    Pause,
    PauseAt(usize),
    Resume,
    Stop,
    Save,
    Weights,
    Predict(Vec<f32>),
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** What a training depends on; what is left out has its usual value. */
export interface Settings {
  seed?: number;
  epochs?: number;
  batchSize?: number;
  /** Digits to draw, to train on and to test on, where no images were given. */
  train?: number;
  test?: number;
  /** A single layer instead of the network of convolutions. */
  tiny?: boolean;
}

/** What a trainer reports. Steps are counted over all epochs, memory in bytes. */
export type Report =
  | { kind: 'device', random: string }
  | { kind: 'begin', step: number, steps: number, epochs: number, parameters: number, weights: string }
  | { kind: 'step', step: number, loss: number, accuracy: number, batchLoss: number, gradientNorm: number,
      memory: number, buffers: number, seconds?: number }
  | { kind: 'epoch', epoch: number, step: number, loss: number, accuracy: number, testLoss: number, testAccuracy: number }
  | { kind: 'paused' | 'resumed' }
  | { kind: 'end', step: number }
  | { kind: 'prediction', probabilities: Float32Array }
  | { kind: 'saved', step: number, file: Uint8Array, weights: string }
  | { kind: 'restored', step: number, weights: string }
  | { kind: 'weights', file: Uint8Array }
  | { kind: 'images', train: number, test: number }
  | { kind: 'lost', step: number, message: string }
  | { kind: 'error', message: string };
"#;

/// A training in this worker. Each method sends a message and returns at once; answers come to `report`, as objects with
/// a `kind`.
#[wasm_bindgen]
pub struct Trainer(UnboundedSender<Message>);

#[wasm_bindgen]
impl Trainer {
    #[wasm_bindgen(constructor)]
    pub fn new(#[wasm_bindgen(unchecked_param_type = "(report: Report) => void")] report: Function) -> Trainer {
        let (sender, inbox) = unbounded();
        let shared = Shared { inbox, page: Page(report), pause_at: None, later: None, snapshot: None };
        let session = Session { shared, device: None, images: None, training: None };
        wasm_bindgen_futures::spawn_local(session.serve());
        Trainer(sender)
    }

    /// Trains anew.
    pub fn start(&self, #[wasm_bindgen(unchecked_param_type = "Settings")] settings: &JsValue) {
        self.send(Message::Start(settings_of(settings)));
    }

    /// Takes up a saved training, with the settings it was started with; `resume` lets it go on.
    pub fn restore(&self, #[wasm_bindgen(unchecked_param_type = "Settings")] settings: &JsValue, file: Vec<u8>) {
        self.send(Message::Restore(settings_of(settings), file));
    }

    /// Trains on IDX files from now on, not gzipped, instead of drawn digits; without test files the last sixth of
    /// the training images is kept for testing.
    pub fn images(&self, train: Vec<u8>, train_labels: Vec<u8>, test: Option<Vec<u8>>, test_labels: Option<Vec<u8>>) {
        let test = test.zip(test_labels).map(|(images, labels)| [images, labels]);
        self.send(Message::Images([Some([train, train_labels]), test].into_iter().flatten().collect()));
    }

    /// Takes no further step until `resume`.
    pub fn pause(&self) {
        self.send(Message::Pause);
    }

    /// Pauses after so many steps in all.
    #[wasm_bindgen(js_name = pauseAt)]
    pub fn pause_at(&self, step: usize) {
        self.send(Message::PauseAt(step));
    }

    /// Goes on after `pause` or `restore`.
    pub fn resume(&self) {
        self.send(Message::Resume);
    }

    /// Ends the training after the step that is being taken.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }

    /// Reports the whole training as the bytes of a file, for `restore`.
    pub fn save(&self) {
        self.send(Message::Save);
    }

    /// Reports the weights alone as a safetensors file.
    pub fn weights(&self) {
        self.send(Message::Weights);
    }

    /// Reports what the network makes of 28 by 28 grey values in [0, 1].
    pub fn predict(&self, pixels: Vec<f32>) {
        self.send(Message::Predict(pixels));
    }

    fn send(&self, message: Message) {
        // The other end lives as long as the worker.
        drop(self.0.unbounded_send(message));
    }
}

fn settings_of(object: &JsValue) -> Settings {
    let number = |name: &str| Reflect::get(object, &name.into()).ok().and_then(|value| value.as_f64());
    let count = |name: &str, otherwise: usize| number(name).map_or(otherwise, |value| value.max(1.0) as usize);
    let usual = Settings::default();
    Settings {
        seed: number("seed").map_or(usual.seed, |seed| seed as u64),
        epochs: count("epochs", usual.epochs),
        batch_size: count("batchSize", usual.batch_size),
        digits: [count("train", usual.digits[0]), count("test", usual.digits[1])],
        tiny: Reflect::get(object, &"tiny".into()).is_ok_and(|value| value.is_truthy()),
    }
}

/// The page, which is told things.
#[derive(Clone)]
pub struct Page(Function);

impl Page {
    pub fn tell(&self, kind: &str, facts: impl IntoIterator<Item = (&'static str, JsValue)>) {
        let event = Object::new();
        for (name, value) in [("kind", kind.into())].into_iter().chain(facts) {
            // A plain object takes any property.
            drop(Reflect::set(&event, &name.into(), &value));
        }
        // A page that throws has been told all the same.
        drop(self.0.call1(&JsValue::NULL, &event));
    }
}

/// What lives as long as the worker.
struct Session {
    shared: Shared,
    device: Option<Device>,
    images: Option<[Images; 2]>,
    training: Option<Training>,
}

/// What the session lends to a training while it runs.
pub struct Shared {
    pub inbox: UnboundedReceiver<Message>,
    pub page: Page,
    /// The step to pause after.
    pub pause_at: Option<usize>,
    /// What came during a training and is for after it.
    pub later: Option<Message>,
    /// Where the training goes on after a restore or the loss of its device.
    pub snapshot: Option<Snapshot>,
}

/// One training, at work or at rest.
struct Training {
    settings: Settings,
    model: Classifier,
    data: [Images; 2],
}

/// A training that can be gone on with, after so many steps.
pub struct Snapshot {
    pub step: usize,
    pub file: Vec<u8>,
}

impl Session {
    async fn serve(mut self) {
        while let Some(message) = self.next().await {
            if let Err(error) = self.obey(message).await {
                self.shared.page.tell("error", [("message", error.to_string().into())]);
            }
        }
    }

    async fn next(&mut self) -> Option<Message> {
        match self.shared.later.take() {
            Some(message) => Some(message),
            None => self.shared.inbox.next().await,
        }
    }

    async fn obey(&mut self, message: Message) -> Result<()> {
        let page = self.shared.page.clone();
        match (message, &self.training) {
            (Message::Start(settings), _) => {
                self.shared.snapshot = None;
                self.training = Some(self.training_of(settings).await?);
                self.train().await
            }
            (Message::Restore(settings, file), _) => self.restore(settings, file).await,
            (Message::Images(files), _) => self.read_images(&files),
            (Message::PauseAt(step), _) => {
                self.shared.pause_at = Some(step);
                Ok(())
            }
            (Message::Resume, Some(_)) => self.train().await,
            (Message::Save, Some(training)) => match &self.shared.snapshot {
                Some(snapshot) => tell_saved(&page, snapshot, training.model.base()).await,
                None => Ok(()),
            },
            (Message::Weights, Some(training)) => tell_weights(&page, training.model.base()).await,
            (Message::Predict(pixels), Some(training)) => tell_prediction(&page, training.model.base(), &pixels).await,
            // Nothing is going on that this could be about.
            (Message::Pause | Message::Stop | Message::Resume, _) => Ok(()),
            (Message::Save | Message::Weights | Message::Predict(_), None) => Ok(()),
        }
    }

    /// The device, opened when it is first needed and again when it was lost.
    async fn device(&mut self) -> Result<Device> {
        if let Some(device) = self.device.clone().filter(|device| device.check().is_ok()) {
            return Ok(device);
        }
        let device = Device::new().await?;
        let random = random_numbers(&device).await?;
        self.shared.page.tell("device", [("random", random.into())]);
        self.device = Some(device.clone());
        Ok(device)
    }

    async fn training_of(&mut self, settings: Settings) -> Result<Training> {
        let data = self.images.clone().unwrap_or_else(|| settings.draw());
        let device = self.device().await?;
        let model = Classifier::new(&settings)?.on(&device);
        Ok(Training { settings, model, data })
    }

    async fn restore(&mut self, settings: Settings, file: Vec<u8>) -> Result<()> {
        let checkpoint = Checkpoint::from_bytes(&file)?;
        let mut training = self.training_of(settings).await?;
        training.model.restore(&checkpoint).await?;
        let step = steps_of(&checkpoint);
        self.shared.snapshot = Some(Snapshot { step, file });
        let weights = fingerprint(training.model.base().weights().await?);
        self.shared.page.tell("restored", [("step", step.into()), ("weights", weights.into())]);
        self.training = Some(training);
        Ok(())
    }

    fn read_images(&mut self, files: &[[Vec<u8>; 2]]) -> Result<()> {
        let read = files.iter().map(|[images, labels]| Images::from_idx(images, labels)).collect::<Result<Vec<_>>>()?;
        let mut sets = read.into_iter();
        let Some(mut train) = sets.next() else { return Ok(()) };
        let test = sets.next().unwrap_or_else(|| {
            let kept = train.len() - train.len() / 6;
            let (pixels, labels) =
                (train.pixels.split_off(kept * train.rows * train.columns), train.labels.split_off(kept));
            Images { pixels, labels, ..train }
        });
        for images in [&train, &test] {
            if (images.rows, images.columns) != (28, 28) || images.is_empty() {
                let what =
                    format!("images of 28 by 28 pixels are wanted, these are {} by {}", images.rows, images.columns);
                return Err(Error::data(what));
            }
        }
        self.shared.page.tell("images", [("train", train.len().into()), ("test", test.len().into())]);
        self.images = Some([train, test]);
        Ok(())
    }

    /// Trains to the end, from the newest snapshot if there is one. A lost device costs the steps since then.
    async fn train(&mut self) -> Result<()> {
        let mut lost_at = None;
        loop {
            let device = self.device().await?;
            let Some(training) = &mut self.training else { return Ok(()) };
            let Err(error) = training.fit(&device, &mut self.shared).await else { return Ok(()) };
            let lost = matches!(error.kind(), ErrorKind::DeviceLost { .. }) || device.check().is_err();
            let step = self.shared.snapshot.as_ref().map_or(0, |snapshot| snapshot.step);
            if !lost || lost_at == Some(step) {
                return Err(error);
            }
            lost_at = Some(step);
            // A step may learn of it before the device itself does.
            self.device = None;
            self.shared.page.tell("lost", [("message", error.to_string().into()), ("step", step.into())]);
            let device = self.device().await?;
            if let Some(training) = &mut self.training {
                training.model = Classifier::new(&training.settings)?.on(&device);
            }
        }
    }
}

impl Training {
    async fn fit(&mut self, device: &Device, shared: &mut Shared) -> Result<()> {
        let Settings { batch_size, epochs, seed, .. } = self.settings;
        let [train, test] = &self.data;
        let resume_from = match &shared.snapshot {
            Some(snapshot) => Some(Checkpoint::from_bytes(&snapshot.file)?),
            None => None,
        };
        let weights = fingerprint(self.model.base().weights().await?);
        shared.page.tell(
            "begin",
            [
                ("step", resume_from.as_ref().map_or(0, steps_of).into()),
                ("steps", train.len().div_ceil(batch_size).into()),
                ("epochs", epochs.into()),
                ("parameters", self.model.base().count_params().into()),
                ("weights", weights.into()),
            ],
        );
        let mut control = Control::new(shared, device);
        let options = Fit {
            batch_size,
            epochs,
            seed,
            resume_from,
            verbose: Verbose::Silent,
            validation_data: Some((test.x(), test.y()).into()),
            validation_batch_size: Some(250),
            callbacks: vec![&mut control],
            ..Fit::default()
        };
        self.model.fit((train.x(), train.y()), options).await?;
        Ok(())
    }
}
