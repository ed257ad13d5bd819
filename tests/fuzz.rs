//! Random graphs hold the compiler: fused, unfused, in whole buffers and in an arena they must agree with the f64
//! interpreter, each within the error that the graph itself allows.
//!
//! `WENGERT_FUZZ=20000` runs as many graphs instead of 500, `WENGERT_FUZZ_SEED=17` that one alone, both as many from
//! there on. Every value carries
//! a bound on its magnitude and on its f32 error, propagated op by op; ops whose result jumps (comparisons, rounding,
//! argmax) are only applied to values that f32 holds exactly.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use std::fmt::Write;

use common::{Random, read};
use wengert::dtype::DType;
use wengert::gpu::Device;
use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::graph::display::Graph;
use wengert::graph::interpret::{Given, interpret};
use wengert::lower::Options;
use wengert::lower::place::Strategy;
use wengert::ops::{Keep, concat, stack};
use wengert::random;
use wengert::read::evaluate;
use wengert::shape::Shape;

/// Error of one op, relative to the magnitude of its result: eight units in the last place.
const UNIT: f64 = 8.0 * f32::EPSILON as f64;
/// Values larger than this are squashed.
const LARGE: f64 = 8.0;
/// Elements of a value at most.
const ELEMENTS: usize = 20_000;

#[derive(Clone)]
struct Value {
    tensor: Tensor,
    /// Bound on the magnitude.
    size: f64,
    /// Bound on the error of an f32 evaluation; 0 of integers.
    error: f64,
    /// Small multiples of a power of two, which f32 computes exactly.
    exact: bool,
}

struct Fuzz {
    random: Random,
    values: Vec<Value>,
    lengths: Vec<usize>,
    /// The float leaves made so far.
    leaves: Vec<Tensor>,
    /// What stands for the float leaves, in order, where a derivative is taken by them.
    arguments: Vec<Tensor>,
}

fn is_float(value: &Value) -> bool {
    value.tensor.dtype() == DType::F32
}

impl Fuzz {
    fn new(seed: u64, arguments: &[Tensor]) -> Fuzz {
        let mut random = Random::new(seed);
        const LENGTHS: [usize; 20] = [1, 1, 2, 3, 4, 5, 7, 8, 11, 12, 16, 31, 32, 63, 64, 65, 127, 128, 129, 257];
        // Few lengths a graph, so that shapes meet.
        let mut lengths: Vec<usize> = (0..3).map(|_| *random.pick(&LENGTHS)).collect();
        if random.chance(0.03) {
            lengths.push(0);
        }
        Fuzz { random, values: Vec::new(), lengths, leaves: Vec::new(), arguments: arguments.to_vec() }
    }

    fn shape(&mut self) -> Shape {
        let rank = *self.random.pick(&[0, 1, 1, 2, 2, 2, 2, 3, 3, 4]);
        let mut shape: Vec<usize> = Vec::new();
        for _ in 0..rank {
            let length = *self.random.pick(&self.lengths);
            let fits = shape.iter().product::<usize>() * length <= ELEMENTS;
            shape.push(if fits { length } else { 1 });
        }
        shape.into()
    }

    /// A leaf; half of them hold halves, which are exact and tie.
    fn leaf(&mut self, shape: &Shape) -> Value {
        let exact = self.random.chance(0.5);
        let leaf = self.random.leaf(shape, DType::F32, (-2.0, 2.0), exact);
        let tensor = self.arguments.get(self.leaves.len()).unwrap_or(&leaf).clone();
        self.leaves.push(leaf);
        Value { tensor, size: 2.0, error: 0.0, exact }
    }

    fn add(&mut self, value: Value) {
        // A graph that cannot be recorded is a fault of this generator.
        if let Some(error) = value.tensor.error() {
            panic!("the generator recorded nonsense: {error}");
        }
        let fits = value.tensor.shape().numel() <= ELEMENTS && value.error < 1e-3;
        if fits && is_float(&value) && value.size > LARGE {
            let error = value.error + UNIT;
            self.values.push(Value { tensor: value.tensor.tanh(), size: 1.0, error, exact: false });
        } else if fits {
            self.values.push(value);
        }
    }

