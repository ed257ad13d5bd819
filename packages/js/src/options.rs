//! [`Options`]: a plain object that is read property by property.
//!
//! What nobody asked for was misspelt, so it is an error that lists what there is. Deliberately absent: conversions; a
//! number in a string is no number.

use std::cell::RefCell;

use js_sys::{Array, Object, Reflect};
use wasm_bindgen::{JsCast, JsError, JsValue};

/// The properties of an object.
pub struct Options {
    object: JsValue,
    /// What the object is, for messages.
    what: String,
    asked: RefCell<Vec<&'static str>>,
}

impl Options {
    /// An object, or nothing, which has no properties.
    pub fn of(object: &JsValue, what: impl Into<String>) -> Result<Options, JsError> {
        let what = what.into();
        if !object.is_object() && !object.is_undefined() {
            return Err(JsError::new(&format!("{what} is given as an object")));
        }
        Ok(Options { object: object.clone(), what, asked: RefCell::default() })
    }

    /// A property, unless it is missing, undefined or null.
    pub fn get(&self, name: &'static str) -> Option<JsValue> {
        self.asked.borrow_mut().push(name);
        if self.object.is_undefined() {
            return None;
        }
        Reflect::get(&self.object, &name.into()).ok().filter(|value| !value.is_undefined() && !value.is_null())
    }

    fn convert<T>(
        &self,
        name: &'static str,
        kind: &str,
        convert: impl Fn(&JsValue) -> Option<T>,
    ) -> Result<Option<T>, JsError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match convert(&value) {
            Some(value) => Ok(Some(value)),
            None => Err(JsError::new(&format!("{name} of {} is {kind}", self.what))),
        }
    }

    pub fn number(&self, name: &'static str) -> Result<Option<f64>, JsError> {
        self.convert(name, "a number", JsValue::as_f64)
    }

    pub fn count(&self, name: &'static str) -> Result<Option<usize>, JsError> {
        self.convert(name, "a whole number from 0 on", count)
    }

    pub fn flag(&self, name: &'static str) -> Result<Option<bool>, JsError> {
        self.convert(name, "true or false", JsValue::as_bool)
    }

    pub fn text(&self, name: &'static str) -> Result<Option<String>, JsError> {
        self.convert(name, "a string", JsValue::as_string)
    }

    pub fn counts(&self, name: &'static str) -> Result<Option<Vec<usize>>, JsError> {
        self.convert(name, "an array of whole numbers", |value| {
            Array::is_array(value).then(|| value.unchecked_ref::<Array>().iter().map(|each| count(&each)).collect())?
        })
    }

    /// A number for each axis of windows, or one for all.
    pub fn size<const R: usize>(&self, name: &'static str) -> Result<Option<[usize; R]>, JsError> {
        self.convert(name, &format!("a whole number, or an array of {R}"), |value| {
            if let Some(each) = count(value) {
                return Some([each; R]);
            }
            let sizes = value.dyn_ref::<Array>()?.iter().map(|each| count(&each)).collect::<Option<Vec<_>>>()?;
            sizes.try_into().ok()
        })
    }

    /// What must be there.
    pub fn needed<T>(&self, name: &'static str, value: Option<T>) -> Result<T, JsError> {
        value.ok_or_else(|| JsError::new(&format!("{} needs {name}", self.what)))
    }

    /// An error if the object has a property that was not asked for.
    pub fn end(&self) -> Result<(), JsError> {
        let Some(object) = self.object.dyn_ref::<Object>() else { return Ok(()) };
        let asked = self.asked.borrow();
        let is_known = |key: &String| asked.iter().any(|name| name == key);
        match Object::keys(object).iter().filter_map(|key| key.as_string()).find(|key| !is_known(key)) {
            Some(key) => Err(JsError::new(&format!("{} has no {key}; it has {}", self.what, asked.join(", ")))),
            None => Ok(()),
        }
    }
}

fn count(value: &JsValue) -> Option<usize> {
    value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..4294967296.0).contains(number)).map(|n| n as usize)
}
