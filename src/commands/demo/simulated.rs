//! The demo in virtual time: the same recording, profile, plan and engine, on the law instead of a device.

use super::Findings;
use crate::bench::Draw;
use crate::cold::{ColdVolume, Model};
use crate::engine::{self, Depth, Options, Outcome, Pace, SimSource};
use crate::error::Result;
use crate::extent::{Extent, ExtentSet};
use crate::plan::{Mode, Plan, PlannedRead, Shape};
use crate::profile::{bind, build, compiled};
use crate::recording::{Flags, Header, TouchLog};
use crate::units::as_s;
use crate::volume::Identity;
use std::sync::atomic::AtomicBool;

/// 2 GiB.
const SECTORS: u64 = 4 << 20;
/// Dependent reads of the workload.
const READS: u64 = 300;

fn source(model: &Model) -> SimSource {
    SimSource::new(ColdVolume::new(model.clone(), SECTORS, 1, ExtentSet::new()), 256)
}

fn run_reads(source: &mut SimSource, reads: impl Iterator<Item = PlannedRead>, depth: Depth) -> Outcome {
    let options = Options {
        depth,
        pace: Pace::default(),
        budget: None,
        deadline_ns: None,
        block_bytes: 512,
        idle_from_stage: u16::MAX,
    };
    engine::run(source, reads, options, &AtomicBool::new(false), &mut ())
}

/// Reads that wait for each other, as a boot's do.
fn workload() -> Vec<PlannedRead> {
    let mut draw = Draw(3);
    let read = |_| PlannedRead { start: draw.below(SECTORS / 8) * 8, sectors: 8, stage: 0 };
    (0..READS).map(read).collect()
}

/// The whole job.
pub fn run(model: Model, missing: Vec<String>) -> Result<Findings> {
    let reads = workload();
    let mut cold = source(&model);
    let mut log = TouchLog::new();
    let mut cold_ns = 0;
    for read in &reads {
        let outcome = run_reads(&mut cold, std::iter::once(*read), Depth::fixed(1));
        if let Some(extent) = Extent::at(read.start, u64::from(read.sectors)) {
            log.issue(cold_ns / 1000, extent, Flags::READ, "workload");
            cold_ns += outcome.elapsed_ns();
            log.complete(cold_ns / 1000, extent.start());
        }
    }
    let volume = Identity::of_size(SECTORS);
    let header = Header { id: "demo".into(), volume: Some(volume.clone()), ..Header::default() };
    let profile = build::build("demo", &[log.finish(header)], build::Options::default())?;
    let stages = bind::resolve(&profile, &volume)?;
    let shape = Shape { sectors: SECTORS, block_bytes: 512, unit_bytes: model.unit_bytes, mode: Mode::Touch };
    let plan = Plan::new(stages.iter().map(|stage| (stage.name.as_str(), stage.extents.as_slice())), shape);

    let mut warm = source(&model);
    let warming = run_reads(&mut warm, plan.reads(), Depth::auto(None));
    let warmed = run_reads(&mut warm, reads.iter().copied(), Depth::fixed(1));
    let again = run_reads(&mut warm, reads.iter().copied(), Depth::fixed(1));
    let units = plan.totals().units;
    Ok(Findings {
        simulated: true,
        missing,
        units_recorded: units,
        units_hydrated: cold.volume().counters().hydrated,
        unit_bytes: model.unit_bytes,
        profile_bytes: compiled::encode(&profile).len() as u64,
        cold_s: as_s(cold_ns),
        warmed_s: as_s(warmed.elapsed_ns()),
        already_warm_s: as_s(again.elapsed_ns()),
        warming_s: as_s(warming.elapsed_ns()),
        bound_s: as_s(model.bound_ns(units)),
        model: model.name,
        ..Findings::default()
    })
}
