//! Initializers: ranges, moments, orthogonality, names, messages, and equal bits for equal seeds.

use super::*;

fn values(initializer: &Initializer, shape: impl Into<Shape>, seed: u64) -> Vec<f32> {
    let tensor = initializer.tensor(&Spec::new(shape, DType::F32), threefry::key(seed)).unwrap();
    let (node, output) = tensor.node().unwrap();
    node.value(output).host.unwrap().iter().map(|&bits| f32::from_bits(bits)).collect()
}

#[test]
fn fans_multiply_the_window() {
    assert_eq!(fans(&[3, 5].into()), (3.0, 5.0));
    assert_eq!(fans(&[3, 3, 16, 32].into()), (144.0, 288.0));
    assert_eq!(fans(&[7].into()), (7.0, 7.0));
    assert_eq!(fans(&[].into()), (1.0, 1.0));
}

#[test]
fn uniform_ones_fill_their_range_and_follow_the_key() {
    let limits = [
        (Initializer::GlorotUniform, (6.0f32 / 150.0).sqrt()),
        (Initializer::HeUniform, (6.0f32 / 100.0).sqrt()),
        (Initializer::LecunUniform, (3.0f32 / 100.0).sqrt()),
        (Initializer::RandomUniform { min: -0.05, max: 0.05 }, 0.05),
    ];
    for (initializer, limit) in limits {
        let x = values(&initializer, [100, 50], 1);
        let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        assert!(most <= limit && most > 0.99 * limit, "{initializer:?}: {most} of {limit}");
        // The mean of n uniform draws has the deviation limit / sqrt(3 n); four of them are never exceeded here.
        let mean = x.iter().sum::<f32>() / 5000.0;
        assert!(mean.abs() < 4.0 * limit / (3.0f32 * 5000.0).sqrt(), "{initializer:?}: mean {mean}");
        assert_eq!(x, values(&initializer, [100, 50], 1));
        assert_ne!(x, values(&initializer, [100, 50], 2));
    }
}

#[test]
fn constants_and_functions() {
    assert_eq!(values(&Initializer::Zeros, [2], 0), [0.0; 2]);
    assert_eq!(values(&Initializer::Ones, [2], 0), [1.0; 2]);
    assert_eq!(values(&Initializer::Constant(0.5), [2], 0), [0.5; 2]);
    let count = Initializer::function(|shape, _| (0..shape.numel()).map(|i| i as f32).collect());
    assert_eq!(values(&count, [3], 0), [0.0, 1.0, 2.0]);
    let short = Initializer::function(|_, _| vec![1.0]);
    assert!(
        matches!(short.tensor(&Spec::new([3], DType::F32), [0, 0]), Err(error) if matches!(error.kind(), ErrorKind::Shape { .. }))
    );
}

#[test]
fn names() {
    assert!(matches!("HeUniform".into(), Initializer::HeUniform));
    let unknown = Initializer::from("he_unifrom").tensor(&Spec::new([2], DType::F32), [0, 0]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "unknown initializer \"he_unifrom\"; known: zeros, ones, constant, identity, random_uniform, random_normal, \
         truncated_normal, variance_scaling, glorot_uniform, glorot_normal, he_uniform, he_normal, lecun_uniform, \
         lecun_normal, orthogonal"
    );
    for name in KNOWN {
        assert_eq!(get(name).unwrap().name(), name);
        // Keras takes the names of the classes too.
        let class: String = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        assert_eq!(get(&class).unwrap().name(), name);
    }
    let defaults = [
        ("normal", "random_normal(0, 0.05)"),
        ("uniform", "random_uniform(-0.05, 0.05)"),
        ("TruncatedNormal", "truncated_normal(0, 0.05)"),
        ("variance_scaling", "variance_scaling(1, In, TruncatedNormal)"),
        ("orthogonal", "orthogonal(1)"),
        ("constant", "constant(0)"),
        ("zero", "zeros"),
    ];
    for (name, shown) in defaults {
        assert_eq!(format!("{:?}", get(name).unwrap()), shown);
    }
}

#[test]
fn what_a_dtype_cannot_hold_is_refused() {
    let spec = Spec::new([2], DType::I32);
    assert!(
        matches!(Initializer::Constant(0.5).tensor(&spec, [0, 0]), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. }))
    );
    assert!(
        matches!(Initializer::GlorotUniform.tensor(&spec, [0, 0]), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. }))
    );
    assert!(Initializer::Ones.tensor(&spec, [0, 0]).is_ok());
}

