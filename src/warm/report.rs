//! What a run of a plan says of itself.

use super::Bound;
use super::run::Pass;
use crate::engine::{self, End, Moment, Outcome};
use crate::error::{Error, Kind, Result};
use crate::extent::Extent;
use crate::plan::{Mode, Plan};
use crate::process;
use crate::report::{
    Bins, Cells, DepthReport, LatencyUs, SCHEMA, StageReport, Totals, Unreadable, VolumeMap, WarmReport,
};
use crate::units::{ByteSize, SECTOR_BYTES, as_s};
use std::path::Path;

/// The end of a run that found nothing to warm.
const ALREADY_WARM: &str = "already warm";

/// The report of a run of a plan.
pub(super) fn of(bound: &Bound, plan: &Plan, pass: &Pass) -> WarmReport {
    let (outcome, verdict) = (&pass.outcome, pass.verdict.as_ref());
    let (end, error) = match &outcome.end {
        End::Complete if pass.skipped.warm => (ALREADY_WARM, None),
        End::Complete => ("complete", None),
        End::Stopped => ("stopped", Some("stopped by a signal".into())),
        End::Deadline => ("deadline", Some("the deadline passed".into())),
        End::DeviceGone => ("device gone", Some("the device answers nothing but errors".into())),
        End::Failed(error) => ("failed", Some(error.to_string())),
    };
    let totals = plan.totals();
    let mut notes = Vec::new();
    if let Some(verdict) = verdict.filter(|verdict| verdict.unit_is_wrong()) {
        let unit = ByteSize(bound.unit_bytes);
        let found = format!("the unit is smaller than {unit}: touching one block leaves the rest of it cold");
        tracing::warn!("{found} ({} of {} samples)", verdict.failed, verdict.checks.len());
        notes.push(found);
    } else if let Some(verdict) = verdict.filter(|verdict| verdict.unfinished) {
        notes.push(format!("only {} units were verified in time", verdict.checks.len()));
    }
    if !bound.device.is_direct() {
        notes.push("it was read through the page cache: what that held was not read from the volume".into());
    }
    if totals.reads == 0 {
        notes.push("the profile names nothing to read".into());
    }
    WarmReport {
        schema: SCHEMA,
        end: end.into(),
        error,
        device: bound.device.path().display().to_string(),
        volume: Some(bound.identity.clone()),
        profile: bound.profile.clone(),
        mode: plan.shape().mode.name().into(),
        unit_bytes: bound.unit_bytes,
        unit_is_wrong: verdict.is_some_and(|verdict| verdict.unit_is_wrong()),
        engine: outcome.source.clone(),
        stages: stages(plan, pass),
        totals: Totals {
            units: totals.units,
            units_left: pass.cells_left.iter().flatten().sum(),
            reads: outcome.reads(),
            bytes_read: outcome.bytes_read,
            errors: outcome.errors,
            retries: outcome.retries,
            already_warm: already_warm(pass, totals.units),
            resumed: pass.skipped.resumed,
            taken: pass.skipped.taken,
            extra_reads: outcome.extra_reads,
            held_back_s: as_s(pass.skipped.held_back_ns),
            verified: verdict.map_or(0, |verdict| verdict.checks.len() as u64),
            verify_failed: verdict.map_or(0, |verdict| verdict.failed),
            elapsed_s: as_s(outcome.elapsed_ns()),
            cpu_s: process::cpu_s(),
        },
        latency_us: LatencyUs::of(&outcome.latency_us),
        latency_bins: Bins::of(&outcome.latency_us),
        warm_latency_us: verdict.map(|verdict| verdict.warm_ns / 1000).filter(|us| *us > 0),
        depth: DepthReport { initial: outcome.depth.0, max: outcome.depth.1, last: outcome.depth.2 },
        first_read_uptime_s: as_s(pass.uptime_ns),
        unreadable: outcome.unreadable.iter().map(unreadable).collect(),
        abandoned: outcome.left.len() as u64,
        series: series(plan, outcome),
        map: map(plan, pass),
        notes,
    }
}

/// Units of a cell of the map.
pub(super) fn cell_units(plan: &Plan) -> u64 {
    VolumeMap::cell_units(plan.shape().sectors.div_ceil(plan.unit_sectors()))
}

/// What became of the units, by place.
fn map(plan: &Plan, pass: &Pass) -> VolumeMap {
    let (cell_units, shape) = (cell_units(plan), plan.shape());
    let units = shape.sectors.div_ceil(plan.unit_sectors());
    let cells = |all: Vec<Vec<u64>>| all.into_iter().map(Cells).collect();
    let bad: std::collections::BTreeSet<u64> =
        pass.outcome.unreadable.iter().flat_map(|(extent, _)| extent.units(plan.unit_sectors())).collect();
    let mut unreadable = vec![0; units.div_ceil(cell_units) as usize];
    bad.iter().filter(|unit| **unit < units).for_each(|unit| unreadable[(unit / cell_units) as usize] += 1);
    VolumeMap {
        volume_bytes: shape.sectors * SECTOR_BYTES,
        units,
        cell_units,
        planned: cells(plan.cells_of(plan.reads(), cell_units)),
        left: cells(pass.cells_left.clone()),
        unreadable: Cells(unreadable),
    }
}

/// Over time: seconds since the start, bytes hydrated if all was cold, reads that might be in flight.
fn series(plan: &Plan, outcome: &Outcome) -> Vec<(f64, u64, u32)> {
    let hydrated = |moment: &Moment| match plan.shape().mode {
        Mode::Touch => moment.reads * plan.shape().unit_bytes,
        Mode::Full => moment.bytes,
    };
    let moments = outcome.series.moments();
    let since = |at_ns: u64| as_s(at_ns.saturating_sub(outcome.started_ns));
    moments.map(|moment| (since(moment.at_ns), hydrated(&moment), moment.depth)).collect()
}

/// Units that were warm before, at least; by a sample where all else was left out.
fn already_warm(pass: &Pass, units: u64) -> Option<u64> {
    if pass.skipped.warm {
        return Some(units);
    }
    let verdict = pass.verdict.as_ref().filter(|verdict| verdict.warm_ns > 0)?;
    let found = pass.outcome.latency_us.count_between(0, verdict.surely_warm_ns() / 1000);
    // Those that were looked into before their turn are warm by that.
    Some(found.saturating_sub(pass.looked_into))
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
                units_left: pass.cells_left.get(index).map_or(0, |cells| cells.iter().sum()),
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

/// A warming of which nothing is known but how it ended, and why.
pub fn ended(device: &Path, end: &str, error: String) -> WarmReport {
    WarmReport {
        schema: SCHEMA,
        end: end.into(),
        error: Some(error),
        device: device.display().to_string(),
        totals: Totals { cpu_s: process::cpu_s(), ..Totals::default() },
        ..WarmReport::default()
    }
}

/// A boot goes on without us; why is in the report all the same.
pub fn refused(device: &Path, error: &Error) -> WarmReport {
    ended(device, "refused", error.full_text())
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
        "complete" | ALREADY_WARM => Ok(()),
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
