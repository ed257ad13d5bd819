//! Layers that move the pixels of images: [`ZeroPadding2D`], [`Cropping2D`], [`UpSampling2D`].
//!
//! All are views or expressions of views, so they fuse into what reads them. Images are `[batch, height, width,
//! channels]`, or `[batch, channels, height, width]` with `channels_first`.

use super::check::{invalid, misfit, rank};
use super::{Context, Layer, Variable};
use crate::error::Result;
use crate::graph::{Spec, Tensor};
use crate::ops;

const FORM: &str = "images, [batch, height, width, channels] or channels first";

/// The axes of height and width.
fn spatial(channels_first: bool) -> [usize; 2] {
    if channels_first { [2, 3] } else { [1, 2] }
}

/// Zeros around images.
#[derive(Clone, Debug)]
pub struct ZeroPadding2D {
    /// `[(top, bottom), (left, right)]`, all 1 by default.
    pub padding: [(usize, usize); 2],
    /// Whether channels come before height and width.
    pub channels_first: bool,
}

impl Default for ZeroPadding2D {
    fn default() -> ZeroPadding2D {
        ZeroPadding2D::new([(1, 1); 2])
    }
}

impl ZeroPadding2D {
    /// `[(top, bottom), (left, right)]` zeros.
    pub fn new(padding: [(usize, usize); 2]) -> ZeroPadding2D {
        ZeroPadding2D { padding, channels_first: false }
    }
}

impl Layer for ZeroPadding2D {
    fn kind(&self) -> &str {
        "zero_padding2d"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        rank(self.kind(), inputs, 4, FORM).map(|()| Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let mut widths = vec![(0, 0); inputs[0].rank()];
        for (axis, width) in spatial(self.channels_first).into_iter().zip(self.padding) {
            if let Some(at) = widths.get_mut(axis) {
                *at = width;
            }
        }
        inputs[0].pad(&widths)
    }
}

/// Images without their edges.
#[derive(Clone, Debug, Default)]
pub struct Cropping2D {
    /// `[(top, bottom), (left, right)]`, none by default.
    pub cropping: [(usize, usize); 2],
    /// Whether channels come before height and width.
    pub channels_first: bool,
}

impl Cropping2D {
    /// Without `[(top, bottom), (left, right)]` pixels.
    pub fn new(cropping: [(usize, usize); 2]) -> Cropping2D {
        Cropping2D { cropping, channels_first: false }
    }
}

impl Layer for Cropping2D {
    fn kind(&self) -> &str {
        "cropping2d"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        rank(self.kind(), inputs, 4, FORM)?;
        for (axis, (before, after)) in spatial(self.channels_first).into_iter().zip(self.cropping) {
            if before.saturating_add(after) >= inputs[0].shape[axis] {
                let why = format!("cropping {before} and {after} leaves nothing of axis {axis}");
                return Err(misfit(self.kind(), inputs, why));
            }
        }
        Ok(Vec::new())
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let crop = |x: Tensor, (axis, (before, after)): (usize, (usize, usize))| {
            x.slice(axis as i32, before..x.dim(axis).saturating_sub(after))
        };
        spatial(self.channels_first).into_iter().zip(self.cropping).fold(inputs[0].clone(), crop)
    }
}

/// How [`UpSampling2D`] fills in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// Each pixel repeated.
    #[default]
    Nearest,
    /// Linear between the centres of the nearest pixels in both directions, constant beyond the outermost centres.
    Bilinear,
}

/// Images enlarged by whole factors.
#[derive(Clone, Debug)]
pub struct UpSampling2D {
    /// Factors of height and width, 2 by default.
    pub size: [usize; 2],
    /// Nearest by default.
    pub interpolation: Interpolation,
    /// Whether channels come before height and width.
    pub channels_first: bool,
}

impl Default for UpSampling2D {
    fn default() -> UpSampling2D {
        UpSampling2D::new([2, 2])
    }
}

impl UpSampling2D {
    /// Enlarged by `[height, width]` factors, with repeated pixels.
    pub fn new(size: [usize; 2]) -> UpSampling2D {
        UpSampling2D { size, interpolation: Interpolation::Nearest, channels_first: false }
    }

    /// Sets how it fills in.
    pub fn interpolation(mut self, interpolation: Interpolation) -> UpSampling2D {
        self.interpolation = interpolation;
        self
    }
}

impl Layer for UpSampling2D {
    fn kind(&self) -> &str {
        "up_sampling2d"
    }

    fn variables(&self, inputs: &[Spec]) -> Result<Vec<Variable>> {
        rank(self.kind(), inputs, 4, FORM)?;
        match self.size.contains(&0) {
            true => Err(invalid(self.kind(), format!("factors are at least 1, not {:?}", self.size))),
            false => Ok(Vec::new()),
        }
    }

    fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
        let enlarge = |x: Tensor, (axis, factor): (usize, usize)| match (factor, self.interpolation) {
            (1, _) => x,
            (_, Interpolation::Nearest) => spread(&x, axis, factor),
            (_, Interpolation::Bilinear) => linear(&x, axis, factor),
        };
        spatial(self.channels_first).into_iter().zip(self.size).fold(inputs[0].clone(), enlarge)
    }
}

/// Every element along an axis `factor` times.
fn spread(x: &Tensor, axis: usize, factor: usize) -> Tensor {
    let shape = x.shape();
    let mut wide = shape.to_vec();
    wide.insert(axis + 1, factor);
    let mut long = shape.to_vec();
    long[axis] *= factor;
    x.unsqueeze(axis as i32 + 1).broadcast_to(wide).reshape(long)
}

/// Linear interpolation along an axis. Centre p of the `factor` new ones in an old pixel is (p + 1/2) / factor - 1/2
/// from the old centre, so it lies towards the pixel before or the one behind.
fn linear(x: &Tensor, axis: usize, factor: usize) -> Tensor {
    let (length, at) = (x.dim(axis), axis as i32);
    if length == 0 {
        return spread(x, axis, factor);
    }
    let before = ops::concat(&[&x.slice(at, ..1), &x.slice(at, ..length - 1)], at);
    let behind = ops::concat(&[&x.slice(at, 1..), &x.slice(at, length - 1..)], at);
    let offset = |p: usize| (p as f64 + 0.5) / factor as f64 - 0.5;
    let share = |f: &dyn Fn(f64) -> f64| {
        let mut shape = vec![1; x.rank() + 1];
        shape[axis + 1] = factor;
        Tensor::new(&(0..factor).map(|p| f(offset(p)) as f32).collect::<Vec<_>>(), shape)
    };
    let wide = |x: &Tensor| x.unsqueeze(at + 1);
    let y = wide(x) * share(&|o| 1.0 - o.abs())
        + wide(&before) * share(&|o| (-o).max(0.0))
        + wide(&behind) * share(&|o| o.max(0.0));
    let mut long = x.shape().to_vec();
    long[axis] *= factor;
    y.reshape(long)
}
