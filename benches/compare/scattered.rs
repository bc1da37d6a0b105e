//! Warming 2,000 scattered units, against what the law of the volume allows and against fio.
//!
//! fio reads one block every 2 MiB: a pattern that it ends by waiting for all its reads. Given the same offsets
//! as an iolog it stops its clock, and exits, with a full depth of reads still under way; that is shown beside, and
//! held against nobody.

use super::bed::{Cold, Place};
use super::fixtures::{compiled, turns};
use super::table::{Found, Promise, Table, median, spread};
use super::{Setup, run};
use ebs_prewarm::error::{Context, Result};
use std::fmt::Write;

const UNITS: u64 = 2000;
/// From one unit that is read to the next: three that are not lie between them.
const STEP_BYTES: u64 = 2 << 20;
const VOLUME_BYTES: u64 = 4 << 30;
/// Requests that a loop device takes at once (its module's default): more are refused with EAGAIN, which fio
/// takes for an end.
const LOOP_TAGS: u32 = 128;
const DEPTH_MAX: u32 = 256;
const RATIO_MAX: f64 = 1.05;
const OURS: &str = "ebs-prewarm warm, depth auto";

#[derive(Clone, Copy)]
enum Contender {
    Ours,
    Fio(u32),
    FioLog(u32),
}

impl Contender {
    fn name(self) -> String {
        match self {
            Contender::Ours => OURS.into(),
            Contender::Fio(depth) => format!("fio, depth {depth}"),
            Contender::FioLog(depth) => format!("fio, iolog, depth {depth}: ends its clock early"),
        }
    }
}

const ON_LOOP: [Contender; 3] = [Contender::Ours, Contender::Fio(LOOP_TAGS), Contender::Fio(DEPTH_MAX)];
const ON_FILE: [Contender; 4] =
    [Contender::Ours, Contender::Fio(LOOP_TAGS), Contender::Fio(DEPTH_MAX), Contender::FioLog(DEPTH_MAX)];

const COLUMNS: [&str; 5] = ["seconds", "of the bound", "seconds to exit", "units left cold", "depth"];

/// What reads, and what it reads.
struct Bed<'a> {
    place: &'a Place,
    cold: Cold,
    profile: &'a str,
    bound_s: f64,
}

impl Bed<'_> {
    fn turn(&self, contender: Contender, path: &str, table: &mut Table) -> Result<()> {
        self.cold.reset()?;
        let (elapsed_s, wall_s, depth) = match contender {
            Contender::Ours => {
                let warm = ["warm", "--profile", self.profile, "--device", path, "--mode", "touch"];
                let (report, ran) = run::ours(&warm)?;
                (run::number(&report, "/totals/elapsed_s"), ran.wall_s, run::number(&report, "/depth/final"))
            }
            Contender::Fio(depth) => {
                let (size, skip) = (UNITS * 4096, STEP_BYTES - 4096);
                self.fio(
                    depth,
                    &[
                        format!("--filename={path}"),
                        format!("--rw=read:{skip}"),
                        "--bs=4k".into(),
                        format!("--size={}", UNITS * STEP_BYTES),
                        format!("--io_size={size}"),
                    ],
                )?
            }
            Contender::FioLog(depth) => {
                let log = self.iolog(path)?;
                self.fio(depth, &[format!("--read_iolog={log}"), "--replay_no_stall=1".into()])?
            }
        };
        let hydrated = self.cold.quiet()?.counters.hydrated;
        let left = UNITS.saturating_sub(hydrated) as f64;
        table.add(&contender.name(), &[elapsed_s, elapsed_s / self.bound_s, wall_s, left, depth]);
        Ok(())
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

fn offsets() -> Vec<u64> {
    (0..UNITS).map(|number| number * STEP_BYTES).collect()
}

pub fn run(setup: &Setup) -> Result<Found> {
    let place = Place::new()?;
    let image = place.image("image", VOLUME_BYTES)?;
    let profile = compiled(&place, "scattered", &offsets())?;
    let mut found = Found::default();
    for model in ["gp3", "io2"] {
        let cold = Cold::mount(&place, &image, model, &[])?;
        let bound_s = cold.model().bound_ns(UNITS) as f64 / 1e9;
        let bed = Bed { place: &place, cold, profile: &profile, bound_s };
        let (device, file) = (bed.cold.device(), bed.cold.file());
        let title = |on: &str| format!("{model}, {on}; bound {bound_s:.3} s");
        let mut on_loop = Table::new(title("loop device of 128 tags"), &COLUMNS);
        let mut on_file = Table::new(title("the emulator's file, no tags"), &COLUMNS);
        for round in 0..setup.rounds {
            for contender in turns(&ON_LOOP, round) {
                bed.turn(*contender, &device.to_string_lossy(), &mut on_loop)?;
            }
            for contender in turns(&ON_FILE, round) {
                bed.turn(*contender, &file.to_string_lossy(), &mut on_file)?;
            }
        }
        // More of gp3's units at once than its 64 fetches gain nothing: the tags of a loop device are enough.
        let bounded = if model == "gp3" { &[&on_loop, &on_file][..] } else { &[&on_file][..] };
        for table in bounded {
            let ratio = median(table.values(OURS, "of the bound"));
            let text = format!("{}: {ratio:.3} of the bound, at most {RATIO_MAX}", table.title);
            found.promises.push(Promise::new(text, ratio <= RATIO_MAX));
        }
        if model == "io2" {
            let ratio = median(on_loop.values(OURS, "of the bound"));
            found.notes.push(format!(
                "io2 on a loop device: {ratio:.3} of the bound. 256 fetches at once do not fit its 128 tags: the law \
                 in virtual time gives 1.075 at depth 128"
            ));
        }
        judge(&on_loop, &ON_LOOP, &mut found);
        judge(&on_file, &ON_FILE, &mut found);
        found.tables.extend([on_loop, on_file]);
    }
    Ok(found)
}

/// fio that warmed all units may not be faster; all of ours must be warm.
fn judge(table: &Table, contenders: &[Contender], found: &mut Found) {
    let left = |name: &str| table.values(name, "units left cold").iter().fold(0.0, |sum: f64, n| sum.max(*n));
    found.promises.push(Promise::new(format!("{}: ours left no unit cold", table.title), left(OURS) == 0.0));
    for contender in contenders.iter().filter(|contender| matches!(contender, Contender::Fio(_))) {
        let name = contender.name();
        if left(&name) > 0.0 {
            found.notes.push(format!(
                "{}: {name} reports all its reads as done and left up to {} of {UNITS} units cold",
                table.title,
                left(&name)
            ));
            continue;
        }
        let ratios = table.ratios(&name, OURS, "seconds");
        let text = format!("{}: {name} is not faster: {} times our seconds", table.title, spread(&ratios));
        found.promises.push(Promise::new(text, median(&ratios) >= NOT_FASTER));
    }
}

/// Both wait for the same law, so a tie is the rule; the clock of either is worth half a percent.
const NOT_FASTER: f64 = 0.995;
