//! Kernels and containers that refuse what the engine would like best: the pool of threads and the plain buffer do
//! the same work.

use super::*;
use std::io;
use std::os::unix::process::CommandExt;

/// The numbers are the same on every architecture.
const IO_URING_SETUP: u32 = 425;
const IO_URING_ENTER: u32 = 426;
const IO_URING_REGISTER: u32 = 427;

const SYS_CLONE: u32 = libc::SYS_clone as u32;
const SYS_CLONE3: u32 = libc::SYS_clone3 as u32;

// <linux/bpf_common.h> and <linux/seccomp.h>
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;

/// Has the program and its children refused a system call, as a container's filter does.
fn refuse(command: &mut Command, call: u32, error: i32) {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, call),
        step(RETURN, 0, 0, RET_ERRNO | error as u32),
        step(RETURN, 0, 0, RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: plain numbers, then a live filter of the stated length.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        };
        if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

fn all_but(volume: &Volume, mut command: Command, refused: &[(u32, i32)]) -> Value {
    refused.iter().for_each(|(call, error)| refuse(&mut command, *call, *error));
    run(command).ok();
    assert_eq!(volume.hydrated(), (0..80).collect::<Vec<_>>(), "{refused:?}");
    let report = volume.report();
    assert_eq!((report["end"].as_str(), number(&report, "/totals/reads")), (Some("complete"), 80));
    volume.reset();
    report
}

#[test]
fn where_io_uring_is_refused_threads_read_the_same_units() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "io2", &["first_read=2ms"]);
    let profile = volume.profile_of_units(0..80);
    let warm = || volume.warm(&format!("--profile {profile} --mode touch"));
    let report = all_but(&volume, warm(), &[]);
    assert!(report["engine"].as_str().unwrap().starts_with("io_uring ("), "{}", report["engine"]);
    for refused in [
        (IO_URING_SETUP, libc::EPERM),
        (IO_URING_SETUP, libc::ENOSYS),
        (IO_URING_SETUP, libc::ENOMEM),
        (IO_URING_SETUP, libc::EINVAL),
        (IO_URING_REGISTER, libc::EPERM),
        (IO_URING_REGISTER, libc::EINVAL),
    ] {
        let report = all_but(&volume, warm(), &[refused]);
        let engine = report["engine"].as_str().unwrap();
        assert!(engine.starts_with("pread (") && engine.contains("threads"), "{refused:?}: {engine}");
        assert_eq!(number(&report, "/totals/verified"), 16);
    }
}

#[test]
fn each_set_up_that_is_refused_is_told_from_the_cheapest_on() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "io2", &["first_read=2ms"]);
    let profile = volume.profile_of_units(0..4);
    let warm = |log: &str| {
        let mut command = volume.warm(&format!("--profile {profile} --log {log}"));
        refuse(&mut command, IO_URING_SETUP, libc::EINVAL);
        run(command).exits(0, &[]).err
    };
    let told = warm("debug");
    let told: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once(" set-up `")?.1.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let first = "single issuer, deferred, no sqarray, restricted to reads";
    assert_eq!(
        (told.len(), told.first(), told.last()),
        (8, Some(&first), Some(&"bare, unrestricted")),
        "{told:?}"
    );
    assert!(!warm("info").contains("set-up"));
}

#[test]
fn a_ring_that_can_be_made_and_not_used_leads_to_the_threads_too() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "io2", &["first_read=2ms"]);
    let profile = volume.profile_of_units(0..80);
    let warm = volume.warm(&format!("--profile {profile} --mode touch"));
    let report = all_but(&volume, warm, &[(IO_URING_ENTER, libc::EPERM)]);
    assert!(report["engine"].as_str().unwrap().starts_with("pread ("), "{}", report["engine"]);
}

#[test]
fn memory_that_must_not_be_locked_is_done_without() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "io2", &["first_read=2ms"]);
    let profile = volume.profile_of_units(0..80);
    for mode in ["touch", "full"] {
        // More than 64 KiB of buffer.
        let mut warm = volume.warm(&format!("--profile {profile} --mode {mode} --depth 128"));
        let little = || {
            const CAP_IPC_LOCK: libc::c_int = 14;
            let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
            // SAFETY: plain numbers and a live struct.
            let failed = unsafe {
                libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) != 0
                    || libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) != 0
            };
            if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec it makes two system calls and allocates nothing.
        unsafe { warm.pre_exec(little) };
        let report = all_but(&volume, warm, &[]);
        let engine = report["engine"].as_str().unwrap();
        assert!(engine.starts_with("io_uring (") && engine.contains("plain buffer"), "{engine}");
        assert!(engine.contains("restricted to reads"), "{engine}");
    }
}

#[test]
fn where_neither_ring_nor_thread_can_be_had_the_reason_is_told() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "io2", &["first_read=2ms"]);
    let mut warm = volume.warm("--rest all");
    let refused = [(IO_URING_SETUP, libc::EPERM), (SYS_CLONE3, libc::EAGAIN), (SYS_CLONE, libc::EAGAIN)];
    refused.iter().for_each(|(call, error)| refuse(&mut warm, *call, *error));
    run(warm).exits(1, &["failed to prepare reads of", &volume.device(), "Resource temporarily unavailable"]);
    assert_eq!(volume.report()["end"], "refused");
    assert!(volume.hydrated().is_empty());
}

#[test]
fn signals_and_deadlines_are_obeyed_by_the_threads_as_well() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(800, "gp3", &["hydration=10MB/s", "first_read=10ms"]);
    let mut command = volume.warm("--rest all");
    refuse(&mut command, IO_URING_SETUP, libc::EPERM);
    let warm = start(command);
    volume.wait_for(10);
    warm.signal(libc::SIGINT);
    warm.end().exits(1, &["stopped by a signal"]);
    assert_eq!(volume.report()["end"], "stopped");
    let mut command = volume.warm("--rest all --deadline 500ms");
    refuse(&mut command, IO_URING_SETUP, libc::EPERM);
    run(command).exits(5, &["units are left"]);
    assert_eq!(volume.report()["end"], "deadline");
}
