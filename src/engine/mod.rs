//! The loop: a sliding window of reads over one [`Source`], the same on io_uring, a pool of threads and in
//! virtual time.
//!
//! Holds: never more in flight than the depth allows; a read is done only when all its bytes were read; what
//! could not be read is counted and named, and never stands in the way of what can; a stop or a deadline is obeyed
//! whatever the device does.

mod budget;
mod depth;
mod failed;
mod feed;
mod job;
mod knee;
mod memory;
mod outcome;
mod pace;
mod pread;
mod series;
mod sim;
mod source;
mod uring;
mod verify;

pub use budget::Share;
pub use depth::{Depth, INITIAL as DEPTH_INITIAL, LIMIT as DEPTH_LIMIT, MAX as DEPTH_MAX};
pub use feed::{Feed, Next, Settled};
pub use outcome::{End, Outcome, StageOutcome, UNREADABLE_LISTED_MAX};
pub use pace::Pace;
pub use pread::PreadSource;
pub use series::{Moment, Series};
pub use sim::SimSource;
pub use source::{Completion, Priority, Request, Source};
pub use uring::UringSource;
pub use verify::{Check, Sample, Verdict, verify};

use crate::plan::StagePlan;
use failed::Failed;
use job::{Job, after_short};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// How to run.
#[derive(Debug)]
pub struct Options {
    /// Reads in flight.
    pub depth: Depth,
    /// Limits on operations and bytes.
    pub pace: Pace,
    /// A share of the limits on all volumes together, where there are such.
    pub budget: Option<Share>,
    /// No read is submitted after this, counted from the start of the source's time.
    pub deadline_ns: Option<u64>,
    /// Logical block in bytes: an unreadable range is halved down to this.
    pub block_bytes: u32,
    /// From this stage on, reads are submitted with idle priority.
    pub idle_from_stage: u16,
}

/// After a stop or a deadline, reads under way get this long to end: one first read with a bad tail.
const GRACE_NS: u64 = 1_000_000_000;
/// So many planned reads that failed with no success between them mean that the device is gone, not that blocks are
/// bad: in touch mode, 128 MiB of bad units in a row.
const FAILURES_IN_A_ROW_MAX: u32 = 256;
/// As many as these where the plan ends with them: halving them would be a thousand reads of a device that is gone.
const FAILURES_AT_END_MAX: u32 = 32;
/// How long to hold off where the device takes no read at all.
const REFUSED_PAUSE_NS: u64 = 1_000_000;
/// So often in a row, ten seconds: it will not take any.
const REFUSED_ALONE_MAX: u32 = 10_000;
/// A read that takes this long, and many times the median, stalls: its place is given to another. The longest first
/// reads that are no stall take some hundred milliseconds.
const STALL_NS: u64 = 1_000_000_000;
const STALL_MEDIANS: u64 = 8;

/// Something to look at while it runs.
pub trait Progress {
    /// Called before the first read of a plan.
    fn begin(&mut self, _stages: &[StagePlan]) {}

    /// What is over by now, by index of the stage. Called before each tick.
    fn settled(&mut self, _stages: &[Settled]) {}

