//! What happens around the steps of a training.

pub mod bar;
pub mod curve;
