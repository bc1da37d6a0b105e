//! Which unit explains what neighbours of cold blocks cost. Pure.
//!
//! A pair is a block that was cold, and a neighbour that was read next. If both lie in one unit the neighbour is warm
//! by then, whatever it was before; if not, it is as cold as any block here. Each unit that could be is weighed by the
//! chance of what was seen (Bayes, no unit preferred). How often a warm read is slow, and a fresh block warm already,
//! is taken from reads of which that is known.
//!
//! Holds: units are powers of two, aligned to their size; where what was seen fits none of them, none is named.

use super::chance::Share;

/// The smallest unit, and the block that is read.
pub const BLOCK_BYTES: u64 = 4096;
/// The largest distance at which neighbours are read, and so the largest unit that can be told.
pub const UNIT_BYTES_MAX: u64 = 16 << 20;
/// A unit is named when it is so much likelier than all others together.
pub const SURE: f64 = 0.9999;
/// Pairs on either side of the unit's size that must have been seen.
const PAIRS_MIN: u64 = 6;
/// A unit below this chance of what was seen does not explain it.
const FIT_MIN: f64 = 1e-3;
/// One read in a hundred may be an outlier, whatever was seen of warm reads.
const OUTLIERS: f64 = 0.01;
/// What was seen of warm reads counts as so many at the most.
const WARM_CASES_MAX: f64 = 60.0;
/// What was seen of fresh blocks counts as so many: how much of a volume is warm differs from place to place.
const FRESH_CASES_MAX: f64 = 30.0;

/// A cold block and its neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Offset of the block that was cold, in bytes.
    pub first: u64,
    /// Offset of its neighbour.
    pub neighbour: u64,
    /// Whether the neighbour was cold too.
    pub cold: bool,
}

impl Pair {
    fn same_unit(&self, unit_bytes: u64) -> bool {
        self.first / unit_bytes == self.neighbour / unit_bytes
    }
}

/// How often things happen that have nothing to do with the unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// Reads that were warm for certain, and those of them that were slow all the same.
    pub warm: u64,
    pub warm_slow: u64,
    /// First reads, and those of them that were warm already.
    pub fresh: u64,
    pub fresh_warm: u64,
}

/// A unit that could be, and what speaks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Weighed {
    /// Pairs in one unit, and those of them whose neighbour was cold.
    same: u64,
    same_cold: u64,
    /// Pairs in two units, and those of them whose neighbour was warm.
    apart: u64,
    apart_warm: u64,
    chance: f64,
}

/// What the pairs say so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Belief {
    units: Vec<Weighed>,
    best: usize,
    fits: bool,
    below: u64,
    above: u64,
}

impl Belief {
    /// About units from [`BLOCK_BYTES`] to `unit_bytes_max`, a power of two, and one that stands for all beyond.
    pub fn new(pairs: &[Pair], noise: Noise, unit_bytes_max: u64) -> Belief {
        let slow = Share::seen(noise.warm_slow, noise.warm, WARM_CASES_MAX, OUTLIERS);
        let warm = Share::seen(noise.fresh_warm, noise.fresh, FRESH_CASES_MAX, OUTLIERS);
        let mut units: Vec<Weighed> = (0..=index_of(unit_bytes_max) + 1)
            .map(|index| {
                let mut unit = Weighed::default();
                pairs.iter().for_each(|pair| unit.count(pair, bytes_of(index)));
                unit.chance =
                    slow.ln_chance(unit.same_cold, unit.same) + warm.ln_chance(unit.apart_warm, unit.apart);
                unit
            })
            .collect();
        let most = units.iter().map(|unit| unit.chance).fold(f64::NEG_INFINITY, f64::max);
        units.iter_mut().for_each(|unit| unit.chance = (unit.chance - most).exp());
        let sum: f64 = units.iter().map(|unit| unit.chance).sum();
        units.iter_mut().for_each(|unit| unit.chance /= sum);
        let best = (0..units.len()).max_by(|a, b| units[*a].chance.total_cmp(&units[*b].chance)).unwrap_or(0);
        let fits = |seen: &Weighed| {
            slow.at_least(seen.same_cold, seen.same) > FIT_MIN
                && warm.at_least(seen.apart_warm, seen.apart) > FIT_MIN
        };
        // Next to the unit's size is where a unit of another kind shows; among all pairs that would drown.
        let near = |split: Option<usize>| {
            let mut seen = Weighed::default();
            let splits = |pair: &&Pair, unit: u64| !pair.same_unit(unit) && pair.same_unit(unit * 2);
            let split = split.map(bytes_of);
            let pairs = pairs.iter().filter(|pair| split.is_some_and(|unit| splits(pair, unit)));
            pairs.for_each(|pair| seen.count(pair, bytes_of(best)));
            seen
        };
        let (lower, upper) = (near(best.checked_sub(1)), near(Some(best)));
        let below = if best == 0 { PAIRS_MIN } else { lower.same };
        let above = if best + 1 == units.len() { PAIRS_MIN } else { upper.apart };
        let fits = fits(&units[best]) && fits(&lower) && fits(&upper);
        Belief { units, best, fits, below, above }
    }

