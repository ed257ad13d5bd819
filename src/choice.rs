//! [`Choice`]: what `compile` accepts, a name or an object.
//!
//! Floor 3. `"adam"`, `Adam::default()` and a closure all become a `Choice` through `From`, and a name is looked up
//! only when the choice is resolved, so that an unknown one is an error of `compile` and not a panic of a conversion.
//! Deliberately absent: a registry that grows at run time; one's own object is passed as such.

use crate::error::Result;

/// Something that has names: a loss, a metric, an optimizer.
pub trait Registered: Sized {
    /// The object of a name, or [`Error::UnknownName`](crate::error::Error::UnknownName) with the known ones.
    fn get(name: &str) -> Result<Self>;
}

/// A name or an object.
#[derive(Clone, Debug, Default)]
pub enum Choice<T> {
    /// Left open.
    #[default]
    Unset,
    /// To be looked up.
    Name(String),
    /// Given as such.
    Object(T),
}

impl<T: Registered> Choice<T> {
    /// The object, if one was chosen; an unknown name is an error that lists the known ones.
    pub fn resolve(self) -> Result<Option<T>> {
        match self {
            Choice::Unset => Ok(None),
            Choice::Name(name) => T::get(&name).map(Some),
            Choice::Object(object) => Ok(Some(object)),
        }
    }
}

impl<T: Registered> From<&str> for Choice<T> {
    fn from(name: &str) -> Choice<T> {
        Choice::Name(name.into())
    }
}

impl<T: Registered> From<String> for Choice<T> {
    fn from(name: String) -> Choice<T> {
        Choice::Name(name)
    }
}

impl<T: Registered> From<T> for Choice<T> {
    fn from(object: T) -> Choice<T> {
        Choice::Object(object)
    }
}

/// A name as it is compared: `MeanSquaredError`, `mean_squared_error` and `MSE` differ in case and underscores only.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|&c| c != '_').flat_map(char::to_lowercase).collect()
}
