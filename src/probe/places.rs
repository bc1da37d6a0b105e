//! Where to look: fresh places, each drawn at random among what may be read. Pure.
//!
//! Holds: no two places lie in one aligned block of the size that was asked for, so that nothing that is read at one
//! hydrates the other; only blocks that may be read are given out. A place where nothing was hydrated can be given
//! back: small volumes have few.

use super::Draw;
use super::unit::BLOCK_BYTES;
use crate::extent::{Extent, ExtentSet};
use crate::units::SECTOR_BYTES;
use std::collections::HashSet;

/// Draws before a place is said not to be there: where one draw in fifty finds a fresh one, this misses none in a
/// thousand times.
const DRAWS_MAX: usize = 350;
/// Sectors of a block.
const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;

/// How the two blocks of a pair lie in the aligned block of twice their distance: always one in each half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// At the distance itself, somewhere.
    Somewhere,
    /// On either side of the middle.
    Near,
    /// At the two ends.
    Far,
}

/// A block, and the neighbour that is read after it. Offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub first: u64,
    pub neighbour: u64,
    /// The aligned block that no other place shares.
    block: Extent,
}

/// What may be read, and what was given out.
#[derive(Clone, Debug)]
pub struct Places {
    /// Ranges of blocks, by number, each with the number of blocks before it.
    ranges: Vec<(u64, u64, u64)>,
    blocks: u64,
    used: ExtentSet,
    /// Given out, and not yet known to be used.
    lent: Vec<Extent>,
    /// First blocks that were given out: none is the first read of two.
    first: HashSet<u64>,
}

impl Places {
    /// Within a volume of so many bytes, and there within `allowed`, where that is given. A block that is allowed in
    /// part is allowed: whoever wrote a part has the rest in the same block of the snapshot.
    pub fn new(volume_bytes: u64, allowed: Option<&ExtentSet>) -> Places {
        let end = volume_bytes / BLOCK_BYTES;
        let mut ranges = Vec::new();
        let mut blocks = 0;
        let mut add = |start: u64, end: u64| {
            if start < end {
                ranges.push((start, end, blocks));
                blocks += end - start;
            }
        };
        match allowed {
            None => add(0, end),
            Some(allowed) => {
                let mut from = 0;
                for extent in allowed.iter() {
                    let start = (extent.start() / BLOCK_SECTORS).max(from);
                    from = extent.end().div_ceil(BLOCK_SECTORS).min(end).max(from);
                    add(start, from);
                }
            }
        }
        Places { ranges, blocks, used: ExtentSet::new(), lent: Vec::new(), first: HashSet::new() }
    }

