//! What the emulator says of itself: parameters, counters, and the units in order of first touch, the ground
//! truth that recordings and warmings are compared with.

use crate::cold::{ColdVolume, Counters, Model};
use crate::units::{ByteSize, Rate, human_bytes, human_ns};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Version of the document.
const SCHEMA: u32 = 1;
/// First touches shown to people; the JSON has all.
const TOUCHES_SHOWN: usize = 16;

/// The contents of `stats.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Version of this document.
    pub schema: u32,
    /// The image's path.
    pub image: String,
    /// Size of the volume in bytes.
    pub volume_bytes: u64,
    /// The process that serves the mount, where it has one of its own.
    pub daemon_pid: Option<u32>,
    /// Seed of the law.
    pub seed: u64,
    /// The model's parameters.
    pub model: Parameters,
    /// What happened since the mount or the last reset.
    pub counters: Counts,
    /// Units of the volume.
    pub units: u64,
    /// Units that are still cold.
    pub cold_units: u64,
    /// Operations waiting for their answer.
    pub in_flight: u64,
    /// Zero of the law's time on `CLOCK_MONOTONIC`.
    pub mounted_at_monotonic_ns: u64,
    /// Now, in the law's time.
    pub now_ns: u64,
    /// Shortest way of a read through the mount and back; the law's time includes it.
    pub way_ns: u64,
    /// How much later than its law the emulator answered.
    pub late: Late,
    /// The units that were cold, each once, in order of their first touch.
    pub touched: Vec<FirstTouch>,
}

/// A model in numbers. Zero means no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // As in `cold::Model` and `cold::Faults`.
pub struct Parameters {
    pub name: String,
    pub unit_bytes: u64,
    pub first_read_ns: u64,
    pub sigma: f64,
    pub fetches: u32,
    pub hydration_bytes_per_s: u64,
    pub iops: u64,
    pub throughput_bytes_per_s: u64,
    pub warm_ns: u64,
    pub warm_sigma: f64,
    pub span_parallel: bool,
    pub eio_units: Vec<u64>,
    /// Start and number of sectors.
    pub eio_sectors: Vec<(u64, u64)>,
    pub tail_share: f64,
    pub tail_ns: (u64, u64),
    pub stall_fetch: Option<u64>,
    pub stall_ns: u64,
    pub vary: Option<(f64, f64)>,
    pub vary_period_ns: u64,
    pub unallocated_share: f64,
    pub warm_share: f64,
}

/// The law's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Reads answered, failed ones among them.
    pub reads: u64,
    /// Bytes they asked for.
    pub bytes_read: u64,
    /// Writes answered.
    pub writes: u64,
    /// Reads that waited for a fetch.
    pub cold_reads: u64,
    /// Fetches begun.
    pub fetches: u64,
    /// Units hydrated by a fetch.
    pub hydrated: u64,
    /// Operations that failed with EIO.
    pub errors: u64,
}

/// Answers compared with their due time, since the mount or the last reset, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// Median.
    pub ns_p50: u64,
    /// 99th percentile.
    pub ns_p99: u64,
    /// Worst.
    pub ns_max: u64,
}

/// One unit's first touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstTouch {
    /// Number of the unit.
    pub unit: u64,
    /// When its first operation was admitted, in the law's time.
    pub at_ns: u64,
}

impl Stats {
    /// What a law says at `now_ns`; the caller fills in what it alone knows.
    pub fn of(law: &ColdVolume, seed: u64, now_ns: u64) -> Stats {
        let touched = law.touched().iter().map(|t| FirstTouch { unit: t.unit, at_ns: t.at_ns }).collect();
        Stats {
            schema: SCHEMA,
            image: String::new(),
            volume_bytes: 0,
            daemon_pid: None,
            seed,
            model: Parameters::of(law.model()),
            counters: Counts::of(law.counters()),
            units: law.sectors().div_ceil(law.model().unit_sectors()),
            cold_units: law.cold_units(),
            in_flight: 0,
            mounted_at_monotonic_ns: 0,
            now_ns,
            way_ns: 0,
            late: Late::default(),
            touched,
        }
    }

    /// The touched units in order of their numbers.
    pub fn touched_units(&self) -> Vec<u64> {
        let mut units: Vec<u64> = self.touched.iter().map(|touch| touch.unit).collect();
        units.sort_unstable();
        units
    }

