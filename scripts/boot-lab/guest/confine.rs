//! Runs a program with less than it would like, as containers and services do; for the guests of the kernel matrix and a
//! case of the boot lab.
//!
//! confine uring PROGRAM...           `io_uring_setup` answers EPERM, by a seccomp filter
//! confine memlock BYTES PROGRAM...   so many bytes of locked memory, also for root
//!
//! Holds: where it cannot be confined the program is not run. No crate is needed: `rustc` makes it.

use std::ffi::{OsString, c_int, c_ulong};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
    fn setrlimit(resource: c_int, limit: *const [u64; 2]) -> c_int;
}

// <linux/prctl.h>, <linux/capability.h>, <sys/resource.h> on x86-64 and arm64
const PR_SET_SECCOMP: c_int = 22;
const PR_CAPBSET_DROP: c_int = 24;
const PR_SET_NO_NEW_PRIVS: c_int = 38;
const CAP_IPC_LOCK: c_ulong = 14;
const RLIMIT_MEMLOCK: c_int = 8;

// <linux/seccomp.h>, <linux/bpf_common.h>
const MODE_FILTER: c_ulong = 2;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0000 | 1;
/// The same number on every architecture.
const IO_URING_SETUP: u32 = 425;

/// `struct sock_filter`
#[repr(C)]
struct Step(u16, u8, u8, u32);

/// `struct sock_fprog`
#[repr(C)]
struct Program(u16, *const Step);

fn refuse_uring() -> bool {
    let filter = [
        Step(LOAD_WORD, 0, 0, 0),
        Step(JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP),
        Step(RETURN, 0, 0, EPERM),
        Step(RETURN, 0, 0, ALLOW),
    ];
    let program = Program(filter.len() as u16, filter.as_ptr());
    let none: c_ulong = 0;
    // SAFETY: plain numbers, then a live filter of the stated length.
    unsafe {
        prctl(PR_SET_NO_NEW_PRIVS, 1 as c_ulong, none, none, none) == 0
            && prctl(PR_SET_SECCOMP, MODE_FILTER, &raw const program) == 0
    }
}

/// Root may lock what it likes, so the program must not have that right either.
fn lock_at_most(bytes: u64) -> bool {
    let limit = [bytes, bytes];
    // SAFETY: a live `struct rlimit`, which is two numbers of 64 bits, then plain numbers.
    unsafe {
        setrlimit(RLIMIT_MEMLOCK, &limit) == 0
            && prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) == 0
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let kind = arguments.first().and_then(|kind| kind.to_str());
    let bytes = arguments.get(1).and_then(|bytes| bytes.to_str()?.parse().ok());
    let (confined, program) = match (kind, bytes) {
        (Some("uring"), _) => (refuse_uring(), &arguments[1..]),
        (Some("memlock"), Some(bytes)) => (lock_at_most(bytes), &arguments[2..]),
        _ => (false, &arguments[..0]),
    };
    if let (true, Some((name, rest))) = (confined, program.split_first()) {
        let error = Command::new(name).args(rest).exec();
        eprintln!("error: failed to run `{}`: {error}", name.display());
    } else {
        eprintln!("error: failed to confine: {}", std::io::Error::last_os_error());
    }
    ExitCode::from(125)
}
