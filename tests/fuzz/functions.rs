//! The generator of pure functions over a state and a batch of any number of rows.
//!
//! A function is drawn anew from its seed at each recording. No decision depends on the number of rows, so that it is
//! the same function for each: a value is either free of the batch, or its first axis is so many times the rows. Bounds
//! on magnitude and error are those of the full batch.

use std::cell::RefCell;
use std::collections::HashMap;

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::ops::{Conv, Keep, Padding, Window, concat};
use wengert::random;

use crate::common::Random;
use crate::graphs::{COMPARED, LARGE, UNIT};

/// Elements of a value at most, in a full batch.
const ELEMENTS: usize = 30_000;

#[derive(Clone)]
pub struct Item {
    pub tensor: Tensor,
    /// The first axis is so many times the rows of the batch; `None`: no axis is.
    pub times: Option<usize>,
    /// The other axes.
    pub inner: Vec<usize>,
    pub size: f64,
    pub error: f64,
    pub exact: bool,
}

impl Item {
    fn is_float(&self) -> bool {
        self.tensor.dtype() == DType::F32
    }
}

/// What a seed's function is like, apart from its batch.
pub struct Function {
    pub seed: u64,
    /// Rows of a full batch.
    pub full: usize,
    /// Shapes and dtypes of the state.
    pub state: Vec<(Vec<usize>, DType)>,
    /// Axes behind the first, and dtypes, of the batch. Floats are halves, integers from 0 to 4.
    pub batch: Vec<(Vec<usize>, DType)>,
    /// Constants that recordings capture, by the order in which they are asked for.
    constants: RefCell<HashMap<u64, Tensor>>,
}

/// A recording: the new state and the logs with their bounds.
pub struct Outcome {
    pub state: Vec<Item>,
    pub logs: Vec<Item>,
}

impl Function {
    pub fn new(seed: u64) -> Function {
        let mut random = Random::new(seed ^ 0xF0C5);
        let full = *random.pick(&[2, 3, 5, 8, 12, 16, 32, 37, 64, 100, 128, 256, 1000, 4500, 6001]);
        // Sums over thousands of rows are split.
        let all = [1, 2, 3, 4, 5, 7, 8, 12, 16, 31, 32, 33, 64, 65];
        let lengths: Vec<usize> = (0..3).map(|_| *random.pick(if full > 1000 { &all[..5] } else { &all })).collect();
        let mut shape = |most: usize, ranks: &[usize]| {
            let mut shape: Vec<usize> = Vec::new();
            for _ in 0..*random.pick(ranks) {
                let length = *random.pick(&lengths);
                shape.push(if shape.iter().product::<usize>() * length <= most { length } else { 1 });
            }
            shape
        };
        let shapes: Vec<Vec<usize>> = (0..3).map(|_| shape(5000, &[0, 1, 1, 2, 2, 2, 3])).collect();
        let inputs: Vec<Vec<usize>> = (0..2).map(|_| shape(ELEMENTS / full / 2, &[0, 1, 1, 1, 2, 3])).collect();
        let floats = 2 + random.below(4);
        let mut state: Vec<_> = (0..floats).map(|_| (random.pick(&shapes).clone(), DType::F32)).collect();
        // A key, a counter, integers, truth.
        state.push((vec![2], DType::U32));
        state.push((vec![], DType::I32));
        if random.chance(0.5) {
            state.push((random.pick(&shapes).clone(), DType::I32));
        }
        if random.chance(0.3) {
            state.push((random.pick(&shapes).clone(), DType::Bool));
        }
        for i in (1..state.len()).rev() {
            state.swap(i, random.below(i + 1));
        }
        let mut batch: Vec<_> = inputs.into_iter().map(|inner| (inner, DType::F32)).collect();
        batch.push((vec![], DType::I32));
        Function { seed, full, state, batch, constants: RefCell::default() }
    }

    /// The same function with constants of its own.
    pub fn twin(&self) -> Function {
        let (state, batch) = (self.state.clone(), self.batch.clone());
        Function { seed: self.seed, full: self.full, state, batch, constants: RefCell::default() }
    }

