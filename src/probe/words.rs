//! What was found, as it is told.

use super::latency::{drift, median_ns};
use super::unit::{BLOCK_BYTES, SURE};
use super::{End, Found, Kinds, chance};
use crate::report::{ColdShare, Distance, LatencyUs, ProbeReport, SCHEMA, UnitFound, histogram_us};
use crate::units::{ByteSize, as_s};
use hdrhistogram::Histogram;

/// With fewer cold first reads the unit is not looked for.
const COLD_MIN: u64 = 8;
/// Warm reads of one volume take as long throughout, within this factor.
const WARM_DRIFT_MAX: f64 = 2.0;
/// Cold ones queue up behind each other: four transfers of 4 MiB at 140 MB/s take three times 35 ms.
const COLD_DRIFT_MAX: f64 = 4.0;
/// Warm reads that drift are still told from cold ones where the slower half of them stays so many times below the cut.
const WELL_BELOW: f64 = 3.0;

/// A factor, whichever way.
fn times(factor: f64) -> String {
    format!("{:.1} times", factor.max(1.0 / factor))
}

impl Found {
    /// First reads, and those of them that were cold.
    pub fn first_reads(&self) -> (u64, u64) {
        let cold = self.seen.first.iter().filter(|ns| self.kinds.is_cold(**ns)).count();
        (self.seen.first.len() as u64, cold as u64)
    }

    /// Units that are warm by looking.
    pub fn units_warmed(&self) -> u64 {
        let neighbours = self.seen.pairs.iter().filter(|pair| self.kinds.is_cold(pair.neighbour_ns)).count();
        let alone = self.seen.touch.len() + self.seen.full.len();
        self.first_reads().1 + (neighbours + alone) as u64
    }

    /// The share of the volume that is cold, with 95 % confidence. Warm reads that were slow are allowed for.
    pub fn cold_share(&self) -> (f64, f64) {
        let is_hidden = match self.kinds {
            Kinds::Mixed { .. } => true,
            // Repeated reads of two speeds have so wide a spread that cold ones pass for them.
            Kinds::AllWarm { .. } => self.warm_drift().is_some(),
            Kinds::Apart { .. } => false,
        };
        if is_hidden {
            return (0.0, 1.0);
        }
        let (all, cold) = self.first_reads();
        let (low, high) = chance::interval(cold, all);
        let slow = self.seen.again.iter().filter(|ns| self.kinds.is_cold(**ns)).count();
        // As many of the warm ones may be slow.
        let (_, slow) = chance::interval(slow as u64, self.seen.again.len() as u64);
        let without = |share: f64| ((share - slow) / (1.0 - slow)).clamp(0.0, 1.0);
        if slow < 1.0 { (without(low), high) } else { (0.0, 1.0) }
    }

    /// The unit in bytes, where it is certain.
    pub fn unit_bytes(&self) -> Option<u64> {
        self.why_no_unit().is_none().then(|| self.belief.best()).flatten()
    }

    /// How sure the unit is, from 0 to 1. Never more than it has to be: that what was assumed holds (units of one size,
    /// each warm or cold as a whole) is not certain either.
    pub fn confidence(&self) -> f64 {
        self.belief.confidence().min(SURE)
    }

    /// Why the unit cannot be told.
    pub fn why_no_unit(&self) -> Option<String> {
        let (all, cold) = self.first_reads();
        let warm = self.warm_drift().filter(|_| !self.is_warm_well_below());
        if let Some(factor) = warm.or_else(|| drift(&self.cold_ns(), COLD_DRIFT_MAX)) {
            return Some(format!("latencies drift: they changed {} while it was looked", times(factor)));
        }
        if let Kinds::Mixed { wrong } = self.kinds {
            let wrong = 100.0 * wrong;
            return Some(format!(
                "the latencies of first and of repeated reads do not separate: {wrong:.0} % of them lie on the \
                 wrong side of any cut"
            ));
        }
        if cold < COLD_MIN || self.cold_share().0 <= 0.0 {
            return Some(format!("too few cold units: {cold} of {all} first reads were cold"));
        }
        let shown = |bytes: u64| ByteSize(bytes).to_string();
        let confidence = 100.0 * self.confidence();
        match self.belief.best() {
            _ if !self.belief.fits() => {
                Some("what neighbours cost fits no unit that is a power of two and aligned".into())
            }
            None => Some(format!("the unit is larger than {}", shown(self.unit_bytes_max))),
            Some(best) if !self.belief.is_sure() => {
                let best = shown(best);
                Some(format!(
                    "not certain enough: {best} is the likeliest, at {confidence:.1} %{}",
                    self.short()
                ))
            }
            Some(_) => None,
        }
    }

