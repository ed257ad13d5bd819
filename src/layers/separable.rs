//! Convolutions whose channels do not see each other: [`DepthwiseConv1D`], [`DepthwiseConv2D`], and with a product over
//! the channels of each pixel behind them [`SeparableConv1D`], [`SeparableConv2D`].

use super::conv::{finish, kernel};
use super::spatial::{EITHER, images, named, positive, setters, spatial, window};
use super::{Activation, Context, Layer, Padding, Size, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::initializers::Initializer;
use crate::ops::Conv;
use crate::shape::Shape;

/// Depthwise convolution over the steps of `[batch, steps, channels]`. See [`DepthwiseConvolution`].
pub type DepthwiseConv1D = DepthwiseConvolution<1>;

/// Depthwise convolution over the pixels of `[batch, height, width, channels]`. See [`DepthwiseConvolution`].
pub type DepthwiseConv2D = DepthwiseConvolution<2>;

/// Separable convolution over the steps of `[batch, steps, channels]`. See [`SeparableConvolution`].
pub type SeparableConv1D = SeparableConvolution<1>;

/// Separable convolution over the pixels of `[batch, height, width, channels]`. See [`SeparableConvolution`].
pub type SeparableConv2D = SeparableConvolution<2>;

/// Every channel with `depth_multiplier` kernels of its own: `channels * depth_multiplier` channels, those of one input
/// channel side by side. Variables: `kernel [..kernel_size, channels, depth_multiplier]`,
/// `bias [channels * depth_multiplier]`.
#[derive(Clone, Debug)]
pub struct DepthwiseConvolution<const R: usize> {
    /// Elements of a window.
    pub kernel_size: [usize; R],
    /// From one window to the next; 1 by default.
    pub strides: [usize; R],
    /// How far windows reach beyond the edge, where zeros are; not at all by default.
    pub padding: Padding,
    /// Kernels of each channel; 1 by default.
    pub depth_multiplier: usize,
    /// From one element of a window to the next; 1 by default.
    pub dilation_rate: [usize; R],
    /// Applied to the sum; linear by default.
    pub activation: Activation,
    /// Whether there is a bias; true by default.
    pub use_bias: bool,
    /// Glorot's uniform by default.
    pub depthwise_initializer: Initializer,
    /// Zeros by default.
    pub bias_initializer: Initializer,
}

impl<const R: usize> DepthwiseConvolution<R> {
    /// A depthwise convolution with Keras' defaults; the kernel's size is one number or one for each axis.
    pub fn new(kernel_size: impl Into<Size<R>>) -> Self {
        DepthwiseConvolution {
            kernel_size: kernel_size.into().0,
            strides: [1; R],
            padding: Padding::Valid,
            depth_multiplier: 1,
            dilation_rate: [1; R],
            activation: Activation::default(),
            use_bias: true,
            depthwise_initializer: Initializer::GlorotUniform,
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Sets the number of kernels of each channel.
    pub fn depth_multiplier(mut self, depth_multiplier: usize) -> Self {
        self.depth_multiplier = depth_multiplier;
        self
    }

    fn options(&self, shape: &Shape) -> Result<(Conv, usize)> {
        positive(self.kind(), &[("depth_multiplier", &[self.depth_multiplier])])?;
        options(self.kind(), shape, [self.kernel_size, self.strides, self.dilation_rate], &self.padding)
    }
}

setters!(DepthwiseConvolution: depthwise_initializer "kernel", bias_initializer "bias");

impl<const R: usize> Layer for DepthwiseConvolution<R> {
    fn kind(&self) -> &str {
        named::<R>("depthwise_conv1d", "depthwise_conv2d")
    }

    fn type_name(&self) -> &'static str {
        named::<R>("DepthwiseConv1D", "DepthwiseConv2D")
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let (_, channels) = self.options(&inputs[0].shape)?;
        let shape = [&self.kernel_size[..], &[channels, self.depth_multiplier]].concat();
        let kernel = Variable::weight("kernel", shape, self.depthwise_initializer.clone());
        let bias = Variable::weight("bias", [channels * self.depth_multiplier], self.bias_initializer.clone());
        Ok(if self.use_bias { vec![kernel, bias] } else { vec![kernel] })
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let y = match x.ok().and_then(|x| self.options(&x.shape())) {
            Ok((options, _)) => images::<R>(x).depthwise_conv2d(&kernel::<R>(context, 0), &options),
            Err(error) => return Tensor::poisoned(error),
        };
        finish::<R>(y, self.use_bias.then(|| context.weight(1)), &self.activation)
    }
}

/// A depthwise convolution, then a product over the channels of each pixel. Variables: `depthwise_kernel
/// [..kernel_size, channels, depth_multiplier]`, `pointwise_kernel [1, .., channels * depth_multiplier, filters]`,
/// `bias [filters]`.
#[derive(Clone, Debug)]
pub struct SeparableConvolution<const R: usize> {
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
    /// Kernels of each channel in the first part; 1 by default.
    pub depth_multiplier: usize,
    /// Applied to the sum; linear by default.
    pub activation: Activation,
    /// Whether there is a bias, behind the second part; true by default.
    pub use_bias: bool,
    /// Glorot's uniform by default.
    pub depthwise_initializer: Initializer,
    /// Glorot's uniform by default.
    pub pointwise_initializer: Initializer,
    /// Zeros by default.
    pub bias_initializer: Initializer,
}

impl<const R: usize> SeparableConvolution<R> {
    /// A separable convolution with Keras' defaults; the kernel's size is one number or one for each axis.
    pub fn new(filters: usize, kernel_size: impl Into<Size<R>>) -> Self {
        SeparableConvolution {
            filters,
            kernel_size: kernel_size.into().0,
            strides: [1; R],
            padding: Padding::Valid,
            dilation_rate: [1; R],
            depth_multiplier: 1,
            activation: Activation::default(),
            use_bias: true,
            depthwise_initializer: Initializer::GlorotUniform,
            pointwise_initializer: Initializer::GlorotUniform,
            bias_initializer: Initializer::Zeros,
        }
    }

    /// Sets the number of kernels of each channel in the first part.
    pub fn depth_multiplier(mut self, depth_multiplier: usize) -> Self {
        self.depth_multiplier = depth_multiplier;
        self
    }

    fn options(&self, shape: &Shape) -> Result<(Conv, usize)> {
        positive(self.kind(), &[("filters", &[self.filters]), ("depth_multiplier", &[self.depth_multiplier])])?;
        options(self.kind(), shape, [self.kernel_size, self.strides, self.dilation_rate], &self.padding)
    }
}

setters!(
    SeparableConvolution: depthwise_initializer "first kernel",
    pointwise_initializer "second kernel",
    bias_initializer "bias"
);

impl<const R: usize> Layer for SeparableConvolution<R> {
    fn kind(&self) -> &str {
        named::<R>("separable_conv1d", "separable_conv2d")
    }

    fn type_name(&self) -> &'static str {
        named::<R>("SeparableConv1D", "SeparableConv2D")
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        let (_, channels) = self.options(&inputs[0].shape)?;
        let depthwise = [&self.kernel_size[..], &[channels, self.depth_multiplier]].concat();
        let pointwise = [&[1; R][..], &[channels * self.depth_multiplier, self.filters]].concat();
        let mut variables = vec![
            Variable::weight("depthwise_kernel", depthwise, self.depthwise_initializer.clone()),
            Variable::weight("pointwise_kernel", pointwise, self.pointwise_initializer.clone()),
        ];
        if self.use_bias {
            variables.push(Variable::weight("bias", [self.filters], self.bias_initializer.clone()));
        }
        Ok(variables)
    }

    fn call(&self, inputs: &[Tensor], context: &mut Context) -> Tensor {
        let x = &inputs[0];
        let y = match x.ok().and_then(|x| self.options(&x.shape())) {
            Ok((options, _)) => images::<R>(x).depthwise_conv2d(&kernel::<R>(context, 0), &options),
            Err(error) => return Tensor::poisoned(error),
        };
        let y = y.conv2d(&kernel::<R>(context, 1), &Conv::default());
        finish::<R>(y, self.use_bias.then(|| context.weight(2)), &self.activation)
    }
}

/// The op's options for an input of this shape, and its channels.
fn options<const R: usize>(
    kind: &str,
    shape: &Shape,
    [kernel_size, strides, dilation_rate]: [[usize; R]; 3],
    padding: &Padding,
) -> Result<(Conv, usize)> {
    let (_, channels) = spatial::<R>(kind, shape)?;
    let sizes = [("kernel_size", &kernel_size[..]), ("strides", &strides), ("dilation_rate", &dilation_rate)];
    positive(kind, &sizes)?;
    padding.among(&EITHER)?;
    let window = window(kind, shape, [kernel_size, strides, dilation_rate], padding)?;
    let (stride, dilation, padding) = (window.stride, window.dilation, window.padding);
    Ok((Conv { stride, dilation, padding, groups: 1 }, channels))
}
