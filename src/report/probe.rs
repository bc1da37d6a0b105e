//! What `probe` found, and what is known of the storage.

use super::{LatencyUs, UnitFound};
use crate::units::{ByteSize, human_bytes, human_ns, human_s};
use serde::Serialize;
use std::fmt::Write;

/// How much of a volume is cold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ColdShare {
    /// The share lies from here, with 95 % confidence.
    pub low: f64,
    /// To here.
    pub high: f64,
    /// Blocks that were drawn and read for the first time.
    pub first_reads: u64,
    /// Those of them that were cold.
    pub cold: u64,
}

/// Neighbours of cold blocks at one distance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Distance {
    /// The pair's blocks lie in the two halves of an aligned block of twice this size.
    pub bytes: u64,
    /// Pairs whose first block was cold.
    pub pairs: u64,
    /// Those of them whose neighbour was cold too: it is not in the same unit.
    pub neighbours_cold: u64,
}

/// What kind of storage it is, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StorageReport {
    /// Such as `ebs`, `gcp`, `unknown`.
    pub kind: String,
    /// The machine's maker, where it says so.
    pub machine: Option<String>,
    /// The volume's id in its cloud.
    pub volume_id: Option<String>,
    /// The name that the volume was attached under.
    pub attached_as: Option<String>,
    /// Whether first reads are slow on such storage; `null` where that is not known.
    pub hydrates: Option<bool>,
    /// What is known of it, for people.
    pub known: String,
}

/// What others read and wrote on the device meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Foreground {
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Their reads and writes, those that were merged not among them.
    pub operations: u64,
}

impl std::ops::AddAssign for Foreground {
    fn add_assign(&mut self, other: Foreground) {
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.operations += other.operations;
    }
}

/// What `probe` found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProbeReport {
    pub schema: u32,
    /// `complete`, or why it ended before all was known: `limit reached`, `no place left`, `stopped`, `unreadable`,
    /// `needs no warming`, `refused`.
    pub end: String,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub device: String,
    pub volume: Option<crate::volume::Identity>,
    pub storage: StorageReport,
    /// Draws the places.
    pub seed: u64,
    /// Of what the samples were drawn.
    pub drawn_from: String,
    pub cold_share: ColdShare,
    pub unit: UnitFound,
    /// Why the unit cannot be told.
    pub why: Option<String>,
    /// First reads that were cold, with up to three others in flight.
    pub cold_latency_us: LatencyUs,
    /// The same blocks again.
    pub warm_latency_us: LatencyUs,
    /// What a touch of a cold unit takes at the median, with nothing else in flight; `null` where the unit is not
    /// known, or no more could be read.
    pub touch_us: Option<u64>,
    /// What reading a whole cold unit takes at the median, likewise.
    pub full_us: Option<u64>,
    pub reads: u64,
    pub bytes_read: u64,
    pub elapsed_s: f64,
    /// Units that are warm by that.
    pub units_warmed: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Reads that were not waited for.
    pub abandoned: u64,
    /// What neighbours of cold blocks say of the unit.
    pub distances: Vec<Distance>,
    /// `null` where nobody counts, as on an image file.
    pub foreground: Option<Foreground>,
    /// What was noticed on the way.
    pub notes: Vec<String>,
}

/// `12.3 %`, without what does not count.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        whole if whole >= 10.0 || whole == 0.0 => format!("{whole:.0} %"),
        small => format!("{small:.1} %"),
    }
}

/// A confidence, never rounded up to certainty.
pub(super) fn confidence(share: f64) -> String {
    let shown = (share * 10_000.0).floor() / 100.0;
    format!("{:.2} %", shown.min(99.99))
}

impl StorageReport {
    /// A line for people.
    pub(super) fn line(&self, out: &mut String) {
        let id = self.volume_id.as_ref().map_or_else(String::new, |id| format!(" {id}"));
        let name = self.attached_as.as_ref().map_or_else(String::new, |name| format!(", attached as {name}"));
        let _ = writeln!(out, "storage: {}{id}{name}: {}", self.kind, self.known);
    }
}

impl Foreground {
    /// A line for people, where there was anything.
    pub(super) fn line(self, out: &mut String) {
        if self.operations > 0 {
            let (read, written) = (human_bytes(self.read_bytes), human_bytes(self.written_bytes));
            let _ = writeln!(
                out,
                "others used the device meanwhile: {} operations, {read} read, {written} written",
                self.operations
            );
        }
    }
}

impl ProbeReport {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let us = |us: u64| human_ns(us * 1000);
        if self.reads == 0 {
            let _ = writeln!(out, "{}: {}", self.device, self.end);
            self.storage.line(&mut out);
            return out;
        }
        let share = &self.cold_share;
        let _ = writeln!(
            out,
            "{}: {} to {} is cold ({} of {} first reads; drawn from {})",
            self.device,
            percent(share.low),
            percent(share.high),
            share.cold,
            share.first_reads,
            self.drawn_from,
        );
        self.storage.line(&mut out);
        match (self.unit.bytes, &self.why) {
            (Some(bytes), _) => {
                let sure = confidence(self.unit.confidence);
                let _ = writeln!(out, "unit: {}, with {sure} confidence", ByteSize(bytes));
            }
            (None, why) => {
                let _ = writeln!(out, "unit: cannot tell: {}", why.as_deref().unwrap_or("nothing was read"));
            }
        }
        self.distances_line(&mut out);
        if share.cold > 0 {
            let (cold, warm) = (&self.cold_latency_us, &self.warm_latency_us);
            let _ = writeln!(
                out,
                "a cold read takes {} at the median, p99 {}, with up to 4 in flight; the same block again {}",
                us(cold.p50),
                us(cold.p99),
                us(warm.p50),
            );
        }
        if let (Some(touch), Some(full)) = (self.touch_us.map(us), self.full_us.map(us)) {
            let _ = writeln!(out, "alone, a unit costs {touch} to touch, {full} to read whole");
        }
        let _ = writeln!(
            out,
            "it took {} reads, {}, {}; {} units are warm by that",
            self.reads,
            human_bytes(self.bytes_read),
            human_s(self.elapsed_s),
            self.units_warmed,
        );
        if self.errors > 0 {
            let _ = writeln!(out, "{} reads failed", self.errors);
        }
        if let Some(foreground) = self.foreground {
            foreground.line(&mut out);
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }

    /// Distances at which there were pairs, each with how many neighbours were cold.
    fn distances_line(&self, out: &mut String) {
        let tried = self.distances.iter().filter(|distance| distance.pairs > 0);
        let shown: Vec<String> =
            tried.map(|at| format!("{} {}/{}", ByteSize(at.bytes), at.neighbours_cold, at.pairs)).collect();
        if !shown.is_empty() {
            let _ = writeln!(out, "cold neighbours of cold blocks, by distance: {}", shown.join(", "));
        }
    }
}
