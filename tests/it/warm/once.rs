//! Nothing twice, and nothing that is not asked for: the journal, a volume that is warm already, the rest, and standing
//! back for others.

use super::*;
use crate::support::{require, run as run_well};

/// 200 units a second, one after the other.
const STEADY: &[&str] = &["hydration=100MB/s", "first_read=20ms"];
/// Reads of what is warm: where a run has nothing to go on from it looks for how warm the volume is, and the last
/// verifies a sample of 16, by two reads each.
const LOOKS_MAX: u64 = 3 * 6 + 2 * 16;

#[test]
fn killed_twenty_times_it_reads_every_unit_and_none_twice_beyond_a_window() {
    if !require_root() {
        return;
    }
    let (units, depth, kills) = (1000, 8, 20);
    let volume = Volume::new(units, "gp3", STEADY);
    let profile = volume.profile_of_units((0..units).map(|unit| unit * 7919 % units));
    let line = format!("--profile {profile} --mode touch --depth {depth} --journal {}", volume.path(""));
    for kill in 0..kills {
        let warm = start(volume.warm(&line));
        // After 1 to 40 units, another number each time.
        let more = 1 + kill * 13 % 40;
        volume.wait_for(volume.stats().touched.len() + more);
        warm.signal(libc::SIGKILL);
        assert_eq!(warm.end().signal, Some(libc::SIGKILL));
    }
    let before = volume.stats();
    run(volume.warm(&line)).ok();
    let (stats, report) = (volume.stats(), volume.report());
    assert_eq!(stats.touched.len() as u64, units);
    let most = units + kills as u64 * depth + LOOKS_MAX;
    assert!(stats.counters.reads <= most, "{} reads of {units} units", stats.counters.reads);
    let (resumed, reads) = (number(&report, "/totals/resumed"), number(&report, "/totals/reads"));
    assert_eq!(resumed + reads, units, "{report:#}");
    assert!(resumed + depth * 2 >= before.touched.len() as u64, "{report:#}");
    // All is done: nothing is read, not even to verify.
    run(volume.warm(&line)).ok();
    assert_eq!(volume.stats().counters.reads, stats.counters.reads);
    assert_eq!(number(&volume.report(), "/totals/resumed"), units);
}

#[test]
fn a_second_process_waits_for_the_first_and_has_nothing_left_to_read() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(200, "gp3", STEADY);
    let line =
        format!("--profile {} --mode touch --journal {}", volume.profile_of_units(0..200), volume.path(""));
    let first = start(volume.warm(&line));
    volume.wait_for(20);
    let mut second = volume.verb("warm", &line);
    second.args(["--log", "info", "--report", &volume.path("second.json")]);
    // However long the second takes to come.
    first.signal(libc::SIGSTOP);
    let second = start(second);
    wait_for_file(second.pid(), &volume.device());
    first.signal(libc::SIGCONT);
    first.end().exits(0, &[]);
    second.end().exits(0, &["another process warms this volume"]);
    let report = read_report(Path::new(&volume.path("second.json")));
    assert_eq!((number(&report, "/totals/resumed"), number(&report, "/totals/reads")), (200, 0));
    assert!(volume.stats().counters.reads <= 200 + LOOKS_MAX);
}

#[test]
fn volumes_that_nothing_tells_apart_but_their_places_have_journals_of_their_own() {
    if !require_root() {
        return;
    }
    let (one, other) = (Volume::new(40, "gp3", &[]), Volume::new(40, "gp3", &[]));
    let line = format!("--rest all --mode touch --journal {}", one.path(""));
    for volume in [&one, &other] {
        run(volume.warm(&line)).ok();
        assert_eq!(volume.hydrated().len(), 40);
        assert_eq!(number(&volume.report(), "/totals/reads"), 40);
    }
    run(other.warm(&line)).ok();
    assert_eq!(number(&other.report(), "/totals/resumed"), 40);
}

