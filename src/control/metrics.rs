//! Metrics in the text format of Prometheus. Pure.
//!
//! Holds: each metric and each of its labels is there from the start, at zero; a counter never falls.

use super::protocol::VERBS;
use super::state::State;
use super::status::{Phase, StageStatus, Status, Traffic};
use super::volumes::Volumes;
use crate::plan::STAGES_KNOWN;
use crate::report::Metrics;
use crate::units::as_s;
use hdrhistogram::Histogram;

/// Upper bounds of the histogram of latencies, microseconds: from a warm read to a stall.
const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
    10_000_000, 60_000_000,
];
/// Why a client was let go without an answer, or with an error.
pub const DROPPED: [&str; 4] = ["slow", "crowded", "line", "request"];

/// Latencies by [`BOUNDS_US`]; the last are those beyond all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_s: f64,
}

impl Latencies {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latencies {
        let mut latencies = Latencies::default();
        for value in histogram.iter_recorded() {
            let us = value.value_iterated_to();
            let at = BOUNDS_US.partition_point(|bound| *bound < us);
            latencies.counts[at] += value.count_at_value();
            latencies.sum_s += us as f64 / 1e6 * value.count_at_value() as f64;
        }
        latencies
    }

    /// The sum of both.
    pub fn plus(&self, more: &Latencies) -> Latencies {
        let mut sum = self.clone();
        sum.counts.iter_mut().zip(more.counts).for_each(|(count, more)| *count += more);
        sum.sum_s += more.sum_s;
        sum
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What the control plane counts of itself.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Questions, by [`VERBS`].
    pub requests: [u64; VERBS.len()],
    /// Clients that were let go, by [`DROPPED`].
    pub dropped: [u64; DROPPED.len()],
    /// Clients now.
    pub clients: u64,
}

impl Counts {
    /// One was let go.
    pub fn drop_one(&mut self, why: &str) {
        if let Some(at) = DROPPED.iter().position(|known| *known == why) {
            self.dropped[at] += 1;
        }
    }

    /// One has asked.
    pub fn request(&mut self, verb: &str) {
        if let Some(at) = VERBS.iter().position(|known| *known == verb) {
            self.requests[at] += 1;
        }
    }
}

/// One volume, as it is shown.
struct Seen<'a> {
    name: Option<&'a str>,
    status: Status,
    latencies: &'a Latencies,
}

impl<'a> Seen<'a> {
    fn of(state: &'a State, now_ns: u64) -> Seen<'a> {
        let mut status = state.status(now_ns);
        for name in STAGES_KNOWN {
            if !status.stages.iter().any(|stage| stage.name == name) {
                status.stages.push(StageStatus { name: name.into(), ..StageStatus::default() });
            }
        }
        Seen { name: state.name(), status, latencies: state.latencies() }
    }

    /// Labels of a value: which volume it is of, where there are several, and one more.
    fn labels<'b>(&'b self, more: Option<(&'b str, &'b str)>) -> Vec<(&'b str, &'b str)> {
        self.name.map(|name| ("volume", name)).into_iter().chain(more).collect()
    }
}

fn by_stage(text: &mut Metrics, name: &str, help: &str, seen: &[Seen], of: impl Fn(&StageStatus) -> u64) {
    text.head(name, "gauge", help);
    for volume in seen {
        for stage in &volume.status.stages {
            text.value(name, &volume.labels(Some(("stage", &stage.name))), of(stage));
        }
    }
}

fn by_volume(
    text: &mut Metrics,
    name: &str,
    kind: &str,
    help: &str,
    seen: &[Seen],
    of: impl Fn(&Status) -> u64,
) {
    text.head(name, kind, help);
    seen.iter().for_each(|volume| text.value(name, &volume.labels(None), of(&volume.status)));
}

