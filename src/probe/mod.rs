//! In a few reads: how much of a volume is cold, what is its unit, and what does a touch cost.
//!
//! A block is read, then a neighbour, then the block again, each pair on a place of its own. What repeated reads took
//! shows what is warm; whether the neighbour of a cold block was cold as well shows where units end. The next distance
//! is the one that tells most of what is still open, and when nothing is, the probe ends.
//!
//! Holds: it reads no more than it may, in reads, bytes and time; what is not certain is not named, and why not is
//! said. Not here: devices, what the answer is used for.

mod chance;
mod draw;
mod full;
mod latency;
mod places;
mod unit;
mod words;

pub use draw::Draw;
pub use latency::Kinds;
pub use places::{Lie, Place, Places};
pub use unit::{BLOCK_BYTES, UNIT_BYTES_MAX};

use crate::engine::{Completion, Priority, Request, Source};
use crate::extent::ExtentSet;
use crate::units::NS_PER_S;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use unit::{Belief, Noise, Pair};

/// Reads in flight: enough to end in two seconds on a volume with 35 ms, few enough that first reads do not queue up
/// at 140 MB/s.
pub const DEPTH: u32 = 4;
/// Longest read: what the largest I/O of the volume is.
pub const READ_BYTES_MAX: u32 = crate::plan::READ_BYTES_MAX as u32;
/// First reads that make the interval of the cold share worth having: 64 of 64 leave 94 to 100 %.
const FIRST_MIN: usize = 64;
/// Repeated reads after which it is known what is warm.
const WARM_MIN: usize = 24;
/// And after which it is known how seldom a warm read is slow: none of 100 leaves 4 % at the most.
const WARM_ENOUGH: usize = 100;
/// One pair in so many is at a distance drawn at random: what was believed early is doubted until the end.
const RANDOM_IN: u64 = 8;
/// Places lie in different units of any size likelier than this; the second where there is no room otherwise.
const UNLIKELY: [f64; 2] = [1e-4, 0.02];
/// Failures in a row that mean that nothing can be read here.
const FAILURES_MAX: u32 = 16;
/// Reads under way when all is known get so long.
const GRACE_NS: u64 = NS_PER_S / 2;
/// A stop is seen at least so often.
const TICK_NS: u64 = NS_PER_S / 10;
/// So often may reads be refused for want of room, at a millisecond each: ten seconds.
const REFUSED_MAX: u32 = 10_000;
const REFUSED_PAUSE_NS: u64 = 1_000_000;

/// How far it may go, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the volume.
    pub volume_bytes: u64,
    /// What may be read: that of which it is known that it was written. `None`: all of the volume.
    pub allowed: Option<ExtentSet>,
    /// Reads at the most.
    pub reads_max: u64,
    /// Bytes at the most.
    pub bytes_max: u64,
    /// Nanoseconds at the most.
    pub for_ns: u64,
    /// The largest unit that is looked for, a power of two up to [`UNIT_BYTES_MAX`].
    pub unit_bytes_max: u64,
    /// Draws the places.
    pub seed: u64,
}

impl Options {
    /// For a volume of so many bytes, with the limits that `probe` has by itself.
    pub fn new(volume_bytes: u64) -> Options {
        Options {
            volume_bytes,
            allowed: None,
            reads_max: 1024,
            bytes_max: 16 << 20,
            for_ns: 30 * NS_PER_S,
            unit_bytes_max: UNIT_BYTES_MAX,
            seed: 1,
        }
    }
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that was asked is known.
    Known,
    /// The reads, the bytes or the time it may take are spent.
    Spent,
    /// There is no fresh place left.
    NoPlace,
    /// It was asked to stop.
    Stopped,
    /// Nothing but errors.
    Unreadable,
}

/// A pair that was read.
#[derive(Clone, Copy, Debug)]
struct Measured {
    place: Place,
    distance: u64,
    first_ns: u64,
    neighbour_ns: u64,
}

