//! The device: one handle that everything on it is made through.
//!
//! A [`Device`] is a cheap clone; two clones are equal, two devices are not, even on one adapter. It asks for all the
//! features and limits that the adapter has, because the compiler chooses kernels by them. Deliberately absent: a
//! global default device, and any method that blocks in a browser.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::adapter::{self, Class};
use super::buffer::Pool;
use super::ceilings::Ceilings;
use super::choices::Choices;
use super::compile::Listener;
use super::fault::{Slot, translate};
use super::flow::Flow;
use super::pipeline::Pipelines;
use super::read::Readback;
use super::staging::Staging;
use super::stats::{Counters, Stats};
use super::{Opaque, Shared, lock};
use crate::error::{Error, ErrorKind, Result};

/// How to choose and open a device.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Which adapter: its index, or any part of its name, driver, backend or device type, in any case. Natively the
    /// default is the environment variable `WENGERT_ADAPTER`, else the best ranked.
    pub adapter: Option<String>,
    /// The graphics interfaces to look at.
    pub backends: wgpu::Backends,
    /// Whether a discrete GPU comes before an integrated one.
    pub power: wgpu::PowerPreference,
    /// Take no more than every WebGPU grants: its default limits and no optional features. So a native program finds out
    /// what its kernels will be in other people's browsers. Natively the default is whether `WENGERT_PORTABLE` is set.
    pub portable: bool,
    /// The folder that compiled pipelines are kept in for later processes, where the driver lets them out (Vulkan), and what
    /// [`Step::tune`](crate::step::Step::tune) found; `None` keeps nothing, and so does a browser. The default is the environment variable `WENGERT_CACHE`, where an empty
    /// one means none, else `wengert` in the user's folder for caches.
    pub cache: Option<PathBuf>,
    /// The name of the device in debuggers and in `Debug`.
    pub label: Option<String>,
}

impl Default for DeviceOptions {
    fn default() -> DeviceOptions {
        #[cfg(not(target_arch = "wasm32"))]
        let adapter = std::env::var("WENGERT_ADAPTER").ok().filter(|name| !name.trim().is_empty());
        #[cfg(not(target_arch = "wasm32"))]
        let portable = std::env::var_os("WENGERT_PORTABLE").is_some_and(|value| !value.is_empty());
        #[cfg(target_arch = "wasm32")]
        let (adapter, portable) = (None, false);
        DeviceOptions {
            adapter,
            backends: wgpu::Backends::PRIMARY,
            power: wgpu::PowerPreference::HighPerformance,
            portable,
            #[cfg(not(target_arch = "wasm32"))]
            cache: super::cache::folder(),
            #[cfg(target_arch = "wasm32")]
            cache: None,
            label: None,
        }
    }
}

/// A GPU, ready for work. Cloning shares it; `==` asks whether two handles are the same device.
#[derive(Clone)]
pub struct Device(Opaque<Inner>);

/// What the clones of a [`Device`] share. The maps in here hold wgpu's objects, never a `Buffer` or a `Pipeline`
/// handle that points back, so there is no cycle.
pub(super) struct Inner {
    pub raw: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: wgpu::AdapterInfo,
    pub limits: wgpu::Limits,
    pub features: wgpu::Features,
    pub label: Option<String>,
    pub counters: Arc<Counters>,
    pub slot: Arc<Slot>,
    pub flow: Arc<Flow>,
    pub pool: Mutex<Pool>,
    pub pipelines: Mutex<Pipelines>,
    /// Who is told of pipelines being compiled.
    pub listener: Mutex<Option<Listener>>,
    #[cfg(not(target_arch = "wasm32"))]
    pub cache: Option<super::cache::Cache>,
    pub staging: Shared<Staging>,
    pub readback: Readback,
    /// Once somebody has asked.
    pub ceilings: Mutex<Option<Ceilings>>,
    /// Whether subgroups compute what they should; a browser's are not used at all.
    pub subgroups: Mutex<bool>,
    /// Variants of kernels that were found best.
    pub choices: Mutex<Choices>,
    #[cfg(not(target_arch = "wasm32"))]
    pub choices_file: Option<PathBuf>,
    /// Held while wgpu submits or polls. With two threads at it, wgpu 30 may find its queue empty after it has read an
    /// older count of finished submissions, and panics.
    pub turn: Mutex<()>,
    next_id: AtomicU64,
}

impl Device {
    /// Opens the default device.
    pub async fn new() -> Result<Device> {
        Device::with(DeviceOptions::default()).await
    }

