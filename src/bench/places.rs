//! Which part of the volume each method gets. Pure.
//!
//! Holds: no unit is given out twice; each method gets the same number of tiles in each round; tiles are drawn
//! at random over the whole volume and the order of methods within a round is drawn anew, so that neither place
//! nor time favours one.

pub use crate::probe::Draw;

/// Bytes of one tile: long enough for a sequential method to be sequential.
pub const TILE_BYTES: u64 = 16 << 20;

/// One method's share of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Index of the method.
    pub method: usize,
    /// Offsets of its tiles in bytes.
    pub tiles: Vec<u64>,
}

/// Rounds of shares; `None` where the volume or the budget holds less than a tile for each method and round.
pub fn rounds(
    volume_bytes: u64,
    budget_bytes: u64,
    methods: usize,
    rounds: usize,
    draw: &mut Draw,
) -> Option<Vec<Vec<Share>>> {
    let shares = (methods * rounds).max(1) as u64;
    // Tile 0 stays out: the kernel has read the partition table there.
    let tiles = (volume_bytes / TILE_BYTES).checked_sub(1)?;
    let each = tiles.min(budget_bytes / TILE_BYTES) / shares;
    if each == 0 {
        return None;
    }
    let mut offsets: Vec<u64> = (1..=tiles).map(|tile| tile * TILE_BYTES).collect();
    draw.shuffle(&mut offsets);
    let mut offsets = offsets.chunks_exact(each as usize);
    let round = |draw: &mut Draw| {
        let mut order: Vec<usize> = (0..methods).collect();
        draw.shuffle(&mut order);
        let shares = order.into_iter().filter_map(|method| {
            let mut tiles = offsets.next()?.to_vec();
            tiles.sort_unstable();
            Some(Share { method, tiles })
        });
        shares.collect()
    };
    Some(
        std::iter::repeat_with(|| ())
            .take(rounds)
            .map({
                let mut round = round;
                move |()| round(draw)
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn no_tile_is_given_out_twice(
            volume in 1u64..400, budget in 1u64..400, methods in 1usize..9, count in 1usize..5, seed in any::<u64>(),
        ) {
            let mut draw = Draw(seed);
            let Some(rounds) = rounds(volume * TILE_BYTES + 5, budget * TILE_BYTES, methods, count, &mut draw)
            else {
                prop_assert!((volume - 1).min(budget) < (methods * count) as u64);
                return Ok(());
            };
            prop_assert_eq!(rounds.len(), count);
            let mut seen = HashSet::new();
            for round in &rounds {
                let methods_seen: HashSet<usize> = round.iter().map(|share| share.method).collect();
                prop_assert_eq!(methods_seen.len(), methods);
                for share in round {
                    prop_assert_eq!(share.tiles.len(), round[0].tiles.len());
                    for tile in &share.tiles {
                        prop_assert!(seen.insert(*tile) && tile + TILE_BYTES <= volume * TILE_BYTES + 5);
                    }
                }
            }
            prop_assert!(seen.len() as u64 <= budget);
        }
    }
}
