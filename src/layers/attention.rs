//! [`MultiHeadAttention`] and [`Attention`]: values averaged by how well their keys meet a query.
//!
//! [`crate::ops::attention`] never stores the weights of the average; only where some of them are dropped are they
//! computed as such, by products and a softmax. Deliberately absent: attention over several axes, sliding windows, and
//! masks that travel with tensors.

use std::ops::RangeInclusive;

use super::check::{fraction, invalid, misfit};
use super::dropout::dropped;
use super::rectifiers::{bool_mask, masked_softmax};
use super::{Context, Layer, Mode, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;
use crate::ops::{Attend, attention};

/// Inputs `query [batch, t, d]`, `value [batch, s, e]` and, if it differs from the value, `key [batch, s, f]`.
fn check_sequences(layer: &str, inputs: &[Spec]) -> Result<()> {
    let sequences = &inputs[..inputs.len().min(3)];
    if sequences.iter().any(|input| input.shape.rank() != 3) {
        return Err(misfit(layer, inputs, "query, value and key are [batch, steps, features]"));
    }
    if sequences.get(2).is_some_and(|key| key.shape[1] != inputs[1].shape[1]) {
        return Err(misfit(layer, inputs, "value and key have the same steps"));
    }
    Ok(())
}

/// Bool `[t, s]`: query step i sees steps up to i.
fn causal(t: usize, s: usize) -> Tensor {
    Tensor::iota([t, s], 0).ge(Tensor::iota([t, s], 1))
}

/// Attention with several heads (Vaswani et al. 2017): for each head `softmax(q k^T / sqrt(key_dim)) v` of projections
/// of query, key and value; the heads together are projected to the output.
///
/// Inputs in Keras' order: query `[batch, t, d]`, value `[batch, s, e]`, key (the value by default) and a mask, Bool or
/// numbers, `[batch, t, s]` or `[batch, heads, t, s]`, false where nothing may be seen. Output `[batch, t, d]`, or
/// `[batch, t, ..output_shape]`. Variables: `query/kernel [d, heads, key_dim]`, `query/bias [heads, key_dim]`, the same
/// of `key` and of `value` (with `value_dim`), `attention_output/kernel [heads, value_dim, ..]`,
/// `attention_output/bias`.
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    /// Number of heads.
    pub num_heads: usize,
    /// Length of a head's query and key.
    pub key_dim: usize,
    /// Length of a head's value; `key_dim` by default.
    pub value_dim: Option<usize>,
    /// Axes of the output behind the steps; those of the query by default.
    pub output_shape: Option<Vec<usize>>,
    /// Fraction of the weights of the average to drop while training.
    pub dropout: f64,
    /// Fixes what is dropped whatever the seed of the network.
    pub seed: Option<u32>,
    /// Whether projections have biases; true by default.
    pub use_bias: bool,
    /// Whether a step sees only itself and what is before it.
    pub use_causal_mask: bool,
    /// Glorot's uniform by default.
    pub kernel_initializer: Initializer,
    /// Zeros by default.
    pub bias_initializer: Initializer,
}

