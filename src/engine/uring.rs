//! Reads through io_uring: the cheapest ring the kernel gives, on one registered file, into one registered buffer,
//! restricted to reads.
//!
//! Holds: a restricted ring cannot write, whatever is put into it; memory that a read may still land in outlives
//! the read, or the process does not outlive the memory. The ring is used on the thread that made it.

use super::memory::Sink;
use super::source::{Completion, Request, Source};
use io_uring::register::Restriction;
use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// A way to set up a ring, from the cheapest to the one every kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// Linux 6.6: no indirection on submission; completions only when asked for.
    NoSqArray,
    /// Linux 6.1: completions only when asked for, by the one thread that submits.
    Defer,
    /// Linux 5.19: no interrupt of the running task for a completion.
    Coop,
    /// Linux 5.10.
    Bare,
}

const LADDER: [Rung; 4] = [Rung::NoSqArray, Rung::Defer, Rung::Coop, Rung::Bare];

impl Rung {
    fn builder(self) -> Builder {
        let mut builder = IoUring::builder();
        match self {
            Rung::NoSqArray => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_no_sqarray();
            }
            Rung::Defer => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
            }
            Rung::Coop => {
                builder.setup_coop_taskrun().setup_submit_all();
            }
            Rung::Bare => {}
        }
        builder
    }

    fn name(self) -> &'static str {
        match self {
            Rung::NoSqArray => "single issuer, deferred, no sqarray",
            Rung::Defer => "single issuer, deferred",
            Rung::Coop => "cooperative",
            Rung::Bare => "bare",
        }
    }
}

/// What a ring can be made to do.
fn limit(restricted: bool) -> &'static str {
    if restricted { "restricted to reads" } else { "unrestricted" }
}

/// Reads through io_uring.
pub struct UringSource {
    ring: ManuallyDrop<IoUring>,
    sink: ManuallyDrop<Sink>,
    in_flight: u32,
    start: Instant,
    rung: Rung,
    fixed_buffer: bool,
    restricted: bool,
    ext_arg: bool,
}

impl std::fmt::Debug for UringSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

impl UringSource {
    /// Over an open file; at most `slots` reads in flight, each of at most `read_bytes_max`.
    pub fn new(file: &File, slots: u32, read_bytes_max: u32) -> io::Result<UringSource> {
        let sink = Sink::new(read_bytes_max, slots)?;
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for rung in LADDER {
            for restricted in [true, false] {
                match Self::build(rung, restricted, file, slots, &sink) {
                    Ok((ring, fixed_buffer)) => {
                        let made = Self::of(ring, sink, rung, fixed_buffer, restricted);
                        let wait = if made.ext_arg { "entering the ring" } else { "polling it" };
                        tracing::debug!("{}; waits for a time by {wait}", made.describe());
                        return Ok(made);
                    }
                    // Refused as such (sysctl, seccomp): no other set-up will do better.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                        return Err(error);
                    }
                    Err(error) => {
                        let (name, limit) = (rung.name(), limit(restricted));
                        tracing::debug!("io_uring set-up `{name}, {limit}` is refused: {error}");
                        refused = error;
                    }
                }
            }
        }
        Err(refused)
    }

    fn of(ring: IoUring, sink: Sink, rung: Rung, fixed_buffer: bool, restricted: bool) -> UringSource {
        let ext_arg = ring.params().is_feature_ext_arg();
        UringSource {
            ring: ManuallyDrop::new(ring),
            sink: ManuallyDrop::new(sink),
            in_flight: 0,
            start: Instant::now(),
            rung,
            fixed_buffer,
            restricted,
            ext_arg,
        }
    }

    fn build(
        rung: Rung,
        restricted: bool,
        file: &File,
        slots: u32,
        sink: &Sink,
    ) -> io::Result<(IoUring, bool)> {
        let mut builder = rung.builder();
        if restricted {
            builder.setup_r_disabled();
        }
        let ring = builder.dontfork().build(slots.next_power_of_two())?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        // SAFETY: the sink outlives the ring: both are dropped together, or neither is.
        let registered = unsafe { submitter.register_buffers(&[sink.iovec()]) };
        let fixed_buffer = match registered {
            Ok(()) => true,
            // RLIMIT_MEMLOCK: plain reads do without.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EPERM)) => {
                tracing::debug!("a registered buffer is refused: {error}");
                false
            }
            Err(error) => return Err(error),
        };
        if restricted {
            let mut rules = [
                Restriction::sqe_op(if fixed_buffer { opcode::ReadFixed::CODE } else { opcode::Read::CODE }),
                Restriction::sqe_flags_required(squeue::Flags::FIXED_FILE.bits()),
            ];
            submitter.register_restrictions(&mut rules)?;
            submitter.register_enable_rings()?;
        }
        // A filter may let a ring be made and not be entered: better known now than at the first read.
        // SAFETY: submits nothing, waits for nothing, passes no pointer.
        unsafe { submitter.enter::<libc::sigset_t>(0, 0, 0, None) }?;
        Ok((ring, fixed_buffer))
    }

    /// Enters the kernel: submits what is queued and waits for one completion or the time.
    fn enter(&mut self, wait_ns: Option<u64>) -> io::Result<()> {
        match wait_ns {
            None => self.ring.submit_and_wait(1).map(drop),
            Some(ns) if self.ext_arg => {
                let time = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                let submitter = self.ring.submitter();
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time)).map(drop)
            }
            Some(ns) => {
                self.ring.submit()?;
                let mut poll = libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                let timeout_ms = ns.div_ceil(1_000_000).min(i32::MAX as u64) as libc::c_int;
                // SAFETY: one live pollfd, and its count is 1.
                match unsafe { libc::poll(&mut poll, 1, timeout_ms) } {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                }
            }
        }
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        let at_ns = self.start.elapsed().as_nanos() as u64;
        let to_completion = |entry: cqueue::Entry| Completion {
            slot: entry.user_data() as u32,
            at_ns,
            result: u32::try_from(entry.result()).map_err(|_| -entry.result()),
        };
        done.extend(self.ring.completion().map(to_completion));
        self.in_flight -= (done.len() - before) as u32;
    }
}

