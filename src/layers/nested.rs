//! A [`Network`] as a layer of another.
//!
//! Its variables are the inner layers' under their full names ("encoder/dense/kernel"). Deliberately absent: networks with
//! several outputs as layers, since a layer has one.

use std::ops::RangeInclusive;

use super::{Context, Layer, Network, Variable};
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor};

/// A network with one output is a layer, so that networks nest.
impl Layer for Network {
    fn kind(&self) -> &str {
        &self.name
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        self.graph.inputs..=self.graph.inputs
    }

    fn variables(&self, _: &[Spec]) -> Result<Vec<Variable>> {
        Ok(Network::variables(self).to_vec())
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        match self.run(context.weights(), context.states(), inputs, context.mode(), context.is_frozen()) {
            Ok((mut outputs, states)) => {
                for (i, state) in states.into_iter().enumerate() {
                    context.set_state(i, state);
                }
                match (outputs.pop(), outputs.is_empty()) {
                    (Some(output), true) => output,
                    _ => {
                        let what = format!("{} has not one output, so it cannot be a layer", self.name);
                        Tensor::poisoned(Error::argument(what))
                    }
                }
            }
            Err(error) => Tensor::poisoned(error),
        }
    }
}
