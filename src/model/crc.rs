//! [`Crc`]: check sums of files, by one table of 256 entries.
//!
//! The table is made when a sum begins: it would be the largest thing that a page downloads for saving. Sources: RFC 1952,
//! section 8 (the polynomial of gzip), RFC 3720, appendix B.4 (CRC-32C). Deliberately absent: other widths.

/// The reflected polynomial of CRC-32, as in gzip.
pub(crate) const ISO: u32 = 0xedb8_8320;
/// The reflected polynomial of CRC-32C.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const CASTAGNOLI: u32 = 0x82f6_3b78;

/// A check sum in the making.
pub(crate) struct Crc {
    table: [u32; 256],
    rest: u32,
}

impl Crc {
    pub fn new(polynomial: u32) -> Crc {
        let turned = |byte: u32| (0..8).fold(byte, |crc, _| (crc >> 1) ^ if crc & 1 == 1 { polynomial } else { 0 });
        Crc { table: std::array::from_fn(|byte| turned(byte as u32)), rest: !0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        let step = |crc: u32, &byte: &u8| self.table[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
        self.rest = bytes.iter().fold(self.rest, step);
    }

    pub fn sum(&self) -> u32 {
        !self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(polynomial: u32, parts: &[&[u8]]) -> u32 {
        let mut crc = Crc::new(polynomial);
        parts.iter().for_each(|part| crc.update(part));
        crc.sum()
    }

    #[test]
    fn sums_are_the_published_ones() {
        assert_eq!(sum(ISO, &[b"123456789"]), 0xcbf4_3926);
        assert_eq!(sum(ISO, &[b"1234", b"", b"56789"]), 0xcbf4_3926);
        assert_eq!(sum(CASTAGNOLI, &[b"123456789"]), 0xe306_9283);
        assert_eq!(sum(CASTAGNOLI, &[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(sum(CASTAGNOLI, &[&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!(sum(CASTAGNOLI, &[&(0..32).collect::<Vec<u8>>()]), 0x46dd_794e);
        assert_eq!(sum(CASTAGNOLI, &[b""]), 0);
    }
}
