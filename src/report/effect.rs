//! What a warming did for the boot that it ran beside, as plain values and as text.

use super::Metrics;
use crate::units::{SECTOR_BYTES, human_bytes, human_ns, human_s};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Units of a stage, by who was first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageEffect {
    pub name: String,
    /// Units planned in it.
    pub units: u64,
    /// Warm before the boot asked for them.
    pub before: u64,
    /// The boot asked while they were being read: it waited for a part of the time.
    pub late: u64,
    /// The boot asked first.
    pub after: u64,
    /// Warmed, and never asked for.
    pub never: u64,
    /// Neither warmed nor asked for.
    pub left: u64,
}

impl StageEffect {
    /// Adds the units of another.
    pub fn add(&mut self, other: &StageEffect) {
        self.units += other.units;
        self.before += other.before;
        self.late += other.late;
        self.after += other.after;
        self.never += other.never;
        self.left += other.left;
    }

    /// Names and numbers, in order.
    pub fn by_state(&self) -> [(&'static str, u64); 5] {
        [
            ("before", self.before),
            ("late", self.late),
            ("after", self.after),
            ("never", self.never),
            ("left", self.left),
        ]
    }
}

/// What the boot read that the profile lacks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Missed {
    pub start_sector: u64,
    pub sectors: u64,
    /// Stage of the boot that asked.
    pub stage: String,
    /// Seconds since the kernel started.
    pub at_s: f64,
    /// How long it took; `null` where that was not seen.
    pub latency_us: Option<u32>,
    pub process: String,
}

/// Requests of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    pub reads: u64,
    pub bytes_read: u64,
    pub writes: u64,
    pub bytes_written: u64,
    /// Processor seconds: of the warming, and of the machine since it started.
    pub cpu_s: f64,
}

impl Share {
    /// The sum of both.
    pub fn plus(self, more: Share) -> Share {
        Share {
            reads: self.reads + more.reads,
            bytes_read: self.bytes_read + more.bytes_read,
            writes: self.writes + more.writes,
            bytes_written: self.bytes_written + more.bytes_written,
            cpu_s: self.cpu_s + more.cpu_s,
        }
    }
}

/// What a warming did for the boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EffectReport {
    pub schema: u32,
    pub device: String,
    pub profile: String,
    pub unit_bytes: u64,
    /// How the warming ended.
    pub end: String,
    /// From when to when the boot's requests were seen, seconds since the kernel started.
    pub from_s: f64,
    pub until_s: f64,
    /// Events that were lost: units of which nothing is known may be among them.
    pub lost: u64,
    pub stages: Vec<StageEffect>,
    /// Sums over all stages.
    pub totals: StageEffect,
    /// Units that the boot read and no stage has.
    pub missed_units: u64,
    /// Units that it wrote in part first, and no stage has: where they held something, they had to be fetched for that.
    pub written_units: u64,
    /// What of them was asked for first, in order of time, as far as it is listed.
    pub missed: Vec<Missed>,
    /// For how long at least one of its reads would have waited for a unit that was cold, had nothing been warmed: from when it
    /// was answered to when it would have been, where a first read takes as long as the fastest tenth of the warming's own.
    pub stall_avoided_s: f64,
    /// For how long at least one of its first requests for a unit that was not warm was under way.
    pub stall_suffered_s: f64,
    /// The warming's part.
    pub own: Share,
    /// The boot's part; `cpu_s` is that of the whole machine, the warming included.
    pub boot: Share,
    /// Over time, seconds since the kernel started: units that were warm by then, and those of the plan that the boot had
    /// asked for.
    pub warm_by: Vec<(f64, u64)>,
    pub asked_by: Vec<(f64, u64)>,
    pub notes: Vec<String>,
}

impl EffectReport {
    /// The warming's share of the requests that read, 0 to 1.
    pub fn share_of_reads(&self) -> f64 {
        share(self.own.reads as f64, self.boot.reads as f64)
    }

    /// And of the bytes.
    pub fn share_of_bytes(&self) -> f64 {
        share(self.own.bytes_read as f64, self.boot.bytes_read as f64)
    }

    /// And of the machine's processor time.
    pub fn share_of_cpu(&self) -> f64 {
        share(self.own.cpu_s, self.boot.cpu_s - self.own.cpu_s)
    }

