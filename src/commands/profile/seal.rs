//! `profile seal`: a profile after an edit by hand.

use crate::commands::common::read_file;
use crate::commands::output::Output;
use crate::error::{Context, Error, Result};
use crate::files::write_atomically;
use crate::profile::{compiled, yaml};
use serde::Serialize;
use std::path::PathBuf;

/// Renew a profile's checksum and counts after an edit by hand
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm profile seal web.yaml

Comments are not kept.")]
pub struct Args {
    /// The profile, in the form for people
    profile: PathBuf,
}

#[derive(Debug, Serialize)]
struct Sealed {
    profile: String,
    extents: usize,
    changed: bool,
}

/// Larger files are no profiles: 4 million lines of 40 bytes each are 160 MB.
const PROFILE_BYTES_MAX: u64 = 256 << 20;

/// Seals it.
pub fn run(args: Args, output: Output) -> Result<()> {
    let fail = || format!("failed to seal profile `{}`", args.profile.display());
    let bytes = read_file(&args.profile, "profile", PROFILE_BYTES_MAX)?;
    if compiled::is_compiled(&bytes) {
        return Err(Error::failed(format!("{}: it is a compiled one", fail()))
            .hint("edit and seal the one it was compiled from, then compile it again"));
    }
    let sealed = yaml::seal(&bytes).context(fail)?;
    let changed = sealed.as_bytes() != bytes;
    if changed {
        write_atomically(&args.profile, sealed.as_bytes())?;
    }
    let extents = yaml::parse(sealed.as_bytes()).context(fail)?.extents();
    let sealed = Sealed { profile: args.profile.display().to_string(), extents, changed };
    output.print(&sealed, |Sealed { profile, extents, changed }| {
        if *changed {
            format!("sealed {profile}: {extents} extents")
        } else {
            format!("{profile} was sealed already")
        }
    })
}
