//! What a recording comes to, in a few numbers.
//!
//! Holds: a pure function of the recording.

use super::{Flags, Recording, Touch};
use crate::extent::{Extent, ExtentSet};
use crate::units::{SECTOR_BYTES, as_s, human_bytes, human_ns};
use serde::Serialize;
use std::fmt::Write;

/// The unit that units are counted in: the block of the snapshot API (512 KiB), a guess until it is measured.
pub const UNIT_BYTES: u64 = 512 << 10;
/// Stalls that are listed.
const SLOWEST: usize = 5;

/// One wait of the boot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stall {
    /// Seconds since the kernel started.
    pub at_s: f64,
    /// From issue to completion.
    pub latency_us: u32,
    /// Who waited, as far as the kernel says.
    pub process: String,
    /// First sector on the whole disk.
    pub start_sector: u64,
    /// Length in sectors.
    pub sector_count: u64,
    /// Read ahead of need: nobody may have waited for it.
    pub read_ahead: bool,
}

/// A recording in a few numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Device at the time.
    pub device: String,
    /// Kernel release.
    pub kernel: String,
    /// First touches, and how many of them were reads or writes.
    pub touches: usize,
    pub reads: usize,
    pub writes: usize,
    /// Bytes touched first, by reads and by writes.
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Bytes in a unit.
    pub unit_bytes: u64,
    /// Distinct units touched at all, and by reads.
    pub units: u64,
    pub units_read: u64,
    /// Issues and completions seen.
    pub events: u64,
    /// Events lost in any way, and by CPU.
    pub lost: u64,
    pub lost_by_cpu: Vec<u64>,
    /// The recorder's own requests, left out.
    pub own: u64,
    /// From when to when, in seconds since the kernel started.
    pub from_s: f64,
    pub until_s: f64,
    /// The longest waits for reads, longest first.
    pub slowest: Vec<Stall>,
}

/// Distinct units among extents.
fn units(extents: impl Iterator<Item = Extent>) -> u64 {
    let unit_sectors = UNIT_BYTES / SECTOR_BYTES;
    let set: ExtentSet = extents.map(|extent| extent.align_out(unit_sectors)).collect();
    set.sectors() / unit_sectors
}

/// The longest waits. The pieces of one request have the same time and latency: the first stands for all.
fn slowest(recording: &Recording) -> Vec<Stall> {
    let mut longest: Vec<(u32, Touch)> = Vec::with_capacity(SLOWEST + 1);
    let mut before = None;
    for touch in recording.touches().filter(|touch| touch.flags.has(Flags::READ)) {
        let Some(latency_us) = touch.latency_us else { continue };
        let request = (touch.time_us, latency_us, touch.process);
        if before.replace(request) == Some(request) {
            continue;
        }
        let place = longest.partition_point(|(other, _)| *other >= latency_us);
        if place < SLOWEST {
            longest.insert(place, (latency_us, touch));
            longest.truncate(SLOWEST);
        }
    }
    let stall = |(latency_us, touch): (u32, Touch)| Stall {
        at_s: as_s(touch.time_us * 1_000),
        latency_us,
        process: recording.processes.get(usize::from(touch.process)).cloned().unwrap_or_default(),
        start_sector: touch.extent.start(),
        sector_count: touch.extent.sectors(),
        read_ahead: touch.flags.has(Flags::READ_AHEAD),
    };
    longest.into_iter().map(stall).collect()
}

