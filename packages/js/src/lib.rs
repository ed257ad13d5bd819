//! Wengert for JavaScript: `Sequential` models that are described by plain objects and trained on WebGPU.
//!
//! `types.ts` says in TypeScript what the objects look like, and goes into the package's `.d.ts` as it is. `options.rs`
//! reads such objects and refuses what it does not know, `layers.rs` and `training.rs` make layers, optimizers and losses
//! of them, `data.rs` turns typed arrays into tensors and back, `model.rs` is the class, `hooks.rs` its callbacks.
//! Deliberately absent: tensors and steps of one's own, which are written in Rust, as in `examples/web`; and anything on
//! other targets than wasm.

#![cfg(target_arch = "wasm32")]

mod data;
mod hooks;
mod layers;
mod model;
mod options;
mod training;

pub use model::Sequential;

use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.ts");

/// Runs when the module is loaded: a panic ends in a bare "unreachable" otherwise.
#[wasm_bindgen(start, skip_typescript)]
fn start() {
    std::panic::set_hook(Box::new(|info| web_sys::console::error_1(&info.to_string().into())));
}
