//! A distribution of latencies in few numbers, for drawing.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Bins of an octave: each ends 9 % above where it begins, less than the eye tells apart on a scale of decades.
const PER_OCTAVE: f64 = 8.0;

/// How many reads took how long: the least latency of each bin that has any, in microseconds, and the reads in it. A
/// bin is an eighth of an octave wide.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bins(pub Vec<(f64, u64)>);

impl Bins {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Bins {
        let mut bins: Vec<(f64, u64)> = Vec::new();
        for value in histogram.iter_recorded() {
            let from_us = Bins::start_us(Bins::number(value.value_iterated_to() as f64).floor());
            match bins.last_mut().filter(|(last_us, _)| *last_us == from_us) {
                Some((_, count)) => *count += value.count_at_value(),
                None => bins.push((from_us, value.count_at_value())),
            }
        }
        Bins(bins)
    }

    /// Reads in all.
    pub fn reads(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// All bins from the first to the last that has any, with the empty ones between: their number, and reads in each.
    pub fn all(&self) -> Vec<(i64, u64)> {
        let number = |from_us: f64| Bins::number(from_us).round() as i64;
        let (Some((first, _)), Some((last, _))) = (self.0.first(), self.0.last()) else { return Vec::new() };
        let mut all: Vec<(i64, u64)> = (number(*first)..=number(*last)).map(|bin| (bin, 0)).collect();
        self.0
            .iter()
            .for_each(|(from_us, count)| all[(number(*from_us) - number(*first)) as usize].1 += count);
        all
    }

    /// Where on a scale of bins a latency lies.
    pub fn number(us: f64) -> f64 {
        us.max(1.0).log2() * PER_OCTAVE
    }

    /// Where a bin begins, in microseconds, to a tenth.
    fn start_us(bin: f64) -> f64 {
        ((bin / PER_OCTAVE).exp2() * 10.0).round() / 10.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::histogram_us;
    use proptest::prelude::*;

    #[test]
    fn every_bin_is_found_again_by_where_it_begins() {
        for bin in 0..232i64 {
            let from_us = Bins::start_us(bin as f64);
            assert_eq!(Bins::number(from_us).round() as i64, bin, "{from_us}");
        }
    }

    proptest! {
        #[test]
        fn no_read_is_lost_and_each_is_where_it_belongs(us in prop::collection::vec(1u64..500_000_000, 0..200)) {
            let bins = Bins::of(&histogram_us(us.iter().map(|us| us * 1000)));
            prop_assert_eq!(bins.reads(), us.len() as u64);
            let all = bins.all();
            prop_assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), us.len() as u64);
            for us in us {
                let bin = Bins::number(us as f64).floor() as i64;
                // The histogram rounds to three digits.
                let near: u64 = all.iter().filter(|(other, _)| (other - bin).abs() <= 1).map(|(_, count)| count).sum();
                prop_assert!(near > 0, "{} us", us);
            }
        }
    }
}
