//! `daemon` with several volumes: all told of, waited for, paused and ended together, each by name. The judge of what was
//! read is the emulator of each.

use super::daemon::{asks, series, socket, status, until};
use super::manager::{said, until as heard_until};
use super::several::{Machine, Recorded, ends};
use super::*;
use crate::support::require;
use ebs_prewarm::control::{Phase, Status};
use std::ops::Range;
use std::os::unix::net::UnixDatagram;

/// 40 units a second.
const SLOW: &[&str] = &["hydration=20MB/s", "first_read=10ms", "sigma=0"];

/// The daemon on volumes, each by its profile; its socket and its report are among the first one's files.
fn daemon(pairs: &[(&Volume, &str)], args: &str) -> Command {
    let mut command = Command::new(BIN);
    command.arg("daemon").args(args.split_whitespace());
    for (volume, profile) in pairs {
        command.args(["--profile", profile, "--device", &volume.device()]);
    }
    command.args(["--report", &pairs[0].0.path("report.json"), "--socket", &socket(pairs[0].0)]);
    command
}

/// The report of all volumes.
fn report(first: &Volume) -> Value {
    let text = fs::read_to_string(first.path("report.json")).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A compiled profile, in a file of this name.
fn profile(volume: &Volume, name: &str, stages: &[(&str, Range<u64>)]) -> String {
    let at = |units: &Range<u64>| units.clone().map(|unit| (unit * UNIT, 4096)).collect::<Vec<_>>();
    let ranges: Vec<(&str, Vec<(u64, u64)>)> =
        stages.iter().map(|(name, units)| (*name, at(units))).collect();
    let ranges: Vec<(&str, &[(u64, u64)])> =
        ranges.iter().map(|(name, ranges)| (*name, ranges.as_slice())).collect();
    let path = volume.path(&format!("{name}.bin"));
    fs::rename(volume.profile(&ranges), &path).unwrap();
    path
}

/// One read at a time: what stalls is then the unit that is meant, however busy the machine is.
const IN_TURN: &str = "--mode touch --depth 1";

/// Two that are slow, the second with a unit that stalls for longer than any test.
fn two(stall_fetch: &str) -> [Volume; 2] {
    let stall = [&format!("stall_fetch={stall_fetch}"), "stall=300s"];
    [Volume::new(200, "gp3", SLOW), Volume::new(200, "gp3", &[SLOW, &stall].concat())]
}

#[test]
fn a_stage_is_waited_for_on_all_volumes_that_have_it() {
    if !require_root() {
        return;
    }
    // The last unit of `later` stalls.
    let [root, data] = two("39");
    let of_root = profile(&root, "root", &[("initrd", 0..10), ("ready", 100..120)]);
    let of_data = profile(&data, "data", &[("ready", 0..30), ("later", 60..70)]);
    let wait =
        |stage: &str, timeout: &str| start(asks(&root, &format!("wait --stage {stage} --timeout {timeout}")));
    let [initrd, ready, later] =
        [("initrd", "120s"), ("ready", "120s"), ("later", "20s")].map(|(s, t)| wait(s, t));
    let mut warm = start(daemon(&[(&root, &of_root), (&data, &of_data)], IN_TURN));
    // One has no such stage, and keeps nobody waiting.
    initrd.end().ok();
    assert!(set(root.hydrated()).is_superset(&set(0..10)));
    assert_eq!(ready.end().ok(), "stage ready is warm\n");
    assert!(set(root.hydrated()).is_superset(&set(100..120)));
    assert!(set(data.hydrated()).is_superset(&set(0..30)));
    assert!(data.stats().counters.hydrated >= 30, "answered, not only asked for");
    let now = until(&root, |status| status.volumes[0].phase == Phase::Warm);
    let volume = &now.volumes[1];
    assert_eq!((volume.phase, volume.stage.as_deref()), (Phase::Warming, Some("later")));
    assert_eq!((now.phase, now.stage.as_deref()), (Phase::Warming, Some("later")));
    let told: Vec<_> =
        now.volumes.iter().map(|it| (it.name.as_deref().unwrap(), it.device.clone())).collect();
    assert_eq!(told, [("root", root.device()), ("data", data.device())]);
    let over: Vec<_> = now.stages.iter().map(|it| (it.name.as_str(), it.reads, it.is_over)).collect();
    assert_eq!(over, [("initrd", 10, true), ("ready", 50, true), ("later", 10, false)]);
    let text = run(asks(&root, "status")).ok();
    for line in [
        format!("root: {}: warm\n", root.device()),
        format!("data: {}: warming, stage later: ", data.device()),
        "\nall: warming, 1 of 2 volumes warm, stage later: ".into(),
    ] {
        assert!(text.contains(&line), "`{line}` is not in: {text}");
    }
    later.end().exits(5, &["failed to see stage `later` warm within 20 s"]);
    run(asks(&root, "wait --stage mine")).exits(2, &["failed to find stage `mine`", "initrd, ready, later"]);
    assert!(!warm.has_ended());
    run(asks(&root, "stop")).ok();
    warm.end().exits(0, &["root: ", "data: ", "1 of 2 volumes are warm"]);
    let report = report(&root);
    assert_eq!(ends(&report), ["complete", "stopped"]);
    assert_eq!(number(&report, "/totals/volumes_complete"), 1);
}

/// A daemon under a manager, and what the manager hears.
fn managed(volumes: &[(&Volume, &str)]) -> (UnixDatagram, Started) {
    let path = volumes[0].0.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(HANG)).unwrap();
    let mut command = daemon(volumes, IN_TURN);
    command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC");
    (manager, start(command))
}

