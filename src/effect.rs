//! What a warming did for the boot that it ran beside: unit by unit, who was first. Pure.
//!
//! Holds: each planned unit is counted in one state; what was not seen is not claimed. Not here: how the boot's requests
//! came to be known (`record`).

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::recording::{Flags, Recording, Touch};
use crate::report::{self, EffectReport, Missed, Share, StageEffect};
use crate::units::{SECTOR_BYTES, as_s};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Version of [`Warmed`]; another is refused.
pub const SCHEMA: u32 = 1;
/// Of a read that is believed; the longest that is planned is a quarter of a MiB.
const READ_SECTORS_MAX: u32 = 1 << 17;
/// Of a file that is believed.
pub const WARMED_BYTES_MAX: u64 = 128 << 20;
/// Extents that are listed.
pub const MISSED_MAX: usize = 65_536;
/// Points of a curve.
const POINTS_MAX: usize = 120;
/// A request that the kernel's own threads send for somebody else.
const ON_BEHALF: &str = "kworker";
/// What this program is called, whatever follows.
const PROGRAM: &str = "ebs-prewarm";
/// What those of its threads are called that read: of the daemon or of one volume among several, of `bench` with tokio-uring;
/// and, with a number, where there is no io_uring.
const THREADS: [&str; 2] = ["warm", "tokio-uring"];
const THREADS_NUMBERED: &str = "read-";

/// A read of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// First sector and length.
    pub start: u64,
    pub sectors: u32,
    /// Index of its stage.
    pub stage: u16,
    /// Submitted and ended, microseconds since the kernel started; `None` where it was not made.
    pub at_us: Option<(u64, u64)>,
}

/// What a warming leaves of itself for whoever asks later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warmed {
    pub schema: u32,
    /// The boot that it ran in.
    pub boot_id: String,
    pub device: String,
    pub profile: String,
    pub unit_bytes: u64,
    /// How it ended.
    pub end: String,
    /// Names of stages.
    pub stages: Vec<String>,
    pub reads: Vec<Read>,
    /// Its own part.
    pub own: Share,
    /// What others asked for until it ended.
    pub boot: Share,
}

impl Warmed {
    /// From a file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Warmed> {
        let fail = "failed to read what a warming left of itself";
        let warmed: Warmed =
            serde_json::from_slice(bytes).map_err(|error| Error::failed(fail).because(error))?;
        let unit = warmed.unit_bytes;
        if warmed.schema != SCHEMA {
            return Err(Error::failed(format!("{fail}: it is of version {}", warmed.schema)));
        }
        if !unit.is_power_of_two() || !(4096..=1 << 30).contains(&unit) {
            return Err(Error::failed(format!("{fail}: a unit of {unit} bytes is none")));
        }
        let is_sound = |read: &Read| {
            Extent::at(read.start, u64::from(read.sectors)).is_some()
                && read.sectors <= READ_SECTORS_MAX
                && usize::from(read.stage) < warmed.stages.len()
                && read.at_us.is_none_or(|(submitted, ended)| submitted <= ended)
        };
        if !warmed.reads.iter().all(is_sound) {
            return Err(Error::failed(format!("{fail}: it has a read that cannot be")));
        }
        Ok(warmed)
    }
}

/// A planned unit.
#[derive(Clone, Copy, Debug)]
struct Unit {
    stage: u16,
    /// First submitted, last ended.
    at_us: Option<(u64, u64)>,
    /// Whether each of its reads was made.
    whole: bool,
}

/// The boot's first request for a unit.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at_us: u64,
    latency_us: Option<u32>,
}

impl Asked {
    /// When it was answered, where that was seen.
    fn answered_us(&self) -> Option<u64> {
        self.latency_us.map(|latency_us| self.at_us.saturating_add(latency_us.into()))
    }
}

