//! Wengert: GPU-first deep learning on wgpu.

pub mod callbacks;
pub mod data;
pub mod dtype;
pub mod error;
pub mod gpu;
pub mod grad;
pub mod graph;
pub mod lower;
pub mod ops;
pub mod plan;
pub mod random;
mod read;
pub mod shape;
pub mod step;
