//! What cannot be recorded or written is refused with its reason.

use super::*;

/// Runs `record` as it is; its exit code and stderr.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY).arg("record").args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_be_recorded_is_refused_with_a_reason() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let (image, out) = (disk.path("image"), disk.path("a.rec"));
    for (device, why) in [
        ("/dev/none", "`/dev/none`: No such file"),
        ("/dev/null", "not a block device"),
        ("/", "not a block device"),
        (&image, "losetup"),
    ] {
        let (code, text) = refused(&["-o", &out, "--device", device, "--for", "1ms"]);
        assert!(code == Some(1) && text.contains(why), "{device}: {code:?} {text}");
    }
    for arguments in [&["--device", "/dev/null"][..], &["-o", &out, "--idle", "5"], &["-o", &out, "--no"]] {
        assert_eq!(refused(arguments).0, Some(2), "{arguments:?}");
    }
    let none = disk.path("none/a.rec");
    let (code, text) = refused(&["-o", &none, "--device", &disk.device, "--for", "1ms"]);
    assert!(code == Some(1) && text.contains("none/a.rec") && text.contains("make the directory"), "{text}");
    let names: BTreeSet<_> =
        fs::read_dir(disk.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "nothing half-written: {names:?}");
}

#[test]
fn without_root_or_tracefs_it_says_what_is_missing() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let binary = PathBuf::from(disk.path("ebs-prewarm"));
    // By another process: a child of this one may hold for a moment what is open here, and what is open for writing is not run.
    run_well("cp", &[BINARY, binary.to_str().unwrap()]);
    run_well("chmod", &["0777", disk.dir.path().to_str().unwrap()]);
    let as_nobody = |out: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command.args(["record", "-o", &disk.path(out), "--device", &disk.device, "--for", "1ms"]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = as_nobody("a.rec");
    assert!(code == Some(1) && text.contains("run as root"), "{text}");
    // With the right to read the disk it is tracefs that refuses.
    run_well("chmod", &["a+r", &disk.device]);
    let (code, text) = as_nobody("b.rec");
    run_well("chmod", &["go-r", &disk.device]);
    assert!(code == Some(1) && text.contains("tracing/instances/"), "{text}");
    assert!(text.contains("recording needs root"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    let error = Session::start(empty.path(), &options(&disk.device)).err().unwrap().full_text();
    assert!(error.contains("proc/self/mountinfo"), "{error}");
    fs::create_dir_all(empty.path().join("proc/self")).unwrap();
    fs::write(empty.path().join("proc/self/mountinfo"), "").unwrap();
    let error = Session::start(empty.path(), &options(&disk.device)).err().unwrap().full_text();
    assert!(error.contains("mount -t tracefs tracefs /sys/kernel/tracing"), "{error}");
}

/// A small filesystem of its own.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, options: &str) -> Small {
        let place = dir.join("small");
        fs::create_dir_all(&place).unwrap();
        run_well("mount", &["-t", "tmpfs", "-o", options, "none", place.to_str().unwrap()]);
        Small(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_full_or_read_only_filesystem_is_noticed_before_recording() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    for (options, why) in [("size=4k", "No space left"), ("ro", "Read-only file system")] {
        let small = Small::mount(disk.dir.path(), options);
        if options != "ro" {
            fs::write(small.0.join("filler"), [1; 4096]).unwrap();
        }
        let path = small.0.join("a.rec");
        let up = disk.path("command-ran");
        let arguments =
            ["-o", path.to_str().unwrap(), "--device", &disk.device, "--for", "1ms", "--", "touch", &up];
        let (code, text) = refused(&arguments);
        assert!(code == Some(1) && text.contains(why) && text.contains("small/a.rec"), "{text}");
        assert!(text.contains("filesystem"), "it says what helps: {text}");
        assert!(!Path::new(&up).exists(), "the command was not started");
        assert!(fs::read_dir(&small.0).unwrap().all(|entry| entry.unwrap().file_name() == "filler"));
    }
}

#[test]
fn a_filesystem_that_fills_up_keeps_the_older_file_and_nothing_else() {
    if !can_record() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = Small::mount(dir.path(), "size=64k");
    let path = small.0.join("a.rec");
    files::write_atomically(&path, b"older").unwrap();
    let error = files::write_atomically(&path, &vec![1; 1 << 20]).unwrap_err().full_text();
    assert!(error.contains("No space left") && error.contains("make room"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"older");
    assert_eq!(fs::read_dir(&small.0).unwrap().count(), 1);
}

#[test]
fn what_is_left_for_the_next_is_not_to_be_had_before_all_of_it_is_where_it_belongs() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let lasting = || Session::start(Path::new("/"), &Options { lasting: true, ..options(&disk.device) });
    let watched = lasting().unwrap().leave().unwrap();
    // What was watched may still have to be written.
    let error = lasting().err().unwrap().full_text();
    drop(watched);
    lasting().unwrap().finish().unwrap().undone.unwrap();
    assert!(error.contains("another process listens to this disk"), "{error}");
}
