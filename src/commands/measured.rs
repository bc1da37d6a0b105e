//! What `probe` and `bench` share: the device to measure, what of it is known to be written, what is kept for `warm`.

use super::common::{load_profile, parsed};
use crate::device::storage::Storage;
use crate::device::{Device, disk_path, files};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::findings::{self, FOLDER, Findings};
use crate::profile::Profile;
use crate::profile::bind::{looked_up, resolve};
use crate::report::StorageReport;
use crate::units::SECTOR_BYTES;
use crate::volume::Identity;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The end of a report about storage that needs no warming.
pub const NO_WARMING: &str = "needs no warming";

/// What is known to be written, and where findings are kept.
#[derive(Debug, Args)]
pub struct Known {
    /// Read only blocks of these files and folders: of them it is known that they are written
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Folder of what was found, one file a volume, for `warm --mode auto`
    #[arg(long, value_name = "FOLDER", default_value_os_t = Path::new("/").join(FOLDER), hide_default_value = true)]
    pub findings: PathBuf,
    /// Draws the places that are read
    #[arg(long, default_value_t = 1, value_parser = parsed(seed))]
    pub seed: u64,
}

fn seed(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| Error::usage(format!("failed to parse seed `{text}`")).hint("give a whole number"))
}

/// A profile's stages by name, each with its extents on the device.
pub type Stages = Vec<(String, Vec<Extent>)>;

/// A device that is open past the page cache, and what it is.
#[derive(Debug)]
pub struct Subject {
    pub device: Device,
    pub storage: Storage,
    /// Where `/sys` is found.
    pub root: PathBuf,
}

impl Subject {
    /// Opens a device, or the disk that carries a partition.
    pub fn open(root: &Path, named: &Path) -> Result<Subject> {
        let path = disk_path(root, named)?;
        let device = Device::open(&path)?;
        if !device.is_direct() {
            return Err(Error::failed(format!("failed to open `{}` past the page cache", path.display()))
                .hint("put the image on a filesystem that supports O_DIRECT, or behind a loop device"));
        }
        let storage = device.storage(root);
        Ok(Subject { device, storage, root: root.into() })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.device.sectors() * SECTOR_BYTES
    }

    /// As it is told.
    pub fn storage(&self) -> StorageReport {
        let Storage { kind, machine, volume_id, attached_as } = self.storage.clone();
        StorageReport {
            kind: kind.name().into(),
            machine,
            volume_id,
            attached_as,
            hydrates: kind.hydrates(),
            known: kind.known().into(),
        }
    }

    /// Whether it is known that first reads are as fast as any.
    pub fn needs_no_warming(&self) -> bool {
        self.storage.kind.hydrates() == Some(false)
    }

    /// What `/sys` knows of it; with a profile, what it can be recognised by, that the profile is for it, and the
    /// profile's extents. Without one nothing is read for that.
    pub fn identify(&self, profile: Option<&Profile>) -> Result<(Identity, Stages)> {
        let Some(profile) = profile else { return Ok((self.device.named(&self.root), Vec::new())) };
        let wanted = looked_up(profile);
        let identity = self.device.identity(&self.root, |partuuid| wanted.contains(&partuuid))?;
        let stages = resolve(profile, &identity)?;
        Ok((identity, stages.into_iter().map(|stage| (stage.name, stage.extents)).collect()))
    }

    /// What is known to be written, and in words: of files that lie on it, or of the image that it is. `None`: not
    /// known.
    pub fn written(&self, known: &Known) -> Result<(Option<ExtentSet>, String)> {
        if !known.files.is_empty() {
            let mapped = files::map(&self.root, &known.files)?;
            if Some(mapped.disk.number) != self.device.number() {
                let (theirs, ours) = (mapped.disk.path.display(), self.device.path().display());
                return Err(Error::usage(format!(
                    "failed to use the files: they lie on `{theirs}`, not on `{ours}`"
                ))
                .hint("name files on the device, or the device that holds them"));
            }
            return Ok((Some(mapped.extents.into_iter().collect()), "the files named".into()));
        }
        match files::written(self.device.file()) {
            Some(written) if self.device.number().is_none() => {
                Ok((Some(written), "what is written of the image".into()))
            }
            _ => Ok((None, "the whole device, blocks that were never written among it".into())),
        }
    }
}

/// The profile of a file, where one is named.
pub fn profile_of(path: Option<&Path>) -> Result<Option<Profile>> {
    path.map(load_profile).transpose()
}

/// Findings about a volume, from now.
pub fn findings_of(volume: &Identity, measured_by: &str) -> Findings {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Findings::new(volume.clone(), measured_by, now.as_secs())
}

/// Why nothing is kept where no unit was found: what an earlier measurement has kept is worth more.
pub const NO_UNIT: &str = "nothing is kept for `warm`: the unit cannot be told";

/// Keeps findings, with what is kept of the same volume already and they do not replace; where, or why not.
pub fn keep(folder: &Path, findings: Findings) -> Result<std::result::Result<String, String>> {
    let older = findings::known(folder, &findings.volume);
    Ok(match findings::save(folder, &findings.over(older))? {
        Some(path) => Ok(path.display().to_string()),
        None => {
            Err("what was found is not kept: the volume has no serial, partition table or filesystem to be \
                     recognised by"
                .into())
        }
    })
}
