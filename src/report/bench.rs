//! What `bench` measured.

use super::LatencyUs;
use crate::units::{human_bytes, human_ns};
use serde::Serialize;
use std::fmt::Write;

/// What is hydrated at once.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnitFound {
    /// In bytes; `null` where it is not what was assumed.
    pub bytes: Option<u64>,
    /// Share of sampled units that were warm throughout after one touch.
    pub confidence: f64,
}

/// Why the volume is called cold.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Evidence {
    /// Units that were read one at a time, then again.
    pub units: u64,
    /// Median of the first reads over that of the second.
    pub ratio: f64,
    /// Whether that is far enough apart.
    pub cold: bool,
}

/// What one method got out of the volume.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MethodReport {
    pub name: String,
    /// Reads in flight.
    pub depth: u32,
    /// Units it hydrated.
    pub units: u64,
    pub bytes_read: u64,
    pub errors: u64,
    pub elapsed_s: f64,
    pub hydrated_bytes_per_s: f64,
    pub latency_us: LatencyUs,
}

/// What to give to `warm` on such a volume.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recommended {
    pub mode: String,
    pub unit_bytes: u64,
    pub depth: u32,
}

/// What `bench` measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BenchReport {
    pub schema: u32,
    /// `complete`, or why not: `stopped`, `device gone`, `not cold`, `refused`.
    pub end: String,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub device: String,
    pub volume: Option<crate::volume::Identity>,
    /// For the draw of places.
    pub seed: u64,
    pub unit: UnitFound,
    /// First reads, one at a time.
    pub cold_latency_us: LatencyUs,
    /// The same blocks again.
    pub warm_latency_us: LatencyUs,
    pub methods: Vec<MethodReport>,
    pub recommended: Option<Recommended>,
    pub evidence: Evidence,
}

impl BenchReport {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let us = |us: u64| human_ns(us * 1000);
        let _ = writeln!(
            out,
            "{}: cold: {} first reads took {} at the median, the same blocks again {}",
            self.device,
            self.evidence.units,
            us(self.cold_latency_us.p50),
            us(self.warm_latency_us.p50),
        );
        let _ = writeln!(
            out,
            "{:<16} {:>6} {:>10} {:>9} {:>12} {:>9} {:>9} {:>9}",
            "method", "units", "read", "elapsed", "hydrated", "p50", "p99", "max"
        );
        for method in &self.methods {
            let _ = writeln!(
                out,
                "{:<16} {:>6} {:>10} {:>9} {:>12} {:>9} {:>9} {:>9}",
                method.name,
                method.units,
                human_bytes(method.bytes_read),
                human_ns((method.elapsed_s * 1e9) as u64),
                format!("{:.1} MB/s", method.hydrated_bytes_per_s / 1e6),
                us(method.latency_us.p50),
                us(method.latency_us.p99),
                us(method.latency_us.max),
            );
        }
        if let Some(best) = &self.recommended {
            let unit = crate::units::ByteSize(best.unit_bytes);
            let _ = writeln!(
                out,
                "recommended: --mode {} --unit {unit} --depth {} (the smallest depth within 5 % of the best rate)",
                best.mode, best.depth
            );
        }
        if self.unit.bytes.is_none() {
            let _ =
                writeln!(out, "the unit is smaller than was assumed: touching one block is not enough here");
        }
        out
    }
}
