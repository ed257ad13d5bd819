//! The kernels that are checked and timed, one table for `examples/kernel_bench.rs`, `benches/kernels.rs` and
//! `tests/kernels.rs`.
//!
//! A case is a pure function of a state and some inputs, written in the public API as a user would write it; which kernels
//! it becomes is the compiler's affair. [`timed`] has the sizes that figures are quoted for, [`sweep`] the same functions
//! at sizes that are small, odd, one or nothing, and over views. Deliberately absent: WGSL, and anything about devices.

use wengert::graph::interpret::{Array, Given, interpret};
use wengert::ops::{Attend, Conv, Window, attention};
use wengert::prelude::*;
use wengert::random::threefry;

/// The new state from the old one and the inputs.
pub type Apply = dyn Fn(&[Tensor], &[Tensor]) -> Result<Vec<Tensor>>;
/// Expected elements of a product that is too large for the interpreter: (index, value).
pub type Sampled = dyn Fn(&[Tensor]) -> Result<Vec<(usize, f64)>>;

/// One kernel at one size.
pub struct Case {
    pub name: String,
    /// What is replaced by the results; zeros unless the kernel updates something in place.
    pub state: Vec<Tensor>,
    pub inputs: Vec<Tensor>,
    pub apply: Box<Apply>,
    /// Bytes that must move: every input once, every result once.
    pub bytes: u64,
    /// How many terms of like size a result is the sum of, for the bound on its error; 0: results are exact.
    pub terms: usize,
    sampled: Option<Box<Sampled>>,
}

/// Elements of a tensor the host made, as f64.
pub fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(interpret(std::slice::from_ref(tensor), &Given::new())?.remove(0).data)
}

/// A tensor on the host with the shape and dtype of another.
fn from_host(values: &[f64], like: &Tensor) -> Result<Tensor> {
    let shape = like.ok()?.shape();
    Ok(match like.dtype() {
        DType::I32 => Tensor::new(&values.iter().map(|&v| v as i32).collect::<Vec<_>>(), shape),
        DType::U32 => Tensor::new(&values.iter().map(|&v| v as u32).collect::<Vec<_>>(), shape),
        _ => Tensor::new(&values.iter().map(|&v| v as f32).collect::<Vec<_>>(), shape),
    })
}

/// The same values in tensors of their own: what goes to a device, or is overwritten there, is no longer on the host.
pub fn copies(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    tensors.iter().map(|tensor| from_host(&host(tensor)?, tensor)).collect()
}

impl Case {
    /// A kernel whose results have the shapes that `apply` gives them.
    fn new(
        name: impl Into<String>,
        inputs: Vec<Tensor>,
        terms: usize,
        apply: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + 'static,
    ) -> Result<Case> {
        let results = apply(&inputs)?;
        let state =
            results.iter().map(|y| Ok(Tensor::zeros(y.ok()?.shape()).cast(y.dtype()))).collect::<Result<_>>()?;
        let bytes = |tensors: &[Tensor]| tensors.iter().filter_map(Tensor::spec).map(Spec::bytes).sum::<u64>();
        let bytes = bytes(&inputs) + bytes(&results);
        Ok(Case {
            name: name.into(),
            state,
            inputs,
            apply: Box::new(move |_, inputs| apply(inputs)),
            bytes,
            terms,
            sampled: None,
        })
    }

    /// What the results should be, in f64: for each the indices and values that are compared.
    pub fn expected(&self) -> Result<Vec<Vec<(usize, f64)>>> {
        if let Some(sampled) = &self.sampled {
            return Ok(vec![sampled(&self.inputs)?]);
        }
        let arrays: Vec<Array> = interpret(&(self.apply)(&self.state, &self.inputs)?, &Given::new())?;
        Ok(arrays.into_iter().map(|array| array.data.into_iter().enumerate().collect()).collect())
    }

    /// The largest error allowed in a result whose largest element is `scale`. Errors of a sum of n rounded terms grow as
    /// the square root of n; a chain of functions has a few of its own.
    pub fn bound(&self, scale: f64) -> f64 {
        match self.terms {
            0 => 0.0,
            terms => f64::from(f32::EPSILON) * (16.0 + 4.0 * (terms as f64).sqrt()) * scale,
        }
    }

