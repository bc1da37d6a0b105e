//! On a cold volume: what each way of warming gets out of it.
//!
//! Holds: each method reads its own units, which nobody read before; nothing is called cold without evidence; what
//! was measured before a stop is kept.

mod method;
mod places;

pub use method::Method;
pub use places::{Draw, TILE_BYTES};

use crate::engine::{self, Depth, End, Outcome, Pace, Sample, Source, Verdict};
use crate::error::{Error, Result};
use crate::plan::PlannedRead;
use crate::report::{BenchReport, Evidence, LatencyUs, MethodReport, Recommended, SCHEMA, UnitFound};
use crate::units::{SECTOR_BYTES, as_s};
use hdrhistogram::Histogram;
use places::{Share, rounds};
use std::sync::atomic::AtomicBool;

/// Reads in flight that a method may ask for.
pub const DEPTH_MAX: u32 = 1024;
/// Longest read of any method.
pub const READ_BYTES_MAX: u32 = 1 << 20;
/// Units read one at a time to see how cold and warm differ.
const EVIDENCE_UNITS: usize = 24;
/// First reads must be this many times slower than warm ones to be called cold.
const COLD_RATIO: f64 = 4.0;
/// Each method runs so often, so that a passing disturbance does not fall on one.
const ROUNDS: usize = 3;
/// A depth that reaches this share of the best rate is good enough, and smaller is gentler.
const GOOD_ENOUGH: f64 = 0.95;

/// The end of a measurement that found no cold units.
pub const NOT_COLD: &str = "not cold";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which ways.
    pub methods: Vec<Method>,
    /// Bytes of the volume that may be hydrated in all.
    pub budget_bytes: u64,
    /// What is touched as one unit.
    pub unit_bytes: u64,
    /// Logical block.
    pub block_bytes: u32,
    /// For the draw of places.
    pub seed: u64,
}

/// Measures. `saved` is called with what is known so far, after each round; what could not be finished is in the
/// report's `end`, [`NOT_COLD`] where there was nothing to measure.
pub fn run<S: Source + ?Sized>(
    source: &mut S,
    volume_bytes: u64,
    options: &Options,
    stop: &AtomicBool,
    saved: &mut dyn FnMut(&BenchReport),
) -> Result<BenchReport> {
    let mut draw = Draw(options.seed);
    // The evidence takes a tile's share as if it were a method of its own.
    let plan = rounds(volume_bytes, options.budget_bytes, options.methods.len() + 1, ROUNDS, &mut draw)
        .ok_or_else(|| too_small(volume_bytes, options))?;
    let mut bench = Bench { source, options, volume_bytes, stop, tallies: Vec::new() };
    bench.tallies = options.methods.iter().map(|_| Tally::new()).collect();
    let evidence_tiles: Vec<u64> = plan
        .iter()
        .flatten()
        .filter(|s| s.method == options.methods.len())
        .flat_map(|share| share.tiles.clone())
        .collect();
    let mut report = BenchReport { schema: SCHEMA, seed: options.seed, ..BenchReport::default() };
    if let Some(end) = bench.evidence(&evidence_tiles, &mut draw, &mut report)? {
        report.end = end;
        return Ok(report);
    }
    for round in &plan {
        for share in round.iter().filter(|share| share.method < options.methods.len()) {
            if let Some(end) = bench.share(share)? {
                report.end = end;
                bench.fill_in(&mut report);
                return Ok(report);
            }
        }
        bench.fill_in(&mut report);
        saved(&report);
    }
    report.end = "complete".into();
    Ok(report)
}

fn too_small(volume_bytes: u64, options: &Options) -> Error {
    let shares = (options.methods.len() + 1) * ROUNDS;
    let needed = crate::units::human_bytes((shares as u64 + 1) * TILE_BYTES);
    let have = crate::units::human_bytes(volume_bytes.min(options.budget_bytes));
    Error::failed(format!("failed to find room for {} methods: {have} of {needed}", options.methods.len()))
        .hint("name fewer --methods, or give a larger --budget or volume")
}

/// Sums of one method over its rounds.
struct Tally {
    latency_us: Histogram<u64>,
    units: u64,
    bytes_read: u64,
    errors: u64,
    elapsed_ns: u64,
}

