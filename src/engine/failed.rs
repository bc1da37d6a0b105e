//! Reads that failed: put off until everything else was read, then halved down to the blocks that are bad. Pure.
//!
//! Holds: a bad range never stands in the way of good ones; a planned read counts as done when all its pieces were
//! read; each block of a failed read is read, counted as unreadable, or named as left; the work is bounded.
//!
//! Pieces are read one at a time: the kernel merges neighbours that it gets together into one request, and then a good
//! block fails with the bad one beside it.

use super::job::{Job, after_failure};
use super::outcome::Outcome;
use crate::units::NS_PER_S;
use std::collections::{HashMap, VecDeque};

/// Failed reads that are remembered, 64 bytes each; beyond that the oldest are halved before the plan goes on.
const WAITING_MAX: usize = 4096;
/// Reads that are spent on finding bad blocks. Halving one unit of 512 KiB down to sectors takes 2,000; a device may
/// take seconds to give up on each. What fails after so many is counted as unreadable as a whole.
const PIECES_MAX: u32 = 16_384;
/// And so long: a device that takes seconds for each of them is not asked to the end.
const SEARCH_NS_MAX: u64 = 10 * NS_PER_S;

/// A planned read that was cut into pieces.
#[derive(Debug)]
struct Cut {
    whole: Job,
    pieces_left: u32,
    bad: bool,
}

/// Reads that failed.
#[derive(Debug, Default)]
pub struct Failed {
    waiting: VecDeque<(Job, i32)>,
    pieces: Vec<Job>,
    cuts: HashMap<u64, Cut>,
    cuts_made: u64,
    pieces_made: u32,
    /// Whether a piece was given out and is not read yet.
    is_reading: bool,
    spent_ns: u64,
}

impl Failed {
    /// A read failed as a whole: it waits.
    pub fn put_off(&mut self, job: Job, number: i32) {
        self.waiting.push_back((job, number));
    }

    /// Whether so much waits that it has to be worked on now.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Whether nothing waits and no piece is to be read.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.pieces.is_empty()
    }

    /// The next piece to read, when none is being read.
    pub fn next_piece(&mut self, block_bytes: u32, outcome: &mut Outcome) -> Option<Job> {
        if self.is_reading {
            return None;
        }
        while self.pieces.is_empty() {
            let (job, number) = self.waiting.pop_front()?;
            // Past the end of a device that shrank there are no good blocks.
            let halves = if number == 0 { None } else { self.halves(job, block_bytes) };
            match halves {
                Some([low, high]) => {
                    let cut = Some(self.cuts_made);
                    self.cuts.insert(self.cuts_made, Cut { whole: job, pieces_left: 2, bad: false });
                    self.cuts_made += 1;
                    self.pieces.extend([Job { cut, ..high }, Job { cut, ..low }]);
                    outcome.retries += 1;
                }
                None => outcome.unreadable(job, number),
            }
        }
        self.is_reading = true;
        self.pieces.pop()
    }

    fn halves(&mut self, job: Job, block_bytes: u32) -> Option<[Job; 2]> {
        let goes_on = self.pieces_made < PIECES_MAX && self.spent_ns < SEARCH_NS_MAX;
        let halves = goes_on.then(|| after_failure(job, block_bytes)).flatten();
        self.pieces_made += if halves.is_some() { 2 } else { 0 };
        halves
    }

    /// What it has waited for before it was submitted, as in a pause, is no part of the search.
    fn was_read(&mut self, job: Job, at_ns: u64) {
        self.is_reading = false;
        self.spent_ns += at_ns.saturating_sub(job.submitted_ns);
    }

    /// A read is to be submitted again, in part or as it was.
    pub fn not_yet(&mut self, job: &Job, at_ns: u64) {
        if job.cut.is_some() {
            self.spent_ns += at_ns.saturating_sub(job.submitted_ns);
        }
    }

    /// A piece failed: it is halved again, or bad.
    pub fn piece_failed(
        &mut self,
        job: Job,
        number: i32,
        at_ns: u64,
        block_bytes: u32,
        outcome: &mut Outcome,
    ) {
        self.was_read(job, at_ns);
        let halves = self.halves(job, block_bytes);
        let Some(cut) = job.cut.and_then(|cut| self.cuts.get_mut(&cut)) else { return };
        match halves {
            Some([low, high]) => {
                cut.pieces_left += 1;
                self.pieces.extend([high, low]);
                outcome.retries += 1;
            }
            None => {
                cut.bad = true;
                outcome.unreadable(job, number);
                self.one_less(job);
            }
        }
    }

    /// A piece was read; whether all of its planned read was read by that.
    pub fn piece_done(&mut self, job: Job, at_ns: u64) -> bool {
        self.was_read(job, at_ns);
        self.one_less(job)
    }

    fn one_less(&mut self, job: Job) -> bool {
        let Some(number) = job.cut else { return false };
        let Some(cut) = self.cuts.get_mut(&number) else { return false };
        cut.pieces_left -= 1;
        let (ended, bad) = (cut.pieces_left == 0, cut.bad);
        if ended {
            self.cuts.remove(&number);
        }
        ended && !bad
    }

    /// Nothing more is read: what waits is unreadable, what was cut and not yet read throughout is left.
    pub fn close(&mut self, outcome: &mut Outcome) -> Vec<Job> {
        self.waiting.drain(..).for_each(|(job, number)| outcome.unreadable(job, number));
        self.pieces.clear();
        let mut left: Vec<Job> = self.cuts.drain().map(|(_, cut)| cut.whole).collect();
        left.sort_by_key(|job| job.offset);
        left
    }
}
