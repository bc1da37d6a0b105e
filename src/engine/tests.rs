use super::*;
use crate::cold::{ColdVolume, Model};
use crate::extent::{Extent, ExtentSet};
use crate::plan::{Mode, Plan, PlannedRead, Shape};
use proptest::prelude::*;

fn options(depth: Depth) -> Options {
    let (pace, block_bytes, idle_from_stage) = (Pace::default(), 512, u16::MAX);
    Options { depth, pace, budget: None, deadline_ns: None, block_bytes, idle_from_stage }
}

fn sim(model: Model, units: u64) -> SimSource {
    let sectors = units * model.unit_sectors();
    SimSource::new(ColdVolume::new(model, sectors, 11, ExtentSet::new()), 4096)
}

fn whole(source: &SimSource, mode: Mode) -> Plan {
    let volume = source.volume();
    let shape =
        Shape { sectors: volume.sectors(), block_bytes: 512, unit_bytes: volume.model().unit_bytes, mode };
    Plan::new([], shape).with_rest()
}

fn go<S: Source>(source: &mut S, plan: &Plan, options: Options) -> Outcome {
    run(source, plan.reads(), options, &AtomicBool::new(false), &mut ())
}

/// Nanoseconds that 2,000 units take in touch mode, at the median of some volumes.
fn elapsed_ns(model: &Model, depth: &Depth) -> f64 {
    let one = |seed| {
        let volume = ColdVolume::new(model.clone(), 2000 * model.unit_sectors(), seed, ExtentSet::new());
        let mut source = SimSource::new(volume, 4096);
        let plan = whole(&source, Mode::Touch);
        let outcome = go(&mut source, &plan, options(depth.clone()));
        assert_eq!(source.volume().cold_units(), 0);
        outcome.elapsed_ns() as f64
    };
    let mut all: Vec<f64> = (0..15).map(one).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[test]
fn every_model_is_warmed_within_five_percent_of_the_bound() {
    for name in Model::names() {
        let model = Model::named(name).unwrap();
        for depth in [Depth::auto(None), Depth::fixed(256)] {
            let ratio = elapsed_ns(&model, &depth) / model.bound_ns(2000) as f64;
            assert!(ratio < 1.05, "{name}: {ratio} from a depth of {}", depth.limit());
        }
    }
}

#[test]
fn finding_the_depth_costs_six_percent_of_a_second_at_most() {
    let model = Model::named("io2").unwrap();
    let ratio = elapsed_ns(&model, &Depth::auto(None)) / elapsed_ns(&model, &Depth::fixed(256));
    assert!(ratio < 1.06, "{ratio}");
}

#[test]
fn bad_sectors_are_halved_down_and_counted_and_the_rest_is_read() {
    let mut model = Model::named("gp3").unwrap();
    model.set("eio_sectors", "100+3, 2000+1").unwrap();
    let mut source = sim(model, 4);
    let plan = whole(&source, Mode::Full);
    let outcome = go(&mut source, &plan, options(Depth::fixed(8)));
    assert!(matches!(outcome.end, End::Complete));
    assert_eq!(outcome.errors, 4);
    let named: ExtentSet = outcome.unreadable.iter().map(|(extent, _)| *extent).collect();
    let expected = [Extent::at(100, 3).unwrap(), Extent::at(2000, 1).unwrap()].into_iter().collect();
    assert_eq!(named, expected);
    assert_eq!(outcome.bytes_read, (4 * 1024 - 4) * 512);
}

#[test]
fn a_device_that_answers_nothing_but_errors_is_given_up() {
    let mut model = Model::named("gp3").unwrap();
    model.set("eio_sectors", "0+1000000").unwrap();
    let mut source = sim(model, 900);
    let plan = whole(&source, Mode::Full);
    let outcome = go(&mut source, &plan, options(Depth::fixed(64)));
    assert!(matches!(outcome.end, End::DeviceGone), "{:?}", outcome.end);
    assert!(source.volume().counters().reads < 1000);
}

#[test]
fn a_stall_holds_up_neither_the_others_nor_the_deadline() {
    let mut model = Model::named("gp3").unwrap();
    model.set("stall_fetch", "3").unwrap();
    let mut source = sim(model, 500);
    let plan = whole(&source, Mode::Touch);
    let mut limited = options(Depth::fixed(64));
    limited.deadline_ns = Some(5_000_000_000);
    let outcome = go(&mut source, &plan, limited);
    assert!(matches!(outcome.end, End::Deadline));
    assert_eq!((outcome.reads(), outcome.left.len()), (499, 1));
    assert!(outcome.elapsed_ns() <= 5_000_000_000 + GRACE_NS);
}

#[test]
fn pace_is_kept() {
    let mut source = sim(Model::named("io2").unwrap(), 500);
    let plan = whole(&source, Mode::Touch);
    let mut paced = options(Depth::auto(None));
    paced.pace = Pace::new(100, 0);
    let outcome = go(&mut source, &plan, paced);
    let seconds = outcome.elapsed_ns() as f64 / 1e9;
    assert!((4.9..5.3).contains(&seconds), "500 reads at 100 a second took {seconds} s");
}

#[test]
fn a_stop_is_obeyed_and_what_was_done_is_told() {
    struct StopAfter<'a>(&'a AtomicBool);
    impl Progress for StopAfter<'_> {
        fn tick(&mut self, _: &Outcome, _: u32, now_ns: u64) {
            self.0.store(now_ns > 1_000_000_000, Ordering::Relaxed);
        }
    }
    let mut source = sim(Model::named("gp3").unwrap(), 2000);
    let plan = whole(&source, Mode::Touch);
    let stop = AtomicBool::new(false);
    let outcome = run(&mut source, plan.reads(), options(Depth::auto(None)), &stop, &mut StopAfter(&stop));
    assert!(matches!(outcome.end, End::Stopped));
    assert!((200..700).contains(&outcome.reads()), "{}", outcome.reads());
}

