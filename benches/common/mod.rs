//! What the kernel tool, the kernel bench and the kernel tests share: the table of cases, their measurement, and how
//! figures are written.
//!
//! Included by path, since examples, benches and tests are crates of their own.

// Each of the three uses a part.
#![allow(dead_code)]

pub mod cases;
pub mod measure;
pub mod report;
