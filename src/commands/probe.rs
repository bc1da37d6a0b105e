//! `probe`: is a volume cold, what is its unit, and what does a touch cost.

use super::common::{check_form, first_error, parsed, write_report};
use super::measured::{Known, NO_UNIT, NO_WARMING, Subject, findings_of, keep, profile_of};
use super::output::Output;
use crate::bench::{Look, foreground, is_busy};
use crate::device::traffic;
use crate::engine;
use crate::error::{Context, Error, Kind, Result};
use crate::extent::ExtentSet;
use crate::files::check_writable;
use crate::findings::Unit;
use crate::probe::{self, DEPTH, End, Found, READ_BYTES_MAX};
use crate::process::stop_on_signals;
use crate::report::{ProbeReport, SCHEMA};
use crate::units::{ByteSize, as_ns, parse_duration};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Find out in a few reads how cold a volume is, what it hydrates at once, and what a touch costs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ebs-prewarm probe --device /dev/nvme1n1
  ebs-prewarm probe --device /dev/nvme0n1 --profile boot.bin --save

A volume holds blocks that were never written, and these are never cold: name a profile or files, so that only \
blocks are read of which it is known that they were written. What it reads is warm afterwards; it says how much.

Exit codes: 0 done, also where it cannot tell; 1 failed, 2 usage, 3 some blocks could not be read, 4 the profile is \
for another volume.")]
pub struct ProbeArgs {
    /// Block device, image file, or `auto` for the disk that carries /
    #[arg(long, default_value = "auto")]
    pub device: PathBuf,
    /// Read only blocks of this profile: of them it is known that they are written
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    pub profile: Option<PathBuf>,
    #[command(flatten)]
    pub known: Known,
    /// Make so many reads at the most
    #[arg(long, default_value_t = 1024)]
    pub reads: u64,
    /// Read so many bytes at the most
    #[arg(long, default_value = "16MiB", value_parser = parsed(str::parse::<ByteSize>))]
    pub bytes: ByteSize,
    /// Take no longer
    #[arg(long = "for", default_value = "30s", value_parser = parsed(parse_duration), value_name = "TIME")]
    pub duration: Duration,
    /// Keep what was found, so that `warm --mode auto` uses it for this volume
    #[arg(long)]
    pub save: bool,
    /// Write what was found to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Looks, and tells; what was seen before an interruption is told as well.
pub fn run(args: ProbeArgs, output: Output) -> Result<()> {
    let stop = stop_on_signals();
    if let Some(file) = &args.report {
        check_form::<ProbeReport>(file)?;
        check_writable(file)?;
    }
    let write = |report: &ProbeReport| args.report.as_ref().map_or(Ok(()), |file| write_report(file, report));
    match look(&args, stop) {
        Ok((report, kept)) => {
            let (written, printed) = (write(&report), output.print(&report, ProbeReport::text));
            first_error([verdict(&report), kept, written, printed])
        }
        Err(error) => {
            let report = ProbeReport {
                schema: SCHEMA,
                end: "refused".into(),
                error: Some(error.full_text()),
                device: args.device.display().to_string(),
                ..ProbeReport::default()
            };
            let written = write(&report);
            first_error([Err(error), written])
        }
    }
}

/// The report, and whether what was found could be kept.
fn look(args: &ProbeArgs, stop: &AtomicBool) -> Result<(ProbeReport, Result<()>)> {
    let profile = profile_of(args.profile.as_deref())?;
    let subject = Subject::open(Path::new("/"), &args.device)?;
    let mut report = ProbeReport {
        schema: SCHEMA,
        device: subject.device.path().display().to_string(),
        storage: subject.storage(),
        ..ProbeReport::default()
    };
    if subject.needs_no_warming() {
        report.end = NO_WARMING.into();
        return Ok((report, Ok(())));
    }
    let (identity, stages) = subject.identify(profile.as_ref())?;
    let (allowed, drawn_from) = match &profile {
        Some(profile) => {
            let extents = stages.into_iter().flat_map(|(_, extents)| extents);
            (Some(extents.collect::<ExtentSet>()), format!("profile {}", profile.name))
        }
        None => subject.written(&args.known)?,
    };
    let options = probe::Options {
        allowed,
        reads_max: args.reads,
        bytes_max: args.bytes.0,
        for_ns: as_ns(args.duration),
        seed: args.known.seed,
        ..probe::Options::new(subject.bytes())
    };
    let look = || Look {
        traffic: subject.device.number().and_then(|number| traffic(&subject.root, number)),
        ..Look::default()
    };
    let shown = subject.device.path().display();
    let mut source = engine::open(subject.device.file(), DEPTH, READ_BYTES_MAX)
        .context(|| format!("failed to prepare reads of `{shown}`"))?;
    let before = look();
    let found = probe::run(&mut *source, &options, stop).context(|| format!("failed to read `{shown}`"))?;
    let others = foreground(&before, &look(), found.reads, found.bytes_read);
    report = ProbeReport {
        device: report.device,
        storage: report.storage,
        seed: args.known.seed,
        drawn_from,
        foreground: others,
        ..found.report()
    };
    if is_busy(others) {
        report.notes.push("others used the device: latencies may be theirs".into());
    }
    report.volume = Some(identity);
    let kept = if args.save { save(args, &subject, &found, &mut report) } else { Ok(()) };
    Ok((report, kept))
}

fn save(args: &ProbeArgs, subject: &Subject, found: &Found, report: &mut ProbeReport) -> Result<()> {
    if matches!(found.end, End::Stopped | End::Unreadable) || found.reads == 0 {
        return Ok(());
    }
    if report.unit.bytes.is_none() {
        report.notes.push(NO_UNIT.into());
        return Ok(());
    }
    let identity = subject.device.recognised(&subject.root, report.volume.take().unwrap_or_default());
    let mut findings = findings_of(&identity, "probe");
    report.volume = Some(identity);
    findings.unit = report.unit.bytes.map(|bytes| Unit { bytes, confidence: report.unit.confidence });
    (findings.cold_us, findings.warm_us) = (report.cold_latency_us.p50, report.warm_latency_us.p50);
    report.notes.push(match keep(&args.known.findings, findings)? {
        Ok(path) => format!("kept for `warm`: {path}"),
        Err(why) => why,
    });
    Ok(())
}

fn verdict(report: &ProbeReport) -> Result<()> {
    let device = &report.device;
    match report.end.as_str() {
        "unreadable" => {
            Err(Error::failed(format!("failed to read `{device}`: it answers nothing but errors")))
        }
        "stopped" => Err(Error::failed(format!("failed to look at all of `{device}`: stopped by a signal"))),
        NO_WARMING => Ok(()),
        _ if report.reads == 0 && report.abandoned == 0 => {
            Err(Error::failed(format!("failed to find a block of `{device}` to read: {}", report.end))
                .hint("a volume of a few blocks, or a profile that names none, has nothing to look at"))
        }
        _ if report.errors > 0 => Err(Error::new(
            Kind::Unreadable,
            format!("failed to read {} blocks of `{device}`; what is told is of all others", report.errors),
        )),
        _ => Ok(()),
    }
}
