//! Learning rates that follow the iteration count: Keras' schedules, and [`LearningRate`], which is a number or one.
//!
//! A schedule is evaluated on the device from the count that lies in the state, so nothing is recorded anew and nothing
//! waits. Positions in time are computed in whole numbers, which are exact where a quotient of f32 is not, so steps and
//! restarts fall on the batch where Keras has them. `n` below is `decay_steps`, `s` the count of batches before the
//! step, the first of which sees 0. Deliberately absent: schedules by epochs, which are callbacks.

use std::f64::consts::FRAC_PI_2;
use std::fmt;
use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Tensor;
use crate::host::Float;
use crate::threads::{MaybeSend, MaybeSync};

/// A learning rate as a function of the iteration count. A closure `|step: &Tensor| -> Tensor` is one.
pub trait Schedule: MaybeSend + MaybeSync + 'static {
    /// The rate, an f32 scalar, from the number of batches before this one, an i32 scalar.
    fn rate(&self, step: &Tensor) -> Tensor;

    /// What is wrong with the options, [`ErrorKind::Argument`].
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl<F: Fn(&Tensor) -> Tensor + MaybeSend + MaybeSync + 'static> Schedule for F {
    fn rate(&self, step: &Tensor) -> Tensor {
        self(step)
    }
}

/// What an optimizer takes as learning rate: a number, which can be assigned to between steps, or a [`Schedule`].
///
/// ```
/// use wengert::dtype::DType;
/// use wengert::graph::Tensor;
/// use wengert::optimizers::schedules::ExponentialDecay;
/// use wengert::optimizers::{Optimizer, SGD};
///
/// let constant = Optimizer::from(SGD::default()).learning_rate(0.1);
/// let decay = ExponentialDecay { staircase: true, ..ExponentialDecay::new(0.1, 10_000, 0.96) };
/// let stairs = Optimizer::from(SGD::default()).learning_rate(decay);
/// let own = Optimizer::from(SGD::default()).learning_rate(|step: &Tensor| 0.1 / (step.cast(DType::F32) + 1.0));
/// ```
#[derive(Clone)]
pub enum LearningRate {
    /// The number that it starts from; it is a variable of the optimizer.
    Number(f64),
    /// A function of the iteration count, which needs no variable.
    Scheduled(Arc<dyn Schedule>),
}

impl LearningRate {
    /// Whether it follows a schedule.
    pub fn is_scheduled(&self) -> bool {
        matches!(self, LearningRate::Scheduled(_))
    }

    pub(super) fn check(&self, optimizer: &str) -> Result<()> {
        match self {
            LearningRate::Number(rate) if !rate.is_finite() => Err(Error::new(ErrorKind::NonFinite {
                what: format!("the learning rate of {optimizer} is {}", Float(*rate)),
            })),
            LearningRate::Number(_) => Ok(()),
            LearningRate::Scheduled(schedule) => schedule.check(),
        }
    }
}

impl From<f64> for LearningRate {
    fn from(rate: f64) -> LearningRate {
        LearningRate::Number(rate)
    }
}

impl<S: Schedule> From<S> for LearningRate {
    fn from(schedule: S) -> LearningRate {
        LearningRate::Scheduled(Arc::new(schedule))
    }
}

impl fmt::Debug for LearningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LearningRate::Number(rate) => write!(f, "{rate}"),
            LearningRate::Scheduled(_) => f.write_str("scheduled"),
        }
    }
}

fn float(number: &Tensor) -> Tensor {
    number.cast(DType::F32)
}

/// `s / n`, of which a staircase has the whole part only.
fn progress(step: &Tensor, decay_steps: u32, staircase: bool) -> Tensor {
    let n = f64::from(decay_steps);
    if staircase { float(&(step / n)) } else { float(step) / n }
}

/// `(1 + cos(pi x)) / 2`, as `cos(pi x / 2)^2`, which loses nothing near its zero.
fn half_cosine(x: &Tensor) -> Tensor {
    (x * FRAC_PI_2).cos().square()
}

/// So many steps that their multiples up to the iteration count stay below 2^31.
fn check_steps(name: &str, steps: u32) -> Result<()> {
    match steps {
        1..=0x4000_0000 => Ok(()),
        _ => Err(Error::argument(format!("{name} lies between 1 and 2^30, it is {steps}"))),
    }
}

fn check_finite(numbers: &[f64]) -> Result<()> {
    match numbers.iter().all(|number| number.is_finite()) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::NonFinite { what: format!("the numbers of a schedule are {numbers:?}") })),
    }
}

/// `initial_learning_rate decay_rate^(s / n)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentialDecay {
    /// The rate at 0.
    pub initial_learning_rate: f64,
    /// Batches after which the rate has been multiplied by `decay_rate`.
    pub decay_steps: u32,
    /// The factor, above 0.
    pub decay_rate: f64,
    /// Whether `s / n` is rounded down; false by default.
    pub staircase: bool,
}