    /// For people.
    pub fn text(&self) -> String {
        let (model, counters) = (&self.model, &self.counters);
        let limit = |value: u64, shown: String| if value == 0 { "no limit".into() } else { shown };
        let mut text = format!(
            "image        {} ({})\n\
             model        {}, seed {}: unit {}, first read {} (sigma {}), {} fetches at once, hydration {}, \
             {} IOPS, throughput {}, warm {}\n\
             units        {} of {} cold\n\
             reads        {} ({}), {} of them cold; {} writes, {} errors, {} in flight\n\
             fetches      {} begun, {} units hydrated\n\
             lateness     p50 {}, p99 {}, max {} after the law's time\n",
            self.image,
            human_bytes(self.volume_bytes),
            model.name,
            self.seed,
            ByteSize(model.unit_bytes),
            human_ns(model.first_read_ns),
            model.sigma,
            model.fetches,
            limit(model.hydration_bytes_per_s, Rate(model.hydration_bytes_per_s).to_string()),
            limit(model.iops, model.iops.to_string()),
            limit(model.throughput_bytes_per_s, Rate(model.throughput_bytes_per_s).to_string()),
            human_ns(model.warm_ns),
            self.cold_units,
            self.units,
            counters.reads,
            human_bytes(counters.bytes_read),
            counters.cold_reads,
            counters.writes,
            counters.errors,
            self.in_flight,
            counters.fetches,
            counters.hydrated,
            human_ns(self.late.ns_p50),
            human_ns(self.late.ns_p99),
            human_ns(self.late.ns_max),
        );
        let _ = writeln!(text, "first touch  {} units", self.touched.len());
        for touch in self.touched.iter().take(TOUCHES_SHOWN) {
            let _ = writeln!(text, "  unit {:>8} at {:.6} s", touch.unit, touch.at_ns as f64 / 1e9);
        }
        if self.touched.len() > TOUCHES_SHOWN {
            let _ = writeln!(text, "  and {} more; --json has all", self.touched.len() - TOUCHES_SHOWN);
        }
        text
    }
}

impl Parameters {
    /// All of a model.
    pub fn of(model: &Model) -> Parameters {
        let faults = &model.faults;
        Parameters {
            name: model.name.clone(),
            unit_bytes: model.unit_bytes,
            first_read_ns: model.first_read_ns,
            sigma: model.sigma,
            fetches: model.fetches,
            hydration_bytes_per_s: model.hydration_bytes_per_s,
            iops: model.iops,
            throughput_bytes_per_s: model.throughput_bytes_per_s,
            warm_ns: model.warm_ns,
            warm_sigma: model.warm_sigma,
            span_parallel: model.span_parallel,
            eio_units: faults.eio_units.iter().copied().collect(),
            eio_sectors: faults.eio_sectors.iter().map(|e| (e.start(), e.sectors())).collect(),
            tail_share: faults.tail_share,
            tail_ns: faults.tail_ns,
            stall_fetch: faults.stall_fetch,
            stall_ns: faults.stall_ns,
            vary: faults.vary,
            vary_period_ns: faults.vary_period_ns,
            unallocated_share: faults.unallocated_share,
            warm_share: faults.warm_share,
        }
    }
}

impl Counts {
    fn of(counters: Counters) -> Counts {
        let Counters { reads, bytes_read, writes, cold_reads, fetches, hydrated, errors } = counters;
        Counts { reads, bytes_read, writes, cold_reads, fetches, hydrated, errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::Op;
    use crate::extent::{Extent, ExtentSet};

    #[test]
    fn a_document_survives_json_and_tells_people_the_same() {
        let mut law = ColdVolume::new(Model::named("io2").unwrap(), 1 << 17, 4, ExtentSet::new());
        for unit in 0..20 {
            law.submit(0, unit, Op::Read, Extent::at(unit * 1024, 8).unwrap());
        }
        while law.pop_due(u64::MAX).is_some() {}
        let stats = Stats::of(&law, 4, 9);
        let again: Stats = serde_json::from_str(&serde_json::to_string(&stats).unwrap()).unwrap();
        assert_eq!(again, stats);
        let text = stats.text();
        assert!(text.contains("108 of 128 cold") && text.contains("and 4 more"), "{text}");
        assert_eq!(stats.touched_units(), (0..20).collect::<Vec<_>>());
    }
}
