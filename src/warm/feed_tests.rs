//! The feed in virtual time: on cold, warm and half-warm volumes of every model, and killed over and over.

use super::*;
use crate::cold::{ColdVolume, Model};
use crate::engine::{Completion, Depth, End, Options, Outcome, Pace, Request, SimSource, Source, run};
use crate::extent::ExtentSet;
use crate::plan::Shape;
use crate::units::SECTOR_BYTES;
use std::cell::Cell;
use std::io;

const UNIT_BYTES: u64 = 512 << 10;
const UNIT_SECTORS: u64 = UNIT_BYTES / SECTOR_BYTES;
const SLOTS: u32 = 1024;
const PRESETS: [&str; 6] = ["gp3", "io2", "slow", "scarce", "fine", "coarse"];

fn volume(model: &str, seed: u64, units: u64, sets: &[(&str, &str)]) -> SimSource {
    let mut model = Model::named(model).unwrap();
    sets.iter().for_each(|(key, value)| model.set(key, value).unwrap());
    SimSource::new(ColdVolume::new(model, units * UNIT_SECTORS, seed, ExtentSet::new()), SLOTS)
}

/// A touch of each unit of 512 KiB, in an order that is not that of addresses.
fn plan(units: u64) -> Plan {
    let shape =
        Shape { sectors: units * UNIT_SECTORS, block_bytes: 512, unit_bytes: UNIT_BYTES, mode: Mode::Touch };
    let extents: Vec<Extent> =
        (0..units).filter_map(|unit| Extent::at((unit * 7919 % units) * UNIT_SECTORS + 64, 16)).collect();
    Plan::new([("ready", extents.as_slice())], shape)
}

/// Nothing but the volume.
pub(super) fn surroundings(control: &Control) -> Surroundings<'_> {
    Surroundings {
        look: None,
        seen: None,
        control,
        request_bytes: 1 << 20,
        reads_max: u64::MAX,
        warm_ns: None,
        is_cold: false,
    }
}

/// At the depth that finds itself, without limits but for a time.
fn options(deadline_ns: Option<u64>) -> Options {
    Options {
        depth: Depth::auto(None),
        pace: Pace::new(0, 0),
        budget: None,
        deadline_ns,
        block_bytes: 512,
        idle_from_stage: u16::MAX,
    }
}

fn warm(source: &mut (impl Source + ?Sized), plan: &Plan, journal: &mut Journal) -> (Outcome, Skipped) {
    let control = Control::default();
    let mut feed = WarmFeed::new(plan, journal, surroundings(&control), u16::MAX);
    let outcome = run(source, &mut feed, options(None), &AtomicBool::new(false), &mut ());
    (outcome, feed.skipped())
}

#[test]
fn no_cold_volume_is_called_warm() {
    let units = 400;
    for model in PRESETS {
        for seed in 0..50 {
            let mut source = volume(model, seed, units, &[]);
            let (outcome, skipped) = warm(&mut source, &plan(units), &mut Journal::none(units));
            assert!(!skipped.warm, "{model}, seed {seed}");
            let reads: u64 = outcome.stages.iter().map(|stage| stage.reads).sum();
            assert_eq!(reads, units, "{model}, seed {seed}");
        }
    }
}

#[test]
fn a_warm_volume_of_100_gib_costs_two_hundred_reads_and_less_than_a_second() {
    let units = 204_800;
    let plan = plan(units);
    for model in PRESETS {
        for seed in 0..5 {
            let mut source = volume(model, seed, units, &[("warm_units", "1")]);
            let (outcome, skipped) = warm(&mut source, &plan, &mut Journal::none(units));
            assert!(skipped.warm, "{model}, seed {seed}");
            let reads = source.volume().counters().reads;
            assert!(reads < 200, "{model}, seed {seed}: {reads}");
            assert!(source.now_ns() < 1_000_000_000, "{model}: {outcome:?}");
        }
    }
}

