//! A training that may be killed at any time: run it again, and it goes on with the very next batch.
//!
//!     cargo run --release --example resume              interrupt it with Ctrl-C, and run it again
//!     cargo run --release --example resume -- --crash   ends itself in the middle of an epoch
//!
//! However often it was interrupted, the last line is the same. Files are in target/resume/.

use wengert::prelude::*;

const ROWS: usize = 4000;

fn model() -> Result<Functional> {
    let network = Sequential::new([16])
        .add(Dense::new(64).activation("relu"))
        .add(Dropout::new(0.2))
        .add(Dense::new(64).activation("relu"))
        .add(Dense::new(1));
    let mut model = network.build()?;
    model.compile(Compile {
        optimizer: "adam".into(),
        loss: "mse".into(),
        metrics: vec!["mae".into()],
        ..Compile::default()
    })?;
    Ok(model)
}

/// Sixteen numbers and a smooth function of four of them.
fn data() -> (Tensor, Tensor) {
    let x = random::threefry::uniform([0, 1], ROWS * 16, -1.0, 1.0);
    let y: Vec<f32> = x.chunks(16).map(|x| (3.0 * x[0]).sin() + x[1] * x[2] - x[3].abs()).collect();
    (Tensor::new(&x, [ROWS, 16]), Tensor::new(&y, [ROWS, 1]))
}

/// Ends the process without a word, as a power cut would.
struct Crash {
    in_epoch: usize,
}

impl Callback for Crash {
    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        if run.epoch >= self.in_epoch && run.step > run.steps / 2 {
            std::process::abort();
        }
        wengert::callbacks::nothing()
    }
}

async fn run() -> Result<()> {
    env_logger::init();
    let (mut model, (x, y)) = (model()?, data());
    let mut backup = BackupAndRestore::new("target/resume/backup.safetensors").save_freq(50);
    let mut crash = Crash { in_epoch: 2 };
    let mut callbacks: Vec<&mut dyn Callback> = vec![&mut backup];
    if std::env::args().any(|argument| argument == "--crash") {
        callbacks.push(&mut crash);
    }
    let options = Fit { epochs: 6, batch_size: 32, validation_split: 0.1, callbacks, ..Fit::default() };
    let history = model.fit((&x, &y), options).await?;

    // The weights alone, for a program that uses the model, and the whole of it, for one that trains it further.
    model.save_weights("target/resume/weights.safetensors").await?;
    model.save("target/resume/model.safetensors").await?;
    let loss = history.get("val_loss").unwrap_or_default();
    say(&format!("validation loss by epoch: {loss:?}"));
    Ok(())
}

fn main() {
    wengert::main(run())
}
