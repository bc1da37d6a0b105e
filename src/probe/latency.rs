//! Which reads waited for a fetch: told from the latencies themselves. Pure.
//!
//! Reads that were repeated are warm for certain and show what a warm read costs here and now. Whatever else was read
//! is of two kinds, warm as those or slower; where the two kinds lie apart, the point between them follows from the
//! spread of both. Holds: no latency is written down anywhere.

use super::chance::normal_at_most;

/// With fewer slow reads nothing can be said about how slow they are.
const SLOW_MIN: usize = 3;
/// Warm reads are spread by this at the least, as a share: timers and the way of a read through the kernel.
const WARM_SPREAD_MIN: f64 = 0.03;
/// First reads come from another machine: their spread is never small.
const COLD_SPREAD_MIN: f64 = 0.15;
/// A read slower than the median of warm ones by so many spreads may be a cold one.
const FAR: f64 = 6.0;
/// Above this share of reads on the wrong side, the kinds are not apart.
const WRONG_MAX: f64 = 0.1;

/// What latencies say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kinds {
    /// All but a few, which say nothing, answered like repeated reads: faster than this, in nanoseconds.
    AllWarm { cut_ns: u64 },
    /// Two kinds, told apart by a latency in nanoseconds: slower ones were cold.
    Apart { cut_ns: u64 },
    /// Some are slower, but a share of both kinds is on the wrong side of any cut.
    Mixed { wrong: f64 },
}

impl Kinds {
    /// Whether a read of that latency was cold.
    pub fn is_cold(self, ns: u64) -> bool {
        matches!(self, Kinds::Apart { cut_ns } | Kinds::AllWarm { cut_ns } if ns > cut_ns)
    }
}

/// Median and spread (1.48 times the median distance from it, the standard deviation of a normal distribution).
fn centre(logs: &mut [f64]) -> (f64, f64) {
    let middle = median(logs);
    let mut distances: Vec<f64> = logs.iter().map(|log| (log - middle).abs()).collect();
    (middle, 1.4826 * median(&mut distances))
}

/// The upper of two in the middle. Nothing is sorted: a probe asks for some thousand of these.
fn median(values: &mut [f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        n => *values.select_nth_unstable_by(n / 2, f64::total_cmp).1,
    }
}

fn log(ns: u64) -> f64 {
    (ns.max(1) as f64).ln()
}

/// Tells the kinds among `unknown` from what `warm` reads took. Nanoseconds.
pub fn kinds(warm: &[u64], unknown: &[u64]) -> Kinds {
    if warm.is_empty() {
        return Kinds::AllWarm { cut_ns: u64::MAX };
    }
    let mut warm: Vec<f64> = warm.iter().copied().map(log).collect();
    let (warm_at, warm_spread) = centre(&mut warm);
    let warm_spread = warm_spread.max(WARM_SPREAD_MIN);
    let unknown: Vec<f64> = unknown.iter().copied().map(log).collect();
    let mut cut = warm_at + FAR * warm_spread;
    let mut wrong = 0.0;
    // The first cut is near the warm ones; each further one knows the slow ones better.
    for _ in 0..3 {
        let mut slow: Vec<f64> = unknown.iter().copied().filter(|log| *log > cut).collect();
        if slow.len() < SLOW_MIN {
            return Kinds::AllWarm { cut_ns: cut.exp() as u64 };
        }
        let (cold_at, cold_spread) = centre(&mut slow);
        let cold_spread = cold_spread.max(COLD_SPREAD_MIN);
        let tries = [2.0, 4.0, 8.0].map(|weight| {
            // As many spreads from one kind as from the other. Warm reads have the longer tail, so theirs counts more.
            let spread = weight * warm_spread;
            let at = (warm_at * cold_spread + cold_at * spread) / (cold_spread + spread);
            let above = warm.iter().filter(|log| **log > at).count() as f64 + 0.5;
            (at, above / (warm.len() as f64 + 1.0) + normal_at_most((at - cold_at) / cold_spread))
        });
        (cut, wrong) = tries.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((cut, 1.0));
    }
    if wrong > WRONG_MAX { Kinds::Mixed { wrong } } else { Kinds::Apart { cut_ns: cut.exp() as u64 } }
}

