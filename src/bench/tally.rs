//! What came of a method, summed over its parts. Pure.

use super::bed::Look;
use super::method::Method;
use super::places::TILE_BYTES;
use super::sweep::{CUTS, Point};
use crate::report::{Checked, Foreground, LatencyUs, Limits, MethodReport, Quantiles, empty_histogram_us};
use crate::units::{NS_PER_S, as_s};
use hdrhistogram::Histogram;
use std::ops::Range;

/// Points of a series that are kept of one part.
const SERIES_MAX: usize = 24;
/// Runs of a map at the most: a page draws no more.
const RUNS_MAX: usize = 4096;

/// A warm block may be slow once in so many.
pub const SLOW_IN: u64 = 12;

/// What came of one part of the volume.
#[derive(Debug)]
pub struct Part {
    pub latency_us: Histogram<u64>,
    /// Nanoseconds since its start, and bytes hydrated by then.
    pub series: Vec<(u64, u64)>,
    pub reads: u64,
    pub bytes_read: u64,
    /// Bytes that were hydrated if all of it was cold.
    pub hydrated: u64,
    pub errors: u64,
    pub stalled: u64,
    pub elapsed_ns: u64,
    /// Without the first and the last round of reads.
    pub steady: Option<Point>,
    /// Ranges of bytes that were its own.
    pub places: Vec<Range<u64>>,
    pub checked: Checked,
}

impl Part {
    /// Nothing read yet.
    pub fn new(places: Vec<Range<u64>>) -> Part {
        Part {
            latency_us: empty_histogram_us(),
            series: Vec::new(),
            reads: 0,
            bytes_read: 0,
            hydrated: 0,
            errors: 0,
            stalled: 0,
            elapsed_ns: 0,
            steady: None,
            places,
            checked: Checked::default(),
        }
    }

    /// From the moments at which reads ended, in nanoseconds since the start, each of which hydrates `per_read` bytes.
    pub fn count(&mut self, done_ns: &[u64], depth: u32, per_read: u64) {
        self.hydrated = done_ns.len() as u64 * per_read;
        let step = done_ns.len().div_ceil(SERIES_MAX).max(1);
        let ends =
            done_ns.iter().enumerate().filter(|(at, _)| (at + 1) % step == 0 || at + 1 == done_ns.len());
        self.series = ends.map(|(at, ns)| (*ns, (at as u64 + 1) * per_read)).collect();
        // In the first round reads begin together, in the last there are fewer and fewer.
        let (round, count) = (depth as usize, done_ns.len());
        if count >= 3 * round {
            let (first, last) = (round - 1, count - 1 - round);
            let bytes = (last - first) as u64 * per_read;
            let ns = done_ns[last].saturating_sub(done_ns[first]);
            let units = self.hydrated / per_read.max(1);
            let rates = cuts(&done_ns[first..=last], per_read);
            self.steady = (ns > 0).then_some(Point { bytes, ns, units, rates });
        }
    }
}

/// Bytes a second in each of some parts of a steady time; none where they would be too short to say anything.
fn cuts(done_ns: &[u64], per_read: u64) -> Vec<f64> {
    let each = done_ns.len().saturating_sub(1) / CUTS;
    if each < 4 {
        return Vec::new();
    }
    let part = |number: usize| {
        let ns = done_ns[(number + 1) * each].saturating_sub(done_ns[number * each]);
        (each as u64 * per_read) as f64 * NS_PER_S as f64 / ns.max(1) as f64
    };
    (0..CUTS).map(part).collect()
}

/// A method, with all its parts.
#[derive(Debug)]
pub struct Row {
    pub method: Method,
    pub depth: Option<u32>,
    pub latency_us: Histogram<u64>,
    /// Steady rates of its parts, in order of time.
    pub rates: Vec<f64>,
    steady: Point,
    series: Vec<(u64, u64)>,
    reads: u64,
    pub bytes_read: u64,
    pub hydrated: u64,
    errors: u64,
    stalled: u64,
    pub elapsed_ns: u64,
    cpu_s: Option<f64>,
    places: Vec<Range<u64>>,
    pub checked: Checked,
    exceeded_us: Option<[u64; 4]>,
    pub foreground: Option<Foreground>,
    pub error: Option<String>,
}

impl Row {
    /// Of a method, at the depth that it runs at.
    pub fn new(method: Method, depth: Option<u32>) -> Row {
        let method = method.at(depth);
        Row {
            method,
            depth,
            latency_us: empty_histogram_us(),
            rates: Vec::new(),
            steady: Point::default(),
            series: Vec::new(),
            reads: 0,
            bytes_read: 0,
            hydrated: 0,
            errors: 0,
            stalled: 0,
            elapsed_ns: 0,
            cpu_s: None,
            places: Vec::new(),
            checked: Checked::default(),
            exceeded_us: None,
            foreground: None,
            error: None,
        }
    }

