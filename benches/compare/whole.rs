//! A whole volume of 2 GiB: one small read a unit against what the vendor documents, by the letter.
//!
//! What arrives at the volume depends on the kernel between. A loop device takes 128 segments, so a read of 1 MiB
//! from scattered pages arrives as two of a unit each, which are fetched at once; from huge pages, or of the
//! emulator's file, it arrives whole, and its units are fetched one after the other. Both are measured, and the
//! tables show the reads that arrived.

use super::bed::{Cold, Place};
use super::fixtures::turns;
use super::table::{Found, Promise, Table, median, spread};
use super::{Setup, run};
use ebs_prewarm::error::Result;
use std::process::Command;

const VOLUME_BYTES: u64 = 2 << 30;
const QUICK_BYTES: u64 = 256 << 20;
/// The documented line, but for the name of the device.
const FIO: [&str; 6] =
    ["--rw=read", "--bs=1M", "--iodepth=32", "--ioengine=libaio", "--direct=1", "--name=volume-initialize"];
const OURS: &str = "ebs-prewarm warm --rest all --mode touch";
const DOCUMENTED: &str = "fio, the documented line";
const HUGE: &str = "fio, from huge pages (not documented)";
const DD: &str = "dd bs=1M, the documented line";
const COLUMNS: [&str; 5] =
    ["seconds", "MB/s of volume", "reads that arrived", "KiB a read", "units left cold"];
/// A minute each.
const DD_ROUNDS: usize = 2;

/// What is promised of io2: its hydration rate allows 2.3.
const FASTER_ON_IO2: f64 = 2.0;

/// Huge pages for fio, given back when dropped.
struct HugePages {
    before: String,
}

impl HugePages {
    const PATH: &'static str = "/proc/sys/vm/nr_hugepages";
    /// 32 buffers of 1 MiB in pages of 2 MiB, and what fio needs of its own.
    const COUNT: u64 = 20;

    /// `None` where there are none to be had.
    fn new() -> Option<HugePages> {
        let before = std::fs::read_to_string(Self::PATH).ok()?.trim().to_string();
        let wanted = before.parse::<u64>().ok()? + Self::COUNT;
        let pages = HugePages { before };
        std::fs::write(Self::PATH, wanted.to_string()).ok()?;
        let given = std::fs::read_to_string(Self::PATH).ok()?.trim().parse::<u64>().ok()?;
        (given == wanted).then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(Self::PATH, &self.before) {
            eprintln!("error: failed to give huge pages back: {error}");
        }
    }
}

/// A model, and what it is read through.
struct Case {
    model: &'static str,
    on_loop: bool,
    contenders: &'static [&'static str],
}

const CASES: [Case; 4] = [
    Case { model: "io2", on_loop: true, contenders: &[OURS, DOCUMENTED, HUGE, DD] },
    Case { model: "io2", on_loop: false, contenders: &[OURS, DOCUMENTED] },
    Case { model: "gp3", on_loop: true, contenders: &[OURS, DOCUMENTED, DD] },
    Case { model: "gp3", on_loop: false, contenders: &[OURS, DOCUMENTED] },
];

impl Case {
    fn name(&self) -> String {
        format!("{}, {}", self.model, if self.on_loop { "loop device" } else { "the emulator's file" })
    }

    fn turn(&self, name: &str, cold: &Cold, bytes: u64, table: &mut Table) -> Result<()> {
        cold.reset()?;
        let path = if self.on_loop { cold.device() } else { cold.file() };
        let path = path.to_string_lossy();
        let seconds = match name {
            OURS => {
                let warm = ["warm", "--device", &path, "--rest", "all", "--mode", "touch"];
                run::number(&run::ours(&warm)?.0, "/totals/elapsed_s")
            }
            DOCUMENTED => fio(&path, &[])?,
            HUGE => fio(&path, &["--iomem=mmaphuge"])?,
            _ => {
                let mut dd = Command::new("dd");
                dd.arg(format!("if={path}")).args(["of=/dev/null", "bs=1M"]);
                run::run(&mut dd)?.wall_s
            }
        };
        let stats = cold.quiet()?;
        let counters = &stats.counters;
        table.add(
            name,
            &[
                seconds,
                bytes as f64 / seconds / 1e6,
                counters.reads as f64,
                counters.bytes_read as f64 / counters.reads as f64 / 1024.0,
                stats.cold_units as f64,
            ],
        );
        Ok(())
    }
}

