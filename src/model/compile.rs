//! What `compile` is given.

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
