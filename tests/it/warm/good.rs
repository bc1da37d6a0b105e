//! What `warm` and `plan` do when all is well.

use super::*;
use crate::profile::mbr;
use std::os::unix::fs::FileExt;

/// A volume that answers soon.
const QUICK: &[&str] = &["first_read=5ms", "sigma=0"];

#[test]
fn each_unit_of_the_profile_is_hydrated_and_no_other() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(256, "io2", QUICK);
    let list = volume.path("list");
    // Within a unit, across a border of units, a unit twice, a whole unit and more.
    fs::write(&list, "35651584 4096\n5240832 4096\n35700000 100\n104857600 600000\n0 512\n").unwrap();
    let (rec, yaml, bin) = (volume.path("l.rec"), volume.path("l.yaml"), volume.path("l.bin"));
    ebs(["profile", "import", "-o", &rec, "--format", "list", &list, "--device", &volume.device()]);
    ebs(["profile", "build", "-o", &yaml, &rec]);
    ebs(["profile", "compile", "-o", &bin, &yaml]);
    let expected = set([0, 9, 10, 68, 200, 201]);
    for (profile, mode, reads) in [(&yaml, "touch", 6), (&bin, "touch", 6), (&bin, "full", 7)] {
        volume.reset();
        run(volume.warm(&format!("--profile {profile} --mode {mode}"))).ok();
        assert_eq!(set(volume.hydrated()), expected, "{mode}");
        assert_eq!(volume.stats().cold_units, 250);
        let report = volume.report();
        assert_eq!(report["end"], "complete");
        assert_eq!((report["mode"].as_str(), number(&report, "/unit_bytes")), (Some(mode), UNIT));
        assert_eq!((number(&report, "/totals/units"), number(&report, "/totals/units_left")), (6, 0));
        assert_eq!(number(&report, "/totals/reads"), reads, "{report:#}");
        assert_eq!(number(&report, "/totals/errors"), 0);
    }
}

#[test]
fn the_report_says_what_the_design_promises() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", QUICK);
    let profile = volume.profile_of_units(0..32);
    let out = run(volume.warm(&format!("--profile {profile} --mode touch --depth 8 --json"))).ok();
    let printed: Value = serde_json::from_str(&out).expect("one document on stdout");
    let report = volume.report();
    assert_eq!(printed, report, "what is printed is what is written");
    assert_eq!(report["device"].as_str(), Some(volume.device().as_str()));
    assert_eq!(number(&report, "/volume/sectors"), 64 * UNIT_SECTORS);
    assert!(report["engine"].as_str().unwrap().starts_with("io_uring ("), "{}", report["engine"]);
    assert!(report["engine"].as_str().unwrap().contains("restricted to reads"), "{}", report["engine"]);
    let stage = &report["stages"][0];
    assert_eq!(stage["name"], "ready");
    for (field, expected) in
        [("units", 32), ("reads", 32), ("bytes", 32 * 4096), ("errors", 0), ("units_left", 0)]
    {
        assert_eq!(number(stage, &format!("/{field}")), expected, "{field}");
    }
    assert!(seconds(stage, "/started_s") >= 0.0);
    let elapsed_s = seconds(stage, "/elapsed_s");
    // Eight at a time, each of 5 ms at the least.
    assert!(elapsed_s >= 0.02 && seconds(&report, "/totals/elapsed_s") >= elapsed_s, "{report:#}");
    assert!(seconds(&report, "/totals/cpu_s") > 0.0);
    assert_eq!(number(&report, "/totals/bytes_read"), 32 * 4096);
    assert_eq!(number(&report, "/totals/already_warm"), 0);
    assert_eq!(number(&report, "/totals/verified"), 16);
    for field in ["retries", "verify_failed"] {
        number(&report, &format!("/totals/{field}"));
    }
    let latencies: Vec<u64> = ["p50", "p90", "p99", "p999", "max"]
        .iter()
        .map(|at| number(&report, &format!("/latency_us/{at}")))
        .collect();
    assert!(latencies.is_sorted() && latencies[0] >= 5_000, "{latencies:?}");
    for field in ["initial", "max", "final"] {
        assert_eq!(number(&report, &format!("/depth/{field}")), 8);
    }
    assert_eq!(report.get("error"), None);
}

