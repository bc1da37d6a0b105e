//! All volumes of a daemon: how far they are together, and what a stage has come to on each that has it. Pure.
//!
//! Holds: one that is alone is told of as itself; whoever waits is told no later that a stage will not become warm than
//! the first volume for which that is certain.

use super::protocol::Waited;
use super::state::State;
use super::status::{Phase, StageStatus, Status, Traffic};
use crate::plan::places;
use std::collections::BTreeSet;

/// What is known of each, in the order in which they were asked for.
#[derive(Debug)]
pub struct Volumes {
    /// There is one at least.
    pub each: Vec<State>,
    /// Whether all were told to end.
    pub stopping: bool,
}

impl Volumes {
    /// None was told anything.
    pub fn new(each: Vec<State>) -> Volumes {
        Volumes { each, stopping: false }
    }

    /// Whether all have ended.
    pub fn have_ended(&self) -> bool {
        self.each.iter().all(State::has_ended)
    }

    /// All were told to wait, or to go on.
    pub fn pause(&mut self, pause: bool) {
        self.each.iter_mut().for_each(|volume| volume.paused = pause);
    }

    /// How far they are.
    pub fn status(&self, now_ns: u64) -> Status {
        let mut volumes: Vec<Status> = self.each.iter().map(|volume| volume.status(now_ns)).collect();
        if volumes.len() == 1 { volumes.remove(0) } else { together(volumes) }
    }

    /// What a stage has come to on each volume that has to do with it. One whose profile has no such stage has not, where
    /// another's has it.
    fn on_each(&self, stage: &str) -> impl Iterator<Item = (&State, Waited)> {
        let somewhere = self.each.iter().any(|volume| volume.has(stage));
        let concerned = self.each.iter().filter(move |volume| !(somewhere && volume.lacks(stage)));
        concerned.map(move |volume| match volume.stage(stage) {
            // Its profile could not be loaded: whether it has the stage is not known.
            Waited::Unknown { .. } if somewhere && volume.has_ended() => (volume, volume.never()),
            waited => (volume, waited),
        })
    }

    /// What a stage has come to on all of them; `Timeout` stands for not yet.
    pub fn stage(&self, stage: &str) -> Waited {
        let (mut errors_sum, mut is_due, mut known) = (0, false, None::<Vec<String>>);
        for (volume, waited) in self.on_each(stage) {
            match waited {
                Waited::Never { reason } => return Waited::Never { reason: named(volume.name(), &reason) },
                Waited::Timeout {} => is_due = true,
                Waited::Unknown { stages } => known.get_or_insert_default().extend(stages),
                Waited::Warm { errors } => errors_sum += errors,
            }
        }
        match known {
            _ if is_due => Waited::Timeout {},
            Some(stages) => Waited::Unknown { stages: once(stages) },
            None => Waited::Warm { errors: errors_sum },
        }
    }

    /// Whether nothing of a stage is to come any more: on each volume it is warm, or that has ended.
    pub fn is_over(&self, stage: &str) -> bool {
        self.on_each(stage)
            .all(|(volume, waited)| volume.has_ended() || matches!(waited, Waited::Warm { .. }))
    }
}

fn named(name: Option<&str>, what: &str) -> String {
    name.map_or_else(|| what.into(), |name| format!("{name}: {what}"))
}

/// Each name where it comes first.
fn once(mut names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Of several.
fn together(volumes: Vec<Status>) -> Status {
    let stages = stages(&volumes);
    let under_way = |name: &String| volumes.iter().any(|volume| volume.stage.as_ref() == Some(name));
    let failed = volumes.iter().filter_map(|volume| {
        let error = volume.error.as_ref()?;
        Some(named(volume.name.as_deref(), error))
    });
    let errors: Vec<String> = failed.collect();
    let first = volumes.first();
    Status {
        schema: first.map_or(0, |volume| volume.schema),
        pid: first.map_or(0, |volume| volume.pid),
        name: None,
        device: once(volumes.iter().map(|volume| volume.device.clone()).collect()).join(", "),
        id: None,
        phase: phase(&volumes),
        stage: stages.iter().map(|stage| &stage.name).find(|name| under_way(name)).cloned(),
        stages,
        traffic: volumes.iter().fold(Traffic::default(), |sum, volume| sum.plus(volume.traffic)),
        depth: volumes.iter().map(|volume| volume.depth).sum(),
        reads_per_s: volumes.iter().map(|volume| volume.reads_per_s).sum(),
        bytes_per_s: volumes.iter().map(|volume| volume.bytes_per_s).sum(),
        eta_s: eta_s(&volumes),
        elapsed_s: first.map_or(0.0, |volume| volume.elapsed_s),
        error: (!errors.is_empty()).then(|| errors.join("; ")),
        volumes,
    }
}

/// What some are still at, and else how the worst has ended.
fn phase(volumes: &[Status]) -> Phase {
    let order = [Phase::Paused, Phase::Warming, Phase::Starting, Phase::Failed, Phase::Stopped, Phase::Warm];
    let is_of_some = |phase: &Phase| volumes.iter().any(|volume| volume.phase == *phase);
    order.into_iter().find(is_of_some).unwrap_or_default()
}

/// Each stage of all volumes that have it, in the order of a boot.
fn stages(volumes: &[Status]) -> Vec<StageStatus> {
    let mut all: Vec<(u8, StageStatus)> = Vec::new();
    for volume in volumes {
        let places = places(volume.stages.iter().map(|stage| stage.name.as_str()));
        for (place, stage) in places.into_iter().zip(&volume.stages) {
            match all.iter_mut().find(|(_, known)| known.name == stage.name) {
                Some((last, known)) => {
                    *last = place.max(*last);
                    known.add(stage);
                }
                None => all.push((place, stage.clone())),
            }
        }
    }
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, stage)| stage).collect()
}

