//! Reports as plain values, and their text for people. The names of fields are a contract (see README).
//!
//! Not here: devices, clocks, files.

mod bench;
mod bins;
mod document;
mod effect;
#[cfg(feature = "report")]
mod histograms;
mod map;
#[cfg(feature = "report")]
mod markdown;
#[cfg(feature = "report")]
mod page;
mod prices;
mod probe;
mod prometheus;
mod volumes;

pub use bench::*;
pub use bins::*;
pub use document::*;
pub use effect::*;
#[cfg(feature = "report")]
pub use histograms::*;
pub use map::*;
pub use prices::*;
pub use probe::*;
pub use prometheus::*;
pub use volumes::*;

#[cfg(feature = "report")]
use bench::mb_per_s;
#[cfg(feature = "report")]
use probe::{confidence, percent};

use crate::units::{human_bytes, human_ns, human_s};
use serde::Serialize;
use std::fmt::Write;

/// Version of the reports' fields; additions do not change it.
pub const SCHEMA: u32 = 1;

/// What came of one stage of warming.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Units in it that no earlier stage has.
    pub units: u64,
    /// Units of which something was not read: the reads were not begun, or had not ended. Unreadable blocks are not
    /// among them.
    pub units_left: u64,
    /// Planned reads that were done.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that could not be read.
    pub errors: u64,
    /// When its first read was submitted, seconds since warming began; `null` where none was.
    pub started_s: Option<f64>,
    /// From its first read to the end of its last.
    pub elapsed_s: f64,
}

/// Sums over all stages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Units planned.
    pub units: u64,
    /// Sum of the stages' units that are left.
    pub units_left: u64,
    /// Planned reads that were done.
    pub reads: u64,
    /// Bytes read, verification not among them.
    pub bytes_read: u64,
    /// Blocks that could not be read.
    pub errors: u64,
    /// Reads submitted again.
    pub retries: u64,
    /// Units whose touch came back as fast as a warm read, at least; `null` where that was not measured.
    pub already_warm: Option<u64>,
    /// Planned reads that an earlier run had done.
    pub resumed: u64,
    /// Planned reads that were left out since the boot had read their units.
    pub taken: u64,
    /// Reads beyond the plan, to find out whether the volume is warm already.
    pub extra_reads: u64,
    /// For how long reads that nobody waits for stood back for others', seconds.
    pub held_back_s: f64,
    /// Touched units that were read again elsewhere.
    pub verified: u64,
    /// Those of them that took as long as a cold read, as some do on a busy machine.
    pub verify_failed: u64,
    /// From the first read to the end of the last.
    pub elapsed_s: f64,
    /// Processor seconds of the process.
    pub cpu_s: f64,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencyUs {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl LatencyUs {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> LatencyUs {
        let at = |quantile| histogram.value_at_quantile(quantile);
        LatencyUs { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
    }
}

/// Latencies that are given in nanoseconds, as a histogram in microseconds.
pub fn histogram_us(ns: impl IntoIterator<Item = u64>) -> hdrhistogram::Histogram<u64> {
    let mut histogram = empty_histogram_us();
    ns.into_iter().for_each(|ns| histogram.saturating_record(ns / 1000));
    histogram
}

/// A histogram in microseconds, up to ten minutes, with three digits.
pub fn empty_histogram_us() -> hdrhistogram::Histogram<u64> {
    hdrhistogram::Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are sound")
}

/// Reads in flight.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DepthReport {
    pub initial: u32,
    pub max: u32,
    #[serde(rename = "final")]
    pub last: u32,
}

/// An extent that could not be read.
#[derive(Clone, Debug, Serialize)]
pub struct Unreadable {
    /// First sector.
    pub start_sector: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// Why.
    pub error: String,
}

/// What `warm` did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WarmReport {
    pub schema: u32,
    /// How it ended: `complete`, `already warm`, `stopped`, `deadline`, `device gone`, `failed`, `refused`.
    pub end: String,
    /// Why it did not end well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As it was named.
    pub device: String,
    /// What it was recognised by.
    pub volume: Option<crate::volume::Identity>,
    /// Name of the profile, empty where there was none.
    pub profile: String,
    /// `touch` or `full`: what was done in the end.
    pub mode: String,
    /// Unit that the plan was made for, in bytes.
    pub unit_bytes: u64,
    /// Whether touching a block of each was not enough: more of those verified were cold than is a busy machine's doing.
    pub unit_is_wrong: bool,
    /// What carried the reads.
    pub engine: String,
    pub stages: Vec<StageReport>,
    pub totals: Totals,
    pub latency_us: LatencyUs,
    pub latency_bins: Bins,
    /// Latency of a warm read by the verification; `null` where nothing was verified.
    pub warm_latency_us: Option<u64>,
    pub depth: DepthReport,
    /// Seconds from kernel start to the first read.
    pub first_read_uptime_s: f64,
    /// The first of the extents that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Reads that were under way or due to be repeated when it ended.
    pub abandoned: u64,
    /// Over time: seconds since the first read, bytes hydrated by then if all was cold, reads that might be in flight.
    pub series: Vec<(f64, u64, u32)>,
    /// What became of the units, by place.
    pub map: VolumeMap,
    /// What was noticed on the way.
    pub notes: Vec<String>,
}

