//! The network, its training step and its data: the same natively and on a page.

use wengert::data::{Images, digits};
use wengert::prelude::*;

/// What a training depends on: equal settings and data give equal numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub seed: u64,
    pub epochs: usize,
    pub batch_size: usize,
    /// Digits to draw, to train on and to test on; nothing where images were given.
    pub digits: [usize; 2],
    /// A single layer instead of the network of convolutions.
    pub tiny: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { seed: 1, epochs: 5, batch_size: 32, digits: [6400, 1000], tiny: false }
    }
}

impl Settings {
    /// The digits that these settings draw, to train on and to test on.
    pub fn draw(&self) -> [Images; 2] {
        [digits(self.digits[0], 1), digits(self.digits[1], 2)]
    }
}

/// A classifier that trains by a step written out: what `fit` does with it is up to this function.
pub struct Classifier(Functional);

impl Model for Classifier {
    fn base(&self) -> &Functional {
        &self.0
    }

    fn base_mut(&mut self) -> &mut Functional {
        &mut self.0
    }

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (x, y) = batch.xy()?;

        // The loss, the predictions, and the gradients of the loss by every weight.
        let ((loss, (y_pred, non_trainable)), gradients) = value_and_grad(
            |trainable| self.compute_loss_and_updates(trainable, &non_trainable, &x, &y, Mode::Train),
            &trainable,
        )?;

        // New weights, new optimizer variables.
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &gradients, &trainable)?;

        // New metric variables. Their results are means over the epoch so far.
        let (mut logs, metrics): (Logs, _) = (self.metrics().into_iter().zip(metrics))
            .map(|(metric, variables)| {
                let observed = match metric.name() {
                    "loss" => Observed::value(&loss),
                    _ => Observed::pair(&y, &y_pred),
                };
                let variables = metric.stateless_update_state(&variables, observed);
                ((metric.name().to_string(), metric.stateless_result(&variables)), variables)
            })
            .unzip();

        // Whatever else is worth a curve: the loss of this batch alone, and how long the gradient is.
        let squares = gradients.iter().map(|gradient| gradient.square().sum(..));
        let squared = squares.fold(Tensor::scalar(0.0f32), |sum, square| sum + square);
        logs.push("batch_loss", loss);
        logs.push("gradient_norm", squared.sqrt());
        Ok((logs, (trainable, non_trainable, optimizer, metrics)))
    }
}

impl Classifier {
    /// The network with its first weights, compiled.
    pub fn new(settings: &Settings) -> Result<Classifier> {
        let network = match settings.tiny {
            true => Sequential::new([28, 28]).add(Flatten).add(Dense::new(10)),
            false => Sequential::new([28, 28])
                .add(Reshape::new([28, 28, 1]))
                .add(Conv2D::new(8, 3).activation("relu"))
                .add(MaxPooling2D::new(2))
                .add(Conv2D::new(16, 3).activation("relu"))
                .add(MaxPooling2D::new(2))
                .add(Flatten)
                .add(Dropout::new(0.2))
                .add(Dense::new(10)),
        };
        let mut model = Classifier(network.build()?.seed(settings.seed)?);
        model.compile(Compile {
            optimizer: Adam { learning_rate: 0.002, ..Adam::default() }.into(),
            loss: SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
            metrics: vec!["accuracy".into()],
            ..Compile::default()
        })?;
        Ok(model)
    }

    /// The same on this device.
    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "the native program takes the default device"))]
    pub fn on(self, device: &Device) -> Classifier {
        Classifier(self.0.on(device))
    }
}

/// FNV-1a: a short name for many bytes, to compare them by.
pub fn fingerprint(bytes: impl IntoIterator<Item = u8>) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Random numbers that a device drew, by their fingerprint. Every device draws the same.
pub async fn random_numbers(device: &Device) -> Result<String> {
    let bits = random::bits(&random::key(7), [4096]).read_on::<u32>(device).await?;
    Ok(fingerprint(bits.into_iter().flat_map(u32::to_le_bytes)))
}

/// Takes the first 20 steps of the page's training and prints their numbers, one step a line, as the page gives them.
#[cfg(not(target_arch = "wasm32"))]
pub async fn first_steps() -> Result<()> {
    const STEPS: usize = 20;
    let settings = Settings::default();
    let [train, _] = settings.draw();
    let mut model = Classifier::new(&settings)?;
    say(&format!("random {}", random_numbers(&model.base().device().await?).await?));
    say(&format!("weights {}", fingerprint(model.base().weights().await?)));

    struct Print;
    impl Callback for Print {
        fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
            Box::pin(async move {
                let scores = run.read_logs().await?;
                let numbers: String = scores.iter().map(|(name, value)| format!(" {name} {value}")).collect();
                say(&format!("step {}{numbers}", run.step));
                run.stop = run.step == STEPS;
                Ok(())
            })
        }
    }
    let mut print = Print;
    let options = Fit {
        batch_size: settings.batch_size,
        seed: settings.seed,
        verbose: Verbose::Silent,
        callbacks: vec![&mut print],
        ..Fit::default()
    };
    model.fit((train.x(), train.y()), options).await?;
    Ok(())
}
