//! Proof by sample that touched units are warm: a second read elsewhere in the unit must not be a first read.
//!
//! Nothing is assumed of how long a read takes. For each sampled unit the block that was touched is read again,
//! which is warm for certain, and the block of the unit farthest from it, which is cold if the unit of the storage is
//! smaller than was thought. Both are read one at a time.

use super::TICK_NS;
use super::budget::Share;
use super::source::{Completion, Priority, Request, Source};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// A unit to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Offset of the block that was touched, in bytes.
    pub touched: u64,
    /// Offset of the block farthest from it in the same unit.
    pub far: u64,
    /// How long the touch took.
    pub touch_ns: u64,
}

impl Sample {
    /// For a touch at an offset of a volume of so many bytes.
    pub fn new(touched: u64, touch_ns: u64, unit_bytes: u64, volume_bytes: u64, read_bytes: u64) -> Sample {
        let start = touched / unit_bytes * unit_bytes;
        let end = (start + unit_bytes).min(volume_bytes / read_bytes * read_bytes);
        let last = end.saturating_sub(read_bytes).max(start);
        let far = if touched - start >= last.saturating_sub(touched) { start } else { last };
        Sample { touched, far, touch_ns }
    }
}

/// One verified unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was verified.
    pub sample: Sample,
    /// The block that was touched, read again: warm.
    pub again_ns: u64,
    /// The block farthest from it.
    pub far_ns: u64,
}

/// What the checks say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Units verified.
    pub checks: Vec<Check>,
    /// Those whose far block answered like a first read.
    pub failed: u64,
    /// Latency of a warm read, median, nanoseconds; 0 where nothing was verified.
    pub warm_ns: u64,
    /// The fastest: what is far slower than this on a busy machine may still be warm, what is not slower is.
    pub warm_ns_min: u64,
    /// Whether it ended before all samples were read: by a stop, or since a read did not end in time.
    pub unfinished: bool,
}

/// A first read is at least so many times slower than a warm one; below that nothing tells them apart, and
/// nothing needs to: 35 ms against 0.7 ms is 50 times.
const APART: u64 = 6;

impl Verdict {
    /// From checks, each with its two latencies.
    pub fn new(checks: Vec<Check>) -> Verdict {
        let mut again: Vec<u64> = checks.iter().map(|check| check.again_ns).collect();
        again.sort_unstable();
        let warm_ns = again.get(again.len() / 2).copied().unwrap_or(0);
        // A slow device also answers slowly when it is warm: what was read again bounds what counts as cold.
        let slowest_warm = again.get(again.len().saturating_sub(1) * 9 / 10).copied().unwrap_or(0);
        let cold_from_ns = (warm_ns * APART).max(slowest_warm * 2);
        let failed = checks.iter().filter(|check| check.far_ns > cold_from_ns).count() as u64;
        let warm_ns_min = again.first().copied().unwrap_or(0);
        Verdict { checks, failed, warm_ns, warm_ns_min, unfinished: false }
    }

    /// A touch that took no longer than this found its unit warm. Warm reads take longer where they queue or the machine
    /// is busy, so that this is a bound for being certain, not for all of them.
    pub fn surely_warm_ns(&self) -> u64 {
        self.warm_ns_min * APART / 2
    }

    /// Whether the unit was wrong: more checks failed than warm reads do on a busy machine.
    pub fn unit_is_wrong(&self) -> bool {
        self.failed * 4 > self.checks.len() as u64
    }
}

