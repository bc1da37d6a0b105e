//! On a cold volume: how it hydrates, and what each way of warming gets out of it.
//!
//! Holds: each method reads its own units, which nobody read before; nothing is called cold without evidence, and
//! blocks of each part are read again to see what is warm by then; what was measured before a stop is kept. Not here:
//! how devices are opened, files.

mod bed;
mod foreign;
mod machine;
mod meter;
mod method;
mod parts;
mod places;
mod recommend;
mod spoilt;
mod sweep;
mod tail;
mod tally;
#[cfg(feature = "control")]
mod tokio;

pub use bed::{Bed, Look, OtherReads, Ran};
pub use machine::Machine;
pub use method::{Method, Pattern};
pub use places::{Draw, TILE_BYTES};
pub use spoilt::is_busy;
pub use sweep::{Point, Sweep};
pub use tally::foreground;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::probe::{self, Kinds};
use crate::report::{
    BenchReport, Bins, ColdShare, LatencyUs, MethodReport, Named, Quantiles, SCHEMA, SweepPoint, SweepReport,
    UnitFound,
};
use crate::units::{NS_PER_S, human_bytes};
use hdrhistogram::Histogram;
use meter::Meter;
use places::Pool;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use tally::{Row, map_unit_bytes, runs};

/// Reads in flight that a method may ask for.
pub const DEPTH_MAX: u32 = 1024;
/// Slots that a source must have: so many more for reads that have stalled.
pub const SLOTS: u32 = DEPTH_MAX + 256;
/// Longest read of any method.
pub const READ_BYTES_MAX: u32 = 1 << 20;
/// What is touched as one unit where the unit cannot be told: the block of the snapshot API (vendor documentation).
pub const UNIT_BYTES: u64 = 512 << 10;
/// Each method has so many parts, so that a passing disturbance does not fall on one.
const ROUNDS: u64 = 3;
/// Tiles of a part of a method, where its depth asks for no more.
const PART_TILES: u64 = 8;
/// Tiles that the probe looks at.
const PROBE_TILES_MAX: u64 = 64;
/// First reads of a usual bench. With a sigma of 0.6, which was the widest seen, the 99th percentile of so many is
/// within 10 % of the true one in 98 of 100; of 1,000 it was in 84.
pub const FIRST_TOUCHES: u64 = 3000;
/// They take no longer: so many take 126 s at 35 ms, and volumes are slower.
pub const FIRST_TOUCHES_NS: u64 = 150 * NS_PER_S;
/// And no more than this share of the budget: one in so many tiles.
const FIRST_TOUCHES_OF: u64 = 5;
/// A sweep of less is none.
const SWEEP_TILES_MIN: u64 = 3;
/// Where less is cold with 95 % confidence, there is nothing to measure.
const COLD_SHARE_MIN: f64 = 0.2;

/// Share of cold reads that are faster than what is asked of a block to be called cold once more.
const FASTEST_COLD: f64 = 0.02;

/// The end of a measurement that found no cold units.
pub const NOT_COLD: &str = "not cold";
/// The end of one that is not complete because it was asked to stop.
const STOPPED: &str = "stopped";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which ways.
    pub methods: Vec<Method>,
    /// Size of the volume.
    pub volume_bytes: u64,
    /// Bytes of the volume that may be hydrated in all.
    pub budget_bytes: u64,
    /// What is touched as one unit; `None` for what is found.
    pub unit_bytes: Option<u64>,
    /// Reads in flight at the most: what the device's queue takes.
    pub depth_max: u32,
    /// Units that are touched one at a time for the distribution of first reads.
    pub first_touches: u64,
    /// They take no longer.
    pub first_touches_ns: u64,
    /// What is known to be written; `None` where that is not known.
    pub allowed: Option<ExtentSet>,
    /// Stages of a profile, the most urgent first, for the method that warms it.
    pub profile: Vec<(String, Vec<Extent>)>,
    /// For the draw of places.
    pub seed: u64,
}

