//! The machine.

/// Stub.
#[derive(Clone, Debug, PartialEq)]
pub struct Device;
/// Stub.
#[derive(Clone, Debug)]
pub struct Buffer;
impl Buffer {
    /// Stub.
    pub fn device(&self) -> Device {
        Device
    }
}
