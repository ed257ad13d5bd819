//! [`Dense`]: an affine map of the last axis, `activation(x kernel + bias)`.

use super::check::invalid;
use super::{Activation, Context, Layer, Variable};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor, here};
use crate::initializers::Initializer;

/// `activation(x kernel + bias)` over the last axis of an input of rank 2 or more: `[batch, .., in]` to
/// `[batch, .., units]`. Variables: `kernel [in, units]`, `bias [units]`.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Length of the output's last axis.
    pub units: usize,
    /// Applied to the sum; linear by default.
    pub activation: Activation,
    /// Whether there is a bias; true by default.
    pub use_bias: bool,
    /// Glorot's uniform by default.
    pub kernel_initializer: Initializer,
    /// Zeros by default.
    pub bias_initializer: Initializer,
}

impl Dense {
    /// A dense layer with Keras' defaults.
    pub fn new(units: usize) -> Dense {
        Dense {
            units,
            activation: Activation::default(),
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform,
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Sets the activation: a name or an [`Activation`].
    pub fn activation(mut self, activation: impl Into<Activation>) -> Dense {
        self.activation = activation.into();
        self
    }

    /// Sets whether there is a bias.
    pub fn use_bias(mut self, use_bias: bool) -> Dense {
        self.use_bias = use_bias;
        self
    }

    /// Sets what the kernel starts from.
    pub fn kernel_initializer(mut self, initializer: impl Into<Initializer>) -> Dense {
        self.kernel_initializer = initializer.into();
        self
    }

    /// Sets what the bias starts from.
    pub fn bias_initializer(mut self, initializer: impl Into<Initializer>) -> Dense {
        self.bias_initializer = initializer.into();
        self
    }
}

impl Layer for Dense {
    fn kind(&self) -> &str {
        "dense"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let shape = &inputs[0].shape;
        let [_, .., features] = shape.dims() else {
            let why = "a dense layer takes a batch and features, [batch, .., features]".into();
            return Err(Error::new(ErrorKind::Shape {
                op: "dense".into(),
                inputs: vec![shape.clone()],
                why,
                place: here(),
            }));
        };
        if self.units == 0 {
            return Err(invalid("dense", "units is 0; it must be 1 or more"));
        }
        let kernel = Variable::weight("kernel", [*features, self.units], self.kernel_initializer.clone());
        let bias = Variable::weight("bias", [self.units], self.bias_initializer.clone());
        Ok(if self.use_bias { vec![kernel, bias] } else { vec![kernel] })
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let shape = x.shape();
        let kernel = context.weight(0);
        let y = match shape.dims() {
            // One product of all rows, so that the kernel's gradient is one product too, not one per batch entry.
            [rows @ .., features] if rows.len() > 1 => {
                let flat = x.reshape([rows.iter().product(), *features]).matmul(&kernel);
                flat.reshape([rows, &[self.units]].concat())
            }
            _ => x.matmul(&kernel),
        };
        self.activation.apply(&if self.use_bias { y + context.weight(1) } else { y })
    }
}