    fn pick(&mut self, of: impl Fn(&Value) -> bool) -> Option<Value> {
        let fitting: Vec<usize> = (0..self.values.len()).filter(|&i| of(&self.values[i])).collect();
        // Recent values twice as likely, so that graphs grow deep as well as wide.
        let half = fitting.len() / 2;
        let at = if self.random.chance(0.5) {
            half + self.random.below((fitting.len() - half).max(1))
        } else {
            self.random.below(fitting.len().max(1))
        };
        fitting.get(at).map(|&i| self.values[i].clone())
    }

    /// A float value that broadcasts against `shape`: an existing one, or a leaf with some axes spread.
    fn beside(&mut self, shape: &Shape) -> Value {
        let fits = |v: &Value| is_float(v) && v.tensor.shape().broadcast(shape).is_some_and(|s| s.numel() <= ELEMENTS);
        if self.random.chance(0.7)
            && let Some(value) = self.pick(fits)
        {
            return value;
        }
        let drop = if self.random.chance(0.4) { self.random.below(shape.rank() + 1) } else { 0 };
        let spread: Vec<usize> =
            shape[drop..].iter().map(|&length| if self.random.chance(0.25) { 1 } else { length }).collect();
        self.leaf(&spread.into())
    }

    fn grow(&mut self) {
        let Some(x) = self.pick(is_float) else {
            let shape = self.shape();
            let leaf = self.leaf(&shape);
            return self.add(leaf);
        };
        match self.random.below(20) {
            0..5 => self.unary(&x),
            5..8 => self.binary(&x),
            8..12 => self.view(),
            12..15 => self.fold(&x),
            15 => self.product(&x),
            16 => self.gather(&x),
            17 => self.join(),
            18 => self.integers(),
            _ => self.logic(),
        }
    }

    fn unary(&mut self, x: &Value) {
        let Value { tensor: t, size, error, exact } = x;
        let smooth = |tensor: Tensor, size: f64, slope: f64| Value {
            tensor,
            size,
            error: slope * error + UNIT * size.max(1.0),
            exact: false,
        };
        let plain = |tensor: Tensor, size: f64| Value { tensor, size, error: *error, exact: *exact };
        let value = match self.random.below(20) {
            0 => plain(-t, *size),
            1 => plain(t.abs(), *size),
            2 => plain(t.relu(), *size),
            3 => plain(t.clip(-1.0, 1.5), 1.5),
            4 => smooth(t.sigmoid(), 1.0, 1.0),
            5 => smooth(t.tanh(), 1.0, 1.0),
            6 => smooth(t.softplus(), size + 1.0, 1.0),
            7 => smooth(t.silu(), *size, 1.2),
            8 => smooth(t.gelu(), *size, 1.2),
            9 => smooth(t.sin(), 1.0, 1.0),
            10 => smooth(t.cos(), 1.0, 1.0),
            11 => smooth(t.minimum(1.0).exp(), 2.8, 2.8),
            12 => smooth((t.abs() + 0.5).sqrt(), size + 1.0, 1.0),
            13 => smooth((t.abs() + 0.5).log(), size + 1.0, 2.0),
            14 => smooth(t.abs().log1p(), size + 1.0, 1.0),
            15 => smooth(1.0 / (t.softplus() + 1.0), 1.0, 1.0),
            16 => smooth(t.square(), size * size, 2.0 * size),
            17 => smooth((t.abs() + 0.5).pow(-1.5), 3.0, 9.0),
            18 => smooth(t * 0.3 + 0.7, size + 1.0, 0.3),
            _ if *exact => {
                let jump = *self.random.pick(&[
                    Tensor::floor as fn(&Tensor) -> Tensor,
                    Tensor::ceil,
                    Tensor::round,
                    Tensor::sign,
                ]);
                plain(jump(t), size + 1.0)
            }
            _ => smooth((t.square() + 0.5).rsqrt(), 1.5, 1.5),
        };
        self.add(value);
    }

