//! The ways of warming that are compared. Pure.

use super::DEPTH_MAX;
use super::places::TILE_BYTES;
use crate::error::{Error, Result};
use crate::plan::{PlannedRead, READ_BYTES_MAX};
use crate::units::SECTOR_BYTES;
use std::fmt;
use std::str::FromStr;

/// A touch reads one page.
pub const TOUCH_BYTES: u64 = 4096;
/// What the vendor's documentation reads at once.
const DOCUMENTED_BYTES: u64 = 1 << 20;

/// How reads of our own lie in a part of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// 1 MiB after 1 MiB.
    Documented,
    /// One page a unit.
    Touch,
    /// Every byte, in reads of the largest I/O of the volume.
    Full,
}

/// One way of warming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// One sequential read of 1 MiB at a time, as the documented `dd`.
    Dd,
    /// Sequential reads of 1 MiB, 32 in flight, as the documented `fio`.
    DocumentedFio,
    /// One read of 4 KiB per unit, so many in flight; `None` for as many as turn out best.
    Touch(Option<u32>),
    /// Every byte in reads of 256 KiB.
    Full(Option<u32>),
    /// Touches by the tokio-uring library; `None` for as many in flight as turned out best for `touch`.
    TokioUring(Option<u32>),
    /// The units of a profile.
    Profile,
    /// A foreign command: its name and its line.
    Command(String, String),
}

impl Method {
    /// What is compared when nothing else is asked for.
    pub fn usual(with_profile: bool) -> Vec<Method> {
        let all = [Method::Dd, Method::DocumentedFio, Method::Full(None), Method::Touch(None)];
        let tokio_uring = cfg!(feature = "control").then_some(Method::TokioUring(None));
        all.into_iter().chain(tokio_uring).chain(with_profile.then_some(Method::Profile)).collect()
    }

    /// Reads in flight, where that is fixed.
    pub fn depth(&self) -> Option<u32> {
        match self {
            Method::Dd => Some(1),
            Method::DocumentedFio => Some(32),
            Method::Touch(depth) | Method::Full(depth) | Method::TokioUring(depth) => *depth,
            Method::Profile | Method::Command(..) => None,
        }
    }

    /// The same, at the depth that it runs at.
    pub fn at(self, depth: Option<u32>) -> Method {
        match self {
            Method::Touch(_) => Method::Touch(depth),
            Method::Full(_) => Method::Full(depth),
            Method::TokioUring(_) => Method::TokioUring(depth),
            other => other,
        }
    }

    /// How its reads lie; `None` for those that choose themselves.
    pub fn pattern(&self) -> Option<Pattern> {
        match self {
            Method::Dd | Method::DocumentedFio => Some(Pattern::Documented),
            Method::Touch(_) | Method::TokioUring(_) => Some(Pattern::Touch),
            Method::Full(_) => Some(Pattern::Full),
            Method::Profile | Method::Command(..) => None,
        }
    }

    /// A foreign command, from `NAME=LINE`.
    pub fn command(text: &str) -> Result<Method> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        let named = text.split_once('=').filter(|(name, line)| {
            !name.is_empty() && name.len() <= 32 && name.chars().all(plain) && !line.trim().is_empty()
        });
        let (name, line) = named.ok_or_else(|| {
            Error::usage(format!("failed to parse method command `{text}`"))
                .hint("write it as NAME='COMMAND', with a name of letters, digits, dots and dashes")
        })?;
        if name.parse::<Method>().is_ok() {
            return Err(Error::usage(format!("failed to name a method command `{name}`"))
                .hint("that is the name of a method already"));
        }
        if !line.contains("{device}") {
            return Err(Error::usage(format!(
                "failed to use method command `{name}`: it names no {{device}}"
            ))
            .hint(
                "write {device}, {offset} and {size} where it takes the device and its part of it, in bytes",
            ));
        }
        Ok(Method::Command(name.into(), line.into()))
    }
}

