//! Typed arrays as tensors, and tensors as typed arrays.
//!
//! An array alone has the shape that the model suggests; `{ data, shape }` has its own. Deliberately absent: arrays of
//! arrays, which would be walked element by element.

use js_sys::{
    Array, Float32Array, Float64Array, Int32Array, Object, Reflect, Uint8Array, Uint8ClampedArray, Uint32Array,
};
use wasm_bindgen::{JsCast, JsError, JsValue};
use wengert::dtype::Element;
use wengert::prelude::*;

use crate::options::Options;

/// Makes a tensor of a shape.
type Make = Box<dyn Fn(Vec<usize>) -> Tensor>;

/// A typed array whose shape is not known yet: the number of its elements, and what makes a tensor of them.
fn elements(array: &JsValue) -> Option<(usize, Make)> {
    fn of<E: Element + 'static>(all: Vec<E>) -> (usize, Make) {
        (all.len(), Box::new(move |shape| Tensor::new(&all, shape)))
    }
    if let Some(array) = array.dyn_ref::<Float32Array>() {
        return Some(of(array.to_vec()));
    }
    if let Some(array) = array.dyn_ref::<Int32Array>() {
        return Some(of(array.to_vec()));
    }
    if let Some(array) = array.dyn_ref::<Uint32Array>() {
        return Some(of(array.to_vec()));
    }
    if let Some(array) = array.dyn_ref::<Float64Array>() {
        return Some(of(array.to_vec().into_iter().map(|x| x as f32).collect()));
    }
    let bytes = match array.dyn_ref::<Uint8ClampedArray>() {
        Some(array) => array.to_vec(),
        None => array.dyn_ref::<Uint8Array>()?.to_vec(),
    };
    Some(of(bytes.into_iter().map(i32::from).collect()))
}

/// A tensor of what was given; `shape` finds one for so many elements, where none was given.
fn tensor(
    given: &JsValue,
    what: &str,
    shape: impl Fn(usize) -> Result<Vec<usize>, JsError>,
) -> Result<Tensor, JsError> {
    let none = || JsError::new(&format!("{what} is given as a typed array, or as {{ data, shape }} with one"));
    if let Some((count, make)) = elements(given) {
        return Ok(make(shape(count)?));
    }
    if !given.is_object() {
        return Err(none());
    }
    let options = Options::of(given, what)?;
    let (_, make) = options.get("data").as_ref().and_then(elements).ok_or_else(none)?;
    let tensor = make(options.needed("shape", options.counts("shape")));
    options.end()?;
    tensor.ok()?;
    Ok(tensor)
}

/// Inputs: rows of these axes.
pub fn inputs(given: &JsValue, row: &[usize]) -> Result<Tensor, JsError> {
    let size: usize = row.iter().product();
    tensor(given, "x", |count| {
        if count % size.max(1) != 0 {
            let what = format!("x has {count} elements, which are not rows of {size} each, {row:?}");
            return Err(JsError::new(&what));
        }
        Ok([&[count / size.max(1)], row].concat())
    })
}

/// Targets for so many rows of outputs of these axes: one number a row, or what the output has.
pub fn targets(given: &JsValue, rows: usize, output: &[usize]) -> Result<Tensor, JsError> {
    let size: usize = output.iter().product();
    tensor(given, "y", |count| match count {
        count if count == rows => Ok(vec![rows]),
        count if count == rows * size => Ok([&[rows], output].concat()),
        _ => {
            let what =
                format!("y has {count} elements for {rows} rows; {rows} are wanted, or {} of {output:?}", rows * size);
            Err(JsError::new(&what))
        }
    })
}

/// What the device has computed, as `{ data, shape }`.
pub async fn array(tensor: &Tensor) -> Result<JsValue, JsError> {
    let values = tensor.read::<f32>().await?;
    let shape: Array = tensor.shape().dims().iter().map(|&length| JsValue::from(length as f64)).collect();
    Ok(object([("data", Float32Array::from(values.as_slice()).into()), ("shape", shape.into())]))
}

/// A plain object.
pub fn object<'a>(entries: impl IntoIterator<Item = (&'a str, JsValue)>) -> JsValue {
    let object = Object::new();
    for (name, value) in entries {
        // A plain object takes any property.
        drop(Reflect::set(&object, &name.into(), &value));
    }
    object.into()
}

/// Named numbers as a plain object.
pub fn scores(scores: &Scores) -> JsValue {
    object(scores.iter().map(|(name, value)| (name, value.into())))
}

/// What `fit` returns.
pub fn history(history: &History) -> JsValue {
    let numbers =
        |values: &mut dyn Iterator<Item = f64>| -> JsValue { values.map(JsValue::from).collect::<Array>().into() };
    let columns = history.history.iter().map(|(name, values)| (&**name, numbers(&mut values.iter().copied())));
    let epochs = numbers(&mut history.epoch.iter().map(|&epoch| epoch as f64));
    object([("epoch", epochs), ("history", object(columns))])
}
