//! Sorting, with one copy of the algorithm for all types.
//!
//! The standard library's is compiled for each type and key anew: several kilobytes each, of which a page had seventy. Use
//! these for what is sorted once in a while; where time counts, use the standard library's. Deliberately absent: unstable
//! sorting.

use std::cmp::Ordering;

/// Sorts by a comparison; equal items keep their order.
pub(crate) fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let order = sorted(items.len(), &|a, b| compare(&items[a], &items[b]));
    rearrange(order, &mut |a, b| items.swap(a, b));
}

/// Sorts by a key; equal items keep their order.
pub(crate) fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}

/// Sorts; equal items keep their order.
pub(crate) fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// Positions 0 to `count` in the order that a comparison puts them in.
fn sorted(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let (mut order, mut merged): (Vec<usize>, Vec<usize>) = ((0..count).collect(), Vec::with_capacity(count));
    // Runs of one position, then of two, four and so on: small, where the standard library's sort is fast.
    let mut run = 1;
    while run < count {
        merged.clear();
        for start in (0..count).step_by(2 * run) {
            let (middle, end) = ((start + run).min(count), (start + 2 * run).min(count));
            let (mut left, mut right) = (start, middle);
            while left < middle || right < end {
                let takes_right = left == middle || right < end && compare(order[right], order[left]) == Ordering::Less;
                let from = if takes_right { &mut right } else { &mut left };
                merged.push(order[*from]);
                *from += 1;
            }
        }
        std::mem::swap(&mut order, &mut merged);
        run *= 2;
    }
    order
}

/// Swaps until at each place there is what was at `order[place]`, cycle after cycle.
fn rearrange(mut order: Vec<usize>, swap: &mut dyn FnMut(usize, usize)) {
    for start in 0..order.len() {
        let mut place = start;
        loop {
            let from = std::mem::replace(&mut order[place], place);
            if from == start || from == place {
                break;
            }
            swap(place, from);
            place = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sorts_as_the_standard_library_does() {
        for count in [0, 1, 2, 3, 10, 100, 1000] {
            // Numbers that repeat, in no order.
            let numbers = (0..count).map(|i| (i * i + 7 * i) % (count / 2 + 1));
            let mut ours: Vec<(usize, usize)> = numbers.zip(0..).collect();
            let mut theirs = ours.clone();
            sort_by_key(&mut ours, |item| item.0);
            theirs.sort_by_key(|item| item.0);
            assert_eq!(ours, theirs);
            sort_by(&mut ours, |a, b| b.1.cmp(&a.1));
            theirs.reverse();
            theirs.sort_by_key(|item| std::cmp::Reverse(item.1));
            assert_eq!(ours, theirs);
            sort(&mut ours);
            theirs.sort();
            assert_eq!(ours, theirs);
        }
    }
}
