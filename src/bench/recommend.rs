//! What to give to `warm` on this volume, and why.

use super::Bench;
use super::method::{Method, Pattern};
use super::sweep::{Climb, Sweep};
use super::tally::{Row, SLOW_IN};
use crate::plan::Mode;
use crate::report::{Checked, Recommended};
use crate::units::ByteSize;
use std::fmt;

/// Touching reads a hundredth of the bytes; where it reaches this share of the rate of full reads, it is better.
const GOOD_ENOUGH: f64 = 0.95;
/// Units that were touched and are warm throughout: 16 that are leave less than 1 % for a quarter of them being cold.
const CHECKED_MIN: u64 = 16;

/// A way of our own, with what it gave.
struct Way {
    mode: Mode,
    depth: u32,
    /// Whether less in flight is known to be worse.
    smallest: bool,
    rate: f64,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MB/s at depth {}", self.rate / 1e6, self.depth)
    }
}

impl Bench<'_> {
    /// The better of touching and reading in full, each at the smallest depth that is as good as its best; touching
    /// only where units that were touched are warm throughout. No more is claimed than was measured by now.
    pub(super) fn recommend(&self) -> Option<Recommended> {
        let (touch, full) = (self.best(Pattern::Touch), self.best(Pattern::Full));
        let (is_touched, checked) = (self.is_measured(Pattern::Touch), self.touched_and_checked());
        let is_checked = checked.blocks >= CHECKED_MIN;
        let held = is_checked && (checked.blocks - checked.warm) * SLOW_IN <= checked.blocks;
        let compared = is_touched && is_checked && full.is_some();
        let (way, reason) = match (touch.filter(|_| held), full) {
            (Some(touch), Some(full)) if touch.rate >= GOOD_ENOUGH * full.rate => {
                let unit = ByteSize(self.unit_bytes);
                let reason = format!(
                    "touching hydrates {touch}, reading every byte {full}; units of {unit} were warm throughout after \
                     one touch"
                );
                (touch, reason)
            }
            (Some(touch), Some(full)) => {
                let reason = format!("reading every byte hydrates {full}, touching {touch}");
                (full, reason)
            }
            (Some(touch), None) => {
                let reason = format!("touching hydrates {touch}; reading every byte was not measured");
                (touch, reason)
            }
            (None, Some(full)) => {
                let why = match is_touched {
                    true => "it is not certain that touching a block warms its unit",
                    false => "touching was not measured",
                };
                let reason = format!("reading every byte hydrates {full}; {why}");
                (full, reason)
            }
            (None, None) => return None,
        };
        let smallest = format!("; depth {} is the smallest as good as the best", way.depth);
        Some(Recommended {
            mode: way.mode.name().into(),
            unit_bytes: self.unit_bytes,
            depth: way.depth,
            hydrated_bytes_per_s: way.rate,
            reason: reason + if way.smallest { &smallest } else { "" },
            compared,
        })
    }

    /// Whether a mode has something to show; a climb that is under way has not: its best is yet to come.
    fn is_measured(&self, pattern: Pattern) -> bool {
        let climbs =
            |(swept, sweep): &(Pattern, Sweep)| *swept == pattern && sweep.reached == Climb::UnderWay;
        !self.sweeps.iter().any(climbs) && self.rows.iter().any(|row| is_ours(row, pattern))
    }

    /// The depth and rate of a mode: from its sweep, else from what was asked for at fixed depths.
    fn best(&self, pattern: Pattern) -> Option<Way> {
        if !self.is_measured(pattern) {
            return None;
        }
        let mode = if pattern == Pattern::Full { Mode::Full } else { Mode::Touch };
        let cold = self.cold_share();
        if let Some((_, sweep)) = self.sweeps.iter().find(|(swept, _)| *swept == pattern)
            && let Some(depth) = sweep.knee()
        {
            let (smallest, rate) = (sweep.is_knee_certain(), sweep.rate(depth) * cold);
            return Some(Way { mode, depth, smallest, rate });
        }
        let ours = self.rows.iter().filter(|row| is_ours(row, pattern));
        let ways = ours
            .filter_map(|row| Some(Way { mode, depth: row.depth?, smallest: false, rate: row.rate(cold) }));
        let ways: Vec<Way> = ways.filter(|way| way.rate > 0.0).collect();
        let most = ways.iter().map(|way| way.rate).fold(0.0, f64::max);
        ways.into_iter().filter(|way| way.rate >= GOOD_ENOUGH * most).min_by_key(|way| way.depth)
    }

    /// A sample of units that were only touched.
    fn touched_and_checked(&self) -> Checked {
        let touched =
            self.rows.iter().filter(|row| matches!(row.method, Method::Touch(_) | Method::TokioUring(_)));
        touched.fold(Checked::default(), |all, row| Checked {
            blocks: all.blocks + row.checked.blocks,
            warm: all.warm + row.checked.warm,
        })
    }
}

/// Whether a method is a mode of `warm`, at some depth.
fn is_ours(row: &Row, pattern: Pattern) -> bool {
    match row.method {
        Method::Touch(_) => pattern == Pattern::Touch,
        Method::Full(_) => pattern == Pattern::Full,
        _ => false,
    }
}
