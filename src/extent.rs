//! Half-open ranges of 512-byte sectors, sets of them, and their alignment to units.
//!
//! Holds: an extent is never empty; a set's extents are sorted, disjoint and never adjacent. No I/O.

use crate::units::SECTOR_BYTES;
use std::collections::BTreeMap;

/// A half-open range `[start, end)` of sectors, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    start: u64,
    end: u64,
}

impl Extent {
    /// `None` where it would be empty or run past the last sector that a byte offset can name.
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start < end && end <= u64::MAX / SECTOR_BYTES).then_some(Extent { start, end })
    }

    /// From a start and a number of sectors.
    pub fn at(start: u64, sectors: u64) -> Option<Self> {
        Self::new(start, start.checked_add(sectors)?)
    }

    /// The sectors that a range of bytes touches, rounded outwards.
    pub fn of_bytes(offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length)?;
        if length == 0 {
            return None;
        }
        Self::new(offset / SECTOR_BYTES, end.div_ceil(SECTOR_BYTES))
    }

    /// First sector.
    pub fn start(self) -> u64 {
        self.start
    }

    /// The sector after the last.
    pub fn end(self) -> u64 {
        self.end
    }

    /// Length in sectors, at least 1.
    pub fn sectors(self) -> u64 {
        self.end - self.start
    }

    /// Length in bytes.
    pub fn bytes(self) -> u64 {
        self.sectors() * SECTOR_BYTES
    }

    /// Offset of the first byte.
    pub fn offset(self) -> u64 {
        self.start * SECTOR_BYTES
    }

    /// Whether the two share a sector.
    pub fn overlaps(self, other: Extent) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether all of `other` lies inside.
    pub fn contains(self, other: Extent) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What the two share.
    pub fn intersection(self, other: Extent) -> Option<Extent> {
        Extent::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// The same range `by` sectors further on.
    pub fn shifted(self, by: i64) -> Option<Extent> {
        Extent::new(self.start.checked_add_signed(by)?, self.end.checked_add_signed(by)?)
    }

    /// Rounded outwards to whole units, counted from sector 0.
    pub fn align_out(self, unit_sectors: u64) -> Extent {
        let start = self.start / unit_sectors * unit_sectors;
        let end = self.end.div_ceil(unit_sectors).saturating_mul(unit_sectors);
        Extent { start, end: end.min(u64::MAX / SECTOR_BYTES) }
    }

    /// The numbers of the units it touches.
    pub fn units(self, unit_sectors: u64) -> std::ops::Range<u64> {
        self.start / unit_sectors..self.end.div_ceil(unit_sectors)
    }
}

/// A set of sectors: sorted, disjoint, never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentSet {
    /// start -> end
    by_start: BTreeMap<u64, u64>,
}

impl ExtentSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of separate extents.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether no sector is in it.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// Sectors in all.
    pub fn sectors(&self) -> u64 {
        self.iter().map(Extent::sectors).sum()
    }

    /// The extents in order of address.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.by_start.iter().map(|(&start, &end)| Extent { start, end })
    }

    /// Adds an extent; says whether any sector of it was new.
    pub fn insert(&mut self, extent: Extent) -> bool {
        let Extent { mut start, mut end } = extent;
        // The one at or before: swallow it where it reaches us.
        if let Some((&s, &e)) = self.by_start.range(..=start).next_back()
            && e >= start
        {
            if e >= end {
                return false;
            }
            start = s;
        }
        while let Some((&s, &e)) = self.by_start.range(start..=end).next() {
            end = end.max(e);
            self.by_start.remove(&s);
        }
        self.by_start.insert(start, end);
        true
    }

    /// The parts of `extent` that are not in the set, in order.
    pub fn missing_from(&self, extent: Extent) -> Vec<Extent> {
        let mut gaps = Vec::new();
        let mut at = extent.start;
        let before = self.by_start.range(..=at).next_back();
        let within = self.by_start.range(at + 1..extent.end);
        for (&start, &end) in before.into_iter().chain(within) {
            gaps.extend(Extent::new(at, start.min(extent.end)));
            at = at.max(end);
        }
        gaps.extend(Extent::new(at, extent.end));
        gaps
    }

    /// Whether all of `extent` is in the set.
    pub fn covers(&self, extent: Extent) -> bool {
        self.by_start.range(..=extent.start).next_back().is_some_and(|(_, &end)| end >= extent.end)
    }

    /// Whether any sector of `extent` is in the set.
    pub fn overlaps(&self, extent: Extent) -> bool {
        self.by_start.range(..extent.end).next_back().is_some_and(|(_, &end)| end > extent.start)
    }
}

impl FromIterator<Extent> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        let mut set = ExtentSet::new();
        for extent in extents {
            set.insert(extent);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn extent(start: u64, end: u64) -> Extent {
        Extent::new(start, end).unwrap()
    }

    #[test]
    fn empty_and_absurd_extents_do_not_exist() {
        assert_eq!(Extent::new(5, 5), None);
        assert_eq!(Extent::at(u64::MAX, 2), None);
        assert_eq!(Extent::new(0, u64::MAX), None);
        assert_eq!(Extent::of_bytes(10, 0), None);
        assert_eq!(Extent::of_bytes(511, 2), Some(extent(0, 2)));
    }

    #[test]
    fn units_round_outwards() {
        assert_eq!(extent(1023, 1025).units(1024), 0..2);
        assert_eq!(extent(1024, 2048).units(1024), 1..2);
        assert_eq!(extent(5, 6).align_out(8), extent(0, 8));
    }

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        prop::collection::vec(
            (0u64..200, 1u64..30).prop_map(|(start, n)| Extent::at(start, n).unwrap()),
            0..40,
        )
    }

    fn sectors(extents: impl IntoIterator<Item = Extent>) -> BTreeSet<u64> {
        extents.into_iter().flat_map(|e| e.start()..e.end()).collect()
    }

    proptest! {
        #[test]
        fn a_set_holds_just_what_was_inserted(list in extents(), probe in (0u64..220, 1u64..40)) {
            let mut set = ExtentSet::new();
            let mut model = BTreeSet::new();
            for e in &list {
                let new = (e.start()..e.end()).any(|s| !model.contains(&s));
                prop_assert_eq!(set.insert(*e), new);
                model.extend(e.start()..e.end());
            }
            prop_assert_eq!(sectors(set.iter()), model.clone());
            let all: Vec<Extent> = set.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].end() < w[1].start()));
            let probe = Extent::at(probe.0, probe.1).unwrap();
            let missing: BTreeSet<u64> = (probe.start()..probe.end()).filter(|s| !model.contains(s)).collect();
            prop_assert_eq!(sectors(set.missing_from(probe)), missing.clone());
            prop_assert_eq!(set.covers(probe), missing.is_empty());
            prop_assert_eq!(set.overlaps(probe), missing.len() as u64 != probe.sectors());
        }
    }
}
