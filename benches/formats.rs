//! How long it takes to load a profile, how large its forms are, and what they need of memory.
//!
//! `cargo bench --bench formats` prints a table; with a profile as its argument it measures that one.

use ebs_prewarm::extent::Extent;
use ebs_prewarm::profile::bind::resolve;
use ebs_prewarm::profile::{Entry, Profile, Stage, compiled, load, yaml};
use ebs_prewarm::volume::{Identity, Partition};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The system's allocator, counting.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 201;

/// Median and least of many.
fn time<T>(mut run: impl FnMut() -> T) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let value = black_box(run());
            let elapsed = start.elapsed();
            drop(value);
            elapsed
        })
        .collect();
    times.sort();
    (times[ROUNDS / 2], times[0])
}

/// Bytes allocated at most while it runs, over what was there before.
fn peak<T>(run: impl FnOnce() -> T) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    black_box(run());
    PEAK.load(Relaxed) - before
}

/// Extents like those of a boot from an 8 GiB disk: files all over the root partition, each read in a few pieces
/// of 4 to 128 KiB with small gaps, among them some in no alignment.
fn boot(extents: usize) -> Profile {
    let part = |number, start, sectors, partuuid: &str, fs: &str| Partition {
        number,
        start,
        sectors,
        partuuid: Some(partuuid.into()),
        fs_uuid: Some(fs.into()),
    };
    let volume = Identity {
        sectors: 1 << 24,
        table_uuid: Some("c5a0a5a3-9a52-4f5e-8d8b-6a4f8a2f4d10".into()),
        partitions: vec![
            part(
                1,
                262_144,
                (1 << 24) - 262_144 - 34,
                "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
                "0f1e2d3c-4b5a-4697-8877-665544332211",
            ),
            part(15, 10_240, 253_952 - 10_240, "5c7e4fd5-63f4-4b4e-8a2f-0d1f6a3b7c22", "9A7B-11FF"),
        ],
        ..Identity::default()
    };
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |max: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % max
    };
    let blocks = (volume.partitions[0].sectors - 4096) / 8;
    let mut stages = Vec::new();
    for (name, share) in [("initrd", 5), ("sysinit", 35), ("ready", 40), ("later", 20)] {
        let mut entries = Vec::new();
        let mut at = 0;
        let mut pieces = 0;
        while entries.len() < extents * share / 100 {
            if pieces == 0 {
                (at, pieces) = (below(blocks), 1 + below(6));
            }
            let length = [1, 1, 1, 2, 4, 8, 16, 32, 32][below(9) as usize];
            let first_use_ms = 900 + (entries.len() as u64 * 90_000 / extents as u64) as u32;
            let stall_ms = if below(4) == 0 { 20 + below(60) as u32 } else { below(3) as u32 };
            let boot_sector = entries.len() % 1000 == 0;
            let extent =
                if boot_sector { Extent::at(below(2048), 1) } else { Extent::at(at * 8, length * 8) };
            let Some(extent) = extent.filter(|extent| extent.end() <= blocks * 8) else {
                pieces = 0;
                continue;
            };
            let region = if boot_sector { 2 } else { 1 };
            entries.push(Entry { region, extent, first_use_ms, stall_ms });
            at += length + below(4);
            pieces -= 1;
        }
        stages.push(Stage { name: name.into(), entries });
    }
    Profile {
        name: "boot".into(),
        regions: volume.regions(),
        volume: Some(volume),
        recordings: vec!["6f9619ff-8b86-d011-b42d-00cf4fc964ff".into()],
        events: 2 * extents as u64,
        lost: 0,
        stages,
    }
}

fn units(profile: &Profile) -> usize {
    let units: std::collections::HashSet<u64> = profile
        .stages
        .iter()
        .flat_map(|stage| &stage.entries)
        .filter_map(|entry| entry.extent.shifted(profile.regions[usize::from(entry.region)].start as i64))
        .flat_map(|extent| extent.units(1024))
        .collect();
    units.len()
}

fn row(what: &str, bytes: &[u8], profile: &Profile, goal_ms: Option<u32>) {
    let count = profile.extents();
    let (median, least) = time(|| load(bytes).expect("what was just written"));
    let memory = peak(|| load(bytes).expect("what was just written"));
    let goal = goal_ms.map_or(String::new(), |goal| format!("goal {goal} ms"));
    println!(
        "{what:<9} {count:>8} {:>11} {:>9.2} {:>9.2} {:>10.3} {:>10.3} {:>10.2}  {goal}",
        bytes.len(),
        bytes.len() as f64 / count as f64,
        bytes.len() as f64 / units(profile) as f64,
        median.as_secs_f64() * 1e3,
        least.as_secs_f64() * 1e3,
        memory as f64 / 1e6,
    );
}

fn main() {
    let given = std::env::args().nth(1).filter(|path| !path.starts_with("--"));
    let profiles: Vec<Profile> = match given {
        Some(path) => vec![load(&std::fs::read(path).expect("a readable file")).expect("a profile")],
        None => [1_000, 10_000, 100_000].map(boot).into(),
    };
    println!("median and least of {ROUNDS} loads; memory is the most allocated while loading");
    println!(
        "{:<9} {:>8} {:>11} {:>9} {:>9} {:>10} {:>10} {:>10}",
        "form", "extents", "bytes", "b/extent", "b/512KiB", "median ms", "least ms", "MB peak"
    );
    for profile in &profiles {
        profile.validate().expect("a valid profile");
        let goal = |ms| (profile.extents() >= 100_000).then_some(ms);
        row("compiled", &compiled::encode(profile), profile, goal(2));
        row("people", yaml::write(profile).as_bytes(), profile, goal(5));
        let volume = profile.volume.clone().unwrap_or_else(|| Identity::of_size(profile.regions[0].sectors));
        let (median, _) = time(|| resolve(profile, &volume).expect("its own volume"));
        println!("  resolved on its volume in {:.3} ms", median.as_secs_f64() * 1e3);
    }
}
