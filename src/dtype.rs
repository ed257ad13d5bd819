//! The element types a tensor may have, and their names in WGSL.
//!
//! Floor 0. A plain value: nothing here knows about devices, buffers or graphs. Deliberately absent: promotion
//! rules. Tensors of different dtypes do not mix; a cast is always written down.

use crate::host::Float;
use std::fmt;

/// Element type of a tensor. Every element takes four bytes on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// Two's complement, wraps on overflow.
    I32,
    /// Wraps on overflow.
    U32,
    /// Stored as `u32`, 0 or 1: WGSL has no storable `bool`.
    Bool,
}

impl DType {
    /// Bytes of one element in a device buffer.
    pub const fn bytes(self) -> usize {
        4
    }

    /// The WGSL type of a value in an expression.
    pub const fn wgsl(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::Bool => "bool",
        }
    }

    /// The WGSL type of an element in a storage buffer.
    pub const fn wgsl_stored(self) -> &'static str {
        match self {
            DType::Bool => "u32",
            other => other.wgsl(),
        }
    }

    /// Whether derivatives flow through tensors of this type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32)
    }

    /// The name users read in messages and plans.
    pub const fn name(self) -> &'static str {
        self.wgsl()
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust scalar that a tensor can be made from and read into.
///
/// `f64` and `i64` are accepted at import and converted with a range check; they are never device types.
pub trait Element: bytemuck::Pod {
    /// The dtype this scalar becomes.
    const DTYPE: DType;
    /// The four bytes stored on the device, or why the value does not fit.
    fn to_bits(self) -> Result<u32, String>;
    /// The scalar back from its device bits.
    fn from_bits(bits: u32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn to_bits(self) -> Result<u32, String> {
        Ok(f32::to_bits(self))
    }
    fn from_bits(bits: u32) -> f32 {
        f32::from_bits(bits)
    }
}

impl Element for i32 {
    const DTYPE: DType = DType::I32;
    fn to_bits(self) -> Result<u32, String> {
        Ok(self as u32)
    }
    fn from_bits(bits: u32) -> i32 {
        bits as i32
    }
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
    fn to_bits(self) -> Result<u32, String> {
        Ok(self)
    }
    fn from_bits(bits: u32) -> u32 {
        bits
    }
}

impl Element for u8 {
    const DTYPE: DType = DType::U32;
    fn to_bits(self) -> Result<u32, String> {
        Ok(u32::from(self))
    }
    fn from_bits(bits: u32) -> u8 {
        bits as u8
    }
}

impl Element for f64 {
    const DTYPE: DType = DType::F32;
    fn to_bits(self) -> Result<u32, String> {
        if self.is_finite() && self.abs() > f64::from(f32::MAX) {
            return Err(format!("{} is outside the range of f32", Float(self)));
        }
        Ok((self as f32).to_bits())
    }
    fn from_bits(bits: u32) -> f64 {
        f64::from(f32::from_bits(bits))
    }
}

impl Element for i64 {
    const DTYPE: DType = DType::I32;
    fn to_bits(self) -> Result<u32, String> {
        i32::try_from(self).map(|v| v as u32).map_err(|_| format!("{self} is outside the range of i32"))
    }
    fn from_bits(bits: u32) -> i64 {
        i64::from(bits as i32)
    }
}