/// All latencies that were seen, in nanoseconds and in order of time.
#[derive(Clone, Debug, Default)]
struct Seen {
    first: Vec<u64>,
    again: Vec<u64>,
    pairs: Vec<Measured>,
    /// Units that were cold and were touched, or read whole, with nothing else in flight.
    touch: Vec<u64>,
    full: Vec<u64>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Why it ended.
    pub end: End,
    /// How reads were told apart.
    pub kinds: Kinds,
    /// Reads that ended well.
    pub reads: u64,
    /// Bytes they read.
    pub bytes_read: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Reads that were not waited for.
    pub abandoned: u64,
    /// From the first read to the end.
    pub elapsed_ns: u64,
    /// Sectors of which something may have been hydrated.
    pub places: ExtentSet,
    seen: Seen,
    belief: Belief,
    unit_bytes_max: u64,
}

/// Looks. An error means that the source itself failed.
pub fn run<S: Source + ?Sized>(source: &mut S, options: &Options, stop: &AtomicBool) -> io::Result<Found> {
    let places = Places::new(options.volume_bytes, options.allowed.as_ref());
    let unit_bytes_max = largest_unit(places.bytes(), options.unit_bytes_max);
    let mut distances: VecDeque<u64> = VecDeque::new();
    let mut distance = unit_bytes_max;
    while distance >= BLOCK_BYTES {
        distances.push_back(distance);
        distance /= 2;
    }
    let started_ns = source.now_ns();
    let mut probe = Probe {
        source,
        stop,
        started_ns,
        until_ns: started_ns.saturating_add(options.for_ns),
        options,
        unit_bytes_max,
        places,
        draw: Draw(options.seed),
        distances,
        slots: [None; DEPTH as usize],
        unsettled: Vec::new(),
        seen: Seen::default(),
        kinds: Kinds::AllWarm { cut_ns: u64::MAX },
        belief: Belief::new(&[], Noise::default(), unit_bytes_max),
        started: 0,
        reads: 0,
        bytes_read: 0,
        errors: 0,
        failures_in_a_row: 0,
        refused: 0,
    };
    let end = probe.pairs()?;
    if end == End::Known {
        probe.alone()?;
    }
    Ok(probe.close(end))
}

/// The largest unit for which half of what may be read has room for as many places as there are distances, so that
/// small volumes are looked at as well.
fn largest_unit(bytes: u64, asked: u64) -> u64 {
    let mut unit = asked.clamp(BLOCK_BYTES, UNIT_BYTES_MAX);
    while unit > BLOCK_BYTES && unit * 2 * 32 > bytes {
        unit /= 2;
    }
    unit
}

#[derive(Clone, Copy, Debug)]
enum Step {
    First,
    Neighbour,
    Again,
}

/// A pair on its way.
#[derive(Clone, Copy, Debug)]
struct Trial {
    place: Place,
    distance: u64,
    step: Step,
    submitted_ns: u64,
    first_ns: u64,
    /// `None` where it was not read.
    neighbour_ns: Option<u64>,
}

struct Probe<'a, S: Source + ?Sized> {
    source: &'a mut S,
    options: &'a Options,
    stop: &'a AtomicBool,
    started_ns: u64,
    until_ns: u64,
    unit_bytes_max: u64,
    places: Places,
    draw: Draw,
    /// To be tried first, each once.
    distances: VecDeque<u64>,
    slots: [Option<Trial>; DEPTH as usize],
    /// Places that were read, with the slowest read at each, until it is known whether that was cold.
    unsettled: Vec<(Place, u64)>,
    seen: Seen,
    kinds: Kinds,
    belief: Belief,
    started: u64,
    reads: u64,
    bytes_read: u64,
    errors: u64,
    failures_in_a_row: u32,
    refused: u32,
}

