use super::*;
use crate::cold::{ColdVolume, Model};
use crate::engine::{self, Completion, Depth, Options, Outcome, Request, SimSource, Source};
use crate::extent::{Extent, ExtentSet};
use crate::plan::{Mode, Plan, Shape};
use proptest::prelude::*;
use std::io;
use std::sync::Condvar;
use std::sync::atomic::AtomicBool;

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// One volume's reads, and how late its thread is.
#[derive(Clone, Debug)]
struct Volume {
    /// Of each read.
    urgencies: Vec<Urgency>,
    bytes: u32,
    /// So much later than it was told does it ask, at most.
    late_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    at_ns: u64,
    member: usize,
    bytes: u32,
    /// Since it was asked for first.
    waited_ns: u64,
}

/// Every volume asks for its reads one after the other, as soon as it may. What was granted, in order.
fn play(budget: &mut Budget, volumes: &[Volume], seed: u64) -> Vec<Granted> {
    let mut granted = Vec::new();
    let mut chance = seed | 1;
    // When each asks next, for which of its reads, and since when.
    let mut asks: Vec<(u64, usize, u64)> = volumes.iter().map(|_| (0, 0, 0)).collect();
    loop {
        let open = asks.iter().enumerate().filter(|(member, ask)| ask.1 < volumes[*member].urgencies.len());
        let Some((member, (now_ns, read, since_ns))) =
            open.min_by_key(|(_, ask)| ask.0).map(|(m, a)| (m, *a))
        else {
            return granted;
        };
        let Volume { urgencies, bytes, late_ns } = &volumes[member];
        let urgency = urgencies[read];
        match budget.ask(member, urgency, *bytes, now_ns) {
            Ok(()) => {
                let waited_ns = now_ns - since_ns;
                for (other, (_, at, since_ns)) in
                    asks.iter().enumerate().filter(|(other, _)| *other != member)
                {
                    let more_urgent = volumes[other].urgencies.get(*at).is_some_and(|other| *other < urgency);
                    // The others have asked at the beginning, or right after their last read.
                    let waits = more_urgent && *since_ns < now_ns;
                    assert!(!waits, "{other} waits with something more urgent than {member} got");
                }
                granted.push(Granted { at_ns: now_ns, member, bytes: *bytes, waited_ns });
                asks[member] = (now_ns, read + 1, now_ns);
            }
            Err(back_ns) => {
                assert!(back_ns > now_ns, "whoever is to wait is told a time that is to come");
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                asks[member].0 = back_ns + chance % (late_ns + 1);
            }
        }
    }
}

fn cost_ns(iops: u64, bytes_per_s: u64, bytes: u32) -> u64 {
    let of = |amount: u64, rate: u64| (amount * S).checked_div(rate).unwrap_or(0);
    of(1, iops).max(of(bytes.into(), bytes_per_s))
}

fn volumes(reads: usize) -> impl Strategy<Value = Vec<Volume>> {
    let volume = (prop::collection::vec(0..5u8, 1..reads), 1..257u32, 0..3 * MS);
    let volume = volume.prop_map(|(mut urgencies, blocks, late_ns)| {
        urgencies.sort_unstable();
        Volume { urgencies, bytes: blocks * 4096, late_ns }
    });
    prop::collection::vec(volume, 1..6)
}

proptest! {
    #[test]
    fn the_sum_is_never_above_the_limit_and_the_urgent_go_first(
        volumes in volumes(60), iops in 10..20_000u64, rate in (1u64 << 20)..(1 << 30), seed: u64,
    ) {
        let granted = play(&mut Budget::new(iops, rate, volumes.len()), &volumes, seed);
        let reads: usize = volumes.iter().map(|volume| volume.urgencies.len()).sum();
        prop_assert_eq!(granted.len(), reads, "no read is lost");
        for (at, first) in granted.iter().enumerate() {
            let mut cost = 0;
            for (last, next) in granted[at..].iter().zip(&granted[at + 1..]) {
                cost += cost_ns(iops, rate, last.bytes);
                prop_assert!(next.at_ns - first.at_ns + SLACK_NS >= cost, "{first:?} to {next:?}");
            }
        }
    }

    #[test]
    fn nobody_starves_among_equals_and_nothing_is_left_unused(
        count in 2..6usize, iops in 50..20_000u64, blocks in 1..65u32, late_ns in 0..2 * MS, seed: u64,
    ) {
        // Of five seconds' reads.
        let each = iops as usize * 5 / count;
        let volume = Volume { urgencies: vec![2; each], bytes: blocks * 4096, late_ns };
        let granted = play(&mut Budget::new(iops, 0, count), &vec![volume; count], seed);
        let longest = granted.iter().map(|granted| granted.waited_ns).max().unwrap();
        // A turn of each other, which ends with a read.
        let turn_ns = TURN_NS.max(S / iops) + S / iops + LOOK_NS + late_ns;
        prop_assert!(longest <= count as u64 * turn_ns, "{longest} of {turn_ns} for each of {count}");
        let took_ns = granted.last().unwrap().at_ns;
        prop_assert!(took_ns <= granted.len() as u64 * (S / iops) * 21 / 20 + 10 * MS, "{took_ns}");
        for half in [&granted[..granted.len() / 2], &granted[granted.len() / 2..]] {
            for member in 0..count {
                let reads = half.iter().filter(|granted| granted.member == member).count();
                let share = half.len() / count;
                let turn = (TURN_NS * iops / S + 2) as usize * 2;
                prop_assert!(reads.abs_diff(share) <= turn + share / 10, "{member}: {reads} of {share}");
            }
        }
    }
}

