//! The product beside the alternatives, in the same run, round by round: `cargo bench --bench compare`.
//!
//! `cargo bench --bench compare -- [SECTION...] [--rounds N] [--quick] [--json FILE]`; without sections, all of
//! them. Contenders take turns within a round and a ratio is that of two turns of one round, so that a machine
//! that is busy for a while is busy for all. The emulator runs in a process of its own, so that its processor time
//! is nobody's. It ends with 1 when something promised was missed, or, with CI=true, not run.
//!
//! Wants root (loop devices, FUSE, tracefs) and fio (`apt-get install fio`); says so when they are missing.

mod bed;
mod fast;
mod fixtures;
mod foreground;
mod recording;
mod run;
mod scattered;
mod size;
mod start;
mod table;
mod whole;

use ebs_prewarm::error::{Context, Error, Result};
use std::path::PathBuf;
use table::Found;

/// What a section needs to know.
pub struct Setup {
    pub rounds: usize,
    /// Fewer bytes, no whole `dd`: to see that it works, not to measure.
    pub quick: bool,
}

struct Section {
    name: &'static str,
    what: &'static str,
    needs_fio: bool,
    run: fn(&Setup) -> Result<Found>,
}

const SECTIONS: [Section; 7] = [
    Section {
        name: "scattered",
        what: "2,000 scattered units, against the bound and fio",
        needs_fio: true,
        run: scattered::run,
    },
    Section {
        name: "whole",
        what: "a whole volume of 2 GiB, against the documented fio and dd",
        needs_fio: true,
        run: whole::run,
    },
    Section {
        name: "fast",
        what: "4 KiB reads at depth 64 of a device that is never waited for, against fio",
        needs_fio: true,
        run: fast::run,
    },
    Section {
        name: "foreground",
        what: "a reader with one read in flight while the rest is warmed, against fio with idle priority",
        needs_fio: true,
        run: foreground::run,
    },
    Section {
        name: "start",
        what: "from spawn to the first read, and memory, of the static build",
        needs_fio: false,
        run: start::run,
    },
    Section {
        name: "recording",
        what: "units recorded beside units hydrated, and events lost",
        needs_fio: true,
        run: recording::run,
    },
    Section {
        name: "size",
        what: "bytes of a compiled profile of a real workload",
        needs_fio: false,
        run: size::run,
    },
];

struct Arguments {
    sections: Vec<String>,
    rounds: usize,
    quick: bool,
    json: Option<PathBuf>,
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments { sections: Vec::new(), rounds: 5, quick: false, json: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo says so itself.
            "--bench" => {}
            "--quick" => found.quick = true,
            "--rounds" => {
                let number = words.next().and_then(|number| number.parse().ok());
                found.rounds = number.filter(|number| *number > 0).ok_or_else(|| {
                    Error::usage("failed to parse `--rounds`").hint("give a number from 1: --rounds 5")
                })?;
            }
            "--json" => {
                let file = words.next().ok_or_else(|| Error::usage("failed to parse `--json`: no file"))?;
                found.json = Some(file.into());
            }
            name if SECTIONS.iter().any(|section| section.name == name) => found.sections.push(word),
            _ => {
                let names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
                return Err(Error::usage(format!("failed to understand `{word}`")).hint(format!(
                    "sections: {}; options: --rounds N, --quick, --json FILE",
                    names.join(", ")
                )));
            }
        }
    }
    Ok(found)
}

/// Runs a section, or says loudly why not.
fn found(section: &Section, setup: &Setup) -> Result<Found> {
    println!("\n== {}: {}", section.name, section.what);
    let missing = run::missing(section.needs_fio);
    if !missing.is_empty() {
        let text = format!("NOT RUN: {} is missing: {}", section.name, missing.join(", "));
        println!("{text}");
        return Ok(Found { promises: vec![table::Promise::not_run(text)], ..Found::default() });
    }
    let mut found = (section.run)(setup)?;
    found.finish();
    print!("{}", found.text());
    Ok(found)
}

fn compare() -> Result<bool> {
    let arguments = arguments()?;
    let setup = Setup { rounds: arguments.rounds, quick: arguments.quick };
    run::catch_interrupts();
    let machine = run::machine();
    println!(
        "{machine}; rounds: {}{}",
        setup.rounds,
        if setup.quick { ", quick: not a measurement" } else { "" }
    );
    let chosen = |section: &&Section| {
        arguments.sections.is_empty() || arguments.sections.iter().any(|name| name == section.name)
    };
    let mut sections = serde_json::Map::new();
    let (mut missed, mut not_run) = (0, 0);
    for section in SECTIONS.iter().filter(chosen) {
        let load = run::load();
        let found = found(section, &setup).context(|| format!("failed to run section `{}`", section.name))?;
        missed += found.promises.iter().filter(|promise| promise.met == Some(false)).count();
        not_run += found.promises.iter().filter(|promise| promise.met.is_none()).count();
        let mut json = found.json();
        json["load"] = serde_json::json!([load, run::load()]);
        sections.insert(section.name.into(), json);
        if let Some(file) = &arguments.json {
            // After each section: what was measured before an interruption is kept.
            let all = serde_json::json!({
                "schema": 1, "machine": machine, "rounds": setup.rounds, "quick": setup.quick, "sections": sections,
            });
            std::fs::write(file, format!("{all:#}\n"))
                .context(|| format!("failed to write `{}`", file.display()))?;
        }
    }
    println!("\npromises missed: {missed}; not run: {not_run}");
    let strict = std::env::var("CI").as_deref() == Ok("true");
    Ok(missed == 0 && (not_run == 0 || !strict))
}

fn main() -> std::process::ExitCode {
    // The process that starts another and tells its memory has to be small itself.
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(start::MEMORY_OF) {
        return start::memory_of(words);
    }
    match compare() {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", error.full_text());
            std::process::ExitCode::from(error.kind().exit_code())
        }
    }
}