    /// The function for batches of fewer rows that are longer: another graph of another kind of batch, or nearly the same
    /// one, whose kernels must not be taken for its own where they are not.
    pub fn reshaped(&self, random: &mut Random) -> Function {
        let by = 2 + random.below(3);
        let mut longer = |inner: &Vec<usize>| {
            let mut inner = inner.clone();
            if !inner.is_empty() {
                let axis = random.below(inner.len());
                inner[axis] *= 1 + random.below(by);
                if random.chance(0.3) {
                    inner.reverse();
                }
            }
            inner
        };
        let batch = self.batch.iter().map(|(inner, dtype)| (longer(inner), *dtype)).collect();
        let full = (self.full / by).max(1);
        Function { seed: self.seed, full, state: self.state.clone(), batch, constants: RefCell::default() }
    }

    /// Records the function.
    pub fn record(&self, state: &[Tensor], batch: &[Tensor]) -> Result<Outcome> {
        let mut drawn = Drawn::new(self, self.seed, state, batch);
        let nodes = 6 + drawn.random.below(18);
        drawn.grow_by(nodes);
        let slopes = drawn.slopes(state, batch)?;
        let new = drawn.update(state, &slopes);
        let count = 1 + self.seed % 4;
        let logs = (0..count).map(|_| drawn.log(&new)).collect();
        Ok(Outcome { state: new, logs })
    }
}

/// A function in the making.
struct Drawn<'a> {
    function: &'a Function,
    random: Random,
    items: Vec<Item>,
    rows: usize,
    constants: u64,
    /// Whether it is going to be differentiated.
    differentiated: bool,
}