/// What was measured so far.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// As it is told.
    pub report: BenchReport,
    /// All latencies, by what they are of.
    pub histograms: Vec<Named>,
}

/// Why it does not go on.
enum Ended {
    /// The report's `end`.
    Early(&'static str),
    Failed(Error),
}

type Step<T = ()> = std::result::Result<T, Ended>;

/// Measures. `saved` is called with what is known so far, after each part; what could not be finished is in the
/// report's `end`, [`NOT_COLD`] where there was nothing to measure. An error means that nothing was read.
pub fn run(
    bed: &mut dyn Bed,
    options: &Options,
    stop: &AtomicBool,
    saved: &mut dyn FnMut(&Measured),
) -> Result<Measured> {
    let mut draw = Draw(options.seed);
    let with_profile = options.methods.contains(&Method::Profile);
    let profile = options.profile.iter().flat_map(|(_, extents)| extents.iter().copied());
    let reserved: ExtentSet = profile.filter(|_| with_profile).collect();
    let allowed = options.allowed.as_ref();
    let pool = Pool::new(options.volume_bytes, options.budget_bytes, allowed, &reserved, &mut draw);
    let unit_bytes = options.unit_bytes.unwrap_or(UNIT_BYTES);
    let room = Room::of(options, pool.len(), unit_bytes).ok_or_else(|| too_small(options, &pool))?;
    let report = BenchReport {
        schema: SCHEMA,
        end: "measuring".into(),
        engine: bed.source().describe(),
        seed: options.seed,
        ..BenchReport::default()
    };
    let mut bench = Bench {
        bed,
        meter: Meter::new(SLOTS),
        options,
        stop,
        draw,
        pool,
        room,
        unit_bytes,
        cut_ns: u64::MAX,
        check_us: u64::MAX,
        rows: Vec::new(),
        sweeps: Vec::new(),
        measured: Measured { report, histograms: Vec::new() },
        saved,
    };
    let end = match bench.all() {
        Ok(()) => "complete".into(),
        Err(Ended::Early(end)) => end.into(),
        Err(Ended::Failed(error)) => {
            bench.measured.report.error = Some(error.full_text());
            "failed".to_string()
        }
    };
    bench.measured.report.end = end;
    bench.fill_in();
    Ok(bench.measured)
}

/// How much of the volume each of them gets, in tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Room {
    probe: u64,
    first_touches: u64,
    /// Parts of each method.
    rounds: u64,
    /// What each part gets of what it would want.
    scale: f64,
    /// Of each sweep in all.
    sweep: u64,
}

impl Room {
    /// Of so many tiles; `None` where that is too little.
    fn of(options: &Options, tiles: u64, unit_bytes: u64) -> Option<Room> {
        let sweeps = options.methods.iter().filter(|method| is_sweep(method)).count() as u64;
        let others = options.methods.iter().filter(|method| !is_sweep(method) && **method != Method::Profile);
        let wanted: Vec<u64> = others.map(|method| tiles_wanted(method, unit_bytes)).collect();
        let probe = (tiles / 4).clamp(1, PROBE_TILES_MAX);
        let first_touches = options
            .first_touches
            .div_ceil(TILE_BYTES / unit_bytes)
            .clamp(1, (tiles / FIRST_TOUCHES_OF).max(1));
        let left = tiles.checked_sub(probe + first_touches)?;
        let least = wanted.len() as u64 + SWEEP_TILES_MIN * sweeps;
        if left < least {
            return None;
        }
        let rounds = if left >= ROUNDS * least { ROUNDS } else { 1 };
        let all = rounds * wanted.iter().sum::<u64>();
        let theirs = all.min(if sweeps > 0 { left / 2 } else { left });
        let scale = theirs as f64 / all.max(1) as f64;
        // A part has a tile at the least, so that theirs may be more than their share.
        let parts = rounds * wanted.iter().map(|wanted| scaled(*wanted, scale)).sum::<u64>();
        let sweep = left.saturating_sub(parts).checked_div(sweeps).unwrap_or(0);
        Some(Room { probe, first_touches, rounds, scale, sweep })
    }

