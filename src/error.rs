//! Every way this crate can fail, as one enum behind one pointer.
//!
//! Floor 0. [`Error`] is as large as a pointer, because nearly every function returns it and hardly any makes one: what
//! went wrong is its [`ErrorKind`], which is looked at by [`Error::kind`]. A variant's documentation states the cause and the cure; its message carries what a person needs to
//! act: both shapes, the op, the layer path, the caller's line, the known names. Clones share it, because a *poisoned*
//! tensor carries its error through every op applied to it until a boundary returns it.
//! Deliberately absent: panics for user mistakes, and error types of other crates in the public surface.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::dtype::DType;
use crate::shape::Shape;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where in the user's program an op was recorded: the caller's line and the path of layers around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The caller's source line.
    pub at: &'static Location<'static>,
    /// Layer names from the model inwards, joined by `/`; empty outside any layer.
    pub within: Arc<str>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}:{}:{}", self.at.file(), self.at.line(), self.at.column())?;
        if !self.within.is_empty() {
            write!(f, ", within {}", self.within)?;
        }
        Ok(())
    }
}

/// What went wrong, and where: see its [`kind`](Error::kind).
///
/// ```
/// use wengert::prelude::*;
///
/// let sum = Tensor::zeros([2, 3]) + Tensor::zeros([4]);
/// match sum.error().map(Error::kind) {
///     Some(ErrorKind::Shape { inputs, .. }) => assert_eq!(inputs.len(), 2),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, PartialEq)]
pub struct Error(Arc<ErrorKind>);

impl Error {
    /// An error of a kind. (Were it `From`, the types of closures that use `?` could no longer be inferred.)
    #[inline(never)]
    pub fn new(kind: ErrorKind) -> Error {
        Error(Arc::new(kind))
    }

