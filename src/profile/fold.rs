//! What a profile lacks, added to it. Pure.
//!
//! Holds: what was there stays as it is and where it is; what is added comes after it, in its own warming order.

use super::{Entry, Profile, Stage};
use crate::error::Result;
use crate::plan::STAGES_KNOWN;
use std::collections::{BTreeSet, HashMap};

/// The profile with the units added that another one of the same volume has besides; and how many.
pub fn fold(base: &Profile, fresh: &Profile, unit_sectors: u64) -> Result<(Profile, usize)> {
    let mut folded = base.clone();
    let regions = regions(&mut folded, fresh);
    let mut known: BTreeSet<(u16, u64)> = BTreeSet::new();
    let units = |profile: &Profile, entry: &Entry| {
        let start = profile.regions.get(usize::from(entry.region)).map_or(0, |region| region.start);
        let (region, first, end) = (entry.region, start + entry.extent.start(), start + entry.extent.end());
        (first / unit_sectors..end.div_ceil(unit_sectors)).map(move |unit| (region, unit))
    };
    known.extend(base.stages.iter().flat_map(|stage| &stage.entries).flat_map(|entry| units(&folded, entry)));
    let mut added: BTreeSet<(u16, u64)> = BTreeSet::new();
    for stage in &fresh.stages {
        let moved = stage.entries.iter().filter_map(|entry| {
            let region = *regions.get(&entry.region)?;
            Some(Entry { region, ..*entry })
        });
        let lacks = |entry: &Entry| units(&folded, entry).any(|unit| !known.contains(&unit));
        let entries: Vec<Entry> = moved.filter(lacks).collect();
        added.extend(
            entries.iter().flat_map(|entry| units(&folded, entry)).filter(|unit| !known.contains(unit)),
        );
        if !entries.is_empty() {
            stage_of(&mut folded, &stage.name).entries.extend(entries);
        }
    }
    let new = |id: &&String| !base.recordings.contains(id);
    folded.recordings.extend(fresh.recordings.iter().filter(new).cloned());
    if folded.recordings.len() > base.recordings.len() {
        (folded.events, folded.lost) = (base.events + fresh.events, base.lost + fresh.lost);
    }
    folded.validate()?;
    Ok((folded, added.len()))
}

/// Regions of the other profile, by their number there, as those of this one; what it has not is added.
fn regions(folded: &mut Profile, fresh: &Profile) -> HashMap<u16, u16> {
    let mut numbers = HashMap::new();
    let is_bound = folded.volume.is_some();
    for (number, region) in fresh.regions.iter().enumerate() {
        let same = folded.regions.iter().position(|known| known.partuuid == region.partuuid);
        let place = same.unwrap_or_else(|| {
            folded.regions.push(region.clone());
            folded.regions.len() - 1
        });
        // A disk may have grown, and an unbound profile knows the end of its own extents alone.
        let known = &mut folded.regions[place];
        known.sectors = known.sectors.max(region.sectors);
        // Where nothing was touched, nobody had looked up the filesystem.
        if is_bound && known.fs_uuid.is_none() {
            known.fs_uuid.clone_from(&region.fs_uuid);
        }
        numbers.insert(number as u16, place as u16);
    }
    numbers
}

/// The stage with a name. One that is new comes before those that follow it in a boot.
fn stage_of<'a>(profile: &'a mut Profile, name: &str) -> &'a mut Stage {
    let rank = |name: &str| STAGES_KNOWN.iter().position(|known| *known == name);
    let at = profile.stages.iter().position(|stage| stage.name == name).unwrap_or_else(|| {
        let follows =
            |stage: &Stage| rank(&stage.name).zip(rank(name)).is_some_and(|(other, new)| other > new);
        let at = profile.stages.iter().position(follows).unwrap_or(profile.stages.len());
        profile.stages.insert(at, Stage { name: name.into(), entries: Vec::new() });
        at
    });
    &mut profile.stages[at]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Extent;
    use crate::profile::build::{Options, build};
    use crate::profile::fixtures;
    use crate::recording::{Flags, Header, Recording, StageMark, TouchLog};

    fn recording(id: &str, touches: &[(u64, u64)]) -> Recording {
        let mut log = TouchLog::new();
        for (unit, at_us) in touches {
            log.issue(*at_us, Extent::at(unit * 1024, 8).unwrap(), Flags::READ, "p");
            log.complete(at_us + 10, unit * 1024);
        }
        let mark = |name: &str, from_us| StageMark { name: name.into(), from_us };
        let stages = vec![mark("initrd", 0), mark("ready", 1_000), mark("later", 9_000)];
        log.finish(Header { id: id.into(), stages, until_us: 20_000, ..Header::default() })
    }

    fn profile(id: &str, touches: &[(u64, u64)]) -> Profile {
        build("p", &[recording(id, touches)], Options::default()).unwrap()
    }

    fn units(profile: &Profile) -> Vec<(String, Vec<u64>)> {
        let units = |stage: &Stage| stage.entries.iter().map(|entry| entry.extent.start() / 1024).collect();
        profile.stages.iter().map(|stage| (stage.name.clone(), units(stage))).collect()
    }

    #[test]
    fn what_is_lacked_comes_behind_what_is_there() {
        let base = profile("one", &[(9, 10), (3, 2_000), (1, 3_000)]);
        let fresh = profile("two", &[(9, 10), (40, 20), (1, 1_500), (7, 2_500), (50, 10_000)]);
        let (folded, added) = fold(&base, &fresh, 1024).unwrap();
        let before = units(&base);
        let after = units(&folded);
        for ((name, before), (other, after)) in before.iter().zip(&after) {
            assert_eq!(name, other);
            assert_eq!(&after[..before.len()], before, "{name}");
        }
        let new: Vec<(&str, &[u64])> = after
            .iter()
            .enumerate()
            .map(|(at, (name, units))| {
                (name.as_str(), &units[before.get(at).map_or(0, |(_, old)| old.len())..])
            })
            .collect();
        assert_eq!(new, [("initrd", &[40][..]), ("ready", &[7][..]), ("later", &[50][..])]);
        assert_eq!((added, folded.recordings.len()), (3, 2));
        // Once more, and nothing is lacked.
        let (again, added) = fold(&folded, &fresh, 1024).unwrap();
        assert_eq!((again == folded, added), (true, 0));
    }

    #[test]
    fn a_partition_that_is_new_brings_its_filesystem() {
        let mut base = fixtures::recording("one", &[(1 << 18, 8, 10, 0)]);
        base.header.volume.as_mut().unwrap().partitions[1].fs_uuid = None;
        let base = build("p", &[base], Options::default()).unwrap();
        assert_eq!(base.regions[2].fs_uuid, None);
        let fresh = fixtures::recording("two", &[(2048, 8, 10, 0)]);
        let (folded, added) = fold(&base, &build("p", &[fresh], Options::default()).unwrap(), 1024).unwrap();
        assert_eq!((&folded.regions[2].fs_uuid, added), (&fixtures::disk().partitions[1].fs_uuid, 1));
    }

    #[test]
    fn a_stage_that_is_new_has_its_place() {
        let base = profile("one", &[(9, 10), (3, 10_000)]);
        let (folded, _) = fold(&base, &profile("two", &[(5, 2_000)]), 1024).unwrap();
        let names: Vec<String> = units(&folded).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["initrd", "ready", "later"]);
    }
}
