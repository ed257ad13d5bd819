//! [`Symbolic`] tensors and the [`LayerRef`]s called on them: how a graph of layers is written down.
//!
//! A symbolic tensor knows its shape but for the batch, found by recording the layer's `call` on stand-ins with a
//! batch of 1. Nothing that does not fit is reported here: the error, with the line of the call, stays in the
//! symbolic tensor and every one made from it, until [`Network::new`](super::Network::new) returns it.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Context, Layer, Mode, Variable};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Place, Result};
use crate::graph::{OnBehalf, Spec, Tensor};
use crate::shape::Shape;

/// A layer by reference: cheap to clone, and all calls of it and its clones use the same variables.
#[derive(Clone)]
pub struct LayerRef {
    layer: Arc<dyn Layer>,
    name: Option<Arc<str>>,
    frozen: bool,
}

impl<L: Layer> From<L> for LayerRef {
    fn from(layer: L) -> LayerRef {
        LayerRef { layer: Arc::new(layer), name: None, frozen: false }
    }
}

impl fmt::Debug for LayerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.layer)
    }
}

impl LayerRef {
    /// The layer itself.
    pub fn layer(&self) -> &dyn Layer {
        &*self.layer
    }

    /// The name it was given, if any.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same layer under a name of its own, unique in its network.
    pub fn named(mut self, name: &str) -> LayerRef {
        self.name = Some(name.into());
        self
    }

    /// The same layer with variables that the optimizer leaves alone: Keras' `trainable=False`.
    pub fn frozen(mut self) -> LayerRef {
        self.frozen = true;
        self
    }

    /// Whether it was built frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Whether both are the same layer, not only an equal one.
    pub fn same(&self, other: &LayerRef) -> bool {
        Arc::ptr_eq(&self.layer, &other.layer)
    }

    /// Calls the layer on symbolic tensors: `dense.on(&x)`, `add.on([&a, &b])`.
    #[track_caller]
    pub fn on(&self, inputs: impl Into<Inputs>) -> Symbolic {
        let inputs = inputs.into().0;
        let place = Place { at: Location::caller(), within: self.name.clone().unwrap_or(self.layer.kind().into()) };
        let (variables, spec) = match self.infer(&inputs, &place) {
            Ok((variables, spec)) => (variables, Ok(spec)),
            Err(error) => (Vec::new(), Err(error)),
        };
        Symbolic::new(Source::Call { layer: self.clone(), inputs, variables }, spec)
    }

