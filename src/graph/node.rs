//! [`Tensor`], [`Node`] and the values a node may have.
//!
//! A chain of a million nodes is an ordinary thing (a loop that never reads), so every walk over nodes, dropping
//! them included, is iterative. A chain that lies on a device is evaluated now and then, so that it does not grow for
//! ever. Deliberately absent: arithmetic (floor 2 adds it) and how to evaluate (see `read`).

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pending;
use super::primitive::{Lowering, Misfit, Primitive};
use super::tape::is_taping;
use crate::dtype::{DType, Element};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::gpu::{Buffer, Device};
use crate::shape::Shape;

/// Shape and dtype of one output of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    /// Lengths of the axes.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl Spec {
    /// A spec from its parts.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Spec {
        Spec { shape: shape.into(), dtype }
    }

    /// Bytes the elements take on a device.
    pub fn bytes(&self) -> u64 {
        (self.shape.numel() as u64).saturating_mul(self.dtype.bytes() as u64)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// A contiguous range of a device buffer that holds one tensor.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The buffer; several slots may share it.
    pub buffer: Buffer,
    /// First byte.
    pub offset: u64,
}

/// What a node is known to be, besides its op.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// The bits on the host, one `u32` for each element.
    pub host: Option<Arc<[u32]>>,
    /// The elements on a device.
    pub device: Option<Slot>,
    /// Stands for a leaf of the step being recorded: the value will be known only when the step runs.
    pub placeholder: bool,
}

impl Value {
    /// Whether the value can be had without computing the node.
    pub fn is_known(&self) -> bool {
        self.host.is_some() || self.device.is_some()
    }
}

/// One recorded application of an op.
pub struct Node {
    op: Arc<dyn Primitive>,
    inputs: Mutex<Vec<Tensor>>,
    outputs: Vec<Spec>,
    number: u64,
    place: Place,
    values: Mutex<Vec<Value>>,
    /// Nodes of the longest way back to values that are known; 0 where the node's own is.
    pending: AtomicU32,
    /// Whether a stand-in for a leaf of a step is among what it is computed from.
    abstracted: bool,
    /// Whether it, or something that it is computed from, lies on a device.
    placed: AtomicBool,
}

/// Creation numbers are unique in the process, so that their order is the order of recording on every thread.
static NUMBER: AtomicU64 = AtomicU64::new(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding the lock cannot leave these plain values half-written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// The op that was recorded.
    pub fn op(&self) -> &Arc<dyn Primitive> {
        &self.op
    }

    /// The operands. Empty once an evaluated node has let go of its history.
    pub fn inputs(&self) -> Vec<Tensor> {
        lock(&self.inputs).clone()
    }

    /// Shapes and dtypes of the outputs.
    pub fn outputs(&self) -> &[Spec] {
        &self.outputs
    }

    /// Position on the tape.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The caller's line and layer path.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The value of one output.
    pub fn value(&self, output: usize) -> Value {
        lock(&self.values)[output].clone()
    }

    /// Replaces the value of one output.
    pub fn set_value(&self, output: usize, value: Value) {
        let mut values = lock(&self.values);
        if value.device.is_some() {
            self.placed.store(true, Ordering::Relaxed);
        }
        values[output] = value;
        if values.iter().all(Value::is_known) {
            self.pending.store(0, Ordering::Relaxed);
        }
    }

    /// Outputs that somebody may be given; the others are for the derivative.
    pub(crate) fn visible(&self) -> usize {
        self.outputs.len() - self.op.hidden().min(self.outputs.len())
    }

    /// Whether an output has a value or stands for a leaf of a step: where a walk backwards ends.
    pub(crate) fn is_given(&self, output: usize) -> bool {
        let value = &lock(&self.values)[output];
        value.is_known() || value.placeholder
    }

    /// Whether all of the first outputs have values.
    pub(crate) fn are_known(&self, count: usize) -> bool {
        lock(&self.values)[..count].iter().all(Value::is_known)
    }

    /// Whether all outputs are given.
    pub(crate) fn is_end(&self) -> bool {
        lock(&self.values).iter().all(|value| value.is_known() || value.placeholder)
    }

    /// Whether any output stands for a leaf of a step.
    pub(crate) fn is_stand_in(&self) -> bool {
        lock(&self.values).iter().any(|value| value.placeholder)
    }

    /// Looks at the operands without counting references to them.
    pub(crate) fn visit_inputs(&self, f: &mut dyn FnMut(&Tensor)) {
        lock(&self.inputs).iter().for_each(f);
    }

    /// Forgets the operands, so that the history of an evaluated tensor can be freed.
    pub fn detach(&self) {
        drop_all(std::mem::take(&mut *lock(&self.inputs)));
    }
}

