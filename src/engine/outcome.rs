//! What came of a run: counts, latencies, and every way in which something did not go as planned.

use super::depth::Depth;
use super::job::Job;
use super::series::{Moment, Series};
use crate::extent::Extent;
use crate::plan::PlannedRead;
use hdrhistogram::Histogram;
use std::io;

/// Unreadable extents that are named; all are counted.
pub const UNREADABLE_LISTED_MAX: usize = 64;
/// Latencies are kept from a microsecond to ten minutes, with three digits.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Touches kept for the sample that is verified: every n-th, so that they are spread over the run.
const SAMPLES_MAX: usize = 64;

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// All reads were done, or counted as unreadable.
    Complete,
    /// It was asked to stop.
    Stopped,
    /// The deadline passed.
    Deadline,
    /// The device answers nothing but errors.
    DeviceGone,
    /// The source itself failed.
    Failed(io::Error),
}

/// What came of one stage.
#[derive(Clone, Debug, Default)]
pub struct StageOutcome {
    /// Reads that were planned and done.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks that could not be read.
    pub errors: u64,
    /// When its first read was submitted.
    pub started_ns: Option<u64>,
    /// When its last read ended.
    pub ended_ns: u64,
}

impl StageOutcome {
    /// A read of it is submitted.
    pub fn started(&mut self, now_ns: u64) {
        self.started_ns.get_or_insert(now_ns);
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What carried the reads.
    pub source: String,
    /// By index of the stage.
    pub stages: Vec<StageOutcome>,
    /// Bytes read in all.
    pub bytes_read: u64,
    /// Reads that were no part of the plan.
    pub extra_reads: u64,
    /// Reads that were submitted again: refused, short, or cut in two.
    pub retries: u64,
    /// Blocks that could not be read.
    pub errors: u64,
    /// The first of them, joined where they touch, with the error number (0: past the end).
    pub unreadable: Vec<(Extent, i32)>,
    /// Reads under way or due to be repeated when it ended.
    pub left: Vec<PlannedRead>,
    /// Whether an error said so.
    pub device_gone: bool,
    /// From submission to completion, microseconds.
    pub latency_us: Histogram<u64>,
    /// A sample of reads done: offset and latency in nanoseconds.
    pub samples: Vec<(u64, u64)>,
    /// How it went over time.
    pub series: Series,
    sample_every: u64,
    block_bytes: u32,
    /// When it began, on the source's clock.
    pub started_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// Depth at the start, at most and at the end.
    pub depth: (u32, u32, u32),
}

impl Outcome {
    /// Nothing done yet.
    pub fn new(started_ns: u64, depth: u32, block_bytes: u32, source: String) -> Outcome {
        Outcome {
            end: End::Complete,
            source,
            stages: Vec::new(),
            bytes_read: 0,
            extra_reads: 0,
            retries: 0,
            errors: 0,
            unreadable: Vec::new(),
            left: Vec::new(),
            device_gone: false,
            latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are sound"),
            samples: Vec::with_capacity(SAMPLES_MAX),
            series: Series::new(started_ns, depth),
            sample_every: 1,
            block_bytes,
            started_ns,
            ended_ns: started_ns,
            depth: (depth, depth, depth),
        }
    }

    /// The stage with an index.
    pub fn stage(&mut self, index: u16) -> &mut StageOutcome {
        let index = usize::from(index);
        if self.stages.len() <= index {
            self.stages.resize_with(index + 1, StageOutcome::default);
        }
        &mut self.stages[index]
    }

    /// Planned reads done so far.
    pub fn reads(&self) -> u64 {
        self.stages.iter().map(|stage| stage.reads).sum()
    }

    /// Nanoseconds from start to end.
    pub fn elapsed_ns(&self) -> u64 {
        self.ended_ns - self.started_ns
    }

    /// A read ended well; `whole` where a planned read is done by that.
    pub(super) fn done(&mut self, job: &Job, whole: bool, at_ns: u64) {
        let latency_ns = at_ns.saturating_sub(job.submitted_ns);
        self.latency_us.saturating_record(latency_ns / 1_000);
        self.partly_done(job, job.bytes);
        let stage = self.stage(job.stage);
        stage.reads += u64::from(whole);
        stage.ended_ns = at_ns;
        if !job.part {
            self.sample(job.offset, latency_ns);
        }
    }

    /// What is done by now, with so many reads that may be in flight.
    pub(super) fn tell(&mut self, at_ns: u64, depth: u32) {
        let moment = Moment { at_ns, reads: self.reads(), bytes: self.bytes_read, depth };
        self.series.tell(moment);
    }

    /// So much of a read was read.
    pub(super) fn partly_done(&mut self, job: &Job, bytes: u32) {
        self.bytes_read += u64::from(bytes);
        self.stage(job.stage).bytes += u64::from(bytes);
    }

    /// Keeps every n-th read; n doubles when the sample is full.
    fn sample(&mut self, offset: u64, latency_ns: u64) {
        if !self.reads().is_multiple_of(self.sample_every) {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.sample_every *= 2;
        }
        self.samples.push((offset, latency_ns));
    }

    /// All blocks of a read are given up.
    pub(super) fn unreadable(&mut self, job: Job, number: i32) {
        let blocks = u64::from((job.bytes / self.block_bytes).max(1));
        self.errors += blocks;
        self.stage(job.stage).errors += blocks;
        let Some(mut extent) = job.extent() else { return };
        // Blocks of one bad range come one by one: named as one range, more of them fit the list.
        while let Some(at) = self.unreadable.iter().position(|(known, error)| {
            *error == number && (known.end() == extent.start() || extent.end() == known.start())
        }) {
            let (known, _) = self.unreadable.swap_remove(at);
            let (start, end) = (known.start().min(extent.start()), known.end().max(extent.end()));
            extent = Extent::new(start, end).unwrap_or(extent);
        }
        if self.unreadable.len() < UNREADABLE_LISTED_MAX {
            self.unreadable.push((extent, number));
        }
    }

    pub(super) fn finish(&mut self, end: End, now_ns: u64, depth: &Depth) {
        self.end = end;
        self.unreadable.sort_unstable();
        self.ended_ns =
            self.stages.iter().map(|stage| stage.ended_ns).max().unwrap_or(0).max(self.started_ns);
        if !matches!(self.end, End::Complete) {
            self.ended_ns = now_ns;
        }
        self.depth = (depth.initial(), depth.largest(), depth.limit());
    }
}
