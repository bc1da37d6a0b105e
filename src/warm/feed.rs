//! The reads of a plan, given to the engine in order: less what is done already, what the boot has read by itself, and
//! what stands back for the boot's own reads.
//!
//! Holds: a planned read is given out once; what is skipped is counted; nothing here waits. Not here: what any of it
//! is decided by ([`super::gate`], [`super::warmth`], [`super::journal`]).

use super::gate::{Gate, Look};
use super::journal::Journal;
use super::warmth::{Ask, SPREAD, Verdict, Warmth};
use crate::engine::{Feed, Next, Settled};
use crate::extent::Extent;
use crate::plan::{Mode, Plan, PlannedRead};
use crossbeam_channel::Receiver;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

/// How soon a feed that is paused, or waits for answers, is asked again.
const PAUSE_NS: u64 = 20_000_000;
/// How long answers about warmth are waited for, all in all.
const WAIT_NS_MAX: u64 = 1_000_000_000;

/// What may be said to a warming that runs.
#[derive(Debug, Default)]
pub struct Control {
    /// Nothing more is given out for as long as it is set.
    pub pause: AtomicBool,
}

/// When a read of the plan was submitted, and when it ended, on the source's clock.
pub type Times = Vec<Option<(u64, u64)>>;

/// What was left out, and how long it was held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Reads that an earlier run had done.
    pub resumed: u64,
    /// Reads whose unit the boot read first.
    pub taken: u64,
    /// For how long others' requests held back what nobody waits for, nanoseconds.
    pub held_back_ns: u64,
    /// Whether the volume was found warm, and all else was left out.
    pub warm: bool,
    /// How long a read takes that is warm for certain, where that was found out.
    pub warm_ns: Option<u64>,
}

/// What the surroundings tell a feed.
pub struct Surroundings<'a> {
    /// A look at the disk; `None` where there is no disk to look at, and nothing stands back.
    pub look: Option<Box<dyn FnMut() -> Option<Look> + 'a>>,
    /// Extents that the boot has read by itself.
    pub seen: Option<Receiver<Extent>>,
    /// Orders.
    pub control: &'a Control,
    /// Bytes of one request: a longer read counts as several.
    pub request_bytes: u64,
    /// Reads of the plan that are given out at most.
    pub reads_max: u64,
    /// How long a read takes that is warm for certain, where that is known.
    pub warm_ns: Option<u64>,
    /// Whether there is something to warm for certain: an image is not hydrated by anyone.
    pub is_cold: bool,
}

/// Why a read was given out.
enum Work {
    /// The number of the planned read.
    Planned(u64, PlannedRead),
    /// Known to be warm.
    Again,
    /// All over the plan, and no part of it.
    Spread,
    /// Planned, and failed: it may be read in parts, after the rest.
    PutOff(u64, PlannedRead),
}

/// The reads of a plan.
pub struct WarmFeed<'a> {
    plan: &'a Plan,
    reads: Box<dyn Iterator<Item = PlannedRead> + 'a>,
    /// Number of the next read of the plan.
    next: u64,
    total: u64,
    /// Reads that were given out, and of these those of the plan.
    given: u64,
    planned: u64,
    under_way: HashMap<u64, Work>,
    journal: &'a mut Journal,
    warmth: Warmth,
    /// Reads all over the plan, to be given before others.
    spread: Vec<PlannedRead>,
    spread_again: bool,
    /// Units of which they were.
    looked_into: BTreeSet<u64>,
    /// When answers about warmth were waited for first.
    waits_since_ns: Option<u64>,
    /// Read by the boot, one bit a unit.
    seen_units: Vec<u64>,
    surroundings: Surroundings<'a>,
    gate: Gate,
    own_requests: u64,
    own_in_flight: u64,
    /// Index of the first stage that stands back.
    stands_back_from: u16,
    skipped: Skipped,
    /// By index of the stage.
    settled: Vec<Settled>,
    stage_ended: bool,
    /// By number of the read, where they are wanted.
    times: Option<Times>,
}

