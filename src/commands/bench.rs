//! `bench`: how a cold volume hydrates, and what each way of warming gets out of it.

use super::common::{check_form, first_error, parsed, write_report};
use super::measured::{Known, NO_UNIT, NO_WARMING, Subject, findings_of, keep, profile_of};
use super::output::Output;
use crate::bench::{
    self, DEPTH_MAX, FIRST_TOUCHES, FIRST_TOUCHES_NS, Machine, Measured, Method, NOT_COLD, Options,
    TILE_BYTES,
};
use crate::error::{Context, Error, Kind, Result};
use crate::files::{check_writable, write_atomically};
use crate::findings::{Best, Unit};
use crate::process::stop_on_signals;
use crate::report::{BenchReport, SCHEMA, histogram_log};
use crate::units::ByteSize;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// Why mode and depth are not kept.
const NOT_COMPARED: &str =
    "mode and depth are not kept for `warm`: touch and full were not both measured to the end";

/// Measure how a cold volume hydrates, and what each way of warming it gets
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ebs-prewarm bench --device /dev/nvme1n1 --report bench.html
  ebs-prewarm bench --device /dev/nvme1n1 --methods touch,profile --profile boot.bin
  ebs-prewarm bench --device /dev/nvme1n1 --method-command \\
    'mine=fio --name=x --filename={device} --offset={offset} --size={size} --rw=read --bs=1M --direct=1'

Methods: dd and documented-fio read as the vendor's documentation does; touch reads a block a unit, full every byte, \
each at the depth that is found best, or at a given one as touch@64; tokio-uring touches through that library; profile \
warms a profile; a command of your own gets {device}, and {offset} and {size} in bytes of a part that nobody has read, \
and is measured by the time that it and all it has started take, and by what is warm afterwards.

Reads only. What it reads is warm afterwards: a volume can be measured once.

Exit codes: 0 done, 1 failed or not cold, 2 usage, 3 some reads failed, 4 the profile is for another volume.")]
pub struct BenchArgs {
    /// Block device or image file; never `auto`: it warms what it measures
    #[arg(long)]
    pub device: PathBuf,
    /// Ways to compare, with commas
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = parsed(str::parse::<Method>))]
    pub methods: Vec<Method>,
    /// A command of your own to compare with, run by the shell
    #[arg(long, value_name = "NAME='COMMAND'", value_parser = parsed(Method::command))]
    pub method_command: Vec<Method>,
    /// Also measure how long this profile takes to warm
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    #[command(flatten)]
    pub known: Known,
    /// Hydrate at most so much of the volume
    #[arg(long, default_value = "8GiB", value_parser = parsed(str::parse::<ByteSize>))]
    pub budget: ByteSize,
    /// What is touched as one unit: a size, or `auto` for what is found
    #[arg(long, default_value = "auto", value_name = "SIZE|auto", value_parser = parsed(unit))]
    pub unit: super::warm::Unit,
    /// Touch so many units one at a time, for the distribution of first reads; at most a fifth of the budget, and for
    /// 150 s. Between what the 99th percentile lies is told: of 1,000 it may be 14 % off, of 3,000 8 %, and of fewer than
    /// 368 only what it is at the least
    #[arg(long, default_value_t = FIRST_TOUCHES, value_name = "N")]
    pub first_touches: u64,
    /// Do not keep what was found for `warm --mode auto`
    #[arg(long)]
    pub no_save: bool,
    /// Write all latencies to a log that HdrHistogram's tools read
    #[arg(long, value_name = "FILE.hlog")]
    pub histograms: Option<PathBuf>,
    /// Write the results to a file: as a page to look at where its name ends in .html, as Markdown in .md, else as JSON. It
    /// is written anew after each part. Where it cannot be written nothing is measured: a volume is cold but once
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

fn unit(text: &str) -> Result<super::warm::Unit> {
    if text == "auto" {
        return Ok(super::warm::Auto(None));
    }
    let bytes = text.parse::<ByteSize>()?.0;
    if !bytes.is_power_of_two() || !(4096..=TILE_BYTES).contains(&bytes) {
        return Err(Error::usage(format!("failed to use a unit of {bytes} bytes"))
            .hint("a unit is a power of two from 4KiB to 16MiB"));
    }
    Ok(super::warm::Auto(Some(bytes)))
}