/// Of latencies in nanoseconds; 1 at the least.
pub fn median_ns(ns: &[u64]) -> f64 {
    median(&mut ns.iter().copied().map(log).collect::<Vec<_>>()).exp()
}

/// Whether latencies in order of time rise or fall by more than a factor between the first and the last half, beyond
/// chance (rank sum of Mann and Whitney, four deviations). Gives the factor.
pub fn drift(ns: &[u64], factor_max: f64) -> Option<f64> {
    let half = ns.len() / 2;
    if half < 8 {
        return None;
    }
    let (early, late) = (&ns[..half], &ns[ns.len() - half..]);
    let below: usize = early.iter().map(|a| late.iter().filter(|b| a < *b).count()).sum();
    let n = half as f64;
    let deviation = (n * n * (2.0 * n + 1.0) / 12.0).sqrt();
    let deviations = (below as f64 - n * n / 2.0) / deviation;
    let factor = median_ns(late) / median_ns(early);
    (deviations.abs() > 4.0 && !(1.0 / factor_max..=factor_max).contains(&factor)).then_some(factor)
}

#[cfg(test)]
mod tests {
    use super::super::Draw;
    use super::*;

    /// Lognormal around a median.
    fn lognormal(draw: &mut Draw, median_ns: f64, sigma: f64) -> u64 {
        let mut uniform = || (draw.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64;
        let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        (median_ns * (sigma * normal).exp()) as u64
    }

    fn many(draw: &mut Draw, count: usize, median_ns: f64, sigma: f64) -> Vec<u64> {
        (0..count).map(|_| lognormal(draw, median_ns, sigma)).collect()
    }

    #[test]
    fn cold_and_warm_are_told_apart_whatever_their_latencies_are() {
        for (warm_ns, cold_ns, sigma) in
            [(0.7e6, 35e6, 0.3), (0.7e6, 35e6, 0.9), (0.02e6, 1e6, 0.6), (50e6, 2e9, 0.6), (0.7e6, 10e6, 0.4)]
        {
            let mut draw = Draw(7);
            let warm = many(&mut draw, 60, warm_ns, 0.1);
            let (cold, more_warm) = (many(&mut draw, 60, cold_ns, sigma), many(&mut draw, 40, warm_ns, 0.1));
            let found = kinds(&warm, &[cold.clone(), more_warm.clone()].concat());
            let right = cold.iter().filter(|ns| found.is_cold(**ns)).count()
                + more_warm.iter().filter(|ns| !found.is_cold(**ns)).count();
            assert!(right >= 99, "{warm_ns} {cold_ns} {sigma}: {right} of 100, {found:?}");
        }
    }

    #[test]
    fn what_is_all_warm_or_all_mixed_is_called_so() {
        let mut draw = Draw(9);
        let warm = many(&mut draw, 60, 0.7e6, 0.2);
        assert!(matches!(kinds(&warm, &many(&mut draw, 100, 0.7e6, 0.2)), Kinds::AllWarm { .. }));
        assert!(!kinds(&[], &[5]).is_cold(u64::MAX));
        let slower = many(&mut draw, 100, 1.5e6, 0.6);
        assert!(matches!(
            kinds(&many(&mut draw, 60, 0.7e6, 0.6), &slower),
            Kinds::Mixed { .. } | Kinds::AllWarm { .. }
        ));
    }

    #[test]
    fn a_drift_is_seen_and_noise_is_none() {
        let mut draw = Draw(3);
        let steady = many(&mut draw, 80, 1e6, 0.5);
        assert_eq!(drift(&steady, 2.0), None);
        let rising: Vec<u64> =
            steady.iter().enumerate().map(|(at, ns)| if at < 40 { *ns } else { ns * 5 }).collect();
        assert!((3.0..8.0).contains(&drift(&rising, 2.0).unwrap()));
        assert_eq!(drift(&steady[..10], 2.0), None);
    }
}
