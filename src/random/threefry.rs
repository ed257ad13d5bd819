//! Threefry-2x32: a block cipher of a counter under a key, and so a random number generator without a state.
//!
//! Every random number of the crate, on the host and on a device, comes from this one function of (key, counter), so
//! equal seeds give equal bits everywhere and recomputing a tensor draws the same numbers again. Source: Salmon,
//! Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011, with their 20 rounds. Deliberately
//! absent: a generator object that advances. A key is used once, either to draw from or to [`fold_in`] children; the
//! index of an element is 32 bits, as on a device.

/// The key schedule's parity constant, from Skein.
const PARITY: u32 = 0x1BD1_1BDA;
/// Rotation distances of eight rounds, repeated.
const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];

/// One block: 20 rounds of Threefry-2x32.
pub fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let schedule = [key[0], key[1], key[0] ^ key[1] ^ PARITY];
    let (mut a, mut b) = (counter[0].wrapping_add(key[0]), counter[1].wrapping_add(key[1]));
    // Five groups of four rounds, each followed by an injection of the key and of the group's number.
    for group in 1..=5 {
        for rotation in ROTATIONS[(group - 1) % 2] {
            a = a.wrapping_add(b);
            b = b.rotate_left(rotation) ^ a;
        }
        a = a.wrapping_add(schedule[group % 3]);
        b = b.wrapping_add(schedule[(group + 1) % 3]).wrapping_add(group as u32);
    }
    [a, b]
}

/// The key of a seed: its high and its low word.
pub fn key(seed: u64) -> [u32; 2] {
    [(seed >> 32) as u32, seed as u32]
}

/// A key for one of the things that are numbered under `key`: a layer, an epoch, a step.
pub fn fold_in(key: [u32; 2], data: u32) -> [u32; 2] {
    threefry2x32(key, [0, data])
}

/// The random word of the element at `index`. One block for each element, so that a kernel's invocations need
/// nothing of each other.
pub fn bits(key: [u32; 2], index: u32) -> u32 {
    let [a, b] = threefry2x32(key, [0, index]);
    a ^ b
}

/// A word as a number in [0, 1): its upper 24 bits, which `f32` holds exactly.
pub fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// `n` numbers in [`low`, `high`), element i from [`bits`]`(key, i)`. All of them `low` if `high` is not above it.
pub fn uniform(key: [u32; 2], n: usize, low: f32, high: f32) -> Vec<f32> {
    // low + (high - low) * u may round up to `high`, which does not belong to the interval.
    let last = high.next_down();
    (0..n).map(|i| (low + (high - low) * unit(bits(key, i as u32))).min(last).max(low)).collect()
}

/// A random order of `0..n`: the indices sorted by the 64 bits of their blocks, equal ones in their own order. A sort,
/// unlike a shuffle in place, is something a device can do too. Two of 10^6 keys are equal once in 4 * 10^7 orders.
pub fn permutation(key: [u32; 2], n: usize) -> Vec<usize> {
    let mut order: Vec<(u64, usize)> = (0..n)
        .map(|i| {
            let [a, b] = threefry2x32(key, [0, i as u32]);
            (u64::from(a) << 32 | u64::from(b), i)
        })
        .collect();
    // A byte after the other, each pass stable: not slower than comparing where keys are spread evenly, and less code.
    let mut next = order.clone();
    for byte in 0..8 {
        let digit = |key: u64| (key >> (8 * byte)) as usize & 0xff;
        let mut places = [0usize; 257];
        order.iter().for_each(|&(key, _)| places[digit(key) + 1] += 1);
        (0..256).for_each(|at| places[at + 1] += places[at]);
        for &entry in &order {
            let place = &mut places[digit(entry.0)];
            next[*place] = entry;
            *place += 1;
        }
        std::mem::swap(&mut order, &mut next);
    }
    order.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123, kat_vectors, threefry2x32 with 20 rounds.
    #[test]
    fn blocks_are_those_of_random123() {
        assert_eq!(threefry2x32([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry2x32([!0, !0], [!0, !0]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry2x32([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }

    #[test]
    fn a_seed_is_its_two_words_and_folding_is_a_block() {
        assert_eq!(key(0x0123_4567_89ab_cdef), [0x0123_4567, 0x89ab_cdef]);
        assert_eq!(fold_in(key(3), 7), threefry2x32([0, 3], [0, 7]));
        assert_eq!(bits([0, 0], 0), 0x6b20_0159 ^ 0x99ba_4efe);
    }

    #[test]
    fn unit_covers_the_half_open_interval() {
        assert_eq!(unit(0), 0.0);
        assert_eq!(unit(1 << 31), 0.5);
        assert_eq!(unit(u32::MAX), 1.0 - f32::EPSILON / 2.0);
    }

    /// Mean, variance and the counts of 16 bins of 100,000 draws, each within five standard deviations of what a
    /// uniform distribution has.
    #[test]
    fn uniform_is_uniform() {
        let n = 100_000;
        let draws = uniform(key(1), n, -1.0, 3.0);
        let unit: Vec<f64> = draws.iter().map(|&v| (f64::from(v) + 1.0) / 4.0).collect();
        assert!(unit.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = unit.iter().sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / n as f64).sqrt(), "mean {mean}");
        let variance = unit.iter().map(|u| (u - mean).powi(2)).sum::<f64>() / n as f64;
        assert!((variance - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0 / n as f64).sqrt(), "variance {variance}");
        for bin in 0..16 {
            let count = unit.iter().filter(|&&u| (u * 16.0) as usize == bin).count() as f64;
            let deviation = (n as f64 * 15.0 / 256.0).sqrt();
            assert!((count - n as f64 / 16.0).abs() < 5.0 * deviation, "bin {bin} has {count}");
        }
    }

    #[test]
    fn uniform_never_reaches_its_upper_end() {
        // 1 and 1 + 2^-23 are neighbours: half of the draws would round to the upper one.
        assert!(uniform(key(2), 100, 1.0, 1.0 + f32::EPSILON).iter().all(|&v| v == 1.0));
        assert_eq!(uniform(key(2), 3, 2.0, 2.0), [2.0; 3]);
    }

    #[test]
    fn permutations_are_orders_that_depend_on_the_key_alone() {
        for n in [0, 1, 2, 1000] {
            let mut order = permutation(key(5), n);
            assert_eq!(order, permutation(key(5), n));
            order.sort_unstable();
            assert!(order.iter().copied().eq(0..n));
        }
        assert_ne!(permutation(key(5), 1000), permutation(key(6), 1000));
        // Fixed, so that an old run can be repeated. Computed by an independent implementation in Python.
        assert_eq!(permutation(key(42), 8), [1, 0, 2, 7, 5, 6, 4, 3]);
    }

    /// Every one of the six orders of three comes up equally often, within five standard deviations.
    #[test]
    fn permutations_are_unbiased() {
        let n = 6000;
        let mut counts = std::collections::BTreeMap::new();
        for i in 0..n {
            *counts.entry(permutation(fold_in(key(9), i), 3)).or_insert(0.0) += 1.0;
        }
        assert_eq!(counts.len(), 6);
        let deviation = (f64::from(n) * 5.0 / 36.0).sqrt();
        assert!(counts.values().all(|&c: &f64| (c - f64::from(n) / 6.0).abs() < 5.0 * deviation), "{counts:?}");
    }
}
