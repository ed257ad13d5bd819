//! Random numbers as pure functions of a key.
//!
//! Floor 2. A key is a u32 tensor of two words. Every number is Threefry-2x32 (Salmon et al. 2011) of the key and the
//! element's own index, and normal numbers are quantiles of such words, all in integers alone, so the same key gives the
//! same bits on every device and on the host, and a value that is computed twice is the same value. New keys come from
//! old ones by [`fold_in`]. Deliberately absent: a generator with hidden state; what advances (a layer's counter) is
//! state like any other; a sort, so [`permutation`] counts.

pub mod quantile;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
pub mod threefry;

use crate::dtype::DType;
use crate::gpu::shader::shader_text;
use crate::graph::Tensor;
use crate::ops::elementwise::{Elementwise, FLOAT, Gives, Row, Rule, Takes};
use crate::ops::{Example, Operand};
use crate::shape::Shape;

const THREEFRY: &str = shader_text!("../../shaders/threefry.wgsl");
const NORMAL: &str = shader_text!("../../shaders/normal.wgsl");
const WORDS: Row = Row { takes: Takes::Word, ulp: 0.0, heavy: true, rule: Rule::Zero, helpers: THREEFRY, ..FLOAT };

static BITS: Row = Row {
    name: "random_bits",
    text: "threefry_T($0, $1, $2, U(2u))",
    reference: |x| f64::from(threefry::bits([x[0] as u32, x[1] as u32], x[2] as u32)),
    domain: &[(0.0, 9.0); 3],
    ..WORDS
};
static FOLD_IN: Row = Row {
    name: "fold_in",
    text: "threefry_T($0, $1, $2, $3)",
    reference: |x| f64::from(threefry::fold_in([x[0] as u32, x[1] as u32], x[2] as u32)[x[3] as usize]),
    domain: &[(0.0, 9.0), (0.0, 9.0), (0.0, 9.0), (0.0, 1.0)],
    ..WORDS
};
static UNIT: Row = Row {
    name: "unit",
    gives: Gives::Float,
    text: "T($0 >> U(8u)) * T(5.9604644775390625e-8)",
    helpers: "",
    reference: |x| f64::from(threefry::unit(x[0] as u32)),
    domain: &[(0.0, 4.0e9)],
    ..WORDS
};

static NORMAL_OF: Row = Row {
    name: "normal_of_bits",
    gives: Gives::Float,
    text: "normal_T($0)",
    helpers: NORMAL,
    reference: |x| f64::from(quantile::normal(x[0] as u32)),
    domain: &[(0.0, 4.0e9)],
    ..WORDS
};
static TRUNCATED_NORMAL_OF: Row = Row {
    name: "truncated_normal_of_bits",
    text: "truncated_normal_T($0)",
    reference: |x| f64::from(quantile::truncated_normal(x[0] as u32)),
    ..NORMAL_OF
};

/// The key of a seed.
#[track_caller]
pub fn key(seed: u64) -> Tensor {
    Tensor::new(&threefry::key(seed), [2])
}

/// The two words of a key, each spread over `shape`.
#[track_caller]
fn words(key: &Tensor, shape: &Shape) -> [Tensor; 2] {
    if key.error().is_none() && (key.shape() != [2].into() || key.dtype() != DType::U32) {
        let why = "a key is two words of u32".to_string();
        return [key.misfit("random", why.clone()), key.misfit("random", why)];
    }
    // No closure: one has a caller of its own, and the nodes should name ours.
    [key.slice(0, 0..1).reshape([]).broadcast_to(shape), key.slice(0, 1..2).reshape([]).broadcast_to(shape)]
}

/// A new key from a key and a number: independent streams for independent uses.
#[track_caller]
pub fn fold_in(key: &Tensor, data: impl Operand) -> Tensor {
    let shape = Shape::from([2]);
    let [k0, k1] = words(key, &shape);
    let data = data.beside(DType::U32).cast(DType::U32).broadcast_to(&shape);
    Tensor::apply(Elementwise(&FOLD_IN), &[&k0, &k1, &data, &Tensor::iota(shape, 0)])
}