impl Source for UringSource {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        let bytes = request.bytes.min(self.sink.place_bytes() as u32);
        let place = self.sink.place(request.slot);
        let entry = if self.fixed_buffer {
            opcode::ReadFixed::new(Fixed(0), place, bytes, 0)
                .offset(request.offset)
                .ioprio(request.priority.ioprio())
                .build()
        } else {
            opcode::Read::new(Fixed(0), place, bytes)
                .offset(request.offset)
                .ioprio(request.priority.ioprio())
                .build()
        };
        let entry = entry.user_data(u64::from(request.slot));
        // SAFETY: the place stays mapped until the read has ended (see `Drop`), and holds `bytes` bytes.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))?;
        self.in_flight += 1;
        Ok(())
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        let before = done.len();
        let wait_ns = until_ns.map(|until| until.saturating_sub(self.now_ns()));
        if let Err(error) = self.enter(wait_ns) {
            let passing = [libc::EINTR, libc::ETIME, libc::EAGAIN, libc::EBUSY];
            if !error.raw_os_error().is_some_and(|number| passing.contains(&number)) {
                return Err(error);
            }
        }
        self.reap(done);
        debug_assert!(done.len() >= before);
        Ok(())
    }

    fn describe(&self) -> String {
        let buffer = if self.fixed_buffer { "registered buffer" } else { "plain buffer" };
        let limit = limit(self.restricted);
        format!("io_uring ({}; registered file, {buffer}, {limit})", self.rung.name())
    }
}

impl Drop for UringSource {
    fn drop(&mut self) {
        if self.in_flight == 0 {
            // SAFETY: no read is under way and neither value is used again.
            unsafe {
                ManuallyDrop::drop(&mut self.ring);
                ManuallyDrop::drop(&mut self.sink);
            }
        }
        // Otherwise a stalled read may still land in the sink: both are left to the end of the process.
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Priority;
    use super::*;

    const READS: u32 = 8;
    const BYTES: u32 = 4096;

    /// A file to read, or nothing where rings are refused: in a container as a rule.
    fn file() -> Option<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::from(READS * BYTES)).unwrap();
        match UringSource::new(&file, READS, BYTES) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
                assert!(!is_ci, "io_uring is refused here: {error}");
                eprintln!("SKIPPED: io_uring is refused here: {error}");
                None
            }
            made => made.map(|_| Some(file)).unwrap(),
        }
    }

    /// `None` where this kernel does not know the set-up.
    fn made(rung: Rung, restricted: bool, file: &File) -> Option<UringSource> {
        let sink = Sink::new(BYTES, READS).unwrap();
        match UringSource::build(rung, restricted, file, READS, &sink) {
            Ok((ring, fixed_buffer)) => Some(UringSource::of(ring, sink, rung, fixed_buffer, restricted)),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{rung:?}: {error}");
                None
            }
        }
    }

    /// All reads come back whole, each once, and a wait for nothing ends with its time.
    fn reads_and_waits(source: &mut UringSource) {
        for slot in 0..READS {
            let offset = u64::from(slot * BYTES);
            source.submit(Request { slot, offset, bytes: BYTES, priority: Priority::Normal }).unwrap();
        }
        let mut done = Vec::new();
        while done.len() < READS as usize {
            let until_ns = source.now_ns() + 3_600_000_000_000;
            source.wait(Some(until_ns), &mut done).unwrap();
        }
        let mut slots: Vec<u32> = done.iter().map(|completion| completion.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..READS).collect::<Vec<_>>());
        assert!(done.iter().all(|completion| completion.result == Ok(BYTES)), "{done:?}");
        let until_ns = source.now_ns() + 1_000_000;
        while source.now_ns() < until_ns {
            source.wait(Some(until_ns), &mut done).unwrap();
        }
        assert_eq!((done.len(), source.in_flight), (READS as usize, 0));
    }

    #[test]
    fn every_set_up_that_this_kernel_knows_reads_and_waits() {
        let Some(file) = file() else { return };
        let mut known = Vec::new();
        for rung in LADDER {
            for restricted in [true, false] {
                let Some(mut source) = made(rung, restricted, &file) else { continue };
                reads_and_waits(&mut source);
                assert!(source.describe().contains(limit(restricted)), "{source:?}");
                known.push(rung);
            }
        }
        assert!(known.contains(&Rung::Bare), "each kernel with io_uring knows the last rung");
    }

    #[test]
    fn a_ring_that_cannot_wait_for_a_time_is_polled() {
        let Some(file) = file() else { return };
        // Linux before 5.11, and 5.10 before 5.10.162.
        let mut source = made(Rung::Bare, true, &file).unwrap();
        source.ext_arg = false;
        reads_and_waits(&mut source);
    }
}
