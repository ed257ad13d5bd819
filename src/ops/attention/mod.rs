//! Scaled dot-product attention (Vaswani et al. 2017), forward and backward, without ever writing the scores.
//!
//! Each is one kernel of the op's own: the forward pass keeps for each query the largest score and one over the sum of
//! exponentials, from which the backward pass computes the weights again (Dao et al. 2022), so memory grows with the
//! number of steps and not with its square. Second derivatives are those of the composition of products and a softmax,
//! to which [`attention`] also falls back where heads are too long for registers. Deliberately absent: dropout of
//! weights; who wants it composes.

mod text;

use std::borrow::Cow;
use std::sync::Arc;

use super::Example;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind};
use crate::grad::{arguments, pull};
use crate::graph::{Derivative, ForSubgroups, Kernel, Lowering, Misfit, Primitive, Spec, Tensor, here};
use text::{Form, ROWS};

/// Heads longer than this do not fit into registers.
const LONGEST: usize = 128;
/// Workgroups along one axis of a grid.
const GRID: usize = 65_535;

/// Options of [`attention`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Attend<'a> {
    /// What scores are multiplied by; one over the square root of the keys' length by default.
    pub scale: Option<f64>,
    /// Whether query step `i` sees only key steps up to `i`.
    pub causal: bool,
    /// Bool, broadcast to `[batch, heads, query steps, key steps]`: false where nothing may be seen. A query that sees
    /// nothing gives zeros.
    pub mask: Option<&'a Tensor>,
}

/// `softmax(scale q k^T) v` for each head: queries `[batch, t, heads, d]`, keys `[batch, s, heads, d]` and values
/// `[batch, s, heads, e]` to `[batch, t, heads, e]`, f32.
///
/// Poisoned where the shapes do not fit.
#[track_caller]
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &Attend) -> Tensor {
    if let Some(failed) = [Some(q), Some(k), Some(v), options.mask].into_iter().flatten().find(|x| x.error().is_some())
    {
        return failed.clone();
    }
    let fits = match (q.shape().dims(), k.shape().dims(), v.shape().dims()) {
        (&[b, _, h, d], &[kb, s, kh, kd], &[vb, vs, vh, _]) => [b, h, d] == [kb, kh, kd] && [b, s, h] == [vb, vs, vh],
        _ => false,
    };
    if !fits {
        let why = "queries are [batch, t, heads, d], keys [batch, s, heads, d] and values [batch, s, heads, e]".into();
        let inputs = vec![q.shape(), k.shape(), v.shape()];
        return Tensor::poisoned(Error::new(ErrorKind::Shape { op: "attention".into(), inputs, why, place: here() }));
    }
    let (b, t, h, d, s, e) = (q.dim(0), q.dim(1), q.dim(2), q.dim(3), k.dim(1), v.dim(3));
    let mask = options.mask.map(|mask| mask.broadcast_to([b, h, t, s]));
    if let Some(failed) = mask.as_ref().filter(|mask| mask.error().is_some()) {
        return failed.clone();
    }
    let scale = options.scale.unwrap_or_else(|| (d as f64).sqrt().recip()) as f32;
    let op = Attention { scale, causal: options.causal, masked: mask.is_some() };
    let empty = [b, t, h, d, s, e].contains(&0);
    if empty || d > LONGEST || e > LONGEST || h > GRID || b > GRID || t.max(s) > GRID * ROWS as usize {
        return op.composed(q, k, v, mask.as_ref());
    }
    let operands: Vec<&Tensor> = [q, k, v].into_iter().chain(&mask).collect();
    Tensor::record(Arc::new(op), &operands, 2).swap_remove(0)
}

/// The forward pass: o, and `[batch, t, heads, 2]` with the largest score of each query and one over its sum of exponentials.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Attention {
    scale: f32,
    causal: bool,
    masked: bool,
}

/// Half of the backward pass. Operands q, k, v, what the forward pass keeps, o or the scalar products of o with its
/// cotangent, and that cotangent. Outputs: the gradient of q, and those products; or the gradients of k and v. Two
/// kernels, for as one they would bind more buffers than every device has, and on a CPU, which never jumps over a branch,
/// each workgroup would walk through the text of both.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gradient {
    of: Attention,
    half: Half,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Half {
    Queries,
    Keys,
}

