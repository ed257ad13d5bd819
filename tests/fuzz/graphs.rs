//! The generator of graphs: values with bounds on magnitude and error, and how a graph grows; elementwise ops and views.
//!
//! Every value carries a bound on its magnitude and on its f32 error, propagated op by op; ops whose result jumps
//! (comparisons, rounding, argmax) are only applied to values that f32 holds exactly.

use wengert::dtype::DType;
use wengert::graph::Tensor;
use wengert::graph::interpret::{Given, interpret};

use crate::common::Random;

use wengert::shape::Shape;

/// Error of one op, relative to the magnitude of its result: eight units in the last place.
pub const UNIT: f64 = 8.0 * f32::EPSILON as f64;
/// Values larger than this are squashed.
pub const LARGE: f64 = 8.0;
/// Elements of a value at most.
pub const ELEMENTS: usize = 20_000;
/// Of a gather that is differentiated, indices times the length they are into: its gradient compares all with all.
pub const COMPARED: usize = 1 << 20;

#[derive(Clone)]
pub struct Value {
    pub tensor: Tensor,
    /// Bound on the magnitude.
    pub size: f64,
    /// Bound on the error of an f32 evaluation; 0 of integers.
    pub error: f64,
    /// Small multiples of a power of two, which f32 computes exactly.
    pub exact: bool,
}

pub struct Fuzz {
    pub random: Random,
    pub values: Vec<Value>,
    pub lengths: Vec<usize>,
    /// The float leaves made so far.
    pub leaves: Vec<Tensor>,
    /// What stands for the float leaves, in order, where a derivative is taken by them.
    pub arguments: Vec<Tensor>,
    /// Whether the graph is going to be differentiated.
    pub differentiated: bool,
}

pub fn is_float(value: &Value) -> bool {
    value.tensor.dtype() == DType::F32
}

impl Fuzz {
    pub fn new(seed: u64, arguments: &[Tensor], differentiated: bool) -> Fuzz {
        let mut random = Random::new(seed);
        const LENGTHS: [usize; 23] =
            [1, 1, 2, 3, 4, 5, 7, 8, 11, 12, 16, 31, 32, 63, 64, 65, 127, 128, 129, 257, 300, 520, 1030];
        // Few lengths a graph, so that shapes meet.
        let mut lengths: Vec<usize> = (0..3).map(|_| *random.pick(&LENGTHS)).collect();
        if random.chance(0.03) {
            lengths.push(0);
        }
        // Sums of so many terms are split; beside a long axis the others are short.
        if random.chance(0.15) {
            const LONG: [usize; 8] = [4096, 4097, 4999, 6143, 8191, 8192, 12_345, 16_387];
            lengths = vec![*random.pick(&[1, 1, 2, 3, 4]), *random.pick(&LONG)];
        }
        Fuzz { random, values: Vec::new(), lengths, leaves: Vec::new(), arguments: arguments.to_vec(), differentiated }
    }

    pub fn shape(&mut self) -> Shape {
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
    pub fn leaf(&mut self, shape: &Shape) -> Value {
        let exact = self.random.chance(0.5);
        let leaf = self.random.leaf(shape, DType::F32, (-2.0, 2.0), exact);
        let tensor = self.arguments.get(self.leaves.len()).unwrap_or(&leaf).clone();
        self.leaves.push(leaf);
        Value { tensor, size: 2.0, error: 0.0, exact }
    }

    pub fn add(&mut self, value: Value) {
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

    pub fn pick(&mut self, of: impl Fn(&Value) -> bool) -> Option<Value> {
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
    pub fn beside(&mut self, shape: &Shape) -> Value {
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

    pub fn grow(&mut self) {
        let Some(x) = self.pick(is_float) else {
            let shape = self.shape();
            let leaf = self.leaf(&shape);
            return self.add(leaf);
        };
        match self.random.below(22) {
            20 | 21 => self.windows(&x),
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

    /// Whether f32 computes a value without any error.
    pub fn is_certain(value: &Value) -> bool {
        value.exact || value.error == 0.0
    }

    /// Whether a function with kinks at these points has the same slope for the device and in f64: a value that is rounded
    /// may lie on a kink for the one and beside it for the other, whatever the compiler does.
    pub fn may_kink(&self, x: &Value, at: &[f64]) -> bool {
        if !self.differentiated || Fuzz::is_certain(x) {
            return true;
        }
        let Ok(values) = interpret(std::slice::from_ref(&x.tensor), &Given::new()) else { return false };
        values[0].data.iter().all(|value| at.iter().all(|kink| (value - kink).abs() > 2.0 * x.error))
    }

    pub fn unary(&mut self, x: &Value) {
        let Value { tensor: t, size, error, exact } = x;
        let smooth = |tensor: Tensor, size: f64, slope: f64| Value {
            tensor,
            size,
            error: slope * error + UNIT * size.max(1.0),
            exact: false,
        };
        let plain = |tensor: Tensor, size: f64| Value { tensor, size, error: *error, exact: *exact };
        let kind = self.random.below(20);
        let kinks: &[f64] = match kind {
            1 | 2 | 12 | 13 | 14 | 17 => &[0.0],
            3 => &[-1.0, 1.5],
            11 => &[1.0],
            _ => &[],
        };
        let kind = if self.may_kink(x, kinks) { kind } else { 5 };
        let value = match kind {
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

    pub fn binary(&mut self, x: &Value) {
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
                let difference = Value { tensor: &a.tensor - &b.tensor, size: sum, error: a.error + b.error, exact };
                let tensor = match self.random.chance(0.5) {
                    _ if !self.may_kink(&difference, &[0.0]) => return,
                    true => a.tensor.maximum(&b.tensor),
                    false => a.tensor.minimum(&b.tensor),
                };
                Value { tensor, size: a.size.max(b.size), error: a.error.max(b.error), exact }
            }
        };
        self.add(value);
    }

    pub fn view(&mut self) {
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
}
