//! [`Table`] and [`Set`]: hashed, and in the order of insertion.
//!
//! Whoever walks one sees the same order in every run. Numbers are spread rather than hashed: the standard hasher withstands
//! keys that an attacker chooses, and takes most of the time of a walk over a long chain. Deliberately absent: removal that
//! keeps the order, which would move what is behind.

use std::borrow::Borrow;
use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::ops::Index;

/// A hash table in the order of insertion. Removing puts the last entry where the removed one was.
#[derive(Clone)]
pub struct Table<K, V> {
    entries: Vec<(K, V)>,
    positions: Positions,
}

/// A set in the order of insertion, see [`Table`].
#[derive(Clone)]
pub struct Set<T>(Table<T, ()>);

/// Where entries stand, by the hashes of their keys: open addressing, one step at a time.
#[derive(Clone, Default)]
struct Positions {
    /// The hash of each entry.
    hashes: Vec<u64>,
    /// One more than the position of an entry, or 0 where none is. As many as a power of two, or none.
    slots: Vec<u32>,
}

impl Positions {
    /// The position of an entry that has this hash and `is` the one.
    fn find(&self, hash: u64, is: &dyn Fn(usize) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.home(hash);
        while self.slots[slot] != 0 {
            let position = self.slots[slot] as usize - 1;
            if self.hashes[position] == hash && is(position) {
                return Some(position);
            }
            slot = self.after(slot);
        }
        None
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// Adds an entry behind all others.
    fn push(&mut self, hash: u64) {
        self.hashes.push(hash);
        // A quarter stays free, which keeps searches short.
        if self.hashes.len() * 4 > self.slots.len() * 3 {
            self.slots = vec![0; (self.slots.len() * 2).max(8)];
            (0..self.hashes.len()).for_each(|position| self.occupy(position));
        } else {
            self.occupy(self.hashes.len() - 1);
        }
    }

    fn occupy(&mut self, position: usize) {
        let mut slot = self.home(self.hashes[position]);
        while self.slots[slot] != 0 {
            slot = self.after(slot);
        }
        self.slots[slot] = position as u32 + 1;
    }

    fn slot(&self, position: usize) -> usize {
        let mut slot = self.home(self.hashes[position]);
        while self.slots[slot] as usize != position + 1 {
            slot = self.after(slot);
        }
        slot
    }

    /// Removes an entry, whose position the last one takes.
    fn swap_remove(&mut self, position: usize) {
        let (mut hole, last) = (self.slot(position), self.slot(self.hashes.len() - 1));
        self.slots[last] = position as u32 + 1;
        self.hashes.swap_remove(position);
        // What could not have its place because of the removed one, directly or over others, moves up.
        let mut slot = hole;
        loop {
            slot = self.after(slot);
            if self.slots[slot] == 0 {
                break;
            }
            let home = self.home(self.hashes[self.slots[slot] as usize - 1]);
            let mask = self.slots.len() - 1;
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[slot];
                hole = slot;
            }
        }
        self.slots[hole] = 0;
    }

    fn clear(&mut self) {
        self.hashes.clear();
        self.slots.clear();
    }
}

fn hash(key: &(impl Hash + ?Sized)) -> u64 {
    let mut spread = Spread(0);
    key.hash(&mut spread);
    spread.finish()
}

/// Multiplies by the golden ratio, as Knuth does, and turns the well-mixed upper bits to where tables look.
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..word.len()].copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(eight));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// An empty map.
    pub fn new() -> Table<K, V> {
        Table::default()
    }

    fn position<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        self.positions.find(hash(key), &|at| self.entries[at].0.borrow() == key)
    }

    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.position(key).map(|at| &self.entries[at].1)
    }

    /// The value of a key, to change.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.position(key).map(|at| &mut self.entries[at].1)
    }

    /// Whether there is an entry.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.position(key).is_some()
    }

    /// Sets the value of a key and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.position(&key) {
            Some(at) => Some(std::mem::replace(&mut self.entries[at].1, value)),
            None => {
                self.push(key, value);
                None
            }
        }
    }

    fn push(&mut self, key: K, value: V) {
        self.positions.push(hash(&key));
        self.entries.push((key, value));
    }

    /// The value of a key, made if there is none.
    pub fn or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let at = self.position(&key).unwrap_or(self.entries.len());
        if at == self.entries.len() {
            self.push(key, value());
        }
        &mut self.entries[at].1
    }

    /// The value of a key, set if there is none.
    pub fn or_insert(&mut self, key: K, value: V) -> &mut V {
        self.or_insert_with(key, || value)
    }

    /// The value of a key, the default if there is none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.or_insert_with(key, V::default)
    }

    /// Removes an entry.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.position(key)?;
        self.positions.swap_remove(at);
        Some(self.entries.swap_remove(at).1)
    }
}

impl<K, V> Table<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
        self.positions.hashes.reserve(more);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.positions.clear();
    }

    /// Keys and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> + Clone {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// Keys and values, these to change.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// Keys.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.entries.iter().map(|(key, _)| key)
    }

    /// Values.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.entries.iter().map(|(_, value)| value)
    }

    /// The keys alone.
    pub fn into_keys(self) -> impl ExactSizeIterator<Item = K> {
        self.entries.into_iter().map(|(key, _)| key)
    }

    /// The values alone.
    pub fn into_values(self) -> impl ExactSizeIterator<Item = V> {
        self.entries.into_iter().map(|(_, value)| value)
    }
}

