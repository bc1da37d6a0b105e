//! `demo`: the main job from end to end, on a volume that is made for it.
//!
//! As root it is all real: a filesystem on a cold volume behind FUSE and a loop device, recorded through tracefs,
//! warmed through io_uring. Without, the same plan and engine run on the law in virtual time, and say so.

mod real;
mod simulated;
mod workload;

use super::output::Output;
use crate::cold::Model;
use crate::error::Result;
use crate::units::{human_bytes, human_s};
use clap::Args as ClapArgs;
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// Show the whole job on a small cold volume: record, build a profile, warm, compare
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  ebs-prewarm demo --model io2")]
pub struct Args {
    /// How the cold volume behaves: a model's name
    #[arg(long, default_value = "gp3")]
    pub model: String,
    /// Run in virtual time even where the real thing could run
    #[arg(long)]
    pub simulated: bool,
    /// The workload itself: mounts DEVICE on DIR, reads, unmounts, writes its seconds to FILE
    #[arg(long, hide = true, num_args = 3, value_names = ["DEVICE", "DIR", "FILE"])]
    pub workload: Option<Vec<PathBuf>>,
}

/// What the demo found.
#[derive(Clone, Debug, Default, Serialize)]
struct Findings {
    /// Whether a real block device was read, or the law in virtual time.
    simulated: bool,
    /// What was missing for the real thing.
    missing: Vec<String>,
    model: String,
    /// Units recorded, and units that the volume hydrated meanwhile.
    units_recorded: u64,
    units_hydrated: u64,
    /// Size of such a unit: that of the model.
    unit_bytes: u64,
    profile_bytes: u64,
    /// Seconds of the workload.
    cold_s: f64,
    warmed_s: f64,
    /// With warming started at the same moment; in virtual time nothing runs beside something else.
    alongside_s: Option<f64>,
    already_warm_s: f64,
    /// Seconds of warming, and the lower bound of the law for so many units.
    warming_s: f64,
    bound_s: f64,
    /// (cold - warmed) / (cold - already warm)
    recovered: f64,
    recovered_alongside: Option<f64>,
}

impl Findings {
    fn finish(mut self) -> Findings {
        let saved = self.cold_s - self.already_warm_s;
        self.recovered = (self.cold_s - self.warmed_s) / saved;
        self.recovered_alongside = self.alongside_s.map(|seconds| (self.cold_s - seconds) / saved);
        self
    }

    fn text(&self) -> String {
        let mut out = String::new();
        if self.simulated {
            let _ = writeln!(out, "SIMULATED, in virtual time: no device was read.");
        }
        for missing in &self.missing {
            let _ = writeln!(out, "  missing for the real thing: {missing}");
        }
        let _ = writeln!(out, "\nworkload on a cold {} volume", self.model);
        let _ = writeln!(
            out,
            "  recorded {} units of {}; the volume hydrated {}; compiled profile {}",
            self.units_recorded,
            human_bytes(self.unit_bytes),
            self.units_hydrated,
            human_bytes(self.profile_bytes),
        );
        let ahead =
            format!("after {} of warming; the bound is {}", human_s(self.warming_s), human_s(self.bound_s));
        let beside = "both began at the same moment, as on a boot";
        let rows = [
            ("cold", Some(self.cold_s), ""),
            ("warmed", Some(self.warmed_s), &ahead),
            ("warming alongside", self.alongside_s, beside),
            ("already warm", Some(self.already_warm_s), ""),
        ];
        for (name, seconds, note) in rows {
            if let Some(seconds) = seconds {
                let row = format!("  {name:<18} {:>8}   {note}", human_s(seconds));
                let _ = writeln!(out, "{}", row.trim_end());
            }
        }
        let _ = write!(out, "  recovered {:.2} of what an already warm volume gives", self.recovered);
        if let Some(recovered) = self.recovered_alongside {
            let _ = write!(out, ", {recovered:.2} with warming alongside");
        }
        out.push('\n');
        out
    }
}

/// Runs the demo, or the workload that it runs as a child.
pub fn run(args: Args, output: Output) -> Result<()> {
    if let Some([device, dir, file]) = args.workload.as_deref() {
        return workload::run(device, dir, file);
    }
    let model = Model::named(&args.model)?;
    let missing = real::missing();
    let findings = if args.simulated || !missing.is_empty() {
        simulated::run(model, missing)?
    } else {
        real::run(model)?
    };
    output.print(&findings.finish(), Findings::text)
}
