//! Several volumes in one run, each with a profile of its own: found by what they carry, none in the way of another,
//! all under one budget.

use super::*;
use crate::profile::mbr;
use crate::support::{ebs, require};
use std::os::unix::fs::FileExt;

/// A volume that answers soon.
const QUICK: &[&str] = &["first_read=5ms", "sigma=0"];
const UNITS: u64 = 64;

/// A cold disk with a partition table, and a profile that was recorded on it.
pub struct Recorded {
    pub volume: Volume,
    pub profile: String,
    units: BTreeSet<u64>,
}

impl Recorded {
    /// With the signature of its table; the profile has these units.
    fn new(name: &str, signature: u32, units: impl IntoIterator<Item = u64>) -> Recorded {
        let bytes = UNITS * UNIT;
        let make = |path: &Path| {
            let image = fs::File::create(path).unwrap();
            image.set_len(bytes).unwrap();
            image.write_all_at(&mbr(signature, 2048, (bytes / 512 - 2048) as u32), 0).unwrap();
        };
        let volume = Volume { cold: ColdLoop::made(make, "io2", QUICK) };
        let units = set(units);
        let list: Vec<String> =
            units.iter().map(|unit| format!("{} 4096\n", unit * UNIT + 64 * KIB)).collect();
        let [rec, yaml, bin] = ["rec", "yaml", "bin"].map(|ending| volume.path(&format!("{name}.{ending}")));
        let listed = volume.path("list");
        fs::write(&listed, list.concat()).unwrap();
        let device = volume.device();
        ebs(["profile", "import", "-o", &rec, "--format", "list", &listed, "--device", &device]);
        ebs(["profile", "build", "-o", &yaml, "--name", name, &rec]);
        ebs(["profile", "compile", "-o", &bin, &yaml]);
        volume.reset();
        Recorded { volume, profile: bin, units }
    }

    pub fn root() -> Recorded {
        Recorded::new("root", 0x0000_00a1, 8..40)
    }

    pub fn data() -> Recorded {
        Recorded::new("data", 0x0000_00b2, (10..60).step_by(2))
    }

    /// Every unit of its profile is warm, and no other but those that tell which disk it is.
    #[track_caller]
    pub fn is_warmed(&self) {
        let hydrated = set(self.volume.hydrated());
        let beyond: Vec<&u64> =
            hydrated.difference(&self.units).filter(|unit| ![0, 2, UNITS - 1].contains(unit)).collect();
        assert!(hydrated.is_superset(&self.units) && beyond.is_empty(), "{hydrated:?}");
    }
}

/// The binary on a machine that has these disks and no other.
fn on_machine(disks: &[&Recorded], args: &str) -> Ran {
    let disks: Vec<_> = disks.iter().map(|disk| (*disk, "")).collect();
    let machine = Machine::new(&disks);
    run(machine.command(args))
}

/// A machine of some disks, for as long as it lives.
pub struct Machine {
    /// What stands for `/sys/block` there.
    dir: tempfile::TempDir,
    /// What makes it, in a namespace of its own.
    script: String,
}

impl Machine {
    /// Of disks, each with a serial where that is not empty.
    pub fn new(disks: &[(&Recorded, &str)]) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let mut script = String::from("set -e; cd /dev/shm; mount -t tmpfs disks .; cd /dev/shm; ");
        for (at, (disk, serial)) in disks.iter().enumerate() {
            let entry = dir.path().join(format!("shm!disk{at}"));
            fs::create_dir(&entry).unwrap();
            fs::write(entry.join("size"), format!("{}\n", UNITS * UNIT_SECTORS)).unwrap();
            let name = disk.volume.loop_name();
            let minor = name.trim_start_matches("loop");
            script.push_str(&format!("mknod disk{at} b 7 {minor}; "));
            if !serial.is_empty() {
                // All that the kernel shows of it, and a serial beside it.
                script.push_str(&format!(
                    "kernel=/sys/devices/virtual/block/{name}; mkdir real{at} shown{at}; \
                     mount --bind $kernel real{at}; ln -s $PWD/real{at}/* shown{at}; \
                     echo {serial} >shown{at}/serial; mount --bind shown{at} $kernel; "
                ));
            }
        }
        script.push_str("mount --bind \"$1\" /sys/block; shift; exec \"$@\"");
        Machine { dir, script }
    }

    /// The binary there.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &self.script, "sh"]).arg(self.dir.path());
        command.arg(BIN).args(args.split_whitespace());
        command
    }
}