impl<S: Source + ?Sized> Probe<'_, S> {
    fn in_flight(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Reads pairs until all is known, or no more may be read.
    fn pairs(&mut self) -> io::Result<End> {
        let mut done = Vec::new();
        let mut grace_ns = None;
        loop {
            let now_ns = self.source.now_ns();
            if self.stop.load(Ordering::Relaxed) {
                return Ok(End::Stopped);
            }
            if self.failures_in_a_row >= FAILURES_MAX {
                return Ok(End::Unreadable);
            }
            let end = match self.fill(now_ns)? {
                None => None,
                Some(end) if self.in_flight() == 0 => return Ok(end),
                Some(end) => Some(end),
            };
            if now_ns >= self.until_ns {
                return Ok(if self.is_known() { End::Known } else { End::Spent });
            }
            if let Some(end) = end
                && now_ns >= *grace_ns.get_or_insert(now_ns.saturating_add(GRACE_NS))
            {
                return Ok(end);
            }
            let tick_ns = now_ns.saturating_add(TICK_NS).min(self.until_ns);
            self.source.wait(Some(tick_ns), &mut done)?;
            for completion in done.drain(..) {
                self.handle(completion)?;
            }
        }
    }

    /// Begins pairs while there is room; why not, where nothing more is to be begun.
    fn fill(&mut self, now_ns: u64) -> io::Result<Option<End>> {
        while let Some(slot) = self.slots.iter().position(Option::is_none) {
            if self.is_known() {
                return Ok(Some(End::Known));
            }
            // Three reads each, those under way counted whole.
            let under_way = 3 * (self.in_flight() as u64 + 1);
            let bytes_after = self.bytes_read + under_way * BLOCK_BYTES;
            if self.reads + under_way > self.options.reads_max || bytes_after > self.options.bytes_max {
                return Ok(Some(End::Spent));
            }
            let Some(trial) = self.next(now_ns) else { return Ok(Some(End::NoPlace)) };
            self.started += 1;
            self.submit(slot, trial, trial.place.first)?;
        }
        Ok(None)
    }

    /// The pair that tells most, where there is a place for one.
    fn next(&mut self, now_ns: u64) -> Option<Trial> {
        let lie = [Lie::Somewhere, Lie::Near, Lie::Far][self.draw.below(3) as usize];
        let distance = match self.distances.pop_front() {
            Some(distance) => distance,
            None if self.draw.below(RANDOM_IN) == 0 => {
                let steps = u64::from((self.unit_bytes_max / BLOCK_BYTES).ilog2()) + 1;
                BLOCK_BYTES << self.draw.below(steps)
            }
            None => self.belief.distance_to_try(),
        };
        // Where what may be read is small or scattered, any distance is better than none.
        let others = std::iter::successors(Some(BLOCK_BYTES), |distance| Some(distance * 2))
            .take_while(|distance| *distance <= self.unit_bytes_max);
        let all = std::iter::once(distance).chain(others);
        let (place, distance) = UNLIKELY.iter().find_map(|unlikely| {
            let apart = self.belief.possible_bytes_max(*unlikely);
            all.clone().find_map(|distance| {
                self.places.pair(distance, apart, lie, &mut self.draw).map(|place| (place, distance))
            })
        })?;
        let step = Step::First;
        Some(Trial { place, distance, step, submitted_ns: now_ns, first_ns: 0, neighbour_ns: None })
    }

    fn submit(&mut self, slot: usize, trial: Trial, offset: u64) -> io::Result<()> {
        let submitted_ns = self.source.now_ns();
        self.slots[slot] = Some(Trial { submitted_ns, ..trial });
        let bytes = BLOCK_BYTES as u32;
        self.source.submit(Request { slot: slot as u32, offset, bytes, priority: Priority::Normal })
    }

    fn handle(&mut self, completion: Completion) -> io::Result<()> {
        let slot = completion.slot as usize;
        let Some(trial) = self.slots.get_mut(slot).and_then(Option::take) else { return Ok(()) };
        match completion.result {
            Ok(bytes) if u64::from(bytes) >= BLOCK_BYTES => {
                self.reads += 1;
                self.bytes_read += BLOCK_BYTES;
                self.failures_in_a_row = 0;
                let took_ns = completion.at_ns.saturating_sub(trial.submitted_ns);
                self.went_well(slot, trial, took_ns)
            }
            Err(libc::EAGAIN | libc::EINTR) if self.refused < REFUSED_MAX => {
                self.refused += 1;
                let until_ns = self.source.now_ns() + REFUSED_PAUSE_NS;
                let mut done = Vec::new();
                while self.source.now_ns() < until_ns {
                    self.source.wait(Some(until_ns), &mut done)?;
                }
                self.submit(slot, trial, trial.offset())?;
                done.into_iter().try_for_each(|completion| self.handle(completion))
            }
            _ => {
                self.places.keep(trial.place);
                self.errors += 1;
                self.failures_in_a_row += 1;
                Ok(())
            }
        }
    }

    fn went_well(&mut self, slot: usize, trial: Trial, took_ns: u64) -> io::Result<()> {
        match trial.step {
            Step::First => {
                self.seen.first.push(took_ns);
                let again = self.seen.again.len();
                if again >= WARM_MIN && !self.kinds.is_cold(took_ns) {
                    // A neighbour of a warm block tells nothing.
                    let trial = Trial { step: Step::Again, first_ns: took_ns, neighbour_ns: None, ..trial };
                    if again < WARM_ENOUGH {
                        return self.submit(slot, trial, trial.offset());
                    }
                    self.unsettled.push((trial.place, took_ns));
                    self.look_again();
                    return Ok(());
                }
                let trial = Trial { step: Step::Neighbour, first_ns: took_ns, ..trial };
                self.submit(slot, trial, trial.offset())
            }
            Step::Neighbour => {
                let trial = Trial { step: Step::Again, neighbour_ns: Some(took_ns), ..trial };
                self.submit(slot, trial, trial.offset())
            }
            Step::Again => {
                self.seen.again.push(took_ns);
                let Trial { place, distance, first_ns, neighbour_ns, .. } = trial;
                self.unsettled.push((place, first_ns.max(neighbour_ns.unwrap_or(0))));
                if let Some(neighbour_ns) = neighbour_ns {
                    self.seen.pairs.push(Measured { place, distance, first_ns, neighbour_ns });
                }
                self.look_again();
                Ok(())
            }
        }
    }

    /// Weighs all that was seen.
    fn look_again(&mut self) {
        self.kinds = self.seen.kinds();
        let (pairs, noise) = self.seen.evidence(self.kinds);
        self.belief = Belief::new(&pairs, noise, self.unit_bytes_max);
        // A volume has few places at first, when the unit may still be large.
        if matches!(self.kinds, Kinds::Apart { .. }) || self.seen.again.len() >= WARM_MIN {
            for (place, slowest_ns) in self.unsettled.drain(..) {
                match self.kinds.is_cold(slowest_ns) {
                    true => self.places.keep(place),
                    false => self.places.give_back(place),
                }
            }
        }
    }

    fn is_known(&self) -> bool {
        matches!(self.kinds, Kinds::Apart { .. })
            && self.seen.first.len() >= FIRST_MIN
            && self.belief.is_sure()
            && self.belief.fits()
    }

    fn close(mut self, end: End) -> Found {
        let now_ns = self.source.now_ns();
        let under_way: Vec<Trial> = self.slots.iter().flatten().copied().collect();
        // A read that is still waited for took so long at the least.
        for trial in &under_way {
            let waited_ns = now_ns.saturating_sub(trial.submitted_ns);
            if matches!(trial.step, Step::First) && self.kinds.is_cold(waited_ns) {
                self.seen.first.push(waited_ns);
            }
        }
        self.look_again();
        Found {
            end,
            kinds: self.kinds,
            reads: self.reads,
            bytes_read: self.bytes_read,
            errors: self.errors,
            abandoned: under_way.len() as u64,
            elapsed_ns: now_ns.saturating_sub(self.started_ns),
            places: self.places.used(),
            seen: self.seen,
            belief: self.belief,
            unit_bytes_max: self.unit_bytes_max,
        }
    }
}