impl Attention {
    /// By products and a softmax.
    #[track_caller]
    fn composed(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let heads = |x: &Tensor| x.permute([0, 2, 1, 3]);
        let (t, s) = (q.dim(1), k.dim(1));
        let scores = heads(q).matmul(&heads(k).t()) * f64::from(self.scale);
        let causal = self.causal.then(|| Tensor::iota([t, s], 0).ge(Tensor::iota([t, s], 1)));
        let seen = match (mask, causal) {
            (Some(mask), Some(causal)) => Some(mask.and(causal)),
            (mask, causal) => mask.cloned().or(causal),
        };
        let weights = match seen {
            Some(seen) => seen.select(seen.select(&scores, -1e9).softmax(-1), 0.0),
            None => scores.softmax(-1),
        };
        heads(&weights.matmul(&heads(v)))
    }

    fn attributes(&self) -> String {
        let causal = if self.causal { ", causal" } else { "" };
        format!("scale {}{causal}", self.scale)
    }

    /// The kernel for operands that begin with q, k, v: the forward pass, or half of the backward one.
    fn kernel(&self, inputs: &[Spec], half: Option<Half>) -> Kernel {
        let [q, k, v] = [0, 1, 2].map(|i| inputs[i].shape.dims());
        let (b, t, h, s, d, e) = (q[0], q[1], q[2], k[1], q[3], v[3]);
        let form = Form { key: d, value: e, causal: self.causal, masked: self.masked, subgroup: None };
        // Rows that have an invocation, and multiply-adds of a query and a key.
        let (write, rows, products): (fn(&Form) -> String, _, _) = match half {
            None => (text::forward, t, d + e),
            Some(Half::Queries) => (text::queries, t, 2 * d + e),
            Some(Half::Keys) => (text::keys, s, 2 * (d + e)),
        };
        let on = |size: u32| {
            let form = Form { subgroup: Some(size), ..form };
            ForSubgroups { size, width: form.width(), text: write(&form).into() }
        };
        Kernel {
            text: write(&form).into(),
            // Those of CPUs: a GPU's caches serve lanes that ask for the same.
            subgroups: vec![on(4), on(8), on(16)],
            words: vec![t as u32, s as u32, h as u32, self.scale.to_bits()],
            width: form.width(),
            workgroups: [rows.div_ceil(ROWS as usize), h, b].map(|n| n as u32),
            flops: (b * h * t * s * 2 * products) as u64 / if self.causal { 2 } else { 1 },
        }
    }
}

fn infer(inputs: &[Spec], masked: Option<usize>) -> Result<[Spec; 3], Misfit> {
    let bool = |i: usize| masked == Some(i);
    if inputs.iter().enumerate().any(|(i, input)| input.dtype != if bool(i) { DType::Bool } else { DType::F32 }) {
        return Err(Misfit::DType("it takes f32, and a mask of Bool".into()));
    }
    Ok([0, 1, 2].map(|i| inputs[i].clone()))
}

impl Primitive for Attention {
    fn hidden(&self) -> usize {
        1
    }

    fn name(&self) -> &str {
        "attention"
    }

