//! The field's usual architectures learn, each to a stated loss.
//!
//! Where it can be, the task is made up so that the loss without the architecture's characteristic part is known, and the
//! bound lies below. Deliberately absent: speed, and how fast the loss falls.

use crate::{base, silent, uniform, unseen};
use wengert::data::digits;
use wengert::optimizers::ITERATION;
use wengert::prelude::*;

fn adam(learning_rate: f64, loss: &str) -> Compile {
    Compile {
        optimizer: Adam { learning_rate, ..Adam::default() }.into(),
        loss: loss.into(),
        metrics: vec!["accuracy".into()],
        ..Compile::default()
    }
}

fn last_loss(model: &mut Functional, x: &Tensor, y: &Tensor, epochs: usize) -> f64 {
    let history = model.fit_blocking((x, y), Fit { epochs, ..silent() }).unwrap();
    *history.get("loss").unwrap().last().unwrap()
}

/// The sign of the first of twelve numbers: whoever forgets it answers with chance, a loss of 0.693.
#[test]
fn an_lstm_remembers_the_first_step() {
    let (x, values) = uniform(1, 256, 12);
    let y: Vec<f32> = values.chunks(12).map(|row| f32::from(row[0] > 0.0)).collect();
    let (x, y) = (x.reshape([256, 12, 1]), Tensor::new(&y, [256, 1]));
    let mut model =
        Sequential::new([12, 1]).add(LSTM::new(12)).add(Dense::new(1).activation("sigmoid")).build().unwrap();
    model.compile(adam(0.03, "binary_crossentropy")).unwrap();
    let loss = last_loss(&mut model, &x, &y, 40);
    assert!(loss < 0.15, "{loss}");
}

/// The mean of all steps so far. Whoever sees the present step only is off by the rest: of variance 1/3 an eighth or
/// more on average, a loss of 0.04.
#[test]
fn a_gru_keeps_a_running_mean() {
    let (x, values) = uniform(2, 256, 8);
    let mean = |row: &[f32], to: usize| row[..=to].iter().sum::<f32>() / (to + 1) as f32;
    let y: Vec<f32> = values.chunks(8).flat_map(|row| (0..8).map(move |to| mean(row, to))).collect();
    let (x, y) = (x.reshape([256, 8, 1]), Tensor::new(&y, [256, 8, 1]));
    let inputs = Input([8, 1]);
    let output = Dense::new(1).on(GRU::new(12).return_sequences(true).on(&inputs));
    let mut model = Functional::new(&[inputs], &[output]).unwrap();
    model.compile(Compile { metrics: vec![], ..adam(0.02, "mse") }).unwrap();
    let loss = last_loss(&mut model, &x, &y, 40);
    assert!(loss < 0.005, "{loss}");
}

/// Words of six letters, twice: the second half can be told from the first only by looking six steps back. Without
/// attention all of it costs ln 8 = 2.08 a letter, with it the half: 1.04 and no less.
#[test]
fn a_transformer_looks_back() {
    const HALF: usize = 6;
    let letters: Vec<i32> = uniform(3, 256, HALF).1.iter().map(|u| ((u + 1.0) * 4.0) as i32).collect();
    let word = |row: &[i32], ahead: usize| -> Vec<i32> {
        (ahead..ahead + 2 * HALF).map(|at| if at == 2 * HALF { 0 } else { row[at % HALF] }).collect()
    };
    let rows = |ahead: usize| -> Vec<i32> { letters.chunks(HALF).flat_map(|row| word(row, ahead)).collect() };
    let (x, y) = (Tensor::new(&rows(0), [256, 2 * HALF]), Tensor::new(&rows(1), [256, 2 * HALF]));
    let places: Vec<i32> = (0..256).flat_map(|_| 0..2 * HALF as i32).collect();
    let places = Tensor::new(&places, [256, 2 * HALF]);

    let (tokens, at) = (Symbolic::input([2 * HALF], DType::I32), Symbolic::input([2 * HALF], DType::I32));
    let mut h = Add.on([&Embedding::new(8, 32).on(&tokens), &Embedding::new(2 * HALF, 32).on(&at)]);
    for _ in 0..2 {
        let y = LayerNormalization::new().on(&h);
        h = Add.on([&h, &MultiHeadAttention::new(2, 16).use_causal_mask(true).on([&y, &y])]);
        let y = Dense::new(64).activation("gelu").on(LayerNormalization::new().on(&h));
        h = Add.on([&h, &Dense::new(32).on(&y)]);
    }
    let logits = Dense::new(8).activation("softmax").on(LayerNormalization::new().on(&h));
    let mut model = Functional::new(&[tokens, at], &[logits]).unwrap();
    model.compile(adam(0.004, "sparse_categorical_crossentropy")).unwrap();
    let history =
        model.fit_blocking((vec![x, places], vec![y]), Fit { epochs: 30, batch_size: 64, ..silent() }).unwrap();
    let loss = history.get("loss").unwrap();
    assert!(*loss.last().unwrap() < 1.3, "{loss:?}");
}

