//! Where the loop gets its reads from.

use crate::plan::PlannedRead;

/// What a feed has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A read.
    Read(PlannedRead),
    /// A read that is no part of the plan, to measure something: it is counted apart, and not repeated where it fails.
    Extra(PlannedRead),
    /// None now: ask again at this time, or when a read has ended.
    NotBefore(u64),
    /// No more.
    End,
}

/// Gives the reads of a plan, in order, and is told when each is done. Whatever iterates over reads is one.
pub trait Feed {
    /// The next read; `in_flight` are under way.
    fn next(&mut self, now_ns: u64, in_flight: u32) -> Next;

    /// How many are left, where that is known.
    fn left(&self) -> Option<u64> {
        None
    }

    /// The `number`-th read that it gave, from 0 and extra ones among them, was read throughout. Its last part took so long, and ended at this
    /// time of the source.
    fn done(&mut self, _number: u64, _latency_ns: u64, _at_ns: u64) {}

    /// The `number`-th read that it gave failed. One of the plan may still be done, in parts, when the rest is.
    fn failed(&mut self, _number: u64) {}
}

impl<I: Iterator<Item = PlannedRead>> Feed for I {
    fn next(&mut self, _: u64, _: u32) -> Next {
        Iterator::next(self).map_or(Next::End, Next::Read)
    }

    fn left(&self) -> Option<u64> {
        let (least, most) = self.size_hint();
        most.filter(|most| *most == least).map(|most| most as u64)
    }
}
