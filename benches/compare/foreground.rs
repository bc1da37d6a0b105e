//! A reader with one read in flight, on warm units and on cold ones of its own, while the rest of the volume is warmed
//! beside it: by us, who stand back, and by fio with idle priority.
//!
//! The warmer has been at it for a while when the reader comes, as on a machine on which somebody begins to work. It
//! reads from the volume's start and is stopped long before it comes to the reader's units at the end. What it
//! hydrates meanwhile and afterwards is counted by the emulator: to give way by doing nothing would be cheap.

use super::Setup;
use super::bed::{Cold, Place};
use super::fixtures::{BLOCK_BYTES, shuffled, turns};
use super::run::{self, Beside};
use super::table::{Found, Promise, Table, median, spread};
use ebs_prewarm::error::{Context, Error, Result};
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const MODEL: &str = "gp3";
/// What nobody gets through in a turn: 31 s at the hydration rate.
const VOLUME_BYTES: u64 = 4 << 30;
/// The reader's, at the end of the volume: more than it can read in a turn, one after the other.
const OWN_UNITS: u64 = 1024;
/// Of these it reads blocks at random where it is to read warm ones.
const WARM_UNITS: u64 = 16;
/// Long enough for the warmer's depth to be found.
const LEAD: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_secs(3);
const QUICK_TURN: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(1);

/// What is promised of the reader beside us.
const P99_MAX: f64 = 1.2;
const RATE_MIN: f64 = 0.9;

const ALONE: &str = "alone";
const OURS: &str = "beside ebs-prewarm warm --rest all";
const FIO_TOUCH: &str = "beside fio, idle, a block a unit";
const FIO: &str = "beside fio, idle, all of it";
const CONTENDERS: [&str; 4] = [ALONE, OURS, FIO_TOUCH, FIO];
const FIO_LINE: [&str; 5] =
    ["--name=rest", "--ioengine=io_uring", "--iodepth=32", "--prioclass=3", "--direct=1"];

const P99: &str = "p99 ms";
const RATE: &str = "reads/s";
const MEANWHILE: &str = "rest meanwhile, units/s";
const COLUMNS: [&str; 6] = [P99, "p50 ms", "max ms", RATE, MEANWHILE, "rest afterwards, units/s"];

/// What the reader reads.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Warm,
    Cold,
}

/// As the kernel wants it for O_DIRECT.
#[repr(align(4096))]
struct Block([u8; BLOCK_BYTES as usize]);

/// Reads one block after the other, with nothing between.
struct Reader {
    file: File,
    /// Where, one after the other.
    offsets: Vec<u64>,
    block: Box<Block>,
}

impl Reader {
    fn of(device: &Path, unit_bytes: u64, on: On) -> Result<Reader> {
        let fail = || format!("failed to open `{}`", device.display());
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(device).context(fail)?;
        let first = VOLUME_BYTES / unit_bytes - OWN_UNITS;
        let offsets = match on {
            On::Cold => shuffled(OWN_UNITS).into_iter().map(|unit| (first + unit) * unit_bytes).collect(),
            On::Warm => {
                let blocks = shuffled(WARM_UNITS * unit_bytes / BLOCK_BYTES);
                blocks.into_iter().map(|block| first * unit_bytes + block * BLOCK_BYTES).collect()
            }
        };
        let mut reader = Reader { file, offsets, block: Box::new(Block([0; BLOCK_BYTES as usize])) };
        if on == On::Warm {
            (0..WARM_UNITS).try_for_each(|unit| reader.read((first + unit) * unit_bytes).map(drop))?;
        }
        Ok(reader)
    }

    fn read(&mut self, offset: u64) -> Result<Duration> {
        let started = Instant::now();
        let read = self.file.read_exact_at(&mut self.block.0, offset);
        read.context(|| format!("failed to read a block at byte {offset}"))?;
        Ok(started.elapsed())
    }

    /// Milliseconds of each read, in order of size.
    fn run(&mut self, turn: Duration) -> Result<Vec<f64>> {
        let mut taken_ms = Vec::new();
        let started = Instant::now();
        while started.elapsed() < turn {
            let offset = self.offsets[taken_ms.len() % self.offsets.len()];
            taken_ms.push(self.read(offset)?.as_secs_f64() * 1e3);
        }
        taken_ms.sort_by(f64::total_cmp);
        Ok(taken_ms)
    }
}

