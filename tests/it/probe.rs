//! `probe`, by the real program on emulated cold volumes behind loop devices. The judge of what was hydrated is the
//! emulator's own list.

#![cfg(feature = "lab")]

use crate::profile::mbr;
use crate::support::{
    ColdFile, ColdLoop, ebs_fails, ext4_image, patterned_image, read_direct, require, require_root,
};
use crate::warm::{KIB, UNIT, Volume, number, run, seconds, start};
use ebs_prewarm::findings::{self, Best};
use ebs_prewarm::volume::Identity;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

const GIB: u64 = 1 << 30;

/// What it prints as JSON, which must be what is in its report's file.
fn probe(volume: &Volume, args: &str) -> Value {
    let file = volume.path("probe.json");
    let out = run(volume.verb("probe", &format!("--json --report {file} {args}"))).ok();
    let printed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(file).unwrap()).unwrap(), printed);
    printed
}

/// So long that no warm read of a busy machine is taken for a first one; what the test says otherwise holds.
fn volume_of(bytes: u64, model: &str, sets: &[&str]) -> Volume {
    let all: Vec<&str> = ["first_read=100ms"].iter().chain(sets).copied().collect();
    Volume::new(bytes / UNIT, model, &all)
}

#[test]
fn the_unit_is_found_on_volumes_of_any_kind() {
    if !require_root() {
        return;
    }
    for (model, unit, sets) in [
        ("gp3", 64 * KIB, &["unit=64KiB", "sigma=0.9"][..]),
        ("fine", 128 * KIB, &[]),
        ("io2", 512 * KIB, &["warm_units=0.33", "tail_range=1s..2s", "tail=0.01"]),
        ("coarse", 2048 * KIB, &["unallocated=0.3"]),
        ("gp3", 4096 * KIB, &["unit=4MiB", "hydration=1GB/s", "sigma=0.3"]),
    ] {
        let volume = volume_of(64 * GIB, model, sets);
        let report = probe(&volume, "");
        assert_eq!(report["unit"]["bytes"].as_u64(), Some(unit), "{model}: {report:#}");
        assert!(seconds(&report, "/unit/confidence") >= 0.999, "{report:#}");
        assert!(report["why"].is_null() && report["end"] == "complete", "{report:#}");
        let stats = volume.stats();
        // A cold read is taken for a warm one, or the other way round, once in a hundred times.
        let warmed = number(&report, "/units_warmed");
        assert!(
            warmed.abs_diff(stats.touched.len() as u64) <= 4,
            "{model}: {} {report:#}",
            stats.touched.len()
        );
        // What was not waited for may have been answered since.
        let beyond = stats.counters.bytes_read.checked_sub(number(&report, "/bytes_read"));
        assert!(beyond.is_some_and(|bytes| bytes <= 4096 * number(&report, "/abandoned")), "{report:#}");
        let share = 1.0 - stats.model.warm_share.max(stats.model.unallocated_share);
        let (low, high) = (seconds(&report, "/cold_share/low"), seconds(&report, "/cold_share/high"));
        assert!(low - 0.05 <= share && share <= high + 0.05, "{model}: {low} {share} {high}");
        let ratio = number(&report, "/cold_latency_us/p50") / number(&report, "/warm_latency_us/p50").max(1);
        assert!(ratio > 5, "{report:#}");
    }
}