impl<T: Hash + Eq> Set<T> {
    /// An empty set.
    pub fn new() -> Set<T> {
        Set::default()
    }

    /// Adds an item; whether it was not there.
    pub fn insert(&mut self, item: T) -> bool {
        self.0.insert(item, ()).is_none()
    }

    /// Whether an item is there.
    pub fn contains<Q: Hash + Eq + ?Sized>(&self, item: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.0.contains_key(item)
    }

    /// Removes an item; whether it was there.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, item: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.0.remove(item).is_some()
    }
}

impl<T> Set<T> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> + Clone {
        self.0.keys()
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table { entries: Vec::new(), positions: Positions::default() }
    }
}

impl<T> Default for Set<T> {
    fn default() -> Set<T> {
        Set(Table::default())
    }
}

impl<K: Debug, V: Debug> Debug for Table<K, V> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<T: Debug> Debug for Set<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<K: Hash + Eq + Borrow<Q>, V, Q: Hash + Eq + ?Sized> Index<&Q> for Table<K, V> {
    type Output = V;

    /// Panics where there is no entry.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("an entry of this key")
    }
}

impl<K: Hash + Eq, V> Extend<(K, V)> for Table<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
    }
}

impl<T: Hash + Eq> Extend<T> for Set<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for item in items {
            self.insert(item);
        }
    }
}

impl<'a, T: Hash + Eq + Copy + 'a> Extend<&'a T> for Set<T> {
    fn extend<I: IntoIterator<Item = &'a T>>(&mut self, items: I) {
        self.extend(items.into_iter().copied());
    }
}

impl<T: Hash + Eq> PartialEq for Set<T> {
    fn eq(&self, other: &Set<T>) -> bool {
        self.len() == other.len() && self.iter().all(|item| other.contains(item))
    }
}

impl<T: Hash + Eq> Eq for Set<T> {}

impl<K: Hash + Eq, V> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        let mut made = Self::default();
        made.extend(items);
        made
    }
}

impl<K: Hash + Eq, V, const N: usize> From<[(K, V); N]> for Table<K, V> {
    fn from(items: [(K, V); N]) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Hash + Eq> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut made = Self::default();
        made.extend(items);
        made
    }
}

impl<T: Hash + Eq, const N: usize> From<[T; N]> for Set<T> {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<K, V> IntoIterator for Table<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a Table<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}

impl<T> IntoIterator for Set<T> {
    type Item = T;
    type IntoIter = std::iter::Map<std::vec::IntoIter<(T, ())>, fn((T, ())) -> T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(item, ())| item)
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers;
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_map_does_what_the_standard_librarys_does() {
        for count in [0, 1, 2, 7, 100, 3000] {
            let (mut ours, mut theirs) = (Table::new(), HashMap::new());
            for (turn, number) in numbers(count).enumerate() {
                // Text makes keys of several words, and every third turn removes.
                let key = "k".repeat(number as usize % 19) + &number.to_string();
                if turn % 3 == 2 {
                    assert_eq!(ours.remove(key.as_str()), theirs.remove(key.as_str()));
                } else {
                    assert_eq!(ours.insert(key.clone(), turn), theirs.insert(key.clone(), turn));
                }
                assert_eq!(ours.get(key.as_str()), theirs.get(key.as_str()));
                assert_eq!(ours.len(), theirs.len());
            }
            for (key, value) in &theirs {
                assert_eq!(ours.get(key), Some(value));
            }
            for (key, value) in &ours {
                assert_eq!(theirs.get(key), Some(value));
            }
        }
    }

    #[test]
    fn a_map_keeps_its_order_and_fills_up_on_demand() {
        let mut map: Table<u64, Vec<u64>> = Table::new();
        for number in [5, 3, 9, 3, 5] {
            let turn = map.len() as u64;
            map.or_default(number).push(turn);
        }
        assert_eq!(map.keys().copied().collect::<Vec<_>>(), [5, 3, 9]);
        assert_eq!(map[&5], [0, 3]);
        *map.or_insert(1, vec![7]) = vec![8];
        assert_eq!(map.into_values().last(), Some(vec![8]));
    }

    #[test]
    fn removing_finds_what_others_had_pushed_aside() {
        // All in one run of slots, removed in every order of three.
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut positions = Positions::default();
            let mut left: Vec<(u64, usize)> = Vec::new();
            for number in 0..6 {
                // The last slot, so that the run goes on at the first.
                positions.push(7 + 8 * (number as u64 % 2));
                left.push((7 + 8 * (number as u64 % 2), number));
            }
            for removed in order {
                let at = left.iter().position(|&(_, number)| number == removed).unwrap();
                positions.swap_remove(at);
                left.swap_remove(at);
                for (at, &(hash, number)) in left.iter().enumerate() {
                    assert_eq!(positions.find(hash, &|at| left[at].1 == number), Some(at));
                }
                assert_eq!(positions.find(7, &|at| left[at].1 == removed), None);
            }
        }
    }
}