#[test]
fn the_rest_of_one_gets_what_the_ready_of_another_leaves() {
    // The second has something urgent to read every 100 ms, for as long as it takes.
    let mut budget = Budget::new(1000, 0, 2);
    let (mut rest, mut urgent, mut waits_ns) = (0, 0, 0);
    let (mut rest_at, mut urgent_at, mut urgent_since) = (0, 0, 0);
    while urgent < 50 {
        if rest_at <= urgent_at {
            match budget.ask(0, 4, 4096, rest_at) {
                Ok(()) => rest += 1,
                Err(back_ns) => rest_at = back_ns,
            }
            continue;
        }
        match budget.ask(1, 2, 4096, urgent_at) {
            Ok(()) => {
                waits_ns = waits_ns.max(urgent_at - urgent_since);
                urgent += 1;
                urgent_since = urgent * 100 * MS;
                urgent_at = urgent_since;
            }
            Err(back_ns) => urgent_at = back_ns,
        }
    }
    assert!((4_700..=4_955).contains(&rest), "{rest} reads of the rest in 4.9 s");
    assert!(waits_ns <= 1_000_000, "never behind more than one read: {waits_ns} ns");
}

#[test]
fn one_that_does_not_come_back_holds_nobody_up_for_long() {
    let mut budget = Budget::new(100, 0, 2);
    assert_eq!(budget.ask(0, 0, 4096, S), Ok(()));
    let back_ns = budget.ask(0, 0, 4096, S).unwrap_err();
    // Its disk has gone, or its thread does not run. The other's turn comes all the same.
    let mut at_ns = S;
    while let Err(next_ns) = budget.ask(1, 4, 4096, at_ns) {
        at_ns = next_ns;
    }
    assert!(at_ns > back_ns && at_ns <= back_ns + PATIENCE_NS + LOOK_NS, "{at_ns} after {back_ns}");
    // It comes late, and is the first again.
    let late_ns = at_ns + 1;
    let back_ns = budget.ask(0, 0, 4096, late_ns).unwrap_err();
    assert!(budget.ask(1, 4, 4096, back_ns).is_err());
    assert_eq!(budget.ask(0, 0, 4096, back_ns), Ok(()));
}

#[test]
fn one_that_has_ended_holds_nobody_up_at_all() {
    let stage = |name: &str| StagePlan { name: name.into(), ..StagePlan::default() };
    let shares = Share::of_each(100, 0, 2);
    let urgent = shares[0].in_step(&[stage("initrd")]);
    let rest = shares[1].in_step(&[stage("rest")]);
    assert_eq!(urgent.ask(0, 4096, S), Ok(()));
    let back_ns = urgent.ask(0, 4096, S).unwrap_err();
    assert!(rest.ask(0, 4096, back_ns).is_err());
    drop(urgent);
    assert_eq!(rest.ask(0, 4096, back_ns), Ok(()));
}

#[test]
fn without_limits_nobody_waits() {
    let mut budget = Budget::new(0, 0, 2);
    for at_ns in 0..100 {
        assert_eq!(budget.ask(0, 4, 1 << 20, at_ns), Ok(()));
        assert_eq!(budget.ask(1, 2, 1 << 20, at_ns), Ok(()));
    }
}

/// The clock of loops that run side by side in virtual time: one goes on at once, whose next moment is the earliest.
#[derive(Debug)]
struct Clock {
    /// Of each loop; `None` while it goes on.
    next_ns: Mutex<Vec<Option<u64>>>,
    changed: Condvar,
    /// What was submitted: when, by whom, of which stage.
    submitted: Mutex<Vec<(u64, usize)>>,
}

impl Clock {
    fn wait_for(&self, member: usize, at_ns: u64) {
        let mut next_ns = self.next_ns.lock().unwrap();
        next_ns[member] = Some(at_ns);
        self.changed.notify_all();
        let is_turn = |all: &[Option<u64>]| {
            let mut all = all.iter().enumerate();
            all.all(|(other, next)| next.is_some_and(|next| (next, other) >= (at_ns, member)))
        };
        while !is_turn(&next_ns) {
            next_ns = self.changed.wait(next_ns).unwrap();
        }
        next_ns[member] = None;
    }

