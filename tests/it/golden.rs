//! Files of every version of every format are read for ever, and mean what they meant.
//!
//! `EBS_PREWARM_GOLDEN=write cargo test --test it golden` writes the files anew; a difference in git is then a
//! change of a format, which needs a new version and a new file beside the old one.

use ebs_prewarm::extent::Extent;
use ebs_prewarm::profile::{Entry, Profile, Stage, compiled, load, yaml};
use ebs_prewarm::recording::{Flags, Header, Packed, Recording, StageMark, Touch, format};
use ebs_prewarm::volume::{Identity, Partition};
use std::path::PathBuf;

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A file of a version that is not written any more.
fn old(name: &str) -> Vec<u8> {
    std::fs::read(path_of(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn golden(name: &str, bytes_now: &[u8]) -> Vec<u8> {
    let path = path_of(name);
    if std::env::var("EBS_PREWARM_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, bytes_now).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn volume() -> Identity {
    let part = |number, start, sectors, partuuid: &str, fs: &str| Partition {
        number,
        start,
        sectors,
        partuuid: Some(partuuid.into()),
        fs_uuid: Some(fs.into()),
    };
    Identity {
        sectors: 16_777_216,
        serial: Some("vol0123456789abcdef0".into()),
        model: Some("Amazon Elastic Block Store".into()),
        table_uuid: Some("c5a0a5a3-9a52-4f5e-8d8b-6a4f8a2f4d10".into()),
        fs_uuid: None,
        partitions: vec![
            part(
                1,
                262_144,
                16_515_039,
                "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
                "0f1e2d3c-4b5a-4697-8877-665544332211",
            ),
            part(14, 2_048, 8_192, "abcd1234-0e", "9A7B-11FF"),
        ],
    }
}

fn recording() -> Recording {
    let touch = |start, sectors, time_us, latency_us, flags: Flags, process| {
        let extent = Extent::at(start, sectors).unwrap();
        Packed::new(Touch { extent, time_us, latency_us, flags, process }).unwrap()
    };
    let stage = |name: &str, from_us| StageMark { name: name.into(), from_us };
    Recording {
        header: Header {
            id: "6f9619ff-8b86-d011-b42d-00cf4fc964ff".into(),
            kernel: "6.1.0-18-cloud-amd64".into(),
            boot_id: "1c9e2a6e-5d5b-4f0e-9a35-2f1f0c7b8a90".into(),
            device: "/dev/nvme0n1".into(),
            volume: Some(volume()),
            from_us: 812_000,
            until_us: 31_000_000,
            events: 5_210,
            lost_by_cpu: vec![0, 3],
            overflowed: 1,
            own: 17,
            stages: vec![stage("initrd", 0), stage("sysinit", 2_400_000), stage("ready", 9_000_000)],
        },
        processes: vec!["swapper/0".into(), "systemd".into(), "überlang".into()],
        touches: vec![
            touch(0, 8, 850_000, Some(41_250), Flags::READ.with(Flags::METADATA), 0),
            touch(16_777_208, 8, 851_000, Some(38_000), Flags::READ, 0),
            touch(270_336, 256, 2_500_000, Some(35_500), Flags::READ.with(Flags::READ_AHEAD), 1),
            touch(264_192, 64, 9_100_000, None, Flags::READ, 2),
            touch(300_000, 16, 9_200_000, Some(900), Flags::WRITE.with(Flags::SYNC), 1),
        ],
        own: vec![Extent::at(400_000, 24).unwrap(), Extent::at(400_064, 8).unwrap()],
    }
}

fn profile() -> Profile {
    let entry = |region, start, sectors, first_use_ms, stall_ms| Entry {
        region,
        extent: Extent::at(start, sectors).unwrap(),
        first_use_ms,
        stall_ms,
    };
    let stage = |name: &str, entries| Stage { name: name.into(), entries };
    let volume = volume();
    Profile {
        name: "web: boot #1".into(),
        regions: volume.regions(),
        volume: Some(volume),
        recordings: vec!["6f9619ff-8b86-d011-b42d-00cf4fc964ff".into(), "list-fa7a02f8-3".into()],
        events: 5_210,
        lost: 4,
        stages: vec![
            stage("initrd", vec![entry(0, 0, 8, 850, 41), entry(0, 16_777_208, 8, 851, 38)]),
            stage("sysinit", vec![entry(1, 8_192, 256, 2_500, 36), entry(2, 1, 1, 2_600, 0)]),
            stage("ready", vec![entry(1, 2_048, 64, 9_100, 0), entry(1, 1_048_576, 1_024, 9_000, 4_294_967)]),
        ],
    }
}

#[test]
fn golden_recording_of_version_1() {
    let bytes = old("recording.v1");
    assert_eq!(format::decode(&bytes).unwrap(), Recording { own: Vec::new(), ..recording() });
}

#[test]
fn golden_recording_of_version_2() {
    let bytes = golden("recording.v2", &format::encode(&recording()));
    assert_eq!(format::decode(&bytes).unwrap(), recording());
}

#[test]
fn golden_profile_for_people_of_version_1() {
    let bytes = golden("profile.v1.yaml", yaml::write(&profile()).as_bytes());
    assert_eq!(load(&bytes).unwrap(), profile());
}

#[test]
fn golden_compiled_profile_of_version_1() {
    let bytes = golden("profile.v1.bin", &compiled::encode(&profile()));
    assert_eq!(load(&bytes).unwrap(), compiled::reduced(&profile()));
}

/// Profiles of real boots, as they were recorded.
#[test]
fn the_profiles_that_are_shipped_are_whole_and_survive_being_compiled() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let paths = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|it| it == "yaml")).collect();
    assert!(!paths.is_empty());
    for path in paths {
        let profile = load(&std::fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{error:?}"));
        let stages: Vec<&str> = profile.stages.iter().map(|stage| stage.name.as_str()).collect();
        // Not every boot reads something new after it is ready.
        assert!(stages.starts_with(&["initrd", "sysinit", "ready"]), "{}: {stages:?}", path.display());
        assert_eq!(load(&compiled::encode(&profile)).unwrap(), compiled::reduced(&profile));
        assert_eq!(yaml::write(&profile).as_bytes(), std::fs::read(&path).unwrap());
    }
}
