//! The disk that a profile was recorded on, found by what it carries and waited for.
//!
//! Holds: no name of a device matters; a disk that was looked at and is another is not read again in each look.

use crate::device::{Device, disks};
use crate::error::{Error, Kind, Result};
use crate::profile::Profile;
use crate::profile::bind::{looked_up, resolve};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the kernel's list of disks is looked at: a look costs microseconds, the first read of a cold volume
/// tens of milliseconds.
const PERIOD: Duration = Duration::from_millis(10);
const PERIOD_MAX: Duration = Duration::from_millis(250);
/// A disk that was another is looked at again after this: its table may have been written meanwhile.
const AGAIN: Duration = Duration::from_secs(2);

/// Waits so long for what is named to be there; a stop ends the waiting. That it is not is told by whoever opens it.
pub fn wait_for(path: &Path, wait: Duration, stop: &AtomicBool) {
    let started = Instant::now();
    while !path.exists() && started.elapsed() < wait && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PERIOD.min(wait));
    }
}

/// The first disk, by name, that the profile is for. Waits so long for one to appear; a stop ends the waiting.
pub fn disk_of(root: &Path, profile: &Profile, wait: Duration, stop: &AtomicBool) -> Result<PathBuf> {
    let started = Instant::now();
    let mut others: BTreeMap<PathBuf, (Instant, Error)> = BTreeMap::new();
    loop {
        for path in disks(root) {
            if others.get(&path).is_some_and(|(seen, _)| seen.elapsed() < AGAIN) {
                continue;
            }
            match is_of(root, profile, &path) {
                Ok(()) => return Ok(path),
                // Its node may come a moment after its entry in /sys: that is looked at again at once.
                Err(error) if error.kind() != Kind::OtherVolume => {}
                Err(error) => _ = others.insert(path, (Instant::now(), error)),
            }
        }
        if started.elapsed() >= wait || stop.load(Ordering::Relaxed) {
            return Err(none(profile, others));
        }
        // Whoever has waited long waits a twentieth longer at the most, and a boot is left its processor.
        std::thread::sleep((started.elapsed() / 20).clamp(PERIOD, PERIOD_MAX).min(wait));
    }
}

fn is_of(root: &Path, profile: &Profile, path: &Path) -> Result<()> {
    let device = Device::open(path)?;
    let wanted = looked_up(profile);
    let identity = device.identity(root, |partuuid| wanted.contains(&partuuid))?;
    resolve(profile, &identity).map(drop)
}

fn none(profile: &Profile, others: BTreeMap<PathBuf, (Instant, Error)>) -> Error {
    let name = &profile.name;
    if others.is_empty() {
        return Error::failed(format!("failed to find the disk of profile `{name}`: there is none by now"))
            .hint("wait for it longer with --wait, or name it with --device");
    }
    let each: Vec<String> =
        others.iter().map(|(path, (_, error))| format!("{}: {error}", path.display())).collect();
    Error::new(Kind::OtherVolume, format!("failed to find the disk of profile `{name}`: {}", each.join("; ")))
        .hint("record a boot of this image, or name the disk with --device")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Extent;
    use crate::profile::{Entry, Stage};
    use crate::volume::{Identity, Region};
    use std::fs;

    static GO: AtomicBool = AtomicBool::new(false);

    /// A machine with image files for disks: each holds an MBR with a signature and one partition.
    fn machine(disks: &[(&str, u32)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        for (name, signature) in disks {
            appear(root.path(), name, *signature);
        }
        root
    }

    fn appear(root: &Path, name: &str, signature: u32) {
        let mut head = vec![0u8; 1 << 20];
        head[440..444].copy_from_slice(&signature.to_le_bytes());
        head[450] = 0x83;
        head[454..458].copy_from_slice(&64u32.to_le_bytes());
        head[458..462].copy_from_slice(&1024u32.to_le_bytes());
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(root.join("dev").join(name), head).unwrap();
        let dir = root.join("sys/block").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("size"), "2048\n").unwrap();
    }

    /// Of the disk with that signature.
    fn profile(signature: u32) -> Profile {
        let region =
            Region { partuuid: Some(format!("{signature:08x}-01")), fs_uuid: None, start: 0, sectors: 1024 };
        let volume = Identity { table_uuid: Some(format!("{signature:08x}")), ..Identity::of_size(2048) };
        let entry = Entry { region: 0, extent: Extent::at(8, 8).unwrap(), first_use_ms: 1, stall_ms: 1 };
        let stages = vec![Stage { name: "ready".into(), entries: vec![entry] }];
        Profile { volume: Some(volume), regions: vec![region], stages, ..Profile::default() }
    }

    #[test]
    fn a_disk_is_found_by_what_it_carries_whatever_its_name() {
        let root = machine(&[("nvme0n1", 7), ("nvme1n1", 8), ("xvda", 9)]);
        for (signature, name) in [(8, "nvme1n1"), (9, "xvda"), (7, "nvme0n1")] {
            let found = disk_of(root.path(), &profile(signature), Duration::ZERO, &GO).unwrap();
            assert_eq!(found, root.path().join("dev").join(name));
        }
    }

    #[test]
    fn a_disk_that_is_not_there_is_said_to_be_so_and_others_are_named_with_their_differences() {
        let none = disk_of(machine(&[]).path(), &profile(7), Duration::ZERO, &GO).unwrap_err();
        assert!(none.full_text().contains("--wait"), "{}", none.full_text());
        let other = disk_of(machine(&[("sda", 8)]).path(), &profile(7), Duration::ZERO, &GO).unwrap_err();
        assert_eq!(other.kind(), Kind::OtherVolume);
        assert!(other.full_text().contains("sda: ") && other.full_text().contains("00000007"), "{other}");
    }

    #[test]
    fn a_stop_ends_the_waiting() {
        let stop = AtomicBool::new(true);
        let long = Duration::from_secs(3600);
        assert!(disk_of(machine(&[("sda", 8)]).path(), &profile(7), long, &stop).is_err());
        wait_for(Path::new("/nowhere/at/all"), long, &stop);
    }

    #[test]
    fn a_disk_that_is_named_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait_for(&path, Duration::from_secs(600), &GO));
            fs::write(&path, "").unwrap();
            waiting.join().unwrap();
        });
    }

    #[test]
    fn a_disk_that_comes_later_is_waited_for() {
        let root = machine(&[("sda", 8)]);
        let path = root.path().to_path_buf();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| disk_of(&path, &profile(7), Duration::from_secs(600), &GO));
            appear(root.path(), "sdb", 7);
            assert_eq!(waiting.join().unwrap().unwrap(), path.join("dev/sdb"));
        });
    }
}