impl MultiHeadAttention {
    /// `num_heads` heads with keys of length `key_dim`, otherwise with Keras' defaults.
    pub fn new(num_heads: usize, key_dim: usize) -> MultiHeadAttention {
        MultiHeadAttention {
            num_heads,
            key_dim,
            value_dim: None,
            output_shape: None,
            dropout: 0.0,
            seed: None,
            use_bias: true,
            use_causal_mask: false,
            kernel_initializer: Initializer::GlorotUniform,
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Sets the fraction of the weights to drop.
    pub fn dropout(mut self, dropout: f64) -> MultiHeadAttention {
        self.dropout = dropout;
        self
    }

    /// Sets whether a step sees only itself and what is before it.
    pub fn use_causal_mask(mut self, use_causal_mask: bool) -> MultiHeadAttention {
        self.use_causal_mask = use_causal_mask;
        self
    }

    fn output_of(&self, query: usize) -> Vec<usize> {
        self.output_shape.clone().unwrap_or_else(|| vec![query])
    }

    /// `x` times kernel `i`, whose first axes are the features, plus its bias: rows `[batch steps, outputs]`.
    fn project(&self, x: &Tensor, features: usize, i: usize, context: &Context) -> Tensor {
        let at = if self.use_bias { 2 * i } else { i };
        let kernel = context.weight(at);
        let outputs = kernel.shape().numel() / features.max(1);
        let rows = x.shape().numel() / features.max(1);
        let y = x.reshape([rows, features]).matmul(&kernel.reshape([features, outputs]));
        if self.use_bias { y + context.weight(at + 1).reshape([outputs]) } else { y }
    }

    /// Rows to heads, `[batch, steps, heads, length]`.
    fn heads(&self, x: &Tensor, i: usize, context: &Context) -> Tensor {
        let y = self.project(x, x.dim(2), i, context);
        y.reshape([x.dim(0), x.dim(1), self.num_heads, y.dim(1) / self.num_heads.max(1)])
    }

    /// The weights of the average from scores `[batch, heads, t, s]`, with dropout.
    fn weights(&self, scores: &Tensor, given: Option<Tensor>, context: &mut Context) -> Tensor {
        let causal = self.use_causal_mask.then(|| causal(scores.dim(2), scores.dim(3)));
        let mask = match (given, causal) {
            (Some(given), Some(causal)) => Some(given.and(causal)),
            (given, causal) => given.or(causal),
        };
        let weights = masked_softmax(scores, mask.as_ref(), &[-1]);
        dropped(&weights, self.dropout, weights.shape(), context)
    }
}

impl Layer for MultiHeadAttention {
    fn kind(&self) -> &str {
        "multi_head_attention"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        2..=4
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        check_sequences(self.kind(), inputs)?;
        fraction(self.kind(), self.dropout)?;
        let value_dim = self.value_dim.unwrap_or(self.key_dim);
        if self.num_heads == 0 || self.key_dim == 0 || value_dim == 0 {
            let (heads, key) = (self.num_heads, self.key_dim);
            let what = format!("{heads} heads with keys of {key} and values of {value_dim}; all are at least 1");
            return Err(invalid(self.kind(), what));
        }
        if let Some(mask) = inputs.get(3) {
            let whole = [1, self.num_heads, inputs[0].shape[1], inputs[1].shape[1]];
            let fits = match *mask.shape.dims() {
                [b, t, s] => [b, t, s] == [whole[0], whole[2], whole[3]],
                [b, h, t, s] => [b, t, s] == [whole[0], whole[2], whole[3]] && (h == 1 || h == whole[1]),
                _ => false,
            };
            if !fits {
                let why = "the mask is [batch, query steps, key steps], or with heads behind the batch";
                return Err(misfit(self.kind(), inputs, why));
            }
        }
        let features = |i: usize| inputs.get(i).unwrap_or(&inputs[1]).shape[2];
        let heads = self.num_heads;
        let output = self.output_of(features(0));
        let projections = [
            ("query", vec![features(0), heads, self.key_dim], 1),
            ("key", vec![features(2), heads, self.key_dim], 1),
            ("value", vec![features(1), heads, value_dim], 1),
            ("attention_output", [&[heads, value_dim], &output[..]].concat(), 2),
        ];
        let mut variables = Vec::new();
        for (name, shape, bound) in projections {
            let bias = shape[bound..].to_vec();
            variables.push(Variable::weight(&format!("{name}/kernel"), shape, self.kernel_initializer.clone()));
            if self.use_bias {
                variables.push(Variable::weight(&format!("{name}/bias"), bias, self.bias_initializer.clone()));
            }
        }
        variables.extend((self.dropout > 0.0).then(|| Variable::seed(self.seed)));
        Ok(variables)
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let (query, value, key) = (&inputs[0], &inputs[1], inputs.get(2).unwrap_or(&inputs[1]));
        let (q, k, v) = (self.heads(query, 0, context), self.heads(key, 1, context), self.heads(value, 2, context));
        let mask =
            inputs.get(3).map(|mask| bool_mask(&if mask.rank() == 3 { mask.unsqueeze(1) } else { mask.clone() }));
        let scale = (self.key_dim as f64).sqrt().recip();
        let joined = if self.dropout > 0.0 && context.mode() == Mode::Train {
            let by_head = |x: &Tensor| x.permute([0, 2, 1, 3]);
            let scores = by_head(&q).matmul(&by_head(&k).t()) * scale;
            let weights = self.weights(&scores, mask, context);
            weights.matmul(&by_head(&v)).permute([0, 2, 1, 3])
        } else {
            let (scale, causal) = (Some(scale), self.use_causal_mask);
            attention(&q, &k, &v, &Attend { scale, causal, mask: mask.as_ref() })
        };
        let y = self.project(&joined, self.num_heads * v.dim(3), 3, context);
        y.reshape([&[query.dim(0), query.dim(1)], &self.output_of(query.dim(2))[..]].concat())
    }
}

/// How [`Attention`] compares a query and a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoreMode {
    /// Their scalar product.
    #[default]
    Dot,
    /// `concat_score_weight sum(tanh(scale (query + key)))`.
    Concat,
}

/// `softmax(score(query, key)) value` without projections (Luong et al. 2015).
///
/// Inputs: query `[batch, t, d]`, value `[batch, s, e]` and key (the value by default); output `[batch, t, e]`.
/// Variables: `scale []` with `use_scale`, `concat_score_weight []` with [`ScoreMode::Concat`].
#[derive(Clone, Debug, Default)]
pub struct Attention {
    /// Whether scores have a learnt factor.
    pub use_scale: bool,
    /// The scalar product by default.
    pub score_mode: ScoreMode,
    /// Fraction of the weights of the average to drop while training.
    pub dropout: f64,
    /// Fixes what is dropped whatever the seed of the network.
    pub seed: Option<u32>,
    /// Whether a step sees only itself and what is before it.
    pub use_causal_mask: bool,
}

impl Attention {
    /// With Keras' defaults.
    pub fn new() -> Attention {
        Attention::default()
    }
}

impl Layer for Attention {
    fn kind(&self) -> &str {
        "attention"
    }