#[test]
fn a_rest_of_other_blocks_is_another_rest() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "gp3", &[]);
    for unit in [3, 40] {
        let list = volume.path("blocks.json");
        let blocks = format!(r#"{{"Blocks": [{{"BlockIndex": {unit}}}], "BlockSize": 524288}}"#);
        fs::write(&list, blocks).unwrap();
        run(volume.warm(&format!("--rest-blocks {list} --journal {}", volume.path("")))).ok();
    }
    assert_eq!(volume.hydrated(), [3, 40]);
}

#[test]
fn what_was_touched_and_not_found_warm_throughout_is_verified_by_the_next() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "fine", &["first_read=300ms", "sigma=0"]);
    let all: Vec<(u64, u64)> = (0..64).map(|unit| (unit * UNIT, UNIT)).collect();
    let line = format!("--profile {} --journal {}", volume.profile(&[("ready", &all)]), volume.path(""));
    run(volume.warm(&format!("{line} --mode touch"))).exits(0, &["the unit is smaller than 512KiB"]);
    assert!(volume.stats().cold_units > 0);
    // All of its reads are done, by the journal.
    run(volume.warm(&line)).ok();
    assert_eq!((volume.stats().cold_units, volume.report()["mode"].as_str()), (0, Some("full")));
}

#[test]
fn a_rest_that_cannot_begin_takes_nothing_from_the_report_of_the_stages() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(60, "gp3", STEADY);
    let held = fs::File::create(volume.path(&format!("{}-rest.journal", volume.loop_name()))).unwrap();
    held.lock().unwrap();
    let profile = volume.profile_of_units(0..30);
    let mut command = volume.warm(&format!("--profile {profile} --rest all --journal {}", volume.path("")));
    command.args(["--log", "info"]);
    let warm = start(command);
    volume.wait_for(30);
    // It verifies, and then waits for whoever has the journal of the rest.
    std::thread::sleep(Duration::from_millis(300));
    warm.signal(libc::SIGTERM);
    warm.end().exits(1, &["failed to warm"]);
    let report = volume.report();
    assert_eq!((report["end"].as_str(), number(&report, "/stages/0/reads")), (Some("stopped"), 30));
    assert_eq!(number(&report, "/totals/units_left"), 0, "{report:#}");
}

#[test]
fn the_deadline_is_for_the_stages_and_the_rest_together() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(2000, "gp3", STEADY);
    let profile = volume.profile_of_units(0..300);
    // 1.5 s for the stage, and what is left of the two seconds: no machine makes 200 units a second more of it.
    let line = format!("--profile {profile} --rest all --mode touch --regardless --deadline 2s");
    run(volume.warm(&line)).exits(5, &["are left"]);
    let touched = volume.hydrated().len();
    assert!(touched < 300 + 200, "{touched} units in 2 s at 200 a second");
}

#[test]
fn a_device_that_is_named_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let mut command = Command::new(BIN);
    command.args(["warm", "--rest", "all", "--wait", "100s", "--device", path.to_str().unwrap()]);
    let warm = start(command);
    std::thread::sleep(Duration::from_millis(200));
    let made = dir.path().join("made");
    fs::File::create(&made).unwrap().set_len(8 * UNIT).unwrap();
    fs::rename(made, path).unwrap();
    warm.end().exits(0, &[]);
}

/// Waits until a process has taken a signal upon itself.
fn heeds(pid: i32, signal: i32) {
    let is_caught = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & (1 << (signal - 1)) != 0
    };
    wait_until("it heeds the signal", is_caught);
}

#[test]
fn a_stop_ends_the_waiting_for_a_device() {
    let mut command = Command::new(BIN);
    command.args(["warm", "--rest", "all", "--wait", "1h", "--device", "/none"]);
    let warm = start(command);
    heeds(warm.pid(), libc::SIGTERM);
    warm.signal(libc::SIGTERM);
    warm.end().exits(1, &["failed to open device `/none`"]);
}

