//! The table of elementwise ops: to add one, add a row.
//!
//! A row is everything there is to know of an op: its method's documentation, the WGSL of one element, the f64
//! reference, the derivative in tensor ops, the domain its tests draw from and its error bound. The text is written
//! for any lane count (see [`Map`]): `T` is `f32` or `vec4<f32>`. Built-ins of WGSL that are loose (tanh, sin far from
//! zero, pow of a negative base) have expressions of their own. Deliberately absent: shapes; broadcasting is a view.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use super::arithmetic::{Operand, broadcast_apply};
use super::{Example, Sample};
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::shader::shader_text;
use crate::graph::{Derivative, Lowering, Map, Misfit, Primitive, Spec, Tensor};
use crate::lower::emit::EXTREMA;

/// Which dtypes a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// f32.
    Float,
    /// f32, i32, u32, all operands alike.
    Number,
    /// f32 and i32, all operands alike.
    Signed,
    /// bool.
    Bool,
    /// Anything, all operands alike.
    Any,
    /// u32.
    Word,
    /// A bool, then two alike of any dtype.
    Choice,
    /// f32, then i32.
    FloatAndInt,
}

/// The dtype of a row's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// That of the last operand that decides: the last, but the first for [`Takes::FloatAndInt`].
    Same,
    /// bool.
    Bool,
    /// f32.
    Float,
}

/// How a row passes a cotangent back: from operands, result and cotangent of the result.
pub type VjpFn = fn(&[Tensor], &Tensor, &Tensor) -> Vec<Option<Tensor>>;

/// A row's derivative.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Differentiable almost everywhere.
    Vjp(VjpFn),
    /// Piecewise constant.
    Zero,
}

