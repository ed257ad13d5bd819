//! Normal numbers from random words in integers alone, so that they are equal on every device and on the host.
//!
//! The inverse of the normal distribution function in fixed point: the logarithm of the tail's probability by one
//! polynomial, then the quantile by a polynomial in that logarithm for each of four ranges, after the form of Giles,
//! "Approximating the erfinv function" (GPU Computing Gems, 2011). `shaders/normal.wgsl` is the same function on a
//! device; it says what each step means. The polynomials are minimax fits: of log2 with an error of 2^-27, of the
//! quantile with errors of 2^-25.8 to 2^-24.3; their constants carry one unit for the mean of what `scale` loses. With
//! all rounding the quantile is within 2^-23. Deliberately absent: floats until the last step, which is exact;
//! Box and Muller's method, whose logarithm and cosine differ between drivers.

/// Coefficients of log2(1.5 + t / 2), highest first, in units of 2^-30.
const LOG2: [i32; 10] = [11634, -37222, 97798, -347050, 1276681, -4783721, 19124113, -86059780, 516360690, 628098697];
/// Upper ends of the first three ranges.
const BOUNDS: [i32; 3] = [-982473769, -768396493, -241591910];
/// Centre, scale as a shift, and coefficients of each range, highest first, in units of 2^-28.
const RANGES: [(i32, u32, [i32; 10]); 4] = [
    (-1028107796, 5, [199575, -355458, 461580, -964165, 2119582, -4667362, 11235769, -32297460, 164116620, 131521468]),
    (-875435131, 4, [53097, -111884, 173311, -428372, 1115531, -2925169, 8435453, -29446887, 190427885, 407542530]),
    (-504994202, 3, [12843, -32455, 59165, -177425, 562403, -1792027, 6322391, -27370957, 227483654, 802017334]),
    (
        416074957,
        1,
        [1362576, -2116620, 2345853, -4365006, 8608012, -17067798, 37689791, -103166219, 554090788, 1393835071],
    ),
];
/// Twice the probability above 2, in units of 2^-32.
const TWO_SIGMA: u32 = 195422146;

/// `a b / 2^31` for `b / 2^31` in [-1, 1), as products of halves have it: up to three units too low.
fn scale(a: i32, b: i32) -> i32 {
    let (low, high) = ((a & 0xffff, b & 0xffff), (a >> 16, b >> 16));
    let middle = ((high.0 * low.1) >> 1) + ((low.0 * high.1) >> 1);
    high.0 * high.1 * 2 + (middle >> 14)
}

fn polynomial(coefficients: &[i32], t: i32) -> i32 {
    coefficients.iter().skip(1).fold(coefficients[0], |sum, &c| c + scale(sum, t))
}

/// x >= 0 in units of 2^-24 such that a standard normal number is above it with probability `q` / 2^33; `q` is not 0.
fn quantile(q: u32) -> i32 {
    let zeros = q.leading_zeros();
    let t = ((q << zeros << 1) ^ 0x8000_0000) as i32;
    let m = (zeros as i32 - 15) * (1 << 26) - (polynomial(&LOG2, t) >> 4);
    let (centre, shift, coefficients) = &RANGES[BOUNDS.iter().filter(|&&bound| m >= bound).count()];
    ((polynomial(coefficients, (m - centre) << shift) + 8) >> 4).max(0)
}

/// A float from units of 2^-24, rounded to 24 bits.
fn unscale(k: i32, negative: bool) -> f32 {
    let excess = 8 - k.leading_zeros().min(8);
    let whole = (k + ((1 << excess) >> 1)) >> excess;
    (if negative { -whole } else { whole }) as f32 * f32::from_bits((103 + excess) << 23)
}

/// A standard normal number from a random word, by the inverse of the distribution function: the lowest bit is the sign,
/// the others choose the probability of the tail. Between -6.338 and 6.338.
pub fn normal(word: u32) -> f32 {
    unscale(quantile(word | 1), word & 1 == 1)
}

/// The same on the condition that it lies between -2 and 2.
pub fn truncated_normal(word: u32) -> f32 {
    let share = u64::from(word | 1) * u64::from(TWO_SIGMA.wrapping_neg());
    unscale(quantile(TWO_SIGMA + (share >> 32) as u32), word & 1 == 1)
}