    fn attributes(&self) -> Cow<'_, str> {
        Attention::attributes(self).into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let [q, _, v] = infer(inputs, self.masked.then_some(3))?;
        let (b, t, h, e) = (q.shape[0], q.shape[1], q.shape[2], v.shape[3]);
        Ok(vec![Spec::new([b, t, h, e], DType::F32), Spec::new([b, t, h, 2], DType::F32)])
    }

    fn vjp(&self, inputs: &[Tensor], outputs: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let Some(g) = &cotangents[0] else { return Derivative::Zero };
        if let Some(mask) = inputs.get(3) {
            // With a mask the kernel would bind more buffers than every device has.
            let at = arguments(&[&inputs[0], &inputs[1], &inputs[2]]);
            let o = self.composed(&at[0], &at[1], &at[2], Some(mask));
            let passed = pull(&[(o, g.clone())], &at);
            let mut passed = passed.unwrap_or_else(|error| vec![Some(Tensor::poisoned(error)); 3]);
            passed.push(None);
            return Derivative::Vjp(passed);
        }
        let half = |half: Half, what: &Tensor| {
            let operands = [&inputs[0], &inputs[1], &inputs[2], &outputs[1], what, g];
            <[Tensor; 2]>::try_from(Tensor::record(Arc::new(Gradient { of: *self, half }), &operands, 2))
                .expect("two outputs")
        };
        let [dq, products] = half(Half::Queries, &outputs[0]);
        let [dk, dv] = half(Half::Keys, &products);
        Derivative::Vjp([dq, dk, dv].map(Some).into())
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::Kernel(self.kernel(inputs, None)); 2]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let sizes = reference::Sizes::of(inputs);
        let mut out: Vec<_> = outputs.iter().map(|spec| vec![0.0; spec.shape.numel()]).collect();
        for [b, t, h] in sizes.queries() {
            let scores = sizes.scores(self, inputs, inputs.get(3), [b, t, h]);
            let m = scores.iter().flatten().fold(-1e9, |m: f64, &s| m.max(s));
            let sum: f64 = scores.iter().flatten().map(|s| (s - m).exp()).sum();
            let (at, inverse) = ((b * sizes.t + t) * sizes.h + h, if sum > 0.0 { 1.0 / sum } else { 0.0 });
            for (j, s) in scores.iter().enumerate() {
                let Some(s) = s else { continue };
                for e in 0..sizes.e {
                    out[0][at * sizes.e + e] +=
                        (s - m).exp() * inverse * inputs[2].data[sizes.key([b, j, h], sizes.e) + e];
                }
            }
            (out[1][2 * at], out[1][2 * at + 1]) = (m, inverse);
        }
        reference::arrays(out, outputs)
    }
}

impl Primitive for Gradient {
    fn name(&self) -> &str {
        match self.half {
            Half::Queries => "attention_query_gradient",
            Half::Keys => "attention_key_gradient",
        }
    }

    fn attributes(&self) -> Cow<'_, str> {
        self.of.attributes().into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let [q, k, v] = infer(inputs, None)?;
        let products = Spec::new(&q.shape[..3], DType::F32);
        Ok(match self.half {
            Half::Queries => vec![q, products],
            Half::Keys => vec![k, v],
        })
    }

    /// That of the composition, as a function of q, k, v and the cotangent: the other operands come of these.
    fn vjp(&self, inputs: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let outer = arguments(&[&inputs[0], &inputs[1], &inputs[2], &inputs[5]]);
        let inner = arguments(&[&outer[0], &outer[1], &outer[2]]);
        let o = self.of.composed(&inner[0], &inner[1], &inner[2], None);
        let passed = pull(&[(o, outer[3].clone())], &inner).and_then(|first| {
            let of = match self.half {
                Half::Queries => &first[..1],
                Half::Keys => &first[1..],
            };
            let seeds = of.iter().zip(cotangents).filter_map(|(x, g)| Some((x.clone()?, g.clone()?)));
            pull(&seeds.collect::<Vec<_>>(), &outer)
        });
        let passed = passed.unwrap_or_else(|error| vec![Some(Tensor::poisoned(error)); 4]);
        let mut all = vec![None; inputs.len()];
        for (at, cotangent) in [0, 1, 2, 5].into_iter().zip(passed) {
            all[at] = cotangent;
        }
        Derivative::Vjp(all)
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::Kernel(self.of.kernel(inputs, Some(self.half))); 2]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let sizes = reference::Sizes::of(inputs);
        let [mut dq, mut dk, mut dv] = [0, 1, 2].map(|i| vec![0.0; inputs[i].data.len()]);
        let mut products = Vec::new();
        for [b, t, h] in sizes.queries() {
            let scores = sizes.scores(&self.of, inputs, None, [b, t, h]);
            let at = (b * sizes.t + t) * sizes.h + h;
            let (m, inverse) = (inputs[3].data[2 * at], inputs[3].data[2 * at + 1]);
            let g = &inputs[5].data[at * sizes.e..][..sizes.e];
            let product = match self.half {
                Half::Queries => g.iter().zip(&inputs[4].data[at * sizes.e..]).map(|(g, o)| g * o).sum(),
                Half::Keys => inputs[4].data[at],
            };
            products.push(product);
            for (j, s) in scores.iter().enumerate() {
                let Some(s) = s else { continue };
                let (key, value) = (sizes.key([b, j, h], sizes.d), sizes.key([b, j, h], sizes.e));
                let p = (s - m).exp() * inverse;
                let dp: f64 = g.iter().zip(&inputs[2].data[value..]).map(|(g, v)| g * v).sum();
                let ds = p * (dp - product) * f64::from(self.of.scale);
                for d in 0..sizes.d {
                    dq[at * sizes.d + d] += ds * inputs[1].data[key + d];
                    dk[key + d] += ds * inputs[0].data[at * sizes.d + d];
                }
                for e in 0..sizes.e {
                    dv[value + e] += p * g[e];
                }
            }
        }
        match self.half {
            Half::Queries => reference::arrays(vec![dq, products], outputs),
            Half::Keys => reference::arrays(vec![dk, dv], outputs),
        }
    }
}

