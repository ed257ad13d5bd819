//! [`LSTM`]: long short-term memory, one step of it.
//!
//! The loop over a sequence is [`Recurrent`]'s; here are the gates and what the forget gate starts from.

use super::recurrent::{Cell, Recurrent, Shared};
use super::{Activation, Variable};
use crate::graph::Tensor;
use crate::initializers::Initializer;

/// Long short-term memory (Hochreiter and Schmidhuber 1997, with forget gates): states h and c.
///
/// `[i f g o] = x kernel + bias + h recurrent_kernel`, with sigmoid for i, f, o and the layer's activation for g; then
/// `c' = f c + i g` and `h' = o activation(c')`.
#[derive(Clone, Debug)]
pub struct LSTMCell {
    /// Of the gates; sigmoid by default.
    pub recurrent_activation: Activation,
    /// Whether the bias of the forget gate starts from 1, so that much is kept at first; true by default.
    pub unit_forget_bias: bool,
}

/// A layer of long short-term memory, see [`LSTMCell`] and [`Recurrent`].
pub type LSTM = Recurrent<LSTMCell>;

impl LSTM {
    /// With `units` units and Keras' defaults.
    pub fn new(units: usize) -> LSTM {
        Recurrent::of(LSTMCell { recurrent_activation: "sigmoid".into(), unit_forget_bias: true }, units)
    }
}

impl Cell for LSTMCell {
    const NAMES: [&'static str; 3] = ["LSTM", "lstm", "lstm_cell"];
    const GATES: usize = 4;
    const STATES: usize = 2;

    fn step(&self, x: &Tensor, states: &[Tensor], shared: &Shared) -> Vec<Tensor> {
        let z = x + states[0].matmul(shared.recurrent_kernel);
        let gate = |i: usize| self.recurrent_activation.apply(&shared.gate(&z, i));
        let carry = gate(1) * &states[1] + gate(0) * shared.activation.apply(&shared.gate(&z, 2));
        vec![gate(3) * shared.activation.apply(&carry), carry]
    }

    fn bias_initializer(&self, units: usize, chosen: &Initializer) -> Initializer {
        // An unknown name must stay one, to be refused by it.
        if !self.unit_forget_bias || chosen.check().is_err() {
            return chosen.clone();
        }
        let chosen = chosen.clone();
        Initializer::function(move |shape, key| {
            let variable = Variable::weight("bias", shape.clone(), chosen.clone());
            // A failure of the chosen one leaves too few numbers, which is refused.
            let tensor = chosen.tensor(&variable.spec(), key);
            let bits = tensor.and_then(|t| t.node().map(|(node, output)| node.value(output).host)).ok().flatten();
            let mut values: Vec<f32> = bits.iter().flat_map(|bits| bits.iter()).map(|&b| f32::from_bits(b)).collect();
            values.iter_mut().skip(units).take(units).for_each(|forget| *forget = 1.0);
            values
        })
    }
}
