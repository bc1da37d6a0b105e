//! `lab compare`: a recording held against what the emulator saw of the same time.

use crate::commands::common::read_file;
use crate::commands::output::Output;
use crate::error::{Context, Result};
use crate::extent::{Extent, ExtentSet};
use crate::lab::{FirstTouch, Image, Stats};
use crate::recording::{Flags, Recording, format};
use crate::units::SECTOR_BYTES;
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A document of 4 million units is 200 MB.
const STATS_BYTES_MAX: u64 = 256 << 20;
/// As for the verbs that read recordings.
const RECORDING_BYTES_MAX: u64 = 256 << 20;
/// Units that are named to people; the JSON has all.
const SHOWN: usize = 8;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm --json lab stats cold > stats.json
  ebs-prewarm lab compare stats.json boot.rec")]
pub struct CompareArgs {
    /// What `ebs-prewarm --json lab stats DIR` printed when the recording ended
    stats: PathBuf,
    /// The recording
    recording: PathBuf,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Comparison {
    /// Cold units that the emulator saw touched.
    touched: u64,
    /// Those of them that were touched before the recording began, by a boot loader or the kernel: out of its reach.
    before: u64,
    /// Those that were touched when it had ended.
    after: u64,
    /// Those that the recording has as touched by the boot.
    recorded: u64,
    /// Those that only the recorder itself touched, and says so.
    own: u64,
    /// Of those that were touched while it recorded, the share that it has.
    coverage: f64,
    /// Units that were touched while it recorded and are not in the recording, in order of their touch.
    missing: Vec<u64>,
    /// Units that were read by the recording and were not touched, and are not such as the snapshot does not hold.
    /// A write may go elsewhere, to a snapshot of the emulated disk, and touch nothing.
    extra: Vec<u64>,
    /// Of the recorded units, those that were read.
    read: u64,
    /// Those that were only written.
    written_only: u64,
}

/// The recorder's clock and the emulator's are compared at the touches that both saw; this much of an error is left,
/// since a touch is seen first by the one and then by the other.
const CLOCK_NS: i64 = 50_000_000;

/// Compares.
pub fn run(args: CompareArgs, output: Output) -> Result<()> {
    let (stats, recording) = (args.stats.display(), args.recording.display());
    let bytes = read_file(&args.stats, "statistics", STATS_BYTES_MAX)?;
    let stats: Stats =
        serde_json::from_slice(&bytes).context(|| format!("failed to parse statistics `{stats}`"))?;
    let bytes = read_file(&args.recording, "recording", RECORDING_BYTES_MAX)?;
    let recording = format::decode(&bytes).context(|| format!("failed to load recording `{recording}`"))?;
    let holes = Image::open(std::path::Path::new(&stats.image), false)?.holes()?;
    output.print(&compare(&stats, &recording, &holes), Comparison::text)
}

/// What a recording knows of a unit.
struct Seen {
    /// When it was touched first.
    at_ns: i64,
    /// When it was read first.
    read_ns: Option<i64>,
}

/// By unit.
fn seen(recording: &Recording, unit_sectors: u64) -> BTreeMap<u64, Seen> {
    let mut units: BTreeMap<u64, Seen> = BTreeMap::new();
    // In order of time.
    for touch in recording.touches() {
        let at_ns = touch.time_us as i64 * 1_000;
        let read_ns = touch.flags.has(Flags::READ).then_some(at_ns);
        for unit in touch.extent.units(unit_sectors) {
            let seen = units.entry(unit).or_insert(Seen { at_ns, read_ns });
            seen.read_ns = seen.read_ns.or(read_ns);
        }
    }
    units
}

/// What the emulator's clock shows when the recorder's shows 0, at the median of what both saw.
fn clock_ns(stats: &Stats, seen: &BTreeMap<u64, Seen>) -> Option<i64> {
    let both = |touch: &FirstTouch| Some(touch.at_ns as i64 - seen.get(&touch.unit)?.at_ns);
    let mut distances: Vec<i64> = stats.touched.iter().filter_map(both).collect();
    distances.sort_unstable();
    distances.get(distances.len() / 2).copied()
}

fn compare(stats: &Stats, recording: &Recording, holes: &ExtentSet) -> Comparison {
    let unit_sectors = stats.model.unit_bytes / SECTOR_BYTES;
    let seen = seen(recording, unit_sectors);
    let header = &recording.header;
    let own: BTreeSet<u64> = recording.own.iter().flat_map(|extent| extent.units(unit_sectors)).collect();
    let clock_ns = clock_ns(stats, &seen);
    let mut found = Comparison { touched: stats.touched.len() as u64, ..Comparison::default() };
    for FirstTouch { unit, at_ns } in &stats.touched {
        let recorder_ns = clock_ns.map(|clock_ns| *at_ns as i64 - clock_ns);
        if seen.contains_key(unit) {
            found.recorded += 1;
        } else if own.contains(unit) {
            found.own += 1;
        } else if recorder_ns.is_some_and(|at_ns| at_ns < header.from_us as i64 * 1_000 - CLOCK_NS) {
            found.before += 1;
        } else if recorder_ns.is_some_and(|at_ns| at_ns > header.until_us as i64 * 1_000 + CLOCK_NS) {
            found.after += 1;
        } else {
            found.missing.push(*unit);
        }
    }
    let within = found.touched - found.before - found.after;
    found.coverage = 1.0 - found.missing.len() as f64 / within.max(1) as f64;
    let touched: BTreeSet<u64> = stats.touched.iter().map(|touch| touch.unit).collect();
    let is_hole = |unit: u64| {
        let place = Extent::at(unit * unit_sectors, unit_sectors);
        place.is_some_and(|place| holes.covers(place))
    };
    // The statistics were taken at some moment, and the recorder may have gone on.
    let counted =
        |read_ns: i64| clock_ns.is_none_or(|clock_ns| read_ns + clock_ns < stats.now_ns as i64 - CLOCK_NS);
    let reads = seen.iter().filter_map(|(unit, seen)| Some((*unit, seen.read_ns?)));
    found.read = reads.clone().count() as u64;
    found.written_only = seen.len() as u64 - found.read;
    let unseen = reads.filter(|(unit, read_ns)| !touched.contains(unit) && counted(*read_ns));
    found.extra = unseen.map(|(unit, _)| unit).filter(|unit| !is_hole(*unit)).collect();
    found
}

impl Comparison {
    fn text(&self) -> String {
        let list = |units: &[u64]| {
            let shown: Vec<String> = units.iter().take(SHOWN).map(u64::to_string).collect();
            let more = if units.len() > SHOWN { ", ..." } else { "" };
            if units.is_empty() {
                "none".into()
            } else {
                format!("{} ({}{more})", units.len(), shown.join(", "))
            }
        };
        format!(
            "touched    {} units, {} before the recording began and {} when it had ended\n\
             recorded   {}, and {} by the recorder alone: {:.2} % of those in between; {} units read, {} only \
             written\nmissing    {}\nextra      {}\n",
            self.touched,
            self.before,
            self.after,
            self.recorded,
            self.own,
            self.coverage * 100.0,
            self.read,
            self.written_only,
            list(&self.missing),
            list(&self.extra),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::{ColdVolume, Model, Op};
    use crate::recording::{Header, TouchLog};

    fn at(unit: u64) -> Extent {
        Extent::at(unit * 1024 + 16, 8).unwrap()
    }

    /// The emulator's clock starts 2 s after the recorder's. Each unit is touched at its second.
    fn volume(touches: &[(u64, u64)]) -> Stats {
        let mut law = ColdVolume::new(Model::named("io2").unwrap(), 1 << 17, 4, ExtentSet::new());
        for (unit, at_s) in touches {
            law.submit((at_s - 2) * 1_000_000_000, *unit, Op::Read, at(*unit));
        }
        while law.pop_due(u64::MAX).is_some() {}
        Stats::of(&law, 4, 8_000_000_000)
    }

    #[test]
    fn what_is_missing_what_is_extra_and_what_the_snapshot_does_not_hold() {
        let stats = volume(&[(9, 6), (3, 4), (5, 5), (7, 6)]);
        let mut log = TouchLog::new();
        log.issue(4_000_000, at(3), Flags::READ, "init");
        log.issue(5_000_000, at(5), Flags::WRITE, "init");
        log.issue(6_000_000, at(20), Flags::READ, "init");
        log.issue(6_000_000, at(30), Flags::READ, "init");
        log.issue(6_000_000, at(40), Flags::WRITE, "init");
        log.own(at(7));
        let recording = log.finish(Header { from_us: 1, until_us: 20_000_000, ..Header::default() });
        let mut holes = ExtentSet::new();
        holes.insert(Extent::new(30 * 1024, 31 * 1024).unwrap());
        let found = compare(&stats, &recording, &holes);
        assert_eq!((found.touched, found.recorded, found.own), (4, 2, 1));
        assert_eq!((found.read, found.written_only), (3, 2));
        assert_eq!((found.missing.as_slice(), found.extra.as_slice()), ([9].as_slice(), [20].as_slice()));
        assert!(found.text().contains("75.00 %"), "{}", found.text());
    }

    #[test]
    fn what_only_one_of_both_could_see_is_told_apart() {
        let stats = volume(&[(1, 2), (3, 4), (5, 5), (9, 9)]);
        let mut log = TouchLog::new();
        log.issue(4_000_000, at(3), Flags::READ, "init");
        log.issue(5_000_000, at(5), Flags::READ, "init");
        // The statistics are of second 10.
        log.issue(10_500_000, at(20), Flags::READ, "init");
        let recording = log.finish(Header { from_us: 3_000_000, until_us: 8_000_000, ..Header::default() });
        let found = compare(&stats, &recording, &ExtentSet::new());
        assert_eq!((found.before, found.recorded, found.after, found.coverage), (1, 2, 1, 1.0));
        assert_eq!((found.missing.len(), found.extra.len()), (0, 0));
    }
}
