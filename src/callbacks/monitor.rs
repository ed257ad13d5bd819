//! [`Monitor`]: whether a score got better.

use crate::error::{Error, Result};
use crate::model::Scores;

/// Which way a score is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Up for names that end in `acc`, `accuracy`, `auc`, `precision` or `recall`, down for all others.
    #[default]
    Auto,
    /// Down.
    Min,
    /// Up.
    Max,
}

/// A score and the best it has been.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub name: String,
    pub direction: Direction,
    /// What a score must change by at least, to count as better.
    pub min_delta: f64,
    pub best: Option<f64>,
    warned: bool,
}

impl Monitor {
    pub fn new(name: &str) -> Monitor {
        Monitor { name: name.into(), direction: Direction::Auto, min_delta: 0.0, best: None, warned: false }
    }

    /// Whether these scores are better than the best so far, which they become then; `None` for an epoch that was not
    /// validated and so may lack the score. A NaN is never better.
    pub fn better(&mut self, scores: &Scores) -> Result<Option<bool>> {
        let Some(score) = scores.get(&self.name) else {
            let known: Vec<&str> = scores.iter().map(|(name, _)| name).collect();
            let what = format!("there is no score \"{}\" to monitor; there are {}", self.name, known.join(", "));
            if !self.name.starts_with("val_") {
                return Err(Error::Argument { what });
            }
            if !std::mem::replace(&mut self.warned, true) {
                log::warn!("{what}; is there validation data?");
            }
            return Ok(None);
        };
        let delta = self.min_delta.abs();
        let better = match self.best {
            None => !score.is_nan(),
            Some(best) if self.up() => score > best + delta,
            Some(best) => score < best - delta,
        };
        if better {
            self.best = Some(score);
        }
        Ok(Some(better))
    }

    fn up(&self) -> bool {
        match self.direction {
            Direction::Min => false,
            Direction::Max => true,
            Direction::Auto => {
                ["acc", "accuracy", "auc", "precision", "recall"].iter().any(|end| self.name.ends_with(end))
            }
        }
    }
}
