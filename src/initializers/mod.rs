//! Initializers: the values that variables start from.
//!
//! Floor 3. They are computed on the host from a key (Threefry, and normal numbers by integers), in f64 and rounded once,
//! so equal seeds give equal bits on every platform and an untrained model needs no device. Names and defaults are those of
//! Keras. Fans are counted as Keras does: a dense kernel is `[in, out]`, a convolution
//! kernel `[..window, in, out]` whose window multiplies both. Deliberately absent: state. Which key a variable gets
//! is the business of [`Network::init`](crate::layers::Network::init).

mod orthogonal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::choice::plain;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor};
use crate::host::Float;
use crate::random::{quantile, threefry};
use crate::shape::Shape;
use crate::threads::{MaybeSend, MaybeSync};

/// A user's initializer: elements of a shape, in row-major order, from a key.
pub trait Function: Fn(&Shape, [u32; 2]) -> Vec<f32> + MaybeSend + MaybeSync {}
impl<F: Fn(&Shape, [u32; 2]) -> Vec<f32> + MaybeSend + MaybeSync> Function for F {}

/// Which connections of a kernel [`Initializer::VarianceScaling`] divides by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fan {
    /// Those into an output: keeps the variance of what flows forwards.
    #[default]
    In,
    /// Those out of an input: keeps the variance of what flows backwards.
    Out,
    /// The mean of both.
    Average,
}

/// The distribution of [`Initializer::VarianceScaling`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Normal within two standard deviations, widened so that the variance is what was asked for.
    #[default]
    TruncatedNormal,
    /// Normal.
    Normal,
    /// Uniform around 0.
    Uniform,
}

/// How a variable is filled at first.
#[derive(Clone, Default)]
pub enum Initializer {
    /// 0.
    #[default]
    Zeros,
    /// 1.
    Ones,
    /// One value everywhere.
    Constant(f64),
    /// `gain` times the identity; matrices only.
    Identity {
        /// The value on the diagonal.
        gain: f64,
    },
    /// Uniform in [min, max); Keras' default range is [-0.05, 0.05).
    RandomUniform {
        /// Lower end.
        min: f64,
        /// Upper end.
        max: f64,
    },
    /// Normal; Keras' defaults are 0 and 0.05.
    RandomNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        stddev: f64,
    },
    /// Normal on the condition that it lies within two `stddev` of the mean; Keras' defaults are 0 and 0.05. What remains
    /// has a standard deviation of 0.88 `stddev`.
    TruncatedNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation before truncation.
        stddev: f64,
    },
    /// Variance `scale` / fan. Keras' defaults are 1, fan in, truncated normal.
    VarianceScaling {
        /// Numerator of the variance, above 0.
        scale: f64,
        /// The denominator, at least 1.
        mode: Fan,
        /// The distribution, of mean 0.
        distribution: Distribution,
    },
    /// Uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010): keeps the variance forwards and backwards.
    GlorotUniform,
    /// Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010).
    GlorotNormal,
    /// Uniform within sqrt(6 / fan_in) (He et al. 2015): for relu.
    HeUniform,
    /// Truncated normal of variance 2 / fan_in (He et al. 2015): for relu.
    HeNormal,
    /// Uniform within sqrt(3 / fan_in) (LeCun et al. 1998): for selu and tanh.
    LecunUniform,
    /// Truncated normal of variance 1 / fan_in (LeCun et al. 1998): for selu and tanh.
    LecunNormal,
    /// `gain` times a random matrix with orthonormal columns, or rows if it has more columns than rows (Saxe et al. 2014);
    /// all axes but the last count as rows.
    Orthogonal {
        /// The length of each column, or row.
        gain: f64,
    },
    /// The state of a seed generator, u32 `[seed, counter]`: the given seed or one drawn from the key, and 0.
    Seed(Option<u32>),
    /// A user's own, made by [`Initializer::function`].
    Function(Arc<dyn Function>),
    /// A name that no initializer has: an error as soon as a layer asks for a variable.
    Unknown(String),
}

const KNOWN: [&str; 15] = [
    "zeros",
    "ones",
    "constant",
    "identity",
    "random_uniform",
    "random_normal",
    "truncated_normal",
    "variance_scaling",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "orthogonal",
];

