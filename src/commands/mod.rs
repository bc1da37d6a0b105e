//! From argv to library calls: one file a verb. No clap type goes below this room.

#[cfg(feature = "report")]
mod bench;
mod common;
#[cfg(feature = "people")]
mod completions;
#[cfg(feature = "lab")]
mod demo;
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
mod warm;

use crate::error::Result;
use clap::{Parser, Subcommand};

/// Warms a volume made from a snapshot ahead of the boot that reads it.
#[derive(Debug, Parser)]
#[command(name = "ebs-prewarm", version, max_term_width = 100)]
pub struct Cli {
    /// How much to log on stderr: error, warn, info, debug, trace
    #[arg(long, global = true, default_value = "warn", value_name = "LEVEL", help_heading = "Everywhere")]
    pub log: tracing::level_filters::LevelFilter,
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Record(record::Args),
    #[cfg(feature = "people")]
    Profile(profile::Args),
    Warm(warm::WarmArgs),
    Plan(plan::PlanArgs),
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