    fn binary(&mut self, x: &Value) {
        let y = self.beside(&x.tensor.shape());
        let (a, b) = if self.random.chance(0.5) { (x, &y) } else { (&y, x) };
        let sum = a.error + b.error + UNIT * (a.size + b.size);
        let exact = a.exact && b.exact;
        let value = match self.random.below(6) {
            0 | 1 => {
                let error = if exact { 0.0 } else { sum };
                Value { tensor: &a.tensor + &b.tensor, size: a.size + b.size, error, exact }
            }
            2 => {
                let error = if exact { 0.0 } else { sum };
                Value { tensor: &a.tensor - &b.tensor, size: a.size + b.size, error, exact }
            }
            3 => {
                let error = a.size * b.error + b.size * a.error + UNIT * a.size * b.size;
                Value { tensor: &a.tensor * &b.tensor, size: a.size * b.size, error, exact: false }
            }
            4 => {
                let error = a.error + a.size * b.error + UNIT * a.size.max(1.0) * 2.0;
                Value { tensor: &a.tensor / (b.tensor.softplus() + 1.0), size: a.size, error, exact: false }
            }
            _ => {
                let tensor =
                    if self.random.chance(0.5) { a.tensor.maximum(&b.tensor) } else { a.tensor.minimum(&b.tensor) };
                Value { tensor, size: a.size.max(b.size), error: a.error.max(b.error), exact }
            }
        };
        self.add(value);
    }

    fn view(&mut self) {
        let Some(x) = self.pick(|_| true) else { return };
        let (t, shape) = (&x.tensor, x.tensor.shape());
        let rank = shape.rank();
        let axis = self.random.below(rank.max(1));
        let tensor = match self.random.below(8) {
            0 => {
                // Two axes joined, or one split by its smallest factor.
                let mut to = shape.to_vec();
                if rank > 1 && self.random.chance(0.6) {
                    let axis = axis.min(rank - 2);
                    let joined = to[axis] * to.remove(axis + 1);
                    to[axis] = joined;
                } else if rank > 0 {
                    let factor = (2..=13).find(|f| to[axis] > 0 && to[axis].is_multiple_of(*f)).unwrap_or(1);
                    to[axis] /= factor;
                    to.insert(axis + 1, factor);
                }
                t.reshape(to)
            }
            1 => {
                let mut axes: Vec<usize> = (0..rank).collect();
                for i in (1..rank).rev() {
                    axes.swap(i, self.random.below(i + 1));
                }
                t.permute(axes)
            }
            2 if rank > 0 => {
                let start = self.random.below(shape[axis] + 1);
                let end = start + self.random.below(shape[axis] - start + 1);
                t.slice(axis as i32, start..end.max((start + 1).min(shape[axis])))
            }
            3 if rank > 0 => {
                let widths: Vec<_> =
                    (0..rank).map(|_| (*self.random.pick(&[0, 0, 1, 2]), *self.random.pick(&[0, 0, 1, 3]))).collect();
                t.pad(&widths)
            }
            4 if rank > 0 => t.flip(axis as i32),
            5 if rank < 4 => t.unsqueeze(self.random.below(rank + 1) as i32),
            6 if rank >= 2 => t.t(),
            _ => {
                let mut to: Vec<usize> =
                    shape.iter().map(|&d| if d == 1 { *self.random.pick(&self.lengths) } else { d }).collect();
                if rank < 4 {
                    to.insert(0, *self.random.pick(&self.lengths));
                }
                if to.iter().product::<usize>() <= ELEMENTS { t.broadcast_to(to) } else { t.clone() }
            }
        };
        self.add(Value { tensor, ..x });
    }