#[test]
fn a_large_volume_takes_few_reads() {
    if !require_root() {
        return;
    }
    let volume = volume_of(500 * GIB, "gp3", &[]);
    let report = probe(&volume, "");
    assert_eq!(report["unit"]["bytes"].as_u64(), Some(UNIT), "{report:#}");
    assert!(number(&report, "/bytes_read") < 16 << 20 && number(&report, "/reads") <= 1024);
    let text = run(volume.verb("probe", "--seed 2")).ok();
    for said in
        ["is cold (", "drawn from the whole device", "unit: 512KiB, with 99.99 % confidence", "warm by that"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_volume_that_is_warm_says_so_and_has_no_unit() {
    if !require_root() {
        return;
    }
    let volume = volume_of(4 * GIB, "io2", &["warm_units=1"]);
    let report = probe(&volume, "");
    // On a busy machine warm reads may be as slow as any, at some time more than at another.
    assert!(report["unit"]["bytes"].is_null() && report["why"].is_string(), "{report:#}");
    assert!(seconds(&report, "/cold_share/low") < 0.2, "{report:#}");
    assert_eq!(volume.stats().counters.fetches, 0);
}

#[test]
fn limits_are_kept_and_volumes_of_few_blocks_are_told() {
    if !require_root() {
        return;
    }
    let volume = volume_of(16 * GIB, "io2", &[]);
    let report = probe(&volume, "--reads 20 --bytes 1MiB");
    assert!(number(&report, "/reads") <= 20 && report["end"] == "limit reached", "{report:#}");
    assert!(report["why"].is_string() && report["unit"]["bytes"].is_null());
    let small = volume_of(UNIT, "io2", &[]);
    let report = probe(&small, "");
    assert_eq!((report["end"].as_str(), report["unit"]["bytes"].as_u64()), (Some("no place left"), None));
    run(volume.verb("probe", "--bytes 12Q")).exits(2, &["failed to parse size `12Q`"]);
    run(volume.verb("probe", "--report /none/a.json")).exits(1, &["/none/a.json", "help: "]);
    let nowhere = ebs_fails(1, ["probe", "--device", "/nonexistent/disk"]);
    assert!(nowhere.contains("/nonexistent/disk") && nowhere.contains("help: "), "{nowhere}");
}

#[test]
fn what_cannot_be_read_is_counted_and_a_dead_volume_given_up() {
    if !require_root() {
        return;
    }
    let bad: Vec<String> = (0..8192).step_by(20).map(|unit| unit.to_string()).collect();
    let volume = volume_of(4 * GIB, "io2", &[&format!("eio_units={}", bad.join(","))]);
    let file = volume.path("probe.json");
    run(volume.verb("probe", &format!("--report {file}")))
        .exits(3, &["failed to read", "what is told is of all others"]);
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["unit"]["bytes"].as_u64(), Some(UNIT), "{report:#}");
    // Of a unit that is read whole, only the first failure is waited for.
    let errors = number(&report, "/errors");
    assert!(errors > 0 && volume.stats().counters.errors - errors <= 1, "{report:#}");
    let dead = volume_of(4 * GIB, "io2", &["eio_sectors=0+8388608", "first_read=1ms"]);
    run(dead.verb("probe", "")).exits(1, &["nothing but errors", &dead.device()]);
    assert!(dead.stats().counters.reads < 40, "{:?}", dead.stats().counters);
}

#[test]
fn an_interrupted_probe_tells_what_it_saw() {
    if !require_root() {
        return;
    }
    let volume = volume_of(16 * GIB, "gp3", &["hydration=2MB/s"]);
    let file = volume.path("probe.json");
    let probe = start(volume.verb("probe", &format!("--report {file}")));
    volume.wait_for(12);
    probe.signal(libc::SIGINT);
    let ran = probe.end().exits(1, &["stopped by a signal"]);
    assert!(ran.out.contains("is cold ("), "{}", ran.out);
    let report: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(report["end"], "stopped");
    assert!(number(&report, "/reads") > 0 && report["why"].is_string(), "{report:#}");
}

#[test]
fn a_stalled_read_is_not_waited_for() {
    if !require_root() {
        return;
    }
    let volume = volume_of(16 * GIB, "io2", &["sigma=0.1", "stall_fetch=5", "stall=1h"]);
    let report = probe(&volume, "");
    assert_eq!(report["unit"]["bytes"].as_u64(), Some(UNIT), "{report:#}");
    // With those that were under way beside it when all was known, on a machine that paused.
    assert!((1..=4).contains(&number(&report, "/abandoned")), "{report:#}");
    assert!(volume.stats().in_flight >= 1, "the volume still works on it: nobody waited");
}

#[test]
fn others_on_the_device_are_noticed() {
    if !require_root() {
        return;
    }
    let volume = volume_of(8 * GIB, "io2", &[]);
    let (stop, device) = (AtomicBool::new(false), volume.cold.device().to_path_buf());
    let report = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                read_direct(&device, number % 512 * 8 * KIB, 8192).unwrap();
                number += 1;
            }
        });
        let report = probe(&volume, "");
        stop.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        report
    });
    let others = number(&report, "/foreground/read_bytes");
    assert!(others >= 8192 && number(&report, "/foreground/operations") > 0, "{report:#}");
    let quiet = probe(&volume, "--seed 7");
    assert_eq!(number(&quiet, "/foreground/read_bytes"), 0, "{quiet:#}");
    assert_eq!(number(&quiet, "/foreground/operations"), 0, "{quiet:#}");
}

