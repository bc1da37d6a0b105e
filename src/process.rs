//! What the process asks the kernel about itself: signals as a flag, processor time, time since the kernel started.

use crate::units::NS_PER_S;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
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

/// Whether a thread with this id is one of this process, the kernel's own threads that read for it among them. Needs no
/// `/proc`, which is somewhere else after the change of root.
pub fn is_own_thread(thread: u32) -> bool {
    // SAFETY: plain numbers; signal 0 is not sent.
    unsafe {
        libc::syscall(libc::SYS_tgkill, std::process::id() as libc::pid_t, thread as libc::pid_t, 0) == 0
    }
}

/// Asks a child that was not waited for to end.
pub fn terminate(child: &std::process::Child) {
    // SAFETY: plain numbers; the id is the child's own as long as nobody waited for it.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
}

/// From now on whoever loses its parent among the processes that this one has started becomes a child of this one, which
/// alone can wait for it then: init does not everywhere.
pub fn adopt_orphans() {
    // SAFETY: plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
        tracing::info!("failed to adopt orphans: {}", io::Error::last_os_error());
    }
}

/// Asks all of a process group to end; with `force` it is not asked.
pub fn terminate_group(group: u32, force: bool) {
    let signal = if force { libc::SIGKILL } else { libc::SIGTERM };
    // SAFETY: plain numbers; no other group has the id as long as this one has anybody.
    unsafe { libc::kill(-(group as libc::pid_t), signal) };
}

/// Whether nobody is left of a process group. Waits for children that have ended and are in it, so that whoever wants
/// the status of its leader has asked for that before.
pub fn has_group_ended(group: u32) -> bool {
    let all = -(group as libc::pid_t);
    // SAFETY: plain numbers; signal 0 is not sent, and no status is asked for.
    unsafe {
        while libc::waitpid(all, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        libc::kill(all, 0) != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    }
}

/// Processor seconds of this process, user and system.
pub fn cpu_s() -> f64 {
    usage_s(libc::RUSAGE_SELF)
}

/// Processor seconds of this process and of all that it has waited for.
pub fn cpu_with_children_s() -> f64 {
    usage_s(libc::RUSAGE_SELF) + usage_s(libc::RUSAGE_CHILDREN)
}

/// Processor seconds of this thread.
pub fn thread_cpu_s() -> f64 {
    usage_s(libc::RUSAGE_THREAD)
}

/// Processor seconds that the machine has computed since it started, all processes and the kernel.
pub fn machine_cpu_s(root: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(root.join("proc/stat")).ok()?;
    // SAFETY: no memory is passed.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    (ticks_per_s > 0).then(|| busy_ticks(&text).map(|ticks| ticks as f64 / ticks_per_s as f64))?
}

/// User, nice, system, irq and softirq, of the line for all processors.
fn busy_ticks(stat: &str) -> Option<u64> {
    let ticks: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|text| text.parse().ok())
        .collect();
    (ticks.len() >= 7).then(|| [0, 1, 2, 5, 6].iter().map(|at| ticks[*at]).sum())
}

fn usage_s(whose: libc::c_int) -> f64 {
    // SAFETY: the kernel fills in a zeroed struct of its own.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(whose, &mut usage);
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

/// Systemd leaves a root process whose first argument starts so alone when it changes the root (its document on
/// storage daemons for the root filesystem).
const LEFT_ALONE: &str = "@ebs-prewarm";

/// Takes the name that systemd leaves alone: runs the same program again under it. Returns once this process has
/// that name, or with the reason why it has not.
pub fn leave_alone() -> io::Result<()> {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| name.as_encoded_bytes().starts_with(b"@")) {
        return Ok(());
    }
    // By its path, so that lists of processes show its name.
    Err(Command::new(std::env::current_exe()?).arg0(LEFT_ALONE).args(arguments).exec())
}

/// Keeps what is mapped by now in memory, and what is touched later: nothing has to be paged in from the disk that
/// is being warmed, or from a root that is gone.
pub fn stay_in_memory() -> io::Result<()> {
    for flags in [libc::MCL_CURRENT, libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT] {
        // SAFETY: no memory is passed.
        if unsafe { libc::mlockall(flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// From now on this thread computes only when no other has anything to compute.
pub fn idle_class() {
    // SAFETY: a struct of plain numbers, of which some C libraries have more than others; all are 0 in this class.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads a live struct; 0 stands for the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) } != 0 {
        tracing::info!("failed to take idle turns of the processor: {}", io::Error::last_os_error());
    }
}

/// Where memory runs out, this process is the first to be ended: what it does can be done again.
pub fn die_first() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        tracing::info!("failed to be the first that is ended where memory runs out: {error}");
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_time_is_no_work() {
        let stat = "cpu  100 10 50 9999 700 5 3 0 0 0\ncpu0 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(168));
        assert_eq!((busy_ticks(""), busy_ticks("cpu  1 2 x"), busy_ticks("intr 5")), (None, None, None));
        assert!(machine_cpu_s(Path::new("/")).unwrap() > 0.0);
    }
}
