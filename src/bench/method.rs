//! The ways of warming that are compared. Pure.

use super::places::TILE_BYTES;
use crate::error::{Error, Result};
use crate::plan::{Mode, PlannedRead, READ_BYTES_MAX};
use crate::units::SECTOR_BYTES;
use std::fmt;
use std::str::FromStr;

/// A touch reads one page.
const TOUCH_BYTES: u64 = 4096;
/// What the vendor's documentation reads at once.
const DOCUMENTED_BYTES: u64 = 1 << 20;

/// One way of warming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One sequential read of 1 MiB at a time, as the documented `dd`.
    Dd,
    /// Sequential reads of 1 MiB, 32 in flight, as the documented `fio`.
    DocumentedFio,
    /// One read of 4 KiB per unit, so many in flight.
    Touch(u32),
    /// Every byte in reads of 256 KiB, so many in flight.
    Full(u32),
}

impl Method {
    /// What is compared when nothing else is asked for.
    pub const DEFAULT: [Method; 8] = [
        Method::Dd,
        Method::DocumentedFio,
        Method::Full(64),
        Method::Touch(8),
        Method::Touch(32),
        Method::Touch(64),
        Method::Touch(128),
        Method::Touch(256),
    ];

    /// Reads in flight.
    pub fn depth(self) -> u32 {
        match self {
            Method::Dd => 1,
            Method::DocumentedFio => 32,
            Method::Touch(depth) | Method::Full(depth) => depth,
        }
    }

    /// The mode of `warm` that does this; `None` for what others do.
    pub fn mode(self) -> Option<Mode> {
        match self {
            Method::Touch(_) => Some(Mode::Touch),
            Method::Full(_) => Some(Mode::Full),
            Method::Dd | Method::DocumentedFio => None,
        }
    }

    /// Its reads of some tiles.
    pub fn reads(self, tiles: &[u64], unit_bytes: u64) -> Vec<PlannedRead> {
        let (step, length) = match self {
            Method::Dd | Method::DocumentedFio => (DOCUMENTED_BYTES, DOCUMENTED_BYTES),
            Method::Full(_) => (READ_BYTES_MAX, READ_BYTES_MAX),
            Method::Touch(_) => (unit_bytes, TOUCH_BYTES),
        };
        let offsets = tiles.iter().flat_map(|tile| (*tile..tile + TILE_BYTES).step_by(step as usize));
        let read = |offset| PlannedRead {
            start: offset / SECTOR_BYTES,
            sectors: (length / SECTOR_BYTES) as u32,
            stage: 0,
        };
        offsets.map(read).collect()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Dd => f.write_str("dd"),
            Method::DocumentedFio => f.write_str("documented-fio"),
            Method::Touch(depth) => write!(f, "touch@{depth}"),
            Method::Full(depth) => write!(f, "full@{depth}"),
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Method> {
        let depth = |text: &str| text.parse().ok().filter(|depth| (1..=super::DEPTH_MAX).contains(depth));
        let method = match text.split_once('@') {
            None if text == "dd" => Some(Method::Dd),
            None if text == "documented-fio" => Some(Method::DocumentedFio),
            Some(("touch", number)) => depth(number).map(Method::Touch),
            Some(("full", number)) => depth(number).map(Method::Full),
            _ => None,
        };
        method.ok_or_else(|| {
            Error::usage(format!("failed to parse method `{text}`")).hint(format!(
                "known methods: dd, documented-fio, touch@N, full@N with N from 1 to {}",
                super::DEPTH_MAX
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_parses() {
        for method in Method::DEFAULT {
            assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
        }
        for text in ["", "touch", "touch@0", "touch@9999", "cat", "full@x"] {
            assert!(text.parse::<Method>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_tile_is_read_as_the_method_reads() {
        let count = |method: Method| method.reads(&[TILE_BYTES], 512 << 10).len();
        assert_eq!((count(Method::Dd), count(Method::Full(1)), count(Method::Touch(1))), (16, 64, 32));
    }
}