impl<'a> Drawn<'a> {
    fn new(function: &'a Function, seed: u64, state: &[Tensor], batch: &[Tensor]) -> Drawn<'a> {
        let rows = batch[0].dim(0);
        let mut drawn = Drawn {
            function,
            random: Random::new(seed),
            items: Vec::new(),
            rows,
            constants: seed << 8,
            differentiated: false,
        };
        for (tensor, (shape, _)) in state.iter().zip(&function.state) {
            let (size, exact) = (2.0, tensor.dtype() != DType::F32);
            // Keys are large, and only read as keys.
            if tensor.dtype() != DType::U32 {
                let size = if exact { 1e4 } else { size };
                drawn.items.push(Item {
                    tensor: tensor.clone(),
                    times: None,
                    inner: shape.clone(),
                    size,
                    error: 0.0,
                    exact,
                });
            }
        }
        for (tensor, (inner, _)) in batch.iter().zip(&function.batch) {
            let inner = inner.clone();
            drawn.items.push(Item {
                tensor: tensor.clone(),
                times: Some(1),
                inner,
                size: 4.0,
                error: 0.0,
                exact: true,
            });
        }
        drawn
    }

    fn grow_by(&mut self, nodes: usize) {
        let wanted = self.items.len() + nodes;
        for _ in 0..20 * nodes {
            if self.items.len() >= wanted {
                break;
            }
            self.grow();
        }
    }

    fn numel(&self, item: &Item) -> usize {
        item.times.map_or(1, |times| times * self.function.full) * item.inner.iter().product::<usize>()
    }

    fn add(&mut self, item: Item) {
        if let Some(error) = item.tensor.error() {
            panic!("seed {}: the generator recorded nonsense: {error}", self.function.seed);
        }
        let mut shape = item.inner.clone();
        if let Some(times) = item.times {
            shape.insert(0, times * self.rows);
        }
        assert_eq!(item.tensor.shape().to_vec(), shape, "seed {}: the generator lost a shape", self.function.seed);
        let fits = self.numel(&item) <= ELEMENTS && item.error < 1e-3 && shape.len() <= 5;
        if fits && item.is_float() && item.size > LARGE {
            let error = item.error + UNIT;
            self.items.push(Item { tensor: item.tensor.tanh(), size: 1.0, error, exact: false, ..item });
        } else if fits {
            self.items.push(item);
        }
    }

    fn pick(&mut self, of: impl Fn(&Item) -> bool) -> Option<Item> {
        let fitting: Vec<usize> = (0..self.items.len()).filter(|&i| of(&self.items[i])).collect();
        let half = if self.random.chance(0.5) { fitting.len() / 2 } else { 0 };
        let at = half + self.random.below((fitting.len() - half).max(1));
        fitting.get(at).map(|&i| self.items[i].clone())
    }

    /// A captured tensor of halves, the same at every recording.
    fn constant(&mut self, shape: Vec<usize>) -> Item {
        self.constants += 1;
        let seed = self.random.word();
        let mut constants = self.function.constants.borrow_mut();
        let make = || Random::new(seed).leaf(&shape.clone().into(), DType::F32, (-2.0, 2.0), true);
        let tensor = constants.entry(self.constants).or_insert_with(make).clone();
        Item { tensor, times: None, inner: shape, size: 2.0, error: 0.0, exact: true }
    }

    fn grow(&mut self) {
        let Some(x) = self.pick(Item::is_float) else { return };
        match self.random.below(24) {
            0..4 => self.unary(&x),
            4..8 => self.binary(&x),
            8..11 => self.view(&x),
            11..15 => self.fold(&x),
            15 | 16 => self.product(&x),
            17 | 18 => self.across(&x),
            19 => self.windows(&x),
            20 => self.integers(),
            21 => self.noise(&x),
            22 => self.gather(&x),
            _ => self.choose(&x),
        }
    }

    /// Whether the derivative of a function with a kink is the same for the device and in f64: an argument that is rounded
    /// may lie on the kink for the one and beside it for the other, whatever the compiler does. (Seed 2000123 of `steps`
    /// had an element 3e-8 beside the kink of `minimum`, which made a difference of the whole slope.)
    fn may_kink(&self, x: &Item) -> bool {
        !self.differentiated || x.exact || x.error == 0.0
    }

    fn unary(&mut self, x: &Item) {
        let (t, size) = (&x.tensor, x.size);
        let kind = match self.random.below(11) {
            0 | 5 | 6 if !self.may_kink(x) => 10,
            kind => kind,
        };
        let (tensor, size, slope, exact) = match kind {
            0 => (t.relu(), size, 1.0, x.exact),
            1 => (t.tanh(), 1.0, 1.0, false),
            2 => (t.sigmoid(), 1.0, 1.0, false),
            3 => (t.gelu(), size, 1.2, false),
            4 => (t.square(), size * size, 2.0 * size, false),
            5 => (t.minimum(1.0).exp(), 2.8, 2.8, false),
            6 => (t.abs(), size, 1.0, x.exact),
            7 => (-t, size, 1.0, x.exact),
            8 => ((t.square() + 0.5).rsqrt(), 1.5, 1.5, false),
            9 => (t * 0.3 + 0.7, size + 1.0, 0.3, false),
            _ => (t.softplus(), size + 1.0, 1.0, false),
        };
        let error = if exact { 0.0 } else { slope * x.error + UNIT * size.max(1.0) };
        self.add(Item { tensor, size, error, exact, ..x.clone() });
    }

    /// What a broadcast of two values is like; `None` where it would depend on the number of rows.
    fn meet(x: &Item, y: &Item) -> Option<(Option<usize>, Vec<usize>)> {
        let times = match (x.times, y.times) {
            (Some(a), Some(b)) if a != b || x.inner.len() != y.inner.len() => return None,
            (Some(_), None) if y.inner.len() > x.inner.len() => return None,
            (None, Some(_)) if x.inner.len() > y.inner.len() => return None,
            (a, b) => a.or(b),
        };
        let rank = x.inner.len().max(y.inner.len());
        let length =
            |item: &Item, axis: usize| (axis + item.inner.len()).checked_sub(rank).map_or(1, |at| item.inner[at]);
        let mut inner = Vec::new();
        for axis in 0..rank {
            match (length(x, axis), length(y, axis)) {
                (a, b) if a == b || b == 1 => inner.push(a),
                (1, b) => inner.push(b),
                _ => return None,
            }
        }
        Some((times, inner))
    }

    /// A float value that broadcasts against another.
    fn beside(&mut self, x: &Item) -> Item {
        if self.random.chance(0.8)
            && let Some(y) = self.pick(|y| y.is_float() && Self::meet(x, y).is_some())
        {
            return y;
        }
        let shape = x.inner[self.random.below(x.inner.len() + 1)..].to_vec();
        self.constant(shape)
    }

    fn binary(&mut self, x: &Item) {
        let y = self.beside(x);
        let Some((times, inner)) = Self::meet(x, &y) else { return };
        let (a, b) = if self.random.chance(0.5) { (x, &y) } else { (&y, x) };
        let both = a.exact && b.exact;
        let sum = if both { 0.0 } else { a.error + b.error + UNIT * (a.size + b.size) };
        let kinks = self.may_kink(a) && self.may_kink(b);
        let (tensor, size, error, exact) = match self.random.below(5) {
            0 | 1 => (&a.tensor + &b.tensor, a.size + b.size, sum, both),
            2 => (&a.tensor - &b.tensor, a.size + b.size, sum, both),
            4 if kinks => (a.tensor.maximum(&b.tensor), a.size.max(b.size), a.error.max(b.error), both),
            _ => {
                let error = a.size * b.error + b.size * a.error + UNIT * a.size * b.size;
                (&a.tensor * &b.tensor, a.size * b.size, error, false)
            }
        };
        self.add(Item { tensor, times, inner, size, error, exact });
    }

    fn view(&mut self, x: &Item) {
        let first = usize::from(x.times.is_some());
        let (rank, axes) = (x.inner.len(), x.inner.len() + first);
        let (mut times, mut inner) = (x.times, x.inner.clone());
        let batched = |times: Option<usize>, inner: &[usize], rows: usize| -> Vec<usize> {
            times.map(|times| times * rows).into_iter().chain(inner.iter().copied()).collect()
        };
        let at = self.random.below(rank.max(1));
        let t = &x.tensor;
        let tensor = match self.random.below(9) {
            0 if rank > 1 => {
                let mut order: Vec<usize> = (0..rank).collect();
                order.rotate_left(1 + self.random.below(rank - 1));
                inner = order.iter().map(|&axis| x.inner[axis]).collect();
                let all: Vec<usize> = (0..first).chain(order.iter().map(|axis| axis + first)).collect();
                t.permute(all)
            }
            // The first axis as well.
            1 if axes > 0 => t.flip(self.random.below(axes) as i32),
            2 if rank > 0 => {
                let start = self.random.below(inner[at]);
                let end = start + 1 + self.random.below(inner[at] - start);
                inner[at] = end - start;
                t.slice((at + first) as i32, start..end)
            }
            3 if rank > 0 => {
                let (before, after) = (self.random.below(3), self.random.below(2));
                inner[at] += before + after;
                let mut widths = vec![(0, 0); axes];
                widths[at + first] = (before, after);
                t.pad(&widths)
            }
            // Rows of the batch become more, or fewer.
            4 if rank > 0 && times.is_some() => {
                times = times.map(|times| times * inner.remove(0));
                t.reshape(batched(times, &inner, self.rows))
            }
            5 if times.is_some_and(|times| times > 1) => {
                inner.insert(0, times.unwrap_or(1));
                times = Some(1);
                t.reshape(batched(times, &inner, self.rows))
            }
            6 if times.is_some() => {
                // One row: the first or the last.
                let row = if self.random.chance(0.5) { 0 } else { t.dim(0) - 1 };
                times = None;
                t.slice(0, row..row + 1).reshape(inner.clone())
            }
            7 if times.is_none() => {
                times = Some(1);
                t.broadcast_to(batched(times, &inner, self.rows))
            }
            8 if times.is_some() => {
                times = times.map(|times| 2 * times);
                concat(&[t, &(-t)], 0)
            }
            _ => {
                inner.insert(at, 1);
                t.unsqueeze((at + first) as i32)
            }
        };
        self.add(Item { tensor, times, inner, ..x.clone() });
    }

    fn fold(&mut self, x: &Item) {
        let first = usize::from(x.times.is_some());
        let axes = x.inner.len() + first;
        if axes == 0 {
            return;
        }
        let mut over: Vec<i32> = (0..axes as i32).filter(|_| self.random.chance(0.4)).collect();
        if over.is_empty() {
            over.push(self.random.below(axes) as i32);
        }
        let rows = self.function.full * x.times.unwrap_or(1);
        let length = |axis: i32| if axis == 0 && first == 1 { rows } else { x.inner[axis as usize - first] };
        let n: f64 = over.iter().map(|&axis| length(axis) as f64).product();
        let kept = self.random.chance(0.3) && !(first == 1 && over.contains(&0));
        let mut inner = Vec::new();
        for axis in first..axes {
            match over.contains(&(axis as i32)) {
                true if kept => inner.push(1),
                true => {}
                false => inner.push(x.inner[axis - first]),
            }
        }
        let times = x.times.filter(|_| !over.contains(&0));
        let (t, over) = (&x.tensor, &over[..]);
        let rounding = 4.0 * n.sqrt() * UNIT / 8.0 * x.size;
        let item = |tensor, size, error, exact| Item { tensor, times, inner: inner.clone(), size, error, exact };
        let item = match self.random.below(8) {
            0 | 1 => {
                let scale = 1.0 / n;
                let sum = if kept { t.sum(Keep(over)) } else { t.sum(over) };
                item(sum * scale, x.size, x.error + rounding + UNIT * x.size, false)
            }
            2 => {
                let mean = if kept { t.mean(Keep(over)) } else { t.mean(over) };
                item(mean, x.size, x.error + rounding + UNIT * x.size, false)
            }
            3 | 4 if self.may_kink(x) => {
                let max = if kept { t.max(Keep(over)) } else { t.max(over) };
                item(max, x.size, x.error, x.exact)
            }
            5 if !kept => {
                let size = x.size + n.ln();
                item(t.logsumexp(over), size, x.error + 4.0 * UNIT * size.max(1.0), false)
            }
            6 if !kept => {
                let error = 4.0 * x.size * (x.error + rounding + UNIT * x.size);
                item(t.var(over), x.size * x.size, error, false)
            }
            _ => {
                let error = 2.0 * x.error + 4.0 * UNIT * x.size.max(1.0);
                Item { tensor: t.softmax(over[0]), size: 1.0, error, exact: false, ..x.clone() }
            }
        };
        self.add(item);
    }

    fn product(&mut self, x: &Item) {
        let Some(&k) = x.inner.last() else { return };
        if x.inner.len() + usize::from(x.times.is_some()) < 2 {
            return;
        }
        let fits = |y: &Item| y.is_float() && y.times.is_none() && y.inner.len() == 2 && y.inner[0] == k;
        let y = match self.pick(fits) {
            Some(y) => y,
            None => {
                let n = *self.random.pick(&[1, 3, 4, 8, 10, 12, 32]);
                self.constant(vec![k, n])
            }
        };
        let mut inner = x.inner.clone();
        inner.pop();
        inner.push(y.inner[1]);
        self.add(Self::multiplied(x, &y, k, x.tensor.matmul(&y.tensor), x.times, inner));
    }

    /// A product along `k` elements, scaled.
    fn multiplied(x: &Item, y: &Item, k: usize, product: Tensor, times: Option<usize>, inner: Vec<usize>) -> Item {
        let (n, size) = (k.max(1) as f64, x.size * y.size);
        let error = x.size * y.error + y.size * x.error + 4.0 / n.sqrt() * UNIT * size + UNIT;
        Item { tensor: product * (1.0 / n), times, inner, size, error, exact: false }
    }

    /// Products along the batch: what a weight's derivative is, and attention of rows to each other.
    fn across(&mut self, x: &Item) {
        let Some(times) = x.times else { return };
        let (rows, m) = (times * self.function.full, x.inner.iter().product::<usize>());
        let lines = times * self.rows;
        let flat = |item: &Item| item.tensor.reshape([lines, item.inner.iter().product()]);
        let y = self.pick(|y| y.is_float() && y.times == x.times).unwrap_or_else(|| x.clone());
        let n = y.inner.iter().product::<usize>();
        if self.random.chance(0.6) || rows > 128 {
            if m * n <= ELEMENTS && rows * m * n < 1 << 21 {
                self.add(Self::multiplied(x, &y, rows, flat(x).t().matmul(&flat(&y)), None, vec![m, n]));
            }
            return;
        }
        let scores = flat(x).matmul(&flat(x).t()) * (1.0 / m.max(1) as f64);
        let error = 2.0 * (2.0 * x.size * x.error + 4.0 * UNIT * x.size * x.size + UNIT) + 4.0 * UNIT * x.size * x.size;
        let weights = Item { size: 1.0, error, tensor: scores.softmax(-1), ..x.clone() };
        let mut item = Self::multiplied(&weights, &y, 1, weights.tensor.matmul(&flat(&y)), x.times, vec![n]);
        // Weights add up to one.
        item.error = y.error + y.size * error * 2.0 + 8.0 * UNIT * y.size;
        self.add(item);
    }

    fn windows(&mut self, x: &Item) {
        let Some(times) = x.times else { return };
        let m: usize = x.inner.iter().product();
        let c = *self.random.pick(&[1, 1, 2, 3, 4]);
        let h = *self.random.pick(&[2, 3, 4, 5]);
        let w = m / (h * c);
        if w == 0 {
            return;
        }
        let image =
            x.tensor.reshape([times * self.rows, m]).slice(1, 0..h * w * c).reshape([times * self.rows, h, w, c]);
        let kernel = [self.random.below(h.min(3)) + 1, self.random.below(w.min(3)) + 1];
        let stride = [1 + self.random.below(2), 1 + self.random.below(2)];
        let padding = *self.random.pick(&[Padding::Valid, Padding::Same]);
        let window = Window { kernel, stride, dilation: [1, 1], padding };
        let Ok(windows) = window.over([h, w], c) else { return };
        let [down, across] = windows.count;
        let item = match self.random.below(5) {
            0 if self.may_kink(x) => {
                Item { tensor: image.max_pool2d(&window), inner: vec![down, across, c], ..x.clone() }
            }
            0 | 1 => {
                let error = x.error + 2.0 * UNIT * x.size;
                let (tensor, inner) = (image.avg_pool2d(&window), vec![down, across, c]);
                Item { tensor, inner, error, exact: false, ..x.clone() }
            }
            _ => {
                let filters = *self.random.pick(&[1, 3, 4, 8]);
                let y = self.constant(vec![kernel[0], kernel[1], c, filters]);
                if times * self.function.full * windows.of_image() * filters >= 1 << 21 {
                    return;
                }
                let options = Conv { stride, padding, ..Conv::default() };
                let k = kernel[0] * kernel[1] * c;
                Self::multiplied(x, &y, k, image.conv2d(&y.tensor, &options), x.times, vec![down, across, filters])
            }
        };
        self.add(item);
    }

    fn integers(&mut self) {
        let whole = |tensor, size, x: &Item| Item { tensor, size, error: 0.0, exact: true, ..x.clone() };
        let small = |v: &Item| v.tensor.dtype() == DType::I32 && v.size < 1e3;
        match self.random.below(5) {
            0 => {
                let Some(x) = self.pick(|v| v.exact && v.tensor.dtype() != DType::Bool && !v.inner.is_empty()) else {
                    return;
                };
                let last = x.inner[x.inner.len() - 1];
                let inner = x.inner[..x.inner.len() - 1].to_vec();
                self.add(Item { inner, ..whole(x.tensor.argmax(-1), last as f64, &x) });
            }
            1 => {
                let Some(x) = self.pick(small) else { return };
                self.add(whole((&x.tensor * 3.0 - 1.0).maximum(-&x.tensor), 3.0 * x.size + 1.0, &x));
            }
            2 => {
                let Some(x) = self.pick(|v| small(v) && v.inner.len() < 3) else { return };
                let classes = *self.random.pick(&[1, 3, 4, 5, 10]);
                let inner = [&x.inner[..], &[classes]].concat();
                self.add(Item { inner, ..whole(x.tensor.one_hot(classes), 1.0, &x) });
            }
            3 => {
                // Over the batch.
                let Some(x) = self.pick(|v| small(v) && v.times.is_some()) else { return };
                let size = x.size * (self.function.full * x.times.unwrap_or(1)) as f64;
                self.add(Item { times: None, ..whole(x.tensor.sum(0), size, &x) });
            }
            _ => {
                let Some(x) = self.pick(|v| v.exact && v.is_float() && v.size < 1e6) else { return };
                self.add(whole(x.tensor.cast(DType::I32), x.size, &x));
            }
        }
    }

    /// Numbers of a key of the state, or positions in the batch.
    fn noise(&mut self, x: &Item) {
        let shape = x.tensor.shape();
        if self.random.chance(0.3) && shape.rank() > 0 {
            let axis = self.random.below(shape.rank());
            let scale = 1.0 / self.function.full as f64;
            let tensor = Tensor::iota(&shape, axis).cast(DType::F32) * scale;
            let size = if axis == 0 { x.times.unwrap_or(1) as f64 } else { 1.0 } + 64.0 * scale;
            return self.add(Item { tensor, size, error: UNIT * size, exact: false, ..x.clone() });
        }
        let mut key = random::key(self.random.word());
        if let Some(counter) = self.pick(|v| v.tensor.dtype() == DType::I32 && v.times.is_none() && v.inner.is_empty())
        {
            key = random::fold_in(&key, &counter.tensor);
        }
        let tensor = random::uniform(&key, &shape);
        let item = Item { tensor, size: 1.0, error: 0.0, exact: false, ..x.clone() };
        let plain = self.random.chance(0.5);
        self.add(match plain {
            true => item,
            false => Item { tensor: random::bernoulli(&key, 0.6, &shape).select(&x.tensor, 0.0), ..x.clone() },
        });
    }

    fn gather(&mut self, x: &Item) {
        let Some(indices) = self.pick(|v| v.tensor.dtype() == DType::I32) else { return };
        let length = x.times.map_or(x.inner.first().copied().unwrap_or(1), |times| times * self.function.full);
        if self.differentiated && length * self.numel(&indices) > COMPARED {
            return;
        }
        if x.times.is_none() && !x.inner.is_empty() {
            let inner = [&indices.inner[..], &x.inner[1..]].concat();
            self.add(Item { tensor: x.tensor.take(&indices.tensor, 0), times: indices.times, inner, ..x.clone() });
        } else if x.times.is_some() && indices.times.is_none() {
            // Rows of the batch.
            let inner = [&indices.inner[..], &x.inner[..]].concat();
            self.add(Item { tensor: x.tensor.take(&indices.tensor, 0), times: None, inner, ..x.clone() });
        }
    }

    fn choose(&mut self, x: &Item) {
        let Some(a) = self.pick(|v| v.exact && v.tensor.dtype() != DType::Bool && Self::meet(x, v).is_some()) else {
            return;
        };
        let threshold = self.random.below(3) as f64;
        let y = self.beside(x);
        let c = if self.random.chance(0.5) { a.tensor.ge(threshold) } else { a.tensor.eq(threshold) };
        let Some((times, inner)) = Self::meet(x, &y) else { return };
        let both = Item { times, inner, ..x.clone() };
        let Some((times, inner)) = Self::meet(&both, &a) else { return };
        let (size, error) = (x.size.max(y.size), x.error.max(y.error));
        let tensor = c.select(&x.tensor, &y.tensor);
        self.add(Item { tensor, times, inner, size, error, exact: x.exact && y.exact });
    }

    /// Derivatives of a loss by the floats of the state, squashed; their error is bounded as in `eager`.
    fn slopes(&mut self, state: &[Tensor], batch: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
        if self.random.chance(0.4) {
            return Ok(vec![None; state.len()]);
        }
        let seed = self.random.word() >> 8;
        let floats: Vec<usize> = (0..state.len()).filter(|&i| state[i].dtype() == DType::F32).collect();
        let weights: Vec<Tensor> = floats.iter().map(|&i| state[i].clone()).collect();
        let loss = |weights: &Vec<Tensor>| {
            let mut state = state.to_vec();
            floats.iter().zip(weights).for_each(|(&i, weight)| state[i] = weight.clone());
            let mut drawn = Drawn::new(self.function, seed, &state, batch);
            drawn.differentiated = true;
            drawn.grow_by(8);
            let float = |item: &&Item| item.is_float();
            Ok(drawn
                .items
                .iter()
                .rev()
                .filter(float)
                .take(4)
                .fold(Tensor::scalar(0f32), |sum, item| sum + item.tensor.square().mean(..)))
        };
        let mut slopes = vec![None; state.len()];
        for (i, slope) in floats.iter().zip(grad(loss, &weights)?) {
            slopes[*i] = Some(slope.tanh());
        }
        Ok(slopes)
    }

    /// Something of a leaf's shape: a value that broadcasts to it, or the mean of any.
    fn fit(&mut self, leaf: &Item) -> Item {
        let fits =
            |v: &Item| v.is_float() && v.times.is_none() && Self::meet(leaf, v).is_some_and(|m| m.1 == leaf.inner);
        if self.random.chance(0.6)
            && let Some(v) = self.pick(fits)
        {
            return v;
        }
        let Some(v) = self.pick(Item::is_float) else { return leaf.clone() };
        let n = self.numel(&v).max(1) as f64;
        let error = v.error + 4.0 * n.sqrt() * UNIT / 8.0 * v.size + UNIT * v.size;
        Item { tensor: v.tensor.mean(..), times: None, inner: vec![], size: v.size, error, exact: false }
    }

    fn update(&mut self, state: &[Tensor], slopes: &[Option<Tensor>]) -> Vec<Item> {
        let mut new: Vec<Item> = Vec::new();
        let spec = |i: usize| &self.function.state[i];
        // An optimizer treats all alike, which is what packs.
        let alike = self.random.chance(0.4);
        let rate = self.random.uniform(0.01, 0.5);
        for (i, leaf) in state.iter().enumerate() {
            let (shape, dtype) = spec(i).clone();
            let old =
                Item { tensor: leaf.clone(), times: None, inner: shape.clone(), size: 2.0, error: 0.0, exact: false };
            let item = |tensor: Tensor, error: f64| Item { tensor, error, ..old.clone() };
            if self.random.chance(0.1) {
                new.push(old);
                continue;
            }
            // Another leaf of the kind: its old value, or its new one.
            let twins: Vec<usize> = (0..state.len()).filter(|&j| j != i && *spec(j) == *spec(i)).collect();
            if !twins.is_empty() && self.random.chance(0.2) {
                let twin = *self.random.pick(&twins);
                new.push(match new.get(twin) {
                    Some(updated) if self.random.chance(0.6) => updated.clone(),
                    _ => item(state[twin].clone(), 0.0),
                });
                continue;
            }
            match dtype {
                DType::I32 => {
                    let exact = |v: &Item| v.tensor.dtype() == DType::I32 && v.size < 100.0;
                    let add = match self.pick(|v| {
                        exact(v) && v.times.is_none() && Self::meet(&old, v).is_some_and(|m| m.1 == old.inner)
                    }) {
                        Some(v) if self.random.chance(0.5) => leaf + v.tensor,
                        _ => leaf + 1.0,
                    };
                    new.push(item(add.maximum(-1000.0).minimum(1000.0), 0.0));
                }
                DType::U32 => {
                    let data = self.random.below(100) as f64;
                    new.push(item(random::fold_in(leaf, data), 0.0));
                }
                DType::Bool => new.push(item(leaf.not(), 0.0)),
                DType::F32 => {
                    if let Some(slope) = slopes[i].as_ref().filter(|_| alike || self.random.chance(0.5)) {
                        let error = 40.0 * UNIT + UNIT * 3.0;
                        new.push(item((leaf - slope * rate).clip(-2.0, 2.0), error));
                        continue;
                    }
                    let mut v = self.fit(&old);
                    // The new value of another leaf in its own.
                    if let Some(other) = new.last().filter(|v| v.tensor.dtype() == DType::F32)
                        && self.random.chance(0.3)
                    {
                        let n = self.numel(other).max(1) as f64;
                        let error = other.error + n.sqrt() * UNIT + 2.0 * UNIT;
                        v = Item {
                            tensor: other.tensor.mean(..),
                            times: None,
                            inner: vec![],
                            size: 2.0,
                            error,
                            exact: false,
                        };
                    }
                    let error = v.error + UNIT * (v.size + 2.0) * 2.0;
                    let itself = match self.random.below(5) {
                        // Read at other elements than those written.
                        0 if !shape.is_empty() => leaf.flip(0),
                        1 if shape.len() >= 2 && shape[0] == shape[1] && shape.len() == 2 => leaf.t(),
                        _ => leaf.clone(),
                    };
                    let tensor = match self.random.below(4) {
                        0 => itself * 0.9 + &v.tensor * 0.1,
                        1 => itself - &v.tensor * rate,
                        2 => v.tensor.broadcast_to(shape),
                        _ => (itself + &v.tensor) * 0.5,
                    };
                    new.push(item(tensor.clip(-2.0, 2.0), error));
                }
            }
            let latest = new[new.len() - 1].clone();
            // Others may read the new value as well as the old.
            if latest.is_float() && self.random.chance(0.3) {
                self.items.push(latest);
            }
        }
        new
    }

    /// A scalar of the old state, the new one, or anything between.
    fn log(&mut self, new: &[Item]) -> Item {
        let item = match self.random.below(3) {
            0 => new[self.random.below(new.len())].clone(),
            _ => match self.pick(|_| true) {
                Some(item) => item,
                None => new[0].clone(),
            },
        };
        // Keys are not numbers.
        let float = if item.tensor.dtype() == DType::U32 {
            item.tensor.eq(0.0).cast(DType::F32)
        } else {
            item.tensor.cast(DType::F32)
        };
        let n = self.numel(&item).max(1) as f64;
        let largest = if item.is_float() { item.size.max(2.0) } else { 1e4 };
        let error = item.error + 4.0 * n.sqrt() * UNIT / 8.0 * largest + UNIT * largest;
        let (tensor, error) = match self.random.chance(0.7) {
            true => (float.mean(..), error),
            false => (float.max(..), item.error),
        };
        Item { tensor, times: None, inner: vec![], size: largest, error, exact: false }
    }
}