impl ExponentialDecay {
    /// The smooth decay.
    pub fn new(initial_learning_rate: f64, decay_steps: u32, decay_rate: f64) -> ExponentialDecay {
        ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, staircase: false }
    }
}

impl Schedule for ExponentialDecay {
    fn rate(&self, step: &Tensor) -> Tensor {
        let p = progress(step, self.decay_steps, self.staircase);
        (p * self.decay_rate.ln()).exp() * self.initial_learning_rate
    }

    fn check(&self) -> Result<()> {
        check_finite(&[self.initial_learning_rate, self.decay_rate])?;
        if self.decay_rate <= 0.0 {
            return Err(Error::argument(format!("decay_rate is above 0, not {}", self.decay_rate)));
        }
        check_steps("decay_steps", self.decay_steps)
    }
}

/// The value of the interval that `s` lies in; a boundary belongs to the interval that it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct PiecewiseConstantDecay {
    /// Counts of batches, increasing.
    pub boundaries: Vec<u32>,
    /// One rate more than there are boundaries.
    pub values: Vec<f64>,
}

impl PiecewiseConstantDecay {
    /// `values[0]` up to and including `boundaries[0]`, and so on.
    pub fn new(boundaries: &[u32], values: &[f64]) -> PiecewiseConstantDecay {
        PiecewiseConstantDecay { boundaries: boundaries.to_vec(), values: values.to_vec() }
    }
}

impl Schedule for PiecewiseConstantDecay {
    fn rate(&self, step: &Tensor) -> Tensor {
        let last = self.values.last().copied().unwrap_or(f64::NAN);
        let intervals = self.boundaries.iter().zip(&self.values).rev();
        intervals.fold(Tensor::full([], last), |later, (&end, &value)| step.le(f64::from(end)).select(value, later))
    }

    fn check(&self) -> Result<()> {
        check_finite(&self.values)?;
        if self.values.len() != self.boundaries.len() + 1 {
            let (values, boundaries) = (self.values.len(), self.boundaries.len());
            let what = format!("{boundaries} boundaries part {} values, {values} were given", boundaries + 1);
            return Err(Error::argument(what));
        }
        if self.boundaries.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::argument(format!("the boundaries {:?} do not increase", self.boundaries)));
        }
        self.boundaries.last().map_or(Ok(()), |&last| check_steps("a boundary", last.max(1)))
    }
}

/// `(initial_learning_rate - end_learning_rate) (1 - s / n)^power + end_learning_rate`, up to `n`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolynomialDecay {
    /// The rate at 0.
    pub initial_learning_rate: f64,
    /// Batches until the end.
    pub decay_steps: u32,
    /// The rate at the end; 0.0001 by default.
    pub end_learning_rate: f64,
    /// 1 by default: a straight line.
    pub power: f64,
    /// Whether, past the end, `n` becomes the next of its multiples, so that the rate rises again; false by default.
    pub cycle: bool,
}

impl PolynomialDecay {
    /// A straight line to 0.0001.
    pub fn new(initial_learning_rate: f64, decay_steps: u32) -> PolynomialDecay {
        PolynomialDecay { initial_learning_rate, decay_steps, end_learning_rate: 1e-4, power: 1.0, cycle: false }
    }
}

impl Schedule for PolynomialDecay {
    fn rate(&self, step: &Tensor) -> Tensor {
        let n = f64::from(self.decay_steps);
        let left = if self.cycle {
            // The multiple of n that is not before s, but n for 0.
            let end = ((step - 1.0) / n + 1.0).maximum(1.0) * n;
            float(&(&end - step)) / float(&end)
        } else {
            float(&(n - step.minimum(n))) / n
        };
        let left = if self.power == 1.0 { left } else { left.pow(self.power) };
        left * (self.initial_learning_rate - self.end_learning_rate) + self.end_learning_rate
    }

    fn check(&self) -> Result<()> {
        check_finite(&[self.initial_learning_rate, self.end_learning_rate, self.power])?;
        check_steps("decay_steps", self.decay_steps)
    }
}

/// `initial_learning_rate / (1 + decay_rate s / n)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseTimeDecay {
    /// The rate at 0.
    pub initial_learning_rate: f64,
    /// The unit of time, in batches.
    pub decay_steps: u32,
    /// How much a unit of time adds to the divisor.
    pub decay_rate: f64,
    /// Whether `s / n` is rounded down; false by default.
    pub staircase: bool,
}

impl InverseTimeDecay {
    /// The smooth decay.
    pub fn new(initial_learning_rate: f64, decay_steps: u32, decay_rate: f64) -> InverseTimeDecay {
        InverseTimeDecay { initial_learning_rate, decay_steps, decay_rate, staircase: false }
    }
}

impl Schedule for InverseTimeDecay {
    fn rate(&self, step: &Tensor) -> Tensor {
        let p = progress(step, self.decay_steps, self.staircase);
        self.initial_learning_rate / (p * self.decay_rate + 1.0)
    }

    fn check(&self) -> Result<()> {
        check_finite(&[self.initial_learning_rate, self.decay_rate])?;
        check_steps("decay_steps", self.decay_steps)
    }
}

