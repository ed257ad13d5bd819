//! Convolution: a matrix product over windows that are never written, and its two adjoints.
//!
//! With `X` the matrix of windows (one row a window, one column an element), `y = X k`, the kernel's gradient is
//! `X^T g`, and the image's is another convolution: of `g` with the kernel turned round, where windows move by single
//! pixels, else the sum of what the windows `g k^T` cover. The three are linear in each operand and closed under
//! differentiation, so second derivatives are products over windows too. All of them read windows through the load
//! functions of the product kernels (implicit GEMM). Deliberately absent: a direct kernel, except that one of a single
//! channel each (depthwise) has no product to be made of and is a fold.

use super::Example;
use super::window::{Padding, Window};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind};
use crate::grad::custom_vjp;
use crate::graph::{Tensor, Windows, here};

/// Options of a convolution; the kernel's size is that of its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Pixels from one window to the next.
    pub stride: [usize; 2],
    /// Pixels from one element of the kernel to the next.
    pub dilation: [usize; 2],
    /// What lies beyond the edge; zeros.
    pub padding: Padding,
    /// Channels fall into so many groups that do not see each other.
    pub groups: usize,
}

impl Default for Conv {
    fn default() -> Conv {
        Conv { stride: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 }
    }
}

impl Conv {
    fn window(&self, kernel: [usize; 2]) -> Window {
        Window { kernel, stride: self.stride, dilation: self.dilation, padding: self.padding }
    }
}

impl Tensor {
    /// Cross-correlation of images `[n, h, w, c]` with a kernel `[kh, kw, c / groups, filters]` to
    /// `[n, rows, columns, filters]`, f32.
    ///
    /// Poisoned where ranks, channels or groups do not fit, or the windows not into the image.
    #[track_caller]
    pub fn conv2d(&self, kernel: &Tensor, options: &Conv) -> Tensor {
        if let Some(failed) = [self, kernel].into_iter().find(|x| x.error().is_some()) {
            return failed.clone();
        }
        let fail = |why: String| misfit("conv2d", self, kernel, why);
        let ([n, h, w, c], [kh, kw, each, filters]) = (&self.shape()[..], &kernel.shape()[..]) else {
            return fail("images are [n, h, w, c] and kernels [kh, kw, c / groups, filters]".into());
        };
        let (n, c, each, filters, groups) = (*n, *c, *each, *filters, options.groups);
        if groups == 0 || each * groups != c || filters % groups != 0 {
            return fail(format!(
                "{c} channels in {groups} groups to {filters} filters need a kernel [kh, kw, c / groups, filters]"
            ));
        }
        let window = options.window([*kh, *kw]);
        let windows = match window.over([*h, *w], each) {
            Ok(windows) => windows,
            Err(why) => return fail(why),
        };
        if groups == 1 {
            return correlate(self, kernel, windows);
        }
        if each == 1 {
            return self.depthwise(kernel, groups, Windows { channels: c, ..windows });
        }
        // One product for each group, over the images of its channels.
        let images = self.reshape([n, *h, *w, groups, each]).permute([3, 0, 1, 2, 4]);
        let kernels = kernel.reshape([*kh, *kw, each, groups, filters / groups]).permute([3, 0, 1, 2, 4]);
        let products: Vec<Tensor> = (0..groups)
            .map(|group| {
                let image = images.slice(0, group..group + 1).reshape([n, *h, *w, each]);
                correlate(&image, &kernels.slice(0, group..group + 1).squeeze(0), windows)
            })
            .collect();
        super::concat(&products.iter().collect::<Vec<_>>(), -1)
    }

    /// Each channel with kernels of its own: images `[n, h, w, c]`, kernel `[kh, kw, c, multiplier]` to
    /// `[n, rows, columns, c * multiplier]`, f32. `groups` is not used.
    ///
    /// Poisoned where ranks or channels do not fit, or the windows not into the image.
    #[track_caller]
    pub fn depthwise_conv2d(&self, kernel: &Tensor, options: &Conv) -> Tensor {
        if let Some(failed) = [self, kernel].into_iter().find(|x| x.error().is_some()) {
            return failed.clone();
        }
        let fail = |why: String| misfit("depthwise_conv2d", self, kernel, why);
        match (&self.shape()[..], &kernel.shape()[..]) {
            (&[_, h, w, c], &[kh, kw, channels, _]) if c == channels => {
                match options.window([kh, kw]).over([h, w], c) {
                    Ok(windows) => self.depthwise(kernel, c, windows),
                    Err(why) => fail(why),
                }
            }
            _ => fail("images are [n, h, w, c] and kernels [kh, kw, c, multiplier]".into()),
        }
    }

