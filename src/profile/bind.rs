//! From a profile to this volume's sectors.
//!
//! Holds: either each extent lies on the volume, in a region that is the one recorded, or every difference is
//! named and nothing is resolved. Only what entries use is asked for: a partition that is gone and was never
//! read does not matter; nor do a grown disk, a moved partition, a renamed device.

use super::{Entry, Profile};
use crate::error::{Error, Kind, Result};
use crate::extent::Extent;
use crate::volume::{Difference, Identity, Region};

/// A stage with its extents on one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedStage {
    /// Its name.
    pub name: String,
    /// Sectors, absolute on the disk, in warming order.
    pub extents: Vec<Extent>,
}

/// Resolves a profile on a volume; the error has [`Kind::OtherVolume`] and names each difference. An unbound
/// profile is checked for size alone.
pub fn resolve(profile: &Profile, volume: &Identity) -> Result<Vec<ResolvedStage>> {
    let (bases, differences) = compare(profile, volume);
    if differences.is_empty() {
        return place(profile, |region| bases[region]);
    }
    let named: Vec<String> = differences.iter().map(ToString::to_string).collect();
    let name = &profile.name;
    Err(Error::new(
        Kind::OtherVolume,
        format!("failed to bind profile `{name}` to this volume: {}", named.join("; ")),
    )
    .hint("name the device it was recorded for, or record a boot of this image"))
}

/// The extents on the disk it was recorded on.
pub fn recorded(profile: &Profile) -> Result<Vec<ResolvedStage>> {
    place(profile, |region| profile.regions[region].start)
}

/// The PARTUUIDs whose filesystem must be known before [`resolve`]: those that entries use and that had one. On a
/// cold volume each look-up is a first read, so no other is worth it.
pub fn looked_up(profile: &Profile) -> Vec<&str> {
    let used = profile.regions.iter().zip(used_ends(profile)).filter(|(_, end)| *end > 0);
    used.filter(|(region, _)| region.fs_uuid.is_some())
        .filter_map(|(region, _)| region.partuuid.as_deref())
        .collect()
}

/// In what a volume differs from what the profile needs.
pub fn differences(profile: &Profile, volume: &Identity) -> Vec<Difference> {
    compare(profile, volume).1
}

/// First sector of each region on the volume (0 where it is not used), and the differences.
fn compare(profile: &Profile, volume: &Identity) -> (Vec<u64>, Vec<Difference>) {
    let mut bases = vec![0; profile.regions.len()];
    let mut differences = Vec::new();
    let mut used = Vec::new();
    for (index, (region, end)) in profile.regions.iter().zip(used_ends(profile)).enumerate() {
        if end == 0 {
            continue;
        }
        used.push(region.clone());
        match volume.locate(region) {
            Ok(found) => {
                bases[index] = found.start();
                differences.extend(too_small(region, end, found, volume));
            }
            Err(difference) => differences.push(difference),
        }
    }
    differences.extend(profile.volume.as_ref().and_then(|recorded| recorded.other_table(&used, volume)));
    (bases, differences)
}

fn too_small(region: &Region, end: u64, found: Extent, volume: &Identity) -> Option<Difference> {
    let end_on_disk = found.start().saturating_add(end);
    match &region.partuuid {
        Some(partuuid) if end > found.sectors() => Some(Difference::SmallerPartition {
            partuuid: partuuid.clone(),
            have_sectors: found.sectors(),
            want_sectors: end,
        }),
        // A table may promise more than the disk holds.
        _ if end_on_disk > volume.sectors => {
            Some(Difference::Smaller { have_sectors: volume.sectors, want_sectors: end_on_disk })
        }
        _ => None,
    }
}

/// By region: the sector after the last that an entry uses, relative to the region; 0 where none does.
pub(super) fn used_ends(profile: &Profile) -> Vec<u64> {
    let mut ends = vec![0; profile.regions.len()];
    for entry in profile.stages.iter().flat_map(|stage| &stage.entries) {
        let end = &mut ends[usize::from(entry.region)];
        *end = entry.extent.end().max(*end);
    }
    ends
}

fn place(profile: &Profile, base: impl Fn(usize) -> u64) -> Result<Vec<ResolvedStage>> {
    let bases: Vec<i64> = (0..profile.regions.len()).map(|region| base(region) as i64).collect();
    let resolve = |stage: &super::Stage| {
        let mut extents = Vec::with_capacity(stage.entries.len());
        for entry in &stage.entries {
            match entry.extent.shifted(bases[usize::from(entry.region)]) {
                Some(extent) => extents.push(extent),
                None => return Err(misplaced(entry)),
            }
        }
        Ok(ResolvedStage { name: stage.name.clone(), extents })
    };
    profile.stages.iter().map(resolve).collect()
}

fn misplaced(entry: &Entry) -> Error {
    Error::failed(format!("failed to place sector {} of region {}", entry.extent.start(), entry.region))
}

#[cfg(test)]
mod tests;