    fn fold(&mut self, x: &Value) {
        let shape = x.tensor.shape();
        let rank = shape.rank();
        if rank == 0 {
            return;
        }
        let mut axes: Vec<i32> = (0..rank as i32).filter(|_| self.random.chance(0.5)).collect();
        if axes.is_empty() {
            axes.push(rank as i32 - 1);
        }
        let length: usize = axes.iter().map(|&axis| shape[axis as usize]).product();
        let axes = &axes[..];
        let last = shape[rank - 1];
        let (n, t) = (length as f64, &x.tensor);
        let kept = self.random.chance(0.5);
        // Four of the square root of the length: roundings of a sum are independent.
        let rounding = 4.0 * n.sqrt() * UNIT / 8.0 * x.size;
        let value = match self.random.below(9) {
            0 => {
                let exact = x.exact && n * x.size < 1e5;
                let error = if exact { 0.0 } else { n * x.error + n.sqrt() * rounding };
                let tensor = if kept { t.sum(Keep(axes)) } else { t.sum(axes) };
                Value { tensor, size: n * x.size, error, exact }
            }
            1 | 2 if length > 0 => {
                let tensor = if kept { t.mean(Keep(axes)) } else { t.mean(axes) };
                Value { tensor, size: x.size, error: x.error + rounding + UNIT * x.size, exact: false }
            }
            3 | 4 if length > 0 => {
                let max = self.random.chance(0.5);
                let tensor = match (max, kept) {
                    (true, true) => t.max(Keep(axes)),
                    (true, false) => t.max(axes),
                    (false, true) => t.min(Keep(axes)),
                    (false, false) => t.min(axes),
                };
                Value { tensor, ..x.clone() }
            }
            5 if length > 0 => {
                let error = 4.0 * x.size * (x.error + rounding + UNIT * x.size);
                Value { tensor: t.var(axes), size: x.size * x.size, error, exact: false }
            }
            6 if last > 0 => {
                let axis = if self.random.chance(0.7) { -1 } else { self.random.below(rank) as i32 };
                if shape.dims()[shape.axis(axis as isize).unwrap_or(0)] == 0 {
                    return;
                }
                Value {
                    tensor: t.softmax(axis),
                    size: 1.0,
                    error: 2.0 * x.error + 4.0 * UNIT * x.size.max(1.0),
                    exact: false,
                }
            }
            7 if last > 0 => {
                let size = 2.0 * x.size + (last as f64).ln();
                Value {
                    tensor: t.log_softmax(-1),
                    size,
                    error: 2.0 * x.error + 4.0 * UNIT * size.max(1.0),
                    exact: false,
                }
            }
            _ if length > 0 => {
                let size = x.size + n.ln();
                Value { tensor: t.logsumexp(axes), size, error: x.error + 4.0 * UNIT * size.max(1.0), exact: false }
            }
            _ => return,
        };
        self.add(value);
    }

    fn product(&mut self, x: &Value) {
        let shape = x.tensor.shape();
        if shape.rank() < 2 {
            return;
        }
        let k = shape[shape.rank() - 1];
        let fits = |v: &Value| {
            let s = v.tensor.shape();
            is_float(v) && s.rank() == 2 && s[0] == k && shape.numel() * s[1] < 1 << 21
        };
        let y = match self.pick(fits).filter(|_| self.random.chance(0.5)) {
            Some(y) => y,
            None => {
                let n = *self.random.pick(&self.lengths);
                if shape.numel() * n >= 1 << 21 {
                    return;
                }
                // A transposed weight half of the time; a batch of them now and then.
                if self.random.chance(0.5) {
                    let leaf = self.leaf(&[n, k].into());
                    Value { tensor: leaf.tensor.t(), ..leaf }
                } else if self.random.chance(0.2) {
                    self.leaf(&[&shape[..shape.rank() - 2], &[k, n]].concat().into())
                } else {
                    self.leaf(&[k, n].into())
                }
            }
        };
        let n = k as f64;
        let size = n * x.size * y.size;
        let scale = 1.0 / n.max(1.0);
        let error = scale * n * (x.size * y.error + y.size * x.error) + 4.0 * n.sqrt() * UNIT * x.size * y.size + UNIT;
        self.add(Value { tensor: x.tensor.matmul(&y.tensor) * scale, size: size * scale, error, exact: false });
    }

    fn gather(&mut self, x: &Value) {
        let shape = x.tensor.shape();
        let Some(axis) =
            (0..shape.rank()).find(|&axis| shape[axis] > 0 && (self.random.chance(0.5) || axis + 1 == shape.rank()))
        else {
            return;
        };
        let length = shape[axis] as f64;
        let indices = match self.pick(|v| matches!(v.tensor.dtype(), DType::I32 | DType::U32)) {
            Some(v) if self.random.chance(0.5) => v.tensor,
            _ => {
                let n = self.random.below(9);
                self.random.leaf(&[n].into(), DType::I32, (-1.0, length), false)
            }
        };
        if shape.numel() / shape[axis] * indices.shape().numel() <= ELEMENTS && shape.rank() + indices.rank() <= 5 {
            self.add(Value { tensor: x.tensor.take(&indices, axis as i32), ..x.clone() });
        }
    }

    fn join(&mut self) {
        let Some(x) = self.pick(|v| v.tensor.rank() > 0) else { return };
        let (shape, dtype) = (x.tensor.shape(), x.tensor.dtype());
        let y = self.pick(|v| v.tensor.shape() == shape && v.tensor.dtype() == dtype).unwrap_or_else(|| x.clone());
        let axis = self.random.below(shape.rank()) as i32;
        let tensor = match self.random.chance(0.7) {
            true => concat(&[&x.tensor, &y.tensor, &x.tensor], axis),
            false if shape.rank() < 4 => stack(&[&x.tensor, &y.tensor], axis),
            false => return,
        };
        self.add(Value { tensor, size: x.size.max(y.size), error: x.error.max(y.error), exact: x.exact && y.exact });
    }

