//! The matrix product, the one op with tuned kernels of its own.
//!
//! Transposed operands are views that the kernels read as they lie. The derivative is explicit (two more products),
//! because deriving it through primitive ops would lose the pattern the kernels need.

use super::Example;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Contraction, Derivative, Lowering, Misfit, Primitive, Spec, Tensor, here};
use crate::shape::Shape;

impl Tensor {
    /// Matrix product of the last two axes, `[.., m, k] x [.., k, n] -> [.., m, n]`; the axes before broadcast.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        let (Some(a), Some(b)) = (self.spec(), other.spec()) else {
            return if self.error().is_some() { self.clone() } else { other.clone() };
        };
        // A closure has a caller of its own, so the place is taken here.
        let place = here();
        let fail = |why: &str| {
            let (inputs, place) = (vec![a.shape.clone(), b.shape.clone()], place.clone());
            Tensor::poisoned(Error::new(ErrorKind::Shape { op: "matmul".into(), inputs, why: why.into(), place }))
        };
        let ([a_outer @ .., m, k], [b_outer @ .., k2, n]) = (a.shape.dims(), b.shape.dims()) else {
            return fail("both need two axes at least");
        };
        if k != k2 {
            return fail(&format!("the inner lengths {k} and {k2} differ"));
        }
        // A matrix on the right serves all rows on the left: one product of many rows.
        if b_outer.is_empty() {
            let rows = a_outer.iter().product::<usize>() * m;
            let product = Tensor::apply(MatMul, &[&self.reshape([1, rows, *k]), &other.reshape([1, *k, *n])]);
            return product.reshape([a_outer, &[*m, *n]].concat());
        }
        let Some(outer) = Shape::from(a_outer).broadcast(&Shape::from(b_outer)) else {
            return fail("the axes before the last two do not broadcast");
        };
        let batch = outer.numel();
        let left = self.broadcast_to([outer.dims(), &[*m, *k]].concat()).reshape([batch, *m, *k]);
        let right = other.broadcast_to([outer.dims(), &[*k, *n]].concat()).reshape([batch, *k, *n]);
        Tensor::apply(MatMul, &[&left, &right]).reshape([outer.dims(), &[*m, *n]].concat())
    }
}

/// `[b, m, k] x [b, k, n] -> [b, m, n]`, f32.
#[derive(Debug)]
struct MatMul;

fn sizes(a: &Spec, b: &Spec) -> Option<Contraction> {
    match (a.shape.dims(), b.shape.dims()) {
        (&[batch, m, k], &[batch2, k2, n]) if batch == batch2 && k == k2 => Some(Contraction { batch, m, n, k }),
        _ => None,
    }
}

impl Primitive for MatMul {
    fn name(&self) -> &str {
        "matmul"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        if inputs.iter().any(|input| input.dtype != DType::F32) {
            return Err(Misfit::DType("it takes f32".into()));
        }
        match sizes(&inputs[0], &inputs[1]) {
            Some(c) => Ok(vec![Spec::new([c.batch, c.m, c.n], DType::F32)]),
            None => Err(Misfit::Shape("they do not multiply".into())),
        }
    }

    fn vjp(&self, inputs: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let Some(g) = &cotangents[0] else { return Derivative::Zero };
        let product = |a: &Tensor, b: &Tensor| Some(Tensor::apply(MatMul, &[a, b]));
        Derivative::Vjp(vec![product(g, &inputs[1].t()), product(&inputs[0].t(), g)])
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        sizes(&inputs[0], &inputs[1]).map(Lowering::Contraction).into_iter().collect()
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let (a, b) = (&inputs[0], &inputs[1]);
        let (m, k, n) = (a.shape[1], a.shape[2], b.shape[2]);
        let mut data = vec![0.0; outputs[0].shape.numel()];
        for (row, result) in data.chunks_exact_mut(n.max(1)).enumerate() {
            let matrix = row / m * k * n;
            for (i, &x) in a.data[row * k..(row + 1) * k].iter().enumerate() {
                let line = &b.data[matrix + i * n..][..n];
                result.iter_mut().zip(line).for_each(|(sum, &y)| *sum += x * y);
            }
        }
        vec![crate::graph::interpret::Array::new(outputs[0].shape.clone(), data)]
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-1.0, 1.0);
    let f = DType::F32;
    vec![
        Example::new("matmul", &[(&[17, 12], f, D), (&[12, 20], f, D)], |x| x[0].matmul(&x[1])),
        Example::new("matmul odd", &[(&[5, 7], f, D), (&[7, 3], f, D)], |x| x[0].matmul(&x[1])),
        Example::new("matmul tn", &[(&[12, 9], f, D), (&[12, 8], f, D)], |x| x[0].t().matmul(&x[1])),
        Example::new("matmul nt", &[(&[9, 12], f, D), (&[8, 12], f, D)], |x| x[0].matmul(&x[1].t())),
        Example::new("matmul large", &[(&[65, 128], f, D), (&[128, 96], f, D)], |x| x[0].matmul(&x[1])),
        Example::new("matmul to one column", &[(&[32, 32], f, D), (&[32, 1], f, D)], |x| x[0].matmul(&x[1])),
        Example::new("matmul over nothing", &[(&[3, 0], f, D), (&[0, 4], f, D)], |x| x[0].matmul(&x[1])),
        Example::new("matmul batched", &[(&[3, 5, 4], f, D), (&[3, 4, 6], f, D)], |x| x[0].matmul(&x[1])),
        Example::new("matmul many rows", &[(&[3, 5, 4], f, D), (&[4, 6], f, D)], |x| x[0].matmul(&x[1])),
        Example::new("matmul broadcast", &[(&[5, 4], f, D), (&[2, 3, 4, 6], f, D)], |x| x[0].matmul(&x[1])),
    ]
}
