//! A page that trains: a small convolutional network on digits, by a training step of one's own, in a Web Worker.
//!
//!     scripts/web serve                                 builds the page, serves it and prints its address
//!     cargo run --example web                           natively: prints what the page's first 20 steps must print too
//!
//! `model.rs` is the network and its step, the same for both. `trainer.rs` is the worker's side of the page: one task that
//! owns the model and takes messages, and `control.rs` what happens between the steps of its training. The rest of the
//! folder is the page itself, plain JavaScript.

#[cfg(target_arch = "wasm32")]
mod control;
mod model;
#[cfg(target_arch = "wasm32")]
mod trainer;

#[cfg(target_arch = "wasm32")]
fn main() {
    // A panic ends in a bare "unreachable" otherwise.
    std::panic::set_hook(Box::new(|info| web_sys::console::error_1(&info.to_string().into())));
}

#[cfg(not(target_arch = "wasm32"))]
fn main() {
    env_logger::init();
    wengert::main(model::first_steps());
}