    /// The variables and the output for inputs of a batch of 1.
    fn infer(&self, inputs: &[Symbolic], place: &Place) -> Result<(Vec<Variable>, Spec)> {
        let specs = inputs.iter().map(|x| x.0.spec.clone()).collect::<Result<Vec<_>>>()?;
        let _behalf = OnBehalf::of(place);
        let accepted = self.layer.accepts();
        if !accepted.contains(&specs.len()) {
            let what = match (*accepted.start(), *accepted.end()) {
                (least, usize::MAX) => format!("{least} or more"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            let what = format!("{} takes {what} inputs, {} were given ({place})", place.within, specs.len());
            return Err(Error::argument(what));
        }
        let variables = self.layer.variables(&specs)?;
        variables.iter().try_for_each(|variable| variable.init.check())?;
        let stand_in = |spec: Spec| Tensor::placeholder(spec, place.clone());
        let of = |trainable: bool| {
            (variables.iter().filter(|v| v.trainable == trainable)).map(|v| stand_in(v.spec())).collect::<Vec<_>>()
        };
        let mut context = Context::new(Mode::Infer, of(true), of(false));
        let stand_ins: Vec<_> = specs.iter().cloned().map(stand_in).collect();
        let output = self.layer.call(&stand_ins, &mut context);
        context.into_states()?;
        let (node, index) = output.node()?;
        let spec = node.outputs()[index].clone();
        if spec.shape.first() != Some(&1) {
            return Err(Error::new(ErrorKind::Shape {
                op: self.layer.kind().into(),
                inputs: specs.into_iter().map(|spec| spec.shape).collect(),
                why: format!("for a batch of 1 the output is {}, its first axis is not the batch", spec.shape),
                place: place.clone(),
            }));
        }
        Ok((variables, spec))
    }
}

/// Where a symbolic tensor comes from.
pub(super) enum Source {
    Input { name: Option<Arc<str>> },
    Call { layer: LayerRef, inputs: Vec<Symbolic>, variables: Vec<Variable> },
}

pub(super) struct Value {
    /// Creation number; what a call uses was created before it.
    pub number: u64,
    pub source: Source,
    /// With a batch of 1.
    pub spec: Result<Spec>,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A tensor of a network to be: an input, or the output of a layer called on others. Cheap to clone.
#[derive(Clone)]
pub struct Symbolic(pub(super) Arc<Value>);

impl Symbolic {
    fn new(source: Source, spec: Result<Spec>) -> Symbolic {
        Symbolic(Arc::new(Value { number: NUMBER.fetch_add(1, Ordering::Relaxed), source, spec }))
    }

    /// An input whose batch entries have this shape and dtype.
    pub fn input(shape: impl Into<Shape>, dtype: DType) -> Symbolic {
        let shape = [&[1], shape.into().dims()].concat();
        Symbolic::new(Source::Input { name: None }, Ok(Spec::new(shape, dtype)))
    }

    /// The same input under a name, by which data can be given to it: `Input([32]).named("query")`. An output has the
    /// name of its layer; naming it here is an error that [`Network::new`](super::Network::new) returns.
    pub fn named(&self, name: &str) -> Symbolic {
        match &self.0.source {
            Source::Input { .. } => Symbolic::new(Source::Input { name: Some(name.into()) }, self.0.spec.clone()),
            Source::Call { layer, inputs, variables } => {
                let what = format!(
                    "only inputs are named so; an output is called like its layer: Dense::new(1).named({name:?}).on(..)"
                );
                let (layer, inputs, variables) = (layer.clone(), inputs.clone(), variables.clone());
                Symbolic::new(Source::Call { layer, inputs, variables }, Err(Error::argument(what)))
            }
        }
    }

    /// The shape of one batch entry; an error if a layer was given what does not fit.
    pub fn shape(&self) -> Result<Shape> {
        self.0.spec.clone().map(|spec| entry(&spec.shape))
    }

    /// The element type.
    pub fn dtype(&self) -> Result<DType> {
        self.0.spec.clone().map(|spec| spec.dtype)
    }
}

/// A shape without its batch axis.
pub(super) fn entry(shape: &Shape) -> Shape {
    shape.dims().get(1..).unwrap_or_default().into()
}

impl fmt::Debug for Symbolic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.spec {
            Ok(spec) => write!(f, "symbolic {} of {}", spec.dtype, super::summary::batched(&entry(&spec.shape))),
            Err(error) => write!(f, "poisoned: {error}"),
        }
    }
}

/// An f32 input whose batch entries have this shape: `input([28, 28])`.
pub fn input(shape: impl Into<Shape>) -> Symbolic {
    Symbolic::input(shape, DType::F32)
}

/// [`input`] under Keras' name.
#[allow(non_snake_case)]
pub fn Input(shape: impl Into<Shape>) -> Symbolic {
    input(shape)
}

/// What a layer can be called on: one symbolic tensor or several.
#[derive(Clone, Debug)]
pub struct Inputs(Vec<Symbolic>);

impl From<Symbolic> for Inputs {
    fn from(x: Symbolic) -> Inputs {
        Inputs(vec![x])
    }
}

impl From<&Symbolic> for Inputs {
    fn from(x: &Symbolic) -> Inputs {
        Inputs(vec![x.clone()])
    }
}

impl<const N: usize> From<[&Symbolic; N]> for Inputs {
    fn from(inputs: [&Symbolic; N]) -> Inputs {
        Inputs(inputs.into_iter().cloned().collect())
    }
}

impl From<&[Symbolic]> for Inputs {
    fn from(inputs: &[Symbolic]) -> Inputs {
        Inputs(inputs.to_vec())
    }
}

impl From<Vec<Symbolic>> for Inputs {
    fn from(inputs: Vec<Symbolic>) -> Inputs {
        Inputs(inputs)
    }
}
