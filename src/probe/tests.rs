use super::*;
use crate::cold::{ColdVolume, Model, sectors_of};
use crate::engine::SimSource;

static GO: AtomicBool = AtomicBool::new(false);
const GIB: u64 = 1 << 30;

fn volume(bytes: u64, model: &str, seed: u64, sets: &[(&str, &str)]) -> SimSource {
    let mut model = Model::named(model).unwrap();
    for (key, value) in sets {
        model.set(key, value).unwrap();
    }
    SimSource::new(ColdVolume::new(model, sectors_of(bytes), seed, ExtentSet::new()), DEPTH)
}

fn probe(source: &mut SimSource, seed: u64) -> Found {
    let bytes = source.volume().sectors() * 512;
    run(source, &Options { seed, ..Options::new(bytes) }, &GO).unwrap()
}

#[derive(Default)]
struct Tally {
    right: u64,
    silent: Vec<String>,
    wrong: Vec<String>,
}

/// Probes 20 volumes at each sigma.
fn tally(unit: &str, sets: &[(&str, &str)]) -> Tally {
    let mut tally = Tally::default();
    for sigma in ["0.3", "0.6", "0.9"] {
        for seed in 0..20 {
            let mut all = vec![("unit", unit), ("sigma", sigma)];
            all.extend(sets);
            // Many small units take longest to make.
            let bytes = if unit.ends_with("8KiB") || unit == "64KiB" { 2 * GIB } else { 8 * GIB };
            let mut source = volume(bytes, "gp3", seed, &all);
            let unit_bytes = source.volume().model().unit_bytes;
            let found = probe(&mut source, seed + 100);
            let told = format!("{unit} sigma {sigma} seed {seed} {sets:?}: {:?}", found.why_no_unit());
            match found.unit_bytes() {
                Some(bytes) if bytes == unit_bytes => tally.right += 1,
                Some(bytes) => tally.wrong.push(format!("{told}, but {bytes}")),
                None => tally.silent.push(told),
            }
        }
    }
    tally
}

const TAIL: [(&str, &str); 2] = [("tail_range", "1s..7s"), ("tail", "0.01")];

