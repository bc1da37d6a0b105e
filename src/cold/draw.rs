//! Random numbers that depend on nothing but a seed and what is drawn for: the same unit has the same latency in
//! virtual time and on the emulator, in whatever order units are read.

/// What a number is drawn for; keeps the draws of one unit apart.
#[derive(Clone, Copy)]
pub enum For {
    Latency = 1,
    Radius = 2,
    Tail = 3,
    TailLatency = 4,
    Rate = 5,
    Unallocated = 6,
    Warm = 7,
    WarmLatency = 8,
    WarmRadius = 9,
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in `(0, 1)`.
pub fn uniform(seed: u64, what: For, number: u64) -> f64 {
    let golden = 0x9e37_79b9_7f4a_7c15_u64;
    let bits =
        mix(mix(seed.wrapping_add(golden.wrapping_mul(what as u64))) ^ mix(number.wrapping_add(golden)));
    ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Standard normal, by Box and Muller from two uniforms.
fn normal(seed: u64, angle: For, radius: For, number: u64) -> f64 {
    let turn = std::f64::consts::TAU * uniform(seed, angle, number);
    (-2.0 * uniform(seed, radius, number).ln()).sqrt() * turn.cos()
}

/// Lognormal around a median, in the median's unit.
pub fn lognormal(seed: u64, kinds: (For, For), number: u64, median: u64, sigma: f64) -> u64 {
    (median as f64 * (sigma * normal(seed, kinds.0, kinds.1, number)).exp()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lognormal_has_its_median_and_sigma() {
        let mut logs: Vec<f64> = (0..20_000)
            .map(|n| (lognormal(7, (For::Latency, For::Radius), n, 35_000_000, 0.6) as f64 / 35e6).ln())
            .collect();
        logs.sort_by(f64::total_cmp);
        assert!(logs[10_000].abs() < 0.02, "median {}", logs[10_000]);
        let sigma = (logs.iter().map(|x| x * x).sum::<f64>() / 20_000.0).sqrt();
        assert!((sigma - 0.6).abs() < 0.02, "sigma {sigma}");
    }
}
