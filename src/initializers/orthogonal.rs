//! Random matrices with orthonormal columns, by Gram and Schmidt.
//!
//! The columns of a matrix of normal numbers, made orthogonal one after the other, are uniformly distributed among all
//! such matrices, provided that the diagonal of R is positive (Mezzadri, "How to generate random matrices from the
//! classical compact groups", 2007), which it is here: it holds lengths. A column that lost much of its length to the
//! others is made orthogonal once more, which is enough (Parlett, "The Symmetric Eigenvalue Problem", 6.9). In f64 and in
//! a fixed order, so equal keys give equal bits. Deliberately absent: Householder's reflections, which take more text
//! and no less time.

use crate::random::{quantile, threefry};

/// `gain` times a matrix of `rows` x `columns`, row-major, whose columns are orthonormal; its rows, if there are fewer.
pub(super) fn matrix(rows: usize, columns: usize, gain: f64, key: [u32; 2]) -> Vec<f32> {
    let (long, short) = (rows.max(columns), rows.min(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(short);
    for column in 0..short {
        // The numbers of a matrix [long, short], row-major.
        let number = |row: usize| f64::from(quantile::normal(threefry::bits(key, (row * short + column) as u32)));
        let mut vector: Vec<f64> = (0..long).map(number).collect();
        let mut length = dot(&vector, &vector).sqrt();
        for _ in 0..2 {
            for other in &basis {
                let along = dot(other, &vector);
                vector.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
            let left = dot(&vector, &vector).sqrt();
            let lost = left < 0.7 * length;
            length = left;
            if !lost {
                break;
            }
        }
        if length > 0.0 {
            vector.iter_mut().for_each(|v| *v /= length);
        } else {
            // One number of 10^8 is zero, so a matrix of one element may be; its sign is then free.
            vector[column] = 1.0;
        }
        basis.push(vector);
    }
    let element = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        let value = if rows < columns { basis[row][column] } else { basis[column][row] };
        (gain * value) as f32
    };
    (0..rows * columns).map(element).collect()
}

/// The inner product, eight sums side by side.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0; 8];
    for (a, b) in a.zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}