/// Measures and reports; what was measured before an interruption is kept.
pub fn run(args: BenchArgs, output: Output) -> Result<()> {
    let stop = stop_on_signals();
    args.report.as_deref().map_or(Ok(()), check_form::<BenchReport>)?;
    for file in args.report.iter().chain(&args.histograms) {
        check_writable(file)?;
    }
    let files = Files { args: &args, start: SystemTime::now() };
    match measure(&args, stop, &files) {
        Ok((measured, kept)) => {
            let saved = files.save(&measured);
            let report = &measured.report;
            let printed = if is_told(report) { output.print(report, BenchReport::text) } else { Ok(()) };
            first_error([verdict(report), kept, saved, printed])
        }
        Err(error) => {
            let device = args.device.display().to_string();
            let (end, text) = ("refused".into(), Some(error.full_text()));
            let report = BenchReport { schema: SCHEMA, end, error: text, device, ..BenchReport::default() };
            let saved = files.save(&Measured { report, histograms: Vec::new() });
            first_error([Err(error), saved])
        }
    }
}

/// Where results go.
struct Files<'a> {
    args: &'a BenchArgs,
    start: SystemTime,
}

impl Files<'_> {
    fn save(&self, measured: &Measured) -> Result<()> {
        let report = self.args.report.as_ref().map_or(Ok(()), |file| write_report(file, &measured.report));
        let histograms = self.args.histograms.as_ref().map_or(Ok(()), |file| {
            let fail = || format!("failed to write histograms `{}`", file.display());
            let log = histogram_log(&measured.histograms, self.start).context(fail)?;
            write_atomically(file, &log).context(fail)
        });
        first_error([report, histograms])
    }
}

/// What was measured, and whether it could be kept for `warm`.
fn measure(args: &BenchArgs, stop: &AtomicBool, files: &Files) -> Result<(Measured, Result<()>)> {
    // `probe` finds the disk of / by this name; here that would be warm before anybody had asked for it.
    if args.device == Path::new("auto") {
        return Err(Error::usage("failed to measure device `auto`: a volume can be measured once")
            .hint("name the device: what is measured is warm afterwards"));
    }
    let methods = methods(args)?;
    let profile = profile_of(args.profile.as_deref())?;
    let subject = Subject::open(Path::new("/"), &args.device)?;
    let named = |report: &mut BenchReport| {
        report.device = subject.device.path().display().to_string();
        report.storage = subject.storage();
    };
    if subject.needs_no_warming() {
        let mut measured = Measured::default();
        (measured.report.schema, measured.report.end) = (SCHEMA, NO_WARMING.into());
        named(&mut measured.report);
        return Ok((measured, Ok(())));
    }
    let (identity, stages) = subject.identify(profile.as_ref())?;
    let (allowed, drawn_from) = subject.written(&args.known)?;
    let options = Options {
        methods,
        volume_bytes: subject.bytes(),
        budget_bytes: args.budget.0,
        unit_bytes: args.unit.0,
        depth_max: subject.device.queue_requests(&subject.root).unwrap_or(DEPTH_MAX),
        first_touches: args.first_touches,
        first_touches_ns: FIRST_TOUCHES_NS,
        allowed,
        profile: stages,
        seed: args.known.seed,
    };
    let mut bed = Machine::new(&subject.device, &subject.root, subject.storage.kind)?;
    let complete = |measured: &mut Measured| {
        named(&mut measured.report);
        measured.report.volume = Some(identity.clone());
        measured.report.drawn_from = drawn_from.clone();
    };
    let mut saved = |measured: &Measured| {
        let mut measured = measured.clone();
        complete(&mut measured);
        // The last one is tried again at the end, and counts.
        if let Err(error) = files.save(&measured) {
            tracing::warn!("{}", error.full_text());
        }
    };
    let mut measured = bench::run(&mut bed, &options, stop, &mut saved)?;
    complete(&mut measured);
    let kept = if args.no_save { Ok(()) } else { keep_findings(args, &subject, &mut measured.report) };
    Ok((measured, kept))
}

fn methods(args: &BenchArgs) -> Result<Vec<Method>> {
    let mut methods = args.methods.clone();
    if methods.is_empty() {
        methods = Method::usual(args.profile.is_some());
    } else if methods.contains(&Method::Profile) && args.profile.is_none() {
        return Err(Error::usage("failed to measure a profile: none is given").hint("give --profile FILE"));
    } else if args.profile.is_some() && !methods.contains(&Method::Profile) {
        methods.push(Method::Profile);
    }
    methods.extend(args.method_command.iter().cloned());
    for (at, method) in methods.iter().enumerate() {
        if methods[..at].iter().any(|other| other.to_string() == method.to_string()) {
            return Err(Error::usage(format!("failed to measure `{method}` twice in one run"))
                .hint("name each method once"));
        }
    }
    Ok(methods)
}

