//! Blocks that cannot be read, and more reads than the device takes.

use super::*;

/// A volume that answers soon.
const QUICK: &str = "first_read=3ms";

#[test]
fn bad_units_are_counted_and_named_and_all_others_are_warm() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &[QUICK, "eio_units=3, 7, 8"]);
    let profile = volume.profile_of_units(0..40);
    let ran = run(volume.warm(&format!("--profile {profile} --mode touch")));
    ran.exits(3, &["failed to read 24 blocks of", &volume.device()]);
    let report = volume.report();
    assert_eq!(report["end"], "complete");
    assert_eq!((number(&report, "/totals/errors"), number(&report, "/stages/0/errors")), (24, 24));
    assert_eq!((number(&report, "/totals/reads"), number(&report, "/totals/units_left")), (37, 0));
    let named: Vec<(u64, u64)> = report["unreadable"]
        .as_array()
        .unwrap()
        .iter()
        .inspect(|bad| assert!(bad["error"].as_str().unwrap().contains("Input/output error"), "{bad}"))
        .map(|bad| (number(bad, "/start_sector"), number(bad, "/sectors")))
        .collect();
    // The profile's place in each unit is 64 KiB in.
    assert_eq!(named, [3, 7, 8].map(|unit| (unit * UNIT_SECTORS + 128, 8)));
    assert_eq!(volume.stats().cold_units, 64 - 37);
}

#[test]
fn bad_sectors_are_found_to_the_sector() {
    if !require_root() {
        return;
    }
    // In the middle of a read, at its end and next one's start, and the last sector of the volume.
    let volume = Volume::new(16, "io2", &[QUICK, "eio_sectors=100+3, 1535+2, 16383+1"]);
    run(volume.warm("--rest all --mode full")).exits(3, &["failed to read 6 blocks"]);
    let report = volume.report();
    let named: Vec<(u64, u64)> = report["unreadable"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bad| (number(bad, "/start_sector"), number(bad, "/sectors")))
        .collect();
    assert_eq!(named, [(100, 3), (1535, 2), (16383, 1)]);
    assert_eq!(number(&report, "/totals/bytes_read"), 16 * UNIT - 6 * 512);
    assert_eq!(volume.stats().cold_units, 0, "a bad sector keeps no unit cold");
}

#[test]
fn one_bad_unit_read_in_full_ends_nothing() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(40, "io2", &["first_read=1ms", "sigma=0", "eio_units=0"]);
    run(volume.warm("--rest all --mode full")).exits(3, &["failed to read 1024 blocks"]);
    let report = volume.report();
    assert_eq!((report["end"].as_str(), number(&report, "/totals/errors")), (Some("complete"), 1024));
    assert_eq!(volume.stats().cold_units, 1);
    assert_eq!(volume.hydrated(), (0..40).collect::<Vec<_>>(), "all others were read");
}

#[test]
fn a_volume_that_answers_nothing_but_errors_is_given_up_soon() {
    if !require_root() {
        return;
    }
    let all = format!("eio_sectors=0+{}", 2000 * UNIT_SECTORS);
    let volume = Volume::new(2000, "io2", &["first_read=1ms", &all]);
    for (units, mode) in [(2000, "touch"), (2000, "full"), (50, "touch"), (50, "full")] {
        volume.reset();
        let whole: Vec<(u64, u64)> = (0..units).map(|unit| (unit * UNIT, UNIT)).collect();
        let profile = volume.profile(&[("ready", &whole)]);
        let ran = run(volume.warm(&format!("--profile {profile} --mode {mode} --depth 32")));
        ran.exits(1, &["failed to warm", &volume.device(), "nothing but errors", "units are left"]);
        let report = volume.report();
        assert_eq!((report["end"].as_str(), number(&report, "/totals/reads")), (Some("device gone"), 0));
        assert!(number(&report, "/totals/errors") > 0);
        let reads = volume.stats().counters.reads;
        assert!(reads <= 256 + 32, "{mode}: {reads} reads of a volume that answers none");
    }
}

#[test]
fn a_volume_whose_beginning_is_bad_is_refused_where_it_must_be_recognised() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &[QUICK]);
    let (list, rec, yaml) = (volume.path("list"), volume.path("l.rec"), volume.path("l.yaml"));
    fs::write(&list, "1048576 4096\n").unwrap();
    ebs(["profile", "import", "-o", &rec, "--format", "list", &list, "--device", &volume.device()]);
    ebs(["profile", "build", "-o", &yaml, &rec]);
    let bad = Volume::new(64, "io2", &[QUICK, "eio_units=0"]);
    let ran = run(bad.warm(&format!("--profile {yaml}")));
    ran.exits(1, &["failed to read the partition table of", &bad.device(), "Input/output error"]);
    assert_eq!(bad.report()["end"], "refused");
}

/// The length of a device's queue, which outlives what is attached to it; restored on drop.
struct Queue {
    path: String,
    before: String,
}

impl Queue {
    fn of(volume: &Volume, requests: &str) -> Queue {
        let path = format!("/sys/block/{}/queue/nr_requests", volume.loop_name());
        let queue = Queue { before: fs::read_to_string(&path).unwrap(), path };
        fs::write(&queue.path, requests).unwrap();
        queue
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).unwrap();
    }
}

#[test]
fn more_reads_than_the_queue_takes_are_all_done() {
    if !require_root() {
        return;
    }
    for requests in ["64", "4"] {
        let volume = Volume::new(600, "io2", &["first_read=6ms", "sigma=0", "hydration=0", "fetches=2000"]);
        let _queue = Queue::of(&volume, requests);
        run(volume.warm("--rest all --mode touch --depth 1024")).ok();
        let report = volume.report();
        assert_eq!(volume.stats().cold_units, 0, "{requests}");
        assert_eq!((number(&report, "/totals/reads"), number(&report, "/totals/errors")), (600, 0));
        assert_eq!(number(&report, "/depth/initial"), 1024);
        // By itself it never asks for more.
        volume.reset();
        run(volume.warm("--rest all --mode touch")).ok();
        let report = volume.report();
        assert_eq!((volume.stats().cold_units, number(&report, "/totals/retries")), (0, 0), "{requests}");
        assert!(number(&report, "/depth/max") <= requests.parse().unwrap());
    }
}
