//! `daemon` and those who ask it: how far it is, what is waited for, pause, end. The judge of what was read is the
//! emulator.

use super::*;
use ebs_prewarm::control::{Phase, Status};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

/// 40 units a second.
const SLOW: &[&str] = &["hydration=20MB/s", "first_read=10ms", "sigma=0"];

/// A verb with the socket of a volume's daemon.
pub fn asks(volume: &Volume, args: &str) -> Command {
    let mut command = Command::new(BIN);
    command.args(args.split_whitespace()).args(["--socket", &socket(volume)]);
    command
}

pub fn socket(volume: &Volume) -> String {
    volume.path("run/s")
}

/// The daemon on a volume, with a report.
pub fn daemon(volume: &Volume, args: &str) -> Command {
    let mut command = volume.verb("daemon", args);
    command.args(["--report", &volume.path("report.json"), "--socket", &socket(volume)]);
    command
}

pub fn status(volume: &Volume) -> Status {
    serde_json::from_str(&run(asks(volume, "--json status")).ok()).unwrap()
}

/// Waits until the daemon is there and says so.
pub fn until(volume: &Volume, is: impl Fn(&Status) -> bool) -> Status {
    let start = Instant::now();
    loop {
        let ran = run(asks(volume, "--json status"));
        if ran.code == Some(0) {
            let status = serde_json::from_str(&ran.out).unwrap();
            if is(&status) {
                return status;
            }
        } else {
            assert_eq!(ran.code, Some(6), "{}", ran.err);
        }
        assert!(start.elapsed() < HANG, "it did not come to it: {}{}", ran.out, ran.err);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Stages of 20, 40 and 20 units; the last unit of all stalls for longer than any test.
fn staged(sets: &[&str]) -> (Volume, String) {
    let volume = Volume::new(200, "gp3", &[SLOW, sets].concat());
    let at = |units: std::ops::Range<u64>| units.map(|unit| (unit * UNIT, 4096)).collect::<Vec<_>>();
    let profile = volume.profile(&[("initrd", &at(0..20)), ("ready", &at(100..140)), ("later", &at(60..80))]);
    (volume, profile)
}

const STALL: &[&str] = &["stall_fetch=79", "stall=300s"];

#[test]
fn stages_are_waited_for_each_in_its_turn_and_before_the_daemon_is_there() {
    if !require_root() {
        return;
    }
    let (volume, profile) = staged(STALL);
    let waits = ["initrd", "sysinit", "ready", "later"].map(|stage| {
        let timeout = if stage == "later" { "20s" } else { "120s" };
        start(asks(&volume, &format!("wait --stage {stage} --timeout {timeout}")))
    });
    // One read at a time, so that it is the last unit that stalls.
    let mut late = start(daemon(&volume, &format!("--profile {profile} --mode touch --depth 1")));
    let [initrd, sysinit, ready, later] = waits;
    for (wait, stage, units) in
        [(initrd, "initrd", 0..20), (sysinit, "sysinit", 0..20), (ready, "ready", 100..140)]
    {
        let out = wait.end().ok();
        assert_eq!(out, format!("stage {stage} is warm\n"));
        // All that were asked for by then, and as many as belong to the stages up to this one were answered.
        assert!(set(volume.hydrated()).is_superset(&set(units.clone())), "{stage}");
        let so_far = if stage == "ready" { 60 } else { 20 };
        assert!(volume.stats().counters.hydrated >= so_far, "{stage}");
    }
    let now = status(&volume);
    assert_eq!((now.phase, now.stage.as_deref()), (Phase::Warming, Some("later")), "{now:?}");
    let over: Vec<(&str, bool)> =
        now.stages.iter().map(|stage| (stage.name.as_str(), stage.is_over)).collect();
    assert_eq!(over, [("initrd", true), ("ready", true), ("later", false)]);
    later.end().exits(5, &["failed to see stage `later` warm within 20 s", "help: "]);
    run(asks(&volume, "wait --stage mine"))
        .exits(2, &["failed to find stage `mine`", "initrd, ready, later"]);
    run(asks(&volume, "wait --stage rest")).exits(2, &["failed to find stage `rest`"]);
    assert!(!late.has_ended());
    // Who still waits when it ends is told so.
    let last = start(asks(&volume, "wait --stage later --timeout 120s"));
    until(&volume, |_| waiting(&volume) == 1);
    run(asks(&volume, "stop")).ok();
    last.end().exits(7, &["failed to see stage `later` warm", "told to end"]);
    late.end().exits(0, &[]);
}

/// Clients on the socket beside the one that asks.
fn waiting(volume: &Volume) -> u64 {
    let metrics = run(asks(volume, "metrics")).ok();
    let clients = metrics.lines().find_map(|line| line.strip_prefix("ebs_prewarm_control_clients "));
    clients.unwrap().parse::<u64>().unwrap() - 1
}

#[test]
fn a_pause_stops_all_reads_and_resume_goes_on() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(400, "gp3", SLOW);
    let warm = start(daemon(&volume, "--rest all"));
    volume.wait_for(20);
    run(asks(&volume, "pause")).ok();
    let paused = until(&volume, |status| status.depth == 0);
    assert_eq!((paused.phase, paused.eta_s), (Phase::Paused, None));
    volume.wait_until(|stats| stats.in_flight == 0);
    let before = volume.stats().counters.reads;
    until(&volume, |status| status.elapsed_s > paused.elapsed_s + 1.0);
    assert_eq!(volume.stats().counters.reads, before, "it reads while it is paused");
    assert!(volume.stats().cold_units > 0);
    run(asks(&volume, "wait --stage rest --timeout 100ms")).exits(5, &[]);
    run(asks(&volume, "resume")).ok();
    run(asks(&volume, "wait --stage rest --timeout 120s")).ok();
    assert_eq!(volume.stats().cold_units, 0);
    // All reads are told of, by the daemon as by the volume; verification is in neither of its counts.
    let warmed = until(&volume, |status| status.phase == Phase::Warm);
    assert_eq!((warmed.traffic.reads, warmed.depth, warmed.stage), (400, 0, None));
    run(asks(&volume, "pause")).exits(1, &["nothing to pause"]);
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &["complete; 400 of 400 units"]);
    assert_eq!(volume.report()["end"], "complete");
}

