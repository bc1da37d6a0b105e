//! A progress bar on a terminal, and nothing anywhere else.

use crate::engine::{Outcome, Progress};
use crate::plan::StagePlan;
use crate::units::{human_bytes, human_ns};
use crate::warm::Onlooker;
use std::io::{IsTerminal, Write};

/// Width of the bar in characters.
const WIDTH: u64 = 30;

/// Drawn on one line of stderr.
#[derive(Debug)]
pub struct Bar {
    stages: Vec<(String, u64)>,
    reads: u64,
    shown: bool,
    drawn: bool,
}

impl Default for Bar {
    fn default() -> Bar {
        Bar { stages: Vec::new(), reads: 0, shown: std::io::stderr().is_terminal(), drawn: false }
    }
}

impl Bar {
    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn line(&self, outcome: &Outcome, in_flight: u32, now_ns: u64) -> String {
        let done = outcome.reads();
        let elapsed_ns = now_ns.saturating_sub(outcome.started_ns).max(1);
        let filled = (done * WIDTH).checked_div(self.reads).unwrap_or(0).min(WIDTH) as usize;
        let bar = format!("{}{}", "#".repeat(filled), "-".repeat(WIDTH as usize - filled));
        let at = outcome.stages.iter().rposition(|stage| stage.reads > 0).unwrap_or(0);
        let stage = self.stages.get(at).map_or("", |(name, _)| name.as_str());
        let left_ns = (u128::from(elapsed_ns) * u128::from(self.reads.saturating_sub(done)))
            .checked_div(u128::from(done))
            .map(|ns| human_ns(u64::try_from(ns).unwrap_or(u64::MAX)));
        let errors = if outcome.errors > 0 { format!("  {} errors", outcome.errors) } else { String::new() };
        format!(
            "{stage:<8} [{bar}] {done}/{} reads  {}  depth {in_flight}  left {}{errors}",
            self.reads,
            human_bytes(outcome.bytes_read),
            left_ns.unwrap_or_else(|| "?".into()),
        )
    }
}

impl Onlooker for Bar {}

impl Progress for Bar {
    fn begin(&mut self, stages: &[StagePlan]) {
        // What is logged between two plans stands on a line of its own.
        self.clear();
        self.stages = stages.iter().map(|stage| (stage.name.clone(), stage.reads)).collect();
        self.reads = stages.iter().map(|stage| stage.reads).sum();
    }

    fn tick(&mut self, outcome: &Outcome, in_flight: u32, now_ns: u64) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r{}\x1b[K", self.line(outcome, in_flight, now_ns));
            self.drawn = true;
        }
    }
}
