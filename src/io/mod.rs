//! Files: written whole or not at all.
//!
//! Floor 4. A training that is killed while it saves must find the file of before. Deliberately absent: formats, which
//! belong to what is written, and files on a page, which has none.

#![cfg(not(target_arch = "wasm32"))]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |why| Error::Io { path: path.display().to_string(), why: why.to_string() }
}

/// Reads a file.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    fs::read(path).map_err(failed(path))
}

/// Writes a file so that at any moment its name stands for the old content or the new one: a temporary file in the same
/// folder, synchronised, then renamed. Makes the folder if it is missing.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let Some(name) = path.file_name() else {
        return Err(Error::Io { path: path.display().to_string(), why: "it does not name a file".into() });
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed(folder))?;
    // Of this process, so that two that save to one name do not write into each other's file.
    let mut partial = name.to_os_string();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = folder.join(partial);
    let written = File::create(&partial).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    if let Err(why) = written.and_then(|()| fs::rename(&partial, path)) {
        // A full disk is not to be filled further. What cannot be removed either stays.
        let _ = fs::remove_file(&partial);
        return Err(failed(path)(why));
    }
    // The rename itself is in the folder. Windows has no way to synchronise one, and does not need it.
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    Ok(())
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
        assert!(matches!(write(folder.join("deep/taken"), b"three"), Err(Error::Io { .. })));
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 2);
        assert!(matches!(write("..", b""), Err(Error::Io { .. })));
        fs::remove_dir_all(&folder).unwrap();
        match read(&path) {
            Err(Error::Io { path: said, .. }) => assert!(said.ends_with("file")),
            other => panic!("{other:?}"),
        }
    }
}
