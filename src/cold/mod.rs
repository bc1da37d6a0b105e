//! The law of a cold volume: what a read costs, as a pure state machine in nanoseconds.
//!
//! Two carriers obey it: the engine's simulated source in virtual time, and the emulator's FUSE file in real
//! time. Holds: the same seed, model and calls give the same answers; a unit is fetched once however many reads
//! wait for it; time never runs backwards. Not here: clocks, threads, data.
//!
//! A read passes three gates. The volume's limits (IOPS, throughput) admit it, one after the other. Its cold
//! units are fetched: at most `fetches` at once, each with its lognormal latency, then through one pipe of the
//! hydration rate in the order in which they become ready. Last, it is answered: a read of warm units after the
//! warm latency, a read that waited for fetches when the last one is there.

mod draw;
mod model;

pub use model::{Faults, IO_BYTES_MAX, Model};

use crate::extent::{Extent, ExtentSet};
use crate::units::{NS_PER_S, SECTOR_BYTES};
use draw::{For, lognormal, uniform};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// What an operation does to the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads, and hydrates what it touches.
    Read,
    /// Writes: a unit that is written whole needs no fetch, one that is written in part is fetched first.
    Write,
}

/// The answer to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The caller's number for it.
    pub id: u64,
    /// When it is answered.
    pub at_ns: u64,
    /// Whether it failed with EIO.
    pub failed: bool,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads answered, failed ones among them.
    pub reads: u64,
    /// Bytes they asked for.
    pub bytes_read: u64,
    /// Writes answered.
    pub writes: u64,
    /// Reads that waited for a fetch.
    pub cold_reads: u64,
    /// Fetches begun.
    pub fetches: u64,
    /// Units hydrated by a fetch.
    pub hydrated: u64,
    /// Operations that failed with EIO.
    pub errors: u64,
}

/// The first touch of a unit that was cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Number of the unit.
    pub unit: u64,
    /// When its first operation was admitted.
    pub at_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Cold,
    Fetching,
    Warm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Admit(u64),
    Ready(u64),
    Transferred(u64),
    Answer(u64),
}

#[derive(Clone, Debug)]
struct Pending {
    id: u64,
    op: Op,
    extent: Extent,
    admitted_ns: u64,
    /// Next unit to look at.
    cursor: u64,
    /// Fetches it waits for.
    waiting: u32,
    waited: bool,
    failed: bool,
}

/// A cold volume.
#[derive(Clone, Debug)]
pub struct ColdVolume {
    model: Model,
    seed: u64,
    sectors: u64,
    unallocated: ExtentSet,
    states: Vec<State>,
    /// Units that are in `touched`; one that fails with EIO is cold again, yet its first touch was the first.
    seen: Vec<bool>,
    now_ns: u64,
    iops_free_ns: u64,
    throughput_free_ns: u64,
    /// Units that are ready, in the order in which they go through the pipe; the first is on its way.
    pipe: VecDeque<u64>,
    fetching: u32,
    queue: VecDeque<u64>,
    waiters: HashMap<u64, Vec<u64>>,
    pending: HashMap<u64, Pending>,
    next_pending: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_event: u64,
    counters: Counters,
    touched: Vec<Touch>,
}

impl ColdVolume {
    /// A volume of `sectors`, cold but for `unallocated`, which the snapshot does not hold.
    pub fn new(model: Model, sectors: u64, seed: u64, unallocated: ExtentSet) -> Self {
        let mut volume = ColdVolume {
            model,
            seed,
            sectors,
            unallocated,
            states: Vec::new(),
            seen: Vec::new(),
            now_ns: 0,
            iops_free_ns: 0,
            throughput_free_ns: 0,
            pipe: VecDeque::new(),
            fetching: 0,
            queue: VecDeque::new(),
            waiters: HashMap::new(),
            pending: HashMap::new(),
            next_pending: 0,
            events: BinaryHeap::new(),
            next_event: 0,
            counters: Counters::default(),
            touched: Vec::new(),
        };
        volume.reset();
        volume
    }

    /// Makes it cold again and forgets what it counted. Operations in flight are still answered.
    pub fn reset(&mut self) {
        let unit_sectors = self.model.unit_sectors();
        let units = self.sectors.div_ceil(unit_sectors);
        let faults = &self.model.faults;
        self.states = (0..units)
            .map(|unit| {
                let held = !Extent::at(unit * unit_sectors, unit_sectors)
                    .is_some_and(|extent| self.unallocated.covers(extent));
                let drawn = uniform(self.seed, For::Unallocated, unit) < faults.unallocated_share
                    || uniform(self.seed, For::Warm, unit) < faults.warm_share;
                if held && !drawn { State::Cold } else { State::Warm }
            })
            .collect();
        // A fetch under way ends in a warm unit, and whoever waits for it is answered.
        for &unit in self.waiters.keys() {
            self.states[unit as usize] = State::Fetching;
        }
        self.seen = vec![false; self.states.len()];
        self.counters = Counters::default();
        self.touched.clear();
    }

