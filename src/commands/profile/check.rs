//! `profile check`: is a profile whole, and is it for this volume.

use super::{identity_for, volume_line};
use crate::commands::common::load_profile;
use crate::commands::output::Output;
use crate::error::{Context, Result};
use crate::profile::bind::resolve;
use serde::Serialize;
use std::path::PathBuf;

/// Check that a profile is whole, and with --device that it is for that volume
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm profile check web.yaml --device /dev/nvme1n1

Exit codes: 0 whole and for the volume, 1 damaged or unreadable, 2 usage, 4 for another volume.")]
pub struct Args {
    /// The profile, compiled or for people
    profile: PathBuf,
    /// The volume: a device, an image file, or `auto`
    #[arg(long)]
    device: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Checked {
    profile: String,
    name: String,
    bound: bool,
    extents: usize,
    device: Option<String>,
}

/// Checks it.
pub fn run(args: Args, output: Output) -> Result<()> {
    let profile = load_profile(&args.profile)?;
    if let Some(device) = &args.device {
        let fail = || format!("failed to use profile `{}` on `{}`", args.profile.display(), device.display());
        resolve(&profile, &identity_for(&profile, device)?).context(fail)?;
    }
    let checked = Checked {
        profile: args.profile.display().to_string(),
        name: profile.name.clone(),
        bound: profile.volume.is_some(),
        extents: profile.extents(),
        device: args.device.map(|device| device.display().to_string()),
    };
    output.print(&checked, |checked| {
        let Checked { profile: path, extents, .. } = checked;
        let volume = volume_line(profile.volume.as_ref());
        match &checked.device {
            Some(device) => format!("{path} is whole and fits {device}: {extents} extents"),
            None => format!("{path} is whole: {extents} extents, for {volume}"),
        }
    })
}