#[test]
fn nothing_is_held_back_where_nothing_stands_back() {
    for (stands_back_from, is_held) in [(u16::MAX, false), (0, true)] {
        let (units, control) = (400, Control::default());
        let mut source = volume("gp3", 1, units, &[]);
        let (plan, mut journal, ended) = (plan(units), Journal::none(units), Cell::new(0));
        // Somebody reads all the time.
        let look = || {
            ended.set(ended.get() + 10_000);
            Some(Look { ended: ended.get(), in_flight: 1 })
        };
        let around = Surroundings { look: Some(Box::new(look)), is_cold: true, ..surroundings(&control) };
        let mut feed = WarmFeed::new(&plan, &mut journal, around, stands_back_from);
        run(&mut source, &mut feed, options(Some(2_000_000_000)), &AtomicBool::new(false), &mut ());
        assert_eq!(feed.skipped().held_back_ns > 0, is_held);
    }
}

#[test]
fn a_warm_volume_leaves_no_stage_open() {
    let units = 4000;
    let mut source = volume("gp3", 1, units, &[("warm_units", "1")]);
    let (plan, mut journal, control) = (plan(units), Journal::none(units), Control::default());
    let mut feed = WarmFeed::new(&plan, &mut journal, surroundings(&control), u16::MAX);
    run(&mut source, &mut feed, options(None), &AtomicBool::new(false), &mut ());
    let settled = Feed::settled(&&mut feed)[0];
    assert_eq!(settled.reads(), units, "{settled:?}");
    assert!(settled.warm > units - 200, "{settled:?}");
}

#[test]
fn a_volume_that_is_warm_in_part_or_was_touched_with_too_large_a_unit_is_warmed() {
    let units = 4000;
    let plan = plan(units);
    for seed in 0..20 {
        // What is warm already is read no slower: of those that are cold hardly one may be left.
        let mut source = volume("gp3", seed, units, &[("warm_units", "0.85")]);
        let (_, skipped) = warm(&mut source, &plan, &mut Journal::none(units));
        assert!(!skipped.warm, "seed {seed}");
        let mut source = volume("fine", seed, units, &[]);
        for _ in 0..2 {
            let (_, skipped) = warm(&mut source, &plan, &mut Journal::none(units));
            assert!(!skipped.warm, "touched in units of 512 KiB, seed {seed}");
        }
    }
}

/// A source of a process that is killed after so many times of waiting.
struct Mortal<'a> {
    source: &'a mut SimSource,
    waits: u64,
    in_flight: usize,
}

impl Source for Mortal<'_> {
    fn now_ns(&self) -> u64 {
        self.source.now_ns()
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        self.in_flight += 1;
        self.source.submit(request)
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        self.waits = self.waits.checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
        let before = done.len();
        self.source.wait(until_ns, done)?;
        self.in_flight -= done.len() - before;
        Ok(())
    }

    fn describe(&self) -> String {
        "mortal".into()
    }
}

impl Drop for Mortal<'_> {
    /// What a killed process has in flight the volume still answers.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while done.len() < self.in_flight {
            self.source.wait(None, &mut done).unwrap();
        }
    }
}

#[test]
fn killed_two_hundred_times_it_reads_all_and_nothing_twice_beyond_a_window() {
    let (units, kills) = (12_000, 200);
    let (plan, dir) = (plan(units), tempfile::tempdir().unwrap());
    let open = || Journal::open(&dir.path().join("j"), 1, units).unwrap().unwrap();
    let mut source = volume("gp3", 5, units, &[]);
    let (mut window, mut killed) = (0, 0);
    for kill in 0..kills {
        let mut mortal = Mortal { source: &mut source, waits: 1 + kill * 7919 % 90, in_flight: 0 };
        let (outcome, _) = warm(&mut mortal, &plan, &mut open());
        window += mortal.in_flight as u64;
        killed += u64::from(matches!(outcome.end, End::Failed(_)));
    }
    assert_eq!(killed, kills, "there was something left to kill");
    let (outcome, skipped) = warm(&mut source, &plan, &mut open());
    assert!(matches!(outcome.end, End::Complete) && !skipped.warm);
    assert_eq!(source.volume().cold_units(), 0);
    let reads = source.volume().counters().reads;
    // What each had in flight, and what the first ones asked about warmth.
    assert!(reads <= units + window + 3 * 6, "{reads} reads, {window} of them in flight at a kill");
    assert_eq!(open().done(), units);
}