    /// The same kernel over parts of larger tensors: every axis of every input begins one element in and ends one early.
    pub fn on_views(self) -> Result<Case> {
        let Case { name, state, inputs, apply, bytes, terms, .. } = self;
        let larger = |input: &Tensor| -> Result<Tensor> {
            let shape = input.shape();
            let padded = input.pad(&vec![(1, 1); shape.len()]);
            let values = interpret(std::slice::from_ref(&padded), &Given::new())?.remove(0).data;
            if input.dtype() != DType::F32 {
                return from_host(&values, padded.ok()?);
            }
            // Ones around it, so that what is read beyond an edge shows.
            let ring = interpret(&[Tensor::ones(shape.clone()).pad(&vec![(1, 1); shape.len()])], &Given::new())?;
            let ringed: Vec<f64> = values.iter().zip(&ring[0].data).map(|(v, within)| v + 1.0 - within).collect();
            from_host(&ringed, padded.ok()?)
        };
        let inputs = inputs.iter().map(larger).collect::<Result<Vec<_>>>()?;
        let within = |tensor: &Tensor| {
            (0..tensor.rank()).fold(tensor.clone(), |t, axis| t.slice(axis as i32, 1..t.dim(axis).saturating_sub(1)))
        };
        let apply: Box<Apply> =
            Box::new(move |state, inputs| apply(state, &inputs.iter().map(within).collect::<Vec<_>>()));
        Ok(Case { name: format!("{name} on views"), state, inputs, apply, bytes, terms, sampled: None })
    }
}

/// Numbers in (-1, 1), other ones for each seed.
fn uniform(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(&threefry::uniform(threefry::key(seed), shape.iter().product(), -1.0, 1.0), shape)
}

/// The gradients of `sum(y c)` by all inputs but the last, which is `c`.
fn backward(f: impl Fn(&[Tensor]) -> Tensor + 'static) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> {
    move |inputs| {
        let (c, at) = inputs.split_last().map(|(c, at)| (c, at.to_vec())).unwrap_or((&inputs[0], Vec::new()));
        wengert::prelude::grad(|at: &Vec<Tensor>| Ok((f(at) * c).sum(..)), &at)
    }
}

/// C = A B of a batch of matrices; `layout` says which operands are stored transposed: "nn", "tn" or "nt".
fn product(name: &str, layout: &str, batch: usize, [m, k, n]: [usize; 3]) -> Result<Case> {
    let (ta, tb) = (layout.starts_with('t'), layout.ends_with('t'));
    let stored = |rows: usize, columns: usize, transposed: bool| match transposed {
        false => vec![rows, columns],
        true => vec![columns, rows],
    };
    let of_batch = |shape: Vec<usize>| if batch == 1 { shape } else { [vec![batch], shape].concat() };
    let inputs = vec![uniform(1, &of_batch(stored(m, k, ta))), uniform(2, &of_batch(stored(k, n, tb)))];
    let plain = |x: &Tensor, transposed: bool| if transposed { x.t() } else { x.clone() };
    let apply = move |x: &[Tensor]| Ok(vec![plain(&x[0], ta).matmul(&plain(&x[1], tb))]);
    let mut case = Case::new(name, inputs, k, apply)?;
    // Up to so many rows of the result, spread over all of it: the whole would take the host minutes.
    const ROWS: usize = 24;
    case.sampled = Some(Box::new(move |inputs| {
        let (a, b) = (host(&inputs[0])?, host(&inputs[1])?);
        let rows = batch * m;
        let mut expected = Vec::new();
        for at in 0..rows.min(ROWS) {
            let row = if rows <= ROWS { at } else { at * (rows - 1) / (ROWS - 1) };
            let (matrix, i) = (row / m, row % m);
            let (a, b) = (&a[matrix * m * k..], &b[matrix * k * n..]);
            let mut sums = vec![0.0; n];
            for p in 0..k {
                let left = if ta { a[p * m + i] } else { a[i * k + p] };
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum += left * if tb { b[j * k + p] } else { b[p * n + j] };
                }
            }
            expected.extend(sums.into_iter().enumerate().map(|(j, sum)| (row * n + j, sum)));
        }
        Ok(expected)
    }));
    Ok(case)
}

