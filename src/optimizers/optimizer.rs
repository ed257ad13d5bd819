//! [`Optimizer`]: a rule with the options that all rules share, as a pure function of variables.

use std::sync::Arc;

use super::accumulation::Accumulation;
use super::decay::Decay;
use super::variables::{Role, join, split};
use super::{Clip, Ema, ITERATION, LEARNING_RATE, LearningRate, OptimizerVariables, Rule, Variables};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor, here};

/// An optimizer. Cheap to clone.
///
/// The order within a step is that of Keras: gradients are accumulated, clipped, parameters decay, the rule moves them,
/// averages follow.
///
/// ```
/// use wengert::graph::Tensor;
/// use wengert::optimizers::{Adam, Clip, Optimizer, schedules::CosineDecay};
///
/// let adam = Adam { beta_2: 0.99, ..Adam::default() };
/// let optimizer =
///     Optimizer::from(adam).learning_rate(CosineDecay::new(3e-4, 10_000)).clip(Clip::GlobalNorm(1.0)).weight_decay(0.01);
/// let trainable = vec![Tensor::new(&[1.0f32, 2.0], [2])];
/// let variables = optimizer.variables(&trainable)?;
/// let grads = vec![Tensor::new(&[0.5f32, -0.5], [2])];
/// let (trainable, variables) = optimizer.stateless_apply(&variables, &grads, &trainable)?;
/// // The iteration count and Adam's two moments; a learning rate that follows a schedule is not a variable.
/// assert_eq!((trainable.len(), variables.len()), (1, 3));
/// # Ok::<(), wengert::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimizer {
    pub(super) rule: Arc<dyn Rule>,
    name: Option<Arc<str>>,
    pub(super) rate: LearningRate,
    clip: Option<Clip>,
    decay: Decay,
    pub(super) ema: Option<Ema>,
    pub(super) accumulation: Option<u32>,
}

impl Optimizer {
    /// An optimizer that moves parameters by `rule`, with a learning rate that is a number or a
    /// [schedule](super::schedules).
    pub fn new(rule: impl Rule, learning_rate: impl Into<LearningRate>) -> Optimizer {
        let (rule, rate) = (Arc::new(rule), learning_rate.into());
        Optimizer { rule, name: None, rate, clip: None, decay: Decay::default(), ema: None, accumulation: None }
    }

    /// Gives it a name other than the rule's.
    pub fn named(mut self, name: &str) -> Optimizer {
        self.name = Some(name.into());
        self
    }

    /// Another learning rate: a number, one of the [schedules](super::schedules), or a closure from the iteration
    /// count to the rate.
    pub fn learning_rate(mut self, learning_rate: impl Into<LearningRate>) -> Optimizer {
        self.rate = learning_rate.into();
        self
    }

    /// Clips gradients before the update; where they are accumulated, their mean.
    pub fn clip(mut self, clip: Clip) -> Optimizer {
        self.clip = Some(clip);
        self
    }

    /// Decoupled weight decay (Loshchilov and Hutter 2019): before the update each parameter loses
    /// `learning rate * weight_decay` of itself.
    pub fn weight_decay(mut self, weight_decay: f64) -> Optimizer {
        self.decay.rate = Some(weight_decay);
        self
    }

    /// Leaves parameters alone in whose own name one of the words occurs: "bias" is for "dense/bias". A word with a
    /// slash is looked for in the whole name. They are updated in a dispatch of their own, because their update differs.
    pub fn exclude_from_weight_decay(mut self, words: &[&str]) -> Optimizer {
        self.decay.words = words.iter().map(|&word| word.into()).collect();
        self.decay.excluded.clear();
        self
    }

    /// Tells the names of the parameters, in their order, which `exclude_from_weight_decay` needs. `compile` does so.
    pub fn for_parameters<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Optimizer {
        self.decay.excluded = names.into_iter().map(|name| self.decay.excludes(name)).collect();
        self
    }

    /// Keeps averages of the parameters.
    pub fn ema(mut self, ema: Ema) -> Optimizer {
        self.ema = Some(ema);
        self
    }

    /// Updates with the mean gradient of so many batches, 2 at least. In between nothing moves but the accumulated
    /// gradients, the averages of the parameters, and the parameters themselves where [`Ema`] overwrites them. A schedule
    /// counts batches, as in Keras.
    pub fn gradient_accumulation_steps(mut self, batches: u32) -> Optimizer {
        self.accumulation = Some(batches);
        self
    }

    /// Updates made when so many batches were seen.
    pub fn updates(&self, batches: usize) -> usize {
        batches / self.accumulation.map_or(1, |each| each.max(1) as usize)
    }

