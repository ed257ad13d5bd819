//! The generator's structured ops: folds, products, windows, gathers, joins, integers and truth values.

use wengert::dtype::DType;
use wengert::graph::Tensor;
use wengert::ops::{Conv, Keep, Padding, Window, concat, stack};
use wengert::random;

use crate::graphs::{COMPARED, ELEMENTS, Fuzz, UNIT, Value, is_float};

impl Fuzz {
    pub fn fold(&mut self, x: &Value) {
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
        let value = match self.random.below(10) {
            9 if length > 0 => {
                let scale = 1.0 / n.sqrt();
                let error = n.sqrt() * x.error + rounding + UNIT * x.size * n.sqrt();
                Value { tensor: t.sum(axes) * scale, size: n.sqrt() * x.size, error, exact: false }
            }
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
            // Which of two that are alike is the larger depends on how they are rounded.
            3 | 4 if length > 0 && (!self.differentiated || Fuzz::is_certain(x)) => {
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

    pub fn product(&mut self, x: &Value) {
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
                if shape.numel() * n >= 1 << 21 || k * n >= 1 << 21 {
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

    /// A float image `[n, h, w, c]`: the value itself, some of its elements, or a leaf.
    fn image(&mut self, x: &Value) -> Value {
        let rank = x.tensor.rank();
        if rank == 4 && x.tensor.shape().numel() > 0 && self.random.chance(0.7) {
            return x.clone();
        }
        let long = self.lengths.iter().any(|&length| length > 4000);
        let sides: &[usize] = if long { &[1, 47, 64, 65] } else { &[1, 2, 3, 4, 5, 6, 7, 8, 9, 12] };
        let mut shape = [*self.random.pick(&[1, 2, 3]), *self.random.pick(sides), *self.random.pick(sides), 1];
        shape[3] = *self.random.pick(if long { &[1, 1, 2, 4] } else { &[1, 2, 3, 4, 4, 5, 8, 12] });
        let elements: usize = shape.iter().product();
        if elements <= x.tensor.shape().numel() {
            let flat = x.tensor.reshape([x.tensor.shape().numel()]);
            return Value { tensor: flat.slice(0, 0..elements).reshape(shape), ..x.clone() };
        }
        self.leaf(&shape.into())
    }

    /// Windows over an image, alone, folded, or in a product with a kernel.
    pub fn windows(&mut self, x: &Value) {
        let x = self.image(x);
        let &[n, h, w, c] = &x.tensor.shape()[..] else { return };
        if n * h * w * c > ELEMENTS {
            return;
        }
        let mut small = |of: &[usize]| [*self.random.pick(of), *self.random.pick(of)];
        let (kernel, stride, dilation) = (small(&[1, 2, 2, 3, 4]), small(&[1, 1, 1, 2, 3]), small(&[1, 1, 1, 2]));
        let reach = small(&[0, 1, 2, 3]);
        let padding = match self.random.below(3) {
            0 => Padding::Valid,
            1 => Padding::Same,
            // No window lies outside the image as a whole.
            _ => Padding::Explicit(
                [0, 1].map(|axis| (reach[axis].min(kernel[axis] - 1), reach[1 - axis].min(kernel[axis] - 1))),
            ),
        };
        let window = Window { kernel, stride, dilation, padding };
        let Ok(windows) = window.over([h, w], c) else { return };
        let elements = kernel[0] * kernel[1];
        let pooled = Window { dilation: [1, 1], ..window };
        let options = Conv { stride, dilation, padding, groups: 1 };
        let value = match self.random.below(7) {
            0 if n * windows.of_image() <= ELEMENTS => Value { tensor: x.tensor.windows(&window), ..x },
            1 if pooled.over([h, w], c).is_ok() && (!self.differentiated || Fuzz::is_certain(&x)) => {
                Value { tensor: x.tensor.max_pool2d(&pooled), ..x }
            }
            2 if pooled.over([h, w], c).is_ok() => {
                let error = x.error + 2.0 * UNIT * x.size;
                Value { tensor: x.tensor.avg_pool2d(&pooled), size: x.size, error, exact: false }
            }
            _ => {
                let divisors: Vec<usize> = (1..=c).filter(|groups| c % groups == 0).collect();
                let groups = if self.random.chance(0.3) { *self.random.pick(&divisors) } else { 1 };
                let filters = groups * *self.random.pick(&[1, 2, 3, 4, 4, 8]);
                let transposed = self.random.chance(0.2);
                let each = c / groups;
                if n * windows.of_image() * filters >= 1 << 21 {
                    return;
                }
                // The image whose windows there are as many as pixels here.
                let size = [0, 1].map(|axis| {
                    let (before, after) = match padding {
                        Padding::Explicit(padding) => padding[axis],
                        _ => (0, 0),
                    };
                    let pixels = ([h, w][axis] - 1) * stride[axis];
                    let extent = (kernel[axis] - 1) * dilation[axis] + 1;
                    if padding == Padding::Same { pixels + 1 } else { (pixels + extent).saturating_sub(before + after) }
                });
                let fits = Window { kernel, stride, dilation, padding }
                    .over(size, filters)
                    .is_ok_and(|found| found.count == [h, w]);
                let (k, y, tensor);
                if transposed && fits && size.iter().all(|&side| side > 0) {
                    y = self.leaf(&[kernel[0], kernel[1], filters, c].into());
                    k = (elements * c) as f64;
                    let options = Conv { groups: 1, ..options };
                    tensor = x.tensor.conv2d_transpose(&y.tensor, size, &options);
                } else {
                    y = self.leaf(&[kernel[0], kernel[1], each, filters].into());
                    k = (elements * each) as f64;
                    tensor = x.tensor.conv2d(&y.tensor, &Conv { groups, ..options });
                }
                let error = x.size * y.error + y.size * x.error + 4.0 / k.sqrt() * UNIT * x.size * y.size + UNIT;
                Value { tensor: tensor * (1.0 / k), size: x.size * y.size, error, exact: false }
            }
        };
        self.add(value);
    }

    pub fn gather(&mut self, x: &Value) {
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
        let count = indices.shape().numel();
        if self.differentiated && shape[axis] * count > COMPARED {
            return;
        }
        if shape.numel() / shape[axis] * count <= ELEMENTS && shape.rank() + indices.rank() <= 5 {
            self.add(Value { tensor: x.tensor.take(&indices, axis as i32), ..x.clone() });
        }
    }

    pub fn join(&mut self) {
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

    pub fn integers(&mut self) {
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

    pub fn logic(&mut self) {
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