impl Tally {
    fn new() -> Tally {
        let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are sound");
        Tally { latency_us, units: 0, bytes_read: 0, errors: 0, elapsed_ns: 0 }
    }

    fn add(&mut self, outcome: &Outcome, units: u64) {
        let _ = self.latency_us.add(&outcome.latency_us);
        self.units += units;
        self.bytes_read += outcome.bytes_read;
        self.errors += outcome.errors;
        self.elapsed_ns += outcome.elapsed_ns();
    }
}

struct Bench<'a, S: Source + ?Sized> {
    source: &'a mut S,
    options: &'a Options,
    volume_bytes: u64,
    stop: &'a AtomicBool,
    tallies: Vec<Tally>,
}

impl<S: Source + ?Sized> Bench<'_, S> {
    fn read(&mut self, reads: Vec<PlannedRead>, depth: u32) -> Outcome {
        let options = engine::Options {
            depth: Depth::fixed(depth),
            pace: Pace::default(),
            deadline_ns: None,
            block_bytes: self.options.block_bytes,
            idle_from_stage: u16::MAX,
        };
        engine::run(self.source, reads.into_iter(), options, self.stop, &mut ())
    }

    /// Reads units one at a time, then again: the first must be slower, or nothing here is cold.
    /// `Some` with the reason where there is nothing to go on with.
    fn evidence(
        &mut self,
        tiles: &[u64],
        draw: &mut Draw,
        report: &mut BenchReport,
    ) -> Result<Option<String>> {
        let unit_bytes = self.options.unit_bytes;
        let mut reads = Method::Touch(1).reads(tiles, unit_bytes);
        draw.shuffle(&mut reads);
        reads.truncate(EVIDENCE_UNITS);
        let offsets: Vec<u64> = reads.iter().map(|read| read.offset()).collect();
        let cold = self.read(reads, 1);
        if let Some(end) = ended_early(cold.end, "the volume")? {
            return Ok(Some(end));
        }
        let samples =
            offsets.iter().map(|&offset| Sample::new(offset, 0, unit_bytes, self.volume_bytes, 4096));
        let verdict = engine::verify(self.source, samples, 4096, None, self.stop)
            .map_err(|error| Error::failed("failed to read the volume").because(error))?;
        if verdict.unfinished {
            return Ok(Some("stopped".into()));
        }
        report.cold_latency_us = LatencyUs::of(&cold.latency_us);
        report.warm_latency_us = LatencyUs::of(&warm_latency(&verdict));
        let (cold_us, warm_us) = (report.cold_latency_us.p50, report.warm_latency_us.p50.max(1));
        let ratio = cold_us as f64 / warm_us as f64;
        report.evidence = Evidence { units: offsets.len() as u64, ratio, cold: ratio >= COLD_RATIO };
        let warm = verdict.checks.len() as u64 - verdict.failed;
        report.unit = UnitFound {
            bytes: (!verdict.unit_is_wrong()).then_some(unit_bytes),
            confidence: warm as f64 / (verdict.checks.len() as f64).max(1.0),
        };
        Ok((!report.evidence.cold).then(|| NOT_COLD.into()))
    }

    /// `Some` with the reason where it ended early.
    fn share(&mut self, share: &Share) -> Result<Option<String>> {
        let method = self.options.methods[share.method];
        let units = share.tiles.len() as u64 * (TILE_BYTES / self.options.unit_bytes);
        let reads = method.reads(&share.tiles, self.options.unit_bytes);
        let outcome = self.read(reads, method.depth());
        if matches!(outcome.end, End::Complete) {
            self.tallies[share.method].add(&outcome, units);
        }
        ended_early(outcome.end, &method.to_string())
    }

    fn fill_in(&self, report: &mut BenchReport) {
        let unit_bytes = self.options.unit_bytes;
        let methods = self.options.methods.iter().zip(&self.tallies).filter(|(_, tally)| tally.units > 0);
        report.methods = methods
            .map(|(method, tally)| MethodReport {
                name: method.to_string(),
                depth: method.depth(),
                units: tally.units,
                bytes_read: tally.bytes_read,
                errors: tally.errors,
                elapsed_s: as_s(tally.elapsed_ns),
                hydrated_bytes_per_s: (tally.units * unit_bytes) as f64 / as_s(tally.elapsed_ns.max(1)),
                latency_us: LatencyUs::of(&tally.latency_us),
            })
            .collect();
        report.recommended = self.recommend(report);
    }

    /// The smallest depth that comes close to the best rate; touching only where the unit held.
    fn recommend(&self, report: &BenchReport) -> Option<Recommended> {
        let held = report.unit.bytes.is_some();
        let ours = self.options.methods.iter().filter_map(|method| {
            let mode = method.mode().filter(|mode| held || *mode == crate::plan::Mode::Full)?;
            let measured = report.methods.iter().find(|shown| shown.name == method.to_string())?;
            Some((mode, method.depth(), measured.hydrated_bytes_per_s))
        });
        let ours: Vec<_> = ours.collect();
        let best = ours.iter().map(|(_, _, rate)| *rate).fold(0.0, f64::max);
        let good = ours.into_iter().filter(|(_, _, rate)| *rate >= best * GOOD_ENOUGH);
        let (mode, depth, _) = good.min_by_key(|(mode, depth, _)| (mode.name() != "touch", *depth))?;
        Some(Recommended { mode: mode.name().into(), unit_bytes: self.options.unit_bytes, depth })
    }
}