/// Reads each sample twice, one read at a time, each within the budget where there is one. A sample that cannot be read says nothing. A stop, or a read that has
/// not ended at `until_ns`, ends it; the source then has a read under way and is of no more use.
pub fn verify<S: Source + ?Sized>(
    source: &mut S,
    samples: impl IntoIterator<Item = Sample>,
    read_bytes: u32,
    until_ns: Option<u64>,
    budget: Option<&Share>,
    stop: &AtomicBool,
) -> io::Result<Verdict> {
    let mut checks = Vec::new();
    let mut unfinished = false;
    for sample in samples {
        let far = timed(source, sample.far, read_bytes, until_ns, budget, stop)?;
        let again = match far {
            Timed::Left => Timed::Left,
            _ => timed(source, sample.touched, read_bytes, until_ns, budget, stop)?,
        };
        match (far, again) {
            (Timed::Took(far_ns), Timed::Took(again_ns)) => checks.push(Check { sample, again_ns, far_ns }),
            (_, Timed::Left) => {
                unfinished = true;
                break;
            }
            _ => {}
        }
    }
    Ok(Verdict { unfinished, ..Verdict::new(checks) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timed {
    /// Nanoseconds.
    Took(u64),
    Failed,
    /// Not begun, or still under way.
    Left,
}

fn timed<S: Source + ?Sized>(
    source: &mut S,
    offset: u64,
    bytes: u32,
    until_ns: Option<u64>,
    budget: Option<&Share>,
    stop: &AtomicBool,
) -> io::Result<Timed> {
    let mut start_ns = source.now_ns();
    let over = |now_ns| stop.load(Ordering::Relaxed) || until_ns.is_some_and(|until| now_ns >= until);
    let mut done: Vec<Completion> = Vec::new();
    while !over(start_ns) {
        // Nothing is in flight: what is waited for here is no part of what the read takes.
        let Some(Err(back_ns)) = budget.map(|share| share.ask(u16::MAX, bytes, start_ns)) else { break };
        source.wait(Some(back_ns.min(start_ns.saturating_add(TICK_NS))), &mut done)?;
        start_ns = source.now_ns();
    }
    if over(start_ns) {
        return Ok(Timed::Left);
    }
    source.submit(Request { slot: 0, offset, bytes, priority: Priority::Normal })?;
    loop {
        // A stop that comes just before the wait is seen a tick later.
        let tick_ns = source.now_ns().saturating_add(TICK_NS);
        source.wait(Some(until_ns.map_or(tick_ns, |until| until.min(tick_ns))), &mut done)?;
        if let Some(end) = done.pop() {
            let took = Timed::Took(end.at_ns.saturating_sub(start_ns));
            return Ok(if end.result == Ok(bytes) { took } else { Timed::Failed });
        }
        if over(source.now_ns()) {
            return Ok(Timed::Left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::{ColdVolume, Model};
    use crate::engine::SimSource;
    use crate::extent::ExtentSet;

    static GO: AtomicBool = AtomicBool::new(false);

    #[test]
    fn the_far_block_lies_in_the_same_unit_and_volume() {
        let far = |touched| Sample::new(touched, 0, 512 << 10, 1 << 20, 4096).far;
        assert_eq!(far(0), (512 << 10) - 4096);
        assert_eq!(far((512 << 10) - 4096), 0);
        assert_eq!(far(600 << 10), (1 << 20) - 4096);
        assert_eq!(Sample::new(512 << 10, 0, 512 << 10, 516 << 10, 4096).far, 512 << 10);
    }

    /// Touches one block per 512 KiB on a volume of the model, then verifies 16 of them.
    fn verdict(model: &str) -> Verdict {
        let model = Model::named(model).unwrap();
        let volume = ColdVolume::new(model, 1 << 20, 3, ExtentSet::new());
        let mut source = SimSource::new(volume, 1);
        let mut samples = Vec::new();
        for unit in 0..16u64 {
            let touched = unit * (512 << 10) + 8192;
            let Timed::Took(touch_ns) = timed(&mut source, touched, 4096, None, None, &GO).unwrap() else {
                panic!()
            };
            samples.push(Sample::new(touched, touch_ns, 512 << 10, 512 << 20, 4096));
        }
        verify(&mut source, samples, 4096, None, None, &GO).unwrap()
    }

    #[test]
    fn a_wrong_unit_is_noticed_and_a_right_one_is_not_doubted() {
        for model in ["gp3", "io2", "slow", "scarce", "coarse"] {
            let verdict = verdict(model);
            assert_eq!((verdict.checks.len(), verdict.failed), (16, 0), "{model}");
        }
        let fine = verdict("fine");
        assert_eq!(fine.failed, 16);
        assert!(fine.unit_is_wrong());
    }

    /// 8 samples of a gp3 volume with a fault.
    fn faulty(key: &str, value: &str) -> (SimSource, Vec<Sample>) {
        let mut model = Model::named("gp3").unwrap();
        model.set(key, value).unwrap();
        let source = SimSource::new(ColdVolume::new(model, 1 << 20, 3, ExtentSet::new()), 1);
        let samples = (0..8u64).map(|unit| Sample::new(unit * (512 << 10), 0, 512 << 10, 512 << 20, 4096));
        (source, samples.collect())
    }

    #[test]
    fn a_sample_that_cannot_be_read_says_nothing() {
        let (mut source, samples) = faulty("eio_units", "2, 5");
        let verdict = verify(&mut source, samples, 4096, None, None, &GO).unwrap();
        assert_eq!((verdict.checks.len(), verdict.unfinished), (6, false));
    }

    #[test]
    fn a_stall_ends_it_and_no_later_read_is_taken_for_the_stalled_one() {
        let (mut source, samples) = faulty("stall_fetch", "3");
        let verdict = verify(&mut source, samples, 4096, Some(3_000_000_000), None, &GO).unwrap();
        assert_eq!((verdict.checks.len(), verdict.unfinished), (3, true));
        assert_eq!(source.now_ns(), 3_000_000_000);
        assert_eq!(source.volume().touched().len(), 4, "nothing is read after the stall");
    }

    #[test]
    fn a_stop_is_obeyed() {
        let (mut source, samples) = faulty("stall_fetch", "0");
        let verdict = verify(&mut source, samples, 4096, None, None, &AtomicBool::new(true)).unwrap();
        assert_eq!((verdict.checks.len(), verdict.unfinished), (0, true));
        assert_eq!(source.volume().counters().fetches, 0);
    }
}
