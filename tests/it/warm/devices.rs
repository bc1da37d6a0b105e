//! Devices that are none, or are named in another way.

use super::*;
use crate::profile::mbr;
use crate::support::require;
use ebs_prewarm::lab::{LoopDevice, LoopOptions};
use std::os::unix::fs::{FileExt, symlink};

fn warm_in(dir: &Path, args: &str) -> Command {
    let mut command = Command::new(BIN);
    command.args(["warm", "--report", "report.json", "--rest", "all"]).args(args.split_whitespace());
    command.current_dir(dir);
    command
}

#[test]
fn what_is_no_device_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("short"), [0; 511]).unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    for (device, named) in [
        ("none", ["failed to open device `none`", "No such file"]),
        (".", ["failed to open device `.`", "not a block device"]),
        ("/dev/null", ["failed to open device `/dev/null`", "not a block device"]),
        ("/dev/tty", ["`/dev/tty`", "not a block device"]),
        ("empty", ["failed to use device `empty`", "0 bytes"]),
        ("short", ["failed to use device `short`", "511 bytes"]),
        ("loop", ["failed to open device `loop`", "symbolic links"]),
        ("empty/x", ["failed to open device `empty/x`", "Not a directory"]),
    ] {
        let ran = run(warm_in(dir.path(), &format!("--device {device}"))).exits(1, &named);
        assert!(ran.err.contains("help: "), "{}", ran.err);
        let report = read_report(&dir.path().join("report.json"));
        assert_eq!((report["end"].as_str(), report["device"].as_str()), (Some("refused"), Some(device)));
    }
}

#[test]
fn an_empty_loop_device_is_refused() {
    if !require_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("loop").to_str().unwrap().to_string();
    // Far above those that are given out: nobody attaches it meanwhile.
    let minor = (20_000 + std::process::id() % 10_000).to_string();
    crate::support::run(Command::new("mknod").args([&node, "b", "7", &minor]));
    let ran = run(warm_in(dir.path(), &format!("--device {node}")));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("failed to") && !ran.err.contains("panicked"), "{}", ran.err);
    assert_eq!(read_report(&dir.path().join("report.json"))["end"], "refused");
}

#[test]
fn the_disk_that_carries_root_is_found_or_why_not_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // Never the machine's own disk for real: what cannot be parsed is found first, what is bound to fail later.
    fs::write(dir.path().join("list"), "0 4096\n").unwrap();
    let rec = dir.path().join("l.rec");
    let list = dir.path().join("list");
    ebs(["profile", "import", "-o", rec.to_str().unwrap(), "--format", "list", list.to_str().unwrap()]);
    ebs(["profile", "build", "-o", dir.path().join("l.yaml").to_str().unwrap(), rec.to_str().unwrap()]);
    let mut plan = Command::new(BIN);
    plan.args(["plan", "--profile", "l.yaml"]).current_dir(dir.path());
    let ran = run(plan);
    match ran.code {
        Some(0) => assert!(ran.out.contains("in all 1 reads"), "{}", ran.out),
        code => {
            assert_eq!(code, Some(1), "{}", ran.err);
            assert!(ran.err.starts_with("error: failed to ") && ran.err.contains("help: "), "{}", ran.err);
        }
    }
}

#[test]
fn an_image_file_needs_no_root() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(64 * UNIT + 1000).unwrap();
    run(warm_in(dir.path(), "--device image --mode full")).ok();
    let report = read_report(&dir.path().join("report.json"));
    // The last part of a sector is nobody's.
    assert_eq!(number(&report, "/totals/bytes_read"), 64 * UNIT + 512);
    assert_eq!(number(&report, "/totals/units"), 65);
}

#[test]
fn a_partition_stands_for_its_disk() {
    if !require_root() || !require("addpart") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let file = fs::File::create(&image).unwrap();
    file.set_len(16 * UNIT).unwrap();
    file.write_all_at(&mbr(7, 2048, 4096), 0).unwrap();
    // With partitions, so that they go away with it; made by hand, since not every kernel knows this table.
    let options = LoopOptions { partitions: true, ..LoopOptions::default() };
    let device = LoopDevice::attach(&image, options).unwrap();
    crate::support::output(Command::new("addpart").arg(device.path()).args(["1", "2048", "4096"]));
    let name = device.path().file_name().unwrap().to_str().unwrap();
    // Without udev nobody makes the partition's node.
    let node = dir.path().join("part").to_str().unwrap().to_string();
    let number_text = fs::read_to_string(format!("/sys/block/{name}/{name}p1/dev")).unwrap();
    let (major, minor) = number_text.trim().split_once(':').unwrap();
    crate::support::run(Command::new("mknod").args([&node, "b", major, minor]));
    run(warm_in(dir.path(), &format!("--device {node}"))).ok();
    let report = read_report(&dir.path().join("report.json"));
    assert_eq!(report["device"].as_str(), device.path().to_str());
    assert_eq!(number(&report, "/totals/units"), 16, "the whole disk, from its first sector");
}

#[test]
fn a_device_that_refuses_writes_is_warmed_like_any_other() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(16, "io2", &["first_read=1ms"]);
    let name = volume.loop_name();
    assert_eq!(fs::read_to_string(format!("/sys/block/{name}/ro")).unwrap().trim(), "1");
    run(volume.warm("--rest all")).ok();
    assert_eq!(volume.stats().cold_units, 0);
}

#[test]
fn arguments_that_make_no_sense_are_usage() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("image")).unwrap().set_len(1 << 20).unwrap();
    for (args, named) in [
        ("--depth 0", "--depth"),
        ("--depth 4097", "4096"),
        ("--depth many", "--depth"),
        ("--unit 100KiB", "power of two"),
        ("--unit 0", "power of two"),
        ("--unit 128MiB", "power of two"),
        ("--deadline soon", "--deadline"),
        ("--rate fast", "--rate"),
        ("--iops=-1", "--iops"),
        ("--mode both", "--mode"),
    ] {
        run(warm_in(dir.path(), &format!("--device image {args}"))).exits(2, &[named]);
    }
    let mut nothing = Command::new(BIN);
    nothing.args(["warm", "--rest", "none", "--device", "image"]).current_dir(dir.path());
    run(nothing).exits(2, &["failed to find anything to read", "--profile"]);
}
