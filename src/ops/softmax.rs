//! The softmax family, as compositions.
//!
//! No kernel is theirs: chains of maps and folds over one contiguous axis become a single row kernel by themselves,
//! forwards and backwards, whoever wrote them.

use super::{Example, Keep};
use crate::dtype::DType;
use crate::graph::Tensor;

impl Tensor {
    /// e^x over the sum of e^x along an axis. The largest element is taken off first, so nothing overflows.
    #[track_caller]
    pub fn softmax(&self, axis: i32) -> Tensor {
        let exponentials = (self - self.max(Keep(axis)).stop_gradient()).exp();
        &exponentials / exponentials.sum(Keep(axis))
    }

    /// log of [`softmax`](Tensor::softmax), exact where that underflows.
    #[track_caller]
    pub fn log_softmax(&self, axis: i32) -> Tensor {
        let shifted = self - self.max(Keep(axis)).stop_gradient();
        &shifted - shifted.exp().sum(Keep(axis)).log()
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-6.0, 6.0);
    let f = DType::F32;
    vec![
        Example::new("softmax", &[(&[9, 10], f, D)], |x| x[0].softmax(-1)),
        Example::new("softmax columns", &[(&[9, 10], f, D)], |x| x[0].softmax(0)),
        Example::new("softmax long", &[(&[3, 1000], f, D)], |x| x[0].softmax(-1)),
        Example::new("log_softmax", &[(&[9, 10], f, D)], |x| x[0].log_softmax(-1)),
        Example::new("log_softmax long", &[(&[2, 333], f, D)], |x| x[0].log_softmax(-1)),
        Example::new("layer norm by hand", &[(&[6, 64], f, D), (&[64], f, D), (&[64], f, D)], |x| {
            let mean = x[0].mean(Keep(-1));
            let variance = x[0].var(Keep(-1));
            (&x[0] - mean) * (variance + 1e-3).rsqrt() * &x[1] + &x[2]
        }),
    ]
}
