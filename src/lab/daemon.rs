//! A process of its own for a mount: into the background once the mount is ready, away when it is unmounted or
//! a signal says so.

use super::attach::{Detached, detach};
use super::mount::Mount;
use crate::error::{Context, Error, Kind, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;

/// Texts of errors that a child hands over are short.
const REPORT_BYTES_MAX: u64 = 64 << 10;
/// What the child reports first when all is well; else the exit code of its error.
const READY: u8 = 0;
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Starts a mount in a child process and serves it there; returns, in the caller, the child's process id once
/// the mount can be used, or the child's error. The calling process must have one thread only.
pub fn in_background(start: impl FnOnce() -> Result<Mount>) -> Result<u32> {
    let failed = || "failed to start a process for the mount".to_owned();
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() != 1) {
        return Err(Error::failed(failed()).because("the process has threads already"));
    }
    let (mut from_child, to_parent) = pipe().context(failed)?;
    // SAFETY: the process has one thread, as was just seen, so the child's copy of it is whole: no lock is held
    // by a thread that is not there.
    match unsafe { libc::fork() } {
        -1 => Err(Error::failed(failed()).because(std::io::Error::last_os_error())),
        0 => {
            drop(from_child);
            std::process::exit(child(start, to_parent))
        }
        pid => {
            drop(to_parent);
            let mut report = Vec::new();
            Read::by_ref(&mut from_child).take(REPORT_BYTES_MAX).read_to_end(&mut report).context(failed)?;
            if report.first() == Some(&READY) {
                return Ok(pid as u32);
            }
            // SAFETY: waits for a child of ours; a null status pointer is allowed.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            Err(match report.split_first() {
                Some((code, text)) => Error::new(kind_of(*code), String::from_utf8_lossy(text)),
                None => Error::failed(failed()).because("it ended before the mount was ready"),
            })
        }
    }
}

fn kind_of(exit_code: u8) -> Kind {
    if exit_code == Kind::Usage.exit_code() { Kind::Usage } else { Kind::Failed }
}

/// The child's life; gives its exit code. Errors after the report have nowhere to go: `--foreground` shows them.
fn child(start: impl FnOnce() -> Result<Mount>, mut to_parent: File) -> i32 {
    let mount = leave_session().and_then(|()| start());
    let report = |to_parent: &mut File, code: u8, text: &str| {
        let _ = to_parent.write_all(&[&[code], text.as_bytes()].concat());
    };
    match mount {
        Ok(mount) => {
            report(&mut to_parent, READY, "");
            drop(to_parent);
            serve(mount).map_or_else(|error| error.kind().exit_code().into(), |()| 0)
        }
        Err(error) => {
            let code = error.kind().exit_code();
            report(&mut to_parent, code, &error.full_text());
            code.into()
        }
    }
}

/// Out of the caller's session, directory and standard streams.
fn leave_session() -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = OwnedFd::from(null.context(|| "failed to open `/dev/null`".into())?);
    // SAFETY: setsid takes nothing; dup2 replaces the three standard descriptors, which nothing here owns.
    unsafe {
        libc::setsid();
        for stream in 0..3 {
            libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), stream);
        }
    }
    std::env::set_current_dir("/").context(|| "failed to enter `/`".into())?;
    hold_signals();
    Ok(())
}

fn pipe() -> std::io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors, which are ours alone when the call succeeds.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok((File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])))
    }
}

fn signals() -> libc::sigset_t {
    // SAFETY: all-zero is a valid set to initialise, and the numbers are signals.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in SIGNALS {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Keeps the signals that end us for [`serve`]; threads started later inherit it.
pub fn hold_signals() {
    // SAFETY: a live, initialised set; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &signals(), std::ptr::null_mut()) };
}

/// Serves until the volume is unmounted, or a signal asks for that. [`hold_signals`] comes before the mount.
pub fn serve(mount: Mount) -> Result<()> {
    let dir = mount.dir().to_path_buf();
    std::thread::Builder::new()
        .name("lab-signals".into())
        .spawn(move || unmount_on_signal(dir))
        .context(|| "failed to start the thread for signals".into())?;
    mount.wait_unmounted()
}

fn unmount_on_signal(dir: PathBuf) {
    let mut signal = 0;
    // SAFETY: both pointers are to live values.
    while unsafe { libc::sigwait(&signals(), &mut signal) } != 0 {}
    if !matches!(detach(&dir, false), Ok(Detached::Done | Detached::NotMounted)) {
        // Whoever has it open sees his reads fail when this process ends.
        eprintln!("warning: `{}` is in use and is unmounted all the same", dir.display());
        let _ = detach(&dir, true);
        std::process::exit(0);
    }
}
