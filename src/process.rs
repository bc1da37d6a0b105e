//! What the process asks the kernel about itself: signals as a flag, processor time, time since the kernel started.

use crate::units::NS_PER_S;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(signal: libc::c_int) {
    if STOP.swap(true, Ordering::Relaxed) {
        // SAFETY: both calls may be made in a handler; the signal is raised when this one is left.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// From now on SIGINT and SIGTERM set the flag that is returned, and interrupt what waits. A second one of them,
/// whichever, ends the process as it would have without us.
pub fn stop_on_signals() -> &'static AtomicBool {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler is sound in itself; the struct is zeroed and then filled in.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    &STOP
}

/// Whether a signal has set the flag of [`stop_on_signals`].
pub fn stop_asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Asks a child that was not waited for to end.
pub fn terminate(child: &std::process::Child) {
    // SAFETY: plain numbers; the id is the child's own as long as nobody waited for it.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
}

/// Processor seconds of this process, user and system.
pub fn cpu_s() -> f64 {
    // SAFETY: the kernel fills in a zeroed struct of its own.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Nanoseconds since the kernel started, suspension counted.
pub fn uptime_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a live struct; this clock exists since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec as u64 * NS_PER_S + time.tv_nsec as u64
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}
