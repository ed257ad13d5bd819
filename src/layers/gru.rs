//! [`GRU`]: gated recurrent units, one step of them.
//!
//! The loop over a sequence is [`Recurrent`]'s; here are the gates and the choice of where the reset gate acts.

use super::Activation;
use super::recurrent::{Cell, Recurrent, Shared};
use crate::graph::Tensor;
use crate::shape::Shape;

/// Gated recurrent units (Cho et al. 2014): one state h.
///
/// `[z r g] = x kernel + bias`, plus the state's share: `z` and `r` get `h recurrent_kernel` and are sigmoid, `g` gets
/// `r (h recurrent_kernel + recurrent_bias)` with `reset_after`, otherwise `(r h) recurrent_kernel`, and has the layer's
/// activation. Then `h' = z h + (1 - z) g`.
#[derive(Clone, Debug)]
pub struct GRUCell {
    /// Of the gates; sigmoid by default.
    pub recurrent_activation: Activation,
    /// Whether the reset gate acts on the projected state, as in other GPU implementations, which gives the state a
    /// bias of its own: `bias` is then `[2, 3 units]`. True by default.
    pub reset_after: bool,
}

/// A layer of gated recurrent units, see [`GRUCell`] and [`Recurrent`].
pub type GRU = Recurrent<GRUCell>;

impl GRU {
    /// With `units` units and Keras' defaults.
    pub fn new(units: usize) -> GRU {
        Recurrent::of(GRUCell { recurrent_activation: "sigmoid".into(), reset_after: true }, units)
    }
}

impl Cell for GRUCell {
    const NAMES: [&'static str; 3] = ["GRU", "gru", "gru_cell"];
    const GATES: usize = 3;

    fn step(&self, x: &Tensor, states: &[Tensor], shared: &Shared) -> Vec<Tensor> {
        let (h, kernel) = (&states[0], shared.recurrent_kernel);
        let split = 2 * shared.units;
        let inner = match self.reset_after {
            true => h.matmul(kernel),
            false => h.matmul(&kernel.slice(1, ..split)),
        };
        let inner = shared.recurrent_bias.map_or(inner.clone(), |bias| &inner + bias);
        let gate = |i: usize| self.recurrent_activation.apply(&(shared.gate(x, i) + shared.gate(&inner, i)));
        let (update, reset) = (gate(0), gate(1));
        let candidate = match self.reset_after {
            true => reset * shared.gate(&inner, 2),
            false => (reset * h).matmul(&kernel.slice(1, split..)),
        };
        let candidate = shared.activation.apply(&(shared.gate(x, 2) + candidate));
        vec![&update * h + (1.0 - &update) * candidate]
    }

    fn bias_shape(&self, units: usize) -> Shape {
        if self.reset_after { [2, 3 * units].into() } else { [3 * units].into() }
    }
}
