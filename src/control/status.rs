//! How far a daemon is, as it is told to others: plain values, and their text for people.
//!
//! Holds: text for people has no control character but the end of a line, whoever has sent it.

use crate::engine::Settled;
use crate::units::{human_bytes, human_s};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Version of the fields; additions do not change it.
pub const SCHEMA: u32 = 1;

/// Where a daemon is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It looks for the disk, or waits for another process that warms it.
    #[default]
    Starting,
    /// It reads.
    Warming,
    /// It was told to wait.
    Paused,
    /// All is read that was to be.
    Warm,
    /// It ended before that by itself: why is in `error`.
    Failed,
    /// It was told to end.
    Stopped,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 6] =
        [Phase::Starting, Phase::Warming, Phase::Paused, Phase::Warm, Phase::Failed, Phase::Stopped];

    /// As it stands in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Warming => "warming",
            Phase::Paused => "paused",
            Phase::Warm => "warm",
            Phase::Failed => "failed",
            Phase::Stopped => "stopped",
        }
    }
}

/// How far one stage is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageStatus {
    /// Its name.
    pub name: String,
    /// Units in it that no earlier stage has; 0 while that is not known, as of the rest before it begins.
    pub units: u64,
    /// Reads that are planned for them.
    pub reads: u64,
    /// Reads that were done.
    pub done: u64,
    /// Reads that were left out: done by an earlier run, or by the boot itself.
    pub skipped: u64,
    /// Reads that failed.
    pub failed: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Whether nothing of it is left to be read.
    pub is_over: bool,
}

impl StageStatus {
    /// Takes over how its reads went.
    pub fn settle(&mut self, settled: &Settled) {
        self.done = settled.done;
        self.skipped = settled.resumed + settled.taken + settled.warm;
        self.failed = settled.failed;
        self.is_over = settled.reads() >= self.reads;
    }

    /// The same stage of another volume along with it.
    pub fn add(&mut self, more: &StageStatus) {
        self.units += more.units;
        self.reads += more.reads;
        self.done += more.done;
        self.skipped += more.skipped;
        self.failed += more.failed;
        self.bytes += more.bytes;
        self.is_over &= more.is_over;
    }

    /// Reads that are over.
    pub fn settled(&self) -> u64 {
        self.done.saturating_add(self.skipped).saturating_add(self.failed)
    }
}

/// What was read in all, over all plans of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Reads of plans that were done.
    pub reads: u64,
    /// Reads beyond the plan, to find out whether the volume is warm already.
    pub extra_reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that could not be read.
    pub errors: u64,
    /// Reads that were submitted again.
    pub retries: u64,
}

impl Traffic {
    /// The sum of both.
    pub fn plus(self, more: Traffic) -> Traffic {
        Traffic {
            reads: self.reads + more.reads,
            extra_reads: self.extra_reads + more.extra_reads,
            bytes: self.bytes + more.bytes,
            errors: self.errors + more.errors,
            retries: self.retries + more.retries,
        }
    }
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub schema: u32,
    /// The daemon's process.
    pub pid: u32,
    /// What it is called among several volumes, by the file of its profile; metrics have it as a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is warmed, as it was named; of several volumes, where it was found.
    pub device: String,
    /// What it is recognised by, once it was found: its serial, else what it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub phase: Phase,
    /// The stage that is under way; `null` before the first and after the last.
    pub stage: Option<String>,
    pub stages: Vec<StageStatus>,
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Reads in flight.
    pub depth: u32,
    /// Planned reads done in the last seconds, a second.
    pub reads_per_s: f64,
    /// Bytes read in the last seconds, a second.
    pub bytes_per_s: f64,
    /// Seconds until all that is planned by now is read, at this rate; `null` where it cannot be told.
    pub eta_s: Option<f64>,
    /// Seconds since the daemon began.
    pub elapsed_s: f64,
    /// Why it ended, where it did not end well.
    pub error: Option<String>,
    /// Where there are several, each as if it were warmed alone; all else is of all of them together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Status>,
}

