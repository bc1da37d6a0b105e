//! A source that remembers when what was read, and that no stalled read can block.
//!
//! Holds: a read that has stalled is told as timed out, once; whenever it ends after all, or after its share of the
//! measurement is over, nobody hears of it, and its slot is free again. So one source serves a whole bench, whatever
//! stalls in it. A read that only waits its turn has not stalled, however long that takes.

use crate::engine::{Completion, Request, Source};
use std::io;

/// A read that takes longer has stalled, if nothing else ends either, or much that began later has: tails of first
/// reads are 1 to 7 s (FAST'26), and a bench has other things to measure.
pub const STALL_NS: u64 = 10_000_000_000;
/// It is not looked for more often.
const LOOK_NS: u64 = 50_000_000;
/// What was in flight when a measurement was cut short ends in this time, or has stalled.
const SETTLE_NS: u64 = 2 * STALL_NS;
/// Much: so many times all that was in flight when it began.
const ROUNDS: u64 = 3;

/// A read that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When, on the source's clock.
    pub at_ns: u64,
    /// Its length.
    pub bytes: u32,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Free,
    Busy(Busy),
    /// Given up; it may still end.
    Lost,
    /// Its share of the measurement is over; it will soon end.
    Late,
}

/// A read in flight.
#[derive(Clone, Copy, Debug)]
struct Busy {
    /// The request's own slot.
    own: u32,
    bytes: u32,
    submitted_ns: u64,
    /// When so many have ended since the meter was made, it was overtaken.
    overtaken_at: u64,
}

/// Remembers reads, over one source.
#[derive(Debug)]
pub struct Meter {
    slots: Vec<Slot>,
    free: Vec<u32>,
    done: Vec<Done>,
    /// Reads that ended since it was made, and when the last one did.
    ended: u64,
    ended_ns: u64,
    stalled: u64,
    /// Before this nothing can have stalled.
    look_ns: u64,
    refused: Vec<u32>,
}

impl Meter {
    /// For a source with so many slots: as many reads may be in flight or have stalled.
    pub fn new(slots: u32) -> Meter {
        Meter {
            slots: vec![Slot::Free; slots as usize],
            free: (0..slots).rev().collect(),
            done: Vec::new(),
            ended: 0,
            ended_ns: 0,
            stalled: 0,
            look_ns: u64::MAX,
            refused: Vec::new(),
        }
    }

    /// Begins anew: what is still under way is given up.
    pub fn begin(&mut self) {
        for slot in &mut self.slots {
            if matches!(slot, Slot::Busy(..)) {
                *slot = Slot::Late;
            }
        }
        self.done.clear();
        self.stalled = 0;
        self.look_ns = u64::MAX;
        self.refused.clear();
    }

    /// Reads that ended well since it began, in order of time.
    pub fn done(&self) -> &[Done] {
        &self.done
    }

    /// Reads that did not end in time since it began.
    pub fn stalled(&self) -> u64 {
        self.stalled
    }

    /// Waits for what is late, so that it is not in the way of what comes next. What does not end is given up.
    pub fn settle(&mut self, source: &mut dyn Source) -> io::Result<()> {
        let until_ns = source.now_ns().saturating_add(SETTLE_NS);
        let mut ended = Vec::new();
        while source.now_ns() < until_ns && self.slots.iter().any(|slot| matches!(slot, Slot::Late)) {
            source.wait(Some(until_ns), &mut ended)?;
            let mut over = Metered { meter: self, source };
            for completion in ended.drain(..) {
                over.ended(completion);
            }
        }
        let late = self.slots.iter_mut().filter(|slot| matches!(slot, Slot::Late));
        late.for_each(|slot| *slot = Slot::Lost);
        Ok(())
    }

    fn busy(&self) -> impl Iterator<Item = &Busy> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Busy(busy) => Some(busy),
            _ => None,
        })
    }

    /// The source, with the meter on it.
    pub fn over<'a>(&'a mut self, source: &'a mut dyn Source) -> Metered<'a> {
        Metered { meter: self, source }
    }
}

/// A source with a meter on it.
pub struct Metered<'a> {
    meter: &'a mut Meter,
    source: &'a mut dyn Source,
}

impl Source for Metered<'_> {
    fn now_ns(&self) -> u64 {
        self.source.now_ns()
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        let Some(slot) = self.meter.free.pop() else {
            // Stalled reads have all slots.
            self.meter.refused.push(request.slot);
            return Ok(());
        };
        let submitted_ns = self.source.now_ns();
        self.meter.look_ns = self.meter.look_ns.min(submitted_ns.saturating_add(STALL_NS));
        let in_flight = (self.meter.slots.len() - self.meter.free.len()) as u64;
        self.meter.slots[slot as usize] = Slot::Busy(Busy {
            own: request.slot,
            bytes: request.bytes,
            submitted_ns,
            overtaken_at: self.meter.ended + ROUNDS * in_flight,
        });
        self.source.submit(Request { slot, ..request })
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        let now_ns = self.source.now_ns();
        if !self.meter.refused.is_empty() {
            let refused = self.meter.refused.drain(..);
            done.extend(refused.map(|slot| Completion { slot, at_ns: now_ns, result: Err(libc::EAGAIN) }));
            return Ok(());
        }
        let mut ended = Vec::new();
        let until_ns = until_ns.map_or(self.meter.look_ns, |until_ns| until_ns.min(self.meter.look_ns));
        self.source.wait((until_ns < u64::MAX).then_some(until_ns), &mut ended)?;
        for completion in ended {
            done.extend(self.ended(completion));
        }
        let now_ns = self.source.now_ns();
        if now_ns >= self.meter.look_ns {
            self.give_up(now_ns, done);
            // What nothing overtakes stalls when nothing ends.
            let next = |busy: &Busy| busy.submitted_ns.max(self.meter.ended_ns).saturating_add(STALL_NS);
            let next_ns = self.meter.busy().map(next).min();
            self.meter.look_ns = next_ns.map_or(u64::MAX, |ns| ns.max(now_ns + LOOK_NS));
        }
        Ok(())
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}

