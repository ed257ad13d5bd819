//! Wengert: GPU-first deep learning on wgpu.

pub mod callbacks;
pub mod choice;
pub mod data;
pub mod dtype;
pub mod error;
pub mod gpu;
pub mod grad;
pub mod graph;
pub mod host;
pub mod initializers;
pub mod layers;
pub mod losses;
pub mod lower;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod optimizers;
pub mod plan;
pub mod random;
pub mod read;
pub mod shape;
pub mod step;
pub mod threads;