#[test]
fn nobody_is_told_that_a_stage_is_warm_while_one_volume_is_behind() {
    if !require_root() {
        return;
    }
    let [root, data] = two("9");
    let profiles = [profile(&root, "root", &[("ready", 0..5)]), profile(&data, "data", &[("ready", 0..10)])];
    let (manager, warm) = managed(&[(&root, &profiles[0]), (&data, &profiles[1])]);
    let behind = |status: &Status| {
        status.volumes[0].phase == Phase::Warm && status.volumes[1].stages.iter().any(|stage| stage.done == 9)
    };
    until(&root, behind);
    run(asks(&root, "wait --timeout 300ms")).exits(5, &["failed to see stage `ready`"]);
    // The next thing that is told is the end.
    warm.signal(libc::SIGTERM);
    let heard = heard_until(&manager, &["STOPPING=1"]);
    let before = &heard[..heard.len() - 1];
    assert_eq!(said(before, "READY=1"), 0, "{heard:#?}");
    assert!(said(before, "STATUS=") > 0, "{heard:#?}");
    warm.end().exits(0, &[]);
    assert_eq!(ends(&report(&root)), ["complete", "stopped"]);
}

#[test]
fn ready_is_told_when_the_stage_is_warm_on_all() {
    if !require_root() {
        return;
    }
    // `later` does not end.
    let [root, data] = two("29");
    let profiles = [
        profile(&root, "root", &[("ready", 100..110), ("later", 0..10)]),
        profile(&data, "data", &[("ready", 0..20), ("later", 100..110)]),
    ];
    let (manager, warm) = managed(&[(&root, &profiles[0]), (&data, &profiles[1])]);
    let heard = heard_until(&manager, &["READY=1"]);
    assert!(set(root.hydrated()).is_superset(&set(100..110)), "{heard:#?}");
    assert!(set(data.hydrated()).is_superset(&set(0..20)), "{heard:#?}");
    assert!(data.stats().counters.hydrated >= 20, "{heard:#?}");
    warm.signal(libc::SIGTERM);
    warm.end().exits(0, &[]);
}

#[test]
fn a_volume_that_is_missing_is_told_and_stops_no_other() {
    if !require_root() || !require("unshare") {
        return;
    }
    let (root, data) = (Recorded::root(), Recorded::data());
    let machine = Machine::new(&[(&root, "vol0a")]);
    let (path, written) = (root.volume.path("notify"), root.volume.path("report.json"));
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(HANG)).unwrap();
    let line = format!(
        "daemon --mode touch --profile {} --profile {} --report {written} --socket {}",
        data.profile,
        root.profile,
        socket(&root.volume)
    );
    let mut command = machine.command(&line);
    command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC");
    let warm = start(command);
    // What will not come holds nobody up, but what comes is waited for.
    heard_until(&manager, &["READY=1"]);
    root.is_warmed();
    let ended = until(&root.volume, |status| status.volumes[1].phase == Phase::Warm);
    let [missing, there] = ended.volumes.as_slice() else { panic!("{ended:?}") };
    assert_eq!((ended.phase, missing.phase), (Phase::Failed, Phase::Failed));
    assert_eq!((there.device.as_str(), there.id.as_deref()), ("/dev/shm/disk0", Some("vol0a")));
    assert!(missing.error.as_ref().unwrap().contains("failed to find the disk of profile `data`"));
    run(asks(&root.volume, "wait --timeout 60s"))
        .exits(7, &["the warming ended before: data: failed to find the disk of profile `data`"]);
    run(asks(&root.volume, "pause")).exits(1, &["nothing to pause"]);
    run(asks(&root.volume, "stop")).ok();
    // As `warm` has it.
    warm.end().exits(4, &["failed to find the disk of profile `data`", "help: ", "1 of 2 volumes are warm"]);
    let written = report(&root.volume);
    assert_eq!(ends(&written), ["refused", "complete"]);
    assert_eq!(written["volumes"][0]["profile"].as_str(), Some(data.profile.as_str()));
    // A profile that is damaged; and none of them has to wait for an order.
    fs::write(&data.profile, "no profile").unwrap();
    root.volume.reset();
    run(machine.command(&format!("{line} --exit"))).exits(1, &["failed to load profile"]);
    root.is_warmed();
}

