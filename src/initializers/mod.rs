//! Initializers: the values that variables start from.
//!
//! Floor 3. They are computed on the host from a key (Threefry), so equal seeds give equal bits on every platform and
//! an untrained model needs no device. Fans are counted as Keras does: a dense kernel is `[in, out]`, a convolution
//! kernel `[..window, in, out]` whose window multiplies both. Deliberately absent: state. Which key a variable gets
//! is the business of [`Network::init`](crate::layers::Network::init).

use std::fmt;
use std::sync::Arc;

use crate::choice::plain;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor};
use crate::random::threefry;
use crate::shape::Shape;
use crate::threads::{MaybeSend, MaybeSync};

/// A user's initializer: elements of a shape, in row-major order, from a key.
pub trait Function: Fn(&Shape, [u32; 2]) -> Vec<f32> + MaybeSend + MaybeSync {}
impl<F: Fn(&Shape, [u32; 2]) -> Vec<f32> + MaybeSend + MaybeSync> Function for F {}

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
    /// Uniform in [min, max); Keras' default range is [-0.05, 0.05).
    RandomUniform {
        /// Lower end.
        min: f64,
        /// Upper end.
        max: f64,
    },
    /// Uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010): keeps the variance forwards and backwards.
    GlorotUniform,
    /// Uniform within sqrt(6 / fan_in) (He et al. 2015): for relu.
    HeUniform,
    /// Uniform within sqrt(3 / fan_in) (LeCun et al. 1998): for selu and tanh.
    LecunUniform,
    /// The state of a seed generator, u32 `[seed, counter]`: the given seed or one drawn from the key, and 0.
    Seed(Option<u32>),
    /// A user's own, made by [`Initializer::function`].
    Function(Arc<dyn Function>),
    /// A name that no initializer has: an error as soon as a layer asks for a variable.
    Unknown(String),
}

const KNOWN: [&str; 6] = ["zeros", "ones", "random_uniform", "glorot_uniform", "he_uniform", "lecun_uniform"];

/// The initializer of a name, with Keras' defaults. Errors: an unknown name, with the known ones.
pub fn get(name: &str) -> Result<Initializer> {
    Ok(match plain(name).as_str() {
        "zeros" | "zero" => Initializer::Zeros,
        "ones" | "one" => Initializer::Ones,
        "randomuniform" | "uniform" => Initializer::RandomUniform { min: -0.05, max: 0.05 },
        "glorotuniform" => Initializer::GlorotUniform,
        "heuniform" => Initializer::HeUniform,
        "lecununiform" => Initializer::LecunUniform,
        _ => return Err(Error::UnknownName { kind: "initializer", name: name.into(), known: KNOWN.to_vec() }),
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
            Initializer::RandomUniform { .. } => "random_uniform",
            Initializer::GlorotUniform => "glorot_uniform",
            Initializer::HeUniform => "he_uniform",
            Initializer::LecunUniform => "lecun_uniform",
            Initializer::Seed(_) => "seed",
            Initializer::Function(_) => "function",
        }
    }

    /// A host tensor of `spec`, the same for the same key.
    ///
    /// Errors: an unknown name, random values of a dtype that is not f32, a constant that the dtype cannot hold, a user's function that
    /// returned another number of elements.
    pub fn tensor(&self, spec: &Spec, key: [u32; 2]) -> Result<Tensor> {
        self.check()?;
        let n = spec.shape.numel();
        let tensor = match self {
            Initializer::Zeros => constant(0.0, spec)?,
            Initializer::Ones => constant(1.0, spec)?,
            Initializer::Constant(value) => constant(*value, spec)?,
            Initializer::Seed(seed) => {
                let seed = seed.unwrap_or_else(|| threefry::fold_in(key, 0)[0]);
                Tensor::new(&[seed, 0], spec.shape.clone())
            }
            random => {
                let values = match random {
                    Initializer::Function(f) => f(&spec.shape, key),
                    Initializer::RandomUniform { min, max } => threefry::uniform(key, n, *min as f32, *max as f32),
                    scaled => {
                        let (fan_in, fan_out) = fans(&spec.shape);
                        // Keras divides by at least 1, so that an empty kernel has no infinite limit.
                        let limit = match scaled {
                            Initializer::HeUniform => (6.0 / fan_in.max(1.0)).sqrt(),
                            Initializer::LecunUniform => (3.0 / fan_in.max(1.0)).sqrt(),
                            _ => (6.0 / (fan_in + fan_out).max(1.0)).sqrt(),
                        } as f32;
                        threefry::uniform(key, n, -limit, limit)
                    }
                };
                if spec.dtype != DType::F32 {
                    return Err(Error::Argument { what: format!("{} makes f32, not {}", self.name(), spec.dtype) });
                }
                Tensor::new(&values, spec.shape.clone())
            }
        };
        tensor.ok()?;
        Ok(tensor)
    }
}

impl fmt::Debug for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Initializer::Constant(value) => write!(f, "constant({value})"),
            Initializer::RandomUniform { min, max } => write!(f, "random_uniform({min}, {max})"),
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
        dtype => Err(Error::Argument { what: format!("a variable of {dtype} cannot start from {value}") }),
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

#[cfg(test)]
mod tests {
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
        assert!(matches!(short.tensor(&Spec::new([3], DType::F32), [0, 0]), Err(Error::Shape { .. })));
    }

    #[test]
    fn names() {
        assert!(matches!("HeUniform".into(), Initializer::HeUniform));
        let unknown = Initializer::from("he_unifrom").tensor(&Spec::new([2], DType::F32), [0, 0]).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "unknown initializer \"he_unifrom\"; known: zeros, ones, random_uniform, glorot_uniform, he_uniform, lecun_uniform"
        );
        for name in KNOWN {
            assert_eq!(get(name).unwrap().name(), name);
        }
    }

    #[test]
    fn what_a_dtype_cannot_hold_is_refused() {
        let spec = Spec::new([2], DType::I32);
        assert!(matches!(Initializer::Constant(0.5).tensor(&spec, [0, 0]), Err(Error::Argument { .. })));
        assert!(matches!(Initializer::GlorotUniform.tensor(&spec, [0, 0]), Err(Error::Argument { .. })));
        assert!(Initializer::Ones.tensor(&spec, [0, 0]).is_ok());
    }
}
