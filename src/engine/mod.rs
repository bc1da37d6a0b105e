//! The loop: a sliding window of reads over one [`Source`], the same on io_uring, a pool of threads and in
//! virtual time.
//!
//! Holds: never more in flight than the depth allows; a read is done only when all its bytes were read; what
//! could not be read is counted and named; a stop or a deadline is obeyed whatever the device does.

mod depth;
mod job;
mod memory;
mod outcome;
mod pace;
mod pread;
mod sim;
mod source;
mod uring;
mod verify;

pub use depth::{Depth, INITIAL as DEPTH_INITIAL, LIMIT as DEPTH_LIMIT, MAX as DEPTH_MAX};
pub use outcome::{End, Outcome, StageOutcome, UNREADABLE_LISTED_MAX};
pub use pace::Pace;
pub use pread::PreadSource;
pub use sim::SimSource;
pub use source::{Completion, Priority, Request, Source};
pub use uring::UringSource;
pub use verify::{Check, Sample, Verdict, verify};

use crate::plan::PlannedRead;
use job::{Job, after_failure, after_short};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Reads in flight.
    pub depth: Depth,
    /// Limits on operations and bytes.
    pub pace: Pace,
    /// No read is submitted after this, counted from the start of the source's time.
    pub deadline_ns: Option<u64>,
    /// Logical block in bytes: an unreadable range is halved down to this.
    pub block_bytes: u32,
    /// From this stage on, reads are submitted with idle priority.
    pub idle_from_stage: u16,
}

/// After a stop or a deadline, reads under way get this long to end: one first read with a bad tail.
const GRACE_NS: u64 = 1_000_000_000;
/// So many failures with no success between them mean that the device is gone, not that blocks are bad.
const FAILURES_IN_A_ROW_MAX: u32 = 256;
/// How long to hold off where the device takes no read at all.
const REFUSED_PAUSE_NS: u64 = 1_000_000;

/// Something to look at while it runs.
pub trait Progress {
    /// Called about ten times a second.
    fn tick(&mut self, outcome: &Outcome, in_flight: u32, now_ns: u64);
}

/// Nobody looks.
impl Progress for () {
    fn tick(&mut self, _: &Outcome, _: u32, _: u64) {}
}

const TICK_NS: u64 = 100_000_000;

/// The source this kernel gives: io_uring, or a pool of threads where it is refused.
pub fn open(file: &File, slots: u32, read_bytes_max: u32) -> io::Result<Box<dyn Source>> {
    match UringSource::new(file, slots, read_bytes_max) {
        Ok(ring) => Ok(Box::new(ring)),
        Err(error) => {
            tracing::info!("io_uring is refused ({error}); reading with a pool of threads");
            Ok(Box::new(PreadSource::new(file, slots, read_bytes_max)?))
        }
    }
}

/// Reads everything that `reads` gives, in order, and says what came of it.
pub fn run<S: Source + ?Sized>(
    source: &mut S,
    reads: impl Iterator<Item = PlannedRead>,
    options: Options,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Outcome {
    let started_ns = source.now_ns();
    let slots = options.depth.max();
    let mut engine = Loop {
        outcome: Outcome::new(started_ns, options.depth.initial(), source.describe()),
        jobs: vec![None; slots as usize],
        free: (0..slots).rev().collect(),
        retry: VecDeque::new(),
        failures_in_a_row: 0,
        refused_until_ns: 0,
        source,
        options,
    };
    let end = engine.run(reads, stop, progress);
    engine.close(end)
}

struct Loop<'a, S: Source + ?Sized> {
    source: &'a mut S,
    options: Options,
    outcome: Outcome,
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
    retry: VecDeque<Job>,
    failures_in_a_row: u32,
    refused_until_ns: u64,
}