    /// An argument outside its domain: [`ErrorKind::Argument`].
    pub fn argument(what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Argument { what: what.into() })
    }

    /// A state without the expected layout: [`ErrorKind::State`].
    pub fn state(what: impl Into<String>) -> Error {
        Error::new(ErrorKind::State { what: what.into() })
    }

    /// Data that cannot be trained on: [`ErrorKind::Data`].
    pub fn data(what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Data { what: what.into() })
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// What went wrong, to keep.
    pub fn into_kind(self) -> ErrorKind {
        Arc::unwrap_or_clone(self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What went wrong. See each variant for its cause and its cure.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Operands whose shapes do not fit the op. Cure: reshape or broadcast explicitly; the message has every shape.
    Shape {
        /// The op.
        op: String,
        /// The shapes it was given.
        inputs: Vec<Shape>,
        /// What does not fit.
        why: String,
        /// Where it was recorded.
        place: Place,
    },
    /// Operands of different or unsupported dtypes; there is no silent promotion. Cure: cast one with `.cast(dtype)`.
    DType {
        /// The op.
        op: String,
        /// The dtypes it was given.
        inputs: Vec<DType>,
        /// What does not fit.
        why: String,
        /// Where it was recorded.
        place: Place,
    },
    /// A derivative was asked through an op that has none. Cure: `stop_gradient` before it, or another formulation.
    NotDifferentiable {
        /// The op.
        op: String,
        /// Where it was recorded.
        place: Place,
    },
    /// A value that exists only on the device was asked while the step that computes it was being recorded.
    /// Cure: return it from the step, as a log or in the state, and read it afterwards.
    ReadInsideStep {
        /// The op whose value was asked for.
        op: String,
        /// Where it was recorded.
        place: Place,
    },
    /// Recording the step again gave another graph: a host value (a counter, a random number, an `if` on a read
    /// value) was baked into it. Cure: keep such values in the state, as tensors.
    StepChanged {
        /// How the first differing node differs.
        why: String,
        /// Where that node was recorded.
        place: Place,
    },
    /// The state or another structure given does not have the expected layout. Cure: pass what the model returned.
    State {
        /// What was expected and what was given.
        what: String,
    },
    /// `fit`, `evaluate` or another entry point needs something that `compile` was not given. Cure: compile with it.
    NotCompiled {
        /// What `compile` has to be given.
        needs: &'static str,
    },
    /// A name that is not registered. Cure: use one of the known names, listed, or pass an object.
    UnknownName {
        /// A name of what: a loss, a metric.
        kind: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// No adapter matches. Cure: install a Vulkan driver (Debian: `mesa-vulkan-drivers` is a software one), or pick
    /// another adapter by API or through `WENGERT_ADAPTER`.
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// The adapters there are.
        found: Vec<String>,
    },
    /// Something larger than the device allows, or than a budget. Cure: smaller tensors, another device, a larger budget.
    Limit {
        /// What is too large.
        what: String,
        /// Its size.
        need: u64,
        /// The limit, in the same unit.
        have: u64,
    },
    /// The device has no memory left. Cure: a smaller batch or model.
    OutOfMemory {
        /// What was to be made.
        what: String,
    },
    /// The device went away (driver reset, watchdog, closed page). Cure: make a new device and go on from saved weights.
    DeviceLost {
        /// What the driver or the browser said.
        why: String,
    },
    /// wgpu refused a command: a defect in this crate or in a user's own op.
    Validation {
        /// What wgpu said.
        why: String,
    },
    /// A shader did not compile: a defect in this crate or in a user's own op. Carries the text.
    Shader {
        /// What the compiler said.
        why: String,
        /// The WGSL.
        source: Arc<str>,
    },
    /// Tensors of two devices, or none where one is needed. Cure: keep a graph on one device.
    Device {
        /// What is wrong.
        what: String,
        /// Where the tensor was recorded, if that is known.
        place: Option<Place>,
    },
    /// A NaN or infinity where only finite values make sense.
    NonFinite {
        /// What is not finite.
        what: String,
    },
    /// Data that cannot be trained on: empty, of unequal lengths, outside its range. Cure in the message.
    Data {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// An argument outside its domain.
    Argument {
        /// The argument and its domain.
        what: String,
    },
    /// Reading or writing a file failed.
    Io {
        /// The file or stream.
        path: String,
        /// What the system said.
        why: String,
    },
    /// A file is not in the format it should have.
    Format {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ErrorKind::Shape { op, inputs, why, place } => {
                let shapes: Vec<_> = inputs.iter().map(Shape::to_string).collect();
                write!(f, "{op}: shapes {} do not fit: {why} ({place})", shapes.join(" and "))
            }
            ErrorKind::DType { op, inputs, why, place } => {
                let dtypes: Vec<_> = inputs.iter().map(|d| d.name()).collect();
                write!(f, "{op}: dtypes {} do not fit: {why} ({place})", dtypes.join(" and "))
            }
            ErrorKind::NotDifferentiable { op, place } => {
                write!(
                    f,
                    "{op} has no derivative, but one was asked through it; cut the path with stop_gradient ({place})"
                )
            }
            ErrorKind::ReadInsideStep { op, place } => write!(
                f,
                "the value of {op} was read inside a step while it was being recorded; return it as a log or in the state and read it after the step ({place})"
            ),
            ErrorKind::StepChanged { why, place } => write!(
                f,
                "the step recorded another graph than before: {why}; a host value must not be baked into a step, keep it in the state ({place})"
            ),
            ErrorKind::State { what } => write!(f, "wrong state: {what}"),
            ErrorKind::NotCompiled { needs } => write!(f, "the model is not compiled with {needs}; call compile first"),
            ErrorKind::UnknownName { kind, name, known } => {
                write!(f, "unknown {kind} \"{name}\"; known: {}", known.join(", "))
            }
            ErrorKind::NoAdapter { wanted, found } if found.is_empty() => write!(
                f,
                "no GPU adapter found ({wanted}); install a Vulkan driver, for example Debian's mesa-vulkan-drivers, a software one"
            ),
            ErrorKind::NoAdapter { wanted, found } => {
                write!(f, "no adapter matches {wanted}; found: {}", found.join(", "))
            }
            ErrorKind::Limit { what, need, have } => write!(f, "{what} needs {need}, the limit is {have}"),
            ErrorKind::OutOfMemory { what } => write!(f, "out of device memory: {what}"),
            ErrorKind::DeviceLost { why } => write!(f, "the device was lost: {why}"),
            ErrorKind::Validation { why } => write!(f, "the device refused a command: {why}"),
            ErrorKind::Shader { why, source } => write!(f, "a shader did not compile: {why}\n{source}"),
            ErrorKind::Device { what, place: Some(place) } => write!(f, "{what} ({place})"),
            ErrorKind::Device { what, place: None } => f.write_str(what),
            ErrorKind::NonFinite { what } => write!(f, "not finite: {what}"),
            ErrorKind::Data { what } | ErrorKind::Argument { what } => f.write_str(what),
            ErrorKind::Io { path, why } => write!(f, "{path}: {why}"),
            ErrorKind::Format { what, why } => write!(f, "{what} is malformed: {why}"),
        }
    }
}

impl std::error::Error for Error {}
