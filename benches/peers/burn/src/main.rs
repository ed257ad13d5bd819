//! The benchmark's cases on burn's wgpu backend: what a user of Rust would pick instead.
//!
//!     burn-bench [case...]
//!
//! prints a line of JSON for each case with the names and definitions of our own benches; `scripts/bench-peers burn` builds it and runs it in
//! turns with them. Whatever burn tunes, it tunes in the runs before the timed ones; its choices persist in its own cache. A kernel's
//! runs are queued, their results held until the device was waited for, so that none may be left out, or with WENGERT_BENCH_WAIT
//! each is waited for; a step uploads its batch, as ours do, and queues forward, backward and Adam. Deliberately absent: metrics (our steps compute accuracy besides), checks of results, and
//! other backends of burn.

use std::time::Instant;

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{CrossEntropyLossConfig, MseLoss, Reduction};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::{gelu, relu, softmax};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

/// Runs before anything is timed: tuning and fusion search take place in them.
const WARM: usize = 25;
/// Timed blocks, of about so many seconds each.
const BLOCKS: usize = 11;
const BLOCK: f64 = 0.1;

/// Prints the median over blocks of the milliseconds of a run.
fn measure<R>(name: &str, device: &Device, mut run: impl FnMut() -> R) {
    let sync = || device.sync().expect("the device");
    for _ in 0..WARM {
        let _held = run();
        sync();
    }
    let started = Instant::now();
    let held = run();
    sync();
    drop(held);
    let queued = ((BLOCK / started.elapsed().as_secs_f64()) as usize).clamp(1, 200);
    let waits = std::env::var_os("WENGERT_BENCH_WAIT").is_some();
    let (runs, blocks) = if waits { (1, queued.max(BLOCKS)) } else { (queued, BLOCKS) };
    let mut block = || {
        let mut held = Vec::with_capacity(runs);
        let started = Instant::now();
        held.extend((0..runs).map(|_| run()));
        sync();
        started.elapsed().as_secs_f64() * 1e3 / runs as f64
    };
    block();
    let mut times: Vec<f64> = (0..blocks).map(|_| block()).collect();
    times.sort_by(f64::total_cmp);
    println!("{{\"case\":\"{name}\",\"ms_median\":{:.5},\"n\":{}}}", times[blocks / 2], blocks * runs);
}

/// A chosen case's kernel.
fn kernels(chosen: &dyn Fn(&str) -> bool, device: &Device) {
    let matrix = |n: usize| Tensor::<2>::random([n, n], Distribution::Uniform(-1.0, 1.0), device);
    for n in [512, 1024] {
        let name = format!("matmul_nn_{n}");
        if chosen(&name) {
            let (a, b) = (matrix(n), matrix(n));
            measure(&name, device, || a.clone().matmul(b.clone()));
        }
    }
    let vector = |n: usize| Tensor::<1>::random([n], Distribution::Uniform(-1.0, 1.0), device);
    if chosen("gelu_fma_4m") {
        let [a, b, c] = [(); 3].map(|()| vector(1 << 22));
        measure("gelu_fma_4m", device, || gelu(a.clone() * b.clone() + c.clone()));
    }
    if chosen("sum_4m") {
        let x = vector(1 << 22);
        measure("sum_4m", device, || x.clone().sum());
    }
    if chosen("softmax_1024") {
        let x = matrix(1024);
        measure("softmax_1024", device, || softmax(x.clone(), 1));
    }
    if chosen("layernorm_1024") {
        let (x, scale, shift) = (matrix(1024), vector(1024), vector(1024));
        measure("layernorm_1024", device, || layer_norm(x.clone(), scale.clone(), Some(shift.clone()), 1e-3));
    }
}

/// Forward, backward and Adam of a model on a batch that `loss` uploads.
fn step<M: Module>(name: &str, device: &Device, model: M, loss: impl Fn(&M) -> Tensor<1>) {
    let mut optimizer = AdamConfig::new().with_epsilon(1e-7).init();
    let mut model = Some(model);
    measure(name, device, || {
        let held = model.take().expect("a model");
        let gradients = GradientsParams::from_grads(loss(&held).backward(), &held);
        model = Some(optimizer.step(1e-3, held, gradients));
    });
}

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    fn new(sizes: &[usize], device: &Device) -> Mlp {
        Mlp { layers: sizes.windows(2).map(|pair| LinearConfig::new(pair[0], pair[1]).init(device)).collect() }
    }

    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for (at, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if at + 1 < self.layers.len() {
                x = relu(x);
            }
        }
        x
    }
}

