//! Index maps: how a view's element finds its place in the source.
//!
//! A [`ViewOp`] is what the user wrote (reshape, permute, broadcast, slice, flip, pad); a [`View`] is its strided
//! form over the source's row-major elements. Chains of ops fold into one view as long as it stays strided; where it
//! does not, the views simply apply one after the other, since each maps a linear index to a linear index.
//! Deliberately absent: data movement. A view is never a kernel.

use std::hash::Hash;

use crate::shape::Shape;

/// For each axis a half-open range of coordinates.
type Ranges = Vec<(usize, usize)>;

/// One structural view as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ViewOp {
    /// The same elements in row-major order under another shape.
    Reshape(Shape),
    /// Axis `i` of the result is axis `axes[i]` of the source.
    Permute(Vec<usize>),
    /// NumPy broadcasting to a larger shape.
    Broadcast(Shape),
    /// For each axis the first position, the resulting length and the step (never zero, negative walks back).
    Slice(Vec<(usize, usize, isize)>),
    /// For each axis the elements added before and after; they read as zero.
    Pad(Vec<(usize, usize)>),
}

/// A strided window: element `c` of the view is source element `offset + sum(c[d] * strides[d])`, or zero where a
/// coordinate lies outside `inside`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Shape of the view.
    pub shape: Shape,
    /// Source elements per step of each coordinate.
    pub strides: Vec<isize>,
    /// Source element of coordinate zero; may be negative under a mask.
    pub offset: isize,
    /// For each axis the half-open range of coordinates that exist; `None`: all.
    pub inside: Option<Ranges>,
}

impl ViewOp {
    /// The shape of the result.
    pub fn shape(&self, source: &Shape) -> Shape {
        match self {
            ViewOp::Reshape(shape) | ViewOp::Broadcast(shape) => shape.clone(),
            ViewOp::Permute(axes) => axes.iter().map(|&a| source[a]).collect::<Vec<_>>().into(),
            ViewOp::Slice(ranges) => ranges.iter().map(|r| r.1).collect::<Vec<_>>().into(),
            ViewOp::Pad(widths) => source.iter().zip(widths).map(|(d, (a, b))| d + a + b).collect::<Vec<_>>().into(),
        }
    }
}

impl View {
    /// The view of a whole tensor as it lies.
    pub fn whole(shape: &Shape) -> View {
        let strides = shape.strides().into_iter().map(|s| s as isize).collect();
        View { shape: shape.clone(), strides, offset: 0, inside: None }
    }

    /// Whether the linear index of the view is that of the source.
    pub fn is_identity(&self) -> bool {
        self.inside.is_none()
            && self.offset == 0
            && (self.shape.strides().iter().zip(&self.strides).zip(self.shape.iter()))
                .all(|((&row_major, &stride), &length)| length <= 1 || row_major as isize == stride)
    }

    /// This view with one more op on top, if the result is still strided.
    pub fn then(&self, op: &ViewOp) -> Option<View> {
        let inside = |f: &dyn Fn(&Ranges) -> Ranges| self.inside.as_ref().map(f);
        Some(match op {
            ViewOp::Reshape(shape) => return self.reshape(shape),
            ViewOp::Permute(axes) => View {
                shape: op.shape(&self.shape),
                strides: axes.iter().map(|&a| self.strides[a]).collect(),
                offset: self.offset,
                inside: inside(&|ranges| axes.iter().map(|&a| ranges[a]).collect()),
            },
            ViewOp::Broadcast(shape) => {
                let missing = shape.rank() - self.shape.rank();
                let spread = |axis: usize| axis < missing || self.shape[axis - missing] != shape[axis];
                View {
                    strides: (0..shape.rank())
                        .map(|axis| if spread(axis) { 0 } else { self.strides[axis - missing] })
                        .collect(),
                    offset: self.offset,
                    inside: inside(&|ranges| {
                        (0..shape.rank())
                            .map(|axis| match axis.checked_sub(missing) {
                                None => (0, shape[axis]),
                                // A spread coordinate exists everywhere or nowhere.
                                Some(a) if spread(axis) && ranges[a].0 < ranges[a].1 => (0, shape[axis]),
                                Some(_) if spread(axis) => (0, 0),
                                Some(a) => ranges[a],
                            })
                            .collect()
                    }),
                    shape: shape.clone(),
                }
            }
            ViewOp::Slice(slices) => {
                if self.inside.is_some() && slices.iter().any(|s| s.2 != 1) {
                    return None;
                }
                let start: isize = slices.iter().zip(&self.strides).map(|(s, stride)| s.0 as isize * stride).sum();
                View {
                    shape: op.shape(&self.shape),
                    strides: slices.iter().zip(&self.strides).map(|(s, stride)| s.2 * stride).collect(),
                    offset: self.offset + start,
                    inside: inside(&|ranges| {
                        let cut = |(low, high): (usize, usize), start: usize, length: usize| {
                            (low.saturating_sub(start).min(length), high.saturating_sub(start).min(length))
                        };
                        ranges.iter().zip(slices).map(|(r, s)| cut(*r, s.0, s.1)).collect()
                    }),
                }
            }
            ViewOp::Pad(widths) => {
                let before: isize = widths.iter().zip(&self.strides).map(|(w, stride)| w.0 as isize * stride).sum();
                let whole: Vec<_> = self.shape.iter().map(|&d| (0, d)).collect();
                let ranges = self.inside.as_ref().unwrap_or(&whole);
                View {
                    shape: op.shape(&self.shape),
                    strides: self.strides.clone(),
                    offset: self.offset - before,
                    inside: Some(ranges.iter().zip(widths).map(|(r, w)| (r.0 + w.0, r.1 + w.0)).collect()),
                }
            }
        })
    }

