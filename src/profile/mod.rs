//! What is worth warming: extents by stage, in warming order, bound to the volume they were recorded on.
//!
//! Holds: extents are relative to their region; within a stage the order is the warming order. No file access.

use crate::extent::Extent;
use crate::volume::{Identity, Region};

/// Extents in one profile; a recording of 4 million touches merges to fewer.
pub const EXTENTS_MAX: usize = 4 << 20;
/// Stages in one profile.
pub const STAGES_MAX: usize = 64;
/// Regions in one profile: the disk and at most 128 partitions of a GPT.
pub const REGIONS_MAX: usize = 129;
/// Length of any name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// One extent of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index into [`Profile::regions`].
    pub region: u16,
    /// Sectors relative to the region's start.
    pub extent: Extent,
    /// First use, milliseconds since the kernel started; 0 where unknown (the compiled form drops it).
    pub first_use_ms: u32,
    /// Longest stall seen, milliseconds; 0 where unknown (the compiled form drops it).
    pub stall_ms: u32,
}

/// A priority class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Its name: `initrd`, `sysinit`, `ready`, `later`, or one of the user's.
    pub name: String,
    /// Extents in warming order.
    pub entries: Vec<Entry>,
}

/// What is worth warming.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it was recorded on; `None` leaves it unbound, checked for size alone.
    pub volume: Option<Identity>,
    /// What extents are relative to; the first is the whole disk.
    pub regions: Vec<Region>,
    /// Ids of the recordings it was built from.
    pub recordings: Vec<String>,
    /// Events in them.
    pub events: u64,
    /// Events lost in them.
    pub lost: u64,
    /// Stages, the most urgent first.
    pub stages: Vec<Stage>,
}