/// Who was first, for each unit of the plan; and what the plan lacks.
pub fn of(warmed: &Warmed, boot: &Recording) -> EffectReport {
    let unit_sectors = (warmed.unit_bytes / SECTOR_BYTES).max(1);
    let units = planned(warmed, unit_sectors);
    let mut report = EffectReport {
        device: warmed.device.clone(),
        profile: warmed.profile.clone(),
        unit_bytes: warmed.unit_bytes,
        end: warmed.end.clone(),
        from_s: us_as_s(boot.header.from_us),
        until_s: us_as_s(boot.header.until_us),
        lost: boot.header.lost(),
        stages: warmed
            .stages
            .iter()
            .map(|name| StageEffect { name: name.clone(), ..StageEffect::default() })
            .collect(),
        own: warmed.own,
        boot: warmed.boot,
        schema: report::SCHEMA,
        ..EffectReport::default()
    };
    let mut waits = Waits::default();
    let asked = asked(warmed, boot, &units, unit_sectors);
    for first in &asked.missed {
        match first.answered_us() {
            Some(answered_us) => waits.suffered.push((first.at_us, answered_us)),
            None => waits.unseen += 1,
        }
    }
    let took = warmed.reads.iter().filter_map(|read| read.at_us).map(|(submitted, ended)| ended - submitted);
    // What the warming's own reads waited for each other is not what a cold read costs.
    let cold_us = tenth(took);
    for (number, unit) in &units {
        if let Some(stage) = report.stages.get_mut(usize::from(unit.stage)) {
            count(stage, &mut waits, unit, asked.first.get(number), cold_us);
        }
    }
    (report.stall_avoided_s, report.stall_suffered_s) =
        (seconds_of(waits.avoided), seconds_of(waits.suffered));
    (report.missed_units, report.written_units) = (asked.missed.len() as u64, asked.written);
    report.missed = asked.listed;
    report.totals = report.stages.iter().fold(StageEffect::default(), |mut sum, stage| {
        sum.add(stage);
        sum
    });
    report.warm_by =
        curve(units.values().filter_map(|unit| unit.at_us.filter(|_| unit.whole)).map(|(_, ended)| ended));
    report.asked_by =
        curve(asked.first.iter().filter(|(unit, _)| units.contains_key(unit)).map(|(_, asked)| asked.at_us));
    if report.lost > 0 {
        report.notes.push(format!("{} events were lost: what they asked for is not known", report.lost));
    }
    if asked.ours > 0 {
        report.notes.push(format!(
            "{} requests were those of another {PROGRAM}: but for the reads and bytes of the boot they are left out",
            asked.ours
        ));
    }
    if waits.unseen > 0 {
        report.notes.push(format!(
            "how long the boot waited for {} units was not seen: they count as no waiting, avoided or suffered",
            waits.unseen
        ));
    }
    report
}