impl Pattern {
    /// Bytes from one read to the next, and of each read.
    pub fn step(self, unit_bytes: u64) -> (u64, u64) {
        match self {
            Pattern::Documented => (DOCUMENTED_BYTES, DOCUMENTED_BYTES),
            Pattern::Touch => (unit_bytes, TOUCH_BYTES),
            Pattern::Full => (READ_BYTES_MAX, READ_BYTES_MAX),
        }
    }

    /// Its reads of some tiles.
    pub fn reads(self, tiles: &[u64], unit_bytes: u64) -> Vec<PlannedRead> {
        let (step, length) = self.step(unit_bytes);
        let offsets = tiles.iter().flat_map(|tile| (*tile..tile + TILE_BYTES).step_by(step as usize));
        offsets.map(|offset| read_at(offset, length)).collect()
    }
}

/// A read of so many bytes at an offset.
pub fn read_at(offset: u64, bytes: u64) -> PlannedRead {
    PlannedRead { start: offset / SECTOR_BYTES, sectors: (bytes / SECTOR_BYTES) as u32, stage: 0 }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Method::Dd => "dd",
            Method::DocumentedFio => "documented-fio",
            Method::Touch(_) => "touch",
            Method::Full(_) => "full",
            Method::TokioUring(_) => "tokio-uring",
            Method::Profile => "profile",
            Method::Command(name, _) => name,
        };
        f.write_str(name)?;
        match self {
            Method::Touch(Some(depth)) | Method::Full(Some(depth)) | Method::TokioUring(Some(depth)) => {
                write!(f, "@{depth}")
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Method> {
        let depth = |text: &str| text.parse().ok().filter(|depth| (1..=DEPTH_MAX).contains(depth));
        let tokio_uring = cfg!(feature = "control");
        let method = match text.split_once('@') {
            None if text == "dd" => Some(Method::Dd),
            None if text == "documented-fio" => Some(Method::DocumentedFio),
            None if text == "touch" => Some(Method::Touch(None)),
            None if text == "full" => Some(Method::Full(None)),
            None if text == "tokio-uring" && tokio_uring => Some(Method::TokioUring(None)),
            None if text == "profile" => Some(Method::Profile),
            Some(("touch", number)) => depth(number).map(|depth| Method::Touch(Some(depth))),
            Some(("full", number)) => depth(number).map(|depth| Method::Full(Some(depth))),
            Some(("tokio-uring", number)) if tokio_uring => {
                depth(number).map(|depth| Method::TokioUring(Some(depth)))
            }
            _ => None,
        };
        method.ok_or_else(|| {
            let engines = if tokio_uring { ", tokio-uring" } else { "" };
            Error::usage(format!("failed to parse method `{text}`")).hint(format!(
                "known methods: dd, documented-fio, touch, full{engines}, profile; the depth is found, or given as \
                 touch@N with N from 1 to {DEPTH_MAX}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_parses() {
        let more = [Method::Touch(Some(8)), Method::Full(Some(64))];
        for method in Method::usual(true).into_iter().chain(more) {
            assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
        }
        for text in ["", "touch@", "touch@0", "touch@9999", "cat", "full@x", "dd@3"] {
            assert!(text.parse::<Method>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_command_has_a_name_of_its_own_and_a_place_for_the_device() {
        let found = Method::command("fio-8=fio --filename={device} --x=1").unwrap();
        assert_eq!(found, Method::Command("fio-8".into(), "fio --filename={device} --x=1".into()));
        for (text, why) in [
            ("", "NAME="),
            ("fio", "NAME="),
            ("=x {device}", "NAME="),
            ("a b=x {device}", "NAME="),
            ("x=  ", "NAME="),
            ("dd=dd if={device}", "a method already"),
            ("touch@8=x {device}", "a method already"),
            ("mine=dd if=/dev/sda", "{offset}"),
        ] {
            let error = Method::command(text).unwrap_err().full_text();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_tile_is_read_as_the_method_reads() {
        let count = |pattern: Pattern| pattern.reads(&[TILE_BYTES], 512 << 10).len();
        assert_eq!((count(Pattern::Documented), count(Pattern::Full), count(Pattern::Touch)), (16, 64, 32));
    }
}
