//! Normal numbers: equal bits on host and device, and the distribution that they claim.

use super::*;
use crate::gpu::Device;
use crate::ops::elementwise::normal_tail;

/// Words of every magnitude: ends of octaves, where ranges and leading zeros change, and 100,003 random ones.
fn words_to_try() -> Vec<u32> {
    let mut words: Vec<u32> = (0..32).flat_map(|s| (-3i64..4).map(move |by| ((1i64 << s) + by) as u32)).collect();
    words.extend((0..8).map(|by| u32::MAX - by));
    words.extend((0..100_003).map(|i| threefry::bits([1, 2], i)));
    words
}

#[test]
fn normal_numbers_have_the_bits_of_the_host() {
    let device = Device::blocking().unwrap();
    let words = words_to_try();
    for row in [&NORMAL_OF, &TRUNCATED_NORMAL_OF] {
        let host = if row.name == NORMAL_OF.name { quantile::normal } else { quantile::truncated_normal };
        let wanted: Vec<u32> = words.iter().map(|&word| host(word).to_bits()).collect();
        // Four lanes at a time, and one.
        for n in [words.len() / 4 * 4, words.len() / 4 * 4 - 1] {
            let got = Tensor::apply(Elementwise(row), &[&Tensor::new(&words[..n], [n])]);
            let got: Vec<u32> = got.to_vec_on::<f32>(&device).unwrap().into_iter().map(f32::to_bits).collect();
            let wrong = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
            assert_eq!(wrong.map(|at| (words[at], got[at], wanted[at])), None, "{}", row.name);
        }
    }
    let (seed, n) = (77, 100_000);
    let drawn = normal(&key(seed), [n / 4, 4]).to_vec_on::<f32>(&device).unwrap();
    let wanted: Vec<f32> = (0..n).map(|i| quantile::normal(threefry::bits(threefry::key(seed), i as u32))).collect();
    assert!(drawn == wanted);
}

/// The exact quantile lies within the stated error: there are probabilities on both sides of the one asked for.
#[test]
fn every_number_is_the_quantile_of_its_word() {
    let check = |x: f32, p: f64| {
        let x = f64::from(x.abs());
        // Fixed point 2^-24, its last digit, and rounding to 24 bits.
        let error = 2f64.powi(-24) + 2f64.powi(-25) + if x >= 1.0 { 2f64.powi(x.log2() as i32 - 24) } else { 0.0 };
        let (above, below) = (normal_tail((x - error).max(0.0)), normal_tail(x + error));
        assert!(below < p && (p < above || x < error), "{x} of {p:e}: {below:e} to {above:e}");
    };
    let least = normal_tail(2.0) * 2.0;
    for word in words_to_try() {
        let q = f64::from(word | 1);
        let (x, y) = (quantile::normal(word), quantile::truncated_normal(word));
        check(x, q * 2f64.powi(-33));
        check(y, (least + q * 2f64.powi(-32) * (1.0 - least)) / 2.0);
        assert!(y.abs() <= 2.0, "{y}");
        // The lowest bit is the sign and nothing else.
        assert_eq!((quantile::normal(word & !1), quantile::truncated_normal(word & !1)), (x.abs(), y.abs()));
        assert!(word & 1 == 0 || (x <= 0.0 && y <= 0.0), "{word:#x}: {x} {y}");
    }
    // Fixed, so that an old run can be repeated. Computed by an independent implementation in Python.
    let known: [(u32, u32); 7] = [
        (0, 0x40ca_d08d),
        (1, 0xc0ca_d08d),
        (u32::MAX, 0),
        (1 << 31, 0x3f2c_ab5c),
        (0x4726_028f, 0xbf8a_e120),
        (0x6224_7685, 0xbf5f_281d),
        (0x9239_23c4, 0x3f10_f991),
    ];
    for (word, bits) in known {
        assert_eq!(quantile::normal(word).to_bits(), bits, "{word:#x}");
    }
    assert_eq!(quantile::normal(0), 6.337_958);
}

/// Moments and Kolmogorov's distance of a million draws, each within five standard deviations of its estimate.
#[test]
fn normal_numbers_are_normal() {
    let n = 1_000_000;
    let mut x: Vec<f64> =
        (0..n).map(|i| f64::from(quantile::normal(threefry::bits(threefry::key(3), i as u32)))).collect();
    let moment = |k: i32| x.iter().map(|v| v.powi(k)).sum::<f64>() / n as f64;
    // The variance of x^k is E x^2k - (E x^k)^2, with E x^2k = (2k - 1)!!.
    for (k, mean, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0), (6, 15.0, 10_170.0)] {
        let deviation = f64::sqrt(variance / n as f64);
        assert!((moment(k) - mean).abs() < 5.0 * deviation, "moment {k} is {}", moment(k));
    }
    x.sort_unstable_by(f64::total_cmp);
    let cdf = |v: f64| if v < 0.0 { normal_tail(-v) } else { 1.0 - normal_tail(v) };
    let distance = x.iter().enumerate().map(|(i, &v)| (cdf(v) - (i as f64 + 0.5) / n as f64).abs()).fold(0.0, f64::max);
    // Exceeded once in 10^5 samples: sqrt(ln(2 / 10^-5) / 2 n).
    assert!(distance < (2e5f64.ln() / 2.0 / n as f64).sqrt(), "distance {distance}");
}

/// Variance of a normal number that lies within two deviations: 1 - 4 phi(2) / (1 - 2 Q(2)).
#[test]
fn truncated_numbers_have_the_variance_of_what_is_left() {
    let n = 200_000;
    let x: Vec<f64> =
        (0..n).map(|i| f64::from(quantile::truncated_normal(threefry::bits(threefry::key(4), i as u32)))).collect();
    let (mean, variance) = (x.iter().sum::<f64>() / n as f64, x.iter().map(|v| v * v).sum::<f64>() / n as f64);
    let wanted = 1.0 - 4.0 * (-2f64).exp() / std::f64::consts::TAU.sqrt() / (1.0 - 2.0 * normal_tail(2.0));
    assert!(mean.abs() < 5.0 * (wanted / n as f64).sqrt(), "mean {mean}");
    // x^2 is below 4, so its deviation is below 2 (it is 0.9).
    assert!((variance - wanted).abs() < 5.0 * 0.9 / (n as f64).sqrt(), "variance {variance}, not {wanted}");
}

#[test]
fn permutations_are_those_of_the_host() {
    let device = Device::blocking().unwrap();
    for n in [1, 2, 3, 64, 257] {
        let wanted: Vec<i32> = threefry::permutation(threefry::key(42), n).into_iter().map(|i| i as i32).collect();
        assert_eq!(permutation(&key(42), n).to_vec_on::<i32>(&device).unwrap(), wanted);
    }
}
