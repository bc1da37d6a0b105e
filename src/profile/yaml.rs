//! The profile for people: valid YAML whose last key is one literal block, an extent a line in warming order.
//!
//! Holds: what [`write()`] gives, [`parse`] reads back to the same profile; a checksum over all but its own line
//! guards the file; an error in a line names the line. A serde reader of a list of maps took 110 ms and 62 MB for
//! 60,000 extents, so only the header goes through one, and the block is sliced and read by hand. The grammar is
//! in profiles/FORMATS.md.

mod lines;

use super::{EXTENTS_MAX, Entry, Profile, STAGES_MAX, Stage};
use crate::error::{Context, Error, Result};
use crate::volume::{Identity, Region};
use lines::Lines;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::ops::Range;

/// The value of the key `format`.
pub const FORMAT: &str = "ebs-prewarm-profile";
/// The value of the key `version`.
pub const VERSION: u64 = 1;
/// Bytes before the block of extents: 4,096 recordings, 128 partitions and 64 stages take less.
pub const HEADER_BYTES_MAX: usize = 2 << 20;

/// The line that opens the block, the last key of the file.
const BLOCK: &[u8] = b"extents: |";
/// The fewest bytes that an extent's line takes.
const LINE_BYTES_MIN: usize = b"  0 0 0 1 0 0".len();

/// What the header must say before anything else of it is read.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    #[serde(default, skip_serializing, rename = "format")]
    _format: IgnoredAny,
    #[serde(default, skip_serializing, rename = "version")]
    _version: IgnoredAny,
    #[serde(default, skip_serializing, rename = "checksum")]
    _checksum: IgnoredAny,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<Identity>,
    regions: Vec<Region>,
    #[serde(default)]
    recordings: Vec<String>,
    #[serde(default)]
    events: u64,
    #[serde(default)]
    lost: u64,
    stages: Vec<StageHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageHeader {
    name: String,
    extents: usize,
}

/// The file's text, for a profile that passes [`Profile::validate`].
pub fn write(profile: &Profile) -> String {
    let header = Header {
        _format: IgnoredAny,
        _version: IgnoredAny,
        _checksum: IgnoredAny,
        name: profile.name.clone(),
        volume: profile.volume.clone(),
        regions: profile.regions.clone(),
        recordings: profile.recordings.clone(),
        events: profile.events,
        lost: profile.lost,
        stages: profile
            .stages
            .iter()
            .map(|stage| StageHeader { name: stage.name.clone(), extents: stage.entries.len() })
            .collect(),
    };
    let header = serde_yaml::to_string(&header).expect("a header of strings and numbers is YAML");
    let before = format!("format: {FORMAT}\nversion: {VERSION}\n");
    let mut after = String::with_capacity(header.len() + profile.extents() * 32);
    after.push_str(&header);
    after.push_str("extents: |\n");
    for (index, stage) in profile.stages.iter().enumerate() {
        for entry in &stage.entries {
            let Entry { region, extent, first_use_ms, stall_ms } = entry;
            let (start, sectors) = (extent.start(), extent.sectors());
            writeln!(after, "  {index} {region} {start} {sectors} {first_use_ms} {stall_ms}")
                .expect("a string takes any text");
        }
    }
    let sum = crc(&[before.as_bytes(), after.as_bytes()]);
    format!("{before}{}{after}", checksum_line(sum))
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Quoted, or else a sum without a letter would be a number to YAML.
fn checksum_line(sum: u32) -> String {
    format!("checksum: \"{sum:08x}\"\n")
}

/// The profile in a file's bytes. The error names what is wrong and where, the caller adds the path.
pub fn parse(bytes: &[u8]) -> Result<Profile> {
    let (header, body_at) = split(bytes)?;
    check_kind(header)?;
    check_sum(bytes, header)?;
    let header = read_header(header)?;
    let counts: Vec<usize> = header.stages.iter().map(|stage| stage.extents).collect();
    let profile = read_body(bytes, body_at, header)?;
    for (stage, count) in profile.stages.iter().zip(counts) {
        if stage.entries.len() != count {
            let (name, found) = (&stage.name, stage.entries.len());
            return Err(
                failed(format!("stage `{name}` has {found} extents, the header says {count}")).hint(SEAL)
            );
        }
    }
    Ok(profile)
}

/// The file as it should be after an edit by hand: counts and checksum renewed, comments dropped.
pub fn seal(bytes: &[u8]) -> Result<String> {
    let (header, body_at) = split(bytes)?;
    check_kind(header)?;
    Ok(write(&read_body(bytes, body_at, read_header(header)?)?))
}

const SEAL: &str =
    "after an edit by hand, run `ebs-prewarm profile seal` on it; otherwise copy the file again";

fn failed(what: impl std::fmt::Display) -> Error {
    Error::failed(format!("failed to read a profile: {what}"))
}

/// The header's text, and where the lines of extents begin.
fn split(bytes: &[u8]) -> Result<(&str, usize)> {
    if bytes.is_empty() {
        return Err(failed("the file is empty"));
    }
    let mut at = 0;
    loop {
        // The header is short: a file of another kind is not searched to its end.
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty() && at <= HEADER_BYTES_MAX);
        let Some(rest) = rest else {
            return Err(failed("it does not start like one, or is cut short: no line says `extents: |`")
                .hint("a profile is what `ebs-prewarm profile build` or `profile compile` writes"));
        };
        let (line, next) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], at + end + 1),
            None => (rest, bytes.len()),
        };
        if line.strip_suffix(b"\r").unwrap_or(line) == BLOCK {
            let header = std::str::from_utf8(&bytes[..at]).map_err(|_| failed("its header is no UTF-8"))?;
            return Ok((header, next));
        }
        at = next;
    }
}

