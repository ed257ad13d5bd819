//! The ops: what can be done with tensors, each defined in one place.
//!
//! Floor 2. An elementwise op is a row of the table in [`elementwise`]; a structured op is one file in reading order:
//! the method with its documentation, shape rule, derivative, lowering and f64 reference. Softmax and its kin are
//! compositions; the compiler fuses them because their indices fit. [`registry`] has examples that use every op, which is
//! where the tests find them. Deliberately absent: kernels, and any list that an op must be added to besides its own
//! file's; a new file joins [`registry`].

mod arithmetic;
mod attention;
mod conv;
mod create;
pub mod elementwise;
mod index;
mod join;
mod matmul;
mod pool;
mod reduce;
mod scan;
mod softmax;
pub(crate) mod standardize;
mod view;
mod window;

pub use arithmetic::Operand;
pub use attention::{Attend, attention};
pub use conv::Conv;
pub use elementwise::{Elementwise, Gives, Row, Rule, Takes};
pub use join::{concat, stack};
pub use reduce::{Axes, Keep};
pub use scan::{scan, scan_reversed};
pub use window::{Padding, Window};

use std::sync::Arc;

use crate::dtype::DType;
use crate::graph::Tensor;
use crate::shape::Shape;

/// One operand of an [`Example`].
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Lengths of the axes.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Smallest and largest value worth trying; integers are drawn from the integers within.
    pub domain: (f64, f64),
}

/// A function of tensors, as tests pass it around.
pub type Apply = Arc<dyn Fn(&[Tensor]) -> Tensor + Send + Sync>;

/// A use of an op that the tests run: against its reference, against finite differences, alone and fused.
#[derive(Clone)]
pub struct Example {
    /// The op, and which of its forms.
    pub name: String,
    /// Operands of a representative shape.
    pub inputs: Vec<Sample>,
    /// The op under test.
    pub apply: Apply,
    /// Largest error allowed on a device, in units in the last place of the result (of 1 for results below 1).
    pub ulp: f64,
    /// Whether another shape of all operands alike makes sense: true for elementwise ops.
    pub any_shape: bool,
}

impl Example {
    pub(crate) fn new(name: &str, inputs: &[(&[usize], DType, (f64, f64))], apply: fn(&[Tensor]) -> Tensor) -> Example {
        let sample =
            |&(shape, dtype, domain): &(&[usize], DType, (f64, f64))| Sample { shape: shape.into(), dtype, domain };
        Example {
            name: name.into(),
            inputs: inputs.iter().map(sample).collect(),
            apply: Arc::new(apply),
            ulp: 8.0,
            any_shape: false,
        }
    }
}

/// Examples of all ops, in the forms that the tests try.
pub fn registry() -> Vec<Example> {
    [
        elementwise::examples(),
        reduce::examples(),
        matmul::examples(),
        view::examples(),
        window::examples(),
        conv::examples(),
        pool::examples(),
        index::examples(),
        join::examples(),
        attention::examples(),
        scan::examples(),
        softmax::examples(),
        standardize::examples(),
        crate::random::examples(),
    ]
    .concat()
}