    /// Tiles of a part of a method.
    fn part(&self, method: &Method, unit_bytes: u64) -> u64 {
        scaled(tiles_wanted(method, unit_bytes), self.scale)
    }
}

fn scaled(tiles: u64, scale: f64) -> u64 {
    ((tiles as f64 * scale) as u64).max(1)
}

/// Tiles that make a part of a method worth having: four rounds of its reads, two of which count.
fn tiles_wanted(method: &Method, unit_bytes: u64) -> u64 {
    let depth = u64::from(method.depth().unwrap_or(parts::DEPTH_UNKNOWN));
    let (step, _) = method.pattern().unwrap_or(Pattern::Documented).step(unit_bytes);
    (4 * depth * step).div_ceil(TILE_BYTES).max(PART_TILES)
}

fn is_sweep(method: &Method) -> bool {
    matches!(method, Method::Touch(None) | Method::Full(None))
}

fn too_small(options: &Options, pool: &Pool) -> Error {
    let methods = options.methods.len();
    let have = human_bytes(pool.len() * TILE_BYTES);
    let sweeps = options.methods.iter().filter(|method| is_sweep(method)).count() as u64;
    let least = 2 + methods as u64 + 2 * sweeps;
    let needed = human_bytes((least + least / 2) * TILE_BYTES);
    Error::failed(format!("failed to find room for {methods} methods: {have} of about {needed}"))
        .hint("name fewer --methods, touch@N instead of touch, or give a larger --budget or volume")
}

struct Bench<'a> {
    bed: &'a mut dyn Bed,
    meter: Meter,
    options: &'a Options,
    stop: &'a AtomicBool,
    draw: Draw,
    pool: Pool,
    room: Room,
    /// What is touched as one unit.
    unit_bytes: u64,
    /// Slower reads were cold.
    cut_ns: u64,
    /// A block that was warmed is cold all the same when it takes as long as all but the fastest cold reads did: there
    /// is no second look, and a warm read is slow now and then.
    check_us: u64,
    rows: Vec<Row>,
    sweeps: Vec<(Pattern, Sweep)>,
    measured: Measured,
    saved: &'a mut dyn FnMut(&Measured),
}