impl Summary {
    /// Counts it up.
    pub fn of(recording: &Recording) -> Summary {
        let header = &recording.header;
        let reads = || recording.touches().filter(|touch| touch.flags.has(Flags::READ));
        let writes = || recording.touches().filter(|touch| !touch.flags.has(Flags::READ));
        Summary {
            device: header.device.clone(),
            kernel: header.kernel.clone(),
            touches: recording.touches.len(),
            reads: reads().count(),
            writes: writes().count(),
            bytes_read: reads().map(|touch| touch.extent.bytes()).sum(),
            bytes_written: writes().map(|touch| touch.extent.bytes()).sum(),
            unit_bytes: UNIT_BYTES,
            units: units(recording.touches().map(|touch| touch.extent)),
            units_read: units(reads().map(|touch| touch.extent)),
            events: header.events,
            lost: header.lost(),
            lost_by_cpu: header.lost_by_cpu.clone(),
            own: header.own,
            from_s: as_s(header.from_us.saturating_mul(1_000)),
            until_s: as_s(header.until_us.saturating_mul(1_000)),
            slowest: slowest(recording),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<10} {value}");
        line("device", format!("{} (kernel {})", shown(&self.device), shown(&self.kernel)));
        line(
            "touches",
            format!(
                "{} reads of {}, {} writes of {}",
                self.reads,
                human_bytes(self.bytes_read),
                self.writes,
                human_bytes(self.bytes_written)
            ),
        );
        let unit = human_bytes(self.unit_bytes);
        line("units", format!("{} of {unit}, {} of them read", self.units, self.units_read));
        line("events", format!("{}, {} lost, {} own left out", self.events, self.lost, self.own));
        let (from_s, until_s) = (self.from_s, self.until_s);
        let span_s = (until_s - from_s).max(0.0);
        line("time", format!("{span_s:.3} s, from {from_s:.3} s to {until_s:.3} s after the kernel's start"));
        for (number, stall) in self.slowest.iter().enumerate() {
            let kind = if stall.read_ahead { ", read ahead" } else { "" };
            let value = format!(
                "{:>8} at {:.3} s, {} sectors at {}, {}{kind}",
                human_ns(u64::from(stall.latency_us) * 1_000),
                stall.at_s,
                stall.sector_count,
                stall.start_sector,
                shown(&stall.process)
            );
            line(if number == 0 { "slowest" } else { "" }, value);
        }
        text
    }
}

/// A name from outside may hold what a terminal takes for orders.
fn shown(name: &str) -> String {
    if name.is_empty() { "unknown".into() } else { name.escape_debug().to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::{Header, TouchLog};
    use super::*;

    fn at(start: u64, sectors: u64) -> Extent {
        Extent::at(start, sectors).unwrap()
    }

    #[test]
    fn touches_become_numbers() {
        let mut log = TouchLog::new();
        log.issue(100, at(0, 8), Flags::READ, "init");
        log.complete(400, 0);
        log.issue(200, at(1016, 16), Flags::READ.with(Flags::READ_AHEAD), "evil\x1b[2J");
        log.complete(1_200, 1016);
        log.issue(300, at(4096, 8), Flags::WRITE, "kworker");
        log.complete(9_000, 4096);
        // Around what is known already: one request in two pieces is one stall.
        log.issue(400, at(1000, 64), Flags::READ, "sh");
        log.complete(1_000, 1000);
        let header = Header { lost_by_cpu: vec![2, 3], until_us: 2_000_000, ..Header::default() };
        let summary = Summary::of(&log.finish(header));
        assert_eq!((summary.touches, summary.reads, summary.writes), (5, 4, 1));
        assert_eq!((summary.units, summary.units_read), (3, 2));
        assert_eq!((summary.bytes_read, summary.bytes_written), (72 * 512, 4096));
        assert_eq!((summary.lost, summary.until_s), (5, 2.0));
        let slow: Vec<u32> = summary.slowest.iter().map(|stall| stall.latency_us).collect();
        assert_eq!(slow, [1_000, 600, 300]);
        let text = summary.text();
        assert!(text.contains("evil\\u{1b}[2J, read ahead") && text.contains("5 lost"), "{text}");
    }

    #[test]
    fn only_the_longest_are_listed_and_nothing_is_fine_too() {
        let mut log = TouchLog::new();
        for n in 1..20 {
            log.issue(n, at(n * 8, 8), Flags::READ, "a");
            log.complete(n + n % 7 * 100, n * 8);
        }
        let slow = Summary::of(&log.finish(Header::default())).slowest;
        assert_eq!(slow.iter().map(|stall| stall.latency_us).collect::<Vec<_>>(), [600, 600, 500, 500, 500]);
        assert!(Summary::of(&Recording::default()).text().contains("unknown"));
    }
}
