//! `bench`, by the real program on emulated cold volumes behind loop devices. The judge of what each method hydrated is
//! the emulator's own list.

#![cfg(feature = "lab")]

use crate::profile::mbr;
use crate::support::{BIN, ColdLoop, read_direct, require_root};
use crate::warm::{UNIT, Volume, number, read_report, run, seconds, start};
use ebs_prewarm::findings;
use ebs_prewarm::volume::Identity;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Units of a tile, which is what methods get.
const TILE_UNITS: u64 = 32;

/// So long that no warm read of a busy machine is taken for a first one, or the other way round.
const FIRST_READ: &str = "first_read=60ms";

/// Of so many tiles beside the first, which stays out.
fn volume_of(tiles: u64, model: &str, sets: &[&str]) -> Volume {
    Volume::new((tiles + 1) * TILE_UNITS, model, sets)
}

/// One that is recognised by its partition table, 0xabcd1234.
fn recognised(tiles: u64, model: &str, sets: &[&str]) -> Volume {
    let make = |path: &Path| {
        fs::write(path, mbr(0xabcd_1234, 2048, 1_000_000)).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len((tiles + 1) * TILE_UNITS * UNIT).unwrap();
    };
    Volume { cold: ColdLoop::made(make, model, sets) }
}

/// What is kept of a volume.
fn known(volume: &Volume, report: &Value) -> findings::Findings {
    let identity: Identity = serde_json::from_value(report["volume"].clone()).unwrap();
    findings::load(Path::new(&volume.path("findings")), &identity).unwrap().unwrap()
}

fn bench(volume: &Volume, args: &str) -> Command {
    let mut command = volume.verb("bench", args);
    command.args(["--report", &volume.path("report.json"), "--findings", &volume.path("findings")]);
    if !args.contains("--first-touches") {
        command.args(["--first-touches", "64"]);
    }
    command
}

fn report(volume: &Volume) -> Value {
    read_report(Path::new(&volume.path("report.json")))
}

