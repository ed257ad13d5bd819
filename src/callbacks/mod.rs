//! What happens around the steps of a training.
//!
//! Floor 4. A [`Callback`] has hooks before and after epochs and batches and sees the [`Run`]. The progress bar is one.
//! What decides is apart from what acts: [`rules`] are plain states that are given numbers, the callbacks around them
//! find the scores, stop, save and write. [`curve`] draws what the history holds.
//!
//! None waits for a step unless its documentation says so. During an epoch the bar, [`TerminateOnNaN`] and
//! [`TensorBoard`] look at numbers that were asked for and have come; at its end its scores are read once for all, and
//! learning rates by whoever needs them.

mod backup;
#[cfg(any(feature = "progress", not(target_arch = "wasm32")))] // names of files have numbers as bars have them
pub mod bar;
mod callback;
mod checkpoint;
mod csv;
pub mod curve;
mod event_file;
mod lambda;
mod latest;
mod monitor;
mod nan;
#[cfg(feature = "progress")]
mod progress;
mod rate;
pub mod rules;
mod state;
mod stopping;
#[cfg(not(target_arch = "wasm32"))]
mod template;
mod tensorboard;

#[cfg(not(target_arch = "wasm32"))]
pub use backup::BackupAndRestore;
#[cfg(any(feature = "progress", not(target_arch = "wasm32")))]
pub use bar::Style;
pub use callback::{Callback, Hook, Run, Snapshot, nothing};
#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::ModelCheckpoint;
#[cfg(not(target_arch = "wasm32"))]
pub use csv::CSVLogger;
pub use curve::curve_svg;
pub use lambda::LambdaCallback;
pub use monitor::Direction;
pub use nan::TerminateOnNaN;
#[cfg(feature = "progress")]
pub use progress::ProgressBar;
pub use rate::{LearningRateScheduler, ReduceLROnPlateau};
pub use state::CallbackState;
pub use stopping::EarlyStopping;
#[cfg(not(target_arch = "wasm32"))]
pub use tensorboard::TensorBoard;
