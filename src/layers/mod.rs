//! Layers: what a network is built of.
//!
//! Floor 3. A [`Layer`] holds hyper-parameters only. It says which variables it needs for inputs of given shapes, and
//! its `call` is a pure function of inputs and variables, which it gets through a [`Context`]; whatever it changes
//! (running statistics, random counters) it hands back as new non-trainable tensors. Calling layers on [`Symbolic`]
//! tensors builds a graph of layers, a [`Network`]. Deliberately absent: weights inside layers, a second rule for
//! output shapes (they are found by recording `call` on stand-ins), and a training flag that a layer keeps.

mod activation;
mod attention;
mod batch_norm;
mod check;
mod conv;
mod dense;
mod dropout;
mod embedding;
mod function;
mod gru;
mod images;
#[cfg(test)]
mod kinds_tests;
mod lstm;
mod merge;
mod nested;
mod network;
mod normalization;
mod pooling;
mod rectifiers;
mod recurrent;
mod reshape;
mod separable;
mod sequential;
mod spatial;
mod summary;
mod symbolic;
#[cfg(test)]
mod tests;
mod variants;
mod wrappers;

pub use activation::{Activation, Unary};
pub use attention::{Attention, MultiHeadAttention, ScoreMode};
pub use batch_norm::BatchNormalization;
pub use conv::{Conv1D, Conv1DTranspose, Conv2D, Conv2DTranspose, Convolution, TransposedConvolution};
pub use dense::Dense;
pub use dropout::{Dropout, SpatialDropout1D, SpatialDropout2D};
pub use embedding::Embedding;
pub use function::{Identity, Lambda, Rescaling, Several};
pub use gru::{GRU, GRUCell};
pub use images::{Cropping2D, Interpolation, UpSampling2D, ZeroPadding2D};
pub use lstm::{LSTM, LSTMCell};
pub use merge::{Add, Average, Concatenate, Dot, Maximum, Minimum, Multiply, Subtract};
pub use network::Network;
pub use normalization::{GroupNormalization, LayerNormalization, RMSNormalization, UnitNormalization};
pub use pooling::{
    AveragePooling, AveragePooling1D, AveragePooling2D, GlobalAveragePooling, GlobalAveragePooling1D,
    GlobalAveragePooling2D, GlobalMaxPooling, GlobalMaxPooling1D, GlobalMaxPooling2D, MaxPooling, MaxPooling1D,
    MaxPooling2D,
};
pub use rectifiers::{ELU, LeakyReLU, PReLU, ReLU, Softmax};
pub use recurrent::{Cell, Recurrent, Shared, SimpleRNN, SimpleRNNCell};
pub use reshape::{Flatten, Permute, RepeatVector, Reshape};
pub use separable::{
    DepthwiseConv1D, DepthwiseConv2D, DepthwiseConvolution, SeparableConv1D, SeparableConv2D, SeparableConvolution,
};
pub use sequential::Sequential;
pub use spatial::{Padding, Size};
pub use symbolic::{Input, Inputs, LayerRef, Symbolic, input};
pub use variants::Which;
pub use wrappers::{Bidirectional, MergeMode, TimeDistributed};

use std::fmt::{self, Debug, Formatter};
use std::ops::{Range, RangeInclusive};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;
use crate::shape::Shape;
use crate::threads::{MaybeSend, MaybeSync};

/// The tensors that one object keeps (a network, an optimizer, a metric), in its own fixed order.
pub type Variables = Vec<Tensor>;

/// What a forward pass is for: some layers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Training: dropout drops, for example.
    Train,
    /// Evaluation and prediction.
    Infer,
}

/// A variable that a layer asks for.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name within the layer ("kernel"); a network puts the layer's before it ("dense/kernel").
    pub name: String,
    /// Lengths of the axes.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Whether the optimizer updates it.
    pub trainable: bool,
    /// What it starts from.
    pub init: Initializer,
}

impl Variable {
    /// An f32 weight that the optimizer updates.
    pub fn weight(name: &str, shape: impl Into<Shape>, init: Initializer) -> Variable {
        Variable { name: name.into(), shape: shape.into(), dtype: DType::F32, trainable: true, init }
    }

    /// An f32 variable that the layer itself updates.
    pub fn state(name: &str, shape: impl Into<Shape>, init: Initializer) -> Variable {
        Variable { trainable: false, ..Variable::weight(name, shape, init) }
    }

    /// The state of a seed generator, u32 `[seed, counter]`. It is not a parameter and is counted nowhere.
    pub fn seed(seed: Option<u32>) -> Variable {
        let init = Initializer::Seed(seed);
        Variable { dtype: DType::U32, ..Variable::state("seed_generator_state", [2], init) }
    }

    /// Shape and dtype.
    pub fn spec(&self) -> Spec {
        Spec::new(self.shape.clone(), self.dtype)
    }

    /// Elements, as `summary` and `count_params` count them: those of a seed generator are none.
    pub fn count(&self) -> usize {
        if matches!(self.init, Initializer::Seed(_)) { 0 } else { self.shape.numel() }
    }
}

