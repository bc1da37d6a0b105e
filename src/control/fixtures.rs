//! What tests of this room share.

use super::status::{StageStatus, Traffic};
use super::watch::Picture;

/// A warming under way: stages with their reads and how many of them are done.
pub fn picture(stages: &[(&str, u64, u64)]) -> Picture {
    let stage = |(name, reads, done): &(&str, u64, u64)| StageStatus {
        name: (*name).into(),
        units: *reads,
        reads: *reads,
        done: *done,
        is_over: done >= reads,
        ..StageStatus::default()
    };
    let reads = stages.iter().map(|(_, _, done)| done).sum();
    let traffic = Traffic { reads, bytes: reads * 4096, ..Traffic::default() };
    Picture { stages: stages.iter().map(stage).collect(), traffic, in_flight: 7, ..Picture::default() }
}
