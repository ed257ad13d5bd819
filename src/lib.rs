//! Deep learning on any GPU, natively and in the browser: a training step is a pure function of a state tuple; it is
//! recorded once, differentiated on its tape, compiled to a fixed plan of WGSL dispatches, and replayed.
//!
//! ```text
//! train_step(state, batch) -> (logs, state)            ordinary Rust over Tensor
//!      | record            every operation appends a node; creation order is the tape      graph
//!      v
//! value_and_grad           walks the tape backwards; each op's rule appends more nodes     grad, ops
//!      |
//!      v
//! program -> fuse -> pack -> schedule -> place -> kernel                                   lower
//!      |
//!      v
//! Plan                     dispatches over fixed buffers; the state is updated in place    plan
//!      | replay            upload, encode, one submission; nothing made, nothing awaited   step, gpu
//!      v
//! scalars -> ring          read when somebody looks
//! ```
//!
//! Three levels of use, each keeping the conveniences of the one before: `compile` and `fit`; a [`model::Model`] that
//! overrides [`train_step`](model::Model::train_step) or another hook; a loop of one's own around a [`step::Step`].
//!
//! ```
//! use wengert::prelude::*;
//!
//! # fn main() -> Result<()> {
//! // y = 3 x - 1, learnt by one neuron.
//! let mut model = Sequential::new([1]).add(Dense::new(1)).build()?;
//! model.compile(Compile { optimizer: SGD { learning_rate: 0.1, ..SGD::default() }.into(), loss: "mse".into(), ..Compile::default() })?;
//! let x = Tensor::new(&[-1.0f32, 0.0, 1.0, 2.0], [4, 1]);
//! let y = &x * 3.0 - 1.0;
//! let history = model.fit_blocking((&x, &y), Fit { epochs: 50, verbose: Verbose::Silent, ..Fit::default() })?;
//! assert!(history.last("loss").unwrap() < 1e-3);
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! A module imports only from its own floor or below; `tests/architecture.rs` checks it, `ARCHITECTURE.md` explains it.
//!
//! | floor | modules | what they are |
//! |---|---|---|
//! | 4 | [`model`] [`callbacks`] [`data`] [`io`] | fit and what surrounds it |
//! | 3 | [`layers`] [`losses`] [`metrics`] [`optimizers`] [`initializers`] [`choice`] | pure functions over tensors and variables |
//! | 2 | [`ops`] [`grad`](mod@grad) [`random`] | the language |
//! | 1 | [`graph`] [`lower`] [`plan`] [`step`] | nodes, the compiler, replay |
//! | 0 | [`gpu`] [`shape`] [`dtype`] [`error`] [`host`] [`threads`] | the machine and the plain values |

// In a browser nothing is Send, and what is shared natively is shared there in the same way.
#![cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync))]

pub mod callbacks;
pub mod choice;
pub mod collections;
pub mod data;
pub mod dtype;
pub mod error;
pub mod gpu;
pub mod grad;
pub mod graph;
pub mod host;
pub mod initializers;
pub mod io;
pub mod layers;
pub mod losses;
pub mod lower;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod optimizers;
pub mod plan;
pub mod prelude;
pub mod random;
pub mod read;
pub mod shape;
mod sort;
pub mod step;
pub mod threads;

pub use error::{Error, ErrorKind, Result};
pub use graph::Tensor;
pub use host::{main, say};