#[test]
fn a_bad_unit_read_in_full_is_no_device_that_is_gone() {
    let mut model = Model::named("gp3").unwrap();
    model.set("eio_units", "3").unwrap();
    let mut source = sim(model, 40);
    let plan = whole(&source, Mode::Full);
    let outcome = go(&mut source, &plan, options(Depth::fixed(16)));
    assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
    assert_eq!((outcome.errors, source.volume().cold_units()), (1024, 1));
    assert_eq!(outcome.unreadable, [(Extent::at(3 * 1024, 1024).unwrap(), libc::EIO)]);
    assert_eq!(outcome.stages[0].errors, 1024);
    assert_eq!(outcome.bytes_read, 39 * (512 << 10));
}

/// A plan that is paused from its end on.
struct PausedAtEnd<I> {
    reads: I,
    has_ended: bool,
}

const PAUSED_NS: u64 = 5_000_000_000;

impl<I: Iterator<Item = PlannedRead>> Feed for &mut PausedAtEnd<I> {
    fn next(&mut self, _: u64, _: u32) -> Next {
        let next = self.reads.next();
        self.has_ended = next.is_none();
        next.map_or(Next::End, Next::Read)
    }

    fn paused_until(&self, now_ns: u64) -> Option<u64> {
        self.has_ended.then_some(now_ns + PAUSED_NS)
    }
}

#[test]
fn a_pause_is_for_the_pieces_of_what_failed_too() {
    struct StopInIt<'a>(&'a AtomicBool);
    impl Progress for StopInIt<'_> {
        fn tick(&mut self, _: &Outcome, _: u32, now_ns: u64) {
            self.0.store(now_ns > PAUSED_NS, Ordering::Relaxed);
        }
    }
    let mut model = Model::named("gp3").unwrap();
    model.set("eio_sectors", "100+3").unwrap();
    let mut source = sim(model, 4);
    let plan = whole(&source, Mode::Full);
    let mut reads = PausedAtEnd { reads: plan.reads(), has_ended: false };
    let stop = AtomicBool::new(false);
    let outcome = run(&mut source, &mut reads, options(Depth::fixed(8)), &stop, &mut StopInIt(&stop));
    assert!(matches!(outcome.end, End::Stopped), "{:?}", outcome.end);
    let reads = source.volume().counters().reads;
    assert_eq!((outcome.retries, reads), (0, plan.totals().reads), "nothing was looked for");
}

