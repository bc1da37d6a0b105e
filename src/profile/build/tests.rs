use super::*;
use crate::profile::fixtures::{disk, recording, recordings};
use crate::recording::StageMark;
use proptest::prelude::*;

const ROOT: u64 = 1 << 18;

fn order(profile: &Profile) -> Vec<(u16, u64)> {
    profile.stages.iter().flat_map(|s| &s.entries).map(|e| (e.region, e.extent.start())).collect()
}

fn with(order: Order) -> Options {
    Options { order }
}

proptest! {
    #[test]
    fn order_and_number_of_recordings_do_not_matter(list in prop::collection::vec(recordings(), 1..5), again in 0usize..5) {
        let built = build("p", &list, Options::default());
        let mut shuffled: Vec<Recording> = list.iter().rev().cloned().collect();
        shuffled.push(list[again % list.len()].clone());
        let other = build("p", &shuffled, Options::default());
        match (built, other) {
            (Ok(a), Ok(b)) => {
                a.validate().unwrap();
                prop_assert_eq!(a, b);
            }
            (a, b) => prop_assert_eq!(a.unwrap_err().full_text(), b.unwrap_err().full_text()),
        }
    }

    #[test]
    fn each_sector_touched_is_warmed_once(list in prop::collection::vec(recordings(), 1..4), kind in 0usize..3) {
        let order = [Order::Stall, Order::History, Order::Address][kind];
        if let Ok(profile) = build("p", &list, with(order)) {
            let mut want = std::collections::BTreeSet::new();
            for touch in list.iter().flat_map(|r| r.touches().collect::<Vec<_>>()) {
                if touch.flags != crate::recording::Flags::DISCARD {
                    want.extend(touch.extent.start()..touch.extent.end());
                }
            }
            let mut have = Vec::new();
            for entry in profile.stages.iter().flat_map(|stage| &stage.entries) {
                let base = profile.regions[usize::from(entry.region)].start;
                have.extend(base + entry.extent.start()..base + entry.extent.end());
            }
            have.sort_unstable();
            prop_assert_eq!(have, want.into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_stalls_goes_before_what_was_read_a_little_earlier() {
    // The mean stall is 20 ms. 600 ms after the first use with a stall of 0 is a key of 600, 1 s with three times
    // the mean or more one of 250, and 100 ms after it one of 100.
    let reads = [
        (ROOT, 8, 1_000_000, 4_000),
        (ROOT + 800, 8, 1_100_000, 0),
        (ROOT + 1600, 8, 1_600_000, 0),
        (ROOT + 2400, 8, 2_000_000, 60_000),
        (ROOT + 3200, 8, 2_100_000, 4_000),
        (ROOT + 4000, 8, 2_100_000, 12_000),
    ];
    let starts =
        |order| -> Vec<u64> { order_of(&build("p", &[recording("r", &reads)], with(order)).unwrap()) };
    fn order_of(profile: &Profile) -> Vec<u64> {
        order(profile).iter().map(|(_, start)| start / 800).collect()
    }
    assert_eq!(starts(Order::History), [0, 1, 2, 3, 4, 5]);
    assert_eq!(starts(Order::Address), [0, 1, 2, 3, 4, 5]);
    assert_eq!(starts(Order::Stall), [0, 1, 3, 2, 5, 4]);
}

#[test]
fn neighbours_in_order_and_on_disk_become_one() {
    let reads = [(ROOT, 8, 1000, 100), (ROOT + 8, 8, 2000, 9_000), (ROOT + 24, 8, 3000, 0)];
    let profile = build("p", &[recording("r", &reads)], with(Order::History)).unwrap();
    let entries = &profile.stages[0].entries;
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (entries[0].extent, entries[0].first_use_ms, entries[0].stall_ms),
        (Extent::at(0, 16).unwrap(), 1, 9)
    );
    assert_eq!(profile.stages[0].name, "ready");
    assert_eq!((profile.events, profile.lost), (6, 1));
}

#[test]
fn pieces_of_a_cluster_go_together_at_the_place_of_the_first() {
    // Used in the order 0, 2, 1; the first and the last share a cluster of 256 sectors.
    let reads = [(ROOT, 8, 1000, 0), (ROOT + 2560, 8, 2000, 0), (ROOT + 16, 8, 3000, 0)];
    let profile = build("p", &[recording("r", &reads)], with(Order::History)).unwrap();
    assert_eq!(order(&profile), [(1, 0), (1, 16), (1, 2560)]);
    // A long run shares its head and tail only: the middle stays where it was used, and all of it stays one where
    // nothing comes between.
    let reads = [(ROOT + 10, 1000, 5000, 0), (ROOT, 8, 1000, 0), (ROOT + 2560, 8, 3000, 0)];
    let profile = build("p", &[recording("r", &reads)], with(Order::History)).unwrap();
    let entries: Vec<(u64, u64)> =
        profile.stages[0].entries.iter().map(|e| (e.extent.start(), e.extent.end())).collect();
    assert_eq!(entries, [(0, 8), (10, 256), (2560, 2568), (256, 1010)]);
    let profile = build("p", &[recording("r", &reads[..1])], with(Order::Stall)).unwrap();
    assert_eq!(order(&profile), [(1, 10)]);
}

#[test]
fn stages_keep_their_order_and_a_sector_goes_to_the_earliest() {
    let mark = |name: &str, from_us| StageMark { name: name.into(), from_us };
    let mut a = recording("a", &[(0, 8, 50, 0), (100, 8, 150, 0), (200, 8, 250, 0), (300, 8, 210, 0)]);
    a.header.stages = vec![mark("sysinit", 100), mark("app", 200), mark("ready", 240)];
    let stages = |recordings: &[Recording]| -> Vec<(String, Vec<u64>)> {
        let profile = build("p", recordings, with(Order::Address)).unwrap();
        let starts = |stage: Stage| stage.entries.iter().map(|entry| entry.extent.start()).collect();
        profile.stages.into_iter().map(|stage| (stage.name.clone(), starts(stage))).collect()
    };
    let named = |name: &str, starts: &[u64]| (name.to_owned(), starts.to_vec());
    assert_eq!(
        stages(std::slice::from_ref(&a)),
        [named("sysinit", &[0, 100]), named("app", &[300]), named("ready", &[200])]
    );
    // A boot of which less was seen, on another clock: `ready` begins before the other's `sysinit`.
    let mut b = recording("b", &[(200, 8, 70, 0), (400, 8, 75, 0)]);
    b.header.stages = vec![mark("sysinit", 60), mark("ready", 72), mark("later", 9000)];
    assert_eq!(
        stages(&[b, a]),
        [named("sysinit", &[0, 100, 200]), named("ready", &[400]), named("app", &[300])]
    );
}

#[test]
fn another_volume_is_refused_with_the_difference_named() {
    let mut other = recording("b", &[(ROOT, 8, 5, 1)]);
    other.header.volume.as_mut().unwrap().partitions[0].fs_uuid = Some("other".into());
    let error =
        build("p", &[recording("a", &[(ROOT, 8, 5, 1)]), other.clone()], Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::OtherVolume);
    assert!(error.full_text().contains("has UUID other"), "{}", error.full_text());
    // A partition that nobody read does not matter.
    let boot = [(2048, 8, 5, 1)];
    other.touches = recording("b", &boot).touches;
    assert!(build("p", &[recording("a", &boot), other], Options::default()).is_ok());
    // Neither does the size.
    let mut grown = recording("c", &[(ROOT, 8, 5, 1)]);
    grown.header.volume.as_mut().unwrap().sectors *= 2;
    let profile = build("p", &[grown, recording("a", &[(ROOT, 8, 5, 1)])], Options::default()).unwrap();
    assert_eq!(profile.volume.unwrap().sectors, disk().sectors * 2);
}

#[test]
fn a_partition_that_only_one_boot_has_touched_is_of_the_same_image() {
    let boot = recording("a", &[(ROOT, 8, 5, 1), (2048, 8, 6, 1)]);
    // What was not touched was not looked up.
    let mut other = recording("b", &[(ROOT, 8, 5, 1)]);
    other.header.volume.as_mut().unwrap().partitions[1].fs_uuid = None;
    for sectors in [disk().sectors, disk().sectors * 2] {
        // The larger volume's regions are taken.
        other.header.volume.as_mut().unwrap().sectors = sectors;
        let profile = build("p", &[boot.clone(), other.clone()], Options::default()).unwrap();
        assert_eq!(profile.regions[2].fs_uuid, disk().partitions[1].fs_uuid, "{sectors}");
        assert_eq!(profile.extents(), 2);
    }
    // A disk without partitions is looked at whenever it is recorded: there, none is none.
    let whole = |fs_uuid: Option<&str>| {
        let mut whole = recording(fs_uuid.unwrap_or("none"), &[(0, 8, 5, 1)]);
        let fs_uuid = fs_uuid.map(str::to_owned);
        whole.header.volume = Some(Identity { fs_uuid, ..Identity::of_size(1 << 21) });
        whole
    };
    let error = build("p", &[whole(Some("f1")), whole(None)], Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::OtherVolume);
}

#[test]
fn bound_and_unbound_do_not_mix_and_nothing_is_no_profile() {
    let mut list = recording("list", &[(ROOT, 8, 5, 1)]);
    list.header.volume = None;
    let error = build("p", &[recording("a", &[(0, 8, 5, 1)]), list.clone()], Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::OtherVolume);
    let unbound = build("p", &[list], Options::default()).unwrap();
    assert_eq!((unbound.volume, unbound.regions.len(), unbound.regions[0].sectors), (None, 1, ROOT + 8));
    assert!(build("p", &[], Options::default()).is_err());
    assert!(
        build("p", &[recording("a", &[])], Options::default()).unwrap_err().full_text().contains("no read")
    );
    assert!(build("a\nb", &[recording("a", &[(0, 8, 5, 1)])], Options::default()).is_err());
}