/// By erf, or by tanh.
fn gelu_fma(name: &str, n: usize, exact: bool) -> Result<Case> {
    let inputs = (1..=3).map(|seed| uniform(seed, &[n])).collect();
    let gelu = if exact { Tensor::gelu } else { Tensor::gelu_tanh };
    Case::new(name, inputs, 1, move |x| Ok(vec![gelu(&(&x[0] * &x[1] + &x[2]))]))
}

fn sum(name: &str, n: usize) -> Result<Case> {
    Case::new(name, vec![uniform(1, &[n])], n.max(1), |x| Ok(vec![x[0].sum(..)]))
}

/// Sums over the rows: gradients of biases and scales.
fn columns(name: &str, rows: usize, length: usize) -> Result<Case> {
    Case::new(name, vec![uniform(1, &[rows, length])], rows.max(1), |x| Ok(vec![x[0].sum(0)]))
}

fn softmax(name: &str, rows: usize, length: usize, back: bool) -> Result<Case> {
    let x = uniform(1, &[rows, length]);
    match back {
        false => Case::new(name, vec![x], length, |x| Ok(vec![x[0].softmax(-1)])),
        true => Case::new(name, vec![x, uniform(2, &[rows, length])], length, backward(|x| x[0].softmax(-1))),
    }
}

/// With scale and shift; the variance is that of the differences from the mean.
fn layer_norm(name: &str, rows: usize, length: usize, back: bool) -> Result<Case> {
    let f = |x: &[Tensor]| x[0].standardize(-1, 1e-3) * &x[1] + &x[2];
    let mut inputs = vec![uniform(1, &[rows, length]), uniform(2, &[length]), uniform(3, &[length])];
    match back {
        false => Case::new(name, inputs, length, move |x| Ok(vec![f(x)])),
        true => {
            inputs.push(uniform(4, &[rows, length]));
            Case::new(name, inputs, rows.max(length), backward(f))
        }
    }
}

/// One update of parameters of these shapes.
fn adam(name: &str, shapes: &[&[usize]]) -> Result<Case> {
    let optimizer = Optimizer::from(Adam::default());
    let parameters: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| uniform(seed, shape)).collect();
    let inputs: Vec<Tensor> = shapes.iter().zip(101..).map(|(shape, seed)| uniform(seed, shape)).collect();
    let count = parameters.len();
    let state: Vec<Tensor> = parameters.iter().cloned().chain(optimizer.variables(&parameters)?).collect();
    // Gradient, parameter and two moments are read, all but the first written.
    let bytes = 7 * inputs.iter().filter_map(Tensor::spec).map(Spec::bytes).sum::<u64>();
    let apply = move |state: &[Tensor], inputs: &[Tensor]| {
        let (parameters, variables, gradients) = (state[..count].to_vec(), state[count..].to_vec(), inputs.to_vec());
        let (parameters, variables) = optimizer.stateless_apply(&variables, &gradients, &parameters)?;
        Ok(parameters.into_iter().chain(variables).collect())
    };
    Ok(Case { name: name.into(), state, inputs, apply: Box::new(apply), bytes, terms: 1, sampled: None })
}

/// Which of the three products of a convolution.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Forward,
    Image,
    Kernel,
}