#[test]
fn bad_blocks_are_looked_for_when_all_else_is_read() {
    let mut model = Model::named("gp3").unwrap();
    model.set("eio_units", "0, 1, 2, 3, 4, 5, 6, 7").unwrap();
    let mut source = sim(model, 100);
    let plan = whole(&source, Mode::Touch);
    let outcome = go(&mut source, &plan, options(Depth::fixed(4)));
    let order: Vec<u64> = source.volume().touched().iter().map(|touch| touch.unit).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    // Each bad touch of 8 sectors takes 14 more reads.
    assert_eq!(source.volume().counters().reads, 100 + 8 * 14);
    assert_eq!((outcome.errors, outcome.reads(), outcome.unreadable.len()), (64, 92, 8));
}

#[test]
fn the_last_reads_of_a_plan_tell_that_the_device_is_gone() {
    let mut model = Model::named("gp3").unwrap();
    model.set("eio_sectors", "20480+1000000").unwrap();
    let mut source = sim(model, 60);
    let plan = whole(&source, Mode::Touch);
    let outcome = go(&mut source, &plan, options(Depth::fixed(8)));
    assert!(matches!(outcome.end, End::DeviceGone), "{:?}", outcome.end);
    assert_eq!((outcome.reads(), outcome.errors), (20, 40 * 8));
    assert_eq!(source.volume().counters().reads, 60, "nothing was halved");
}

#[test]
fn the_search_for_bad_blocks_is_bounded() {
    let mut model = Model::named("io2").unwrap();
    // Each second unit of 200 is bad: 100 units of 1,024 sectors would take 200,000 reads.
    let bad: Vec<String> = (0..100u64).map(|unit| (unit * 2).to_string()).collect();
    model.set("eio_units", &bad.join(",")).unwrap();
    let mut source = sim(model, 200);
    let plan = whole(&source, Mode::Full);
    let outcome = go(&mut source, &plan, options(Depth::fixed(64)));
    assert!(matches!(outcome.end, End::Complete), "{:?}", outcome.end);
    assert!(source.volume().counters().reads < 20_000, "{}", source.volume().counters().reads);
    assert_eq!(outcome.errors, 100 * 1024);
}

#[test]
fn what_was_not_read_is_left_in_the_plan_or_named() {
    let mut model = Model::named("gp3").unwrap();
    model.set("stall_fetch", "7").unwrap();
    let mut source = sim(model, 2000);
    let plan = whole(&source, Mode::Touch);
    let mut limited = options(Depth::fixed(64));
    limited.deadline_ns = Some(1_000_000_000);
    let mut reads = plan.reads();
    let outcome = run(&mut source, reads.by_ref(), limited, &AtomicBool::new(false), &mut ());
    assert!(matches!(outcome.end, End::Deadline));
    assert_eq!(outcome.left, [plan.reads().nth(7).unwrap()], "all others had ended within the grace");
    assert_eq!(outcome.reads() + 1 + reads.count() as u64, 2000);
}

/// A device whose queue takes a few reads and refuses all others, all of which end at once.
struct Narrow {
    takes: usize,
    pending: Vec<Request>,
    now_ns: u64,
    refused: u64,
}

impl Source for Narrow {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        self.pending.push(request);
        Ok(())
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        self.now_ns += 100_000;
        if self.pending.is_empty() {
            self.now_ns = self.now_ns.max(until_ns.unwrap_or(0));
        }
        self.refused += self.pending.len().saturating_sub(self.takes) as u64;
        for (number, request) in self.pending.drain(..).enumerate() {
            let result = if number < self.takes { Ok(request.bytes) } else { Err(libc::EAGAIN) };
            done.push(Completion { slot: request.slot, at_ns: self.now_ns, result });
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "narrow".into()
    }
}

fn narrow(takes: usize) -> (Narrow, Outcome) {
    let mut source = Narrow { takes, pending: Vec::new(), now_ns: 0, refused: 0 };
    let shape = Shape { sectors: 20_000 * 1024, block_bytes: 512, unit_bytes: 512 << 10, mode: Mode::Touch };
    let plan = Plan::new([], shape).with_rest();
    let outcome = go(&mut source, &plan, options(Depth::fixed(1024)));
    (source, outcome)
}

