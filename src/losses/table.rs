//! What a row of a table of losses or metrics is: one place for type, options, names and formula.
//!
//! [`losses!`] and `metrics!` are lists of such rows; `get` looks names up in what they collect. Deliberately absent:
//! a second list of names, and options that are not public fields with a default.

use crate::choice::plain;
use crate::error::{Error, ErrorKind, Result};

/// Names, and what they stand for; the first name is its own.
pub(crate) type Named<T> = (&'static [&'static str], fn() -> T);

/// What a name stands for; case and underscores do not matter. An unknown name is an error that lists all others.
pub(crate) fn find<T>(kind: &'static str, rows: impl Iterator<Item = Named<T>> + Clone, name: &str) -> Result<T> {
    let wanted = plain(name);
    match rows.clone().find(|(names, _)| names.iter().any(|known| plain(known) == wanted)) {
        Some((_, make)) => Ok(make()),
        None => {
            let known = rows.flat_map(|(names, _)| names).copied().collect();
            Err(Error::new(ErrorKind::UnknownName { kind, name: name.into(), known }))
        }
    }
}

/// A struct of options with defaults, or a unit struct.
macro_rules! options {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;
    };
    ($(#[$doc:meta])* $name:ident {$($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr),* $(,)?}) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default),* }
            }
        }
    };
}
pub(crate) use options;

/// Rows of losses: documentation, type, names, options with their defaults, and the values per sample as an
/// expression of options, targets and predictions; the last two are f32 and have one shape. Makes the types, what
/// `compile` takes of them, and `ROWS` for `get`.
macro_rules! losses {
    ($($(#[$doc:meta])* $loss:ident [$name:literal $(, $alias:literal)*] $({$($fields:tt)*})?
        |$this:pat_param, $y:ident, $y_pred:ident| $values:expr;)*) => {
        $(
            crate::losses::table::options! { $(#[$doc])* $loss $({$($fields)*})? }

            impl $loss {
                /// Values per sample.
                #[track_caller]
                pub fn values(&self, y: &crate::graph::Tensor, y_pred: &crate::graph::Tensor) -> crate::graph::Tensor {
                    let $this = self;
                    let ($y, $y_pred) = crate::losses::align($name, y, y_pred);
                    $values
                }
            }

            impl From<$loss> for crate::losses::Loss {
                fn from(options: $loss) -> crate::losses::Loss {
                    crate::losses::Loss::new($name, move |y: &crate::graph::Tensor, y_pred: &crate::graph::Tensor| {
                        options.values(y, y_pred)
                    })
                }
            }

            impl From<$loss> for crate::choice::Choice<crate::losses::Loss> {
                fn from(options: $loss) -> Self {
                    crate::choice::Choice::Object(options.into())
                }
            }
        )*

        pub(crate) const ROWS: &[crate::losses::table::Named<crate::losses::Loss>] =
            &[$((&[$name $(, $alias)*], || $loss::default().into())),*];
    };
}
pub(crate) use losses;