impl Metered<'_> {
    fn ended(&mut self, completion: Completion) -> Option<Completion> {
        let slot = self.meter.slots.get_mut(completion.slot as usize)?;
        let was = std::mem::replace(slot, Slot::Free);
        if !matches!(was, Slot::Free) {
            self.meter.free.push(completion.slot);
        }
        let Slot::Busy(busy) = was else { return None };
        (self.meter.ended, self.meter.ended_ns) = (self.meter.ended + 1, completion.at_ns);
        if completion.result == Ok(busy.bytes) {
            self.meter.done.push(Done { at_ns: completion.at_ns, bytes: busy.bytes });
        }
        Some(Completion { slot: busy.own, ..completion })
    }

    fn give_up(&mut self, now_ns: u64, done: &mut Vec<Completion>) {
        let (ended, ended_ns) = (self.meter.ended, self.meter.ended_ns);
        let nothing_ends = now_ns >= ended_ns.saturating_add(STALL_NS);
        for slot in &mut self.meter.slots {
            if let Slot::Busy(busy) = *slot
                && now_ns >= busy.submitted_ns.saturating_add(STALL_NS)
                && (nothing_ends || ended >= busy.overtaken_at)
            {
                *slot = Slot::Lost;
                self.meter.stalled += 1;
                done.push(Completion { slot: busy.own, at_ns: now_ns, result: Err(libc::ETIMEDOUT) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::{ColdVolume, Model};
    use crate::engine::{Priority, SimSource};
    use crate::extent::ExtentSet;

    fn request(slot: u32, unit: u64) -> Request {
        Request { slot, offset: unit << 19, bytes: 4096, priority: Priority::Normal }
    }

    #[test]
    fn a_stalled_read_is_given_up_and_its_end_is_nobodys() {
        let mut model = Model::named("gp3").unwrap();
        model.set("stall_fetch", "1").unwrap();
        let mut source = SimSource::new(ColdVolume::new(model, 1 << 20, 3, ExtentSet::new()), 3);
        let mut meter = Meter::new(3);
        meter.begin();
        let mut over = meter.over(&mut source);
        for slot in [7, 8, 9] {
            over.submit(request(slot, u64::from(slot))).unwrap();
        }
        over.submit(request(10, 10)).unwrap();
        let mut done = Vec::new();
        over.wait(None, &mut done).unwrap();
        assert_eq!((done[0].slot, done[0].result), (10, Err(libc::EAGAIN)), "there was no room");
        done.clear();
        // Ten seconds after the last that ended.
        while done.len() < 3 {
            over.wait(None, &mut done).unwrap();
        }
        assert!((STALL_NS..STALL_NS + 1_000_000_000).contains(&over.now_ns()));
        done.sort_by_key(|completion| completion.at_ns);
        let ends: Vec<_> = done.iter().map(|completion| (completion.slot, completion.result)).collect();
        let late = *ends.last().unwrap();
        assert_eq!((ends.len(), late), (3, (8, Err(libc::ETIMEDOUT))));
        assert_eq!((meter.done().len(), meter.stalled()), (2, 1));
        // Its slot is not given out before it ends, and its end is not taken for that of another read.
        meter.begin();
        done.clear();
        let mut over = meter.over(&mut source);
        over.submit(request(8, 20)).unwrap();
        while over.now_ns() < 60_100_000_000 {
            let until_ns = over.now_ns() + 1_000_000_000;
            over.wait(Some(until_ns), &mut done).unwrap();
        }
        assert_eq!((done.len(), done[0].slot, done[0].result), (1, 8, Ok(4096)));
        assert_eq!((meter.done().len(), meter.free.len()), (1, 3));
    }

    #[test]
    fn what_is_late_is_waited_for_before_anything_else_begins() {
        let mut source = SimSource::new(
            ColdVolume::new(Model::named("scarce").unwrap(), 1 << 20, 3, ExtentSet::new()),
            99,
        );
        let mut meter = Meter::new(99);
        meter.begin();
        for slot in 0..99 {
            meter.over(&mut source).submit(request(slot, u64::from(slot))).unwrap();
        }
        meter.begin();
        assert!(meter.free.is_empty());
        meter.settle(&mut source).unwrap();
        assert_eq!((meter.free.len(), meter.done().len()), (99, 0));
        // 99 units at 19 a second.
        assert!((5_000_000_000..6_000_000_000).contains(&source.now_ns()), "{}", source.now_ns());
    }

    #[test]
    fn a_read_that_waits_its_turn_has_not_stalled_and_one_that_is_overtaken_has() {
        for (stall, stalled) in [("1000000", 0), ("20", 1)] {
            let mut model = Model::named("scarce").unwrap();
            model.set("stall_fetch", stall).unwrap();
            let mut source = SimSource::new(ColdVolume::new(model, 1 << 22, 3, ExtentSet::new()), 400);
            let mut meter = Meter::new(400);
            meter.begin();
            // 19 units a second: each of 300 waits for 16 s.
            let mut over = meter.over(&mut source);
            let (mut next, mut done) = (0, Vec::new());
            while next < 1500 {
                while next - (done.len() as u64) < 300 && next < 1500 {
                    over.submit(request((next % 400) as u32, next)).unwrap();
                    next += 1;
                }
                over.wait(None, &mut done).unwrap();
            }
            assert_eq!(meter.stalled(), stalled);
        }
    }
}