    /// `kernel` has `channels * multiplier` filters behind `[kh, kw]`, those of a channel side by side.
    #[track_caller]
    fn depthwise(&self, kernel: &Tensor, channels: usize, windows: Windows) -> Tensor {
        let (n, [rows, columns]) = (self.dim(0), windows.count);
        let elements = windows.kernel[0] * windows.kernel[1];
        let filters = kernel.shape().numel() / (elements * channels).max(1);
        let cut = self.cut(windows).reshape([n * rows * columns, elements, channels, 1]);
        let product = cut * kernel.reshape([1, elements, channels, filters]);
        product.sum(1).reshape([n, rows, columns, channels * filters])
    }

    /// The transposed convolution: the image whose convolution this could be. Images `[n, h, w, c]`, kernel
    /// `[kh, kw, filters, c]` to `[n, rows, columns, filters]`, where `size` is `[rows, columns]`; the convolution of
    /// such an image with `options` must have h x w windows. f32, one group.
    ///
    /// Poisoned where ranks, channels or sizes do not fit.
    #[track_caller]
    pub fn conv2d_transpose(&self, kernel: &Tensor, size: [usize; 2], options: &Conv) -> Tensor {
        if let Some(failed) = [self, kernel].into_iter().find(|x| x.error().is_some()) {
            return failed.clone();
        }
        let fail = |why: String| misfit("conv2d_transpose", self, kernel, why);
        let (&[_, h, w, c], &[kh, kw, filters, channels]) = (&self.shape()[..], &kernel.shape()[..]) else {
            return fail("images are [n, h, w, c] and kernels [kh, kw, filters, c]".into());
        };
        if c != channels || options.groups != 1 {
            return fail(format!("{c} channels need a kernel [kh, kw, filters, {c}], in one group"));
        }
        match options.window([kh, kw]).over(size, filters) {
            Ok(windows) if windows.count == [h, w] => spread(self, kernel, windows),
            Ok(windows) => fail(format!("an image of {size:?} has {:?} windows, not [{h}, {w}]", windows.count)),
            Err(why) => fail(why),
        }
    }
}

#[track_caller]
fn misfit(op: &str, image: &Tensor, kernel: &Tensor, why: String) -> Tensor {
    Tensor::poisoned(Error::new(ErrorKind::Shape {
        op: op.into(),
        inputs: vec![image.shape(), kernel.shape()],
        why,
        place: here(),
    }))
}

/// The windows of `[n, h, w, c]` as the rows of a matrix.
#[track_caller]
fn rows(x: &Tensor, windows: Windows) -> Tensor {
    let count = x.dim(0) * windows.count[0] * windows.count[1];
    // Windows of one pixel that leave none out are the pixels.
    let pixels = windows.kernel == [1, 1] && windows.count == windows.image && windows.before == [0, 0];
    if pixels { x.reshape([count, windows.channels]) } else { x.cut(windows).reshape([count, windows.elements()]) }
}

/// `y = X k`: images `[n, h, w, c]`, kernel `[kh, kw, c, o]`, result `[n, rows, columns, o]`.
#[track_caller]
fn correlate(x: &Tensor, kernel: &Tensor, windows: Windows) -> Tensor {
    let filters = kernel.dim(3);
    let matrix = kernel.reshape([windows.elements(), filters]);
    let y = rows(x, windows).matmul(&matrix).reshape([x.dim(0), windows.count[0], windows.count[1], filters]);
    custom_vjp(&y, &[x, kernel], move |inputs, g| {
        vec![spread(g, &inputs[1], windows), correlate_kernel(&inputs[0], g, windows)]
    })
}

/// The adjoint of [`correlate`] in the image: `[n, rows, columns, o]` to `[n, h, w, c]`.
#[track_caller]
fn spread(g: &Tensor, kernel: &Tensor, windows: Windows) -> Tensor {
    let [n, rows, columns, filters] = [0, 1, 2, 3].map(|axis| g.dim(axis));
    let x = if windows.stride == [1, 1] {
        let turned = kernel.flip(0).flip(1).permute([0, 1, 3, 2]);
        let before =
            [0, 1].map(|axis| (windows.dilation[axis] * (windows.kernel[axis] - 1)) as isize - windows.before[axis]);
        let back = Windows { image: windows.count, channels: filters, before, count: windows.image, ..windows };
        let matrix = turned.reshape([back.elements(), windows.channels]);
        self::rows(g, back).matmul(&matrix).reshape([n, windows.image[0], windows.image[1], windows.channels])
    } else {
        let matrix = kernel.reshape([windows.elements(), filters]);
        let [kh, kw] = windows.kernel;
        let covered = g.reshape([n * rows * columns, filters]).matmul(&matrix.t());
        covered.reshape([n, rows, columns, kh, kw, windows.channels]).overlap(windows)
    };
    custom_vjp(&x, &[g, kernel], move |inputs, h| {
        vec![correlate(h, &inputs[1], windows), correlate_kernel(h, &inputs[0], windows)]
    })
}