#[test]
fn a_device_that_goes_stops_no_other() {
    if !require_root() {
        return;
    }
    // More reads than those which fail before it is certain.
    let (root, data) = (Volume::new(200, "gp3", SLOW), Volume::new(400, "gp3", SLOW));
    let profiles =
        [profile(&root, "root", &[("ready", 0..80)]), profile(&data, "data", &[("ready", 0..400)])];
    let warm = start(daemon(&[(&root, &profiles[0]), (&data, &profiles[1])], "--mode touch"));
    data.wait_for(10);
    data.abort();
    let ends_are =
        |status: &Status| [0, 1].map(|at| status.volumes[at].phase) == [Phase::Warm, Phase::Failed];
    assert_eq!(until(&root, ends_are).phase, Phase::Failed);
    run(asks(&root, "wait --timeout 120s")).exits(7, &["the warming ended before: data: "]);
    assert_eq!(root.hydrated().len(), 80);
    run(asks(&root, "stop")).ok();
    warm.end().exits(1, &["device gone"]);
    assert_eq!(ends(&report(&root)), ["complete", "device gone"]);
}

#[test]
fn a_pause_holds_all_of_them_and_the_next_run_goes_on_where_each_was() {
    if !require_root() {
        return;
    }
    let (root, data) = (Volume::new(300, "gp3", SLOW), Volume::new(300, "gp3", SLOW));
    let both = [&root, &data];
    let profiles = both.map(|volume| profile(volume, "same", &[("ready", 0..200)]));
    let journal = root.path("journal");
    fs::create_dir(&journal).unwrap();
    let pairs = [(&root, profiles[0].as_str()), (&data, profiles[1].as_str())];
    let line = format!("--mode touch --journal {journal}");
    let warm = start(daemon(&pairs, &line));
    both.iter().for_each(|volume| volume.wait_for(20));
    run(asks(&root, "pause")).ok();
    let paused = until(&root, |status| status.depth == 0);
    assert!(paused.phase == Phase::Paused && paused.volumes.iter().all(|it| it.phase == Phase::Paused));
    both.iter().for_each(|volume| volume.wait_until(|stats| stats.in_flight == 0));
    let reads = || both.map(|volume| volume.stats().counters.reads);
    let before = reads();
    until(&root, |status| status.elapsed_s > paused.elapsed_s + 1.0);
    assert_eq!(reads(), before, "one reads while all are paused");
    run(asks(&root, "resume")).ok();
    both.iter().for_each(|volume| volume.wait_for(60));
    run(asks(&root, "stop")).ok();
    warm.end().exits(0, &[]);
    let stopped = report(&root);
    assert_eq!(ends(&stopped), ["stopped", "stopped"]);
    assert!(!Path::new(&socket(&root)).exists());
    // Two profiles of one name, of which nothing is known but their devices.
    run(daemon(&pairs, &format!("{line} --exit"))).exits(0, &["2 of 2 volumes are warm"]);
    let went_on = report(&root);
    for at in 0..2 {
        let done = number(&stopped["volumes"][at], "/totals/reads");
        let (resumed, reads) = (
            number(&went_on["volumes"][at], "/totals/resumed"),
            number(&went_on["volumes"][at], "/totals/reads"),
        );
        assert!(done > 0 && resumed >= done && resumed + reads == 200, "{done}, {resumed}, {reads}");
    }
    assert_eq!(both.map(|volume| volume.hydrated().len()), [200, 200]);
    // All is done: nothing is read of either.
    let before = reads();
    run(daemon(&pairs, &format!("{line} --exit"))).exits(0, &["2 of 2 volumes are warm"]);
    assert_eq!(reads(), before);
}