impl WarmReport {
    /// Makes it the report of both passes, of which the first is given: its reads were touches, and this one began so
    /// many seconds after it.
    pub fn follow(&mut self, first: WarmReport, after_s: f64) {
        self.notes = first.notes;
        self.first_read_uptime_s = first.first_read_uptime_s;
        self.warm_latency_us = first.warm_latency_us;
        for stage in &mut self.stages {
            stage.started_s = stage.started_s.map(|started_s| started_s + after_s);
        }
        let later = std::mem::replace(&mut self.series, first.series);
        // Its touches have warmed what they read, for certain no more.
        let touched = self.series.last().map_or(0, |(_, bytes, _)| *bytes).max(1) as f64;
        let share = first.totals.bytes_read as f64 / touched;
        self.series.iter_mut().for_each(|(_, bytes, _)| *bytes = (*bytes as f64 * share) as u64);
        self.go_on(later, after_s);
        let (totals, before) = (&mut self.totals, first.totals);
        self.unit_is_wrong = first.unit_is_wrong;
        totals.already_warm = before.already_warm;
        totals.verified = before.verified;
        totals.verify_failed = before.verify_failed;
        totals.retries += before.retries;
        totals.bytes_read += before.bytes_read;
        totals.elapsed_s += after_s;
    }

    /// Adds what came so many seconds later.
    fn go_on(&mut self, later: Vec<(f64, u64, u32)>, after_s: f64) {
        let before = self.series.last().map_or(0, |(_, bytes, _)| *bytes);
        self.series.extend(later.into_iter().map(|(s, bytes, depth)| (s + after_s, before + bytes, depth)));
    }

    /// Whether all was read, or need not be.
    pub fn is_complete(&self) -> bool {
        matches!(self.end.as_str(), "complete" | "already warm")
    }

    /// Makes it the report of the stages and of the rest, which began so many seconds later. Latencies and depth are those
    /// of the stages: what the boot waits for.
    pub fn then(mut self, rest: WarmReport, after_s: f64) -> WarmReport {
        let shifted = |mut stage: StageReport| {
            stage.started_s = stage.started_s.map(|started_s| started_s + after_s);
            stage
        };
        self.stages.extend(rest.stages.into_iter().map(shifted));
        (self.end, self.error) = match (self.end.as_str(), rest.end) {
            // The boot's part was warm, the rest was not.
            ("already warm", end) if end == "complete" => (end, None),
            ("complete", end) if end == "already warm" => (self.end, None),
            (_, end) => (end, rest.error),
        };
        self.unit_is_wrong |= rest.unit_is_wrong;
        let (totals, more) = (&mut self.totals, rest.totals);
        totals.units += more.units;
        totals.units_left += more.units_left;
        totals.reads += more.reads;
        totals.bytes_read += more.bytes_read;
        totals.errors += more.errors;
        totals.retries += more.retries;
        totals.already_warm = totals.already_warm.zip(more.already_warm).map(|(one, other)| one + other);
        totals.resumed += more.resumed;
        totals.taken += more.taken;
        totals.extra_reads += more.extra_reads;
        totals.held_back_s += more.held_back_s;
        totals.verified += more.verified;
        totals.verify_failed += more.verify_failed;
        totals.elapsed_s = after_s + more.elapsed_s;
        totals.cpu_s = more.cpu_s;
        self.unreadable.extend(rest.unreadable);
        self.abandoned += rest.abandoned;
        self.go_on(rest.series, after_s);
        self.map.then(rest.map);
        self.notes.extend(rest.notes);
        self
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let totals = &self.totals;
        let _ = writeln!(out, "{}: {} ({} mode, {})", self.device, self.end, self.mode, self.engine);
        let _ = writeln!(
            out,
            "{} of {} units read with {} reads, {}, in {}",
            totals.units - totals.units_left.min(totals.units),
            totals.units,
            totals.reads,
            human_bytes(totals.bytes_read),
            human_s(totals.elapsed_s),
        );
        if self.stages.len() > 1 {
            for stage in &self.stages {
                let _ = writeln!(
                    out,
                    "  {:<10} {:>7} units {:>7} reads  from {:>8}  took {:>8}",
                    stage.name,
                    stage.units,
                    stage.reads,
                    stage.started_s.map_or_else(|| "-".into(), human_s),
                    human_s(stage.elapsed_s),
                );
            }
        }
        let us = |us: u64| human_ns(us * 1000);
        let latency = &self.latency_us;
        let _ = writeln!(
            out,
            "latency p50 {}, p99 {}, max {}; depth {} to {}",
            us(latency.p50),
            us(latency.p99),
            us(latency.max),
            self.depth.initial,
            self.depth.last,
        );
        if totals.verified > 0 {
            let warm = totals.verified - totals.verify_failed;
            let _ =
                writeln!(out, "verified: {warm} of {} sampled units are warm throughout", totals.verified);
        }
        if totals.errors > 0 {
            let _ = writeln!(out, "{} blocks could not be read, the first at:", totals.errors);
            for bad in self.unreadable.iter().take(5) {
                let _ = writeln!(out, "  sector {} +{}: {}", bad.start_sector, bad.sectors, bad.error);
            }
        }
        if self.abandoned > 0 {
            let _ = writeln!(out, "{} reads were not waited for", self.abandoned);
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }
}
