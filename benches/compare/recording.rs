//! What was recorded beside what the volume knows that it hydrated, and what is lost when fio is at its fastest.

use super::bed::{Cold, Place};
use super::table::{Found, Promise, Table, range};
use super::{Setup, run};
use ebs_prewarm::error::{Context, Error, Result};
use ebs_prewarm::lab::{LoopDevice, LoopOptions};
use ebs_prewarm::recording::{Recording, format};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const COLUMNS: [&str; 6] = ["units recorded", "units hydrated", "missing", "extra", "events", "events lost"];
const RATE_COLUMNS: [&str; 4] = ["events", "events lost", "events/s", "blocks recorded"];
const UNIT_SECTORS: u64 = 1024;
const RAW_BYTES: u64 = 1 << 30;
const FAST_BYTES: u64 = 256 << 20;

fn decoded(path: &str) -> Result<Recording> {
    let bytes = std::fs::read(path).context(|| format!("failed to read `{path}`"))?;
    format::decode(&bytes)
}

fn record(place: &Place, device: &Path, command: &[&str]) -> Result<(Recording, f64)> {
    let (output, device) = (place.text("recording"), device.to_string_lossy());
    let mut arguments = vec!["record", "-o", &output, "--device", &device, "--"];
    arguments.extend(command);
    let mut record = Command::new(run::BINARY);
    record.args(["--log", "error"]).args(arguments);
    let ran = run::run(&mut record)?;
    Ok((decoded(&output)?, ran.wall_s))
}

/// Records a command on a cold volume and compares.
fn compare(place: &Place, cold: &Cold, name: &str, command: &[&str], table: &mut Table) -> Result<()> {
    cold.reset()?;
    let (recording, _) = record(place, &cold.device(), command)?;
    let hydrated: BTreeSet<u64> = cold.quiet()?.touched.iter().map(|touch| touch.unit).collect();
    let mut recorded: BTreeSet<u64> =
        recording.touches().flat_map(|touch| touch.extent.units(UNIT_SECTORS)).collect();
    // Before it traces and after, the recorder recognises the volume by its beginning: unit 0.
    if hydrated.contains(&0) {
        recorded.insert(0);
    }
    let count = |set: std::collections::btree_set::Difference<u64>| set.count() as f64;
    table.add(
        name,
        &[
            recorded.len() as f64,
            hydrated.len() as f64,
            count(hydrated.difference(&recorded)),
            count(recorded.difference(&hydrated)),
            recording.header.events as f64,
            recording.header.lost() as f64,
        ],
    );
    Ok(())
}

/// A filesystem with some hundreds of files, small and large.
fn filesystem(place: &Place) -> Result<std::path::PathBuf> {
    let tree = place.path("tree");
    let fail = || "failed to make a tree of files".to_string();
    for n in 0..400usize {
        let dir = tree.join(format!("{}", n % 20));
        std::fs::create_dir_all(&dir).context(fail)?;
        let text = format!("file {n}\n").repeat(1 + n * 37 % 9000);
        std::fs::write(dir.join(n.to_string()), text).context(fail)?;
    }
    let large: Vec<u8> = (0..96usize << 20).map(|at| (at * 31 % 251) as u8).collect();
    std::fs::write(tree.join("large"), large).context(fail)?;
    let image = place.image("ext4", 512 << 20)?;
    run::run(Command::new("mkfs.ext4").args(["-q", "-d"]).args([&tree, &image]))?;
    Ok(image)
}

fn mixed(setup: &Setup, place: &Place, table: &mut Table) -> Result<()> {
    let image = filesystem(place)?;
    let cold = Cold::mount(place, &image, "io2", 1, &[])?;
    let (device, mounted) = (cold.device().to_string_lossy().into_owned(), place.text("mnt"));
    std::fs::create_dir(&mounted).context(|| format!("failed to make `{mounted}`"))?;
    let script = format!(
        "set -e; mount -o ro,noload {device} {mounted}; trap 'umount {mounted}' EXIT
         find {mounted} -type f >/dev/null; grep -r 'file 7' {mounted}/3 {mounted}/7 >/dev/null
         fio --name=r --readonly --filename={mounted}/large --rw=randread --bs=4k --ioengine=psync \
             --io_size=400k --norandommap >/dev/null"
    );
    (0..setup.rounds).try_for_each(|_| {
        compare(place, &cold, "ext4: mount, find, grep -r, random reads", &["sh", "-c", &script], table)
    })
}

