//! tokio-uring as an engine: one task for each read in flight, as its users write it.
//!
//! Holds: it runs on a thread of its own, which is left to the end of the process where a read does not end: its
//! runtime would wait for that read when it is dropped.

use super::bed::OtherReads;
use super::meter::STALL_NS;
use crate::error::{Context, Error, Result};
use crate::plan::PlannedRead;
use crate::report::empty_histogram_us;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio_uring::buf::BoundedBuf;

/// A direct read wants memory aligned to a page.
const ALIGN: usize = 4096;
/// How often it is asked whether to go on.
const TICK: Duration = Duration::from_millis(10);

/// What its tasks share.
struct Shared {
    todo: VecDeque<PlannedRead>,
    start: Instant,
    until: Duration,
    stop: Arc<AtomicBool>,
    /// When each read in flight began.
    under_way: Vec<Option<Duration>>,
    result: OtherReads,
}

/// Reads through tokio-uring, so many in flight, for so many nanoseconds.
pub fn read(
    file: File,
    reads: Vec<PlannedRead>,
    depth: u32,
    for_ns: u64,
    stop: &AtomicBool,
) -> Result<OtherReads> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let theirs = stopped.clone();
    let run = move || {
        let (result, ended) = on_its_thread(file, reads, depth, for_ns, theirs);
        let _ = sender.send(result);
        if !ended {
            loop {
                std::thread::park();
            }
        }
    };
    std::thread::Builder::new()
        .name("tokio-uring".into())
        .spawn(run)
        .context(|| "failed to start tokio-uring's thread".into())?;
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(result) => return result.context(|| "failed to read with tokio-uring".into()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                stopped.store(stop.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::failed("failed to read with tokio-uring: its thread panicked"));
            }
        }
    }
}

/// What came of it, and whether all of its reads have ended.
fn on_its_thread(
    file: File,
    reads: Vec<PlannedRead>,
    depth: u32,
    for_ns: u64,
    stop: Arc<AtomicBool>,
) -> (io::Result<OtherReads>, bool) {
    let mut builder = tokio_uring::builder();
    builder.entries(depth.next_power_of_two());
    let runtime = match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime,
        Err(error) => return (Err(error), true),
    };
    let shared = Rc::new(RefCell::new(Shared {
        todo: reads.into(),
        start: Instant::now(),
        until: Duration::from_nanos(for_ns),
        stop,
        under_way: vec![None; depth as usize],
        result: none(),
    }));
    let all = shared.clone();
    runtime.block_on(async move {
        let file = Rc::new(tokio_uring::fs::File::from_std(file));
        for number in 0..depth as usize {
            tokio_uring::spawn(one_after_the_other(file.clone(), all.clone(), number));
        }
        while all.borrow().goes_on() {
            tokio::time::sleep(TICK).await;
        }
    });
    let mut shared = shared.borrow_mut();
    let left = shared.under_way.iter().flatten().count() as u64;
    let mut result = OtherReads { left, ..shared.take() };
    result.elapsed_ns = result.done_ns.last().copied().unwrap_or(0);
    if left > 0 {
        std::mem::forget(runtime);
    }
    (Ok(result), left == 0)
}

/// Nothing read yet.
fn none() -> OtherReads {
    let (done_ns, done) = (Vec::new(), Vec::new());
    OtherReads { latency_us: empty_histogram_us(), done_ns, done, errors: 0, left: 0, elapsed_ns: 0 }
}

impl Shared {
    /// Whether any read is to be begun, or waited for.
    fn goes_on(&self) -> bool {
        let now = self.start.elapsed();
        let over = self.is_over(now) || self.todo.is_empty();
        let waited = |began: &Duration| now.saturating_sub(*began) < Duration::from_nanos(STALL_NS);
        let grace = if self.stop.load(Ordering::Relaxed) { Duration::from_secs(1) } else { Duration::MAX };
        let waiting =
            self.under_way.iter().flatten().any(|began| waited(began) && now.saturating_sub(*began) < grace);
        !over || waiting
    }

    fn is_over(&self, now: Duration) -> bool {
        now >= self.until || self.stop.load(Ordering::Relaxed)
    }

    fn next(&mut self, number: usize) -> Option<PlannedRead> {
        let now = self.start.elapsed();
        if self.is_over(now) {
            return None;
        }
        let read = self.todo.pop_front()?;
        self.under_way[number] = Some(now);
        Some(read)
    }

    fn ended(&mut self, number: usize, read: PlannedRead, result: io::Result<usize>) {
        let now = self.start.elapsed();
        let began = self.under_way[number].take().unwrap_or(now);
        match result {
            Ok(bytes) if bytes == read.bytes() as usize => {
                self.result.latency_us.saturating_record(now.saturating_sub(began).as_micros() as u64);
                self.result.done_ns.push(now.as_nanos() as u64);
                self.result.done.push(read);
            }
            // More than the device's queue takes.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => self.todo.push_back(read),
            _ => self.result.errors += 1,
        }
    }

    fn take(&mut self) -> OtherReads {
        std::mem::replace(&mut self.result, none())
    }
}

/// One read in flight, always.
async fn one_after_the_other(file: Rc<tokio_uring::fs::File>, shared: Rc<RefCell<Shared>>, number: usize) {
    let mut memory = vec![0u8; 2 * ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    loop {
        let Some(read) = shared.borrow_mut().next(number) else { return };
        let bytes = read.bytes() as usize;
        if memory.len() < bytes + ALIGN {
            shared.borrow_mut().ended(number, read, Err(io::ErrorKind::InvalidInput.into()));
            continue;
        }
        let (result, slice) = file.read_at(memory.slice(start..start + bytes), read.offset()).await;
        memory = slice.into_inner();
        shared.borrow_mut().ended(number, read, result);
    }
}

#[cfg(test)]
mod tests {
    use super::super::method::read_at;
    use super::*;

    #[test]
    fn every_read_is_done_once() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let reads: Vec<PlannedRead> = (0..256).map(|block| read_at(block * 4096, 4096)).collect();
        match read(file, reads.clone(), 16, 60_000_000_000, &AtomicBool::new(false)) {
            Ok(found) => {
                let mut done: Vec<u64> = found.done.iter().map(|read| read.start).collect();
                done.sort_unstable();
                assert!(done.into_iter().eq(reads.iter().map(|read| read.start)));
                assert_eq!((found.done_ns.len(), found.errors, found.left), (256, 0, 0));
                assert_eq!(found.latency_us.len(), 256);
                assert!(found.done_ns.is_sorted());
            }
            // A kernel or a container that refuses io_uring.
            Err(error) => assert!(error.full_text().contains("failed to read with tokio-uring"), "{error}"),
        }
    }

    #[test]
    fn what_fails_is_counted_and_a_stop_is_obeyed() {
        let reads = |count: u64| (0..count).map(|block| read_at(block * 4096, 4096)).collect::<Vec<_>>();
        let empty = tempfile::tempfile().unwrap();
        if let Ok(found) = read(empty, reads(8), 4, 60_000_000_000, &AtomicBool::new(false)) {
            assert_eq!((found.done_ns.len(), found.errors), (0, 8));
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        if let Ok(found) = read(file, reads(256), 4, 0, &AtomicBool::new(false)) {
            assert_eq!((found.done_ns.len(), found.errors), (0, 0), "no time, no read");
        }
    }
}
