//! One read on its way, and what becomes of it when it fails or falls short. Pure.

use crate::plan::PlannedRead;

/// A read on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u32,
    /// Index of its stage.
    pub stage: u16,
    /// Whether it is part of a planned read that was cut in two or fell short.
    pub part: bool,
    /// When it was submitted.
    pub submitted_ns: u64,
}

impl Job {
    /// As planned.
    pub fn from_plan(read: PlannedRead) -> Job {
        Job { offset: read.offset(), bytes: read.bytes(), stage: read.stage, part: false, submitted_ns: 0 }
    }
}

/// What is left of a read that gave fewer bytes than asked for.
pub fn after_short(job: Job, bytes: u32) -> Job {
    Job { offset: job.offset + u64::from(bytes), bytes: job.bytes - bytes, part: true, ..job }
}

/// The halves of a read that failed, on whole blocks; `None` where it is a single block.
pub fn after_failure(job: Job, block_bytes: u32) -> Option<[Job; 2]> {
    let blocks = job.bytes / block_bytes.max(1);
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

    proptest! {
        #[test]
        fn halves_cover_the_whole_and_end_at_a_block(blocks in 1u32..600, offset in 0u64..1000) {
            let job = Job { offset: offset * 512, bytes: blocks * 512, stage: 0, part: false, submitted_ns: 0 };
            let mut todo = vec![job];
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
