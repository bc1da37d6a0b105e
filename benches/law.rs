//! Is the emulator honest? What it delivers beside what its law says, and how many reads a second it can carry
//! where the law sets no limit. `cargo bench --bench law`, or `-- io2` for the lines that name it; the loop
//! devices want root. A machine that does other things answers late: look at the load that is printed.
//!
//! Latencies are judged on the emulator's own file; those through a loop device are shown beside, with what the
//! device adds of its own. Rates are judged through the loop device, where there is one.
//!
//! What the law says is computed, not assumed: the same reads, in the same order, under the same seed, go
//! through `cold` in virtual time.

use ebs_prewarm::cold::{ColdVolume, Model, Op, sectors_of};
use ebs_prewarm::extent::{Extent, ExtentSet};
use ebs_prewarm::lab::{LoopDevice, LoopOptions, Mount, Options};
use io_uring::{IoUring, opcode, types};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const ROUNDS: usize = 3;
const VOLUME_BYTES: u64 = 2 << 30;
const SEED: u64 = 1;
const READ_BYTES: usize = 4096;
/// The request queue of a loop device; more come back with EAGAIN.
const DEPTH_MAX: usize = 128;
/// The promise: within 5 % of the law, and 20,000 reads a second.
const RATIO_MAX: f64 = 1.05;
const READS_PER_S_MIN: f64 = 20_000.0;

/// One line of the table: some reads of a model at a depth, timed as a whole or each.
struct Case {
    name: &'static str,
    model: &'static str,
    warm: bool,
    depth: usize,
    reads: u64,
    /// Median latency instead of reads a second.
    latency: bool,
}

const CASES: [Case; 8] = [
    Case { name: "cold p50", model: "gp3", warm: false, depth: 1, reads: 60, latency: true },
    Case { name: "cold p50", model: "io2", warm: false, depth: 1, reads: 60, latency: true },
    Case { name: "warm p50", model: "gp3", warm: true, depth: 1, reads: 2000, latency: true },
    Case { name: "warm p50", model: "io2", warm: true, depth: 1, reads: 3000, latency: true },
    Case { name: "units/s", model: "gp3", warm: false, depth: 64, reads: 1000, latency: false },
    Case { name: "units/s", model: "io2", warm: false, depth: 128, reads: 4096, latency: false },
    Case { name: "reads/s", model: "gp3", warm: true, depth: 64, reads: 6000, latency: false },
    Case { name: "reads/s", model: "io2", warm: true, depth: 64, reads: 100_000, latency: false },
];

impl Case {
    fn model(&self) -> Model {
        let mut model = Model::named(self.model).unwrap();
        if self.warm {
            model.set("warm_units", "1").unwrap();
        }
        model
    }

    /// The offset of a read: another unit each, in an order that is not that of addresses.
    fn offset(&self, number: u64, unit_bytes: u64) -> u64 {
        let units = VOLUME_BYTES / unit_bytes;
        (number * 1237 % units) * unit_bytes
    }

    fn result(&self, latencies_ns: &mut [u64], elapsed_ns: u64) -> f64 {
        latencies_ns.sort_unstable();
        match self.latency {
            true => latencies_ns[latencies_ns.len() / 2] as f64,
            false => self.reads as f64 * 1e9 / elapsed_ns as f64,
        }
    }

    /// What the law says, in virtual time.
    fn law(&self) -> f64 {
        let model = self.model();
        let unit_bytes = model.unit_bytes;
        let mut law = ColdVolume::new(model, sectors_of(VOLUME_BYTES), SEED, ExtentSet::new());
        let (mut now_ns, mut next) = (0, 0);
        let mut begun = Vec::new();
        let mut latencies = Vec::new();
        while latencies.len() < self.reads as usize {
            while next < self.reads && next - (latencies.len() as u64) < self.depth as u64 {
                let offset = self.offset(next, unit_bytes);
                begun.push(now_ns);
                law.submit(now_ns, next, Op::Read, Extent::of_bytes(offset, READ_BYTES as u64).unwrap());
                next += 1;
            }
            now_ns = law.next_due_ns().unwrap().max(now_ns);
            while let Some(answer) = law.pop_due(now_ns) {
                latencies.push(answer.at_ns - begun[answer.id as usize]);
            }
        }
        self.result(&mut latencies, now_ns)
    }

