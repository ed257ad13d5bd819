//! Windows over images as an op, and where they lie.
//!
//! [`Tensor::windows`] is what convolution and pooling are made of. It costs nothing by itself: products and folds read
//! the windows where the image lies (see [`Windows`]).

use std::borrow::Cow;

use super::Example;
use crate::dtype::DType;
use crate::graph::{Derivative, Lowering, Misfit, Primitive, Spec, Tensor, Through, Windows};

/// How far windows reach beyond the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Padding {
    /// Not at all.
    #[default]
    Valid,
    /// As far as it takes to have `ceil(length / stride)` windows; the larger half behind, as in TensorFlow and Keras.
    Same,
    /// So many pixels before and after, for height and width.
    Explicit([(usize, usize); 2]),
}

/// Windows of one size at regular steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width in elements.
    pub kernel: [usize; 2],
    /// Pixels from one window to the next.
    pub stride: [usize; 2],
    /// Pixels from one element to the next.
    pub dilation: [usize; 2],
    /// What lies beyond the edge.
    pub padding: Padding,
}

impl Default for Window {
    fn default() -> Window {
        Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: Padding::Valid }
    }
}

impl Window {
    /// The windows over images of `[.., h, w, c]`, or what is wrong.
    pub fn over(&self, image: [usize; 2], channels: usize) -> Result<Windows, String> {
        let Window { kernel, stride, dilation, .. } = *self;
        for (name, value) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            if value.contains(&0) {
                return Err(format!("the {name} {value:?} must be 1 at least"));
            }
        }
        let extent = [0, 1].map(|axis| (kernel[axis] - 1) * dilation[axis] + 1);
        let padding = match self.padding {
            Padding::Valid => [(0, 0); 2],
            Padding::Explicit(padding) => padding,
            Padding::Same => [0, 1].map(|axis| {
                let count = image[axis].div_ceil(stride[axis]).max(1);
                let all = ((count - 1) * stride[axis] + extent[axis]).saturating_sub(image[axis]);
                (all / 2, all - all / 2)
            }),
        };
        let padded = [0, 1].map(|axis| image[axis] + padding[axis].0 + padding[axis].1);
        if (0..2).any(|axis| padded[axis] < extent[axis]) {
            return Err(format!(
                "windows of {extent:?} pixels do not fit into images of {padded:?} (padding included)"
            ));
        }
        let count = [0, 1].map(|axis| (padded[axis] - extent[axis]) / stride[axis] + 1);
        let before = padding.map(|(before, _)| before as isize);
        Ok(Windows { image, channels, kernel, stride, dilation, before, count, outside: 0 })
    }
}

impl Tensor {
    /// Sliding windows, `[n, h, w, c]` to `[n, rows, columns, kernel h, kernel w, c]`; what lies outside the image is
    /// zero.
    ///
    /// Poisoned unless the tensor has four axes and the windows fit.
    #[track_caller]
    pub fn windows(&self, window: &Window) -> Tensor {
        match self.windows_of(window) {
            Ok(windows) => self.cut(windows),
            Err(why) => self.misfit("windows", why),
        }
    }

    /// Where the windows lie over this tensor.
    pub(super) fn windows_of(&self, window: &Window) -> Result<Windows, String> {
        match self.shape()[..] {
            [_, h, w, c] => window.over([h, w], c),
            _ => Err("images are [n, h, w, c]".into()),
        }
    }

    #[track_caller]
    pub(super) fn cut(&self, windows: Windows) -> Tensor {
        Tensor::apply(Windowed(windows, Through::Cut), &[self])
    }

    /// For each pixel the sum of what the windows that cover it hold there: `[n, rows, columns, kh, kw, c]` to
    /// `[n, h, w, c]`, the adjoint of `cut`.
    #[track_caller]
    pub(super) fn overlap(&self, windows: Windows) -> Tensor {
        match windows.are_apart() {
            true => Tensor::apply(Windowed(windows, Through::Cover), &[self]),
            false => Tensor::apply(Windowed(windows, Through::Lay), &[self]).sum([3, 4]),
        }
    }
}

/// Reading through windows.
#[derive(Debug)]
struct Windowed(Windows, Through);

