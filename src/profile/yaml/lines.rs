//! The lines of the block of extents, read by hand: `  STAGE REGION START SECTORS FIRST_USE_MS STALL_MS`.
//!
//! Holds: the quick way and the thorough one read the same lines alike; only the thorough one knows what is wrong.

use crate::extent::Extent;
use crate::profile::{EXTENTS_MAX, Entry, Stage};
use crate::volume::Region;

/// A number of more digits is refused before it can overflow.
pub const DIGITS_MAX: usize = 18;

/// The lines of the block, read one byte at a time.
pub struct Lines<'a> {
    pub bytes: &'a [u8],
    /// The next byte; after an error, within the line that is wrong.
    pub at: usize,
}

impl Lines<'_> {
    /// Reads to the end; the error says what is wrong with the line at `at`.
    pub fn read(&mut self, regions: &[Region], stages: &mut [Stage]) -> Result<(), String> {
        let mut stage = 0;
        let mut count = 0;
        while self.at < self.bytes.len() {
            let Some([in_stage, region, start, sectors, first_use_ms, stall_ms]) =
                self.line().map_err(Wrong::text)?
            else {
                continue;
            };
            let in_stage = usize::try_from(in_stage).unwrap_or(usize::MAX);
            let region_at = usize::try_from(region).unwrap_or(usize::MAX);
            let ends = regions.get(region_at).map(|region| region.sectors);
            let extent = Extent::at(start, sectors);
            let small = |value| u32::try_from(value).ok();
            match (extent, ends, small(first_use_ms), small(stall_ms)) {
                (Some(extent), Some(end), Some(first_use_ms), Some(stall_ms))
                    if extent.end() <= end
                        && (stage..stages.len()).contains(&in_stage)
                        && count < EXTENTS_MAX =>
                {
                    stage = in_stage;
                    count += 1;
                    let region = region as u16;
                    stages[stage].entries.push(Entry { region, extent, first_use_ms, stall_ms });
                }
                _ => {
                    // The position is that of the line's end: back into it.
                    self.at -= 1;
                    return Err(match (extent, ends) {
                        _ if in_stage >= stages.len() => format!("stage {in_stage} is not in the header"),
                        _ if in_stage < stage => format!("stage {in_stage} comes after stage {stage}"),
                        _ if count >= EXTENTS_MAX => format!("more than {EXTENTS_MAX} extents"),
                        (_, None) => format!("region {region} is not in the header"),
                        (None, _) => format!("{sectors} sectors from {start} are empty or overflow"),
                        (Some(extent), Some(sectors)) if extent.end() > sectors => {
                            format!("ends at sector {}, region {region} has {sectors}", extent.end())
                        }
                        _ => "a time is larger than 4294967295 ms".into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The six numbers of a line; none in an empty line or a comment. Goes past the line's end.
    #[inline]
    pub fn line(&mut self) -> Result<Option<[u64; 6]>, Wrong> {
        let usual = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk).and_then(usual_line);
        if let Some((numbers, length)) = usual {
            self.at += length;
            return Ok(Some(numbers));
        }
        self.any_line()
    }

    /// As [`Lines::line`], of any length, at the very end too; knows what is wrong.
    pub fn any_line(&mut self) -> Result<Option<[u64; 6]>, Wrong> {
        let rest = &self.bytes[self.at..];
        if !rest.starts_with(b"  ") {
            return match rest {
                [b'\n', ..] | [b'\r', b'\n', ..] => Ok(self.skip_line()),
                _ => Err(Wrong::Indent),
            };
        }
        self.at += 2;
        if self.bytes.get(self.at) == Some(&b'#') {
            return Ok(self.skip_line());
        }
        let mut numbers = [0; 6];
        for (index, number) in numbers.iter_mut().enumerate() {
            if index > 0 {
                match self.bytes.get(self.at) {
                    Some(b' ') => self.at += 1,
                    _ => return Err(Wrong::Grammar),
                }
            }
            *number = self.number()?;
        }
        match &self.bytes[self.at..] {
            [] => self.at += 1,
            [b'\n', ..] => self.at += 1,
            [b'\r', b'\n', ..] => self.at += 2,
            _ => return Err(Wrong::Grammar),
        }
        Ok(Some(numbers))
    }

    fn skip_line<T>(&mut self) -> Option<T> {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        None
    }

    fn number(&mut self) -> Result<u64, Wrong> {
        let from = self.at;
        let mut value = 0;
        while let Some(digit) = self.bytes.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            if self.at - from == DIGITS_MAX {
                return Err(Wrong::Digits);
            }
            value = value * 10 + u64::from(digit - b'0');
            self.at += 1;
        }
        if self.at == from { Err(Wrong::Grammar) } else { Ok(value) }
    }
}

/// What is wrong with a line; small, since each number of each line may be wrong.
#[derive(Clone, Copy, Debug)]
pub enum Wrong {
    Indent,
    Grammar,
    Digits,
}

impl Wrong {
    /// For people.
    pub fn text(self) -> String {
        match self {
            Wrong::Indent => "does not start with two spaces".into(),
            Wrong::Grammar => "is not `STAGE REGION START SECTORS FIRST_USE_MS STALL_MS`".into(),
            Wrong::Digits => format!("a number has more than {DIGITS_MAX} digits"),
        }
    }
}

/// Bytes of a usual line at most, and the eight that are read with its last number.
const USUAL_LINE: usize = 32 + 8;

/// The numbers of a line of up to 32 bytes whose numbers have up to 8 digits, and its length. Any other line is
/// left to [`Lines::any_line`]. A loop over digits takes five times as long: the end of each number must be known
/// before the next is begun, and how long one is no processor can predict.
#[inline]
fn usual_line(line: &[u8; USUAL_LINE]) -> Option<([u64; 6], usize)> {
    let word = |at: usize| Some(u64::from_le_bytes(*line.get(at..)?.first_chunk()?));
    // A bit for each byte that is no digit.
    let mut others = 0;
    for part in 0..4 {
        others |= others_in(word(8 * part)?) << (8 * part);
    }
    if others & 3 != 3 || !line.starts_with(b"  ") {
        return None;
    }
    let mut numbers = [0; 6];
    let mut from = 2;
    others &= !3;
    for (index, number) in numbers.iter_mut().enumerate() {
        let end = others.trailing_zeros() as usize;
        let ends_well = *line.get(end)? == if index < 5 { b' ' } else { b'\n' };
        let digits = end - from;
        if others == 0 || !ends_well || !(1..=8).contains(&digits) {
            return None;
        }
        *number = number_of(word(from)?, digits);
        from = end + 1;
        others &= others - 1;
    }
    Some((numbers, from))
}

/// A bit for each of eight bytes that is no digit, the lowest for the first.
#[inline]
pub fn others_in(word: u64) -> u32 {
    let values = word ^ 0x3030_3030_3030_3030;
    // A byte over 9 gets its high bit set; the low seven bits cannot carry into the next byte.
    let over = (values & 0x7f7f_7f7f_7f7f_7f7f) + 0x7676_7676_7676_7676;
    let high = (over | values) & 0x8080_8080_8080_8080;
    // Each bit moves to its place in the top byte.
    ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// The number that eight characters start with, of 1 to 8 digits: sums of pairs, of fours, of all eight (Lemire,
/// "Number parsing at a gigabyte per second", 2021).
#[inline]
pub fn number_of(word: u64, digits: usize) -> u64 {
    // The first digit weighs most: what is missing in front are zeroes.
    let values = (word ^ 0x3030_3030_3030_3030) << (64 - 8 * digits);
    let pairs = values.wrapping_mul(10 << 8 | 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100 << 16 | 1) >> 16 & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000 << 32 | 1) >> 32
}