pub fn ends(report: &Value) -> Vec<&str> {
    report["volumes"].as_array().unwrap().iter().map(|volume| volume["end"].as_str().unwrap()).collect()
}

fn report_of(json: &str) -> Value {
    let report: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(report["schema"], 1);
    report
}

#[test]
fn two_volumes_are_found_by_what_they_carry_and_warmed_in_one_run() {
    if !require_root() || !require("unshare") {
        return;
    }
    let (root, data) = (Recorded::root(), Recorded::data());
    let journals = root.volume.path("journals");
    fs::create_dir(&journals).unwrap();
    let written = root.volume.path("both.json");
    let line = format!(
        "--json warm --mode touch --journal {journals} --report {written} --profile {} --profile {}",
        data.profile, root.profile
    );
    // Whatever the order of the disks.
    let json = on_machine(&[&root, &data], &line).ok();
    root.is_warmed();
    data.is_warmed();
    let report = report_of(&json);
    assert_eq!(
        report_of(&fs::read_to_string(&written).unwrap()),
        report,
        "what is printed is what is written"
    );
    assert_eq!(ends(&report), ["complete", "complete"]);
    for (at, (name, device, units)) in
        [("data", "/dev/shm/disk1", 25), ("root", "/dev/shm/disk0", 32)].into_iter().enumerate()
    {
        let volume = &report["volumes"][at];
        assert_eq!((volume["profile"].as_str(), volume["device"].as_str()), (Some(name), Some(device)));
        assert_eq!((number(volume, "/totals/units"), number(volume, "/totals/units_left")), (units, 0));
        assert!(seconds(volume, "/totals/cpu_s") > 0.0);
    }
    assert_eq!((number(&report, "/totals/units"), number(&report, "/totals/reads")), (57, 57));
    assert_eq!(number(&report, "/totals/volumes_complete"), 2);
    // Each has a journal of its own: nothing is left to do, whatever the disks are called now.
    assert_eq!(fs::read_dir(&journals).unwrap().count(), 2);
    let report = report_of(&on_machine(&[&data, &root], &line).ok());
    let resumed = |at: usize| number(&report["volumes"][at], "/totals/resumed");
    assert_eq!((resumed(0), resumed(1), number(&report, "/totals/reads")), (25, 32, 0));
}

#[test]
fn a_volume_that_is_missing_or_another_stops_no_other() {
    if !require_root() || !require("unshare") {
        return;
    }
    let (root, data) = (Recorded::root(), Recorded::data());
    let other = Recorded::new("other", 0x0000_00c3, [5]);
    let written = root.volume.path("both.json");
    for (disks, wait) in [(vec![&root], "0s"), (vec![&other, &root], "200ms")] {
        root.volume.reset();
        let line = format!(
            "warm --mode touch --wait {wait} --report {written} --profile {} --profile {}",
            data.profile, root.profile
        );
        let ran =
            on_machine(&disks, &line).exits(4, &["failed to find the disk of profile `data`", "help: "]);
        root.is_warmed();
        assert!(data.volume.hydrated().is_empty());
        assert!(ran.out.contains("1 of 2 volumes are warm"), "{}", ran.out);
        let report = report_of(&fs::read_to_string(&written).unwrap());
        assert_eq!(ends(&report), ["refused", "complete"]);
        let error = report["volumes"][0]["error"].as_str().unwrap();
        assert!(error.contains("000000b2"), "{error}");
    }
    // A profile that is damaged, and one that is not there.
    fs::write(&data.profile, "no profile").unwrap();
    for (bad, named) in [(data.profile.as_str(), "failed to load profile"), ("/none.bin", "/none.bin")] {
        root.volume.reset();
        let line = format!("warm --mode touch --profile {bad} --profile {}", root.profile);
        on_machine(&[&root, &data], &line).exits(1, &[named]);
        root.is_warmed();
    }
}

