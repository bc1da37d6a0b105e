//! Devices that go away or shrink in mid-run.

use super::*;

/// 20 units a second: time to do something meanwhile.
const SLOW: &[&str] = &["hydration=10MB/s", "first_read=10ms"];
const UNITS: u64 = 400;

#[test]
fn a_device_that_vanishes_ends_the_run_with_its_report() {
    if !require_root() {
        return;
    }
    for mode in ["touch", "full"] {
        let volume = Volume::new(UNITS, "gp3", SLOW);
        let warm = start(volume.warm(&format!("--rest all --mode {mode}")));
        volume.wait_for(10);
        volume.abort();
        warm.end().exits(1, &["failed to warm", &volume.device(), "nothing but errors", "units are left"]);
        let report = volume.report();
        assert_eq!(report["end"], "device gone");
        assert!(number(&report, "/totals/errors") > 0);
        assert!(number(&report, "/totals/units_left") > 0);
    }
}

#[test]
fn an_image_behind_a_lost_filesystem_is_a_device_that_is_gone() {
    if !require_root() {
        return;
    }
    // Without a loop device between, the errors are the filesystem's own.
    let volume = Volume::new(UNITS, "gp3", SLOW);
    let mut command = Command::new(BIN);
    command.args(["warm", "--rest", "all", "--mode", "touch", "--device"]).arg(volume.cold.file().volume());
    command.args(["--report", &volume.path("report.json")]);
    let warm = start(command);
    volume.wait_for(10);
    volume.abort();
    warm.end().exits(1, &["failed to warm"]);
    let report = volume.report();
    assert_eq!(report["end"], "device gone");
}

#[test]
fn an_image_cut_short_under_the_device_is_read_as_far_as_it_goes() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(60, "gp3", &["hydration=5MB/s", "first_read=10ms"]);
    let warm = start(volume.warm("--rest all --mode touch"));
    volume.wait_for(3);
    // Behind what is under way at most: 40 units stay.
    fs::File::options().write(true).open(volume.cold.file().image()).unwrap().set_len(40 * UNIT).unwrap();
    let ran = warm.end();
    let report = volume.report();
    match ran.code {
        Some(3) => assert_eq!(report["end"], "complete"),
        code => assert_eq!((code, report["end"].as_str()), (Some(1), Some("device gone")), "{}", ran.err),
    }
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    assert!(number(&report, "/totals/errors") > 0);
    let bad = report["unreadable"].as_array().unwrap();
    assert!(bad.iter().all(|bad| number(bad, "/start_sector") >= 40 * UNIT_SECTORS), "{bad:?}");
    assert_eq!(number(&report, "/totals/reads"), 40);
}

#[test]
fn a_file_that_shrinks_ends_where_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(100 * UNIT).unwrap();
    let report = dir.path().join("report.json");
    let mut command = Command::new(BIN);
    // Five seconds for 100 reads: the last 40 are not begun when the file is cut.
    command.args(["warm", "--rest", "all", "--mode", "touch", "--iops", "20", "--device"]).arg(&image);
    command.arg("--report").arg(&report);
    let warm = start(command);
    // By then it has measured the device.
    wait_for_file(warm.pid(), "io_uring");
    fs::File::options().write(true).open(&image).unwrap().set_len(60 * UNIT + 700).unwrap();
    warm.end().exits(1, &["failed to warm", "nothing but errors"]);
    let report = read_report(&report);
    assert_eq!((report["end"].as_str(), number(&report, "/totals/reads")), (Some("device gone"), 60));
    assert!(report["unreadable"].to_string().contains("past the end of the device"), "{report:#}");
    assert_eq!(number(&report, "/unreadable/0/start_sector"), 60 * UNIT_SECTORS + 1);
}

#[test]
fn a_loop_device_detached_in_mid_run_stays_until_it_is_closed() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(60, "gp3", SLOW);
    let warm = start(volume.warm("--rest all --mode touch"));
    volume.wait_for(3);
    crate::support::run(Command::new("losetup").args(["-d", &volume.device()]));
    warm.end().ok();
    assert_eq!((volume.report()["end"].as_str(), volume.stats().cold_units), (Some("complete"), 0));
}
