//! Whether fast paths compute on this device what they should.
//!
//! A driver that says it has subgroups may still number its lanes in another way than kernels assume, or compute a wrong sum.
//! So the operations that kernels use run once, when the device is opened, on numbers whose results are known; a device that
//! fails is used as one without them, and the log says so. Deliberately absent: tests of what every WebGPU has to have; and
//! variants of products, which the tuner compares with the plainest one before it chooses any.

use super::buffer::Buffer;
use super::pipeline::Access;
use super::{Device, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::shader::shader_text;

const SUBGROUPS: &str = shader_text!("subgroups.wgsl");
const THREADS: usize = 64;

/// What the threads of the test find in subgroups of a size.
fn expected(size: usize) -> Vec<[u32; 12]> {
    let x = |thread: usize| (thread as u32 * 37 + 11) % 101;
    let y = |thread: usize| x(thread) as f32 - 50.0;
    let thread = |t: usize| {
        let all = t / size * size..t / size * size + size;
        let (first, xs, ys) = (all.start, all.clone().map(x), all.map(y));
        let [sum, most, least] =
            [ys.clone().sum(), ys.clone().fold(f32::MIN, f32::max), ys.fold(f32::MAX, f32::min)].map(f32::to_bits);
        let own = [size as u32, (t - first) as u32, x(first), x(first + 3)];
        let whole = [xs.clone().sum(), xs.clone().max().unwrap_or(0), xs.min().unwrap_or(0), x(t ^ 1)];
        let floats = [sum, most, least, y(t ^ 2).to_bits()];
        [own, whole, floats].concat().try_into().unwrap_or_default()
    };
    (0..THREADS).map(thread).collect()
}

impl Device {
    /// Runs what fast paths use and takes those away that fail.
    pub(super) async fn test_fast_paths(&self) {
        let Some(size) = self.subgroup_size() else { return };
        if let Err(why) = self.test_subgroups(size as usize).await {
            log::warn!("{self:?}: subgroups are not used: {why}");
            *lock(&self.inner().subgroups) = false;
        }
        // What the user of the device asks of it is counted from here on.
        self.trim();
        self.inner().counters.begin();
    }

    async fn test_subgroups(&self, size: usize) -> Result<()> {
        let wrong = |why: String| Error::new(ErrorKind::Validation { why });
        if !(4..=THREADS).contains(&size) || !size.is_power_of_two() {
            return Err(wrong(format!("kernels have no use for a size of {size}")));
        }
        let bytes = (THREADS * 48) as u64;
        let found = Buffer::unpooled(
            self,
            self.create(bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC, false)?,
        );
        let pipeline = self.pipeline("self-test of subgroups", SUBGROUPS, &[Access::ReadWrite])?;
        let group = self.bind_group(&pipeline, &[found.whole()]);
        let mut encoder = self.encoder();
        encoder.dispatch(&pipeline, &group, [1, 1, 1]);
        encoder.submit()?;
        let read = self.read(&[found.whole()]).await?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&read[0]);
        for (thread, (found, expected)) in words.chunks(12).zip(expected(size)).enumerate() {
            if *found != expected {
                return Err(wrong(format!("thread {thread} found {found:?} instead of {expected:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_is_one_without_subgroups() {
        let device = Device::blocking().unwrap();
        let Some(size) = device.subgroup_size() else {
            println!("skipped: the device has no subgroups of one size");
            return;
        };
        pollster::block_on(async {
            device.test_subgroups(size as usize).await.unwrap();
            // Subgroups of another size are numbered otherwise.
            assert!(device.test_subgroups(if size == 4 { 8 } else { size as usize / 2 }).await.is_err());
            assert!(device.test_subgroups(1).await.is_err());
            device.test_fast_paths().await;
            assert_eq!(device.subgroup_size(), Some(size));
            *lock(&device.inner().subgroups) = false;
            assert_eq!(device.subgroup_size(), None);
        });
    }
}
