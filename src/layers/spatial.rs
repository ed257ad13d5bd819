//! What layers of windows share: sizes for each axis, padding by name, and the checks of what they are given.
//!
//! A layer of rank 1 is one of rank 2 over images of height 1, so that there is one form of each op. `R` is that rank.
//! Deliberately absent: channels first (images are `[batch, height, width, channels]`, sequences `[batch, steps,
//! channels]`) and a rank of 3.

use crate::choice::plain;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Tensor, here};
use crate::ops::{self, Window};
use crate::shape::Shape;

/// A number for each of `R` spatial axes; one number is for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const R: usize>(pub [usize; R]);

impl<const R: usize> From<usize> for Size<R> {
    fn from(each: usize) -> Size<R> {
        Size([each; R])
    }
}

impl<const R: usize> From<[usize; R]> for Size<R> {
    fn from(sizes: [usize; R]) -> Size<R> {
        Size(sizes)
    }
}

impl From<(usize, usize)> for Size<2> {
    fn from((height, width): (usize, usize)) -> Size<2> {
        Size([height, width])
    }
}

/// How far the windows of a layer reach beyond the edge: a name in Keras' words, or the variant.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Padding {
    /// Not at all.
    #[default]
    Valid,
    /// As far as it takes for `ceil(length / stride)` windows; where the number of pixels is odd, one more behind.
    Same,
    /// Only before the first step, so that no output sees a later input; for [`Conv1D`](super::Conv1D) alone.
    Causal,
    /// A name that no padding has: an error as soon as the layer is called.
    Unknown(String),
}

impl From<&str> for Padding {
    fn from(name: &str) -> Padding {
        match plain(name).as_str() {
            "valid" => Padding::Valid,
            "same" => Padding::Same,
            "causal" => Padding::Causal,
            _ => Padding::Unknown(name.into()),
        }
    }
}

impl Padding {
    fn name(&self) -> &str {
        match self {
            Padding::Valid => "valid",
            Padding::Same => "same",
            Padding::Causal => "causal",
            Padding::Unknown(name) => name,
        }
    }

    /// This padding if it is among `known`.
    pub(super) fn among(&self, known: &[Padding]) -> Result<&Padding> {
        if known.contains(self) {
            return Ok(self);
        }
        let name = |padding: &Padding| match padding {
            Padding::Same => "same",
            Padding::Causal => "causal",
            _ => "valid",
        };
        Err(Error::new(ErrorKind::UnknownName {
            kind: "padding",
            name: self.name().into(),
            known: known.iter().map(name).collect(),
        }))
    }
}

/// What every layer but [`Conv1D`](super::Conv1D) takes.
pub(super) const EITHER: [Padding; 2] = [Padding::Valid, Padding::Same];

/// The setters of layers with a kernel, and of the initializers named behind the layer.
macro_rules! setters {
    ($layer:ident: $($initializer:ident $what:literal),*) => {
        impl<const R: usize> $layer<R> {
            /// Sets how far it is from one window to the next: a number, or one for each axis.
            pub fn strides(mut self, strides: impl Into<Size<R>>) -> Self {
                self.strides = strides.into().0;
                self
            }

            /// Sets how far windows reach beyond the edge: a name or a [`Padding`].
            pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
                self.padding = padding.into();
                self
            }

            /// Sets how far it is from one element of the kernel to the next: a number, or one for each axis.
            pub fn dilation_rate(mut self, dilation_rate: impl Into<Size<R>>) -> Self {
                self.dilation_rate = dilation_rate.into().0;
                self
            }

            /// Sets the activation: a name or an [`Activation`].
            pub fn activation(mut self, activation: impl Into<Activation>) -> Self {
                self.activation = activation.into();
                self
            }

            /// Sets whether there is a bias.
            pub fn use_bias(mut self, use_bias: bool) -> Self {
                self.use_bias = use_bias;
                self
            }

            $(
                #[doc = concat!("Sets what the ", $what, " starts from.")]
                pub fn $initializer(mut self, initializer: impl Into<Initializer>) -> Self {
                    self.$initializer = initializer.into();
                    self
                }
            )*
        }
    };
}
pub(super) use setters;

/// The name of the rank that is given: `named::<R>("conv1d", "conv2d")`.
pub(super) const fn named<const R: usize>(one: &'static str, two: &'static str) -> &'static str {
    const { assert!(R == 1 || R == 2, "layers of windows are over one axis or two") };
    if R == 1 { one } else { two }
}

