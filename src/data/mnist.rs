//! MNIST: 70,000 handwritten digits of 28 by 28 pixels.
//!
//! Read from files that the user has put somewhere, since the set is not ours to ship: (c) Yann LeCun and Corinna
//! Cortes, CC BY-SA 3.0. In a browser, fetch the four files and use [`Images::from_idx`]. Deliberately absent: a
//! download, and a substitute under the same name; [`digits`](super::digits()) is one that says what it is.

use super::Images;

/// The training and the test set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mnist {
    /// 60,000 images.
    pub train: Images,
    /// 10,000 images, by other writers.
    pub test: Images,
}

#[cfg(not(target_arch = "wasm32"))]
pub use files::{load, load_from};

#[cfg(not(target_arch = "wasm32"))]
mod files {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use super::Mnist;
    use crate::data::Images;
    use crate::error::{Error, ErrorKind, Result};

    /// Training images and labels, test images and labels; each may also end in `.gz`.
    const FILES: [&str; 4] =
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

    /// Reads MNIST from the first of these folders that has its four files, gzipped or not: `$WENGERT_DATA/mnist`,
    /// `$WENGERT_DATA`, `wengert/mnist` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`,
    /// `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows).
    ///
    /// # Errors
    /// [`ErrorKind::Data`] if none has, with what to put where; those of [`load_from`].
    pub fn load() -> Result<Mnist> {
        let folders = folders(|name| std::env::var_os(name));
        match folders.iter().find(|folder| paths(folder).is_some()) {
            Some(folder) => load_from(folder),
            None => Err(missing(&folders)),
        }
    }

    /// Reads MNIST from a folder that has its four files, gzipped or not.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] if it has not; [`ErrorKind::Io`] if one cannot be read; [`ErrorKind::Format`] if one is damaged.
    pub fn load_from(folder: impl AsRef<Path>) -> Result<Mnist> {
        let folder = folder.as_ref();
        let Some([train_images, train_labels, test_images, test_labels]) = paths(folder) else {
            return Err(missing(&[folder.to_path_buf()]));
        };
        let images = |images: &Path, labels: &Path| {
            Images::from_idx(&read(images)?, &read(labels)?).map_err(|error| match error.into_kind() {
                ErrorKind::Format { what, why } => {
                    Error::new(ErrorKind::Format { what: format!("{what} in {}", folder.display()), why })
                }
                other => Error::new(other),
            })
        };
        Ok(Mnist { train: images(&train_images, &train_labels)?, test: images(&test_images, &test_labels)? })
    }

    fn read(path: &Path) -> Result<Vec<u8>> {
        std::fs::read(path)
            .map_err(|e| Error::new(ErrorKind::Io { path: path.display().to_string(), why: e.to_string() }))
    }

    /// Where to look, in order. The environment is an argument, so that a test does not have to change it.
    fn folders(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = if cfg!(windows) {
            folder("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            folder("HOME").map(|home| home.join("Library/Caches"))
        } else {
            folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
        };
        let data = folder("WENGERT_DATA");
        data.iter()
            .map(|data| data.join("mnist"))
            .chain(data.clone())
            .chain(cache.map(|cache| cache.join("wengert").join("mnist")))
            .collect()
    }

    /// The four files, if the folder has all of them.
    fn paths(folder: &Path) -> Option<[PathBuf; 4]> {
        let found = FILES.map(|file| {
            [format!("{file}.gz"), file.to_string()]
                .map(|file| folder.join(file))
                .into_iter()
                .find(|path| path.is_file())
        });
        let [Some(a), Some(b), Some(c), Some(d)] = found else { return None };
        Some([a, b, c, d])
    }

    fn missing(folders: &[PathBuf]) -> Error {
        let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let looked = if folders.is_empty() { "nowhere".into() } else { folders.join(", ") };
        let files = FILES.map(|file| format!("{file}.gz")).join(", ");
        Error::data(format!(
            "MNIST was not found (looked in: {looked}). Get its four files, {files}, from any mirror of \
                 yann.lecun.com/exdb/mnist, put them into one of these folders or into another that the environment \
                 variable WENGERT_DATA names, gzipped or not, and run again"
        ))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::data::idx::tests::{gzip, idx};

        fn environment(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
            move |name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.into())
        }

        #[test]
        fn the_given_folder_comes_before_the_cache() {
            let found =
                folders(environment(&[("WENGERT_DATA", "/data"), ("HOME", "/home/me"), ("LOCALAPPDATA", "/l")]));
            let cache = if cfg!(windows) {
                "/l/wengert/mnist"
            } else if cfg!(target_os = "macos") {
                "/home/me/Library/Caches/wengert/mnist"
            } else {
                "/home/me/.cache/wengert/mnist"
            };
            assert_eq!(found, ["/data/mnist", "/data", cache].map(PathBuf::from));
            assert_eq!(folders(environment(&[])), Vec::<PathBuf>::new());
        }

        #[test]
        fn the_error_says_what_to_put_where() {
            let message = missing(&folders(environment(&[("WENGERT_DATA", "/data")]))).to_string();
            for part in [
                "looked in: /data/mnist, /data)",
                "WENGERT_DATA",
                "train-images-idx3-ubyte.gz",
                "t10k-labels-idx1-ubyte.gz",
            ] {
                assert!(message.contains(part), "{message}");
            }
        }

        #[test]
        fn a_folder_of_small_files_is_read() {
            let folder = std::env::temp_dir().join(format!("wengert-mnist-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
            write("train-images-idx3-ubyte.gz", &gzip(&idx(&[2, 1, 2], &[1, 2, 3, 4])));
            write("train-labels-idx1-ubyte", &idx(&[2], &[5, 6]));
            write("t10k-images-idx3-ubyte", &idx(&[1, 1, 2], &[7, 8]));
            assert!(matches!(load_from(&folder), Err(error) if matches!(error.kind(), ErrorKind::Data { .. })));
            write("t10k-labels-idx1-ubyte.gz", &gzip(&idx(&[1], &[9])));
            let mnist = load_from(&folder).unwrap();
            assert_eq!((mnist.train.pixels, mnist.train.labels), (vec![1, 2, 3, 4], vec![5, 6]));
            assert_eq!((mnist.test.pixels, mnist.test.labels), (vec![7, 8], vec![9]));
            write("t10k-labels-idx1-ubyte.gz", b"not an IDX file");
            let damaged = load_from(&folder).unwrap_err();
            std::fs::remove_dir_all(&folder).unwrap();
            assert!(
                matches!(damaged.kind(), ErrorKind::Format { what, .. } if what.contains("wengert-mnist")),
                "{damaged}"
            );
        }

        #[test]
        fn mnist_is_what_it_is_known_to_be() {
            let mnist = match load() {
                Ok(mnist) => mnist,
                Err(error) if matches!(error.kind(), ErrorKind::Data { .. }) => {
                    println!("skipped: {error}");
                    return;
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!((mnist.train.len(), mnist.test.len()), (60_000, 10_000));
            assert_eq!((mnist.train.rows, mnist.train.columns), (28, 28));
            assert_eq!(mnist.train.labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
            assert_eq!(mnist.test.labels[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
            // The mean that everybody normalises with.
            let sum: u64 = mnist.train.pixels.iter().map(|&p| u64::from(p)).sum();
            let mean = sum as f64 / mnist.train.pixels.len() as f64 / 255.0;
            assert!((mean - 0.1307).abs() < 1e-4, "{mean}");
            assert_eq!(mnist.train.flat().shape(), [60_000, 784].into());
        }
    }
}