    /// What the device delivers.
    fn delivered(&self, device: &Path) -> f64 {
        let unit_bytes = self.model().unit_bytes;
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(device).unwrap();
        let started = Instant::now();
        let offset = |number| self.offset(number, unit_bytes);
        let mut latencies = match self.depth {
            1 => read_one_by_one(&file, self.reads, offset),
            depth => read_all(&file, self.reads, depth, offset),
        };
        self.result(&mut latencies, started.elapsed().as_nanos() as u64)
    }
}

#[repr(align(4096))]
#[derive(Clone)]
struct Block([u8; READ_BYTES]);

/// Reads a block at each offset by `pread`; io_uring would hand a lone read of FUSE to a thread of its own first.
fn read_one_by_one(file: &File, reads: u64, offset: impl Fn(u64) -> u64) -> Vec<u64> {
    let mut block = Block([0; READ_BYTES]);
    let one = |number| {
        let begun = Instant::now();
        file.read_exact_at(&mut block.0, offset(number)).unwrap();
        begun.elapsed().as_nanos() as u64
    };
    (0..reads).map(one).collect()
}

/// Reads a block at each offset, `depth` at a time; gives the latencies.
fn read_all(file: &File, reads: u64, depth: usize, offset: impl Fn(u64) -> u64) -> Vec<u64> {
    assert!(depth <= DEPTH_MAX);
    let mut ring = IoUring::new(DEPTH_MAX as u32).unwrap();
    let mut blocks = vec![Block([0; READ_BYTES]); depth];
    let mut begun = vec![Instant::now(); depth];
    let mut free: Vec<usize> = (0..depth).collect();
    let mut latencies = Vec::with_capacity(reads as usize);
    let mut next = 0;
    while latencies.len() < reads as usize {
        while next < reads
            && let Some(slot) = free.pop()
        {
            let read = opcode::Read::new(
                types::Fd(file.as_raw_fd()),
                blocks[slot].0.as_mut_ptr(),
                READ_BYTES as u32,
            );
            begun[slot] = Instant::now();
            // SAFETY: the block and the file outlive the read: the loop ends when all are reaped, and no slot is
            // given out twice.
            unsafe { ring.submission().push(&read.offset(offset(next)).build().user_data(slot as u64)) }
                .unwrap();
            next += 1;
        }
        ring.submit_and_wait(1).unwrap();
        for entry in ring.completion() {
            assert_eq!(entry.result(), READ_BYTES as i32);
            let slot = entry.user_data() as usize;
            latencies.push(begun[slot].elapsed().as_nanos() as u64);
            free.push(slot);
        }
    }
    latencies
}

/// Something to read: the emulator's file, and a loop device on it where we may make one.
struct Bed {
    _dir: tempfile::TempDir,
    image: PathBuf,
    mounted: PathBuf,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let (image, mounted) = (dir.path().join("image"), dir.path().join("cold"));
        File::create(&image).unwrap().set_len(VOLUME_BYTES).unwrap();
        std::fs::create_dir(&mounted).unwrap();
        Bed { _dir: dir, image, mounted }
    }

    fn mount(&self, model: Model) -> Mount {
        Mount::new(&self.image, &self.mounted, model, SEED, Options::default()).unwrap()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Delivered on the emulator's file and on a loop device on it, as medians of the rounds.
fn rounds(bed: &Bed, case: &Case) -> (f64, Option<f64>) {
    let (mut on_file, mut on_loop) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mount = bed.mount(case.model());
        on_file.push(case.delivered(&mount.volume_path()));
        mount.reset().unwrap();
        if let Ok(device) = LoopDevice::attach(&mount.volume_path(), LoopOptions::default()) {
            on_loop.push(case.delivered(device.path()));
        }
    }
    (median(on_file), (!on_loop.is_empty()).then(|| median(on_loop)))
}

