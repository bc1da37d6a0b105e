//! `profile paths`: files and folders, warmed without a recording.

use super::build::Built;
use super::{name_of, write_profile};
use crate::commands::output::Output;
use crate::device::Device;
use crate::device::files::{Counts, map};
use crate::error::{Context, Error, Result};
use crate::profile::build::{Options, Order, build};
use crate::recording::import;
use crate::units::human_bytes;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Build a profile of files and folders, without a recording
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm profile paths -o images.yaml /var/lib/containerd /usr/bin/kubelet

All paths must lie on one filesystem, on a disk or a partition. Folders are walked in order of names, without \
crossing mounts; links in them are not followed. Inodes and indexes are not covered: a recording has them.")]
pub struct Args {
    /// Where to write the profile
    #[arg(short, long, value_name = "PROFILE")]
    output: PathBuf,
    /// The profile's name; the file's name without its extension if not given
    #[arg(long)]
    name: Option<String>,
    /// Files and folders, the most urgent first
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Mapped {
    #[serde(flatten)]
    built: Built,
    device: PathBuf,
    counts: Counts,
}

/// Maps and writes.
pub fn run(args: Args, output: Output) -> Result<()> {
    let root = Path::new("/");
    let name = name_of(args.name, &args.output)?;
    let mapped = map(root, &args.paths)?;
    let counts = mapped.counts;
    if counts.not_written_back > 0 {
        tracing::warn!(
            "{} extents have no place yet and were left out: run `sync`, then this again",
            counts.not_written_back
        );
    }
    if mapped.extents.is_empty() {
        let error =
            Error::failed(format!("failed to build profile `{}`: the paths have no place on the disk", name));
        return Err(error.hint(left_out(&counts)));
    }
    let device = mapped.disk.path;
    let volume = Device::open(&device)?.identity(root, |_| true)?;
    let fail = || format!("failed to build profile `{}`", args.output.display());
    let recording = import::extents("paths", mapped.extents, Some(volume)).context(fail)?;
    // History is the order in which the paths were named.
    let profile = build(&name, &[recording], Options { order: Order::History }).context(fail)?;
    write_profile(&args.output, &profile).context(fail)?;
    let mapped = Mapped { built: Built::new(&args.output, &profile)?, device, counts };
    output.print(&mapped, |mapped| format!("{}{}", mapped.built.text(), left_out(&mapped.counts)))
}

/// What was found, and what was left out, where it was.
fn left_out(counts: &Counts) -> String {
    let Counts { files, folders, bytes, hole_bytes, .. } = counts;
    let mut text = format!("{files} files and {folders} folders, {} on the disk", human_bytes(*bytes));
    if *hole_bytes > 0 {
        text.push_str(&format!("; {} of holes", human_bytes(*hole_bytes)));
    }
    for (count, what) in [
        (counts.inline, "inline extents"),
        (counts.unwritten, "extents never written"),
        (counts.not_written_back, "extents not written back"),
        (counts.unknown, "extents without a known place"),
        (counts.symlinks, "symbolic links"),
        (counts.special, "sockets, pipes and devices"),
        (counts.mounts, "mount points"),
        (counts.failed, "paths that failed"),
    ] {
        if count > 0 {
            text.push_str(&format!("; left out: {count} {what}"));
        }
    }
    text
}