#[derive(Module, Debug)]
struct Cnn {
    first: Conv2d,
    second: Conv2d,
    pool: MaxPool2d,
    head: Mlp,
}

impl Cnn {
    fn new(device: &Device) -> Cnn {
        Cnn {
            first: Conv2dConfig::new([1, 32], [3, 3]).init(device),
            second: Conv2dConfig::new([32, 64], [3, 3]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            head: Mlp::new(&[1600, 128, 10], device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.first.forward(x)));
        let x = self.pool.forward(relu(self.second.forward(x)));
        self.head.forward(x.flatten(1, 3))
    }
}

/// Two pre-norm blocks of width 128 with 4 causal heads over 64 of 96 characters.
#[derive(Module, Debug)]
struct Transformer {
    characters: Embedding,
    places: Embedding,
    blocks: TransformerEncoder,
    norm: LayerNorm,
    head: Linear,
}

impl Transformer {
    fn new(device: &Device) -> Transformer {
        Transformer {
            characters: EmbeddingConfig::new(96, 128).init(device),
            places: EmbeddingConfig::new(64, 128).init(device),
            blocks: TransformerEncoderConfig::new(128, 512, 4, 2).with_dropout(0.0).with_norm_first(true).init(device),
            norm: LayerNormConfig::new(128).init(device),
            head: LinearConfig::new(128, 96).init(device),
        }
    }
}

fn steps(chosen: &dyn Fn(&str) -> bool, device: &Device) {
    let inner = device.clone();
    let device = &device.clone().autodiff();
    let floats = |n: usize| (0..n).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect::<Vec<_>>();
    let classes = |n: usize, of: usize| (0..n).map(|i| (i * i * 7 + i * 13) as i32 % of as i32).collect::<Vec<_>>();
    let labels = |values: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
    let cross_entropy = CrossEntropyLossConfig::new().init(device);
    if chosen("step_seed") {
        let (x, y) = (floats(32 * 32), floats(32));
        step("step_seed", &inner, Mlp::new(&[32, 1], device), |model| {
            let x = Tensor::<2>::from_data(TensorData::new(x.clone(), [32, 32]), device);
            let y = Tensor::<2>::from_data(TensorData::new(y.clone(), [32, 1]), device);
            MseLoss::new().forward(model.forward(x), y, Reduction::Mean)
        });
    }
    if chosen("step_mlp") {
        let (x, y) = (floats(128 * 784), classes(128, 10));
        step("step_mlp", &inner, Mlp::new(&[784, 512, 512, 10], device), |model| {
            let x = Tensor::<2>::from_data(TensorData::new(x.clone(), [128, 784]), device);
            cross_entropy.forward(model.forward(x), labels(&y))
        });
    }
    if chosen("step_cnn") {
        let (x, y) = (floats(64 * 784), classes(64, 10));
        step("step_cnn", &inner, Cnn::new(device), |model| {
            let x = Tensor::<4>::from_data(TensorData::new(x.clone(), [64, 1, 28, 28]), device);
            cross_entropy.forward(model.forward(x), labels(&y))
        });
    }
    if chosen("step_tfm") {
        let text = classes(16 * 64 + 1, 96);
        let places = Tensor::<1, Int>::arange(0..64, device).reshape([1, 64]).repeat_dim(0, 16);
        let mask = generate_autoregressive_mask(16, 64, device);
        step("step_tfm", &inner, Transformer::new(device), |model| {
            let ids = Tensor::<2, Int>::from_data(TensorData::new(text[..1024].to_vec(), [16, 64]), device);
            let x = model.characters.forward(ids) + model.places.forward(places.clone());
            let y = model.blocks.forward(TransformerEncoderInput::new(x).mask_attn(mask.clone()));
            cross_entropy.forward(model.head.forward(model.norm.forward(y).reshape([1024, 128])), labels(&text[1..]))
        });
    }
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |case: &str| names.is_empty() || names.iter().any(|name| name == case);
    let device = Device::wgpu(Default::default());
    kernels(&chosen, &device);
    steps(&chosen, &device);
}