#[test]
fn volumes_with_stamps_are_left_alone_and_count_as_warm() {
    if !require_root() || !require("unshare") {
        return;
    }
    let (root, data) = (Recorded::root(), Recorded::data());
    let machine = Machine::new(&[(&data, "vol0b"), (&root, "vol0a")]);
    let line = format!(
        "daemon --mode touch --profile {} --profile {} --stamp {} --report {} --socket {}",
        root.profile,
        data.profile,
        root.volume.path("stamps"),
        root.volume.path("report.json"),
        socket(&root.volume)
    );
    run(machine.command(&format!("{line} --exit"))).exits(0, &["2 of 2 volumes are warm"]);
    root.is_warmed();
    data.is_warmed();
    let reads = || [&root, &data].map(|disk| disk.volume.stats().counters.reads);
    let before = reads();
    let warm = start(machine.command(&line));
    run(asks(&root.volume, "wait --timeout 120s")).ok();
    let now = status(&root.volume);
    let told: Vec<_> = now.volumes.iter().map(|it| (it.phase, it.device.as_str())).collect();
    assert_eq!(told, [(Phase::Warm, "/dev/shm/disk1"), (Phase::Warm, "/dev/shm/disk0")]);
    run(asks(&root.volume, "stop")).ok();
    warm.end().exits(0, &["2 of 2 volumes are warm"]);
    assert_eq!(reads(), before, "nothing, not even to tell the disks apart");
    assert_eq!(ends(&report(&root.volume)), ["already warm", "already warm"]);
}

#[test]
fn metrics_are_of_each_volume_and_the_budget_is_of_all() {
    if !require_root() {
        return;
    }
    let (root, data) =
        (Volume::new(64, "io2", &["first_read=5ms"]), Volume::new(64, "io2", &["first_read=5ms"]));
    let profiles = [
        profile(&root, "root", &[("ready", 0..32)]),
        profile(&data, "data", &[("ready", 10..25), ("later", 40..50)]),
    ];
    let file = root.path("ebs.prom");
    let pairs = [(&root, profiles[0].as_str()), (&data, profiles[1].as_str())];
    let warm = start(daemon(&pairs, &format!("--mode touch --instance-iops 50 --metrics {file}")));
    run(asks(&root, "wait --stage later --timeout 120s")).ok();
    until(&root, |status| status.phase == Phase::Warm);
    let asked = series(&run(asks(&root, "metrics")).ok());
    run(asks(&root, "stop")).ok();
    warm.end().exits(0, &["2 of 2 volumes are warm"]);
    let (report, written) = (report(&root), series(&fs::read_to_string(&file).unwrap()));
    for series in [&asked, &written] {
        for (at, name) in ["root", "data"].into_iter().enumerate() {
            let of = |metric: &str| series[&format!("ebs_prewarm_{metric}{{volume=\"{name}\"}}")] as u64;
            let volume = &report["volumes"][at];
            assert_eq!(of("reads_total"), number(volume, "/totals/reads"));
            assert_eq!(of("read_bytes_total"), number(volume, "/totals/bytes_read"));
            let phase = format!("ebs_prewarm_phase{{volume=\"{name}\",phase=\"warm\"}}");
            assert_eq!(series[&phase], 1.0);
        }
        assert_eq!(series["ebs_prewarm_stage_units{volume=\"data\",stage=\"later\"}"], 10.0);
        assert!(!series.contains_key("ebs_prewarm_reads_total"));
    }
    assert!(asked.keys().eq(written.keys()), "the same in both places");
    // However slow the machine is, the time is no shorter than all reads together need; those that verify among them.
    let verified: u64 = (0..2).map(|at| number(&report["volumes"][at], "/totals/verified")).sum();
    let (reads, elapsed_s) = (number(&report, "/totals/reads"), seconds(&report, "/totals/elapsed_s"));
    assert_eq!(reads, 57);
    assert!(elapsed_s + 0.005 >= (reads + 2 * verified - 1) as f64 / 50.0, "{reads} reads in {elapsed_s} s");
}

#[test]
fn one_volume_is_told_of_without_the_fields_of_several() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(16, "io2", &["first_read=1ms"]);
    let warm = start(super::daemon::daemon(&volume, "--rest all"));
    until(&volume, |status| status.phase == Phase::Warm);
    let json: Value = serde_json::from_str(&run(asks(&volume, "--json status")).ok()).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "schema",
        "pid",
        "device",
        "phase",
        "stage",
        "stages",
        "reads",
        "extra_reads",
        "bytes",
        "errors",
        "retries",
        "depth",
        "reads_per_s",
        "bytes_per_s",
        "eta_s",
        "elapsed_s",
        "error",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert!(run(asks(&volume, "status")).ok().starts_with(&format!("{}: warm\n", volume.device())));
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &[]);
}