#[test]
fn a_profile_says_what_is_written() {
    if !require_root() {
        return;
    }
    // Of the volume nothing is cold but what the image holds: a run of units at its end.
    let written = 4096..6144u64;
    let make = |path: &Path| {
        let file = fs::File::create(path).unwrap();
        file.set_len(8 * GIB).unwrap();
        for unit in written.clone() {
            std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], unit * UNIT).unwrap();
        }
    };
    let cold = ColdLoop::on(ColdFile::made(make, "io2", &["first_read=100ms"], &["--holes-unallocated"]));
    let volume = Volume { cold };
    let blind = probe(&volume, "");
    // A busy machine's slow reads may be all that is seen of an eighth.
    let is_told = blind["why"].as_str().is_some_and(|why| why.contains("do not separate"));
    assert!(is_told || seconds(&blind, "/cold_share/high") < 0.3, "{blind:#}");
    volume.reset();
    let profile = volume.profile_of_units(written.clone());
    let report = probe(&volume, &format!("--profile {profile}"));
    assert!(report["drawn_from"].as_str().unwrap().contains("profile test"), "{report:#}");
    let touched = volume.hydrated();
    assert!(touched.iter().all(|unit| written.contains(unit)) && touched.len() > 60, "{touched:?}");
    assert!(seconds(&report, "/cold_share/low") > 0.9, "{report:#}");
    run(volume.verb("probe", "--profile /none")).exits(1, &["/none"]);
}

#[test]
fn files_say_what_is_written() {
    if !require_root() || !require("mkfs.ext4") {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    patterned_image(&tree.path().join("large"), 160 << 20);
    let make = |path: &Path| ext4_image(path, 2 * GIB, tree.path());
    let volume = Volume {
        cold: ColdLoop::on(ColdFile::made(make, "io2", &["first_read=100ms"], &["--holes-unallocated"])),
    };
    let mounted = volume.path("mounted");
    fs::create_dir(&mounted).unwrap();
    let mount = |args: &[&str]| crate::support::run(Command::new(args[0]).args(&args[1..]));
    mount(&["mount", "-o", "ro", &volume.device(), &mounted]);
    let ran = run(volume.verb("probe", &format!("--json --files {mounted}/large")));
    let elsewhere = run(volume.verb("probe", &format!("--files {}", tree.path().display())));
    mount(&["umount", &mounted]);
    let report: Value = serde_json::from_str(&ran.ok()).unwrap();
    assert_eq!(report["drawn_from"], "the files named");
    assert!(seconds(&report, "/cold_share/low") > 0.8, "{report:#}");
    assert_eq!(report["unit"]["bytes"].as_u64(), Some(UNIT), "{report:#}");
    assert_ne!(elsewhere.code, Some(0), "{}", elsewhere.err);
    assert!(elsewhere.err.contains("help: "), "{}", elsewhere.err);
}

#[test]
fn what_was_found_is_kept_for_this_volume_and_a_foreign_profile_is_refused() {
    if !require_root() {
        return;
    }
    let make = |path: &Path| {
        fs::write(path, mbr(0xabcd_1234, 2048, 8_000_000)).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_len(8 * GIB).unwrap();
    };
    let volume = Volume { cold: ColdLoop::made(make, "io2", &["first_read=100ms"]) };
    let folder = volume.path("findings");
    let report = probe(&volume, &format!("--save --findings {folder}"));
    assert!(report["notes"].to_string().contains("kept for `warm`"), "{report:#}");
    let identity: Identity = serde_json::from_value(report["volume"].clone()).unwrap();
    assert_eq!(identity.table_uuid.as_deref(), Some("abcd1234"));
    let known = findings::load(Path::new(&folder), &identity).unwrap().unwrap();
    assert_eq!((known.unit_bytes(), known.measured_by.as_str(), &known.best), (Some(UNIT), "probe", &None));
    assert!(known.cold_us > 10 * known.warm_us && known.measured_unix_s > 1_600_000_000);
    // What `bench` found best outlives a probe that finds the same unit, and all of it one that finds none.
    let (mut measured, reason) = (known, "measured".into());
    measured.best = Some(Best { mode: "full".into(), depth: 16, hydrated_bytes_per_s: 1e8, reason });
    (measured.measured_by, measured.cold_us) = ("bench".into(), 1);
    let path = findings::save(Path::new(&folder), &measured).unwrap().unwrap();
    volume.reset();
    probe(&volume, &format!("--save --findings {folder} --seed 2"));
    let known = findings::load(Path::new(&folder), &identity).unwrap().unwrap();
    assert_eq!((known.unit_bytes(), &known.best), (Some(UNIT), &measured.best));
    assert!(known.measured_by == "bench" && known.cold_us > 1, "{known:?}");
    let kept = fs::read(&path).unwrap();
    let report = probe(&volume, &format!("--save --findings {folder} --reads 20"));
    assert!(report["notes"].to_string().contains("nothing is kept for `warm`"), "{report:#}");
    assert_eq!(fs::read(&path).unwrap(), kept);
    let bare = volume_of(8 * GIB, "io2", &[]);
    let report = probe(&bare, &format!("--save --findings {folder}"));
    assert!(report["notes"].to_string().contains("not kept"), "{report:#}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}