    /// Bytes that may be read.
    pub fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES
    }

    /// A fresh pair whose blocks lie in the two halves of an aligned block of twice `distance`; `apart` is the aligned
    /// block that no other pair shares. Both are powers of two. `None` where none is left.
    pub fn pair(&mut self, distance: u64, apart: u64, lie: Lie, draw: &mut Draw) -> Option<Place> {
        for _ in 0..DRAWS_MAX {
            let first = self.any(draw)?;
            let whole = apart.max(2 * distance);
            let block = Extent::of_bytes(first / whole * whole, whole).filter(|block| self.is_fresh(*block));
            let Some(block) = block else { continue };
            if let Some((first, neighbour)) = self.neighbour(first, distance, lie, draw)
                && self.first.insert(first)
            {
                self.lent.push(block);
                return Some(Place { first, neighbour, block });
            }
        }
        None
    }

    /// A fresh aligned block of which at least one block may be read; its offset.
    pub fn whole(&mut self, bytes: u64, draw: &mut Draw) -> Option<u64> {
        for _ in 0..DRAWS_MAX {
            let offset = self.any(draw)? / bytes * bytes;
            if let Some(block) = Extent::of_bytes(offset, bytes).filter(|block| self.is_fresh(*block)) {
                self.used.insert(block);
                return Some(offset);
            }
        }
        None
    }

    fn is_fresh(&self, block: Extent) -> bool {
        !self.used.overlaps(block) && !self.lent.iter().any(|lent| lent.overlaps(block))
    }

    /// Something at a place was hydrated, or may have been.
    pub fn keep(&mut self, place: Place) {
        self.lent.retain(|lent| *lent != place.block);
        self.used.insert(place.block);
    }

    /// Nothing at a place was hydrated: what was read there was warm.
    pub fn give_back(&mut self, place: Place) {
        self.lent.retain(|lent| *lent != place.block);
    }

    /// What was given out and not given back, in sectors.
    pub fn used(&self) -> ExtentSet {
        self.used.iter().chain(self.lent.iter().copied()).collect()
    }

    /// The neighbour of a block, and the block itself moved to where it should lie, where both may be read; else any
    /// block of the other half.
    fn neighbour(&self, first: u64, distance: u64, lie: Lie, draw: &mut Draw) -> Option<(u64, u64)> {
        let start = first / (2 * distance) * 2 * distance;
        let middle = start + distance;
        let upper = first >= middle;
        let (low, high) = match lie {
            Lie::Somewhere if upper => (first - distance, first),
            Lie::Somewhere => (first, first + distance),
            Lie::Near => (middle - BLOCK_BYTES, middle),
            Lie::Far => (start, middle + distance - BLOCK_BYTES),
        };
        let turned = |low: u64, high: u64| if upper { (high, low) } else { (low, high) };
        let (wanted, neighbour) = turned(low, high);
        if self.may_read(wanted) && self.may_read(neighbour) {
            return Some((wanted, neighbour));
        }
        let other = if upper { start } else { middle };
        self.any_within(other, other + distance, draw).map(|neighbour| (first, neighbour))
    }

    fn any(&self, draw: &mut Draw) -> Option<u64> {
        self.nth((self.blocks > 0).then(|| draw.below(self.blocks))?)
    }

    fn nth(&self, number: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|(_, _, before)| *before <= number).checked_sub(1)?;
        let (start, _, before) = self.ranges[at];
        Some((start + number - before) * BLOCK_BYTES)
    }

    /// Blocks that may be read below an offset.
    fn blocks_below(&self, offset: u64) -> u64 {
        let block = offset / BLOCK_BYTES;
        let at = self.ranges.partition_point(|(start, _, _)| *start < block);
        at.checked_sub(1).map_or(0, |at| {
            let (start, end, before) = self.ranges[at];
            before + block.min(end) - start
        })
    }

    fn any_within(&self, start: u64, end: u64, draw: &mut Draw) -> Option<u64> {
        let (from, until) = (self.blocks_below(start), self.blocks_below(end));
        self.nth((until > from).then(|| from + draw.below(until - from))?)
    }

    fn may_read(&self, offset: u64) -> bool {
        self.blocks_below(offset + BLOCK_BYTES) > self.blocks_below(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn allowed(extents: &[(u64, u64)]) -> ExtentSet {
        extents.iter().filter_map(|(start, sectors)| Extent::at(*start, *sectors)).collect()
    }

    #[test]
    fn a_small_volume_runs_out_of_places() {
        let mut places = Places::new(4 * MIB, None);
        let mut draw = Draw(1);
        let mut count = 0;
        while places.pair(64 << 10, MIB, Lie::Somewhere, &mut draw).is_some() {
            count += 1;
        }
        assert_eq!(count, 4);
        assert_eq!(places.used().sectors() * SECTOR_BYTES, 4 * MIB);
        places.give_back(Place { first: MIB, neighbour: 0, block: Extent::of_bytes(MIB, MIB).unwrap() });
        assert_eq!(places.used().sectors() * SECTOR_BYTES, 3 * MIB);
        let again = places.pair(4096, 64 << 10, Lie::Near, &mut draw).unwrap();
        assert_eq!(again.first / MIB, 1, "what was given back is fresh again");
        places.keep(again);
        assert_eq!(places.pair(4096, 4 * MIB, Lie::Near, &mut draw), None);
        assert_eq!(places.whole(MIB, &mut draw), None);
        assert_eq!(Places::new(100, None).pair(4096, 8192, Lie::Near, &mut draw), None);
        assert_eq!(Places::new(MIB, Some(&ExtentSet::new())).bytes(), 0);
    }

    #[test]
    fn blocks_lie_as_they_should() {
        let mut draw = Draw(5);
        for lie in [Lie::Somewhere, Lie::Near, Lie::Far] {
            let mut places = Places::new(256 * MIB, None);
            let mut orders = [0; 2];
            for _ in 0..40 {
                let place = places.pair(MIB, 4 * MIB, lie, &mut draw).unwrap();
                let expected = match lie {
                    Lie::Somewhere => MIB,
                    Lie::Near => BLOCK_BYTES,
                    Lie::Far => 2 * MIB - BLOCK_BYTES,
                };
                assert_eq!(place.first.abs_diff(place.neighbour), expected);
                orders[usize::from(place.first < place.neighbour)] += 1;
            }
            assert!(orders.iter().all(|count| *count > 5), "{lie:?}: {orders:?}");
        }
    }

    proptest! {
        #[test]
        fn pairs_are_fresh_allowed_and_split_by_the_middle(
            extents in prop::collection::vec((0u64..400_000, 1u64..3000), 1..30),
            distance in 12u32..22, apart in 13u32..23, seed in any::<u64>(), some in any::<bool>(),
        ) {
            let set = allowed(&extents);
            let volume_bytes = 200 * MIB;
            let (distance, apart) = (1u64 << distance, 1u64 << apart);
            let mut places = Places::new(volume_bytes, some.then_some(&set));
            let mut draw = Draw(seed);
            let mut taken = std::collections::HashSet::new();
            for number in 0..20 {
                let lie = [Lie::Somewhere, Lie::Near, Lie::Far][number % 3];
                let Some(place) = places.pair(distance, apart, lie, &mut draw) else { break };
                for offset in [place.first, place.neighbour] {
                    prop_assert!(offset % BLOCK_BYTES == 0 && offset + BLOCK_BYTES <= volume_bytes);
                    let block = Extent::of_bytes(offset, BLOCK_BYTES).unwrap();
                    prop_assert!(!some || set.overlaps(block));
                }
                prop_assert_eq!(place.first / (2 * distance), place.neighbour / (2 * distance));
                prop_assert_ne!(place.first / distance, place.neighbour / distance);
                prop_assert!(taken.insert(place.first / apart.max(2 * distance)));
            }
        }
    }
}
