//! [`Sequential`]: the class.
//!
//! A model is shared while something of it is going on, so that a callback of `fit` may predict and save; only what
//! changes its configuration needs it alone. Deliberately absent: a queue; a second `fit` during the first is refused.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use js_sys::{Array, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use wengert::prelude::*;

use crate::options::Options;
use crate::{data, hooks::Hooks, layers, training};

/// A model at work, which something else may use meanwhile.
struct Shared(Rc<Functional>);

impl Model for Shared {
    fn base(&self) -> &Functional {
        &self.0
    }

    fn base_mut(&mut self) -> &mut Functional {
        Rc::get_mut(&mut self.0).expect("only compile asks for this, and it is called while nothing else has the model")
    }
}

/// A chain of layers that trains on the GPU.
///
/// Everything that computes returns a promise; everything that goes wrong is thrown, or rejects the promise, as an
/// `Error` whose message says what and where. Call `dispose()` when done: GPU memory is not garbage-collected in time.
#[wasm_bindgen]
pub struct Sequential {
    /// Nothing once it is disposed of.
    model: RefCell<Option<Rc<Functional>>>,
    input: Vec<usize>,
    output: Vec<usize>,
    stop: Rc<Cell<bool>>,
    training: Rc<Cell<bool>>,
}

/// Says that a training has ended, however it did.
struct Training(Rc<Cell<bool>>);

impl Drop for Training {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Sequential {
    fn shared(&self) -> Result<Shared, JsError> {
        let model = self.model.borrow();
        model.clone().map(Shared).ok_or_else(|| JsError::new("the model was disposed of"))
    }

    fn pair(&self, x: &JsValue, y: &JsValue) -> Result<(Tensor, Tensor), JsError> {
        let x = data::inputs(x, &self.input)?;
        let rows = x.shape().first().copied().unwrap_or_default();
        Ok((x, data::targets(y, rows, &self.output)?))
    }
}

#[wasm_bindgen]
impl Sequential {
    /// The model that an object describes: `{ input: [28, 28, 1], layers: [{ type: 'flatten' }, ...] }`. Equal
    /// descriptions and seeds give equal weights.
    #[wasm_bindgen(constructor)]
    pub fn new(
        #[wasm_bindgen(unchecked_param_type = "ModelDescription")] description: &JsValue,
    ) -> Result<Sequential, JsError> {
        let options = Options::of(description, "a model")?;
        let input = options.needed("input", options.counts("input"));
        let dtype = match options.text("inputType").as_deref() {
            None | Some("f32") => DType::F32,
            Some("i32") => DType::I32,
            Some(_) => {
                options.refuse("inputType", "\"f32\" or \"i32\"");
                DType::F32
            }
        };
        let list = options.needed("layers", options.get("layers"));
        let seed = options.count("seed").unwrap_or_default();
        options.end()?;
        let list = list.dyn_ref::<Array>().ok_or_else(|| JsError::new("layers of a model are an array"))?;
        let mut chain = wengert::layers::Sequential::of(Symbolic::input(input.clone(), dtype));
        for description in list.iter() {
            chain = chain.add(layers::layer(&description)?);
        }
        let model = chain.clone().build()?.seed(seed as u64)?;
        Ok(Sequential {
            model: RefCell::new(Some(Rc::new(model))),
            input,
            output: chain.output().shape()?.dims().to_vec(),
            stop: Rc::default(),
            training: Rc::default(),
        })
    }

    /// Settles optimizer, loss and metrics, by name or with options. What was compiled before is forgotten, and the
    /// optimizer starts over.
    pub fn compile(
        &self,
        #[wasm_bindgen(unchecked_param_type = "CompileOptions")] options: &JsValue,
    ) -> Result<(), JsError> {
        let options = training::compile(options)?;
        let mut model = self.model.borrow_mut();
        let model = model.as_mut().ok_or_else(|| JsError::new("the model was disposed of"))?;
        let busy = || JsError::new("the model is at work; await what was started before");
        Rc::get_mut(model).ok_or_else(busy)?.compile(options)?;
        Ok(())
    }

    /// Trains on rows `x` with targets `y`: typed arrays, whose shapes follow from the model, or `{ data, shape }`.
    ///
    /// Numbers come back once an epoch. If the promise is rejected the model has the weights of its newest step.
    #[wasm_bindgen(unchecked_return_type = "Promise<History>")]
    pub fn fit(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Data")] x: &JsValue,
        #[wasm_bindgen(unchecked_param_type = "Data")] y: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "FitOptions")] options: &JsValue,
    ) -> Promise {
        promised(|| {
            let mut model = self.shared()?;
            let options = Options::of(options, "what fit is given")?;
            let usual = Fit::default();
            let validation_data = match options.get("validationData") {
                Some(pair) => {
                    let pair = pair.dyn_ref::<Array>().filter(|pair| pair.length() == 2);
                    let pair = pair.ok_or_else(|| JsError::new("validationData is an array of two: [x, y]"))?;
                    Some(self.pair(&pair.get(0), &pair.get(1))?.into())
                }
                None => None,
            };
            let fit = Fit {
                epochs: options.count("epochs").unwrap_or(usual.epochs),
                batch_size: options.count("batchSize").unwrap_or(usual.batch_size),
                validation_split: options.number("validationSplit").unwrap_or(usual.validation_split),
                shuffle: options.flag("shuffle").unwrap_or(usual.shuffle),
                seed: options.count("seed").map_or(usual.seed, |seed| seed as u64),
                initial_epoch: options.count("initialEpoch").unwrap_or(usual.initial_epoch),
                steps_per_epoch: options.count("stepsPerEpoch"),
                validation_data,
                verbose: Verbose::Silent,
                ..Fit::default()
            };
            let callbacks = options.get("callbacks").unwrap_or(JsValue::UNDEFINED);
            options.end()?;
            let data = self.pair(x, y)?;
            if self.training.replace(true) {
                return Err(JsError::new("the model is in training; await that first"));
            }
            self.stop.set(false);
            let (training, stop) = (Training(self.training.clone()), self.stop.clone());
            Ok(async move {
                let _training = training;
                let mut hooks = Hooks::new(callbacks, stop);
                let trained = model.fit(data, Fit { callbacks: vec![&mut hooks], ..fit }).await;
                match (trained, hooks.thrown) {
                    (_, Some(thrown)) => Err(thrown),
                    (trained, None) => Ok(data::history(&trained.map_err(JsError::from)?)),
                }
            })
        })
    }

