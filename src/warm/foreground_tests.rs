//! Whoever reads beside the rest, in virtual time on one law: what our reads do to it, with nobody's processor in between.

use super::*;
use crate::cold::{Answer, ColdVolume, Model, Op};
use crate::engine::{Completion, Depth, Options, Pace, Request, Source, run};
use crate::extent::ExtentSet;
use crate::plan::Shape;
use crate::units::{NS_PER_S, SECTOR_BYTES};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

const UNIT_BYTES: u64 = 512 << 10;
const UNIT_SECTORS: u64 = UNIT_BYTES / SECTOR_BYTES;
const SLOTS: u32 = 1024;
/// What the rest does not come to in a turn.
const UNITS: u64 = 16_384;
/// The reader's own, at the end.
const OWN: u64 = 2048;
const WARM: u64 = 16;
/// The number of the reader's reads.
const READER: u64 = u64::MAX;
const BEGINS_NS: u64 = 2 * NS_PER_S;
const ENDS_NS: u64 = BEGINS_NS + 20 * NS_PER_S;
const OVER_NS: u64 = ENDS_NS + 2 * NS_PER_S;

/// A volume with two who read it: the engine, and one who has one read in flight from a moment on.
struct Shared {
    volume: ColdVolume,
    now_ns: u64,
    lengths: Vec<u32>,
    /// Where the reader reads, round and round.
    places: Vec<u64>,
    submitted_ns: Option<u64>,
    taken_ns: Vec<u64>,
    /// Units hydrated when the reader began, and when it ended.
    hydrated: [Option<u64>; 2],
    /// As the kernel counts them.
    ended: u64,
    in_flight: u64,
}

impl Shared {
    /// The reader goes on, or begins.
    fn read(&mut self) {
        for (mark, at_ns) in self.hydrated.iter_mut().zip([BEGINS_NS, ENDS_NS]) {
            if self.now_ns >= at_ns {
                mark.get_or_insert(self.volume.counters().hydrated);
            }
        }
        let is_on = (BEGINS_NS..ENDS_NS).contains(&self.now_ns);
        if is_on && self.submitted_ns.is_none() && !self.places.is_empty() {
            let place = self.places[self.taken_ns.len() % self.places.len()];
            self.submitted_ns = Some(self.now_ns);
            self.in_flight += 1;
            self.volume.submit(self.now_ns, READER, Op::Read, Extent::at(place, 8).unwrap());
        }
    }

    fn ended(&mut self, answer: Answer) -> Option<Completion> {
        (self.ended, self.in_flight) = (self.ended + 1, self.in_flight - 1);
        if answer.id == READER {
            let submitted_ns = self.submitted_ns.take().unwrap();
            self.taken_ns.push(answer.at_ns - submitted_ns);
            self.read();
            return None;
        }
        let slot = answer.id as u32;
        Some(Completion { slot, at_ns: answer.at_ns, result: Ok(self.lengths[slot as usize]) })
    }
}

struct Beside(Rc<RefCell<Shared>>);