#[test]
fn stages_are_warmed_in_order_and_entries_within_them() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(128, "io2", QUICK);
    let at = |units: &[u64]| units.iter().map(|unit| (unit * UNIT + 4096, 4096)).collect::<Vec<_>>();
    let (first, second, third) = (at(&[90, 3, 77]), at(&[5, 90, 4]), at(&[127, 0]));
    let profile = volume.profile(&[("initrd", &first), ("ready", &second), ("later", &third)]);
    run(volume.warm(&format!("--profile {profile} --depth 1 --mode touch"))).ok();
    let order: Vec<u64> = volume.stats().touched.iter().map(|touch| touch.unit).collect();
    assert_eq!(order, [90, 3, 77, 5, 4, 127, 0], "one at a time, each unit once, at its first stage");
    let report = volume.report();
    let stages = report["stages"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["initrd", "ready", "later"]);
    assert_eq!(stages.iter().map(|stage| number(stage, "/units")).collect::<Vec<_>>(), [3, 2, 2]);
    let starts: Vec<f64> = stages.iter().map(|stage| seconds(stage, "/started_s")).collect();
    assert!(starts.is_sorted(), "{starts:?}");
}

#[test]
fn the_rest_is_everything_else() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "io2", QUICK);
    let profile = volume.profile_of_units([70, 20]);
    run(volume.warm(&format!("--profile {profile} --rest all --depth 1"))).ok();
    assert_eq!(volume.stats().cold_units, 0);
    let order: Vec<u64> = volume.stats().touched.iter().map(|touch| touch.unit).collect();
    assert_eq!(order[..4], [70, 20, 0, 1], "the profile first");
    let report = volume.report();
    assert_eq!(
        (number(&report, "/stages/1/units"), report["stages"][1]["name"].as_str()),
        (98, Some("rest"))
    );
    // Without a profile, and without knowing anything of the volume.
    volume.reset();
    run(volume.warm("--rest all")).ok();
    assert_eq!(volume.stats().cold_units, 0);
    assert_eq!(volume.report()["profile"], "");
}

/// Extents of a profile in bytes, all within 4 KiB blocks, on a volume of units of 128 KiB.
const FINE: [(u64, u64); 6] = [
    (0, 4096),
    (UNIT - 8192, 16384),
    (3 * UNIT, UNIT),
    (9 * UNIT + 130 * KIB, 4096),
    (20 * UNIT + 100 * KIB, 200 * KIB),
    (31 * UNIT + 508 * KIB, 4096),
];
/// So far apart that no machine takes one for the other.
const FAR_APART: &[&str] = &["first_read=150ms", "sigma=0"];

fn fine_units() -> BTreeSet<u64> {
    FINE.iter().flat_map(|(offset, bytes)| Extent::of_bytes(*offset, *bytes).unwrap().units(256)).collect()
}

#[test]
fn a_unit_that_is_smaller_than_thought_is_noticed_and_every_byte_is_read() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "fine", FAR_APART);
    let profile = volume.profile(&[("ready", &FINE)]);
    let ran =
        run(volume.warm(&format!("--profile {profile}"))).exits(0, &["the unit is smaller than 512KiB"]);
    assert!(fine_units().is_subset(&set(volume.hydrated())), "{:?}", volume.hydrated());
    let report = volume.report();
    assert_eq!(report["mode"], "full");
    let notes = report["notes"].to_string();
    assert!(notes.contains("the unit is smaller than 512KiB") && notes.contains("every byte"), "{notes}");
    assert!(number(&report, "/totals/verify_failed") > 0);
    assert_eq!(number(&report, "/totals/units_left"), 0);
    // The second pass began after the first, and all of both is counted.
    assert!(seconds(&report, "/stages/0/started_s") >= 0.3, "{report:#}");
    assert!(seconds(&report, "/totals/elapsed_s") >= seconds(&report, "/stages/0/started_s"));
    assert!(ran.out.contains("note: the unit is smaller"), "{}", ran.out);
}

#[test]
fn the_deadline_holds_for_both_passes_together() {
    if !require_root() {
        return;
    }
    // Touching takes 1.2 s, its verification 2.4 s, every byte 3.6 s: none of them reaches the deadline by itself.
    let volume = Volume::new(64, "fine", &["first_read=150ms", "sigma=0", "fetches=2"]);
    let all: Vec<(u64, u64)> = (0..16).map(|unit| (unit * UNIT, UNIT)).collect();
    let profile = volume.profile(&[("ready", &all)]);
    run(volume.warm(&format!("--profile {profile} --deadline 5s")))
        .exits(5, &["of 16 units are left", "--deadline"]);
    let report = volume.report();
    assert_eq!(report["end"], "deadline");
    assert!((1..=16).contains(&number(&report, "/totals/units_left")), "{report:#}");
    let started_s = report["stages"][0]["started_s"].as_f64().unwrap_or(0.0);
    assert!(started_s < 5.1, "no read is submitted after the deadline: {report:#}");
}