#[test]
fn a_stop_writes_the_report_and_the_next_run_goes_on_there() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(400, "gp3", SLOW);
    let journal = volume.path("journal");
    fs::create_dir(&journal).unwrap();
    let warm = start(daemon(&volume, &format!("--rest all --mode touch --journal {journal} --json")));
    volume.wait_for(30);
    assert_eq!(run(asks(&volume, "stop")).ok(), "it has ended\n");
    // It was there when `stop` returned.
    let report = volume.report();
    assert_eq!(
        (report["end"].as_str(), report["error"].as_str()),
        (Some("stopped"), Some("it was told to end"))
    );
    let ran = warm.end().exits(0, &["stopped; "]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), report);
    assert!(!Path::new(&socket(&volume)).exists(), "the socket goes with it");
    let done = number(&report, "/totals/reads");
    assert!(done > 0 && done < 400, "{report:#}");
    let args = format!("--rest all --mode touch --journal {journal} --exit");
    run(daemon(&volume, &args)).exits(0, &["complete; 400 of 400 units"]);
    let report = volume.report();
    assert_eq!(number(&report, "/totals/resumed") + number(&report, "/totals/reads"), 400);
    assert!(number(&report, "/totals/resumed") >= done, "{report:#}");
    assert_eq!(volume.stats().cold_units, 0);
}

#[test]
fn signals_end_it_like_an_order_and_wait_sees_why() {
    if !require_root() {
        return;
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let volume = Volume::new(400, "gp3", SLOW);
        let warm = start(daemon(&volume, "--rest all"));
        let wait = start(asks(&volume, "wait --stage rest --timeout 120s"));
        volume.wait_for(10);
        until(&volume, |_| waiting(&volume) == 1);
        warm.signal(signal);
        wait.end().exits(7, &["the warming ended before: it was told to end"]);
        warm.end().exits(0, &["stopped; "]);
        assert_eq!(volume.report()["end"], "stopped");
    }
}

