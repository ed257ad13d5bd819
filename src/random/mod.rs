//! Random numbers as pure functions of a key.
//!
//! Floor 2. A key is a u32 tensor of two words. Every number is Threefry-2x32 (Salmon et al. 2011) of the key and the
//! element's own index, in integers alone, so the same key gives the same bits on every device and on the host, and a
//! value that is computed twice is the same value. New keys come from old ones by [`fold_in`]. Deliberately absent: a
//! generator with hidden state; what advances (a layer's counter) is state like any other.

pub mod threefry;

use crate::dtype::DType;
use crate::graph::Tensor;
use crate::ops::elementwise::{Elementwise, FLOAT, Gives, Row, Rule, Takes};
use crate::ops::{Example, Operand};
use crate::shape::Shape;

macro_rules! rounds {
    ($($left:literal $right:literal),*) => {
        concat!($("x += y; y = ((y << U(", $left, "u)) | (y >> U(", $right, "u))) ^ x;\n"),*)
    };
}
macro_rules! even {
    () => {
        rounds!(13 19, 15 17, 26 6, 6 26)
    };
}
macro_rules! odd {
    () => {
        rounds!(17 15, 29 3, 16 16, 24 8)
    };
}
/// Twenty rounds on the counter (0, c); `w` picks the first word, the second, or (2) both by exclusive or.
const THREEFRY: &str = concat!(
    "fn threefry_T(k0: U, k1: U, c: U, w: U) -> U {\nlet k2 = k0 ^ k1 ^ U(0x1bd11bdau);\nvar x = k0; var y = c + k1;\n",
    even!(),
    "x += k1; y += k2 + U(1u);\n",
    odd!(),
    "x += k2; y += k0 + U(2u);\n",
    even!(),
    "x += k0; y += k1 + U(3u);\n",
    odd!(),
    "x += k1; y += k2 + U(4u);\n",
    even!(),
    "x += k2; y += k0 + U(5u);\n",
    "return select(select(x, y, w == U(1u)), x ^ y, w == U(2u));\n}"
);
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

/// True with probability `p`.
#[track_caller]
pub fn bernoulli(key: &Tensor, p: f64, shape: impl Into<Shape>) -> Tensor {
    uniform(key, shape).lt(p)
}

pub(crate) fn examples() -> Vec<Example> {
    const ANY: (f64, f64) = (0.0, 4.0e9);
    let key = (&[2][..], DType::U32, ANY);
    vec![
        Example::new("random bits", &[key], |x| bits(&x[0], [7, 9])),
        Example::new("random scalar", &[key], |x| uniform(&x[0], [])),
        Example::new("random uniform", &[key], |x| uniform(&x[0], [67])),
        Example::new("random bernoulli", &[key], |x| bernoulli(&x[0], 0.3, [5, 8])),
        Example::new("fold_in", &[key, (&[], DType::U32, ANY)], |x| fold_in(&x[0], &x[1])),
    ]
}
