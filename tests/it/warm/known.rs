//! What `bench` and `probe` found of a volume, taken up by `warm`; and a unit that is wrong, noticed by verification
//! whoever named it.

use super::*;
use crate::profile::mbr;
use ebs_prewarm::findings::{self, Best, Findings, Unit};
use ebs_prewarm::volume::Identity;

/// Unit of the model `fine`.
const FINE_UNIT: u64 = 128 * KIB;
/// Nothing but first reads takes time.
const SOON: &[&str] = &["hydration=0", "throughput=0", "iops=0"];
/// And those so much that no busy machine takes them for warm ones.
const FAR_APART: &[&str] = &["hydration=0", "throughput=0", "iops=0", "first_read=150ms", "sigma=0"];

/// A volume of the model `fine` that is recognised by its partition table, 0x`signature`.
fn fine(signature: u32, units: u64, sets: &[&str]) -> Volume {
    let make = move |path: &Path| {
        fs::write(path, mbr(signature, 2048, 60_000)).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_len(units * UNIT).unwrap();
    };
    Volume { cold: ColdLoop::made(make, "fine", sets) }
}

/// Findings about a volume that were not measured.
fn claimed(volume: &Volume, unit_bytes: u64, mode: &str) -> String {
    let device = Device::open(volume.cold.device()).unwrap();
    let identity = device.identity(Path::new("/"), |_| false).unwrap();
    let mut claimed = Findings::new(identity, "bench", 1_700_000_000);
    claimed.unit = Some(Unit { bytes: unit_bytes, confidence: 0.9999 });
    claimed.best =
        Some(Best { mode: mode.into(), depth: 16, hydrated_bytes_per_s: 1e8, reason: "said so".into() });
    let folder = volume.path("findings");
    findings::save(Path::new(&folder), &claimed).unwrap().expect("a volume that is recognised");
    folder
}

fn notes(report: &Value) -> String {
    report["notes"].to_string()
}

#[test]
fn what_bench_found_of_a_volume_is_what_warm_touches_by() {
    if !require_root() {
        return;
    }
    let volume = fine(0xf1e1_0001, 65 * 32, &["first_read=60ms", "sigma=0.1"]);
    let folder = volume.path("findings");
    let bench = format!("--methods touch@32,full@4 --first-touches 64 --budget 512MiB --findings {folder}");
    run(volume.verb("bench", &bench)).ok();
    let measured = volume.stats().touched.len() as u64;
    assert!(volume.stats().cold_units > 2 * measured, "there is something left to warm");
    let shown = run(volume.verb("plan", &format!("--json --rest all --findings {folder}"))).ok();
    assert_eq!(number(&serde_json::from_str(&shown).unwrap(), "/unit_bytes"), FINE_UNIT);
    run(volume.warm(&format!("--rest all --findings {folder}"))).ok();
    let (stats, report) = (volume.stats(), volume.report());
    assert_eq!(stats.cold_units, 0, "{report:#}");
    assert_eq!((number(&report, "/unit_bytes"), report["mode"].as_str()), (FINE_UNIT, Some("touch")));
    assert!(notes(&report).contains("units of 128KiB, as `bench` found on this volume"), "{report:#}");
    assert!(number(&report, "/totals/verified") > 0 && report["unit_is_wrong"] == false, "{report:#}");
    let bytes = number(&report, "/totals/bytes_read");
    assert_eq!(bytes, 4096 * 65 * 32 * UNIT / FINE_UNIT, "one block a unit: {report:#}");
}

#[test]
fn what_probe_kept_serves_a_profile_as_well() {
    if !require_root() {
        return;
    }
    let volume = fine(0xf1e1_0002, 16 << 10, SOON);
    let folder = volume.path("findings");
    run(volume.verb("probe", &format!("--save --findings {folder}"))).ok();
    volume.reset();
    let profile = volume.profile(&[("ready", &[(3 * UNIT, 4 * UNIT), (40 * UNIT + 8192, 4096)])]);
    run(volume.warm(&format!("--profile {profile} --findings {folder}"))).ok();
    let expected = (12..28).chain([160]);
    // The partition table lies in the first.
    assert_eq!(set(volume.hydrated()), set(expected.chain([0])));
    let report = volume.report();
    assert_eq!((number(&report, "/unit_bytes"), number(&report, "/totals/reads")), (FINE_UNIT, 17));
    assert!(notes(&report).contains("as `probe` found on this volume"), "{report:#}");
}

