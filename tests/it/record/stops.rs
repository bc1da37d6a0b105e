//! Each reason to stop, and that everything is as it was before.

use super::*;

#[test]
fn signals_stop_it_and_everything_is_restored() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    for signal in ["TERM", "INT", "HUP"] {
        let running = Running::start(disk.record("a.rec", &[]));
        assert_eq!(running.instances().len(), 1);
        dd(&disk.device, 77, 1);
        let pid = running.child.id();
        running.signal(signal);
        let (code, text) = running.end();
        assert_eq!(code, Some(0), "{text}");
        assert!(instances_of(pid).is_empty(), "{signal}");
        assert_eq!(touched(&disk.read("a.rec")), [(616, 624)]);
        fs::remove_file(disk.path("a.rec")).unwrap();
    }
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let running = Running::start(disk.record("a.rec", &[]));
    let pid = running.child.id();
    assert_eq!(instances_of(pid).len(), 1);
    running.signal("KILL");
    running.end();
    assert!(!Path::new(&disk.path("a.rec")).exists());
    let alive = Running::start(disk.record("b.rec", &[]));
    assert!(instances_of(pid).is_empty());
    // One that is alive is left alone.
    let output = disk.record("c.rec", &["--for", "1ms"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(alive.instances().len(), 1);
    alive.signal("TERM");
    assert_eq!(alive.end().0, Some(0));
}

#[test]
fn it_stops_by_time_by_idleness_by_file_and_by_command() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let stop = |more: &[&str], why: &str| {
        let output = disk.record("a.rec", more).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(why), "{text}");
        disk.read("a.rec").header
    };
    let header = stop(&["--for", "150ms"], "150ms were over");
    assert!(header.until_us - header.from_us >= 150_000);
    let header = stop(&["--idle", "150ms"], "no request for 150ms");
    assert!(header.until_us - header.from_us >= 150_000);
    // The first condition met wins, whatever else was asked for.
    let here = disk.path("image");
    stop(&["--for", "1h", "--idle", "1h", "--until-file", &here], "image` exists");
    stop(&["--for", "1h", "--", "true"], "the command ended");
}

#[test]
fn requests_put_idleness_off() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let running = Running::start(disk.record("a.rec", &["--idle", "1s"]));
    (0..4).for_each(|n| {
        std::thread::sleep(Duration::from_millis(300));
        dd(&disk.device, n * 100, 1);
    });
    let (code, text) = running.end();
    assert_eq!(code, Some(0), "{text}");
    // However late the reads came: it stopped a second after the last that it saw, and not before.
    let recording = disk.read("a.rec");
    let last = recording.touches().map(|touch| touch.time_us).max().unwrap_or(recording.header.from_us);
    assert!(recording.header.until_us - last >= 1_000_000, "{last} {:?}", recording.header);
}

#[test]
fn a_command_that_fails_makes_it_fail_and_the_recording_is_there() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let output = disk.record("a.rec", &["--", "sh", "-c", "exit 7"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("command `sh`") && text.contains("exit status: 7"), "{text}");
    disk.read("a.rec");
    let output = disk.record("b.rec", &["--", "/nonexistent/program"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("`/nonexistent/program`: No such file"), "{text}");
    assert!(!Path::new(&disk.path("b.rec")).exists(), "nothing was recorded");
}

#[test]
fn a_signal_is_passed_on_to_the_command() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let (up, got) = (disk.path("up"), disk.path("got"));
    let script = format!("trap 'echo > {got}; exit 0' TERM; echo > {up}; while :; do sleep 0.05; done");
    let running = Running::start(disk.record("a.rec", &["--", "sh", "-c", &script]));
    while !Path::new(&up).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal("TERM");
    let (code, text) = running.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(Path::new(&got).exists(), "the command was told");
    disk.read("a.rec");
    // A command that dies of the signal did as it was told.
    let running = Running::start(disk.record("b.rec", &["--", "sleep", "1h"]));
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_disk_that_goes_away_leaves_a_recording() {
    if !can_record() {
        return;
    }
    let disk = Disk::far_above();
    let running = Running::start(disk.record("a.rec", &[]));
    dd(&disk.device, 9, 1);
    run_well("losetup", &["-d", &disk.device]);
    running.signal("TERM");
    let (code, text) = running.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("bound to the size alone"), "{text}");
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(72, 80)]);
    assert_eq!(recording.header.volume.unwrap().sectors, 64 * MIB / 512);
}
