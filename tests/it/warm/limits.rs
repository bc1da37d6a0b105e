//! Limits: deadline, pace, memory.

use super::*;

#[test]
fn a_deadline_ends_a_volume_that_is_slower() {
    if !require_root() {
        return;
    }
    // 20 units a second: 200 units take ten.
    let volume = Volume::new(400, "scarce", &[]);
    let profile = volume.profile_of_units(0..200);
    let ran = run(volume.warm(&format!("--profile {profile} --mode touch --deadline 1s")));
    let ran =
        ran.exits(5, &["failed to warm", &volume.device(), "of 200 units are left, from stage `ready` on"]);
    let report = volume.report();
    assert_eq!(report["end"], "deadline");
    let (reads, left) = (number(&report, "/totals/reads"), number(&report, "/totals/units_left"));
    assert_eq!(reads + left, 200);
    assert_eq!(number(&report, "/stages/0/units_left"), left);
    assert!(left > 100, "{report:#}");
    assert!(ran.err.contains(&format!("{left} of 200")), "{}", ran.err);
    assert!(ran.out.contains(&format!("{reads} of 200 units read")), "{}", ran.out);
    // What was read by then is warm; what is left was at most being read.
    assert!(400 - volume.stats().cold_units >= reads);
}

#[test]
fn a_deadline_that_is_kept_changes_nothing() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &["first_read=1ms"]);
    run(volume.warm("--rest all --deadline 10m")).ok();
    assert_eq!(volume.stats().cold_units, 0);
}

/// When units were first touched, seconds.
fn touched_s(volume: &Volume) -> Vec<f64> {
    volume.stats().touched.iter().map(|touch| touch.at_ns as f64 / 1e9).collect()
}

#[test]
fn no_more_reads_a_second_than_allowed() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "io2", &["first_read=20ms", "sigma=0"]);
    let profile = volume.profile_of_units(0..40);
    run(volume.warm(&format!("--profile {profile} --mode touch --iops 40"))).ok();
    let report = volume.report();
    assert_eq!(number(&report, "/totals/reads"), 40);
    assert!(seconds(&report, "/totals/elapsed_s") >= 39.0 / 40.0, "{report:#}");
    // No burst: a moment of lateness may bring two together, but never does one come before its time.
    let at_s = touched_s(&volume);
    let mounted_s = volume.stats().mounted_at_monotonic_ns as f64 / 1e9;
    // When it was asked for, however late it came.
    let from_s = at_s[0].min(seconds(&report, "/first_read_uptime_s") - mounted_s);
    let early = at_s.iter().enumerate().find(|(n, at)| **at - from_s < (*n as f64 - 1.0) / 40.0 - 0.1);
    assert_eq!(early, None, "{at_s:?}");
}

#[test]
fn no_more_bytes_a_second_than_allowed() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(4, "io2", &["first_read=1ms"]);
    run(volume.warm("--rest all --mode full --rate 2MiB/s")).ok();
    let report = volume.report();
    assert_eq!((number(&report, "/totals/bytes_read"), number(&report, "/totals/reads")), (4 * UNIT, 8));
    // 8 reads of 256 KiB, an eighth of a second each, the last of which is not waited for.
    assert!(seconds(&report, "/totals/elapsed_s") >= 7.0 / 8.0, "{report:#}");
}

#[test]
fn ten_thousand_units_take_little_memory() {
    if !require_root() {
        return;
    }
    let quick = [
        "first_read=20ms",
        "sigma=0",
        "hydration=0",
        "iops=0",
        "throughput=0",
        "stall_fetch=9999",
        "stall=60s",
    ];
    let volume = Volume::new(10_000, "io2", &quick);
    let profile = volume.profile_of_units((0..10_000).map(|unit| unit * 7919 % 10_000));
    let warm = start(volume.warm(&format!("--profile {profile} --mode touch --depth 256")));
    // One stalls, which keeps it from ending while it is looked at.
    volume.wait_for(10_000);
    let status = fs::read_to_string(format!("/proc/{}/status", warm.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    warm.signal(libc::SIGINT);
    warm.end().exits(1, &["1 of 10000 units are left"]);
    assert_eq!(number(&volume.report(), "/totals/reads"), 9_999);
    assert!(peak_kib < 16 << 10, "{peak_kib} KiB at the peak");
}