    /// The name: the rule's unless it was given another.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.rule.name())
    }

    /// First values of the variables, on the host, in Keras' order: iteration; learning rate, unless it follows a
    /// schedule; averages; accumulated gradients; the slots of the rule; its shared numbers.
    ///
    /// Errors: options outside their domains, a poisoned trainable.
    pub fn variables(&self, trainable: &[Tensor]) -> Result<Variables> {
        self.rate.check(self.name())?;
        self.rule.check()?;
        self.decay.check(trainable.len())?;
        self.clip.as_ref().map_or(Ok(()), Clip::check)?;
        self.ema.as_ref().map_or(Ok(()), Ema::check)?;
        self.accumulation.map_or(Ok(()), Accumulation::check)?;
        for tensor in trainable {
            tensor.ok()?;
        }
        let first = |role| match role {
            Role::Iteration => Tensor::scalar(0i32),
            Role::LearningRate(rate) => Tensor::scalar(rate),
            // Each is a leaf of its own, since each is overwritten.
            Role::Kept { parameter, initial, .. } => {
                let shape = trainable[parameter].shape();
                Tensor::new(&vec![initial as f32; shape.numel()], shape)
            }
            Role::Shared { initial, .. } => Tensor::scalar(initial),
        };
        Ok(self.roles(trainable.len()).into_iter().map(first).collect())
    }

    /// The new trainables and the new variables.
    ///
    /// `variables` are this optimizer's, or a train state's list that holds just them. Errors: numbers or shapes of
    /// tensors that do not belong together (`ErrorKind::State`, `ErrorKind::Shape`), poisoned gradients.
    #[track_caller]
    pub fn stateless_apply<V: OptimizerVariables>(
        &self,
        variables: &V,
        grads: &[Tensor],
        trainable: &[Tensor],
    ) -> Result<(Vec<Tensor>, V)> {
        let variables = variables.only()?;
        let roles = self.roles(trainable.len());
        self.check(&roles, variables, grads, trainable)?;
        let (mut kept, shared) = split(&roles, variables, trainable.len());

        // Everything that changes over time, once for all parameters. All of it is computed from the new iteration count:
        // were the old one read by the update, the new one could not be written over it.
        let iteration = &variables[ITERATION] + 1.0;
        let rate = self.rate_at(&(&iteration - 1.0), variables)?;
        let (accumulation, update) = match self.accumulation.map(|batches| Accumulation::at(batches, &iteration)) {
            Some((accumulation, update)) => (Some(accumulation), update),
            None => (None, iteration.clone()),
        };
        let if_due = |new: Tensor, old: &Tensor| match &accumulation {
            Some(accumulation) => accumulation.choose(new, old),
            None => new,
        };
        let scalars = self.rule.scalars(&update, &rate, &shared);
        let decay = self.decay.rate.map(|decay| &rate * decay);
        let averaging = self.ema.map(|ema| ema.at(&update));

        // The tensors of a parameter lie in the order of the options, then of the rule's slots.
        let accumulator = usize::from(averaging.is_some());
        let slots = accumulator + usize::from(accumulation.is_some());
        let accumulate = |gradient: &Tensor, kept: &mut [Tensor]| match &accumulation {
            Some(accumulation) => {
                let (mean, accumulated) = accumulation.add(gradient, &kept[accumulator]);
                kept[accumulator] = accumulated;
                mean
            }
            None => gradient.clone(),
        };
        // Norms need all gradients at once. Without them a gradient is made where its parameter is moved: what is recorded
        // together is computed together.
        let mut gradients = grads.to_vec();
        let norms = self.clip.filter(|clip| !matches!(clip, Clip::Value(_)));
        if norms.is_some() {
            gradients = grads.iter().zip(&mut kept).map(|(gradient, kept)| accumulate(gradient, kept)).collect();
        }
        let scales = norms.and_then(|clip| clip.scales(&gradients));
        let mut moved = Vec::with_capacity(trainable.len());
        for (index, (parameter, kept)) in trainable.iter().zip(&mut kept).enumerate() {
            let gradient = match (&scales, self.clip) {
                (Some(scales), _) => &gradients[index] * &scales[index],
                (None, Some(Clip::Value(bound))) => accumulate(&gradients[index], kept).clip(-bound, bound),
                _ => accumulate(&gradients[index], kept),
            };
            let decayed = self.decay.apply(index, parameter, decay.as_ref());
            let (new, of_rule) = self.rule.update(&decayed, &gradient, &kept[slots..], &scalars);
            if of_rule.len() != kept.len() - slots {
                let (have, need) = (of_rule.len(), kept.len() - slots);
                let what = format!("{} keeps {need} slots, its update returned {have}", self.name());
                return Err(Error::state(what));
            }
            let mut new = if_due(new, parameter);
            for (slot, value) in kept[slots..].iter_mut().zip(of_rule) {
                *slot = if_due(value, slot);
            }
            if let Some(averaging) = &averaging {
                (new, kept[0]) = averaging.apply(new, &kept[0]);
            }
            moved.push(new);
        }
        if scalars.len() < shared.len() {
            let (have, need) = (scalars.len(), shared.len());
            let what = format!("{} shares {need} numbers, its scalars are {have}", self.name());
            return Err(Error::state(what));
        }
        let shared = scalars.into_iter().zip(&shared).map(|(new, old)| if_due(new, old)).collect();
        let new = join(&roles, &iteration, &rate, kept, shared);
        for tensor in moved.iter().chain(&new) {
            tensor.ok()?;
        }
        Ok((moved, V::of(new)))
    }

    /// The learning rate of the next step, an f32 scalar: the variable, or the schedule's value at the iteration count.
    ///
    /// Errors: variables of another optimizer, a schedule that gives anything else.
    pub fn rate_in_force(&self, variables: &[Tensor]) -> Result<Tensor> {
        self.rate_at(variables.get(ITERATION).ok_or_else(|| self.without_variables())?, variables)
    }

    #[track_caller]
    fn rate_at(&self, iteration: &Tensor, variables: &[Tensor]) -> Result<Tensor> {
        let LearningRate::Scheduled(schedule) = &self.rate else { return self.rate_variable(variables).cloned() };
        let rate = schedule.rate(iteration);
        if rate.ok()?.spec() != Some(&Spec::new([], DType::F32)) {
            let (name, dtype, shape) = (self.name(), rate.dtype(), rate.shape());
            let what = format!("the schedule of {name} gives {dtype}{shape}; a learning rate is one f32 number");
            return Err(Error::argument(what));
        }
        Ok(rate)
    }

    fn without_variables(&self) -> Error {
        Error::state(format!("there are no variables of {}", self.name()))
    }

    /// The variable that holds the learning rate, to be assigned to.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if the rate follows a schedule, which is not settable, as in Keras.
    pub fn rate_variable<'v>(&self, variables: &'v [Tensor]) -> Result<&'v Tensor> {
        if self.rate.is_scheduled() {
            let name = self.name();
            let what =
                format!("the learning rate of {name} follows a schedule and cannot be set; give it a number first");
            return Err(Error::argument(what));
        }
        variables.get(LEARNING_RATE).ok_or_else(|| self.without_variables())
    }

    /// The averages of `parameters` parameters among the variables, if [`Ema`] keeps them.
    pub fn averages<'v>(&self, variables: &'v [Tensor], parameters: usize) -> Option<&'v [Tensor]> {
        let first = if self.rate.is_scheduled() { LEARNING_RATE } else { LEARNING_RATE + 1 };
        self.ema.and(variables.get(first..first + parameters))
    }

    #[track_caller]
    fn check(&self, roles: &[Role], variables: &[Tensor], grads: &[Tensor], trainable: &[Tensor]) -> Result<()> {
        let (need, name) = (roles.len(), self.name());
        if variables.len() != need {
            let (have, count) = (variables.len(), trainable.len());
            let what = format!("{name} has {need} variables for {count} trainables, {have} were given");
            return Err(Error::state(what));
        }
        if grads.len() != trainable.len() {
            let (have, need) = (grads.len(), trainable.len());
            return Err(Error::state(format!("{name} was given {have} gradients for {need} trainables")));
        }
        self.decay.check(trainable.len())?;
        for (gradient, parameter) in grads.iter().zip(trainable) {
            let (gradient, parameter) = (gradient.ok()?, parameter.ok()?);
            if gradient.shape() != parameter.shape() {
                let inputs = vec![gradient.shape(), parameter.shape()];
                let why = "a gradient must have the shape of its parameter".into();
                return Err(Error::new(ErrorKind::Shape { op: name.into(), inputs, why, place: here() }));
            }
            if [gradient.dtype(), parameter.dtype()] != [DType::F32; 2] {
                let inputs = vec![gradient.dtype(), parameter.dtype()];
                let why = "only f32 parameters can be trained".into();
                return Err(Error::new(ErrorKind::DType { op: name.into(), inputs, why, place: here() }));
            }
        }
        Ok(())
    }
}
