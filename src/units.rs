//! Bytes, rates and durations: parsing and printing, each with its unit spelled out.
//!
//! Holds: whatever prints parses again to the same value. No I/O, no clock.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bytes in a sector, the kernel's unit for positions on a disk whatever its block size.
pub const SECTOR_BYTES: u64 = 512;

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// A size in bytes, written `512KiB`, `140MB`, `4096`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A rate in bytes a second, written `140MB/s`, `125MiB/s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

const SUFFIXES: [(&str, u64); 11] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// Splits `12.5MiB` in its number and its suffix.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn parse_scaled(number: &str, scale: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let value = number.parse::<f64>().ok()? * scale as f64;
    (value.is_finite() && (0.0..1.8e19).contains(&value)).then(|| value.round() as u64)
}

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, suffix) = split_number(text.trim());
        SUFFIXES
            .iter()
            .find(|(name, _)| *name == suffix)
            .and_then(|(_, scale)| parse_scaled(number, *scale))
            .map(ByteSize)
            .ok_or_else(|| {
                Error::usage(format!("failed to parse size `{text}`"))
                    .hint("write it as 512KiB, 140MB or 4096")
            })
    }
}

/// The largest suffix that divides the value keeps the text exact.
fn fmt_exact(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if value == 0 {
        return f.write_str("0");
    }
    let names = ["TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB"];
    for name in names {
        let scale = SUFFIXES.iter().find(|(suffix, _)| *suffix == name).map_or(1, |(_, scale)| *scale);
        if value.is_multiple_of(scale) {
            return write!(f, "{}{name}", value / scale);
        }
    }
    write!(f, "{value}")
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_exact(self.0, f)
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let size = text.trim().strip_suffix("/s").unwrap_or(text);
        ByteSize::from_str(size).map(|size| Rate(size.0)).map_err(|_| {
            Error::usage(format!("failed to parse rate `{text}`")).hint("write it as 140MB/s or 125MiB/s")
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_exact(self.0, f)?;
        f.write_str("/s")
    }
}

/// Bytes for people, rounded to three digits: `1.50 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for suffix in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if suffix == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.3} {suffix}").shorten()
            };
        }
        value /= 1024.0;
    }
    format!("{value:.3} TiB").shorten()
}

/// A duration for people: `35.2 ms`, `1.90 s`.
pub fn human_ns(ns: u64) -> String {
    let value = ns as f64;
    let (value, suffix) = match ns {
        0..1_000_000 => (value / 1e3, "us"),
        1_000_000..NS_PER_S => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    format!("{value:.3} {suffix}").shorten()
}

trait Shorten {
    fn shorten(self) -> String;
}

impl Shorten for String {
    /// Keeps three significant digits of `123.456 unit`.
    fn shorten(self) -> String {
        let (number, unit) = self.split_once(' ').unwrap_or((&self, ""));
        let whole = number.find('.').unwrap_or(number.len());
        let keep = match whole {
            1 => 4,
            2 => 4,
            _ => whole,
        };
        format!("{} {unit}", &number[..keep.min(number.len())])
    }
}

/// Parses `2s`, `500ms`, `250us`, `10m`; a bare number is refused, its unit would be a guess.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let (number, suffix) = split_number(text.trim());
    let scale_ns = match suffix {
        "ns" => Some(1),
        "us" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(NS_PER_S),
        "m" | "min" => Some(60 * NS_PER_S),
        "h" => Some(3_600 * NS_PER_S),
        _ => None,
    };
    scale_ns.and_then(|scale| parse_scaled(number, scale)).map(Duration::from_nanos).ok_or_else(|| {
        Error::usage(format!("failed to parse duration `{text}`")).hint("write it as 2s, 500ms or 10m")
    })
}

/// A duration as nanoseconds, at most `u64::MAX` (584 years).
pub fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds as [`human_ns`] has them; what is negative is nothing.
pub fn human_s(seconds: f64) -> String {
    human_ns((seconds * 1e9) as u64)
}

/// Nanoseconds as seconds, for reports.
pub fn as_s(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [
            ("512KiB", 524_288),
            ("4096", 4096),
            ("1.5MiB", 1_572_864),
            ("140MB", 140_000_000),
            ("0", 0),
            ("2 GiB", 2 << 30),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
        for text in ["", "KiB", "12Q", "-1", "1e3", "99999999999999999999TiB", "1.2.3MB", "µs"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_and_durations_parse() {
        assert_eq!("140MB/s".parse::<Rate>().unwrap(), Rate(140_000_000));
        assert_eq!("125MiB/s".parse::<Rate>().unwrap().to_string(), "125MiB/s");
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert!(parse_duration("5").unwrap_err().full_text().contains("500ms"));
    }

    #[test]
    fn human_text_keeps_three_digits() {
        assert_eq!(human_bytes(524_288), "512 KiB");
        assert_eq!(human_bytes(1_610_612_736), "1.50 GiB");
        assert_eq!(human_bytes(17), "17 B");
        assert_eq!(human_ns(35_200_000), "35.2 ms");
        assert_eq!(human_ns(1_900_000_000), "1.90 s");
    }

    proptest! {
        #[test]
        fn what_prints_parses(bytes in any::<u64>()) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>().unwrap(), ByteSize(bytes));
            prop_assert_eq!(Rate(bytes).to_string().parse::<Rate>().unwrap(), Rate(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = (text.parse::<ByteSize>(), text.parse::<Rate>(), parse_duration(&text));
        }
    }
}
