//! What the benches, the kernel tool and the kernel tests share: the table of kernels, the models of whole steps, their
//! measurement, and how figures are written.
//!
//! Included by path, since examples, benches and tests are crates of their own.

// Each uses a part.
#![allow(dead_code)]

pub mod cases;
pub mod measure;
pub mod models;
pub mod report;
