//! What the tests of the language share: a generator of numbers, leaves made of them, and values read back as f64.
//!
//! Deliberately absent: tolerances. Each test states its own and where it comes from.

#![allow(dead_code)] // each test file uses its part

#[cfg(not(target_arch = "wasm32"))]
pub mod training;
#[cfg(not(target_arch = "wasm32"))]
pub mod translate;

use wengert::dtype::DType;
use wengert::gpu::Device;
use wengert::graph::Tensor;
use wengert::shape::Shape;

/// SplitMix64 (Steele, Lea and Flood 2014): small, and independent of the generator under test.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform(0.0, 1.0) < p
    }

    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Floats of a domain; rounded to halves if `coarse`, where the domain holds them, so that ties and kinks occur.
    pub fn floats(&mut self, n: usize, (low, high): (f64, f64), coarse: bool) -> Vec<f32> {
        let mut next = || {
            let x = self.uniform(low, high);
            let half = (x * 2.0).round() / 2.0;
            (if coarse && (low..=high).contains(&half) { half } else { x }) as f32
        };
        (0..n).map(|_| next()).collect()
    }

    /// A leaf on the host. Bools are u32 leaves of 0 and 1, since hosts have no bool tensors; see [`bool_if`].
    pub fn leaf(&mut self, shape: &Shape, dtype: DType, domain: (f64, f64), coarse: bool) -> Tensor {
        let n = shape.numel();
        let (low, high) = (domain.0.ceil(), domain.1.floor());
        match dtype {
            DType::F32 => Tensor::new(&self.floats(n, domain, coarse), shape),
            DType::I32 => {
                let data: Vec<i32> = (0..n).map(|_| self.uniform(low, high + 1.0).floor() as i32).collect();
                Tensor::new(&data, shape)
            }
            DType::U32 | DType::Bool => {
                let data: Vec<u32> = (0..n).map(|_| self.uniform(low, high + 1.0).floor() as u32).collect();
                Tensor::new(&data, shape)
            }
        }
    }
}

/// The tensor that a leaf of [`Random::leaf`] stands for.
pub fn bool_if(leaf: &Tensor, dtype: DType) -> Tensor {
    if dtype == DType::Bool { leaf.cast(DType::Bool) } else { leaf.clone() }
}

/// Zeros of any dtype that hold a value on the device: what a state starts with.
pub fn blank(shape: &Shape, dtype: DType, device: &Device) -> Tensor {
    let n = shape.numel();
    match dtype {
        DType::F32 => Tensor::new(&vec![0f32; n], shape),
        DType::I32 => Tensor::new(&vec![0i32; n], shape),
        DType::U32 => Tensor::new(&vec![0u32; n], shape),
        DType::Bool => Tensor::new(&vec![0u32; n], shape).cast(DType::Bool).to(device).unwrap(),
    }
}

/// The elements as f64, computed on `device`.
pub async fn read_async(tensor: &Tensor, device: &Device) -> wengert::error::Result<Vec<f64>> {
    Ok(match tensor.dtype() {
        DType::F32 => tensor.read_on::<f32>(device).await?.into_iter().map(f64::from).collect(),
        DType::I32 => tensor.read_on::<i32>(device).await?.into_iter().map(f64::from).collect(),
        DType::U32 | DType::Bool => tensor.read_on::<u32>(device).await?.into_iter().map(f64::from).collect(),
    })
}

/// The same, waiting.
#[cfg(not(target_arch = "wasm32"))]
pub fn read(tensor: &Tensor, device: &Device) -> wengert::error::Result<Vec<f64>> {
    pollster::block_on(read_async(tensor, device))
}
