//! The depths to measure, and the one to recommend. Pure: from what was measured so far to what comes next.
//!
//! A sweep climbs: it doubles the depth while that brings anything. Then it measures again what came close to the best,
//! and what lies between the steps where the rate stops rising: that is the knee.

use crate::units::NS_PER_S;
use std::collections::BTreeMap;

/// A doubling that brings less than this brings nothing.
const GAIN: f64 = 1.05;
/// So many doublings in a row that bring nothing end the climb: one may be noise.
const FLAT: usize = 2;
/// What came so close to the best may be the best.
const CLOSE: f64 = 0.85;
/// The smallest depth that is certain to reach this share of the best is recommended.
const GOOD: f64 = 0.965;
/// Certain: so many standard errors below what was measured, 97 % of the time.
const ERRORS: f64 = 2.0;
/// Units that are measured at a depth, as a multiple of it: two rounds to begin and end with, the others count.
const ROUNDS: u64 = 8;
/// At the least, so that single slow reads weigh little.
const UNITS_MIN: u64 = 64;
/// Rates that each measurement at a depth is cut into.
pub const CUTS: usize = 4;
/// The error of the rate from a single read, where there are too few rates to tell: first reads of a lognormal
/// distribution with sigma 0.6 are spread by 0.66 of their mean.
const SPREAD: f64 = 0.66;

/// What was measured at one depth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Bytes that were hydrated between the first and the last round of reads.
    pub bytes: u64,
    /// Nanoseconds that took.
    pub ns: u64,
    /// Units in all.
    pub units: u64,
    /// Rates of parts of that time, which show how certain the whole is.
    pub rates: Vec<f64>,
}

impl Point {
    /// Bytes hydrated a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * NS_PER_S as f64 / self.ns.max(1) as f64
    }

    /// What the rate is at the least, with some certainty.
    fn certain(&self) -> f64 {
        self.rate() * (1.0 - ERRORS * self.error()).max(0.0)
    }

    /// Standard error of the rate, as a share of it.
    fn error(&self) -> f64 {
        let count = self.rates.len() as f64;
        if count < 4.0 {
            return SPREAD / (self.units.max(1) as f64).sqrt();
        }
        let mean = self.rates.iter().sum::<f64>() / count;
        let squares: f64 =
            self.rates.iter().map(|rate| (rate / mean.max(f64::MIN_POSITIVE) - 1.0).powi(2)).sum();
        (squares / (count - 1.0) / count).sqrt()
    }

    /// Adds another measurement.
    pub fn add(&mut self, other: &Point) {
        self.bytes += other.bytes;
        self.ns += other.ns;
        self.units += other.units;
        self.rates.extend_from_slice(&other.rates);
    }
}

/// How far a climb has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Climb {
    /// It was never done, or not to its end.
    #[default]
    UnderWay,
    /// There was no room for the next depth.
    CutShort,
    /// More in flight brought nothing, or more is not taken.
    Ended,
}

/// A sweep over depths.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    points: BTreeMap<u32, Point>,
    depth_max: u32,
    /// How far its climb has come: who climbs says so.
    pub reached: Climb,
}

impl Sweep {
    /// Over depths up to one.
    pub fn new(depth_max: u32) -> Sweep {
        Sweep { depth_max: depth_max.max(1), ..Sweep::default() }
    }

    /// Adds what was measured.
    pub fn add(&mut self, depth: u32, measured: &Point) {
        self.points.entry(depth).or_default().add(measured);
    }

