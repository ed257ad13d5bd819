//! Layers around layers: [`Bidirectional`] and [`TimeDistributed`].

use std::ops::RangeInclusive;

use super::check::{call_within, invalid, misfit};
use super::recurrent::{Cell, Recurrent};
use super::{Context, Layer, LayerRef, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::ops;

/// How [`Bidirectional`] joins the two directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MergeMode {
    /// Side by side along the last axis.
    #[default]
    Concat,
    /// Their sum.
    Sum,
    /// Their product.
    Mul,
    /// Their mean.
    Ave,
}

/// A recurrent layer in both directions of time, each with variables of its own; sequences come back in the order of
/// the input, or of the wrapped layer where that goes backwards. Initial states, if given, are those of the forward direction,
/// then those of the other.
#[derive(Clone, Debug)]
pub struct Bidirectional<C> {
    forward: Recurrent<C>,
    backward: Recurrent<C>,
    merge_mode: MergeMode,
}

impl<C: Cell> Bidirectional<C> {
    /// The layer and its mirror image, side by side.
    pub fn new(layer: Recurrent<C>) -> Bidirectional<C> {
        let backward = Recurrent { go_backwards: !layer.go_backwards, ..layer.clone() };
        Bidirectional { forward: layer, backward, merge_mode: MergeMode::Concat }
    }

    /// Sets how the directions are joined.
    pub fn merge_mode(mut self, merge_mode: MergeMode) -> Bidirectional<C> {
        self.merge_mode = merge_mode;
        self
    }

    fn inputs_of(inputs: &[Tensor], direction: usize) -> Vec<Tensor> {
        let states = inputs[1..].chunks(C::STATES).nth(direction).unwrap_or_default();
        [&inputs[..1], states].concat()
    }
}

impl<C: Cell> Layer for Bidirectional<C> {
    fn kind(&self) -> &str {
        "bidirectional"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        1..=1 + 2 * C::STATES
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        if !matches!(inputs.len(), n if n == 1 || n == 1 + 2 * C::STATES) {
            let why = format!("the inputs behind the first are {} initial states for each direction", C::STATES);
            return Err(misfit(self.kind(), inputs, why));
        }
        let mut variables = Vec::new();
        for (at, (direction, layer)) in
            [("forward", &self.forward), ("backward", &self.backward)].into_iter().enumerate()
        {
            let states = inputs[1..].chunks(C::STATES).nth(at).unwrap_or_default();
            let own = layer.variables(&[&inputs[..1], states].concat())?;
            let name = |v: &Variable| format!("{direction}_{}/{}", layer.kind(), v.name);
            variables.extend(own.into_iter().map(|v| Variable { name: name(&v), ..v }));
        }
        Ok(variables)
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let (w, s) = (context.weights().len(), context.states().len());
        let forward = call_within(&self.forward, &Self::inputs_of(inputs, 0), context, 0..w / 2, 0..s / 2);
        let mut backward = call_within(&self.backward, &Self::inputs_of(inputs, 1), context, w / 2..w, s / 2..s);
        if self.forward.return_sequences {
            backward = backward.flip(1);
        }
        match self.merge_mode {
            MergeMode::Concat => ops::concat(&[&forward, &backward], -1),
            MergeMode::Sum => forward + backward,
            MergeMode::Mul => forward * backward,
            MergeMode::Ave => (forward + backward) * 0.5,
        }
    }
}

/// A layer applied to each step of `[batch, steps, ..]` with the same variables.
///
/// The layer has variables of its own here, whatever other calls it has, and is frozen with the wrapper:
/// `TimeDistributed::new(layer).frozen()`.
///
/// The steps of all samples are called as one batch. So a layer that couples the samples of a batch, as
/// [`BatchNormalization`](super::BatchNormalization) does while training, sees all steps at once.
#[derive(Clone, Debug)]
pub struct TimeDistributed {
    layer: LayerRef,
}

impl TimeDistributed {
    /// The layer at every step.
    pub fn new(layer: impl Into<LayerRef>) -> TimeDistributed {
        TimeDistributed { layer: layer.into() }
    }
}

impl Layer for TimeDistributed {
    fn kind(&self) -> &str {
        "time_distributed"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let Spec { shape, dtype } = &inputs[0];
        let [batch, _, rest @ ..] = shape.dims() else {
            return Err(misfit(self.kind(), inputs, "it takes sequences, [batch, steps, ..]"));
        };
        if self.layer.is_frozen() {
            let what = "it is the wrapper that is frozen, TimeDistributed::new(layer).frozen(), not the layer in it";
            return Err(invalid(self.kind(), what));
        }
        let own = self.layer.layer().variables(&[Spec::new([&[*batch], rest].concat(), *dtype)])?;
        let within = self.layer.name().unwrap_or(self.layer.layer().kind());
        Ok(own.into_iter().map(|v| Variable { name: format!("{within}/{}", v.name), ..v }).collect())
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let shape = x.shape();
        let [batch, steps, rest @ ..] = shape.dims() else { return x.clone() };
        let (w, s) = (context.weights().len(), context.states().len());
        let flat = x.reshape([&[batch * steps], rest].concat());
        let y = call_within(self.layer.layer(), &[flat], context, 0..w, 0..s);
        let shape = y.shape();
        match shape.dims() {
            [_, rest @ ..] => y.reshape([&[*batch, *steps], rest].concat()),
            [] => y,
        }
    }
}
