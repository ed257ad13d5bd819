//! The IDX format of MNIST and its relatives: a big-endian header, then bytes, often gzipped.
//!
//! Parsing takes bytes, not paths, so that a browser can use it on what it fetched. Deliberately absent: elements other
//! than unsigned bytes, which no published data set of the family has. Source: the page of the MNIST database
//! (yann.lecun.com/exdb/mnist), section "the IDX file format".

use crate::error::{Error, ErrorKind, Result};

/// The header's mark of unsigned bytes.
const UNSIGNED_BYTE: u8 = 0x08;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An array of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Lengths of the axes, outermost first.
    pub shape: Vec<usize>,
    /// The elements in row-major order.
    pub data: Vec<u8>,
}

/// Reads an IDX file, gzipped or plain: its first bytes tell. In a browser only plain ones: it has `DecompressionStream`,
/// and a second decoder would be among the largest parts of a page.
///
/// # Errors
/// [`ErrorKind::Format`] if it is not one, if it holds something else than unsigned bytes, if its length is not what the
/// header says, or if the compressed stream is damaged.
pub fn parse(file: &[u8]) -> Result<Idx> {
    let unpacked;
    let bytes = if file.starts_with(&GZIP) {
        unpacked = unpack(file)?;
        unpacked.as_slice()
    } else {
        file
    };

    let [0, 0, kind, rank, rest @ ..] = bytes else {
        return Err(malformed("it does not begin with two zero bytes, a type and a number of axes".into()));
    };
    if *kind != UNSIGNED_BYTE {
        return Err(malformed(format!("its elements are of type {kind:#04x}, only unsigned bytes (0x08) are known")));
    }
    let (header, data) = rest
        .split_at_checked(4 * usize::from(*rank))
        .ok_or_else(|| malformed(format!("it ends within the header of {rank} axes")))?;
    let (lengths, _) = header.as_chunks::<4>();
    let shape: Vec<usize> = lengths.iter().map(|&length| u32::from_be_bytes(length) as usize).collect();
    let elements = shape.iter().try_fold(1usize, |n, &length| n.checked_mul(length));
    if elements != Some(data.len()) {
        return Err(malformed(format!("its header says {shape:?} bytes, {} follow", data.len())));
    }
    Ok(Idx { shape, data: data.to_vec() })
}

#[cfg(not(target_arch = "wasm32"))]
fn unpack(file: &[u8]) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut unpacked = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(file).read_to_end(&mut unpacked);
    read.map_err(|why| malformed(format!("gzip: {why}")))?;
    Ok(unpacked)
}

#[cfg(target_arch = "wasm32")]
fn unpack(_: &[u8]) -> Result<Vec<u8>> {
    Err(malformed("it is gzipped; on a page, unpack it first: new DecompressionStream('gzip')".into()))
}

fn malformed(why: String) -> Error {
    Error::new(ErrorKind::Format { what: "an IDX file".into(), why })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// An IDX file of these axes and bytes.
    pub fn idx(shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, UNSIGNED_BYTE, shape.len() as u8];
        shape.iter().for_each(|length| file.extend(length.to_be_bytes()));
        file.extend(data);
        file
    }

    pub fn gzip(file: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(file).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_gzipped_files_are_the_same() {
        let file = idx(&[2, 3], &[1, 2, 3, 4, 5, 255]);
        let expected = Idx { shape: vec![2, 3], data: vec![1, 2, 3, 4, 5, 255] };
        assert_eq!(parse(&file).unwrap(), expected);
        assert_eq!(parse(&gzip(&file)).unwrap(), expected);
        assert_eq!(parse(&idx(&[0], &[])).unwrap().shape, [0]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let why = |file: &[u8]| match parse(file).map_err(Error::into_kind) {
            Err(ErrorKind::Format { why, .. }) => why,
            other => panic!("a format error was expected, got {other:?}"),
        };
        let good = idx(&[2, 3], &[0; 6]);
        assert!(why(b"P5 28 28").contains("two zero bytes"));
        assert!(why(&[]).contains("two zero bytes"));
        assert!(why(&good[..7]).contains("within the header of 2 axes"));
        assert!(why(&good[..17]).contains("says [2, 3] bytes, 5 follow"));
        assert!(why(&[&good[..], &[0]].concat()).contains("7 follow"));
        assert!(why(&[&[0, 0, 0x0d], &good[3..]].concat()).contains("type 0x0d"));
        assert!(why(&idx(&[u32::MAX; 3], &[])).contains("0 follow"));
        let packed = gzip(&good);
        assert!(why(&packed[..packed.len() - 9]).contains("gzip"));
    }
}
