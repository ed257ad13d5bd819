//! Convolutions: [`Conv1D`], [`Conv2D`], [`Conv1DTranspose`], [`Conv2DTranspose`].
//!
//! Hyper-parameters, defaults and layouts are Keras' with channels last. Unlike Keras they take strides and dilation
//! together, because nothing here stands against it.

use super::spatial::{EITHER, images, misfit, named, planar, positive, setters, spatial, unrow, window};
use super::{Activation, Context, Layer, Padding, Size, Variable};
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;
use crate::ops::{self, Conv};
use crate::shape::Shape;

/// Convolution over the steps of `[batch, steps, channels]`, to `[batch, new steps, filters]`.
///
/// See [`Convolution`].
pub type Conv1D = Convolution<1>;

/// Convolution over the pixels of `[batch, height, width, channels]`, to `[batch, rows, columns, filters]`.
///
/// ```
/// use wengert::layers::{Conv2D, Flatten, MaxPooling2D, Sequential};
///
/// let network = Sequential::new([28, 28, 1])
///     .add(Conv2D::new(32, 3).activation("relu"))
///     .add(MaxPooling2D::new(2))
///     .add(Conv2D::new(64, [3, 5]).strides(2).padding("same"))
///     .add(Flatten)
///     .network()?;
/// assert_eq!(network.variables()[2].name, "conv2d_1/kernel");
/// assert_eq!(network.output_shapes(), [[7 * 7 * 64].into()]);
/// # Ok::<(), wengert::error::Error>(())
/// ```
///
/// See [`Convolution`].
pub type Conv2D = Convolution<2>;

/// Transposed convolution over the steps of `[batch, steps, channels]`. See [`TransposedConvolution`].
pub type Conv1DTranspose = TransposedConvolution<1>;

/// Transposed convolution over the pixels of `[batch, height, width, channels]`. See [`TransposedConvolution`].
pub type Conv2DTranspose = TransposedConvolution<2>;

/// `activation(x * kernel + bias)`, where `*` is the cross-correlation over `R` axes, with every filter over all
/// channels of its group. Variables: `kernel [..kernel_size, channels / groups, filters]`, `bias [filters]`.
#[derive(Clone, Debug)]
pub struct Convolution<const R: usize> {
    /// Channels of the output.
    pub filters: usize,
    /// Elements of a window.
    pub kernel_size: [usize; R],
    /// From one window to the next; 1 by default.
    pub strides: [usize; R],
    /// How far windows reach beyond the edge, where zeros are; not at all by default.
    pub padding: Padding,
    /// From one element of a window to the next; 1 by default.
    pub dilation_rate: [usize; R],
    /// Channels and filters fall into so many groups that do not see each other; 1 by default.
    pub groups: usize,
    /// Applied to the sum; linear by default.
    pub activation: Activation,
    /// Whether there is a bias; true by default.
    pub use_bias: bool,
    /// Glorot's uniform by default.
    pub kernel_initializer: Initializer,
    /// Zeros by default.
    pub bias_initializer: Initializer,
}

