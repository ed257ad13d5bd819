//! [`Sorted`]: a set as a sorted list.
//!
//! For what is small, or filled in order, a list is faster than a tree. Deliberately absent: ranges.

use std::cmp::Ordering;
use std::ops::Deref;

/// A set in the order of its items. Inserting moves what is behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sorted<T>(Vec<T>);

impl<T: Ord> Sorted<T> {
    /// An empty set.
    pub const fn new() -> Sorted<T> {
        Sorted(Vec::new())
    }

    fn place(&self, item: &T) -> Result<usize, usize> {
        // What is filled in order needs no search.
        match self.0.last().map(|last| last.cmp(item)) {
            None | Some(Ordering::Less) => Err(self.0.len()),
            Some(_) => search(self.0.len(), &|at| self.0[at].cmp(item)),
        }
    }

    /// Adds an item; whether it was not there.
    pub fn insert(&mut self, item: T) -> bool {
        let place = self.place(&item);
        if let Err(at) = place {
            self.0.insert(at, item);
        }
        place.is_err()
    }

    /// Whether an item is there.
    pub fn contains(&self, item: &T) -> bool {
        self.place(item).is_ok()
    }

    /// Removes an item; whether it was there.
    pub fn remove(&mut self, item: &T) -> bool {
        let place = self.place(item);
        if let Ok(at) = place {
            self.0.remove(at);
        }
        place.is_ok()
    }

    /// Removes the least item.
    pub fn pop_first(&mut self) -> Option<T> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// Removes all items but some.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }

    /// Whether no item is in both.
    pub fn is_disjoint(&self, other: &Sorted<T>) -> bool {
        let (few, many) = if self.len() < other.len() { (self, other) } else { (other, self) };
        !few.iter().any(|item| many.contains(item))
    }
}

/// The place among `count` in which a comparison finds what is sought, or in which it would have to be.
fn search(count: usize, compare: &dyn Fn(usize) -> Ordering) -> Result<usize, usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

impl<T> Deref for Sorted<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> Default for Sorted<T> {
    fn default() -> Sorted<T> {
        Sorted(Vec::new())
    }
}

impl<'a, T: Ord + Copy + 'a> Extend<&'a T> for Sorted<T> {
    fn extend<I: IntoIterator<Item = &'a T>>(&mut self, items: I) {
        self.extend(items.into_iter().copied());
    }
}

impl<T: Ord> Extend<T> for Sorted<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for item in items {
            self.insert(item);
        }
    }
}

impl<T: Ord> FromIterator<T> for Sorted<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut made = Self::default();
        made.extend(items);
        made
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for Sorted<T> {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<T> IntoIterator for Sorted<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Sorted<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_sorted_set_does_what_the_standard_librarys_does() {
        for count in [0, 1, 2, 7, 100] {
            let (mut ours, mut theirs) = (Sorted::new(), BTreeSet::new());
            for (turn, number) in numbers(count).enumerate() {
                match turn % 4 {
                    2 => assert_eq!(ours.remove(&number), theirs.remove(&number)),
                    3 => assert_eq!(ours.pop_first(), theirs.pop_first()),
                    _ => assert_eq!(ours.insert(number), theirs.insert(number)),
                }
                assert!(ours.iter().eq(&theirs));
                assert_eq!(ours.contains(&turn.try_into().unwrap()), theirs.contains(&(turn as u64)));
            }
            let (odd, even): (Sorted<u64>, Sorted<u64>) = (0..count).partition(|n| n % 2 == 1);
            assert!(odd.is_disjoint(&even));
            assert_eq!(odd.is_disjoint(&Sorted::from([1])), count < 2);
        }
    }
}
