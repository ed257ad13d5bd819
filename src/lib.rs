//! Wengert: GPU-first deep learning on wgpu.

pub mod dtype;
pub mod error;
pub mod gpu;
pub mod lower;
pub mod shape;