impl Source for Beside {
    fn now_ns(&self) -> u64 {
        self.0.borrow().now_ns
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        let mut shared = self.0.borrow_mut();
        let (now_ns, slot) = (shared.now_ns, request.slot);
        shared.lengths[slot as usize] = request.bytes;
        shared.in_flight += 1;
        let extent = Extent::of_bytes(request.offset, u64::from(request.bytes)).unwrap();
        shared.volume.submit(now_ns, u64::from(slot), Op::Read, extent);
        Ok(())
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        let mut shared = self.0.borrow_mut();
        let already = done.len();
        loop {
            shared.read();
            let now_ns = shared.now_ns;
            while let Some(answer) = shared.volume.pop_due(now_ns) {
                done.extend(shared.ended(answer));
            }
            if done.len() > already {
                return Ok(());
            }
            let turning = [BEGINS_NS, ENDS_NS].into_iter().filter(|at_ns| now_ns < *at_ns);
            let due_ns = shared.volume.next_due_ns().into_iter().chain(turning).min();
            let until_ns = until_ns.unwrap_or(u64::MAX);
            match due_ns {
                Some(due_ns) if due_ns <= until_ns => shared.now_ns = due_ns.max(now_ns),
                _ if until_ns < u64::MAX => {
                    shared.now_ns = until_ns.max(now_ns);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    fn describe(&self) -> String {
        "simulated, with a reader beside".into()
    }
}

/// What a reader saw, and how many units others hydrated meanwhile and in the two seconds after it.
struct Seen {
    p99_ns: u64,
    reads: f64,
    meanwhile: u64,
    afterwards: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Rest {
    None,
    StandsBack,
    Regardless,
}

/// Somebody who reads warm units, or cold ones of its own, beside the rest.
fn reader(model: &str, seed: u64, cold: bool, rest: Rest) -> Seen {
    let model = Model::named(model).unwrap();
    let first = UNITS - OWN;
    let places: Vec<u64> = match cold {
        true => (first..UNITS).map(|unit| unit * UNIT_SECTORS).collect(),
        // Any of the warm units' blocks.
        false => (0..WARM * 128).map(|block| first * UNIT_SECTORS + block * 37 % (WARM * 128) * 8).collect(),
    };
    let warm: ExtentSet = match cold {
        true => ExtentSet::new(),
        false => [Extent::at(first * UNIT_SECTORS, WARM * UNIT_SECTORS).unwrap()].into_iter().collect(),
    };
    let shared = Rc::new(RefCell::new(Shared {
        volume: ColdVolume::new(model, UNITS * UNIT_SECTORS, seed, warm),
        now_ns: 0,
        lengths: vec![0; SLOTS as usize],
        places,
        submitted_ns: None,
        taken_ns: Vec::new(),
        hydrated: [None; 2],
        ended: 0,
        in_flight: 0,
    }));
    match rest {
        Rest::None => {
            let mut source = Beside(shared.clone());
            while source.now_ns() < OVER_NS {
                source.wait(Some(OVER_NS), &mut Vec::new()).unwrap();
            }
        }
        _ => run_rest(&shared, first, rest == Rest::StandsBack),
    }
    let mut shared = shared.borrow_mut();
    let (begun, over) = (shared.hydrated[0].unwrap(), shared.hydrated[1].unwrap());
    let afterwards = shared.volume.counters().hydrated - over;
    let mut taken_ns = std::mem::take(&mut shared.taken_ns);
    taken_ns.sort_unstable();
    let own = if cold { taken_ns.len() as u64 } else { 0 };
    Seen {
        p99_ns: taken_ns[taken_ns.len() * 99 / 100],
        reads: taken_ns.len() as f64,
        meanwhile: (over - begun).saturating_sub(own),
        afterwards,
    }
}

/// Touches all units below one, as the rest.
fn run_rest(shared: &Rc<RefCell<Shared>>, units: u64, stands_back: bool) {
    let shape =
        Shape { sectors: UNITS * UNIT_SECTORS, block_bytes: 512, unit_bytes: UNIT_BYTES, mode: Mode::Touch };
    let all = [Extent::at(0, units * UNIT_SECTORS).unwrap()];
    let plan = Plan::new([("rest", all.as_slice())], shape);
    let (control, mut journal) = (Control::default(), Journal::none(plan.totals().reads));
    let look = || {
        let shared = shared.borrow();
        Some(Look { ended: shared.ended, in_flight: shared.in_flight })
    };
    let look = stands_back.then(|| Box::new(look) as Box<_>);
    let surroundings = Surroundings { look, ..tests::surroundings(&control) };
    let mut feed = WarmFeed::new(&plan, &mut journal, surroundings, 0);
    let options = Options {
        depth: Depth::auto(Some(128)),
        pace: Pace::new(0, 0),
        deadline_ns: Some(OVER_NS),
        block_bytes: 512,
        idle_from_stage: 0,
        budget: None,
    };
    run(&mut Beside(shared.clone()), &mut feed, options, &AtomicBool::new(false), &mut ());
    assert_eq!(feed.skipped().held_back_ns > 0, stands_back);
}

#[test]
fn who_reads_beside_the_rest_does_not_notice_it_and_the_rest_goes_on() {
    for model in ["gp3", "io2", "slow", "scarce"] {
        for seed in 0..5 {
            let [alone, beside] = [Rest::None, Rest::StandsBack].map(|rest| reader(model, seed, false, rest));
            let p99 = beside.p99_ns as f64 / alone.p99_ns as f64;
            println!(
                "{model} seed {seed}: warm, p99 {p99:.3}, {} units, then {}",
                beside.meanwhile, beside.afterwards
            );
            assert!(p99 <= 1.2, "{model} seed {seed}: p99 is {p99} times that alone");
            let [alone, on_cold] = [Rest::None, Rest::StandsBack].map(|rest| reader(model, seed, true, rest));
            let rate = on_cold.reads / alone.reads;
            println!(
                "{model} seed {seed}: cold, rate {rate:.3}, {} units, then {}",
                on_cold.meanwhile, on_cold.afterwards
            );
            assert!(rate >= 0.9, "{model} seed {seed}: {rate} of the reads alone");
            // What the volume gives in two seconds, and a little less than one in 25 of it or ten a second for 20 s.
            let full = 2 * Model::named(model).unwrap().hydration_bytes_per_s / UNIT_BYTES;
            let trickle = (full * 10 / 25).min(200) * 3 / 4;
            // To stand still would be no art: it trickles, and has all its depth again soon afterwards.
            for seen in [&beside, &on_cold] {
                assert!(seen.meanwhile >= trickle, "{model} seed {seed}: {} units", seen.meanwhile);
                assert!(seen.afterwards * 2 >= full, "{model} seed {seed}: {} units", seen.afterwards);
            }
        }
    }
}

#[test]
fn who_reads_beside_what_does_not_stand_back_notices_it() {
    let [alone, beside] = [Rest::None, Rest::Regardless].map(|rest| reader("gp3", 1, true, rest));
    assert!(beside.reads < 0.7 * alone.reads, "{} of {} reads", beside.reads, alone.reads);
    assert!(beside.meanwhile > 200 * 15, "{} units", beside.meanwhile);
}
