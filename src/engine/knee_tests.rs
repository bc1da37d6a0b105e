//! The knee is found and held: in virtual time, on all models, over many seeds.

use super::*;
use crate::cold::{ColdVolume, Model};
use crate::extent::ExtentSet;
use crate::plan::{PlannedRead, TOUCH_BYTES};
use crate::units::{NS_PER_S, SECTOR_BYTES};

const SEEDS: u64 = 50;

/// A volume whose hydration rate changes at given times.
struct Changing {
    source: SimSource,
    /// When, and to which share of the model's rate; the next one last.
    changes: Vec<(u64, f64)>,
    rate: u64,
}

impl Source for Changing {
    fn now_ns(&self) -> u64 {
        self.source.now_ns()
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        self.source.submit(request)
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        if let Some((_, share)) = self.changes.pop_if(|(at_ns, _)| self.source.now_ns() >= *at_ns) {
            self.source.volume_mut().set_hydration((self.rate as f64 * share) as u64);
        }
        self.source.wait(until_ns, done)
    }

    fn describe(&self) -> String {
        "changing".into()
    }
}

/// A touch of each unit in order, and when each was done.
struct Touches {
    unit: u64,
    unit_sectors: u64,
    done_ns: Vec<u64>,
    /// In flight when the n-th read was given out.
    in_flight: Vec<u32>,
}

impl Feed for Touches {
    fn next(&mut self, _: u64, in_flight: u32) -> Next {
        self.in_flight.push(in_flight);
        let start = self.unit * self.unit_sectors;
        self.unit += 1;
        Next::Read(PlannedRead { start, sectors: (TOUCH_BYTES / SECTOR_BYTES) as u32, stage: 0 })
    }

    fn done(&mut self, _: u64, _: u64, at_ns: u64) {
        self.done_ns.push(at_ns);
    }
}

impl Feed for &mut Touches {
    fn next(&mut self, now_ns: u64, in_flight: u32) -> Next {
        (**self).next(now_ns, in_flight)
    }

    fn done(&mut self, offset: u64, latency_ns: u64, at_ns: u64) {
        (**self).done(offset, latency_ns, at_ns);
    }
}

/// What came of a run.
struct Ran {
    touches: Touches,
}

impl Ran {
    /// Reads a second between two seconds.
    fn rate(&self, from_s: u64, until_s: u64) -> f64 {
        let within = |at_ns: &&u64| (from_s * NS_PER_S..until_s * NS_PER_S).contains(*at_ns);
        self.touches.done_ns.iter().filter(within).count() as f64 / (until_s - from_s) as f64
    }
}

fn ran(name: &str, seed: u64, depth: Depth, changes: &[(u64, f64)], seconds: u64) -> Ran {
    of_model(Model::named(name).unwrap(), seed, depth, changes, seconds)
}

fn of_model(model: Model, seed: u64, depth: Depth, changes: &[(u64, f64)], seconds: u64) -> Ran {
    let units = 3 * seconds * model.hydration_bytes_per_s / model.unit_bytes + 1_000;
    let (rate, unit_sectors) = (model.hydration_bytes_per_s, model.unit_sectors());
    let volume = ColdVolume::new(model, units * unit_sectors, seed, ExtentSet::new());
    let mut source = Changing {
        source: SimSource::new(volume, depth.max()),
        changes: changes.iter().rev().map(|(at_s, share)| (at_s * NS_PER_S, *share)).collect(),
        rate,
    };
    let mut touches = Touches { unit: 0, unit_sectors, done_ns: Vec::new(), in_flight: Vec::new() };
    let options = Options {
        depth,
        pace: Pace::default(),
        budget: None,
        deadline_ns: Some(seconds * NS_PER_S),
        block_bytes: 512,
        idle_from_stage: u16::MAX,
    };
    let outcome = run(&mut source, &mut touches, options, &AtomicBool::new(false), &mut ());
    assert!(matches!(outcome.end, End::Deadline));
    Ran { touches }
}

