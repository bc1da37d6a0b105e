//! What is known of the warming: how far, how fast, for how long still, and what a stage has come to. Pure.
//!
//! Holds: the time is an argument; memory does not grow with the length of the run.

use super::metrics::Latencies;
use super::protocol::Waited;
use super::status::{Phase, SCHEMA, StageStatus, Status};
use super::watch::Picture;
use crate::plan::{REST, STAGES_KNOWN};
use crate::report::{StageReport, Totals, WarmReport};
use crate::units::as_s;
use std::collections::VecDeque;

/// Rates are those of the last seconds: several waves of slow first reads.
const RATE_WINDOW_NS: u64 = 5_000_000_000;
/// Pictures come ten times a second and at the end of each stage: those of the window, or less.
const RATE_POINTS_MAX: usize = 64;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Warm,
    Failed(String),
    Stopped,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at_ns: u64,
    reads: u64,
    bytes: u64,
}

/// What is known.
#[derive(Debug)]
pub struct State {
    /// What it is called among several.
    name: Option<String>,
    device: String,
    id: Option<String>,
    pid: u32,
    /// Names of the profile's stages, where that was loaded before.
    profile_stages: Option<Vec<String>>,
    /// Whether there is a rest to come after the stages.
    rest_expected: bool,
    started_ns: u64,
    picture: Picture,
    /// Whether a plan was made.
    planned: bool,
    points: VecDeque<Point>,
    end: Option<End>,
    /// Whether it was told to wait.
    pub paused: bool,
}

impl State {
    /// Nothing is known yet.
    pub fn new(device: String, pid: u32, rest_expected: bool, started_ns: u64) -> State {
        State {
            name: None,
            device,
            id: None,
            pid,
            profile_stages: None,
            rest_expected,
            started_ns,
            picture: Picture::default(),
            planned: false,
            points: VecDeque::new(),
            end: None,
            paused: false,
        }
    }

    /// One of several, with a name of its own and its profile's stages where these are known.
    pub fn among_several(self, name: String, stages: Option<Vec<String>>) -> State {
        State { name: Some(name), profile_stages: stages, ..self }
    }

    /// What it is called among several.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The disk was found.
    pub fn on_found(&mut self, device: String, id: Option<String>) {
        self.id = id;
        self.be_at(device);
    }

    /// One that is alone goes by the name that it was given.
    fn be_at(&mut self, device: String) {
        if self.name.is_some() && !device.is_empty() {
            self.device = device;
        }
    }

    /// Whether it has nothing to do with a stage, for certain: its profile has none of this name.
    pub fn lacks(&self, stage: &str) -> bool {
        self.profile_stages.is_some() && !self.has(stage)
    }

    /// Whether it has a stage.
    pub fn has(&self, stage: &str) -> bool {
        let is_rest = self.rest_expected && stage == REST;
        let in_profile = self.profile_stages.iter().flatten().any(|name| name == stage);
        is_rest || in_profile || self.picture.stages.iter().any(|planned| planned.name == stage)
    }

    /// It was so far at this time.
    pub fn on_picture(&mut self, now_ns: u64, picture: Picture) {
        self.planned = true;
        let point = Point { at_ns: now_ns, reads: picture.traffic.reads, bytes: picture.traffic.bytes };
        // Those that come together are of one moment: the last says most.
        if self.points.back().is_some_and(|last| last.at_ns == now_ns) {
            self.points.pop_back();
        }
        let is_old = |point: &Point| now_ns.saturating_sub(point.at_ns) > RATE_WINDOW_NS;
        while self.points.front().is_some_and(is_old) || self.points.len() >= RATE_POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.picture = picture;
    }

    /// It has ended. What its report says of the stages counts.
    pub fn on_end(&mut self, report: &WarmReport) {
        self.planned = true;
        self.be_at(report.device.clone());
        self.picture.in_flight = 0;
        self.points.clear();
        let whole = report.is_complete();
        let over = |stage: &StageStatus| {
            let told = report.stages.iter().find(|told| told.name == stage.name);
            // A budget may have left some of a stage that has come to its end.
            told.map_or(whole || stage.is_over, |told| told.units_left == 0)
        };
        self.picture.stages.iter_mut().for_each(|stage| stage.is_over = over(stage));
        self.end = Some(match report.end.as_str() {
            "complete" | "already warm" => End::Warm,
            "stopped" => End::Stopped,
            end => End::Failed(report.error.clone().unwrap_or_else(|| end.into())),
        });
    }

