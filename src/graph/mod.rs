//! The tape: tensors, the nodes they point at, and what a node's op must say about itself.
//!
//! Floor 1. A [`Tensor`] is a handle on one output of a [`Node`]; creation order of nodes is the tape. Nothing is
//! computed here: a node is a description until a plan gives it a value. An op is an object that implements
//! [`Primitive`]; its [`Lowering`] is all that the compiler decides by. Deliberately absent: a second kind of tensor for
//! tracing, a `requires_grad` flag, and any list of the ops that exist.

mod body;
pub mod display;
#[cfg(feature = "reference")]
pub mod interpret;
mod node;
pub(crate) mod pending;
mod primitive;
mod tape;
mod tree;
mod view;
mod window;

pub use body::{Body, Scan};
pub use node::{Leaf, Node, Scope, Slot, Spec, Tensor, Value};
pub(crate) use node::{OnBehalf, here, nowhere};
pub use primitive::{Contraction, Derivative, Fold, ForSubgroups, Kernel, Lowering, Map, Misfit, Primitive, Reduction};
pub(crate) use tape::{Taping, is_taping};
pub use tree::Tree;
pub use view::{View, ViewOp};
pub use window::{Through, Windows};