impl Trial {
    fn offset(&self) -> u64 {
        match self.step {
            Step::First | Step::Again => self.place.first,
            Step::Neighbour => self.place.neighbour,
        }
    }
}

impl Seen {
    fn kinds(&self) -> Kinds {
        let neighbours = self.pairs.iter().map(|pair| pair.neighbour_ns);
        let unknown: Vec<u64> = self.first.iter().copied().chain(neighbours).collect();
        latency::kinds(&self.again, &unknown)
    }

    /// Pairs whose first block was cold, and how often warm reads are slow and first ones warm.
    fn evidence(&self, kinds: Kinds) -> (Vec<Pair>, Noise) {
        let cold = self.pairs.iter().filter(|pair| kinds.is_cold(pair.first_ns));
        let pairs = cold.map(|pair| Pair {
            first: pair.place.first,
            neighbour: pair.place.neighbour,
            cold: kinds.is_cold(pair.neighbour_ns),
        });
        let count = |all: &[u64]| all.iter().filter(|ns| kinds.is_cold(**ns)).count() as u64;
        let noise = Noise {
            warm: self.again.len() as u64,
            warm_slow: count(&self.again),
            fresh: self.first.len() as u64,
            fresh_warm: self.first.len() as u64 - count(&self.first),
        };
        (pairs.collect(), noise)
    }
}

#[cfg(test)]
mod tests;