#[test]
fn a_narrow_queue_is_filled_and_not_overrun() {
    let (source, outcome) = narrow(128);
    assert!(matches!(outcome.end, End::Complete));
    assert_eq!((outcome.reads(), outcome.retries), (20_000, source.refused));
    assert!((100..=145).contains(&outcome.depth.2), "{:?}", outcome.depth);
    assert!(source.refused < 2_500, "{}", source.refused);
    // 20,000 reads at 128 in 100 us take 16 ms; the depth never fell far below what the queue takes.
    assert!(outcome.elapsed_ns() < 30_000_000, "{}", outcome.elapsed_ns());
}

#[test]
fn a_device_that_takes_nothing_is_given_up() {
    let (_, outcome) = narrow(0);
    assert!(matches!(outcome.end, End::Failed(_)), "{:?}", outcome.end);
    assert_eq!(outcome.reads(), 0);
    assert!(outcome.elapsed_ns() < 60_000_000_000, "{}", outcome.elapsed_ns());
}

/// A source that refuses, cuts short, errs and reorders as a list of numbers says.
struct Hostile {
    script: Vec<u8>,
    at: usize,
    pending: Vec<Request>,
    read: ExtentSet,
    now_ns: u64,
    in_flight_max: usize,
}

impl Source for Hostile {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        assert!(self.pending.iter().all(|pending| pending.slot != request.slot), "a slot is used twice");
        self.pending.push(request);
        self.in_flight_max = self.in_flight_max.max(self.pending.len());
        Ok(())
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        self.now_ns += 10_000;
        if self.pending.is_empty() {
            self.now_ns = self.now_ns.max(until_ns.unwrap_or(0));
            return Ok(());
        }
        let move_ = self.script.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        let request = self.pending.swap_remove(usize::from(move_) % self.pending.len());
        let result = match move_ % 8 {
            5 => Err(libc::EAGAIN),
            6 => Err(libc::EIO),
            7 if request.bytes > 512 => Ok(request.bytes / 1024 * 512),
            _ => Ok(request.bytes),
        };
        if let Ok(bytes) = result {
            self.read.extend(Extent::of_bytes(request.offset, u64::from(bytes)));
        }
        done.push(Completion { slot: request.slot, at_ns: self.now_ns, result });
        Ok(())
    }

    fn describe(&self) -> String {
        "hostile".into()
    }
}

impl Extend<Extent> for ExtentSet {
    fn extend<I: IntoIterator<Item = Extent>>(&mut self, extents: I) {
        extents.into_iter().for_each(|extent| {
            self.insert(extent);
        });
    }
}

proptest! {
    /// Whatever the device does, every sector planned is read or counted as unreadable, and depth is kept.
    #[test]
    fn nothing_is_lost(script in prop::collection::vec(any::<u8>(), 0..400), depth in 1u32..40, full in any::<bool>()) {
        let mode = if full { Mode::Full } else { Mode::Touch };
        let shape = Shape { sectors: 20_000, block_bytes: 512, unit_bytes: 512 << 10, mode };
        let plan = Plan::new([], shape).with_rest();
        let mut source = Hostile {
            script, at: 0, pending: Vec::new(), read: ExtentSet::new(), now_ns: 0, in_flight_max: 0,
        };
        let outcome = run(&mut source, plan.reads(), options(Depth::fixed(depth)), &AtomicBool::new(false), &mut ());
        prop_assert!(matches!(outcome.end, End::Complete));
        prop_assert!(source.in_flight_max <= depth as usize);
        for read in plan.reads() {
            for sector in read.start..read.start + u64::from(read.sectors) {
                let one = Extent::at(sector, 1).unwrap();
                let named = outcome.unreadable.iter().any(|(extent, _)| extent.contains(one));
                let listed: u64 = outcome.unreadable.iter().map(|(extent, _)| extent.sectors()).sum();
                let unnamed = outcome.errors > listed;
                prop_assert!(named || unnamed || source.read.covers(one), "sector {sector} was lost");
            }
        }
    }
}
