//! [`Decay`]: decoupled weight decay, and the parameters that it leaves alone.

use crate::error::{Error, ErrorKind, Result};
use crate::graph::Tensor;

/// Decoupled weight decay, and which parameters it leaves alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Decay {
    pub rate: Option<f64>,
    /// Words in the names of parameters that do not decay.
    pub words: Vec<String>,
    /// Which parameters those are, once names are known.
    pub excluded: Vec<bool>,
}

impl Decay {
    /// Whether a word is in the last part of the name, or in all of it if it has a slash itself.
    pub fn excludes(&self, name: &str) -> bool {
        let last = name.rsplit('/').next().unwrap_or(name);
        self.words.iter().any(|word| if word.contains('/') { name.contains(word) } else { last.contains(word) })
    }

    pub fn check(&self, parameters: usize) -> Result<()> {
        if self.rate.is_some_and(|rate| !rate.is_finite()) {
            return Err(Error::new(ErrorKind::NonFinite { what: "the weight decay".into() }));
        }
        if self.words.is_empty() || self.excluded.len() == parameters {
            return Ok(());
        }
        let (known, words) = (self.excluded.len(), self.words.join(", "));
        let what = format!(
            "weight decay excludes parameters by name ({words}), but the names of {known} of {parameters} are known; \
             compile gives them to an optimizer, for_parameters does so elsewhere"
        );
        Err(Error::argument(what))
    }

    /// The parameter of an index after its decay by a share, if it decays at all.
    pub fn apply(&self, index: usize, parameter: &Tensor, share: Option<&Tensor>) -> Tensor {
        match share {
            Some(share) if !self.excluded.get(index).is_some_and(|&excluded| excluded) => parameter - parameter * share,
            _ => parameter.clone(),
        }
    }
}
