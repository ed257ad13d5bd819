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
    /// May be absent where a custom step computes its own. With several outputs: one for all of them, a list in their
    /// order, `["mse", "mae"].into()`, or by name, `[("price", "mse"), ("stars", "mae")].into()`.
    pub loss: LossChoice,
    /// What the loss of each output counts in their sum: `[1.0, 0.2].into()`, `[("stars", 0.2)].into()`.
    pub loss_weights: LossWeights,
    /// Besides the loss itself, not weighted by sample or class weights. With several outputs: one entry for each in
    /// their order, or by name: `vec![("price", ["mae", "mse"]).into()]`.
    pub metrics: Vec<MetricChoice>,
    /// Metrics weighted by sample or class weights.
    pub weighted_metrics: Vec<MetricChoice>,
    /// Steps that are handed to the device in one submission, those of a small model in one dispatch; callbacks see every so
    /// many.
    pub steps_per_execution: usize,
    /// Call the steps for every batch instead of recording them once: inside a step tensors can then be read and
    /// printed, and `if` may look at them. Slow, for finding out what happens; numbers are the same.
    pub run_eagerly: bool,
    /// Bytes that the intermediate results of a step may take on the device. Where they would take more, some are computed
    /// again: see [`Step::memory_budget`](crate::step::Step::memory_budget).
    pub memory_budget: Option<u64>,
    /// Look at logs and variables after every step of training and evaluation, and end with [`ErrorKind::NonFinite`] where
    /// the first NaN or infinity in them began: op, operands, layer and line; the model keeps the state of before that
    /// step. Every step is waited for. Natively only, and not together with `run_eagerly`.
    ///
    /// [`ErrorKind::NonFinite`]: crate::error::ErrorKind::NonFinite
    pub debug_nans: bool,
}

/// What the loss of each output counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LossWeights {
    /// 1 for each.
    #[default]
    Equal,
    /// In the order of the outputs.
    List(Vec<f64>),
    /// By the names of outputs; 1 for those not named.
    Named(Vec<(String, f64)>),
}

impl<const N: usize> From<[f64; N]> for LossWeights {
    fn from(list: [f64; N]) -> LossWeights {
        LossWeights::List(list.into())
    }
}

impl From<Vec<f64>> for LossWeights {
    fn from(list: Vec<f64>) -> LossWeights {
        LossWeights::List(list)
    }
}

impl<const N: usize> From<[(&str, f64); N]> for LossWeights {
    fn from(named: [(&str, f64); N]) -> LossWeights {
        LossWeights::Named(named.into_iter().map(|(name, weight)| (name.into(), weight)).collect())
    }
}

impl Default for Compile {
    fn default() -> Compile {
        Compile {
            optimizer: OptimizerChoice::default(),
            loss: LossChoice::default(),
            loss_weights: LossWeights::default(),
            metrics: Vec::new(),
            weighted_metrics: Vec::new(),
            steps_per_execution: 1,
            run_eagerly: false,
            memory_budget: None,
            debug_nans: false,
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
    /// Rows of a step; the last of an epoch may have fewer. A stream has batches of its own size.
    pub batch_size: usize,
    /// Epoch to stop before, counted from 0.
    pub epochs: usize,
    /// Epoch to start with: a training that goes on takes the rows it would have taken.
    pub initial_epoch: usize,
    /// Go on where the training stood that this was taken of, in the middle of an epoch too; `initial_epoch` does not
    /// count then. Variables, order of the data, metrics, history and the memory of callbacks are those of then. A
    /// stream is given from its start, and its batches of before are passed over: `steps_per_epoch` for each epoch from
    /// `initial_epoch` on. A callback that finds a checkpoint of its own, such as
    /// [`BackupAndRestore`](crate::callbacks::BackupAndRestore), goes before this.
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
    /// Steps of a validation, from its first row on; one pass if absent.
    pub validation_steps: Option<usize>,
    /// Validate every so many epochs.
    pub validation_freq: usize,
    /// Validate after these epochs, counted from 1, instead.
    pub validation_epochs: Option<Vec<usize>>,
    /// What rows of a class count in the loss and in weighted metrics of the training: `vec![(0, 1.0), (3, 5.0)]`.
    /// Classes that are not listed count 1. Not together with sample weights. The targets of a stream must lie on the host.
    pub class_weight: Vec<(usize, f64)>,
    /// Whether each epoch takes the rows in an order of its own.
    pub shuffle: bool,
    /// What that order is drawn from, together with the epoch; so equal calls of `fit` take the rows in the same order.
    pub seed: u64,
    /// Steps of an epoch, of `batch_size` rows each, also where Keras would make them larger so that all rows come in, which then goes on through the rows where the last stopped; one pass if absent. A stream
    /// needs it.
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
            validation_steps: None,
            validation_freq: 1,
            validation_epochs: None,
            class_weight: Vec::new(),
            shuffle: true,
            seed: 0,
            steps_per_epoch: None,
        }
    }
}

/// How to evaluate.
pub struct Evaluate<'a> {
    /// Rows of a step.
    pub batch_size: usize,
    /// Steps at most; all there are if absent.
    pub steps: Option<usize>,
    /// What is written.
    pub verbose: Verbose,
    /// What else happens around the steps, in this order.
    pub callbacks: Vec<&'a mut dyn Callback>,
}

impl Default for Evaluate<'_> {
    fn default() -> Self {
        Evaluate { batch_size: 32, steps: None, verbose: Verbose::Auto, callbacks: Vec::new() }
    }
}

/// How to predict.
pub struct Predict<'a> {
    /// Rows of a step.
    pub batch_size: usize,
    /// What is written.
    pub verbose: Verbose,
    /// What else happens around the steps, in this order.
    pub callbacks: Vec<&'a mut dyn Callback>,
}

impl Default for Predict<'_> {
    fn default() -> Self {
        Predict { batch_size: 32, verbose: Verbose::Auto, callbacks: Vec::new() }
    }
}