    /// What came of it by now, where nobody else tells.
    pub fn so_far(&self) -> (Vec<StageReport>, Totals) {
        let told = |stage: &StageStatus| StageReport {
            name: stage.name.clone(),
            units: stage.units,
            units_left: if stage.is_over {
                0
            } else {
                (stage.reads - stage.settled().min(stage.reads)).min(stage.units)
            },
            reads: stage.done,
            bytes: stage.bytes,
            ..StageReport::default()
        };
        let stages: Vec<StageReport> = self.picture.stages.iter().map(told).collect();
        let traffic = &self.picture.traffic;
        let totals = Totals {
            units: stages.iter().map(|stage| stage.units).sum(),
            units_left: stages.iter().map(|stage| stage.units_left).sum(),
            reads: traffic.reads,
            extra_reads: traffic.extra_reads,
            bytes_read: traffic.bytes,
            errors: traffic.errors,
            retries: traffic.retries,
            ..Totals::default()
        };
        (stages, totals)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        match self.end {
            Some(End::Warm) => Phase::Warm,
            Some(End::Failed(_)) => Phase::Failed,
            Some(End::Stopped) => Phase::Stopped,
            None if self.paused => Phase::Paused,
            None if self.planned => Phase::Warming,
            None => Phase::Starting,
        }
    }

    /// From submission to completion.
    pub fn latencies(&self) -> &Latencies {
        &self.picture.latencies
    }

    /// How far it is.
    pub fn status(&self, now_ns: u64) -> Status {
        let stages = self.stages();
        let (reads_per_s, bytes_per_s) = self.rates(now_ns);
        let left: u64 = stages.iter().map(|stage| stage.reads.saturating_sub(stage.settled())).sum();
        let is_known = self.phase() == Phase::Warming && reads_per_s > 0.0;
        Status {
            schema: SCHEMA,
            pid: self.pid,
            name: self.name.clone(),
            device: self.device.clone(),
            id: self.id.clone(),
            phase: self.phase(),
            stage: if self.planned && self.end.is_none() {
                stages.iter().find(|stage| !stage.is_over).map(|stage| stage.name.clone())
            } else {
                None
            },
            stages,
            traffic: self.picture.traffic,
            depth: self.picture.in_flight,
            reads_per_s,
            bytes_per_s,
            eta_s: is_known.then(|| left as f64 / reads_per_s),
            elapsed_s: as_s(now_ns.saturating_sub(self.started_ns)),
            error: match &self.end {
                Some(End::Failed(error)) => Some(error.clone()),
                _ => None,
            },
            volumes: Vec::new(),
        }
    }

    /// The stages of the plans so far, and the rest that is to come.
    fn stages(&self) -> Vec<StageStatus> {
        let mut stages = self.picture.stages.clone();
        let has_rest = stages.iter().any(|stage| stage.name == REST);
        if self.planned && self.rest_expected && !has_rest {
            let is_over = self.end == Some(End::Warm);
            stages.push(StageStatus { name: REST.into(), is_over, ..StageStatus::default() });
        }
        stages
    }

    /// Reads and bytes a second, lately.
    fn rates(&self, now_ns: u64) -> (f64, f64) {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return (0.0, 0.0) };
        // Where no picture comes any more the rate falls by itself.
        let over_ns = now_ns.max(last.at_ns).saturating_sub(first.at_ns);
        if over_ns == 0 {
            return (0.0, 0.0);
        }
        let rate = |first: u64, last: u64| last.saturating_sub(first) as f64 / as_s(over_ns);
        (rate(first.reads, last.reads), rate(first.bytes, last.bytes))
    }

    /// What a stage has come to; `Timeout` stands for not yet.
    pub fn stage(&self, name: &str) -> Waited {
        if !self.planned {
            return Waited::Timeout {};
        }
        if self.end == Some(End::Warm) && self.picture.stages.is_empty() {
            return Waited::Warm { errors: 0 };
        }
        let stages = self.stages();
        let Some(count) = stages_up_to(&stages, name) else {
            return match &self.end {
                // No plan was made, so that nothing is known of stages.
                Some(_) if stages.is_empty() => self.never(),
                _ => Waited::Unknown { stages: stages.into_iter().map(|stage| stage.name).collect() },
            };
        };
        let (upto, none_planned) = (&stages[..count], self.picture.stages.is_empty());
        if !none_planned && upto.iter().all(|stage| stage.is_over) {
            return Waited::Warm { errors: upto.iter().map(|stage| stage.failed).sum() };
        }
        if self.end.is_some() { self.never() } else { Waited::Timeout {} }
    }

    /// That a stage will not become warm any more, and why.
    pub fn never(&self) -> Waited {
        let reason = match &self.end {
            Some(End::Failed(error)) => error.clone(),
            Some(End::Warm) => "its budget was spent before".into(),
            _ => "it was told to end before".into(),
        };
        Waited::Never { reason }
    }
}

