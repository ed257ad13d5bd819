//! Reads the stored numbers and compares with them.

#![allow(dead_code)] // each area uses its part

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use safetensors::{Dtype, SafeTensors};
use wengert::gpu::Device;
use wengert::graph::Tensor;

/// Relative error that f32 arithmetic of a few operations stays below.
pub const TOLERANCE: f64 = 1e-5;

/// The device of all tests in this binary.
pub fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| pollster::block_on(Device::new()).expect("a GPU or a software driver; see scripts/setup"))
}

/// One area's numbers: arrays of f64 by name.
pub struct Reference(HashMap<String, (Vec<usize>, Vec<f64>)>);

impl Reference {
    /// `tests/parity/data/<area>.safetensors`.
    pub fn open(area: &str) -> Reference {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/data").join(format!("{area}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            assert_eq!(view.dtype(), Dtype::F64, "{name}");
            let value = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap());
            (name, (view.shape().to_vec(), view.data().chunks_exact(8).map(value).collect()))
        };
        Reference(file.tensors().into_iter().map(read).collect())
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The numbers of one array.
    pub fn values(&self, name: &str) -> &[f64] {
        &self.0.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.names())).1
    }

    /// The shape of one array.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.0.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.names())).0
    }

    /// One array as an f32 tensor on the host.
    pub fn tensor(&self, name: &str) -> Tensor {
        let data: Vec<f32> = self.values(name).iter().map(|&x| x as f32).collect();
        Tensor::new(&data, self.shape(name))
    }

    /// One array as an i32 tensor on the host.
    pub fn ints(&self, name: &str) -> Tensor {
        let data: Vec<i32> = self.values(name).iter().map(|&x| x as i32).collect();
        Tensor::new(&data, self.shape(name))
    }

    /// Asserts that a tensor has the shape and the values of the array, to [`TOLERANCE`] of its largest magnitude.
    #[track_caller]
    pub fn check(&self, name: &str, actual: &Tensor) {
        self.check_within(name, actual, TOLERANCE);
    }

    /// [`check`](Reference::check) with a tolerance of its own, which the caller gives a reason for.
    #[track_caller]
    pub fn check_within(&self, name: &str, actual: &Tensor, tolerance: f64) {
        let actual = actual.ok().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(actual.shape().dims(), self.shape(name), "{name}: shape");
        let values = actual.to_vec_on::<f32>(device()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        close(name, &values, self.values(name), tolerance);
    }
}

/// Asserts that two lists of numbers agree to `tolerance` of the largest expected magnitude.
#[track_caller]
pub fn close(name: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}: count");
    let scale = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (index, (a, e)) in actual.iter().zip(expected).enumerate() {
        let same = (a.is_nan() && e.is_nan()) || (a - e).abs() <= tolerance * scale.max(f64::MIN_POSITIVE);
        assert!(same, "{name}[{index}]: {a} where the reference has {e} (scale {scale})");
    }
}
