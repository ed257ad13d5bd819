//! Lowering: from nodes to dispatches. Each file here turns one kind of work into kernel text and a launch.
//! Absent on purpose: devices, buffers and pipelines; a lowering is a pure function from a problem to text.

pub mod gemm;
mod gemm_text;
