//! What integration tests share: the real binary, real cold volumes, and skips that cannot be overlooked.
//!
//! Holds: a fixture undoes what it did in its Drop, loop device before mount before files, also on panic.

#![allow(dead_code)] // A build without a feature leaves out the tests that use some of it.

#[cfg(feature = "lab")]
mod cold_loop;

#[cfg(feature = "lab")]
pub use cold_loop::{ColdFile, ColdLoop};

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary under test.
pub const BIN: &str = env!("CARGO_BIN_EXE_ebs-prewarm");

/// Says, past the test harness' capture, that a test did not run; with `CI=true` that is a failure.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped where nothing may be: {reason}");
}

/// Whether this is root; skips if not.
pub fn require_root() -> bool {
    // SAFETY: returns a number and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skip("needs root for loop devices and mounts");
    }
    root
}

/// Whether a program is there; skips if not.
pub fn require(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&paths).any(|dir| dir.join(tool).is_file());
    if !there {
        skip(&format!("needs `{tool}`"));
    }
    there
}

/// Lets a child be ended by signals that this process was told to ignore: under `nohup`, or behind `&` in a script.
pub fn heeding_signals(command: &mut Command) -> &mut Command {
    let heed = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            // SAFETY: the default action is a constant, and the call is safe between fork and exec.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(heed) }
}

/// Output as text, for messages.
pub fn shown(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs a command to its end, whatever that is.
pub fn output(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("failed to run {shown}: {error}"))
}

/// Runs a command that must succeed; gives its standard output.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?} failed: {}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the binary under test with arguments; it must succeed.
pub fn ebs<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    run(Command::new(BIN).args(args))
}

/// Runs the binary under test, which must fail with this exit code; gives its standard error.
pub fn ebs_fails<S: AsRef<std::ffi::OsStr>>(exit_code: i32, args: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(BIN);
    let output = output(command.args(args));
    assert_eq!(output.status.code(), Some(exit_code), "{command:?}: {}", shown(&output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The bytes that [`patterned_image`] holds at an offset: every 8 bytes hold their own position.
pub fn pattern(offset: u64, bytes: usize) -> Vec<u8> {
    let words = offset / 8..(offset + bytes as u64).div_ceil(8);
    let all: Vec<u8> = words.flat_map(|word| (word * 8 + 1).to_le_bytes()).collect();
    let start = (offset % 8) as usize;
    all[start..start + bytes].to_vec()
}

/// An image of so many bytes, all written, of which no two sectors are alike.
pub fn patterned_image(path: &Path, bytes: u64) {
    let file = File::create(path).unwrap();
    let step = 1 << 20;
    for offset in (0..bytes).step_by(step) {
        let part = pattern(offset, step.min((bytes - offset) as usize));
        file.write_all_at(&part, offset).unwrap();
    }
}

/// An ext4 image of so many bytes that holds a directory's files.
pub fn ext4_image(path: &Path, bytes: u64, tree: &Path) {
    File::create(path).unwrap().set_len(bytes).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(tree).arg(path));
}

/// Reads past the page cache. Offset and length are multiples of the block size.
pub fn read_direct(path: &Path, offset: u64, bytes: usize) -> std::io::Result<Vec<u8>> {
    const ALIGN: usize = 4096;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut buffer = vec![0u8; bytes + ALIGN];
    let start = buffer.as_ptr().align_offset(ALIGN);
    let got = file.read_at(&mut buffer[start..start + bytes], offset)?;
    Ok(buffer[start..start + got].to_vec())
}