impl<'a> WarmFeed<'a> {
    /// Of a plan whose stages from an index on stand back.
    pub fn new(
        plan: &'a Plan,
        journal: &'a mut Journal,
        surroundings: Surroundings<'a>,
        stands_back_from: u16,
    ) -> WarmFeed<'a> {
        let units = plan.shape().sectors.div_ceil(plan.unit_sectors());
        let total = plan.totals().reads;
        // Where the first reads are done by an earlier run, it has been found out that the volume is cold.
        let known = surroundings.is_cold || journal.done() > 0 || plan.shape().mode == Mode::Full;
        WarmFeed {
            plan,
            reads: Box::new(plan.reads()),
            next: 0,
            total,
            given: 0,
            planned: 0,
            under_way: HashMap::new(),
            journal,
            warmth: if known { Warmth::known_cold() } else { Warmth::new(surroundings.warm_ns) },
            spread: Vec::new(),
            spread_again: false,
            looked_into: BTreeSet::new(),
            waits_since_ns: None,
            seen_units: vec![0; units.div_ceil(64) as usize],
            surroundings,
            gate: Gate::default(),
            own_requests: 0,
            own_in_flight: 0,
            stands_back_from,
            skipped: Skipped::default(),
            settled: vec![Settled::default(); plan.stages().len()],
            stage_ended: false,
            times: None,
        }
    }

    /// Keeps the time of each read of the plan.
    pub fn keep_times(&mut self) {
        self.times = Some(vec![None; self.total as usize]);
    }

    /// The times that were kept.
    pub fn times(&mut self) -> Option<Times> {
        self.times.take()
    }

    fn time(&mut self, number: u64, latency_ns: u64, at_ns: u64) {
        let place = self.times.as_mut().and_then(|times| times.get_mut(number as usize));
        place.into_iter().for_each(|place| *place = Some((at_ns.saturating_sub(latency_ns), at_ns)));
    }

    /// What was left out.
    pub fn skipped(&self) -> Skipped {
        Skipped {
            held_back_ns: self.gate.closed_ns,
            warm: self.warmth.verdict() == Verdict::Warm,
            warm_ns: self.warmth.warm_ns(),
            ..self.skipped
        }
    }

    /// Units of which another block was read than the plan has.
    pub fn looked_into(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.looked_into)
    }

    /// The planned reads that were not given out and are not done.
    pub fn left_over(self) -> impl Iterator<Item = PlannedRead> {
        let WarmFeed { reads, journal, next, seen_units, plan, .. } = self;
        let unit_sectors = plan.unit_sectors();
        let is_left = move |(number, read): &(u64, PlannedRead)| {
            !journal.is_done(*number) && !bit(&seen_units, read.start / unit_sectors)
        };
        (next..).zip(reads).filter(is_left).map(|(_, read)| read)
    }

    fn give(&mut self, read: PlannedRead, work: Work) -> Next {
        let extra = matches!(work, Work::Again | Work::Spread);
        self.under_way.insert(self.given, work);
        self.given += 1;
        self.own_in_flight += self.requests_of(read);
        if extra { Next::Extra(read) } else { Next::Read(read) }
    }

    /// Its requests are no longer in the disk.
    fn ended(&mut self, work: &Work) {
        let requests = match work {
            Work::Planned(_, read) => self.requests_of(*read),
            Work::Again | Work::Spread => 1,
            // Counted when it failed; its parts are few.
            Work::PutOff(..) => 0,
        };
        self.own_requests += requests;
        self.own_in_flight = self.own_in_flight.saturating_sub(requests);
    }

    fn requests_of(&self, read: PlannedRead) -> u64 {
        u64::from(read.bytes()).div_ceil(self.surroundings.request_bytes.max(1))
    }

    /// What the boot has read since it was asked last.
    fn take_seen(&mut self) {
        let Some(seen) = &self.surroundings.seen else { return };
        let unit_sectors = self.plan.unit_sectors();
        for unit in seen.try_iter().flat_map(|extent| extent.units(unit_sectors)) {
            set(&mut self.seen_units, unit);
        }
    }

    /// The next read of the plan that is still to be done.
    fn next_planned(&mut self) -> Option<(u64, PlannedRead)> {
        let touches = self.plan.shape().mode == Mode::Touch;
        loop {
            let (number, read) = (self.next, Iterator::next(&mut self.reads)?);
            self.next += 1;
            if self.journal.is_done(number) {
                self.skipped.resumed += 1;
                self.settle(read, |settled| settled.resumed += 1);
            } else if touches && bit(&self.seen_units, read.start / self.plan.unit_sectors()) {
                self.skipped.taken += 1;
                self.journal.set(number);
                self.settle(read, |settled| settled.taken += 1);
            } else {
                return Some((number, read));
            }
        }
    }

    /// A read of the plan is over in some way.
    fn settle(&mut self, read: PlannedRead, count: impl FnOnce(&mut Settled)) {
        let stage = usize::from(read.stage);
        let Some(settled) = self.settled.get_mut(stage) else { return };
        let before = settled.reads();
        count(settled);
        let after = settled.reads();
        let planned = self.plan.stages().get(stage).map_or(u64::MAX, |stage| stage.reads);
        self.stage_ended |= after != before && after >= planned;
    }

    /// Nothing of the plan is left to be done but what is under way: the volume is warm.
    fn settle_warm(&mut self) {
        for (index, (settled, stage)) in self.settled.iter_mut().zip(self.plan.stages()).enumerate() {
            let is_its =
                |work: &&Work| matches!(work, Work::Planned(_, read) if usize::from(read.stage) == index);
            let under_way = self.under_way.values().filter(is_its).count() as u64;
            let left = stage.reads.saturating_sub(settled.reads() + under_way);
            settled.warm += left;
            self.stage_ended |= left > 0;
        }
    }

    /// Reads at even distances in all that is left of the plan; of each unit another block than the plan has, so that a
    /// volume that was touched with too large a unit does not look warm.
    fn spread_out(&mut self) {
        let left = self.total.saturating_sub(self.next);
        let step = (left / SPREAD as u64).max(1);
        // The second time others than the first time.
        let skipped = self.next + if self.spread_again { step / 2 } else { 0 };
        self.spread_again = true;
        let open = (skipped..).zip(self.plan.reads().skip(skipped as usize));
        let open = open.filter(|(number, _)| !self.journal.is_done(*number));
        self.spread = open.step_by(step as usize).take(SPREAD).map(|(_, read)| self.far(read)).collect();
        self.warmth.spreading(self.spread.len());
    }

    /// Nothing new until what was asked is answered; but a stall is not waited for: that volume has something to warm.
    fn wait_for_answers(&mut self, now_ns: u64, in_flight: u32) -> Next {
        let since_ns = *self.waits_since_ns.get_or_insert(now_ns);
        if now_ns - since_ns < WAIT_NS_MAX {
            return Next::NotBefore(now_ns + PAUSE_NS);
        }
        self.warmth.give_up();
        self.next_of(now_ns, in_flight)
    }

    /// The same unit half a unit on, where there is such a place.
    fn far(&self, read: PlannedRead) -> PlannedRead {
        let unit_sectors = self.plan.unit_sectors();
        let first = read.start / unit_sectors * unit_sectors;
        let start = first + (read.start - first + unit_sectors / 2) % unit_sectors;
        let end = start + u64::from(read.sectors);
        let fits = start.is_multiple_of(u64::from(read.sectors)) && end <= self.plan.shape().sectors;
        PlannedRead { start: if fits { start } else { read.start }, ..read }
    }

    /// When what stands back may go on; `None` for now.
    fn held_back(&mut self, now_ns: u64, in_flight: u32, stage: Option<u16>) -> Option<u64> {
        let look = self.surroundings.look.as_mut()?;
        let stands_back = stage.is_some_and(|stage| stage >= self.stands_back_from);
        if self.gate.is_due(now_ns)
            && let Some(look) = look()
        {
            self.gate.look(now_ns, look, self.own_requests, self.own_in_flight, stands_back);
        }
        if stands_back { self.gate.not_before(now_ns, in_flight) } else { None }
    }

    /// The stage of the next read of the plan, without taking it; `None` at its end.
    fn stage_ahead(&self) -> Option<u16> {
        let mut reads = 0;
        let stage = self.plan.stages().iter().position(|stage| {
            reads += stage.reads;
            self.next < reads
        });
        stage.map(|stage| stage as u16)
    }

    fn paused_until(&self, now_ns: u64) -> Option<u64> {
        self.surroundings.control.pause.load(Ordering::Relaxed).then(|| now_ns + PAUSE_NS)
    }

    fn next_of(&mut self, now_ns: u64, in_flight: u32) -> Next {
        self.take_seen();
        if self.warmth.verdict() == Verdict::Warm {
            self.settle_warm();
            return Next::End;
        }
        if let Some(until_ns) = self.paused_until(now_ns) {
            return Next::NotBefore(until_ns);
        }
        match self.warmth.ask(in_flight) {
            Ask::Again(read) => return self.give(read, Work::Again),
            Ask::Wait => return self.wait_for_answers(now_ns, in_flight),
            Ask::SpreadOut => {
                self.spread_out();
                return self.next_of(now_ns, in_flight);
            }
            Ask::Spread => {
                return match self.spread.pop() {
                    Some(read) => {
                        self.looked_into.insert(read.start / self.plan.unit_sectors());
                        self.give(read, Work::Spread)
                    }
                    None => self.wait_for_answers(now_ns, in_flight),
                };
            }
            Ask::Plan => {}
        }
        if let Some(until_ns) = self.held_back(now_ns, in_flight, self.stage_ahead()) {
            return Next::NotBefore(until_ns);
        }
        if self.planned >= self.surroundings.reads_max {
            return Next::End;
        }
        match self.next_planned() {
            Some((number, read)) => {
                self.planned += 1;
                self.gate.given(now_ns);
                self.give(read, Work::Planned(number, read))
            }
            None => Next::End,
        }
    }
}