    fn integers(&mut self) {
        let whole = |tensor: Tensor, size: f64| Value { tensor, size, error: 0.0, exact: true };
        let small = |v: &Value| v.tensor.dtype() == DType::I32 && v.size < 1e3;
        let value = match self.random.below(7) {
            0 => {
                let shape = self.shape();
                whole(self.random.leaf(&shape, DType::I32, (-5.0, 5.0), false), 5.0)
            }
            1 => {
                let shape = self.shape();
                if shape.rank() == 0 {
                    return;
                }
                let axis = self.random.below(shape.rank());
                let iota = Tensor::iota(&shape, axis);
                let size = shape[axis] as f64;
                if self.random.chance(0.5) { whole(iota.cast(DType::I32), size) } else { whole(iota, size) }
            }
            2 => {
                let Some(x) = self.pick(|v| {
                    v.exact && v.tensor.rank() > 0 && v.tensor.dtype() != DType::Bool && v.tensor.shape().numel() > 0
                }) else {
                    return;
                };
                let axis = self.random.below(x.tensor.rank());
                whole(x.tensor.argmax(axis as i32), x.tensor.dim(axis) as f64)
            }
            3 => {
                let Some(x) = self.pick(small) else { return };
                let size = 3.0 * x.size + 1.0;
                whole((&x.tensor * 3.0 - 1.0).maximum(-x.tensor), size)
            }
            4 => {
                let Some(x) = self.pick(|v| small(v) && v.tensor.rank() > 0) else { return };
                let size = x.size * x.tensor.dim(x.tensor.rank() - 1) as f64;
                whole(x.tensor.sum(-1), size)
            }
            5 => {
                let Some(x) = self.pick(|v| is_float(v) && v.exact) else { return };
                whole(x.tensor.cast(DType::I32), x.size)
            }
            _ => {
                let Some(x) = self.pick(|v| v.tensor.dtype() == DType::I32 && v.tensor.rank() < 3) else { return };
                let hot = x.tensor.one_hot(*self.random.pick(&[1, 3, 4, 10]));
                return self.add(Value { tensor: hot, size: 1.0, error: 0.0, exact: true });
            }
        };
        self.add(value);
    }

    fn logic(&mut self) {
        let truth = |tensor: Tensor| Value { tensor, size: 1.0, error: 0.0, exact: true };
        let is_bool = |v: &Value| v.tensor.dtype() == DType::Bool;
        match self.random.below(6) {
            0 | 1 => {
                let Some(x) = self.pick(|v| v.exact && !is_bool(v)) else { return };
                let (dtype, shape) = (x.tensor.dtype(), x.tensor.shape());
                let fits = |v: &Value| {
                    v.exact
                        && v.tensor.dtype() == dtype
                        && v.tensor.shape().broadcast(&shape).is_some_and(|s| s.numel() <= ELEMENTS)
                };
                let y = self.pick(fits).unwrap_or_else(|| x.clone());
                let (a, b) = (&x.tensor, &y.tensor);
                let tensor = match self.random.below(6) {
                    0 => a.eq(b),
                    1 => a.ne(b),
                    2 => a.lt(b),
                    3 => a.le(b),
                    4 => a.gt(b),
                    _ => a.ge(b),
                };
                self.add(truth(tensor));
            }
            2 => {
                let Some(x) = self.pick(is_bool) else { return };
                let shape = x.tensor.shape();
                let y = self
                    .pick(|v| is_bool(v) && v.tensor.shape().broadcast(&shape).is_some_and(|s| s.numel() <= ELEMENTS))
                    .unwrap_or_else(|| x.clone());
                let tensor = match self.random.below(3) {
                    0 => x.tensor.and(&y.tensor),
                    1 => x.tensor.or(&y.tensor),
                    _ => x.tensor.not(),
                };
                self.add(truth(tensor));
            }
            3 => {
                let key = random::key(self.random.word());
                let shape = self.shape();
                let value = if self.random.chance(0.5) {
                    random::bernoulli(&key, 0.5, shape)
                } else {
                    random::uniform(&key, shape)
                };
                self.add(Value { exact: is_bool(&truth(value.clone())), ..truth(value) });
            }
            4 => {
                let Some(x) = self.pick(|v| !is_float(v) && v.size < 1e6) else { return };
                self.add(Value { tensor: x.tensor.cast(DType::F32), ..x });
            }
            _ => {
                let Some(c) = self.pick(is_bool) else { return };
                let shape = c.tensor.shape();
                let a = self.beside(&shape);
                let Some(both) = a.tensor.shape().broadcast(&shape) else { return };
                let b = self.beside(&both);
                if both.broadcast(&b.tensor.shape()).is_none_or(|s| s.numel() > ELEMENTS) {
                    return;
                }
                let tensor = c.tensor.select(&a.tensor, &b.tensor);
                let (size, error) = (a.size.max(b.size), a.error.max(b.error));
                self.add(Value { tensor, size, error, exact: a.exact && b.exact });
            }
        }
    }
}