#[test]
fn a_journal_that_cannot_be_kept_costs_no_warming() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(40, "gp3", &["first_read=1ms"]);
    let journal = volume.path("no/such/place");
    let line = format!("--profile {} --journal {journal}", volume.profile_of_units(0..40));
    run(volume.warm(&line)).exits(0, &["failed to open journal", &journal]);
    assert_eq!(volume.hydrated().len(), 40);
}

#[test]
fn a_volume_whose_first_half_is_warm_is_warmed() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(800, "gp3", &[]);
    run(volume.warm(&format!("--profile {}", volume.profile_of_units(0..400)))).ok();
    run(volume.warm(&format!("--profile {}", volume.profile_of_units(0..800)))).ok();
    assert_eq!((volume.hydrated().len(), volume.report()["end"].as_str()), (800, Some("complete")));
}

#[test]
fn without_a_serial_there_is_no_stamp_and_that_is_told() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(20, "gp3", &[]);
    let line = format!("--profile {} --stamp {}", volume.profile_of_units(0..20), volume.path("stamps"));
    let mut warm = volume.warm(&line);
    warm.args(["--log", "info"]);
    run(warm).exits(0, &["has no serial"]);
    assert_eq!(volume.hydrated().len(), 20);
    assert!(!Path::new(&volume.path("stamps")).exists());
}

/// Units of 512 KiB that hold some of these ranges in bytes.
fn units_of(ranges: impl IntoIterator<Item = (u64, u64)>) -> BTreeSet<u64> {
    set(ranges.into_iter().flat_map(|(start, end)| start / UNIT..end.div_ceil(UNIT)))
}

/// A filesystem with some files on a volume of 512 MiB; mounted while its allocated units are warmed.
fn allocated_is_warmed(mkfs: &[&str], free: impl Fn(&Path) -> Vec<(u64, u64)>) {
    let bytes = 1024 * UNIT;
    let make = |path: &Path| {
        fs::File::create(path).unwrap().set_len(bytes).unwrap();
        run_well(Command::new(mkfs[0]).args(&mkfs[1..]).arg(path));
        let dir = path.with_extension("dir");
        fs::create_dir(&dir).unwrap();
        run_well(Command::new("mount").args(["-o", "loop"]).args([path, &dir]));
        for number in 0..40 {
            fs::write(dir.join(format!("file-{number}")), vec![number; 1_500_000]).unwrap();
        }
        (0..40).step_by(3).for_each(|number| fs::remove_file(dir.join(format!("file-{number}"))).unwrap());
        run_well(Command::new("umount").arg(&dir));
    };
    let volume = Volume { cold: ColdLoop::made(make, "gp3", &["hydration=0", "first_read=20ms", "sigma=0"]) };
    let free = free(volume.cold.file().image());
    let free: BTreeSet<u64> = set(free.into_iter().flat_map(|(start, end)| start.div_ceil(UNIT)..end / UNIT));
    let used: BTreeSet<u64> = units_of([(0, bytes)]).difference(&free).copied().collect();
    let dir = volume.path("mounted");
    fs::create_dir(&dir).unwrap();
    run_well(Command::new("mount").args(["-o", "ro", &volume.device(), &dir]));
    let ran = run(volume.warm("--rest allocated --mode touch"));
    run_well(Command::new("umount").arg(&dir));
    ran.ok();
    let warmed = set(volume.hydrated());
    let missed: Vec<_> = used.difference(&warmed).collect();
    assert!(missed.is_empty(), "in use and cold: {missed:?}");
    let idle: Vec<_> = warmed.difference(&used).collect();
    // What a filesystem keeps back for itself may be free for one tool and not for the kernel.
    assert!(
        idle.len() <= 8 && used.len() + idle.len() < 300,
        "{} in use, warmed besides: {idle:?}",
        used.len()
    );
}

