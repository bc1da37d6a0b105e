//! Clients that mean no good: the warming goes on, others are answered, and memory stays what it was.

use super::daemon::{asks, daemon, socket, until};
use super::*;
use ebs_prewarm::control::Phase;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// More than the daemon takes in, by far.
const CONNECTIONS: usize = 10_000;
/// Of the daemon, whatever is done to it. Its buffers for all clients are 1 MiB.
const MEMORY_GROWS_KIB_MAX: u64 = 8 << 10;
/// Limits of clients are 64 and 64, and it has some files of its own.
const FILES_MAX: usize = 300;

/// A number of kB from the daemon's `/proc/PID/status`.
fn memory_kib(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Room for all the connections of a test; whether there is.
fn many_files() -> bool {
    let wanted = CONNECTIONS as libc::rlim_t + 2_000;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads and writes a live struct.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_cur.max(wanted);
        limit.rlim_max = limit.rlim_max.max(wanted);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
    }
}

/// Does it again and again on a thread of its own until the flag is set; counts how often.
fn again(over: &Arc<AtomicBool>, mut act: impl FnMut() + Send + 'static) -> (JoinHandle<()>, Arc<AtomicU64>) {
    let (over, count) = (over.clone(), Arc::new(AtomicU64::new(0)));
    let counted = count.clone();
    let acting = move || {
        while !over.load(Ordering::Relaxed) {
            act();
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    (std::thread::spawn(acting), count)
}

#[test]
fn a_crowd_of_hostile_clients_changes_nothing() {
    if !require_root() {
        return;
    }
    if !many_files() {
        return crate::support::skip("needs more open files than may be had");
    }
    // 40 units a second, and none is read before the crowd is there.
    let volume = Volume::new(300, "gp3", &["hydration=20MB/s", "first_read=10ms", "sigma=0"]);
    let warm = start(daemon(&volume, "--rest all --mode touch"));
    until(&volume, |status| status.phase == Phase::Warming);
    let pid = warm.pid();
    let before_kib = memory_kib(pid, "VmRSS");
    let over = Arc::new(AtomicBool::new(false));
    let path = socket(&volume);
    let at = |path: &str| UnixStream::connect(path).unwrap();
    let mut crowd = Vec::new();
    // A line without an end.
    let to = path.clone();
    crowd.push(again(&over, move || {
        let mut client = at(&to);
        while client.write_all(&[b'x'; 65_536]).is_ok() {}
    }));
    // An answer that is not waited for, and a question that breaks off.
    let to = path.clone();
    crowd.push(again(&over, move || {
        let mut client = at(&to);
        let _ = client.write_all(b"{\"verb\":\"metrics\"}\n");
        let _ = client.shutdown(std::net::Shutdown::Read);
        let _ = at(&to).write_all(b"{\"verb\":");
    }));
    // Those who wait and never read, more than there is room for.
    let (to, mut held) = (path.clone(), Vec::new());
    crowd.push(again(&over, move || {
        let mut client = at(&to);
        let _ = client.write_all(b"{\"verb\":\"wait\",\"stage\":\"rest\",\"timeout_ms\":86400000}\n");
        held.push(client);
        if held.len() > 500 {
            held.clear();
        }
        std::thread::sleep(Duration::from_millis(1));
    }));
    // A byte at a time, over and over.
    let to = path.clone();
    let mut slow: Vec<UnixStream> = Vec::new();
    crowd.push(again(&over, move || {
        slow.retain_mut(|client| client.write_all(b"{").is_ok());
        while slow.len() < 50 {
            slow.push(at(&to));
        }
        std::thread::sleep(Duration::from_secs(1));
    }));
    let silent: Vec<UnixStream> = (0..CONNECTIONS).map(|_| at(&path)).collect();
    // A client that means well is answered in the midst of them. Where the crowd keeps the kernel's queue before the
    // socket full, it may have to come again.
    let (mut answered, begun) = (0, Instant::now());
    while answered < 10 {
        let status = run(asks(&volume, "--json status"));
        assert!([Some(0), Some(5)].contains(&status.code), "{}", status.err);
        assert!(begun.elapsed() < HANG, "{answered} were answered");
        answered += u32::from(status.code == Some(0));
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert!(files <= FILES_MAX, "{files} files are open");
    }
    // All is warmed while the crowd is there, by the volume's own word.
    volume.wait_until(|stats| stats.cold_units == 0);
    let peak_kib = memory_kib(pid, "VmHWM");
    over.store(true, Ordering::Relaxed);
    for (thread, count) in crowd {
        thread.join().unwrap();
        assert!(count.load(Ordering::Relaxed) > 0);
    }
    drop(silent);
    let warmed = until(&volume, |status| status.phase == Phase::Warm);
    assert_eq!(warmed.traffic.reads, 300);
    assert!(peak_kib <= before_kib + MEMORY_GROWS_KIB_MAX, "{before_kib} KiB before, {peak_kib} KiB at most");
    assert_eq!(volume.hydrated(), (0..300).collect::<Vec<_>>());
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &["complete; 300 of 300 units"]);
    assert_eq!(number(&volume.report(), "/totals/errors"), 0);
}

#[test]
fn what_is_no_question_is_told_so_and_let_go() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(16, "io2", &["first_read=1ms"]);
    let warm = start(daemon(&volume, "--rest all"));
    until(&volume, |status| status.phase == Phase::Warm);
    let answer = |question: &[u8]| {
        let mut client = UnixStream::connect(socket(&volume)).unwrap();
        client.set_read_timeout(Some(HANG)).unwrap();
        let _ = client.write_all(question);
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        answer
    };
    for question in
        [&b"\n"[..], b"status\n", b"{\"verb\":\"reboot\"}\n", b"\0\xff\n", b"{\"verb\":\"status\",\"x\":1}\n"]
    {
        let told = answer(question);
        assert!(told.starts_with("{\"error\":\"failed to understand the request"), "{told}");
        assert!(told.ends_with('\n') && told.lines().count() == 1, "{told}");
    }
    assert_eq!(answer(&[b'x'; 4096]), "{\"error\":\"a request has at most 4096 bytes\"}\n");
    // A question in parts is one; what follows it is not heard.
    let mut client = UnixStream::connect(socket(&volume)).unwrap();
    for part in ["{\"verb\"", ":\"status\"", "}\n{\"verb\":\"stop\"}\n"] {
        client.write_all(part.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut told = String::new();
    let _ = client.read_to_string(&mut told);
    assert!(told.starts_with("{\"status\":") && told.lines().count() == 1, "{told}");
    let mut warm = warm;
    assert!(!warm.has_ended());
    run(asks(&volume, "stop")).ok();
    warm.end().exits(0, &[]);
}
