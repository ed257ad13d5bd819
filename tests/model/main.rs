//! Models from outside the crate: what a user's program sees of `compile`, `fit`, `evaluate`, `predict` and callbacks.
//!
//! Networks and data sets are as small as shows the behaviour, and what can be computed on the host is compared to it.

#![cfg(not(target_arch = "wasm32"))]

mod callbacks;
mod checkpoint;
mod eager;
mod fit;
mod freezing;
mod gan;
mod guide;
mod learning;
mod levels;
mod networks;
mod outputs;
mod predict;
mod sources;
mod state;
mod weights;

use wengert::prelude::*;

/// `rows` rows of uniform numbers between -1 and 1.
pub fn uniform(seed: u32, rows: usize, width: usize) -> (Tensor, Vec<f32>) {
    let values = random::threefry::uniform([7, seed], rows * width, -1.0, 1.0);
    (Tensor::new(&values, [rows, width]), values)
}

/// `rows` rows whose only entry is their number, from 0.
pub fn numbered(rows: usize) -> Tensor {
    Tensor::new(&(0..rows).map(|row| row as f32).collect::<Vec<_>>(), [rows, 1])
}

/// A line through `width` features.
pub fn linear(width: usize) -> Functional {
    Sequential::new([width]).add(Dense::new(1)).build().unwrap()
}

/// Two layers.
pub fn mlp() -> Functional {
    Sequential::new([4]).add(Dense::new(8).activation("tanh")).add(Dense::new(1)).build().unwrap()
}

pub fn sgd(learning_rate: f64) -> Compile {
    let optimizer = SGD { learning_rate, ..SGD::default() }.into();
    Compile { optimizer, loss: "mse".into(), metrics: vec!["mae".into()], ..Compile::default() }
}

pub fn adam() -> Compile {
    Compile { optimizer: "adam".into(), loss: "mse".into(), metrics: vec!["mae".into()], ..Compile::default() }
}

pub fn silent<'a>() -> Fit<'a> {
    Fit { verbose: Verbose::Silent, ..Fit::default() }
}

pub fn quiet<'a>() -> Evaluate<'a> {
    Evaluate { verbose: Verbose::Silent, ..Evaluate::default() }
}

pub fn unseen<'a>() -> Predict<'a> {
    Predict { verbose: Verbose::Silent, ..Predict::default() }
}

/// The bits of all variables of a network.
pub fn bits(model: &Functional) -> Vec<u8> {
    pollster::block_on(model.weights()).unwrap()
}

pub fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-5 * a.abs().max(b.abs()).max(1e-3), "{a} and {b} differ");
}

/// Predictions of a linear network, on the host.
pub fn predictions(model: &Functional, x: &[f32]) -> Vec<f64> {
    let device = pollster::block_on(model.device()).unwrap();
    let weights: Vec<Vec<f32>> = model.trainable().unwrap().iter().map(|w| w.to_vec_on(&device).unwrap()).collect();
    let row = |row: &[f32]| {
        row.iter().zip(&weights[0]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() + f64::from(weights[1][0])
    };
    x.chunks(weights[0].len()).map(row).collect()
}

/// Mean of `f(error)` over rows.
pub fn mean(y: &[f32], y_pred: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    y.iter().zip(y_pred).map(|(y, p)| f(p - f64::from(*y))).sum::<f64>() / y.len() as f64
}

/// The two methods that every struct around a network has.
#[macro_export]
macro_rules! base {
    ($field:tt) => {
        fn base(&self) -> &Functional {
            &self.$field
        }
        fn base_mut(&mut self) -> &mut Functional {
            &mut self.$field
        }
    };
}
