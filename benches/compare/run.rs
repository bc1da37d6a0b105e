//! Programs, run and measured: seconds, processor time, what they printed.

use ebs_prewarm::error::{Context, Error, Result};
use ebs_prewarm::process;
use serde_json::Value;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The program that is measured.
pub const BINARY: &str = env!("CARGO_BIN_EXE_ebs-prewarm");

static STOP: OnceLock<&'static AtomicBool> = OnceLock::new();

/// An interruption ends the program that runs, and with it the benchmark, in order: nothing stays mounted.
pub fn catch_interrupts() {
    STOP.get_or_init(process::stop_on_signals);
}

/// What a program did.
pub struct Ran {
    pub stdout: Vec<u8>,
    /// From spawn to exit.
    pub wall_s: f64,
    /// User and system, its children's with it.
    pub cpu_s: f64,
    /// Peak of its memory. A process that is started begins with the starter's peak: never less than that.
    pub peak_kib: i64,
}

/// Runs a program to its end; anything but success is an error with what it said.
pub fn run(command: &mut Command) -> Result<Ran> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let fail = || format!("failed to run `{shown}`");
    let mut stderr = tempfile::tempfile().context(fail)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr.try_clone().context(fail)?);
    let started = Instant::now();
    let mut child = command.spawn().context(fail)?;
    let mut stdout = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout).context(fail)?;
    }
    let (status, usage) = wait(child.id()).context(fail)?;
    let wall_s = started.elapsed().as_secs_f64();
    if STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        return Err(Error::failed("failed to go on: interrupted"));
    }
    if status != 0 {
        let mut said = String::new();
        let _ = stderr.rewind().and_then(|()| stderr.read_to_string(&mut said));
        let status = if libc::WIFEXITED(status) {
            format!("exit code {}", libc::WEXITSTATUS(status))
        } else {
            format!("signal {}", libc::WTERMSIG(status))
        };
        return Err(Error::failed(format!("{}: {status}", fail())).because(said.trim().to_string()));
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(Ran { stdout, wall_s, cpu_s, peak_kib: usage.ru_maxrss })
}

/// A program that runs beside what is measured until it is told to end.
pub struct Beside {
    child: Child,
    shown: String,
}

impl Beside {
    /// Starts it; what it prints is nobody's concern.
    pub fn start(command: &mut Command) -> Result<Beside> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = started.context(|| format!("failed to run `{shown}`"))?;
        Ok(Beside { child, shown })
    }

    /// Ends it in order. That it has ended by itself is an error: something was measured without it.
    pub fn stop(mut self) -> Result<()> {
        let fail = || format!("failed to wait for `{}`", self.shown);
        if let Some(status) = self.child.try_wait().context(fail)? {
            let text = format!("failed to measure beside `{}`: it ended before it was told to", self.shown);
            return Err(Error::failed(text).because(status.to_string()));
        }
        self.interrupt();
        self.child.wait().context(fail).map(drop)
    }

    fn interrupt(&self) {
        // SAFETY: a child of ours that was not waited for: the number is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Of one that was waited for the standard library knows the status.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
            let _ = self.child.wait();
        }
    }
}

/// Waits for a child of ours that nobody else waits for.
fn wait(pid: u32) -> std::io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    loop {
        // SAFETY: zeroes are a valid rusage; both out-pointers are live.
        let (ended, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::wait4(pid as libc::pid_t, &mut status, 0, &mut usage), usage)
        };
        if ended == pid as libc::pid_t {
            return Ok((status, usage));
        }
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// The document in what a program printed; fio puts remarks before it.
pub fn document(stdout: &[u8]) -> Result<Value> {
    let start = stdout.iter().position(|byte| *byte == b'{').unwrap_or(0);
    serde_json::from_slice(&stdout[start..]).context(|| "failed to read a program's JSON".into())
}