/// 3 x 3, no padding: images `[n, side, side, channels]` to `filters` channels.
fn conv(name: &str, pass: Pass, [n, side, channels, filters]: [usize; 4]) -> Result<Case> {
    let image = uniform(1, &[n, side, side, channels]);
    let kernel = uniform(2, &[3, 3, channels, filters]);
    let out = side - 2;
    let g = uniform(3, &[n, out, out, filters]);
    let f = |image: &Tensor, kernel: &Tensor| image.conv2d(kernel, &Conv::default());
    match pass {
        Pass::Forward => Case::new(name, vec![image, kernel], 9 * channels, move |x| Ok(vec![f(&x[0], &x[1])])),
        Pass::Image => Case::new(name, vec![image, kernel, g], 9 * filters, move |x| {
            wengert::prelude::grad(|at: &Vec<Tensor>| Ok((f(&at[0], &x[1]) * &x[2]).sum(..)), &vec![x[0].clone()])
        }),
        Pass::Kernel => Case::new(name, vec![image, kernel, g], n * out * out, move |x| {
            wengert::prelude::grad(|at: &Vec<Tensor>| Ok((f(&x[0], &at[0]) * &x[2]).sum(..)), &vec![x[1].clone()])
        }),
    }
}

/// The maximum over 2 x 2, or its gradient.
fn pool(name: &str, [n, side, channels]: [usize; 3], back: bool) -> Result<Case> {
    let window = Window { kernel: [2, 2], stride: [2, 2], ..Window::default() };
    let image = uniform(1, &[n, side, side, channels]);
    match back {
        false => Case::new(name, vec![image], 0, move |x| Ok(vec![x[0].max_pool2d(&window)])),
        true => {
            let g = uniform(2, &[n, side / 2, side / 2, channels]);
            Case::new(name, vec![image, g], 0, backward(move |x| x[0].max_pool2d(&window)))
        }
    }
}

/// Causal attention of `[batch, steps, heads, length]`, or its three gradients.
fn attend(name: &str, shape: [usize; 4], back: bool) -> Result<Case> {
    let f = |x: &[Tensor]| attention(&x[0], &x[1], &x[2], &Attend { causal: true, ..Attend::default() });
    let mut inputs: Vec<Tensor> = (1..=3).map(|seed| uniform(seed, &shape)).collect();
    let terms = shape[1] + shape[3];
    match back {
        false => Case::new(name, inputs, terms, move |x| Ok(vec![f(x)])),
        true => {
            inputs.push(uniform(4, &shape));
            Case::new(name, inputs, terms, backward(f))
        }
    }
}

/// An array written with its axes in another order.
fn transpose(name: &str, shape: &[usize], order: &'static [usize]) -> Result<Case> {
    Case::new(name, vec![uniform(1, shape)], 0, move |x| Ok(vec![x[0].permute(order)]))
}

/// Rows of a table by number, or the gradient of the table.
fn embedding(name: &str, [vocabulary, width, tokens]: [usize; 3], back: bool) -> Result<Case> {
    let indices: Vec<i32> = (0..tokens).map(|i| (i * i * 7 + i * 13) as i32 % vocabulary.max(1) as i32).collect();
    let indices = Tensor::new(&indices, [tokens]);
    let table = uniform(1, &[vocabulary, width]);
    if back {
        let inputs = vec![table, indices, uniform(2, &[tokens, width])];
        return Case::new(name, inputs, tokens.max(1), move |x| {
            wengert::prelude::grad(|t: &Vec<Tensor>| Ok((t[0].take(&x[1], 0) * &x[2]).sum(..)), &vec![x[0].clone()])
        });
    }
    let mut case = Case::new(name, vec![table, indices], 0, |x| Ok(vec![x[0].take(&x[1], 0)]))?;
    // The rows that are taken are read, not the table.
    case.bytes = (4 * tokens * (2 * width + 1)) as u64;
    Ok(case)
}

fn bits(name: &str, n: usize) -> Result<Case> {
    Case::new(name, vec![random::key(7)], 0, move |x| Ok(vec![random::bits(&x[0], [n])]))
}

