//! Recordings from what other tools know: a list of byte ranges in order of use.
//!
//! Holds: an error names its line; the same list gives the same recording, with the same id, so that importing it
//! twice counts once. No file access.

use super::{Flags, Header, Packed, Recording, SECTOR_BITS, TOUCHES_MAX, Touch, format};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::units::SECTOR_BYTES;
use crate::volume::Identity;

/// A line of a list: two numbers and a comment.
pub const LINE_BYTES_MAX: usize = 4096;

/// From lines `OFFSET LENGTH` in bytes, in order of use; `#` begins a comment. Without a volume the recording is
/// unbound.
pub fn list(text: &[u8], volume: Option<Identity>) -> Result<Recording> {
    let mut ranges = Ranges::new("list", volume);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let add = |extent: Option<Extent>| extent.map_or(Ok(()), |extent| ranges.add(extent));
        parse_line(line).and_then(add).map_err(|what| {
            Error::failed(format!("failed to read a list of ranges: line {}: {what}", index + 1))
                .hint("each line is `OFFSET LENGTH` in bytes; `#` begins a comment")
        })?;
    }
    ranges.finish()
}

/// From sectors in order of use, put down to a process of the tool's name.
pub fn extents(
    tool: &str,
    extents: impl IntoIterator<Item = Extent>,
    volume: Option<Identity>,
) -> Result<Recording> {
    let mut ranges = Ranges::new(tool, volume);
    for extent in extents {
        ranges.add(extent).map_err(|what| Error::failed(format!("failed to take the extents: {what}")))?;
    }
    ranges.finish()
}

/// Ranges become first touches. The time of one is the number of ranges before it, in microseconds: an order, no
/// clock.
struct Ranges {
    tool: String,
    volume: Option<Identity>,
    seen: ExtentSet,
    touches: Vec<Packed>,
    count: u64,
    sum: crc32fast::Hasher,
}

impl Ranges {
    fn new(tool: &str, volume: Option<Identity>) -> Ranges {
        let sum = crc32fast::Hasher::new();
        Ranges { tool: tool.into(), volume, seen: ExtentSet::new(), touches: Vec::new(), count: 0, sum }
    }

    fn add(&mut self, extent: Extent) -> Result<(), String> {
        let sectors_max = self.volume.as_ref().map(|volume| volume.sectors);
        if let Some(sectors) = sectors_max.filter(|sectors| extent.end() > *sectors) {
            let (end, size) = (extent.end() * SECTOR_BYTES, sectors * SECTOR_BYTES);
            return Err(format!("the range ends at byte {end}, the volume has {size}"));
        }
        let new = self.seen.missing_from(extent);
        let count: u64 = new.iter().map(|extent| extent.sectors().div_ceil(PIECE_SECTORS)).sum();
        if count > (TOUCHES_MAX - self.touches.len()) as u64 {
            return Err(format!("the ranges make more than {TOUCHES_MAX} touches"));
        }
        let (time_us, flags) = (self.count, Flags::READ);
        self.touches.extend(new.into_iter().flat_map(pieces).map(|extent| {
            let touch = Touch { extent, time_us, latency_us: None, flags, process: 0 };
            Packed::new(touch).expect("a piece and the number of a range are small")
        }));
        self.seen.insert(extent);
        self.sum.update(&extent.start().to_le_bytes());
        self.sum.update(&extent.end().to_le_bytes());
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Result<Recording> {
        let header = Header {
            id: format!("{}-{:08x}-{}", self.tool, self.sum.finalize(), self.count),
            volume: self.volume,
            until_us: self.count,
            events: self.count,
            ..Header::default()
        };
        let recording =
            Recording { header, processes: vec![self.tool], touches: self.touches, own: Vec::new() };
        format::validate(&recording)?;
        Ok(recording)
    }
}

/// The sectors that a line names, rounded outwards; none where it is empty or a comment.
fn parse_line(line: &[u8]) -> Result<Option<Extent>, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("it has {} bytes, the limit is {LINE_BYTES_MAX}", line.len()));
    }
    let line = std::str::from_utf8(line).map_err(|_| "it is no text".to_owned())?;
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let (offset, length) = match (words.next(), words.next(), words.next()) {
        (None, ..) => return Ok(None),
        (Some(offset), Some(length), None) => (offset, length),
        (Some(_), None, _) => return Err(format!("`{}` has no length", line.trim().escape_debug())),
        (.., Some(word)) => return Err(format!("`{}` is one word too many", word.escape_debug())),
    };
    let number = |word: &str| {
        word.parse::<u64>().map_err(|_| format!("`{}` is no number of bytes", word.escape_debug()))
    };
    let (offset, length) = (number(offset)?, number(length)?);
    if length == 0 {
        return Err("the range is empty".into());
    }
    Extent::of_bytes(offset, length)
        .map(Some)
        .ok_or_else(|| format!("{length} bytes from {offset} are beyond any disk"))
}