fn check_kind(header: &str) -> Result<()> {
    let kind: Kind = serde_yaml::from_str(header).context(|| "failed to read the profile's header".into())?;
    if kind.format != FORMAT {
        return Err(failed(format!("its format is `{}`, not `{FORMAT}`", kind.format.escape_debug())));
    }
    if kind.version != VERSION {
        return Err(failed(format!("its format version is {}", kind.version)).hint(format!(
            "this build reads version {VERSION}; use the ebs-prewarm that wrote it, or a newer one"
        )));
    }
    Ok(())
}

fn check_sum(bytes: &[u8], header: &str) -> Result<()> {
    let mut found: Option<(Range<usize>, &str)> = None;
    let mut at = 0;
    for line in header.split_inclusive('\n') {
        if line.starts_with("checksum:") {
            if found.is_some() {
                return Err(failed("it has two lines `checksum:`").hint(SEAL));
            }
            found = Some((at..at + line.len(), line));
        }
        at += line.len();
    }
    let (range, line) = found.ok_or_else(|| failed("it has no line `checksum:`").hint(SEAL))?;
    if line != checksum_line(crc(&[&bytes[..range.start], &bytes[range.end..]])) {
        return Err(failed("its checksum does not match").hint(SEAL));
    }
    Ok(())
}

fn read_header(header: &str) -> Result<Header> {
    serde_yaml::from_str(header).context(|| "failed to read the profile's header".into())
}

fn read_body(bytes: &[u8], body_at: usize, header: Header) -> Result<Profile> {
    if header.stages.len() > STAGES_MAX {
        return Err(failed(format!("it has {} stages, the limit is {STAGES_MAX}", header.stages.len())));
    }
    // What the header says is believed as far as there are bytes for it, over all stages.
    let mut lines_left = EXTENTS_MAX.min((bytes.len() - body_at) / LINE_BYTES_MIN);
    let stages = header.stages.into_iter().map(|stage| {
        let expected = stage.extents.min(lines_left);
        lines_left -= expected;
        Stage { name: stage.name, entries: Vec::with_capacity(expected) }
    });
    let mut profile = Profile {
        name: header.name,
        volume: header.volume,
        regions: header.regions,
        recordings: header.recordings,
        events: header.events,
        lost: header.lost,
        stages: stages.collect(),
    };
    let mut lines = Lines { bytes, at: body_at };
    lines.read(&profile.regions, &mut profile.stages).map_err(|what| {
        let line = 1 + bytes[..lines.at.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count();
        failed(format!("line {line}: {what}"))
    })?;
    profile.validate()?;
    Ok(profile)
}

#[cfg(test)]
mod tests;
