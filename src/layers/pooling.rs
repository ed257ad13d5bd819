//! Pooling: the largest or the mean element of windows, or of everything.
//!
//! [`MaxPooling1D`], [`MaxPooling2D`], [`AveragePooling1D`], [`AveragePooling2D`], and with `Global` before each name
//! the layers that leave no spatial axis. They have no variables. Hyper-parameters, defaults and layouts are Keras'
//! with channels last.

use super::spatial::{EITHER, images, named, positive, spatial, unrow, window};
use super::{Context, Layer, Padding, Size, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::ops::{Keep, Window};
use crate::shape::Shape;

/// Largest element of windows of `[batch, steps, channels]`. See [`MaxPooling`].
pub type MaxPooling1D = MaxPooling<1>;
/// Largest element of windows of `[batch, height, width, channels]`. See [`MaxPooling`].
pub type MaxPooling2D = MaxPooling<2>;
/// Mean of windows of `[batch, steps, channels]`. See [`AveragePooling`].
pub type AveragePooling1D = AveragePooling<1>;
/// Mean of windows of `[batch, height, width, channels]`. See [`AveragePooling`].
pub type AveragePooling2D = AveragePooling<2>;
/// `[batch, steps, channels]` to the largest of each channel, `[batch, channels]`. See [`GlobalMaxPooling`].
pub type GlobalMaxPooling1D = GlobalMaxPooling<1>;
/// `[batch, height, width, channels]` to the largest of each channel, `[batch, channels]`. See [`GlobalMaxPooling`].
pub type GlobalMaxPooling2D = GlobalMaxPooling<2>;
/// `[batch, steps, channels]` to the mean of each channel, `[batch, channels]`. See [`GlobalAveragePooling`].
pub type GlobalAveragePooling1D = GlobalAveragePooling<1>;
/// `[batch, height, width, channels]` to the mean of each channel, `[batch, channels]`. See [`GlobalAveragePooling`].
pub type GlobalAveragePooling2D = GlobalAveragePooling<2>;

/// A layer that folds windows.
macro_rules! pooling {
    ($(#[$doc:meta])* $layer:ident, $one:literal $One:literal $two:literal $Two:literal, $pool:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $layer<const R: usize> {
            /// Elements of a window; 2 along each axis by default.
            pub pool_size: [usize; R],
            /// From one window to the next; by default the window's size, so that windows do not overlap.
            pub strides: Option<[usize; R]>,
            /// How far windows reach beyond the edge; not at all by default.
            pub padding: Padding,
        }

        impl<const R: usize> $layer<R> {
            /// Windows of this size side by side: one number or one for each axis.
            pub fn new(pool_size: impl Into<Size<R>>) -> Self {
                $layer { pool_size: pool_size.into().0, strides: None, padding: Padding::Valid }
            }

            /// Sets how far it is from one window to the next: a number, or one for each axis.
            pub fn strides(mut self, strides: impl Into<Size<R>>) -> Self {
                self.strides = Some(strides.into().0);
                self
            }

            /// Sets how far windows reach beyond the edge: a name or a [`Padding`].
            pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
                self.padding = padding.into();
                self
            }

            fn window(&self, shape: &Shape) -> Result<Window> {
                let strides = self.strides.unwrap_or(self.pool_size);
                pool(self.kind(), shape, self.pool_size, strides, &self.padding)
            }
        }

        impl<const R: usize> Default for $layer<R> {
            fn default() -> Self {
                $layer::new(2)
            }
        }

        impl<const R: usize> Layer for $layer<R> {
            fn kind(&self) -> &str {
                named::<R>($one, $two)
            }

            fn type_name(&self) -> &'static str {
                named::<R>($One, $Two)
            }

            fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
                self.window(&inputs[0].shape).map(|_| Vec::new())
            }

            fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
                let x = &inputs[0];
                match x.ok().and_then(|x| self.window(&x.shape())) {
                    Ok(window) => unrow::<R>(images::<R>(x).$pool(&window)),
                    Err(error) => Tensor::poisoned(error),
                }
            }
        }
    };
}

pooling!(
    /// The largest element of each window and channel; what lies beyond the edge never is. A window with NaN gives NaN.
    /// The derivative goes to the first of several largest elements, as in Keras.
    MaxPooling, "max_pooling1d" "MaxPooling1D" "max_pooling2d" "MaxPooling2D", max_pool2d
);
pooling!(
    /// The mean of each window and channel, of the elements that are not beyond the edge.
    AveragePooling, "average_pooling1d" "AveragePooling1D" "average_pooling2d" "AveragePooling2D", avg_pool2d
);

/// Where the windows lie, or what does not fit.
fn pool<const R: usize>(
    kind: &str,
    shape: &Shape,
    pool_size: [usize; R],
    strides: [usize; R],
    padding: &Padding,
) -> Result<Window> {
    spatial::<R>(kind, shape)?;
    positive(kind, &[("pool_size", &pool_size), ("strides", &strides)])?;
    window(kind, shape, [pool_size, strides, [1; R]], padding.among(&EITHER)?)
}

/// A layer that folds all spatial axes.
macro_rules! global {
    ($(#[$doc:meta])* $layer:ident, $one:literal $One:literal $two:literal $Two:literal, $fold:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $layer<const R: usize> {
            /// Whether the spatial axes stay, with length 1; false by default.
            pub keepdims: bool,
        }

        impl<const R: usize> $layer<R> {
            /// Without spatial axes in the output.
            pub fn new() -> Self {
                Self::default()
            }

            /// Sets whether the spatial axes stay, with length 1.
            pub fn keepdims(mut self, keepdims: bool) -> Self {
                self.keepdims = keepdims;
                self
            }
        }

        impl<const R: usize> Layer for $layer<R> {
            fn kind(&self) -> &str {
                named::<R>($one, $two)
            }

            fn type_name(&self) -> &'static str {
                named::<R>($One, $Two)
            }

            fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
                let x = &inputs[0];
                match x.ok().and_then(|x| spatial::<R>(self.kind(), &x.shape())) {
                    Ok(_) => {
                        let axes: [i32; R] = std::array::from_fn(|axis| axis as i32 + 1);
                        if self.keepdims { x.$fold(Keep(axes)) } else { x.$fold(axes) }
                    }
                    Err(error) => Tensor::poisoned(error),
                }
            }
        }
    };
}

global!(
    /// The largest element of each channel. The derivative is shared between equal ones, as in Keras.
    GlobalMaxPooling,
    "global_max_pooling1d" "GlobalMaxPooling1D" "global_max_pooling2d" "GlobalMaxPooling2D", max
);
global!(
    /// The mean of each channel.
    GlobalAveragePooling,
    "global_average_pooling1d" "GlobalAveragePooling1D" "global_average_pooling2d" "GlobalAveragePooling2D", mean
);
