//! Maps and sets, with one copy of the algorithms for all types.
//!
//! The standard library's are compiled for each type anew: two kilobytes each, of which a page had sixty. Here the positions
//! of entries and the search are compiled once, and a type adds its comparison. Deliberately absent: keys from strangers,
//! who could choose such as collide.

mod hashed;
mod sorted;

pub use hashed::{Set, Table};
pub use sorted::Sorted;

/// Numbers that repeat, in no order.
#[cfg(test)]
fn numbers(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |i| (i * i * 31 + 7 * i) % (count / 2 + 1))
}