fn method<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["methods"].as_array().unwrap();
    all.iter().find(|method| method["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// All but those which took as long as a cold read on a busy machine; so many are allowed for.
#[track_caller]
fn are_warm(method: &Value) {
    let (blocks, warm) = (number(method, "/checked/blocks"), number(method, "/checked/warm"));
    assert!(warm <= blocks && (blocks - warm) * 12 <= blocks, "{method:#}");
}

#[test]
fn a_cold_volume_is_measured_once() {
    if !require_root() {
        return;
    }
    let volume = volume_of(48, "io2", &[FIRST_READ, "sigma=0.1"]);
    let out = run(bench(&volume, "--methods documented-fio,touch@16,tokio-uring@16 --no-save --json")).ok();
    let printed: Value = serde_json::from_str(&out).unwrap();
    let report = report(&volume);
    assert_eq!(printed, report);
    assert_eq!(report["end"], "complete");
    assert_eq!(report["evidence"]["cold"], true);
    assert_eq!((number(&report, "/unit/bytes"), number(&report, "/touched_unit_bytes")), (UNIT, UNIT));
    assert_eq!(report["device"].as_str(), Some(volume.device().as_str()));
    assert_eq!(report["storage"]["kind"], "loop");
    assert!((55_000..90_000).contains(&number(&report, "/cold_latency_us/p50")), "{report:#}");
    assert_eq!(report["methods"].as_array().unwrap().len(), 3);
    let mut counted = 0;
    for name in ["documented-fio", "touch@16", "tokio-uring@16"] {
        let method = method(&report, name);
        let units = number(method, "/units");
        // What was read again afterwards was warm: all units count.
        are_warm(method);
        assert_eq!((units % TILE_UNITS, number(method, "/errors")), (0, 0), "{method:#}");
        assert!(units >= 3 * TILE_UNITS, "{method:#}");
        let read_each = if name == "documented-fio" { UNIT } else { 4096 };
        assert_eq!(number(method, "/bytes_read"), units * read_each, "{method:#}");
        let rate = seconds(method, "/hydrated_bytes_per_s");
        assert!(
            (rate * seconds(method, "/elapsed_s") / (units * UNIT) as f64 - 1.0).abs() < 1e-6,
            "{method:#}"
        );
        assert_eq!(number(method, "/foreground/read_bytes"), 0, "{method:#}");
        assert_eq!(number(&report, "/evidence/foreground/read_bytes"), 0, "{report:#}");
        assert!(seconds(method, "/cpu_s") > 0.0, "{method:#}");
        let series = method["series"].as_array().unwrap();
        assert_eq!(series.last().unwrap()[1].as_u64(), Some(units * UNIT), "{method:#}");
        let mapped: u64 = method["map"].as_array().unwrap().iter().map(|run| run[1].as_u64().unwrap()).sum();
        assert_eq!(mapped, units, "{method:#}");
        counted += units;
    }
    // Each method read its own: what all of them and the evidence count is what was hydrated. The probe takes a read for
    // cold that was late, once in a while; a tile that two had read would be 32.
    let looked_at = number(&report, "/evidence/units") + number(&report, "/evidence/probed_units");
    let hydrated = volume.hydrated().len() as u64;
    assert!(
        hydrated.abs_diff(counted + looked_at) <= 4,
        "{hydrated} of {counted} and {looked_at}: {report:#}"
    );
    let best = &report["recommended"];
    assert_eq!((best["mode"].as_str(), number(best, "/depth")), (Some("touch"), 16));
    assert!(best["reason"].as_str().unwrap().contains("MB/s"), "{best:#}");

    // All of it is warm now, so nothing can be measured any more, and nothing is called cold.
    run(volume.verb("warm", "--rest all --mode touch")).ok();
    let ran = run(bench(&volume, "--methods touch@64"));
    let ran = ran.exits(1, &["failed to find a cold volume in", &volume.device(), "help: make a new volume"]);
    assert!(ran.out.is_empty(), "{}", ran.out);
    let report = self::report(&volume);
    assert_eq!(
        (report["end"].as_str(), &report["evidence"]["cold"]),
        (Some("not cold"), &Value::Bool(false))
    );
}

#[test]
fn a_sweep_finds_its_knee_and_all_latencies_are_logged() {
    if !require_root() {
        return;
    }
    let volume = volume_of(160, "io2", &[FIRST_READ, "fetches=16", "sigma=0.2"]);
    let log = volume.path("all.hlog");
    let text = run(bench(&volume, &format!("--methods touch --histograms {log}"))).ok();
    for said in ["recommended: --mode touch --unit 512KiB --depth", "(knee", "touch by depth: 1 "] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let report = report(&volume);
    let sweep = &report["sweeps"][0];
    let depths: Vec<u64> =
        sweep["points"].as_array().unwrap().iter().map(|point| point["depth"].as_u64().unwrap()).collect();
    let knee = number(sweep, "/knee");
    // 16 fetches at once: more in flight brings nothing, and the sweep went on until that was seen.
    assert!(depths.starts_with(&[1, 2, 4]) && depths.last().unwrap() >= &32, "{depths:?}");
    assert!(depths.contains(&knee) && (8..=64).contains(&knee), "{sweep:#}");
    assert_eq!(number(&report, "/recommended/depth"), knee);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.starts_with('#') && log.contains("[BaseTime: "), "{log}");
    for tag in ["warm".to_string(), "first-touch".into(), format!("touch@{knee}")] {
        assert!(log.contains(&format!("Tag={tag},0.000,")), "{tag}: {log}");
    }
    assert_eq!(volume.stats().touched.len() as u64, volume.stats().counters.hydrated);
}

#[test]
fn a_foreign_command_gets_its_part_and_is_believed_for_what_is_warm_afterwards() {
    if !require_root() {
        return;
    }
    let volume = volume_of(64, "io2", &[FIRST_READ, "sigma=0.1"]);
    let read =
        "dd if={device} of=/dev/null bs=1M iflag=direct,skip_bytes,count_bytes skip={offset} count={size}";
    let commands =
        [format!("all={read}"), "nothing=test -b {device}".into(), "wrong=cat {device}.none".into()];
    let mut command = bench(&volume, "--methods touch@16");
    commands.iter().for_each(|line| {
        command.args(["--method-command", line]);
    });
    let ran = run(command).exits(1, &["failed to measure all methods", ".none", "No such file"]);
    assert!(ran.out.contains("all ") && ran.out.contains("nothing "), "{}", ran.out);
    let report = report(&volume);
    assert_eq!(report["end"], "complete", "{report:#}");
    let all = method(&report, "all");
    are_warm(all);
    assert_eq!(number(all, "/bytes_read"), number(all, "/units") * UNIT, "{all:#}");
    assert!(all["depth"].is_null() && all["steady_bytes_per_s"].is_null() && all["foreground"].is_null());
    assert!(all["command"].as_str().unwrap().contains("{offset}"), "{all:#}");
    // Its part is cold all the same, whatever its exit code says.
    let nothing = method(&report, "nothing");
    assert!(number(nothing, "/checked/warm") * 4 < number(nothing, "/checked/blocks"), "{nothing:#}");
    assert!(number(nothing, "/units") * 4 < number(all, "/units"), "{nothing:#}");
    let wrong = method(&report, "wrong");
    assert_eq!((number(wrong, "/units"), number(wrong, "/checked/blocks")), (0, 0));
    assert!(wrong["error"].as_str().unwrap().contains("failed: exit status"), "{wrong:#}");
}

#[test]
fn a_profile_is_measured_and_what_was_found_is_kept_for_this_volume() {
    if !require_root() {
        return;
    }
    let volume = recognised(64, "io2", &[FIRST_READ, "sigma=0.1"]);
    let units: Vec<u64> = (0..100).map(|number| 300 + 3 * number).collect();
    let profile = volume.profile_of_units(units.iter().copied());
    run(bench(&volume, &format!("--methods touch@32,full@4 --profile {profile}"))).ok();
    let report = report(&volume);
    let found = method(&report, "profile");
    assert_eq!((number(found, "/units"), number(found, "/bytes_read")), (100, 100 * 4096), "{found:#}");
    assert!(number(found, "/latency_us/p50") >= 30_000, "nobody else had read them: {found:#}");
    let hydrated = volume.hydrated();
    assert!(units.iter().all(|unit| hydrated.contains(unit)));
    let first = known(&volume, &report);
    let best = first.best.clone().unwrap();
    assert_eq!((first.unit_bytes(), best.mode.as_str(), best.depth), (Some(UNIT), "touch", 32));
    assert_eq!(first.measured_by, "bench");
    assert!(report["saved_as"].as_str().unwrap().ends_with("abcd1234.json"), "{report:#}");
    // Who measures one mode alone knows the unit, and not which mode is best: that stays, and it is said.
    volume.reset();
    let text = run(bench(&volume, "--methods full@32 --seed 2")).ok();
    assert!(
        text.contains("touching was not measured") && text.contains("mode and depth are not kept"),
        "{text}"
    );
    assert_eq!(known(&volume, &self::report(&volume)).best, first.best);
    fs::remove_dir_all(volume.path("findings")).unwrap();
    volume.reset();
    run(bench(&volume, "--methods full@32 --seed 3")).ok();
    let alone = known(&volume, &self::report(&volume));
    assert_eq!((alone.unit_bytes(), alone.best), (Some(UNIT), None));
    run(bench(&volume, "--methods touch@32,profile")).exits(2, &["none is given", "--profile FILE"]);
}

#[test]
fn others_on_the_device_spoil_what_is_measured_and_are_told() {
    if !require_root() {
        return;
    }
    let volume = volume_of(48, "io2", &[FIRST_READ, "sigma=0.1"]);
    // Of the first tile, which no method gets. One such read is enough to be told.
    const READ_BYTES: usize = 1 << 20;
    let read = |number: u64| {
        let offset = number % (TILE_UNITS * UNIT / READ_BYTES as u64) * READ_BYTES as u64;
        read_direct(volume.cold.device(), offset, READ_BYTES).unwrap();
    };
    (0..TILE_UNITS).for_each(read);
    let stop = AtomicBool::new(false);
    let (text, others) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let reads = (0..).take_while(|_| !stop.load(Ordering::Relaxed));
            reads.inspect(|number| read(*number)).count() as u64
        });
        let text = run(bench(&volume, "--methods touch@16,documented-fio --no-save")).out;
        stop.store(true, Ordering::Relaxed);
        (text, reader.join().unwrap() * READ_BYTES as u64)
    });
    let report = report(&volume);
    assert_eq!((report["end"].as_str(), &report["evidence"]["cold"]), (Some("complete"), &Value::Bool(true)));
    let spoilt: Vec<&str> =
        report["evidence"]["spoilt"].as_array().unwrap().iter().map(|what| what.as_str().unwrap()).collect();
    for who in ["first reads, one at a time", "touch@16", "documented-fio"] {
        let said = format!("{who}: others used the device meanwhile: ");
        assert!(spoilt.iter().any(|what| what.starts_with(&said)), "{said}: {spoilt:?}");
        assert!(text.contains(&format!("spoilt: {said}")), "{text}");
    }
    // It is theirs and no more, though some of it passed between the parts.
    let methods = report["methods"].as_array().unwrap().iter();
    let all = methods.chain([&report["evidence"]]).map(|part| number(part, "/foreground/read_bytes"));
    let all: u64 = all.sum();
    assert!((3 * READ_BYTES as u64..=others).contains(&all), "{all} of {others}: {report:#}");
}