#[test]
fn a_second_daemon_is_refused_and_a_killed_ones_socket_replaced() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(400, "gp3", SLOW);
    let first = start(daemon(&volume, "--rest all"));
    let pid = until(&volume, |_| true).pid;
    let mut second = volume.verb("daemon", "--rest all");
    second.args(["--socket", &socket(&volume)]);
    run(second).exits(1, &["another daemon has it", "ebs-prewarm status", "--socket"]);
    assert_eq!(status(&volume).pid, pid, "the first is as it was");
    let kind = |path: &str| fs::metadata(path).unwrap();
    assert_eq!(kind(&socket(&volume)).permissions().mode() & 0o777, 0o600);
    first.signal(libc::SIGKILL);
    assert_eq!(first.end().signal, Some(libc::SIGKILL));
    assert!(kind(&socket(&volume)).file_type().is_socket(), "it is left over");
    run(asks(&volume, "status")).exits(6, &["failed to find a daemon", "help: "]);
    let third = start(daemon(&volume, "--rest all"));
    assert_ne!(until(&volume, |_| true).pid, pid);
    run(asks(&volume, "stop")).ok();
    third.end().exits(0, &[]);
}

#[test]
fn without_a_daemon_nobody_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let ask = |args: &str| {
        let mut command = Command::new(BIN);
        command.args(args.split_whitespace()).arg("--socket").arg(&path);
        command
    };
    for verb in ["status", "pause", "resume", "stop", "metrics"] {
        run(ask(verb))
            .exits(6, &["failed to find a daemon at", path.to_str().unwrap(), "ebs-prewarm daemon"]);
    }
    run(ask("wait --timeout 200ms")).exits(6, &["within 0.2 s"]);
    run(ask("wait --timeout 0s")).exits(6, &[]);
    // One that takes nobody in.
    let listener = UnixListener::bind(&path).unwrap();
    run(ask("wait --timeout 300ms")).exits(6, &[]);
    // Nor has room for more: connecting itself would wait.
    let _full: Vec<_> = (0..200).map_while(|_| connect_at_once(&path)).collect();
    run(ask("wait --timeout 300ms")).exits(6, &[]);
    drop(listener);
    // One that answers nonsense.
    let listener = UnixListener::bind(dir.path().join("t")).unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        // Where it is let go without an answer, it comes again.
        for answer in ["\n", "{}\n", "", "", "", "", "", "{\"done\":\"x\"}\n", "nonsense"] {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 4096]);
            client.write_all(answer.as_bytes()).unwrap();
        }
    });
    for _ in 0..5 {
        let mut command = Command::new(BIN);
        command.arg("status").arg("--socket").arg(dir.path().join("t"));
        run(command).exits(1, &["daemon"]);
    }
    answering.join().unwrap();
    // One that ends as it is asked: that is what `stop` wants.
    for (verb, code) in [("stop", 0), ("status", 1)] {
        let path = dir.path().join(verb);
        let listener = UnixListener::bind(&path).unwrap();
        let ending = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 4096]);
            drop(listener);
        });
        let mut command = Command::new(BIN);
        command.arg(verb).arg("--socket").arg(path);
        run(command).exits(code, &[]);
        ending.join().unwrap();
    }
}

/// Connects where that is possible without waiting.
fn connect_at_once(path: &Path) -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let name = path.as_os_str().as_encoded_bytes();
    // SAFETY: a new descriptor is owned by what is returned; the address is a zeroed struct with a shorter path in it.
    unsafe {
        let socket =
            libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        let socket = OwnedFd::from_raw_fd(socket);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        let bytes = std::mem::size_of_val(&address) as libc::socklen_t;
        let connected = libc::connect(socket.as_raw_fd(), (&raw const address).cast(), bytes);
        (connected == 0).then_some(socket)
    }
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for_longer_than_was_said() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(400, "gp3", SLOW);
    let warm = start(daemon(&volume, "--rest all"));
    until(&volume, |_| true);
    warm.signal(libc::SIGSTOP);
    let ran = run(asks(&volume, "wait --stage rest --timeout 300ms"));
    assert!([Some(5), Some(6)].contains(&ran.code), "{}", ran.err);
    warm.signal(libc::SIGCONT);
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &[]);
}

