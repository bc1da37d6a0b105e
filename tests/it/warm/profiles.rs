//! Profiles that are none, not whole, or for another volume.

use super::*;
use crate::profile::mbr;
use std::os::unix::fs::FileExt;

fn refused(volume: &Volume, profile: &str, code: i32, named: &[&str]) {
    let mut command = volume.warm(&format!("--profile {profile}"));
    command.current_dir(volume.cold.file().scratch());
    let ran = run(command).exits(code, named);
    assert!(ran.err.starts_with("error: failed to "), "{}", ran.err);
    assert!(ran.out.is_empty(), "{}", ran.out);
    let report = volume.report();
    assert_eq!(report["end"], "refused");
    let told = report["error"].as_str().unwrap();
    named.iter().for_each(|what| assert!(told.contains(what), "`{what}` is not in the report: {told}"));
    assert_eq!((number(&report, "/totals/reads"), number(&report, "/totals/units")), (0, 0));
    fs::remove_file(volume.path("report.json")).unwrap();
}

#[test]
fn what_is_no_profile_is_refused_and_nothing_is_read() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(16, "io2", &["first_read=1ms"]);
    let good = fs::read(volume.profile_of_units(0..8)).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(volume.path(name), bytes).unwrap();
    write("empty", b"");
    write("noise", &[0xa7; 3000]);
    write("foreign", &fs::read("/proc/self/exe").unwrap()[..100_000]);
    write("text", b"name: web\nstages: []\n");
    for cut in [1, 7, good.len() / 2, good.len() - 1] {
        write("cut", &good[..cut]);
        refused(&volume, "cut", 1, &["failed to load profile `cut`"]);
    }
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    write("flipped", &flipped);
    for (profile, named) in [
        ("none", ["failed to read profile `none`", "No such file"]),
        (".", ["failed to read profile `.`", "it is a folder"]),
        ("empty", ["failed to load profile `empty`", "the file is empty"]),
        ("noise", ["failed to load profile `noise`", "does not start like one"]),
        ("foreign", ["failed to load profile `foreign`", "does not start like one"]),
        ("text", ["failed to load profile `text`", "does not start like one"]),
        ("flipped", ["failed to load profile `flipped`", "checksum"]),
    ] {
        refused(&volume, profile, 1, &named);
    }
    assert!(volume.hydrated().is_empty(), "{:?}", volume.hydrated());
}

#[test]
fn a_profile_of_another_volume_is_refused_with_the_differences() {
    if !require_root() {
        return;
    }
    let make = |signature: u32, units: u64| {
        move |path: &Path| {
            let file = fs::File::create(path).unwrap();
            file.set_len(units * UNIT).unwrap();
            file.write_all_at(&mbr(signature, 2048, 8192), 0).unwrap();
        }
    };
    let quick = &["first_read=1ms"];
    let ours = Volume { cold: ColdLoop::made(make(0x1111_aaaa, 64), "io2", quick) };
    let other = Volume { cold: ColdLoop::made(make(0x2222_bbbb, 64), "io2", quick) };
    let small = Volume { cold: ColdLoop::made(make(0x1111_aaaa, 16), "io2", quick) };
    let (list, rec, yaml) = (ours.path("list"), ours.path("l.rec"), ours.path("l.yaml"));
    fs::write(&list, format!("{} 4096\n{} 4096\n", 3 * UNIT, 40 * UNIT)).unwrap();
    ebs(["profile", "import", "-o", &rec, "--format", "list", &list, "--device", &ours.device()]);
    ebs(["profile", "build", "-o", &yaml, &rec]);
    run(ours.warm(&format!("--profile {yaml}"))).ok();
    let table = "partition: none has PARTUUID 1111aaaa-01";
    refused(&other, &yaml, 4, &["failed to bind profile `l`", table, "help: "]);
    refused(&small, &yaml, 4, &["16384 sectors, the profile needs 40968", "help: "]);
    for volume in [&other, &small] {
        assert!(volume.hydrated().iter().all(|unit| *unit == 0), "only the partition table was read");
    }
    // A plan is refused in the same way.
    run(other.verb("plan", &format!("--profile {yaml}"))).exits(4, &[table]);
}

#[test]
fn an_unbound_profile_is_for_every_volume_that_is_large_enough() {
    if !require_root() {
        return;
    }
    let large = Volume::new(64, "io2", &["first_read=1ms"]);
    let small = Volume::new(16, "io2", &["first_read=1ms"]);
    let profile = large.profile_of_units([2, 50]);
    run(large.warm(&format!("--profile {profile} --mode touch"))).ok();
    assert_eq!(large.hydrated(), [2, 50], "not even the partition table");
    refused(&small, &profile, 4, &["size: 16384 sectors, the profile needs 51344"]);
    assert!(small.hydrated().is_empty());
}

#[test]
fn a_profile_that_names_nothing_is_done_at_once_and_says_so() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(16, "io2", &["first_read=1ms"]);
    let profile = volume.profile(&[]);
    run(volume.warm(&format!("--profile {profile}"))).ok();
    let report = volume.report();
    assert_eq!((report["end"].as_str(), number(&report, "/totals/reads")), (Some("complete"), 0));
    assert!(report["notes"].to_string().contains("names nothing to read"), "{report:#}");
    assert!(volume.hydrated().is_empty());
}