/// One kind of layer with its hyper-parameters.
///
/// A layer of one's own implements three methods; the rest comes with the trait:
///
/// ```
/// use wengert::error::Result;
/// use wengert::graph::{Spec, Tensor};
/// use wengert::layers::{Context, Input, Layer, Network, Variable};
///
/// /// Multiplies every feature by a weight of its own.
/// #[derive(Debug)]
/// struct Scale;
///
/// impl Layer for Scale {
///     fn kind(&self) -> &str {
///         "scale"
///     }
///     fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
///         let features = inputs[0].shape.last().copied().unwrap_or(1);
///         Ok(vec![Variable::weight("gamma", [features], "ones".into())])
///     }
///     fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
///         &inputs[0] * context.weight(0)
///     }
/// }
///
/// let x = Input([3]);
/// let network = Network::new(&[x.clone()], &[Scale.on(&x)])?;
/// assert_eq!(network.variables()[0].name, "scale/gamma");
/// # Ok::<(), wengert::error::Error>(())
/// ```
pub trait Layer: MaybeSend + MaybeSync + 'static {
    /// The kind in snake case ("dense"): what layers without a name of their own are called, with a number behind.
    fn kind(&self) -> &str;

    /// The variables needed for inputs of these shapes. Their first axis is the batch, of length 1 here; no variable
    /// may depend on it.
    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let _ = inputs;
        Ok(Vec::new())
    }

    /// The output. What does not fit is a poisoned tensor, as everywhere in the language.
    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor;

    /// How many inputs it takes. `variables` and `call` never see another number.
    fn accepts(&self) -> RangeInclusive<usize> {
        1..=1
    }

    /// The type's name, as `summary` prints it.
    fn type_name(&self) -> &'static str {
        let path = std::any::type_name::<Self>();
        let path = path.split('<').next().unwrap_or(path);
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Calls the layer once on symbolic tensors, and so puts it into a graph. To call it on several, with the same
    /// variables, take [`shared`](Layer::shared) first. What does not fit is kept and returned by [`Network::new`].
    #[track_caller]
    fn on(self, inputs: impl Into<Inputs>) -> Symbolic
    where
        Self: Sized,
    {
        LayerRef::from(self).on(inputs)
    }

    /// The layer under a name of its own, unique in its network.
    fn named(self, name: &str) -> LayerRef
    where
        Self: Sized,
    {
        LayerRef::from(self).named(name)
    }

    /// The layer with variables that the optimizer leaves alone, see [`LayerRef::frozen`].
    fn frozen(self) -> LayerRef
    where
        Self: Sized,
    {
        LayerRef::from(self).frozen()
    }

    /// The layer as a handle: all calls of it use the same variables.
    fn shared(self) -> LayerRef
    where
        Self: Sized,
    {
        LayerRef::from(self)
    }
}

impl Debug for dyn Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

/// What a layer's `call` gets besides its inputs: the mode and the layer's own variables.
#[derive(Debug)]
pub struct Context {
    mode: Mode,
    weights: Variables,
    states: Variables,
    pub(super) frozen: bool,
    error: Option<Error>,
}

impl Context {
    /// A context for one call of one layer: its trainable and its non-trainable variables, each in the order of
    /// [`Layer::variables`].
    pub fn new(mode: Mode, weights: Variables, states: Variables) -> Context {
        Context { mode, weights, states, frozen: false, error: None }
    }

    /// What the pass is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the layer is frozen: nobody trains its weights, so running statistics must stay as they are and be used,
    /// whatever the mode. Dropout and the like follow the mode alone.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The layer's trainable variable `i`; poisoned if there is none.
    pub fn weight(&self, i: usize) -> Tensor {
        self.weights.get(i).cloned().unwrap_or_else(|| Tensor::poisoned(missing("trainable", i, self.weights.len())))
    }

    /// All trainable variables.
    pub fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// The layer's non-trainable variable `i`, as last set; poisoned if there is none.
    pub fn state(&self, i: usize) -> Tensor {
        self.states.get(i).cloned().unwrap_or_else(|| Tensor::poisoned(missing("non-trainable", i, self.states.len())))
    }

    /// All non-trainable variables.
    pub fn states(&self) -> &[Tensor] {
        &self.states
    }

    /// Replaces non-trainable variable `i` from here on. The tensor must have the shape and the dtype of the old one.
    pub fn set_state(&mut self, i: usize, state: Tensor) {
        let count = self.states.len();
        let error = match self.states.get_mut(i) {
            None => missing("non-trainable", i, count),
            Some(old) if state.spec().is_some() && old.spec().is_some() && state.spec() != old.spec() => {
                let what = format!("a layer replaced its variable {i}, {old:?}, by {state:?}");
                Error::state(what)
            }
            Some(old) => {
                *old = state;
                return;
            }
        };
        self.error.get_or_insert(error);
    }

    /// A context for a layer within this one, which has a part of its variables; an index beyond them is none.
    fn part(&self, weights: Range<usize>, states: Range<usize>) -> Context {
        let part = |of: &[Tensor], range: Range<usize>| of.get(range).unwrap_or_default().to_vec();
        Context {
            mode: self.mode,
            weights: part(&self.weights, weights),
            states: part(&self.states, states),
            frozen: self.frozen,
            error: None,
        }
    }

    /// The non-trainable variables after the call, or the first error of setting them.
    pub fn into_states(self) -> Result<Variables> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.states),
        }
    }
}

fn missing(kind: &str, i: usize, count: usize) -> Error {
    Error::state(format!("a layer asked for its {kind} variable {i}, but has {count}"))
}
