//! Reports, results and progress where they cannot be written: the volume is warmed all the same.

use super::*;
use crate::support::require;
use std::os::fd::OwnedFd;

/// A filesystem of its own; unmounted on drop.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(options: &str) -> Tmpfs {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        crate::support::run(mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()));
        Tmpfs(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().into()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        crate::support::output(Command::new("umount").arg(self.0.path()));
    }
}

/// A place where nothing can be written.
fn full() -> Stdio {
    fs::File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_report_that_cannot_be_written_is_told_at_once_and_does_not_keep_from_warming() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &["first_read=1ms"]);
    let full = Tmpfs::new("size=8k");
    let _ = fs::write(full.path("filler"), [1; 64 << 10]);
    let read_only = Tmpfs::new("size=64k,ro");
    for (path, named) in [
        (full.path("report.json"), "make room"),
        (read_only.path("report.json"), "another filesystem"),
        (volume.path("none/report.json"), "make the directory first"),
        (volume.path(""), "name the file"),
        ("/dev/full".into(), "no ordinary file"),
        ("/proc/report.json".into(), "failed to write"),
    ] {
        volume.reset();
        let mut command = volume.verb("warm", "--rest all");
        command.args(["--report", &path]);
        let ran = run(command).exits(1, &["error: failed to write report", &path, named]);
        let warned = ran.err.lines().next().unwrap();
        assert!(warned.contains("WARN") && warned.contains("the report will be lost"), "{}", ran.err);
        assert_eq!(volume.stats().cold_units, 0, "{path}");
        assert!(ran.out.contains("complete") && ran.out.contains("64 of 64 units"), "{}", ran.out);
    }
    let left: Vec<_> = fs::read_dir(full.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["filler"], "nothing half-written");
}

#[test]
fn where_a_worse_thing_happened_that_decides_the_exit_code() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &["first_read=1ms", "eio_units=5"]);
    let mut command = volume.verb("warm", "--rest all --mode touch");
    command.args(["--report", "/none/report.json"]);
    let ran = run(command)
        .exits(3, &["failed to write report `/none/report.json`", "error: failed to read 8 blocks"]);
    assert!(ran.err.contains("ERROR failed to write report"), "{}", ran.err);
    // The same where nobody can be told.
    let mut command = volume.verb("warm", "--rest all --mode touch --report /none/report.json");
    command.stdout(full()).stderr(full());
    assert_eq!(start_as_is(command).end().code, Some(3));
}

#[test]
fn a_result_that_nobody_takes_costs_neither_the_warming_nor_the_report() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &["first_read=1ms"]);
    let to = |out: Stdio, err: Stdio, more: &str| {
        volume.reset();
        let _ = fs::remove_file(volume.path("report.json"));
        let mut command = volume.warm(&format!("--rest all {more}"));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let ran = start_as_is(command).end();
        assert_eq!((volume.stats().cold_units, volume.report()["end"].as_str()), (0, Some("complete")));
        ran
    };
    let closed_pipe = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(OwnedFd::from(writer))
    };
    for more in ["", "--json"] {
        to(full(), Stdio::piped(), more).exits(1, &["failed to write to standard output", "No space left"]);
        // As after `| head -0`: nothing is wrong.
        to(closed_pipe(), Stdio::piped(), more).exits(0, &[]);
    }
    // Nor does it matter that there is nobody to tell.
    for more in ["", "--log trace"] {
        assert_eq!(to(full(), full(), more).code, Some(1));
        assert_eq!(to(Stdio::piped(), full(), more).code, Some(0));
        assert_eq!(to(Stdio::piped(), closed_pipe(), more).code, Some(0));
    }
}

/// Time for a bar to be drawn: three units of 0.3 s, one after the other.
const SLOW: &[&str] = &["first_read=300ms", "sigma=0", "fetches=1"];

#[test]
fn a_bar_is_drawn_on_a_terminal_and_taken_away() {
    if !require_root() || !require("script") {
        return;
    }
    let volume = Volume::new(3, "io2", SLOW);
    let line = format!("{BIN} warm --device {} --rest all --mode touch", volume.device());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    let out = run(command).ok();
    let bars: Vec<&str> =
        out.split('\r').filter(|part| part.contains("reads  ") && part.contains('[')).collect();
    assert!(!bars.is_empty(), "{out:?}");
    assert!(
        bars.iter().all(|bar| bar.starts_with("rest") && bar.contains("/3 reads") && bar.contains("depth"))
    );
    let (_, after) = out.rsplit_once("\r\u{1b}[K").expect("the line is taken away");
    assert!(after.contains("3 of 3 units read") && !after.contains('#'), "{after:?}");
}

#[test]
fn without_a_terminal_no_bar_is_drawn() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(3, "io2", SLOW);
    // In full: nothing is verified, so that a busy machine gives nothing to warn of.
    let ran = run(volume.warm("--rest all --mode full")).exits(0, &[]);
    assert_eq!(ran.err, "");
    assert!(!ran.out.contains('\r') && !ran.out.contains('\u{1b}'), "{:?}", ran.out);
}
