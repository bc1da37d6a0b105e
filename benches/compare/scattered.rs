//! Warming 2,000 scattered units, against what the law of the volume allows and against fio at the same depth.
//!
//! Each round draws the volume's latencies anew: the bound knows their median alone, and the last fetches of one
//! draw may end later than those of another. What the same reads take in virtual time, under the same draw, is what
//! no reader can better at that depth; it stands beside.
//!
//! fio reads one block every 2 MiB: a pattern that it ends by waiting for all its reads. Given the same offsets
//! as an iolog it stops its clock, and exits, with a full depth of reads still under way; that is shown beside, and
//! held against nobody.

use super::bed::{Cold, Place};
use super::fixtures::{compiled, turns};
use super::table::{Found, Promise, Table, median, range, spread};
use super::{Setup, run};
use ebs_prewarm::cold::{ColdVolume, Model, sectors_of};
use ebs_prewarm::engine::{self, Depth, Pace, SimSource};
use ebs_prewarm::error::{Context, Result};
use ebs_prewarm::extent::ExtentSet;
use ebs_prewarm::plan::PlannedRead;
use ebs_prewarm::units::{SECTOR_BYTES, as_s};
use std::fmt::Write;
use std::sync::atomic::AtomicBool;

const UNITS: u64 = 2000;
/// From one unit that is read to the next: three that are not lie between them.
const STEP_BYTES: u64 = 2 << 20;
const VOLUME_BYTES: u64 = 4 << 30;
/// Requests that a loop device takes at once (its module's default).
const LOOP_TAGS: u32 = 128;
const DEPTH_MAX: u32 = 256;
const RATIO_MAX: f64 = 1.05;
/// Both wait for the same law, so a tie is the rule; the clocks of either are worth a percent.
const NOT_FASTER: f64 = 0.99;

#[derive(Clone, Copy, PartialEq)]
enum Contender {
    Auto,
    Ours(u32),
    Fio(u32),
    FioLog(u32),
}

use Contender::{Auto, Fio, FioLog, Ours};

impl Contender {
    fn name(self) -> String {
        match self {
            Auto => "ebs-prewarm, depth auto".into(),
            Ours(depth) => format!("ebs-prewarm, depth {depth}"),
            Fio(depth) => format!("fio, depth {depth}"),
            FioLog(depth) => format!("fio, iolog, depth {depth}: ends early"),
        }
    }

    /// The same reads in virtual time; `None` where the contender does not wait for all of them.
    fn in_virtual_time(self, model: &Model, seed: u64, tags: Option<u32>) -> Option<f64> {
        let depth = match self {
            Auto => Depth::auto(tags),
            Ours(depth) | Fio(depth) => Depth::fixed(depth.min(tags.unwrap_or(depth))),
            FioLog(_) => return None,
        };
        let volume = ColdVolume::new(model.clone(), sectors_of(VOLUME_BYTES), seed, ExtentSet::new());
        let mut source = SimSource::new(volume, DEPTH_MAX);
        let read = |offset| PlannedRead { start: offset / SECTOR_BYTES, sectors: 8, stage: 0 };
        let options = engine::Options {
            depth,
            pace: Pace::default(),
            budget: None,
            deadline_ns: None,
            block_bytes: 512,
            idle_from_stage: u16::MAX,
        };
        let reads = offsets().into_iter().map(read);
        let outcome = engine::run(&mut source, reads, options, &AtomicBool::new(false), &mut ());
        Some(as_s(outcome.elapsed_ns()))
    }
}

const COLUMNS: [&str; 6] =
    ["seconds", "of the bound", "of virtual time", "seconds to exit", "units left cold", "depth"];

/// A model, what it is read through, and who reads.
struct Case {
    model: &'static str,
    on_loop: bool,
    contenders: &'static [Contender],
    /// Pairs at the same depth: ours first.
    pairs: &'static [(Contender, Contender)],
    /// Whether the bound can be reached: io2 fetches more at once than a loop device has tags.
    bounded: bool,
}

const CASES: [Case; 4] = [
    Case {
        model: "gp3",
        on_loop: true,
        contenders: &[Auto, Fio(LOOP_TAGS)],
        pairs: &[(Auto, Fio(LOOP_TAGS))],
        bounded: true,
    },
    Case {
        model: "gp3",
        on_loop: false,
        contenders: &[Auto, Fio(LOOP_TAGS), Fio(DEPTH_MAX)],
        pairs: &[(Auto, Fio(LOOP_TAGS)), (Auto, Fio(DEPTH_MAX))],
        bounded: true,
    },
    Case {
        model: "io2",
        on_loop: true,
        contenders: &[
            Auto,
            Ours(LOOP_TAGS),
            Fio(LOOP_TAGS),
            Ours(DEPTH_MAX),
            Fio(DEPTH_MAX),
            FioLog(DEPTH_MAX),
        ],
        pairs: &[(Ours(LOOP_TAGS), Fio(LOOP_TAGS)), (Ours(DEPTH_MAX), Fio(DEPTH_MAX))],
        bounded: false,
    },
    Case {
        model: "io2",
        on_loop: false,
        contenders: &[Auto, Ours(DEPTH_MAX), Fio(DEPTH_MAX), FioLog(DEPTH_MAX)],
        pairs: &[(Ours(DEPTH_MAX), Fio(DEPTH_MAX))],
        bounded: true,
    },
];

impl Case {
    fn name(&self) -> String {
        let on = if self.on_loop { "loop device of 128 tags" } else { "the emulator's file, no tags" };
        format!("{}, {on}", self.model)
    }
}

fn offsets() -> Vec<u64> {
    (0..UNITS).map(|number| number * STEP_BYTES).collect()
}