/// 32 random bits in every element, u32.
#[track_caller]
pub fn bits(key: &Tensor, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let index = Tensor::iota([shape.numel()], 0).reshape(shape.clone());
    let [k0, k1] = words(key, &shape);
    Tensor::apply(Elementwise(&BITS), &[&k0, &k1, &index])
}

/// Uniform in [0, 1), f32: multiples of 2^-24, equal on every device.
#[track_caller]
pub fn uniform(key: &Tensor, shape: impl Into<Shape>) -> Tensor {
    Tensor::apply(Elementwise(&UNIT), &[&bits(key, shape)])
}

/// True with probability `p`, rounded up to a multiple of 2^-24.
#[track_caller]
pub fn bernoulli(key: &Tensor, p: f64, shape: impl Into<Shape>) -> Tensor {
    uniform(key, shape).lt(p)
}

/// Standard normal, f32, equal on every device: the quantile of 31 bits of each word, computed in integers (see
/// [`quantile`]) with an error below 2^-23. Multiples of 2^-24 below 1 and of f32's own spacing above; the largest
/// magnitude is 6.338, beyond which a normal number lies once in 4 * 10^9. Scale and shift it as you need.
#[track_caller]
pub fn normal(key: &Tensor, shape: impl Into<Shape>) -> Tensor {
    Tensor::apply(Elementwise(&NORMAL_OF), &[&bits(key, shape)])
}

/// Standard normal on the condition that it lies between -2 and 2, f32, equal on every device. What is beyond is not
/// clipped and not drawn again: the probabilities that are inverted leave it out.
#[track_caller]
pub fn truncated_normal(key: &Tensor, shape: impl Into<Shape>) -> Tensor {
    Tensor::apply(Elementwise(&TRUNCATED_NORMAL_OF), &[&bits(key, shape)])
}

/// A random order of `0..n`, i32 `[n]`: that of [`threefry::permutation`] on the host, the indices sorted by 64 random
/// bits.
///
/// There is no sort on the device: positions are counted, each element against each, so the work grows as n^2 while
/// memory grows as n. A batch of 1,024 takes two million comparisons; for a data set, order on the host.
#[track_caller]
pub fn permutation(key: &Tensor, n: usize) -> Tensor {
    let index = Tensor::iota([n], 0);
    let [k0, k1] = words(key, &[n].into());
    let word = |which: u32| {
        Tensor::apply(Elementwise(&FOLD_IN), &[&k0, &k1, &index, &Tensor::scalar(which).broadcast_to([n])])
    };
    let (high, low) = (word(0), word(1));
    // Whether element j, along the second axis, comes before element i.
    let (h, l, at) = (high.unsqueeze(1), low.unsqueeze(1), index.unsqueeze(1));
    let later = low.lt(&l).or(low.eq(&l).and(index.lt(&at)));
    let before = high.lt(&h).or(high.eq(&h).and(later));
    let rank = before.cast(DType::I32).sum(1);
    // Position p holds the element of that rank: exactly one, so the sum is its index.
    let places = Tensor::iota([n, 1], 0).cast(DType::I32);
    rank.eq(places).select(index.cast(DType::I32), 0.0).sum(1)
}

pub(crate) fn examples() -> Vec<Example> {
    const ANY: (f64, f64) = (0.0, 4.0e9);
    let key = (&[2][..], DType::U32, ANY);
    vec![
        Example::new("random bits", &[key], |x| bits(&x[0], [7, 9])),
        Example::new("random scalar", &[key], |x| uniform(&x[0], [])),
        Example::new("random uniform", &[key], |x| uniform(&x[0], [67])),
        Example::new("random bernoulli", &[key], |x| bernoulli(&x[0], 0.3, [5, 8])),
        Example::new("random normal", &[key], |x| normal(&x[0], [67])),
        Example::new("random truncated normal", &[key], |x| truncated_normal(&x[0], [9, 8])),
        Example::new("random permutation", &[key], |x| permutation(&x[0], 23)),
        Example::new("fold_in", &[key, (&[], DType::U32, ANY)], |x| fold_in(&x[0], &x[1])),
    ]
}
