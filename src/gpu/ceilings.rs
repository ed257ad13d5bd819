//! What this device can do at best: bytes a second through memory, multiply-adds a second.
//!
//! Measured, not looked up: no interface tells them, and a driver, a power limit or a neighbour changes them. They are
//! the two edges of the roofline (Williams, Waterman and Patterson 2009) that profiles compare dispatches to. Deliberately
//! absent: caches. What fits into one can move faster than memory does, so a share may exceed 1.

use std::fmt;

use web_time::Instant;

use super::buffer::{Buffer, Range};
use super::pipeline::{Access, BindGroup, Pipeline};
use super::shader::Shader;
use super::{Device, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::shader::shader_text;

/// The best rates measured on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes a second of a copy by a kernel, both ways counted.
    pub bytes_per_second: f64,
    /// Floating-point operations a second in f32, two for each multiply-add.
    pub flops_per_second: f64,
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} GB/s, {:.1} GFLOP/s", self.bytes_per_second / 1e9, self.flops_per_second / 1e9)
    }
}

/// The copy runs over so many bytes each way, more than caches hold, or as many as one binding allows.
const LARGE: u64 = 128 << 20;
/// Less than this says nothing about memory.
const SMALLEST: u64 = 1 << 20;
/// Runs of which the best counts; the first one also pays for what is set up lazily.
const RUNS: usize = 3;
/// A measurement of arithmetic that took less, in seconds, is repeated with more work;
const SHORT: f64 = 4e-3;
/// and so is one that beat the one before by this factor: what a thread costs to start is still seen in it.
const GAIN: f64 = 1.02;
/// In one that took so long, in seconds, it is not, whatever another load does to the times.
const LONG: f64 = 0.05;
/// Threads of a workgroup.
const WIDTH: u64 = 256;
/// Multiply-adds of a thread in one turn of the loop: three chains of four lanes, eight links of each.
const LINKS: u64 = 3 * 4 * 8;
/// Workgroups of the arithmetic kernel.
const GROUPS: u32 = 1024;
/// Vectors of four that a thread of the copy moves. One is what a GPU likes; a CPU that runs threads as lanes handles each
/// lane's access alone, and likes few long ones.
const SPANS: [u32; 2] = [1, 4];

const COPY: &str = shader_text!("copy.wgsl");
const MULTIPLY_ADD: &str = shader_text!("multiply_add.wgsl");

impl Device {
    /// The best rates of this device, measured at the first call and remembered: a fraction of a second.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] where there is no room for two buffers of a mebibyte.
    pub async fn ceilings(&self) -> Result<Ceilings> {
        if let Some(known) = *lock(&self.inner().ceilings) {
            return Ok(known);
        }
        let bytes_per_second = self.copy_rate().await?;
        let flops_per_second = self.multiply_add_rate().await?;
        let measured = Ceilings { bytes_per_second, flops_per_second };
        *lock(&self.inner().ceilings) = Some(measured);
        Ok(measured)
    }

    async fn copy_rate(&self) -> Result<f64> {
        let mut bytes = LARGE.min(self.limits().max_storage_buffer_binding_size).min(self.limits().max_buffer_size);
        let (a, b) = loop {
            match self.scratch(bytes).and_then(|a| Ok((a, self.scratch(bytes)?))) {
                Err(error) if bytes / 2 >= SMALLEST && matches!(error.kind(), ErrorKind::OutOfMemory { .. }) => {
                    bytes = (bytes / 2).next_multiple_of(64)
                }
                buffers => break buffers?,
            }
        };
        let bound = [(Access::Read, a.whole()), (Access::ReadWrite, b.whole())];
        let mut seconds = f64::INFINITY;
        for span in SPANS {
            let text = Shader::new(COPY).alias("Span", &format!("array<vec4<f32>, {span}>")).build()?;
            let groups = (bytes / (16 * u64::from(span))).div_ceil(WIDTH);
            let x = groups.min(65535);
            let grid = [x as u32, groups.div_ceil(x) as u32, 1];
            seconds = seconds.min(self.best(&text, &bound, grid).await?);
        }
        Ok(2.0 * bytes as f64 / seconds)
    }

    async fn multiply_add_rate(&self) -> Result<f64> {
        let results = self.scratch(u64::from(GROUPS) * WIDTH * 16)?;
        let mut turns = 16u32;
        let mut best = 0.0f64;
        loop {
            // Values that stay normal, whatever the number of turns.
            let floats = [1e-3f32, 0.999, 1e-3, 0.0].map(f32::to_bits);
            let uniform = self.uniform(&[[turns, 0, 0, 0], floats].concat())?;
            let bound = [(Access::Uniform, uniform.whole()), (Access::ReadWrite, results.whole())];
            let seconds = self.best(MULTIPLY_ADD, &bound, [GROUPS, 1, 1]).await?;
            let rate = (2 * LINKS * WIDTH * u64::from(GROUPS) * u64::from(turns)) as f64 / seconds;
            let settled = seconds >= SHORT && (rate < GAIN * best || seconds >= LONG);
            best = best.max(rate);
            if settled || turns >= 1 << 16 {
                return Ok(best);
            }
            turns *= 4;
        }
    }

    /// Memory that is freed at once: a pool must not keep what is needed only here.
    fn scratch(&self, bytes: u64) -> Result<Buffer> {
        Ok(Buffer::unpooled(self, self.create(bytes, wgpu::BufferUsages::STORAGE, false)?))
    }

    /// The seconds of the fastest of some runs of a kernel.
    async fn best(&self, text: &str, bound: &[(Access, Range)], grid: [u32; 3]) -> Result<f64> {
        let accesses: Vec<Access> = bound.iter().map(|b| b.0).collect();
        let ranges: Vec<Range> = bound.iter().map(|b| b.1.clone()).collect();
        let pipeline = self.pipeline("ceiling", text, &accesses)?;
        let group = self.bind_group(&pipeline, &ranges);
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let seconds = self.seconds(&pipeline, &group, grid).await?;
            // A clock too coarse to see the run says nothing.
            if seconds > 0.0 {
                best = best.min(seconds);
            }
        }
        if best.is_finite() {
            Ok(best)
        } else {
            Err(Error::new(ErrorKind::Validation {
                why: "the device's clock saw no time pass in a measurement".into(),
            }))
        }
    }

    /// The seconds of one dispatch, by the device's clock where it has one that can be asked.
    pub(crate) async fn seconds(&self, pipeline: &Pipeline, group: &BindGroup, grid: [u32; 3]) -> Result<f64> {
        if self.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            let mut encoder = self.encoder_profiled()?;
            encoder.dispatch(pipeline, group, grid);
            return Ok(encoder.submit()?.spans().await?.first().map_or(0.0, |span| span.seconds));
        }
        self.wait().await?;
        let start = Instant::now();
        let mut encoder = self.encoder();
        encoder.dispatch(pipeline, group, grid);
        encoder.submit()?;
        self.wait().await?;
        Ok(start.elapsed().as_secs_f64())
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_measured_once() {
        let device = Device::blocking().unwrap();
        let start = Instant::now();
        let first = pollster::block_on(device.ceilings()).unwrap();
        println!("{first} in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        assert!(first.bytes_per_second > 1e8 && first.bytes_per_second < 1e14, "{first}");
        assert!(first.flops_per_second > 1e8 && first.flops_per_second < 1e16, "{first}");
        let before = device.stats();
        assert_eq!(pollster::block_on(device.ceilings()).unwrap(), first);
        assert_eq!((device.stats() - before).submissions, 0);
    }
}