/// Lengths of the spatial axes and the number of channels.
pub(super) fn spatial<const R: usize>(kind: &str, shape: &Shape) -> Result<([usize; R], usize)> {
    if let [_, lengths @ .., channels] = shape.dims()
        && let Ok(lengths) = <[usize; R]>::try_from(lengths)
    {
        return Ok((lengths, *channels));
    }
    let takes = named::<R>("sequences [batch, steps, channels]", "images [batch, height, width, channels]");
    let why = match shape.rank() {
        rank if rank == R + 1 => format!("it takes {takes}; if there is one channel, add its axis with a Reshape"),
        _ => format!("it takes {takes}"),
    };
    Err(misfit(kind, shape, why))
}

pub(super) fn misfit(kind: &str, shape: &Shape, why: String) -> Error {
    Error::new(ErrorKind::Shape { op: kind.into(), inputs: vec![shape.clone()], why, place: here() })
}

/// An error if one of the named hyper-parameters is 0.
pub(super) fn positive(kind: &str, values: &[(&str, &[usize])]) -> Result<()> {
    match values.iter().find(|(_, values)| values.contains(&0)) {
        None => Ok(()),
        Some((name, [_])) => Err(Error::argument(format!("{kind}: {name} is 0; it must be 1 or more"))),
        Some((name, values)) => Err(Error::argument(format!("{kind}: {name} {values:?} must be 1 or more"))),
    }
}

/// For both axes of an image; a sequence is one row.
pub(super) fn planar<T: Copy, const R: usize>(values: [T; R], row: T) -> [T; 2] {
    match values[..] {
        [height, width] => [height, width],
        [width] => [row, width],
        _ => [row; 2],
    }
}

/// Where windows of such a size lie over an input of this shape, or what does not fit.
pub(super) fn window<const R: usize>(
    kind: &str,
    shape: &Shape,
    [kernel, strides, dilation]: [[usize; R]; 3],
    padding: &Padding,
) -> Result<Window> {
    let (lengths, _) = spatial::<R>(kind, shape)?;
    let extent: [usize; R] = std::array::from_fn(|axis| (kernel[axis] - 1) * dilation[axis] + 1);
    if *padding == Padding::Valid && (0..R).any(|axis| lengths[axis] < extent[axis]) {
        let dilated = if dilation == [1; R] { "" } else { ", dilation included," };
        let why = format!(
            "windows of {extent:?}{dilated} do not fit into an input of {lengths:?}; they would with padding \"same\""
        );
        return Err(misfit(kind, shape, why));
    }
    let padding = match padding {
        Padding::Same => ops::Padding::Same,
        Padding::Causal => {
            ops::Padding::Explicit(planar(std::array::from_fn::<_, R, _>(|axis| (extent[axis] - 1, 0)), (0, 0)))
        }
        _ => ops::Padding::Valid,
    };
    Ok(Window { kernel: planar(kernel, 1), stride: planar(strides, 1), dilation: planar(dilation, 1), padding })
}

/// `[batch, steps, channels]` as images of one row; images as they are.
pub(super) fn images<const R: usize>(x: &Tensor) -> Tensor {
    if R == 1 { x.unsqueeze(1) } else { x.clone() }
}

/// The inverse of [`images`].
pub(super) fn unrow<const R: usize>(y: Tensor) -> Tensor {
    if R == 1 { y.squeeze(1) } else { y }
}

#[cfg(test)]
mod tests {
    use crate::layers::*;

    fn message(shape: &[usize], layer: impl Into<LayerRef>) -> String {
        Sequential::new(shape).add(layer).network().unwrap_err().to_string()
    }

    /// The message without the line of the call.
    fn why(shape: &[usize], layer: impl Into<LayerRef>) -> String {
        let message = message(shape, layer);
        message.split(" (at ").next().unwrap().to_string()
    }

