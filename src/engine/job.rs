//! One read on its way, and what becomes of it when it fails or falls short. Pure.

use crate::extent::Extent;
use crate::plan::PlannedRead;
use crate::units::SECTOR_BYTES;

/// A read on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u32,
    /// Index of its stage.
    pub stage: u16,
    /// Number of the planned read, as the feed counts them.
    pub number: u64,
    /// Whether it is no part of the plan.
    pub extra: bool,
    /// Whether it is less than what was planned: the tail of a read that fell short, or a piece of one that failed.
    pub part: bool,
    /// The failed read that it is a piece of.
    pub cut: Option<u64>,
    /// When it was submitted.
    pub submitted_ns: u64,
}

impl Job {
    /// As planned.
    pub fn from_plan(read: PlannedRead, number: u64) -> Job {
        let (offset, bytes) = (read.offset(), read.bytes());
        Job {
            offset,
            bytes,
            stage: read.stage,
            number,
            extra: false,
            part: false,
            cut: None,
            submitted_ns: 0,
        }
    }

    /// The read that would still do it.
    pub fn to_plan(self) -> PlannedRead {
        let sectors = self.bytes / SECTOR_BYTES as u32;
        PlannedRead { start: self.offset / SECTOR_BYTES, sectors, stage: self.stage }
    }

    /// The sectors it reads.
    pub fn extent(self) -> Option<Extent> {
        Extent::of_bytes(self.offset, u64::from(self.bytes))
    }
}

/// What is left of a read that gave fewer bytes than asked for, from a whole block on; `None` where it gave less than
/// a block.
pub fn after_short(job: Job, bytes: u32, block_bytes: u32) -> Option<Job> {
    let whole = bytes / block_bytes * block_bytes;
    let left = Job { offset: job.offset + u64::from(whole), bytes: job.bytes - whole, part: true, ..job };
    (whole > 0).then_some(left)
}

/// The halves of a read that failed, on whole blocks; `None` where it is a single block.
pub fn after_failure(job: Job, block_bytes: u32) -> Option<[Job; 2]> {
    let blocks = job.bytes / block_bytes;
    if blocks < 2 {
        return None;
    }
    let low = blocks / 2 * block_bytes;
    let halves = [
        Job { bytes: low, part: true, ..job },
        Job { offset: job.offset + u64::from(low), bytes: job.bytes - low, part: true, ..job },
    ];
    Some(halves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(offset: u64, bytes: u32) -> Job {
        Job { offset, bytes, stage: 0, number: 0, extra: false, part: false, cut: None, submitted_ns: 0 }
    }

    #[test]
    fn what_fell_short_goes_on_at_a_block() {
        let left = after_short(job(4096, 4096), 1000, 512).unwrap();
        assert_eq!((left.offset, left.bytes, left.part), (4608, 3584, true));
        assert_eq!(after_short(job(4096, 4096), 511, 512), None);
    }

    proptest! {
        #[test]
        fn halves_cover_the_whole_and_end_at_a_block(blocks in 1u32..600, offset in 0u64..1000) {
            let mut todo = vec![job(offset * 512, blocks * 512)];
            let mut leaves = Vec::new();
            while let Some(job) = todo.pop() {
                match after_failure(job, 512) {
                    Some(halves) => todo.extend(halves),
                    None => leaves.push(job),
                }
            }
            leaves.sort_by_key(|leaf| leaf.offset);
            prop_assert_eq!(leaves.len() as u32, blocks);
            let aligned = leaves.iter().enumerate().all(|(n, l)| l.offset == (offset + n as u64) * 512);
            prop_assert!(aligned);
        }
    }
}
