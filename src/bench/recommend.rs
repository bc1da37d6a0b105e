//! What to give to `warm` on this volume, and why.

use super::Bench;
use super::method::{Method, Pattern};
use super::tally::SLOW_IN;
use crate::plan::Mode;
use crate::report::Recommended;
use crate::units::ByteSize;

/// Touching reads a hundredth of the bytes; where it reaches this share of the rate of full reads, it is better.
const GOOD_ENOUGH: f64 = 0.95;
/// Units that were touched and are warm throughout: 16 that are leave less than 1 % for a quarter of them being cold.
const CHECKED_MIN: u64 = 16;

/// A way of our own, with what it gave.
struct Way {
    mode: Mode,
    depth: u32,
    rate: f64,
}

impl Bench<'_> {
    /// The better of touching and reading in full, each at the smallest depth that is as good as its best; touching
    /// only where units that were touched are warm throughout.
    pub(super) fn recommend(&self) -> Option<Recommended> {
        let touch = self.best(Pattern::Touch, Mode::Touch).filter(|_| self.unit_held());
        let full = self.best(Pattern::Full, Mode::Full);
        let unit = ByteSize(self.unit_bytes);
        let mb = |rate: f64| format!("{:.1} MB/s", rate / 1e6);
        let (way, reason) = match (touch, full) {
            (Some(touch), Some(full)) if touch.rate >= GOOD_ENOUGH * full.rate => {
                let reason = format!(
                    "touching hydrates {} at depth {}, reading every byte {} at {}; units of {unit} were warm \
                     throughout after one touch",
                    mb(touch.rate),
                    touch.depth,
                    mb(full.rate),
                    full.depth
                );
                (touch, reason)
            }
            (Some(touch), Some(full)) => {
                let reason = format!(
                    "reading every byte hydrates {} at depth {}, touching no more than {} at {}",
                    mb(full.rate),
                    full.depth,
                    mb(touch.rate),
                    touch.depth
                );
                (full, reason)
            }
            (Some(touch), None) => {
                let reason = format!("touching hydrates {} at depth {}", mb(touch.rate), touch.depth);
                (touch, reason)
            }
            (None, Some(full)) => {
                let reason = format!(
                    "reading every byte hydrates {} at depth {}; it is not certain that touching a block warms its \
                     unit",
                    mb(full.rate),
                    full.depth
                );
                (full, reason)
            }
            (None, None) => return None,
        };
        Some(Recommended {
            mode: way.mode.name().into(),
            unit_bytes: self.unit_bytes,
            depth: way.depth,
            hydrated_bytes_per_s: way.rate,
            reason: format!("{reason}; depth {} is the smallest as good as the best", way.depth),
        })
    }

    /// The depth and rate of a mode: from its sweep, else from what was asked for at fixed depths.
    fn best(&self, pattern: Pattern, mode: Mode) -> Option<Way> {
        let cold = self.cold_share();
        if let Some((_, sweep)) = self.sweeps.iter().find(|(swept, _)| *swept == pattern)
            && let Some(depth) = sweep.knee()
        {
            return Some(Way { mode, depth, rate: sweep.rate(depth) * cold });
        }
        let ours = self.rows.iter().filter(|row| match &row.method {
            Method::Touch(_) => mode == Mode::Touch,
            Method::Full(_) => mode == Mode::Full,
            _ => false,
        });
        let ways = ours.filter_map(|row| Some(Way { mode, depth: row.depth?, rate: row.rate(cold) }));
        let ways: Vec<Way> = ways.filter(|way| way.rate > 0.0).collect();
        let most = ways.iter().map(|way| way.rate).fold(0.0, f64::max);
        ways.into_iter().filter(|way| way.rate >= GOOD_ENOUGH * most).min_by_key(|way| way.depth)
    }

    /// Whether a sample of units that were only touched is warm throughout.
    fn unit_held(&self) -> bool {
        let touched =
            self.rows.iter().filter(|row| matches!(row.method, Method::Touch(_) | Method::TokioUring(_)));
        let (blocks, warm) = touched
            .fold((0, 0), |(blocks, warm), row| (blocks + row.checked.blocks, warm + row.checked.warm));
        blocks >= CHECKED_MIN && (blocks - warm) * SLOW_IN <= blocks
    }
}