/// The least that is not below a share of the values, which are in order.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Whoever warms the rest.
fn warmer(name: &str, device: &Path, unit_bytes: u64) -> Option<Command> {
    let mut command = match name {
        ALONE => return None,
        OURS => {
            let mut command = Command::new(run::BINARY);
            command.args(["--json", "--log", "error", "warm", "--rest", "all", "--device"]).arg(device);
            return Some(command);
        }
        _ => Command::new("fio"),
    };
    command.arg("--readonly").args(FIO_LINE).arg(format!("--filename={}", device.display()));
    match name {
        FIO_TOUCH => {
            command.arg(format!("--bs={BLOCK_BYTES}"));
            command.arg(format!("--rw=read:{}", unit_bytes - BLOCK_BYTES))
        }
        _ => command.args(["--bs=1M", "--rw=read"]),
    };
    command.current_dir(std::env::temp_dir());
    Some(command)
}

/// Waits until a warmer that was started has hydrated something, and a while more.
fn lead(cold: &Cold, before: u64) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while cold.stats()?.counters.hydrated == before {
        if Instant::now() > until {
            return Err(Error::failed("failed to see the warmer's first read"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(LEAD);
    Ok(())
}

fn turn(name: &str, on: On, cold: &Cold, seconds: Duration, table: &mut Table) -> Result<()> {
    cold.reset()?;
    let (device, unit_bytes) = (cold.device(), cold.model().unit_bytes);
    let mut reader = Reader::of(&device, unit_bytes, on)?;
    let mut beside = None;
    if let Some(mut command) = warmer(name, &device, unit_bytes) {
        let before = cold.quiet()?.counters.hydrated;
        beside = Some(Beside::start(&mut command)?);
        lead(cold, before)?;
    }
    let hydrated = || cold.stats().map(|stats| stats.counters.hydrated as f64);
    let (before, started) = (hydrated()?, Instant::now());
    let taken_ms = reader.run(seconds)?;
    let (elapsed_s, after) = (started.elapsed().as_secs_f64(), hydrated()?);
    let own = if on == On::Cold { taken_ms.len() as f64 } else { 0.0 };
    let (mut meanwhile, mut afterwards) = (f64::NAN, f64::NAN);
    if let Some(beside) = beside {
        meanwhile = (after - before - own) / elapsed_s;
        std::thread::sleep(AFTER);
        afterwards = (hydrated()? - after) / AFTER.as_secs_f64();
        beside.stop()?;
    }
    let values = [
        quantile(&taken_ms, 0.99),
        quantile(&taken_ms, 0.5),
        quantile(&taken_ms, 1.0),
        taken_ms.len() as f64 / elapsed_s,
        meanwhile,
        afterwards,
    ];
    table.add(name, &values);
    Ok(())
}

pub fn run(setup: &Setup) -> Result<Found> {
    let place = Place::new()?;
    let image = place.image("image", VOLUME_BYTES)?;
    let seconds = if setup.quick { QUICK_TURN } else { TURN };
    let mut warm = Table::new(format!("{MODEL}, one read in flight, on warm units"), &COLUMNS);
    let mut cold_ones =
        Table::new(format!("{MODEL}, one read in flight, on cold units of its own"), &COLUMNS);
    for round in 0..setup.rounds {
        let cold = Cold::mount(&place, &image, MODEL, round as u64 + 1, &[])?;
        turns(&CONTENDERS, round).try_for_each(|name| turn(name, On::Warm, &cold, seconds, &mut warm))?;
        turns(&CONTENDERS, round)
            .try_for_each(|name| turn(name, On::Cold, &cold, seconds, &mut cold_ones))?;
    }
    let mut found = Found::default();
    judge(&warm, &cold_ones, &mut found);
    found.tables = vec![warm, cold_ones];
    Ok(found)
}

fn judge(warm: &Table, cold_ones: &Table, found: &mut Found) {
    let p99 = |name: &str| warm.ratios(name, ALONE, P99);
    let rate = |name: &str| cold_ones.ratios(name, ALONE, RATE);
    let text = format!(
        "warm units {OURS}: {} of the p99 alone, median at most {P99_MAX}; it hydrated {} units a second meanwhile",
        spread(&p99(OURS)),
        spread(warm.values(OURS, MEANWHILE)),
    );
    found.promises.push(Promise::new(text, median(&p99(OURS)) <= P99_MAX));
    let text = format!(
        "cold units {OURS}: {} of the reads a second alone, median at least {RATE_MIN}; it hydrated {} units a second \
         meanwhile",
        spread(&rate(OURS)),
        spread(cold_ones.values(OURS, MEANWHILE)),
    );
    found.promises.push(Promise::new(text, median(&rate(OURS)) >= RATE_MIN));
    for other in [FIO_TOUCH, FIO] {
        found.notes.push(format!(
            "{other}: {} of the p99 alone on warm units, {} of the reads a second alone on cold ones",
            spread(&p99(other)),
            spread(&rate(other)),
        ));
    }
}
