//! `demo`.

use super::*;
use ebs_prewarm::cold::Model;

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
    command.args(["demo", "--simulated", "--model", "fine"]);
    let text = run(command).ok();
    assert!(text.contains(" units of 128 KiB; "), "{text}");
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
fn the_demo_counts_in_units_of_its_model() {
    if !require_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(BIN);
    command.args(["--json", "demo", "--model", "fine"]).env("TMPDIR", dir.path());
    let ran = run(command).exits(0, &["--unit 128KiB"]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let (recorded, hydrated) = (number(&found, "/units_recorded"), number(&found, "/units_hydrated"));
    assert_eq!(number(&found, "/unit_bytes"), 128 * KIB);
    assert!(recorded > 100 && recorded.abs_diff(hydrated) <= 2, "{found:#}");
    // The bound is of so many of its units.
    let bound_s = Model::named("fine").unwrap().bound_ns(recorded) as f64 / 1e9;
    assert!((seconds(&found, "/bound_s") / bound_s - 1.0).abs() < 1e-6, "{found:#}");
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