#[test]
fn what_cannot_be_warmed_is_told_to_all_who_ask() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &["first_read=1ms"]);
    let other = Volume::new(32, "io2", &["first_read=1ms"]);
    let profile = volume.profile_of_units(0..60);
    let warm = start(daemon(&other, &format!("--profile {profile}")));
    let failed = until(&other, |status| status.phase == Phase::Failed);
    assert!(failed.error.is_some(), "{failed:?}");
    run(asks(&other, "wait --timeout 60s")).exits(7, &["the warming ended before: failed to"]);
    assert!(run(asks(&other, "status")).ok().contains("failed to"));
    run(asks(&other, "stop")).ok();
    let ran = warm.end();
    let report = other.report();
    assert_eq!((ran.code, report["end"].as_str()), (Some(4), Some("refused")), "{}", ran.err);
}

#[test]
fn blocks_that_cannot_be_read_are_told_and_keep_nobody_waiting() {
    if !require_root() {
        return;
    }
    let (volume, profile) = staged(&["eio_units=105"]);
    // Before it is there, for it ends with the warming.
    let [initrd, ready] = ["initrd", "ready"]
        .map(|stage| start(asks(&volume, &format!("wait --stage {stage} --timeout 120s"))));
    let warm = start(daemon(&volume, &format!("--profile {profile} --mode touch --exit")));
    initrd.end().ok();
    ready.end().exits(3, &["1 reads failed"]);
    warm.end().exits(3, &["failed to read 8 blocks"]);
}

#[test]
fn metrics_are_those_of_the_report_on_the_socket_and_in_the_file() {
    if !require_root() {
        return;
    }
    let (volume, profile) = staged(&[]);
    let file = volume.path("ebs.prom");
    let warm = start(daemon(&volume, &format!("--profile {profile} --mode touch --metrics {file}")));
    run(asks(&volume, "wait --stage later --timeout 120s")).ok();
    until(&volume, |status| status.phase == Phase::Warm);
    let asked = series(&run(asks(&volume, "metrics")).ok());
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &[]);
    let (report, written) = (volume.report(), series(&fs::read_to_string(&file).unwrap()));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o644,
        "the exporter is another user"
    );
    for series in [&asked, &written] {
        let of = |name: &str| series[&format!("ebs_prewarm_{name}")] as u64;
        assert_eq!(of("reads_total"), number(&report, "/totals/reads"));
        assert_eq!(of("read_bytes_total"), number(&report, "/totals/bytes_read"));
        assert_eq!(of("extra_reads_total"), number(&report, "/totals/extra_reads"));
        assert_eq!(of("unreadable_blocks_total"), 0);
        assert_eq!(of("read_duration_seconds_count"), 80);
        assert_eq!((of("stage_units{stage=\"ready\"}"), of("stage_over{stage=\"ready\"}")), (40, 1));
        assert_eq!(of("phase{phase=\"warm\"}"), 1);
    }
    assert_eq!(asked["ebs_prewarm_control_requests_total{verb=\"wait\"}"], 1.0);
    assert!(asked.keys().eq(written.keys()), "the same in both places");
    // Cold reads of 10 ms and more: none is said to be quicker than the law allows.
    assert_eq!(asked["ebs_prewarm_read_duration_seconds_bucket{le=\"0.005\"}"], 0.0);
}

pub fn series(text: &str) -> std::collections::BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_string(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn a_volume_that_is_warm_already_is_ready_before_the_rest_has_its_turn() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(2000, "gp3", &["warm_units=1", "throughput=0", "iops=0"]);
    let profile = volume.profile_of_units(0..1500);
    let warm = start(daemon(&volume, &format!("--profile {profile} --rest all --jitter 24h")));
    run(asks(&volume, "wait --stage ready --timeout 100s")).ok();
    let ready = status(&volume);
    assert_eq!((ready.stages[0].is_over, ready.stages[0].settled()), (true, 1500), "{ready:?}");
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &[]);
}

