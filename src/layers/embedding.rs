//! [`Embedding`]: a learnt vector for each of a set of integers.
//!
//! Deliberately absent: masks for padding; layers have none yet.

use super::check::invalid;
use super::{Context, Layer, Variable};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;

/// Integers `[batch, ..]` to vectors `[batch, .., output_dim]`, rows of a table. Variable: `embeddings
/// [input_dim, output_dim]`.
///
/// Integers are i32, u32 or whole f32; one beyond the table reads its nearest row.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// Number of rows: the largest integer plus 1.
    pub input_dim: usize,
    /// Length of a vector.
    pub output_dim: usize,
    /// Uniform in [-0.05, 0.05) by default.
    pub embeddings_initializer: Initializer,
}

impl Embedding {
    /// A table of `input_dim` vectors of length `output_dim`.
    pub fn new(input_dim: usize, output_dim: usize) -> Embedding {
        Embedding { input_dim, output_dim, embeddings_initializer: "uniform".into() }
    }

    /// Sets what the table starts from.
    pub fn embeddings_initializer(mut self, initializer: impl Into<Initializer>) -> Embedding {
        self.embeddings_initializer = initializer.into();
        self
    }
}

impl Layer for Embedding {
    fn kind(&self) -> &str {
        "embedding"
    }

    fn variables(&self, _: &[Spec]) -> Result<Vec<Variable>> {
        if self.input_dim == 0 || self.output_dim == 0 {
            let what = format!("a table of {} by {} has no rows to pick", self.input_dim, self.output_dim);
            return Err(invalid(self.kind(), what));
        }
        let shape = [self.input_dim, self.output_dim];
        Ok(vec![Variable::weight("embeddings", shape, self.embeddings_initializer.clone())])
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let index = if x.dtype() == DType::F32 { x.cast(DType::I32) } else { x.clone() };
        context.weight(0).take(&index, 0)
    }
}
