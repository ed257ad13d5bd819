//! What happens around the steps of a training.
//!
//! Floor 4. A [`Callback`] has hooks before and after epochs and steps and sees the [`Run`]. The progress bar is one;
//! [`EarlyStopping`], [`TerminateOnNaN`] and [`ModelCheckpoint`] are those that most trainings want; [`curve`] draws
//! what the history holds.

mod backup;
pub mod bar;
mod callback;
mod checkpoint;
pub mod curve;
mod latest;
mod monitor;
mod progress;
mod state;
mod stopping;

#[cfg(not(target_arch = "wasm32"))]
pub use backup::BackupAndRestore;
pub use bar::Style;
pub use callback::{Callback, Hook, LambdaCallback, Run, Snapshot, nothing};
#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::ModelCheckpoint;
pub use curve::curve_svg;
pub use monitor::Direction;
pub use progress::ProgressBar;
pub use state::CallbackState;
pub use stopping::{EarlyStopping, TerminateOnNaN};
