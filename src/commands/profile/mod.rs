//! `profile`: what is done with profiles at a desk, one file a verb.

mod build;
mod check;
mod compile;
mod fold;
mod import;
mod paths;
mod seal;
mod show;

use super::output::Output;
use crate::device::{Device, disk_path};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::profile::bind::{ResolvedStage, looked_up};
use crate::profile::{Profile, yaml};
use crate::units::{SECTOR_BYTES, human_bytes};
use crate::volume::Identity;
use clap::Subcommand;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

/// The unit that sizes are shown for: the block of the snapshot API (facts.md), a guess at what hydrates at once.
const UNIT_SECTORS: u64 = 1024;

/// Build, look at and convert profiles
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(build::Args),
    Paths(paths::Args),
    Show(show::Args),
    Check(check::Args),
    Seal(seal::Args),
    Compile(compile::Args),
    Fold(fold::Args),
    Import(import::Args),
}

/// Runs the verb.
pub fn run(args: Args, output: Output) -> Result<()> {
    match args.verb {
        Verb::Build(args) => build::run(args, output),
        Verb::Paths(args) => paths::run(args, output),
        Verb::Show(args) => show::run(args, output),
        Verb::Check(args) => check::run(args, output),
        Verb::Seal(args) => seal::run(args, output),
        Verb::Compile(args) => compile::run(args, output),
        Verb::Fold(args) => fold::run(args, output),
        Verb::Import(args) => import::run(args, output),
    }
}

/// The identity of the disk that a profile is to be resolved on.
fn identity_for(profile: &Profile, device: &Path) -> Result<Identity> {
    let device = Device::open(&disk_path(Path::new("/"), device)?)?;
    if profile.volume.is_none() {
        // Nothing to compare: nothing is read.
        return Ok(Identity::of_size(device.sectors()));
    }
    let wanted = looked_up(profile);
    device.identity(Path::new("/"), |partuuid| wanted.contains(&partuuid))
}

/// The profile's name: what was asked for, or the name of the file without its last extension.
fn name_of(asked: Option<String>, path: &Path) -> Result<String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    asked.or_else(|| stem.map(str::to_owned)).ok_or_else(|| {
        Error::usage(format!("failed to make a name of `{}`", path.display())).hint("give one with --name")
    })
}

/// Writes a profile for people, and says what is in it.
fn write_profile(path: &Path, profile: &Profile) -> Result<()> {
    write_atomically(path, yaml::write(profile).as_bytes())
}

/// What a stage holds.
#[derive(Debug, Serialize)]
struct StageShown {
    name: String,
    extents: usize,
    bytes: u64,
    /// Units of 512 KiB that no stage before has.
    units_of_512kib: usize,
}

fn shown_stages(stages: &[ResolvedStage]) -> Vec<StageShown> {
    let mut seen = HashSet::new();
    let shown = |stage: &ResolvedStage| StageShown {
        name: stage.name.clone(),
        extents: stage.extents.len(),
        bytes: stage.extents.iter().map(|extent| extent.bytes()).sum(),
        units_of_512kib: {
            let before = seen.len();
            seen.extend(stage.extents.iter().flat_map(|extent| extent.units(UNIT_SECTORS)));
            seen.len() - before
        },
    };
    stages.iter().map(shown).collect()
}

/// A table of stages for people.
fn stage_table(stages: &[StageShown]) -> String {
    let width = stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("{:width$}  {:>9}  {:>9}  {:>13}\n", "stage", "extents", "bytes", "512 KiB units");
    for StageShown { name, extents, bytes, units_of_512kib } in stages {
        let bytes = human_bytes(*bytes);
        writeln!(text, "{name:width$}  {extents:>9}  {bytes:>9}  {units_of_512kib:>13}")
            .expect("a string takes any text");
    }
    text
}

/// A volume for people, in a line.
fn volume_line(volume: Option<&Identity>) -> String {
    let Some(volume) = volume else { return "any of its size (unbound)".into() };
    let mut parts = vec![human_bytes(volume.sectors * SECTOR_BYTES)];
    for (what, value) in
        [("serial", &volume.serial), ("table", &volume.table_uuid), ("filesystem", &volume.fs_uuid)]
    {
        parts.extend(value.as_ref().map(|value| format!("{what} {value}")));
    }
    match volume.partitions.len() {
        0 => {}
        1 => parts.push("1 partition".into()),
        count => parts.push(format!("{count} partitions")),
    }
    parts.join(", ")
}