    /// Opens the device that `options` describe.
    pub async fn with(options: DeviceOptions) -> Result<Device> {
        let adapter = adapter::open(&options).await?;
        let (features, limits) = match options.portable {
            true => (wgpu::Features::empty(), wgpu::Limits::default()),
            false => (wanted_features(adapter.features()), adapter.limits()),
        };
        let request = wgpu::DeviceDescriptor {
            label: options.label.as_deref(),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let info = adapter.get_info();
        let name = adapter::describe(&info);
        let opened = adapter.request_device(&request).await;
        let (raw, queue) = opened
            .map_err(|why| Error::new(ErrorKind::DeviceLost { why: format!("{name} could not be opened: {why}") }))?;

        let slot = Arc::new(Slot::default());
        let seen = slot.clone();
        raw.on_uncaptured_error(Arc::new(move |error| seen.record(translate(error, ""))));
        let seen = slot.clone();
        raw.set_device_lost_callback(move |reason, message| {
            let message = message.trim();
            seen.lose(if message.is_empty() { format!("{reason:?}") } else { format!("{reason:?}: {message}") });
        });
        log::debug!("opened {name}");
        #[cfg(not(target_arch = "wasm32"))]
        let choices_file = options.cache.as_deref().map(|folder| super::choices::file(&info, folder));
        #[cfg(not(target_arch = "wasm32"))]
        let choices = choices_file.as_deref().map(super::choices::kept).unwrap_or_default();
        #[cfg(target_arch = "wasm32")]
        let choices = Choices::default();
        let counters = Arc::new(Counters::default());
        let device = Device(Opaque::new(Inner {
            limits,
            features: raw.features(),
            label: options.label,
            slot,
            flow: Arc::new(Flow::default()),
            pool: Mutex::new(Pool::default()),
            pipelines: Mutex::new(Pipelines::default()),
            listener: Mutex::new(None),
            #[cfg(not(target_arch = "wasm32"))]
            cache: options.cache.as_deref().and_then(|folder| super::cache::Cache::open(&raw, &info, folder)),
            staging: Shared::new(Staging::default()),
            readback: Readback::default(),
            ceilings: Mutex::new(None),
            subgroups: Mutex::new(true),
            choices: Mutex::new(choices),
            #[cfg(not(target_arch = "wasm32"))]
            choices_file,
            counters,
            turn: Mutex::new(()),
            next_id: AtomicU64::new(0),
            info,
            raw,
            queue,
        }));
        #[cfg(not(target_arch = "wasm32"))]
        device.test_fast_paths().await;
        Ok(device)
    }

    /// Opens the default device, blocking the thread. Only native: a browser must never block.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn blocking() -> Result<Device> {
        pollster::block_on(Device::new())
    }

    /// What the driver says about the adapter.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.0.info
    }

    /// The limits in force: all that the adapter has, unless the device is to be portable.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.0.limits
    }

    /// The features in force: all that the adapter has and that are not experimental, unless the device is to be portable.
    pub fn features(&self) -> wgpu::Features {
        self.0.features
    }

    /// What kind of machine this is.
    pub fn class(&self) -> Class {
        Class::of(&self.0.info)
    }

    /// The size of a subgroup, if kernels may use subgroups, their size is one fixed number, and what they computed when the
    /// device was opened was right.
    ///
    /// wgpu 30 does not map the browser's `subgroups` feature, so in a browser this is `None`.
    pub fn subgroup_size(&self) -> Option<u32> {
        let info = &self.0.info;
        let fixed = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_min_size > 0;
        let offered = self.0.features.contains(wgpu::Features::SUBGROUP) && fixed;
        (offered && *lock(&self.0.subgroups)).then_some(info.subgroup_min_size)
    }

    /// What was asked of the device so far.
    pub fn stats(&self) -> Stats {
        self.0.counters.snapshot()
    }

    /// Frees the memory that is kept for reuse: pooled buffers and idle staging buffers. In a browser this is what
    /// returns the memory, since dropping a buffer there frees nothing until the garbage collector comes by.
    pub fn trim(&self) {
        lock(&self.0.pool).clear();
        self.0.staging.clear();
        self.0.readback.clear();
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(super) fn raw(&self) -> &wgpu::Device {
        &self.0.raw
    }

    /// A number no other buffer of this device has had.
    pub(super) fn unique(&self) -> u64 {
        self.0.next_id.fetch_add(1, Relaxed)
    }
}

/// Everything that is not experimental.
#[cfg(not(target_arch = "wasm32"))]
fn wanted_features(offered: wgpu::Features) -> wgpu::Features {
    offered - wgpu::Features::all_experimental_mask()
}

/// Only what compute uses: texture formats are of no use here, and a browser may refuse odd combinations.
#[cfg(target_arch = "wasm32")]
fn wanted_features(offered: wgpu::Features) -> wgpu::Features {
    offered & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP)
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        self.0.same(&other.0)
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}", adapter::describe(&self.0.info))?;
        if let Some(label) = &self.0.label {
            write!(f, ", {label:?}")?;
        }
        f.write_str(")")
    }
}
