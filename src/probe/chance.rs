//! The probabilities that the probe reckons with. Pure.

/// Natural logarithm of the gamma function for positive arguments (Stirling's series after shifting the argument up;
/// Abramowitz and Stegun, 6.1.41): ten digits.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 8.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0 - inverse / 1680.0))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Logarithm of the number of ways to choose `k` of `n`.
fn ln_choose(n: u64, k: u64) -> f64 {
    let (n, k) = (n as f64, k as f64);
    ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0)
}

/// A share that is known from a few cases of which some were hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    hits: f64,
    misses: f64,
    /// Of both; asked for again and again.
    ln_beta: f64,
}

impl Share {
    /// From `hits` of `cases`, weighted as no more than `cases_max`: a rate seen here need not hold quite the same
    /// there. Half a case of each kind is added (Jeffreys), and the share is `least` at the least.
    pub fn seen(hits: u64, cases: u64, cases_max: f64, least: f64) -> Share {
        let (hits, misses) = (hits as f64 + 0.5, cases.saturating_sub(hits) as f64 + 0.5);
        let cases = hits + misses;
        let weight = (cases_max / cases).min(1.0);
        let (hits, all) = (hits * weight, cases * weight);
        let hits = hits.max(least * all);
        let misses = (all - hits).max(f64::MIN_POSITIVE);
        Share { hits, misses, ln_beta: ln_beta(hits, misses) }
    }

    /// Logarithm of the chance of a certain sequence of cases, `hits` of them hits.
    pub fn ln_chance(self, hits: u64, cases: u64) -> f64 {
        let misses = cases.saturating_sub(hits) as f64;
        if cases == 0 {
            return 0.0;
        }
        ln_beta(self.hits + hits as f64, self.misses + misses) - self.ln_beta
    }

    /// Chance of at least so many hits.
    pub fn at_least(self, hits: u64, cases: u64) -> f64 {
        let chance = |k: u64| (ln_choose(cases, k) + self.ln_chance(k, cases)).exp();
        if hits <= cases / 2 {
            return (1.0 - (0..hits).map(chance).sum::<f64>()).max(0.0);
        }
        (hits..=cases).map(chance).sum::<f64>().min(1.0)
    }
}

/// The interval that holds a share with 95 % confidence, from `hits` of `cases` (Clopper and Pearson).
pub fn interval(hits: u64, cases: u64) -> (f64, f64) {
    if cases == 0 {
        return (0.0, 1.0);
    }
    let tail = 0.025;
    let low = if hits == 0 { 0.0 } else { solve(|share| 1.0 - at_most(hits - 1, cases, share) < tail) };
    let high = if hits >= cases { 1.0 } else { solve(|share| at_most(hits, cases, share) > tail) };
    (low, high)
}

/// The share up to which `holds`, by halving.
fn solve(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

/// Chance of at most so many hits at a share.
fn at_most(hits: u64, cases: u64, share: f64) -> f64 {
    if share <= 0.0 {
        return 1.0;
    }
    if share >= 1.0 {
        return if hits >= cases { 1.0 } else { 0.0 };
    }
    let term = |k: u64| {
        (ln_choose(cases, k) + k as f64 * share.ln() + (cases - k) as f64 * (1.0 - share).ln()).exp()
    };
    (0..=hits).map(term).sum()
}

/// Chance that a standard normal is at most `x` (Abramowitz and Stegun, 26.2.17): seven digits.
pub fn normal_at_most(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let above = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * series;
    if x >= 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function_is_right() {
        for (x, expected) in [(1.0, 0.0), (5.0, 24f64.ln()), (0.5, std::f64::consts::PI.sqrt().ln())] {
            assert!((ln_gamma(x) - expected).abs() < 1e-9, "{x}: {}", ln_gamma(x));
        }
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        // Clopper and Pearson at 95 %: 0 of 10, 5 of 10, 10 of 10.
        for (hits, low, high) in [(0, 0.0, 0.3085), (5, 0.1871, 0.8129), (10, 0.6915, 1.0)] {
            let found = interval(hits, 10);
            assert!((found.0 - low).abs() < 1e-3 && (found.1 - high).abs() < 1e-3, "{hits}: {found:?}");
        }
        assert_eq!(interval(0, 0), (0.0, 1.0));
    }

    #[test]
    fn chances_of_all_numbers_of_hits_are_one_in_all() {
        let share = Share::seen(3, 12, 30.0, 0.0);
        assert!((share.at_least(0, 20) - 1.0).abs() < 1e-9);
        assert!(share.at_least(20, 20) < 1e-3);
        assert!((share.ln_chance(1, 1) - (3.5f64 / 13.0).ln()).abs() < 1e-9);
        assert!((Share::seen(0, 1000, 60.0, 0.01).ln_chance(1, 1) - 0.01f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn the_normal_distribution_is_right() {
        for (x, expected) in [(0.0, 0.5), (1.96, 0.975), (-2.326, 0.01)] {
            assert!((normal_at_most(x) - expected).abs() < 1e-4, "{x}");
        }
    }
}