    /// The model it obeys.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Changes the hydration rate from now on, in bytes a second; 0 is no limit.
    pub fn set_hydration(&mut self, bytes_per_s: u64) {
        self.model.hydration_bytes_per_s = bytes_per_s;
    }

    /// Size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The units that were cold, each once, in order of their first touch: the ground truth.
    pub fn touched(&self) -> &[Touch] {
        &self.touched
    }

    /// Units that are still cold or being fetched.
    pub fn cold_units(&self) -> u64 {
        self.states.iter().filter(|state| **state != State::Warm).count() as u64
    }

    /// Whether a unit is warm.
    pub fn is_warm(&self, unit: u64) -> bool {
        self.states.get(unit as usize).is_none_or(|state| *state == State::Warm)
    }

    /// Takes an operation at a time; it is answered by [`ColdVolume::pop_due`]. Sectors past the end are warm.
    pub fn submit(&mut self, now_ns: u64, id: u64, op: Op, extent: Extent) {
        self.run_until(now_ns);
        let ios = extent.bytes().div_ceil(IO_BYTES_MAX);
        let admitted_ns = self.now_ns.max(self.iops_free_ns).max(self.throughput_free_ns);
        self.iops_free_ns = admitted_ns + cost_ns(ios, self.model.iops);
        self.throughput_free_ns = admitted_ns + cost_ns(extent.bytes(), self.model.throughput_bytes_per_s);
        let slot = self.next_pending;
        self.next_pending += 1;
        let cursor = extent.units(self.model.unit_sectors()).start;
        let pending =
            Pending { id, op, extent, admitted_ns, cursor, waiting: 0, waited: false, failed: false };
        self.pending.insert(slot, pending);
        self.at(admitted_ns, Event::Admit(slot));
    }