    #[test]
    fn what_does_not_fit_names_the_layer_and_a_cure() {
        assert_eq!(
            why(&[28, 28], Conv2D::new(8, 3)),
            "conv2d: shapes [1, 28, 28] do not fit: it takes images [batch, height, width, channels]; if there is one \
             channel, add its axis with a Reshape"
        );
        assert!(message(&[28, 28], Conv2D::new(8, 3).named("stem")).contains("within stem)"));
        assert_eq!(
            why(&[8, 8, 3], GlobalAveragePooling1D::new()),
            "global_average_pooling1d: shapes [1, 8, 8, 3] do not fit: it takes sequences [batch, steps, channels]"
        );
        assert_eq!(
            why(&[4, 9, 2], Conv2D::new(8, 5)),
            "conv2d: shapes [1, 4, 9, 2] do not fit: windows of [5, 5] do not fit into an input of [4, 9]; they would \
             with padding \"same\""
        );
        assert!(why(&[4, 2], Conv1D::new(8, 3).dilation_rate(2)).contains("windows of [5], dilation included, do not"));
        assert!(why(&[1, 2], MaxPooling1D::new(2)).starts_with("max_pooling1d: shapes [1, 1, 2] do not fit: windows"));
        let groups = why(&[8, 8, 5], Conv2D::new(8, 3).groups(2));
        assert_eq!(
            groups,
            "conv2d: shapes [1, 8, 8, 5] do not fit: 5 channels of the input do not divide into 2 groups"
        );
        assert!(why(&[8, 6], Conv1D::new(4, 3).groups(3)).ends_with("4 filters do not divide into 3 groups"));
        assert!(why(&[1, 1, 6], Conv2DTranspose::new(4, 2).padding("same").output_padding(0)).contains("no element"));
    }

    #[test]
    fn hyper_parameters_that_cannot_be_are_refused() {
        let image = [8, 8, 4];
        assert_eq!(message(&image, Conv2D::new(0, 3)), "conv2d: filters is 0; it must be 1 or more");
        assert_eq!(message(&image, Conv2D::new(4, [3, 0])), "conv2d: kernel_size [3, 0] must be 1 or more");
        assert!(message(&image, Conv2D::new(4, 3).groups(0)).starts_with("conv2d: groups is 0"));
        assert!(message(&image, DepthwiseConv2D::new(3).strides(0)).starts_with("depthwise_conv2d: strides [0, 0]"));
        assert!(message(&image, SeparableConv2D::new(4, 3).depth_multiplier(0)).contains("depth_multiplier is 0"));
        assert!(message(&image, Conv2DTranspose::new(4, 3).dilation_rate(0)).contains("dilation_rate [0, 0]"));
        assert!(message(&image, AveragePooling2D::new(0)).starts_with("average_pooling2d: pool_size [0, 0]"));
        assert_eq!(
            message(&image, Conv2DTranspose::new(4, 3).strides(2).output_padding((1, 2))),
            "conv2d_transpose: output_padding 2 must be less than the stride 2"
        );
    }

    #[test]
    fn padding_has_the_names_that_the_layer_takes() {
        let unknown = |shape: &[usize], layer: LayerRef| message(shape, layer);
        let either = "; known: valid, same";
        let conv = unknown(&[8, 8, 4], Conv2D::new(4, 3).padding("smae").shared());
        assert!(conv.starts_with("unknown padding \"smae\"") && conv.ends_with(either), "{conv}");
        let causal = unknown(&[8, 8, 4], Conv2D::new(4, 3).padding("causal").shared());
        assert!(causal.starts_with("unknown padding \"causal\"") && causal.ends_with(either), "{causal}");
        let line = unknown(&[8, 4], Conv1D::new(4, 3).padding("full").shared());
        assert!(line.ends_with("; known: valid, same, causal"), "{line}");
        assert!(unknown(&[8, 4], MaxPooling1D::new(2).padding("causal").shared()).ends_with(either));
        assert!(unknown(&[8, 4], Conv1DTranspose::new(2, 2).padding("causal").shared()).ends_with(either));
        assert!(unknown(&[8, 4], DepthwiseConv1D::new(2).padding("causal").shared()).ends_with(either));
    }

    #[test]
    fn shapes_and_names_follow_the_rank() {
        let network = Sequential::new([32, 32, 3])
            .add(Conv2D::new(8, 3).padding("same"))
            .add(MaxPooling2D::default())
            .add(SeparableConv2D::new(16, 3))
            .add(Conv2DTranspose::new(4, 3).strides(2).padding("same"))
            .add(GlobalMaxPooling2D::new().keepdims(true))
            .network()
            .unwrap();
        let names: Vec<_> = network.variables().iter().map(|v| v.name.as_str()).collect();
        let expected = [
            "conv2d/kernel",
            "conv2d/bias",
            "separable_conv2d/depthwise_kernel",
            "separable_conv2d/pointwise_kernel",
            "separable_conv2d/bias",
            "conv2d_transpose/kernel",
            "conv2d_transpose/bias",
        ];
        assert_eq!(names, expected);
        assert_eq!(network.output_shapes(), [[1, 1, 4].into()]);
        assert!(network.summary().contains("conv2d_transpose (Conv2DTranspose)"), "{}", network.summary());
    }
}
