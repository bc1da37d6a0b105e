//! Reads of 4 KiB at depth 64 from a loop device on memory: what each reader costs where nothing is waited for.
//!
//! Every block of the device is read once by each. Our processor time is that of the whole process, profile and
//! report with it; fio's is that of its job alone. Neither has the kernel's own threads in it.

use super::bed::Place;
use super::fixtures::{BLOCK_BYTES, compiled, shuffled, turns};
use super::table::{Found, Promise, Table, median, spread};
use super::{Setup, run};
use ebs_prewarm::error::{Context, Error, Result};
use ebs_prewarm::lab::{LoopDevice, LoopOptions};
use std::io::Write;

const DEVICE_BYTES: u64 = 1 << 30;
const QUICK_BYTES: u64 = 64 << 20;
const FIO: [&str; 8] = [
    "--name=fast",
    "--ioengine=io_uring",
    "--fixedbufs",
    "--registerfiles",
    "--direct=1",
    "--iodepth=64",
    "--bs=4k",
    "--randrepeat=1",
];
/// fio's own way to spend less: queue, then submit and reap many at once.
const BATCHED: [&str; 3] =
    ["--iodepth_batch_submit=16", "--iodepth_batch_complete_min=1", "--iodepth_batch_complete_max=64"];
const COLUMNS: [&str; 3] = ["reads/s", "CPU us a read", "CPU us a read, whole process"];

struct Contender {
    name: &'static str,
    what: What,
    random: bool,
}

#[derive(PartialEq)]
enum What {
    Ours,
    OursByThreads,
    Fio,
    FioBatched,
}

const RANDOM: [Contender; 4] = [
    Contender { name: "ebs-prewarm, random", what: What::Ours, random: true },
    Contender { name: "fio, random", what: What::Fio, random: true },
    Contender { name: "fio, random, batched", what: What::FioBatched, random: true },
    Contender { name: "ebs-prewarm, random, io_uring refused", what: What::OursByThreads, random: true },
];
const SEQUENTIAL: [Contender; 3] = [
    Contender { name: "ebs-prewarm, sequential", what: What::Ours, random: false },
    Contender { name: "fio, sequential", what: What::Fio, random: false },
    Contender { name: "fio, sequential, batched", what: What::FioBatched, random: false },
];

struct Bed {
    device: LoopDevice,
    profile: String,
    reads: f64,
}

impl Bed {
    fn turn(&self, contender: &Contender, table: &mut Table) -> Result<()> {
        let device = self.device.path().to_string_lossy();
        let values = match contender.what {
            What::Ours | What::OursByThreads => {
                let what = if contender.random { ["--profile", &self.profile] } else { ["--rest", "all"] };
                let mut arguments = vec!["warm", "--device", &device, "--unit", "4KiB"];
                arguments.extend(["--mode", "touch", "--depth", "64"].into_iter().chain(what));
                let threads = contender.what == What::OursByThreads;
                let (report, ran) = run::ours_with(run::BINARY, &arguments, |command| {
                    if threads {
                        run::refuse_io_uring(command);
                    }
                })?;
                let engine = report["engine"].as_str().unwrap_or_default();
                if engine.starts_with("pread") != threads {
                    return Err(Error::failed(format!("failed to choose the engine: it was {engine}")));
                }
                let reads = run::number(&report, "/totals/reads");
                let cpu_us = ran.cpu_s / reads * 1e6;
                (reads, reads / run::number(&report, "/totals/elapsed_s"), cpu_us, cpu_us)
            }
            What::Fio | What::FioBatched => {
                let file = format!("--filename={device}");
                let order = if contender.random { "--rw=randread" } else { "--rw=read" };
                let batched = if contender.what == What::FioBatched { &BATCHED[..] } else { &[] };
                let mut arguments = vec![file.as_str(), order];
                arguments.extend(FIO.iter().chain(batched).copied());
                let fio = run::fio(&arguments)?;
                let us = |cpu_s: f64| cpu_s / fio.reads * 1e6;
                (fio.reads, fio.reads / fio.elapsed_s, us(fio.job_cpu_s), us(fio.ran.cpu_s))
            }
        };
        let (reads, per_s, cpu_us, process_us) = values;
        if reads != self.reads {
            return Err(Error::failed(format!("failed to read each block once: {reads} of {}", self.reads)));
        }
        table.add(contender.name, &[per_s, cpu_us, process_us]);
        Ok(())
    }
}

/// Blocks of something: holes of a file in memory would be cheaper than real ones.
fn image(place: &Place, bytes: u64) -> Result<std::path::PathBuf> {
    let path = place.path("image");
    let fail = || format!("failed to write `{}`", path.display());
    let mut file = std::fs::File::create(&path).context(fail)?;
    let chunk: Vec<u8> = (0..1usize << 20).map(|at| (at * 31 % 251) as u8).collect();
    for _ in 0..bytes >> 20 {
        file.write_all(&chunk).context(fail)?;
    }
    Ok(path)
}

pub fn run(setup: &Setup) -> Result<Found> {
    let place = Place::in_memory()?;
    let bytes = if setup.quick { QUICK_BYTES } else { DEVICE_BYTES };
    let image = image(&place, bytes)?;
    let blocks = bytes / BLOCK_BYTES;
    let offsets: Vec<u64> = shuffled(blocks).into_iter().map(|block| block * BLOCK_BYTES).collect();
    let profile = compiled(&place, "random", &offsets)?;
    let device = LoopDevice::attach(&image, LoopOptions::default())?;
    let bed = Bed { device, profile, reads: blocks as f64 };
    let mut random = Table::new("random, each block once", &COLUMNS);
    let mut sequential = Table::new("sequential", &COLUMNS);
    // A turn takes two seconds, and neighbours disturb it: twice the rounds.
    for round in 0..setup.rounds * 2 {
        turns(&RANDOM, round).try_for_each(|contender| bed.turn(contender, &mut random))?;
        turns(&SEQUENTIAL, round).try_for_each(|contender| bed.turn(contender, &mut sequential))?;
    }
    let mut found = Found::default();
    judge(&random, RANDOM[0].name, RANDOM[1].name, &mut found);
    judge(&sequential, SEQUENTIAL[0].name, SEQUENTIAL[1].name, &mut found);
    for (table, ours, fio) in
        [(&random, RANDOM[0].name, RANDOM[2].name), (&sequential, SEQUENTIAL[0].name, SEQUENTIAL[2].name)]
    {
        found.notes.push(format!(
            "{ours} over {fio}: {} of its reads/s, {} of its CPU a read",
            spread(&table.ratios(ours, fio, "reads/s")),
            spread(&table.ratios(ours, fio, "CPU us a read")),
        ));
    }
    found.tables.extend([random, sequential]);
    Ok(found)
}

fn judge(table: &Table, ours: &str, fio: &str, found: &mut Found) {
    let rate = table.ratios(ours, fio, "reads/s");
    let cpu = table.ratios(ours, fio, "CPU us a read");
    let text = format!("{ours}: {} of the reads/s of {fio}, at least 1", spread(&rate));
    found.promises.push(Promise::new(text, median(&rate) >= 1.0));
    let text = format!("{ours}: {} of the CPU a read of {fio}, at most 1", spread(&cpu));
    found.promises.push(Promise::new(text, median(&cpu) <= 1.0));
}
