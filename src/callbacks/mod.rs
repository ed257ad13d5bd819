//! What happens around the steps of a training.
//!
//! Floor 4. A [`Callback`] has hooks before and after epochs and steps and sees the [`Run`]. The progress bar is one.

pub mod bar;
mod callback;
mod progress;

pub use bar::Style;
pub use callback::{Callback, Hook, LambdaCallback, Run, nothing};
pub use progress::ProgressBar;