#[cfg(feature = "reference")]
mod reference {
    //! What both references share.

    use super::Attention;
    use crate::graph::Spec;
    use crate::graph::interpret::Array;

    pub(super) struct Sizes {
        pub b: usize,
        pub t: usize,
        pub h: usize,
        pub d: usize,
        pub s: usize,
        pub e: usize,
    }

    impl Sizes {
        pub fn of(inputs: &[Array]) -> Sizes {
            let (q, k, v) = (&inputs[0].shape, &inputs[1].shape, &inputs[2].shape);
            Sizes { b: q[0], t: q[1], h: q[2], d: q[3], s: k[1], e: v[3] }
        }

        pub fn queries(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
            let (t, h) = (self.t, self.h);
            (0..self.b * t * h).map(move |at| [at / h / t, at / h % t, at % h])
        }

        /// Where a key or value of so many elements begins.
        pub fn key(&self, [b, j, h]: [usize; 3], length: usize) -> usize {
            ((b * self.s + j) * self.h + h) * length
        }

        /// The scores of a query, `None` for what it does not see.
        pub fn scores(
            &self,
            op: &Attention,
            inputs: &[Array],
            mask: Option<&Array>,
            [b, t, h]: [usize; 3],
        ) -> Vec<Option<f64>> {
            let query = &inputs[0].data[((b * self.t + t) * self.h + h) * self.d..][..self.d];
            let seen = |j: usize| {
                let given = mask.is_none_or(|mask| mask.data[((b * self.h + h) * self.t + t) * self.s + j] != 0.0);
                given && (!op.causal || j <= t)
            };
            let score = |j: usize| {
                let key = &inputs[1].data[self.key([b, j, h], self.d)..];
                query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(op.scale)
            };
            (0..self.s).map(|j| seen(j).then(|| score(j))).collect()
        }
    }

    pub(super) fn arrays(data: Vec<Vec<f64>>, outputs: &[Spec]) -> Vec<Array> {
        data.into_iter().zip(outputs).map(|(data, spec)| Array::new(spec.shape.clone(), data)).collect()
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-1.5, 1.5);
    let f = DType::F32;
    let heads = |b: usize, steps: usize, length: usize| vec![b, steps, 2, length];
    let example = |name: &str, [b, t, s, d, e]: [usize; 5], apply: fn(&[Tensor]) -> Tensor| {
        let (q, k, v) = (heads(b, t, d), heads(b, s, d), heads(b, s, e));
        Example::new(name, &[(&q, f, D), (&k, f, D), (&v, f, D)], apply)
    };
    vec![
        example("attention", [2, 5, 5, 8, 8], |x| attention(&x[0], &x[1], &x[2], &Attend::default())),
        example("attention causal", [1, 11, 11, 4, 4], |x| {
            attention(&x[0], &x[1], &x[2], &Attend { causal: true, ..Attend::default() })
        }),
        example("attention odd", [1, 3, 10, 5, 3], |x| {
            attention(&x[0], &x[1], &x[2], &Attend { scale: Some(0.7), ..Attend::default() })
        }),
        example("attention masked", [1, 4, 6, 4, 4], |x| {
            // The second query sees nothing.
            let (t, s) = (Tensor::iota([4, 6], 0), Tensor::iota([4, 6], 1));
            let mask = t.ne(1.0).and(s.ne(2.0).or(t.eq(3.0)));
            attention(&x[0], &x[1], &x[2], &Attend { mask: Some(&mask), ..Attend::default() })
        }),
    ]
}
