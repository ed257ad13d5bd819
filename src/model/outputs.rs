//! Losses and metrics of a model with any number of outputs: what the default steps are made of.
//!
//! Deliberately absent: a second rule for the case of one output; it is the first of a list.

use super::Model;
use super::compile::Watches;
use super::functional::Functional;
use crate::data::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Tensor;
use crate::layers::Variables;
use crate::losses::Loss;
use crate::metrics::{Metric, Observed};
use crate::step::Logs;

impl Functional {
    /// The loss for one output, times its weight.
    pub(super) fn compute_loss(&self, y: &Tensor, y_pred: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
        let (_, loss, factor) =
            self.settings.losses.first().ok_or(Error::new(ErrorKind::NotCompiled { needs: "a loss" }))?;
        scaled(&loss.call(y, y_pred, weight), *factor).ok().cloned()
    }

    /// The sum of the weighted losses, and each of them before its weight.
    pub(super) fn compute_losses(&self, batch: &Batch, y_pred: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        self.check_weights(batch)?;
        let losses = &self.settings.losses;
        let (mut total, mut each): (Option<Tensor>, Vec<Tensor>) = (None, Vec::new());
        for (output, loss, factor) in losses {
            let y = self.target_of(*output, batch)?;
            let y_pred = y_pred.get(*output).ok_or_else(|| self.too_few(y_pred.len()))?;
            let value = loss.call(y, y_pred, batch.weight_of(*output)).ok()?.clone();
            let part = scaled(&value, *factor);
            total = Some(match total {
                Some(total) => total + part,
                None => part,
            });
            each.push(value);
        }
        let total = total.ok_or(Error::new(ErrorKind::NotCompiled { needs: "a loss" }))?;
        Ok((total.ok()?.clone(), each))
    }

    /// Refuses sample weights that are neither one for all outputs nor one for each.
    pub(super) fn check_weights(&self, batch: &Batch) -> Result<()> {
        let (have, names) = (batch.sample_weights.len(), self.output_names());
        if have <= 1 || have == names.len() {
            return Ok(());
        }
        let outputs = format!("{} output{}", names.len(), if names.len() == 1 { "" } else { "s" });
        Err(Error::data(format!(
            "{have} sample weights were given for {outputs}; give none, one for all, or one for each"
        )))
    }

    /// The target that an output is compared to: there is one for each output, or one for each that has a loss.
    fn target_of<'b>(&self, output: usize, batch: &'b Batch) -> Result<&'b Tensor> {
        let losses = &self.settings.losses;
        let (have, names) = (batch.targets.len(), self.output_names());
        let at = if have == names.len() {
            Some(output)
        } else if have == losses.len() {
            losses.iter().position(|loss| loss.0 == output)
        } else {
            None
        };
        at.and_then(|at| batch.targets.get(at)).ok_or_else(|| {
            let what = match (have, losses.first()) {
                (0, Some((_, loss, _))) => {
                    let Loss { name, .. } = loss;
                    format!("there are no targets for the loss {name} to compare the predictions with; give (x, y)")
                }
                (0, None) => "there are no targets to compare the predictions with; give (x, y)".into(),
                _ => format!(
                    "{have} targets were given to a model with {} outputs, {}; give one for each, in this order",
                    names.len(),
                    names.join(", ")
                ),
            };
            Error::data(what)
        })
    }

    fn too_few(&self, have: usize) -> Error {
        let names = self.output_names();
        let what = format!("{have} predictions were given for the {} outputs {}", names.len(), names.join(", "));
        Error::argument(what)
    }

    /// What a metric of this name is updated with, unless it is no metric of `compile`.
    fn watches(&self, name: &str) -> Option<Watches> {
        self.settings.metrics.iter().find(|(metric, _)| metric.name() == name).map(|entry| entry.1)
    }
}

fn scaled(loss: &Tensor, factor: Option<f64>) -> Tensor {
    factor.map_or_else(|| loss.clone(), |factor| loss * factor)
}

