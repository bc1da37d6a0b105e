//! What `bench` measured.

use super::probe::{confidence, percent};
use super::{Bins, ColdShare, Foreground, LatencyUs, StorageReport};
use crate::units::{ByteSize, human_bytes, human_ns, human_s};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write;

/// What is hydrated at once.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnitFound {
    /// In bytes; `null` where it cannot be told.
    pub bytes: Option<u64>,
    /// How sure that is, from 0 to 1.
    pub confidence: f64,
}

/// Why the volume is called cold, and what speaks against it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Evidence {
    /// Whether it is called cold.
    pub cold: bool,
    /// Units that were read for the first time, one at a time.
    pub units: u64,
    /// Cold reads that `cold_latency_us` is of.
    pub cold_units: u64,
    /// Reads of all this that failed: they are in no latency.
    pub errors: u64,
    /// Those of them that did not end in ten seconds, and were not waited for.
    pub stalled: u64,
    /// Median of the cold ones of these over that of repeated reads.
    pub ratio: f64,
    /// Units that are warm by looking at them before.
    pub probed_units: u64,
    /// Sampled before anything was measured.
    pub cold_share: ColdShare,
    /// Slower reads than this were cold; found from the latencies.
    pub cut_us: Option<u64>,
    /// What others did on the device while all this was read; `null` where nobody counts.
    pub foreground: Option<Foreground>,
    /// What spoilt the measurement.
    pub spoilt: Vec<String>,
    /// Places that were looked into for all this: first unit and number of units, of the report's `map_unit_bytes` each.
    pub map: Vec<(u64, u64)>,
}

/// A distribution of latencies: at each share of reads, what they took at the most, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles(pub Vec<(f64, u64)>);

impl Quantiles {
    /// Shares at which a distribution is told: its body, and as much of its tail.
    const SHARES: [f64; 22] = [
        0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998,
        0.999, 0.9995, 0.9999, 1.0,
    ];

    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Quantiles {
        // In one pass: a bench does this for each method after each part.
        let mut shares = Self::SHARES.iter().copied().peekable();
        let (mut all, mut count, total) = (Vec::new(), 0, histogram.len());
        for value in histogram.iter_recorded() {
            count += value.count_at_value();
            while let Some(share) = shares.next_if(|share| share * total as f64 <= count as f64) {
                all.push((share, value.value_iterated_to()));
            }
        }
        Quantiles(all)
    }
}

/// Time in which more was asked for than allowed, as EBS counts it, as a share of the time measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    pub volume_iops: f64,
    pub volume_throughput: f64,
    pub instance_iops: f64,
    pub instance_throughput: f64,
}

/// Blocks of a method's part of the volume that were read afterwards, drawn at random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub blocks: u64,
    /// Those of them that were warm.
    pub warm: u64,
}

/// What one method got out of the volume.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MethodReport {
    pub name: String,
    /// Reads in flight; `null` for a foreign command.
    pub depth: Option<u32>,
    /// Units it hydrated.
    pub units: u64,
    pub bytes_read: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Reads that did not end in ten seconds, and were not waited for.
    pub stalled: u64,
    pub elapsed_s: f64,
    /// From the first read to the end of the last.
    pub hydrated_bytes_per_s: f64,
    /// Without the first and the last round of reads; `null` for a foreign command, and where there were too few.
    pub steady_bytes_per_s: Option<f64>,
    /// Processor seconds it took; `null` where nobody counts.
    pub cpu_s: Option<f64>,
    pub latency_us: LatencyUs,
    pub quantiles: Quantiles,
    /// Seconds from its start and bytes hydrated by then; its parts one after the other.
    pub series: Vec<(f64, u64)>,
    /// Parts of the volume that were its own: first unit and number of units, of `map_unit_bytes` each.
    pub map: Vec<(u64, u64)>,
    pub checked: Checked,
    /// As EBS counts; `null` where it does not.
    pub limits: Option<Limits>,
    /// What others did on the device meanwhile.
    pub foreground: Option<Foreground>,
    /// What a foreign command ran as, with its place in braces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What went wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One depth of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SweepPoint {
    pub depth: u32,
    pub units: u64,
    /// Without the first and the last round of reads.
    pub hydrated_bytes_per_s: f64,
}

