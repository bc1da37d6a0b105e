//! What several verbs do with files.

use crate::error::{Context, Error, Result};
use crate::files::{check_writable, write_atomically};
use crate::profile::{Profile, load};
#[cfg(any(feature = "people", feature = "report"))]
use crate::recording::{Recording, format};
use crate::report::{Document, Form, json};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

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

/// Larger files are no recordings: 4 million touches of 30 bytes each are 126 MB.
#[cfg(any(feature = "people", feature = "report"))]
const RECORDING_BYTES_MAX: u64 = 256 << 20;

#[cfg(any(feature = "people", feature = "report"))]
/// A recording; the path is in every error.
pub fn load_recording(path: &Path) -> Result<Recording> {
    let bytes = read_file(path, "recording", RECORDING_BYTES_MAX)?;
    format::decode(&bytes).context(|| format!("failed to load recording `{}`", path.display()))
}

/// Writes a report as what its name says, whole or not at all.
pub fn write_report<T: Document>(path: &Path, report: &T) -> Result<()> {
    let fail = || format!("failed to write report `{}`", path.display());
    check_form::<T>(path)?;
    let bytes = match report.drawn(Form::of(path)) {
        Some(text) => text.into_bytes(),
        None => json(report).context(fail)?,
    };
    write_atomically(path, &bytes).context(fail)
}

/// Refuses a name that asks for a form that a report has not, or not in this build.
pub fn check_form<T: Document>(path: &Path) -> Result<()> {
    if T::has(Form::of(path)) {
        return Ok(());
    }
    let named = path.display();
    let whose = if cfg!(feature = "report") { "this report" } else { "a report of this build" };
    let (is, hint) = match T::has(Form::Markdown) {
        true => ("JSON or Markdown", "name it .json or .md"),
        false => ("JSON", "name it .json"),
    };
    Err(Error::usage(format!("failed to write report `{named}`: {whose} is {is}")).hint(hint))
}

/// A report's file that is tried beside the work: whoever waits is told at once that it cannot be written, and the
/// work neither waits for a slow filesystem nor fails for it.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    trial: Option<JoinHandle<()>>,
}

impl ReportFile {
    /// Begins the trial.
    pub fn new<T: Document>(path: PathBuf) -> ReportFile {
        let tried = path.clone();
        let trial = move || {
            if let Err(error) = check_form::<T>(&tried).and_then(|()| check_writable(&tried)) {
                tracing::warn!("the report will be lost: {}", error.full_text());
            }
        };
        ReportFile { path, trial: std::thread::Builder::new().name("report".into()).spawn(trial).ok() }
    }

    /// Writes it, whole or not at all.
    pub fn write<T: Document>(mut self, report: &T) -> Result<()> {
        // Both use the same temporary name.
        self.end_trial();
        write_report(&self.path, report)
    }

    fn end_trial(&mut self) {
        let _ = self.trial.take().map(JoinHandle::join);
    }
}

/// The trial takes its own file away.
impl Drop for ReportFile {
    fn drop(&mut self) {
        self.end_trial();
    }
}

/// The first error; those after it are logged, so that none is lost.
pub fn first_error(results: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let first = errors.next();
    errors.for_each(|error| tracing::error!("{}", error.full_text()));
    first.map_or(Ok(()), Err)
}

/// A parser of an argument for clap, which shows an error without what could be done about it: here with.
pub fn parsed<T>(
    parse: impl Fn(&str) -> Result<T> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| parse(text).map_err(|error| error.full_text())
}