/// Mean, variance and largest magnitude of 288,000 draws for a convolution kernel `[3, 3, 80, 400]`, whose fans are 720
/// and 3,600.
#[test]
fn normal_ones_have_the_variance_of_their_fans() {
    let variance = |scale: f64, mode, distribution| Initializer::VarianceScaling { scale, mode, distribution };
    use Distribution::{Normal, TruncatedNormal, Uniform};
    // Initializer, variance, largest magnitude in standard deviations, fourth moment over the variance squared.
    let truncated = (2.0 / TRUNCATED_DEVIATION, 2.3655);
    let cases = [
        (Initializer::GlorotNormal, 2.0 / 4320.0, truncated),
        (Initializer::HeNormal, 2.0 / 720.0, truncated),
        (Initializer::LecunNormal, 1.0 / 720.0, truncated),
        (Initializer::GlorotUniform, 2.0 / 4320.0, (3f64.sqrt(), 1.8)),
        (Initializer::HeUniform, 2.0 / 720.0, (3f64.sqrt(), 1.8)),
        (variance(0.5, Fan::Out, Normal), 0.5 / 3600.0, (6.338, 3.0)),
        (variance(3.0, Fan::Average, TruncatedNormal), 3.0 / 2160.0, truncated),
        (variance(1.5, Fan::In, Uniform), 1.5 / 720.0, (3f64.sqrt(), 1.8)),
        (Initializer::RandomNormal { mean: 0.0, stddev: 0.05 }, 0.0025, (6.338, 3.0)),
        (Initializer::TruncatedNormal { mean: 0.0, stddev: 0.05 }, (0.05 * TRUNCATED_DEVIATION).powi(2), truncated),
    ];
    for (initializer, variance, (most, fourth)) in cases {
        let x: Vec<f64> = values(&initializer, [3, 3, 80, 400], 3).into_iter().map(f64::from).collect();
        let n = x.len() as f64;
        let (mean, square) = (x.iter().sum::<f64>() / n, x.iter().map(|v| v * v).sum::<f64>() / n);
        let largest = x.iter().fold(0.0f64, |most, v| most.max(v.abs())) / variance.sqrt();
        assert!(mean.abs() < 5.0 * (variance / n).sqrt(), "{initializer:?}: mean {mean}");
        // The variance of x^2 is E x^4 - variance^2.
        let deviation = variance * ((fourth - 1.0) / n).sqrt();
        assert!((square - variance).abs() < 5.0 * deviation, "{initializer:?}: variance {square}, not {variance}");
        // Bounded distributions nearly reach their bound; of 288,000 normal numbers the largest is about 4.6.
        let nearly = if most > 6.0 { 4.0 } else { 0.999 * most };
        assert!(largest > nearly && largest <= most * (1.0 + 1e-6), "{initializer:?}: {largest} of {most}");
        assert_eq!(values(&initializer, [5, 7], 1), values(&initializer, [5, 7], 1));
        assert_ne!(values(&initializer, [5, 7], 1), values(&initializer, [5, 7], 2));
    }
    let shifted = values(&Initializer::RandomNormal { mean: 3.0, stddev: 0.0 }, [4], 1);
    assert_eq!(shifted, [3.0; 4]);
    // The numbers that a device draws from the same key.
    let unit = values(&Initializer::RandomNormal { mean: 0.0, stddev: 1.0 }, [3], 8);
    assert_eq!(unit, [0, 1, 2].map(|i| quantile::normal(threefry::bits(threefry::key(8), i))));
}

#[test]
fn orthogonal_ones_are_orthogonal() {
    for shape in [vec![64, 64], vec![40, 7], vec![7, 40], vec![3, 3, 4, 10], vec![1, 1], vec![2, 3, 50], vec![0, 3]] {
        let gain = 1.5;
        let (columns, x) = (shape[shape.len() - 1], values(&Initializer::Orthogonal { gain }, shape.as_slice(), 5));
        let rows = x.len() / columns;
        let (outer, inner) = if rows < columns { (rows, columns) } else { (columns, rows) };
        let at = |o: usize, i: usize| if rows < columns { x[o * columns + i] } else { x[i * columns + o] };
        for p in 0..outer {
            for q in 0..outer {
                let product: f64 = (0..inner).map(|i| f64::from(at(p, i)) * f64::from(at(q, i))).sum();
                let wanted = if p == q { gain * gain } else { 0.0 };
                // Each of the elements is rounded to f32.
                assert!((product - wanted).abs() < 4e-7, "{shape:?}: columns {p} and {q} have the product {product}");
            }
        }
        assert_eq!(x, values(&Initializer::Orthogonal { gain }, shape.as_slice(), 5));
    }
    // Uniform among the orthogonal matrices: no preferred sign and trace. The trace of a random 3 x 3 one has variance 1.
    let n = 4000;
    let trace = |seed| {
        let x = values(&Initializer::Orthogonal { gain: 1.0 }, [3, 3], seed);
        f64::from(x[0] + x[4] + x[8])
    };
    let traces: Vec<f64> = (0..n).map(trace).collect();
    let mean = traces.iter().sum::<f64>() / n as f64;
    let square = traces.iter().map(|t| t * t).sum::<f64>() / n as f64;
    assert!(mean.abs() < 5.0 / (n as f64).sqrt(), "mean of the traces {mean}");
    // A trace is at most 3, so its square has a deviation below sqrt(9) = 3.
    assert!((square - 1.0).abs() < 5.0 * 3.0 / (n as f64).sqrt(), "mean square of the traces {square}");
}

#[test]
fn identities_and_what_does_not_fit() {
    assert_eq!(values(&Initializer::Identity { gain: 2.0 }, [2, 3], 0), [2.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
    assert_eq!(values(&Initializer::Identity { gain: 1.0 }, [2, 1], 0), [1.0, 0.0]);
    let message = |initializer: Initializer, shape: &[usize]| {
        initializer.tensor(&Spec::new(shape, DType::F32), [0, 0]).unwrap_err().to_string()
    };
    assert_eq!(message("identity".into(), &[3]), "identity fills matrices, not a shape of 1 axes");
    assert_eq!(message("orthogonal".into(), &[3]), "orthogonal fills shapes of at least two axes, not of 1");
    let negative = Initializer::RandomNormal { mean: 0.0, stddev: -1.0 };
    assert_eq!(message(negative, &[3]), "random_normal takes a standard deviation from 0 on, not -1");
    let none = Initializer::VarianceScaling { scale: 0.0, mode: Fan::In, distribution: Distribution::Uniform };
    assert_eq!(message(none, &[3]), "variance_scaling takes a scale above 0, not 0");
}
