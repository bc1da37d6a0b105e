//! `profile import`: recordings from other tools' files.

use crate::commands::common::read_file;
use crate::commands::output::Output;
use crate::device::{Device, disk_path};
use crate::error::{Context, Result};
use crate::files::write_atomically;
use crate::recording::{Recording, format, import};
use clap::ValueEnum;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Larger lists are refused: 4 million lines of 40 bytes each are 160 MB.
const LIST_BYTES_MAX: u64 = 256 << 20;

/// Make a recording from what another tool knows
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ebs-prewarm profile import -o boot.rec --format list ranges.txt --device /dev/nvme1n1

A list has a line `OFFSET LENGTH` for each range, in bytes from the start of the disk, in order of use; `#` begins \
a comment.")]
pub struct Args {
    /// Where to write the recording
    #[arg(short, long, value_name = "RECORDING")]
    output: PathBuf,
    /// The file's format
    #[arg(long, value_enum)]
    format: Format,
    /// The file
    file: PathBuf,
    /// Bind it to this disk: a device, an image file, or `auto`; without, its profile is checked for size alone
    #[arg(long)]
    device: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines `OFFSET LENGTH` in bytes
    List,
}

#[derive(Debug, Serialize)]
struct Imported {
    recording: String,
    id: String,
    ranges: u64,
    touches: usize,
    bytes: u64,
    bound: bool,
}

/// Imports it.
pub fn run(args: Args, output: Output) -> Result<()> {
    let mut volume = None;
    let mut name = String::new();
    if let Some(device) = &args.device {
        let device = Device::open(&disk_path(Path::new("/"), device)?)?;
        volume = Some(device.identity(Path::new("/"), |_| true)?);
        name = device.path().display().to_string();
    }
    let bytes = read_file(&args.file, "list", LIST_BYTES_MAX)?;
    let mut recording = match args.format {
        Format::List => import::list(&bytes, volume),
    }
    .context(|| format!("failed to import `{}`", args.file.display()))?;
    recording.header.device = name;
    write_atomically(&args.output, &format::encode(&recording))?;
    output.print(&imported(&args.output, &recording), |imported| {
        let Imported { recording, ranges, touches, .. } = imported;
        let bound = if imported.bound { "" } else { ", for any volume of its size" };
        format!("wrote {recording}: {ranges} ranges, {touches} first touches{bound}")
    })
}

fn imported(path: &Path, recording: &Recording) -> Imported {
    Imported {
        recording: path.display().to_string(),
        id: recording.header.id.clone(),
        ranges: recording.header.events,
        touches: recording.touches.len(),
        bytes: recording.touches().map(|touch| touch.extent.bytes()).sum(),
        bound: recording.header.volume.is_some(),
    }
}
