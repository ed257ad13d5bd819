//! [`Hooks`]: the functions that `fit` calls while it trains.
//!
//! Each may return a promise, which is awaited, and what one throws ends the training and is thrown by `fit`. Deliberately
//! absent: waiting for the numbers of every batch; a hook of batches gets the newest that have arrived.

use std::cell::Cell;
use std::rc::Rc;

use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use wengert::prelude::*;
use wengert::step::Asked;

use crate::data;

/// The functions of an object.
pub struct Hooks {
    object: JsValue,
    stop: Rc<Cell<bool>>,
    /// Numbers on their way back.
    asked: Option<Asked>,
    newest: Scores,
    /// What a function threw.
    pub thrown: Option<JsValue>,
}

impl Hooks {
    /// The functions of an object; `stop` ends the training before its next step.
    pub fn new(object: JsValue, stop: Rc<Cell<bool>>) -> Hooks {
        Hooks { object, stop, asked: None, newest: Scores::default(), thrown: None }
    }

    fn function(&self, name: &str) -> Option<Function> {
        Reflect::get(&self.object, &name.into()).ok()?.dyn_into().ok()
    }

    async fn call(&mut self, name: &str, number: Option<usize>, logs: &JsValue) -> Result<()> {
        let Some(function) = self.function(name) else { return Ok(()) };
        let answer = match number {
            Some(number) => function.call2(&self.object, &JsValue::from(number as f64), logs),
            None => function.call1(&self.object, logs),
        };
        let answer = match answer.map(JsCast::dyn_into::<Promise>) {
            Ok(Ok(promise)) => JsFuture::from(promise).await,
            Ok(Err(answer)) => Ok(answer),
            Err(thrown) => Err(thrown),
        };
        match answer {
            Ok(_) => Ok(()),
            Err(thrown) => {
                self.thrown = Some(thrown);
                Err(Error::state(format!("{name} threw")))
            }
        }
    }

    /// Asks for numbers, one step's at a time, and takes in those that have come.
    fn look(&mut self, run: &Run<'_>) -> Result<()> {
        match &mut self.asked {
            None => self.asked = run.logs().ask()?,
            Some(asked) => {
                if let Some(numbers) = asked.look()? {
                    self.newest = numbers.into_iter().map(|(name, value)| (name, f64::from(value))).collect();
                    self.asked = None;
                }
            }
        }
        Ok(())
    }
}

impl Callback for Hooks {
    fn on_train_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move { self.call("onTrainBegin", None, &JsValue::UNDEFINED).await })
    }

    fn on_train_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move { self.call("onTrainEnd", None, &data::scores(&run.scores)).await })
    }

    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move { self.call("onEpochBegin", Some(run.epoch), &JsValue::UNDEFINED).await })
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            self.call("onEpochEnd", Some(run.epoch), &data::scores(&run.scores)).await?;
            run.stop |= self.stop.get();
            Ok(())
        })
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            if self.function("onBatchEnd").is_some() {
                self.look(run)?;
                let newest = data::scores(&self.newest);
                self.call("onBatchEnd", Some(run.batch), &newest).await?;
            }
            run.stop |= self.stop.get();
            Ok(())
        })
    }
}
