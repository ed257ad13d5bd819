//! Which GPU: listing the adapters, choosing one, and the class that kernels are tuned by.
//!
//! The choice is by our own ranking rather than wgpu's, so that it is the same on every run and so that a name that
//! matches nothing is answered with the names that exist. Deliberately absent: surfaces and windows.

use std::fmt;

use super::DeviceOptions;
use crate::error::{Error, ErrorKind, Result};

/// What kind of machine a device is. Tuned defaults are keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// A software driver: dispatches cost microseconds, copies beat kernels.
    Cpu,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU seen through a virtual machine.
    Virtual,
    /// Some GPU behind a browser, which hides which.
    Browser,
    /// The driver does not say.
    Other,
}

impl Class {
    pub(super) fn of(info: &wgpu::AdapterInfo) -> Class {
        match info.device_type {
            wgpu::DeviceType::Cpu => Class::Cpu,
            _ if cfg!(target_arch = "wasm32") => Class::Browser,
            wgpu::DeviceType::IntegratedGpu => Class::Integrated,
            wgpu::DeviceType::DiscreteGpu => Class::Discrete,
            wgpu::DeviceType::VirtualGpu => Class::Virtual,
            wgpu::DeviceType::Other => Class::Other,
        }
    }

    /// The name used in messages and tuning tables.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Cpu => "cpu",
            Class::Integrated => "integrated",
            Class::Discrete => "discrete",
            Class::Virtual => "virtual",
            Class::Browser => "browser",
            Class::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The words a user's choice is matched against, which are also what [`ErrorKind::NoAdapter`] lists.
pub(super) fn describe(info: &wgpu::AdapterInfo) -> String {
    let name = if info.name.is_empty() { "unnamed" } else { &info.name };
    let driver = format!("{} {}", info.driver, info.driver_info);
    format!("{name} [{:?}, {:?}, {}]", info.backend, info.device_type, driver.trim())
}

/// The position of the adapter to use among `infos`: by index, else by substring, the best ranked among those left.
pub(super) fn choose(infos: &[wgpu::AdapterInfo], wanted: Option<&str>, power: wgpu::PowerPreference) -> Result<usize> {
    let none = |wanted: &str| {
        let found = infos.iter().enumerate().map(|(i, info)| format!("{i}: {}", describe(info))).collect();
        Error::new(ErrorKind::NoAdapter { wanted: wanted.into(), found })
    };
    let wanted = wanted.map(str::trim).unwrap_or("");
    if let Some(index) = wanted.parse().ok().filter(|index| *index < infos.len()) {
        return Ok(index);
    }
    let wanted_lower = wanted.to_ascii_lowercase();
    let fits = |info: &wgpu::AdapterInfo| describe(info).to_ascii_lowercase().contains(&wanted_lower);
    let best = infos.iter().enumerate().filter(|(_, info)| fits(info)).min_by_key(|(_, info)| rank(info, power));
    best.map(|(index, _)| index).ok_or_else(|| none(if wanted.is_empty() { "any adapter" } else { wanted }))
}

/// Lower is better. Software comes last: it is for tests, and never what a user with a GPU meant.
fn rank(info: &wgpu::AdapterInfo, power: wgpu::PowerPreference) -> u8 {
    let low = power == wgpu::PowerPreference::LowPower;
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => u8::from(low),
        wgpu::DeviceType::IntegratedGpu => u8::from(!low),
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// Opens the adapter that `options` ask for.
pub(super) async fn open(options: &DeviceOptions) -> Result<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = options.backends;
    // The driver's own validation layers are for debugging this crate: WGPU_VALIDATION=1 turns them on.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    let instance = wgpu::Instance::new(descriptor);
    find(&instance, options).await
}

#[cfg(not(target_arch = "wasm32"))]
async fn find(instance: &wgpu::Instance, options: &DeviceOptions) -> Result<wgpu::Adapter> {
    let mut adapters = instance.enumerate_adapters(options.backends).await;
    let infos: Vec<_> = adapters.iter().map(wgpu::Adapter::get_info).collect();
    let index = choose(&infos, options.adapter.as_deref(), options.power)?;
    Ok(adapters.swap_remove(index))
}

/// A browser gives one adapter and hides its name, so a wish by name cannot be honoured there.
#[cfg(target_arch = "wasm32")]
async fn find(instance: &wgpu::Instance, options: &DeviceOptions) -> Result<wgpu::Adapter> {
    let request = wgpu::RequestAdapterOptions { power_preference: options.power, ..Default::default() };
    let adapter = instance.request_adapter(&request).await;
    let adapter = adapter
        .map_err(|why| Error::new(ErrorKind::NoAdapter { wanted: format!("WebGPU: {why}"), found: Vec::new() }))?;
    choose(&[adapter.get_info()], options.adapter.as_deref(), options.power)?;
    Ok(adapter)
}
