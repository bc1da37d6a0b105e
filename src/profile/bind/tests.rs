use super::*;
use crate::profile::fixtures::{disk, profiles, small};
use proptest::prelude::*;

fn named(profile: &Profile, volume: &Identity) -> String {
    let error = resolve(profile, volume).unwrap_err();
    assert_eq!(error.kind(), Kind::OtherVolume);
    error.full_text()
}

proptest! {
    #[test]
    fn resolved_extents_lie_where_their_regions_are(profile in profiles(), moved in 0u64..1000, grown in 0u64..1000) {
        let mut volume = profile.volume.clone().unwrap_or_else(disk);
        volume.sectors += moved + grown;
        volume.serial = Some("another instance".into());
        volume.partitions.iter_mut().for_each(|part| part.start += moved);
        let resolved = resolve(&profile, &volume).unwrap();
        for (stage, entries) in std::iter::zip(&resolved, &profile.stages) {
            prop_assert_eq!(&stage.name, &entries.name);
            prop_assert_eq!(stage.extents.len(), entries.entries.len());
            for (extent, entry) in std::iter::zip(&stage.extents, &entries.entries) {
                let by = if entry.region == 0 { 0 } else { moved };
                let start = profile.regions[usize::from(entry.region)].start + entry.extent.start() + by;
                prop_assert_eq!((extent.start(), extent.sectors()), (start, entry.extent.sectors()));
                prop_assert!(extent.end() <= volume.sectors);
            }
        }
    }

    #[test]
    fn no_volume_gets_an_extent_beyond_its_end(profile in profiles(), sectors in 1u64..2_000_000, part in 1u64..40_000) {
        let mut volume = profile.volume.clone().unwrap_or_else(disk);
        volume.sectors = sectors;
        volume.partitions.iter_mut().for_each(|p| p.sectors = part);
        if let Ok(resolved) = resolve(&profile, &volume) {
            prop_assert!(resolved.iter().flat_map(|s| &s.extents).all(|e| e.end() <= sectors));
        }
    }
}

#[test]
fn each_difference_is_named() {
    let profile = small();
    let mut other = disk();
    other.partitions[0].partuuid = Some("new".into());
    other.partitions[1].sectors = 4;
    let text = named(&profile, &other);
    assert!(text.contains("none has PARTUUID 1b2c3d4e"), "{text}");
    assert!(text.contains("4 sectors, the profile needs 8"), "{text}");
    let mut small_disk = disk();
    small_disk.sectors = (1 << 18) + 100;
    assert!(named(&profile, &small_disk).contains("size: 262244 sectors, the profile needs 266496"));
}

#[test]
fn only_what_entries_use_is_asked_for() {
    let mut profile = small();
    profile.stages.remove(0);
    let mut volume = disk();
    volume.partitions.remove(1);
    volume.table_uuid = None;
    assert!(resolve(&profile, &volume).is_ok());
    assert!(resolve(&small(), &volume).is_err());
}

#[test]
fn where_only_the_disk_is_used_its_table_tells() {
    let mut profile = small();
    profile.stages.truncate(1);
    profile.stages[0].entries.truncate(1);
    assert!(resolve(&profile, &disk()).is_ok());
    let mut other = disk();
    other.table_uuid = Some("other".into());
    assert!(named(&profile, &other).contains("partition table: id other"));
}

#[test]
fn an_unbound_profile_is_checked_for_size_alone() {
    let region = Region { partuuid: None, fs_uuid: None, start: 0, sectors: 100 };
    let mut profile = small();
    profile.stages.truncate(1);
    profile.stages[0].entries.truncate(1);
    (profile.volume, profile.regions) = (None, vec![region]);
    assert!(resolve(&profile, &Identity::of_size(1)).is_ok());
    profile.stages[0].entries[0].extent = Extent::at(2, 8).unwrap();
    assert!(named(&profile, &Identity::of_size(9)).contains("9 sectors, the profile needs 10"));
}

#[test]
fn the_recorded_disk_is_where_its_regions_were() {
    let recorded = recorded(&small()).unwrap();
    assert_eq!(recorded[0].extents, [Extent::at(0, 1).unwrap(), Extent::at(2048, 8).unwrap()]);
    assert_eq!(recorded[1].extents[0], Extent::at((1 << 18) + 4096, 256).unwrap());
}
