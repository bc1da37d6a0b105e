//! Which part of the volume each method gets. Pure.
//!
//! Holds: no tile is given out twice, and none that is reserved; tiles are drawn at random over all that may be read,
//! so that no place favours a method.

pub use crate::probe::Draw;

use crate::extent::{Extent, ExtentSet};
use std::ops::Range;

/// Bytes of one tile: long enough for a sequential method to be sequential.
pub const TILE_BYTES: u64 = 16 << 20;
/// Where it is known what was written, each part of this size of a tile must have something of it: the block of a
/// snapshot (vendor documentation).
const WRITTEN_BYTES: u64 = 512 << 10;

/// Tiles that nobody has read.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Offsets in bytes, in random order.
    fresh: Vec<u64>,
    /// So many more may be given out.
    budget: u64,
}

impl Pool {
    /// The tiles of a volume, within `allowed` where that is given, without those that `reserved` touches.
    pub fn new(
        volume_bytes: u64,
        budget_bytes: u64,
        allowed: Option<&ExtentSet>,
        reserved: &ExtentSet,
        draw: &mut Draw,
    ) -> Pool {
        let written = |tile: u64| {
            allowed.is_none_or(|allowed| {
                let mut parts = (tile..tile + TILE_BYTES).step_by(WRITTEN_BYTES as usize);
                parts.all(|part| {
                    Extent::of_bytes(part, WRITTEN_BYTES).is_some_and(|part| allowed.overlaps(part))
                })
            })
        };
        let kept =
            |tile: u64| Extent::of_bytes(tile, TILE_BYTES).is_some_and(|tile| !reserved.overlaps(tile));
        // Tile 0 stays out: the kernel has read the partition table there.
        let tiles = (1..volume_bytes / TILE_BYTES).map(|number| number * TILE_BYTES);
        let mut fresh: Vec<u64> = tiles.filter(|tile| written(*tile) && kept(*tile)).collect();
        draw.shuffle(&mut fresh);
        Pool { fresh, budget: budget_bytes / TILE_BYTES }
    }

    /// Tiles that are left.
    pub fn len(&self) -> u64 {
        self.budget.min(self.fresh.len() as u64)
    }

    /// So many tiles, fewer where there are no more, in order of address.
    pub fn take(&mut self, tiles: u64) -> Vec<u64> {
        let tiles = tiles.min(self.len());
        let mut taken = self.fresh.split_off(self.fresh.len() - tiles as usize);
        self.budget -= tiles;
        taken.sort_unstable();
        taken
    }

    /// So many tiles in a row, fewer where there is no such row, for a command that takes an offset and a size.
    pub fn take_row(&mut self, tiles: u64, draw: &mut Draw) -> Option<Range<u64>> {
        let mut sorted = self.fresh.clone();
        sorted.sort_unstable();
        let mut rows: Vec<Range<u64>> = Vec::new();
        for tile in sorted {
            match rows.last_mut().filter(|row| row.end == tile) {
                Some(row) => row.end += TILE_BYTES,
                None => rows.push(tile..tile + TILE_BYTES),
            }
        }
        let longest = rows.iter().map(|row| row.end - row.start).max()?;
        let bytes = (tiles.min(self.budget) * TILE_BYTES).min(longest);
        if bytes == 0 {
            return None;
        }
        rows.retain(|row| row.end - row.start >= bytes);
        let row = rows[draw.below(rows.len() as u64) as usize].clone();
        let steps = (row.end - row.start - bytes) / TILE_BYTES + 1;
        let start = row.start + draw.below(steps) * TILE_BYTES;
        self.fresh.retain(|tile| !(start..start + bytes).contains(tile));
        self.budget -= bytes / TILE_BYTES;
        Some(start..start + bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn only_what_was_written_and_is_not_reserved_is_given_out() {
        let at = |tile: u64, tiles: u64| Extent::of_bytes(tile * TILE_BYTES, tiles * TILE_BYTES).unwrap();
        let allowed: ExtentSet = [at(2, 3), at(6, 1)].into_iter().collect();
        let reserved: ExtentSet =
            [Extent::of_bytes(3 * TILE_BYTES + 4096, 512).unwrap()].into_iter().collect();
        let mut pool = Pool::new(100 * TILE_BYTES, u64::MAX, Some(&allowed), &reserved, &mut Draw(1));
        assert_eq!(pool.take(9), [2 * TILE_BYTES, 4 * TILE_BYTES, 6 * TILE_BYTES]);
        assert_eq!((pool.take(1), pool.take_row(1, &mut Draw(1))), (vec![], None));
    }

    proptest! {
        #[test]
        fn no_tile_is_given_out_twice(
            volume in 1u64..300, budget in 0u64..300, takes in prop::collection::vec((1u64..20, any::<bool>()), 1..20),
            seed in any::<u64>(),
        ) {
            let mut draw = Draw(seed);
            let (volume_bytes, budget_bytes) = (volume * TILE_BYTES + 5, budget * TILE_BYTES);
            let mut pool = Pool::new(volume_bytes, budget_bytes, None, &ExtentSet::new(), &mut draw);
            prop_assert_eq!(pool.len(), budget.min(volume - 1));
            let mut seen = HashSet::new();
            for (tiles, in_a_row) in takes {
                let before = pool.len();
                let taken: Vec<u64> = match in_a_row {
                    false => pool.take(tiles),
                    true => pool.take_row(tiles, &mut draw).map_or_else(Vec::new, |row| {
                        row.step_by(TILE_BYTES as usize).collect()
                    }),
                };
                prop_assert!(taken.len() as u64 <= tiles && (before == 0 || !taken.is_empty()));
                prop_assert_eq!(pool.len() + taken.len() as u64, before);
                for tile in taken {
                    prop_assert!(seen.insert(tile) && (TILE_BYTES..volume * TILE_BYTES).contains(&tile));
                }
            }
        }
    }
}
