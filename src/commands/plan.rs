//! `plan`: what `warm` would do, and what the alternatives cost.

use super::output::Output;
use super::warm::What;
use crate::error::Result;
use crate::plan::{Expectation, Mode, Plan, StagePlan};
use crate::report::{FAST_SNAPSHOT_RESTORE_PER_MONTH_USD, provisioned_rate_usd};
use crate::units::{ByteSize, SECTOR_BYTES, as_s, human_bytes, human_s};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Show what `warm` would do: reads, bytes, seconds, and the price of the alternatives
#[derive(Debug, Args)]
#[command(after_help = "Example:
  ebs-prewarm plan --profile boot.bin --device /dev/nvme1n1")]
pub struct PlanArgs {
    #[command(flatten)]
    pub what: What,
}

#[derive(Debug, Serialize)]
struct StageShown {
    name: String,
    units: u64,
    reads: u64,
    bytes: u64,
    /// From the start to the end of this stage on a gp3 volume at its baseline.
    expected_until_s: f64,
}

/// Prices of the vendor's own ways, in US dollars.
#[derive(Debug, Serialize)]
struct Prices {
    /// Fast Snapshot Restore: $0.75 per snapshot, zone and hour (vendor documentation), for 30 days.
    fast_snapshot_restore_per_month_usd: f64,
    /// Provisioned rate for volume initialization: about $0.0036 per GiB at 300 MiB/s, for each volume made.
    provisioned_rate_per_volume_usd: f64,
    ebs_prewarm_usd: f64,
}

#[derive(Debug, Serialize)]
struct Planned {
    device: String,
    mode: &'static str,
    unit_bytes: u64,
    stages: Vec<StageShown>,
    units: u64,
    reads: u64,
    bytes: u64,
    expected_s: f64,
    expected_on: &'static str,
    prices: Prices,
}

/// Shows the plan.
pub fn run(args: PlanArgs, output: Output) -> Result<()> {
    args.what.only_one("plan")?;
    let go_on = AtomicBool::new(false);
    let (options, bound) = args.what.bind(None, Duration::ZERO, &go_on)?;
    let plan = bound.plan(options.mode.unwrap_or(Mode::Touch));
    let rest = bound.rest(&plan, &options, &go_on)?;
    let unit_bytes = plan.shape().unit_bytes;
    let expected = |totals: &StagePlan| as_s(Expectation::GP3.elapsed_ns(totals, unit_bytes));
    let mut sum = StagePlan::default();
    let mut stages = Vec::new();
    for stage in plan.stages().iter().chain(rest.iter().flat_map(Plan::stages)) {
        sum.units += stage.units;
        sum.reads += stage.reads;
        sum.bytes += stage.bytes;
        stages.push(StageShown {
            name: stage.name.clone(),
            units: stage.units,
            reads: stage.reads,
            bytes: stage.bytes,
            expected_until_s: expected(&sum),
        });
    }
    let volume_bytes = bound.device.sectors() * SECTOR_BYTES;
    let planned = Planned {
        device: bound.device.path().display().to_string(),
        mode: plan.shape().mode.name(),
        unit_bytes,
        stages,
        units: sum.units,
        reads: sum.reads,
        bytes: sum.bytes,
        expected_s: expected(&sum),
        expected_on: "gp3 at its baseline: 3,000 IOPS, 125 MiB/s, hydrating at 140 MB/s",
        prices: Prices {
            fast_snapshot_restore_per_month_usd: FAST_SNAPSHOT_RESTORE_PER_MONTH_USD,
            provisioned_rate_per_volume_usd: provisioned_rate_usd(volume_bytes),
            ebs_prewarm_usd: 0.0,
        },
    };
    output.print(&planned, text)
}

fn text(planned: &Planned) -> String {
    let mut out = String::new();
    let unit = ByteSize(planned.unit_bytes);
    let _ = writeln!(out, "{}: {} mode, units of {unit}", planned.device, planned.mode);
    let _ = writeln!(out, "{:<12} {:>8} {:>8} {:>10}  warm after", "stage", "units", "reads", "bytes");
    for stage in &planned.stages {
        let bytes = human_bytes(stage.bytes);
        let until = human_s(stage.expected_until_s);
        let _ =
            writeln!(out, "{:<12} {:>8} {:>8} {bytes:>10}  {until}", stage.name, stage.units, stage.reads);
    }
    let _ = writeln!(
        out,
        "in all {} reads, {}; expected {} on {}",
        planned.reads,
        human_bytes(planned.bytes),
        human_s(planned.expected_s),
        planned.expected_on,
    );
    let prices = &planned.prices;
    let _ = writeln!(
        out,
        "instead of: Fast Snapshot Restore ${:.0} a month per snapshot and zone, or a provisioned rate for \
         volume initialization ${:.4} per volume",
        prices.fast_snapshot_restore_per_month_usd, prices.provisioned_rate_per_volume_usd,
    );
    out
}