#[test]
fn devices_are_paired_in_order_and_one_that_fails_stops_no_other() {
    if !require_root() {
        return;
    }
    let (root, data) = (Recorded::root(), Recorded::data());
    let (first, second) = (root.volume.device(), data.volume.device());
    let warm = |pairs: [(&Recorded, &str); 2]| {
        let mut command = Command::new(BIN);
        command.args(["--json", "warm", "--mode", "touch"]);
        for (recorded, device) in pairs {
            command.args(["--profile", &recorded.profile, "--device", device]);
        }
        run(command)
    };
    let report = report_of(&warm([(&root, &first), (&data, &second)]).ok());
    assert_eq!(ends(&report), ["complete", "complete"]);
    root.is_warmed();
    data.is_warmed();
    // The other way round neither is what it was recorded on, and nothing of the profiles is read.
    root.volume.reset();
    data.volume.reset();
    let ran = warm([(&root, &second), (&data, &first)]).exits(4, &["000000a1"]);
    assert_eq!(ends(&report_of(&ran.out)), ["refused", "refused"]);
    assert!(root.volume.hydrated().len() <= 3 && data.volume.hydrated().len() <= 3);
    let ran = warm([(&root, &first), (&data, "/dev/none")]).exits(1, &["/dev/none"]);
    assert_eq!(ends(&report_of(&ran.out)), ["complete", "refused"]);
    root.is_warmed();
}

#[test]
fn a_volume_that_has_its_stamp_is_left_alone_and_a_copy_of_it_is_not() {
    if !require_root() || !require("unshare") {
        return;
    }
    let (root, data) = (Recorded::root(), Recorded::data());
    let stamps = root.volume.path("stamps");
    let reads = || [&root, &data].map(|disk| disk.volume.stats().counters.reads);
    let line = |by: [&str; 2]| {
        format!(
            "--json warm --mode touch --stamp {stamps} --profile {}{} --profile {}{}",
            data.profile, by[1], root.profile, by[0]
        )
    };
    let found = line(["", ""]);
    let named = line([" --device /dev/shm/disk0", " --device /dev/shm/disk1"]);
    let machine = Machine::new(&[(&root, "vol0a"), (&data, "vol0b")]);
    assert_eq!(ends(&report_of(&run(machine.command(&found)).ok())), ["complete", "complete"]);
    root.is_warmed();
    data.is_warmed();
    let mut written: Vec<_> = fs::read_dir(&stamps)
        .unwrap()
        .map(|stamp| stamp.unwrap().file_name().into_string().unwrap())
        .collect();
    written.sort();
    assert_eq!(written, ["vol0a.warm", "vol0b.warm"]);
    // Not even what would tell which disk is whose.
    let before = reads();
    for line in [&found, &named] {
        let report = report_of(&run(machine.command(line)).ok());
        assert_eq!(ends(&report), ["already warm", "already warm"]);
        assert_eq!(report["volumes"][0]["device"], "/dev/shm/disk1", "{report:#}");
        assert_eq!(reads(), before);
    }
    // Made from the same snapshot, and cold.
    data.volume.reset();
    let machine = Machine::new(&[(&root, "vol0a"), (&data, "vol0c")]);
    let before = reads();
    let report = report_of(&run(machine.command(&found)).ok());
    assert_eq!(ends(&report), ["complete", "already warm"]);
    data.is_warmed();
    assert_eq!((number(&report, "/totals/reads"), reads()[0]), (25, before[0]));
}