/// A value to compute and the error allowed.
#[derive(Clone)]
struct Root {
    tensor: Tensor,
    allowed: f64,
}

/// A recorded graph: all values in order, which of them are asked for, and the float leaves.
struct Recorded {
    values: Vec<Root>,
    which: Vec<usize>,
    leaves: Vec<Tensor>,
}

/// The graph of a seed, on `arguments` in the place of its first float leaves.
fn record(seed: u64, arguments: &[Tensor]) -> Recorded {
    let mut fuzz = Fuzz::new(seed, arguments);
    let nodes = 10 + fuzz.random.below(31);
    while fuzz.values.len() < nodes {
        fuzz.grow();
    }
    let count = 1 + fuzz.random.below(4);
    let mut which: Vec<usize> = (0..count).map(|_| fuzz.random.below(nodes)).chain([fuzz.values.len() - 1]).collect();
    which.sort_unstable();
    which.dedup();
    let root = |value: Value| Root { tensor: value.tensor, allowed: 2.0 * value.error + f64::from(f32::EPSILON) };
    Recorded { values: fuzz.values.into_iter().map(root).collect(), which, leaves: fuzz.leaves }
}

/// The derivatives of a weighed sum of the values asked for, by every float leaf.
///
/// Their condition is not tracked; it is bounded by the largest derivative times the 40 ops of a path. A fault of the
/// compiler is of the order of the values.
fn derivatives(seed: u64) -> Vec<Root> {
    let loss = |arguments: &Vec<Tensor>| {
        let Recorded { values, which, .. } = record(seed, arguments);
        let mut random = Random::new(seed);
        let mut term = |at: &usize| {
            let t = &values[*at].tensor;
            let upstream = random.leaf(&t.shape(), DType::F32, (-1.0, 1.0), false);
            (t.cast(DType::F32) * upstream).sum(..)
        };
        Ok(which.iter().map(&mut term).fold(Tensor::scalar(0f32), |a, b| a + b))
    };
    let gradients = match grad(loss, &record(seed, &[]).leaves) {
        Ok(gradients) => gradients,
        Err(error) => panic!("seed {seed}: {error}"),
    };
    let root = |tensor: Tensor| {
        let values = interpret(std::slice::from_ref(&tensor), &Given::new()).map(|mut v| v.remove(0).data);
        let largest = values.unwrap_or_default().iter().fold(1.0f64, |a, b| a.max(b.abs()));
        Root { tensor, allowed: 40.0 * UNIT * largest }
    };
    gradients.into_iter().map(root).collect()
}

const CONFIGURATIONS: [(&str, Options); 3] = [
    ("unfused", Options { fuse: false, strategy: Strategy::Whole }),
    ("fused, whole buffers", Options { fuse: true, strategy: Strategy::Whole }),
    ("fused, arena", Options { fuse: true, strategy: Strategy::Arena }),
];