/// Without characters that would move a terminal's cursor.
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

impl Status {
    /// One line, as systemd shows it.
    pub fn line(&self) -> String {
        let mut line = self.phase.name().to_string();
        if !self.volumes.is_empty() {
            let warm = self.volumes.iter().filter(|volume| volume.phase == Phase::Warm).count();
            let _ = write!(line, ", {warm} of {} volumes warm", self.volumes.len());
        }
        if let Some(stage) = self.stages.iter().find(|stage| Some(&stage.name) == self.stage.as_ref()) {
            let _ =
                write!(line, ", stage {}: {} of {} reads", plain(&stage.name), stage.settled(), stage.reads);
        }
        if self.traffic.errors > 0 {
            let _ = write!(line, ", {} errors", self.traffic.errors);
        }
        if let Some(eta_s) = self.eta_s {
            let _ = write!(line, ", {} left", human_s(eta_s));
        }
        if let Some(error) = &self.error {
            let _ = write!(line, ": {}", plain(error.lines().next().unwrap_or_default()));
        }
        line
    }

    /// What is told of, for people.
    fn subject(&self) -> String {
        let device = plain(&self.device);
        match (&self.name, &self.id) {
            _ if !self.volumes.is_empty() => "all".into(),
            (None, _) => device,
            (Some(name), None) => format!("{}: {device}", plain(name)),
            (Some(name), Some(id)) => format!("{}: {device} ({})", plain(name), plain(id)),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text: String = self.volumes.iter().map(Status::text).collect();
        let _ = writeln!(text, "{}: {}", self.subject(), self.line());
        // With several volumes they stand above already.
        let stages = if self.volumes.is_empty() { self.stages.as_slice() } else { &[] };
        for stage in stages {
            let state = match (stage.is_over, stage.reads) {
                (true, _) => "over".to_string(),
                (false, 0) => "to come".to_string(),
                (false, reads) => format!("{:>3} %", stage.settled().min(reads).saturating_mul(100) / reads),
            };
            let _ = write!(
                text,
                "  {:<10} {state:>7}  {} of {} reads, {} units, {}",
                plain(&stage.name),
                stage.settled(),
                stage.reads,
                stage.units,
                human_bytes(stage.bytes),
            );
            for (count, what) in [(stage.skipped, "left out"), (stage.failed, "failed")] {
                if count > 0 {
                    let _ = write!(text, ", {count} {what}");
                }
            }
            text.push('\n');
        }
        let Traffic { reads, bytes, errors, retries, .. } = self.traffic;
        let _ = writeln!(
            text,
            "  {reads} reads in {}, {}; now {:.0} reads/s, {}/s, depth {}; {errors} errors, {retries} retries",
            human_s(self.elapsed_s),
            human_bytes(bytes),
            self.reads_per_s,
            human_bytes(self.bytes_per_s.max(0.0) as u64),
            self.depth,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_how_far_it_is_and_terminals_are_safe() {
        let stage = StageStatus {
            name: "ready\x1b[2J".into(),
            units: 10,
            reads: 8,
            done: 3,
            ..StageStatus::default()
        };
        let status = Status {
            device: "/dev/x".into(),
            phase: Phase::Warming,
            stage: Some(stage.name.clone()),
            stages: vec![stage],
            eta_s: Some(1.5),
            ..Status::default()
        };
        assert_eq!(status.line(), "warming, stage ready?[2J: 3 of 8 reads, 1.50 s left");
        let text = status.text();
        assert!(text.contains(" 37 %  3 of 8 reads, 10 units, 0 B"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_stage_is_over_when_each_of_its_reads_is_in_some_way() {
        let mut stage = StageStatus { reads: 4, ..StageStatus::default() };
        stage.settle(&Settled { done: 1, resumed: 1, taken: 1, ..Settled::default() });
        assert!(!stage.is_over);
        stage.settle(&Settled { done: 1, resumed: 1, taken: 1, failed: 1, warm: 0 });
        assert!(stage.is_over && (stage.skipped, stage.failed) == (2, 1));
    }
}
