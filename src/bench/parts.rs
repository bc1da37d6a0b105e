//! One part of one method: read, checked, counted, saved.

use super::method::{Method, Pattern, TOUCH_BYTES, read_at};
use super::places::TILE_BYTES;
use super::sweep::{Climb, Point, Sweep};
use super::tally::{Part, Row};
use super::{Bench, Ended, Look, Ran, STOPPED, Step};
use crate::engine::{self, Depth, End, Outcome, Pace};
use crate::error::Error;
use crate::plan::{Mode, Plan, PlannedRead, Shape};
use crate::report::Checked;
use crate::units::{NS_PER_S, SECTOR_BYTES};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// A part takes no longer: a method that is slow is known to be slow by then.
const PART_NS: u64 = 20 * NS_PER_S;
/// A profile is warmed as a whole.
const PROFILE_NS: u64 = 600 * NS_PER_S;
/// Blocks that are read again after a part of our own.
const CHECKS: usize = 8;
/// After a foreign command nothing else says what it did.
const COMMAND_CHECKS: usize = 32;
/// Units of a depth that is measured once more: rates of so many differ by 3 % by chance.
const POINT_UNITS: u64 = 500;
/// In flight where no sweep has found anything.
pub(super) const DEPTH_UNKNOWN: u32 = 64;

/// What is measured next.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// A part of a method.
    Method(Method),
    /// A sweep's climb, from depth 1 to beyond the knee.
    Climb(Pattern),
    /// One depth of a sweep once more, on so many tiles.
    Point(Pattern, u32, u64),
}

/// What an end of reads means for the whole.
pub(super) fn end_of(end: End) -> Step {
    match end {
        End::Complete | End::Deadline => Ok(()),
        End::Stopped => Err(Ended::Early(STOPPED)),
        End::DeviceGone => Err(Ended::Early("device gone")),
        End::Failed(error) => Err(Ended::Failed(Error::failed("failed to read").because(error))),
    }
}

