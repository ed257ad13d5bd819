//! [`Activation`]: a function of one tensor, by name or given, inside other layers or as a layer.

use std::fmt;
use std::sync::Arc;

use super::{Context, Layer};
use crate::choice::plain;
use crate::error::{Error, Result};
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

const KNOWN: [&str; 8] = ["linear", "relu", "gelu", "silu", "sigmoid", "tanh", "softmax", "softplus"];

impl Activation {
    /// The activation of a name; `gelu` is the tanh form, `softmax` runs over the last axis.
    pub fn new(name: &str) -> Activation {
        let function: fn(&Tensor) -> Tensor = match plain(name).as_str() {
            "linear" => |x| x.clone(),
            "relu" => |x| x.relu(),
            "gelu" => |x| x.gelu(),
            "silu" | "swish" => |x| x.silu(),
            "sigmoid" => |x| x.sigmoid(),
            "tanh" => |x| x.tanh(),
            "softmax" => |x| x.softmax(-1),
            "softplus" => |x| x.softplus(),
            _ => {
                let error = Error::UnknownName { kind: "activation", name: name.into(), known: KNOWN.to_vec() };
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