    /// The likeliest unit in bytes; `None` where it is larger than can be told.
    pub fn best(&self) -> Option<u64> {
        (self.best + 1 < self.units.len()).then(|| bytes_of(self.best))
    }

    /// How sure that is, from 0 to 1.
    pub fn confidence(&self) -> f64 {
        self.units[self.best].chance
    }

    /// Whether what was seen is what one would see with that unit.
    pub fn fits(&self) -> bool {
        self.fits
    }

    /// Whether there is nothing left to find out.
    pub fn is_sure(&self) -> bool {
        self.confidence() >= SURE && self.below.min(self.above) >= PAIRS_MIN
    }

    /// The largest unit that is likelier than that, in bytes: places that share none of this size share no unit.
    pub fn possible_bytes_max(&self, unlikely: f64) -> u64 {
        let last = self.units.iter().rposition(|unit| unit.chance > unlikely).unwrap_or(self.units.len() - 1);
        bytes_of(last)
    }

    /// The distance at which neighbours tell most, in bytes: those in one unit of twice this size and in two of this
    /// size.
    pub fn distance_to_try(&self) -> u64 {
        let last = self.units.len() - 2;
        let chance_below: f64 = self.units[..self.best].iter().map(|unit| unit.chance).sum();
        let chance_above: f64 = self.units[self.best + 1..].iter().map(|unit| unit.chance).sum();
        if self.confidence() < 0.5 {
            let mut sum = 0.0;
            let middle = self.units.iter().position(|unit| {
                sum += unit.chance;
                sum >= 0.5
            });
            return bytes_of(middle.unwrap_or(last).min(last));
        }
        let (low, high) = (self.best.saturating_sub(1).min(last), self.best.min(last));
        let lower = match (self.below < PAIRS_MIN, self.above < PAIRS_MIN) {
            (true, false) => true,
            (false, true) => false,
            _ => chance_below > chance_above,
        };
        bytes_of(if lower { low } else { high })
    }
}

impl Weighed {
    fn count(&mut self, pair: &Pair, unit_bytes: u64) {
        if pair.same_unit(unit_bytes) {
            self.same += 1;
            self.same_cold += u64::from(pair.cold);
        } else {
            self.apart += 1;
            self.apart_warm += u64::from(!pair.cold);
        }
    }
}

fn bytes_of(index: usize) -> u64 {
    BLOCK_BYTES << index
}

