//! From a profile and a device to a report: bind, plan, read, verify. What `warm`, `plan` and `demo` call.
//!
//! Holds: a unit that was only touched is called warm when a sample of such units was read again and answered
//! like warm ones; where it did not, `auto` reads every byte.

pub mod find;

use crate::device::Device;
use crate::engine::{self, Depth, End, Options as EngineOptions, Outcome, Pace, Progress, Sample, Verdict};
use crate::error::{Context, Error, Kind, Result};
use crate::extent::Extent;
use crate::plan::{Mode, Plan, Shape};
use crate::process;
use crate::profile::Profile;
use crate::profile::bind::{looked_up, resolve};
use crate::report::{DepthReport, LatencyUs, SCHEMA, StageReport, Totals, Unreadable, WarmReport};
use crate::units::{SECTOR_BYTES, as_ns, as_s};
use crate::volume::Identity;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The snapshot API's block (vendor documentation), and so the first guess at the unit of hydration.
pub const UNIT_BYTES: u64 = 512 << 10;
/// Units that are verified: 16 that are warm leave less than 1 % for a quarter of the units being cold.
const SAMPLES: usize = 16;
/// Verification gives up after this.
const VERIFY_NS_MAX: u64 = 3_000_000_000;
/// Stages of these names run with idle priority: nothing in the boot waits for them.
const IDLE_STAGES: [&str; 2] = ["later", crate::plan::REST];

/// How to warm.
#[derive(Clone, Debug)]
pub struct Options {
    /// A block device or an image.
    pub device: PathBuf,
    /// Where `/sys` is found.
    pub root: PathBuf,
    /// `None`: touch, verify, and read every byte where the unit was wrong.
    pub mode: Option<Mode>,
    /// Unit in bytes; `None` for [`UNIT_BYTES`].
    pub unit_bytes: Option<u64>,
    /// Reads in flight; `None` lets it find itself.
    pub depth: Option<u32>,
    /// Reads a second; 0 for no limit.
    pub iops: u64,
    /// Bytes a second; 0 for no limit.
    pub rate: u64,
    /// Whether all that no stage has is warmed after the stages.
    pub rest: bool,
    /// Counted from the first read, over all that is read.
    pub deadline: Option<Duration>,
}

/// A device that was opened and recognised, with the profile's extents on it.
#[derive(Debug)]
pub struct Bound {
    /// Open for reading.
    pub device: Device,
    /// What it was recognised by.
    pub identity: Identity,
    stages: Vec<(String, Vec<Extent>)>,
    profile: String,
    unit_bytes: u64,
    rest: bool,
}

/// Opens the device, checks that the profile is for it and finds its extents.
pub fn bind(options: &Options, profile: Option<&Profile>) -> Result<Bound> {
    let unit_bytes = options.unit_bytes.unwrap_or(UNIT_BYTES);
    if !unit_bytes.is_power_of_two() || !(4096..=64 << 20).contains(&unit_bytes) {
        return Err(Error::usage(format!("failed to use a unit of {unit_bytes} bytes"))
            .hint("a unit is a power of two from 4KiB to 64MiB"));
    }
    let device = Device::open(&options.device)?;
    let (identity, stages) = match profile {
        Some(profile) => {
            let wanted = looked_up(profile);
            let identity = match profile.volume {
                Some(_) => device.identity(&options.root, |partuuid| wanted.contains(&partuuid))?,
                // Nothing to compare: nothing is read.
                None => Identity::of_size(device.sectors()),
            };
            let stages = resolve(profile, &identity)?;
            (identity, stages.into_iter().map(|stage| (stage.name, stage.extents)).collect())
        }
        None => (Identity::of_size(device.sectors()), Vec::new()),
    };
    let profile = profile.map_or_else(String::new, |profile| profile.name.clone());
    Ok(Bound { device, identity, stages, profile, unit_bytes, rest: options.rest })
}

impl Bound {
    /// The ordered reads.
    pub fn plan(&self, mode: Mode) -> Plan {
        let shape = Shape {
            sectors: self.device.sectors(),
            block_bytes: self.device.block_bytes(),
            unit_bytes: self.unit_bytes,
            mode,
        };
        let stages = self.stages.iter().map(|(name, extents)| (name.as_str(), extents.as_slice()));
        let plan = Plan::new(stages, shape);
        if self.rest { plan.with_rest() } else { plan }
    }
}