/// How many stages, from the first, must be over for the one of this name to be; `None` where there is no such.
fn stages_up_to(stages: &[StageStatus], name: &str) -> Option<usize> {
    if let Some(at) = stages.iter().position(|stage| stage.name == name) {
        return Some(at + 1);
    }
    let rank = |name: &str| STAGES_KNOWN.iter().position(|known| *known == name);
    let asked = rank(name).filter(|_| name != REST)?;
    // The profile has nothing for it: what comes before it counts, stages of the user's own by their place.
    let later = stages.iter().position(|stage| rank(&stage.name).is_some_and(|rank| rank > asked));
    Some(later.unwrap_or(stages.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixtures::picture;
    use crate::report::StageReport;

    const S: u64 = 1_000_000_000;

    fn report(end: &str, left: &[(&str, u64)]) -> WarmReport {
        let stage = |(name, left): &(&str, u64)| StageReport {
            name: (*name).into(),
            units_left: *left,
            ..StageReport::default()
        };
        WarmReport { end: end.into(), stages: left.iter().map(stage).collect(), ..WarmReport::default() }
    }

    #[test]
    fn rates_and_the_time_left_are_those_of_the_last_seconds() {
        let mut state = State::new("d".into(), 1, false, 0);
        assert_eq!((state.phase(), state.status(S).eta_s), (Phase::Starting, None));
        // Slow for a minute, then 100 reads a second.
        let mut done = 0;
        for second in 0..70 {
            done += if second < 60 { 1 } else { 100 };
            state.on_picture(second * S, picture(&[("ready", 2000, done)]));
        }
        let status = state.status(69 * S);
        assert_eq!((status.reads_per_s, status.bytes_per_s), (100.0, 409_600.0));
        assert_eq!(status.eta_s, Some((2000 - done) as f64 / 100.0));
        assert_eq!((status.phase, status.stage.as_deref(), status.depth), (Phase::Warming, Some("ready"), 7));
        state.paused = true;
        assert_eq!((state.phase(), state.status(69 * S).eta_s), (Phase::Paused, None));
    }

    #[test]
    fn a_long_run_takes_no_more_memory_than_a_short_one() {
        let mut state = State::new("d".into(), 1, false, 0);
        for at_ns in 0..100_000 {
            state.on_picture(at_ns, picture(&[("ready", 1_000_000, at_ns)]));
        }
        assert!(state.points.len() <= RATE_POINTS_MAX);
    }

    #[test]
    fn a_stage_is_waited_for_in_its_place() {
        let mut state = State::new("d".into(), 1, true, 0);
        assert_eq!(state.stage("ready"), Waited::Timeout {}, "nothing is known yet, not even the stages");
        assert_eq!(state.stage("nonsense"), Waited::Timeout {});
        state.on_picture(0, picture(&[("initrd", 2, 2), ("app", 2, 1), ("later", 2, 0)]));
        let warm = Waited::Warm { errors: 0 };
        for (stage, expected) in [
            ("initrd", &warm),
            ("sysinit", &Waited::Timeout {}),
            ("ready", &Waited::Timeout {}),
            ("app", &Waited::Timeout {}),
            ("rest", &Waited::Timeout {}),
        ] {
            assert_eq!(&state.stage(stage), expected, "{stage}");
        }
        let Waited::Unknown { stages } = state.stage("nonsense") else { panic!() };
        assert_eq!(stages, ["initrd", "app", "later", "rest"]);
        state.on_picture(1, picture(&[("initrd", 2, 2), ("app", 2, 2), ("later", 2, 0)]));
        assert_eq!((state.stage("ready"), state.stage("sysinit")), (warm.clone(), warm.clone()));
        assert_eq!(state.stage("later"), Waited::Timeout {});
        state.on_end(&report("complete", &[("initrd", 0), ("app", 0), ("later", 0), ("rest", 0)]));
        assert_eq!((state.stage("later"), state.stage("rest")), (warm.clone(), warm));
    }

    #[test]
    fn a_stage_that_does_not_become_warm_is_told_with_the_reason() {
        let end = |report: &WarmReport, stage: &str| {
            let mut state = State::new("d".into(), 1, false, 0);
            state.on_picture(0, picture(&[("ready", 2, 2), ("later", 2, 1)]));
            state.on_end(report);
            (state.stage(stage), state.phase())
        };
        let stopped = report("stopped", &[("ready", 0), ("later", 1)]);
        assert_eq!(end(&stopped, "ready"), (Waited::Warm { errors: 0 }, Phase::Stopped));
        assert!(matches!(end(&stopped, "later"), (Waited::Never { .. }, Phase::Stopped)));
        assert!(matches!(end(&stopped, "rest"), (Waited::Unknown { .. }, _)), "nobody asked for a rest");
        let gone = WarmReport { error: Some("it is gone".into()), ..report("device gone", &[("ready", 2)]) };
        assert_eq!(end(&gone, "ready"), (Waited::Never { reason: "it is gone".into() }, Phase::Failed));
        // Nothing was planned.
        let mut state = State::new("d".into(), 1, true, 0);
        state.on_end(&WarmReport { error: Some("no disk".into()), ..report("refused", &[]) });
        assert_eq!(state.stage("ready"), Waited::Never { reason: "no disk".into() });
        assert_eq!(state.stage("mine"), Waited::Unknown { stages: vec!["rest".into()] });
        let mut state = State::new("d".into(), 1, true, 0);
        state.on_end(&report("already warm", &[]));
        assert_eq!(state.stage("whatever"), Waited::Warm { errors: 0 });
    }
}