#[test]
fn a_bench_that_cannot_be_done_reads_nothing_and_says_why() {
    if !require_root() {
        return;
    }
    let volume = volume_of(1, "io2", &[]);
    run(bench(&volume, "--methods touch@8")).exits(1, &["failed to find room for 1 methods", "help: "]);
    let refused = report(&volume);
    assert_eq!(refused["end"], "refused");
    assert!(refused["error"].as_str().unwrap().contains("failed to find room"), "{refused:#}");
    run(bench(&volume, "--unit 100KiB")).exits(2, &["a unit of 102400 bytes", "power of two"]);
    run(bench(&volume, "--methods cat")).exits(2, &["failed to parse method `cat`", "known methods"]);
    run(bench(&volume, "--methods touch@64,touch@0")).exits(2, &["failed to parse method `touch@0`"]);
    run(bench(&volume, "--methods touch@8,touch@8")).exits(2, &["twice in one run"]);
    let mut foreign = bench(&volume, "");
    foreign.args(["--method-command", "mine=cat /dev/null"]);
    run(foreign).exits(2, &["names no {device}", "{offset}"]);
    let mut nowhere = volume.verb("bench", "--report /none/report.json");
    nowhere.env("LC_ALL", "C");
    run(nowhere).exits(1, &["/none/report.json", "make the directory first"]);
    // The disk of / is nobody's to warm by mistake.
    let mut whose = Command::new(BIN);
    whose.args(["bench", "--device", "auto", "--report", &volume.path("auto.json")]);
    run(whose).exits(2, &["failed to measure device `auto`", "help: name the device"]);
    assert_eq!(read_report(Path::new(&volume.path("auto.json")))["end"], "refused");
    let mut command = bench(&volume, "");
    command.args(["--histograms", "/none/all.hlog"]);
    run(command).exits(1, &["/none/all.hlog"]);
    assert!(volume.hydrated().is_empty(), "a volume is cold but once: {:?}", volume.hydrated());
}

