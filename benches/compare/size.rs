//! Bytes of a compiled profile of a real workload: that of the demo, recorded on a filesystem.

use super::Setup;
use super::run;
use super::table::{Found, Table};
use ebs_prewarm::error::{Error, Result};

pub fn run(_: &Setup) -> Result<Found> {
    let (demo, _) = run::ours(&["demo", "--model", "io2"])?;
    if demo["simulated"] != serde_json::json!(false) {
        return Err(
            Error::failed("failed to run the demo on a real device").because(demo["missing"].to_string())
        );
    }
    let (bytes, units) = (run::number(&demo, "/profile_bytes"), run::number(&demo, "/units_recorded"));
    let mut table = Table::new("compiled profile", &["bytes", "units", "bytes a unit"]);
    table.add("the demo's workload", &[bytes, units, bytes / units]);
    let note = "extents of a workload are finer than units: a profile serves units of any size".into();
    Ok(Found { tables: vec![table], notes: vec![note], ..Found::default() })
}