/// How the rate rises with the depth.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SweepReport {
    /// `touch` or `full`.
    pub mode: String,
    /// By depth.
    pub points: Vec<SweepPoint>,
    /// The smallest depth that is as good as the best, as far as was measured.
    pub knee: Option<u32>,
    /// Whether it was measured far enough to say so of all depths: until more in flight brought nothing.
    pub knee_certain: bool,
}

/// What to give to `warm` on such a volume.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recommended {
    pub mode: String,
    pub unit_bytes: u64,
    pub depth: u32,
    pub hydrated_bytes_per_s: f64,
    /// Why, with what was measured.
    pub reason: String,
    /// Whether both modes were measured, and enough was looked at again of what was only touched: no other is kept for
    /// `warm`.
    pub compared: bool,
}

/// What `bench` measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BenchReport {
    pub schema: u32,
    /// `complete`, or why not: `stopped`, `device gone`, `not cold`, `needs no warming`, `refused`; `measuring` while
    /// it is under way.
    pub end: String,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub device: String,
    pub volume: Option<crate::volume::Identity>,
    pub storage: StorageReport,
    /// What carried our own reads.
    pub engine: String,
    /// Draws the places.
    pub seed: u64,
    /// Of what the places were drawn.
    pub drawn_from: String,
    pub unit: UnitFound,
    /// Why the unit cannot be told.
    pub why: Option<String>,
    /// What was touched as one unit.
    pub touched_unit_bytes: u64,
    /// Size of what the methods' maps count.
    pub map_unit_bytes: u64,
    /// First reads that were cold, one at a time.
    pub cold_latency_us: LatencyUs,
    pub cold_quantiles: Quantiles,
    pub cold_bins: Bins,
    /// Between these its 99th percentile lies, with 95 % confidence; the second is 0 where it is not known, since fewer
    /// than 368 reads say nothing of that.
    pub cold_p99_us: (u64, u64),
    /// Repeated reads.
    pub warm_latency_us: LatencyUs,
    pub warm_quantiles: Quantiles,
    pub warm_bins: Bins,
    pub methods: Vec<MethodReport>,
    pub sweeps: Vec<SweepReport>,
    pub recommended: Option<Recommended>,
    pub evidence: Evidence,
    /// Where what was found is kept for `warm`.
    pub saved_as: Option<String>,
    /// What was noticed on the way.
    pub notes: Vec<String>,
}

