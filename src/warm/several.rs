//! Several volumes at once: each on a thread of its own, none in the way of another.
//!
//! Holds: no disk is warmed for two profiles; whatever becomes of one volume, all others are warmed. Not here: the budget
//! that they share (`engine::Share`), and what is done with one of them.

use crate::error::{Context, Error, Kind, Result};
use crate::profile::Profile;
use crate::report::WarmReport;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// An instance takes up to 28 volumes on most types (vendor documentation), each of which costs a thread and a ring.
pub const VOLUMES_MAX: usize = 32;

/// Does the work of each volume beside that of the others. Gives what came of each, in their order.
pub fn side_by_side<W>(work: Vec<W>) -> Vec<Result<WarmReport>>
where
    W: FnOnce() -> Result<WarmReport> + Send,
{
    std::thread::scope(|scope| {
        let begin = |work| Builder::new().name("warm".into()).spawn_scoped(scope, work);
        let threads: Vec<_> = work.into_iter().map(begin).collect();
        let ended = threads.into_iter().map(|thread| {
            let thread = thread.context(|| "failed to start a thread that warms".into())?;
            let broken_off = |_| Err(Error::failed("failed to warm: the thread has broken off"));
            thread.join().unwrap_or_else(broken_off)
        });
        ended.collect()
    })
}

/// What a disk is found by, where the profile says: profiles with the same are for one disk.
pub fn recorded_on(profile: &Profile) -> Option<&str> {
    profile.volume.as_ref()?.carried()
}

/// The disks that are being warmed, each with the profile that it is for.
#[derive(Debug, Default)]
pub struct Taken(Mutex<Vec<(PathBuf, PathBuf)>>);

impl Taken {
    /// Takes a disk for a profile; refused where another has it.
    pub fn take(&self, disk: &Path, profile: &Path) -> Result<()> {
        let disk = disk.canonicalize().unwrap_or_else(|_| disk.into());
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.iter().find(|(of, _)| *of == disk) {
            Some((_, other)) => {
                Err(same_disk(other, profile, &format!("are for one disk, `{}`", disk.display())))
            }
            None => {
                taken.push((disk, profile.into()));
                Ok(())
            }
        }
    }
}

/// Why two profiles are not warmed together.
pub fn same_disk(one: &Path, other: &Path, why: &str) -> Error {
    let (one, other) = (one.display(), other.display());
    Error::usage(format!("failed to find a disk for each profile: `{one}` and `{other}` {why}"))
        .hint("leave one out, build one profile of both recordings, or name the disks with a --device for each profile")
}

/// The less was warmed of a volume, the worse: some blocks could not be read; not all of it in time; nothing, since there
/// is no such volume; it failed; it was asked for in a way that cannot be done.
pub fn severity(kind: Kind) -> u8 {
    match kind {
        Kind::Unreadable => 1,
        Kind::Deadline => 2,
        Kind::OtherVolume => 3,
        Kind::Failed | Kind::NoDaemon | Kind::NotWarm => 4,
        Kind::Usage => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Identity;

    #[test]
    fn a_volume_that_breaks_off_or_is_refused_stops_no_other() {
        type Work = Box<dyn FnOnce() -> Result<WarmReport> + Send>;
        let fine = |device: &str| {
            let report = WarmReport { device: device.into(), ..WarmReport::default() };
            Box::new(move || Ok(report)) as Work
        };
        let work: Vec<Work> = vec![
            fine("a"),
            Box::new(|| panic!("on purpose")),
            Box::new(|| Err(Error::new(Kind::OtherVolume, "another"))),
            fine("b"),
        ];
        let ended = side_by_side(work);
        let shown: Vec<_> = ended
            .iter()
            .map(|ended| ended.as_ref().map(|report| report.device.as_str()).map_err(Error::kind))
            .collect();
        assert_eq!(shown, [Ok("a"), Err(Kind::Failed), Err(Kind::OtherVolume), Ok("b")]);
    }

    #[test]
    fn a_disk_is_taken_once_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, link) = (dir.path().join("disk"), dir.path().join("link"));
        std::fs::write(&disk, "").unwrap();
        std::os::unix::fs::symlink(&disk, &link).unwrap();
        let taken = Taken::default();
        taken.take(&disk, Path::new("root.bin")).unwrap();
        let error = taken.take(&link, Path::new("data.bin")).unwrap_err();
        let text = error.full_text();
        assert_eq!(error.kind(), Kind::Usage);
        for named in ["root.bin", "data.bin", "/disk`", "--device"] {
            assert!(text.contains(named), "`{named}` is not in: {text}");
        }
        taken.take(&dir.path().join("other"), Path::new("data.bin")).unwrap();
    }

    #[test]
    fn profiles_are_for_one_disk_by_table_else_by_filesystem() {
        let on = |table: Option<&str>, fs: Option<&str>| {
            let table_uuid = table.map(str::to_string);
            let volume = Identity { table_uuid, fs_uuid: fs.map(Into::into), ..Identity::of_size(8) };
            let profile = Profile { volume: Some(volume), ..Profile::default() };
            recorded_on(&profile).map(str::to_string)
        };
        assert_eq!(on(Some("t"), Some("f")).as_deref(), Some("t"));
        assert_eq!(on(None, Some("f")).as_deref(), Some("f"));
        assert_eq!(on(None, None), None);
        assert_eq!(recorded_on(&Profile::default()), None, "it may be for any");
    }
}
