//! What a warming did for others: the boot's own reads are left to it, and who was first is told unit by unit.

use super::*;
use crate::support::read_direct;
use ebs_prewarm::recording::format;
use std::path::PathBuf;

/// The trace that is left on for a volume.
fn trace(volume: &Volume) -> PathBuf {
    let number = Device::open(volume.cold.device()).unwrap().number().unwrap().kernel();
    let name = format!("ebs-prewarm-watch-{}-{}", number >> 20, number & 0xf_ffff);
    Path::new("/sys/kernel/tracing/instances").join(name)
}

fn is_traced(volume: &Volume) -> bool {
    // One that was just made is on before its events are.
    let is_on =
        |name: &str| fs::read_to_string(trace(volume).join(name)).is_ok_and(|text| text.trim() == "1");
    is_on("events/block/block_rq_issue/enable")
        && is_on("events/block/block_rq_complete/enable")
        && is_on("tracing_on")
}

/// Reads a block of each unit, as a boot would.
fn ask(volume: &Volume, units: impl IntoIterator<Item = u64>) {
    for unit in units {
        read_direct(volume.cold.device(), unit * UNIT, 4096).unwrap();
    }
}

/// A warming of 60 units, in order, 20 a second, that listens.
fn warming(volume: &Volume) -> Started {
    let profile = volume.profile_of_units(0..60);
    let line =
        format!("--profile {profile} --mode touch --depth 1 --iops 20 --watch --journal {}", volume.path(""));
    let warm = start(volume.warm(&line));
    volume.wait_until(|_| is_traced(volume));
    warm
}

/// A volume that was warmed while others read of it, and after.
pub(crate) fn watched() -> Volume {
    let volume = Volume::new(100, "gp3", &["first_read=5ms"]);
    let warm = warming(&volume);
    // The boot is ahead of the warming here, however slow the machine is.
    ask(&volume, 50..60);
    warm.end().exits(0, &[]);
    // It goes on to be seen when the warming is over.
    assert!(is_traced(&volume));
    ask(&volume, (0..10).chain(60..63));
    volume
}

#[test]
fn the_boots_own_reads_are_left_to_it_and_who_was_first_is_told() {
    if !require_root() {
        return;
    }
    let volume = watched();
    let report = volume.report();
    let (taken, reads) = (number(&report, "/totals/taken"), number(&report, "/totals/reads"));
    assert!(taken >= 1, "none was left to the boot: {report:#}");
    assert_eq!(taken + reads, 60, "{report:#}");
    // Who looks in the wrong place takes nothing away.
    let elsewhere = format!("--journal {}", volume.path("elsewhere"));
    run(volume.verb("effect", &elsewhere)).exits(1, &["what a warming left", "--journal DIR"]);
    assert!(is_traced(&volume));
    let (told, recording, metrics) =
        (volume.path("effect.json"), volume.path("boot.rec"), volume.path("m.prom"));
    let line =
        format!("--journal {} --report {told} --recording {recording} --metrics {metrics}", volume.path(""));
    let out = run(volume.verb("effect", &line)).ok();
    assert!(out.contains("waiting:") && out.contains("own share:"), "{out}");
    assert!(!trace(&volume).exists());
    let effect = read_effect(&told);
    let of = |state: &str| number(&effect, &format!("/totals/{state}"));
    assert_eq!((of("units"), of("never"), of("left")), (60, 40, 0), "{effect:#}");
    assert!(of("before") >= 10 && of("after") >= taken, "{effect:#}");
    assert_eq!(of("before") + of("late") + of("after"), 20, "{effect:#}");
    // By the emulator, that is all that anybody touched.
    assert_eq!(number(&effect, "/missed_units"), 3);
    assert_eq!(volume.hydrated().len() as u64, of("units") - of("left") + 3);
    assert_eq!(number(&effect, "/boot/reads"), 23, "{effect:#}");
    // Those of the plan; what was read again to verify, and to see whether it was warm, comes on top.
    assert!((reads..=reads + 100).contains(&number(&effect, "/own/reads")), "{effect:#}");
    let metrics = fs::read_to_string(metrics).unwrap();
    assert!(metrics.contains("ebs_prewarm_effect_units{state=\"missed\"} 3\n"), "{metrics}");
    // The stages are those of the boot from its start, long over though it is.
    let stages = format::decode(&fs::read(&recording).unwrap()).unwrap().header.stages;
    assert_eq!(stages[0].from_us, 0, "{stages:?}");
    // What was missed is folded back.
    let (profile, folded) = (volume.path("profile.bin"), volume.path("folded.yaml"));
    let out = ebs(["profile", "fold", "-o", &folded, &profile, &recording]);
    assert!(out.contains(": 3 units added"), "{out}");
    let plan = |profile: &str| {
        let plan = run(volume.verb("plan", &format!("--json --profile {profile}"))).ok();
        serde_json::from_str::<Value>(&plan).unwrap()
    };
    assert_eq!((number(&plan(&profile), "/units"), number(&plan(&folded), "/units")), (60, 63));
    // It can be asked for once.
    run(volume.verb("effect", &line)).exits(1, &["none was left on", "--watch"]);
}

#[test]
fn what_another_process_of_this_program_warms_is_not_what_the_boot_asked_for() {
    if !require_root() {
        return;
    }
    let volume = watched();
    // As ebs-prewarm-rest.service does before anybody asks.
    let rest = volume.profile_of_units(70..90);
    run(volume.warm(&format!("--profile {rest} --mode touch --depth 1"))).ok();
    let profile = volume.profile_of_units(0..60);
    let (told, recording) = (volume.path("effect.json"), volume.path("boot.rec"));
    let line = format!("--journal {} --report {told} --recording {recording}", volume.path(""));
    let out = run(volume.verb("effect", &line)).ok();
    assert!(out.contains("requests were those of another ebs-prewarm"), "{out}");
    let effect = read_effect(&told);
    assert_eq!(number(&effect, "/missed_units"), 3, "{effect:#}");
    let out = ebs(["profile", "fold", "-o", &volume.path("folded.yaml"), &profile, &recording]);
    assert!(out.contains(": 3 units added"), "{out}");
}

fn read_effect(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn what_a_killed_warming_has_left_on_is_switched_off_by_whoever_asks() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "gp3", &["first_read=5ms"]);
    let warm = warming(&volume);
    warm.signal(libc::SIGKILL);
    assert_eq!(warm.end().signal, Some(libc::SIGKILL));
    assert!(is_traced(&volume));
    let line = format!("--journal {}", volume.path(""));
    run(volume.verb("effect", &line)).exits(1, &["what a warming left", "killed"]);
    assert!(!trace(&volume).exists());
}

#[test]
fn who_asks_while_it_is_being_warmed_waits_and_takes_nothing_away() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(100, "gp3", &["first_read=5ms"]);
    let warm = warming(&volume);
    let line = format!("--journal {} --report {}", volume.path(""), volume.path("effect.json"));
    let asking = start(volume.verb("effect", &line));
    warm.end().exits(0, &[]);
    asking.end().exits(0, &[]);
    let effect = read_effect(&volume.path("effect.json"));
    assert_eq!(number(&effect, "/totals/never"), 60, "{effect:#}");
}
