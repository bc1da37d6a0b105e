//! Ctrl-C and SIGTERM in mid-run.

use super::*;

/// 20 units a second.
const SLOW: &[&str] = &["hydration=10MB/s", "first_read=10ms"];

#[test]
fn a_signal_ends_the_run_and_what_was_done_is_told() {
    if !require_root() {
        return;
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        for mode in ["touch", "full"] {
            let volume = Volume::new(800, "gp3", SLOW);
            let warm = start(volume.warm(&format!("--rest all --mode {mode}")));
            volume.wait_for(10);
            warm.signal(signal);
            let ran =
                warm.end().exits(1, &["stopped by a signal", "of 800 units are left, from stage `rest` on"]);
            assert!(ran.out.contains("stopped"), "{}", ran.out);
            let report = volume.report();
            assert_eq!(report["end"], "stopped");
            let left = number(&report, "/totals/units_left");
            assert!(left > 0 && left < 800, "{report:#}");
            if mode == "touch" {
                assert_eq!(number(&report, "/totals/reads") + left, 800);
                let warmed = 800 - volume.stats().cold_units;
                assert!(warmed >= number(&report, "/totals/reads"), "{warmed}: {report:#}");
            }
        }
    }
}

#[test]
fn a_read_that_stalls_for_a_minute_is_not_waited_for() {
    if !require_root() {
        return;
    }
    // In full mode two reads wait for the one unit.
    for (mode, abandoned, unit_bytes) in [("touch", 1, 4096), ("full", 2, UNIT)] {
        let volume = Volume::new(40, "io2", &["first_read=1ms", "sigma=0", "stall_fetch=5", "stall=60s"]);
        let warm = start(volume.warm(&format!("--rest all --mode {mode}")));
        volume.wait_until(|stats| stats.counters.bytes_read == 39 * unit_bytes);
        warm.signal(libc::SIGINT);
        warm.end().exits(1, &["stopped by a signal", "1 of 40 units are left"]);
        let report = volume.report();
        assert_eq!((number(&report, "/totals/units_left"), number(&report, "/abandoned")), (1, abandoned));
        assert!(volume.stats().in_flight > 0, "the volume still works on it: nobody waited");
    }
}

#[test]
fn a_deadline_does_not_wait_for_a_stall_either() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(40, "io2", &["first_read=1ms", "sigma=0", "stall_fetch=5", "stall=60s"]);
    run(volume.warm("--rest all --deadline 2s")).exits(5, &["1 of 40 units are left", "help: "]);
    assert_eq!(volume.report()["end"], "deadline");
    assert_eq!(volume.stats().in_flight, 1, "the volume still works on it: nobody waited");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(40, "io2", &["first_read=1ms", "sigma=0", "stall_fetch=5", "stall=60s"]);
    let warm = start(volume.warm("--rest all"));
    volume.wait_for(40);
    // Not twice the same: the kernel would deliver them as one.
    warm.signal(libc::SIGINT);
    warm.signal(libc::SIGTERM);
    let ran = warm.end();
    assert!([Some(libc::SIGINT), Some(libc::SIGTERM)].contains(&ran.signal), "{:?} {}", ran.code, ran.err);
    let left: Vec<_> = fs::read_dir(volume.cold.file().scratch()).unwrap().collect();
    assert!(!Path::new(&volume.path("report.json")).exists(), "{left:?}");
}

#[test]
fn a_stop_is_seen_while_units_are_verified() {
    if !require_root() {
        return;
    }
    // Touched at once; verifying what the touches left cold takes 2.4 s, which is within its own limit.
    let volume = Volume::new(16, "fine", &["first_read=150ms", "sigma=0"]);
    let warm = start(volume.warm("--rest all --mode touch"));
    volume.wait_for(17);
    warm.signal(libc::SIGINT);
    warm.end().exits(1, &["stopped by a signal"]);
    let report = volume.report();
    assert_eq!((report["end"].as_str(), number(&report, "/totals/reads")), (Some("stopped"), 16));
    assert!(number(&report, "/totals/verified") < 16, "{report:#}");
}
