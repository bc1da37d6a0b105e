//! `lab compare`: a recording held against what the emulator saw of the same time.

use crate::commands::common::read_file;
use crate::commands::output::Output;
use crate::error::{Context, Result};
use crate::extent::{Extent, ExtentSet};
use crate::lab::{Image, Stats};
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
    /// Those of them that the recording has.
    recorded: u64,
    /// The share of them.
    coverage: f64,
    /// Units that were touched and are not in the recording, in order of their touch.
    missing: Vec<u64>,
    /// Units that were read by the recording and were not touched, and are not such as the snapshot does not hold.
    /// A write may go elsewhere, to a snapshot of the emulated disk, and touch nothing.
    extra: Vec<u64>,
    /// Of the recorded units, those that were read.
    read: u64,
    /// Those that were only written.
    written_only: u64,
}

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

fn compare(stats: &Stats, recording: &Recording, holes: &ExtentSet) -> Comparison {
    let unit_sectors = stats.model.unit_bytes / SECTOR_BYTES;
    // By unit: whether it was read.
    let mut recorded: BTreeMap<u64, bool> = BTreeMap::new();
    for touch in recording.touches() {
        for unit in touch.extent.units(unit_sectors) {
            *recorded.entry(unit).or_default() |= touch.flags.has(Flags::READ);
        }
    }
    let touched: BTreeSet<u64> = stats.touched.iter().map(|touch| touch.unit).collect();
    let is_hole = |unit: &u64| {
        let place = Extent::at(unit * unit_sectors, unit_sectors);
        place.is_some_and(|place| holes.covers(place))
    };
    let order = stats.touched.iter().map(|touch| touch.unit);
    let missing: Vec<u64> = order.filter(|unit| !recorded.contains_key(unit)).collect();
    let found = touched.len() - missing.len();
    let read_units = recorded.iter().filter(|(_, read)| **read).map(|(unit, _)| unit);
    let extra = read_units.filter(|unit| !touched.contains(unit) && !is_hole(unit));
    let read = recorded.values().filter(|read| **read).count();
    Comparison {
        touched: touched.len() as u64,
        recorded: found as u64,
        coverage: if touched.is_empty() { 1.0 } else { found as f64 / touched.len() as f64 },
        missing,
        extra: extra.copied().collect(),
        read: read as u64,
        written_only: (recorded.len() - read) as u64,
    }
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
            "touched    {} units\nrecorded   {} of them, {:.2} %; {} units read, {} only written\n\
             missing    {}\nextra      {}\n",
            self.touched,
            self.recorded,
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

    #[test]
    fn what_is_missing_what_is_extra_and_what_the_snapshot_does_not_hold() {
        let at = |unit: u64| Extent::at(unit * 1024 + 16, 8).unwrap();
        let mut law = ColdVolume::new(Model::named("io2").unwrap(), 1 << 17, 4, ExtentSet::new());
        for unit in [9, 3, 5] {
            law.submit(0, unit, Op::Read, at(unit));
        }
        while law.pop_due(u64::MAX).is_some() {}
        let mut log = TouchLog::new();
        log.issue(1, at(3), Flags::READ, "init");
        log.issue(2, at(5), Flags::WRITE, "init");
        log.issue(3, at(20), Flags::READ, "init");
        log.issue(4, at(30), Flags::READ, "init");
        log.issue(5, at(40), Flags::WRITE, "init");
        let recording = log.finish(Header::default());
        let mut holes = ExtentSet::new();
        holes.insert(Extent::new(30 * 1024, 31 * 1024).unwrap());
        let found = compare(&Stats::of(&law, 4, 9), &recording, &holes);
        assert_eq!((found.touched, found.recorded, found.read, found.written_only), (3, 2, 3, 2));
        assert_eq!((found.missing.as_slice(), found.extra.as_slice()), ([9].as_slice(), [20].as_slice()));
        assert!(found.text().contains("66.67 %"), "{}", found.text());
    }
}
