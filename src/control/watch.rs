//! The engine's side: what it did so far, handed over to the control plane.
//!
//! Holds: it never waits: where the channel is full a picture is left out, and the next one is whole again.

use super::metrics::Latencies;
use super::status::{StageStatus, Traffic};
use crate::engine::{Outcome, Progress, Settled};
use crate::error::Result;
use crate::plan::StagePlan;
use crate::report::WarmReport;
use crate::warm::{Bound, Onlooker};
use crossbeam_channel::{Receiver, Sender, bounded};

/// Pictures that wait to be looked at; ten a second come.
const PICTURES_MAX: usize = 32;

/// What the warming was at one moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Of all plans so far.
    pub stages: Vec<StageStatus>,
    pub traffic: Traffic,
    pub latencies: Latencies,
    pub in_flight: u32,
}

/// What the control plane is told.
#[derive(Debug)]
pub enum Event {
    /// The disk was found: where, and what it is recognised by.
    Found(String, Option<String>),
    /// How far it is.
    Picture(Box<Picture>),
    /// It has ended. What came of it: a report that says how it ended, or why nothing was read.
    Ended(Box<Result<WarmReport>>),
}

/// Both ends.
pub fn channel() -> (Watch, Receiver<Event>) {
    let (sender, receiver) = bounded(2 * PICTURES_MAX);
    let watch = Watch { sender, now: Picture::default(), before: Before::default(), first: 0, ticks: 0 };
    (watch, receiver)
}

/// What earlier plans of the run came to.
#[derive(Debug, Default)]
struct Before {
    traffic: Traffic,
    latencies: Latencies,
}

/// Looks on.
#[derive(Debug)]
pub struct Watch {
    sender: Sender<Event>,
    now: Picture,
    before: Before,
    /// Index of the present plan's first stage.
    first: usize,
    ticks: u64,
}

impl Watch {
    /// Tells how it ended.
    pub fn ended(self, came: Result<WarmReport>) {
        // There is room: pictures take half of it. Where nobody listens any more, nobody is to be told.
        let _ = self.sender.try_send(Event::Ended(Box::new(came)));
    }

    fn send(&self) {
        if self.sender.len() < PICTURES_MAX {
            let _ = self.sender.try_send(Event::Picture(Box::new(self.now.clone())));
        }
    }
}

impl Onlooker for Watch {
    fn found(&mut self, bound: &Bound) {
        let (device, identity) = (bound.device.path().display().to_string(), &bound.identity);
        let id = identity.serial.as_deref().or(identity.carried()).map(Into::into);
        // There is room: it is the first of all events.
        let _ = self.sender.try_send(Event::Found(device, id));
    }
}

impl Progress for Watch {
    fn begin(&mut self, stages: &[StagePlan]) {
        let known = |stage: &StagePlan| self.now.stages.iter().any(|known| known.name == stage.name);
        // The same stages once more are read in full now, since touching them was not enough; others come after them,
        // which are begun when all before is over.
        self.first = if stages.iter().any(known) { 0 } else { self.now.stages.len() };
        self.now.stages.truncate(self.first);
        self.now.stages.iter_mut().for_each(|stage| stage.is_over = true);
        self.now.stages.extend(stages.iter().map(|stage| StageStatus {
            name: stage.name.clone(),
            units: stage.units,
            reads: stage.reads,
            is_over: stage.reads == 0,
            ..StageStatus::default()
        }));
        self.before.traffic = self.now.traffic;
        self.before.latencies = self.now.latencies.clone();
        self.ticks = 0;
        self.send();
    }

    fn settled(&mut self, stages: &[Settled]) {
        for (stage, settled) in self.now.stages[self.first..].iter_mut().zip(stages) {
            stage.settle(settled);
        }
    }

    fn tick(&mut self, outcome: &Outcome, in_flight: u32, _now_ns: u64) {
        for (stage, done) in self.now.stages[self.first..].iter_mut().zip(&outcome.stages) {
            stage.bytes = done.bytes;
        }
        let traffic = Traffic {
            reads: outcome.reads(),
            extra_reads: outcome.extra_reads,
            bytes: outcome.bytes_read,
            errors: outcome.errors,
            retries: outcome.retries,
        };
        self.now.traffic = self.before.traffic.plus(traffic);
        // A look at each latency costs: once a second, and at the end, when nothing is in flight.
        if self.ticks.is_multiple_of(10) || in_flight == 0 {
            self.now.latencies = self.before.latencies.plus(&Latencies::of(&outcome.latency_us));
        }
        self.ticks += 1;
        self.now.in_flight = in_flight;
        self.send();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, reads: u64) -> StagePlan {
        StagePlan { name: name.into(), units: reads, reads, ..StagePlan::default() }
    }

    fn outcome(reads: u64) -> Outcome {
        let mut outcome = Outcome::new(0, 1, 512, String::new());
        outcome.stage(0).reads = reads;
        outcome.latency_us.record_n(10, reads).unwrap();
        outcome
    }

    fn last(events: &Receiver<Event>) -> Picture {
        match events.try_iter().last() {
            Some(Event::Picture(picture)) => *picture,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn counts_never_fall_over_the_plans_of_a_run() {
        let (mut watch, events) = channel();
        watch.begin(&[stage("ready", 4), stage("later", 2)]);
        watch.settled(&[Settled { done: 4, ..Settled::default() }]);
        watch.tick(&outcome(5), 3, 0);
        let picture = last(&events);
        assert_eq!(picture.stages.iter().map(|stage| stage.is_over).collect::<Vec<_>>(), [true, false]);
        // Touching was not enough: what was over is not.
        watch.begin(&[stage("ready", 40), stage("later", 20)]);
        watch.tick(&outcome(7), 3, 0);
        let picture = last(&events);
        assert!(picture.stages.iter().all(|stage| !stage.is_over), "{picture:?}");
        assert_eq!((picture.traffic.reads, picture.latencies.count()), (12, 12));
        // The rest begins when all before it is over.
        watch.begin(&[stage("rest", 9)]);
        let picture = last(&events);
        let over: Vec<_> = picture.stages.iter().map(|stage| (stage.name.as_str(), stage.is_over)).collect();
        assert_eq!(over, [("ready", true), ("later", true), ("rest", false)]);
    }

    #[test]
    fn nobody_who_listens_holds_it_up_and_the_end_has_its_place() {
        let (mut watch, events) = channel();
        watch.begin(&[stage("ready", 4)]);
        for reads in 0..1000 {
            watch.tick(&outcome(reads), 1, 0);
        }
        watch.ended(Ok(WarmReport::default()));
        assert_eq!(events.len(), PICTURES_MAX + 1);
        assert!(matches!(events.try_iter().last(), Some(Event::Ended(_))));
        let (watch, events) = channel();
        drop(events);
        watch.ended(Ok(WarmReport::default()));
    }
}