#[test]
fn a_stamp_is_of_one_profile() {
    if !require_root() || !require("unshare") {
        return;
    }
    let root = Recorded::root();
    let machine = Machine::new(&[(&root, "vol0a")]);
    for (units, reads) in [(0..10, 10), (20..35, 15), (20..35, 0)] {
        // Compiled ones, which all have one and the same checksum over the whole of them.
        let profile = root.volume.profile_of_units(units);
        let line = format!(
            "--json warm --mode touch --device /dev/shm/disk0 --profile {profile} --stamp {}",
            root.volume.path("stamps")
        );
        let report: Value = serde_json::from_str(&run(machine.command(&line)).ok()).unwrap();
        assert_eq!(number(&report, "/totals/reads"), reads, "{report:#}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_read() {
    if !require_root() || !require("unshare") {
        return;
    }
    let root = Recorded::root();
    let (profile, device) = (&root.profile, root.volume.device());
    let twice = root.volume.path("again.bin");
    fs::copy(profile, &twice).unwrap();
    for (args, named) in [
        (format!("warm --profile {profile} --profile {twice}"), "were recorded on one disk"),
        (
            format!("warm --profile {profile} --profile {twice} --device {device} --device {device}"),
            "are for one disk",
        ),
        (format!("warm --profile {profile} --profile {twice} --device {device}"), "2 profiles and 1 devices"),
        (format!("warm --profile {profile} --device {device} --device auto"), "1 profiles and 2 devices"),
        (format!("warm --rest all --device {device} --device {device}"), "only profiles tell volumes apart"),
        (format!("warm --profile {profile} --profile {twice} --rest-blocks {twice}"), "of one volume"),
        (format!("plan --profile {profile} --profile {twice}"), "`plan` is about one volume"),
        #[cfg(feature = "control")]
        (format!("daemon --profile {profile} --profile {twice}"), "were recorded on one disk"),
        #[cfg(feature = "control")]
        (format!("daemon --profile {profile} --device {device} --device auto"), "1 profiles and 2 devices"),
    ] {
        let ran = on_machine(&[&root], &args).exits(2, &[named, "help: "]);
        assert!(root.volume.hydrated().is_empty(), "{args}: {}", ran.err);
    }
}

#[test]
fn a_profile_that_names_no_disk_needs_a_device_and_has_a_journal_of_its_own() {
    if !require_root() || !require("unshare") {
        return;
    }
    let (root, any) = (Recorded::root(), Volume::new(UNITS, "io2", QUICK));
    let unbound = any.profile_of_units(0..20);
    let line = format!("warm --mode touch --profile {} --profile {unbound}", root.profile);
    let ran = on_machine(&[&root], &line).exits(2, &["it names none", "--device"]);
    root.is_warmed();
    assert!(any.hydrated().is_empty(), "{}", ran.out);
    // Two of one size, which nothing tells apart but their devices.
    let other = Volume::new(UNITS, "io2", QUICK);
    let second = other.profile_of_units(5..35);
    let dir = any.path("journals");
    fs::create_dir(&dir).unwrap();
    let line = format!(
        "warm --json --mode touch --journal {dir} --profile {unbound} --device {} --profile {second} --device {}",
        any.device(),
        other.device()
    );
    for reads in [50, 0] {
        let mut command = Command::new(BIN);
        command.args(line.split_whitespace());
        let report = report_of(&run(command).ok());
        assert_eq!(number(&report, "/totals/reads"), reads, "{report:#}");
    }
    assert_eq!((any.hydrated().len(), other.hydrated().len()), (20, 30));
}

#[test]
fn the_budget_of_the_instance_is_for_all_of_them() {
    if !require_root() {
        return;
    }
    let (root, data) = (Recorded::root(), Recorded::data());
    let warm = |args: &str| {
        let mut command = Command::new(BIN);
        command.args(["--json", "warm", "--mode", "touch"]).args(args.split_whitespace());
        command.args(["--profile", &root.profile, "--device", &root.volume.device()]);
        command.args(["--profile", &data.profile, "--device", &data.volume.device()]);
        report_of(&run(command).ok())
    };
    let before = root.volume.stats().counters.reads + data.volume.stats().counters.reads;
    let report = warm("--instance-iops 50");
    root.is_warmed();
    data.is_warmed();
    // However slow the machine is, the time is no shorter than all reads together need; those that verify among them.
    let reads = number(&report, "/totals/reads");
    let verified: u64 = (0..2).map(|at| number(&report["volumes"][at], "/totals/verified")).sum();
    assert_eq!(reads, 57, "{report:#}");
    let elapsed_s = seconds(&report, "/totals/elapsed_s");
    assert!(elapsed_s + 0.005 >= (reads + 2 * verified - 1) as f64 / 50.0, "{reads} reads in {elapsed_s} s");
    let served = root.volume.stats().counters.reads + data.volume.stats().counters.reads - before;
    assert!(served >= reads + 2 * verified);
    // One alone keeps to it too.
    root.volume.reset();
    let line = format!("--profile {} --mode touch --instance-rate 400KB/s", root.profile);
    run(root.volume.warm(&line)).ok();
    let report = root.volume.report();
    let bytes = number(&report, "/totals/bytes_read");
    assert!(seconds(&report, "/totals/elapsed_s") + 0.005 >= (bytes - 4096) as f64 / 400e3, "{report:#}");
}
