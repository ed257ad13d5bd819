//! What an op says about itself: [`Primitive`], and the few forms its computation may take: [`Lowering`].
//!
//! The compiler matches on [`Lowering`] and never asks which op it has before it. Deliberately absent: an enum of
//! ops. Whoever implements [`Primitive`], inside or outside this crate, has an op that fuses like any other.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use super::body::Scan;
use super::node::{Spec, Tensor};
use super::view::ViewOp;
use super::window::{Through, Windows};
use crate::error::Result;

/// Why operands do not fit an op; the recorder adds op, operands and place.
#[derive(Clone, Debug, PartialEq)]
pub enum Misfit {
    /// The shapes do not fit.
    Shape(String),
    /// The dtypes do not fit.
    DType(String),
}

/// What an op passes backwards.
pub enum Derivative {
    /// One cotangent for each input, `None` where none flows (integer inputs).
    Vjp(Vec<Option<Tensor>>),
    /// Piecewise constant: the derivative is zero wherever it exists, and the path ends here legitimately.
    Zero,
    /// There is no derivative; asking for one is an error.
    NotDifferentiable,
}

/// An op: its shape rule, its derivative, its lowering and its reference. Holds attributes only, never data or
/// device objects.
pub trait Primitive: Send + Sync + 'static {
    /// The field's name of the op.
    fn name(&self) -> &str;

    /// Attributes in a stable text form, as printed graphs show them.
    fn attributes(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// Feeds what identifies the computation: ops that feed the same are taken for one, and share plans. Name and
    /// attributes, unless those do not say all.
    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(self.name().as_bytes());
        hasher.write_u8(0xff);
        hasher.write(self.attributes().as_bytes());
    }

    /// Shapes and dtypes of the outputs.
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit>;

    /// How many outputs, the last ones, are for the derivative alone: nobody else is given them.
    fn hidden(&self) -> usize {
        0
    }

    /// Cotangents of the inputs from those of the outputs (`None`: zero), in tensor ops.
    fn vjp(&self, inputs: &[Tensor], outputs: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let _ = (inputs, outputs, cotangents);
        Derivative::NotDifferentiable
    }

    /// How each output is computed.
    fn lower(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<Lowering>;

    /// The outputs in f64 on the host: the oracle of every test. An op without one cannot be interpreted.
    #[cfg(feature = "reference")]
    fn reference(&self, inputs: &[super::interpret::Array], outputs: &[Spec]) -> Vec<super::interpret::Array> {
        let _ = (inputs, outputs);
        Vec::new()
    }
}

impl fmt::Debug for dyn Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.attributes() {
            "" => f.write_str(self.name()),
            attributes => write!(f, "{}[{attributes}]", self.name()),
        }
    }
}

/// The form of a computation.
#[derive(Clone, Debug)]
pub enum Lowering {
    /// Nothing to compute: the value is given.
    Leaf,
    /// An expression of the inputs at one index.
    Map(Map),
    /// A reduction of the only input over one block of adjacent axes.
    Fold(Fold),
    /// An index map of the only input. Never a kernel: it is folded into the consumer's loads.
    View(ViewOp),
    /// The only input (images or windows) read through sliding windows. Never a kernel either.
    Window(Windows, Through),
    /// The coordinate along an axis, as u32.
    Iota {
        /// Elements per step of the coordinate.
        inner: usize,
        /// Length of the axis.
        length: usize,
    },
    /// `out[o, i, n] = x[o, index[i], n]`; inputs are x and index (u32 or i32), an index beyond the axis is clamped.
    Gather {
        /// Length of the gathered axis of `x`.
        length: usize,
        /// Number of indices.
        count: usize,
        /// Elements behind the gathered axis.
        inner: usize,
    },
    /// A batched matrix product, the one form with tuned kernels.
    Contraction(Contraction),
    /// One of the inputs as it is.
    Same(usize),
    /// The first input as it is, for use once the other inputs are computed: what is computed from it is not shared with
    /// what is computed from the input elsewhere, and is computed no earlier. That is how a value is computed again
    /// rather than kept.
    Later,
    /// One output of a loop, the same for all outputs of the op.
    Scan(Scan),
    /// One output of a kernel that the op brings itself, the same for all outputs of the op.
    Kernel(Kernel),
}