    /// Called about ten times a second, when a stage has ended, and at the end.
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

/// Reads everything that `reads` gives, in order, and says what came of it. What it did not take is left in `reads`.
pub fn run<S: Source + ?Sized>(
    source: &mut S,
    mut reads: impl Feed,
    options: Options,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Outcome {
    let started_ns = source.now_ns();
    let slots = options.depth.max();
    let mut engine = Loop {
        outcome: Outcome::new(
            started_ns,
            options.depth.initial(),
            options.block_bytes.max(1),
            source.describe(),
        ),
        jobs: vec![None; slots as usize],
        free: (0..slots).rev().collect(),
        retry: VecDeque::new(),
        failed: Failed::default(),
        halving: false,
        exhausted: false,
        failures_in_a_row: 0,
        refused_until_ns: 0,
        refused_alone: 0,
        stalled: 0,
        given: 0,
        source,
        options,
    };
    let end = engine.run(&mut reads, stop, progress);
    let outcome = engine.close(end);
    progress.settled(reads.settled());
    progress.tick(&outcome, 0, outcome.ended_ns);
    outcome
}

struct Loop<'a, S: Source + ?Sized> {
    source: &'a mut S,
    options: Options,
    outcome: Outcome,
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
    /// To be submitted again as they are.
    retry: VecDeque<Job>,
    failed: Failed,
    /// Whether all was read that can be, and what failed is being halved.
    halving: bool,
    exhausted: bool,
    failures_in_a_row: u32,
    refused_until_ns: u64,
    refused_alone: u32,
    /// Reads in flight that stall.
    stalled: u32,
    /// Reads that the feed gave.
    given: u64,
}

impl<S: Source + ?Sized> Loop<'_, S> {
    fn in_flight(&self) -> u32 {
        (self.jobs.len() - self.free.len()) as u32
    }