/// With and without a tail, a third that is warm already, and a third that was never written.
fn is_found_and_never_wrong(unit: &str) {
    let warm = [("warm_units", "0.3333")];
    let unallocated = [("unallocated", "0.3")];
    let (mut right, mut all, mut silent, mut wrong) = (0, 0, Vec::new(), Vec::new());
    for number in 0..8 {
        let mut sets = Vec::new();
        sets.extend((number & 1 != 0).then_some(TAIL).into_iter().flatten());
        sets.extend((number & 2 != 0).then_some(warm).into_iter().flatten());
        sets.extend((number & 4 != 0).then_some(unallocated).into_iter().flatten());
        let found = tally(unit, &sets);
        right += found.right;
        all += 60;
        silent.extend(found.silent);
        wrong.extend(found.wrong);
    }
    println!("{unit}: {right} of {all} right, {} silent, {} wrong", silent.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(right * 100 >= all * 98, "{right} of {all}: {silent:#?}");
}

#[test]
fn a_unit_of_64_kib_is_found_and_never_wrong() {
    is_found_and_never_wrong("64KiB");
}

#[test]
fn a_unit_of_128_kib_is_found_and_never_wrong() {
    is_found_and_never_wrong("128KiB");
}

#[test]
fn a_unit_of_512_kib_is_found_and_never_wrong() {
    is_found_and_never_wrong("512KiB");
}

#[test]
fn a_unit_of_2_mib_is_found_and_never_wrong() {
    is_found_and_never_wrong("2MiB");
}

#[test]
fn a_unit_of_4_mib_is_found_and_never_wrong() {
    is_found_and_never_wrong("4MiB");
}

#[test]
fn a_large_volume_is_looked_at_in_three_seconds_and_sixteen_megabytes() {
    for seed in 0..20 {
        let mut source = volume(500 * GIB, "gp3", seed, &[]);
        let report = probe(&mut source, seed).report();
        assert_eq!((report.end.as_str(), report.unit.bytes), ("complete", Some(512 << 10)));
        assert!(report.elapsed_s < 3.0, "{} s", report.elapsed_s);
        assert!(report.bytes_read < 16 << 20, "{} bytes", report.bytes_read);
        let counters = source.volume().counters();
        assert_eq!((report.reads, report.bytes_read), (counters.reads, counters.bytes_read));
        // Nothing was warm, so each cold read is a unit that was hydrated.
        assert_eq!(report.units_warmed, counters.hydrated);
        assert_eq!(report.cold_share.cold, report.cold_share.first_reads);
        assert!(report.cold_share.low > 0.9 && report.cold_share.high == 1.0);
        let ratio = report.full_us.unwrap() as f64 / report.touch_us.unwrap() as f64;
        assert!((0.3..3.0).contains(&ratio), "a unit takes {ratio} of a touch, and both wait for one fetch");
    }
}

#[test]
fn a_unit_that_is_warm_is_not_taken_for_a_fast_one_however_large_it_is() {
    for seed in 0..10 {
        let sets = [("unit", "2MiB"), ("warm_units", "0.5"), ("first_read", "200ms"), ("sigma", "0")];
        let mut source = volume(32 * GIB, "gp3", seed, &sets);
        let report = probe(&mut source, seed).report();
        let touch_us = report.touch_us.unwrap();
        assert!((199_000..202_000).contains(&touch_us), "{touch_us}");
        // At 125 MiB/s 2 MiB take 16 ms, and begin to be read while they are fetched.
        assert!(report.full_us.is_none_or(|us| (199_000..230_000).contains(&us)), "{:?}", report.full_us);
    }
}

#[test]
fn the_cold_share_is_within_its_interval_as_often_as_it_says() {
    let mut within = 0;
    for seed in 0..40 {
        let mut source = volume(2 * GIB, "gp3", seed, &[("warm_units", "0.4")]);
        let units = sectors_of(2 * GIB) / source.volume().model().unit_sectors();
        let share = source.volume().cold_units() as f64 / units as f64;
        let (low, high) = probe(&mut source, seed).cold_share();
        within += u64::from((low..=high).contains(&share));
    }
    assert!(within >= 36, "{within} of 40");
}

#[test]
fn a_warm_volume_is_warm_and_has_no_unit() {
    let mut source = volume(4 * GIB, "gp3", 3, &[("warm_units", "1")]);
    let found = probe(&mut source, 3);
    let report = found.report();
    assert_eq!((report.cold_share.low, report.unit.bytes), (0.0, None));
    assert!(report.cold_share.high < 0.02, "{:?}", report.cold_share);
    assert!(report.why.unwrap().contains("too few cold units"));
    assert_eq!((report.units_warmed, source.volume().counters().fetches), (0, 0));
}

#[test]
fn a_volume_of_which_little_is_written_is_not_guessed_at_but_told_with_what_is_known() {
    let mut source = volume(8 * GIB, "gp3", 5, &[("unallocated", "0.98")]);
    let cold: ExtentSet = (0..sectors_of(8 * GIB) / 1024)
        .filter(|unit| !source.volume().is_warm(*unit))
        .filter_map(|unit| crate::extent::Extent::at(unit * 1024, 1024))
        .collect();
    assert_eq!(probe(&mut source, 5).unit_bytes(), None);
    let mut source = volume(8 * GIB, "gp3", 5, &[("unallocated", "0.98")]);
    let options = Options { allowed: Some(cold), ..Options::new(8 * GIB) };
    let found = run(&mut source, &options, &GO).unwrap();
    assert!(found.cold_share().0 > 0.9, "{:?}", found.cold_share());
    assert!(matches!(found.unit_bytes(), None | Some(0x80000)), "{:?}", found.report());
}

#[test]
fn limits_are_kept_whatever_is_found() {
    for (reads_max, bytes_max) in [(1, 1 << 30), (30, 1 << 30), (1024, 65536), (1024, 1 << 20)] {
        for model in ["gp3", "coarse"] {
            let mut source = volume(16 * GIB, model, 3, &[]);
            let options = Options { reads_max, bytes_max, ..Options::new(16 * GIB) };
            let found = run(&mut source, &options, &GO).unwrap();
            assert!(found.reads <= reads_max && found.bytes_read <= bytes_max, "{reads_max} {bytes_max}");
            assert_eq!(source.volume().counters().reads, found.reads);
        }
    }
}

#[test]
fn a_stall_costs_the_time_it_may_take_and_no_more() {
    let mut source = volume(8 * GIB, "gp3", 3, &[("tail", "1"), ("tail_range", "60s..60s")]);
    let options = Options { for_ns: 5 * NS_PER_S, ..Options::new(8 * GIB) };
    let found = run(&mut source, &options, &GO).unwrap();
    assert_eq!((found.end, found.abandoned, found.unit_bytes()), (End::Spent, u64::from(DEPTH), None));
    assert_eq!(found.elapsed_ns, 5 * NS_PER_S);
    // One that stalls holds nothing up.
    let mut source = volume(8 * GIB, "gp3", 3, &[("stall_fetch", "9")]);
    let found = probe(&mut source, 3);
    assert_eq!((found.end, found.abandoned, found.unit_bytes()), (End::Known, 1, Some(512 << 10)));
    assert!(found.elapsed_ns < 4 * NS_PER_S, "{}", found.elapsed_ns);
}

#[test]
fn what_cannot_be_read_is_counted_and_a_dead_volume_given_up() {
    let mut source = volume(4 * GIB, "gp3", 3, &[("eio_sectors", "0+100000000")]);
    let found = probe(&mut source, 3);
    assert_eq!((found.end, found.reads), (End::Unreadable, 0));
    assert!(source.volume().counters().reads < 30);
    let bad: Vec<String> = (0..8192).step_by(20).map(|unit| unit.to_string()).collect();
    let mut source = volume(4 * GIB, "gp3", 3, &[("eio_units", &bad.join(","))]);
    let found = probe(&mut source, 3);
    assert_eq!((found.end, found.unit_bytes()), (End::Known, Some(512 << 10)));
    assert_eq!(found.errors, source.volume().counters().errors);
    assert!(found.errors > 0);
}

#[test]
fn a_stop_is_obeyed_and_what_was_seen_is_told() {
    let mut source = volume(4 * GIB, "gp3", 3, &[]);
    let found = run(&mut source, &Options::new(4 * GIB), &AtomicBool::new(true)).unwrap();
    assert_eq!((found.end, found.reads), (End::Stopped, 0));
}

#[test]
fn a_volume_too_small_says_so() {
    for bytes in [0u64, 512, 4096, 8192, 64 << 10, 1 << 20, 16 << 20] {
        let mut source = volume(bytes.max(512), "gp3", 3, &[]);
        let found = run(&mut source, &Options::new(bytes), &GO).unwrap();
        assert_eq!((found.end, found.unit_bytes()), (End::NoPlace, None), "{bytes}");
        assert!(found.why_no_unit().is_some());
    }
}

/// A volume whose law is not that of the models.
struct Odd {
    now_ns: u64,
    draw: Draw,
    warm: std::collections::HashSet<u64>,
    /// Units that a read of a block hydrates, as numbers.
    hydrates: fn(u64) -> Vec<u64>,
    /// Latency of a cold and a warm read, from a number below 1,000.
    cold_ns: fn(u64) -> u64,
    warm_ns: fn(u64, u64) -> u64,
    /// Answers by time.
    due: std::collections::BTreeMap<(u64, u32), ()>,
}

impl Source for Odd {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        let unit = (self.hydrates)(request.offset)[0];
        let number = self.draw.below(1000);
        let took_ns = match self.warm.contains(&unit) {
            true => (self.warm_ns)(number, self.now_ns),
            false => (self.cold_ns)(number),
        };
        self.warm.extend((self.hydrates)(request.offset));
        self.due.insert((self.now_ns + took_ns, request.slot), ());
        Ok(())
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        let until_ns = until_ns.unwrap_or(u64::MAX);
        match self.due.first_entry().filter(|entry| entry.key().0 <= until_ns) {
            Some(entry) => {
                let (at_ns, slot) = *entry.key();
                entry.remove();
                self.now_ns = self.now_ns.max(at_ns);
                done.push(Completion { slot, at_ns, result: Ok(BLOCK_BYTES as u32) });
            }
            None => self.now_ns = until_ns,
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "odd".into()
    }
}

/// Between 20 and 60 ms.
fn cold_ns(number: u64) -> u64 {
    20_000_000 + 40_000 * number
}

/// Between 0.5 and 1 ms.
fn warm_ns(number: u64, _now_ns: u64) -> u64 {
    500_000 + 500 * number
}

fn odd(hydrates: fn(u64) -> Vec<u64>, seed: u64) -> Odd {
    let (warm, due) = Default::default();
    Odd { now_ns: 0, draw: Draw(seed), warm, hydrates, cold_ns, warm_ns, due }
}

fn probe_odd(mut source: Odd, seed: u64) -> Found {
    run(&mut source, &Options { seed, ..Options::new(64 * GIB) }, &GO).unwrap()
}

#[test]
fn a_unit_that_is_no_power_of_two_or_lies_askew_is_not_named() {
    type Hydrates = fn(u64) -> Vec<u64>;
    let units: [(&str, Hydrates); 6] = [
        ("768 KiB", |offset| vec![offset / (768 << 10)]),
        ("1 MB", |offset| vec![offset / 1_000_000]),
        ("512 KiB, from 64 KiB on", |offset| vec![(offset + (448 << 10)) / (512 << 10)]),
        ("512 KiB, from 4 KiB on", |offset| vec![(offset + (508 << 10)) / (512 << 10)]),
        ("768 KiB in 1 MiB", |offset| {
            vec![offset / (1 << 20) * 2 + u64::from(offset % (1 << 20) >= 768 << 10)]
        }),
        ("32 MiB", |offset| vec![offset / (32 << 20)]),
    ];
    for (name, hydrates) in units {
        for seed in 0..20 {
            let found = probe_odd(odd(hydrates, seed), seed);
            assert_eq!(found.unit_bytes(), None, "{name}, seed {seed}: {:?}", found.report());
        }
    }
}

#[test]
fn what_was_touched_before_with_a_wrong_unit_does_not_deceive() {
    for seed in 0..20 {
        let mut source = odd(|offset| vec![offset / (128 << 10)], seed);
        source.warm = (0..64 * GIB / (128 << 10)).step_by(4).collect();
        let found = probe_odd(source, seed);
        assert!(matches!(found.unit_bytes(), None | Some(0x20000)), "seed {seed}: {:?}", found.report());
    }
}

#[test]
fn a_storage_that_reads_ahead_is_not_taken_for_one_with_a_larger_unit() {
    for seed in 0..20 {
        let ahead = |offset: u64| vec![offset / (512 << 10), offset / (512 << 10) + 1];
        let found = probe_odd(odd(ahead, seed), seed);
        assert!(matches!(found.unit_bytes(), None | Some(0x80000)), "seed {seed}: {:?}", found.report());
    }
}

#[test]
fn slow_warm_reads_and_fast_cold_ones_confuse_nobody() {
    let (mut silent, seeds) = (0, 20);
    for seed in 0..seeds {
        let mut source = odd(|offset| vec![offset / (512 << 10)], seed);
        // One warm read in 20 takes as long as a cold one.
        source.warm_ns =
            |number, now_ns| if number < 50 { cold_ns(number * 20) } else { warm_ns(number, now_ns) };
        let found = probe_odd(source, seed);
        silent += u64::from(found.unit_bytes().is_none());
        assert!(matches!(found.unit_bytes(), None | Some(0x80000)), "seed {seed}: {:?}", found.report());
    }
    assert!(silent < seeds / 2, "{silent} of {seeds} cannot tell");
}

#[test]
fn latencies_that_do_not_separate_or_drift_are_said_to() {
    for seed in 0..20 {
        let mut source = odd(|offset| vec![offset / (512 << 10)], seed);
        source.cold_ns = |number| 600_000 + 900 * number;
        let found = probe_odd(source, seed);
        assert_eq!(found.unit_bytes(), None, "seed {seed}: {:?}", found.report());
        assert!(found.cold_share().0 < 0.2, "nothing is known of it: {:?}", found.cold_share());
        let mut source = odd(|offset| vec![offset / (512 << 10)], seed);
        // Credits that end after half a second.
        source.warm_ns = |number, now_ns| warm_ns(number, 0) * if now_ns > 500_000_000 { 25 } else { 1 };
        let found = probe_odd(source, seed);
        assert!(found.why_no_unit().unwrap().contains("drift"), "seed {seed}: {:?}", found.report());
    }
}

#[test]
fn warm_reads_that_drift_and_stay_far_from_cold_ones_hide_no_unit() {
    let mut told = 0;
    for seed in 0..20 {
        let mut source = odd(|offset| vec![offset / (512 << 10)], seed);
        source.cold_ns = |number| 6 * cold_ns(number);
        source.warm_ns = |number, now_ns| warm_ns(number, 0) * if now_ns > 2_000_000_000 { 3 } else { 1 };
        let report = probe_odd(source, seed).report();
        assert_eq!(
            (report.unit.bytes, report.why.as_deref()),
            (Some(512 << 10), None),
            "seed {seed}: {report:?}"
        );
        told += u64::from(report.notes.iter().any(|note| note.starts_with("warm reads changed ")));
    }
    assert!(told > 10, "told {told} times of 20");
}

#[test]
fn a_cold_volume_is_not_called_warm_because_warm_reads_drift() {
    for seed in 0..20 {
        let mut source = odd(|offset| vec![offset / (512 << 10)], seed);
        source.warm_ns = |number, now_ns| warm_ns(number, 0) * if now_ns > 500_000_000 { 3 } else { 1 };
        let found = probe_odd(source, seed);
        assert!(found.cold_share().1 > 0.5, "seed {seed}: {:?}", found.report());
    }
}

#[test]
fn a_disk_that_hydrates_nothing_has_no_unit() {
    for seed in 0..20 {
        // Every read takes as long, first or not, with a wide spread.
        let mut source = odd(|offset| vec![offset >> 12], seed);
        source.warm_ns = |number, _| cold_ns(number);
        let found = probe_odd(source, seed);
        assert_eq!((found.unit_bytes(), found.cold_share().0), (None, 0.0), "{:?}", found.report());
    }
}