#[test]
fn what_ext4_has_allocated_is_warmed_and_nothing_else() {
    if !require_root() {
        return;
    }
    allocated_is_warmed(&["mkfs.ext4", "-q", "-F", "-b", "4096"], |image| {
        let text = run_well(Command::new("dumpe2fs").arg(image));
        let ranges = text.lines().filter_map(|line| line.strip_prefix("  Free blocks: "));
        let ranges = ranges.flat_map(|line| line.split(", ")).filter(|range| !range.is_empty());
        let block = |text: &str| text.parse::<u64>().unwrap();
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            (block(first) * 4096, (block(last) + 1) * 4096)
        };
        ranges.map(range).collect()
    });
}

#[test]
fn what_xfs_has_allocated_is_warmed_and_nothing_else() {
    if !require_root() || !require("mkfs.xfs") {
        return;
    }
    allocated_is_warmed(&["mkfs.xfs", "-q"], |image| {
        let sizes = run_well(
            Command::new("xfs_db").args(["-r", "-c", "sb 0", "-c", "p agblocks blocksize"]).arg(image),
        );
        let size = |name: &str| {
            let line = sizes.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(" = ").parse::<u64>().unwrap()
        };
        let (group_blocks, block_bytes) = (size("agblocks"), size("blocksize"));
        let text = run_well(Command::new("xfs_db").args(["-r", "-c", "freesp -d"]).arg(image));
        let fields = |line: &str| -> Vec<u64> {
            line.split_whitespace().map_while(|field| field.parse().ok()).collect()
        };
        let rows = text.lines().map(fields).filter(|row| row.len() == 3);
        rows.map(|row| ((row[0] * group_blocks + row[1]) * block_bytes, row[2] * block_bytes))
            .map(|(start, bytes)| (start, start + bytes))
            .collect()
    });
}

#[test]
fn a_snapshots_list_is_warmed_and_nothing_else() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "gp3", &[]);
    let list = volume.path("blocks.json");
    fs::write(
        &list,
        r#"{"Blocks": [{"BlockIndex": 3, "BlockToken": "a"}, {"BlockIndex": 40, "BlockToken": "b"}], "BlockSize": 524288}"#,
    )
    .unwrap();
    run(volume.warm(&format!("--rest-blocks {list}"))).ok();
    assert_eq!(volume.hydrated(), [3, 40]);
}

#[test]
fn a_budget_ends_the_rest_and_the_next_run_goes_on() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(40, "gp3", &[]);
    let line = format!("--rest all --rest-budget 8MiB --mode touch --journal {}", volume.path(""));
    run(volume.warm(&line));
    assert_eq!(volume.hydrated(), (0..16).collect::<Vec<_>>());
    run(volume.warm(&line));
    assert_eq!(volume.hydrated().len(), 32);
}

#[test]
fn the_rest_stands_back_for_whoever_reads_and_is_done_afterwards() {
    if !require_root() {
        return;
    }
    const STALL_S: u64 = 12;
    let sets = [STEADY, &["stall_fetch=0", "stall=12s"]].concat();
    let volume = Volume::new(400, "gp3", &sets);
    // Somebody waits for the disk all the time, for longer than the rest would take by itself.
    let device = volume.device();
    let reader = std::thread::spawn(move || {
        crate::support::read_direct(Path::new(&device), 399 * UNIT, 4096).unwrap()
    });
    volume.wait_for(1);
    run(volume.warm("--rest all --mode touch")).ok();
    reader.join().unwrap();
    let (stats, report) = (volume.stats(), volume.report());
    assert_eq!((stats.touched.len(), stats.touched[0].unit), (400, 399));
    let over_ns = stats.touched[0].at_ns + STALL_S * 1_000_000_000;
    let beside = stats.touched[1..].iter().filter(|touch| touch.at_ns < over_ns).count() as u64;
    // Ten a second, and what is asked for before anybody is seen and to find out whether the volume is warm. Had it not stood
    // back it would have read 200 a second.
    assert!(beside <= 10 * STALL_S + 32 + 48, "{beside} units beside somebody's read");
    assert!(seconds(&report, "/totals/held_back_s") > 0.0, "{report:#}");
}