/// What is read, and with what.
struct Bed<'a> {
    place: &'a Place,
    cold: &'a Cold,
    seed: u64,
    profile: &'a str,
}

impl Bed<'_> {
    fn turn(&self, contender: Contender, case: &Case, table: &mut Table) -> Result<()> {
        self.cold.reset()?;
        let path = if case.on_loop { self.cold.device() } else { self.cold.file() };
        let path = path.to_string_lossy();
        let (elapsed_s, wall_s, depth) = match contender {
            Auto => self.ours(&path, "auto")?,
            Ours(depth) => self.ours(&path, &depth.to_string())?,
            Fio(depth) => self.fio(
                depth,
                &[
                    format!("--filename={path}"),
                    format!("--rw=read:{}", STEP_BYTES - 4096),
                    "--bs=4k".into(),
                    format!("--size={}", UNITS * STEP_BYTES),
                    format!("--io_size={}", UNITS * 4096),
                ],
            )?,
            FioLog(depth) => {
                let log = self.iolog(&path)?;
                self.fio(depth, &[format!("--read_iolog={log}"), "--replay_no_stall=1".into()])?
            }
        };
        let left = UNITS.saturating_sub(self.cold.quiet()?.counters.hydrated);
        let model = self.cold.model();
        let tags = case.on_loop.then_some(LOOP_TAGS);
        let virtual_s = contender.in_virtual_time(model, self.seed, tags).unwrap_or(f64::NAN);
        let bound_s = as_s(model.bound_ns(UNITS));
        table.add(
            &contender.name(),
            &[elapsed_s, elapsed_s / bound_s, elapsed_s / virtual_s, wall_s, left as f64, depth],
        );
        Ok(())
    }

    fn ours(&self, path: &str, depth: &str) -> Result<(f64, f64, f64)> {
        let warm = ["warm", "--profile", self.profile, "--device", path, "--mode", "touch", "--depth", depth];
        let (report, ran) = run::ours(&warm)?;
        Ok((run::number(&report, "/totals/elapsed_s"), ran.wall_s, run::number(&report, "/depth/final")))
    }

    fn fio(&self, depth: u32, what: &[String]) -> Result<(f64, f64, f64)> {
        let depth_text = format!("--iodepth={depth}");
        let mut arguments = vec!["--name=scattered", "--ioengine=io_uring", "--direct=1", &depth_text];
        arguments.extend(what.iter().map(String::as_str));
        let fio = run::fio(&arguments)?;
        Ok((fio.elapsed_s, fio.ran.wall_s, f64::from(depth)))
    }

    fn iolog(&self, path: &str) -> Result<String> {
        let mut text = format!("fio version 2 iolog\n{path} add\n{path} open\n");
        for offset in offsets() {
            let _ = writeln!(text, "{path} read {offset} 4096");
        }
        let log = self.place.text("iolog");
        std::fs::write(&log, text).context(|| format!("failed to write `{log}`"))?;
        Ok(log)
    }
}

pub fn run(setup: &Setup) -> Result<Found> {
    let place = Place::new()?;
    let image = place.image("image", VOLUME_BYTES)?;
    let profile = compiled(&place, "scattered", &offsets())?;
    let mut tables: Vec<Table> = CASES.iter().map(|case| Table::new(case.name(), &COLUMNS)).collect();
    for model in ["gp3", "io2"] {
        // io2 takes a second a turn, and its draws differ: more of them.
        let rounds = if model == "io2" { setup.rounds * 2 + 1 } else { setup.rounds };
        for round in 0..rounds {
            let seed = round as u64 + 1;
            let cold = Cold::mount(&place, &image, model, seed, &[])?;
            let bed = Bed { place: &place, cold: &cold, seed, profile: &profile };
            for (case, table) in CASES.iter().zip(&mut tables).filter(|(case, _)| case.model == model) {
                turns(case.contenders, round).try_for_each(|contender| bed.turn(*contender, case, table))?;
            }
        }
    }
    let mut found = Found::default();
    for (case, table) in CASES.iter().zip(&tables) {
        judge(case, table, &mut found);
    }
    found.tables = tables;
    Ok(found)
}

fn judge(case: &Case, table: &Table, found: &mut Found) {
    let name = case.name();
    let ratios = table.values(&Auto.name(), "of the bound");
    let text = format!("{name}: {} of the bound", spread(ratios));
    if case.bounded {
        let text = format!("{text}, median at most {RATIO_MAX}");
        found.promises.push(Promise::new(text, median(ratios) <= RATIO_MAX));
    } else {
        found.notes.push(format!("{text}, which its 256 fetches at once would need as many tags for"));
    }
    let left = |contender: Contender| range(table.values(&contender.name(), "units left cold")).1;
    let ours = case.contenders.iter().filter(|contender| matches!(contender, Auto | Ours(_)));
    let cold = ours.map(|contender| left(*contender)).fold(0.0, f64::max);
    found.promises.push(Promise::new(format!("{name}: ours left no unit cold"), cold == 0.0));
    for (ours, fio) in case.pairs {
        let ratios = table.ratios(&fio.name(), &ours.name(), "seconds");
        let text = format!("{name}: {} takes {} of our seconds, not less", fio.name(), spread(&ratios));
        found.promises.push(Promise::new(text, median(&ratios) >= NOT_FASTER));
    }
    for fio in case.contenders.iter().filter(|contender| left(**contender) > 0.0) {
        found.notes.push(format!(
            "{name}: {} reports all its reads as done and left up to {} of {UNITS} units cold",
            fio.name(),
            left(*fio)
        ));
    }
}