impl<const R: usize> Convolution<R> {
    /// A convolution with Keras' defaults; the kernel's size is one number or one for each axis.
    pub fn new(filters: usize, kernel_size: impl Into<Size<R>>) -> Self {
        Convolution {
            filters,
            kernel_size: kernel_size.into().0,
            strides: [1; R],
            padding: Padding::Valid,
            dilation_rate: [1; R],
            groups: 1,
            activation: Activation::default(),
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform,
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Sets the number of groups that do not see each other.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// The op's options for an input of this shape, and its channels.
    fn options(&self, shape: &Shape) -> Result<(Conv, usize)> {
        let kind = self.kind();
        let (_, channels) = spatial::<R>(kind, shape)?;
        positive(
            kind,
            &[
                ("filters", &[self.filters]),
                ("kernel_size", &self.kernel_size),
                ("strides", &self.strides),
                ("dilation_rate", &self.dilation_rate),
                ("groups", &[self.groups]),
            ],
        )?;
        let known = [Padding::Valid, Padding::Same, Padding::Causal];
        self.padding.among(if R == 1 { &known } else { &EITHER })?;
        for (count, what) in [(channels, "channels of the input"), (self.filters, "filters")] {
            if !count.is_multiple_of(self.groups) {
                return Err(misfit(kind, shape, format!("{count} {what} do not divide into {} groups", self.groups)));
            }
        }
        let window = window(kind, shape, [self.kernel_size, self.strides, self.dilation_rate], &self.padding)?;
        let (stride, dilation, padding) = (window.stride, window.dilation, window.padding);
        Ok((Conv { stride, dilation, padding, groups: self.groups }, channels))
    }
}

setters!(Convolution: kernel_initializer "kernel", bias_initializer "bias");

impl<const R: usize> Layer for Convolution<R> {
    fn kind(&self) -> &str {
        named::<R>("conv1d", "conv2d")
    }

    fn type_name(&self) -> &'static str {
        named::<R>("Conv1D", "Conv2D")
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let (options, channels) = self.options(&inputs[0].shape)?;
        let shape = [&self.kernel_size[..], &[channels / options.groups, self.filters]].concat();
        let kernel = Variable::weight("kernel", shape, self.kernel_initializer.clone());
        let bias = Variable::weight("bias", [self.filters], self.bias_initializer.clone());
        Ok(if self.use_bias { vec![kernel, bias] } else { vec![kernel] })
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let y = match x.ok().and_then(|x| self.options(&x.shape())) {
            Ok((options, _)) => images::<R>(x).conv2d(&kernel::<R>(context, 0), &options),
            Err(error) => return Tensor::poisoned(error),
        };
        finish::<R>(y, self.use_bias.then(|| context.weight(1)), &self.activation)
    }
}

/// `activation(x *' kernel + bias)`, where `*'` takes each element of `x` to a window that it weighs, and adds up what
/// lies on the same place: the adjoint of the convolution. Variables: `kernel [..kernel_size, filters, channels]`,
/// `bias [filters]`.
///
/// With `e` the extent of a window, `(kernel_size - 1) * dilation_rate + 1`, the output's length along an axis is
///
/// | padding | without `output_padding` | with it |
/// |---|---|---|
/// | valid | `(length - 1) * stride + max(e, stride)` | `(length - 1) * stride + e + output_padding` |
/// | same | `length * stride` | `(length - 1) * stride + e % 2 + output_padding` |
#[derive(Clone, Debug)]
pub struct TransposedConvolution<const R: usize> {
    /// Channels of the output.
    pub filters: usize,
    /// Elements of a window.
    pub kernel_size: [usize; R],
    /// From one window to the next; 1 by default.
    pub strides: [usize; R],
    /// What is cut off the edges of the sum; by default nothing.
    pub padding: Padding,
    /// What is added behind the end, less than the stride; by default the length follows from the other options.
    pub output_padding: Option<[usize; R]>,
    /// From one element of a window to the next; 1 by default.
    pub dilation_rate: [usize; R],
    /// Applied to the sum; linear by default.
    pub activation: Activation,
    /// Whether there is a bias; true by default.
    pub use_bias: bool,
    /// Glorot's uniform by default.
    pub kernel_initializer: Initializer,
    /// Zeros by default.
    pub bias_initializer: Initializer,
}

impl<const R: usize> TransposedConvolution<R> {
    /// A transposed convolution with Keras' defaults; the kernel's size is one number or one for each axis.
    pub fn new(filters: usize, kernel_size: impl Into<Size<R>>) -> Self {
        TransposedConvolution {
            filters,
            kernel_size: kernel_size.into().0,
            strides: [1; R],
            padding: Padding::Valid,
            output_padding: None,
            dilation_rate: [1; R],
            activation: Activation::default(),
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform,
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Sets what is added behind the end: a number, or one for each axis.
    pub fn output_padding(mut self, output_padding: impl Into<Size<R>>) -> Self {
        self.output_padding = Some(output_padding.into().0);
        self
    }

    /// The output's lengths and the options of the convolution whose adjoint this is.
    fn options(&self, shape: &Shape) -> Result<([usize; 2], Conv)> {
        let kind = self.kind();
        let (lengths, _) = spatial::<R>(kind, shape)?;
        positive(
            kind,
            &[
                ("filters", &[self.filters]),
                ("kernel_size", &self.kernel_size),
                ("strides", &self.strides),
                ("dilation_rate", &self.dilation_rate),
            ],
        )?;
        self.padding.among(&EITHER)?;
        let mut sizes = [0; R];
        let mut paddings = [(0, 0); R];
        for axis in 0..R {
            let stride = self.strides[axis];
            let extent = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1;
            let added = self.output_padding.map(|padding| padding[axis]);
            if let Some(added) = added.filter(|&added| added >= stride) {
                let what = format!("{kind}: output_padding {added} must be less than the stride {stride}");
                return Err(Error::argument(what));
            }
            // As a convolution of the input with zeros between its elements: what is added before and behind it.
            let (before, behind) = match (&self.padding, added) {
                (Padding::Same, added) => {
                    let all = extent + added.map_or(stride, |added| extent % 2 + added) - 2;
                    let before = all.div_ceil(2).min(extent - 1);
                    (before, all - before)
                }
                (_, added) => (extent - 1, extent - 1 + added.unwrap_or(extent.max(stride) - extent)),
            };
            let size = (lengths[axis].max(1) - 1) * stride + 2 + before + behind - extent;
            if size == 0 || lengths[axis] == 0 {
                return Err(misfit(kind, shape, format!("the output has no element along spatial axis {axis}")));
            }
            sizes[axis] = size;
            paddings[axis] = (extent - 1 - before, (extent - 1).saturating_sub(behind));
        }
        let padding = ops::Padding::Explicit(planar(paddings, (0, 0)));
        let (stride, dilation) = (planar(self.strides, 1), planar(self.dilation_rate, 1));
        Ok((planar(sizes, 1), Conv { stride, dilation, padding, groups: 1 }))
    }
}

setters!(TransposedConvolution: kernel_initializer "kernel", bias_initializer "bias");

impl<const R: usize> Layer for TransposedConvolution<R> {
    fn kind(&self) -> &str {
        named::<R>("conv1d_transpose", "conv2d_transpose")
    }

    fn type_name(&self) -> &'static str {
        named::<R>("Conv1DTranspose", "Conv2DTranspose")
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        self.options(&inputs[0].shape)?;
        let (_, channels) = spatial::<R>(self.kind(), &inputs[0].shape)?;
        let shape = [&self.kernel_size[..], &[self.filters, channels]].concat();
        let kernel = Variable::weight("kernel", shape, self.kernel_initializer.clone());
        let bias = Variable::weight("bias", [self.filters], self.bias_initializer.clone());
        Ok(if self.use_bias { vec![kernel, bias] } else { vec![kernel] })
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let y = match x.ok().and_then(|x| self.options(&x.shape())) {
            Ok((size, options)) => images::<R>(x).conv2d_transpose(&kernel::<R>(context, 0), size, &options),
            Err(error) => return Tensor::poisoned(error),
        };
        finish::<R>(y, self.use_bias.then(|| context.weight(1)), &self.activation)
    }
}

/// Trainable variable `i`, as a kernel of two axes.
pub(super) fn kernel<const R: usize>(context: &Context, i: usize) -> Tensor {
    let kernel = context.weight(i);
    if R == 1 { kernel.unsqueeze(0) } else { kernel }
}

/// Bias, activation, and the axes of rank `R`.
pub(super) fn finish<const R: usize>(y: Tensor, bias: Option<Tensor>, activation: &Activation) -> Tensor {
    let y = unrow::<R>(y);
    activation.apply(&match bias {
        Some(bias) => y + bias,
        None => y,
    })
}
