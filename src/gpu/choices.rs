//! What was measured to be best on this device, kept in a file for later processes.
//!
//! A choice is two texts: what is to be computed, and the name of the variant that computes it fastest. The compiler asks for
//! the first and passes over a second that it does not know. Natively the file lies beside the cache of pipelines, named after
//! adapter, driver and version of the crate, so that another driver begins anew. Deliberately absent: measuring, which is the
//! tuner's affair, and a choice that anything depends on: without a file everything has its default.

use std::sync::Arc;

use super::{Device, lock};

/// Variants of kernels by what they compute, in order. A cheap clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Choices(Arc<Vec<(String, String)>>);

impl Choices {
    /// Whether nothing was chosen yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The variant that was chosen.
    pub fn get(&self, what: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| known.as_str().cmp(what)).ok()?;
        Some(&self.0[at].1)
    }

    /// With one more, or another one.
    pub fn with(&self, what: &str, variant: &str) -> Choices {
        let mut all = self.0.to_vec();
        match all.binary_search_by(|(known, _)| known.as_str().cmp(what)) {
            Ok(at) => all[at].1 = variant.into(),
            Err(at) => all.insert(at, (what.into(), variant.into())),
        }
        Choices(all.into())
    }

    /// A line for each, the two texts with a tab between them.
    #[cfg(not(target_arch = "wasm32"))]
    fn text(&self) -> String {
        self.0.iter().map(|(what, variant)| format!("{what}\t{variant}\n")).collect()
    }

    /// What [`text`](Choices::text) wrote; lines of another form are passed over.
    #[cfg(not(target_arch = "wasm32"))]
    fn parse(text: &str) -> Choices {
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        lines.fold(Choices::default(), |all, (what, variant)| all.with(what, variant))
    }
}

impl Device {
    /// What was chosen on this device so far.
    pub fn choices(&self) -> Choices {
        lock(&self.inner().choices).clone()
    }

    /// Notes a choice; it holds for what is compiled from now on.
    pub(crate) fn choose(&self, what: &str, variant: &str) {
        let mut choices = lock(&self.inner().choices);
        *choices = choices.with(what, variant);
    }

    /// Keeps the choices for later processes, where there is a folder for them.
    pub(crate) fn keep_choices(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(path) = &self.inner().choices_file {
            let choices = self.choices();
            match super::cache::write(path, choices.text().as_bytes()) {
                Ok(()) => log::debug!("{} choices kept in {}", choices.0.len(), path.display()),
                Err(why) => log::warn!("choices are not kept in {}: {why}", path.display()),
            }
        }
    }
}

/// The file of an adapter's choices.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn file(info: &wgpu::AdapterInfo, folder: &std::path::Path) -> std::path::PathBuf {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (info.name.as_str(), info.driver.as_str(), info.driver_info.as_str(), info.vendor, info.device).hash(&mut hasher);
    folder.join(format!("choices-{:?}-{:016x}-{}", info.backend, hasher.finish(), env!("CARGO_PKG_VERSION")))
}

/// What a file holds, if it is whole.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn kept(path: &std::path::Path) -> Choices {
    let text = super::cache::read(path).and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or_else(Choices::default, |text| Choices::parse(&text))
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn choices_are_found_replaced_and_kept() {
        let choices = Choices::default().with("b", "1").with("a", "2").with("b", "3");
        assert_eq!((choices.get("a"), choices.get("b"), choices.get("c")), (Some("2"), Some("3"), None));
        assert_eq!(Choices::parse(&choices.text()), choices);
        assert_eq!(Choices::parse(&format!("no tab\n{}", choices.text())), choices);
        let folder = std::env::temp_dir().join(format!("wengert-choices-{}", std::process::id()));
        let path = folder.join("choices");
        assert_eq!(kept(&path), Choices::default());
        super::super::cache::write(&path, choices.text().as_bytes()).unwrap();
        assert_eq!(kept(&path), choices);
        // A file that was damaged is as good as none.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(kept(&path), Choices::default());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
