//! What a row of a table of metrics is, beside those of losses.
//!
//! Most metrics are means over samples and are one row of [`metrics!`]; the others implement `Measure` and are named by
//! [`measures!`].

/// What `compile` takes.
macro_rules! choices {
    ($($metric:ident)*) => {$(
        impl From<$metric> for crate::choice::Choice<crate::metrics::Metric> {
            fn from(options: $metric) -> Self {
                crate::choice::Choice::Object(options.into())
            }
        }
    )*};
}
pub(super) use choices;

/// Rows of means over samples: documentation, type, names, options with their defaults, the values per sample as an
/// expression of options, targets and predictions as given, and what becomes of the mean if it is not the result.
macro_rules! metrics {
    ($($(#[$doc:meta])* $metric:ident [$name:literal $(, $alias:literal)*] $({$($fields:tt)*})?
        |$this:pat_param, $y:ident, $y_pred:ident| $values:expr $(, $finish:path)?;)*) => {
        $(
            crate::losses::table::options! { $(#[$doc])* $metric $({$($fields)*})? }

            impl From<$metric> for crate::metrics::Metric {
                fn from(options: $metric) -> crate::metrics::Metric {
                    let values = move |$y: &crate::graph::Tensor, $y_pred: &crate::graph::Tensor| {
                        let $this = &options;
                        $values
                    };
                    let mean = crate::metrics::mean::MeanOf::from(crate::losses::Loss::new($name, values));
                    $(let mean = crate::metrics::mean::MeanOf { finish: $finish, ..mean };)?
                    crate::metrics::Metric::new(mean)
                }
            }
        )*
        crate::metrics::table::choices! { $($metric)* }

        pub(super) const ROWS: &[crate::losses::table::Named<crate::metrics::Metric>] =
            &[$((&[$name $(, $alias)*], || $metric::default().into())),*];
    };
}
pub(super) use metrics;

/// Names of types that implement `Measure`.
macro_rules! measures {
    ($($metric:ident [$($name:literal),*])*) => {
        $(
            impl From<$metric> for crate::metrics::Metric {
                fn from(measure: $metric) -> crate::metrics::Metric {
                    crate::metrics::Metric::new(measure)
                }
            }
        )*
        crate::metrics::table::choices! { $($metric)* }

        pub(super) const MEASURES: &[crate::losses::table::Named<crate::metrics::Metric>] =
            &[$((&[$($name),*], || $metric::default().into())),*];
    };
}
pub(super) use measures;