    fn run(&mut self, reads: &mut impl Feed, stop: &AtomicBool, progress: &mut dyn Progress) -> End {
        let mut done = Vec::with_capacity(self.jobs.len());
        let mut next_tick_ns = self.source.now_ns() + TICK_NS;
        loop {
            let now_ns = self.source.now_ns();
            if stop.load(Ordering::Relaxed) {
                return self.drain(End::Stopped, &mut done, reads);
            }
            if self.options.deadline_ns.is_some_and(|deadline| now_ns >= deadline) {
                return self.drain(End::Deadline, &mut done, reads);
            }
            if self.failures_in_a_row >= FAILURES_IN_A_ROW_MAX {
                return self.drain(End::DeviceGone, &mut done, reads);
            }
            let wake_ns = match self.fill(reads, now_ns) {
                Ok(wake_ns) => wake_ns,
                Err(error) => return End::Failed(error),
            };
            if self.outcome.device_gone {
                return self.drain(End::DeviceGone, &mut done, reads);
            }
            let nothing_left = self.retry.is_empty() && self.failed.is_empty() && self.exhausted;
            if self.in_flight() == 0 && nothing_left {
                return End::Complete;
            }
            let until_ns =
                [wake_ns, self.options.deadline_ns, Some(next_tick_ns)].into_iter().flatten().min();
            if let Err(error) = self.source.wait(until_ns, &mut done) {
                return End::Failed(error);
            }
            self.handle_all(&mut done, reads);
            if self.refused_alone >= REFUSED_ALONE_MAX {
                return End::Failed(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            let now_ns = self.source.now_ns();
            if now_ns >= next_tick_ns || reads.has_ended_a_stage() {
                progress.settled(reads.settled());
                progress.tick(&self.outcome, self.in_flight(), now_ns);
                self.stalled = self.count_stalled(now_ns);
                next_tick_ns = now_ns + TICK_NS;
            }
        }
    }

    /// Submits what depth, pace and feed allow; says when to come back where one of the latter holds it up.
    fn fill(&mut self, reads: &mut impl Feed, now_ns: u64) -> io::Result<Option<u64>> {
        if self.refused_until_ns > now_ns {
            return Ok(Some(self.refused_until_ns));
        }
        while self.in_flight() < self.options.depth.limit_with(reads.left(), self.stalled) {
            if let Some(until_ns) = self.options.pace.wait_until_ns(now_ns) {
                self.options.depth.on_starved();
                return Ok(Some(until_ns));
            }
            let mut job = match self.next(reads, now_ns) {
                Ok(Some(job)) => job,
                Ok(None) => return Ok(None),
                Err(until_ns) => {
                    self.options.depth.on_starved();
                    return Ok(Some(until_ns));
                }
            };
            let asked = self.options.budget.as_ref().map(|share| share.ask(job.stage, job.bytes, now_ns));
            if let Some(Err(until_ns)) = asked {
                self.retry.push_front(job);
                self.options.depth.on_starved();
                return Ok(Some(until_ns));
            }
            job.submitted_ns = now_ns;
            self.options.pace.take(now_ns, job.bytes);
            self.options.depth.on_submission(now_ns);
            if !job.extra {
                self.outcome.stage(job.stage).started(now_ns);
            }
            let slot = self.free.pop().expect("the depth is at most the number of slots");
            let idle = job.stage >= self.options.idle_from_stage;
            let priority = if idle { Priority::Idle } else { Priority::Normal };
            // Before it is submitted: where that fails, the read is among those that are left.
            self.jobs[slot as usize] = Some(job);
            self.source.submit(Request { slot, offset: job.offset, bytes: job.bytes, priority })?;
        }
        Ok(None)
    }

    fn count_stalled(&self, now_ns: u64) -> u32 {
        let median_ns = self.outcome.latency_us.value_at_quantile(0.5) * 1_000;
        let since_ns = now_ns.saturating_sub(STALL_NS.max(median_ns * STALL_MEDIANS));
        self.jobs.iter().flatten().filter(|job| job.submitted_ns < since_ns).count() as u32
    }

    /// What to read next: what was refused, then the plan, then what failed; or the time at which the plan goes on.
    fn next(&mut self, reads: &mut impl Feed, now_ns: u64) -> Result<Option<Job>, u64> {
        let block_bytes = self.options.block_bytes;
        // A feed that is asked for the plan says so itself: it may have an end to tell.
        let again = !self.retry.is_empty() || self.failed.is_full() || self.exhausted;
        if let Some(until_ns) = reads.paused_until(now_ns).filter(|_| again) {
            return Err(until_ns);
        }
        if let Some(job) = self.retry.pop_front() {
            return Ok(Some(job));
        }
        if self.failed.is_full() {
            let piece = self.failed.next_piece(block_bytes, &mut self.outcome);
            if piece.is_some() || self.failed.is_full() {
                return Ok(piece);
            }
        }
        if !self.exhausted {
            match reads.next(now_ns, self.in_flight()) {
                next @ (Next::Read(read) | Next::Extra(read)) => {
                    self.given += 1;
                    let extra = matches!(next, Next::Extra(_));
                    return Ok(Some(Job { extra, ..Job::from_plan(read, self.given - 1) }));
                }
                Next::NotBefore(until_ns) => return Err(until_ns),
                Next::End => self.exhausted = true,
            }
        }
        Ok(self.next_failed())
    }

    /// A piece of what failed, when all of the plan has ended.
    fn next_failed(&mut self) -> Option<Job> {
        // Whether the device is gone or has bad blocks shows when the last of the plan has ended.
        if !self.halving && self.in_flight() > 0 {
            return None;
        }
        if !self.halving && self.failures_in_a_row >= FAILURES_AT_END_MAX {
            self.outcome.device_gone = true;
            return None;
        }
        self.halving = true;
        self.failed.next_piece(self.options.block_bytes, &mut self.outcome)
    }

    /// Completions that came together; refusals among them say how much the device takes.
    fn handle_all(&mut self, done: &mut Vec<Completion>, reads: &mut impl Feed) {
        let (were_in_flight, mut refused, mut last_ns) = (self.in_flight(), 0, 0);
        for completion in done.drain(..) {
            refused += u32::from(self.handle(completion, reads));
            last_ns = completion.at_ns;
        }
        if refused == 0 {
            return;
        }
        self.options.depth.on_refusals(were_in_flight, refused);
        if self.in_flight() == 0 {
            self.refused_until_ns = last_ns + REFUSED_PAUSE_NS;
            self.refused_alone += 1;
        }
    }

    /// One completion; whether the device refused the read.
    fn handle(&mut self, completion: Completion, reads: &mut impl Feed) -> bool {
        let Some(job) = self.jobs.get_mut(completion.slot as usize).and_then(Option::take) else {
            debug_assert!(false, "a completion for no read");
            return false;
        };
        self.free.push(completion.slot);
        if job.extra {
            return self.handle_extra(job, completion, reads);
        }
        match completion.result {
            Ok(bytes) if bytes >= job.bytes => {
                (self.failures_in_a_row, self.refused_alone) = (0, 0);
                let latency_ns = completion.at_ns.saturating_sub(job.submitted_ns);
                self.options.depth.on_completion(completion.at_ns, latency_ns);
                let whole = job.cut.is_none() || self.failed.piece_done(job, completion.at_ns);
                self.outcome.done(&job, whole, completion.at_ns);
                self.outcome.tell(completion.at_ns, self.options.depth.limit());
                if whole {
                    reads.done(job.number, latency_ns, completion.at_ns);
                }
            }
            Ok(bytes) => match after_short(job, bytes, self.options.block_bytes) {
                Some(left) => {
                    self.outcome.retries += 1;
                    self.outcome.partly_done(&job, job.bytes - left.bytes);
                    self.failed.not_yet(&job, completion.at_ns);
                    self.retry.push_back(left);
                }
                // The end of the device came early: it shrank.
                None => self.fail(job, 0, completion.at_ns, reads),
            },
            Err(libc::EAGAIN | libc::EINTR) => {
                self.outcome.retries += 1;
                self.failed.not_yet(&job, completion.at_ns);
                self.retry.push_back(job);
                return completion.result == Err(libc::EAGAIN);
            }
            Err(number) => {
                let gone = [libc::ENODEV, libc::ENXIO, libc::EBADF, libc::ENOTCONN, libc::ECONNABORTED];
                self.outcome.device_gone |= gone.contains(&number);
                self.fail(job, number, completion.at_ns, reads);
            }
        }
        false
    }

    fn handle_extra(&mut self, job: Job, completion: Completion, reads: &mut impl Feed) -> bool {
        self.outcome.extra_reads += 1;
        match completion.result {
            Ok(bytes) if bytes >= job.bytes => {
                let latency_ns = completion.at_ns.saturating_sub(job.submitted_ns);
                reads.done(job.number, latency_ns, completion.at_ns);
            }
            _ => reads.failed(job.number),
        }
        completion.result == Err(libc::EAGAIN)
    }

    fn fail(&mut self, job: Job, number: i32, at_ns: u64, reads: &mut impl Feed) {
        self.outcome.stage(job.stage).ended_ns = at_ns;
        if job.cut.is_some() {
            let block_bytes = self.options.block_bytes;
            self.failed.piece_failed(job, number, at_ns, block_bytes, &mut self.outcome);
        } else {
            self.failures_in_a_row += 1;
            reads.failed(job.number);
            self.failed.put_off(job, number);
        }
    }

    /// Submits nothing more; what is under way gets its grace.
    fn drain(&mut self, end: End, done: &mut Vec<Completion>, reads: &mut impl Feed) -> End {
        let until_ns = self.source.now_ns().saturating_add(GRACE_NS);
        while self.in_flight() > 0 && self.source.now_ns() < until_ns {
            if let Err(error) = self.source.wait(Some(until_ns), done) {
                return End::Failed(error);
            }
            self.handle_all(done, reads);
        }
        end
    }

    fn close(mut self, end: End) -> Outcome {
        let mut left = self.failed.close(&mut self.outcome);
        left.extend(
            self.jobs.iter().flatten().chain(&self.retry).filter(|job| job.cut.is_none() && !job.extra),
        );
        self.outcome.left = left.into_iter().map(Job::to_plan).collect();
        self.outcome.finish(end, self.source.now_ns(), &self.options.depth);
        self.outcome
    }
}

#[cfg(test)]
mod knee_tests;
#[cfg(test)]
mod tests;
