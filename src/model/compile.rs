//! What `compile` settles: optimizer, losses and metrics, spread over the outputs of the network.
//!
//! Choices for several outputs come as a list in the order of the outputs or by their names; one loss alone is for all
//! of them. Names of metrics are Keras': `<output>_<metric>` where there are several outputs, a number behind a name
//! that occurs again. Deliberately absent: shapes; what does not fit is found when a step is recorded.

use super::options::{Compile, LossWeights};
use crate::choice::Choice;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Float;
use crate::losses::Loss;
use crate::metrics::{Mean, Metric};
use crate::optimizers::{Optimizer, RMSprop};

/// What `compile` settled.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub optimizer: Optimizer,
    /// For each output that has one: the output's index, the loss and its weight.
    pub losses: Vec<(usize, Loss, Option<f64>)>,
    /// The tracker of the loss, those of the outputs' losses if there are several, and what was chosen.
    pub metrics: Vec<(Metric, Watches)>,
    pub steps_per_execution: usize,
    pub run_eagerly: bool,
    pub memory_budget: Option<u64>,
    pub debug_nans: bool,
    /// Whether `compile` was called.
    pub compiled: bool,
    /// Grows with every change that makes another step of the same function.
    pub generation: u64,
}

/// What a metric is updated with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watches {
    /// The loss.
    Loss,
    /// An entry of `losses`.
    LossOf(usize),
    /// Targets and predictions of an output.
    Output(usize),
    /// The same with the sample weights.
    Weighted(usize),
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            optimizer: RMSprop::default().into(),
            losses: Vec::new(),
            metrics: vec![(Metric::from(Mean).named("loss"), Watches::Loss)],
            steps_per_execution: 1,
            run_eagerly: false,
            memory_budget: None,
            debug_nans: false,
            compiled: false,
            generation: 0,
        }
    }
}

impl Settings {
    /// The settings of a model with outputs of these names.
    pub fn new(options: Compile, outputs: &[String], generation: u64) -> Result<Settings> {
        if options.steps_per_execution == 0 {
            return Err(Error::argument("steps_per_execution is 1 at least"));
        }
        if options.debug_nans && options.run_eagerly {
            let what = "debug_nans looks into recorded steps, run_eagerly records none; choose one of them";
            return Err(Error::argument(what));
        }
        let optimizer = options.optimizer.resolve()?.unwrap_or_else(|| RMSprop::default().into());
        let losses = losses(options.loss, options.loss_weights, outputs)?;
        let mut metrics = Settings::default().metrics;
        if losses.len() > 1 {
            let tracker = |(at, (output, ..)): (usize, &(usize, Loss, _))| {
                (Metric::from(Mean).named(&format!("{}_loss", outputs[*output])), Watches::LossOf(at))
            };
            metrics.extend(losses.iter().enumerate().map(tracker));
        }
        for (choices, weighted) in [(options.metrics, false), (options.weighted_metrics, true)] {
            let what = if weighted { "weighted_metrics" } else { "metrics" };
            for (output, chosen) in spread(choices, outputs, what)?.into_iter().enumerate() {
                for metric in chosen.resolve_all()? {
                    let prefix = if outputs.len() > 1 { format!("{}_", outputs[output]) } else { String::new() };
                    let name = free(&prefix, metric.name(), weighted, &metrics);
                    let watches = if weighted { Watches::Weighted(output) } else { Watches::Output(output) };
                    metrics.push((metric.named(&name), watches));
                }
            }
        }
        Ok(Settings {
            optimizer,
            losses,
            metrics,
            steps_per_execution: options.steps_per_execution,
            run_eagerly: options.run_eagerly,
            memory_budget: options.memory_budget,
            debug_nans: options.debug_nans,
            compiled: true,
            generation,
        })
    }
}

/// Keras' rules for a name that is taken: a weighted metric is called so first, then there is a number.
fn free(prefix: &str, name: &str, weighted: bool, taken: &[(Metric, Watches)]) -> String {
    let plain = format!("{prefix}{name}");
    let marked = if weighted { format!("{prefix}weighted_{name}") } else { plain.clone() };
    let numbered = (1..).map(|number| format!("{marked}_{number}"));
    let names = [plain, marked.clone()].into_iter().chain(numbered);
    names.into_iter().find(|name| taken.iter().all(|(other, _)| other.name() != name)).unwrap_or_default()
}

/// An output's index by its name.
pub(super) fn output(name: &str, outputs: &[String], what: &str) -> Result<usize> {
    outputs.iter().position(|output| output == name).ok_or_else(|| {
        Error::argument(format!("{what}: there is no output \"{name}\"; the outputs are {}", outputs.join(", ")))
    })
}

fn losses(choice: Choice<Loss>, weights: LossWeights, outputs: &[String]) -> Result<Vec<(usize, Loss, Option<f64>)>> {
    let each = match choice {
        Choice::Unset if matches!(weights, LossWeights::Equal) => return Ok(Vec::new()),
        Choice::Unset => return Err(Error::argument("loss_weights were given without a loss")),
        Choice::List(list) => spread(list, outputs, "loss")?,
        named @ Choice::Output(..) => spread(vec![named], outputs, "loss")?,
        all => vec![all; outputs.len()],
    };
    let mut factors = vec![None; outputs.len()];
    let named = matches!(weights, LossWeights::Named(_));
    match weights {
        LossWeights::Equal => {}
        LossWeights::List(list) if list.len() == outputs.len() => factors = list.into_iter().map(Some).collect(),
        LossWeights::List(list) => {
            let (have, need) = (list.len(), outputs.len());
            let what = format!("loss_weights: {have} were given for {need} outputs: {}", outputs.join(", "));
            return Err(Error::argument(what));
        }
        LossWeights::Named(named) => {
            for (name, factor) in named {
                factors[output(&name, outputs, "loss_weights")?] = Some(factor);
            }
        }
    }
    if let Some(factor) = factors.iter().flatten().find(|factor| !factor.is_finite()) {
        return Err(Error::new(ErrorKind::NonFinite { what: format!("a loss weight of {}", Float(*factor)) }));
    }
    let mut losses = Vec::new();
    for (index, (choice, factor)) in each.into_iter().zip(factors).enumerate() {
        let loss = choice.resolve()?;
        if loss.is_none() && factor.is_some() && named {
            let what = format!("loss_weights: the output \"{}\" has no loss to weigh", outputs[index]);
            return Err(Error::argument(what));
        }
        losses.extend(loss.map(|loss| (index, loss, factor)));
    }
    Ok(losses)
}

/// One choice for each output, from a list in their order or by their names. With one output everything is for it.
fn spread<T>(choices: Vec<Choice<T>>, outputs: &[String], what: &str) -> Result<Vec<Choice<T>>> {
    let mut each: Vec<Vec<Choice<T>>> = outputs.iter().map(|_| Vec::new()).collect();
    let (count, named) = (choices.len(), choices.iter().any(|choice| matches!(choice, Choice::Output(..))));
    for (index, choice) in choices.into_iter().enumerate() {
        let (at, choice) = match choice {
            Choice::Output(name, choice) => (output(&name, outputs, what)?, *choice),
            choice if outputs.len() == 1 => (0, choice),
            _ if named || count != outputs.len() => {
                let what = format!(
                    "{what}: give one for each of the outputs {}, as a list in their order or by name, \
                     [(\"{}\", ..), ..]",
                    outputs.join(", "),
                    outputs.first().map_or("", String::as_str),
                );
                return Err(Error::argument(what));
            }
            choice => (index, choice),
        };
        each[at].push(choice);
    }
    Ok(each.into_iter().map(Choice::List).collect())
}
