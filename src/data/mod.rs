//! What a model is trained on: batches, data sets on the host, the order of an epoch, and two sets of digits.
//!
//! Floor 4. A [`Batch`] is what a step gets; a [`Data`] holds the same parts whole, in host memory, and gathers the
//! rows of a batch; [`Batches`] says which rows those are. [`mnist`] reads the files of MNIST, [`digits`](mod@digits)
//! draws digits of our own where there are none. Deliberately absent: downloading, augmentation (layers do that, on the
//! device), and worker threads: a gathered batch is one copy of its rows.

mod batch;
mod batches;
mod dataset;
pub mod digits;
pub mod idx;
mod images;
pub mod mnist;

pub use batch::Batch;
pub use batches::{Batches, Shuffle};
pub use dataset::Data;
pub use digits::digits;
pub use images::Images;