    fn ended(&self, member: usize) {
        self.next_ns.lock().unwrap()[member] = Some(u64::MAX);
        self.changed.notify_all();
    }
}

struct InStep<'a> {
    source: SimSource,
    clock: &'a Clock,
    member: usize,
}

impl Source for InStep<'_> {
    fn now_ns(&self) -> u64 {
        self.source.now_ns()
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        self.clock.submitted.lock().unwrap().push((self.now_ns(), self.member));
        self.source.submit(request)
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        let due_ns = self.source.volume().next_due_ns();
        let next_ns = due_ns.into_iter().chain(until_ns).min().unwrap_or(u64::MAX);
        self.clock.wait_for(self.member, next_ns.max(self.now_ns()));
        self.source.wait(until_ns, done)
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}

/// One volume for each name: a stage of that name with so many units. All of them warmed at once within so many reads a
/// second; what was submitted, and what came of each.
fn side_by_side(iops: u64, stages: &[(&str, u64)]) -> (Vec<(u64, usize)>, Vec<Outcome>) {
    let clock = Clock {
        next_ns: Mutex::new(vec![Some(0); stages.len()]),
        changed: Condvar::new(),
        submitted: Mutex::default(),
    };
    let shares = Share::of_each(iops, 0, stages.len());
    let warm = |member: usize, name: &str, units: u64| {
        let model = Model::named("gp3").unwrap();
        let (unit_bytes, sectors) = (model.unit_bytes, units * model.unit_sectors());
        let volume = ColdVolume::new(model, sectors, member as u64, ExtentSet::new());
        let mut source = InStep { source: SimSource::new(volume, 4096), clock: &clock, member };
        let shape = Shape { sectors, block_bytes: 512, unit_bytes, mode: Mode::Touch };
        let plan = Plan::new([(name, &[Extent::new(0, sectors).unwrap()][..])], shape);
        let options = Options {
            depth: Depth::auto(None),
            pace: Pace::default(),
            budget: Some(shares[member].in_step(plan.stages())),
            deadline_ns: None,
            block_bytes: 512,
            idle_from_stage: u16::MAX,
        };
        clock.wait_for(member, 0);
        let outcome = engine::run(&mut source, plan.reads(), options, &AtomicBool::new(false), &mut ());
        clock.ended(member);
        outcome
    };
    let outcomes = std::thread::scope(|scope| {
        let all = stages.iter().enumerate();
        let threads: Vec<_> =
            all.map(|(member, (name, units))| scope.spawn(move || warm(member, name, *units))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (clock.submitted.into_inner().unwrap(), outcomes)
}

/// How many reads of a member were submitted before the last of another.
fn before_the_last(submitted: &[(u64, usize)], of: usize, other: usize) -> usize {
    let last = submitted.iter().rposition(|(_, member)| *member == other).unwrap();
    submitted[..last].iter().filter(|(_, member)| *member == of).count()
}

#[test]
fn loops_side_by_side_keep_to_the_sum_and_the_urgent_one_is_first() {
    let (submitted, outcomes) = side_by_side(100, &[("rest", 300), ("ready", 200), ("later", 100)]);
    let reads: Vec<u64> = outcomes.iter().map(Outcome::reads).collect();
    assert_eq!(reads, [300, 200, 100], "all of them are warmed");
    for window in submitted.windows(101) {
        let over_ns = window[100].0 - window[0].0;
        assert!(over_ns + SLACK_NS >= S, "101 reads in {over_ns} ns");
    }
    assert!(submitted.last().unwrap().0 <= 6 * S + 100 * MS, "nothing is left unused: {submitted:?}");
    // What was granted before the others were there, and while they waited for their last.
    assert!(before_the_last(&submitted, 0, 1) <= 2 && before_the_last(&submitted, 2, 1) <= 2);
    assert!(before_the_last(&submitted, 0, 2) <= 2);
}

#[test]
fn what_the_urgent_one_cannot_use_is_for_the_others() {
    // One gp3 volume takes 267 units a second.
    let (submitted, outcomes) = side_by_side(1000, &[("rest", 400), ("ready", 400)]);
    let ended_s = |member: usize| outcomes[member].elapsed_ns() as f64 / 1e9;
    assert!(ended_s(1) < 1.8, "as if it were alone: {} s", ended_s(1));
    assert!(before_the_last(&submitted, 0, 1) > 300, "the rest goes on meanwhile");
}

#[test]
fn equals_share_it() {
    let (submitted, _) = side_by_side(100, &[("ready", 200), ("ready", 200)]);
    let first = submitted[..200].iter().filter(|(_, member)| *member == 0).count();
    assert!((95..=105).contains(&first), "{first} of the first 200");
}
