//! Talking to a mounted volume through its directory, whichever process serves it.

use super::attach::{Detached, detach, is_ours, read_proc};
use super::files::{CONTROL, RESET, STATS};
use super::stats::Stats;
use crate::error::{Context, Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Statistics larger than this are not ours: a first touch takes 40 bytes, and 16 TiB have 32 million units.
const STATS_BYTES_MAX: u64 = 2 << 30;
/// How long an unmounted volume's process may take to end.
const DAEMON_END_MAX: Duration = Duration::from_secs(10);
/// How long a volume may be in use before that is an error.
const BUSY_MAX: Duration = Duration::from_secs(2);

/// The full path of a directory, also where the volume on it is dead and cannot be looked at.
fn full_path(dir: &Path) -> Result<PathBuf> {
    let failed = || format!("failed to find directory `{}`", dir.display());
    match dir.canonicalize() {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new(".")).canonicalize().context(failed)?;
            Ok(parent.join(dir.file_name().unwrap_or_default()))
        }
        other => other.context(failed),
    }
}

/// The full path of a directory on which a cold volume is mounted.
fn lab_directory(dir: &Path) -> Result<PathBuf> {
    let path = full_path(dir)?;
    if !is_ours(&read_proc(Path::new("/"), "proc/self/mountinfo")?, &path) {
        return Err(Error::failed(format!("failed to find a cold volume on `{}`", dir.display()))
            .hint("name the directory given to `ebs-prewarm lab mount IMAGE DIR`"));
    }
    Ok(path)
}

fn explained(error: std::io::Error, doing: &str, dir: &Path) -> Error {
    let failure = Error::failed(format!("failed to {doing} the cold volume on `{}`", dir.display()));
    let failure = match error.raw_os_error() {
        Some(libc::ENOTCONN | libc::ECONNABORTED) => {
            failure.hint(format!("its process has ended: `ebs-prewarm lab umount {}`", dir.display()))
        }
        Some(libc::EACCES | libc::EPERM) => failure.hint("run it as the user who mounted it, or as root"),
        _ => failure,
    };
    failure.because(error)
}

/// What the emulator on `dir` says of itself.
pub fn stats(dir: &Path) -> Result<Stats> {
    let path = lab_directory(dir)?;
    let mut text = Vec::new();
    File::open(path.join(STATS))
        .and_then(|file| file.take(STATS_BYTES_MAX).read_to_end(&mut text))
        .map_err(|error| explained(error, "read the statistics of", dir))?;
    serde_json::from_slice(&text)
        .context(|| format!("failed to understand the statistics of `{}`", dir.display()))
}

/// Makes the volume on `dir` cold again and forgets what it counted.
pub fn reset(dir: &Path) -> Result<()> {
    let path = lab_directory(dir)?;
    OpenOptions::new()
        .write(true)
        .open(path.join(CONTROL))
        .and_then(|mut control| control.write_all(RESET.as_bytes()))
        .map_err(|error| explained(error, "reset", dir))
}

/// Unmounts the volume on `dir` and waits for the end of the process that served only it.
pub fn umount(dir: &Path) -> Result<()> {
    let path = lab_directory(dir)?;
    let daemon = stats(dir).ok().and_then(|stats| stats.daemon_pid).and_then(process);
    // The ring of a process that has just ended keeps its file for a moment.
    let deadline = Instant::now() + BUSY_MAX;
    while detach(&path, false)? == Detached::Busy {
        if Instant::now() > deadline {
            return Err(busy(Path::new("/"), &path));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    match daemon {
        Some(daemon) if !ends_within(&daemon, DAEMON_END_MAX) => {
            Err(Error::failed(format!("failed to see the process of `{}` end", dir.display()))
                .hint("it is unmounted; another mount namespace may still have it open"))
        }
        _ => Ok(()),
    }
}

/// A handle on a process that does not come to mean another one.
fn process(pid: u32) -> Option<OwnedFd> {
    // SAFETY: takes two numbers; what it returns is a new descriptor of ours or -1.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
    }
}

fn ends_within(process: &OwnedFd, wait: Duration) -> bool {
    let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one live pollfd is passed with the count 1.
        let result = unsafe { libc::poll(&mut poll, 1, wait.as_millis() as i32) };
        let interrupted = std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if result >= 0 || !interrupted {
            return result > 0;
        }
    }
}

/// The error for a mount that is in use, naming the loop devices on it.
pub fn busy(root: &Path, dir: &Path) -> Error {
    let loops = loop_devices_on(root, dir);
    let hint = if loops.is_empty() {
        format!("close what has it open; `fuser -vm {}` lists it", dir.display())
    } else {
        format!("detach the loop device first: `losetup -d {}`", loops.join(" "))
    };
    Error::failed(format!("failed to unmount `{}`", dir.display())).because("it is in use").hint(hint)
}

/// Loop devices whose file is below `dir`.
fn loop_devices_on(root: &Path, dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join("sys/block")) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        let on_it = Path::new(file.trim_end_matches('\n')).starts_with(dir);
        on_it.then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_mount_names_its_loop_devices() {
        let root = tempfile::tempdir().unwrap();
        let add = |name: &str, file: &str| {
            let dir = root.path().join("sys/block").join(name).join("loop");
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("backing_file"), file).unwrap();
        };
        add("loop3", "/mnt/cold/volume\n");
        add("loop4", "/mnt/colder/volume\n");
        std::fs::create_dir_all(root.path().join("sys/block/vda")).unwrap();
        let text = busy(root.path(), Path::new("/mnt/cold")).full_text();
        assert!(text.contains("losetup -d /dev/loop3") && !text.contains("loop4"), "{text}");
        let text = busy(Path::new("/none"), Path::new("/mnt/cold")).full_text();
        assert!(text.contains("fuser -vm /mnt/cold"), "{text}");
    }

    #[test]
    fn a_plain_directory_is_no_lab() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONTROL), "mine").unwrap();
        for result in [stats(dir.path()).map(drop), reset(dir.path()), umount(dir.path())] {
            let text = result.unwrap_err().full_text();
            assert!(text.contains("failed to find a cold volume") && text.contains("lab mount"), "{text}");
        }
        assert_eq!(std::fs::read(dir.path().join(CONTROL)).unwrap(), b"mine");
        assert!(stats(Path::new("/no/such")).unwrap_err().full_text().contains("`/no/such`"));
    }
}
