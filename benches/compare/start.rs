//! From spawn to the first read, and memory, of the static build with a compiled profile of 10,000 units.
//!
//! The clock is the starter's, read before it starts the program, until the moment that the report names as that
//! of the first read; beside it, as a witness, the moment at which a read reached the emulated volume.
//! `EBS_PREWARM_STATIC` names the build to measure; without, it is made here.

use super::Setup;
use super::bed::{Cold, Place};
use super::fixtures::{compiled, shuffled};
use super::run::{self, Ran};
use super::table::{Found, Promise, Table, median, number, range};
use ebs_prewarm::error::{Context, Error, Result};
use ebs_prewarm::lab::{LoopDevice, LoopOptions, Stats};
use ebs_prewarm::process;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The word that makes this program start another and tell its peak memory.
pub const MEMORY_OF: &str = "--memory-of";

const UNITS: u64 = 10_000;
const UNIT_BYTES: u64 = 512 << 10;
const VOLUME_BYTES: u64 = 8 << 30;
const RUNS: usize = 40;
const DEPTH: &str = "256";
const START_MS_MAX: f64 = 5.0;
const MEMORY_KIB_MAX: f64 = (16 << 10) as f64;
const COLUMNS: [&str; 1] = ["ms from spawn to the first read"];

/// The static build: the one that is named, or one made now.
fn static_build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("EBS_PREWARM_STATIC") {
        return Ok(path.into());
    }
    let arch = std::env::consts::ARCH;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // musl where its target is installed; else glibc, linked statically.
    let targets =
        [(format!("{arch}-unknown-linux-musl"), ""), (format!("{arch}-unknown-linux-gnu"), CRT_STATIC)];
    let mut said = String::new();
    for (target, flags) in &targets {
        eprintln!("building the static binary for {target}");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&root).args(["build", "--profile", "initramfs", "--no-default-features"]);
        cargo.args(["--target", target]).env("RUSTFLAGS", flags);
        match run::run(&mut cargo) {
            Ok(_) => {
                let built = root.join("target").join(target).join("initramfs/ebs-prewarm");
                if built.is_file() {
                    return Ok(built);
                }
                said = format!("`{}` is not there", built.display());
            }
            Err(error) => said = error.full_text(),
        }
    }
    Err(Error::failed("failed to build the static binary")
        .hint("rustup target add x86_64-unknown-linux-musl, or name a build with EBS_PREWARM_STATIC=PATH")
        .because(said))
}

const CRT_STATIC: &str = "-C target-feature=+crt-static";

/// Starts what its arguments name and prints its peak memory in KiB, after its own.
pub fn memory_of(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let Some(program) = arguments.next() else { return ExitCode::from(2) };
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    match run::run(Command::new(program).args(arguments)) {
        Ok(Ran { peak_kib, .. }) => {
            println!("{{\"own_kib\": {}, \"peak_kib\": {peak_kib}}}", own.unwrap_or("null"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", error.full_text());
            ExitCode::FAILURE
        }
    }
}

fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

struct Bed<'a> {
    binary: &'a str,
    arguments: Vec<&'a str>,
}

impl Bed<'_> {
    /// Milliseconds from before the spawn to the first read, by the report.
    fn run(&self, device: &str, prepare: impl FnOnce(&mut Command)) -> Result<f64> {
        let mut arguments = self.arguments.clone();
        arguments.extend(["--device", device]);
        let spawned_ns = process::uptime_ns();
        let (report, _) = run::ours_with(self.binary, &arguments, prepare)?;
        Ok((run::number(&report, "/first_read_uptime_s") - spawned_ns as f64 / 1e9) * 1e3)
    }
}

/// What a volume saw, of which all was to be read. A device in memory cannot tell: it is taken for a volume that is warm
/// after some reads, and its first read is all that is asked for.
fn all_read(cold: &Cold) -> Result<Stats> {
    let stats = cold.stats()?;
    let touched = stats.touched.len() as u64;
    if touched < UNITS {
        return Err(Error::failed(format!("failed to read {UNITS} units: it was {touched}")));
    }
    Ok(stats)
}

/// Milliseconds from before the spawn until the volume saw a read.
fn witnessed(bed: &Bed, cold: &Cold) -> Result<f64> {
    cold.reset()?;
    let spawned_ns = monotonic_ns();
    bed.run(&cold.device().to_string_lossy(), |_| {})?;
    let stats = all_read(cold)?;
    let first = stats.touched.first().ok_or_else(|| Error::failed("failed to see any read"))?;
    Ok((stats.mounted_at_monotonic_ns + first.at_ns).saturating_sub(spawned_ns) as f64 / 1e6)
}