    /// Adds a part, with what others counted before and after it.
    pub fn add(&mut self, part: Part, before: &Look, after: &Look) {
        let _ = self.latency_us.add(&part.latency_us);
        let (at_ns, at_bytes) = (self.elapsed_ns, self.hydrated);
        self.series.extend(part.series.iter().map(|(ns, bytes)| (at_ns + ns, at_bytes + bytes)));
        self.reads += part.reads;
        self.bytes_read += part.bytes_read;
        self.hydrated += part.hydrated;
        self.errors += part.errors;
        self.stalled += part.stalled;
        self.elapsed_ns += part.elapsed_ns;
        self.places.extend(part.places);
        self.checked.blocks += part.checked.blocks;
        self.checked.warm += part.checked.warm;
        if let Some(point) = part.steady {
            self.rates.push(point.rate());
            self.steady.add(&point);
        }
        if let (Some(before), Some(after)) = (before.cpu_s, after.cpu_s) {
            *self.cpu_s.get_or_insert(0.0) += after - before;
        }
        if let (Some(before), Some(after)) = (&before.ebs, &after.ebs) {
            let sums = self.exceeded_us.get_or_insert([0; 4]);
            sums.iter_mut().zip(after.exceeded_us_since(before)).for_each(|(sum, us)| *sum += us);
        }
        if let Some(others) = foreground(before, after, part.reads, part.bytes_read) {
            *self.foreground.get_or_insert_default() += others;
        }
    }

    /// Shares of its time in which a limit was exceeded, as EBS counts.
    pub fn limits(&self) -> Option<Limits> {
        let [volume_iops, volume_throughput, instance_iops, instance_throughput] =
            self.exceeded_us?.map(|us| (us as f64 * 1000.0 / self.elapsed_ns.max(1) as f64).min(1.0));
        Some(Limits { volume_iops, volume_throughput, instance_iops, instance_throughput })
    }

    /// The method with its depth.
    pub fn name(&self) -> String {
        self.method.to_string()
    }

    fn steady_rate(&self) -> Option<f64> {
        (self.steady.ns > 0).then(|| self.steady.rate())
    }

    /// Bytes hydrated a second on a volume of which a share was cold: without the first and last round, where there
    /// were enough.
    pub fn rate(&self, cold: f64) -> f64 {
        let all = self.hydrated as f64 / as_s(self.elapsed_ns.max(1));
        self.steady_rate().unwrap_or(all) * self.share(cold)
    }

    /// The share of what it read that it hydrated: less than 1 where the volume was not all cold, or blocks of its
    /// part are cold all the same.
    fn share(&self, cold: f64) -> f64 {
        let Checked { blocks, warm } = self.checked;
        match blocks {
            // One in so many may be a warm read that was slow.
            _ if (blocks - warm) * SLOW_IN <= blocks => cold,
            blocks => cold * warm as f64 / blocks as f64,
        }
    }

    /// As a report, on a volume of which a share was cold.
    pub fn report(&self, unit_bytes: u64, cold: f64) -> MethodReport {
        let share = self.share(cold);
        let hydrated = self.hydrated as f64 * share;
        MethodReport {
            name: self.name(),
            depth: self.depth,
            units: (hydrated / unit_bytes as f64).round() as u64,
            bytes_read: self.bytes_read,
            errors: self.errors,
            stalled: self.stalled,
            elapsed_s: as_s(self.elapsed_ns),
            hydrated_bytes_per_s: hydrated / as_s(self.elapsed_ns.max(1)),
            steady_bytes_per_s: self.steady_rate().map(|rate| rate * share),
            cpu_s: self.cpu_s,
            latency_us: LatencyUs::of(&self.latency_us),
            quantiles: Quantiles::of(&self.latency_us),
            series: self
                .series
                .iter()
                .map(|(ns, bytes)| (as_s(*ns), (*bytes as f64 * share) as u64))
                .collect(),
            map: runs(&self.places, map_unit_bytes(unit_bytes)),
            checked: self.checked,
            limits: self.limits(),
            foreground: self.foreground,
            command: match &self.method {
                Method::Command(_, line) => Some(line.clone()),
                _ => None,
            },
            error: self.error.clone(),
        }
    }
}

/// What a map counts: units, but no smaller than a hundredth of a tile, so that maps stay short.
pub fn map_unit_bytes(unit_bytes: u64) -> u64 {
    unit_bytes.max(TILE_BYTES / 128)
}

