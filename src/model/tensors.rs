//! Tensors as the bytes of a safetensors file and back, for weights and for checkpoints.
//!
//! Written are f32, i32, u32 and bool, with all their bits. Read are also the types that other programs store weights
//! in (f16, bf16, f64, i64), converted where asked. Deliberately absent: what the tensors mean.

use std::borrow::Cow;
use std::collections::HashMap;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors, View};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor, nowhere};

/// Bytes before the header: its length.
const LENGTH: usize = 8;

/// The bits of one tensor, to be written.
struct Stored<'a>(&'a Spec, &'a [u32]);

const fn stored_as(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::Bool => Dtype::BOOL,
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        stored_as(self.0.dtype)
    }

    fn shape(&self) -> &[usize] {
        self.0.shape.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.0.dtype {
            DType::Bool => self.1.iter().map(|&bit| u8::from(bit != 0)).collect(),
            _ if cfg!(target_endian = "little") => Cow::Borrowed(bytemuck::cast_slice(self.1)),
            _ => self.1.iter().flat_map(|bits| bits.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.1.len() * self.dtype().bitsize() / 8
    }
}

fn malformed(what: &str) -> impl Fn(SafeTensorError) -> Error {
    move |why| Error::Format { what: what.into(), why: why.to_string() }
}

/// The bytes of a file, with one entry of metadata if any. Equal tensors give equal bytes.
pub(super) fn write(tensors: &[(String, Spec, Vec<u32>)], metadata: Option<(&str, String)>) -> Result<Vec<u8>> {
    let views = tensors.iter().map(|(name, spec, bits)| (name.as_str(), Stored(spec, bits)));
    // One entry: several would be written in an order that changes from process to process.
    let metadata = metadata.map(|(key, text)| HashMap::from([(key.to_string(), text)]));
    safetensors::serialize(views, metadata).map_err(malformed("the file to be written"))
}

/// Check sum (CRC-32) of tensors as they are stored, one after the other.
pub(super) fn crc(tensors: &[(String, Spec, Vec<u32>)]) -> u32 {
    let mut sum = flate2::Crc::new();
    tensors.iter().for_each(|(_, spec, bits)| sum.update(&Stored(spec, bits).data()));
    sum.sum()
}

/// The tensors of a file, and its metadata.
pub(super) struct File<'f> {
    pub tensors: SafeTensors<'f>,
    pub metadata: HashMap<String, String>,
}

impl<'f> File<'f> {
    /// Reads a header; `what` names the file in errors.
    pub fn read(bytes: &'f [u8], what: &str) -> Result<File<'f>> {
        let error = |why: String| Error::Format { what: what.into(), why };
        let Some(length) = bytes.get(..LENGTH).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes) else {
            return Err(error(format!(
                "it is truncated: a safetensors file has {LENGTH} bytes at least, this one {}",
                bytes.len()
            )));
        };
        let body = (bytes.len() - LENGTH) as u64;
        if bytes.get(LENGTH).is_some_and(|&first| first != b'{') {
            return Err(error("it is no safetensors file: no header where one begins".into()));
        }
        if length > body {
            let what = if body > 0 { "it is truncated, or no safetensors file" } else { "it is truncated" };
            return Err(error(format!("{what}: its header should have {length} bytes, {body} follow")));
        }
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|why| match why {
            SafeTensorError::MetadataIncompleteBuffer => error(format!(
                "it is truncated, or something was appended: its {} bytes are not those its header tells of",
                bytes.len()
            )),
            why => malformed(what)(why),
        })?;
        debug_assert_eq!(header as u64, length);
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(File { tensors: SafeTensors::deserialize(bytes).map_err(malformed(what))?, metadata })
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        names
    }
}

/// How a tensor of a file is written in messages.
pub(super) fn describe(view: &TensorView<'_>) -> String {
    format!("{}{:?}", view.dtype().to_string().to_lowercase(), view.shape())
}

