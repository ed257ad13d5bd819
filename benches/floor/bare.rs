//! As much of wgpu as a hand-written kernel needs: buffers, dispatches made once, runs of them in one submission.
//!
//! On the adapter that ours runs on, with whatever it offers. Shaders are trusted: a floor has no bounds checks and does not
//! clear workgroup memory. Deliberately absent: errors, since nobody uses this but the bench; it panics.

use wgpu::util::{BufferInitDescriptor, DeviceExt};

pub struct Bare {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

/// A kernel with its buffers.
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: u32,
}

const USES: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

impl Bare {
    /// The adapter of this name.
    pub async fn new(name: &str) -> Bare {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let adapter =
            adapters.into_iter().find(|adapter| adapter.get_info().name == name).expect("the adapter of ours");
        let wanted = wgpu::DeviceDescriptor {
            required_features: adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16),
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&wanted).await.expect("a device");
        Bare { device, queue }
    }

    pub fn buffer(&self, values: &[f32]) -> wgpu::Buffer {
        let contents = bytemuck::cast_slice(values);
        self.device.create_buffer_init(&BufferInitDescriptor { label: None, contents, usage: USES })
    }

    /// The entry point of a text over these buffers, bound in their order, in so many workgroups.
    pub fn dispatch(&self, text: &str, entry: &str, buffers: &[(u32, &wgpu::Buffer)], groups: u32) -> Dispatch {
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let module = wgpu::ShaderModuleDescriptor { label: None, source };
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        // SAFETY: the kernels of this folder stay within their buffers at the sizes of their cases, and their loops end.
        let module = unsafe { self.device.create_shader_module_trusted(module, checks) };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let entries: Vec<wgpu::BindGroupEntry> = buffers
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        Dispatch { pipeline, group, groups }
    }

    /// The dispatches one behind the other, so many times, in one submission; waits for the end.
    pub fn run(&self, dispatches: &[Dispatch], times: usize) {
        self.submit_all(dispatches, times);
        self.wait();
    }

    /// The dispatches so many times, each time in a submission of its own; waits for the end.
    pub fn submit(&self, dispatches: &[Dispatch], times: usize) {
        (0..times).for_each(|_| self.submit_all(dispatches, 1));
        self.wait();
    }

    fn submit_all(&self, dispatches: &[Dispatch], times: usize) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for dispatch in (0..times).flat_map(|_| dispatches) {
                pass.set_pipeline(&dispatch.pipeline);
                pass.set_bind_group(0, &dispatch.group, &[]);
                pass.dispatch_workgroups(dispatch.groups, 1, 1);
            }
        }
        self.queue.submit([encoder.finish()]);
    }

    pub fn read(&self, buffer: &wgpu::Buffer) -> Vec<f32> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: buffer.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |mapped| mapped.expect("a mapped buffer"));
        self.wait();
        bytemuck::cast_slice(&staging.slice(..).get_mapped_range().expect("a mapped range")).to_vec()
    }

    fn wait(&self) {
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device");
    }
}
