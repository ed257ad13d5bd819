//! [`CallbackState`]: what a callback remembers from one epoch to the next, for checkpoints.
//!
//! Named numbers and tensors, because that is what such memory consists of, and because a file can hold it with all its
//! bits. Deliberately absent: options of a callback, which the program that resumes gives again.

use crate::graph::Tensor;

/// What a [`Callback`](super::Callback) needs to go on where it was.
#[derive(Clone, Debug, Default)]
pub struct CallbackState {
    pub(crate) kind: String,
    pub(crate) numbers: Vec<(String, f64)>,
    pub(crate) tensors: Vec<(String, Tensor)>,
}

impl CallbackState {
    /// The state of a callback of a kind ("early_stopping"), which must be the same whenever the program runs.
    pub fn new(kind: &str) -> CallbackState {
        CallbackState { kind: kind.into(), ..CallbackState::default() }
    }

    /// The kind of the callback.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// With a number, unless there is none. A count keeps its value up to 2^53.
    pub fn with(mut self, name: &str, value: impl Into<Option<f64>>) -> CallbackState {
        self.numbers.extend(value.into().map(|value| (name.to_string(), value)));
        self
    }

    /// With a count, unless there is none.
    pub fn with_count(self, name: &str, value: impl Into<Option<usize>>) -> CallbackState {
        self.with(name, value.into().map(|value| value as f64))
    }

    /// With tensors.
    pub fn with_tensors(mut self, tensors: impl IntoIterator<Item = (String, Tensor)>) -> CallbackState {
        self.tensors.extend(tensors);
        self
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|entry| entry.0 == name).map(|entry| entry.1)
    }

    /// A count.
    pub fn count(&self, name: &str) -> Option<usize> {
        self.number(name).map(|value| value as usize)
    }

    /// The tensors, in order of their names.
    pub fn tensors(&self) -> &[(String, Tensor)] {
        &self.tensors
    }
}
