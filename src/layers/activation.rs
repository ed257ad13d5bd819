//! [`Activation`]: a function of one tensor, by name or given, inside other layers or as a layer.

use std::fmt;
use std::sync::Arc;

use super::{Context, Layer};
use crate::choice::plain;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Tensor;
use crate::threads::{MaybeSend, MaybeSync};

/// A function of one tensor.
pub trait Unary: Fn(&Tensor) -> Tensor + MaybeSend + MaybeSync {}
impl<F: Fn(&Tensor) -> Tensor + MaybeSend + MaybeSync> Unary for F {}

/// An activation function: what `activation("relu")` takes, and a layer of its own.
///
/// An unknown name is kept and returned by [`Network::new`](super::Network::new).
#[derive(Clone)]
pub struct Activation {
    name: Arc<str>,
    function: Result<Arc<dyn Unary>, Error>,
}

const KNOWN: [&str; 22] = [
    "linear",
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "sigmoid",
    "tanh",
    "softmax",
    "log_softmax",
    "softplus",
    "softsign",
    "elu",
    "celu",
    "selu",
    "leaky_relu",
    "relu6",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "mish",
    "log_sigmoid",
    "exponential",
];

impl Activation {
    /// The activation of a name, with Keras' defaults: `gelu` is the exact form, by erf, and `gelu_tanh` its
    /// approximation; `leaky_relu` has the slope 0.2, `elu` and `celu` the alpha 1; `softmax` and `log_softmax` run over
    /// the last axis. Another slope is a function of one's own: `Activation::function("leaky", |x| x.leaky_relu(0.01))`.
    pub fn new(name: &str) -> Activation {
        let function: fn(&Tensor) -> Tensor = match plain(name).as_str() {
            "linear" => |x| x.clone(),
            "relu" => |x| x.relu(),
            "gelu" => |x| x.gelu(),
            "gelutanh" => |x| x.gelu_tanh(),
            "silu" | "swish" => |x| x.silu(),
            "sigmoid" => |x| x.sigmoid(),
            "tanh" => |x| x.tanh(),
            "softmax" => |x| x.softmax(-1),
            "logsoftmax" => |x| x.log_softmax(-1),
            "softplus" => |x| x.softplus(),
            "softsign" => |x| x.softsign(),
            "elu" | "celu" => |x| x.elu(1.0),
            "selu" => |x| x.selu(),
            "leakyrelu" => |x| x.leaky_relu(0.2),
            "relu6" => |x| x.clip(0.0, 6.0),
            "hardsigmoid" => |x| x.hard_sigmoid(),
            "hardsilu" | "hardswish" => |x| x * x.hard_sigmoid(),
            "hardtanh" => |x| x.clip(-1.0, 1.0),
            "mish" => |x| x.mish(),
            "logsigmoid" => |x| -(-x).softplus(),
            "exponential" => |x| x.exp(),
            _ => {
                let error =
                    Error::new(ErrorKind::UnknownName { kind: "activation", name: name.into(), known: KNOWN.to_vec() });
                return Activation { name: name.into(), function: Err(error) };
            }
        };
        Activation::function(name, function)
    }

    /// An activation of one's own.
    pub fn function(name: &str, f: impl Unary + 'static) -> Activation {
        Activation { name: name.into(), function: Ok(Arc::new(f)) }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The function's value.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        match &self.function {
            Ok(f) => f(x),
            Err(error) => Tensor::poisoned(error.clone()),
        }
    }
}

impl Default for Activation {
    fn default() -> Activation {
        Activation::new("linear")
    }
}

impl From<&str> for Activation {
    fn from(name: &str) -> Activation {
        Activation::new(name)
    }
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Activation({:?})", self.name)
    }
}

impl Layer for Activation {
    fn kind(&self) -> &str {
        "activation"
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        self.apply(&inputs[0])
    }
}
