//! Maps and sets by number: of a node on the tape, of a value in a program.
//!
//! The standard hasher withstands keys that an attacker chooses, and takes most of the time of a walk over a long chain;
//! numbers that were counted up need no more than to be spread. Deliberately absent: any use where order matters.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by number.
pub(crate) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;
/// A set of numbers.
pub(crate) type Numbers<K> = HashSet<K, BuildHasherDefault<Spread>>;

/// Multiplies by the golden ratio, as Knuth does, and turns the well-mixed upper bits to where tables look.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
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
