use super::*;
use crate::profile::fixtures::{disk, recording, recordings};
use crate::recording::Packed;
use proptest::prelude::*;
use std::collections::HashMap;

/// What a merge of recordings must know, said sector by sector.
type Model = HashMap<(Option<String>, u64), (u64, u32, BTreeSet<String>)>;

fn model(recordings: &[Recording]) -> Model {
    let mut model = Model::new();
    for recording in recordings {
        let mut marks: Vec<_> = recording.header.stages.iter().map(|m| (m.from_us, m.name.clone())).collect();
        marks.sort_by_key(|mark| mark.0);
        // The writes of the fixtures never cover a cluster.
        for touch in recording.touches().filter(|touch| touch.flags != Flags::DISCARD) {
            let stage = marks.iter().rev().find(|mark| mark.0 <= touch.time_us).or(marks.first());
            let stage = stage.map_or(STAGE_DEFAULT.into(), |mark| mark.1.clone());
            for sector in touch.extent.start()..touch.extent.end() {
                let parts = &recording.header.volume.as_ref().unwrap().partitions;
                let part = parts.iter().find(|p| (p.start..p.start + p.sectors).contains(&sector));
                let key = (part.and_then(|p| p.partuuid.clone()), sector - part.map_or(0, |p| p.start));
                let used = model.entry(key).or_insert((u64::MAX, 0, BTreeSet::new()));
                used.0 = used.0.min(touch.time_us);
                used.1 = used.1.max(touch.latency_us.unwrap_or(0));
                used.2.insert(stage.clone());
            }
        }
    }
    model
}

fn as_model(touches: &Touches) -> Model {
    let mut model = Model::new();
    let names: Vec<&String> = touches.stages.keys().collect();
    for (key, runs) in &touches.regions {
        for run in runs {
            let stages = (0..64).filter(|bit| run.used.stages >> bit & 1 == 1).map(|bit| names[bit].clone());
            let used = (run.used.first_use_us, run.used.stall_us, stages.collect::<BTreeSet<_>>());
            for sector in run.extent.start()..run.extent.end() {
                assert!(
                    model.insert((key.clone(), sector), used.clone()).is_none(),
                    "a sector is in two runs"
                );
            }
        }
    }
    model
}

fn is_canonical(touches: &Touches) -> bool {
    touches.regions.values().all(|runs| {
        !runs.is_empty()
            && runs.windows(2).all(|pair| {
                let (end, start) = (pair[0].extent.end(), pair[1].extent.start());
                end < start || end == start && pair[0].used != pair[1].used
            })
    })
}

proptest! {
    #[test]
    fn a_recording_becomes_what_it_says_sector_by_sector(recording in recordings()) {
        let touches = Touches::of(&recording).unwrap();
        prop_assert!(is_canonical(&touches));
        prop_assert_eq!(as_model(&touches), model(&[recording]));
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        a in recordings(), b in recordings(), c in recordings()
    ) {
        let model = model(&[a.clone(), b.clone(), c.clone()]);
        let [a, b, c] = [a, b, c].map(|recording| Touches::of(&recording).unwrap());
        let ab = a.merge(&b).unwrap();
        prop_assert_eq!(&ab, &b.merge(&a).unwrap());
        let abc = ab.merge(&c).unwrap();
        prop_assert_eq!(&abc, &a.merge(&b.merge(&c).unwrap()).unwrap());
        prop_assert_eq!(&a, &a.merge(&a).unwrap());
        prop_assert_eq!(&abc, &abc.merge(&b).unwrap());
        prop_assert!(is_canonical(&abc));
        prop_assert_eq!(as_model(&abc), model);
    }
}

#[test]
fn a_touch_across_a_partitions_end_is_split() {
    let touches = Touches::of(&recording("r", &[(6140, 8, 5, 30)])).unwrap();
    let part = touches.regions[&Some("abcd1234-0f".to_owned())][0].extent;
    assert_eq!(part, Extent::at(6140 - 2048, 4).unwrap());
    assert_eq!(touches.regions[&None][0].extent, Extent::at(6144, 4).unwrap());
}

#[test]
fn what_was_discarded_first_or_makes_no_sense_is_not_there() {
    let mut other = recording("r", &[(0, 8, 5, 30)]);
    let mut touch = other.touches().next().unwrap();
    for flags in [Flags::DISCARD, Flags::READ.with(Flags::WRITE), Flags(0)] {
        touch.flags = flags;
        other.touches = vec![Packed::new(touch).unwrap()];
        assert!(Touches::of(&other).unwrap().regions.is_empty(), "{flags:?}");
    }
}

#[test]
fn a_write_is_there_where_it_covers_a_cluster_in_part() {
    // Clusters of 256 sectors: half of one, all of the next in two writes, and the beginning of the one after that.
    let mut all = recording("r", &[(128, 256, 5, 30), (384, 150, 6, 30), (1024, 8, 7, 30)]);
    let as_write = |packed: &Packed| Packed::new(Touch { flags: Flags::WRITE, ..packed.unpack() }).unwrap();
    all.touches = all.touches.iter().map(as_write).collect();
    let runs = &Touches::of(&all).unwrap().regions[&None];
    let found: Vec<(u64, u64)> = runs.iter().map(|run| (run.extent.start(), run.extent.sectors())).collect();
    assert_eq!(found, [(128, 128), (512, 22), (1024, 8)]);
}

#[test]
fn a_logical_partition_inside_an_extended_one_takes_its_sectors() {
    let mut volume = disk();
    volume.partitions[1].start = (1 << 18) + 100;
    let layout = Layout::of(Some(&volume));
    let mut parts = Vec::new();
    layout.split(Extent::at((1 << 18) + 96, 8).unwrap(), |key, extent| {
        parts.push((key.is_some(), extent.start()))
    });
    assert_eq!(parts, [(true, 96), (true, 0)]);
}

#[test]
fn more_stages_than_fit_are_refused() {
    let marked = |prefix: &str| {
        let mut recording = recording(prefix, &[(0, 8, 5, 30)]);
        recording.header.stages = (0..40)
            .map(|n| crate::recording::StageMark { name: format!("{prefix}{n}"), from_us: n })
            .collect();
        Touches::of(&recording).unwrap()
    };
    assert!(marked("a").merge(&marked("b")).unwrap_err().full_text().contains("80 stages"));
}