/// The rate that the best of fixed depths reaches, where the hydration rate is so much of the model's.
fn best(name: &str, share: f64) -> f64 {
    let rate = |depth| ran(name, 999, Depth::fixed(depth), &[(0, share)], 6).rate(2, 6);
    [8, 16, 32, 64, 128, 256].into_iter().map(rate).fold(0.0, f64::max)
}

/// For each span the shares of the best rate, the smallest first, over all seeds.
fn shares(name: &str, changes: &[(u64, f64)], spans: &[(u64, u64)]) -> Vec<Vec<f64>> {
    let before = |from_s| changes.iter().rfind(|(at_s, _)| *at_s < from_s).map_or(1.0, |(_, share)| *share);
    let best: Vec<f64> = spans.iter().map(|(from_s, _)| best(name, before(*from_s))).collect();
    let end_s = spans.last().unwrap().1;
    let mut shares = vec![Vec::new(); spans.len()];
    for seed in 0..SEEDS {
        let ran = ran(name, seed, Depth::auto(None), changes, end_s);
        for (at, (from_s, until_s)) in spans.iter().enumerate() {
            shares[at].push(ran.rate(*from_s, *until_s) / best[at]);
        }
    }
    shares.iter_mut().for_each(|of_span| of_span.sort_by(f64::total_cmp));
    shares
}

#[test]
fn after_two_seconds_the_rate_is_that_of_the_best_fixed_depth() {
    for name in Model::names() {
        let shares = shares(name, &[], &[(2, 6)]);
        assert!(shares[0][0] >= 0.95, "{name}: {:?}", &shares[0][..5]);
    }
}

#[test]
fn two_seconds_after_the_rate_changed_threefold_it_is_again() {
    for changes in [[(6, 1.0 / 3.0), (12, 1.0)], [(6, 3.0), (12, 1.0)]] {
        for name in Model::names() {
            for of_span in shares(name, &changes, &[(8, 12), (14, 18)]) {
                assert!(of_span[0] >= 0.95, "{name} {changes:?}: {:?}", &of_span[..5]);
            }
        }
    }
}

#[test]
fn a_rate_that_varies_all_the_time_is_followed() {
    for name in ["gp3", "io2", "slow"] {
        let rate = |depth: &Depth, seed| {
            let mut model = Model::named(name).unwrap();
            model.set("vary", "0.3..1.5").unwrap();
            model.set("vary_period", "3s").unwrap();
            of_model(model, seed, depth.clone(), &[], 30).rate(2, 30)
        };
        for seed in 0..10 {
            let share = rate(&Depth::auto(None), seed) / rate(&Depth::fixed(256), seed);
            assert!(share >= 0.9, "{name}, seed {seed}: {share}");
        }
    }
}

#[test]
fn no_more_is_in_flight_than_the_rate_needs_and_it_stays_that_way() {
    // The knee: rate * (35 ms * exp(0.6^2 / 2)), and so on.
    for (name, knee) in [("gp3", 11.2), ("io2", 80.0), ("slow", 32.0), ("fine", 44.8), ("coarse", 5.7)] {
        for seed in 0..SEEDS {
            let ran = ran(name, seed, Depth::auto(None), &[], 8);
            let after = ran.touches.done_ns.partition_point(|at_ns| *at_ns < 4 * NS_PER_S);
            let mut in_flight = ran.touches.in_flight[after..].to_vec();
            in_flight.sort_unstable();
            let at = |share: usize| f64::from(in_flight[(in_flight.len() - 1) * share / 100]);
            assert!(at(50) < knee * 3.0, "{name}, seed {seed}: {} for {knee}", at(50));
            assert!(
                at(95) < at(50) * 1.7 && at(10) > at(50) * 0.5,
                "{name}, {seed}: {} {} {}",
                at(5),
                at(50),
                at(95)
            );
        }
    }
}

#[test]
fn a_volume_that_is_full_at_once_makes_nobody_wait_for_long() {
    // Of 10 MB/s: 32 reads of the burst take 1.7 s, and doubling would take as long again.
    let ran = ran("scarce", 1, Depth::auto(None), &[], 10);
    let most = ran.touches.in_flight.iter().max().unwrap();
    assert_eq!(*most, 31, "the burst, less the read that is given out");
    assert!(*ran.touches.in_flight.last().unwrap() < 16);
}
