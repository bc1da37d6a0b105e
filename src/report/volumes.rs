//! What `warm` did with several volumes at once: the report of each, and sums.

use super::{Document, Form, SCHEMA, WarmReport};
use crate::units::{human_bytes, human_s};
use serde::Serialize;
use std::fmt::Write;

/// Sums over all volumes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VolumesTotals {
    /// Volumes that were asked for.
    pub volumes: u64,
    /// Those of which all was read, or was warm already.
    pub volumes_complete: u64,
    /// Units planned, on volumes that were found.
    pub units: u64,
    /// Those that are left.
    pub units_left: u64,
    /// Planned reads that were done.
    pub reads: u64,
    /// Bytes read, verification not among them.
    pub bytes_read: u64,
    /// Blocks that could not be read.
    pub errors: u64,
    /// From the start until the last volume has ended, with looking for disks.
    pub elapsed_s: f64,
    /// Processor seconds of the process; those of a volume's own report are of its thread.
    pub cpu_s: f64,
}

/// What `warm` did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VolumesReport {
    pub schema: u32,
    /// As if each had been warmed alone, in the order of the profiles.
    pub volumes: Vec<WarmReport>,
    pub totals: VolumesTotals,
}

impl VolumesReport {
    /// Of the reports of all volumes.
    pub fn of(volumes: Vec<WarmReport>, elapsed_s: f64, cpu_s: f64) -> VolumesReport {
        let sum = |of: fn(&WarmReport) -> u64| volumes.iter().map(of).sum();
        let totals = VolumesTotals {
            volumes: volumes.len() as u64,
            volumes_complete: sum(|volume| u64::from(volume.is_complete())),
            units: sum(|volume| volume.totals.units),
            units_left: sum(|volume| volume.totals.units_left),
            reads: sum(|volume| volume.totals.reads),
            bytes_read: sum(|volume| volume.totals.bytes_read),
            errors: sum(|volume| volume.totals.errors),
            elapsed_s,
            cpu_s,
        };
        VolumesReport { schema: SCHEMA, volumes, totals }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for volume in &self.volumes {
            match (&volume.error, volume.engine.is_empty()) {
                // Nothing was read of it.
                (Some(error), true) => {
                    let _ = writeln!(out, "{}: {}: {error}", volume.profile, volume.end);
                }
                _ => {
                    let _ = write!(out, "{}: ", volume.profile);
                    out.push_str(&volume.text());
                }
            }
            out.push('\n');
        }
        out.push_str(&self.last_line());
        out.push('\n');
        out
    }

    /// The sums, for people.
    pub fn last_line(&self) -> String {
        let totals = &self.totals;
        let bad = match totals.errors {
            0 => String::new(),
            errors => format!("; {errors} blocks could not be read"),
        };
        format!(
            "{} of {} volumes are warm; {} of {} units read with {} reads, {}, in {}{bad}",
            totals.volumes_complete,
            totals.volumes,
            totals.units.saturating_sub(totals.units_left),
            totals.units,
            totals.reads,
            human_bytes(totals.bytes_read),
            human_s(totals.elapsed_s),
        )
    }
}

impl Document for VolumesReport {
    #[cfg(feature = "report")]
    fn drawn(&self, form: Form) -> Option<String> {
        if form != Form::Markdown {
            return None;
        }
        let each: Vec<String> = self.volumes.iter().map(super::markdown::warm_markdown).collect();
        Some(format!("{}.\n\n{}", self.last_line(), each.join("\n")))
    }

    #[cfg(not(feature = "report"))]
    fn drawn(&self, _: Form) -> Option<String> {
        None
    }

    /// A page is of one volume.
    fn has(form: Form) -> bool {
        form == Form::Json || (form == Form::Markdown && cfg!(feature = "report"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Totals;

    #[test]
    fn each_volume_is_told_and_the_sum() {
        let warmed = WarmReport {
            end: "complete".into(),
            device: "/dev/a".into(),
            profile: "root".into(),
            engine: "io_uring".into(),
            totals: Totals { units: 5, reads: 5, bytes_read: 20 << 10, ..Totals::default() },
            ..WarmReport::default()
        };
        let missing = WarmReport {
            end: "refused".into(),
            error: Some("there is none".into()),
            device: "auto".into(),
            profile: "data".into(),
            ..WarmReport::default()
        };
        let report = VolumesReport::of(vec![warmed, missing], 1.5, 0.25);
        let totals = &report.totals;
        assert_eq!((totals.volumes, totals.volumes_complete, totals.units, totals.reads), (2, 1, 5, 5));
        let text = report.text();
        for line in
            ["root: /dev/a: complete", "data: refused: there is none", "1 of 2 volumes are warm; 5 of 5"]
        {
            assert!(text.contains(line), "`{line}` is not in: {text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["schema"], &json["volumes"][1]["end"]), (&1.into(), &"refused".into()));
    }
}
