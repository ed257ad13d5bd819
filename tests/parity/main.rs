//! The training surface against numbers that another implementation computed.
//!
//! `generate/*.py` compute them with Keras on JAX, both in f64, from inputs that are stored with the results;
//! `data/*.safetensors` are what they wrote, one file for each area. A tolerance is 1e-5 relative unless a test says
//! why it cannot be: nothing here is compared with what this crate itself computed. Deliberately absent: a Python
//! interpreter; the programs run only when somebody wants the numbers anew (`generate/README.md`).
#![cfg(not(target_arch = "wasm32"))]

mod callbacks;
mod convolution;
mod fit;
mod layers;
mod losses;
mod metrics;
mod optimizers;
mod reference;
mod schedules;