impl BenchReport {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let us = |us: u64| human_ns(us * 1000);
        if self.evidence.units == 0 {
            let _ = writeln!(out, "{}: {}", self.device, self.end);
            self.storage.line(&mut out);
            return out;
        }
        let (cold, share) = (&self.cold_latency_us, &self.evidence.cold_share);
        let _ = writeln!(
            out,
            "{}: {} to {} is cold; {} cold first reads took {} at the median, p99 {}{}; repeated ones {}",
            self.device,
            percent(share.low),
            percent(share.high),
            self.evidence.cold_units,
            us(cold.p50),
            us(cold.p99),
            match self.cold_p99_us {
                (0, _) => String::new(),
                (low, 0) => format!(" (at least {})", us(low)),
                (low, high) => format!(" ({} to {})", us(low), us(high)),
            },
            us(self.warm_latency_us.p50),
        );
        self.storage.line(&mut out);
        match (self.unit.bytes, &self.why) {
            (Some(bytes), _) => {
                let sure = confidence(self.unit.confidence);
                let _ = writeln!(out, "unit: {}, with {sure} confidence", ByteSize(bytes));
            }
            (None, why) => {
                let why = why.as_deref().unwrap_or("nothing was read");
                let touched = ByteSize(self.touched_unit_bytes);
                let _ = writeln!(out, "unit: cannot tell: {why}; {touched} was touched as one");
            }
        }
        self.table(&mut out);
        for sweep in &self.sweeps {
            sweep.line(&mut out);
        }
        self.rest(&mut out);
        out
    }

    /// The methods, of a sweep's depths only the best: all of them are told elsewhere.
    pub(super) fn shown_methods(&self) -> impl Iterator<Item = &MethodReport> {
        let swept = |method: &&MethodReport| {
            let of =
                |sweep: &SweepReport| method.name.strip_prefix(&sweep.mode)?.strip_prefix('@')?.parse().ok();
            !self.sweeps.iter().any(|sweep| of(sweep).is_some_and(|depth: u32| sweep.knee != Some(depth)))
        };
        self.methods.iter().filter(swept)
    }

    fn table(&self, out: &mut String) {
        let us = |us: u64| human_ns(us * 1000);
        let _ = writeln!(
            out,
            "{:<16} {:>6} {:>10} {:>9} {:>12} {:>8} {:>9} {:>9} {:>9}",
            "method", "units", "read", "elapsed", "hydrated", "checked", "p50", "p99", "max"
        );
        for method in self.shown_methods() {
            let latency = &method.latency_us;
            let latencies = match method.depth {
                Some(_) => [latency.p50, latency.p99, latency.max].map(us),
                None => Default::default(),
            };
            let _ = writeln!(
                out,
                "{:<16} {:>6} {:>10} {:>9} {:>12} {:>8} {:>9} {:>9} {:>9}",
                method.name,
                method.units,
                human_bytes(method.bytes_read),
                human_s(method.elapsed_s),
                mb_per_s(method.hydrated_bytes_per_s),
                format!("{}/{}", method.checked.warm, method.checked.blocks),
                latencies[0],
                latencies[1],
                latencies[2],
            );
        }
    }

    fn rest(&self, out: &mut String) {
        for method in &self.methods {
            if let Some(error) = &method.error {
                let _ = writeln!(out, "{}: {error}", method.name);
            }
            if method.errors > 0 {
                let _ = writeln!(
                    out,
                    "{}: {} reads failed, {} of them stalled",
                    method.name, method.errors, method.stalled
                );
            }
        }
        if let Some(best) = &self.recommended {
            let unit = ByteSize(best.unit_bytes);
            let _ = writeln!(
                out,
                "recommended: --mode {} --unit {unit} --depth {}: {}",
                best.mode, best.depth, best.reason
            );
        }
        for spoilt in &self.evidence.spoilt {
            let _ = writeln!(out, "spoilt: {spoilt}");
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        if let Some(path) = &self.saved_as {
            let _ = writeln!(out, "kept for `warm`: {path}");
        }
        if !["complete", "measuring"].contains(&self.end.as_str()) {
            let _ = writeln!(out, "it ended early: {}", self.end);
        }
    }
}

impl SweepReport {
    fn line(&self, out: &mut String) {
        let points: Vec<String> = self
            .points
            .iter()
            .map(|point| {
                let knee = match self.knee == Some(point.depth) {
                    true if self.knee_certain => " (knee)",
                    true => " (knee so far)",
                    false => "",
                };
                format!("{} {}{knee}", point.depth, mb_per_s(point.hydrated_bytes_per_s))
            })
            .collect();
        if !points.is_empty() {
            let _ = writeln!(out, "{} by depth: {}", self.mode, points.join(", "));
        }
    }
}

/// `139 MB/s`, `9.8 MB/s`.
pub(super) fn mb_per_s(rate: f64) -> String {
    match rate / 1e6 {
        large if large >= 100.0 => format!("{large:.0} MB/s"),
        small => format!("{small:.1} MB/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::histogram_us;

    #[test]
    fn quantiles_are_those_of_the_histogram() {
        let histogram = histogram_us((1..=5000).map(|n| n * n * 1000));
        let Quantiles(all) = Quantiles::of(&histogram);
        assert_eq!(all.len(), Quantiles::SHARES.len());
        for (share, us) in all {
            assert_eq!(us, histogram.value_at_quantile(share), "{share}");
        }
        assert_eq!(Quantiles::of(&histogram_us([])), Quantiles::default());
    }
}