fn fio(device: &str, more: &[&str]) -> Result<f64> {
    let file = format!("--filename={device}");
    let arguments: Vec<&str> = [file.as_str()].into_iter().chain(FIO).chain(more.iter().copied()).collect();
    Ok(run::fio(&arguments)?.elapsed_s)
}

pub fn run(setup: &Setup) -> Result<Found> {
    let place = Place::new()?;
    let bytes = if setup.quick { QUICK_BYTES } else { VOLUME_BYTES };
    let image = place.image("image", bytes)?;
    let huge = HugePages::new();
    let mut found = Found::default();
    if huge.is_none() {
        found.notes.push(format!("NOT RUN: {HUGE}: there are none to be had"));
    }
    let title = |case: &Case| format!("{}, {} MiB", case.name(), bytes >> 20);
    let mut tables: Vec<Table> = CASES.iter().map(|case| Table::new(title(case), &COLUMNS)).collect();
    let mut bounds_s = [0.0; CASES.len()];
    for model in ["io2", "gp3"] {
        // io2 takes seconds a turn, and its draws differ: more of them.
        let rounds = if model == "io2" { setup.rounds * 2 + 1 } else { setup.rounds };
        for round in 0..rounds {
            let cold = Cold::mount(&place, &image, model, round as u64 + 1, &[])?;
            for (at, case) in CASES.iter().enumerate().filter(|(_, case)| case.model == model) {
                bounds_s[at] = cold.model().bound_ns(bytes / cold.model().unit_bytes) as f64 / 1e9;
                let wanted =
                    |name: &&str| (*name != HUGE || huge.is_some()) && (*name != DD || round < DD_ROUNDS);
                let contenders: Vec<&str> = case.contenders.iter().copied().filter(wanted).collect();
                turns(&contenders, round)
                    .try_for_each(|name| case.turn(name, &cold, bytes, &mut tables[at]))?;
            }
        }
    }
    drop(huge);
    for ((case, table), bound_s) in CASES.iter().zip(&tables).zip(bounds_s) {
        judge(case, table, bound_s, &mut found);
    }
    found.tables = tables;
    Ok(found)
}

fn judge(case: &Case, table: &Table, bound_s: f64, found: &mut Found) {
    let name = case.name();
    let arrived = |contender: &str| {
        let kib = median(table.values(contender, "KiB a read"));
        format!("{} ({kib:.0} KiB a read)", if kib >= 1000.0 { "whole" } else { "in parts" })
    };
    let least = if case.model == "io2" { FASTER_ON_IO2 } else { 1.0 };
    let ratios = table.ratios(DOCUMENTED, OURS, "seconds");
    let allowed = median(table.values(DOCUMENTED, "seconds")) / bound_s;
    let text = format!(
        "{name}: {} times as fast as the documented fio, whose requests arrived {}; at least {least} is promised, \
         the hydration rate allows {allowed:.2}",
        spread(&ratios),
        arrived(DOCUMENTED),
    );
    found.promises.push(Promise::new(text, median(&ratios) >= least));
    let left = table.values(OURS, "units left cold").iter().sum::<f64>();
    found.promises.push(Promise::new(format!("{name}: ours left no unit cold"), left == 0.0));
    for other in [HUGE, DD].into_iter().filter(|other| !table.values(other, "seconds").is_empty()) {
        let ratios = table.ratios(other, OURS, "seconds");
        found.notes.push(format!(
            "{name}: {} times as fast as {other}, whose requests arrived {}",
            spread(&ratios),
            arrived(other)
        ));
    }
}