/// The initializer of a name, with Keras' defaults. Errors: an unknown name, with the known ones.
pub fn get(name: &str) -> Result<Initializer> {
    Ok(match plain(name).as_str() {
        "zeros" | "zero" => Initializer::Zeros,
        "ones" | "one" => Initializer::Ones,
        "constant" => Initializer::Constant(0.0),
        "identity" => Initializer::Identity { gain: 1.0 },
        "randomuniform" | "uniform" => Initializer::RandomUniform { min: -0.05, max: 0.05 },
        "randomnormal" | "normal" => Initializer::RandomNormal { mean: 0.0, stddev: 0.05 },
        "truncatednormal" => Initializer::TruncatedNormal { mean: 0.0, stddev: 0.05 },
        "variancescaling" => {
            Initializer::VarianceScaling { scale: 1.0, mode: Fan::default(), distribution: Distribution::default() }
        }
        "glorotuniform" => Initializer::GlorotUniform,
        "glorotnormal" => Initializer::GlorotNormal,
        "heuniform" => Initializer::HeUniform,
        "henormal" => Initializer::HeNormal,
        "lecununiform" => Initializer::LecunUniform,
        "lecunnormal" => Initializer::LecunNormal,
        "orthogonal" => Initializer::Orthogonal { gain: 1.0 },
        _ => {
            return Err(Error::new(ErrorKind::UnknownName {
                kind: "initializer",
                name: name.into(),
                known: KNOWN.to_vec(),
            }));
        }
    })
}

impl From<&str> for Initializer {
    fn from(name: &str) -> Initializer {
        get(name).unwrap_or_else(|_| Initializer::Unknown(name.into()))
    }
}

impl Initializer {
    /// A user's own initializer of f32 variables.
    pub fn function(f: impl Function + 'static) -> Initializer {
        Initializer::Function(Arc::new(f))
    }

    /// The error of an unknown name.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Initializer::Unknown(name) => get(name).map(drop),
            _ => Ok(()),
        }
    }

    /// The name in messages.
    pub fn name(&self) -> &str {
        match self {
            Initializer::Unknown(name) => name,
            Initializer::Zeros => "zeros",
            Initializer::Ones => "ones",
            Initializer::Constant(_) => "constant",
            Initializer::Identity { .. } => "identity",
            Initializer::RandomUniform { .. } => "random_uniform",
            Initializer::RandomNormal { .. } => "random_normal",
            Initializer::TruncatedNormal { .. } => "truncated_normal",
            Initializer::VarianceScaling { .. } => "variance_scaling",
            Initializer::GlorotUniform => "glorot_uniform",
            Initializer::GlorotNormal => "glorot_normal",
            Initializer::HeUniform => "he_uniform",
            Initializer::HeNormal => "he_normal",
            Initializer::LecunUniform => "lecun_uniform",
            Initializer::LecunNormal => "lecun_normal",
            Initializer::Orthogonal { .. } => "orthogonal",
            Initializer::Seed(_) => "seed",
            Initializer::Function(_) => "function",
        }
    }

    /// A host tensor of `spec`, the same for the same key.
    ///
    /// Errors: an unknown name, random values of a dtype that is not f32, a constant that the dtype cannot hold, a shape
    /// or a parameter that the initializer does not take, a user's function that returned another number of elements.
    pub fn tensor(&self, spec: &Spec, key: [u32; 2]) -> Result<Tensor> {
        self.check()?;
        let tensor = match self {
            Initializer::Zeros => constant(0.0, spec)?,
            Initializer::Ones => constant(1.0, spec)?,
            Initializer::Constant(value) => constant(*value, spec)?,
            Initializer::Seed(seed) => {
                let seed = seed.unwrap_or_else(|| threefry::fold_in(key, 0)[0]);
                Tensor::new(&[seed, 0], spec.shape.clone())
            }
            _ if spec.dtype != DType::F32 => return self.refuse(format!("makes f32, not {}", spec.dtype)),
            other => Tensor::new(&other.floats(&spec.shape, key)?, spec.shape.clone()),
        };
        tensor.ok()?;
        Ok(tensor)
    }

    fn refuse<T>(&self, why: String) -> Result<T> {
        Err(Error::argument(format!("{} {why}", self.name())))
    }

    /// Elements of those that make f32 only.
    fn floats(&self, shape: &Shape, key: [u32; 2]) -> Result<Vec<f32>> {
        let n = shape.numel();
        let draw = |of: fn(u32) -> f32, mean: f64, stddev: f64| -> Result<Vec<f32>> {
            if !(stddev >= 0.0 && stddev.is_finite()) {
                return self.refuse(format!("takes a standard deviation from 0 on, not {}", Float(stddev)));
            }
            let element = |i| (mean + stddev * f64::from(of(threefry::bits(key, i as u32)))) as f32;
            Ok((0..n).map(element).collect())
        };
        match *self {
            Initializer::Function(ref f) => Ok(f(shape, key)),
            Initializer::RandomUniform { min, max } if !((max - min) as f32).is_finite() => {
                self.refuse(format!("takes numbers that f32 can tell apart, not {} and {}", Float(min), Float(max)))
            }
            Initializer::RandomUniform { min, max } => Ok(threefry::uniform(key, n, min as f32, max as f32)),
            Initializer::RandomNormal { mean, stddev } => draw(quantile::normal, mean, stddev),
            Initializer::TruncatedNormal { mean, stddev } => draw(quantile::truncated_normal, mean, stddev),
            Initializer::Identity { gain } => match shape.dims() {
                &[_, columns] => {
                    Ok((0..n).map(|i| if i / columns == i % columns { gain as f32 } else { 0.0 }).collect())
                }
                dims => self.refuse(format!("fills matrices, not a shape of {} axes", dims.len())),
            },
            Initializer::Orthogonal { gain } => match shape.dims() {
                [.., _, columns] => Ok(orthogonal::matrix(n / (*columns).max(1), *columns, gain, key)),
                dims => self.refuse(format!("fills shapes of at least two axes, not of {}", dims.len())),
            },
            Initializer::GlorotUniform => scaled(1.0, Fan::Average, Distribution::Uniform).floats(shape, key),
            Initializer::GlorotNormal => scaled(1.0, Fan::Average, Distribution::TruncatedNormal).floats(shape, key),
            Initializer::HeUniform => scaled(2.0, Fan::In, Distribution::Uniform).floats(shape, key),
            Initializer::HeNormal => scaled(2.0, Fan::In, Distribution::TruncatedNormal).floats(shape, key),
            Initializer::LecunUniform => scaled(1.0, Fan::In, Distribution::Uniform).floats(shape, key),
            Initializer::LecunNormal => scaled(1.0, Fan::In, Distribution::TruncatedNormal).floats(shape, key),
            Initializer::VarianceScaling { scale, mode, distribution } => {
                if !(scale > 0.0 && scale.is_finite()) {
                    return self.refuse(format!("takes a scale above 0, not {}", Float(scale)));
                }
                let (fan_in, fan_out) = fans(shape);
                let fan = match mode {
                    Fan::In => fan_in,
                    Fan::Out => fan_out,
                    Fan::Average => (fan_in + fan_out) / 2.0,
                };
                // Keras divides by at least 1, so that an empty kernel has no infinite variance.
                let variance = scale / fan.max(1.0);
                match distribution {
                    Distribution::TruncatedNormal => {
                        draw(quantile::truncated_normal, 0.0, variance.sqrt() / TRUNCATED_DEVIATION)
                    }
                    Distribution::Normal => draw(quantile::normal, 0.0, variance.sqrt()),
                    Distribution::Uniform => {
                        let limit = (3.0 * variance).sqrt() as f32;
                        Ok(threefry::uniform(key, n, -limit, limit))
                    }
                }
            }
            // The others are answered before.
            _ => self.refuse("makes no f32 of its own".into()),
        }
    }
}

