//! Tensors as the bytes of a safetensors file and back, for weights and for checkpoints.
//!
//! Written are f32, i32, u32 and bool, with all their bits. Read are also the types that other programs store weights
//! in (f16, bf16, f64, i64), converted where asked. Deliberately absent: what the tensors mean.

use half::{bf16, f16};

use super::crc::{Crc, ISO};
use super::header::{Entry, Header};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor, nowhere};
use crate::sort::{sort_by, sort_by_key};

/// Bytes before the header: its length.
const LENGTH: usize = 8;

/// The format's names of the types that tensors have.
const fn stored_as(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::I32 => "I32",
        DType::U32 => "U32",
        DType::Bool => "BOOL",
    }
}

/// Bytes of an element, of the types of the format that are known here.
fn width(kind: &str) -> Option<usize> {
    Some(match kind {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "BOOL" | "I8" | "U8" => 1,
        _ => return None,
    })
}

/// The bytes of one tensor as it is stored.
fn stored(spec: &Spec, bits: &[u32], put: &mut dyn FnMut(&[u8])) {
    match spec.dtype {
        DType::Bool => put(&bits.iter().map(|&bit| u8::from(bit != 0)).collect::<Vec<_>>()),
        _ if cfg!(target_endian = "little") => put(bytemuck::cast_slice(bits)),
        _ => put(&bits.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<_>>()),
    }
}

/// The bytes of a file, with one entry of metadata if any. Equal tensors give equal bytes.
pub(super) fn write(tensors: &[(String, Spec, Vec<u32>)], metadata: Option<(&str, String)>) -> Vec<u8> {
    // Bools last: so every other tensor lies on a multiple of its width.
    let mut order: Vec<&(String, Spec, Vec<u32>)> = tensors.iter().collect();
    sort_by(&mut order, |a, b| (a.1.dtype == DType::Bool, &a.0).cmp(&(b.1.dtype == DType::Bool, &b.0)));
    let mut header = Header::default();
    header.metadata.extend(metadata.map(|(key, text)| (key.to_string(), text)));
    for (name, spec, bits) in &order {
        let (kind, from) = (stored_as(spec.dtype), header.bytes());
        let to = from + bits.len() * width(kind).unwrap_or_default();
        let (name, shape) = (name.clone(), spec.shape.dims().to_vec());
        header.entries.push(Entry { name, kind: kind.into(), shape, range: [from, to] });
    }
    let text = header.to_text();
    let mut file = Vec::with_capacity(LENGTH + text.len() + header.bytes());
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
    order.iter().for_each(|(_, spec, bits)| stored(spec, bits, &mut |bytes| file.extend_from_slice(bytes)));
    file
}

/// Check sum (CRC-32) of tensors as they are stored, one after the other.
pub(super) fn crc(tensors: &[(String, Spec, Vec<u32>)]) -> u32 {
    let mut sum = Crc::new(ISO);
    tensors.iter().for_each(|(_, spec, bits)| stored(spec, bits, &mut |bytes| sum.update(bytes)));
    sum.sum()
}

/// A tensor of a file.
#[derive(Clone, Copy)]
pub(super) struct View<'f> {
    entry: &'f Entry,
    data: &'f [u8],
}

impl<'f> View<'f> {
    pub fn name(&self) -> &'f str {
        &self.entry.name
    }

    pub fn shape(&self) -> &'f [usize] {
        &self.entry.shape
    }

    /// Its elements, little-endian.
    pub fn data(&self) -> &'f [u8] {
        self.data
    }

    /// How it is written in messages.
    pub fn describe(&self) -> String {
        format!("{}{:?}", self.entry.kind.to_ascii_lowercase(), self.entry.shape)
    }
}

/// A file whose header was read and fits what follows.
pub(super) struct File<'f> {
    header: Header,
    body: &'f [u8],
}

impl<'f> File<'f> {
    /// Reads a header; `what` names the file in errors.
    pub fn read(bytes: &'f [u8], what: &str) -> Result<File<'f>> {
        File::parse(bytes).map_err(|why| Error::new(ErrorKind::Format { what: what.into(), why }))
    }

    fn parse(bytes: &'f [u8]) -> Result<File<'f>, String> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
            let bytes = bytes.len();
            return Err(format!("it is truncated: a safetensors file has {LENGTH} bytes at least, this one {bytes}"));
        };
        if rest.first().is_some_and(|&first| first != b'{') {
            return Err("it is no safetensors file: no header where one begins".into());
        }
        let length = u64::from_le_bytes(*length);
        let parts = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let Some((text, body)) = parts else {
            let what = if rest.is_empty() { "it is truncated" } else { "it is truncated, or no safetensors file" };
            return Err(format!("{what}: its header should have {length} bytes, {} follow", rest.len()));
        };
        let header = Header::parse(text)?;
        if header.bytes() != body.len() {
            let all = bytes.len();
            return Err(format!(
                "it is truncated, or something was appended: its {all} bytes are not those its header tells of"
            ));
        }
        for Entry { name, kind, shape, range: [from, to] } in &header.entries {
            let bytes = shape.iter().try_fold(width(kind).unwrap_or_default(), |n, &length| n.checked_mul(length));
            if width(kind).is_some() && bytes != Some(to - from) {
                return Err(format!("its header is wrong: {name} is {kind} {shape:?} in {} bytes", to - from));
            }
        }
        Ok(File { header, body })
    }

