//! The variables of an optimizer: what each is, in the order of Keras, and the shapes in which a state holds them.

use super::{LearningRate, Optimizer, Variables};
use crate::error::Result;
use crate::graph::Tensor;

/// Index of the iteration count among an optimizer's variables: i32, batches seen. With an accumulation of gradients
/// that is more than updates.
pub const ITERATION: usize = 0;
/// Index of the learning rate among an optimizer's variables, unless it follows a schedule: f32. Replacing it takes
/// effect from the next step.
pub const LEARNING_RATE: usize = 1;

/// What one variable is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    Iteration,
    /// Which starts from this number.
    LearningRate(f64),
    /// A tensor of the shape of a parameter, and what its elements start from.
    Kept {
        parameter: usize,
        name: &'static str,
        initial: f64,
    },
    /// A number of the rule.
    Shared {
        name: &'static str,
        initial: f64,
    },
}

impl Optimizer {
    /// The variables for so many parameters, in their order. For one parameter that is: its average, its accumulated
    /// gradient, the slots of the rule.
    pub(super) fn roles(&self, parameters: usize) -> Vec<Role> {
        let mut roles = vec![Role::Iteration];
        if let LearningRate::Number(rate) = self.rate {
            roles.push(Role::LearningRate(rate));
        }
        let average = self.ema.map(|_| vec!["average"]);
        let accumulator = self.accumulation.map(|_| vec!["gradient_accumulator"]);
        let options = average.into_iter().chain(accumulator).map(|block| (block, true));
        for (block, option) in options.chain(self.rule.slots().into_iter().map(|block| (block, false))) {
            for parameter in 0..parameters {
                let initial = |name| if option { 0.0 } else { self.rule.initial(name) };
                roles.extend(block.iter().map(|&name| Role::Kept { parameter, name, initial: initial(name) }));
            }
        }
        roles.extend(self.rule.shared().into_iter().map(|(name, initial)| Role::Shared { name, initial }));
        roles
    }

    /// Names of the variables, for the names of the parameters: "iteration", "learning_rate", "dense_kernel_momentum".
    pub fn variable_names(&self, parameters: &[String]) -> Vec<String> {
        self.each_named(parameters.len(), |parameter, name| {
            format!("{}_{name}", parameters[parameter].replace('/', "_"))
        })
    }

    /// Names that are different where those of the parameters are: "dense/kernel/momentum".
    pub(crate) fn variable_paths(&self, parameters: &[&str]) -> Vec<String> {
        self.each_named(parameters.len(), |parameter, name| format!("{}/{name}", parameters[parameter]))
    }

    fn each_named(&self, parameters: usize, of: impl Fn(usize, &str) -> String) -> Vec<String> {
        let name = |role| match role {
            Role::Iteration => "iteration".into(),
            Role::LearningRate(_) => "learning_rate".into(),
            Role::Kept { parameter, name, .. } => of(parameter, name),
            Role::Shared { name, .. } => name.into(),
        };
        self.roles(parameters).into_iter().map(name).collect()
    }
}

/// The variables by what they are: those kept for each parameter, and the shared numbers.
pub(super) fn split(roles: &[Role], variables: &[Tensor], parameters: usize) -> (Vec<Variables>, Variables) {
    let (mut kept, mut shared) = (vec![Variables::new(); parameters], Variables::new());
    for (role, variable) in roles.iter().zip(variables) {
        match role {
            Role::Iteration | Role::LearningRate(_) => {}
            Role::Kept { parameter, .. } => kept[*parameter].push(variable.clone()),
            Role::Shared { .. } => shared.push(variable.clone()),
        }
    }
    (kept, shared)
}

/// The opposite of [`split`].
pub(super) fn join(
    roles: &[Role],
    iteration: &Tensor,
    rate: &Tensor,
    kept: Vec<Variables>,
    shared: Variables,
) -> Variables {
    let mut kept: Vec<_> = kept.into_iter().map(Variables::into_iter).collect();
    let mut shared = shared.into_iter();
    let variable = |role: &Role| match role {
        Role::Iteration => Some(iteration.clone()),
        Role::LearningRate(_) => Some(rate.clone()),
        Role::Kept { parameter, .. } => kept[*parameter].next(),
        Role::Shared { .. } => shared.next(),
    };
    roles.iter().filter_map(variable).collect()
}

/// Whether a whole number is a multiple of another; exact for any i32.
pub(super) fn is_multiple(number: &Tensor, of: u32) -> Tensor {
    let of = f64::from(of);
    (number - number / of * of).eq(0.0)
}

/// One optimizer's variables: bare, or as the only entry of a train state's list. Sealed.
pub trait OptimizerVariables: sealed::List {}

pub(super) mod sealed {
    use super::{Result, Tensor, Variables};
    use crate::error::Error;

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
                several => Err(Error::state(format!(
                    "the state holds the variables of {} optimizers; pass those of one, by index",
                    several.len()
                ))),
            }
        }
        fn of(variables: Variables) -> Vec<Variables> {
            vec![variables]
        }
    }
}

impl OptimizerVariables for Variables {}
impl OptimizerVariables for Vec<Variables> {}