/// Half a cosine from the initial rate to `alpha` of it (Loshchilov and Hutter 2016):
/// `rate ((1 - alpha) (1 + cos(pi s / n)) / 2 + alpha)`, up to `n`.
///
/// With a `warmup_target` the rate first goes straight from the initial rate to the target in `warmup_steps`, and the
/// cosine begins there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineDecay {
    /// The rate at 0.
    pub initial_learning_rate: f64,
    /// Batches of the cosine.
    pub decay_steps: u32,
    /// The share that is left at the end; 0 by default.
    pub alpha: f64,
    /// Where the warmup leads, if there is one.
    pub warmup_target: Option<f64>,
    /// Batches of the warmup; 0 by default.
    pub warmup_steps: u32,
}

impl CosineDecay {
    /// To 0, without a warmup.
    pub fn new(initial_learning_rate: f64, decay_steps: u32) -> CosineDecay {
        CosineDecay { initial_learning_rate, decay_steps, alpha: 0.0, warmup_target: None, warmup_steps: 0 }
    }
}

impl Schedule for CosineDecay {
    fn rate(&self, step: &Tensor) -> Tensor {
        let (n, warm) = (f64::from(self.decay_steps), f64::from(self.warmup_steps));
        let decayed = |step: &Tensor, from: f64| {
            (half_cosine(&(float(&step.minimum(n)) / n)) * (1.0 - self.alpha) + self.alpha) * from
        };
        let Some(target) = self.warmup_target else { return decayed(step, self.initial_learning_rate) };
        let rising = float(step) * ((target - self.initial_learning_rate) / warm.max(1.0)) + self.initial_learning_rate;
        step.lt(warm).select(rising, decayed(&(step - warm), target))
    }

    fn check(&self) -> Result<()> {
        check_finite(&[self.initial_learning_rate, self.alpha, self.warmup_target.unwrap_or(0.0)])?;
        check_steps("warmup_steps", self.warmup_steps.max(1))?;
        check_steps("decay_steps", self.decay_steps)
    }
}

/// Cosine decay that starts over again and again (SGDR, Loshchilov and Hutter 2016). Period `i` has
/// `first_decay_steps t_mul^i` batches and goes from `m_mul^i` of the initial rate to `alpha` of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineDecayRestarts {
    /// The rate at 0.
    pub initial_learning_rate: f64,
    /// Batches of the first period.
    pub first_decay_steps: u32,
    /// How much longer each period is, 1 at least; 2 by default.
    pub t_mul: f64,
    /// How much higher each period starts; 1 by default.
    pub m_mul: f64,
    /// The share that is left at the end of a period; 0 by default.
    pub alpha: f64,
}

impl CosineDecayRestarts {
    /// Periods that double, to 0.
    pub fn new(initial_learning_rate: f64, first_decay_steps: u32) -> CosineDecayRestarts {
        CosineDecayRestarts { initial_learning_rate, first_decay_steps, t_mul: 2.0, m_mul: 1.0, alpha: 0.0 }
    }

    /// The number of the period, i32, and how much of it is over.
    fn period(&self, step: &Tensor) -> (Tensor, Tensor) {
        let (n, t) = (f64::from(self.first_decay_steps), self.t_mul);
        if t == 1.0 {
            let period = step / n;
            let over = float(&(step - &period * n)) / n;
            return (period, over);
        }
        // Period i begins at n (t^i - 1) / (t - 1), hence i is the whole part of log(1 + s (t - 1) / n) / log(t). Rounded
        // logarithms may be either side of a whole number, so the nearest one is tried against the beginning itself.
        let power = |i: &Tensor| Tensor::full([], t).powi(i);
        let begins = |i: &Tensor| (power(i) - 1.0) * (n / (t - 1.0));
        let nearest = ((float(step) * ((t - 1.0) / n)).log1p() * (1.0 / t.ln())).round().cast(DType::I32);
        let beginning = begins(&nearest);
        // A beginning that is a whole number may come out a little above it where t is not an f32 number.
        let slack = (&beginning * 2e-6).minimum(0.5);
        let period = &nearest - float(step).lt(beginning - slack).cast(DType::I32);
        let over = (float(step) - begins(&period)) / (power(&period) * n);
        (period, over)
    }
}

impl Schedule for CosineDecayRestarts {
    fn rate(&self, step: &Tensor) -> Tensor {
        let (period, over) = self.period(step);
        let height = half_cosine(&over) * Tensor::full([], self.m_mul).powi(&period);
        (height * (1.0 - self.alpha) + self.alpha) * self.initial_learning_rate
    }

    fn check(&self) -> Result<()> {
        check_finite(&[self.initial_learning_rate, self.t_mul, self.m_mul, self.alpha])?;
        if self.t_mul < 1.0 {
            return Err(Error::argument(format!("t_mul is 1 at least, not {}", self.t_mul)));
        }
        check_steps("first_decay_steps", self.first_decay_steps)
    }
}
