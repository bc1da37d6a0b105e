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

/// Reads of a stage that are over, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Read throughout.
    pub done: u64,
    /// Not read, since an earlier run had done it.
    pub resumed: u64,
    /// Not read, since others had read it.
    pub taken: u64,
    /// Not read, since all of the volume was found warm.
    pub warm: u64,
    /// Failed: parts of it may still be read.
    pub failed: u64,
}

impl Settled {
    /// All of them.
    pub fn reads(&self) -> u64 {
        self.done + self.resumed + self.taken + self.warm + self.failed
    }
}

/// Gives the reads of a plan, in order, and is told when each is done. Whatever iterates over reads is one.
pub trait Feed {
    /// The next read; `in_flight` are under way.
    fn next(&mut self, now_ns: u64, in_flight: u32) -> Next;

    /// Until when nothing at all is to be submitted, not even again or in pieces.
    fn paused_until(&self, _now_ns: u64) -> Option<u64> {
        None
    }

    /// How many are left, where that is known.
    fn left(&self) -> Option<u64> {
        None
    }

    /// The `number`-th read that it gave, from 0 and extra ones among them, was read throughout. Its last part took so long, and ended at this
    /// time of the source.
    fn done(&mut self, _number: u64, _latency_ns: u64, _at_ns: u64) {}

    /// The `number`-th read that it gave failed. One of the plan may still be done, in parts, when the rest is.
    fn failed(&mut self, _number: u64) {}

    /// What is over by now, by index of the stage; of those that have nothing yet the last may be missing.
    fn settled(&self) -> &[Settled] {
        &[]
    }

    /// Whether the last read of a stage was settled since this was asked last: who looks on is told at once.
    fn has_ended_a_stage(&mut self) -> bool {
        false
    }
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