    /// Splits and joins axes, where the strides allow it.
    fn reshape(&self, shape: &Shape) -> Option<View> {
        if *shape == self.shape {
            return Some(self.clone());
        }
        if self.inside.is_some() {
            return None;
        }
        if shape.numel() == 0 {
            return Some(View { strides: vec![0; shape.rank()], shape: shape.clone(), offset: 0, inside: None });
        }
        let merged = self.merged();
        let mut strides = vec![0isize; shape.rank()];
        let mut axis = shape.rank();
        for &(length, stride) in merged.iter().rev() {
            let (mut rest, mut step) = (length, stride);
            while rest > 1 {
                axis = axis.checked_sub(1)?;
                if shape[axis] == 1 {
                    continue;
                }
                if rest % shape[axis] != 0 {
                    return None;
                }
                strides[axis] = step;
                step *= shape[axis] as isize;
                rest /= shape[axis];
            }
        }
        Some(View { shape: shape.clone(), strides, offset: self.offset, inside: None })
    }

    /// Axes as (length, stride), with those of length 1 dropped and those that step alike joined.
    pub fn merged(&self) -> Vec<(usize, isize)> {
        let mut merged: Vec<(usize, isize)> = Vec::new();
        for (&length, &stride) in self.shape.iter().zip(&self.strides) {
            if length == 1 {
                continue;
            }
            match merged.last_mut() {
                Some((outer, step)) if *step == stride * length as isize => {
                    *outer *= length;
                    *step = stride;
                }
                _ => merged.push((length, stride)),
            }
        }
        merged
    }

    /// The source element under linear index `at`, or `None` where the view reads zero.
    pub fn source(&self, mut at: usize) -> Option<usize> {
        let mut element = self.offset;
        for axis in (0..self.shape.rank()).rev() {
            let c = at % self.shape[axis];
            at /= self.shape[axis];
            if let Some(inside) = &self.inside
                && !(inside[axis].0..inside[axis].1).contains(&c)
            {
                return None;
            }
            element += c as isize * self.strides[axis];
        }
        Some(element as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every chain must agree with applying its ops one after the other.
    #[test]
    fn folded_chains_agree_with_single_steps() {
        let source = Shape::from([4, 6]);
        let chains: Vec<Vec<ViewOp>> = vec![
            vec![ViewOp::Permute(vec![1, 0]), ViewOp::Slice(vec![(5, 3, -2), (1, 2, 1)])],
            vec![ViewOp::Reshape([2, 2, 6].into()), ViewOp::Permute(vec![1, 0, 2]), ViewOp::Slice(vec![(0, 2, 1); 3])],
            vec![
                ViewOp::Pad(vec![(1, 0), (0, 2)]),
                ViewOp::Permute(vec![1, 0]),
                ViewOp::Slice(vec![(3, 5, 1), (0, 4, 1)]),
            ],
            vec![ViewOp::Pad(vec![(1, 0), (0, 2)]), ViewOp::Broadcast([3, 5, 8].into()), ViewOp::Pad(vec![(1, 1); 3])],
            vec![ViewOp::Reshape([24, 1].into()), ViewOp::Broadcast([24, 3].into()), ViewOp::Reshape([4, 6, 3].into())],
            vec![ViewOp::Slice(vec![(1, 1, 1), (0, 6, 1)]), ViewOp::Broadcast([5, 6].into())],
        ];
        for chain in chains {
            let mut folded = View::whole(&source);
            let mut steps = vec![];
            let mut shape = source.clone();
            for op in &chain {
                folded = folded.then(op).expect("this chain stays strided");
                steps.push(View::whole(&shape).then(op).expect("one op is always strided"));
                shape = op.shape(&shape);
            }
            assert_eq!(folded.shape, shape);
            for at in 0..shape.numel() {
                let single = steps.iter().rev().try_fold(at, |at, view| view.source(at));
                assert_eq!(folded.source(at), single, "{chain:?} at {at}");
            }
        }
    }

    #[test]
    fn a_transpose_cannot_be_flattened_in_place() {
        let transposed = View::whole(&[2, 3].into()).then(&ViewOp::Permute(vec![1, 0])).unwrap();
        assert_eq!(transposed.then(&ViewOp::Reshape([6].into())), None);
        assert!(!transposed.is_identity());
    }
}