    /// When something happens next; `None` when nothing is under way.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at_ns, ..))| *at_ns)
    }

    /// Lets time pass up to `now_ns` and gives one answer that is due by then.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<Answer> {
        loop {
            let Reverse((at_ns, ..)) = self.events.peek()?;
            if *at_ns > now_ns {
                return None;
            }
            let answer = self.step();
            if answer.is_some() {
                return answer;
            }
        }
    }

    /// Events before `now_ns` happen first, but answers stay for `pop_due`.
    fn run_until(&mut self, now_ns: u64) {
        let mut answers = Vec::new();
        while let Some(Reverse((at_ns, number, event))) = self.events.peek().copied() {
            if at_ns > now_ns {
                break;
            }
            if matches!(event, Event::Answer(_)) {
                self.events.pop();
                answers.push(Reverse((at_ns, number, event)));
            } else {
                self.step();
            }
        }
        self.events.extend(answers);
        self.now_ns = self.now_ns.max(now_ns);
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.events.push(Reverse((at_ns, self.next_event, event)));
        self.next_event += 1;
    }

    fn step(&mut self) -> Option<Answer> {
        let Reverse((at_ns, _, event)) = self.events.pop()?;
        self.now_ns = self.now_ns.max(at_ns);
        match event {
            Event::Admit(slot) => self.advance(slot, at_ns),
            Event::Ready(unit) => {
                self.pipe.push_back(unit);
                if self.pipe.len() == 1 {
                    self.at(at_ns + self.transfer_ns(at_ns), Event::Transferred(unit));
                }
            }
            Event::Transferred(unit) => {
                self.pipe.pop_front();
                if let Some(next) = self.pipe.front().copied() {
                    self.at(at_ns + self.transfer_ns(at_ns), Event::Transferred(next));
                }
                self.transferred(unit, at_ns);
            }
            Event::Answer(slot) => return self.answer(slot, at_ns),
        }
        None
    }

    /// Moves an operation on: to its next cold unit, or to its answer.
    fn advance(&mut self, slot: u64, now_ns: u64) {
        let unit_sectors = self.model.unit_sectors();
        let Some(mut pending) = self.pending.remove(&slot) else { return };
        let units = pending.extent.units(unit_sectors);
        while pending.cursor < units.end && !pending.failed {
            let unit = pending.cursor;
            pending.cursor += 1;
            let whole = Extent::at(unit * unit_sectors, unit_sectors);
            let overwritten = pending.op == Op::Write && whole.is_some_and(|w| pending.extent.contains(w));
            if overwritten {
                self.overwrite(unit);
                continue;
            }
            if self.is_warm(unit) {
                continue;
            }
            self.demand(unit, now_ns);
            self.waiters.entry(unit).or_default().push(slot);
            pending.waiting += 1;
            pending.waited = true;
            if !self.model.span_parallel {
                break;
            }
        }
        if pending.waiting == 0 {
            let at_ns = if pending.waited {
                now_ns.max(pending.admitted_ns + self.model.warm_ns)
            } else {
                let kinds = (For::WarmLatency, For::WarmRadius);
                let warm = lognormal(self.seed, kinds, slot, self.model.warm_ns, self.model.warm_sigma);
                now_ns.max(pending.admitted_ns + warm)
            };
            self.at(at_ns, Event::Answer(slot));
        }
        self.pending.insert(slot, pending);
    }

    fn overwrite(&mut self, unit: u64) {
        if let Some(state) = self.states.get_mut(unit as usize)
            && *state == State::Cold
        {
            *state = State::Warm;
        }
    }

    fn demand(&mut self, unit: u64, now_ns: u64) {
        if self.states[unit as usize] == State::Cold {
            self.states[unit as usize] = State::Fetching;
            if !std::mem::replace(&mut self.seen[unit as usize], true) {
                self.touched.push(Touch { unit, at_ns: now_ns });
            }
            self.queue.push_back(unit);
            self.start_fetches(now_ns);
        }
    }

    fn start_fetches(&mut self, now_ns: u64) {
        while self.fetching < self.model.fetches.max(1) {
            let Some(unit) = self.queue.pop_front() else { return };
            self.fetching += 1;
            let latency_ns = self.fetch_ns(unit);
            self.counters.fetches += 1;
            // The latency is that of an idle volume, so it holds the unit's own transfer.
            let ready_ns = now_ns + latency_ns.saturating_sub(self.transfer_ns(now_ns));
            self.at(ready_ns, Event::Ready(unit));
        }
    }

    fn fetch_ns(&self, unit: u64) -> u64 {
        let faults = &self.model.faults;
        if faults.stall_fetch == Some(self.counters.fetches) {
            return faults.stall_ns;
        }
        if uniform(self.seed, For::Tail, unit) < faults.tail_share {
            let (low, high) = faults.tail_ns;
            return low + ((high - low) as f64 * uniform(self.seed, For::TailLatency, unit)) as u64;
        }
        let kinds = (For::Latency, For::Radius);
        lognormal(self.seed, kinds, unit, self.model.first_read_ns, self.model.sigma)
    }

    fn transfer_ns(&self, now_ns: u64) -> u64 {
        let faults = &self.model.faults;
        let factor = faults.vary.map_or(1.0, |(low, high)| {
            let period = now_ns / faults.vary_period_ns.max(1);
            low + (high - low) * uniform(self.seed, For::Rate, period)
        });
        (cost_ns(self.model.unit_bytes, self.model.hydration_bytes_per_s) as f64 / factor) as u64
    }

    fn transferred(&mut self, unit: u64, now_ns: u64) {
        self.fetching -= 1;
        let failed = self.model.faults.eio_units.contains(&unit);
        self.states[unit as usize] = if failed { State::Cold } else { State::Warm };
        self.counters.hydrated += u64::from(!failed);
        self.start_fetches(now_ns);
        for slot in self.waiters.remove(&unit).unwrap_or_default() {
            if let Some(pending) = self.pending.get_mut(&slot) {
                pending.waiting -= 1;
                pending.failed |= failed;
                if pending.waiting == 0 {
                    self.advance(slot, now_ns);
                }
            }
        }
    }

    fn answer(&mut self, slot: u64, at_ns: u64) -> Option<Answer> {
        let pending = self.pending.remove(&slot)?;
        let bad_sectors = &self.model.faults.eio_sectors;
        let failed = pending.failed || (pending.op == Op::Read && bad_sectors.overlaps(pending.extent));
        match pending.op {
            Op::Read => {
                self.counters.reads += 1;
                self.counters.bytes_read += pending.extent.bytes();
                self.counters.cold_reads += u64::from(pending.waited);
            }
            Op::Write => self.counters.writes += 1,
        }
        self.counters.errors += u64::from(failed);
        Some(Answer { id: pending.id, at_ns, failed })
    }
}

/// Nanoseconds that `amount` takes at `rate` a second; 0 where there is no limit.
fn cost_ns(amount: u64, rate: u64) -> u64 {
    if rate == 0 {
        return 0;
    }
    (u128::from(amount) * u128::from(NS_PER_S) / u128::from(rate)) as u64
}

/// Sectors of a volume of so many bytes; a last part of a sector does not count.
pub fn sectors_of(bytes: u64) -> u64 {
    bytes / SECTOR_BYTES
}

#[cfg(test)]
mod tests;