/// Warms, and says what came of it. An error means that nothing was read; what went wrong later is in the report.
pub fn warm(
    bound: &Bound,
    options: &Options,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<WarmReport> {
    let plan = bound.plan(options.mode.unwrap_or(Mode::Touch));
    let run = Run { bound, options, stop };
    let pass = run.pass(&plan, options.deadline, progress)?;
    let mut report = run.report(&plan, &pass);
    let unit = crate::units::ByteSize(bound.unit_bytes);
    let wrong = pass.verdict.as_ref().is_some_and(Verdict::unit_is_wrong);
    if wrong {
        let found = format!("the unit is smaller than {unit}: touching one block leaves the rest of it cold");
        tracing::warn!("{found}");
        report.notes.push(found);
    } else if let Some(verdict) = pass.verdict.as_ref().filter(|verdict| verdict.unfinished) {
        report.notes.push(format!("only {} units were verified in time", verdict.checks.len()));
    }
    if wrong && options.mode.is_none() && matches!(pass.outcome.end, End::Complete) {
        let plan = bound.plan(Mode::Full);
        let spent = Duration::from_nanos(process::uptime_ns().saturating_sub(pass.uptime_ns));
        let left = options.deadline.map(|deadline| deadline.saturating_sub(spent));
        let second = run.pass(&plan, left, progress)?;
        let first = std::mem::replace(&mut report, run.report(&plan, &second));
        report.follow(first, as_s(second.uptime_ns.saturating_sub(pass.uptime_ns)));
        report.notes.push("every byte of the profile was read instead".into());
    }
    Ok(report)
}

/// One run of a plan.
struct Pass {
    outcome: Outcome,
    /// Units that were not read throughout, by stage.
    units_left: Vec<u64>,
    /// Where units were touched.
    verdict: Option<Verdict>,
    /// When its first read was submitted, nanoseconds since the kernel started.
    uptime_ns: u64,
}

struct Run<'a> {
    bound: &'a Bound,
    options: &'a Options,
    stop: &'a AtomicBool,
}

impl Run<'_> {
    fn pass(&self, plan: &Plan, deadline: Option<Duration>, progress: &mut dyn Progress) -> Result<Pass> {
        let device = &self.bound.device;
        let queue = device.queue_requests(&self.options.root);
        let depth = self.options.depth.map_or_else(|| Depth::auto(queue), Depth::fixed);
        let mut source = engine::open(device.file(), depth.max(), plan.read_bytes_max())
            .context(|| format!("failed to prepare reads of `{}`", device.path().display()))?;
        progress.begin(plan.stages());
        let (now_ns, uptime_ns) = (source.now_ns(), process::uptime_ns());
        let idle = plan.stages().iter().position(|stage| IDLE_STAGES.contains(&stage.name.as_str()));
        let deadline_ns = deadline.map(|deadline| now_ns.saturating_add(as_ns(deadline)));
        let engine_options = EngineOptions {
            depth,
            pace: Pace::new(self.options.iops, self.options.rate),
            deadline_ns,
            block_bytes: device.block_bytes(),
            idle_from_stage: idle.map_or(u16::MAX, |index| index as u16),
        };
        let mut reads = plan.reads();
        let mut outcome = engine::run(&mut *source, reads.by_ref(), engine_options, self.stop, progress);
        let units_left = plan.units_of(outcome.left.iter().copied().chain(reads));
        let touched = plan.shape().mode == Mode::Touch && matches!(outcome.end, End::Complete);
        let verdict = if touched {
            let until_ns = source.now_ns().saturating_add(VERIFY_NS_MAX);
            let until_ns = Some(deadline_ns.map_or(until_ns, |deadline| deadline.min(until_ns)));
            let read_bytes = device.block_bytes().max(4096);
            let samples = self.samples(&outcome, read_bytes);
            engine::verify(&mut *source, samples, read_bytes, until_ns, self.stop).ok()
        } else {
            None
        };
        let unfinished = verdict.as_ref().is_some_and(|verdict| verdict.unfinished);
        if unfinished && self.stop.load(Ordering::Relaxed) {
            outcome.end = End::Stopped;
        }
        // What the run did before its first read is in the time to it.
        let first_ns = outcome.stages.iter().filter_map(|stage| stage.started_ns).min().unwrap_or(now_ns);
        let uptime_ns = uptime_ns + first_ns.saturating_sub(now_ns);
        Ok(Pass { outcome, units_left, verdict, uptime_ns })
    }

    /// Spread over the run, and only of units that have a far block.
    fn samples(&self, outcome: &Outcome, read_bytes: u32) -> Vec<Sample> {
        let volume_bytes = self.bound.device.sectors() * SECTOR_BYTES;
        let (all, count) = (&outcome.samples, outcome.samples.len().min(SAMPLES));
        let chosen = (0..count).map(|number| {
            let (offset, touch_ns) = all[number * all.len() / count];
            Sample::new(offset, touch_ns, self.bound.unit_bytes, volume_bytes, u64::from(read_bytes))
        });
        chosen.filter(|sample| sample.far != sample.touched).collect()
    }

    fn report(&self, plan: &Plan, pass: &Pass) -> WarmReport {
        let (outcome, verdict) = (&pass.outcome, pass.verdict.as_ref());
        let (end, error) = match &outcome.end {
            End::Complete => ("complete", None),
            End::Stopped => ("stopped", Some("stopped by a signal".into())),
            End::Deadline => ("deadline", Some("the deadline passed".into())),
            End::DeviceGone => ("device gone", Some("the device answers nothing but errors".into())),
            End::Failed(error) => ("failed", Some(error.to_string())),
        };
        let totals = plan.totals();
        let mut notes = Vec::new();
        if !self.bound.device.is_direct() {
            notes.push(
                "it was read through the page cache: what that held was not read from the volume".into(),
            );
        }
        if totals.reads == 0 {
            notes.push("the profile names nothing to read".into());
        }
        WarmReport {
            schema: SCHEMA,
            end: end.into(),
            error,
            device: self.bound.device.path().display().to_string(),
            volume: Some(self.bound.identity.clone()),
            profile: self.bound.profile.clone(),
            mode: plan.shape().mode.name().into(),
            unit_bytes: self.bound.unit_bytes,
            engine: outcome.source.clone(),
            stages: stages(plan, pass),
            totals: Totals {
                units: totals.units,
                units_left: pass.units_left.iter().sum(),
                reads: outcome.reads(),
                bytes_read: outcome.bytes_read,
                errors: outcome.errors,
                retries: outcome.retries,
                already_warm: verdict
                    .filter(|verdict| verdict.warm_ns > 0)
                    .map(|verdict| outcome.latency_us.count_between(0, verdict.surely_warm_ns() / 1000)),
                verified: verdict.map_or(0, |verdict| verdict.checks.len() as u64),
                verify_failed: verdict.map_or(0, |verdict| verdict.failed),
                elapsed_s: as_s(outcome.elapsed_ns()),
                cpu_s: process::cpu_s(),
            },
            latency_us: LatencyUs::of(&outcome.latency_us),
            warm_latency_us: verdict.map(|verdict| verdict.warm_ns / 1000).filter(|us| *us > 0),
            depth: DepthReport { initial: outcome.depth.0, max: outcome.depth.1, last: outcome.depth.2 },
            first_read_uptime_s: as_s(pass.uptime_ns),
            unreadable: outcome.unreadable.iter().map(unreadable).collect(),
            abandoned: outcome.left.len() as u64,
            notes,
        }
    }
}

