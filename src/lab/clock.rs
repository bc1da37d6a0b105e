//! The monotonic clock, and waiting on it as precisely as the kernel lets us.

use std::sync::{Condvar, MutexGuard};
use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock that the kernel's own tracing is compared with.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Asks that this thread's timers fire when they are due: by default the kernel may let 50 us pass.
pub fn fire_timers_when_due() {
    // SAFETY: PR_SET_TIMERSLACK takes one number and touches no memory; where it is refused, timers fire later.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize) };
}

/// Asks to run before others: an emulated disk must not be slow because its reader is busy. Not a real-time
/// class, under which an emulator at its limit would starve its readers. Refused without privilege; answers are
/// then as late as the load makes them.
pub fn run_first() {
    const NICE_MIN: libc::c_int = -20;
    // SAFETY: both calls take and return numbers; 0 would be the process, the thread's own id is this thread.
    unsafe {
        let thread = libc::syscall(libc::SYS_gettid) as libc::id_t;
        libc::setpriority(libc::PRIO_PROCESS, thread, NICE_MIN);
    }
}

/// Waits on the condition variable until `at_ns` at the latest (for ever without).
pub fn wait<'a, T>(signal: &Condvar, guard: MutexGuard<'a, T>, at_ns: Option<u64>) -> MutexGuard<'a, T> {
    let unpoisoned = std::sync::PoisonError::into_inner;
    match at_ns {
        None => signal.wait(guard).unwrap_or_else(unpoisoned),
        Some(at_ns) => {
            let wait = Duration::from_nanos(at_ns.saturating_sub(monotonic_ns()));
            match signal.wait_timeout(guard, wait) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            }
        }
    }
}
