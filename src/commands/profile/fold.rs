//! `profile fold`: what a boot asked for and a profile lacks.

use super::write_profile;
use crate::commands::common::{load_profile, load_recording, parsed};
use crate::commands::output::Output;
use crate::error::{Context, Error, Kind, Result};
use crate::profile::build::{Options, build};
use crate::profile::fold::fold;
use crate::units::{ByteSize, SECTOR_BYTES};
use crate::volume::Identity;
use serde::Serialize;
use std::path::PathBuf;

/// Add to a profile what a boot read and it lacks, behind what it has
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm effect --recording this-boot.rec
  ebs-prewarm profile fold -o web-2.yaml web.yaml this-boot.rec

The order of what the profile has stays: a boot that was warmed says nothing of how long its reads would have taken.")]
pub struct Args {
    /// Where to write the profile
    #[arg(short, long, value_name = "PROFILE")]
    output: PathBuf,
    /// What counts as there: some of a unit of this size
    #[arg(long, default_value = "512KiB", value_parser = parsed(str::parse::<ByteSize>), value_name = "SIZE")]
    unit: ByteSize,
    /// The profile
    profile: PathBuf,
    /// Recordings of boots, or what `effect --recording` wrote of them
    #[arg(required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Folded {
    profile: String,
    units_added: usize,
    extents: usize,
}

/// Folds and writes.
pub fn run(args: Args, output: Output) -> Result<()> {
    let unit_sectors = args.unit.0 / SECTOR_BYTES;
    if !args.unit.0.is_power_of_two() || args.unit.0 < 4096 {
        return Err(Error::usage(format!("failed to use a unit of {}", args.unit))
            .hint("a unit is a power of two of at least 4KiB"));
    }
    let base = load_profile(&args.profile)?;
    let recordings = args.recordings.iter().map(|path| load_recording(path)).collect::<Result<Vec<_>>>()?;
    let carried = |volume: &Option<Identity>| volume.as_ref().and_then(Identity::carried).map(str::to_owned);
    let of = carried(&base.volume);
    let mut named = args.recordings.iter().zip(&recordings);
    if let Some((path, recording)) = named.find(|(_, recording)| carried(&recording.header.volume) != of) {
        let volume = super::volume_line(recording.header.volume.as_ref());
        return Err(Error::new(
            Kind::OtherVolume,
            format!("failed to fold recording `{}`: it is of another volume, {volume}", path.display()),
        )
        .hint("fold boots of the image that the profile is for"));
    }
    let fresh = build(&base.name, &recordings, Options::default())?;
    let (profile, units_added) = fold(&base, &fresh, unit_sectors)?;
    write_profile(&args.output, &profile)
        .context(|| format!("failed to fold profile `{}`", args.output.display()))?;
    let folded =
        Folded { profile: args.output.display().to_string(), units_added, extents: profile.extents() };
    output.print(&folded, |folded| {
        format!("wrote {}: {} units added, {} extents", folded.profile, folded.units_added, folded.extents)
    })
}
