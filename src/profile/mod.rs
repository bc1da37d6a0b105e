//! What is worth warming: extents by stage, in warming order, bound to the volume they were recorded on.
//!
//! Holds: extents are relative to their region; within a stage the order is the warming order. No file access.

pub mod bind;
pub mod build;
pub mod compiled;
#[cfg(test)]
mod fixtures;
pub mod fold;
pub mod touches;
#[cfg(feature = "people")]
pub mod yaml;

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::recording::format::is_recording;
use crate::volume::{Identity, Region};
use std::collections::HashSet;

/// What is kept together: 128 KiB, the smallest unit of hydration that fits published rates (facts.md).
const CLUSTER_SECTORS: u64 = 256;
/// Extents in one profile; a recording of 4 million touches merges to fewer.
pub const EXTENTS_MAX: usize = 4 << 20;
/// Stages in one profile.
pub const STAGES_MAX: usize = 64;
/// Regions in one profile: the disk and at most 128 partitions of a GPT.
pub const REGIONS_MAX: usize = 129;
/// Recordings a profile may be built from: a fleet's worth of boots.
pub const RECORDINGS_MAX: usize = 4096;
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

impl Profile {
    /// Extents in all stages.
    pub fn extents(&self) -> usize {
        self.stages.iter().map(|stage| stage.entries.len()).sum()
    }

    /// What every profile keeps to, whoever built it or whichever file it came from.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::failed(format!("failed to accept the profile: {what}")));
        for (what, count, max) in [
            ("regions", self.regions.len(), REGIONS_MAX),
            ("recordings", self.recordings.len(), RECORDINGS_MAX),
            ("stages", self.stages.len(), STAGES_MAX),
            ("extents", self.extents(), EXTENTS_MAX),
        ] {
            if count > max {
                return refuse(format!("it has {count} {what}, the limit is {max}"));
            }
        }
        let names = self.stages.iter().map(|stage| &stage.name).chain(&self.recordings);
        for name in names.chain([&self.name]) {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
                return refuse(format!("`{}` is no name", name.escape_debug()));
            }
        }
        let mut known = HashSet::new();
        if let Some(stage) = self.stages.iter().find(|stage| !known.insert(&stage.name)) {
            return refuse(format!("it has two stages `{}`", stage.name));
        }
        if let Some(volume) = &self.volume {
            volume.validate()?;
        }
        self.validate_regions()?;
        for entry in self.stages.iter().flat_map(|stage| &stage.entries) {
            let Some(region) = self.regions.get(usize::from(entry.region)) else {
                return refuse(format!("an extent names region {}, which is not there", entry.region));
            };
            if entry.extent.end() > region.sectors {
                let (end, number, sectors) = (entry.extent.end(), entry.region, region.sectors);
                return refuse(format!(
                    "an extent ends at sector {end} of region {number}, which has {sectors}"
                ));
            }
        }
        Ok(())
    }

    fn validate_regions(&self) -> Result<()> {
        for (number, region) in self.regions.iter().enumerate() {
            let refuse = |what: &str| {
                Err(Error::failed(format!("failed to accept the profile: region {number} {what}")))
            };
            if Extent::at(region.start, region.sectors).is_none() {
                return refuse("is empty or overflows");
            }
            let names = [&region.partuuid, &region.fs_uuid];
            if names.into_iter().flatten().any(|name| name.len() > NAME_BYTES_MAX) {
                return refuse("has a name that is too long");
            }
            if (number == 0) != region.partuuid.is_none() || (number == 0 && region.start != 0) {
                return refuse("is out of place: the first is the whole disk, the others are partitions");
            }
            if self.volume.is_none() && (number > 0 || region.fs_uuid.is_some()) {
                return refuse("names a filesystem or a partition, but the profile names no volume");
            }
        }
        Ok(())
    }
}

/// A profile from a file's bytes, in whichever of its formats. The caller adds the path to an error.
pub fn load(bytes: &[u8]) -> Result<Profile> {
    if compiled::is_compiled(bytes) {
        return compiled::decode(bytes);
    }
    if is_recording(bytes) {
        return Err(Error::failed("failed to read a profile: this is a recording")
            .hint("build a profile from it with `ebs-prewarm profile build -o PROFILE RECORDING`"));
    }
    if bytes.is_empty() {
        return Err(Error::failed("failed to read a profile: the file is empty"));
    }
    load_text(bytes)
}

#[cfg(feature = "people")]
fn load_text(bytes: &[u8]) -> Result<Profile> {
    yaml::parse(bytes)
}

#[cfg(not(feature = "people"))]
fn load_text(_bytes: &[u8]) -> Result<Profile> {
    Err(Error::failed("failed to read a profile: this build reads compiled profiles only")
        .hint("compile it first: `ebs-prewarm profile compile -o PROFILE.bin PROFILE`, with the full build"))
}