/// All of them.
pub fn text(volumes: &Volumes, counts: &Counts, cpu_s: f64, now_ns: u64) -> String {
    let seen: Vec<Seen> = volumes.each.iter().map(|state| Seen::of(state, now_ns)).collect();
    let seen = seen.as_slice();
    let mut text = Metrics(String::with_capacity(seen.len() * (8 << 10)));
    text.head("build_info", "gauge", "Version of the program.");
    text.labelled("build_info", "version", env!("CARGO_PKG_VERSION"), 1);
    text.head("phase", "gauge", "1 for the phase that the daemon is in.");
    for volume in seen {
        for phase in Phase::ALL {
            let labels = volume.labels(Some(("phase", phase.name())));
            text.value("phase", &labels, u8::from(phase == volume.status.phase));
        }
    }
    stages(&mut text, seen);
    traffic(&mut text, seen);
    latencies(&mut text, seen);
    let depth = |status: &Status| u64::from(status.depth);
    by_volume(&mut text, "reads_in_flight", "gauge", "Reads in flight.", seen, depth);
    text.one("elapsed_seconds", "gauge", "Seconds since the daemon began.", as_s(now_ns));
    text.one("cpu_seconds_total", "counter", "Processor time of the daemon.", cpu_s);
    text.one("control_clients", "gauge", "Clients on the socket.", counts.clients);
    text.head("control_requests_total", "counter", "Requests on the socket.");
    for (verb, count) in VERBS.iter().zip(counts.requests) {
        text.labelled("control_requests_total", "verb", verb, count);
    }
    text.head("control_dropped_total", "counter", "Clients that were let go, or told an error.");
    for (why, count) in DROPPED.iter().zip(counts.dropped) {
        text.labelled("control_dropped_total", "reason", why, count);
    }
    text.0
}

fn stages(text: &mut Metrics, seen: &[Seen]) {
    by_stage(text, "stage_units", "Units of hydration in a stage.", seen, |stage| stage.units);
    by_stage(text, "stage_reads", "Reads planned for a stage.", seen, |stage| stage.reads);
    by_stage(text, "stage_reads_done", "Reads of a stage that were done.", seen, |stage| stage.done);
    let help = "Reads of a stage that others, or an earlier run, had done.";
    by_stage(text, "stage_reads_left_out", help, seen, |stage| stage.skipped);
    by_stage(text, "stage_reads_failed", "Reads of a stage that failed.", seen, |stage| stage.failed);
    let help = "1 when nothing of a stage is left to be read.";
    by_stage(text, "stage_over", help, seen, |stage| u64::from(stage.is_over));
}

fn traffic(text: &mut Metrics, seen: &[Seen]) {
    let mut count = |name: &str, help: &str, of: fn(&Traffic) -> u64| {
        by_volume(text, name, "counter", help, seen, |status| of(&status.traffic));
    };
    count("reads_total", "Planned reads done.", |traffic| traffic.reads);
    count("extra_reads_total", "Reads beyond the plan.", |traffic| traffic.extra_reads);
    count("read_bytes_total", "Bytes read.", |traffic| traffic.bytes);
    count("unreadable_blocks_total", "Blocks that could not be read.", |traffic| traffic.errors);
    count("read_retries_total", "Reads submitted again.", |traffic| traffic.retries);
}