/// The standard deviation of a standard normal number that lies within two.
const TRUNCATED_DEVIATION: f64 = 0.879_625_661_034_239_8;

fn scaled(scale: f64, mode: Fan, distribution: Distribution) -> Initializer {
    Initializer::VarianceScaling { scale, mode, distribution }
}

impl fmt::Debug for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Initializer::Constant(value) => write!(f, "constant({value})"),
            Initializer::Identity { gain } | Initializer::Orthogonal { gain } => write!(f, "{}({gain})", self.name()),
            Initializer::RandomUniform { min, max } => write!(f, "random_uniform({min}, {max})"),
            Initializer::RandomNormal { mean, stddev } | Initializer::TruncatedNormal { mean, stddev } => {
                write!(f, "{}({mean}, {stddev})", self.name())
            }
            Initializer::VarianceScaling { scale, mode, distribution } => {
                write!(f, "variance_scaling({scale}, {mode:?}, {distribution:?})")
            }
            other => f.write_str(other.name()),
        }
    }
}

fn constant(value: f64, spec: &Spec) -> Result<Tensor> {
    let n = spec.shape.numel();
    let whole = |low: f64, high: f64| value.fract() == 0.0 && (low..=high).contains(&value);
    match spec.dtype {
        DType::F32 => Ok(Tensor::new(&vec![value; n], spec.shape.clone())),
        DType::I32 if whole(f64::from(i32::MIN), f64::from(i32::MAX)) => {
            Ok(Tensor::new(&vec![value as i32; n], spec.shape.clone()))
        }
        DType::U32 if whole(0.0, f64::from(u32::MAX)) => Ok(Tensor::new(&vec![value as u32; n], spec.shape.clone())),
        dtype => Err(Error::argument(format!("a variable of {dtype} cannot start from {}", Float(value)))),
    }
}

/// Inputs and outputs that one element of a kernel connects, as Keras counts them: the window times the channels.
pub fn fans(shape: &Shape) -> (f64, f64) {
    match shape.dims() {
        [] => (1.0, 1.0),
        [n] => (*n as f64, *n as f64),
        [window @ .., fan_in, fan_out] => {
            let window: usize = window.iter().product();
            ((window * fan_in) as f64, (window * fan_out) as f64)
        }
    }
}