    fn warm_drift(&self) -> Option<f64> {
        drift(&self.seen.again, WARM_DRIFT_MAX)
    }

    /// Whether the slower half of the repeated reads, early or late, is far from what is cold.
    fn is_warm_well_below(&self) -> bool {
        let Kinds::Apart { cut_ns } = self.kinds else { return false };
        let (early, late) = self.seen.again.split_at(self.seen.again.len() / 2);
        let slower_ns = median_ns(early).max(median_ns(late));
        slower_ns * WELL_BELOW < cut_ns as f64
    }

    fn short(&self) -> &'static str {
        match self.end {
            End::NoPlace => ", and the volume has no more places to look",
            End::Stopped => ", when it was stopped",
            End::Spent => ", and no more may be read",
            End::Known | End::Unreadable => "",
        }
    }

    /// Latencies of cold reads in order of time, in nanoseconds.
    fn cold_ns(&self) -> Vec<u64> {
        let first = self.seen.first.iter().copied();
        first.filter(|ns| self.kinds.is_cold(*ns)).collect()
    }

    /// Latencies of all cold reads, first ones and neighbours.
    pub fn cold_latency_us(&self) -> Histogram<u64> {
        let neighbours = self.seen.pairs.iter().map(|pair| pair.neighbour_ns);
        let all = self.seen.first.iter().copied().chain(neighbours);
        histogram_us(all.filter(|ns| self.kinds.is_cold(*ns)))
    }

    /// Latencies of repeated reads.
    pub fn warm_latency_us(&self) -> Histogram<u64> {
        histogram_us(self.seen.again.iter().copied())
    }

    fn distances(&self) -> Vec<Distance> {
        let mut distance = BLOCK_BYTES;
        let mut all = Vec::new();
        while distance <= self.unit_bytes_max {
            let pairs = self.seen.pairs.iter().filter(|pair| pair.distance == distance);
            let pairs = pairs.filter(|pair| self.kinds.is_cold(pair.first_ns));
            let (count, cold) = pairs.fold((0, 0), |(count, cold), pair| {
                (count + 1, cold + u64::from(self.kinds.is_cold(pair.neighbour_ns)))
            });
            all.push(Distance { bytes: distance, pairs: count, neighbours_cold: cold });
            distance *= 2;
        }
        all
    }

    fn notes(&self) -> Vec<String> {
        let is_told = self.unit_bytes().is_some();
        let factor = self.warm_drift().filter(|_| is_told);
        let told = |factor| {
            format!(
                "warm reads changed {} while it was looked: others use the machine, or its credits ended",
                times(factor)
            )
        };
        factor.map(told).into_iter().collect()
    }

    /// As a report; who calls adds what it knows of the device.
    pub fn report(&self) -> ProbeReport {
        let (all, cold) = self.first_reads();
        let (low, high) = self.cold_share();
        let cold_us = self.cold_latency_us();
        let median_us = |ns: &[u64]| {
            let us = histogram_us(ns.iter().copied());
            (!us.is_empty()).then(|| us.value_at_quantile(0.5))
        };
        ProbeReport {
            schema: SCHEMA,
            end: match self.end {
                End::Known => "complete",
                End::Spent => "limit reached",
                End::NoPlace => "no place left",
                End::Stopped => "stopped",
                End::Unreadable => "unreadable",
            }
            .into(),
            cold_share: ColdShare { low, high, first_reads: all, cold },
            unit: UnitFound { bytes: self.unit_bytes(), confidence: self.confidence() },
            why: self.why_no_unit(),
            cold_latency_us: LatencyUs::of(&cold_us),
            warm_latency_us: LatencyUs::of(&self.warm_latency_us()),
            touch_us: median_us(&self.seen.touch),
            full_us: median_us(&self.seen.full),
            reads: self.reads,
            bytes_read: self.bytes_read,
            elapsed_s: as_s(self.elapsed_ns),
            units_warmed: self.units_warmed(),
            errors: self.errors,
            abandoned: self.abandoned,
            distances: self.distances(),
            notes: self.notes(),
            ..ProbeReport::default()
        }
    }
}