/// A number in a document, by its path.
pub fn number(document: &Value, path: &str) -> f64 {
    document.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// Runs `ebs-prewarm` of the release profile; gives what it prints with `--json`.
pub fn ours(arguments: &[&str]) -> Result<(Value, Ran)> {
    ours_with(BINARY, arguments, |_| {})
}

/// The same, another build or otherwise prepared.
pub fn ours_with(
    binary: &str,
    arguments: &[&str],
    prepare: impl FnOnce(&mut Command),
) -> Result<(Value, Ran)> {
    let mut command = Command::new(binary);
    command.args(["--json", "--log", "error"]).args(arguments);
    prepare(&mut command);
    let ran = run(&mut command)?;
    Ok((document(&ran.stdout)?, ran))
}

/// What fio says of its one job, and what it took.
pub struct Fio {
    /// From its first read to its last, by its own clock.
    pub elapsed_s: f64,
    pub reads: f64,
    /// Processor seconds of its job alone: neither its start nor its statistics.
    pub job_cpu_s: f64,
    pub ran: Ran,
}

/// Runs fio, which may only read.
pub fn fio(arguments: &[&str]) -> Result<Fio> {
    let mut command = Command::new("fio");
    command.args(["--readonly", "--output-format=json"]).args(arguments);
    // fio leaves files behind where it stands.
    command.current_dir(std::env::temp_dir());
    let ran = run(&mut command)?;
    let report = document(&ran.stdout)?;
    let job = &report["jobs"][0];
    if number(job, "/error") != 0.0 {
        return Err(Error::failed(format!("failed to read with fio: error {}", job["error"])));
    }
    let share = (number(job, "/usr_cpu") + number(job, "/sys_cpu")) / 100.0;
    Ok(Fio {
        elapsed_s: number(job, "/read/runtime") / 1e3,
        reads: number(job, "/read/total_ios"),
        job_cpu_s: share * number(job, "/job_runtime") / 1e3,
        ran,
    })
}

/// Refuses io_uring to a program, as containers do.
pub fn refuse_io_uring(command: &mut Command) {
    /// linux/seccomp.h and linux/audit.h
    const RET_ALLOW: u32 = 0x7fff_0000;
    const RET_ERRNO: u32 = 0x0005_0000;
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    // The number of the call; where it is io_uring_setup, EPERM.
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let filter = [
        statement(load, 0),
        libc::sock_filter { code: equal, jt: 0, jf: 1, k: libc::SYS_io_uring_setup as u32 },
        statement(give, RET_ERRNO | libc::EPERM as u32),
        statement(give, RET_ALLOW),
    ];
    let refuse = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: between fork and exec only these two system calls are made; the filter is the closure's own.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(refuse) };
}

/// Lets a program run before whatever else the machine does, so that its neighbours are not measured.
pub fn run_first(command: &mut Command) {
    let first = || {
        let parameters = libc::sched_param { sched_priority: 1 };
        // SAFETY: 0 is the calling thread, the structure outlives the call.
        match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, no allocation, no lock.
    unsafe { command.pre_exec(first) };
}

/// What a section cannot do without and this machine does not have.
pub fn missing(needs_fio: bool) -> Vec<&'static str> {
    let fio = || Command::new("fio").arg("--version").output().is_ok_and(|output| output.status.success());
    let wanted = [
        (process::is_root(), "root"),
        (Path::new("/dev/loop-control").exists(), "loop devices (modprobe loop)"),
        (Path::new("/dev/fuse").exists(), "FUSE (modprobe fuse)"),
        (!needs_fio || fio(), "fio (apt-get install fio)"),
    ];
    wanted.into_iter().filter(|(is, _)| !is).map(|(_, what)| what).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The machine in a line.
pub fn machine() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let is_virtual = cpuinfo.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let release = read("/proc/sys/kernel/osrelease");
    let version = release.trim().split('-').next().unwrap_or_default().to_string();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let gib = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
        })
        .map_or(f64::NAN, |kib| kib / (1 << 20) as f64);
    format!(
        "{} cores ({}){}, {gib:.0} GiB, Linux {version}; load {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        model.unwrap_or("unknown"),
        if is_virtual { " of a virtual machine" } else { "" },
        load(),
    )
}

/// Processes that wanted a processor in the last minute.
pub fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().to_string()
}
