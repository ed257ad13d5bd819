//! [`Batches`]: which rows make up each batch of an epoch.
//!
//! The whole order is drawn at once, from (seed, epoch) alone, so any batch of any epoch can be had again: a run
//! resumes in the middle of an epoch, and an evaluation sees what it saw before. Deliberately absent: the rows
//! themselves, see [`Data`](super::Data).

use crate::error::{Error, Result};
use crate::random::threefry;

/// Whether an epoch takes the rows in their own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shuffle {
    /// In their own order.
    #[default]
    Off,
    /// In an order that depends on the two numbers only.
    On {
        /// Of the whole training.
        seed: u64,
        /// Number of the epoch, from 0.
        epoch: u32,
    },
}

/// The batches of one epoch, as indices of rows. Every row occurs once; the last batch is smaller where `batch_size`
/// does not divide their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    order: Vec<usize>,
    batch_size: usize,
}

impl Batches {
    /// The batches of `rows` rows.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument) for a batch size of 0.
    pub fn new(rows: usize, batch_size: usize, shuffle: Shuffle) -> Result<Batches> {
        if batch_size == 0 {
            return Err(Error::argument("a batch size of 0 makes no batches; give at least 1"));
        }
        let order = match shuffle {
            Shuffle::Off => (0..rows).collect(),
            Shuffle::On { seed, epoch } => threefry::permutation(threefry::fold_in(threefry::key(seed), epoch), rows),
        };
        Ok(Batches { order, batch_size })
    }

    /// Number of batches.
    pub fn len(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The rows of one batch; `None` beyond the last.
    pub fn get(&self, batch: usize) -> Option<&[usize]> {
        self.order.chunks(self.batch_size).nth(batch)
    }

    /// The rows of each batch in turn.
    pub fn iter(&self) -> std::slice::Chunks<'_, usize> {
        self.order.chunks(self.batch_size)
    }
}

impl<'a> IntoIterator for &'a Batches {
    type Item = &'a [usize];
    type IntoIter = std::slice::Chunks<'a, usize>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_last_batch_is_what_remains() {
        let batches = Batches::new(1000, 32, Shuffle::Off).unwrap();
        assert_eq!((batches.len(), batches.iter().count()), (32, 32));
        assert_eq!(batches.get(1).unwrap(), (32..64).collect::<Vec<_>>());
        assert_eq!(batches.get(31).unwrap(), (992..1000).collect::<Vec<_>>());
        assert_eq!(batches.get(32), None);
        assert_eq!(Batches::new(64, 32, Shuffle::Off).unwrap().len(), 2);
        assert!(Batches::new(0, 32, Shuffle::Off).unwrap().is_empty());
        assert!(
            matches!(Batches::new(1, 0, Shuffle::Off), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. }))
        );
    }

    #[test]
    fn epochs_differ_and_can_be_repeated() {
        let epoch = |seed, epoch| Batches::new(100, 7, Shuffle::On { seed, epoch }).unwrap();
        assert_eq!(epoch(1, 0), epoch(1, 0));
        assert_ne!(epoch(1, 0), epoch(1, 1));
        assert_ne!(epoch(1, 0), epoch(2, 0));
        let mut rows: Vec<usize> = epoch(1, 0).iter().flatten().copied().collect();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..100));
    }
}
