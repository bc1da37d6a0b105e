//! Reads by a pool of threads, for kernels and containers that refuse io_uring.
//!
//! Known limit: the kernel ends no process while one of its threads waits for a direct read. After a stop or a deadline
//! the report is there within the grace, but a process with a stalled read goes only when that read does.

use super::memory::Sink;
use super::source::{Completion, Priority, Request, Source};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// More threads than this cost more than they bring: each is a stack and a context switch a read.
pub const THREADS_MAX: u32 = 64;
/// Their stacks hold no data.
const STACK_BYTES: usize = 64 << 10;
/// Signals reach the waiting thread as an end of the wait at least this often.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Reads by a pool of threads.
#[derive(Debug)]
pub struct PreadSource {
    jobs: Option<Sender<Request>>,
    done: Receiver<Completion>,
    start: Instant,
    threads: u32,
    running: Arc<AtomicU32>,
}

impl PreadSource {
    /// Over an open file; at most `slots` reads in flight, each of at most `read_bytes_max`.
    pub fn new(file: &File, slots: u32, read_bytes_max: u32) -> io::Result<PreadSource> {
        let (jobs, todo) = bounded::<Request>(slots as usize);
        let (finished, done) = bounded(slots as usize);
        let sink = Arc::new(Sink::new(read_bytes_max, slots)?);
        let start = Instant::now();
        let running = Arc::new(AtomicU32::new(0));
        let file = Arc::new(file.try_clone()?);
        for number in 0..slots.clamp(1, THREADS_MAX) {
            let worker = Worker { todo: todo.clone(), finished: finished.clone(), sink: sink.clone(), start };
            let (file, still_running) = (file.clone(), running.clone());
            running.fetch_add(1, Ordering::Relaxed);
            let run = move || {
                worker.run(&file);
                still_running.fetch_sub(1, Ordering::Release);
            };
            let builder = std::thread::Builder::new().name(format!("read-{number}")).stack_size(STACK_BYTES);
            if let Err(error) = builder.spawn(run) {
                running.fetch_sub(1, Ordering::Relaxed);
                // A limit on threads: those that are there read all the same.
                if number == 0 {
                    return Err(error);
                }
                break;
            }
        }
        let threads = running.load(Ordering::Relaxed);
        Ok(PreadSource { jobs: Some(jobs), done, start, threads, running })
    }
}

struct Worker {
    todo: Receiver<Request>,
    finished: Sender<Completion>,
    sink: Arc<Sink>,
    start: Instant,
}

impl Worker {
    fn run(&self, file: &File) {
        let mut priority = Priority::Normal;
        for request in &self.todo {
            if request.priority != priority {
                priority = request.priority;
                set_io_priority(priority);
            }
            let bytes = (request.bytes as usize).min(self.sink.place_bytes());
            // SAFETY: the place holds `bytes` bytes, stays mapped while this thread has the sink, and nobody
            // looks at what lands there; the descriptor is open.
            let count = unsafe {
                let place = self.sink.place(request.slot).cast();
                libc::pread(file.as_raw_fd(), place, bytes, request.offset as libc::off_t)
            };
            let result = u32::try_from(count)
                .map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
            let at_ns = self.start.elapsed().as_nanos() as u64;
            if self.finished.send(Completion { slot: request.slot, at_ns, result }).is_err() {
                return;
            }
        }
    }
}

/// For the calling thread; a kernel without it reads at the ordinary priority.
fn set_io_priority(priority: Priority) {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: plain integers; 0 names the calling thread.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(priority.ioprio()))
    };
}

impl Source for PreadSource {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        let jobs = self.jobs.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        jobs.try_send(request).map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        let left = until_ns.map(|until| Duration::from_nanos(until.saturating_sub(self.now_ns())));
        match self.done.recv_timeout(left.unwrap_or(WAIT_MAX).min(WAIT_MAX)) {
            Ok(first) => {
                done.push(first);
                done.extend(self.done.try_iter());
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn describe(&self) -> String {
        format!("pread ({} threads)", self.threads)
    }
}

impl Drop for PreadSource {
    /// Threads that have nothing left end; one that is stuck in a read is left to the end of the process.
    fn drop(&mut self) {
        self.jobs = None;
        let deadline = Instant::now() + Duration::from_millis(20);
        while self.running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
