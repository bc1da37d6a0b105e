//! The disk that a profile was recorded on, found by what it carries and waited for.
//!
//! Holds: no name of a device matters; a disk that was looked at and is another is not read again in each look.

use crate::device::{Device, disks};
use crate::error::{Error, Kind, Result};
use crate::profile::Profile;
use crate::profile::bind::{looked_up, resolve};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the kernel's list of disks is looked at: a look costs microseconds, the first read of a cold volume
/// tens of milliseconds.
const PERIOD: Duration = Duration::from_millis(10);
/// A disk that was another is looked at again after this: its table may have been written meanwhile.
const AGAIN: Duration = Duration::from_secs(2);

/// The first disk, by name, that the profile is for. Waits so long for one to appear.
pub fn disk_of(root: &Path, profile: &Profile, wait: Duration) -> Result<PathBuf> {
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
        if started.elapsed() >= wait {
            return Err(none(profile, others));
        }
        std::thread::sleep(PERIOD.min(wait));
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
