//! Compute pipelines, cached by their text, and the bind groups that go with them.
//!
//! Every pipeline has one bind group, number 0, whose layout is explicit: layouts derived by the driver are not
//! shared between pipelines, explicit ones are. Deliberately absent: overridable constants (kernels are specialised as
//! text), and render pipelines.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::buffer::Range;
use super::compile::Wanted;
use super::stats::add;
use super::{Device, Opaque, lock};
use crate::collections::{Set, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::sort::sort;

/// How a kernel uses the buffer at one binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// `var<uniform>`
    Uniform,
    /// `var<uniform>` at an offset that is given with each dispatch; one at most.
    Turns,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// Buffers bound for pipelines of one layout.
pub(crate) type BindGroup = Opaque<wgpu::BindGroup>;

/// A compiled kernel. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline(Opaque<Compiled>);

#[derive(Debug)]
struct Compiled {
    raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    label: String,
}

impl Pipeline {
    pub fn raw(&self) -> &wgpu::ComputePipeline {
        &self.0.raw
    }

    /// The name given when it was first compiled.
    pub fn label(&self) -> &str {
        &self.0.label
    }
}

impl PartialEq for Pipeline {
    fn eq(&self, other: &Pipeline) -> bool {
        self.0.same(&other.0)
    }
}

/// What was compiled on a device so far.
#[derive(Default)]
pub(super) struct Pipelines {
    by_text: Table<(Arc<str>, Box<[Access]>), Pipeline>,
    layouts: Table<Box<[Access]>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>,
}

impl Device {
    /// Compiles the only entry point of `wgsl`, or returns what an earlier call with the same text and bindings did.
    ///
    /// `bindings` describe bindings 0.. of group 0. Natively a text that does not compile is [`ErrorKind::Shader`]; in a
    /// browser that is known only later and surfaces through [`Device::check`].
    pub(crate) fn pipeline(&self, label: &str, wgsl: &str, bindings: &[Access]) -> Result<Pipeline> {
        let source: Arc<str> = wgsl.into();
        let key = (source.clone(), Box::from(bindings));
        if let Some(pipeline) = lock(&self.inner().pipelines).by_text.get(&key) {
            return Ok(pipeline.clone());
        }
        let storage =
            bindings.iter().filter(|access| !matches!(access, Access::Uniform | Access::Turns)).count() as u64;
        let have = u64::from(self.limits().max_storage_buffers_per_shader_stage);
        if storage > have {
            return Err(Error::new(ErrorKind::Limit {
                what: format!("storage buffers of {label}"),
                need: storage,
                have,
            }));
        }
        let (layout, pipeline_layout) = self.layout(bindings)?;
        // Compiling takes milliseconds and the lock is not held meanwhile, so threads may compile side by side. Two
        // that compile the same text waste one of the results, which is rare and harmless.
        #[cfg(not(target_arch = "wasm32"))]
        let cache = self.pipeline_cache();
        #[cfg(target_arch = "wasm32")]
        let cache = None;
        let compile = || {
            let source = wgpu::ShaderSource::Wgsl(wgsl.into());
            let module = self.raw().create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(label), source });
            self.raw().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: None,
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache,
            })
        };
        let raw = self.guarded_now(label, compile).map_err(|error| match error.kind() {
            ErrorKind::Validation { why } => Error::new(ErrorKind::Shader { why: why.clone(), source: source.clone() }),
            _ => error,
        })?;
        // A lost device compiles nothing and says so nowhere else.
        if let Some(lost) = self.inner().slot.lost() {
            return Err(lost);
        }
        add(&self.inner().counters.pipelines, 1);
        let compiled = Compiled { raw, layout, label: label.into() };
        let mut pipelines = lock(&self.inner().pipelines);
        Ok(pipelines.by_text.or_insert(key, Pipeline(Opaque::new(compiled))).clone())
    }

    /// The first of each text and bindings that was not compiled yet.
    pub(super) fn unknown<'a>(&self, wanted: &[Wanted<'a>]) -> Vec<Wanted<'a>> {
        let known = lock(&self.inner().pipelines);
        let mut seen = Set::new();
        let fresh = |kernel: &&Wanted<'a>| {
            let key = (kernel.wgsl.into(), kernel.bindings.into());
            !known.by_text.contains_key(&key) && seen.insert((kernel.wgsl, kernel.bindings))
        };
        wanted.iter().filter(fresh).copied().collect()
    }

    /// The WGSL of every kernel compiled so far, for those who look at it, check it or translate it.
    pub fn shaders(&self) -> Vec<Arc<str>> {
        let mut texts: Vec<_> = lock(&self.inner().pipelines).by_text.keys().map(|(text, _)| text.clone()).collect();
        sort(&mut texts);
        texts.dedup();
        texts
    }

    fn layout(&self, bindings: &[Access]) -> Result<(wgpu::BindGroupLayout, wgpu::PipelineLayout)> {
        if let Some(layout) = lock(&self.inner().pipelines).layouts.get(bindings) {
            return Ok(layout.clone());
        }
        let entry = |(binding, access): (usize, &Access)| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match access {
                    Access::Uniform | Access::Turns => wgpu::BufferBindingType::Uniform,
                    Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: *access == Access::Turns,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = bindings.iter().enumerate().map(entry).collect();
        let layout = self.guarded_now("a bind group layout", || {
            let descriptor = wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries };
            let group = self.raw().create_bind_group_layout(&descriptor);
            let pipeline = self.raw().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&group)],
                immediate_size: 0,
            });
            (group, pipeline)
        })?;
        Ok(lock(&self.inner().pipelines).layouts.or_insert(bindings.into(), layout).clone())
    }

    /// Binds `ranges` to the bindings 0.. of `pipeline`, and thereby of every pipeline with the same accesses.
    ///
    /// The group does not keep the buffers from being reused: its maker keeps them. A range that does not fit is a
    /// validation error, found by [`Device::check`].
    pub(crate) fn bind_group(&self, pipeline: &Pipeline, ranges: &[Range]) -> BindGroup {
        let bindings = ranges.iter().map(|range| wgpu::BindingResource::Buffer(range.binding()));
        let entries: Vec<_> =
            (0..).zip(bindings).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
        self.inner().counters.bind_groups.fetch_add(1, Relaxed);
        BindGroup::new(self.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(pipeline.label()),
            layout: &pipeline.0.layout,
            entries: &entries,
        }))
    }
}