impl Bench<'_> {
    pub(super) fn job(&mut self, job: Job) -> Step {
        self.meter.begin();
        let settled = self.meter.settle(self.bed.source());
        settled.map_err(|error| Ended::Failed(Error::failed("failed to read").because(error)))?;
        match job {
            Job::Climb(pattern) => self.climb(pattern),
            Job::Point(pattern, depth, tiles) => self.point(pattern, depth, tiles).map(drop),
            Job::Method(Method::Command(name, line)) => self.command(name, line),
            Job::Method(Method::Profile) => self.profile(),
            Job::Method(Method::TokioUring(depth)) => {
                let depth = depth.or_else(|| self.knee(Pattern::Touch)).unwrap_or(DEPTH_UNKNOWN);
                self.tokio_uring(depth)
            }
            Job::Method(method) => {
                let (Some(pattern), Some(depth)) = (method.pattern(), method.depth()) else { return Ok(()) };
                let tiles = self.pool.take(self.room.part(&method, self.unit_bytes));
                self.own(method, pattern, depth, &tiles).map(drop)
            }
        }
    }

    /// The depth that a sweep has found.
    pub(super) fn knee(&self, pattern: Pattern) -> Option<u32> {
        self.sweeps.iter().find(|(swept, _)| *swept == pattern).and_then(|(_, sweep)| sweep.knee())
    }

    /// What sweeps measure in a round: the climb in the first, what came close to the best in the others.
    pub(super) fn sweep_jobs(&self, round: u64) -> Vec<Job> {
        if round == 0 {
            return self.sweeps.iter().map(|(pattern, _)| Job::Climb(*pattern)).collect();
        }
        let mut jobs = Vec::new();
        for (pattern, sweep) in &self.sweeps {
            let depths = sweep.candidates();
            let per_tile = TILE_BYTES / pattern.step(self.unit_bytes).0;
            // Half of its room is for the climb, the other for these.
            let each = self.room.sweep / 2 / (self.room.rounds - 1) / depths.len().max(1) as u64;
            let wanted = |depth: u32| Sweep::units_at(depth).max(POINT_UNITS).div_ceil(per_tile);
            jobs.extend(
                depths
                    .into_iter()
                    .map(|depth| Job::Point(*pattern, depth, wanted(depth).clamp(1, each.max(1)))),
            );
        }
        jobs
    }

    fn climb(&mut self, pattern: Pattern) -> Step {
        let per_tile = TILE_BYTES / pattern.step(self.unit_bytes).0;
        let mut left = (self.room.sweep / 2).max(1);
        loop {
            let Some(sweep) = self.sweep(pattern) else { return Ok(()) };
            let Some(depth) = sweep.climb() else {
                sweep.reached = Climb::Ended;
                return Ok(());
            };
            let tiles = Sweep::units_at(depth).div_ceil(per_tile).min(left);
            // Three rounds at the least, of which one counts.
            if tiles * per_tile < 3 * u64::from(depth) || !self.point(pattern, depth, tiles)? {
                let why = format!("the sweep ended below depth {depth}: the budget has no room for more");
                self.measured.report.notes.push(why);
                self.sweep(pattern).into_iter().for_each(|sweep| sweep.reached = Climb::CutShort);
                return Ok(());
            }
            left -= tiles;
        }
    }

    fn sweep(&mut self, pattern: Pattern) -> Option<&mut Sweep> {
        self.sweeps.iter_mut().find(|(swept, _)| *swept == pattern).map(|(_, sweep)| sweep)
    }

    /// Whether there was room for it.
    fn point(&mut self, pattern: Pattern, depth: u32, tiles: u64) -> Step<bool> {
        let tiles = self.pool.take(tiles);
        if tiles.is_empty() {
            return Ok(false);
        }
        let method = if pattern == Pattern::Full { Method::Full(None) } else { Method::Touch(None) };
        let point = self.own(method, pattern, depth, &tiles)?;
        if let (Some(point), Some(sweep)) = (point, self.sweep(pattern)) {
            sweep.add(depth, &point);
        }
        self.save();
        Ok(true)
    }

    /// Reads of our own, through the engine.
    pub(super) fn read(&mut self, reads: Vec<PlannedRead>, depth: u32, for_ns: u64) -> Outcome {
        self.meter.begin();
        let longest = reads.iter().map(|read| read.bytes()).max().unwrap_or(0);
        let mut source = self.meter.over(self.bed.source());
        let options = engine::Options {
            depth: Depth::fixed(depth),
            pace: Pace::default(),
            budget: None,
            deadline_ns: Some(crate::engine::Source::now_ns(&source).saturating_add(for_ns)),
            // A read that fails is counted as it is: which blocks of it are bad is not asked.
            block_bytes: longest.max(SECTOR_BYTES as u32),
            idle_from_stage: u16::MAX,
        };
        engine::run(&mut source, reads.into_iter(), options, self.stop, &mut ())
    }

    /// A part of a method that reads through our own engine; the steady rate, where there was one.
    fn own(&mut self, method: Method, pattern: Pattern, depth: u32, tiles: &[u64]) -> Step<Option<Point>> {
        if tiles.is_empty() {
            return Ok(None);
        }
        let reads = pattern.reads(tiles, self.unit_bytes);
        let places = tiles.iter().map(|tile| *tile..tile + TILE_BYTES).collect();
        let span = if pattern == Pattern::Touch { self.unit_bytes } else { 0 };
        self.reads(method, depth, reads, span, places, PART_NS)
    }

    /// Reads, each of which hydrates a unit of `span` bytes, or what it reads where that is 0.
    fn reads(
        &mut self,
        method: Method,
        depth: u32,
        reads: Vec<PlannedRead>,
        span: u64,
        places: Vec<Range<u64>>,
        for_ns: u64,
    ) -> Step<Option<Point>> {
        let before = self.bed.look();
        let outcome = self.read(reads.clone(), depth, for_ns);
        let mut part = Part::new(places);
        let started_ns = outcome.started_ns;
        let done_ns: Vec<u64> =
            self.meter.done().iter().map(|done| done.at_ns.saturating_sub(started_ns)).collect();
        let per_read = if span > 0 { span } else { reads.first().map_or(0, |read| u64::from(read.bytes())) };
        part.count(&done_ns, depth, per_read);
        if span == 0 {
            part.hydrated = outcome.bytes_read;
        }
        part.latency_us = outcome.latency_us.clone();
        part.reads = outcome.reads();
        part.bytes_read = outcome.bytes_read;
        part.errors = outcome.errors;
        part.stalled = self.meter.stalled();
        part.elapsed_ns = outcome.elapsed_ns();
        // What a part had no time for is not asked about.
        let read = match outcome.end {
            End::Complete => reads.len(),
            _ => done_ns.len().saturating_sub(depth as usize).min(reads.len()),
        };
        let steady = part.steady.clone();
        let stopped = end_of(outcome.end);
        if stopped.is_ok() && part.errors == 0 {
            part.checked = self.check(&reads[..read], span, CHECKS)?;
        }
        self.count(method, Some(depth), part, &before, None);
        stopped.map(|()| steady)
    }

    /// Adds a part to its method and saves.
    fn count(
        &mut self,
        method: Method,
        depth: Option<u32>,
        mut part: Part,
        before: &Look,
        error: Option<String>,
    ) {
        let after = self.bed.look();
        // Checks are reads too, and none of others.
        let checks = part.checked.blocks;
        (part.reads, part.bytes_read) = (part.reads + checks, part.bytes_read + checks * TOUCH_BYTES);
        let method = method.at(depth);
        let at = self.rows.iter().position(|row| row.method == method);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row::new(method, depth));
            self.rows.len() - 1
        });
        self.rows[at].add(part, before, &after);
        self.rows[at].bytes_read -= checks * TOUCH_BYTES;
        if error.is_some() {
            self.rows[at].error = error;
        }
        self.save();
    }

    /// Reads a block of spans drawn at random from what these reads should have hydrated.
    fn check(&mut self, reads: &[PlannedRead], span: u64, checks: usize) -> Step<Checked> {
        let volume_bytes = self.options.volume_bytes;
        let spans = reads.iter().map(|read| {
            let bytes = if span > 0 { span } else { u64::from(read.bytes()) };
            let start = read.offset() / bytes * bytes;
            start..(start + bytes).min(volume_bytes)
        });
        self.look_again(spans.collect(), checks)
    }

    /// Reads a block at random in each of so many of these spans. No span is read twice: the second read would find what
    /// the first one hydrated.
    fn look_again(&mut self, mut spans: Vec<Range<u64>>, checks: usize) -> Step<Checked> {
        spans.sort_unstable_by_key(|span| span.start);
        spans.dedup();
        self.draw.shuffle(&mut spans);
        spans.truncate(checks);
        if spans.is_empty() {
            return Ok(Checked::default());
        }
        let block = |span: Range<u64>| {
            let blocks = (span.end - span.start) / TOUCH_BYTES;
            read_at(span.start + self.draw.below(blocks) * TOUCH_BYTES, TOUCH_BYTES)
        };
        let blocks = spans.into_iter().map(block).collect();
        let outcome = self.read(blocks, 1, PART_NS);
        let warm = outcome.latency_us.count_between(0, self.check_us);
        // One that failed, or is still under way, is not warm.
        let blocks = outcome.latency_us.len() + outcome.errors + outcome.left.len() as u64;
        let checked = Checked { blocks, warm };
        end_of(outcome.end).map(|()| checked)
    }

    fn tokio_uring(&mut self, depth: u32) -> Step {
        let method = Method::TokioUring(Some(depth));
        let tiles = self.pool.take(self.room.part(&method, self.unit_bytes));
        if tiles.is_empty() {
            return Ok(());
        }
        let reads = Pattern::Touch.reads(&tiles, self.unit_bytes);
        let before = self.bed.look();
        let mut part = Part::new(tiles.iter().map(|tile| *tile..tile + TILE_BYTES).collect());
        let other = match self.bed.tokio_uring(reads, depth, PART_NS, self.stop) {
            Ok(other) => other,
            Err(error) => {
                self.count(method, Some(depth), part, &before, Some(error.full_text()));
                return Ok(());
            }
        };
        part.count(&other.done_ns, depth, self.unit_bytes);
        part.reads = other.done_ns.len() as u64;
        part.bytes_read = part.reads * TOUCH_BYTES;
        part.latency_us = other.latency_us;
        part.errors = other.errors + other.left;
        (part.stalled, part.elapsed_ns) = (other.left, other.elapsed_ns);
        let stopped = self.stop.load(Ordering::Relaxed);
        if !stopped && part.errors == 0 {
            // What it had no time for is not asked about.
            part.checked = self.check(&other.done, self.unit_bytes, CHECKS)?;
        }
        self.count(method, Some(depth), part, &before, None);
        if stopped { Err(Ended::Early(STOPPED)) } else { Ok(()) }
    }

    /// Warms the profile as `warm` would, in the order of its stages.
    fn profile(&mut self) -> Step {
        let mode = if self.measured.report.unit.bytes.is_some() { Mode::Touch } else { Mode::Full };
        let shape = Shape {
            sectors: self.options.volume_bytes / SECTOR_BYTES,
            block_bytes: SECTOR_BYTES as u32,
            unit_bytes: self.unit_bytes,
            mode,
        };
        let stages = self.options.profile.iter().map(|(name, extents)| (name.as_str(), extents.as_slice()));
        let plan = Plan::new(stages, shape);
        let reads: Vec<PlannedRead> = plan.reads().collect();
        let unit_bytes = self.unit_bytes;
        let places = reads.iter().map(|read| {
            let start = read.offset() / unit_bytes * unit_bytes;
            start..start + unit_bytes
        });
        let (span, pattern) = match mode {
            Mode::Touch => (unit_bytes, Pattern::Touch),
            Mode::Full => (0, Pattern::Full),
        };
        let depth = self.knee(pattern).unwrap_or(DEPTH_UNKNOWN);
        let places = places.collect();
        self.reads(Method::Profile, depth, reads, span, places, PROFILE_NS).map(drop)
    }

    /// A foreign command on a row of tiles of its own.
    fn command(&mut self, name: String, line: String) -> Step {
        let method = Method::Command(name, line.clone());
        let tiles = self.room.part(&method, self.unit_bytes);
        let Some(place) = self.pool.take_row(tiles, &mut self.draw) else { return Ok(()) };
        let before = self.bed.look();
        let ran = self.bed.command(&line, &place, self.stop);
        let ran = ran.unwrap_or_else(|error| Ran { elapsed_ns: 0, error: Some(error.full_text()) });
        let after = self.bed.look();
        let stopped = self.stop.load(Ordering::Relaxed);
        let bytes = place.end - place.start;
        let mut part = Part::new(vec![place.clone()]);
        part.elapsed_ns = ran.elapsed_ns;
        if let (Some(before), Some(after)) = (before.traffic, after.traffic) {
            // What passed through the disk meanwhile: its own reads, where nobody else read.
            part.reads = after.reads.saturating_sub(before.reads);
            part.bytes_read = after.read_bytes.saturating_sub(before.read_bytes);
        }
        if !stopped && ran.error.is_none() {
            let units = (place.start..place.end).step_by(self.unit_bytes as usize);
            let units = units.map(|start| start..(start + self.unit_bytes).min(place.end)).collect();
            part.checked = self.look_again(units, COMMAND_CHECKS)?;
            part.hydrated = bytes;
        }
        // Nobody can tell its own reads from those of others.
        let before = Look { traffic: None, ..before };
        self.count(method, None, part, &before, ran.error);
        if stopped { Err(Ended::Early(STOPPED)) } else { Ok(()) }
    }
}
