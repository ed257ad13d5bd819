//! Pooling: the largest or the mean element of each window.
//!
//! Both are folds over windows. Maximum pooling has an explicit adjoint: the cotangent of a window goes to the first of
//! its largest elements, as in Keras on every backend, where that of a plain maximum is shared between equals. A mean
//! leaves out what lies beyond the edge.

use super::Example;
use super::window::{Padding, Window};
use crate::dtype::DType;
use crate::grad::custom_vjp;
use crate::graph::{Tensor, Windows};

impl Tensor {
    /// The largest element of each window and channel, `[n, h, w, c]` to `[n, rows, columns, c]`, f32. A window that
    /// holds NaN gives NaN.
    ///
    /// Poisoned unless the tensor has four axes and the windows fit.
    #[track_caller]
    pub fn max_pool2d(&self, window: &Window) -> Tensor {
        // Beyond the edge lies what every element is larger than.
        let windows = match self.windows_of(window) {
            Ok(windows) => Windows { outside: f32::MIN.to_bits(), ..windows },
            Err(why) => return self.misfit("max_pool2d", why),
        };
        if self.error().is_none() && self.dtype() != DType::F32 {
            return self.misfit("max_pool2d", "it takes f32".into());
        }
        let y = elements(&self.cut(windows), windows).max(3);
        custom_vjp(&y, &[self], move |inputs, g| {
            let cut = elements(&inputs[0].cut(windows), windows);
            let first = cut.argmax(3).unsqueeze(3);
            let element = Tensor::iota(cut.shape(), 3).cast(DType::I32);
            let [n, rows, columns, c] = [0, 1, 2, 4].map(|axis| cut.dim(axis));
            let covered = element.eq(first).select(g.unsqueeze(3), 0.0);
            let covered = covered.reshape([n, rows, columns, windows.kernel[0], windows.kernel[1], c]);
            vec![covered.overlap(Windows { outside: 0, ..windows })]
        })
    }

    /// The mean of each window and channel, of its elements within the image; `[n, h, w, c]` to
    /// `[n, rows, columns, c]`, f32.
    ///
    /// Poisoned unless the tensor has four axes and the windows fit.
    #[track_caller]
    pub fn avg_pool2d(&self, window: &Window) -> Tensor {
        let windows = match self.windows_of(window) {
            Ok(windows) => windows,
            Err(why) => return self.misfit("avg_pool2d", why),
        };
        let sum = elements(&self.cut(windows), windows).sum(3);
        if !(0..2).any(|axis| windows.overhangs(axis)) {
            return sum / (windows.kernel[0] * windows.kernel[1]) as f64;
        }
        let [h, w] = windows.image;
        let one = Tensor::ones([1, h, w, 1]);
        sum / elements(&one.cut(Windows { channels: 1, ..windows }), windows).sum(3)
    }
}

/// `[n, rows, columns, kh, kw, c]` with the elements of a window on one axis.
#[track_caller]
fn elements(cut: &Tensor, windows: Windows) -> Tensor {
    let [n, rows, columns, c] = [0, 1, 2, 5].map(|axis| cut.dim(axis));
    cut.reshape([n, rows, columns, windows.kernel[0] * windows.kernel[1], c])
}

pub(super) fn examples() -> Vec<Example> {
    const D: (f64, f64) = (-2.0, 2.0);
    const PLAIN: Window = Window { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: Padding::Valid };
    const SAME: Window = Window { kernel: [3, 2], stride: [2, 1], dilation: [1, 1], padding: Padding::Same };
    let pool =
        |name: &str, x: &[usize], apply: fn(&[Tensor]) -> Tensor| Example::new(name, &[(x, DType::F32, D)], apply);
    vec![
        pool("max_pool2d", &[2, 5, 6, 4], |x| x[0].max_pool2d(&PLAIN)),
        pool("max_pool2d same", &[2, 5, 4, 3], |x| x[0].max_pool2d(&SAME)),
        pool("avg_pool2d", &[2, 4, 6, 4], |x| x[0].avg_pool2d(&PLAIN)),
        pool("avg_pool2d same", &[2, 5, 4, 3], |x| x[0].avg_pool2d(&SAME)),
    ]
}
