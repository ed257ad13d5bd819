//! [`Options`]: a plain object that is read property by property.
//!
//! What is wrong with it is told at the end, so that whoever reads properties reads on: a property of another kind, else one
//! that nobody asked for, since it was misspelt, else one that is missing. Deliberately absent: conversions; a number in a string is no number.

use std::cell::RefCell;

use js_sys::{Array, Object, Reflect};
use wasm_bindgen::{JsCast, JsError, JsValue};

/// The properties of an object.
pub struct Options {
    object: JsValue,
    /// What the object is, for messages.
    what: String,
    asked: RefCell<Vec<&'static str>>,
    /// The first property of another kind, and of those that must be there the first that is not.
    wrong: RefCell<Option<String>>,
    missing: RefCell<Option<&'static str>>,
}

impl Options {
    /// An object, or nothing, which has no properties.
    pub fn of(object: &JsValue, what: impl Into<String>) -> Result<Options, JsError> {
        let what = what.into();
        if !object.is_object() && !object.is_undefined() {
            return Err(JsError::new(&format!("{what} is given as an object")));
        }
        let (asked, wrong, missing) = Default::default();
        Ok(Options { object: object.clone(), what, asked, wrong, missing })
    }

    /// A property, unless it is missing, undefined or null.
    pub fn get(&self, name: &'static str) -> Option<JsValue> {
        self.asked.borrow_mut().push(name);
        if self.object.is_undefined() {
            return None;
        }
        Reflect::get(&self.object, &name.into()).ok().filter(|value| !value.is_undefined() && !value.is_null())
    }

    fn convert<T>(&self, name: &'static str, kind: &str, convert: impl Fn(&JsValue) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let converted = convert(&value);
        if converted.is_none() {
            self.refuse(name, kind);
        }
        converted
    }

    /// Says of what kind a property is.
    pub fn refuse(&self, name: &str, kind: &str) {
        self.wrong.borrow_mut().get_or_insert_with(|| format!("{name} of {} is {kind}", self.what));
    }

    pub fn number(&self, name: &'static str) -> Option<f64> {
        self.convert(name, "a number", JsValue::as_f64)
    }

    pub fn count(&self, name: &'static str) -> Option<usize> {
        self.convert(name, "a whole number from 0 on", count)
    }

    pub fn flag(&self, name: &'static str) -> Option<bool> {
        self.convert(name, "true or false", JsValue::as_bool)
    }

    pub fn text(&self, name: &'static str) -> Option<String> {
        self.convert(name, "a string", JsValue::as_string)
    }

    pub fn counts(&self, name: &'static str) -> Option<Vec<usize>> {
        self.convert(name, "an array of whole numbers", |value| {
            Array::is_array(value).then(|| value.unchecked_ref::<Array>().iter().map(|each| count(&each)).collect())?
        })
    }

    /// A number for each axis of windows, or one for all.
    pub fn size<const R: usize>(&self, name: &'static str) -> Option<[usize; R]> {
        self.convert(name, &format!("a whole number, or an array of {R}"), |value| {
            if let Some(each) = count(value) {
                return Some([each; R]);
            }
            let sizes = value.dyn_ref::<Array>()?.iter().map(|each| count(&each)).collect::<Option<Vec<_>>>()?;
            sizes.try_into().ok()
        })
    }

    /// What must be there; something in its place, until the end tells that it is not.
    pub fn needed<T: Default>(&self, name: &'static str, value: Option<T>) -> T {
        if value.is_none() {
            self.missing.borrow_mut().get_or_insert(name);
        }
        value.unwrap_or_default()
    }

    /// An error if something was wrong with the object.
    pub fn end(&self) -> Result<(), JsError> {
        if let Some(wrong) = self.wrong.take() {
            return Err(JsError::new(&wrong));
        }
        if let Some(object) = self.object.dyn_ref::<Object>() {
            let asked = self.asked.borrow();
            let is_known = |key: &String| asked.iter().any(|name| name == key);
            let keys = Object::keys(object);
            if let Some(key) = keys.iter().filter_map(|key| key.as_string()).find(|key| !is_known(key)) {
                return Err(JsError::new(&format!("{} has no {key}; it has {}", self.what, asked.join(", "))));
            }
        }
        match self.missing.take() {
            Some(name) => Err(JsError::new(&format!("{} needs {name}", self.what))),
            None => Ok(()),
        }
    }
}

fn count(value: &JsValue) -> Option<usize> {
    value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..4294967296.0).contains(number)).map(|n| n as usize)
}