/// Until the last has ended at its rate; and where one has no rate, since others go first under a budget, no less than all
/// that is left takes at the rate of all.
fn eta_s(volumes: &[Status]) -> Option<f64> {
    let warming = || volumes.iter().filter(|volume| volume.phase == Phase::Warming);
    let left_of = |stage: &StageStatus| stage.reads.saturating_sub(stage.settled());
    let left: u64 = warming().flat_map(|volume| volume.stages.iter().map(left_of)).sum();
    let reads_per_s: f64 = warming().map(|volume| volume.reads_per_s).sum();
    let last_s = warming().filter_map(|volume| volume.eta_s).reduce(f64::max)?;
    Some(last_s.max(left as f64 / reads_per_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixtures::picture;
    use crate::plan::REST;
    use crate::report::WarmReport;

    const S: u64 = 1_000_000_000;

    /// Volumes by name, with what their profiles have; `None` where that cannot be loaded.
    fn volumes(each: &[(&str, Option<&[&str]>)]) -> Volumes {
        let state = |(name, stages): &(&str, Option<&[&str]>)| {
            let stages = stages.map(|stages| stages.iter().map(|stage| stage.to_string()).collect());
            State::new("auto".into(), 7, false, 0).among_several(name.to_string(), stages)
        };
        Volumes::new(each.iter().map(state).collect())
    }

    fn ended(end: &str, error: Option<&str>) -> WarmReport {
        WarmReport { end: end.into(), error: error.map(Into::into), ..WarmReport::default() }
    }

    const WARM: Waited = Waited::Warm { errors: 0 };
    const DUE: Waited = Waited::Timeout {};

    #[test]
    fn a_stage_is_warm_when_it_is_on_all_that_have_it() {
        let mut all = volumes(&[("root", Some(&["initrd", "ready"])), ("data", Some(&["ready", "later"]))]);
        assert_eq!(all.stage("ready"), DUE);
        all.each[0].on_picture(0, picture(&[("initrd", 2, 2), ("ready", 2, 2)]));
        assert_eq!((all.stage("initrd"), all.stage("ready"), all.stage("later")), (WARM, DUE, DUE));
        assert_eq!((all.is_over("initrd"), all.is_over("ready")), (true, false));
        all.each[1].on_picture(0, picture(&[("ready", 4, 4), ("later", 4, 1)]));
        assert_eq!((all.stage("ready"), all.stage("later"), all.is_over("ready")), (WARM, DUE, true));
        // What neither has counts by its place in each, as with one volume.
        assert_eq!(all.stage("sysinit"), WARM);
        let Waited::Unknown { stages } = all.stage("mine") else { panic!() };
        assert_eq!(stages, ["initrd", "ready", "later"]);
        assert!(matches!(all.stage(REST), Waited::Unknown { .. }));
    }

    #[test]
    fn one_that_lacks_the_stage_keeps_nobody_waiting_whatever_becomes_of_it() {
        let mut all = volumes(&[("root", Some(&["ready"])), ("data", Some(&["app", "later"]))]);
        // Not even found by then.
        all.each[0].on_picture(0, picture(&[("ready", 2, 2)]));
        assert_eq!((all.stage("ready"), all.stage("app")), (WARM, DUE));
        all.each[1].on_end(&ended("refused", Some("no disk")));
        assert_eq!(all.stage("ready"), WARM);
        assert_eq!(all.stage("app"), Waited::Never { reason: "data: no disk".into() });
    }

    #[test]
    fn one_that_fails_is_told_at_once_and_the_manager_waits_for_the_others() {
        for stages in [None, Some(["ready"].as_slice())] {
            let mut all = volumes(&[("root", Some(&["ready"])), ("data", stages)]);
            all.each[1].on_end(&ended("refused", Some("no disk")));
            assert_eq!(all.stage("ready"), Waited::Never { reason: "data: no disk".into() });
            assert!(!all.is_over("ready") && !all.have_ended());
            all.each[0].on_picture(0, picture(&[("ready", 2, 2)]));
            assert!(matches!(all.stage("ready"), Waited::Never { .. }) && all.is_over("ready"));
            all.each[0].on_end(&ended("complete", None));
            assert!(all.have_ended());
        }
    }

    #[test]
    fn one_whose_profile_is_damaged_may_have_any_stage() {
        let state =
            |name: &str, stages| State::new("auto".into(), 7, true, 0).among_several(name.into(), stages);
        let mut all = Volumes::new(vec![state("root", Some(vec!["app".into()])), state("data", None)]);
        all.each[0].on_picture(0, picture(&[("app", 2, 2)]));
        assert_eq!(all.stage("app"), DUE);
        all.each[1].on_end(&ended("refused", Some("no profile")));
        assert_eq!(all.stage("app"), Waited::Never { reason: "data: no profile".into() });
        assert!(matches!(all.stage("mine"), Waited::Unknown { .. }) && all.is_over("app"));
    }

    #[test]
    fn all_together_are_the_sum_in_the_order_of_a_boot() {
        let mut all = volumes(&[("root", None), ("data", None)]);
        for (at_ns, done) in [(0, 0), (S, 10)] {
            all.each[0].on_picture(at_ns, picture(&[("ready", 20, done), ("rest", 100, 0)]));
            all.each[1].on_picture(at_ns, picture(&[("sysinit", 5, 5), ("ready", 7, 1), ("later", 2, 0)]));
        }
        all.each[1].on_found("/dev/x".into(), Some("vol1".into()));
        let status = all.status(S);
        let shown: Vec<_> = status.stages.iter().map(|it| (it.name.as_str(), it.reads, it.done)).collect();
        assert_eq!(shown, [("sysinit", 5, 5), ("ready", 27, 11), ("later", 2, 0), ("rest", 100, 0)]);
        assert_eq!((status.phase, status.stage.as_deref()), (Phase::Warming, Some("ready")));
        assert_eq!((status.traffic.reads, status.depth, status.pid), (16, 14, 7));
        assert_eq!(status.device, "auto, /dev/x");
        // The second has no rate: what all have left, at the rate of the first.
        assert_eq!((status.reads_per_s, status.eta_s), (10.0, Some(118.0 / 10.0)));
        assert_eq!(status.volumes[1].id.as_deref(), Some("vol1"));
        let text = status.text();
        for line in
            ["root: auto: warming", "data: /dev/x (vol1): warming", "\nall: warming, 0 of 2 volumes warm"]
        {
            assert!(text.contains(line), "`{line}` is not in {text}");
        }
    }

    #[test]
    fn where_all_have_ended_the_worst_end_counts() {
        for (ends, phase) in [
            (["complete", "already warm"], Phase::Warm),
            (["complete", "stopped"], Phase::Stopped),
            (["device gone", "stopped"], Phase::Failed),
        ] {
            let mut all = volumes(&[("root", None), ("data", None)]);
            all.pause(true);
            all.each[0].on_end(&ended(ends[0], None));
            assert_eq!(all.status(0).phase, Phase::Paused, "the other still is");
            all.each[1].on_end(&ended(ends[1], None));
            let status = all.status(0);
            assert_eq!((status.phase, status.stage), (phase, None), "{ends:?}");
        }
    }

    #[test]
    fn one_alone_is_told_of_as_itself() {
        let mut one = Volumes::new(vec![State::new("auto".into(), 7, false, 0)]);
        one.each[0].on_found("/dev/x".into(), Some("vol1".into()));
        one.each[0].on_end(&ended("refused", Some("no disk")));
        assert_eq!(one.stage("ready"), Waited::Never { reason: "no disk".into() });
        let json = serde_json::to_value(one.status(0)).unwrap();
        assert_eq!((&json["device"], json.get("volumes"), json.get("name")), (&"auto".into(), None, None));
        assert!(one.status(0).text().starts_with("auto: failed: no disk\n"));
    }
}