impl<S: Source + ?Sized> Loop<'_, S> {
    fn in_flight(&self) -> u32 {
        (self.jobs.len() - self.free.len()) as u32
    }

    fn run(
        &mut self,
        mut reads: impl Iterator<Item = PlannedRead>,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> End {
        let mut done = Vec::with_capacity(self.jobs.len());
        let mut next_tick_ns = self.source.now_ns() + TICK_NS;
        let mut exhausted = false;
        loop {
            let now_ns = self.source.now_ns();
            if stop.load(Ordering::Relaxed) {
                return self.drain(End::Stopped, &mut done);
            }
            if self.options.deadline_ns.is_some_and(|deadline| now_ns >= deadline) {
                return self.drain(End::Deadline, &mut done);
            }
            let wake_ns = match self.fill(&mut reads, now_ns, &mut exhausted) {
                Ok(wake_ns) => wake_ns,
                Err(error) => return End::Failed(error),
            };
            if self.in_flight() == 0 && self.retry.is_empty() && exhausted {
                return End::Complete;
            }
            let until_ns =
                [wake_ns, self.options.deadline_ns, Some(next_tick_ns)].into_iter().flatten().min();
            if let Err(error) = self.source.wait(until_ns, &mut done) {
                return End::Failed(error);
            }
            for completion in done.drain(..) {
                self.handle(completion);
            }
            if self.failures_in_a_row >= FAILURES_IN_A_ROW_MAX || self.outcome.device_gone {
                return self.drain(End::DeviceGone, &mut done);
            }
            let now_ns = self.source.now_ns();
            if now_ns >= next_tick_ns {
                progress.tick(&self.outcome, self.in_flight(), now_ns);
                next_tick_ns = now_ns + TICK_NS;
            }
        }
    }

    /// Submits what depth and pace allow; says when to come back where the pace or a refusal holds it up.
    fn fill(
        &mut self,
        reads: &mut impl Iterator<Item = PlannedRead>,
        now_ns: u64,
        exhausted: &mut bool,
    ) -> io::Result<Option<u64>> {
        if self.refused_until_ns > now_ns {
            return Ok(Some(self.refused_until_ns));
        }
        while self.in_flight() < self.options.depth.limit() {
            if let Some(until_ns) = self.options.pace.wait_until_ns(now_ns) {
                return Ok(Some(until_ns));
            }
            let next = self.retry.pop_front().or_else(|| reads.next().map(Job::from_plan));
            let Some(mut job) = next else {
                *exhausted = true;
                return Ok(None);
            };
            job.submitted_ns = now_ns;
            self.options.pace.take(now_ns, job.bytes);
            self.outcome.stage(job.stage).started(now_ns);
            let slot = self.free.pop().expect("the depth is at most the number of slots");
            let idle = job.stage >= self.options.idle_from_stage;
            let priority = if idle { Priority::Idle } else { Priority::Normal };
            self.source.submit(Request { slot, offset: job.offset, bytes: job.bytes, priority })?;
            self.jobs[slot as usize] = Some(job);
        }
        Ok(None)
    }

    fn handle(&mut self, completion: Completion) {
        let Some(job) = self.jobs.get_mut(completion.slot as usize).and_then(Option::take) else {
            debug_assert!(false, "a completion for no read");
            return;
        };
        self.free.push(completion.slot);
        match completion.result {
            Ok(bytes) if bytes >= job.bytes => {
                self.failures_in_a_row = 0;
                self.options.depth.on_completion(completion.at_ns);
                self.outcome.done(&job, completion.at_ns);
            }
            Ok(bytes) if bytes > 0 => {
                self.outcome.retries += 1;
                self.outcome.bytes_read += u64::from(bytes);
                self.retry.push_back(after_short(job, bytes));
            }
            // The end of the device came early: it shrank.
            Ok(_) => self.failed(job, 0, completion.at_ns),
            Err(libc::EAGAIN | libc::EINTR) => {
                self.outcome.retries += 1;
                self.options.depth.on_refusal(self.in_flight());
                if self.in_flight() == 0 {
                    self.refused_until_ns = completion.at_ns + REFUSED_PAUSE_NS;
                }
                self.retry.push_back(job);
            }
            Err(number @ (libc::ENODEV | libc::ENXIO | libc::EBADF | libc::ENOTCONN)) => {
                self.outcome.device_gone = true;
                self.outcome.unreadable(&job, number, completion.at_ns);
            }
            Err(number) => self.failed(job, number, completion.at_ns),
        }
    }

    fn failed(&mut self, job: Job, number: i32, at_ns: u64) {
        self.failures_in_a_row += 1;
        match after_failure(job, self.options.block_bytes) {
            Some([low, high]) => {
                self.outcome.retries += 1;
                self.retry.push_front(high);
                self.retry.push_front(low);
            }
            None => self.outcome.unreadable(&job, number, at_ns),
        }
    }

    /// Submits nothing more; what is under way gets its grace.
    fn drain(&mut self, end: End, done: &mut Vec<Completion>) -> End {
        let until_ns = self.source.now_ns().saturating_add(GRACE_NS);
        while self.in_flight() > 0 && self.source.now_ns() < until_ns {
            if let Err(error) = self.source.wait(Some(until_ns), done) {
                return End::Failed(error);
            }
            for completion in done.drain(..) {
                self.handle(completion);
            }
        }
        end
    }

    fn close(mut self, end: End) -> Outcome {
        let abandoned = self.jobs.iter().flatten().chain(&self.retry).count();
        self.outcome.abandoned = abandoned as u64;
        self.outcome.finish(end, self.source.now_ns(), &self.options.depth);
        self.outcome
    }
}

#[cfg(test)]
mod tests;
