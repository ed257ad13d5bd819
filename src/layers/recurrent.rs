//! [`Recurrent`]: a cell applied to every step of a sequence; and the simplest one, [`SimpleRNN`].
//!
//! What all recurrent layers share is here: the variables, the projection of the inputs, which is one product for all
//! steps, the loop, and what comes out. A [`Cell`] is one step of the recurrence; it is recorded once, as the body of a
//! scan, so neither a plan nor the time to make it grows with the length of the sequence. Deliberately absent: masks, state kept between batches, and dropout of
//! the state.

use std::ops::RangeInclusive;

use super::check::{fraction, invalid, misfit, rank};
use super::dropout::dropped;
use super::{Activation, Context, Layer, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;
use crate::ops;
use crate::shape::Shape;
use crate::threads::{MaybeSend, MaybeSync};

/// What the steps of a recurrence share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Length of a state.
    pub units: usize,
    /// The layer's activation.
    pub activation: &'a Activation,
    /// `[units, gates units]`.
    pub recurrent_kernel: &'a Tensor,
    /// What is added to the state's projection, if it has a bias of its own.
    pub recurrent_bias: Option<&'a Tensor>,
}

impl Shared<'_> {
    /// The columns of gate `i` in something of `[.., gates units]`.
    pub fn gate(&self, x: &Tensor, i: usize) -> Tensor {
        x.slice(-1, i * self.units..(i + 1) * self.units)
    }
}

/// One kind of recurrence: names, and one step of it.
pub trait Cell: Clone + MaybeSend + MaybeSync + 'static {
    /// The layer's type as `summary` prints it, its kind and the cell's in snake case.
    const NAMES: [&'static str; 3];
    /// How many blocks of `units` columns the kernels have.
    const GATES: usize;
    /// How many states of `[batch, units]` there are; the first is the output.
    const STATES: usize = 1;

    /// The new states, from the step's input, already projected to `[batch, gates units]` with its bias, and the old.
    fn step(&self, x: &Tensor, states: &[Tensor], shared: &Shared) -> Vec<Tensor>;

    /// Shape of the bias. One of rank 2 has the bias of the inputs and that of the state.
    fn bias_shape(&self, units: usize) -> Shape {
        [Self::GATES * units].into()
    }

    /// What the bias starts from, given what the user wants.
    fn bias_initializer(&self, units: usize, chosen: &Initializer) -> Initializer {
        let _ = units;
        chosen.clone()
    }
}

/// A recurrent layer: `[batch, steps, features]` to the last output `[batch, units]`, or with `return_sequences` to all
/// of them, `[batch, steps, units]`.
///
/// Further inputs, if there are any, are the initial states, `[batch, units]` each; otherwise they are zero. Variables:
/// `kernel [features, gates units]`, `recurrent_kernel [units, gates units]`, `bias`.
#[derive(Clone, Debug)]
pub struct Recurrent<C> {
    /// Length of the output and of each state.
    pub units: usize,
    /// The recurrence.
    pub cell: C,
    /// tanh by default.
    pub activation: Activation,
    /// Whether there is a bias; true by default.
    pub use_bias: bool,
    /// Glorot's uniform by default.
    pub kernel_initializer: Initializer,
    /// Orthogonal by default.
    pub recurrent_initializer: Initializer,
    /// Zeros by default.
    pub bias_initializer: Initializer,
    /// Fraction of the features to drop while training, the same ones at all steps of a sample.
    pub dropout: f64,
    /// Fixes what is dropped whatever the seed of the network.
    pub seed: Option<u32>,
    /// Whether all outputs are returned, not the last alone.
    pub return_sequences: bool,
    /// Whether the last step comes first; so it does in the returned sequence.
    pub go_backwards: bool,
}

impl<C: Cell> Recurrent<C> {
    /// The layer of a cell, otherwise with Keras' defaults.
    pub fn of(cell: C, units: usize) -> Recurrent<C> {
        Recurrent {
            units,
            cell,
            activation: "tanh".into(),
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform,
            recurrent_initializer: Initializer::Orthogonal { gain: 1.0 },
            bias_initializer: Initializer::Zeros,
            dropout: 0.0,
            seed: None,
            return_sequences: false,
            go_backwards: false,
        }
    }

    /// Sets whether all outputs are returned.
    pub fn return_sequences(mut self, return_sequences: bool) -> Recurrent<C> {
        self.return_sequences = return_sequences;
        self
    }

    /// Sets the fraction of the features to drop.
    pub fn dropout(mut self, dropout: f64) -> Recurrent<C> {
        self.dropout = dropout;
        self
    }

