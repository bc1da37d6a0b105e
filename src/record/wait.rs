//! Waiting for signals or the next look, the clock of the trace, and a command that is watched.
//!
//! Holds: a signal is taken here and never ends the process half-way; a command gets the signals that we had.
//! All `unsafe` of this room is here.

use crate::error::{Context, Result};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// Ctrl-C, what init sends, and a terminal that went away.
const STOPPING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Nanoseconds of CLOCK_MONOTONIC, the trace clock `mono`: since the kernel started, without time asleep.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to a live timespec; this clock exists on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// Mounts tracefs.
pub fn mount_tracefs(place: &Path) -> io::Result<()> {
    let place = CString::new(place.as_os_str().as_bytes())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RELATIME;
    let name = c"tracefs".as_ptr();
    // SAFETY: three strings with their final zero that live through the call, and no data.
    match unsafe { libc::mount(name, place.as_ptr(), name, flags, std::ptr::null()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Locks a directory for as long as the file is open; fails at once where another has it.
pub fn lock_dir(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// A signal that asks to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// The terminal sent it, to all processes in the foreground: a command has had it too.
    pub from_terminal: bool,
}

/// Holds the stopping signals back from this thread for as long as it lives; they are taken by [`Self::wait`].
#[derive(Debug)]
pub struct Signals {
    wanted: libc::sigset_t,
    before: libc::sigset_t,
}

impl Signals {
    /// Holds them back. One that is ignored stays ignored, as `nohup` and shells want it.
    pub fn hold() -> Result<Signals> {
        // SAFETY: the sets are plain data, made valid by sigemptyset; sigaction and pthread_sigmask only read
        // and write the live values given to them.
        let (code, signals) = unsafe {
            let mut signals = Signals { wanted: std::mem::zeroed(), before: std::mem::zeroed() };
            libc::sigemptyset(&mut signals.wanted);
            for number in STOPPING {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(number, std::ptr::null(), &mut action);
                if action.sa_sigaction != libc::SIG_IGN {
                    libc::sigaddset(&mut signals.wanted, number);
                }
            }
            let code = libc::pthread_sigmask(libc::SIG_BLOCK, &signals.wanted, &mut signals.before);
            (code, signals)
        };
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code)).context(|| "failed to hold signals back".into());
        }
        Ok(signals)
    }

    /// The next signal, or `None` after this time.
    pub fn wait(&self, longest: Duration) -> Option<Signal> {
        let time = libc::timespec {
            tv_sec: longest.as_secs().min(i64::MAX as u64) as _,
            tv_nsec: longest.subsec_nanos() as _,
        };
        // SAFETY: the set is valid, the kernel writes one siginfo to a live siginfo.
        let (number, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::sigtimedwait(&self.wanted, &mut info, &time), info)
        };
        (number > 0).then_some(Signal { number, from_terminal: info.si_code == SI_KERNEL })
    }

    /// Starts a command with the signals as they were before.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let before = self.before;
        // SAFETY: between fork and exec only pthread_sigmask is called, which is async-signal-safe, with a
        // copy of a valid set.
        unsafe {
            command.pre_exec(move || {
                match libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) {
                    0 => Ok(()),
                    code => Err(io::Error::from_raw_os_error(code)),
                }
            });
        }
        command.spawn()
    }
}

/// `si_code` of what the kernel itself sends, such as the terminal's Ctrl-C (asm-generic/siginfo.h).
const SI_KERNEL: libc::c_int = 0x80;

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: the set is the valid one that pthread_sigmask wrote.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Sends a signal to a command that was not yet waited for, so its id cannot be another's.
pub fn forward(child: &Child, number: i32) {
    let Ok(pid) = libc::pid_t::try_from(child.id()) else { return };
    // SAFETY: kill takes plain numbers.
    unsafe { libc::kill(pid, number) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_taken_and_a_command_gets_its_own() {
        let signals = Signals::hold().unwrap();
        assert_eq!(signals.wait(Duration::ZERO), None);
        // SAFETY: pthread_kill to ourselves with a signal that this thread holds back.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGTERM) };
        let signal = signals.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(signal, Signal { number: libc::SIGTERM, from_terminal: false });
        let mut child = signals.spawn(Command::new("sleep").arg("600")).unwrap();
        forward(&child, libc::SIGTERM);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGTERM));
    }

    #[test]
    fn the_clock_is_the_one_that_counts_from_the_start_of_the_kernel() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime_s: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let now = now_ns() as f64 / 1e9;
        assert!(now >= 0.0 && now < uptime_s + 3600.0, "{now} {uptime_s}");
        let first = now_ns();
        assert!(now_ns() >= first);
    }
}