/// Whether a process is this program: its probing, its benchmark, its warming of the rest are nothing that a boot needs.
fn is_this_program(process: &str) -> bool {
    let number = process.strip_prefix(THREADS_NUMBERED).unwrap_or_default();
    // The name that systemd leaves alone has this before it.
    process.trim_start_matches('@').starts_with(PROGRAM)
        || THREADS.contains(&process)
        || (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Whether a touch is that of another process of this program.
fn is_another_of_us(boot: &Recording, touch: &Touch) -> bool {
    boot.processes.get(usize::from(touch.process)).is_some_and(|name| is_this_program(name))
}

/// Takes out of a recording what this program touched while others booted: it is no reason to warm.
pub fn leave_out_ours(boot: &mut Recording) {
    let mut touches = std::mem::take(&mut boot.touches);
    touches.retain(|touch| !is_another_of_us(boot, &touch.unpack()));
    boot.touches = touches;
}

fn planned(warmed: &Warmed, unit_sectors: u64) -> BTreeMap<u64, Unit> {
    let mut units: BTreeMap<u64, Unit> = BTreeMap::new();
    for read in &warmed.reads {
        let Some(extent) = Extent::at(read.start, u64::from(read.sectors)) else { continue };
        for number in extent.units(unit_sectors) {
            let unit =
                units.entry(number).or_insert(Unit { stage: read.stage, at_us: read.at_us, whole: true });
            unit.whole &= read.at_us.is_some();
            unit.at_us = match (unit.at_us, read.at_us) {
                (Some((submitted, ended)), Some((other, later))) => {
                    Some((submitted.min(other), ended.max(later)))
                }
                (one, other) => one.or(other),
            };
        }
    }
    units
}

/// What the boot asked for.
#[derive(Debug, Default)]
struct AllAsked {
    /// Its first request for each unit.
    first: BTreeMap<u64, Asked>,
    /// Those of units that it read and no stage has, a unit each.
    missed: Vec<Asked>,
    /// The requests that these were of.
    listed: Vec<Missed>,
    /// Units that it wrote in part before it read of them, and no stage has.
    written: u64,
    /// Requests of another process of this program.
    ours: u64,
}

/// The boot's first request for each unit; those that no stage has are told.
fn asked(warmed: &Warmed, boot: &Recording, units: &BTreeMap<u64, Unit>, unit_sectors: u64) -> AllAsked {
    let own: HashMap<u64, &Read> = warmed.reads.iter().map(|read| (read.start, read)).collect();
    let mut all = AllAsked::default();
    for touch in boot.touches() {
        let process = boot.processes.get(usize::from(touch.process)).map_or("", String::as_str);
        if is_ours(&own, &touch, process) {
            continue;
        }
        if is_another_of_us(boot, &touch) {
            all.ours += 1;
            continue;
        }
        let reads = touch.flags.has(Flags::READ);
        let now = Asked { at_us: touch.time_us, latency_us: touch.latency_us };
        let missed = all.missed.len();
        for unit in touch.extent.units(unit_sectors) {
            let place = Extent::at(unit * unit_sectors, unit_sectors);
            // What is written whole waits for nothing.
            let is_whole = !reads && place.is_some_and(|place| touch.extent.contains(place));
            if is_whole || all.first.contains_key(&unit) {
                continue;
            }
            all.first.insert(unit, now);
            match (units.contains_key(&unit), reads) {
                (true, _) => {}
                (false, true) => all.missed.push(now),
                (false, false) => all.written += 1,
            }
        }
        if all.missed.len() > missed && all.listed.len() < MISSED_MAX {
            all.listed.push(Missed {
                start_sector: touch.extent.start(),
                sectors: touch.extent.sectors(),
                stage: stage_at(boot, touch.time_us),
                at_s: us_as_s(touch.time_us),
                latency_us: touch.latency_us,
                process: process.into(),
            });
        }
    }
    all
}

/// Whether it is a read of the warming's own that another thread of the kernel has sent.
fn is_ours(own: &HashMap<u64, &Read>, touch: &Touch, process: &str) -> bool {
    let read = own.get(&touch.extent.start()).filter(|_| process.starts_with(ON_BEHALF));
    read.is_some_and(|read| {
        let meanwhile =
            read.at_us.is_some_and(|(submitted, ended)| (submitted..=ended).contains(&touch.time_us));
        meanwhile && touch.extent.sectors() == u64::from(read.sectors)
    })
}

fn stage_at(boot: &Recording, time_us: u64) -> String {
    let stages = &boot.header.stages;
    let stage = stages.iter().rfind(|mark| mark.from_us <= time_us).or(stages.first());
    stage.map_or_else(|| "ready".into(), |mark| mark.name.clone())
}

/// Times in which somebody waited or would have, microseconds since the kernel started: from, to.
#[derive(Debug, Default)]
struct Waits {
    avoided: Vec<(u64, u64)>,
    suffered: Vec<(u64, u64)>,
    /// Units of which it was not seen when they were answered, as those that were asked for at the hand-over.
    unseen: u64,
}

/// Counts a unit, and whoever waited for it; a read of one that is cold takes so long.
fn count(stage: &mut StageEffect, waits: &mut Waits, unit: &Unit, asked: Option<&Asked>, cold_us: u64) {
    stage.units += 1;
    let made = unit.at_us.filter(|_| unit.whole);
    let Some(asked) = asked else {
        *(if made.is_some() { &mut stage.never } else { &mut stage.left }) += 1;
        return;
    };
    let (is_spared, is_stalled) = match made {
        Some((_, ended_us)) if ended_us <= asked.at_us => {
            stage.before += 1;
            (true, false)
        }
        Some((submitted_us, _)) if submitted_us <= asked.at_us => {
            stage.late += 1;
            (true, true)
        }
        _ => {
            stage.after += 1;
            (false, true)
        }
    };
    let Some(answered_us) = asked.answered_us() else {
        waits.unseen += 1;
        return;
    };
    if is_spared {
        waits.avoided.push((answered_us, asked.at_us.saturating_add(cold_us)));
    }
    if is_stalled {
        waits.suffered.push((asked.at_us, answered_us));
    }
}

/// Seconds in which at least one of these went on.
fn seconds_of(mut spans: Vec<(u64, u64)>) -> f64 {
    spans.sort_unstable();
    let (mut sum_us, mut until_us) = (0, 0);
    for (from_us, to_us) in spans {
        sum_us += to_us.saturating_sub(from_us.max(until_us));
        until_us = until_us.max(to_us);
    }
    us_as_s(sum_us)
}

/// The tenth part of the values is at most this.
fn tenth(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 10).copied().unwrap_or(0)
}

/// How many there were by when.
fn curve(times_us: impl Iterator<Item = u64>) -> Vec<(f64, u64)> {
    let mut times: Vec<u64> = times_us.collect();
    times.sort_unstable();
    let step = times.len().div_ceil(POINTS_MAX).max(1);
    let last = times.len();
    let points = times.iter().enumerate().map(|(at, us)| (us_as_s(*us), at as u64 + 1));
    points.filter(|(_, count)| (*count as usize).is_multiple_of(step) || *count as usize == last).collect()
}

fn us_as_s(us: u64) -> f64 {
    as_s(us.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Header, TouchLog};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const UNIT: u64 = 1024;

    fn warmed(reads: &[(u64, Option<(u64, u64)>)]) -> Warmed {
        let reads = reads.iter().map(|(unit, at_us)| Read {
            start: unit * UNIT,
            sectors: 8,
            stage: 0,
            at_us: *at_us,
        });
        Warmed {
            schema: SCHEMA,
            unit_bytes: 512 << 10,
            stages: vec!["ready".into()],
            reads: reads.collect(),
            ..Warmed::default()
        }
    }

    fn boot(touches: &[(u64, u64, u32, Flags, &str)]) -> Recording {
        let mut log = TouchLog::new();
        for (sector, time_us, latency_us, flags, process) in touches {
            log.issue(*time_us, Extent::at(*sector, 8).unwrap(), *flags, process);
            log.complete(time_us + u64::from(*latency_us), *sector);
        }
        log.finish(Header::default())
    }

    fn states(report: &EffectReport) -> [u64; 5] {
        report.totals.by_state().map(|(_, units)| units)
    }

    #[test]
    fn each_unit_is_told_by_who_was_first() {
        let warmed = warmed(&[
            (0, Some((1_000, 40_000))),
            (1, Some((1_000, 40_000))),
            (2, Some((50_000, 90_000))),
            (3, Some((1_000, 40_000))),
            (4, None),
            (5, None),
        ]);
        let boot = boot(&[
            (2 * UNIT + 16, 20_000, 35_000, Flags::READ, "init"),
            (UNIT + 8, 30_000, 10_000, Flags::READ, "init"),
            (0, 60_000, 500, Flags::READ, "init"),
            (4 * UNIT, 70_000, 30_000, Flags::READ.with(Flags::READ_AHEAD), "init"),
            (9 * UNIT, 80_000, 33_000, Flags::READ, "sh"),
            (9 * UNIT + 64, 81_000, 32_000, Flags::READ, "sh"),
        ]);
        let report = of(&warmed, &boot);
        // before, late, after (one of them never begun: left to the boot), never, left
        assert_eq!(states(&report), [1, 1, 2, 1, 1]);
        assert_eq!((report.missed_units, report.missed.len()), (1, 1));
        let missed = &report.missed[0];
        assert_eq!(
            (missed.start_sector, missed.process.as_str(), missed.latency_us),
            (9 * UNIT, "sh", Some(33_000))
        );
        // A cold read takes 39 ms: from 60.5 to 99 ms, and what was left of the late one, from 40 to 69.
        assert!((report.stall_avoided_s - (0.0385 + 0.0205)).abs() < 1e-9, "{}", report.stall_avoided_s);
        // From 20 to 55 ms, with the late one within; 70 to 100, 80 to 113, 81 to 113.
        assert!((report.stall_suffered_s - (0.035 + 0.043)).abs() < 1e-9, "{}", report.stall_suffered_s);
    }

    #[test]
    fn a_read_that_the_kernel_sends_on_our_behalf_is_not_the_boots() {
        let warmed = warmed(&[(0, Some((1_000, 40_000))), (1, Some((1_000, 40_000)))]);
        let boot = boot(&[
            (0, 2_000, 38_000, Flags::READ, "kworker/0:1H"),
            // Not the place that we read: the boot's, whoever sent it.
            (UNIT + 8, 2_000, 38_000, Flags::READ, "kworker/0:1H"),
        ]);
        assert_eq!(states(&of(&warmed, &boot)), [0, 1, 0, 1, 0]);
    }

    #[test]
    fn what_another_process_of_this_program_reads_is_not_the_boots() {
        let warmed = warmed(&[(0, Some((1_000, 40_000)))]);
        let ours = ["ebs-prewarm", "ebs-prewarm-sta", "@ebs-prewarm", "warm", "read-17", "tokio-uring"];
        let others = ["reader", "warmth", "read-", "read-a", "kworker/0:1H"];
        let requests = ours.iter().chain(&others).zip(1..);
        let requests: Vec<_> =
            requests.map(|(name, unit)| (unit * UNIT, 50_000, 30_000, Flags::READ, *name)).collect();
        let mut boot = boot(&requests);
        let report = of(&warmed, &boot);
        let missed: Vec<&str> = report.missed.iter().map(|missed| missed.process.as_str()).collect();
        assert_eq!((report.missed_units, missed), (5, others.to_vec()));
        assert!(report.notes.iter().any(|note| note.starts_with("6 requests ")), "{:?}", report.notes);
        // Neither does a profile get it.
        leave_out_ours(&mut boot);
        let left: Vec<u64> = boot.touches().map(|touch| touch.extent.start() / UNIT).collect();
        assert_eq!(left, [7, 8, 9, 10, 11]);
        assert!(of(&warmed, &boot).notes.is_empty());
    }

    #[test]
    fn what_was_not_seen_to_be_answered_is_no_waiting() {
        let warmed = warmed(&[(0, Some((1_000, 40_000))), (1, Some((45_000, 84_000))), (2, None)]);
        let mut log = TouchLog::new();
        for unit in 0..4 {
            log.issue(60_000, Extent::at(unit * UNIT, 8).unwrap(), Flags::READ, "a");
        }
        let report = of(&warmed, &log.finish(Header::default()));
        assert_eq!((states(&report), report.missed_units), ([1, 1, 1, 0, 0], 1));
        assert_eq!((report.stall_avoided_s, report.stall_suffered_s), (0.0, 0.0));
        assert!(report.notes.iter().any(|note| note.contains("for 4 units")), "{:?}", report.notes);
    }

    #[test]
    fn what_is_written_whole_waits_for_nothing_and_what_is_written_in_part_does() {
        let mut log = TouchLog::new();
        log.issue(10, Extent::at(0, UNIT).unwrap(), Flags::WRITE, "a");
        log.issue(10, Extent::at(UNIT, 8).unwrap(), Flags::WRITE, "a");
        let report = of(&warmed(&[]), &log.finish(Header::default()));
        assert_eq!((report.missed_units, report.written_units), (0, 1));
    }

    #[test]
    fn a_file_that_cannot_be_is_refused() {
        let good = serde_json::to_vec(&warmed(&[(0, Some((1, 2)))])).unwrap();
        assert_eq!(Warmed::parse(&good).unwrap().reads.len(), 1);
        let bad = |change: &dyn Fn(&mut Warmed)| {
            let mut changed = Warmed::parse(&good).unwrap();
            change(&mut changed);
            Warmed::parse(&serde_json::to_vec(&changed).unwrap()).unwrap_err().full_text()
        };
        assert!(bad(&|warmed| warmed.schema = 9).contains("version 9"));
        assert!(bad(&|warmed| warmed.unit_bytes = 0).contains("unit of 0 bytes"));
        assert!(bad(&|warmed| warmed.reads[0].stage = 7).contains("cannot be"));
        assert!(bad(&|warmed| warmed.reads[0].sectors = 0).contains("cannot be"));
        assert!(bad(&|warmed| warmed.reads[0].sectors = u32::MAX).contains("cannot be"));
        assert!(bad(&|warmed| warmed.reads[0].at_us = Some((2, 1))).contains("cannot be"));
        for length in 0..good.len() {
            assert!(Warmed::parse(&good[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn each_planned_unit_is_in_one_state(
            reads in prop::collection::btree_map(0u64..40, prop::option::of((0u64..100, 0u64..100)), 0..40),
            touches in prop::collection::vec((0u64..60, 0u64..300, 0u32..100), 0..60),
        ) {
            let reads: Vec<_> = reads
                .into_iter()
                .map(|(unit, at)| (unit, at.map(|(submitted, took)| (submitted, submitted + took))))
                .collect();
            let touches: Vec<_> =
                touches.iter().map(|(unit, at, took)| (unit * UNIT, *at, *took, Flags::READ, "p")).collect();
            let report = of(&warmed(&reads), &boot(&touches));
            prop_assert_eq!(states(&report).iter().sum::<u64>(), reads.len() as u64);
            let asked: BTreeSet<u64> = touches.iter().map(|touch| touch.0 / UNIT).collect();
            let missed = asked.iter().filter(|unit| !reads.iter().any(|(read, _)| read == *unit)).count();
            prop_assert_eq!(report.missed_units, missed as u64);
            let [before, late, after, never, left] = states(&report);
            prop_assert_eq!(before + late + after + missed as u64, asked.len() as u64);
            prop_assert_eq!(never + left, reads.len() as u64 - (before + late + after));
        }
    }
}