/// Whether there is anything to print: evidence is, whatever came of the methods, but for a volume that is not cold.
fn is_told(report: &BenchReport) -> bool {
    report.end == NO_WARMING || (report.end != NOT_COLD && report.evidence.units > 0)
}

/// The mode and depth that are kept: those that were measured against others, to the end. `warm` reads every byte by
/// them, with no verification.
fn best_of(report: &BenchReport) -> Option<Best> {
    let is_whole = report.end == "complete" && report.evidence.cold;
    let best = report.recommended.as_ref().filter(|best| is_whole && best.compared)?;
    Some(Best {
        mode: best.mode.clone(),
        depth: best.depth,
        hydrated_bytes_per_s: best.hydrated_bytes_per_s,
        reason: best.reason.clone(),
    })
}

fn keep_findings(args: &BenchArgs, subject: &Subject, report: &mut BenchReport) -> Result<()> {
    let unit = report.unit.bytes.map(|bytes| Unit { bytes, confidence: report.unit.confidence });
    let best = best_of(report);
    if unit.is_none() && best.is_none() {
        report.notes.push(NO_UNIT.into());
        return Ok(());
    }
    if report.recommended.is_some() && best.is_none() {
        report.notes.push(NOT_COMPARED.into());
    }
    let identity = subject.device.recognised(&subject.root, report.volume.take().unwrap_or_default());
    let mut findings = findings_of(&identity, "bench");
    (findings.unit, findings.best) = (unit, best);
    (findings.cold_us, findings.warm_us) = (report.cold_latency_us.p50, report.warm_latency_us.p50);
    report.volume = Some(identity);
    match keep(&args.known.findings, findings)? {
        Ok(path) => report.saved_as = Some(path),
        Err(why) => report.notes.push(why),
    }
    Ok(())
}

fn verdict(report: &BenchReport) -> Result<()> {
    let device = &report.device;
    let errors = report.evidence.errors + report.methods.iter().map(|method| method.errors).sum::<u64>();
    match report.end.as_str() {
        "complete" => match report.methods.iter().find_map(|method| method.error.as_ref()) {
            Some(error) => {
                Err(Error::failed(format!("failed to measure all methods on `{device}`: {error}")))
            }
            None if errors > 0 => Err(Error::new(
                Kind::Unreadable,
                format!("failed to end {errors} reads of `{device}`; what is told is of all others"),
            )),
            None => Ok(()),
        },
        NO_WARMING => Ok(()),
        NOT_COLD => {
            let share = &report.evidence.cold_share;
            Err(Error::failed(format!(
                "failed to find a cold volume in `{device}`: {} of {} first reads were cold",
                share.cold, share.first_reads
            ))
            .hint(
                "make a new volume from the snapshot: each volume can be measured once. Where little of it was ever \
                 written, name what was with --files",
            ))
        }
        end => {
            let reason = report.error.clone().unwrap_or_else(|| end.into());
            Err(Error::failed(format!("failed to measure all methods on `{device}`: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Evidence, Recommended};

    fn measured(end: &str, compared: bool) -> BenchReport {
        BenchReport {
            end: end.into(),
            recommended: Some(Recommended {
                mode: "full".into(),
                depth: 8,
                compared,
                ..Recommended::default()
            }),
            evidence: Evidence { cold: true, units: 64, ..Evidence::default() },
            ..BenchReport::default()
        }
    }

    #[test]
    fn only_what_was_compared_to_the_end_is_kept_as_best() {
        assert_eq!(best_of(&measured("complete", true)).map(|best| best.depth), Some(8));
        for (end, compared) in [("complete", false), ("stopped", true), ("device gone", true)] {
            assert_eq!(best_of(&measured(end, compared)), None, "{end} {compared}");
        }
    }

    #[test]
    fn a_first_read_that_failed_costs_the_exit_code() {
        let mut report = measured("complete", true);
        assert!(verdict(&report).is_ok());
        report.evidence.errors = 1;
        let error = verdict(&report).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreadable);
        assert!(error.full_text().contains("failed to end 1 reads"), "{}", error.full_text());
    }

    #[test]
    fn evidence_is_told_also_without_methods_but_not_of_a_volume_that_is_warm() {
        let told = |end: &str| is_told(&measured(end, false));
        assert!(told("complete") && told("stopped") && told(NO_WARMING) && !told(NOT_COLD));
        assert!(!is_told(&BenchReport { end: "stopped".into(), ..BenchReport::default() }));
    }
}
