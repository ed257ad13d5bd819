//! Optimizers: from gradients to new parameters.
//!
//! Floor 3. An [`Optimizer`] is a [`Rule`] (how one parameter moves) inside the machinery that all rules share: the
//! learning rate as a device variable, clipping, decoupled weight decay, the iteration count. It keeps nothing; its
//! variables travel with the step's state, and [`Optimizer::stateless_apply`] is a pure function of them. Whatever
//! depends on the iteration is computed once as a scalar, so that every parameter's update is the same elementwise
//! expression and the compiler can run all of them in one dispatch. Deliberately absent: parameter names, and schedules
//! on the host; a step must not bake in a number that changes.

mod adam;
mod clip;
mod rmsprop;
mod sgd;
#[cfg(test)]
mod tests;

pub use crate::layers::Variables;
pub use adam::{Adam, AdamW};
pub use clip::Clip;
pub use rmsprop::RMSprop;
pub use sgd::SGD;

use std::fmt::Debug;
use std::sync::Arc;

use crate::choice::{Choice, Registered, plain};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Tensor, here};
use crate::threads::{MaybeSend, MaybeSync};

/// How one parameter moves. An optimizer of one's own implements it and becomes one by [`Optimizer::new`].
pub trait Rule: Debug + MaybeSend + MaybeSync + 'static {
    /// The field's name in lower case.
    fn name(&self) -> &str;

    /// Names of the tensors kept for each parameter, of its shape; they start from 0.
    fn slots(&self) -> Vec<&'static str>;

    /// Scalars that the update needs, computed once a step: from the number of this step (i32, the first is 1) and the
    /// learning rate. By default the learning rate alone.
    fn scalars(&self, step: &Tensor, learning_rate: &Tensor) -> Vec<Tensor> {
        let _ = step;
        vec![learning_rate.clone()]
    }

    /// The new parameter and its new slots, as elementwise expressions that are the same for all parameters.
    fn update(
        &self,
        parameter: &Tensor,
        gradient: &Tensor,
        slots: &[Tensor],
        scalars: &[Tensor],
    ) -> (Tensor, Variables);
}

/// An optimizer. Cheap to clone.
///
/// ```
/// use wengert::graph::Tensor;
/// use wengert::optimizers::{Adam, Clip, Optimizer};
///
/// let optimizer = Optimizer::from(Adam { learning_rate: 3e-4, ..Adam::default() }).clip(Clip::GlobalNorm(1.0));
/// let trainable = vec![Tensor::new(&[1.0f32, 2.0], [2])];
/// let variables = optimizer.variables(&trainable)?;
/// let grads = vec![Tensor::new(&[0.5f32, -0.5], [2])];
/// let (trainable, variables) = optimizer.stateless_apply(&variables, &grads, &trainable)?;
/// assert_eq!((trainable.len(), variables.len()), (1, 4));
/// # Ok::<(), wengert::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Arc<dyn Rule>,
    learning_rate: f64,
    weight_decay: Option<f64>,
    clip: Option<Clip>,
}

/// What `compile` takes as an optimizer: a name, an [`Optimizer`] or one of the structs here.
pub type OptimizerChoice = Choice<Optimizer>;

/// Index of the iteration count among an optimizer's variables: i32, steps done.
pub const ITERATION: usize = 0;
/// Index of the learning rate among an optimizer's variables: f32. Replacing it takes effect from the next step.
pub const LEARNING_RATE: usize = 1;

impl Optimizer {
    /// An optimizer that moves parameters by `rule`, starting from a learning rate.
    pub fn new(rule: impl Rule, learning_rate: f64) -> Optimizer {
        Optimizer { rule: Arc::new(rule), learning_rate, weight_decay: None, clip: None }
    }

    /// Clips gradients before anything else is done with them.
    pub fn clip(mut self, clip: Clip) -> Optimizer {
        self.clip = Some(clip);
        self
    }

    /// Decoupled weight decay (Loshchilov and Hutter 2019): before the update each parameter loses
    /// `learning rate * weight_decay` of itself.
    pub fn weight_decay(mut self, weight_decay: f64) -> Optimizer {
        self.weight_decay = Some(weight_decay);
        self
    }

    /// The rule's name.
    pub fn name(&self) -> &str {
        self.rule.name()
    }