/// A case by name, made when it is run: inputs of all at once would take a gigabyte.
pub type Entry = (&'static str, fn(&str) -> Result<Case>);

/// The parameters of 784-512-512-10: 669,706 in buffers of their own, with gradients from outside. Within a step they would lie
/// one behind the other.
const MLP: [&[usize]; 6] = [&[784, 512], &[512], &[512, 512], &[512], &[512, 10], &[10]];

/// The cases that figures are quoted for.
pub fn timed() -> Vec<Entry> {
    vec![
        ("matmul_nn_256", |name| product(name, "nn", 1, [256; 3])),
        ("matmul_nn_512", |name| product(name, "nn", 1, [512; 3])),
        ("matmul_nn_1024", |name| product(name, "nn", 1, [1024; 3])),
        ("matmul_nn_2048", |name| product(name, "nn", 1, [2048; 3])),
        ("matmul_tn_512", |name| product(name, "tn", 1, [512; 3])),
        ("matmul_nt_512", |name| product(name, "nt", 1, [512; 3])),
        ("matmul_tn_1024", |name| product(name, "tn", 1, [1024; 3])),
        ("matmul_nt_1024", |name| product(name, "nt", 1, [1024; 3])),
        ("matmul_nn_513", |name| product(name, "nn", 1, [513; 3])),
        ("matmul_128x784x512", |name| product(name, "nn", 1, [128, 784, 512])),
        ("matmul_32x32x1", |name| product(name, "nn", 1, [32, 32, 1])),
        ("bmm_64x64x64x32", |name| product(name, "nn", 64, [64, 64, 32])),
        ("gelu_fma_4m", |name| gelu_fma(name, 1 << 22, true)),
        ("gelu_tanh_fma_4m", |name| gelu_fma(name, 1 << 22, false)),
        ("sum_4m", |name| sum(name, 1 << 22)),
        ("columns_1024", |name| columns(name, 1024, 1024)),
        ("softmax_1024", |name| softmax(name, 1024, 1024, false)),
        ("softmax_1024_backward", |name| softmax(name, 1024, 1024, true)),
        ("layernorm_1024", |name| layer_norm(name, 1024, 1024, false)),
        ("layernorm_1024_backward", |name| layer_norm(name, 1024, 1024, true)),
        ("attention_16x64", |name| attend(name, [16, 64, 4, 32], false)),
        ("attention_16x64_backward", |name| attend(name, [16, 64, 4, 32], true)),
        ("adam_670k", |name| adam(name, &[&[669_706]])),
        ("adam_670k_parts", |name| adam(name, &MLP)),
        ("conv1_forward", |name| conv(name, Pass::Forward, [64, 28, 1, 32])),
        ("conv1_kernel", |name| conv(name, Pass::Kernel, [64, 28, 1, 32])),
        ("conv2_forward", |name| conv(name, Pass::Forward, [64, 13, 32, 64])),
        ("conv2_image", |name| conv(name, Pass::Image, [64, 13, 32, 64])),
        ("conv2_kernel", |name| conv(name, Pass::Kernel, [64, 13, 32, 64])),
        ("pool", |name| pool(name, [64, 26, 32], false)),
        ("pool_backward", |name| pool(name, [64, 26, 32], true)),
        ("transpose_1024", |name| transpose(name, &[1024, 1024], &[1, 0])),
        ("transpose_heads", |name| transpose(name, &[16, 64, 4, 32], &[0, 2, 1, 3])),
        ("embedding", |name| embedding(name, [10_000, 128, 8192], false)),
        ("embedding_backward", |name| embedding(name, [96, 128, 1024], true)),
        ("random_bits_4m", |name| bits(name, 1 << 22)),
    ]
}

/// Products that only a GPU finishes in reasonable time, and rows of 64 MB, which no cache holds; timed on request.
pub fn large() -> Vec<Entry> {
    vec![
        ("matmul_nn_4096", |name| product(name, "nn", 1, [4096; 3])),
        ("matmul_nn_8192", |name| product(name, "nn", 1, [8192; 3])),
        ("gelu_fma_16m", |name| gelu_fma(name, 1 << 24, true)),
        ("sum_16m", |name| sum(name, 1 << 24)),
        ("softmax_4096", |name| softmax(name, 4096, 4096, false)),
        ("softmax_4096_backward", |name| softmax(name, 4096, 4096, true)),
        ("layernorm_4096", |name| layer_norm(name, 4096, 4096, false)),
        ("layernorm_4096_backward", |name| layer_norm(name, 4096, 4096, true)),
    ]
}

/// Every kernel at sizes that are small, off every tile, one or nothing; and over views.
pub fn sweep() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let sizes = [[0, 5, 3], [3, 0, 5], [1, 1, 1], [1, 64, 1], [33, 17, 65], [64, 64, 64], [129, 37, 1], [5, 300, 7]];
    for layout in ["nn", "tn", "nt"] {
        for size in sizes {
            cases.push(product(&format!("matmul {layout} {size:?}"), layout, 1, size)?);
            cases.push(product(&format!("matmul {layout} {size:?}"), layout, 1, size)?.on_views()?);
        }
        cases.push(product(&format!("matmul {layout} batched"), layout, 3, [17, 9, 20])?);
    }
    for n in [0, 1, 3, 4, 255, 1030, 70_001] {
        cases.push(gelu_fma(&format!("gelu_fma {n}"), n, true)?);
        cases.push(gelu_fma(&format!("gelu_fma {n}"), n, true)?.on_views()?);
        cases.push(gelu_fma(&format!("gelu_tanh_fma {n}"), n, false)?);
        cases.push(sum(&format!("sum {n}"), n)?);
        cases.push(sum(&format!("sum {n}"), n)?.on_views()?);
        cases.push(bits(&format!("bits {n}"), n)?);
    }
    for (rows, length) in [(0, 5), (1, 1), (1, 1027), (7, 3), (9, 64), (5, 100), (3, 1024), (2, 1028), (2, 5001)] {
        cases.push(columns(&format!("columns {rows}x{length}"), rows, length)?);
        for back in [false, true] {
            let suffix = if back { " backward" } else { "" };
            let name = format!("softmax {rows}x{length}{suffix}");
            cases.push(softmax(&name, rows, length, back)?);
            cases.push(softmax(&name, rows, length, back)?.on_views()?);
            let name = format!("layer norm {rows}x{length}{suffix}");
            // Of a row of one element the variance is zero and its gradient a difference of equals.
            if length > 1 {
                cases.push(layer_norm(&name, rows, length, back)?);
                cases.push(layer_norm(&name, rows, length, back)?.on_views()?);
            }
        }
    }
    cases.push(adam("adam", &[&[33, 7], &[7], &[1], &[128, 3], &[0]])?);
    for shape in [[0, 3, 2, 4], [1, 1, 1, 1], [2, 7, 3, 5], [1, 70, 2, 8]] {
        for back in [false, true] {
            let name = format!("attention {shape:?}{}", if back { " backward" } else { "" });
            cases.push(attend(&name, shape, back)?);
            cases.push(attend(&name, shape, back)?.on_views()?);
        }
    }
    for pass in [Pass::Forward, Pass::Image, Pass::Kernel] {
        for size in [[1, 3, 1, 1], [2, 7, 3, 5], [3, 9, 4, 8]] {
            let of = ["forward", "image", "kernel"][pass as usize];
            cases.push(conv(&format!("conv {of} {size:?}"), pass, size)?);
            cases.push(conv(&format!("conv {of} {size:?}"), pass, size)?.on_views()?);
        }
    }
    for size in [[1, 2, 1], [2, 7, 3], [1, 8, 4]] {
        for back in [false, true] {
            cases.push(pool(&format!("pool {size:?} {back}"), size, back)?);
            cases.push(pool(&format!("pool {size:?} {back}"), size, back)?.on_views()?);
        }
    }
    for shape in [[1, 1], [0, 4], [5, 3], [33, 65], [64, 32]] {
        cases.push(transpose(&format!("transpose {shape:?}"), &shape, &[1, 0])?);
        cases.push(transpose(&format!("transpose {shape:?}"), &shape, &[1, 0])?.on_views()?);
    }
    cases.push(transpose("transpose heads", &[2, 5, 3, 7], &[0, 2, 1, 3])?);
    for size in [[1, 1, 1], [7, 5, 12], [10, 4, 0], [13, 8, 33]] {
        for back in [false, true] {
            cases.push(embedding(&format!("embedding {size:?} {back}"), size, back)?);
        }
    }
    Ok(cases)
}