impl Primitive for Windowed {
    fn name(&self) -> &str {
        match self.1 {
            Through::Cut => "windows",
            Through::Pick => "pick_windows",
            Through::Lay => "lay_windows",
            Through::Cover => "cover",
        }
    }

    fn attributes(&self) -> Cow<'_, str> {
        format!("{:?}", self.0).into()
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        let Windows { image, channels, kernel, count, .. } = self.0;
        let shape = &inputs[0].shape;
        let n = shape.first().copied().unwrap_or(0);
        let images = [&[n], &image[..], &[channels]].concat();
        let picks = [&[n], &image[..], &kernel[..], &[channels]].concat();
        let windows = [&[n], &count[..], &kernel[..], &[channels]].concat();
        let (source, result) = match self.1 {
            Through::Cut => (images, windows),
            Through::Pick => (picks, windows),
            Through::Lay => (windows, picks),
            Through::Cover => (windows, images),
        };
        if shape[..] != source[..] {
            return Err(Misfit::Shape(format!("it takes {source:?}")));
        }
        Ok(vec![Spec::new(result, inputs[0].dtype)])
    }

    fn vjp(&self, _: &[Tensor], _: &[Tensor], cotangents: &[Option<Tensor>]) -> Derivative {
        let Some(g) = &cotangents[0] else { return Derivative::Zero };
        // What lies outside is a constant; its derivative is zero whatever it was.
        let windows = Windows { outside: 0, ..self.0 };
        Derivative::Vjp(vec![Some(match self.1 {
            Through::Cut => g.overlap(windows),
            Through::Pick => Tensor::apply(Windowed(windows, Through::Lay), &[g]),
            Through::Lay => Tensor::apply(Windowed(windows, Through::Pick), &[g]),
            Through::Cover => g.cut(windows),
        })])
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        vec![Lowering::Window(self.0, self.1)]
    }

    #[cfg(feature = "reference")]
    fn reference(
        &self,
        inputs: &[crate::graph::interpret::Array],
        outputs: &[Spec],
    ) -> Vec<crate::graph::interpret::Array> {
        let shape = outputs[0].shape.clone();
        let outside = f64::from(f32::from_bits(self.0.outside));
        let at = |i: usize| self.0.source(self.1, i).map_or(outside, |source| inputs[0].data[source]);
        vec![crate::graph::interpret::Array { data: (0..shape.numel()).map(at).collect(), shape }]
    }
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-2.0, 2.0);
    let f = DType::F32;
    const PLAIN: Window = Window { kernel: [2, 3], stride: [1, 1], dilation: [1, 1], padding: Padding::Valid };
    const STEPS: Window = Window { kernel: [3, 2], stride: [2, 3], dilation: [1, 2], padding: Padding::Same };
    const APART: Window =
        Window { kernel: [2, 1], stride: [3, 2], dilation: [1, 1], padding: Padding::Explicit([(1, 0), (0, 1)]) };
    vec![
        Example::new("windows", &[(&[2, 4, 5, 3], f, D)], |x| x[0].windows(&PLAIN)),
        Example::new("windows of quads", &[(&[2, 4, 5, 4], f, D)], |x| x[0].windows(&PLAIN)),
        Example::new("windows in steps", &[(&[2, 5, 7, 4], f, D)], |x| x[0].windows(&STEPS)),
        Example::new("windows of indices", &[(&[1, 4, 4, 2], DType::I32, D)], |x| x[0].windows(&STEPS)),
        Example::new("cover", &[(&[1, 3, 3, 2, 1, 3], f, D)], |x| match APART.over([7, 5], 3) {
            Ok(windows) => x[0].overlap(windows),
            Err(_) => x[0].clone(),
        }),
        Example::new("overlap", &[(&[2, 3, 3, 2, 3, 4], f, D)], |x| match PLAIN.over([4, 5], 4) {
            Ok(windows) => x[0].overlap(windows),
            Err(_) => x[0].clone(),
        }),
        Example::new("overlap in steps", &[(&[1, 3, 3, 3, 2, 3], f, D)], |x| match STEPS.over([5, 7], 3) {
            Ok(windows) => x[0].overlap(windows),
            Err(_) => x[0].clone(),
        }),
    ]
}
