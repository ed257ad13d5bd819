//! What the driver compiled, kept in a file for the next process.
//!
//! Most drivers keep a cache of their own; where one does not, a first step costs as much in every process. wgpu hands
//! out the driver's data on Vulkan only, and checks that a file comes from the same driver and adapter before the driver
//! sees it; ours adds a checksum, so that a file which was cut short or damaged is not shown to it either. Everything
//! that can go wrong with a file is logged and otherwise without consequence. Deliberately absent: texts or plans in the
//! file; they are made anew in milliseconds.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Device, lock};

/// A cache of pipelines and the file it is kept in.
pub(super) struct Cache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
    /// Checksum of what the file holds.
    kept: Mutex<u64>,
}

/// The folder of caches: that of `WENGERT_CACHE`, where an empty one means none, else one in the user's folder for such.
pub(super) fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = std::env::var_os("WENGERT_CACHE") {
        return (!folder.is_empty()).then(|| folder.into());
    }
    let users = match cfg!(windows) {
        true => set("LOCALAPPDATA"),
        false => set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))),
    };
    users.map(|users| users.join("wengert"))
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What a file holds, if it is whole.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(why) => {
            log::debug!("nothing from {}: {why}", path.display());
            return None;
        }
    };
    let data = bytes.len().checked_sub(8).map(|at| bytes.split_off(at)).and_then(|sum| sum.try_into().ok());
    if data.map(u64::from_le_bytes) == Some(checksum(&bytes)) {
        return Some(bytes);
    }
    log::warn!("{} is damaged and is not used", path.display());
    None
}

/// Writes data with its checksum so that the name stands for the whole file of before or of now.
pub(super) fn write(path: &Path, data: &[u8]) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    // Of this writer alone: other devices and processes keep the same file.
    static WRITER: AtomicU64 = AtomicU64::new(0);
    let writer = (std::process::id(), WRITER.fetch_add(1, Relaxed));
    let mut partial = path.as_os_str().to_os_string();
    partial.push(format!(".{}-{}.partial", writer.0, writer.1));
    let partial = PathBuf::from(partial);
    let written = fs::write(&partial, [data, &checksum(data).to_le_bytes()].concat());
    written.and_then(|()| fs::rename(&partial, path)).inspect_err(|_| drop(fs::remove_file(&partial)))
}

impl Cache {
    /// The cache for an adapter, with what the file in `folder` holds; `None` where the adapter knows none.
    pub fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Cache> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(info)?;
        let path = folder.join(format!("{key}-{}", env!("CARGO_PKG_VERSION")));
        let data = read(&path);
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
        // SAFETY: the data is what `get_data` returned to an earlier process, by the checksum that was written with it.
        let raw = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Cache { raw, path, kept: Mutex::new(data.map_or(0, |data| checksum(&data))) })
    }

    fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    fn save(&self) {
        let Some(data) = self.raw.get_data() else { return };
        let sum = checksum(&data);
        let mut kept = lock(&self.kept);
        if std::mem::replace(&mut *kept, sum) == sum {
            return;
        }
        match write(&self.path, &data) {
            Ok(()) => log::debug!("{} bytes of pipelines kept in {}", data.len(), self.path.display()),
            Err(why) => log::warn!("pipelines are not kept in {}: {why}", self.path.display()),
        }
    }
}

impl Device {
    /// What pipelines are made with.
    pub(super) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.inner().cache.as_ref().map(Cache::raw)
    }

    /// Keeps what was compiled for later processes, where there is a cache.
    pub(super) fn save_pipelines(&self) {
        if let Some(cache) = &self.inner().cache {
            cache.save();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_used() {
        let folder = std::env::temp_dir().join(format!("wengert-cache-{}", std::process::id()));
        let path = folder.join("deep").join("file-0.1.0");
        assert_eq!(read(&path), None);
        write(&path, b"driver").unwrap();
        assert_eq!(read(&path).as_deref(), Some(&b"driver"[..]));
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 1);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[2] ^= 1;
        for bytes in [&whole[..whole.len() - 1], &whole[..3], &[], &flipped] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path), None, "{bytes:?}");
        }
        // A folder that cannot be made is an error for `save` to log.
        fs::write(folder.join("taken"), b"").unwrap();
        assert!(write(&folder.join("taken").join("file"), b"driver").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