/// Ranges of bytes as runs of units, joined; the first of them where there are too many.
pub fn runs(places: &[Range<u64>], unit_bytes: u64) -> Vec<(u64, u64)> {
    let mut units: Vec<Range<u64>> =
        places.iter().map(|place| place.start / unit_bytes..place.end.div_ceil(unit_bytes)).collect();
    units.sort_unstable_by_key(|run| run.start);
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for run in units {
        match runs.last_mut().filter(|(start, count)| run.start <= start + count) {
            Some((start, count)) => *count = (*count).max(run.end - *start),
            None => runs.push((run.start, run.end - run.start)),
        }
    }
    runs.truncate(RUNS_MAX);
    runs
}

/// What passed through the disk beside so many reads of our own.
pub fn foreground(before: &Look, after: &Look, reads: u64, bytes: u64) -> Option<Foreground> {
    let (before, after) = (before.traffic?, after.traffic?);
    let since = |now: u64, then: u64| now.saturating_sub(then);
    let read_bytes = since(after.read_bytes, before.read_bytes).saturating_sub(bytes);
    // Our own may have been split or merged, so that only bytes tell whether there were others.
    let others = since(after.reads, before.reads).saturating_sub(reads).max(1);
    Some(Foreground {
        read_bytes,
        written_bytes: since(after.written_bytes, before.written_bytes),
        operations: since(after.writes, before.writes) + if read_bytes > 0 { others } else { 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Traffic;
    use proptest::prelude::*;

    #[test]
    fn the_steady_rate_leaves_out_the_first_and_the_last_round() {
        let mut part = Part::new(Vec::new());
        // 4 in flight: a slow start, then one each 10 ns, and a slow end.
        let done: Vec<u64> = (0..20).map(|n| 1000 + 10 * n).chain([5000, 6000, 7000, 8000]).collect();
        part.count(&done, 4, 100);
        let rates = vec![1e10; CUTS];
        assert_eq!(part.steady, Some(Point { bytes: 1600, ns: 160, units: 24, rates }));
        assert_eq!((part.hydrated, *part.series.last().unwrap()), (2400, (8000, 2400)));
        part.count(&done[..11], 4, 100);
        assert_eq!((part.series.len(), part.hydrated), (11, 1100));
        let mut few = Part::new(Vec::new());
        few.count(&done[..11], 4, 100);
        assert_eq!(few.steady, None);
        few.count(&[], 4, 100);
        assert!(few.series.is_empty());
    }

    #[test]
    fn others_are_what_is_not_ours() {
        let look = |reads, read_bytes, writes, written_bytes| Look {
            traffic: Some(Traffic { reads, read_bytes, writes, written_bytes, in_flight: 0 }),
            ..Look::default()
        };
        let before = look(5, 100, 0, 0);
        assert_eq!(foreground(&before, &look(15, 1100, 0, 0), 10, 1000), Some(Foreground::default()));
        // Split in two each: as many bytes, and nobody else.
        assert_eq!(foreground(&before, &look(25, 1100, 0, 0), 10, 1000), Some(Foreground::default()));
        let others = Foreground { read_bytes: 4096, written_bytes: 512, operations: 3 };
        assert_eq!(foreground(&before, &look(16, 5196, 2, 512), 10, 1000), Some(others));
        assert_eq!(foreground(&Look::default(), &before, 0, 0), None);
    }

    #[test]
    fn the_share_that_was_found_cold_afterwards_does_not_count() {
        let mut row = Row::new(Method::Touch(None), Some(8));
        let mut part = Part::new(std::iter::once(0..TILE_BYTES).collect());
        part.count(&(1..=32).map(|n| n * 1_000_000).collect::<Vec<_>>(), 8, 512 << 10);
        (part.elapsed_ns, part.checked) = (32_000_000, Checked { blocks: 8, warm: 2 });
        row.add(part, &Look::default(), &Look::default());
        let report = row.report(512 << 10, 0.5);
        assert_eq!((report.name.as_str(), report.units), ("touch@8", 4));
        assert!((report.hydrated_bytes_per_s - 4.0 * 524_288.0 / 0.032).abs() < 1.0);
        assert_eq!((report.map, report.cpu_s, report.limits), (vec![(0, 32)], None, None));
    }

    proptest! {
        #[test]
        fn runs_hold_just_the_units_of_the_places(places in prop::collection::vec((0u64..500, 1u64..40), 0..30)) {
            let ranges: Vec<Range<u64>> = places.iter().map(|(start, count)| start * 10..(start + count) * 10).collect();
            let runs = runs(&ranges, 10);
            let units = |all: &[(u64, u64)]| -> std::collections::BTreeSet<u64> {
                all.iter().flat_map(|(start, count)| *start..start + count).collect()
            };
            prop_assert_eq!(units(&runs), units(&places));
            prop_assert!(runs.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
        }
    }
}
