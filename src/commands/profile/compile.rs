//! `profile compile`: the small form for the boot.

use super::shown_stages;
use crate::commands::common::load_profile;
use crate::commands::output::Output;
use crate::error::Result;
use crate::files::write_atomically;
use crate::profile::bind::recorded;
use crate::profile::compiled;
use serde::Serialize;
use std::path::PathBuf;

/// EC2 takes so many bytes of user data, before they are encoded (vendor documentation).
const USER_DATA_BYTES: usize = 16 << 10;

/// Compile a profile into the small form for the boot
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm profile compile -o web.bin web.yaml

The compiled form keeps stages, order and extents; it drops times, stalls and the names of recordings.")]
pub struct Args {
    /// Where to write the compiled profile
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The profile
    profile: PathBuf,
}

#[derive(Debug, Serialize)]
struct Compiled {
    profile: String,
    bytes: usize,
    extents: usize,
    units_of_512kib: usize,
    bytes_per_extent: f64,
    bytes_per_unit: f64,
    fits_user_data: bool,
}

/// Compiles it.
pub fn run(args: Args, output: Output) -> Result<()> {
    let profile = load_profile(&args.profile)?;
    let bytes = compiled::encode(&profile);
    write_atomically(&args.output, &bytes)?;
    let extents = profile.extents();
    let units = shown_stages(&recorded(&profile)?).iter().map(|stage| stage.units_of_512kib).sum();
    let per = |count: usize| if count == 0 { 0.0 } else { bytes.len() as f64 / count as f64 };
    let compiled = Compiled {
        profile: args.output.display().to_string(),
        bytes: bytes.len(),
        extents,
        units_of_512kib: units,
        bytes_per_extent: per(extents),
        bytes_per_unit: per(units),
        fits_user_data: bytes.len() <= USER_DATA_BYTES,
    };
    output.print(&compiled, |compiled| {
        let Compiled { profile, bytes, extents, units_of_512kib, bytes_per_extent, bytes_per_unit, .. } =
            compiled;
        let fits = if compiled.fits_user_data { "fits" } else { "does not fit" };
        format!(
            "wrote {profile}: {bytes} bytes ({fits} EC2 user data)\n\
             {extents} extents, {bytes_per_extent:.2} bytes each; \
             {units_of_512kib} units of 512 KiB, {bytes_per_unit:.2} bytes each"
        )
    })
}
