//! Values for the tests of this room.

use super::*;
use crate::recording::{Flags, Header, Packed, Recording, StageMark, Touch};
use crate::volume::Partition;
use proptest::prelude::*;

/// A disk with a boot and a root partition, one of them with an MBR's kind of PARTUUID.
pub fn disk() -> Identity {
    let part = |number, start, sectors, partuuid: &str, fs: &str| Partition {
        number,
        start,
        sectors,
        partuuid: Some(partuuid.into()),
        fs_uuid: Some(fs.into()),
    };
    Identity {
        sectors: 1 << 21,
        serial: Some("vol0123".into()),
        model: None,
        table_uuid: Some("7f1c2f6e-91fd-4a3f-9d2c-3b0f6e1a2b3c".into()),
        fs_uuid: None,
        partitions: vec![
            part(
                1,
                1 << 18,
                1 << 20,
                "1b2c3d4e-0000-4a3f-9d2c-aabbccddeeff",
                "f2c3d4e5-0000-4a3f-9d2c-001122334455",
            ),
            part(15, 2048, 4096, "abcd1234-0f", "9A7B-11FF"),
        ],
    }
}

/// A recording on [`disk`] of reads given as start, sectors, time, stall.
pub fn recording(id: &str, reads: &[(u64, u64, u64, u32)]) -> Recording {
    let touch = |&(start, sectors, time_us, stall_us): &(u64, u64, u64, u32)| Touch {
        extent: Extent::at(start, sectors).unwrap(),
        time_us,
        latency_us: Some(stall_us),
        flags: Flags::READ,
        process: 0,
    };
    let header = Header {
        id: id.into(),
        volume: Some(disk()),
        events: 2 * reads.len() as u64,
        lost_by_cpu: vec![1],
        ..Header::default()
    };
    let mut reads = reads.to_vec();
    reads.sort_by_key(|read| read.2);
    let touches = reads.iter().map(|read| Packed::new(touch(read)).unwrap()).collect();
    Recording { header, processes: vec!["init".into()], touches, own: Vec::new() }
}

/// Any recording on [`disk`]: reads and writes that may overlap and cross partitions, stages known and not.
pub fn recordings() -> impl Strategy<Value = Recording> {
    // Few places, so that recordings meet: around the partitions' bounds and at both ends of the disk.
    let start = prop_oneof![0u64..64, 2000u64..2100, 6100u64..6200, (1u64 << 18) - 40..(1 << 18) + 40];
    let flags = prop_oneof![4 => Just(Flags::READ), 1 => Just(Flags::WRITE), 1 => Just(Flags::DISCARD)];
    let touch = (start, 1u64..50, 0u64..5_000, prop::option::of(0u32..80_000), flags);
    let names = prop::sample::subsequence(vec!["initrd", "app", "sysinit", "ready", "zeta", "later"], 0..4);
    let marks = (names, prop::collection::vec(0u64..5_000, 4));
    let volume = prop::bool::weighted(0.2);
    (0u8..5, prop::collection::vec(touch, 0..25), marks, volume).prop_map(|(id, touches, marks, grown)| {
        let mut recording = recording(&format!("r{id}"), &[]);
        recording.header.events = u64::from(id) * 100;
        recording.header.stages = std::iter::zip(marks.0, marks.1)
            .map(|(name, from_us)| StageMark { name: name.into(), from_us })
            .collect();
        if grown {
            let volume = recording.header.volume.as_mut().unwrap();
            volume.sectors *= 2;
            volume.partitions[0].sectors += 4096;
        }
        recording.touches = touches
            .into_iter()
            .map(|(start, sectors, time_us, latency_us, flags)| {
                let extent = Extent::at(start, sectors).unwrap();
                Packed::new(Touch { extent, time_us, latency_us, flags, process: 0 }).unwrap()
            })
            .collect();
        recording
    })
}

/// Any profile that is valid, bound or not.
pub fn profiles() -> impl Strategy<Value = Profile> {
    let entry = (0u16..3, 0u64..4000, 1u64..=96, 0u32..3, any::<u32>(), any::<u32>());
    let stage = prop::collection::vec(entry, 0..20);
    let name = any::<String>().prop_map(|name| {
        let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        if name.is_empty() { "p".into() } else { name }
    });
    let any_uuid =
        prop::option::of(any::<String>().prop_map(|text| text.chars().take(40).collect::<String>()));
    (prop::bool::weighted(0.8), prop::collection::vec((name, stage), 0..5), any::<u64>(), any_uuid).prop_map(
        |(bound, stages, events, uuid)| {
            let mut volume = disk();
            volume.fs_uuid = uuid.clone();
            volume.model = uuid;
            let unbound = Region { partuuid: None, fs_uuid: None, start: 0, sectors: 1 << 20 };
            let mut known = HashSet::new();
            let stages = stages.into_iter().filter(|(name, _)| known.insert(name.clone()));
            Profile {
                name: "web".into(),
                regions: if bound { volume.regions() } else { vec![unbound] },
                volume: bound.then_some(volume),
                recordings: vec!["r1".into(), "r2".into()],
                events,
                lost: events / 3,
                stages: stages
                    .map(|(name, entries)| Stage {
                        name,
                        entries: entries.into_iter().map(|e| any_entry(bound, e)).collect(),
                    })
                    .collect(),
            }
        },
    )
}

fn any_entry(
    bound: bool,
    (region, start, sectors, unaligned, first_use_ms, stall_ms): (u16, u64, u64, u32, u32, u32),
) -> Entry {
    // Most extents are whole blocks; region 2 has 4,096 sectors.
    let scale = if unaligned == 0 { 1 } else { 8 };
    let extent = match region {
        2 => Extent::at(start % 4000 / scale * scale, sectors.min(96) / scale.min(2) + 1).unwrap(),
        _ => Extent::at(start * scale, sectors * scale).unwrap(),
    };
    Entry { region: if bound { region } else { 0 }, extent, first_use_ms, stall_ms }
}

/// A small profile with all there is in one.
pub fn small() -> Profile {
    let entry = |region, start, sectors, first_use_ms, stall_ms| Entry {
        region,
        extent: Extent::at(start, sectors).unwrap(),
        first_use_ms,
        stall_ms,
    };
    let volume = disk();
    Profile {
        name: "web".into(),
        regions: volume.regions(),
        volume: Some(volume),
        recordings: vec!["r1".into()],
        events: 12,
        lost: 1,
        stages: vec![
            Stage { name: "initrd".into(), entries: vec![entry(0, 0, 1, 900, 35), entry(2, 0, 8, 950, 0)] },
            Stage {
                name: "ready".into(),
                entries: vec![entry(1, 4096, 256, 1200, 41), entry(1, 64, 8, 1250, 3)],
            },
        ],
    }
}
