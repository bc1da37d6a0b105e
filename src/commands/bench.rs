//! `bench`: what each way of warming gets out of a cold volume.

use super::common::{first_error, parsed, write_report};
use super::output::Output;
use crate::bench::{self, DEPTH_MAX, Method, NOT_COLD, Options, READ_BYTES_MAX};
use crate::device::{Device, disk_path};
use crate::engine;
use crate::error::{Context, Error, Result};
use crate::files::check_writable;
use crate::process::stop_on_signals;
use crate::report::{BenchReport, SCHEMA};
use crate::units::ByteSize;
use crate::warm::UNIT_BYTES;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Measure how a cold volume hydrates, and what each way of warming it gets
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm bench --device /dev/nvme1n1 --budget 4GiB --report bench.json

Reads only. What it reads is warm afterwards: a volume can be measured once.")]
pub struct BenchArgs {
    /// Block device or image file; never `auto`: it warms what it measures
    #[arg(long)]
    pub device: PathBuf,
    /// Ways to compare, with commas: dd, documented-fio, touch@DEPTH, full@DEPTH
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = parsed(str::parse::<Method>))]
    pub methods: Vec<Method>,
    /// Hydrate at most so much of the volume
    #[arg(long, default_value = "2GiB", value_parser = parsed(str::parse::<ByteSize>))]
    pub budget: ByteSize,
    /// What is touched as one unit
    #[arg(long, default_value_t = ByteSize(UNIT_BYTES), value_parser = parsed(str::parse::<ByteSize>))]
    pub unit: ByteSize,
    /// Draws the places that each method reads
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the results to a file, as JSON; it is written anew after each round. Where it cannot be written nothing
    /// is measured: a volume is cold but once
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
}

/// Measures and reports; what was measured before an interruption is kept.
pub fn run(args: BenchArgs, output: Output) -> Result<()> {
    let stop = stop_on_signals();
    if let Some(file) = &args.report {
        check_writable(file)?;
    }
    let save = |report: &BenchReport| args.report.as_ref().map_or(Ok(()), |file| write_report(file, report));
    match measure(&args, stop, &save) {
        Ok(report) => {
            let saved = save(&report);
            let printed =
                if report.methods.is_empty() { Ok(()) } else { output.print(&report, BenchReport::text) };
            first_error([verdict(&report), saved, printed])
        }
        Err(error) => {
            let device = args.device.display().to_string();
            let (end, text) = ("refused".into(), Some(error.full_text()));
            let saved =
                save(&BenchReport { schema: SCHEMA, end, error: text, device, ..BenchReport::default() });
            first_error([Err(error), saved])
        }
    }
}

fn measure(
    args: &BenchArgs,
    stop: &AtomicBool,
    save: &dyn Fn(&BenchReport) -> Result<()>,
) -> Result<BenchReport> {
    let unit_bytes = args.unit.0;
    if !unit_bytes.is_power_of_two() || !(4096..=bench::TILE_BYTES).contains(&unit_bytes) {
        return Err(Error::usage(format!("failed to use a unit of {unit_bytes} bytes"))
            .hint("a unit is a power of two from 4KiB to 16MiB"));
    }
    let path = disk_path(Path::new("/"), &args.device)?;
    let device = Device::open(&path)?;
    if !device.is_direct() {
        return Err(Error::failed(format!("failed to open `{}` past the page cache", path.display()))
            .hint("put the image on a filesystem that supports O_DIRECT, or behind a loop device"));
    }
    let methods = if args.methods.is_empty() { Method::DEFAULT.to_vec() } else { args.methods.clone() };
    let options = Options {
        methods,
        budget_bytes: args.budget.0,
        unit_bytes,
        block_bytes: device.block_bytes(),
        seed: args.seed,
    };
    let mut source = engine::open(device.file(), DEPTH_MAX, READ_BYTES_MAX)
        .context(|| format!("failed to prepare reads of `{}`", path.display()))?;
    let identity = crate::volume::Identity::of_size(device.sectors());
    let named = |report: BenchReport| BenchReport {
        device: path.display().to_string(),
        volume: Some(identity.clone()),
        ..report
    };
    let volume_bytes = bench::volume_bytes(device.sectors());
    let mut saved = |report: &BenchReport| {
        // The last one is tried again at the end, and counts.
        if let Err(error) = save(&named(report.clone())) {
            tracing::warn!("{}", error.full_text());
        }
    };
    bench::run(&mut *source, volume_bytes, &options, stop, &mut saved).map(named)
}

fn verdict(report: &BenchReport) -> Result<()> {
    let device = &report.device;
    match report.end.as_str() {
        "complete" => Ok(()),
        NOT_COLD => Err(Error::failed(format!(
            "failed to find cold units on `{device}`: {} first reads took {} us at the median, the same blocks \
             again {} us",
            report.evidence.units, report.cold_latency_us.p50, report.warm_latency_us.p50,
        ))
        .hint("make a new volume from the snapshot: each volume can be measured once")),
        end => Err(Error::failed(format!("failed to measure all methods on `{device}`: {end}"))),
    }
}