/// One elementwise op.
#[derive(Clone, Copy)]
pub struct Row {
    /// The field's name. Signatures of steps and cached plans tell rows apart by name, text and helpers.
    pub name: &'static str,
    /// Dtypes taken.
    pub takes: Takes,
    /// Dtype given.
    pub gives: Gives,
    /// WGSL of f32 operands.
    pub text: &'static str,
    /// WGSL of integer operands, where it is another one.
    pub integer: Option<&'static str>,
    /// A file of WGSL functions, of which `text` calls some.
    pub helpers: &'static str,
    /// Worth keeping rather than computing twice.
    pub heavy: bool,
    /// The value in f64. Integer results truncate and wrap.
    pub reference: fn(&[f64]) -> f64,
    /// The value of integers, where it is another one.
    pub integer_reference: Option<fn(&[f64]) -> f64>,
    /// The derivative.
    pub rule: Rule,
    /// Smallest and largest operand that tests try, one pair for each operand.
    pub domain: &'static [(f64, f64)],
    /// Largest error on a device, in units in the last place of the result (of 1 for results below 1).
    pub ulp: f64,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A row of f32 with one operand; other rows say how they differ.
pub const FLOAT: Row = Row {
    name: "",
    takes: Takes::Float,
    gives: Gives::Same,
    text: "$0",
    integer: None,
    helpers: "",
    heavy: false,
    reference: |x| x[0],
    integer_reference: None,
    rule: Rule::Zero,
    domain: &[(-3.0, 3.0)],
    ulp: 1.0,
};
const HEAVY: Row = Row { heavy: true, ulp: 8.0, ..FLOAT };
const TWO: Row = Row { takes: Takes::Number, domain: &[(-3.0, 3.0); 2], ..FLOAT };
const COMPARE: Row = Row { gives: Gives::Bool, ulp: 0.0, ..TWO };
const LOGIC: Row = Row { takes: Takes::Bool, ulp: 0.0, domain: &[(0.0, 1.0); 2], ..FLOAT };

/// A row of the table as it is linked: what only tests need is left out where there are none, for a page downloads it too.
const fn linked(row: Row) -> Row {
    if cfg!(feature = "reference") {
        return row;
    }
    let domain = match row.domain.len() {
        1 => FLOAT.domain,
        2 => TWO.domain,
        _ => row.domain,
    };
    Row { reference: |_| f64::NAN, integer_reference: None, domain, ulp: 0.0, ..row }
}

const FUNCTIONS: &str = shader_text!("../../shaders/functions.wgsl");
const TRIGONOMETRY: &str = shader_text!("../../shaders/trigonometry.wgsl");
const POWER: &str = shader_text!("../../shaders/power.wgsl");

macro_rules! method {
    ([$(#[$doc:meta])*] unary $name:ident) => {
        $(#[$doc])*
        #[track_caller]
        pub fn $name(&self) -> Tensor {
            Tensor::apply(Elementwise(&rows::$name::ROW), &[self])
        }
    };
    ([$(#[$doc:meta])*] binary $name:ident) => {
        $(#[$doc])*
        #[track_caller]
        pub fn $name(&self, other: impl Operand) -> Tensor {
            broadcast_apply(&rows::$name::ROW, &[self, &other.beside(self.dtype())])
        }
    };
    // The method is written by hand below.
    ([$(#[$doc:meta])*] custom $name:ident) => {};
}

macro_rules! table {
    ($($(#[$doc:meta])* $arity:ident $name:ident $row:expr;)*) => {
        // A module a row, since functions and variables may have the names of ops.
        mod rows {
            $(pub mod $name {
                use super::super::*;
                pub static ROW: Row = linked(Row { name: stringify!($name), ..$row });
            })*
        }

        /// Elementwise ops. Binary ones broadcast as NumPy does; operands are tensors of one dtype or host scalars.
        impl Tensor {
            $(method!([$(#[$doc])*] $arity $name);)*
        }

        /// The table.
        pub static ROWS: &[&Row] = &[$(&rows::$name::ROW),*];
    };
}

fn one(x: Tensor) -> Vec<Option<Tensor>> {
    vec![Some(x)]
}
fn two(x: Tensor, y: Tensor) -> Vec<Option<Tensor>> {
    vec![Some(x), Some(y)]
}
fn flag(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}
/// 1 where the first operand of an extremum wins, one half where both are equal.
fn share(wins: Tensor, ties: Tensor) -> Tensor {
    wins.cast(DType::F32) + ties.cast(DType::F32) * 0.5
}
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
/// Twice the argument of GELU's tanh, sqrt(8 / pi) (x + 0.044715 x^3).
fn gelu_argument(x: f64) -> f64 {
    1.595_769_121_605_731 * (x + 0.044_715 * x * x * x)
}
/// Factor of SELU, and that of its exponential, which is alpha times as large.
const SELU: f64 = 1.050_700_987_355_480_5;
const SELU_LOW: f64 = 1.758_099_340_847_376_6;
/// The probability that a standard normal number is above `a` >= 0: its continued fraction (Laplace) from 1.5 on, and one
/// half less a series of positive terms before.
pub(crate) fn normal_tail(a: f64) -> f64 {
    let density = (-0.5 * a * a).exp() * 0.398_942_280_401_432_7;
    if a > 1.5 {
        return density / (1..=120).rev().fold(a, |below, k| a + f64::from(k) / below);
    }
    let (mut term, mut sum) = (a, 0.0);
    for k in 1..80 {
        sum += term;
        term *= a * a / f64::from(2 * k + 1);
    }
    0.5 - density * sum
}
fn normal_cdf(x: f64) -> f64 {
    if x < 0.0 { normal_tail(-x) } else { 1.0 - normal_tail(x) }
}
fn erf(x: f64) -> f64 {
    (1.0 - 2.0 * normal_tail(x.abs() * std::f64::consts::SQRT_2)).copysign(x)
}
fn nan_or(x: &[f64], pick: fn(f64, f64) -> f64) -> f64 {
    if x.iter().any(|v| v.is_nan()) { f64::NAN } else { pick(x[0], x[1]) }
}

use Rule::{Vjp, Zero};

table! {
    /// Sum. Integers wrap.
    binary add Row { text: "$0 + $1", reference: |x| x[0] + x[1], rule: Vjp(|_, _, g| two(g.clone(), g.clone())), ..TWO };
    /// Difference. Integers wrap.
    binary sub Row { text: "$0 - $1", reference: |x| x[0] - x[1], rule: Vjp(|_, _, g| two(g.clone(), -g)), ..TWO };
    /// Product. Integers wrap.
    binary mul Row { text: "$0 * $1", reference: |x| x[0] * x[1], rule: Vjp(|x, _, g| two(g * &x[1], g * &x[0])), ..TWO };
    /// Quotient. Integers truncate; an integer divided by zero is itself, as WGSL has it.
    binary div Row {
        text: "$0 / $1", reference: |x| x[0] / x[1], integer_reference: Some(|x| if x[1] == 0.0 { x[0] } else { x[0] / x[1] }), domain: &[(-3.0, 3.0), (0.5, 3.0)], ulp: 3.0,
        rule: Vjp(|x, y, g| { let d = g / &x[1]; two(d.clone(), -(d * y)) }), ..TWO
    };
    /// Negation.
    unary neg Row { takes: Takes::Signed, text: "-$0", reference: |x| -x[0], rule: Vjp(|_, _, g| one(-g)), ulp: 0.0, ..FLOAT };
    /// Magnitude. The derivative at 0 is 0.
    unary abs Row { takes: Takes::Signed, text: "abs($0)", reference: |x| x[0].abs(), rule: Vjp(|x, _, g| one(g * x[0].sign())), ulp: 0.0, ..FLOAT };
    /// -1, 0 or 1.
    unary sign Row { takes: Takes::Signed, text: "sign($0)", reference: |x| if x[0] == 0.0 { 0.0 } else { x[0].signum() }, rule: Zero, ulp: 0.0, ..FLOAT };
    /// Largest whole number not above.
    unary floor Row { text: "floor($0)", reference: |x| x[0].floor(), rule: Zero, ulp: 0.0, ..FLOAT };
    /// Smallest whole number not below.
    unary ceil Row { text: "ceil($0)", reference: |x| x[0].ceil(), rule: Zero, ulp: 0.0, ..FLOAT };
    /// Nearest whole number, halves to even.
    unary round Row { text: "round($0)", reference: |x| x[0].round_ties_even(), rule: Zero, ulp: 0.0, ..FLOAT };
    /// x^2.
    unary square Row { takes: Takes::Number, text: "$0 * $0", reference: |x| x[0] * x[0], rule: Vjp(|x, _, g| one(g * (&x[0] * 2.0))), ..FLOAT };
    /// Square root; NaN below 0.
    unary sqrt Row { text: "sqrt($0)", reference: |x| x[0].sqrt(), rule: Vjp(|_, y, g| one(g * 0.5 / y)), domain: &[(0.1, 9.0)], ulp: 4.0, ..FLOAT };
    /// 1 / sqrt(x).
    unary rsqrt Row { text: "inverseSqrt($0)", reference: |x| 1.0 / x[0].sqrt(), rule: Vjp(|x, y, g| one(g * -0.5 * y / &x[0])), domain: &[(0.1, 9.0)], ulp: 8.0, ..FLOAT };
    /// 1 / x.
    unary reciprocal Row { text: "T(1.0) / $0", reference: |x| 1.0 / x[0], rule: Vjp(|_, y, g| one(-(g * y.square()))), domain: &[(0.2, 4.0)], ulp: 3.0, ..FLOAT };
    /// e^x.
    unary exp Row { text: "exp($0)", reference: |x| x[0].exp(), rule: Vjp(|_, y, g| one(g * y)), domain: &[(-8.0, 8.0)], ulp: 24.0, ..HEAVY };
    /// Natural logarithm; NaN below 0.
    unary log Row { text: "log($0)", reference: |x| x[0].ln(), rule: Vjp(|x, _, g| one(g / &x[0])), domain: &[(0.05, 20.0)], ..HEAVY };
    /// log(1 + x), exact near 0 too.
    unary log1p Row { text: "log1p_T($0)", helpers: FUNCTIONS, reference: |x| x[0].ln_1p(), rule: Vjp(|x, _, g| one(g / (&x[0] + 1.0))), domain: &[(-0.9, 9.0)], ..HEAVY };
    /// Sine of radians.
    unary sin Row { text: "sine_T($0, I(0))", helpers: TRIGONOMETRY, reference: |x| x[0].sin(), rule: Vjp(|x, _, g| one(g * x[0].cos())), domain: &[(-40.0, 40.0)], ..HEAVY };
    /// Cosine of radians.
    unary cos Row { text: "sine_T($0, I(1))", helpers: TRIGONOMETRY, reference: |x| x[0].cos(), rule: Vjp(|x, _, g| one(-(g * x[0].sin()))), domain: &[(-40.0, 40.0)], ..HEAVY };
    /// Hyperbolic tangent.
    unary tanh Row { text: "tanh_T($0)", helpers: FUNCTIONS, reference: |x| x[0].tanh(), rule: Vjp(|_, y, g| one(g * (1.0 - y.square()))), domain: &[(-20.0, 20.0)], ..HEAVY };
    /// Logistic function 1 / (1 + e^-x).
    unary sigmoid Row { text: "sigmoid_T($0)", helpers: FUNCTIONS, reference: |x| sigmoid(x[0]), rule: Vjp(|_, y, g| one(g * (y * (1.0 - y)))), domain: &[(-20.0, 20.0)], ..HEAVY };
    /// log(1 + e^x).
    unary softplus Row {
        text: "select($0, T(0.0), $0 < T(0.0)) + log1p_T(exp(-abs($0)))", helpers: FUNCTIONS,
        reference: |x| x[0].max(0.0) + (-x[0].abs()).exp().ln_1p(), rule: Vjp(|x, _, g| one(g * x[0].sigmoid())), domain: &[(-20.0, 20.0)], ..HEAVY
    };
    /// max(x, 0); NaN passes. The derivative at 0 is 0.
    unary relu Row {
        text: "select($0, T(0.0), $0 < T(0.0))", reference: |x| if x[0] < 0.0 { 0.0 } else { x[0] }, ulp: 0.0,
        rule: Vjp(|_, y, g| one(y.gt(0.0).select(g, 0.0))), ..FLOAT
    };
    /// Sigmoid linear unit x sigmoid(x), also called swish.
    unary silu Row {
        text: "$0 * sigmoid_T($0)", helpers: FUNCTIONS, reference: |x| x[0] * sigmoid(x[0]), domain: &[(-9.0, 9.0)],
        rule: Vjp(|x, _, g| { let s = x[0].sigmoid(); one(g * (&s + &x[0] * (&s * (1.0 - &s)))) }), ..HEAVY
    };
    /// e^x - 1, exact near 0 too.
    unary expm1 Row { text: "expm1_T($0)", helpers: FUNCTIONS, reference: |x| x[0].exp_m1(), rule: Vjp(|_, y, g| one(g * (y + 1.0))), domain: &[(-8.0, 5.0)], ulp: 24.0, ..HEAVY };
    /// Error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x.
    unary erf Row {
        text: "erf_T($0)", helpers: FUNCTIONS, reference: |x| erf(x[0]), domain: &[(-4.0, 4.0)], ulp: 4.0,
        rule: Vjp(|x, _, g| one(g * ((-x[0].square()).exp() * std::f64::consts::FRAC_2_SQRT_PI))), ..HEAVY
    };
    /// Distribution function of the standard normal: the probability that such a number is below x, (1 + erf(x / sqrt(2))) / 2.
    unary normal_cdf Row {
        text: "normal_cdf_T($0)", helpers: FUNCTIONS, reference: |x| normal_cdf(x[0]), domain: &[(-6.0, 6.0)],
        rule: Vjp(|x, _, g| one(g * x[0].normal_pdf())), ..HEAVY
    };
    /// Density of the standard normal, e^(-x^2 / 2) / sqrt(2 pi).
    unary normal_pdf Row {
        text: "T(0.39894228) * gauss_T($0)", helpers: FUNCTIONS, reference: |x| (-0.5 * x[0] * x[0]).exp() * 0.398_942_280_401_432_7,
        rule: Vjp(|x, y, g| one(-(g * y * &x[0]))), domain: &[(-6.0, 6.0)], ..HEAVY
    };
    /// Gaussian error linear unit (Hendrycks and Gimpel 2016): x times the probability that a standard normal number is
    /// below x.
    unary gelu Row {
        text: "$0 * normal_cdf_T($0)", helpers: FUNCTIONS, reference: |x| x[0] * normal_cdf(x[0]), domain: &[(-6.0, 6.0)],
        rule: Vjp(|x, _, g| one(g * (x[0].normal_cdf() + &x[0] * x[0].normal_pdf()))), ..HEAVY
    };
    /// Gaussian error linear unit in its tanh form (Hendrycks and Gimpel 2016), close to [`gelu`](Tensor::gelu):
    /// x sigmoid(sqrt(8 / pi) (x + 0.044715 x^3)).
    unary gelu_tanh Row {
        text: "$0 * sigmoid_T($0 * ($0 * $0 * T(0.07135481627260025) + T(1.595769121605731)))", helpers: FUNCTIONS,
        reference: |x| x[0] * sigmoid(gelu_argument(x[0])), domain: &[(-6.0, 6.0)],
        rule: Vjp(|x, _, g| {
            let square = x[0].square();
            let s = (&x[0] * (&square * 0.071_354_816_272_600_25 + 1.595_769_121_605_731)).sigmoid();
            let slope = square * 0.214_064_448_817_800_75 + 1.595_769_121_605_731;
            one(g * (&s + &x[0] * (&s * (1.0 - &s)) * slope))
        }), ..HEAVY
    };
    /// x / (1 + |x|).
    unary softsign Row {
        text: "$0 / (T(1.0) + abs($0))", reference: |x| x[0] / (1.0 + x[0].abs()), ulp: 3.0,
        rule: Vjp(|x, _, g| one(g / (x[0].abs() + 1.0).square())), ..FLOAT
    };
    /// x above 0, slope x below. `slope` is often a host scalar; a tensor, which may be learned, broadcasts.
    custom leaky_relu Row {
        text: "select($0, $0 * $1, $0 < T(0.0))", reference: |x| if x[0] < 0.0 { x[0] * x[1] } else { x[0] },
        domain: &[(-3.0, 3.0), (0.1, 0.5)],
        rule: Vjp(|x, _, g| { let low = x[0].lt(0.0); two(low.select(g * &x[1], g), low.select(g * &x[0], 0.0)) }), ..FLOAT
    };
    /// Exponential linear unit (Clevert et al. 2016): x above 0, alpha (e^x - 1) below.
    custom elu Row {
        text: "select($0, $1 * expm1_T($0), $0 < T(0.0))", helpers: FUNCTIONS,
        reference: |x| if x[0] < 0.0 { x[1] * x[0].exp_m1() } else { x[0] }, domain: &[(-6.0, 3.0), (0.5, 1.5)],
        rule: Vjp(|x, y, g| {
            let low = x[0].lt(0.0);
            two(low.select(g * (y + &x[1]), g), low.select(g * x[0].minimum(0.0).expm1(), 0.0))
        }), ..HEAVY
    };
    /// Scaled exponential linear unit (Klambauer et al. 2017): 1.0507 x above 0, 1.7581 (e^x - 1) below.
    unary selu Row {
        text: "select(T(1.0507009873554805) * $0, T(1.7580993408473766) * expm1_T($0), $0 < T(0.0))", helpers: FUNCTIONS,
        reference: |x| if x[0] < 0.0 { SELU_LOW * x[0].exp_m1() } else { SELU * x[0] }, domain: &[(-6.0, 3.0)],
        rule: Vjp(|x, y, g| one(g * x[0].lt(0.0).select(y + SELU_LOW, SELU))), ..HEAVY
    };
    /// Piecewise linear sigmoid, (x + 3) / 6 limited to 0..=1; NaN passes. The derivative at -3 and 3 is 0.
    unary hard_sigmoid Row {
        text: "select(select(($0 + T(3.0)) * T(0.16666667), T(1.0), $0 >= T(3.0)), T(0.0), $0 <= T(-3.0))",
        reference: |x| ((x[0] + 3.0) / 6.0).clamp(0.0, 1.0), domain: &[(-6.0, 6.0)],
        rule: Vjp(|x, _, g| one(x[0].abs().lt(3.0).select(g * (1.0 / 6.0), 0.0))), ..FLOAT
    };
    /// x tanh(softplus(x)) (Misra 2019).
    unary mish Row {
        text: "$0 * tanh_softplus_T($0)", helpers: FUNCTIONS, reference: |x| x[0] * (x[0].max(0.0) + (-x[0].abs()).exp().ln_1p()).tanh(), domain: &[(-9.0, 9.0)],
        rule: Vjp(|x, _, g| {
            let t = x[0].softplus().tanh();
            one(g * (&t + &x[0] * (x[0].sigmoid() * (1.0 - t.square()))))
        }), ..HEAVY
    };
    /// x to the power of y. A negative base gives NaN unless the exponent is whole; anything to the power of 0 is 1.
    binary pow Row {
        takes: Takes::Float, text: "pow_T($0, $1)", helpers: POWER, reference: |x| x[0].powf(x[1]), heavy: true,
        domain: &[(0.2, 3.0), (-3.0, 3.0)], ulp: 64.0,
        rule: Vjp(|x, y, g| {
            // The power of 0 is 1 everywhere, at 0 too. What is discarded is harmless, or its derivative would not be.
            let (constant, less) = (x[1].eq(0.0), &x[1] - 1.0);
            let base = g * (&x[1] * x[0].pow(constant.select(1.0, less)));
            two(base, g * (y * x[0].gt(0.0).select(&x[0], 1.0).log()))
        }), ..TWO
    };
    /// x to an i32 power by repeated squaring: as exact as the products, for bases near 1 too.
    custom powi Row {
        takes: Takes::FloatAndInt, text: "powi_T($0, $1)", helpers: POWER, reference: |x| x[0].powf(x[1]), heavy: true,
        domain: &[(0.5, 1.5), (-6.0, 6.0)], ulp: 24.0,
        rule: Vjp(|x, _, g| {
            let less = x[1].eq(0.0).select(1.0, &x[1] - 1.0);
            vec![Some(g * (x[1].cast(DType::F32) * x[0].powi(&less))), None]
        }), ..FLOAT
    };
    /// The larger; NaN if either is. Where both are equal each gets half of the derivative.
    binary maximum Row {
        text: "max_T($0, $1)", helpers: EXTREMA, integer: Some("max($0, $1)"), reference: |x| nan_or(x, f64::max), ulp: 0.0,
        rule: Vjp(|x, _, g| { let first = share(x[0].gt(&x[1]), x[0].eq(&x[1])); two(g * &first, g * (1.0 - &first)) }), ..TWO
    };
    /// The smaller; NaN if either is. Where both are equal each gets half of the derivative.
    binary minimum Row {
        text: "min_T($0, $1)", helpers: EXTREMA, integer: Some("min($0, $1)"), reference: |x| nan_or(x, f64::min), ulp: 0.0,
        rule: Vjp(|x, _, g| { let first = share(x[0].lt(&x[1]), x[0].eq(&x[1])); two(g * &first, g * (1.0 - &first)) }), ..TWO
    };
    /// Whether equal.
    binary eq Row { takes: Takes::Any, text: "$0 == $1", reference: |x| flag(x[0] == x[1]), ..COMPARE };
    /// Whether different.
    binary ne Row { takes: Takes::Any, text: "$0 != $1", reference: |x| flag(x[0] != x[1]), ..COMPARE };
    /// Whether smaller.
    binary lt Row { text: "$0 < $1", reference: |x| flag(x[0] < x[1]), ..COMPARE };
    /// Whether smaller or equal.
    binary le Row { text: "$0 <= $1", reference: |x| flag(x[0] <= x[1]), ..COMPARE };
    /// Whether larger.
    binary gt Row { text: "$0 > $1", reference: |x| flag(x[0] > x[1]), ..COMPARE };
    /// Whether larger or equal.
    binary ge Row { text: "$0 >= $1", reference: |x| flag(x[0] >= x[1]), ..COMPARE };
    /// Both, of bools.
    binary and Row { text: "$0 & $1", reference: |x| x[0] * x[1], ..LOGIC };
    /// Either, of bools.
    binary or Row { text: "$0 | $1", reference: |x| x[0].max(x[1]), ..LOGIC };
    /// The opposite, of bools.
    unary not Row { text: "!$0", reference: |x| 1.0 - x[0], domain: &[(0.0, 1.0)], ..LOGIC };
    /// Whether not a number, told by its bits: WGSL may fold `x != x` to false.
    unary is_nan Row { gives: Gives::Bool, text: "nan_T($0)", helpers: EXTREMA, reference: |x| flag(x[0].is_nan()), ulp: 0.0, ..FLOAT };
    /// Whether neither NaN nor infinite, told by its bits.
    unary is_finite Row {
        gives: Gives::Bool, text: "finite_T($0)", helpers: EXTREMA, reference: |x| flag(x[0].is_finite()), ulp: 0.0, ..FLOAT
    };
    /// The second where the first is true, else the third.
    custom select Row {
        takes: Takes::Choice, text: "select($2, $1, $0)", reference: |x| if x[0] != 0.0 { x[1] } else { x[2] }, ulp: 0.0,
        domain: &[(0.0, 1.0), (-3.0, 3.0), (-3.0, 3.0)],
        rule: Vjp(|x, _, g| vec![None, Some(x[0].select(g, 0.0)), Some(x[0].select(0.0, g))]), ..FLOAT
    };
}

impl Tensor {
    /// x to an i32 power by repeated squaring: as exact as the products, for bases near 1 too.
    #[track_caller]
    pub fn powi(&self, exponent: &Tensor) -> Tensor {
        broadcast_apply(&rows::powi::ROW, &[self, exponent])
    }

    /// x above 0, slope x below. `slope` is a host scalar or a tensor, which may be learned and broadcasts.
    #[track_caller]
    pub fn leaky_relu(&self, slope: impl Operand) -> Tensor {
        broadcast_apply(&rows::leaky_relu::ROW, &[self, &slope.beside(self.dtype())])
    }

    /// Exponential linear unit (Clevert et al. 2016): x above 0, alpha (e^x - 1) below. `alpha` is a host scalar or a
    /// tensor that broadcasts.
    #[track_caller]
    pub fn elu(&self, alpha: impl Operand) -> Tensor {
        broadcast_apply(&rows::elu::ROW, &[self, &alpha.beside(self.dtype())])
    }

    /// `on_true` where this bool tensor is true, else `on_false`; all three broadcast. At least one choice is a tensor,
    /// or both are f32.
    #[track_caller]
    pub fn select(&self, on_true: impl Operand, on_false: impl Operand) -> Tensor {
        let dtype = on_true.dtype().or(on_false.dtype()).unwrap_or(DType::F32);
        broadcast_apply(&rows::select::ROW, &[self, &on_true.beside(dtype), &on_false.beside(dtype)])
    }

    /// Each element limited to `low..=high`; NaN passes.
    #[track_caller]
    pub fn clip(&self, low: f64, high: f64) -> Tensor {
        self.maximum(low).minimum(high)
    }

    /// The elements as another dtype. f32 to integer truncates and saturates, integers wrap, bool is 0 or 1, and a
    /// number becomes a bool by being different from 0.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype {
            self.clone()
        } else {
            Tensor::apply(Cast { from: self.dtype(), to: dtype }, &[self])
        }
    }

    /// The same values without their history: derivatives are zero beyond.
    #[track_caller]
    pub fn stop_gradient(&self) -> Tensor {
        Tensor::apply(StopGradient, &[self])
    }
}

/// The op of a row.
///
/// A row of one's own makes an op that fuses, differentiates and packs as those of the table do. Operands are not
/// broadcast here; [`Tensor::broadcast_to`] does that.
///
/// ```
/// use wengert::grad::grad;
/// use wengert::graph::Tensor;
/// use wengert::ops::elementwise::{Elementwise, FLOAT, Row, Rule};
///
/// static BENT: Row = Row {
///     name: "bent_identity",
///     text: "(sqrt($0 * $0 + T(1.0)) - T(1.0)) * T(0.5) + $0",
///     reference: |x| ((x[0] * x[0] + 1.0).sqrt() - 1.0) * 0.5 + x[0],
///     rule: Rule::Vjp(|x, _, g| vec![Some(g * (&x[0] * 0.5 / (x[0].square() + 1.0).sqrt() + 1.0))]),
///     ..FLOAT
/// };
///
/// /// (sqrt(x^2 + 1) - 1) / 2 + x.
/// #[track_caller]
/// fn bent_identity(x: &Tensor) -> Tensor {
///     Tensor::apply(Elementwise(&BENT), &[x])
/// }
///
/// let x = Tensor::new(&[-3.0f32, 0.0, 1.0], [3]);
/// let slope = grad(|x| Ok(bent_identity(x).sum(..)), &x)?;
/// assert_eq!(slope.shape(), [3].into());
/// # Ok::<(), wengert::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Elementwise(pub &'static Row);

impl Primitive for Elementwise {
    fn name(&self) -> &str {
        self.0.name
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        // Two rows may have one name, here and in somebody's own crate; what they compute tells them apart.
        hasher.write(self.0.name.as_bytes());
        hasher.write(self.0.text.as_bytes());
        hasher.write(self.0.helpers.as_bytes());
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let row = self.0;
        if inputs.len() != row.domain.len() {
            return Err(Misfit::Shape(format!("{} operands were expected", row.domain.len())));
        }
        let first = &inputs[0];
        if inputs.iter().any(|input| input.shape != first.shape) {
            return Err(Misfit::Shape("they do not broadcast".into()));
        }
        let (alike, wanted) = match row.takes {
            Takes::Choice => (&inputs[1..], inputs[0].dtype == DType::Bool),
            Takes::FloatAndInt => (&inputs[..1], inputs[0].dtype == DType::F32 && inputs[1].dtype == DType::I32),
            Takes::Float => (inputs, first.dtype == DType::F32),
            Takes::Number => (inputs, first.dtype != DType::Bool),
            Takes::Signed => (inputs, matches!(first.dtype, DType::F32 | DType::I32)),
            Takes::Bool => (inputs, first.dtype == DType::Bool),
            Takes::Word => (inputs, first.dtype == DType::U32),
            Takes::Any => (inputs, true),
        };
        if alike.iter().any(|input| input.dtype != alike[0].dtype) {
            return Err(Misfit::DType("they must be alike; cast one".into()));
        }
        if !wanted {
            let takes = match row.takes {
                Takes::Choice => "a bool first",
                Takes::FloatAndInt => "an f32 and an i32",
                Takes::Float => "f32",
                Takes::Number => "numbers",
                Takes::Signed => "f32 or i32",
                Takes::Bool => "bools",
                Takes::Word => "u32",
                Takes::Any => "anything",
            };
            return Err(Misfit::DType(format!("it takes {takes}")));
        }
        let dtype = match row.gives {
            Gives::Same => alike[0].dtype,
            Gives::Bool => DType::Bool,
            Gives::Float => DType::F32,
        };
        Ok(vec![Spec::new(first.shape.clone(), dtype)])
    }

    fn vjp(&self, inputs: &[Tensor], outputs: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        match (self.0.rule, &cotangents[0]) {
            (Vjp(vjp), Some(g)) => Derivative::Vjp(vjp(inputs, &outputs[0], g)),
            _ => Derivative::Zero,
        }
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        let row = self.0;
        let text = row.integer.filter(|_| inputs[0].dtype != DType::F32).unwrap_or(row.text);
        let helpers = if text == row.text { row.helpers } else { "" };
        vec![Lowering::Map(Map { text, helpers, heavy: row.heavy })]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let value = |i: usize| {
            let at: Vec<f64> = inputs.iter().map(|x| x.data[i]).collect();
            let integers = self.0.integer_reference.filter(|_| outputs[0].dtype != DType::F32);
            let value = integers.unwrap_or(self.0.reference)(&at);
            match outputs[0].dtype {
                DType::I32 => f64::from(value as i64 as i32),
                DType::U32 => f64::from(value as i64 as u32),
                DType::F32 | DType::Bool => value,
            }
        };
        let data = (0..outputs[0].shape.numel()).map(value).collect();
        vec![crate::graph::interpret::Array::new(outputs[0].shape.clone(), data)]
    }
}

/// Conversion to another dtype.
#[derive(Debug)]
struct Cast {
    from: DType,
    to: DType,
}

impl Primitive for Cast {
    fn name(&self) -> &str {
        "cast"
    }

    fn attributes(&self) -> Cow<'_, str> {
        format!("{} to {}", self.from, self.to).into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Ok(vec![Spec::new(inputs[0].shape.clone(), self.to)])
    }

    fn vjp(&self, _: &[Tensor], _: &[Tensor], _: &[Option<Tensor>]) -> Derivative {
        // Between two dtypes of which at most one is a float: piecewise constant either way.
        Derivative::Zero
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        let text = match self.to {
            DType::F32 => "T($0)",
            DType::I32 => "I($0)",
            DType::U32 => "U($0)",
            DType::Bool => "B($0)",
        };
        vec![Lowering::Map(Map { text, helpers: "", heavy: false })]
    }

    #[cfg(feature = "reference")]
    fn reference(&self, inputs: &[crate::graph::interpret::Array], _: &[Spec]) -> Vec<crate::graph::interpret::Array> {
        let value = |&x: &f64| match (self.from, self.to) {
            (_, DType::F32) => x,
            (_, DType::Bool) => flag(x != 0.0),
            // A float saturates, as Rust's cast does; an integer wraps.
            (DType::F32, DType::I32) => f64::from(x as i32),
            (DType::F32, DType::U32) => f64::from(x as u32),
            (_, DType::I32) => f64::from(x as i64 as i32),
            (_, DType::U32) => f64::from(x as i64 as u32),
        };
        vec![crate::graph::interpret::Array::new(inputs[0].shape.clone(), inputs[0].data.iter().map(value).collect())]
    }
}

/// Identity forwards, zero backwards.
#[derive(Debug)]
struct StopGradient;

impl Primitive for StopGradient {
    fn name(&self) -> &str {
        "stop_gradient"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Ok(inputs.to_vec())
    }

    fn vjp(&self, _: &[Tensor], _: &[Tensor], _: &[Option<Tensor>]) -> Derivative {
        Derivative::Zero
    }

    fn lower(&self, inputs: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::View(crate::graph::ViewOp::Reshape(inputs[0].shape.clone()))]
    }

    #[cfg(feature = "reference")]
    fn reference(&self, inputs: &[crate::graph::interpret::Array], _: &[Spec]) -> Vec<crate::graph::interpret::Array> {
        inputs.to_vec()
    }
}

/// The dtypes that tests try a row with.
fn dtypes(takes: Takes) -> &'static [DType] {
    match takes {
        Takes::Float | Takes::FloatAndInt => &[DType::F32],
        Takes::Number | Takes::Choice => &[DType::F32, DType::I32, DType::U32],
        Takes::Signed => &[DType::F32, DType::I32],
        Takes::Bool => &[DType::Bool],
        Takes::Word => &[DType::U32],
        Takes::Any => &[DType::F32, DType::I32, DType::U32, DType::Bool],
    }
}

fn row_example(row: &'static Row, dtype: DType) -> Example {
    let sample = |(place, &(low, high)): (usize, &(f64, f64))| {
        let dtype = match (row.takes, place) {
            (Takes::Choice, 0) => DType::Bool,
            (Takes::FloatAndInt, 1) => DType::I32,
            _ => dtype,
        };
        let domain = match dtype {
            DType::F32 => (low, high),
            DType::Bool => (0.0, 1.0),
            // Integers as large as f64 multiplies exactly; u32 has no negatives.
            DType::I32 if row.takes == Takes::FloatAndInt => (low, high),
            DType::I32 => (-9.0, 9.0),
            DType::U32 => (0.0, 9.0),
        };
        Sample { shape: [4, 6].into(), dtype, domain }
    };
    Example {
        name: format!("{} {dtype}", row.name),
        inputs: row.domain.iter().enumerate().map(sample).collect(),
        apply: Arc::new(move |x| broadcast_apply(row, &x.iter().collect::<Vec<_>>())),
        ulp: row.ulp,
        any_shape: true,
    }
}

pub(super) fn examples() -> Vec<Example> {
    let rows = ROWS.iter().flat_map(|row| dtypes(row.takes).iter().map(move |&dtype| row_example(row, dtype)));
    let f32s: (&[usize], DType, (f64, f64)) = (&[4, 6], DType::F32, (-3.0, 3.0));
    let ints: (&[usize], DType, (f64, f64)) = (&[4, 6], DType::I32, (-3.0, 3.0));
    rows.chain([
        Example::new("cast f32 i32", &[f32s], |x| x[0].cast(DType::I32)),
        Example::new("cast f32 bool", &[f32s], |x| x[0].cast(DType::Bool)),
        Example::new("cast i32 f32", &[ints], |x| x[0].cast(DType::F32)),
        Example::new("cast u32 f32", &[(&[4, 6], DType::U32, (0.0, 9.0))], |x| x[0].cast(DType::F32)),
        Example::new("cast i32 u32", &[ints], |x| x[0].cast(DType::U32)),
        Example::new("cast bool f32", &[(&[4, 6], DType::Bool, (0.0, 1.0))], |x| x[0].cast(DType::F32)),
        Example::new("clip", &[f32s], |x| x[0].clip(-1.0, 1.5)),
        Example::new("stop_gradient", &[f32s], |x| x[0].stop_gradient() * &x[0]),
        Example::new("bias", &[f32s, (&[6], DType::F32, (-3.0, 3.0))], |x| &x[0] + &x[1]),
        Example::new("column", &[f32s, (&[4, 1], DType::F32, (-3.0, 3.0))], |x| &x[0] * &x[1]),
    ])
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of tables (Abramowitz and Stegun 26.2 and 7.1, with more digits from an arbitrary-precision program).
    #[test]
    fn references_of_the_normal_distribution_are_exact() {
        let close = |got: f64, want: f64| assert!((got - want).abs() <= 4e-15 * want.abs(), "{got:e}, not {want:e}");
        close(normal_tail(0.0), 0.5);
        close(normal_tail(1.0), 0.158_655_253_931_457_05);
        close(normal_tail(3.0), 1.349_898_031_630_094_5e-3);
        close(normal_tail(6.0), 9.865_876_450_376_946e-10);
        close(normal_cdf(-2.0), 0.022_750_131_948_179_21);
        close(erf(0.5), 0.520_499_877_813_046_5);
        close(erf(-2.0), -0.995_322_265_018_952_7);
    }
}
