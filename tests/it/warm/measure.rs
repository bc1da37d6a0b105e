//! `bench` and `demo`.

use super::*;

/// Room for two methods, three rounds and the evidence: 16 MiB each, and the first tile stays out.
const TILES: u64 = 12;

fn bench(volume: &Volume, args: &str) -> Command {
    let mut command = volume.verb("bench", args);
    command.args(["--report", &volume.path("report.json")]);
    command
}

#[test]
fn a_cold_volume_is_measured_once() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(TILES * 32, "io2", &["first_read=20ms", "sigma=0"]);
    let out = run(bench(&volume, "--methods documented-fio,touch@64 --json")).ok();
    let printed: Value = serde_json::from_str(&out).unwrap();
    let report = volume.report();
    assert_eq!(printed, report);
    assert_eq!(
        (report["end"].as_str(), report["evidence"]["cold"].as_bool()),
        (Some("complete"), Some(true))
    );
    assert_eq!(number(&report, "/unit/bytes"), UNIT);
    assert_eq!(report["device"].as_str(), Some(volume.device().as_str()));
    assert!(number(&report, "/cold_latency_us/p50") >= 20_000, "{report:#}");
    let methods = report["methods"].as_array().unwrap();
    assert_eq!(methods.len(), 2);
    for method in methods {
        // Three rounds of one tile of 32 units.
        assert_eq!((number(method, "/units"), number(method, "/errors")), (96, 0));
        let rate = seconds(method, "/hydrated_bytes_per_s");
        assert!((rate - 96.0 * UNIT as f64 / seconds(method, "/elapsed_s")).abs() < 1.0, "{method:#}");
    }
    assert_eq!(
        (number(&methods[0], "/bytes_read"), number(&methods[1], "/bytes_read")),
        (96 * UNIT, 96 * 4096)
    );
    assert!(report["recommended"]["mode"].is_string());
    // Each method read its own: what both and the evidence count is what was hydrated.
    assert_eq!(volume.hydrated().len() as u64, 96 + 96 + number(&report, "/evidence/units"));

    // All of it is warm now, so nothing can be measured any more, and nothing is called cold.
    run(volume.verb("warm", "--rest all --mode touch")).ok();
    let named = ["failed to find cold units on", &volume.device(), "help: make a new volume"];
    let ran = run(bench(&volume, "--methods touch@64")).exits(1, &named);
    assert!(ran.out.is_empty(), "{}", ran.out);
    let report = volume.report();
    assert_eq!(
        (report["end"].as_str(), report["evidence"]["cold"].as_bool()),
        (Some("not cold"), Some(false))
    );
}

#[test]
fn a_bench_that_cannot_be_done_reads_nothing_and_says_why() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &[]);
    for (args, code, named) in
        [("--methods touch@8", 1, "failed to find room for 1 methods"), ("--unit 100KiB", 2, "power of two")]
    {
        run(bench(&volume, args)).exits(code, &[named, "help: "]);
        let report = volume.report();
        assert_eq!(report["end"], "refused");
        assert!(report["error"].as_str().unwrap().contains(named), "{report:#}");
    }
    run(bench(&volume, "--methods cat")).exits(2, &["failed to parse method `cat`", "known methods"]);
    run(bench(&volume, "--methods touch@64,touch@0")).exits(2, &["failed to parse method `touch@0`"]);
    let mut nowhere = volume.verb("bench", "--report /none/report.json");
    nowhere.env("LC_ALL", "C");
    run(nowhere).exits(1, &["/none/report.json", "make the directory first"]);
    assert!(volume.hydrated().is_empty(), "a volume is cold but once: {:?}", volume.hydrated());
}

#[test]
fn a_bench_that_is_stopped_keeps_what_it_has() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(TILES * 32, "scarce", &[]);
    let evidence = start(bench(&volume, "--methods dd,touch@64"));
    volume.wait_for(3);
    evidence.signal(libc::SIGINT);
    evidence.end().exits(1, &["failed to measure all methods on", "stopped"]);
    assert_eq!(volume.report()["end"], "stopped");
    volume.reset();
    let measuring = start(bench(&volume, "--methods dd,touch@64"));
    volume.wait_for(30);
    measuring.signal(libc::SIGTERM);
    measuring.end().exits(1, &["stopped"]);
    let report = volume.report();
    assert_eq!((report["end"].as_str(), report["evidence"]["cold"].as_bool()), (Some("stopped"), Some(true)));
}

#[test]
fn the_demo_in_virtual_time_says_that_it_is() {
    let mut command = Command::new(BIN);
    command.args(["demo", "--simulated", "--model", "gp3"]);
    let text = run(command).ok();
    assert!(text.contains("SIMULATED") && text.contains("no device was read"), "{text}");
    let mut command = Command::new(BIN);
    command.args(["--json", "demo", "--simulated"]);
    let found: Value = serde_json::from_str(&run(command).ok()).unwrap();
    assert_eq!((found["simulated"].as_bool(), found["alongside_s"].as_f64()), (Some(true), None));
    assert_eq!(found["units_recorded"], found["units_hydrated"]);
    assert!(seconds(&found, "/recovered") > 0.99, "{found:#}");
    assert!(seconds(&found, "/warming_s") <= 1.05 * seconds(&found, "/bound_s"), "{found:#}");
    let mut command = Command::new(BIN);
    command.args(["demo", "--simulated", "--model", "gp9"]);
    run(command).exits(2, &["failed to find model `gp9`", "gp3, io2"]);
}

#[test]
fn the_demo_on_a_real_device_does_the_whole_job_and_leaves_nothing() {
    if !require_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(BIN);
    command.args(["--json", "demo", "--model", "io2"]).env("TMPDIR", dir.path());
    let ran = run(command).exits(0, &["ebs-prewarm record -o", "ebs-prewarm warm --profile"]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["simulated"].as_bool(), Some(false), "{found:#}");
    let (recorded, hydrated) = (number(&found, "/units_recorded"), number(&found, "/units_hydrated"));
    assert!(recorded > 100 && recorded.abs_diff(hydrated) <= 2, "{found:#}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "the demo left something");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn a_demo_that_is_interrupted_cleans_up() {
    if !require_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command = Command::new(BIN);
        command.args(["demo", "--model", "gp3"]).env("TMPDIR", dir.path());
        let demo = start(command);
        let begun = Instant::now();
        let mounted = || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            mounts.lines().filter(|line| line.contains(dir.path().to_str().unwrap())).count()
        };
        // The volume and, in mid-workload, the filesystem on it.
        while mounted() < 2 {
            assert!(begun.elapsed() < HANG, "the workload did not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        demo.signal(signal);
        demo.end().exits(1, &["stopped"]);
        assert_eq!(mounted(), 0);
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "the demo left something");
    }
}