    /// All depths that were measured, with what came of each.
    pub fn points(&self) -> impl Iterator<Item = (u32, &Point)> + '_ {
        self.points.iter().map(|(depth, point)| (*depth, point))
    }

    fn best_rate(&self) -> f64 {
        self.points.values().map(Point::rate).fold(0.0, f64::max)
    }

    /// Units that make the rate at a depth worth having.
    pub fn units_at(depth: u32) -> u64 {
        (ROUNDS * u64::from(depth)).max(UNITS_MIN)
    }

    /// The next depth of the climb; `None` at its end.
    pub fn climb(&self) -> Option<u32> {
        let steps: Vec<(u32, f64)> = self.points().map(|(depth, point)| (depth, point.rate())).collect();
        let Some(&(top, _)) = steps.last() else { return Some(1) };
        let best_before = |at: usize| steps[..at].iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let flat = (1..steps.len()).rev().take_while(|at| steps[*at].1 < best_before(*at) * GAIN).count();
        let next = top.saturating_mul(2).min(self.depth_max);
        (flat < FLAT && next > top).then_some(next)
    }

    /// The depths that are worth another look, from the smallest.
    pub fn candidates(&self) -> Vec<u32> {
        let best = self.best_rate();
        let close: Vec<u32> =
            self.points().filter(|(_, point)| point.rate() >= CLOSE * best).map(|(depth, _)| depth).collect();
        let Some(good) = self.knee() else { return close };
        let below = self.points.range(..good).next_back().map_or(1, |(depth, _)| *depth);
        // Two steps between a depth that falls short and the next that does not.
        let between = [1.0 / 3.0, 2.0 / 3.0].map(|share| {
            (f64::from(below) * (f64::from(good) / f64::from(below)).powf(share)).round() as u32
        });
        let mut all: Vec<u32> = close.into_iter().chain(between).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The smallest depth that is as good as the best, as far as was measured.
    pub fn knee(&self) -> Option<u32> {
        // Where nothing is certain, the best will do.
        let best = || self.points().max_by(|a, b| a.1.rate().total_cmp(&b.1.rate())).map(|(depth, _)| depth);
        self.certain_knee().or_else(best)
    }

    /// Whether the knee is the smallest depth as good as the best of all, and not only of what there was room or time for.
    pub fn is_knee_certain(&self) -> bool {
        self.reached == Climb::Ended && self.certain_knee().is_some()
    }

    fn certain_knee(&self) -> Option<u32> {
        // The highest of many rates is high by chance: what it is at the least is what it is held against.
        let least = |point: &Point| point.rate() * (1.0 - point.error()).max(0.0);
        let enough = self.points.values().map(least).fold(0.0, f64::max) * GOOD;
        let certain = self.points().find(|(_, point)| point.units > 0 && point.certain() >= enough);
        certain.map(|(depth, _)| depth)
    }

    /// The rate at a depth.
    pub fn rate(&self, depth: u32) -> f64 {
        self.points.get(&depth).map_or(0.0, Point::rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured without any doubt.
    fn exact(bytes: u64) -> Point {
        Point { bytes, ns: NS_PER_S, units: 100, rates: vec![bytes as f64; CUTS] }
    }

    fn climb(depth_max: u32, rate: impl Fn(u32) -> u64) -> Sweep {
        let mut sweep = Sweep::new(depth_max);
        while let Some(depth) = sweep.climb() {
            let bytes = rate(depth);
            sweep.add(depth, &exact(bytes));
        }
        for depth in sweep.candidates() {
            sweep.add(depth, &exact(rate(depth)));
        }
        sweep
    }

    #[test]
    fn the_climb_ends_beyond_the_knee_and_the_knee_is_found_between_the_steps() {
        let sweep = climb(1024, |depth| u64::from(depth.min(90)) * 1000);
        assert_eq!(sweep.points().last().unwrap().0, 512);
        assert_eq!(sweep.knee(), Some(102), "of 64, 81, 102 and 128 the first above 90");
        assert!(sweep.candidates().contains(&256));
        let low = climb(1024, |_| 1000);
        assert_eq!((low.knee(), low.points().last().unwrap().0), (Some(1), 4));
        let all = climb(128, |depth| u64::from(depth) * 1000);
        assert_eq!((all.knee(), all.points().last().unwrap().0), (Some(128), 128));
    }

    #[test]
    fn what_is_not_certain_is_not_called_as_good_as_the_best() {
        let doubtful = |rate: f64| Point {
            bytes: rate as u64,
            ns: NS_PER_S,
            units: 100,
            rates: vec![rate * 0.8, rate * 1.2, rate * 0.9, rate * 1.1],
        };
        let mut sweep = Sweep::new(64);
        sweep.add(8, &doubtful(980.0));
        sweep.add(16, &exact(1000));
        assert_eq!(sweep.knee(), Some(16));
        sweep.add(8, &exact(980));
        (0..40).for_each(|_| sweep.add(8, &exact(980)));
        assert_eq!(sweep.knee(), Some(8), "measured often enough");
        assert!(!sweep.is_knee_certain(), "there was no climb to its end");
        sweep.reached = Climb::Ended;
        assert!(sweep.is_knee_certain());
        // The best of rates that are all too doubtful is no more than that.
        let mut sweep = Sweep { reached: Climb::Ended, ..Sweep::new(64) };
        sweep.add(8, &doubtful(980.0));
        assert!(sweep.knee() == Some(8) && !sweep.is_knee_certain());
    }

    #[test]
    fn nothing_measured_has_no_knee() {
        let sweep = Sweep::new(64);
        assert_eq!((sweep.knee(), sweep.climb(), sweep.candidates().len()), (None, Some(1), 0));
        assert_eq!(Sweep::new(0).climb(), Some(1));
    }

    #[test]
    fn one_dip_does_not_end_the_climb() {
        let sweep = climb(1024, |depth| if depth == 8 { 3000 } else { u64::from(depth.min(64)) * 1000 });
        assert!(sweep.points().last().unwrap().0 >= 64);
    }
}