    /// Ends the training after the step that is being taken; its epoch is still validated and reported.
    pub fn stop(&self) {
        self.stop.set(true);
    }

    /// The loss and the metrics over rows `x` with targets `y`.
    #[wasm_bindgen(unchecked_return_type = "Promise<Logs>")]
    pub fn evaluate(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Data")] x: &JsValue,
        #[wasm_bindgen(unchecked_param_type = "Data")] y: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "{ batchSize?: number }")] options: &JsValue,
    ) -> Promise {
        promised(|| {
            let (model, data) = (self.shared()?, self.pair(x, y)?);
            let batch_size = batch_size(options, "what evaluate is given")?;
            let options = Evaluate { batch_size, verbose: Verbose::Silent, ..Evaluate::default() };
            Ok(async move { Ok(data::scores(&model.evaluate(data, options).await.map_err(JsError::from)?)) })
        })
    }

    /// The outputs for rows `x`.
    #[wasm_bindgen(unchecked_return_type = "Promise<Output>")]
    pub fn predict(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Data")] x: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "{ batchSize?: number }")] options: &JsValue,
    ) -> Promise {
        promised(|| {
            let (model, x) = (self.shared()?, data::inputs(x, &self.input)?);
            let batch_size = batch_size(options, "what predict is given")?;
            let options = Predict { batch_size, verbose: Verbose::Silent, ..Predict::default() };
            Ok(async move {
                let outputs = model.predict(x, options).await.map_err(JsError::from)?;
                Ok(data::array(&outputs).await?)
            })
        })
    }

    /// The weights as the bytes of a safetensors file, which Python reads too.
    #[wasm_bindgen(unchecked_return_type = "Promise<Uint8Array>")]
    pub fn save(&self) -> Promise {
        promised(|| {
            let model = self.shared()?;
            Ok(async move { bytes(&model.base().weights().await.map_err(JsError::from)?) })
        })
    }

    /// Sets the weights to those of a safetensors file with the same names and shapes.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn load(&self, file: Vec<u8>) -> Promise {
        promised(|| {
            let model = self.shared()?;
            Ok(async move {
                model.base().set_weights(&file).await.map_err(JsError::from)?;
                Ok(JsValue::UNDEFINED)
            })
        })
    }

    /// Weights, optimizer and metrics as the bytes of a file, for going on training with `restore`.
    #[wasm_bindgen(unchecked_return_type = "Promise<Uint8Array>")]
    pub fn checkpoint(&self) -> Promise {
        promised(|| {
            let model = self.shared()?;
            Ok(async move {
                let checkpoint = model.checkpoint().await.map_err(JsError::from)?;
                bytes(&checkpoint.to_bytes().await.map_err(JsError::from)?)
            })
        })
    }

    /// Takes up what `checkpoint` saved of a model that was described and compiled alike.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn restore(&self, file: Vec<u8>) -> Promise {
        promised(|| {
            let (mut model, checkpoint) = (self.shared()?, Checkpoint::from_bytes(&file)?);
            Ok(async move {
                model.restore(&checkpoint).await.map_err(JsError::from)?;
                Ok(JsValue::UNDEFINED)
            })
        })
    }

    /// A table of the layers, as text.
    pub fn summary(&self) -> Result<String, JsError> {
        Ok(self.shared()?.base().summary())
    }

    /// The number of weights.
    #[wasm_bindgen(js_name = countParams)]
    pub fn count_params(&self) -> Result<usize, JsError> {
        Ok(self.shared()?.base().count_params())
    }

    /// Frees the GPU memory. What is going on ends with its next step; whatever is asked of the model later is an error.
    pub fn dispose(&self) {
        self.stop.set(true);
        self.model.take();
    }
}

/// A promise of what was started at once, so that what the caller does next cannot come before it.
fn promised<F>(start: impl FnOnce() -> Result<F, JsError>) -> Promise
where
    F: Future<Output = Result<JsValue, JsValue>> + 'static,
{
    match start() {
        // As a box, so that what drives a future is compiled once.
        Ok(future) => future_to_promise(Box::pin(future) as Pin<Box<dyn Future<Output = _>>>),
        Err(error) => Promise::reject(&error.into()),
    }
}

fn bytes(bytes: &[u8]) -> Result<JsValue, JsValue> {
    Ok(Uint8Array::from(bytes).into())
}

fn batch_size(options: &JsValue, what: &str) -> Result<usize, JsError> {
    let options = Options::of(options, what)?;
    let size = options.count("batchSize").unwrap_or(32);
    options.end()?;
    Ok(size)
}
