//! `profile show`: what is in a profile.

use super::{identity_for, shown_stages, stage_table, volume_line};
use crate::commands::common::load_profile;
use crate::commands::output::Output;
use crate::error::{Context, Result};
use crate::profile::bind::{recorded, resolve};
use crate::volume::Identity;
use serde::Serialize;
use std::path::PathBuf;

/// Show what is in a profile; with --json every extent, in warming order
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm profile show web.yaml
  ebs-prewarm profile show web.yaml --json --device /dev/nvme1n1")]
pub struct Args {
    /// The profile, compiled or for people
    profile: PathBuf,
    /// Show extents as they lie on this disk, not on the one recorded: a device, an image, or `auto`
    #[arg(long)]
    device: Option<PathBuf>,
}

/// A contract: see the command line in README.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    volume: Option<Identity>,
    stages: Vec<Stage>,
}

#[derive(Debug, Serialize)]
struct Stage {
    name: String,
    /// Start and number of sectors, absolute on the disk, in warming order.
    extents: Vec<[u64; 2]>,
}

/// Shows it.
pub fn run(args: Args, output: Output) -> Result<()> {
    let profile = load_profile(&args.profile)?;
    let stages = match &args.device {
        None => recorded(&profile)?,
        Some(device) => {
            let fail =
                || format!("failed to use profile `{}` on `{}`", args.profile.display(), device.display());
            resolve(&profile, &identity_for(&profile, device)?).context(fail)?
        }
    };
    let shown = Shown {
        name: profile.name.clone(),
        volume: profile.volume.clone(),
        stages: stages
            .iter()
            .map(|stage| Stage {
                name: stage.name.clone(),
                extents: stage.extents.iter().map(|extent| [extent.start(), extent.sectors()]).collect(),
            })
            .collect(),
    };
    output.print(&shown, |_| {
        let volume = volume_line(profile.volume.as_ref());
        let from = match profile.recordings.len() {
            // The compiled form drops them.
            0 => String::new(),
            count => format!("recordings: {count}, {} events, {} lost\n", profile.events, profile.lost),
        };
        format!("name: {}\nvolume: {volume}\n{from}{}", profile.name, stage_table(&shown_stages(&stages)))
    })
}