fn honesty(bed: &Bed, words: &[String]) -> bool {
    let pressure = || std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", pressure().trim());
    let head = ("what", "model", "depth", "law", "file", "ratio", "loop", "ratio");
    println!(
        "{:<10}{:<7}{:<7}{:>12}{:>12}{:>8}{:>12}{:>8}",
        head.0, head.1, head.2, head.3, head.4, head.5, head.6, head.7
    );
    let mut honest = true;
    let wanted = |case: &&Case| {
        let line = format!("{} {}", case.name, case.model);
        words.iter().all(|word| line.contains(word))
    };
    for case in CASES.iter().filter(wanted) {
        let law = case.law();
        let (on_file, on_loop) = rounds(bed, case);
        let ratio = |value: f64| if case.latency { value / law } else { law / value };
        let judged = if case.latency { on_file } else { on_loop.unwrap_or(on_file) };
        honest &= (1.0 / RATIO_MAX..RATIO_MAX).contains(&ratio(judged));
        let shown = |value: f64| match case.latency {
            true => format!("{:.3} ms", value / 1e6),
            false => format!("{value:.0}/s"),
        };
        print!("{:<10}{:<7}{:<7}{:>12}", case.name, case.model, case.depth, shown(law));
        print!("{:>12}{:>8.3}", shown(on_file), ratio(on_file));
        match on_loop {
            Some(on_loop) => println!("{:>12}{:>8.3}", shown(on_loop), ratio(on_loop)),
            None => println!("{:>12}", "not root"),
        }
    }
    println!("load after: {}", pressure().trim());
    honest
}

/// Reads a second as fio counts them.
fn fio(device: &Path) -> Option<f64> {
    let output = Command::new("fio")
        .args(["--ioengine=io_uring", "--direct=1", "--rw=randread", "--bs=4k", "--iodepth=64", "--readonly"])
        .args(["--time_based", "--runtime=3", "--name=law", "--output-format=json"])
        .arg(format!("--filename={}", device.display()))
        .output()
        .ok()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    report["jobs"][0]["read"]["iops"].as_f64()
}

fn capacity(bed: &Bed) -> bool {
    let mut model = Model::named("gp3").unwrap();
    for (key, value) in [("iops", "0"), ("throughput", "0"), ("warm", "0"), ("warm_units", "1")] {
        model.set(key, value).unwrap();
    }
    println!("\n4 KiB reads a second at depth 64 (fio, io_uring, direct), no limits, all units warm");
    let mut enough = true;
    let mut tell = |name: &str, promised: bool, device: &Path| {
        let rates: Option<Vec<f64>> = (0..ROUNDS).map(|_| fio(device)).collect();
        match rates.map(median) {
            Some(rate) => {
                enough &= !promised || rate >= READS_PER_S_MIN;
                println!("{name:<42}{rate:>10.0}");
            }
            None => println!("{name:<42}   not run: fio is missing or failed"),
        }
    };
    let mount = bed.mount(model);
    tell("the emulator's file", true, &mount.volume_path());
    match LoopDevice::attach(&mount.volume_path(), LoopOptions::default()) {
        Ok(device) => tell("a loop device on it", true, device.path()),
        Err(error) => println!("a loop device on it: {}", error.full_text()),
    }
    drop(mount);
    match LoopDevice::attach(&bed.image, LoopOptions::default()) {
        Ok(device) => tell("a loop device on the image, no emulator", false, device.path()),
        Err(error) => println!("a loop device on the image: {}", error.full_text()),
    }
    enough
}

/// Operations a second of the law alone, with as many in flight as a fast volume has.
fn law_speed() {
    let (reads, in_flight) = (300_000, 256);
    let model = Model::named("io2").unwrap();
    let unit_sectors = model.unit_sectors();
    let mut law = ColdVolume::new(model, reads * unit_sectors, SEED, ExtentSet::new());
    let started = Instant::now();
    let mut now_ns = 0;
    for id in 0..reads {
        law.submit(now_ns, id, Op::Read, Extent::at(id * unit_sectors, 8).unwrap());
        while id >= in_flight && law.pop_due(now_ns).is_none() {
            now_ns = law.next_due_ns().unwrap();
        }
    }
    println!("\nthe law alone: {:.0} cold reads a second", reads as f64 / started.elapsed().as_secs_f64());
}

fn main() {
    // Measured is the emulator, not how the reader fares among other processes; refused if not root.
    // SAFETY: takes and returns numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let bed = Bed::new();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let honest = honesty(&bed, &words);
    let enough = !words.is_empty() || capacity(&bed);
    law_speed();
    println!("\nwithin 5 % of its law: {honest}; at least {READS_PER_S_MIN} reads a second: {enough}");
    if !(honest && enough) {
        std::process::exit(1);
    }
}
