//! `warm`: a profile's blocks, first things first.

use super::common::{ReportFile, first_error, load_profile, parsed};
use super::output::Output;
use super::progress::Bar;
use crate::device::disk_path;
use crate::error::{Error, Result};
use crate::plan::Mode;
use crate::process::{leave_alone, stay_in_memory, stop_on_signals};
use crate::profile::Profile;
use crate::report::{SCHEMA, WarmReport};
use crate::units::{ByteSize, Rate, parse_duration};
use crate::warm::{self, find};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Warm a profile's blocks, and the rest of the volume if asked
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ebs-prewarm warm --profile boot.bin
  ebs-prewarm warm --profile boot.bin --device /dev/nvme1n1 --rest all --iops 1000 --report warm.json
  ebs-prewarm warm --device /dev/nvme1n1 --rest all

Exit codes: 0 done, 1 failed, 2 usage, 3 some blocks could not be read, 4 the profile is for another volume, \
5 the deadline passed.")]
pub struct WarmArgs {
    #[command(flatten)]
    pub what: What,
    /// Reads in flight: a number, or `auto` to find it from the rate of completions
    #[arg(long, default_value = "auto", value_parser = parsed(depth), value_name = "auto|N")]
    pub depth: Depth,
    /// Submit at most so many reads a second
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub iops: u64,
    /// Read at most so many bytes a second
    #[arg(long, value_parser = parsed(str::parse::<Rate>))]
    pub rate: Option<Rate>,
    /// Stop after this long; what was not warmed by then stays cold (exit code 5)
    #[arg(long, value_parser = parsed(parse_duration), value_name = "TIME")]
    pub deadline: Option<Duration>,
    /// Write what was done to a file, as JSON, also where it was refused. Where that is impossible a warning says so
    /// at the start, the volume is warmed all the same, and the exit code is 1
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// For an initramfs: wait so long for the disk that the profile is for to appear
    #[arg(long, value_parser = parsed(parse_duration), value_name = "TIME")]
    pub wait: Option<Duration>,
    /// For an initramfs: stay in memory, and let systemd leave this process alone when the root changes
    #[arg(long)]
    pub survive_switch_root: bool,
}

/// What is to be read; shared with `plan`.
#[derive(Debug, Args)]
pub struct What {
    /// The profile, compiled or for people
    #[arg(long, value_name = "FILE", required_unless_present = "rest")]
    pub profile: Option<PathBuf>,
    /// Block device, image file, or `auto` for the disk that carries /
    #[arg(long, default_value = "auto")]
    pub device: PathBuf,
    /// `touch` reads one block per unit, `full` every byte of the profile; `auto` touches, verifies a sample, and
    /// reads every byte where the unit turns out smaller
    #[arg(long, value_enum, default_value_t = ModeArg::Auto)]
    pub mode: ModeArg,
    /// What the storage hydrates at once: a size, or `auto` for 512KiB
    #[arg(long, default_value = "auto", value_parser = parsed(unit), value_name = "SIZE|auto")]
    pub unit: Unit,
    /// After the profile: `all` warms the rest of the volume too, with idle priority
    #[arg(long, value_enum)]
    pub rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    Auto,
    Touch,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rest {
    None,
    All,
}

/// `None` stands for `auto`.
pub type Depth = Auto<u32>;
pub type Unit = Auto<u64>;

/// A value, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auto<T>(pub Option<T>);

fn depth(text: &str) -> Result<Depth> {
    if text == "auto" {
        return Ok(Auto(None));
    }
    let limit = crate::engine::DEPTH_LIMIT;
    let number = text.parse().ok().filter(|number| (1..=limit).contains(number));
    number.map(|number| Auto(Some(number))).ok_or_else(|| {
        Error::usage(format!("failed to parse depth `{text}`")).hint(format!("give 1 to {limit}, or auto"))
    })
}

fn unit(text: &str) -> Result<Unit> {
    if text == "auto" { Ok(Auto(None)) } else { text.parse::<ByteSize>().map(|size| Auto(Some(size.0))) }
}

impl What {
    /// For a device that was found.
    pub fn options(&self, device: PathBuf) -> warm::Options {
        warm::Options {
            device,
            root: "/".into(),
            mode: match self.mode {
                ModeArg::Auto => None,
                ModeArg::Touch => Some(Mode::Touch),
                ModeArg::Full => Some(Mode::Full),
            },
            unit_bytes: self.unit.0,
            depth: None,
            iops: 0,
            rate: 0,
            rest: self.rest == Some(Rest::All),
            deadline: None,
        }
    }

    /// Opens what is to be read, with the profile's extents on it. Waits so long for it to appear.
    pub fn bind(&self, wait: Duration) -> Result<(warm::Options, warm::Bound)> {
        if self.profile.is_none() && self.rest != Some(Rest::All) {
            return Err(Error::usage("failed to find anything to read: no profile and no rest")
                .hint("give --profile FILE, or --rest all"));
        }
        let profile = self.profile.as_deref().map(load_profile).transpose()?;
        let options = self.options(self.find(profile.as_ref(), wait)?);
        let bound = warm::bind(&options, profile.as_ref())?;
        Ok((options, bound))
    }

    /// The disk to read. Where nothing carries `/` yet, as in an initramfs, `auto` is the disk that the profile was
    /// recorded on.
    fn find(&self, profile: Option<&Profile>, wait: Duration) -> Result<PathBuf> {
        let root = Path::new("/");
        let found = disk_path(root, &self.device);
        match profile {
            Some(profile) if self.device == Path::new("auto") && profile.volume.is_some() => {
                found.or_else(|_| find::disk_of(root, profile, wait))
            }
            _ => found,
        }
    }
}

/// A warmer that has not got what it asks for warms all the same.
fn survive_switch_root() {
    if let Err(error) = leave_alone() {
        tracing::warn!("failed to take a name that systemd leaves alone: {error}");
    }
    if let Err(error) = stay_in_memory() {
        tracing::warn!("failed to lock memory: {error}");
    }
}

/// Warms. Whatever happens, the report is written, and whatever happens to the report, the volume is warmed.
pub fn run(args: WarmArgs, output: Output) -> Result<()> {
    if args.survive_switch_root {
        survive_switch_root();
    }
    let stop = stop_on_signals();
    let file = args.report.clone().map(ReportFile::new);
    let wait = args.wait.unwrap_or_default();
    let warmed = args.what.bind(wait).and_then(|(options, bound)| {
        let options = warm::Options {
            depth: args.depth.0,
            iops: args.iops,
            rate: args.rate.map_or(0, |rate| rate.0),
            deadline: args.deadline,
            ..options
        };
        let mut bar = Bar::default();
        let report = warm::warm(&bound, &options, stop, &mut bar);
        bar.clear();
        report
    });
    let written = |report: &WarmReport| file.map_or(Ok(()), |file| file.write(report));
    match warmed {
        Ok(report) => {
            let written = written(&report);
            first_error([warm::verdict(&report), written, output.print(&report, WarmReport::text)])
        }
        Err(error) => {
            let written = written(&refused(&args, &error));
            first_error([Err(error), written])
        }
    }
}

/// A boot goes on without us; why is in the report all the same.
fn refused(args: &WarmArgs, error: &Error) -> WarmReport {
    WarmReport {
        schema: SCHEMA,
        end: "refused".into(),
        error: Some(error.full_text()),
        device: args.what.device.display().to_string(),
        ..WarmReport::default()
    }
}