    /// In one line.
    pub fn line(&self) -> String {
        let totals = &self.totals;
        format!(
            "{}: of {} units {} were warm before the boot asked, {} half-way, {} after it, {} were never asked for, \
             {} left; {} missed; {} of waiting avoided, {} suffered; own share {:.1} % of reads, {:.1} % of bytes, \
             {:.1} % of processor time",
            self.device,
            totals.units,
            totals.before,
            totals.late,
            totals.after,
            totals.never,
            totals.left,
            self.missed_units,
            human_s(self.stall_avoided_s),
            human_s(self.stall_suffered_s),
            100.0 * self.share_of_reads(),
            100.0 * self.share_of_bytes(),
            100.0 * self.share_of_cpu(),
        )
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}: what warming did for this boot, from {} to {} after the kernel started",
            self.device,
            human_s(self.from_s),
            human_s(self.until_s),
        );
        let _ = writeln!(
            out,
            "  {:<10} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
            "stage", "units", "before", "late", "after", "never", "left"
        );
        let sum = StageEffect { name: "all".into(), ..self.totals.clone() };
        for stage in self.stages.iter().chain((self.stages.len() > 1).then_some(&sum)) {
            let _ = write!(out, "  {:<10} {:>7}", stage.name, stage.units);
            stage.by_state().iter().for_each(|(_, units)| _ = write!(out, " {units:>7}"));
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "waiting: {} avoided, {} suffered",
            human_s(self.stall_avoided_s),
            human_s(self.stall_suffered_s),
        );
        let _ = writeln!(
            out,
            "own share: {:.1} % of reads ({} of {}), {:.1} % of bytes ({}), {:.1} % of processor time ({})",
            100.0 * self.share_of_reads(),
            self.own.reads,
            self.own.reads + self.boot.reads,
            100.0 * self.share_of_bytes(),
            human_bytes(self.own.bytes_read),
            100.0 * self.share_of_cpu(),
            human_s(self.own.cpu_s),
        );
        if self.missed_units > 0 {
            let _ = writeln!(
                out,
                "{} units were read that the profile lacks, the first of them:",
                self.missed_units
            );
            for missed in self.missed.iter().take(5) {
                let took = missed
                    .latency_us
                    .map_or_else(String::new, |us| format!(", took {}", human_ns(u64::from(us) * 1000)));
                let _ = writeln!(
                    out,
                    "  at {} {}: {} at {}{took}",
                    human_s(missed.at_s),
                    missed.process,
                    human_bytes(missed.sectors * SECTOR_BYTES),
                    human_bytes(missed.start_sector * SECTOR_BYTES),
                );
            }
        }
        self.notes.iter().for_each(|note| _ = writeln!(out, "note: {note}"));
        out
    }

    /// For Prometheus: all of them are there, at 0 too.
    pub fn metrics(&self) -> String {
        let mut out = Metrics::default();
        let units = "effect_units";
        out.head(units, "gauge", "Units by who was first: the warming or the boot.");
        for (state, count) in self.totals.by_state().into_iter().chain([("missed", self.missed_units)]) {
            out.labelled(units, "state", state, count);
        }
        let mut one = |name: &str, help: &str, value: f64| out.one(name, "gauge", help, value);
        let written = self.written_units as f64;
        one("effect_written_units", "Units that the boot wrote in part and the profile lacks.", written);
        let (avoided_s, suffered_s) = (self.stall_avoided_s, self.stall_suffered_s);
        one("effect_stall_avoided_seconds", "Waiting that the boot was spared.", avoided_s);
        let help = "Waiting of the boot for units that were not warm.";
        one("effect_stall_suffered_seconds", help, suffered_s);
        let (own, boot) = (&self.own, &self.boot);
        for (name, help, own, boot) in [
            ("effect_reads", "Requests that read.", own.reads, boot.reads),
            ("effect_read_bytes", "Bytes read.", own.bytes_read, boot.bytes_read),
        ] {
            out.head(name, "gauge", help);
            out.labelled(name, "by", "warming", own);
            out.labelled(name, "by", "boot", boot);
        }
        out.one("effect_cpu_seconds", "gauge", "Processor time of the warming.", own.cpu_s);
        out.one("effect_lost_events", "gauge", "Events that were lost.", self.lost);
        out.0
    }
}

fn share(own: f64, others: f64) -> f64 {
    if own + others > 0.0 { own / (own + others.max(0.0)) } else { 0.0 }
}