fn peak_memory(binary: &str, arguments: &[&str], device: &str) -> Result<(f64, f64)> {
    let own = std::env::current_exe().context(|| "failed to find this program".into())?;
    let mut command = Command::new(own);
    command.arg(MEMORY_OF).args([binary, "--log", "error"]).args(arguments).args(["--device", device]);
    let told = run::document(&run::run(&mut command)?.stdout)?;
    Ok((run::number(&told, "/peak_kib"), run::number(&told, "/own_kib")))
}

/// What `ldd` says, and whether that means static.
fn linkage(binary: &str) -> (String, bool) {
    let Ok(output) = Command::new("ldd").arg(binary).output() else {
        return ("ldd is missing".into(), false);
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let said = said.trim().to_string();
    let is_static = said.contains("statically linked") || said.contains("not a dynamic executable");
    (said, is_static)
}

pub fn run(setup: &Setup) -> Result<Found> {
    let binary = static_build()?;
    let text = binary.to_string_lossy();
    let mut found = Found::default();
    describe(&text, &mut found)?;
    let place = Place::in_memory()?;
    let units = shuffled(VOLUME_BYTES / UNIT_BYTES);
    let offsets: Vec<u64> = units.into_iter().take(UNITS as usize).map(|unit| unit * UNIT_BYTES).collect();
    let profile = compiled(&place, "start", &offsets)?;
    let image = place.image("image", VOLUME_BYTES)?;
    let device = LoopDevice::attach(&image, LoopOptions::default())?;
    let device = device.path().to_string_lossy();
    let warm = ["warm", "--profile", &profile, "--mode", "touch"];
    let auto = Bed { binary: &text, arguments: warm.to_vec() };
    let deep = Bed { binary: &text, arguments: [&warm[..], &["--depth", DEPTH]].concat() };

    let mut table = Table::new(format!("static build, {UNITS} units, {RUNS} runs"), &COLUMNS);
    // A witness that is cold, and all of which is read: what it delays is not looked at.
    let sets = ["first_read=20ms", "sigma=0", "hydration=0", "iops=0", "throughput=0", "warm=0"];
    let cold = Cold::mount(&place, &image, "io2", 1, &sets)?;
    let runs = if setup.quick { 5 } else { RUNS };
    for _ in 0..runs {
        table.add("depth auto", &[auto.run(&device, |_| {})?]);
        table.add("depth 256", &[deep.run(&device, |_| {})?]);
        table.add("depth 256, ahead of all other processes", &[deep.run(&device, run::run_first)?]);
        table.add("depth 256, until the volume saw a read", &[witnessed(&deep, &cold)?]);
    }
    let ms = table.values("depth 256", COLUMNS[0]);
    let text_of = |ms: &[f64]| format!("median {}, at most {}", number(median(ms)), number(range(ms).1));
    found.promises.push(Promise::new(
        format!("first read after {} ms, median under {START_MS_MAX}", text_of(ms)),
        median(ms) < START_MS_MAX,
    ));
    let over = ms.iter().filter(|ms| **ms >= START_MS_MAX).count();
    if over > 0 {
        found.notes.push(format!("{over} of {} runs at depth 256 took {START_MS_MAX} ms and more", ms.len()));
    }
    let mut memory = Table::new("peak memory of the process", &["KiB"]);
    let mut floor: f64 = 0.0;
    for (name, bed) in [("depth auto", &auto), ("depth 256", &deep)] {
        for _ in 0..setup.rounds {
            cold.reset()?;
            let (peak, own) = peak_memory(&text, &bed.arguments, &cold.device().to_string_lossy())?;
            all_read(&cold)?;
            memory.add(name, &[peak]);
            floor = floor.max(own);
        }
    }
    let peak = range(memory.values("depth 256", "KiB")).1;
    found.notes.push(format!(
        "a process begins with its starter's peak: {floor:.0} KiB is the least that can be seen"
    ));
    found.promises.push(Promise::new(
        format!("at depth 256 in touch mode at most {peak:.0} KiB of memory, under {MEMORY_KIB_MAX:.0}"),
        peak < MEMORY_KIB_MAX,
    ));
    found.tables.extend([table, memory]);
    Ok(found)
}

fn describe(binary: &str, found: &mut Found) -> Result<()> {
    let bytes = std::fs::metadata(binary).context(|| format!("failed to find `{binary}`"))?.len();
    let (said, is_static) = linkage(binary);
    let version = run::run(Command::new(binary).arg("--version"))?.stdout;
    let version = String::from_utf8_lossy(&version).trim().to_string();
    let target = binary.split('/').find(|part| part.contains("-linux-")).unwrap_or("as named");
    let text = format!(
        "static build ({target}): {bytes} bytes ({:.2} MB); ldd: {said}; runs: {version}",
        bytes as f64 / 1e6
    );
    found.promises.push(Promise::new(text, is_static && version.starts_with("ebs-prewarm ")));
    Ok(())
}
