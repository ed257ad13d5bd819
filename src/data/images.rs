//! [`Images`]: labelled grey images, as their files have them.
//!
//! Bytes, because a set of 60,000 is 47 MB as bytes and four times that as a tensor; the tensors are made when asked.
//! Deliberately absent: colour, and any scaling but that to [0, 1].

use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor, here};

use super::idx;

/// Grey images of one size, each with the number of its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Image after image, row after row; 0 is the background.
    pub pixels: Vec<u8>,
    /// The class of each image.
    pub labels: Vec<u8>,
    /// Height of an image in pixels.
    pub rows: usize,
    /// Width of an image in pixels.
    pub columns: usize,
}

impl Images {
    /// From the contents of two IDX files, see [`idx::parse`].
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if one is malformed, if the images have not three axes or the labels not one, or if there are
    /// not as many labels as images.
    pub fn from_idx(images: &[u8], labels: &[u8]) -> Result<Images> {
        let (images, labels) = (idx::parse(images)?, idx::parse(labels)?);
        let malformed = |why| Error::new(ErrorKind::Format { what: "a pair of IDX files".into(), why });
        match (images.shape.as_slice(), labels.shape.as_slice()) {
            (&[n, rows, columns], &[m]) if n == m => {
                Ok(Images { pixels: images.data, labels: labels.data, rows, columns })
            }
            (&[n, _, _], &[m]) => Err(malformed(format!("there are {n} images and {m} labels"))),
            (images, labels) => Err(malformed(format!(
                "images of shape [n, rows, columns] and labels of shape [n] were expected, got {images:?} and {labels:?}"
            ))),
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The images as `f32 [n, rows, columns]`, scaled to [0, 1].
    #[track_caller]
    pub fn x(&self) -> Tensor {
        self.tensor(vec![self.len(), self.rows, self.columns])
    }

    /// The images as `f32 [n, rows * columns]`, scaled to [0, 1].
    #[track_caller]
    pub fn flat(&self) -> Tensor {
        self.tensor(vec![self.len(), self.rows * self.columns])
    }

    /// The classes as `i32 [n]`.
    #[track_caller]
    pub fn y(&self) -> Tensor {
        let bits: Arc<[u32]> = self.labels.iter().map(|&label| u32::from(label)).collect();
        Tensor::from_bits(bits, Spec::new([self.len()], DType::I32), here())
    }

    #[track_caller]
    fn tensor(&self, shape: Vec<usize>) -> Tensor {
        let place = here();
        // The fields are public, so their lengths may disagree.
        if self.pixels.len() != shape.iter().product::<usize>() {
            let what = format!("{} pixels are not images of shape {shape:?} ({place})", self.pixels.len());
            return Tensor::poisoned(Error::data(what));
        }
        let scaled: [u32; 256] = std::array::from_fn(|byte| (byte as f32 / 255.0).to_bits());
        let bits: Arc<[u32]> = self.pixels.iter().map(|&byte| scaled[usize::from(byte)]).collect();
        Tensor::from_bits(bits, Spec::new(shape, DType::F32), place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::idx::tests::{gzip, idx};

    #[test]
    fn a_pair_of_files_becomes_tensors() {
        let pixels: Vec<u8> = (0..12).map(|i| i * 20).chain([255; 6]).collect();
        let images = Images::from_idx(&gzip(&idx(&[3, 2, 3], &pixels)), &idx(&[3], &[7, 0, 9])).unwrap();
        assert_eq!((images.len(), images.rows, images.columns), (3, 2, 3));
        let (x, flat, y) = (images.x(), images.flat(), images.y());
        assert_eq!((x.shape(), flat.shape(), y.shape()), ([3, 2, 3].into(), [3, 6].into(), [3].into()));
        assert_eq!((x.dtype(), y.dtype()), (DType::F32, DType::I32));
        let host = |t: &Tensor| t.node().unwrap().0.value(0).host.unwrap();
        let values: Vec<f32> = host(&x).iter().map(|&b| f32::from_bits(b)).collect();
        assert_eq!(values[..2], [0.0, 20.0 / 255.0]);
        assert_eq!(values[12..], [1.0; 6]);
        assert_eq!(host(&flat), host(&x));
        assert_eq!(host(&y)[..], [7, 0, 9]);
    }

    #[test]
    fn pairs_that_do_not_belong_together_are_refused() {
        let why = |images: &[u8], labels: &[u8]| match Images::from_idx(images, labels).map_err(Error::into_kind) {
            Err(ErrorKind::Format { why, .. }) => why,
            other => panic!("a format error was expected, got {other:?}"),
        };
        let (images, labels) = (idx(&[2, 1, 1], &[0; 2]), idx(&[3], &[0; 3]));
        assert_eq!(why(&images, &labels), "there are 2 images and 3 labels");
        assert!(why(&labels, &images).contains("got [3] and [2, 1, 1]"));
    }

    #[test]
    fn inconsistent_fields_poison() {
        let images = Images { pixels: vec![0; 5], labels: vec![0, 1], rows: 2, columns: 2 };
        assert!(matches!(images.x().error(), Some(error) if matches!(error.kind(), ErrorKind::Data { .. })));
    }
}