#[test]
fn a_unit_that_is_named_is_touched_at_each_of_its_own() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "fine", QUICK);
    let profile = volume.profile(&[("ready", &FINE)]);
    run(volume.warm(&format!("--profile {profile} --unit 128KiB --mode touch"))).ok();
    assert_eq!(set(volume.hydrated()), fine_units());
    assert_eq!(number(&volume.report(), "/totals/units"), fine_units().len() as u64);
}

#[test]
fn the_rest_of_a_unit_is_read_in_full_mode_too() {
    if !require_root() {
        return;
    }
    let volume =
        Volume::new(40, "fine", &["first_read=1ms", "sigma=0", "hydration=0", "throughput=0", "iops=0"]);
    let profile = volume.profile(&[("ready", &FINE)]);
    run(volume.warm(&format!("--profile {profile} --mode full --rest all"))).ok();
    assert_eq!(volume.stats().cold_units, 0);
    assert_eq!(number(&volume.report(), "/totals/bytes_read"), 40 * UNIT, "each byte once");
}

#[test]
fn a_partition_that_moved_is_followed() {
    if !require_root() {
        return;
    }
    let make = |start: u32| {
        let mut bytes = mbr(0xabcd_1234, start, 64 * 1024);
        bytes.resize(512, 0);
        move |path: &Path| {
            let file = fs::File::create(path).unwrap();
            file.set_len(128 * UNIT).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
        }
    };
    let recorded = Volume { cold: ColdLoop::made(make(2048), "io2", QUICK) };
    let moved = Volume { cold: ColdLoop::made(make(2048 + 10 * 1024), "io2", QUICK) };
    let list = recorded.path("list");
    fs::write(&list, format!("{} 4096\n{} 4096\n", 12 * UNIT, 30 * UNIT)).unwrap();
    let (rec, yaml) = (recorded.path("l.rec"), recorded.path("l.yaml"));
    ebs(["profile", "import", "-o", &rec, "--format", "list", &list, "--device", &recorded.device()]);
    ebs(["profile", "build", "-o", &yaml, &rec]);
    moved.reset();
    run(moved.warm(&format!("--profile {yaml} --mode touch"))).ok();
    // Unit 0 holds the partition table.
    assert_eq!(set(moved.hydrated()), set([0, 22, 40]));
    assert_eq!(moved.report()["volume"]["table_uuid"], "abcd1234");
}

#[test]
fn a_plan_shows_what_warm_does_and_reads_nothing() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(128, "io2", QUICK);
    let profile =
        volume.profile(&[("initrd", &[(0, 4096), (5 * UNIT, 2 * UNIT)]), ("ready", &[(9 * UNIT, 512)])]);
    for args in ["--mode touch", "--mode full", "--mode touch --rest all"] {
        let out = run(volume.verb("plan", &format!("--profile {profile} --json {args}"))).ok();
        let plan: Value = serde_json::from_str(&out).unwrap();
        assert!(volume.hydrated().is_empty(), "a plan reads nothing");
        run(volume.warm(&format!("--profile {profile} {args}"))).ok();
        let report = volume.report();
        for field in ["units", "reads"] {
            assert_eq!(plan[field], report["totals"][field], "{args}: {field}");
        }
        assert_eq!(plan["bytes"], report["totals"]["bytes_read"], "{args}");
        assert!(seconds(&plan, "/expected_s") > 0.0);
        assert!(seconds(&plan, "/prices/fast_snapshot_restore_per_month_usd") == 540.0);
        volume.reset();
    }
    let text = run(volume.verb("plan", &format!("--profile {profile}"))).ok();
    assert!(text.contains("initrd") && text.contains("in all 4 reads"), "{text}");
}

#[test]
fn two_at_once_on_one_device_both_end_well() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(300, "io2", &["first_read=20ms"]);
    let profile = volume.profile_of_units(0..300);
    let one = |name: &str| {
        let mut command = volume.verb("warm", &format!("--profile {profile} --depth 256 --mode touch"));
        command.args(["--report", &volume.path(name)]);
        start(command)
    };
    let both = [one("a.json"), one("b.json")];
    both.into_iter().for_each(|warm| drop(warm.end().ok()));
    assert_eq!((volume.stats().cold_units, volume.stats().counters.fetches), (0, 300));
    for name in ["a.json", "b.json"] {
        let report = read_report(Path::new(&volume.path(name)));
        assert_eq!((report["end"].as_str(), number(&report, "/totals/reads")), (Some("complete"), 300));
    }
}