/// A residual block with batch normalisation, projected past by a 1x1 convolution, on the digits.
#[test]
fn a_residual_block_reads_digits() {
    let images = digits(512, 4);
    let (x, y) = (images.x().unsqueeze(-1), images.y());
    let conv = |filters: usize, size: usize| Conv2D::new(filters, size).padding("same").use_bias(false);
    let inputs = Input([28, 28, 1]);
    let stem = MaxPooling2D::new(2).on(conv(8, 3).activation("relu").on(&inputs));
    let h = conv(16, 3).strides([2, 2]).on(&stem);
    let h = conv(16, 3).on(ReLU::default().on(BatchNormalization::new().on(&h)));
    let past = conv(16, 1).strides([2, 2]).on(&stem);
    let h = ReLU::default().on(Add.on([&BatchNormalization::new().on(&h), &past]));
    let output = Dense::new(10).activation("softmax").on(GlobalAveragePooling2D::new().on(&h));
    let mut model = Functional::new(&[inputs], &[output]).unwrap();
    model.compile(adam(0.01, "sparse_categorical_crossentropy")).unwrap();
    let loss = last_loss(&mut model, &x, &y, 12);
    assert!(loss < 0.4, "{loss}");
}

/// A variational autoencoder (Kingma and Welling 2013); the second input of its network is the noise.
struct Vae(Functional);

impl Model for Vae {
    base!(0);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        let (trainable, non_trainable, optimizer, metrics) = state;
        let x = batch.x()?;
        let key = random::fold_in(&random::key(5), &optimizer[0][ITERATION]);
        let ((loss, (error, kl)), grads) = value_and_grad(
            |tv| {
                let inputs = [x.clone(), random::normal(&key, [x.dim(0), 4])];
                let (outputs, _) = self.0.network().call(tv, &non_trainable, &inputs, Mode::Train)?;
                let (mean, log_variance, reconstruction) = (&outputs[0], &outputs[1], &outputs[2]);
                let error = (reconstruction - &x).square().sum(-1).mean(..);
                let kl = (log_variance.exp() + mean.square() - 1.0 - log_variance).sum(-1).mean(..) * 0.5;
                Ok((&error + &kl * 0.1, (error, kl)))
            },
            &trainable,
        )?;
        let (trainable, optimizer) = self.optimizer().stateless_apply(&optimizer, &grads, &trainable)?;
        Ok(([("loss", loss), ("error", error), ("kl", kl)].into(), (trainable, non_trainable, optimizer, metrics)))
    }
}

/// Without a word through the code the best reconstruction is the mean image, whose error is the variance of the data.
#[test]
fn a_variational_autoencoder_describes_digits_by_four_numbers() {
    let images = digits(512, 6).flat();
    let (x, noise) = (Input([784]), Input([4]));
    let h = Dense::new(64).activation("relu").on(&x);
    let (mean, log_variance) = (Dense::new(4).on(&h), Dense::new(4).on(&h));
    let sample = Lambda::of(3, |of| &of[0] + (&of[1] * 0.5).exp() * &of[2]).on([&mean, &log_variance, &noise]);
    let decoded = Dense::new(784).activation("sigmoid").on(Dense::new(64).activation("relu").on(&sample));
    let mut model = Vae(Functional::new(&[x, noise], &[mean, log_variance, decoded]).unwrap());
    let optimizer = Adam { learning_rate: 0.003, ..Adam::default() }.into();
    model.compile(Compile { optimizer, ..Compile::default() }).unwrap();

    let history = model.fit_blocking(&images, Fit { epochs: 25, ..silent() }).unwrap();
    let (error, kl) = (history.get("error").unwrap(), history.get("kl").unwrap());
    let pixels = images.to_vec::<f32>().unwrap();
    let mean = |of: &dyn Fn(usize) -> f64| (0..512).map(of).sum::<f64>() / 512.0;
    let variance = |pixel: usize| {
        let at = |row: usize| f64::from(pixels[row * 784 + pixel]);
        mean(&|row| at(row) * at(row)) - mean(&at).powi(2)
    };
    let variance: f64 = (0..784).map(variance).sum();
    assert!(error[24] < 0.8 * variance, "{error:?} of {variance}");
    assert!(kl[24] > 1.0 && kl[24] < 40.0, "{kl:?}");
}

/// Points of a ring of radius 2: the generator starts near the middle and ends at the radius, on average and not in one
/// place.
#[test]
fn a_generator_finds_the_ring() {
    let mut model = crate::gan::gan();
    model.fit_blocking(crate::gan::ring(256), Fit { epochs: 150, ..silent() }).unwrap();
    let noise = uniform(8, 256, 2).0;
    let points = model.predict_blocking(&noise, unseen()).unwrap().to_vec::<f32>().unwrap();
    let radius = points.chunks(2).map(|p| f64::from(p[0].hypot(p[1]))).sum::<f64>() / 256.0;
    let middle = (0..2).map(|axis| points.iter().skip(axis).step_by(2).map(|&v| f64::from(v)).sum::<f64>() / 256.0);
    let middle: Vec<f64> = middle.collect();
    assert!((1.5..2.5).contains(&radius), "{radius}");
    assert!(middle.iter().all(|m| m.abs() < 1.2), "{middle:?}");
}
