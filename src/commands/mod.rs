//! From argv to library calls: one file a verb. No clap type goes below this room.

#[cfg(feature = "control")]
mod ask;
#[cfg(feature = "report")]
mod bench;
mod common;
#[cfg(feature = "people")]
mod completions;
#[cfg(feature = "control")]
mod daemon;
#[cfg(feature = "lab")]
mod demo;
#[cfg(feature = "report")]
mod effect;
#[cfg(feature = "lab")]
mod lab;
#[cfg(feature = "people")]
mod man;
#[cfg(feature = "report")]
mod measured;
mod output;
mod plan;
#[cfg(feature = "report")]
mod probe;
#[cfg(feature = "people")]
mod profile;
mod progress;
mod record;
#[cfg(feature = "report")]
mod volumes;
mod warm;
mod watch;

use crate::error::Result;
use clap::{Parser, Subcommand};
use tracing::level_filters::LevelFilter;

/// Warms a volume made from a snapshot ahead of the boot that reads it.
#[derive(Debug, Parser)]
#[command(name = "ebs-prewarm", version, max_term_width = 100)]
pub struct Cli {
    /// How much to log on stderr: error, warn, info, debug, trace; if not given, warn, and info for a daemon
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Everywhere")]
    pub log: Option<LevelFilter>,
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    #[command(subcommand)]
    verb: Verb,
}

impl Cli {
    /// What is logged.
    pub fn level(&self) -> LevelFilter {
        #[cfg(feature = "control")]
        if matches!(self.verb, Verb::Daemon(_)) {
            return self.log.unwrap_or(LevelFilter::INFO);
        }
        self.log.unwrap_or(LevelFilter::WARN)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Record(record::Args),
    #[cfg(feature = "people")]
    Profile(profile::Args),
    Warm(warm::WarmArgs),
    Plan(plan::PlanArgs),
    #[cfg(feature = "report")]
    Effect(effect::EffectArgs),
    #[cfg(feature = "control")]
    Daemon(Box<daemon::DaemonArgs>),
    #[cfg(feature = "control")]
    Status(ask::StatusArgs),
    #[cfg(feature = "control")]
    Wait(ask::WaitArgs),
    #[cfg(feature = "control")]
    Pause(ask::PauseArgs),
    #[cfg(feature = "control")]
    Resume(ask::ResumeArgs),
    #[cfg(feature = "control")]
    Stop(ask::StopArgs),
    #[cfg(feature = "control")]
    Metrics(ask::MetricsArgs),
    #[cfg(feature = "report")]
    Probe(probe::ProbeArgs),
    #[cfg(feature = "report")]
    Bench(bench::BenchArgs),
    /// The cold-volume emulator: an image that behaves like a volume made from a snapshot
    #[cfg(feature = "lab")]
    #[command(subcommand)]
    Lab(lab::Lab),
    #[cfg(feature = "lab")]
    Demo(demo::Args),
    #[cfg(feature = "people")]
    Man(man::Args),
    #[cfg(feature = "people")]
    Completions(completions::Args),
}

/// Runs the verb; what it prints on stdout is its result.
pub fn run(cli: Cli) -> Result<()> {
    let output = output::Output { json: cli.json };
    match cli.verb {
        Verb::Warm(args) => warm::run(args, output),
        Verb::Plan(args) => plan::run(args, output),
        #[cfg(feature = "report")]
        Verb::Effect(args) => effect::run(args, output),
        #[cfg(feature = "control")]
        Verb::Daemon(args) => daemon::run(*args, output),
        #[cfg(feature = "control")]
        Verb::Status(args) => args.run(output),
        #[cfg(feature = "control")]
        Verb::Wait(args) => args.run(output),
        #[cfg(feature = "control")]
        Verb::Pause(args) => args.run(output),
        #[cfg(feature = "control")]
        Verb::Resume(args) => args.run(output),
        #[cfg(feature = "control")]
        Verb::Stop(args) => args.run(output),
        #[cfg(feature = "control")]
        Verb::Metrics(args) => args.run(output),
        Verb::Record(args) => record::run(args, output),
        #[cfg(feature = "people")]
        Verb::Profile(args) => profile::run(args, output),
        #[cfg(feature = "report")]
        Verb::Probe(args) => probe::run(args, output),
        #[cfg(feature = "report")]
        Verb::Bench(args) => bench::run(args, output),
        #[cfg(feature = "lab")]
        Verb::Lab(lab) => lab::run(lab, output),
        #[cfg(feature = "lab")]
        Verb::Demo(args) => demo::run(args, output),
        #[cfg(feature = "people")]
        Verb::Man(args) => man::run(args, output),
        #[cfg(feature = "people")]
        Verb::Completions(args) => completions::run(args, output),
    }
}