    /// The outputs of all steps in the order they were computed, `[batch, steps, units]`, and the states after the last:
    /// what `call` selects from, for layers and models that need the states.
    pub fn run(&self, inputs: &[Tensor], context: &mut Context) -> (Tensor, Vec<Tensor>) {
        let x = &inputs[0];
        let (batch, steps, features) = (x.dim(0), x.dim(1), x.dim(2));
        let x = dropped(x, self.dropout, [batch, 1, features], context);
        let (kernel, recurrent_kernel) = (context.weight(0), context.weight(1));
        // In the order of the loop: all samples of a step together.
        let mut projected = x.permute([1, 0, 2]).reshape([steps * batch, features]).matmul(&kernel);
        let mut recurrent_bias = None;
        if self.use_bias {
            let bias = context.weight(2);
            projected = projected + if bias.rank() == 2 { bias.slice(0, ..1).squeeze(0) } else { bias.clone() };
            recurrent_bias = (bias.rank() == 2).then(|| bias.slice(0, 1..).squeeze(0));
        }
        let projected = projected.reshape([steps, batch, C::GATES * self.units]);
        let shared = Shared {
            units: self.units,
            activation: &self.activation,
            recurrent_kernel: &recurrent_kernel,
            recurrent_bias: recurrent_bias.as_ref(),
        };
        let states = match &inputs[1..] {
            [] => vec![Tensor::zeros([batch, self.units]); C::STATES],
            given => given.to_vec(),
        };
        let step = |states: Vec<Tensor>, x: Tensor| {
            let states = self.cell.step(&x, &states, &shared);
            let output = states[0].clone();
            Ok((states, output))
        };
        let scanned = match self.go_backwards {
            false => ops::scan(steps, states, projected, step),
            true => ops::scan_reversed(steps, states, projected, step)
                .map(|(states, outputs): (_, Tensor)| (states, outputs.flip(0))),
        };
        match scanned {
            Ok((states, outputs)) => (outputs.permute([1, 0, 2]), states),
            Err(error) => (Tensor::poisoned(error.clone()), vec![Tensor::poisoned(error); C::STATES]),
        }
    }
}

impl<C: Cell> Layer for Recurrent<C> {
    fn kind(&self) -> &str {
        C::NAMES[1]
    }

    fn type_name(&self) -> &'static str {
        C::NAMES[0]
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        1..=1 + C::STATES
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        rank(self.kind(), inputs, 3, "sequences, [batch, steps, features]")?;
        let (steps, features) = (inputs[0].shape[1], inputs[0].shape[2]);
        if self.units == 0 || steps == 0 {
            let what = format!("{} units for {steps} steps; both are at least 1", self.units);
            return Err(invalid(self.kind(), what));
        }
        fraction(self.kind(), self.dropout)?;
        let states = &inputs[1..];
        if states.iter().any(|state| state.shape[1..] != [self.units])
            || !matches!(states.len(), n if n == 0 || n == C::STATES)
        {
            let why =
                format!("the inputs behind the first are the {} initial states, [batch, {}]", C::STATES, self.units);
            return Err(misfit(self.kind(), inputs, why));
        }
        let (name, columns) = (|name: &str| format!("{}/{name}", C::NAMES[2]), C::GATES * self.units);
        let kernel = Variable::weight(&name("kernel"), [features, columns], self.kernel_initializer.clone());
        let recurrent =
            Variable::weight(&name("recurrent_kernel"), [self.units, columns], self.recurrent_initializer.clone());
        let init = self.cell.bias_initializer(self.units, &self.bias_initializer);
        let bias = self.use_bias.then(|| Variable::weight(&name("bias"), self.cell.bias_shape(self.units), init));
        let seed =
            (self.dropout > 0.0).then(|| Variable { name: name("seed_generator_state"), ..Variable::seed(self.seed) });
        Ok([kernel, recurrent].into_iter().chain(bias).chain(seed).collect())
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let (outputs, mut states) = self.run(inputs, context);
        match self.return_sequences {
            true => outputs,
            false => states.swap_remove(0),
        }
    }
}

/// The recurrence `h' = activation(x kernel + bias + h recurrent_kernel)` (Elman 1990).
#[derive(Clone, Copy, Debug, Default)]
pub struct SimpleRNNCell;

/// The simplest recurrent layer, see [`SimpleRNNCell`] and [`Recurrent`].
pub type SimpleRNN = Recurrent<SimpleRNNCell>;

impl SimpleRNN {
    /// With `units` units and Keras' defaults.
    pub fn new(units: usize) -> SimpleRNN {
        Recurrent::of(SimpleRNNCell, units)
    }
}

impl Cell for SimpleRNNCell {
    const NAMES: [&'static str; 3] = ["SimpleRNN", "simple_rnn", "simple_rnn_cell"];
    const GATES: usize = 1;

    fn step(&self, x: &Tensor, states: &[Tensor], shared: &Shared) -> Vec<Tensor> {
        vec![shared.activation.apply(&(x + states[0].matmul(shared.recurrent_kernel)))]
    }
}
