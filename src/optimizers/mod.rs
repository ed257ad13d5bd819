//! Optimizers: from gradients to new parameters.
//!
//! Floor 3. An [`Optimizer`] is a [`Rule`] (how one parameter moves) inside the machinery that all rules share: the
//! learning rate as a device variable or a [schedule](schedules) of the iteration count, accumulation of gradients,
//! clipping, decoupled weight decay, averages of the parameters. It keeps nothing; its variables travel with the step's
//! state, in the order of Keras, and [`Optimizer::stateless_apply`] is a pure function of them. Whatever depends on the
//! iteration is computed once as a scalar, so that every parameter's update is the same elementwise expression and the
//! compiler can run all of them in one dispatch. Deliberately absent: anything that the host decides from step to step,
//! since a step must not bake in a number that changes; and loss scaling, which needs gradients narrower than f32.

mod accumulation;
mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod clip;
mod decay;
mod ema;
mod lion;
mod nadam;
mod optimizer;
mod rmsprop;
mod rule;
pub mod schedules;
mod sgd;
#[cfg(test)]
mod tests;
mod variables;

pub use crate::layers::Variables;
pub use adadelta::Adadelta;
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use adamax::Adamax;
pub use clip::Clip;
pub use ema::Ema;
pub use lion::Lion;
pub use nadam::Nadam;
pub use optimizer::Optimizer;
pub use rmsprop::RMSprop;
pub use rule::Rule;
pub use schedules::LearningRate;
pub use sgd::SGD;
pub use variables::{ITERATION, LEARNING_RATE, OptimizerVariables};

use crate::choice::{Choice, Registered, plain};
use crate::error::{Error, ErrorKind, Result};

/// What `compile` takes as an optimizer: a name, an [`Optimizer`] or one of the structs here.
pub type OptimizerChoice = Choice<Optimizer>;

/// The optimizer of a name, with Keras' defaults; case does not matter.
pub fn get(name: &str) -> Result<Optimizer> {
    let known = plain(name);
    match MAKERS.iter().find(|(name, _)| *name == known) {
        Some((_, make)) => Ok(make()),
        None => {
            let known = MAKERS.iter().map(|(name, _)| *name).collect();
            Err(Error::new(ErrorKind::UnknownName { kind: "optimizer", name: name.into(), known }))
        }
    }
}

impl Registered for Optimizer {
    fn get(name: &str) -> Result<Optimizer> {
        get(name)
    }
}

/// The names, and the usual conversions of a struct of options.
macro_rules! optimizers {
    ($($optimizer:ident $name:literal)*) => {
        const MAKERS: &[(&str, fn() -> Optimizer)] = &[$(($name, || $optimizer::default().into())),*];
        $(impl From<$optimizer> for Choice<Optimizer> {
            fn from(options: $optimizer) -> Choice<Optimizer> {
                Choice::Object(options.into())
            }
        })*
    };
}
optimizers! {
    SGD "sgd"
    Adam "adam"
    AdamW "adamw"
    RMSprop "rmsprop"
    Adagrad "adagrad"
    Adadelta "adadelta"
    Adamax "adamax"
    Nadam "nadam"
    Lion "lion"
}
