//! [`Monitor`]: a score by its name, and which way it is better.

use super::rules::Improvement;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Scores;

/// Which way a score is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Told from the name: down for losses, errors, cross-entropies and other distances, up for accuracies, areas under a
    /// curve, precision, recall, scores and correlations. A name that says neither is refused before the training.
    #[default]
    Auto,
    /// Down.
    Min,
    /// Up.
    Max,
}

const UP: [&str; 12] = [
    "acc",
    "accuracy",
    "auc",
    "precision",
    "recall",
    "specificity",
    "sensitivity",
    "score",
    "iou",
    "io_u",
    "correlation",
    "cosine_similarity",
];
const DOWN: [&str; 16] = [
    "loss",
    "error",
    "mae",
    "mse",
    "mape",
    "msle",
    "rmse",
    "crossentropy",
    "bce",
    "ce",
    "divergence",
    "kld",
    "poisson",
    "hinge",
    "log_cosh",
    "logcosh",
];

impl Direction {
    /// Whether more is better, for a score of this name; `None` where the name does not tell.
    pub fn up(self, name: &str) -> Option<bool> {
        match self {
            Direction::Min => return Some(false),
            Direction::Max => return Some(true),
            Direction::Auto => {}
        }
        let name = name.strip_prefix("val_").unwrap_or(name);
        // A second metric of the same name has a number.
        let name = match name.rsplit_once('_') {
            Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => name,
        };
        // Metrics keep the name that they were asked for by, as "AUC" or "MeanAbsoluteError".
        let letters: Vec<char> = name.chars().collect();
        let mut words = String::new();
        for (at, letter) in letters.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| letters[at]);
            let ends_run = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            let begins = before.is_some_and(|before| match before {
                'A'..='Z' => ends_run,
                before => before.is_ascii_lowercase() || before.is_ascii_digit(),
            });
            words.extend((begins && letter.is_ascii_uppercase()).then_some('_'));
            words.push(letter.to_ascii_lowercase());
        }
        let name = words;
        let ends = |end: &&str| name.strip_suffix(*end).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
        if UP.iter().any(ends) {
            Some(true)
        } else if DOWN.iter().any(ends) {
            Some(false)
        } else {
            None
        }
    }
}

/// A score that is watched.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub name: String,
    pub direction: Direction,
    pub min_delta: f64,
    warned: bool,
}

impl Monitor {
    pub fn new(name: &str) -> Monitor {
        Monitor { name: name.into(), direction: Direction::Auto, min_delta: 0.0, warned: false }
    }

    /// What counts as better.
    pub fn improvement(&self) -> Result<Improvement> {
        let Some(up) = self.direction.up(&self.name) else {
            let what =
                format!("whether more of \"{}\" is better cannot be told from its name; set a direction", self.name);
            return Err(Error::argument(what));
        };
        if self.min_delta.is_nan() {
            return Err(Error::new(ErrorKind::NonFinite { what: format!("a min_delta for \"{}\"", self.name) }));
        }
        Ok(Improvement { up, min_delta: self.min_delta })
    }

    /// The score; `None` for an epoch that was not validated and so may lack it.
    pub fn score(&mut self, scores: &Scores) -> Result<Option<f64>> {
        if let Some(score) = scores.get(&self.name) {
            return Ok(Some(score));
        }
        let known: Vec<&str> = scores.iter().map(|(name, _)| name).collect();
        let what = format!("there is no score \"{}\" to monitor; there are {}", self.name, known.join(", "));
        if !self.name.starts_with("val_") {
            return Err(Error::argument(what));
        }
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!("{what}; is there validation data?");
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::Direction;

    #[test]
    fn names_that_compile_takes_tell_the_direction() {
        for up in [
            "accuracy",
            "val_AUC",
            "BinaryAccuracy",
            "my_f1_score",
            "cosine_similarity_1",
            "MeanIoU",
            "val_F1Score",
            "R2Score",
        ] {
            assert_eq!(Direction::Auto.up(up), Some(true), "{up}");
        }
        for down in [
            "loss",
            "val_MAE",
            "bce",
            "ce",
            "price_bce",
            "MeanAbsoluteError",
            "mean_squared_error_2",
            "LogCosh",
            "KLDivergence",
        ] {
            assert_eq!(Direction::Auto.up(down), Some(false), "{down}");
        }
        assert_eq!(Direction::Auto.up("surprise"), None);
        assert_eq!(Direction::Auto.up("mean"), None);
    }
}