fn words(view: &TensorView<'_>) -> impl Iterator<Item = u32> {
    view.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn halves(view: &TensorView<'_>) -> impl Iterator<Item = u16> {
    view.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

fn doubles(view: &TensorView<'_>) -> impl Iterator<Item = u64> {
    view.data().chunks_exact(8).map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
}

/// A tensor of a file in its own type, with all its bits; `None` for a type that tensors do not have.
pub(super) fn exact(view: &TensorView<'_>) -> Option<Tensor> {
    let (dtype, bits) = match view.dtype() {
        Dtype::F32 => (DType::F32, words(view).collect()),
        Dtype::I32 => (DType::I32, words(view).collect()),
        Dtype::U32 => (DType::U32, words(view).collect()),
        Dtype::BOOL => (DType::Bool, view.data().iter().map(|&byte| u32::from(byte != 0)).collect()),
        _ => return None,
    };
    Some(Tensor::from_bits(bits, Spec::new(view.shape(), dtype), nowhere()))
}

/// The bits of a tensor of a file as a dtype: exact, or rounded from another width of the same kind. `None` where it is
/// of another kind, or a number does not fit.
pub(super) fn converted(view: &TensorView<'_>, dtype: DType) -> Option<Vec<u32>> {
    match (view.dtype(), dtype) {
        (is, wanted) if is == stored_as(wanted) => exact(view).and_then(|tensor| {
            let (node, output) = tensor.node().ok()?;
            node.value(output).host.map(|bits| bits.to_vec())
        }),
        (Dtype::F16, DType::F32) => Some(halves(view).map(|bits| f16::from_bits(bits).to_f32().to_bits()).collect()),
        (Dtype::BF16, DType::F32) => Some(halves(view).map(|bits| bf16::from_bits(bits).to_f32().to_bits()).collect()),
        (Dtype::F64, DType::F32) => Some(doubles(view).map(|bits| (f64::from_bits(bits) as f32).to_bits()).collect()),
        (Dtype::I64, DType::I32) => {
            doubles(view).map(|bits| i32::try_from(bits as i64).ok().map(|value| value as u32)).collect()
        }
        (Dtype::I64, DType::U32) => doubles(view).map(|bits| u32::try_from(bits as i64).ok()).collect(),
        // Boolean variables were once written as numbers.
        (Dtype::U32, DType::Bool) => Some(words(view).map(|bits| u32::from(bits != 0)).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(String, Spec, Vec<u32>)> {
        let quiet_and_signalling = vec![0x7fc0_1234, 0xff80_0001, 0x8000_0000, 1, f32::INFINITY.to_bits(), 0x3f80_0000];
        vec![
            ("a/f32".into(), Spec::new([2, 3], DType::F32), quiet_and_signalling),
            ("b/i32".into(), Spec::new([2], DType::I32), vec![i32::MIN as u32, 7]),
            ("c/u32".into(), Spec::new([1], DType::U32), vec![u32::MAX]),
            ("d/bool".into(), Spec::new([3], DType::Bool), vec![1, 0, 1]),
            ("e/scalar".into(), Spec::new([], DType::F32), vec![5]),
            ("f/empty".into(), Spec::new([0, 4], DType::F32), vec![]),
        ]
    }

    #[test]
    fn all_bits_of_all_types_come_back() {
        let bytes = write(&all(), Some(("note", "a \"text\"\nof two lines".into()))).unwrap();
        assert_eq!(bytes, write(&all(), Some(("note", "a \"text\"\nof two lines".into()))).unwrap());
        let file = File::read(&bytes, "test").unwrap();
        assert_eq!(file.metadata["note"], "a \"text\"\nof two lines");
        assert_eq!(file.names().len(), all().len());
        for (name, spec, bits) in all() {
            let tensor = exact(&file.tensors.tensor(&name).unwrap()).unwrap();
            let (node, output) = tensor.node().unwrap();
            assert_eq!((tensor.spec(), node.value(output).host.as_deref()), (Some(&spec), Some(&bits[..])), "{name}");
        }
    }

    #[test]
    fn every_prefix_and_every_other_file_is_an_error() {
        let bytes = write(&all(), None).unwrap();
        let message = |bytes: &[u8]| match File::read(bytes, "it") {
            Err(Error::Format { why, .. }) => why,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{} bytes were read", bytes.len()),
        };
        for length in 0..bytes.len() {
            assert!(message(&bytes[..length]).contains("truncated"), "{length}: {}", message(&bytes[..length]));
        }
        assert!(message(b"\x89PNG\r\n\x1a\n and so on").contains("no safetensors file"));
        assert!(message(&[bytes.clone(), vec![0]].concat()).contains("appended"));
        let mut broken = bytes.clone();
        broken[LENGTH + 1] = b'#';
        message(&broken);
    }

    #[test]
    fn other_widths_are_rounded_and_other_kinds_refused() {
        let view = |dtype, bytes: &[u8], dtype_wanted| {
            let width = bytes.len() / 2;
            assert!(width > 0);
            converted(&TensorView::new(dtype, vec![2], bytes).unwrap(), dtype_wanted)
        };
        let floats = |bits: Option<Vec<u32>>| bits.unwrap().into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let half: Vec<u8> = [1.5, -2.0].into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(floats(view(Dtype::F16, &half, DType::F32)), [1.5, -2.0]);
        let brain: Vec<u8> = [1.5, -2.0].into_iter().flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(floats(view(Dtype::BF16, &brain, DType::F32)), [1.5, -2.0]);
        let double: Vec<u8> = [0.1f64, -2.0].into_iter().flat_map(f64::to_le_bytes).collect();
        assert_eq!(floats(view(Dtype::F64, &double, DType::F32)), [0.1, -2.0]);
        let long: Vec<u8> = [-1i64, 3].into_iter().flat_map(i64::to_le_bytes).collect();
        assert_eq!(view(Dtype::I64, &long, DType::I32), Some(vec![u32::MAX, 3]));
        assert_eq!(view(Dtype::I64, &long, DType::U32), None);
        let far: Vec<u8> = [1i64 << 40, 3].into_iter().flat_map(i64::to_le_bytes).collect();
        assert_eq!(view(Dtype::I64, &far, DType::I32), None);
        assert_eq!(view(Dtype::I32, &[0; 8], DType::F32), None);
    }
}