/// The adjoint of [`correlate`] in the kernel, `X^T g`: `[kh, kw, c, o]`.
#[track_caller]
fn correlate_kernel(x: &Tensor, g: &Tensor, windows: Windows) -> Tensor {
    let filters = g.dim(3);
    let [kh, kw] = windows.kernel;
    let columns = g.reshape([g.dim(0) * g.dim(1) * g.dim(2), filters]);
    let kernel = rows(x, windows).t().matmul(&columns).reshape([kh, kw, windows.channels, filters]);
    custom_vjp(&kernel, &[x, g], move |inputs, h| {
        vec![spread(&inputs[1], h, windows), correlate(&inputs[0], h, windows)]
    })
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-1.0, 1.0);
    const PLAIN: Conv = Conv { stride: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 };
    const SAME: Conv = Conv { padding: Padding::Same, ..PLAIN };
    const STEPS: Conv = Conv { stride: [2, 2], padding: Padding::Same, ..PLAIN };
    const HOLES: Conv = Conv { dilation: [2, 1], padding: Padding::Explicit([(3, 1), (0, 2)]), ..PLAIN };
    const SKIPS: Conv = Conv { stride: [2, 3], ..PLAIN };
    const PAIRS: Conv = Conv { groups: 2, ..SAME };
    const APART: Conv = Conv { groups: 3, stride: [2, 1], ..SAME };
    let f = DType::F32;
    let conv = |name: &str, x: &[usize], k: &[usize], apply: fn(&[Tensor]) -> Tensor| {
        Example::new(name, &[(x, f, D), (k, f, D)], apply)
    };
    vec![
        conv("conv2d", &[2, 5, 6, 3], &[3, 3, 3, 5], |x| x[0].conv2d(&x[1], &PLAIN)),
        conv("conv2d of quads", &[2, 6, 5, 4], &[3, 3, 4, 8], |x| x[0].conv2d(&x[1], &PLAIN)),
        conv("conv2d same", &[2, 5, 4, 4], &[3, 2, 4, 4], |x| x[0].conv2d(&x[1], &SAME)),
        conv("conv2d strided", &[1, 7, 6, 4], &[3, 3, 4, 3], |x| x[0].conv2d(&x[1], &STEPS)),
        conv("conv2d dilated", &[1, 5, 4, 2], &[3, 2, 2, 4], |x| x[0].conv2d(&x[1], &HOLES)),
        conv("conv2d skipping", &[2, 5, 7, 1], &[1, 2, 1, 4], |x| x[0].conv2d(&x[1], &SKIPS)),
        conv("conv2d of pixels", &[2, 3, 4, 4], &[1, 1, 4, 6], |x| x[0].conv2d(&x[1], &PLAIN)),
        conv("conv2d in groups", &[1, 4, 4, 4], &[3, 3, 2, 6], |x| x[0].conv2d(&x[1], &PAIRS)),
        conv("conv2d apart", &[1, 4, 4, 3], &[2, 2, 1, 6], |x| x[0].conv2d(&x[1], &APART)),
        conv("depthwise_conv2d", &[2, 5, 4, 4], &[3, 3, 4, 1], |x| x[0].depthwise_conv2d(&x[1], &SAME)),
        conv("depthwise_conv2d doubled", &[1, 5, 5, 3], &[3, 3, 3, 2], |x| x[0].depthwise_conv2d(&x[1], &SKIPS)),
        conv("conv2d_transpose", &[2, 3, 3, 4], &[3, 3, 2, 4], |x| x[0].conv2d_transpose(&x[1], [5, 5], &PLAIN)),
        conv("conv2d_transpose strided", &[1, 3, 2, 4], &[3, 3, 4, 4], |x| {
            x[0].conv2d_transpose(&x[1], [6, 4], &STEPS)
        }),
    ]
}
