//! What `compile` is given: optimizers and losses, by name or by description, and metrics by name.
//!
//! Names and defaults are Keras'. Deliberately absent: schedules and losses of one's own.

use js_sys::Array;
use wasm_bindgen::{JsCast, JsError, JsValue};
use wengert::losses::LossChoice;
use wengert::optimizers::{self, Clip};
use wengert::prelude::*;

use crate::options::Options;

/// What an object of `compile` says.
pub fn compile(description: &JsValue) -> Result<Compile, JsError> {
    let options = Options::of(description, "what compile is given")?;
    let mut compile = Compile::default();
    if let Some(given) = options.get("optimizer") {
        compile.optimizer = optimizer(&given)?.into();
    }
    if let Some(given) = options.get("loss") {
        compile.loss = loss(&given)?;
    }
    if let Some(given) = options.get("metrics") {
        let names: Option<Vec<String>> =
            given.dyn_ref::<Array>().and_then(|names| names.iter().map(|name| name.as_string()).collect());
        let names = names.ok_or_else(|| JsError::new("metrics are given as an array of names"))?;
        compile.metrics = names.into_iter().map(Into::into).collect();
    }
    if let Some(steps) = options.count("stepsPerExecution") {
        compile.steps_per_execution = steps;
    }
    options.end()?;
    Ok(compile)
}

/// A name, or an object with one and what differs from the defaults.
fn named(given: &JsValue, what: &str) -> Result<(String, Options), JsError> {
    if let Some(name) = given.as_string() {
        return Ok((name, Options::of(&JsValue::UNDEFINED, what)?));
    }
    let options = Options::of(given, what)?;
    let name = options.text("name").ok_or_else(|| JsError::new(&format!("{what} is a name, or an object with one")))?;
    Ok((name, options))
}

fn optimizer(given: &JsValue) -> Result<Optimizer, JsError> {
    let (name, options) = named(given, "an optimizer")?;
    let mut optimizer = match name.as_str() {
        "adam" => {
            let mut adam = Adam::default();
            adam.beta_1 = options.number("beta1").unwrap_or(adam.beta_1);
            adam.beta_2 = options.number("beta2").unwrap_or(adam.beta_2);
            adam.epsilon = options.number("epsilon").unwrap_or(adam.epsilon);
            adam.into()
        }
        "sgd" => {
            let mut sgd = SGD::default();
            sgd.momentum = options.number("momentum").unwrap_or(sgd.momentum);
            sgd.nesterov = options.flag("nesterov").unwrap_or(sgd.nesterov);
            sgd.into()
        }
        _ => optimizers::get(&name)?,
    };
    if let Some(rate) = options.number("learningRate") {
        optimizer = optimizer.learning_rate(rate);
    }
    if let Some(decay) = options.number("weightDecay") {
        optimizer = optimizer.weight_decay(decay);
    }
    if let Some(bound) = options.number("clipValue") {
        optimizer = optimizer.clip(Clip::Value(bound));
    }
    if let Some(bound) = options.number("globalClipNorm") {
        optimizer = optimizer.clip(Clip::GlobalNorm(bound));
    }
    options.end()?;
    Ok(optimizer)
}

fn loss(given: &JsValue) -> Result<LossChoice, JsError> {
    let (name, options) = named(given, "a loss")?;
    let from_logits = options.flag("fromLogits").unwrap_or(false);
    options.end()?;
    let plain: String = name.chars().filter(|&c| c != '_').map(|c| c.to_ascii_lowercase()).collect();
    Ok(match plain.as_str() {
        _ if !from_logits => name.into(),
        "sparsecategoricalcrossentropy" => SparseCategoricalCrossentropy { from_logits, ..Default::default() }.into(),
        "categoricalcrossentropy" => CategoricalCrossentropy { from_logits, ..Default::default() }.into(),
        "binarycrossentropy" => BinaryCrossentropy { from_logits, ..Default::default() }.into(),
        _ => return Err(JsError::new(&format!("the loss {name} takes no logits"))),
    })
}