fn raw(setup: &Setup, place: &Place, table: &mut Table) -> Result<()> {
    let image = place.image("raw", RAW_BYTES)?;
    let cold = Cold::mount(place, &image, "io2", 1, &[])?;
    let file = format!("--filename={}", cold.device().to_string_lossy());
    let fio = ["fio", "--name=r", "--readonly", &file, "--rw=randread", "--bs=4k", "--io_size=6m"];
    let rest = ["--direct=1", "--ioengine=io_uring", "--iodepth=64", "--norandommap"];
    let command: Vec<&str> = fio.into_iter().chain(rest).collect();
    (0..setup.rounds).try_for_each(|_| compare(place, &cold, "raw: fio, random, depth 64", &command, table))
}

/// fio as fast as it goes on memory: nothing may be lost.
fn fastest(setup: &Setup, place: &Place) -> Result<Table> {
    let mut table = Table::new("a loop device on memory", &RATE_COLUMNS);
    let image = place.path("fast");
    let content = vec![7; FAST_BYTES as usize];
    std::fs::write(&image, content).context(|| format!("failed to write `{}`", image.display()))?;
    let device = LoopDevice::attach(&image, LoopOptions::default())?;
    let file = format!("--filename={}", device.path().to_string_lossy());
    let fio = ["fio", "--name=r", "--readonly", &file, "--rw=randread", "--bs=4k", "--direct=1"];
    let rest = ["--ioengine=io_uring", "--iodepth=64", "--fixedbufs", "--registerfiles", "--numjobs=2"];
    let command: Vec<&str> = fio.into_iter().chain(rest).collect();
    for _ in 0..setup.rounds {
        let (recording, _) = record(place, device.path(), &command)?;
        let header = &recording.header;
        let span_s = recording.touches().map(|touch| touch.time_us).max().unwrap_or(0) as f64
            - recording.touches().map(|touch| touch.time_us).min().unwrap_or(0) as f64;
        let events = header.events as f64;
        let blocks: u64 = recording.touches().map(|touch| touch.extent.sectors() / 8).sum();
        table.add(
            "fio, random, 2 jobs at depth 64",
            &[events, header.lost() as f64, events / (span_s / 1e6), blocks as f64],
        );
        if blocks != FAST_BYTES / 4096 {
            return Err(Error::failed(format!("failed to record each block: {blocks}")));
        }
    }
    Ok(table)
}

pub fn run(setup: &Setup) -> Result<Found> {
    ebs_prewarm::record::available(Path::new("/"))?;
    let place = Place::in_memory()?;
    let mut table = Table::new("io2, loop device", &COLUMNS);
    mixed(setup, &place, &mut table)?;
    raw(setup, &place, &mut table)?;
    let rate = fastest(setup, &place)?;
    let mut found = Found::default();
    let worst = |table: &Table, column| {
        let values: Vec<f64> =
            table.rows.iter().flat_map(|row| table.values(&row.name, column)).copied().collect();
        range(&values).1
    };
    for row in &table.rows {
        let (missing, extra) =
            (range(table.values(&row.name, "missing")).1, range(table.values(&row.name, "extra")).1);
        let text = format!("{}: units missing {missing}, extra {extra}", row.name);
        found.promises.push(Promise::new(text, missing == 0.0 && extra == 0.0));
    }
    let lost = worst(&table, "events lost") + worst(&rate, "events lost");
    found.promises.push(Promise::new(format!("events lost: {lost}"), lost == 0.0));
    found.tables.extend([table, rate]);
    Ok(found)
}
