//! Bytes of the binary formats: varints, a bounded reader, a checksummed envelope.
//!
//! Holds: no count or length is believed before the bytes for it are there. No I/O.

use crate::error::{Error, Result};

/// Appends an unsigned LEB128 varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small magnitudes of either sign become small varints.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from a slice; every failure says at which byte.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error at the current byte.
    pub fn error(&self, what: &str) -> Error {
        Error::failed(format!("failed to read byte {}: {what}", self.at))
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.error("the file ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A varint; overlong and overflowing ones are refused.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        match self.quick_varint() {
            Some(value) => Ok(value),
            None => self.slow_varint(),
        }
    }

    /// The usual case, eight bytes at a time: a good varint of up to 7 bytes that is not at the very end. Else none,
    /// and the reader stays where it is: [`Reader::varint`] reads it or says what is wrong.
    #[inline]
    pub fn quick_varint(&mut self) -> Option<u64> {
        let next = self.bytes.get(self.at..self.at + 8)?;
        let word = u64::from_le_bytes(next.try_into().expect("eight bytes"));
        if word & 0x80 == 0 {
            self.at += 1;
            return Some(word & 0x7f);
        }
        let bits = (!word & 0x8080_8080_8080_8080).trailing_zeros() + 1;
        // No last byte among the eight, or one that adds nothing: the slow path says what is wrong with it.
        if bits > 56 || word >> (bits - 8) & 0xff == 0 {
            return None;
        }
        // Seven bits of each byte move together: pairs, then pairs of pairs, then the halves.
        let word = word & (u64::MAX >> (64 - bits)) & 0x7f7f_7f7f_7f7f_7f7f;
        let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
        let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
        self.at += bits as usize / 8;
        Some((word & 0x0fff_ffff) | (word & 0x0fff_ffff_0000_0000) >> 4)
    }

    #[cold]
    fn slow_varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.error("the file ends too early"))?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.error("a number overflows"));
            }
            value |= bits << shift;
            self.at += 1;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.error("a number is longer than it needs to be"));
                }
                return Ok(value);
            }
        }
        Err(self.error("a number overflows"))
    }

    /// A varint that must not exceed `max`.
    pub fn varint_max(&mut self, max: u64, what: &str) -> Result<u64> {
        let value = self.varint()?;
        if value > max {
            return Err(self.error(&format!("{what} is {value}, the limit is {max}")));
        }
        Ok(value)
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self, max: usize, what: &str) -> Result<&'a [u8]> {
        let length = self.varint_max(max as u64, what)?;
        self.take(length as usize)
    }
}

/// Wraps a body: magic, version (u16, little endian), body, CRC32 of all before it (little endian).
pub fn seal(magic: &[u8; 8], version: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 14);
    out.extend_from_slice(magic);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(body);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The version and the body of a sealed file, with each way in which it can be wrong named. Versions from 1 to the
/// newest are read.
pub fn unseal<'a>(bytes: &'a [u8], magic: &[u8; 8], newest: u16, what: &str) -> Result<(u16, &'a [u8])> {
    if bytes.is_empty() {
        return Err(Error::failed(format!("failed to read {what}: the file is empty")));
    }
    if bytes.len() < 14 || &bytes[..8] != magic {
        let cut = bytes.len() < 14 && magic.starts_with(&bytes[..bytes.len().min(8)]);
        let why = if cut { "the file is cut short" } else { "it does not start like one" };
        return Err(Error::failed(format!("failed to read {what}: {why}")));
    }
    let found = u16::from_le_bytes([bytes[8], bytes[9]]);
    if !(1..=newest).contains(&found) {
        return Err(Error::failed(format!("failed to read {what}: its format version is {found}")).hint(
            format!(
                "this build reads versions up to {newest}; use the ebs-prewarm that wrote it, or a newer one"
            ),
        ));
    }
    let (sealed, crc) = bytes.split_at(bytes.len() - 4);
    if crc32fast::hash(sealed).to_le_bytes() != crc {
        return Err(Error::failed(format!("failed to read {what}: its checksum does not match"))
            .hint("the file is damaged or cut short; copy it again"));
    }
    Ok((found, &sealed[10..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value in any::<u64>(), signed in any::<i64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_varint(&mut out, zigzag(signed));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert_eq!(unzigzag(reader.varint().unwrap()), signed);
            prop_assert_eq!(reader.left(), 0);
        }

        #[test]
        fn the_quick_way_and_the_slow_one_agree(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..=0xff], 0..24)
        ) {
            for at in 0..=bytes.len() {
                let mut quick = Reader { bytes: &bytes, at };
                let mut slow = Reader { bytes: &bytes, at };
                let (q, s) = (quick.varint(), slow.slow_varint());
                prop_assert_eq!(quick.at, slow.at);
                prop_assert_eq!(q.map_err(|e| e.full_text()), s.map_err(|e| e.full_text()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while reader.left() > 0 && reader.varint().is_ok() {}
            let _ = unseal(&bytes, b"ABCDEFGH", 1, "test");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealed = seal(b"ABCDEFGH", 1, b"body of a file");
        assert_eq!(unseal(&sealed, b"ABCDEFGH", 2, "test").unwrap(), (1, &b"body of a file"[..]));
        assert!(unseal(&seal(b"ABCDEFGH", 3, b"x"), b"ABCDEFGH", 2, "test").is_err());
        assert!(unseal(&seal(b"ABCDEFGH", 0, b"x"), b"ABCDEFGH", 2, "test").is_err());
        for cut in 0..sealed.len() {
            assert!(unseal(&sealed[..cut], b"ABCDEFGH", 1, "test").is_err());
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&flipped, b"ABCDEFGH", 1, "test").is_err(), "bit {bit}");
        }
    }
}
