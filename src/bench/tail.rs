//! Between what the 99th percentile lies of which only some reads were seen. Pure.
//!
//! How many of `n` reads take longer than the 99th percentile is a matter of chance, and binomial whatever the
//! distribution is: from that follows which reads, counted from the slowest, it lies between.

use hdrhistogram::Histogram;

/// Share of reads beyond it.
const BEYOND: f64 = 0.01;
/// At each end it may lie outside with this probability, so that both ends hold in 95 of 100.
const OUTSIDE: f64 = 0.025;

/// Its lower and its upper end, with 95 % confidence. The upper one is 0, for not known, where even the slowest of all
/// reads is faster than the percentile too often: of fewer than 368.
pub fn interval_of_p99(histogram: &Histogram<u64>) -> (u64, u64) {
    let all = histogram.len();
    let (fewest, most) = beyond(all);
    // In the middle of its step, so that no rounding makes it another read's.
    let from_slowest =
        |reads: u64| histogram.value_at_quantile(((all - reads) as f64 - 0.5).max(0.0) / all.max(1) as f64);
    (from_slowest(most), fewest.map_or(0, from_slowest))
}

/// How many of `n` reads lie beyond the percentile, with certainty: more than the first, where that can be said, and no
/// more than the second.
fn beyond(n: u64) -> (Option<u64>, u64) {
    // By logarithms: the chance that none of 100,000 does is too small for a number.
    let (mut log, mut at_most) = (n as f64 * (1.0 - BEYOND).ln(), 0.0);
    let mut fewest = None;
    for count in 0..n {
        at_most += f64::exp(log);
        if at_most >= 1.0 - OUTSIDE {
            return (fewest, count);
        }
        if at_most <= OUTSIDE {
            fewest = Some(count);
        }
        log += ((n - count) as f64 / (count + 1) as f64).ln() + (BEYOND / (1.0 - BEYOND)).ln();
    }
    (fewest, n.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Draw;
    use crate::report::{empty_histogram_us, histogram_us};

    #[test]
    fn the_percentile_lies_where_it_is_told_to_in_95_of_100_however_few_reads_there_were() {
        const RUNS: u64 = 2000;
        let mut draw = Draw(1);
        for (reads, has_upper) in
            [(20, false), (100, false), (300, false), (367, false), (368, true), (1000, true)]
        {
            let mut held = 0;
            for _ in 0..RUNS {
                // Exponential, with a mean of 30 ms.
                let mut one = || -30e6 * ((draw.below(1 << 52) + 1) as f64 / (1u64 << 52) as f64).ln();
                let histogram = histogram_us((0..reads).map(|_| one() as u64));
                let (low, high) = interval_of_p99(&histogram);
                assert_eq!(high > 0, has_upper, "{reads}");
                let p99_us = 30e3 * 100f64.ln();
                held += u64::from(low as f64 <= p99_us && (high == 0 || p99_us <= high as f64));
            }
            println!("{reads} reads: {held} of {RUNS}");
            // Less three standard deviations of 0.49 %.
            assert!(held * 1000 >= RUNS * 935, "{reads} reads: {held} of {RUNS}");
        }
    }

    #[test]
    fn orders_are_those_of_the_binomial_distribution() {
        assert_eq!(
            (beyond(0), beyond(1), beyond(2), beyond(3)),
            ((None, 0), (None, 0), (None, 0), (None, 1))
        );
        assert_eq!((beyond(367), beyond(368)), ((None, 8), (Some(0), 8)));
        // As near as 1.96 standard deviations of 5.45 to 30, and of 99.5 to 10,000.
        let (fewest, most) = beyond(3000);
        assert!((18..=20).contains(&fewest.unwrap()) && (40..=42).contains(&most), "{fewest:?} {most}");
        let (fewest, most) = beyond(1_000_000);
        assert!((9_803..=9_806).contains(&fewest.unwrap()) && (10_194..=10_197).contains(&most));
        assert_eq!(interval_of_p99(&empty_histogram_us()), (0, 0));
        assert_eq!(interval_of_p99(&histogram_us([1_000_000])), (1_000, 0));
    }
}