#[test]
fn a_wrong_unit_is_noticed_by_whomever_it_was_named_and_no_unit_stays_cold() {
    if !require_root() {
        return;
    }
    let volume = fine(0xf1e1_0003, 96, FAR_APART);
    let wrong = claimed(&volume, UNIT, "touch");
    let none = volume.path("none");
    for args in [
        format!("--findings {none}"),
        format!("--unit 512KiB --findings {none}"),
        format!("--findings {wrong}"),
    ] {
        volume.reset();
        let line = format!("--rest all {args}");
        run(volume.warm(&line)).exits(0, &["the unit is smaller than 512KiB"]);
        let report = volume.report();
        assert_eq!(volume.stats().cold_units, 0, "{args}: {report:#}");
        assert!(notes(&report).contains("every byte of the rest was read instead"), "{report:#}");
        assert!(number(&report, "/totals/verify_failed") > 0, "{report:#}");
        assert_eq!((number(&report, "/totals/units_left"), report["mode"].as_str()), (0, Some("full")));
    }
    // Who insists on touching gets that, and is told.
    volume.reset();
    run(volume.warm(&format!("--rest all --mode touch --unit 512KiB --findings {none}")))
        .exits(0, &["the unit is smaller than 512KiB"]);
    assert!(volume.stats().cold_units >= 2 * 96, "{:?}", volume.stats().cold_units);
}

#[test]
fn a_unit_that_the_stages_show_to_be_wrong_is_not_touched_by_in_the_rest() {
    if !require_root() {
        return;
    }
    let volume = fine(0xf1e1_0004, 96, FAR_APART);
    let all: Vec<(u64, u64)> = (10..40).map(|unit| (unit * UNIT + 8192, 8192)).collect();
    let profile = volume.profile(&[("ready", &all)]);
    let line = format!("--profile {profile} --rest all --findings {}", volume.path("none"));
    run(volume.warm(&line)).exits(0, &["the unit is smaller than 512KiB"]);
    let report = volume.report();
    assert_eq!(volume.stats().cold_units, 0, "{report:#}");
    let text = notes(&report);
    assert!(text.contains("every byte of the profile") && !text.contains("of the rest"), "{text}");
    // Touches and verification of the stages, and each byte once.
    let rest = number(&report, "/stages/1/bytes");
    assert_eq!(rest + 30 * 8192, 96 * UNIT, "{report:#}");
}

#[test]
fn every_byte_is_read_where_that_was_found_best_and_nobody_says_otherwise() {
    if !require_root() {
        return;
    }
    let volume = fine(0xf1e1_0005, 48, SOON);
    let folder = claimed(&volume, FINE_UNIT, "full");
    run(volume.warm(&format!("--rest all --findings {folder}"))).ok();
    let report = volume.report();
    assert_eq!((volume.stats().cold_units, report["mode"].as_str()), (0, Some("full")), "{report:#}");
    assert_eq!((number(&report, "/totals/bytes_read"), number(&report, "/totals/verified")), (48 * UNIT, 0));
    assert!(notes(&report).contains("as `bench` found best on this volume: said so"), "{report:#}");
    volume.reset();
    run(volume.warm(&format!("--rest all --mode touch --findings {folder}"))).ok();
    let report = volume.report();
    assert_eq!((number(&report, "/unit_bytes"), report["mode"].as_str()), (FINE_UNIT, Some("touch")));
    assert_eq!(volume.stats().cold_units, 0);
}

#[test]
fn findings_of_another_volume_or_damaged_ones_cost_no_warming_and_are_not_believed() {
    if !require_root() {
        return;
    }
    let (volume, other) = (fine(0xf1e1_0006, 48, FAR_APART), fine(0xf1e1_0007, 48, SOON));
    let folder = claimed(&other, 64 * KIB, "touch");
    run(volume.warm(&format!("--rest all --mode full --findings {folder}"))).ok();
    assert_eq!(number(&volume.report(), "/unit_bytes"), UNIT);
    // Under this volume's name, about the other.
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let ours = claimed(&volume, FINE_UNIT, "touch");
    let identity: Identity =
        Device::open(volume.cold.device()).unwrap().identity(Path::new("/"), |_| false).unwrap();
    let path = findings::path(Path::new(&ours), &identity).unwrap();
    fs::copy(file, &path).unwrap();
    volume.reset();
    let line = format!("--rest all --findings {ours}");
    run(volume.warm(&line)).ok();
    assert_eq!((number(&volume.report(), "/unit_bytes"), volume.stats().cold_units), (UNIT, 0));
    for damage in ["{", "{\"format\": \"ebs-prewarm-findings\", \"version\": 2}"] {
        fs::write(&path, damage).unwrap();
        volume.reset();
        run(volume.warm(&line))
            .exits(0, &["failed to read findings", path.to_str().unwrap(), "remove the file"]);
        assert_eq!((number(&volume.report(), "/unit_bytes"), volume.stats().cold_units), (UNIT, 0));
    }
}