/// What a touch can hold, rounded down to a power of two so that pieces stay aligned: 4 GiB.
const PIECE_SECTORS: u64 = 1 << (SECTOR_BITS - 1);

/// Cut to what one touch can hold.
fn pieces(extent: Extent) -> impl Iterator<Item = Extent> {
    let starts = (extent.start()..extent.end()).step_by(PIECE_SECTORS as usize);
    starts.filter_map(move |start| Extent::new(start, extent.end().min(start + PIECE_SECTORS)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents(recording: &Recording) -> Vec<(u64, u64)> {
        recording.touches().map(|touch| (touch.extent.start(), touch.extent.sectors())).collect()
    }

    #[test]
    fn lines_are_ranges_in_order_of_use() {
        let text = b"# from a tool\n1048576 4096\n\n  0   512   # the boot record\r\n1044480 8192\n100 1000";
        let recording = list(text, Some(Identity::of_size(4096))).unwrap();
        assert_eq!(extents(&recording), [(2048, 8), (0, 1), (2040, 8), (1, 2)]);
        let times: Vec<u64> = recording.touches().map(|touch| touch.time_us).collect();
        assert_eq!(times, [0, 1, 2, 3]);
        assert_eq!(format::decode(&format::encode(&recording)).unwrap(), recording);
        assert_eq!(list(text, None).unwrap().header.id, recording.header.id);
    }

    #[test]
    fn a_range_larger_than_a_touch_is_cut() {
        let recording = list(format!("4096 {}", 100u64 << 30).as_bytes(), None).unwrap();
        let all: ExtentSet = recording.touches().map(|touch| touch.extent).collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), [Extent::at(8, 100 << 21).unwrap()]);
        let absurd = list(format!("0 {}", u64::MAX - 511).as_bytes(), None).unwrap_err().full_text();
        assert!(absurd.contains("line 1: the ranges make more than"), "{absurd}");
    }

    #[test]
    fn errors_name_the_line() {
        for (line, what) in [
            ("5", "`5` has no length"),
            ("5 6 7", "`7` is one word too many"),
            ("-5 6", "`-5` is no number of bytes"),
            ("4096 4KiB", "`4KiB` is no number"),
            ("5 0", "the range is empty"),
            ("18446744073709551615 2", "beyond any disk"),
            ("18446744073709551616 2", "is no number"),
            ("2096640 513", "ends at byte 2097664, the volume has 2097152"),
        ] {
            let text = format!("# head\n0 4096\n{line}\n");
            let error = list(text.as_bytes(), Some(Identity::of_size(4096))).unwrap_err().full_text();
            assert!(error.contains("line 3: ") && error.contains(what), "{line}: {error}");
        }
        assert!(list(&[0xff; 9], None).unwrap_err().full_text().contains("line 1: it is no text"));
        assert!(list(&[b'1'; 5000], None).unwrap_err().full_text().contains("5000 bytes"));
        assert!(extents(&list(b"", None).unwrap()).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..60), numbers in "([0-9]{1,20} [0-9]{1,20}\n){0,4}") {
            let _ = list(&text, None);
            let _ = list(numbers.as_bytes(), Some(Identity::of_size(1 << 40)));
        }
    }
}