/// Keras' rule: trackers of losses weigh each batch by its size, every other metric sees targets and predictions.
pub(super) fn update_metrics<M: Model + ?Sized>(
    model: &M,
    variables: Vec<Variables>,
    batch: &Batch,
    loss: (&Tensor, &[Tensor]),
    y_pred: &[Tensor],
) -> Result<(Logs, Vec<Variables>)> {
    let (base, rows) = (model.base(), Tensor::scalar(batch.size() as f32));
    let update = |(metric, variables): (Metric, Variables)| -> Result<_> {
        let pair = |output: usize| -> Result<Observed> {
            let y_pred = y_pred.get(output).ok_or_else(|| base.too_few(y_pred.len()))?;
            Ok(Observed::pair(base.target_of(output, batch)?, y_pred))
        };
        let observed = match base.watches(metric.name()) {
            Some(Watches::Loss) => Observed::value(loss.0).weighted(&rows),
            // A step that computed one loss by itself has none for each output; the tracker stays as it is.
            Some(Watches::LossOf(at)) => match loss.1.get(at) {
                Some(loss) => Observed::value(loss).weighted(&rows),
                None => return Ok(None),
            },
            Some(Watches::Output(output)) => pair(output)?,
            Some(Watches::Weighted(output)) => pair(output)?.weighted(batch.weight_of(output)),
            // A metric of the model's own.
            None => pair(0)?,
        };
        let new = metric.stateless_update_state(&variables, observed);
        Ok(Some(((metric.name().to_string(), metric.stateless_result(&new)), new)))
    };
    let (mut logs, mut all) = (Logs::default(), Vec::with_capacity(variables.len()));
    for (metric, variables) in model.metrics().into_iter().zip(variables) {
        match update((metric, variables.clone()))? {
            Some(((name, result), new)) => {
                logs.push(name, result);
                all.push(new);
            }
            None => all.push(variables),
        }
    }
    Ok((logs, all))
}

/// The tensors of these names, in their order; `None` where there is none.
fn ordered(names: &[String], given: &[(&str, &Tensor)], what: &str) -> Result<Vec<Option<Tensor>>> {
    let mut all = vec![None; names.len()];
    for (name, tensor) in given {
        let Some(at) = names.iter().position(|known| known == name) else {
            let what = format!("there is no {what} \"{name}\"; the {what}s are {}", names.join(", "));
            return Err(Error::argument(what));
        };
        if all[at].replace((*tensor).clone()).is_some() {
            return Err(Error::argument(format!("the {what} \"{name}\" is given twice")));
        }
    }
    Ok(all)
}

pub(super) fn by_name(
    base: &Functional,
    inputs: &[(&str, &Tensor)],
    targets: &[(&str, &Tensor)],
    sample_weights: &[(&str, &Tensor)],
) -> Result<Batch> {
    let (names, outputs) = (base.network().input_names(), base.output_names());
    let mut batch = Batch::default();
    for (input, name) in ordered(&names, inputs, "input")?.into_iter().zip(&names) {
        let missing = || Error::argument(format!("the input \"{name}\" is missing"));
        batch.inputs.push(input.ok_or_else(missing)?);
    }
    let targets = ordered(outputs, targets, "output")?;
    // All, none, or those of the outputs that have a loss: more or other ones would be taken for these.
    let has_loss = |output: usize| base.settings.losses.iter().any(|loss| loss.0 == output);
    let (all, none) = (targets.iter().all(Option::is_some), targets.iter().all(Option::is_none));
    let differs = |(at, target): (usize, &Option<Tensor>)| (target.is_some() != has_loss(at)).then_some(at);
    if let Some(at) = targets.iter().enumerate().find_map(differs).filter(|_| !all && !none) {
        let (name, given) = (&outputs[at], targets[at].is_some());
        let what = if given { "has no loss, and others are missing" } else { "is missing" };
        return Err(Error::argument(format!(
            "the target \"{name}\" {what}; give all, or those that compile has losses for"
        )));
    }
    batch.targets = targets.into_iter().flatten().collect();
    if !sample_weights.is_empty() {
        let rows = batch.size();
        let one = || Tensor::new(&vec![1f32; rows], [rows]);
        let each = ordered(outputs, sample_weights, "output")?.into_iter();
        batch.sample_weights = each.map(|weight| weight.unwrap_or_else(one)).collect();
    }
    Ok(batch)
}