impl Bench<'_> {
    fn all(&mut self) -> Step {
        self.probe()?;
        self.first_touches()?;
        let (steady, _) = self.split();
        let depth_max = self.options.depth_max.clamp(1, DEPTH_MAX);
        for (method, pattern) in [(Method::Touch(None), Pattern::Touch), (Method::Full(None), Pattern::Full)]
        {
            if self.options.methods.contains(&method) {
                self.sweeps.push((pattern, Sweep::new(depth_max)));
            }
        }
        for round in 0..self.room.rounds {
            let mut jobs: Vec<parts::Job> = steady.iter().cloned().map(parts::Job::Method).collect();
            jobs.extend(self.sweep_jobs(round));
            self.draw.shuffle(&mut jobs);
            for job in jobs {
                self.job(job)?;
            }
        }
        self.last()
    }

    /// Methods that need to know nothing, and those that take what the sweeps have found.
    fn split(&self) -> (Vec<Method>, Vec<Method>) {
        let waits = |method: &&Method| matches!(method, Method::TokioUring(None) | Method::Profile);
        let others = self.options.methods.iter().filter(|method| !is_sweep(method));
        let (waiting, steady): (Vec<&Method>, Vec<&Method>) = others.partition(waits);
        (steady.into_iter().cloned().collect(), waiting.into_iter().cloned().collect())
    }

    /// What takes the depth that was found.
    fn last(&mut self) -> Step {
        let (_, waiting) = self.split();
        for method in waiting {
            let parts = if method == Method::Profile { 1 } else { self.room.rounds };
            for _ in 0..parts {
                self.job(parts::Job::Method(method.clone()))?;
            }
        }
        Ok(())
    }

    /// The evidence: is it cold, and what is its unit.
    fn probe(&mut self) -> Step {
        let tiles = self.pool.take(self.room.probe);
        let looked_at: Vec<Range<u64>> = tiles.iter().map(|tile| *tile..tile + TILE_BYTES).collect();
        let tiles: ExtentSet = tiles.iter().filter_map(|tile| Extent::of_bytes(*tile, TILE_BYTES)).collect();
        let options = probe::Options {
            allowed: Some(tiles),
            unit_bytes_max: TILE_BYTES / 2,
            seed: self.options.seed,
            ..probe::Options::new(self.options.volume_bytes)
        };
        self.meter.begin();
        let before = self.bed.look();
        let mut source = self.meter.over(self.bed.source());
        let found = probe::run(&mut source, &options, self.stop)
            .map_err(|error| Ended::Failed(Error::failed("failed to probe").because(error)))?;
        self.beside_evidence(&before, found.reads, found.bytes_read);
        let (first_reads, cold) = found.first_reads();
        let (low, high) = found.cold_share();
        let report = &mut self.measured.report;
        report.unit = UnitFound { bytes: found.unit_bytes(), confidence: found.confidence() };
        report.why = found.why_no_unit();
        self.unit_bytes = self.options.unit_bytes.or(found.unit_bytes()).unwrap_or(UNIT_BYTES);
        report.touched_unit_bytes = self.unit_bytes;
        report.map_unit_bytes = map_unit_bytes(self.unit_bytes);
        report.evidence.cold_share = ColdShare { low, high, first_reads, cold };
        report.warm_latency_us = LatencyUs::of(&found.warm_latency_us());
        report.warm_quantiles = Quantiles::of(&found.warm_latency_us());
        report.warm_bins = Bins::of(&found.warm_latency_us());
        report.evidence.map = runs(&looked_at, report.map_unit_bytes);
        let cold_latency_us = found.cold_latency_us();
        report.cold_latency_us = LatencyUs::of(&cold_latency_us);
        report.evidence.units = first_reads;
        report.evidence.cold_units = cold_latency_us.len();
        (report.evidence.errors, report.evidence.stalled) = (found.errors, self.meter.stalled());
        report.evidence.probed_units = found.units_warmed();
        self.keep("warm", found.elapsed_ns, found.warm_latency_us());
        match (found.end, found.kinds) {
            (probe::End::Stopped, _) => return Err(Ended::Early(STOPPED)),
            (probe::End::Unreadable, _) => return Err(Ended::Early("device gone")),
            (_, Kinds::Apart { cut_ns }) if low >= COLD_SHARE_MIN => self.cut_ns = cut_ns,
            _ => return Err(Ended::Early(NOT_COLD)),
        }
        let report = &mut self.measured.report;
        report.evidence.cold = true;
        // With another unit they need another room.
        let tiles = self.pool.len() + self.room.probe;
        self.room = Room::of(self.options, tiles, self.unit_bytes).unwrap_or(self.room);
        report.evidence.cut_us = Some(self.cut_ns / 1000);
        Ok(())
    }

    /// The distribution of first reads that nothing else holds up.
    fn first_touches(&mut self) -> Step {
        let tiles = self.pool.take(self.room.first_touches);
        let mut reads = Pattern::Touch.reads(&tiles, self.unit_bytes);
        self.draw.shuffle(&mut reads);
        reads.truncate(self.options.first_touches as usize);
        let touched: Vec<Range<u64>> =
            reads.iter().map(|read| read.offset()..read.offset() + u64::from(read.bytes())).collect();
        let evidence = &mut self.measured.report.evidence;
        evidence.map.extend(runs(&touched, map_unit_bytes(self.unit_bytes)));
        let before = self.bed.look();
        let outcome = self.read(reads, 1, self.options.first_touches_ns);
        self.beside_evidence(&before, outcome.reads(), outcome.bytes_read);
        let cut_us = self.cut_ns / 1000;
        let mut cold = crate::report::empty_histogram_us();
        for value in outcome.latency_us.iter_recorded().filter(|value| value.value_iterated_to() > cut_us) {
            let _ = cold.record_n(value.value_iterated_to(), value.count_at_value());
        }
        self.check_us = cut_us.max(cold.value_at_quantile(FASTEST_COLD));
        let report = &mut self.measured.report;
        if !cold.is_empty() {
            report.cold_latency_us = LatencyUs::of(&cold);
            report.cold_quantiles = Quantiles::of(&cold);
            report.cold_bins = Bins::of(&cold);
            report.cold_p99_us = tail::interval_of_p99(&cold);
            let warm_us = report.warm_latency_us.p50.max(1);
            report.evidence.ratio = report.cold_latency_us.p50 as f64 / warm_us as f64;
        }
        (report.evidence.units, report.evidence.cold_units) = (outcome.latency_us.len(), cold.len());
        report.evidence.errors += outcome.errors;
        report.evidence.stalled += self.meter.stalled();
        self.keep("first-touch", outcome.elapsed_ns(), outcome.latency_us.clone());
        parts::end_of(outcome.end)
    }

    /// Counts what passed through the disk beside so many reads of our own.
    fn beside_evidence(&mut self, before: &Look, reads: u64, bytes: u64) {
        if let Some(others) = foreground(before, &self.bed.look(), reads, bytes) {
            *self.measured.report.evidence.foreground.get_or_insert_default() += others;
        }
    }

    fn keep(&mut self, name: &str, elapsed_ns: u64, histogram: Histogram<u64>) {
        self.measured.histograms.push(Named { name: name.into(), elapsed_ns, histogram });
    }

    /// The share of the volume that is cold, as a best guess.
    fn cold_share(&self) -> f64 {
        let share = &self.measured.report.evidence.cold_share;
        share.cold as f64 / share.first_reads.max(1) as f64
    }

    /// Brings the report up to date.
    fn fill_in(&mut self) {
        let cold = self.cold_share();
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| self.options.methods.iter().position(|method| same_kind(method, &row.method)));
        let methods: Vec<MethodReport> = rows.iter().map(|row| row.report(self.unit_bytes, cold)).collect();
        let named = methods.iter().zip(&rows).filter(|(_, row)| !row.latency_us.is_empty());
        let named = named.map(|(method, row)| Named {
            name: method.name.clone(),
            elapsed_ns: row.elapsed_ns,
            histogram: row.latency_us.clone(),
        });
        let Measured { report, histograms } = &mut self.measured;
        histograms.retain(|named| ["warm", "first-touch"].contains(&named.name.as_str()));
        histograms.extend(named);
        report.methods = methods;
        report.sweeps = self.sweeps.iter().map(|(pattern, sweep)| shown(*pattern, sweep, cold)).collect();
        report.evidence.spoilt = spoilt::spoilt(&report.evidence, &self.rows);
        self.measured.report.recommended = self.recommend();
    }

    fn save(&mut self) {
        self.fill_in();
        (self.saved)(&self.measured);
    }
}

fn same_kind(asked: &Method, row: &Method) -> bool {
    std::mem::discriminant(asked) == std::mem::discriminant(row)
        && (!matches!(asked, Method::Command(..)) || asked == row)
}

fn shown(pattern: Pattern, sweep: &Sweep, cold: f64) -> SweepReport {
    let points = sweep.points().map(|(depth, point)| SweepPoint {
        depth,
        units: point.units,
        hydrated_bytes_per_s: point.rate() * cold,
    });
    let mode = if pattern == Pattern::Full { "full" } else { "touch" };
    let (knee, knee_certain) = (sweep.knee(), sweep.is_knee_certain());
    SweepReport { mode: mode.into(), points: points.collect(), knee, knee_certain }
}

#[cfg(test)]
mod tests;