fn index_of(bytes: u64) -> usize {
    (bytes / BLOCK_BYTES).max(1).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    /// Pairs at all distances, each on its own place, as they are with a unit of which a share is warm already.
    fn pairs(unit: u64, warm_in: u64) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for round in 0..40u64 {
            for index in 0..=index_of(UNIT_BYTES_MAX) {
                let first = (pairs.len() as u64) * 64 * MIB;
                let neighbour = first + bytes_of(index);
                let warm_already = warm_in > 0 && (round + index as u64).is_multiple_of(warm_in);
                let cold = neighbour / unit != first / unit && !warm_already;
                pairs.push(Pair { first, neighbour, cold });
            }
        }
        pairs
    }

    fn noise(warm_in: u64) -> Noise {
        let fresh_warm = 90u64.checked_div(warm_in).unwrap_or(0);
        Noise { warm: 100, warm_slow: 0, fresh: 90, fresh_warm }
    }

    #[test]
    fn every_unit_is_found() {
        for index in 0..=index_of(UNIT_BYTES_MAX) {
            for warm_in in [0, 3, 2] {
                let unit = bytes_of(index);
                let belief = Belief::new(&pairs(unit, warm_in), noise(warm_in), UNIT_BYTES_MAX);
                assert_eq!(belief.best(), Some(unit), "{warm_in}");
                assert!(belief.is_sure() && belief.fits(), "{unit} {warm_in}: {belief:?}");
                assert_eq!(belief.possible_bytes_max(1e-6), unit);
            }
        }
    }

    #[test]
    fn what_is_larger_than_the_largest_distance_is_not_named() {
        let belief = Belief::new(&pairs(256 * MIB, 0), noise(0), UNIT_BYTES_MAX);
        assert_eq!((belief.best(), belief.fits()), (None, true));
    }

    #[test]
    fn units_that_are_no_power_of_two_or_lie_askew_fit_nothing() {
        for (unit, offset) in [(768 << 10, 0), (512 << 10, 64 << 10), (512 << 10, 4096), (1_000_000, 0)] {
            let pairs: Vec<Pair> = (0..400u64)
                .map(|number| {
                    let distance = bytes_of((number % 13) as usize);
                    let at = number * 64 * MIB + number * 7919 * BLOCK_BYTES % (32 * MIB);
                    let first =
                        at / (2 * distance) * 2 * distance + at % distance / BLOCK_BYTES * BLOCK_BYTES;
                    let neighbour = first + distance;
                    let unit_of = |offset_bytes: u64| (offset_bytes + offset) / unit;
                    Pair { first, neighbour, cold: unit_of(first) != unit_of(neighbour) }
                })
                .collect();
            let belief = Belief::new(&pairs, noise(0), UNIT_BYTES_MAX);
            let edge = offset == 4096;
            // An offset of one block shows at the edges only, which the probe tries on purpose.
            assert!(edge || !belief.fits(), "{unit} {offset}: {belief:?}");
        }
    }

    #[test]
    fn few_pairs_make_nobody_sure() {
        let few = &pairs(512 << 10, 0)[..13];
        let belief = Belief::new(few, noise(0), UNIT_BYTES_MAX);
        assert!(!belief.is_sure());
        assert_eq!(Belief::new(&[], Noise::default(), UNIT_BYTES_MAX).confidence(), 1.0 / 14.0);
    }

    #[test]
    fn where_all_is_warm_already_a_warm_neighbour_says_nothing() {
        let noise = Noise { warm: 100, warm_slow: 0, fresh: 300, fresh_warm: 297 };
        let warm: Vec<Pair> = (0..40)
            .map(|number| Pair { first: number * 64 * MIB, neighbour: number * 64 * MIB + 4096, cold: false })
            .collect();
        assert!(!Belief::new(&warm, noise, UNIT_BYTES_MAX).is_sure());
    }

    proptest! {
        #[test]
        fn whatever_was_seen_chances_are_chances(
            seen in prop::collection::vec((0u64..1 << 12, 0u64..1 << 12, any::<bool>()), 0..60),
            warm in 0u64..99, fresh in 0u64..99,
        ) {
            let pairs: Vec<Pair> = seen
                .iter()
                .map(|(a, b, cold)| Pair { first: a << 12, neighbour: b << 12, cold: *cold })
                .collect();
            let noise = Noise { warm, warm_slow: warm / 2, fresh, fresh_warm: fresh / 3 };
            let belief = Belief::new(&pairs, noise, UNIT_BYTES_MAX);
            let sum: f64 = belief.units.iter().map(|unit| unit.chance).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
            let distance = belief.distance_to_try();
            prop_assert!((BLOCK_BYTES..=UNIT_BYTES_MAX).contains(&distance) && distance.is_power_of_two());
        }
    }
}