/// Why no more can be read; `None` where it went well.
fn ended_early(end: End, what: &str) -> Result<Option<String>> {
    match end {
        End::Complete => Ok(None),
        End::Stopped | End::Deadline => Ok(Some("stopped".into())),
        End::DeviceGone => Ok(Some("device gone".into())),
        End::Failed(error) => Err(Error::failed(format!("failed to measure {what}")).because(error)),
    }
}

fn warm_latency(verdict: &Verdict) -> Histogram<u64> {
    let mut histogram = Tally::new().latency_us;
    for check in &verdict.checks {
        histogram.saturating_record(check.again_ns / 1000);
    }
    histogram
}

/// Sectors of a device as bytes.
pub fn volume_bytes(sectors: u64) -> u64 {
    sectors * SECTOR_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::{ColdVolume, Model, sectors_of};
    use crate::engine::SimSource;
    use crate::extent::ExtentSet;

    fn bench(model: &str, warm_units: &str) -> (Result<BenchReport>, SimSource) {
        let mut model = Model::named(model).unwrap();
        model.set("warm_units", warm_units).unwrap();
        let bytes = 8 << 30;
        let volume = ColdVolume::new(model, sectors_of(bytes), 5, ExtentSet::new());
        let mut source = SimSource::new(volume, DEPTH_MAX);
        let options = Options {
            methods: Method::DEFAULT.to_vec(),
            budget_bytes: 6 << 30,
            unit_bytes: 512 << 10,
            block_bytes: 512,
            seed: 3,
        };
        let report = run(&mut source, bytes, &options, &AtomicBool::new(false), &mut |_| ());
        (report, source)
    }

    #[test]
    fn what_the_law_allows_is_what_is_measured() {
        for (name, best) in [("gp3", 140e6), ("io2", 1e9), ("scarce", 10e6)] {
            let (report, source) = bench(name, "0");
            let report = report.unwrap();
            let rate = |method: &str| {
                report.methods.iter().find(|m| m.name == method).unwrap().hydrated_bytes_per_s / best
            };
            assert!((0.9..1.05).contains(&rate("touch@256")), "{name}: {}", rate("touch@256"));
            assert!(rate("dd") < 0.3 || name == "scarce", "{name}: {}", rate("dd"));
            assert_eq!(report.recommended.as_ref().unwrap().mode, "touch");
            // No method read what another had read: every unit was cold when it was counted.
            let counted: u64 = report.methods.iter().map(|method| method.units).sum();
            assert_eq!(source.volume().counters().hydrated, counted + EVIDENCE_UNITS as u64);
        }
    }

    #[test]
    fn a_warm_volume_is_not_called_cold() {
        let report = bench("gp3", "1").0.unwrap();
        assert_eq!((report.end.as_str(), report.evidence.cold, report.methods.len()), (NOT_COLD, false, 0));
        assert_eq!(report.evidence.units, EVIDENCE_UNITS as u64);
    }

    #[test]
    fn touching_is_not_recommended_where_the_unit_is_smaller() {
        let report = bench("fine", "0").0.unwrap();
        assert_eq!(report.unit.bytes, None);
        assert_eq!(report.recommended.unwrap().mode, "full");
    }
}
