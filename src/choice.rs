//! [`Choice`]: what `compile` accepts, a name or an object.
//!
//! Floor 3. `"adam"`, `Adam::default()` and a closure all become a `Choice` through `From`, and a name is looked up
//! only when the choice is resolved, so that an unknown one is an error of `compile` and not a panic of a conversion.
//! Models with several outputs are given several: `["mse", "mae"]` in the order of the outputs, or
//! `[("price", "mse"), ("stars", "mae")]` by their names. Deliberately absent: a registry that grows at run time; one's
//! own object is passed as such.

use crate::error::{Error, Result};

/// Something that has names: a loss, a metric, an optimizer.
pub trait Registered: Sized {
    /// The object of a name, or [`ErrorKind::UnknownName`](crate::error::ErrorKind::UnknownName) with the known ones.
    fn get(name: &str) -> Result<Self>;
}

/// A name or an object, or several of them.
#[derive(Clone, Debug, Default)]
pub enum Choice<T> {
    /// Left open.
    #[default]
    Unset,
    /// To be looked up by the function. A program that names nothing so holds no table of all there is.
    Name(String, fn(&str) -> Result<T>),
    /// Given as such.
    Object(T),
    /// Several, in the order of a model's outputs.
    List(Vec<Choice<T>>),
    /// For the output of this name.
    Output(String, Box<Choice<T>>),
}

impl<T> Choice<T> {
    /// The object, if one was chosen; an unknown name is an error that lists the known ones, and so are several.
    pub fn resolve(self) -> Result<Option<T>> {
        let mut all = self.resolve_all()?;
        match all.len() {
            0 | 1 => Ok(all.pop()),
            n => Err(Error::argument(format!("{n} choices were given where one is wanted"))),
        }
    }

    /// All objects that were chosen, whichever outputs they are for.
    pub fn resolve_all(self) -> Result<Vec<T>> {
        Ok(match self {
            Choice::Unset => Vec::new(),
            Choice::Name(name, look_up) => vec![look_up(&name)?],
            Choice::Object(object) => vec![object],
            Choice::Output(_, choice) => choice.resolve_all()?,
            Choice::List(list) => {
                let each: Vec<Vec<T>> = list.into_iter().map(Choice::resolve_all).collect::<Result<_>>()?;
                each.into_iter().flatten().collect()
            }
        })
    }
}

impl<T: Registered, C: Into<Choice<T>>> From<Vec<C>> for Choice<T> {
    fn from(list: Vec<C>) -> Choice<T> {
        Choice::List(list.into_iter().map(Into::into).collect())
    }
}

impl<T: Registered, C: Into<Choice<T>>, const N: usize> From<[C; N]> for Choice<T> {
    fn from(list: [C; N]) -> Choice<T> {
        Choice::List(list.into_iter().map(Into::into).collect())
    }
}

/// For the output of a name.
impl<T: Registered, C: Into<Choice<T>>> From<(&str, C)> for Choice<T> {
    fn from((output, choice): (&str, C)) -> Choice<T> {
        Choice::Output(output.into(), Box::new(choice.into()))
    }
}

impl<T: Registered> From<&str> for Choice<T> {
    fn from(name: &str) -> Choice<T> {
        Choice::Name(name.into(), T::get)
    }
}

impl<T: Registered> From<String> for Choice<T> {
    fn from(name: String) -> Choice<T> {
        Choice::Name(name, T::get)
    }
}

impl<T: Registered> From<T> for Choice<T> {
    fn from(object: T) -> Choice<T> {
        Choice::Object(object)
    }
}

/// A name as it is compared: `MeanSquaredError`, `mean_squared_error` and `MSE` differ in case and underscores only.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|&c| c != '_').map(|c| c.to_ascii_lowercase()).collect()
}