    /// The tensors, sorted by name.
    pub fn tensors(&self) -> Vec<View<'_>> {
        let view = |entry| View { entry, data: &self.body[entry.range[0]..entry.range[1]] };
        let mut views: Vec<_> = self.header.entries.iter().map(view).collect();
        sort_by_key(&mut views, View::name);
        views
    }

    /// The metadata of a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata.iter().find(|entry| entry.0 == key).map(|entry| &*entry.1)
    }
}

fn words(view: &View<'_>) -> impl Iterator<Item = u32> {
    view.data.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn halves(view: &View<'_>) -> impl Iterator<Item = u16> {
    view.data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

fn doubles(view: &View<'_>) -> impl Iterator<Item = u64> {
    view.data.chunks_exact(8).map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
}

/// A tensor of a file in its own type, with all its bits; `None` for a type that tensors do not have.
pub(super) fn exact(view: &View<'_>) -> Option<Tensor> {
    let (dtype, bits) = match view.entry.kind.as_str() {
        "F32" => (DType::F32, words(view).collect()),
        "I32" => (DType::I32, words(view).collect()),
        "U32" => (DType::U32, words(view).collect()),
        "BOOL" => (DType::Bool, view.data.iter().map(|&byte| u32::from(byte != 0)).collect()),
        _ => return None,
    };
    Some(Tensor::from_bits(bits, Spec::new(view.shape(), dtype), nowhere()))
}

/// The bits of a tensor of a file as a dtype: exact, or rounded from another width of the same kind. `None` where it is
/// of another kind, or a number does not fit.
pub(super) fn converted(view: &View<'_>, dtype: DType) -> Option<Vec<u32>> {
    match (view.entry.kind.as_str(), dtype) {
        (is, wanted) if is == stored_as(wanted) => exact(view).and_then(|tensor| {
            let (node, output) = tensor.node().ok()?;
            node.value(output).host.map(|bits| bits.to_vec())
        }),
        ("F16", DType::F32) => Some(halves(view).map(|bits| f16::from_bits(bits).to_f32().to_bits()).collect()),
        ("BF16", DType::F32) => Some(halves(view).map(|bits| bf16::from_bits(bits).to_f32().to_bits()).collect()),
        ("F64", DType::F32) => Some(doubles(view).map(|bits| (f64::from_bits(bits) as f32).to_bits()).collect()),
        ("I64", DType::I32) => {
            doubles(view).map(|bits| i32::try_from(bits as i64).ok().map(|value| value as u32)).collect()
        }
        ("I64", DType::U32) => doubles(view).map(|bits| u32::try_from(bits as i64).ok()).collect(),
        // Boolean variables were once written as numbers.
        ("U32", DType::Bool) => Some(words(view).map(|bits| u32::from(bits != 0)).collect()),
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
        let bytes = write(&all(), Some(("note", "a \"text\"\nof two lines".into())));
        assert_eq!(bytes, write(&all(), Some(("note", "a \"text\"\nof two lines".into()))));
        let file = File::read(&bytes, "test").unwrap();
        assert_eq!(file.metadata("note"), Some("a \"text\"\nof two lines"));
        let tensors = file.tensors();
        assert_eq!(tensors.len(), all().len());
        for (view, (name, spec, bits)) in tensors.iter().zip(all()) {
            assert_eq!(view.name(), name);
            let tensor = exact(view).unwrap();
            let (node, output) = tensor.node().unwrap();
            assert_eq!((tensor.spec(), node.value(output).host.as_deref()), (Some(&spec), Some(&bits[..])), "{name}");
        }
    }

    #[test]
    fn every_prefix_and_every_other_file_is_an_error() {
        let bytes = write(&all(), None);
        let message = |bytes: &[u8]| match File::read(bytes, "it").map_err(Error::into_kind) {
            Err(ErrorKind::Format { why, .. }) => why,
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
        let view = |kind: &str, data: &[u8], wanted| {
            let entry = Entry { name: "it".into(), kind: kind.into(), shape: vec![2], range: [0, data.len()] };
            converted(&View { entry: &entry, data }, wanted)
        };
        let floats = |bits: Option<Vec<u32>>| bits.unwrap().into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let half: Vec<u8> = [1.5, -2.0].into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(floats(view("F16", &half, DType::F32)), [1.5, -2.0]);
        let brain: Vec<u8> = [1.5, -2.0].into_iter().flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(floats(view("BF16", &brain, DType::F32)), [1.5, -2.0]);
        let double: Vec<u8> = [0.1f64, -2.0].into_iter().flat_map(f64::to_le_bytes).collect();
        assert_eq!(floats(view("F64", &double, DType::F32)), [0.1, -2.0]);
        let long: Vec<u8> = [-1i64, 3].into_iter().flat_map(i64::to_le_bytes).collect();
        assert_eq!(view("I64", &long, DType::I32), Some(vec![u32::MAX, 3]));
        assert_eq!(view("I64", &long, DType::U32), None);
        let far: Vec<u8> = [1i64 << 40, 3].into_iter().flat_map(i64::to_le_bytes).collect();
        assert_eq!(view("I64", &far, DType::I32), None);
        assert_eq!(view("I32", &[0; 8], DType::F32), None);
    }
}