/// Evaluates roots in one plan; what is wrong with the results, if anything, and the results.
fn run(device: &Device, roots: &[Root], options: &Options) -> Result<Vec<Vec<f64>>, String> {
    let tensors: Vec<Tensor> = roots.iter().map(|root| root.tensor.clone()).collect();
    let wanted = interpret(&tensors, &Given::new()).map_err(|error| error.to_string())?;
    let drawn = Graph::of(&tensors).map_err(|error| error.to_string())?.to_string();
    let plan = evaluate(device, &tensors, options).map_err(|error| format!("{error}\n{drawn}"))?;
    let mut results = Vec::new();
    for (at, (root, wanted)) in roots.iter().zip(&wanted).enumerate() {
        let got = read(&root.tensor, device).map_err(|error| error.to_string())?;
        // NaN fits nothing.
        let fits = |g: &f64, w: &f64| (g - w).abs() <= root.allowed;
        let wrong = got.iter().zip(&wanted.data).position(|(g, w)| !fits(g, w));
        if got.len() != wanted.data.len() || wrong.is_some() {
            let element = wrong.unwrap_or(0);
            let mut text = format!(
                "result {at} {} of {} elements: [{element}] is {:?}, not {:?}, allowed {:e}\n{drawn}",
                root.tensor.shape(),
                got.len(),
                got.get(element),
                wanted.data.get(element),
                root.allowed
            );
            for (index, line) in plan.iter().flat_map(|plan| &plan.lines).enumerate() {
                let _ = write!(text, "\n// dispatch {index}: {} {:?}\n{}", line.label, line.grid, line.source);
            }
            return Err(text);
        }
        results.push(got);
    }
    Ok(results)
}

/// What is compared, recorded anew at each call, since evaluating a graph lets go of it.
#[derive(Clone, Copy)]
enum What {
    Values,
    Derivatives,
}

impl What {
    /// All that could be evaluated, and which of it is.
    fn record(self, seed: u64) -> (Vec<Root>, Vec<usize>) {
        match self {
            What::Values => {
                let recorded = record(seed, &[]);
                (recorded.values, recorded.which)
            }
            What::Derivatives => {
                let all = derivatives(seed);
                let which = (0..all.len()).collect();
                (all, which)
            }
        }
    }

    fn roots(self, seed: u64, which: &[usize]) -> Vec<Root> {
        let all = self.record(seed).0;
        which.iter().map(|&at| all[at].clone()).collect()
    }
}

/// The smallest set of roots that fails: one alone if one does, the earliest; else as few as fail together.
fn shrink(device: &Device, what: What, seed: u64, options: &Options) -> Option<String> {
    let (all, which) = what.record(seed);
    for at in 0..all.len() {
        if let Err(text) = run(device, &what.roots(seed, &[at]), options) {
            return Some(format!("value {at} alone fails: {text}"));
        }
    }
    let mut least = which.clone();
    let mut shrunk = None;
    for drop in which {
        let fewer: Vec<usize> = least.iter().copied().filter(|&at| at != drop).collect();
        if let Err(text) = run(device, &what.roots(seed, &fewer), options) {
            shrunk = Some(format!("values {fewer:?} together fail: {text}"));
            least = fewer;
        }
    }
    shrunk
}

fn check(device: &Device, what: What, seed: u64) -> Result<(), String> {
    let mut fused: Option<Vec<Vec<f64>>> = None;
    for (name, options) in &CONFIGURATIONS {
        let (all, which) = what.record(seed);
        let roots: Vec<Root> = which.iter().map(|&at| all[at].clone()).collect();
        match run(device, &roots, options) {
            // Where temporaries lie changes no bit.
            Ok(results) if options.fuse => match &fused {
                Some(before) if *before != results => {
                    return Err(format!("seed {seed}: the two placements differ in bits"));
                }
                _ => fused = Some(results),
            },
            Ok(_) => {}
            Err(text) => {
                let small = shrink(device, what, seed, options).unwrap_or(text);
                return Err(format!("seed {seed}, {name}: {small}"));
            }
        }
    }
    Ok(())
}

/// Runs `default` seeds, or as many as the environment says.
fn fuzz(what: What, default: u64) {
    let device = Device::blocking().unwrap();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (count, first) = (number("WENGERT_FUZZ"), number("WENGERT_FUZZ_SEED"));
    let start = first.unwrap_or(0);
    let all = start..start + count.unwrap_or(if first.is_some() { 1 } else { default });
    let mut failures = Vec::new();
    for seed in all.clone() {
        if let Err(text) = check(&device, what, seed) {
            eprintln!("{text}\n");
            failures.push(seed);
        }
        if failures.len() == 5 {
            break;
        }
    }
    assert!(failures.is_empty(), "of {all:?} these fail: {failures:?}; one alone with WENGERT_FUZZ_SEED");
}

#[test]
fn random_graphs_agree_with_the_interpreter_however_they_are_compiled() {
    fuzz(What::Values, 500);
}

#[test]
fn so_do_their_derivatives() {
    fuzz(What::Derivatives, 100);
}
