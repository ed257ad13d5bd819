//! What `compile`, `fit`, `evaluate` and `predict` are given: structs with defaults, of which a program names what differs.

use super::Checkpoint;
use crate::callbacks::Callback;
use crate::data::Batch;
use crate::losses::LossChoice;
use crate::metrics::MetricChoice;
use crate::optimizers::OptimizerChoice;

/// How a model is to be trained. Everything may be a name, an object or (losses, metrics) a closure:
/// `Compile { optimizer: "adam".into(), loss: "mse".into(), metrics: vec!["mae".into()], ..Default::default() }`.
#[derive(Clone, Debug)]
pub struct Compile {
    /// Default: RMSprop, as in Keras.
    pub optimizer: OptimizerChoice,
    /// May be absent where a custom step computes its own.
    pub loss: LossChoice,
    /// Besides the loss itself.
    pub metrics: Vec<MetricChoice>,
    /// Steps that are handed to the device in one submission; callbacks see every so many.
    pub steps_per_execution: usize,
}

impl Default for Compile {
    fn default() -> Compile {
        Compile {
            optimizer: OptimizerChoice::default(),
            loss: LossChoice::default(),
            metrics: Vec::new(),
            steps_per_execution: 1,
        }
    }
}

/// How much `fit` and its kin write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Verbose {
    /// A bar that moves on a terminal, one line elsewhere.
    #[default]
    Auto,
    /// Nothing: Keras' 0.
    Silent,
    /// The bar, moving: Keras' 1.
    Bar,
    /// One line an epoch: Keras' 2.
    Line,
}

/// How to train. Take what differs: `Fit { epochs: 3, ..Default::default() }`.
pub struct Fit<'a> {
    /// Rows of a step; the last of an epoch may have fewer.
    pub batch_size: usize,
    /// Epoch to stop before, counted from 0.
    pub epochs: usize,
    /// Epoch to start with: a training that goes on takes the rows it would have taken.
    pub initial_epoch: usize,
    /// Go on where the training stood that this was taken of, in the middle of an epoch too; `initial_epoch` does not
    /// count then. Variables, order of the data, metrics, history and the memory of callbacks are those of then. A callback that finds a
    /// checkpoint of its own, such as [`BackupAndRestore`](crate::callbacks::BackupAndRestore), goes before this.
    pub resume_from: Option<Checkpoint>,
    /// What is written.
    pub verbose: Verbose,
    /// What else happens around epochs and steps, in this order.
    pub callbacks: Vec<&'a mut dyn Callback>,
    /// Evaluated at the end of an epoch, with the default `test_step` or one's own; goes before `validation_split`.
    pub validation_data: Option<Batch>,
    /// The share of rows, from the end and before shuffling, that is held back as validation data.
    pub validation_split: f64,
    /// Rows of a validation step; that of a training step if absent.
    pub validation_batch_size: Option<usize>,
    /// Validate every so many epochs.
    pub validation_freq: usize,
    /// Whether each epoch takes the rows in an order of its own.
    pub shuffle: bool,
    /// What that order is drawn from, together with the epoch.
    pub seed: u64,
    /// Steps of an epoch, which then goes on through the rows where the last stopped; one pass if absent.
    pub steps_per_epoch: Option<usize>,
}

impl Default for Fit<'_> {
    fn default() -> Self {
        Fit {
            batch_size: 32,
            epochs: 1,
            initial_epoch: 0,
            resume_from: None,
            verbose: Verbose::Auto,
            callbacks: Vec::new(),
            validation_data: None,
            validation_split: 0.0,
            validation_batch_size: None,
            validation_freq: 1,
            shuffle: true,
            seed: 0,
            steps_per_epoch: None,
        }
    }
}

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Evaluate {
    /// Rows of a step.
    pub batch_size: usize,
    /// What is written.
    pub verbose: Verbose,
}

impl Default for Evaluate {
    fn default() -> Evaluate {
        Evaluate { batch_size: 32, verbose: Verbose::Auto }
    }
}

/// How to predict.
#[derive(Clone, Copy, Debug)]
pub struct Predict {
    /// Rows of a step.
    pub batch_size: usize,
}

impl Default for Predict {
    fn default() -> Predict {
        Predict { batch_size: 32 }
    }
}