    fn accepts(&self) -> RangeInclusive<usize> {
        2..=3
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        check_sequences(self.kind(), inputs)?;
        fraction(self.kind(), self.dropout)?;
        let key = inputs.get(2).unwrap_or(&inputs[1]);
        if key.shape[2] != inputs[0].shape[2] {
            return Err(misfit(self.kind(), inputs, "query and key have the same features"));
        }
        let scalar = |name: &str| Variable::weight(name, [], Initializer::Ones);
        let scale = self.use_scale.then(|| scalar("scale"));
        let concat = (self.score_mode == ScoreMode::Concat).then(|| scalar("concat_score_weight"));
        let seed = (self.dropout > 0.0).then(|| Variable::seed(self.seed));
        Ok(scale.into_iter().chain(concat).chain(seed).collect())
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let (query, value, key) = (&inputs[0], &inputs[1], inputs.get(2).unwrap_or(&inputs[1]));
        let scaled = |x: Tensor| if self.use_scale { x * context.weight(0) } else { x };
        let drops = self.dropout > 0.0 && context.mode() == Mode::Train;
        let scores = match self.score_mode {
            ScoreMode::Dot if !drops => {
                let (q, k, v) = (scaled(query.clone()).unsqueeze(2), key.unsqueeze(2), value.unsqueeze(2));
                let options = Attend { scale: Some(1.0), causal: self.use_causal_mask, mask: None };
                return attention(&q, &k, &v, &options).squeeze(2);
            }
            ScoreMode::Dot => scaled(query.matmul(&key.t())),
            ScoreMode::Concat => {
                let sums = scaled(query.unsqueeze(2) + key.unsqueeze(1)).tanh().sum(-1);
                context.weight(usize::from(self.use_scale)) * sums
            }
        };
        let mask = self.use_causal_mask.then(|| causal(query.dim(1), value.dim(1)));
        let weights = masked_softmax(&scores, mask.as_ref(), &[-1]);
        dropped(&weights, self.dropout, weights.shape(), context).matmul(value)
    }
}