/// Drops tensors without recursion, however long the chain behind them.
fn drop_all(mut stack: Vec<Tensor>) {
    while let Some(tensor) = stack.pop() {
        if let Handle::Node { node, .. } = tensor.0
            && let Some(mut node) = Arc::into_inner(node)
        {
            stack.append(node.inputs.get_mut().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let inputs = std::mem::take(self.inputs.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !inputs.is_empty() {
            drop_all(inputs);
        }
    }
}

/// A node without operands whose value was given: host data, a placeholder, a step's state.
#[derive(Debug)]
pub struct Leaf;

impl Primitive for Leaf {
    fn name(&self) -> &str {
        "leaf"
    }

    fn infer(&self, _: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Err(Misfit::Shape("a leaf is made from a value".into()))
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::Leaf]
    }

    #[cfg(feature = "reference")]
    fn reference(&self, _: &[super::interpret::Array], _: &[Spec]) -> Vec<super::interpret::Array> {
        Vec::new()
    }
}

#[derive(Clone)]
enum Handle {
    Node { node: Arc<Node>, output: usize },
    Poisoned(Error),
}

/// An n-dimensional array: a handle on one output of a recorded [`Node`]. Cloning counts a reference.
///
/// An ill-shaped op does not panic and does not return a `Result`: it gives a *poisoned* tensor that carries the
/// error to the first boundary (`read`, `value_and_grad`, `fit`).
#[derive(Clone)]
pub struct Tensor(Handle);

thread_local! {
    static PATH: RefCell<Arc<str>> = RefCell::new(Arc::from(""));
    static BEHALF: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Names the layer that ops are recorded within, until dropped.
#[derive(Debug)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Enters a layer.
    pub fn enter(name: &str) -> Scope {
        PATH.with_borrow_mut(|path| {
            let inner: Arc<str> = if path.is_empty() { name.into() } else { format!("{path}/{name}").into() };
            Scope(std::mem::replace(path, inner))
        })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        PATH.with_borrow_mut(|path| *path = self.0.clone());
    }
}

/// Records ops in the name of another place, until dropped: a derivative belongs to the line it is the derivative of.
#[derive(Debug)]
pub(crate) struct OnBehalf(Option<Place>);

impl OnBehalf {
    /// Starts recording for `place`.
    pub fn of(place: &Place) -> OnBehalf {
        OnBehalf(BEHALF.replace(Some(place.clone())))
    }
}

impl Drop for OnBehalf {
    fn drop(&mut self) {
        BEHALF.set(self.0.take());
    }
}

/// The caller's line and the layers it is within.
#[track_caller]
pub(crate) fn here() -> Place {
    let at = Location::caller();
    BEHALF.with_borrow(Clone::clone).unwrap_or_else(|| Place { at, within: PATH.with_borrow(Clone::clone) })
}

/// The place of what has none in the user's program.
#[track_caller]
pub(crate) fn nowhere() -> Place {
    Place { at: Location::caller(), within: Arc::from("") }
}

impl Tensor {
    fn leaf(spec: Spec, value: Value, place: Place) -> Tensor {
        let node = Node {
            op: Arc::new(Leaf),
            inputs: Mutex::default(),
            outputs: vec![spec],
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            place,
            abstracted: value.placeholder,
            placed: AtomicBool::new(value.device.is_some()),
            values: Mutex::new(vec![value]),
            pending: AtomicU32::new(0),
        };
        Tensor(Handle::Node { node: Arc::new(node), output: 0 })
    }

    /// A tensor of host data: `shape` elements in row-major order. A wrong length or an unrepresentable element
    /// poisons it.
    #[track_caller]
    pub fn new<E: Element>(data: &[E], shape: impl Into<Shape>) -> Tensor {
        let spec = Spec { shape: shape.into(), dtype: E::DTYPE };
        Tensor::checked(data.iter().map(|v| v.to_bits()).collect(), data.len(), spec, here())
    }

    fn checked(bits: Result<Arc<[u32]>, String>, count: usize, spec: Spec, place: Place) -> Tensor {
        if spec.shape.numel() != count {
            let why = format!("{count} elements were given, the shape has {}", spec.shape.numel());
            return Tensor::poisoned(Error::new(ErrorKind::Shape {
                op: "tensor".into(),
                inputs: vec![spec.shape],
                why,
                place,
            }));
        }
        match bits {
            Ok(bits) => Tensor::from_bits(bits, spec, place),
            Err(what) => Tensor::poisoned(Error::argument(format!("tensor: {what} ({place})"))),
        }
    }

    /// A scalar.
    #[track_caller]
    pub fn scalar<E: Element>(value: E) -> Tensor {
        Tensor::new(&[value], Shape::scalar())
    }

    /// A tensor of host bits, one `u32` for each element.
    pub(crate) fn from_bits(bits: Arc<[u32]>, spec: Spec, place: Place) -> Tensor {
        Tensor::leaf(spec, Value { host: Some(bits), ..Value::default() }, place)
    }

    /// A tensor that already lies on a device.
    pub(crate) fn from_slot(slot: Slot, spec: Spec, place: Place) -> Tensor {
        Tensor::leaf(spec, Value { device: Some(slot), ..Value::default() }, place)
    }

    /// A stand-in for a leaf of a step.
    pub(crate) fn placeholder(spec: Spec, place: Place) -> Tensor {
        Tensor::leaf(spec, Value { placeholder: true, ..Value::default() }, place)
    }

    /// The handle on one output of a node.
    pub(crate) fn of(node: Arc<Node>, output: usize) -> Tensor {
        Tensor(Handle::Node { node, output })
    }

    /// A tensor that carries an error.
    pub fn poisoned(error: Error) -> Tensor {
        Tensor(Handle::Poisoned(error))
    }

    /// Records an op and returns its outputs; poisoned ones where an operand is poisoned or does not fit.
    /// `outputs` is how many outputs the op has.
    #[track_caller]
    pub fn record(op: Arc<dyn Primitive>, inputs: &[&Tensor], outputs: usize) -> Vec<Tensor> {
        let place = here();
        if let Some(poisoned) = inputs.iter().find(|t| matches!(t.0, Handle::Poisoned(_))) {
            return vec![(*poisoned).clone(); outputs];
        }
        let specs: Vec<Spec> = inputs.iter().filter_map(|t| t.spec().cloned()).collect();
        match op.infer(&specs) {
            Ok(specs) => {
                let (mut behind, mut abstracted, mut placed) = (0, false, false);
                for (node, _) in inputs.iter().filter_map(|input| input.node().ok()) {
                    behind = behind.max(node.pending.load(Ordering::Relaxed));
                    abstracted |= node.abstracted;
                    placed |= node.placed.load(Ordering::Relaxed);
                }
                let (length, site) = (behind.saturating_add(1), place.at);
                let node = Arc::new(Node {
                    op,
                    inputs: Mutex::new(inputs.iter().map(|&t| t.clone()).collect()),
                    number: NUMBER.fetch_add(1, Ordering::Relaxed),
                    place,
                    values: Mutex::new(vec![Value::default(); specs.len()]),
                    outputs: specs,
                    pending: AtomicU32::new(length),
                    abstracted,
                    placed: AtomicBool::new(placed),
                });
                let outputs: Vec<_> = (0..node.outputs.len()).map(|output| Tensor::of(node.clone(), output)).collect();
                if !abstracted {
                    pending::enter(&node);
                    drop(node);
                    // What a derivative is recorded for keeps its history anyway; a step is no place to compute in.
                    if placed && !is_taping() && pending::is_due(length, site) {
                        pending::was_evaluated(length, crate::read::flush(&outputs));
                    }
                }
                outputs
            }
            Err(misfit) => {
                let op = op.name().to_string();
                let error = match misfit {
                    Misfit::Shape(why) => Error::new(ErrorKind::Shape {
                        op,
                        inputs: specs.into_iter().map(|s| s.shape).collect(),
                        why,
                        place,
                    }),
                    Misfit::DType(why) => Error::new(ErrorKind::DType {
                        op,
                        inputs: specs.into_iter().map(|s| s.dtype).collect(),
                        why,
                        place,
                    }),
                };
                vec![Tensor::poisoned(error); outputs]
            }
        }
    }

    /// Records an op with one output; of one with several, the first.
    #[track_caller]
    pub fn apply(op: impl Primitive, inputs: &[&Tensor]) -> Tensor {
        Tensor::first(Arc::new(op), inputs)
    }

    #[track_caller]
    fn first(op: Arc<dyn Primitive>, inputs: &[&Tensor]) -> Tensor {
        let none = || Error::new(ErrorKind::Validation { why: format!("{} has no output", op.name()) });
        Tensor::record(op.clone(), inputs, 1).into_iter().next().unwrap_or_else(|| Tensor::poisoned(none()))
    }

    /// The node and output this tensor points at, or its error.
    pub fn node(&self) -> Result<(&Arc<Node>, usize)> {
        match &self.0 {
            Handle::Node { node, output } => Ok((node, *output)),
            Handle::Poisoned(error) => Err(error.clone()),
        }
    }

    /// The error of a poisoned tensor.
    pub fn error(&self) -> Option<&Error> {
        match &self.0 {
            Handle::Poisoned(error) => Some(error),
            Handle::Node { .. } => None,
        }
    }

    /// Itself, or its error: where a poisoned tensor surfaces.
    pub fn ok(&self) -> Result<&Tensor> {
        self.node().map(|_| self)
    }

    /// Shape and dtype; `None` if poisoned.
    pub fn spec(&self) -> Option<&Spec> {
        match &self.0 {
            Handle::Node { node, output } => Some(&node.outputs[*output]),
            Handle::Poisoned(_) => None,
        }
    }

    /// The shape; that of a scalar if poisoned.
    pub fn shape(&self) -> Shape {
        self.spec().map(|s| s.shape.clone()).unwrap_or_default()
    }

    /// The element type; `F32` if poisoned.
    pub fn dtype(&self) -> DType {
        self.spec().map_or(DType::F32, |s| s.dtype)
    }

    /// Number of axes; 0 if poisoned.
    pub fn rank(&self) -> usize {
        self.spec().map_or(0, |s| s.shape.rank())
    }

    /// Length of one axis; 1 beyond the rank or if poisoned.
    pub fn dim(&self, axis: usize) -> usize {
        self.spec().and_then(|s| s.shape.get(axis).copied()).unwrap_or(1)
    }

    /// All axes as an array, for destructuring.
    pub fn dims<const N: usize>(&self) -> Result<[usize; N]> {
        let (node, output) = self.node()?;
        let shape = &node.outputs[output].shape;
        shape.dims().try_into().map_err(|_| {
            Error::new(ErrorKind::Shape {
                op: "dims".into(),
                inputs: vec![shape.clone()],
                why: format!("{N} axes were expected"),
                place: node.place.clone(),
            })
        })
    }

    /// The device this tensor already lies on, if any.
    pub fn device(&self) -> Option<Device> {
        let (node, output) = self.node().ok()?;
        node.value(output).device.map(|slot| slot.buffer.device())
    }

    /// Whether both are the same output of the same node.
    pub fn same(&self, other: &Tensor) -> bool {
        match (&self.0, &other.0) {
            (Handle::Node { node: a, output: i }, Handle::Node { node: b, output: j }) => Arc::ptr_eq(a, b) && i == j,
            _ => false,
        }
    }

    /// How many handles point at the node.
    pub(crate) fn handles(&self) -> usize {
        match &self.0 {
            Handle::Node { node, .. } => Arc::strong_count(node),
            Handle::Poisoned(_) => 0,
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Handle::Node { node, output } => {
                write!(f, "{} = {}", node.outputs[*output], node.op.name())
            }
            Handle::Poisoned(error) => write!(f, "poisoned: {error}"),
        }
    }
}
