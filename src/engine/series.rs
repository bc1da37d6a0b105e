//! How a run went over time, in a bounded number of moments. Pure.

/// Moments that are kept: a chart on a telephone has no more places.
const MOMENTS_MAX: usize = 120;
/// How far apart they are at first; twice as far whenever there are too many.
const EVERY_NS: u64 = 5_000_000;

/// What was done by a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// On the source's clock.
    pub at_ns: u64,
    /// Planned reads.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Reads that might be in flight then.
    pub depth: u32,
}

/// A run over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    moments: Vec<Moment>,
    every_ns: u64,
    /// The last that was told, kept or not.
    last: Moment,
}

impl Series {
    /// Nothing done yet.
    pub fn new(at_ns: u64, depth: u32) -> Series {
        let first = Moment { at_ns, depth, ..Moment::default() };
        let mut moments = Vec::with_capacity(MOMENTS_MAX + 1);
        moments.push(first);
        Series { moments, every_ns: EVERY_NS, last: first }
    }

    /// Whether a moment would be kept.
    pub(super) fn is_due(&self, at_ns: u64) -> bool {
        self.moments.last().is_none_or(|last| at_ns >= last.at_ns.saturating_add(self.every_ns))
    }

    /// This much was done by now.
    pub(super) fn tell(&mut self, moment: Moment) {
        self.last = moment;
        if !self.is_due(moment.at_ns) {
            return;
        }
        self.moments.push(moment);
        while self.moments.len() > MOMENTS_MAX {
            self.every_ns *= 2;
            let mut kept_ns = None;
            self.moments.retain(|moment| {
                let due = kept_ns.is_none_or(|kept_ns| moment.at_ns >= kept_ns + self.every_ns);
                kept_ns = if due { Some(moment.at_ns) } else { kept_ns };
                due
            });
        }
    }

    /// In order of time, the first and the last among them.
    pub fn moments(&self) -> impl Iterator<Item = Moment> + '_ {
        let last = Some(self.last).filter(|last| self.moments.last() != Some(last));
        self.moments.iter().copied().chain(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_are_few_and_in_order_and_end_with_the_last(steps in prop::collection::vec(0u64..400_000_000, 1..600)) {
            let mut series = Series::new(7, 3);
            let mut now = Moment { at_ns: 7, depth: 3, ..Moment::default() };
            for step in &steps {
                now = Moment { at_ns: now.at_ns + step, reads: now.reads + 1, bytes: now.bytes + 512, depth: 9 };
                series.tell(now);
            }
            let kept: Vec<Moment> = series.moments().collect();
            prop_assert!(kept.len() <= MOMENTS_MAX + 1);
            prop_assert_eq!(kept[0], Moment { at_ns: 7, depth: 3, ..Moment::default() });
            prop_assert_eq!(*kept.last().unwrap(), now);
            prop_assert!(kept.windows(2).all(|two| two[0].at_ns <= two[1].at_ns && two[0].reads < two[1].reads));
            // No hole is wider than what the reads themselves leave and twice the distance asked for.
            let widest = kept.windows(2).map(|two| two[1].at_ns - two[0].at_ns).max().unwrap_or(0);
            prop_assert!(widest <= 2 * series.every_ns + steps.iter().max().unwrap());
        }
    }
}
