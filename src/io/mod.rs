//! Files: written whole or not at all.
//!
//! Floor 4. A training that is killed while it saves must find the file of before. Deliberately absent: formats, which
//! belong to what is written, and files on a page, which has none.

#![cfg(not(target_arch = "wasm32"))]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |why| Error::new(ErrorKind::Io { path: path.display().to_string(), why: why.to_string() })
}

/// Reads a file.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    fs::read(path).map_err(failed(path))
}

/// Writes a file so that at any moment its name stands for the old content or the new one: a temporary file in the same
/// folder, synchronised, then renamed. Makes the folder if it is missing.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    put(path.as_ref(), bytes, false)
}

/// [`write()`], keeping the file that was there as [`previous`].
pub fn replace(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    put(path.as_ref(), bytes, true)
}

/// Where [`replace`] keeps the file of before: `name.previous`.
pub fn previous(path: impl AsRef<Path>) -> PathBuf {
    beside(path.as_ref(), ".previous")
}

/// Removes a file, if it is there.
pub fn remove(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(failed(path)(why)),
        _ => Ok(()),
    }
}

/// Removes the temporary files that writers of `path` left when they were killed. Nobody may be writing it.
pub fn remove_partial(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let (Some(name), Ok(entries)) = (path.file_name().and_then(|name| name.to_str()), fs::read_dir(folder_of(path)))
    else {
        return Ok(());
    };
    let ours = |file: &str| {
        let process = file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(PARTIAL)?;
        process.strip_suffix(".previous").unwrap_or(process).parse::<u32>().ok()
    };
    entries.flatten().filter(|e| e.file_name().to_str().and_then(ours).is_some()).try_for_each(|e| remove(e.path()))
}

/// What names of temporary files end in.
const PARTIAL: &str = ".partial";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn put(path: &Path, bytes: &[u8], keep: bool) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::new(ErrorKind::Io {
            path: path.display().to_string(),
            why: "it does not name a file".into(),
        }));
    }
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(failed(folder))?;
    // Of this write, so that two that save to one name do not write into each other's file.
    static WRITES: AtomicUsize = AtomicUsize::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = beside(path, &format!(".{}-{number}{PARTIAL}", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let kept = || if keep { retire(path) } else { Ok(()) };
    if let Err(why) = written.and_then(|()| kept()).and_then(|()| fs::rename(&partial, path)) {
        // A full disk is not to be filled further. What cannot be removed either stays.
        let _ = fs::remove_file(&partial);
        return Err(failed(path)(why));
    }
    // The rename itself is in the folder. Windows has no way to synchronise one, and does not need it.
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    Ok(())
}

/// Gives the file at `path` the name of the previous one. Where the file system knows links it has both names until it
/// is replaced; elsewhere there is a moment in which only the previous one has its name.
fn retire(path: &Path) -> std::io::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let link = beside(path, &format!(".{}.previous{PARTIAL}", std::process::id()));
    let _ = fs::remove_file(&link);
    match fs::hard_link(path, &link) {
        Ok(()) => fs::rename(&link, previous(path)),
        Err(_) => fs::rename(path, previous(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = std::env::temp_dir().join(format!("wengert-io-{}", std::process::id()));
        let path = folder.join("deep/file");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 1);
        // A folder of that name is in the way; the attempt leaves nothing behind.
        fs::create_dir(folder.join("deep/taken")).unwrap();
        assert!(
            matches!(write(folder.join("deep/taken"), b"three"), Err(error) if matches!(error.kind(), ErrorKind::Io { .. }))
        );
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 2);
        assert!(matches!(write("..", b""), Err(error) if matches!(error.kind(), ErrorKind::Io { .. })));
        // What killed writers left is known by its name; nothing else is touched.
        for name in
            ["file.7.partial", "file.7.previous.partial", "file.x.partial", "file.7.partial.gz", "other.7.partial"]
        {
            fs::write(folder.join("deep").join(name), b"half").unwrap();
        }
        remove_partial(&path).unwrap();
        assert!(!folder.join("deep/file.7.partial").exists());
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 5);
        fs::remove_dir_all(&folder).unwrap();
        match read(&path).map_err(Error::into_kind) {
            Err(ErrorKind::Io { path: said, .. }) => assert!(said.ends_with("file")),
            other => panic!("{other:?}"),
        }
    }
    #[test]
    fn the_file_of_before_is_kept() {
        let folder = std::env::temp_dir().join(format!("wengert-io-previous-{}", std::process::id()));
        let path = folder.join("file");
        replace(&path, b"one").unwrap();
        assert!(!previous(&path).exists());
        replace(&path, b"two").unwrap();
        replace(&path, b"three").unwrap();
        assert_eq!((read(&path).unwrap(), read(previous(&path)).unwrap()), (b"three".to_vec(), b"two".to_vec()));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists() && previous(&path).exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
