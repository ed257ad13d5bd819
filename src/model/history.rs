//! What training and evaluation return: [`History`] and [`Scores`].

use std::fmt;

/// Named numbers, in order: the loss first, then the metrics as compiled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(Vec<(String, f64)>);

impl Scores {
    /// The number of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|entry| entry.0 == name).map(|entry| entry.1)
    }

    /// Names and numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The numbers alone, as Keras' `evaluate` returns them.
    pub fn values(&self) -> Vec<f64> {
        self.0.iter().map(|entry| entry.1).collect()
    }

    /// The entries as pairs.
    pub fn as_slice(&self) -> &[(String, f64)] {
        &self.0
    }

    /// Sets the number of a name, which is added if it is not there.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// Adds a number.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }
}

impl FromIterator<(String, f64)> for Scores {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(entries: I) -> Scores {
        Scores(entries.into_iter().collect())
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " - " };
            write!(f, "{separator}{name}: {value:.4}")?;
        }
        Ok(())
    }
}

/// The scores of every epoch of a `fit`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Numbers of the epochs, from 0.
    pub epoch: Vec<usize>,
    /// Epoch that the training was to stop before, and steps of each: Keras' `params`.
    pub epochs: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Each name with its value for every epoch, in order of first appearance. An epoch without one (validation that
    /// runs every other epoch) adds nothing, as in Keras.
    pub history: Vec<(String, Vec<f64>)>,
}

impl History {
    /// The values of a name.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.history.iter().find(|entry| entry.0 == name).map(|entry| entry.1.as_slice())
    }

    /// The value of a name in the last epoch that has one.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.get(name)?.last().copied()
    }

    /// Adds an epoch.
    pub(super) fn push(&mut self, epoch: usize, scores: &Scores) {
        self.epoch.push(epoch);
        for (name, value) in scores.iter() {
            match self.history.iter_mut().find(|entry| entry.0 == name) {
                Some((_, values)) => values.push(value),
                None => self.history.push((name.into(), vec![value])),
            }
        }
    }
}