#[test]
fn what_a_budget_leaves_of_the_rest_is_not_warm() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(40, "gp3", &["hydration=0", "first_read=1ms"]);
    let line = "--rest all --rest-budget 8MiB --mode touch";
    let warm = start(daemon(&volume, line));
    run(asks(&volume, "wait --stage rest --timeout 100s")).exits(7, &["its budget was spent"]);
    let told = status(&volume);
    assert_eq!((told.stages[0].is_over, told.stages[0].done), (false, 16), "{told:?}");
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &[]);
}

#[test]
fn who_asks_without_waiting_is_told_how_it_is() {
    if !require_root() {
        return;
    }
    let (volume, profile) = staged(STALL);
    let late = start(daemon(&volume, &format!("--profile {profile} --mode touch --depth 1")));
    run(asks(&volume, "wait --stage ready --timeout 100s")).ok();
    run(asks(&volume, "wait --stage ready --timeout 0s")).ok();
    run(asks(&volume, "wait --stage later --timeout 0s")).exits(5, &["failed to see stage `later` warm"]);
    run(asks(&volume, "stop")).ok();
    late.end().exits(0, &[]);
}

#[test]
fn one_that_cannot_listen_says_so_in_its_report_and_takes_no_other_ones() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.json");
    let daemon = |socket: &Path| {
        let mut command = Command::new(BIN);
        command.args(["daemon", "--rest", "all", "--device", "/none", "--report"]).arg(&report);
        command.arg("--socket").arg(socket);
        start(command)
    };
    fs::write(dir.path().join("file"), "").unwrap();
    daemon(&dir.path().join("file/s")).end().exits(1, &["failed to make socket"]);
    let told = read_report(&report);
    assert!(told["error"].as_str().unwrap().contains("failed to make socket"), "{told:#}");
    // The first that is there has the report, and not the second.
    fs::remove_file(&report).unwrap();
    let socket = dir.path().join("s");
    let first = daemon(&socket);
    let start = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(start.elapsed() < HANG);
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon(&socket).end().exits(1, &["another daemon has it"]);
    assert!(!report.exists());
    first.signal(libc::SIGTERM);
    first.end().exits(1, &["failed to open device"]);
    assert!(report.exists());
}

#[test]
fn a_kernel_that_refuses_io_uring_is_served_without() {
    if !require_root() || !crate::support::require("strace") {
        return;
    }
    let volume = Volume::new(200, "gp3", SLOW);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "inject=io_uring_setup:error=ENOSYS", "-o", "/dev/null", BIN, "daemon"]);
    traced.args(["--rest", "all", "--device", &volume.device(), "--socket", &socket(&volume), "--exit"]);
    let warm = start(traced);
    until(&volume, |status| status.phase == Phase::Warming);
    run(asks(&volume, "wait --stage rest --timeout 120s")).ok();
    warm.end().exits(0, &["clients are answered without", "complete; 200 of 200 units"]);
    assert_eq!(volume.stats().cold_units, 0);
}

#[test]
fn the_journal_gets_priorities_and_others_get_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let file = fs::File::create(&log).unwrap();
    let stat = file.metadata().unwrap();
    for (stream, prefix) in [(format!("{}:{}", stat.dev(), stat.ino()), "<3>"), ("1:1".to_string(), "")] {
        fs::write(&log, "").unwrap();
        let err = fs::File::options().append(true).open(&log).unwrap();
        let mut command = Command::new(BIN);
        command.args(["daemon", "--rest", "all", "--exit", "--device", "/none", "--socket"]);
        command.arg(dir.path().join("s")).env("JOURNAL_STREAM", stream).stderr(err).stdout(Stdio::null());
        assert_eq!(start_as_is(command).end().code, Some(1));
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains(&format!("\n{prefix}error: failed to")), "{text}");
        let is_prefixed = |line: &str| line.starts_with('<') && line.as_bytes()[2] == b'>';
        assert!(text.lines().all(|line| is_prefixed(line) != prefix.is_empty()), "{text}");
    }
}