#[test]
fn a_bench_that_is_stopped_keeps_what_it_has() {
    if !require_root() {
        return;
    }
    let volume = recognised(48, "scarce", &[]);
    let evidence = start(bench(&volume, "--methods dd,touch@64"));
    volume.wait_for(12);
    evidence.signal(libc::SIGINT);
    let ran = evidence.end().exits(1, &["failed to measure all methods on", "stopped"]);
    assert!(ran.out.contains("is cold; ") && ran.out.contains("it ended early: stopped"), "{}", ran.out);
    let told = report(&volume);
    assert_eq!((told["end"].as_str(), told["saved_as"].as_str()), (Some("stopped"), None));
    assert!(told["notes"].to_string().contains("nothing is kept for `warm`"), "{told:#}");
    volume.reset();
    fs::remove_file(volume.path("report.json")).unwrap();
    let measuring = start(bench(&volume, "--methods dd,touch@64 --first-touches 8"));
    // Written after each part, and when it is stopped.
    let begun = std::time::Instant::now();
    while !Path::new(&volume.path("report.json")).exists() {
        assert!(begun.elapsed().as_secs() < 120, "no part was saved");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    measuring.signal(libc::SIGTERM);
    measuring.end().exits(1, &["stopped"]);
    let report = report(&volume);
    assert_eq!((report["end"].as_str(), &report["evidence"]["cold"]), (Some("stopped"), &Value::Bool(true)));
    assert!(!report["methods"].as_array().unwrap().is_empty(), "{report:#}");
    // The unit is known for all that, and what is best is not.
    let kept = known(&volume, &report);
    assert_eq!((kept.unit_bytes(), kept.best), (Some(UNIT), None));
}

#[test]
fn a_command_that_is_under_way_ends_with_the_bench() {
    if !require_root() {
        return;
    }
    let volume = volume_of(24, "io2", &[FIRST_READ]);
    let marker = volume.path("began");
    let mut command = bench(&volume, "--methods dd");
    command
        .args(["--method-command", &format!("slow=touch {marker}; sleep 1000 & sleep 1000; : {{device}}")]);
    let bench = start(command);
    let begun = std::time::Instant::now();
    while !Path::new(&marker).exists() {
        assert!(begun.elapsed().as_secs() < 120, "the command was not run");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    bench.signal(libc::SIGINT);
    bench.end().exits(1, &["stopped"]);
    assert!(method(&report(&volume), "slow")["error"].as_str().unwrap().ends_with("was stopped"));
}

#[test]
fn a_stall_in_the_middle_costs_one_read() {
    if !require_root() {
        return;
    }
    // Well beyond what the evidence reads.
    let sets = [FIRST_READ, "sigma=0.1", "stall_fetch=700", "stall=1h"];
    let volume = volume_of(64, "io2", &sets);
    run(bench(&volume, "--methods dd,touch@16,documented-fio")).exits(3, &["failed to end 1 reads"]);
    let report = report(&volume);
    assert_eq!((report["end"].as_str(), report["methods"].as_array().unwrap().len()), (Some("complete"), 3));
    let sum = |field: &str| -> u64 {
        report["methods"].as_array().unwrap().iter().map(|method| number(method, field)).sum()
    };
    assert_eq!((sum("/stalled"), sum("/errors")), (1, 1), "{report:#}");
    assert!(volume.stats().in_flight > 0, "the volume still works on it: nobody waited");
}

#[test]
fn units_that_fail_are_counted_and_a_dead_volume_is_given_up() {
    if !require_root() {
        return;
    }
    let bad: Vec<String> = (0..2080).step_by(50).map(|unit| unit.to_string()).collect();
    let volume = volume_of(64, "io2", &[FIRST_READ, &format!("eio_units={}", bad.join(","))]);
    run(bench(&volume, "--methods touch@16")).exits(3, &["failed to end", "what is told is of all others"]);
    assert!(number(method(&report(&volume), "touch@16"), "/errors") > 0);
    let dead = volume_of(64, "io2", &["first_read=1ms", "eio_sectors=0+3000000"]);
    run(bench(&dead, "--methods touch@16")).exits(1, &["device gone"]);
    assert_eq!(report(&dead)["evidence"]["cold"], false);
}

#[test]
fn a_wrong_unit_is_noticed_and_not_touched_by() {
    if !require_root() {
        return;
    }
    let volume = volume_of(64, "fine", &[FIRST_READ, "hydration=1GB/s", "iops=0", "throughput=0"]);
    run(bench(&volume, "--methods touch@32,full@32 --unit 512KiB")).ok();
    let report = report(&volume);
    let touch = method(&report, "touch@32");
    assert!(number(touch, "/checked/warm") * 2 < number(touch, "/checked/blocks"), "{touch:#}");
    assert_eq!((number(&report, "/unit/bytes"), number(&report, "/touched_unit_bytes")), (128 << 10, UNIT));
    assert_eq!(report["recommended"]["mode"], "full", "{report:#}");
}