/// A kernel that an op brings itself: a text of WGSL functions, among them `fn run(group: vec3<u32>, lane: u32)`, which
/// each invocation of each workgroup calls once, all of them.
///
/// The compiler gives it these functions to call, of which it declares those that are called:
/// - `size_N() -> u32`, word N of `words`;
/// - `load_K(i: u32)`, element i of operand K counted from its first, and `load_K_4(i: u32)`, the four elements from
///   there on, for an i that is a multiple of four;
/// - `stride_K_A() -> u32`, by how many elements a step along axis A of operand K goes: an operand may be seen through a
///   view. One that is loaded by fours is dense along its last axis, whose length is a multiple of four, as are all
///   strides;
/// - `store_K(i: u32, v)` and `store_K_4(i: u32, v)`, which write output K, dense and row by row.
///
/// Sizes belong into `words` rather than into the text, so that a smaller batch compiles nothing anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The text.
    pub text: Arc<str>,
    /// What runs instead on devices whose subgroups have one size.
    pub subgroups: Vec<ForSubgroups>,
    /// What `size_N` return.
    pub words: Vec<u32>,
    /// Invocations of a workgroup.
    pub width: u32,
    /// Workgroups along x, y and z; the op keeps each within 65,535.
    pub workgroups: [u32; 3],
    /// Floating-point operations, for plans and profiles.
    pub flops: u64,
}

/// The text of a [`Kernel`] for devices on which a subgroup has always `size` invocations; its lanes are consecutive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForSubgroups {
    /// Invocations of a subgroup.
    pub size: u32,
    /// Invocations of a workgroup.
    pub width: u32,
    /// The text.
    pub text: Arc<str>,
}

impl Kernel {
    /// Whether another is the same for other sizes.
    pub(crate) fn is_like(&self, other: &Kernel) -> bool {
        self.text == other.text && self.subgroups == other.subgroups && self.width == other.width
    }

    /// The text for a device, and the invocations of a workgroup.
    pub(crate) fn text_for(&self, subgroup: Option<u32>) -> (&str, u32) {
        let fits = self.subgroups.iter().find(|form| Some(form.size) == subgroup);
        fits.map_or((&self.text, self.width), |form| (&form.text, form.width))
    }

    /// Whether operand `k` is loaded by fours.
    pub(crate) fn is_by_fours(&self, k: usize) -> bool {
        let call = format!("load_{k}_4(");
        self.text.contains(&call) || self.subgroups.iter().any(|form| form.text.contains(&call))
    }
}

/// An elementwise expression in WGSL.
///
/// `$0`, `$1`... stand for the inputs. The text is written for any lane count: `T`, `I`, `U`, `B` are the f32, i32,
/// u32 and bool types (scalar or four lanes), literals are `T(15.0)`, choices `select`, and names of helper functions
/// end in `_T`, which is made unique per lane count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    /// The expression.
    pub text: &'static str,
    /// A WGSL text with the functions that the expression calls, in the same dialect; only those are taken from it.
    pub helpers: &'static str,
    /// Worth keeping rather than computing twice (transcendental).
    pub heavy: bool,
}

/// What a fold combines with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Sum; 0 of nothing.
    Sum,
    /// Product; 1 of nothing.
    Prod,
    /// Largest element, NaN if any is NaN; the lowest finite value of nothing.
    Max,
    /// Smallest element, NaN if any is NaN; the largest finite value of nothing.
    Min,
}

/// A reduction of `[outer, length, inner]` to `[outer, inner]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fold {
    /// What to combine with.
    pub reduction: Reduction,
    /// Product of the axes before the reduced ones.
    pub outer: usize,
    /// Product of the reduced axes.
    pub length: usize,
    /// Product of the axes behind the reduced ones.
    pub inner: usize,
}

/// `C[b, m, n] = sum over k of A[b, m, k] B[b, k, n]`, f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contraction {
    /// Independent products.
    pub batch: usize,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}