fn latencies(text: &mut Metrics, seen: &[Seen]) {
    text.head("read_duration_seconds", "histogram", "Time from submission of a read to its end.");
    for volume in seen {
        let (latencies, labels) = (volume.latencies, volume.labels(None));
        let mut bucket = |bound: &str, count: u64| {
            text.value("read_duration_seconds_bucket", &volume.labels(Some(("le", bound))), count);
        };
        let mut sum = 0;
        for (bound, count) in BOUNDS_US.iter().zip(latencies.counts) {
            sum += count;
            bucket(&(*bound as f64 / 1e6).to_string(), sum);
        }
        bucket("+Inf", latencies.count());
        text.value("read_duration_seconds_sum", &labels, latencies.sum_s);
        text.value("read_duration_seconds_count", &labels, latencies.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::watch::Picture;
    use std::collections::{BTreeMap, BTreeSet};

    /// Series and values; fails on what Prometheus would not read.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        let mut series = BTreeMap::new();
        let mut typed = BTreeSet::new();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                assert!(typed.insert(line.split(' ').next().unwrap().to_string()), "{line}");
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| family.strip_suffix(end))
                .unwrap_or(family);
            assert!(typed.contains(family), "{line} before its type");
            assert!(series.insert(name.to_string(), value.parse().unwrap()).is_none(), "{line} twice");
        }
        series
    }

    fn text_of(volumes: &Volumes) -> String {
        text(volumes, &Counts::default(), 0.0, 0)
    }

    /// One volume that nothing is known of.
    fn one(rest_expected: bool) -> Volumes {
        Volumes::new(vec![State::new("d".into(), 1, rest_expected, 0)])
    }

    #[test]
    fn all_are_there_at_zero_from_the_start_and_none_comes_later() {
        let mut volumes = one(true);
        let start = parse(&text_of(&volumes));
        for (name, value) in &start {
            let is_one = name.contains("build_info") || name.contains("\"starting\"");
            assert_eq!(*value, f64::from(u8::from(is_one)), "{name}");
        }
        let stage =
            |name: &str| StageStatus { name: name.into(), reads: 3, done: 2, ..StageStatus::default() };
        volumes.each[0]
            .on_picture(0, Picture { stages: vec![stage("initrd"), stage("ready")], ..Picture::default() });
        let later = parse(&text_of(&volumes));
        assert_eq!(start.keys().collect::<Vec<_>>(), later.keys().collect::<Vec<_>>());
        assert_eq!(later[r#"ebs_prewarm_stage_reads_done{stage="ready"}"#], 2.0);
        assert_eq!(later[r#"ebs_prewarm_phase{phase="warming"}"#], 1.0);
    }

    #[test]
    fn of_several_volumes_each_has_all_series_under_its_name() {
        let state = |name: &str| State::new("d".into(), 1, true, 0).among_several(name.into(), None);
        let several = Volumes::new(vec![state("root"), state("da\"ta")]);
        let (text, alone) = (text_of(&several), text_of(&one(true)));
        let of = |text: &str, name: &str| -> BTreeSet<String> {
            let label = format!("volume=\"{name}\"");
            let named = parse(text).into_keys().filter(|series| series.contains(&label));
            named
                .map(|series| series.replace(&format!("{label},"), "").replace(&format!("{{{label}}}"), ""))
                .collect()
        };
        let unnamed = parse(&text).into_keys().filter(|series| !series.contains("volume="));
        let process: BTreeSet<String> = unnamed.collect();
        let root = of(&text, "root");
        assert_eq!(root, of(&text, r#"da\"ta"#));
        // With the names taken off, and what is of the process, that is what there is of one volume.
        assert!(root.is_disjoint(&process) && process.len() > 10);
        assert_eq!(
            root.union(&process).cloned().collect::<BTreeSet<_>>(),
            parse(&alone).into_keys().collect()
        );
    }

    #[test]
    fn latencies_are_counted_up_to_each_bound() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).unwrap();
        for us in [400, 700, 35_000, 35_000, 90_000_000] {
            histogram.record(us).unwrap();
        }
        let latencies = Latencies::of(&histogram);
        assert_eq!(latencies.plus(&latencies).count(), 10);
        let picture = Picture { latencies, ..Picture::default() };
        let mut volumes = one(true);
        volumes.each[0].on_picture(0, picture);
        let series = parse(&text_of(&volumes));
        for (bound, count) in
            [("0.0005", 1.0), ("0.001", 2.0), ("0.02", 2.0), ("0.05", 4.0), ("60", 4.0), ("+Inf", 5.0)]
        {
            assert_eq!(
                series[&format!("ebs_prewarm_read_duration_seconds_bucket{{le=\"{bound}\"}}")],
                count,
                "{bound}"
            );
        }
        let sum = series["ebs_prewarm_read_duration_seconds_sum"];
        assert!((sum - 90.0711).abs() < 0.1, "{sum}");
    }

    #[test]
    fn names_keep_to_the_conventions_and_labels_are_escaped() {
        let mut volumes = one(false);
        let stage = StageStatus { name: "a\"b\\c\nd".into(), ..StageStatus::default() };
        volumes.each[0].on_picture(0, Picture { stages: vec![stage], ..Picture::default() });
        let text = text_of(&volumes);
        assert!(text.contains(r#"stage="a\"b\\c\nd""#), "{text}");
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{line}");
        }
    }
}