impl Feed for &mut WarmFeed<'_> {
    fn next(&mut self, now_ns: u64, in_flight: u32) -> Next {
        self.next_of(now_ns, in_flight)
    }

    fn paused_until(&self, now_ns: u64) -> Option<u64> {
        WarmFeed::paused_until(self, now_ns)
    }

    fn left(&self) -> Option<u64> {
        Some(self.total - self.next)
    }

    fn done(&mut self, number: u64, latency_ns: u64, at_ns: u64) {
        let Some(work) = self.under_way.remove(&number) else { return };
        self.ended(&work);
        self.gate.ended(at_ns, self.under_way.len());
        match work {
            Work::Again => self.warmth.on_again(Some(latency_ns)),
            Work::Planned(planned, read) => {
                self.journal.set(planned);
                self.time(planned, latency_ns, at_ns);
                self.warmth.on_first(read, latency_ns);
                self.settle(read, |settled| settled.done += 1);
            }
            Work::Spread => self.warmth.on_spread(Some(latency_ns)),
            Work::PutOff(planned, read) => {
                self.journal.set(planned);
                self.time(planned, latency_ns, at_ns);
                self.settle(read, |settled| {
                    settled.failed -= 1;
                    settled.done += 1;
                });
            }
        }
    }

    fn failed(&mut self, number: u64) {
        let Some(work) = self.under_way.remove(&number) else { return };
        self.ended(&work);
        let (planned, read) = match work {
            Work::Again => return self.warmth.on_again(None),
            Work::Spread => return self.warmth.on_spread(None),
            // What is put off is told to have failed once.
            Work::PutOff(planned, read) => {
                self.under_way.insert(number, Work::PutOff(planned, read));
                return;
            }
            Work::Planned(planned, read) => (planned, read),
        };
        self.under_way.insert(number, Work::PutOff(planned, read));
        self.settle(read, |settled| settled.failed += 1);
    }

    fn settled(&self) -> &[Settled] {
        &self.settled
    }

    fn has_ended_a_stage(&mut self) -> bool {
        std::mem::take(&mut self.stage_ended)
    }
}

fn bit(bits: &[u64], number: u64) -> bool {
    bits.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
}

fn set(bits: &mut [u64], number: u64) {
    if let Some(word) = bits.get_mut((number / 64) as usize) {
        *word |= 1 << (number % 64);
    }
}

#[cfg(test)]
#[path = "foreground_tests.rs"]
mod foreground_tests;
#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