    /// The learning rate that training starts from. The one in force is variable [`LEARNING_RATE`].
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// Names of the tensors kept for each parameter.
    pub fn slots(&self) -> Vec<&'static str> {
        self.rule.slots()
    }

    /// First values of the variables, on the host: iteration, learning rate, then the slots of each trainable in turn
    /// (`m0, v0, m1, v1, ..`).
    ///
    /// Errors: a learning rate that is not finite, a clipping bound that is not positive, a poisoned trainable.
    pub fn variables(&self, trainable: &[Tensor]) -> Result<Variables> {
        if !self.learning_rate.is_finite() {
            let what = format!("the learning rate of {} is {}", self.name(), self.learning_rate);
            return Err(Error::NonFinite { what });
        }
        if let Some(clip) = &self.clip {
            clip.check()?;
        }
        let slots = self.rule.slots().len();
        let mut variables = vec![Tensor::scalar(0i32), Tensor::scalar(self.learning_rate)];
        for tensor in trainable {
            let shape = tensor.ok()?.shape();
            // Each slot is a leaf of its own, since each is overwritten.
            variables.extend((0..slots).map(|_| Tensor::new(&vec![0f32; shape.numel()], shape.clone())));
        }
        Ok(variables)
    }

    /// The new trainables and the new variables; the order is clip, weight decay, update, iteration + 1.
    ///
    /// `variables` are this optimizer's, or a train state's list that holds just them. Errors: numbers or shapes of
    /// tensors that do not belong together (`Error::State`, `Error::Shape`), poisoned gradients.
    #[track_caller]
    pub fn stateless_apply<V: OptimizerVariables>(
        &self,
        variables: &V,
        grads: &[Tensor],
        trainable: &[Tensor],
    ) -> Result<(Vec<Tensor>, V)> {
        let variables = variables.only()?;
        self.check(variables, grads, trainable)?;
        let iteration = &variables[ITERATION] + 1.0;
        let rate = &variables[LEARNING_RATE];
        let clipped = match &self.clip {
            Some(clip) => clip.apply(grads)?,
            None => grads.to_vec(),
        };
        let decay = self.weight_decay.map(|decay| rate * decay);
        let scalars = self.rule.scalars(&iteration, rate);
        let slots = self.rule.slots().len();
        let mut new = vec![iteration, rate.clone()];
        let mut moved = Vec::with_capacity(trainable.len());
        for (i, (parameter, gradient)) in trainable.iter().zip(&clipped).enumerate() {
            let kept = &variables[2 + i * slots..2 + (i + 1) * slots];
            let decayed = match &decay {
                Some(decay) => parameter - parameter * decay,
                None => parameter.clone(),
            };
            let (parameter, kept) = self.rule.update(&decayed, gradient, kept, &scalars);
            if kept.len() != slots {
                let what = format!("{} keeps {slots} slots, its update returned {}", self.name(), kept.len());
                return Err(Error::State { what });
            }
            moved.push(parameter);
            new.extend(kept);
        }
        for tensor in moved.iter().chain(&new) {
            tensor.ok()?;
        }
        Ok((moved, V::of(new)))
    }

    #[track_caller]
    fn check(&self, variables: &[Tensor], grads: &[Tensor], trainable: &[Tensor]) -> Result<()> {
        let need = 2 + self.rule.slots().len() * trainable.len();
        if variables.len() != need {
            let (name, have, count) = (self.name(), variables.len(), trainable.len());
            let what = format!("{name} has {need} variables for {count} trainables, {have} were given");
            return Err(Error::State { what });
        }
        if grads.len() != trainable.len() {
            let (name, have, need) = (self.name(), grads.len(), trainable.len());
            return Err(Error::State { what: format!("{name} was given {have} gradients for {need} trainables") });
        }
        for (gradient, parameter) in grads.iter().zip(trainable) {
            let (gradient, parameter) = (gradient.ok()?, parameter.ok()?);
            if gradient.shape() != parameter.shape() {
                let inputs = vec![gradient.shape(), parameter.shape()];
                let why = "a gradient must have the shape of its parameter".into();
                return Err(Error::Shape { op: self.name().into(), inputs, why, place: here() });
            }
            if [gradient.dtype(), parameter.dtype()] != [DType::F32; 2] {
                let inputs = vec![gradient.dtype(), parameter.dtype()];
                let why = "only f32 parameters can be trained".into();
                return Err(Error::DType { op: self.name().into(), inputs, why, place: here() });
            }
        }
        Ok(())
    }
}

/// One optimizer's variables: bare, or as the only entry of a train state's list. Sealed.
pub trait OptimizerVariables: sealed::List {}

mod sealed {
    use super::{Error, Result, Tensor, Variables};

    pub trait List: Sized {
        fn only(&self) -> Result<&[Tensor]>;
        fn of(variables: Variables) -> Self;
    }

    impl List for Variables {
        fn only(&self) -> Result<&[Tensor]> {
            Ok(self)
        }
        fn of(variables: Variables) -> Variables {
            variables
        }
    }

    impl List for Vec<Variables> {
        fn only(&self) -> Result<&[Tensor]> {
            match self.as_slice() {
                [only] => Ok(only),
                several => Err(Error::State {
                    what: format!(
                        "the state holds the variables of {} optimizers; pass those of one, by index",
                        several.len()
                    ),
                }),
            }
        }
        fn of(variables: Variables) -> Vec<Variables> {
            vec![variables]
        }
    }
}

impl OptimizerVariables for Variables {}
impl OptimizerVariables for Vec<Variables> {}

const KNOWN: [&str; 4] = ["sgd", "adam", "adamw", "rmsprop"];

/// The optimizer of a name, with Keras' defaults; case does not matter.
pub fn get(name: &str) -> Result<Optimizer> {
    Ok(match plain(name).as_str() {
        "sgd" => SGD::default().into(),
        "adam" => Adam::default().into(),
        "adamw" => AdamW::default().into(),
        "rmsprop" => RMSprop::default().into(),
        _ => return Err(Error::UnknownName { kind: "optimizer", name: name.into(), known: KNOWN.to_vec() }),
    })
}

impl Registered for Optimizer {
    fn get(name: &str) -> Result<Optimizer> {
        get(name)
    }
}

macro_rules! optimizer {
    ($($optimizer:ident)*) => {$(
        impl From<$optimizer> for Choice<Optimizer> {
            fn from(options: $optimizer) -> Choice<Optimizer> {
                Choice::Object(options.into())
            }
        }
    )*};
}
optimizer! { SGD Adam AdamW RMSprop }
