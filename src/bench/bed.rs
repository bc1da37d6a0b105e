//! What a bench stands on: reads of our own through a source, and what only a machine has.

use crate::device::{Traffic, nvme};
use crate::engine::Source;
use crate::error::{Error, Result};
use crate::plan::PlannedRead;
use hdrhistogram::Histogram;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

/// What others count, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// All that passed through the disk.
    pub traffic: Option<Traffic>,
    /// What EBS says.
    pub ebs: Option<nvme::Statistics>,
    /// Processor seconds of this process and of those that it has waited for.
    pub cpu_s: Option<f64>,
}

/// What a run of reads by another engine gave.
#[derive(Debug)]
pub struct OtherReads {
    pub latency_us: Histogram<u64>,
    /// Nanoseconds since the start at which each read ended well, in that order.
    pub done_ns: Vec<u64>,
    /// These reads, in that order.
    pub done: Vec<PlannedRead>,
    pub errors: u64,
    /// Reads that were not waited for.
    pub left: u64,
    pub elapsed_ns: u64,
}

/// What a foreign command did.
#[derive(Clone, Debug)]
pub struct Ran {
    pub elapsed_ns: u64,
    /// Why it does not count.
    pub error: Option<String>,
}

/// A volume to measure.
pub trait Bed {
    /// What carries reads of our own.
    fn source(&mut self) -> &mut dyn Source;

    /// What others count by now.
    fn look(&mut self) -> Look {
        Look::default()
    }

    /// Reads through tokio-uring, so many in flight and for so many nanoseconds.
    fn tokio_uring(
        &mut self,
        _reads: Vec<PlannedRead>,
        _depth: u32,
        _for_ns: u64,
        _stop: &AtomicBool,
    ) -> Result<OtherReads> {
        Err(Error::failed("failed to read with tokio-uring: there is no device"))
    }

    /// Runs a foreign command on a range of bytes.
    fn command(&mut self, _line: &str, _part: &Range<u64>, _stop: &AtomicBool) -> Result<Ran> {
        Err(Error::failed("failed to run a command: there is no device"))
    }
}
