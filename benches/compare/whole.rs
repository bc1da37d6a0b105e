//! A whole volume of 2 GiB: one small read a unit against what the vendor documents, by the letter.
//!
//! What arrives at the volume depends on the kernel between: a loop device takes 128 segments, so a read of 1 MiB
//! from scattered pages arrives as two of a unit each, which are fetched at once; from huge pages it arrives whole,
//! and its units are fetched one after the other. The table shows the reads that arrived.

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

fn fio(device: &str, more: &[&str]) -> Result<f64> {
    let file = format!("--filename={device}");
    let arguments: Vec<&str> = [file.as_str()].into_iter().chain(FIO).chain(more.iter().copied()).collect();
    Ok(run::fio(&arguments)?.elapsed_s)
}

fn turn(name: &str, cold: &Cold, bytes: u64, table: &mut Table) -> Result<()> {
    cold.reset()?;
    let device = cold.device();
    let device = device.to_string_lossy();
    let seconds = match name {
        OURS => {
            let warm = ["warm", "--device", &device, "--rest", "all", "--mode", "touch"];
            run::number(&run::ours(&warm)?.0, "/totals/elapsed_s")
        }
        DOCUMENTED => fio(&device, &[])?,
        HUGE => fio(&device, &["--iomem=mmaphuge"])?,
        _ => {
            let mut dd = Command::new("dd");
            dd.arg(format!("if={device}")).args(["of=/dev/null", "bs=1M"]);
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

pub fn run(setup: &Setup) -> Result<Found> {
    let place = Place::new()?;
    let bytes = if setup.quick { QUICK_BYTES } else { VOLUME_BYTES };
    let image = place.image("image", bytes)?;
    let huge = HugePages::new();
    let mut found = Found::default();
    let mut contenders = vec![OURS, DOCUMENTED];
    match huge {
        Some(_) => contenders.push(HUGE),
        None => found.notes.push("no huge pages to be had: reads of 1 MiB did not arrive whole".into()),
    }
    for model in ["io2", "gp3"] {
        let cold = Cold::mount(&place, &image, model, 1, &[])?;
        let mut table = Table::new(format!("{model}, {} MiB", bytes >> 20), &COLUMNS);
        for round in 0..setup.rounds {
            for name in turns(&contenders, round) {
                turn(name, &cold, bytes, &mut table)?;
            }
        }
        // Minutes each: once, and the whole volume.
        turn(DD, &cold, bytes, &mut table)?;
        judge(model, &table, &mut found);
        found.tables.push(table);
    }
    drop(huge);
    Ok(found)
}

fn judge(model: &str, table: &Table, found: &mut Found) {
    let least = if model == "io2" { FASTER_ON_IO2 } else { 1.0 };
    let ratios = table.ratios(DOCUMENTED, OURS, "seconds");
    let text = format!("{model}: {} times as fast as the documented fio, at least {least}", spread(&ratios));
    found.promises.push(Promise::new(text, median(&ratios) > least));
    let left = table.values(OURS, "units left cold").iter().sum::<f64>();
    found.promises.push(Promise::new(format!("{model}: ours left no unit cold"), left == 0.0));
    for name in [DOCUMENTED, HUGE] {
        let kib = median(table.values(name, "KiB a read"));
        if !kib.is_nan() {
            let how = if kib >= 1000.0 { "whole" } else { "in parts" };
            found.notes.push(format!(
                "{model}: {name}: requests of 1 MiB arrived {how} ({kib:.0} KiB a read); ours is {} times as fast",
                spread(&table.ratios(name, OURS, "seconds"))
            ));
        }
    }
    let dd = median(table.values(DD, "seconds")) / median(table.values(OURS, "seconds"));
    found.notes.push(format!("{model}: dd ran once, to its end; ours is {dd:.1} times as fast"));
}
