//! What one boot did: block events become first touches, each with its time and how long it stalled.
//!
//! Holds: a sector is touched first once; memory is bounded by [`TOUCHES_MAX`]; nothing is lost silently (what
//! did not fit, did not match or was overwritten in the ring is counted). No file access, no clock.

pub mod format;
pub mod import;
mod log;
mod summary;

pub use log::{TouchLog, joined};
pub use summary::{Stall, Summary};

use crate::extent::Extent;
use crate::volume::Identity;
use serde::{Deserialize, Serialize};

/// More first touches than this are counted as lost: 4 million of 4 KiB are 16 GiB, far beyond any boot.
pub const TOUCHES_MAX: usize = 4 << 20;
/// Extents of the recorder's own requests; further ones are counted only. It reads its program and a page or two.
pub const OWN_MAX: usize = 1 << 16;
/// Process names in one recording; further ones are stored as `?`.
pub const PROCESSES_MAX: usize = 4096;

/// What an operation was; a set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flags(pub u8);

impl Flags {
    pub const READ: Flags = Flags(1);
    pub const WRITE: Flags = Flags(2);
    pub const METADATA: Flags = Flags(4);
    pub const READ_AHEAD: Flags = Flags(8);
    pub const DISCARD: Flags = Flags(16);
    pub const SYNC: Flags = Flags(32);

    /// All flags known; other bits mean a damaged file.
    pub const ALL: Flags = Flags(63);

    /// From the kernel's `rwbs` letters: R, W, D, M, A (read-ahead), S, F (flush or FUA), N (none).
    pub fn from_rwbs(rwbs: &[u8]) -> Flags {
        rwbs.iter().take_while(|letter| **letter != 0).fold(Flags(0), |flags, letter| {
            flags.with(match letter {
                b'R' => Flags::READ,
                b'W' => Flags::WRITE,
                b'D' => Flags::DISCARD,
                b'M' => Flags::METADATA,
                b'A' => Flags::READ_AHEAD,
                b'S' => Flags::SYNC,
                _ => Flags(0),
            })
        })
    }

    /// Both sets.
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The first touch of some sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Sectors, absolute on the whole disk.
    pub extent: Extent,
    /// When it was issued: microseconds since the kernel started.
    pub time_us: u64,
    /// From issue to completion in microseconds; `None` where no completion was seen.
    pub latency_us: Option<u32>,
    /// What it was.
    pub flags: Flags,
    /// Index into [`Recording::processes`].
    pub process: u16,
}

/// Where a stage of the boot began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageMark {
    /// The stage's name.
    pub name: String,
    /// From when it holds, microseconds since the kernel started.
    pub from_us: u64,
}

/// What is known of a recording as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Random id of this recording: two copies of one recording are one when merged.
    pub id: String,
    /// Kernel release, empty where it is not a trace.
    #[serde(default)]
    pub kernel: String,
    /// Boot id.
    #[serde(default)]
    pub boot_id: String,
    /// Device name at the time, for people.
    #[serde(default)]
    pub device: String,
    /// What it was recorded on; `None` for an import without a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Identity>,
    /// When tracing began, microseconds since the kernel started: what came before was not seen.
    pub from_us: u64,
    /// When it ended.
    pub until_us: u64,
    /// Events seen (issues and completions of this device).
    pub events: u64,
    /// Events lost, by CPU.
    #[serde(default)]
    pub lost_by_cpu: Vec<u64>,
    /// First touches that did not fit in memory.
    #[serde(default)]
    pub overflowed: u64,
    /// The recorder's own operations, left out of the touches.
    #[serde(default)]
    pub own: u64,
    /// Stages in order; the first touch before the first mark belongs to the first stage.
    #[serde(default)]
    pub stages: Vec<StageMark>,
}

impl Header {
    /// Events that were lost in any way.
    pub fn lost(&self) -> u64 {
        self.lost_by_cpu.iter().fold(self.overflowed, |sum, lost| sum.saturating_add(*lost))
    }
}

/// Everything worth keeping of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// What is known of it as a whole.
    pub header: Header,
    /// Names of processes.
    pub processes: Vec<String>,
    /// First touches in order of time.
    pub touches: Vec<Packed>,
    /// What the recorder itself read and the boot had not touched by then, in order of address: it explains what the
    /// volume hydrated, and is no reason to warm.
    pub own: Vec<Extent>,
}

impl Recording {
    /// First touches in order of time.
    pub fn touches(&self) -> impl Iterator<Item = Touch> + '_ {
        self.touches.iter().map(|packed| packed.unpack())
    }
}

/// A [`Touch`] in 24 bytes, so that a million of them fit in 24 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    start: u64,
    /// Low 24 bits: sectors (at most 8 GiB); high 40 bits: the low bits of the time in microseconds.
    sectors_and_time: u64,
    /// `u32::MAX` stands for none.
    latency_us: u32,
    process: u16,
    flags: u8,
    /// The high bits of the time: 12 days would be too few for what is recorded long after the boot.
    time_high: u8,
}

const SECTOR_BITS: u32 = 24;
const SECTORS_MAX: u64 = (1 << SECTOR_BITS) - 1;
const TIME_LOW_BITS: u32 = 64 - SECTOR_BITS;
/// Largest time that fits, in microseconds: 8.9 years after the kernel's start.
pub const TIME_US_MAX: u64 = (1 << (TIME_LOW_BITS + u8::BITS)) - 1;

impl Packed {
    /// `None` where the extent or the time is beyond what fits; no block request is.
    pub fn new(touch: Touch) -> Option<Packed> {
        let sectors = touch.extent.sectors();
        (sectors <= SECTORS_MAX && touch.time_us <= TIME_US_MAX).then(|| Packed {
            start: touch.extent.start(),
            sectors_and_time: touch.time_us << SECTOR_BITS | sectors,
            latency_us: touch.latency_us.map_or(u32::MAX, |latency| latency.min(u32::MAX - 1)),
            process: touch.process,
            flags: touch.flags.0,
            time_high: (touch.time_us >> TIME_LOW_BITS) as u8,
        })
    }

    /// The touch.
    pub fn unpack(self) -> Touch {
        let sectors = self.sectors_and_time & SECTORS_MAX;
        Touch {
            extent: Extent::at(self.start, sectors).expect("packed from an extent"),
            time_us: self.time_us(),
            latency_us: (self.latency_us != u32::MAX).then_some(self.latency_us),
            flags: Flags(self.flags),
            process: self.process,
        }
    }

    /// When it was issued.
    fn time_us(self) -> u64 {
        u64::from(self.time_high) << TIME_LOW_BITS | self.sectors_and_time >> SECTOR_BITS
    }

    fn set_latency(&mut self, latency_us: u64) {
        self.latency_us = u32::try_from(latency_us).unwrap_or(u32::MAX - 1).min(u32::MAX - 1);
    }
}