fn stages(plan: &Plan, pass: &Pass) -> Vec<StageReport> {
    let (none, outcome) = (engine::StageOutcome::default(), &pass.outcome);
    let planned = plan.stages().iter().enumerate();
    planned
        .map(|(index, stage)| {
            let done = outcome.stages.get(index).unwrap_or(&none);
            let started_ns = done.started_ns.map(|started| started.saturating_sub(outcome.started_ns));
            let ended_ns = done.ended_ns.saturating_sub(outcome.started_ns);
            StageReport {
                name: stage.name.clone(),
                units: stage.units,
                units_left: pass.units_left.get(index).copied().unwrap_or(0),
                reads: done.reads,
                bytes: done.bytes,
                errors: done.errors,
                started_s: started_ns.map(as_s),
                elapsed_s: as_s(ended_ns.saturating_sub(started_ns.unwrap_or(ended_ns))),
            }
        })
        .collect()
}

fn unreadable((extent, number): &(Extent, i32)) -> Unreadable {
    let error = match number {
        0 => "past the end of the device".into(),
        number => std::io::Error::from_raw_os_error(*number).to_string(),
    };
    Unreadable { start_sector: extent.start(), sectors: extent.sectors(), error }
}

/// What a report means for the exit code.
pub fn verdict(report: &WarmReport) -> Result<()> {
    let device = &report.device;
    let reason = report.error.clone().unwrap_or_default();
    match report.end.as_str() {
        "complete" if report.totals.errors > 0 => Err(Error::new(
            Kind::Unreadable,
            format!("failed to read {} blocks of `{device}`; all others are warm", report.totals.errors),
        )),
        "complete" => Ok(()),
        "deadline" => {
            Err(Error::new(Kind::Deadline, format!("failed to warm `{device}` in time: {}", left(report)))
                .hint("give a later --deadline, or run it again: what was read stays warm"))
        }
        _ => Err(Error::failed(format!("failed to warm `{device}`: {reason}; {}", left(report)))),
    }
}

/// What was not read, for people.
fn left(report: &WarmReport) -> String {
    let WarmReport { totals, stages, .. } = report;
    let first = stages.iter().find(|stage| stage.units_left > 0);
    let from = first.map_or_else(String::new, |stage| format!(", from stage `{}` on", stage.name));
    format!("{} of {} units are left{from}", totals.units_left, totals.units)
}
