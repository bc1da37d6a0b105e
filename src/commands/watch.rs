//! `warm --watch`: the boot's own requests are listened to meanwhile, and what came of it is left for `effect`.

#[cfg(feature = "report")]
use super::common::{load_recording, read_file};
use crate::device::Device;
#[cfg(feature = "report")]
use crate::effect::WARMED_BYTES_MAX;
use crate::effect::{Read, SCHEMA, Warmed};
use crate::error::{Context, Result};
use crate::extent::Extent;
use crate::files::write_atomically;
use crate::record::{Live, Requests, Watched, watch_name};
use crate::recording::{Recording, format};
use crate::report::{Share, WarmReport};
use crate::warm::Timed;
use crossbeam_channel::Receiver;
use std::fs;
use std::path::{Path, PathBuf};

/// Listens while a volume is warmed.
#[derive(Debug)]
pub struct Watching {
    live: Live,
    /// What others have read.
    pub seen: Receiver<Extent>,
    /// When each read was made.
    pub timed: Vec<Timed>,
    place: Place,
}

/// Where a warming leaves what it saw of a disk.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    disk: String,
}

impl Place {
    /// In this directory, for the disk with this number, as trace events carry it.
    pub fn new(dir: &Path, number: u32) -> Place {
        Place { dir: dir.into(), disk: watch_name(number) }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.disk))
    }

    /// A warming begins: what an earlier one left is not of this one, and an empty recording tells that it was here. Where
    /// that fails, writing at the end will say why.
    fn begin(&self) {
        let [warmed, recording] = ["json", "rec"].map(|ending| self.path(ending));
        // A file made anew leads nobody along a link.
        let _ = fs::remove_file(warmed);
        let _ = fs::remove_file(&recording);
        let _ = fs::File::create_new(recording);
    }

    /// Whether a warming began here and has not written what it saw; it never will once its lock is free.
    #[cfg(feature = "report")]
    pub fn is_unfinished(&self) -> bool {
        self.path("rec").exists() && !self.path("json").exists()
    }

    /// What was left.
    #[cfg(feature = "report")]
    pub fn read(&self) -> Result<(Warmed, Recording)> {
        let (warmed, recording) = (self.path("json"), self.path("rec"));
        let bytes = read_file(&warmed, "what a warming left", WARMED_BYTES_MAX).map_err(|error| {
            error.hint(match self.is_unfinished() {
                true => "it is written when the warming has ended; one that was killed leaves none",
                false => {
                    "name the directory that was given to the warming: --journal DIR; until then the trace goes on"
                }
            })
        })?;
        let warmed = Warmed::parse(&bytes).context(|| format!("failed to load `{}`", warmed.display()))?;
        Ok((warmed, load_recording(&recording)?))
    }

    fn write(&self, warmed: &Warmed, recording: &Recording) -> Result<()> {
        let path = self.path("json");
        let bytes = serde_json::to_vec(warmed).context(|| format!("failed to write `{}`", path.display()))?;
        write_atomically(&self.path("rec"), &format::encode(recording))?;
        write_atomically(&path, &bytes)
    }
}

impl Watching {
    /// Begins. A warming that cannot listen warms all the same: why is logged.
    pub fn start(device: &Device, dir: &Path) -> Option<Watching> {
        let Some(number) = device.number() else {
            tracing::warn!("nobody else's requests can be seen: an image file has none");
            return None;
        };
        let place = Place::new(dir, number.kernel());
        place.begin();
        match Live::start("/".into(), number.kernel()) {
            Ok((live, seen)) => Some(Watching { live, seen, timed: Vec::new(), place }),
            Err(error) => {
                tracing::warn!("{}; nobody else's requests are seen", error.full_text());
                None
            }
        }
    }

    /// Leaves what came of it; a remark for the report where that failed.
    pub fn finish(self, report: &WarmReport) -> Option<String> {
        let Watching { live, timed, place, .. } = self;
        // Whoever waits for the lock, which is closed with what was watched, finds all of it.
        let left = live
            .hand_over()
            .and_then(|watched| place.write(&warmed(report, &timed, &watched), &watched.recording));
        let error = left.err()?;
        tracing::warn!("{}", error.full_text());
        Some(format!("what the boot asked for is not known: {}", error.full_text().replace('\n', "; ")))
    }
}

/// Requests, as a report has them.
pub fn share(requests: Requests, cpu_s: f64) -> Share {
    let Requests { reads, bytes_read, writes, bytes_written } = requests;
    Share { reads, bytes_read, writes, bytes_written, cpu_s }
}

fn warmed(report: &WarmReport, timed: &[Timed], watched: &Watched) -> Warmed {
    let read = |timed: &Timed| Read {
        start: timed.read.start,
        sectors: timed.read.sectors,
        stage: timed.read.stage,
        at_us: timed.submitted_us_ended_us,
    };
    Warmed {
        schema: SCHEMA,
        boot_id: watched.recording.header.boot_id.clone(),
        device: report.device.clone(),
        profile: report.profile.clone(),
        unit_bytes: report.unit_bytes,
        end: report.end.clone(),
        stages: report.stages.iter().map(|stage| stage.name.clone()).collect(),
        reads: timed.iter().map(read).collect(),
        own: share(watched.own, report.totals.cpu_s),
        boot: share(watched.foreign, 0.0),
    }
}
