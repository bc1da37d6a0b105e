//! What several verbs do with files.

use crate::error::{Context, Error, Result};
use crate::files::write_atomically;
use crate::profile::{Profile, load};
use serde::Serialize;
use std::path::Path;

/// Larger files are no profiles: 4 million extents of 40 bytes each are 160 MB.
const PROFILE_BYTES_MAX: u64 = 256 << 20;

/// Reads a whole file of limited size; the path is in every error.
pub fn read_file(path: &Path, what: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let shown = path.display();
    let fail = || format!("failed to read {what} `{shown}`");
    let metadata = std::fs::metadata(path).context(fail)?;
    if metadata.is_dir() {
        return Err(Error::failed(format!("{}: it is a folder", fail())));
    }
    if metadata.len() > bytes_max {
        let bytes = metadata.len();
        return Err(Error::failed(format!("{}: it has {bytes} bytes, the limit is {bytes_max}", fail())));
    }
    std::fs::read(path).context(fail)
}

/// A profile in either form.
pub fn load_profile(path: &Path) -> Result<Profile> {
    let bytes = read_file(path, "profile", PROFILE_BYTES_MAX)?;
    load(&bytes).context(|| format!("failed to load profile `{}`", path.display()))
}

/// Writes a report, whole or not at all.
pub fn write_report<T: Serialize>(path: &Path, report: &T) -> Result<()> {
    let fail = || format!("failed to write report `{}`", path.display());
    let mut text = serde_json::to_vec_pretty(report).context(fail)?;
    text.push(b'\n');
    write_atomically(path, &text).context(fail)
}
