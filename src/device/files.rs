//! Where files and folders lie on a disk.
//!
//! Holds: folders are walked in order of names, without crossing filesystems and without following symbolic
//! links; what has no place on the disk is counted, never guessed. Nothing is read but folders and maps.

use super::fiemap::{self, Place};
use super::sysfs::{self, Disk};
use super::{DeviceNumber, whole_disk};
use crate::error::{Context, Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::units::SECTOR_BYTES;
use serde::Serialize;
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Extents that are mapped at most, beyond what the last file has: 4 million, as many as a recording holds.
pub const EXTENTS_MAX: usize = 4 << 20;

/// What was found, and what was left out and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Regular files mapped.
    pub files: u64,
    /// Folders walked.
    pub folders: u64,
    /// Bytes on the disk, the same bytes of two links once for each.
    pub bytes: u64,
    /// Bytes of holes: no place on the disk.
    pub hole_bytes: u64,
    /// Extents kept in an inode or packed with others.
    pub inline: u64,
    /// Extents allocated and never written.
    pub unwritten: u64,
    /// Extents that the filesystem has not written back yet: `sync` gives them a place.
    pub not_written_back: u64,
    /// Extents whose place the filesystem does not tell.
    pub unknown: u64,
    /// Symbolic links, not followed.
    pub symlinks: u64,
    /// Sockets, pipes and devices.
    pub special: u64,
    /// Mount points, not crossed.
    pub mounts: u64,
    /// Files and folders that could not be opened or mapped; each was logged.
    pub failed: u64,
}

/// Files' places on their disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The whole disk.
    pub disk: Disk,
    /// Sectors, absolute on the disk, in the order of the paths, in a folder by name, in a file by offset.
    pub extents: Vec<Extent>,
    /// What was found and left out.
    pub counts: Counts,
}

/// Maps files and folders, all of one filesystem, which must lie on a disk or a partition. A symbolic link that
/// is named is followed.
pub fn map(root: &Path, paths: &[PathBuf]) -> Result<Mapped> {
    let mut walk: Option<(Walk, &Path)> = None;
    for path in paths {
        let fail = || format!("failed to map path `{}`", path.display());
        let real = path.canonicalize().context(fail)?;
        let metadata = real.symlink_metadata().context(fail)?;
        let walk = match &mut walk {
            None => {
                let disk = disk_of(root, path, &metadata)?;
                &mut walk.insert((Walk::new(disk, metadata.dev()), path)).0
            }
            Some((walk, _)) if walk.device == metadata.dev() => walk,
            Some((_, first)) => {
                let both = format!("`{}` and `{}`", first.display(), path.display());
                return Err(Error::failed(format!(
                    "failed to map {both}: they lie on different filesystems"
                ))
                .hint("make a profile for each"));
            }
        };
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(Error::failed(format!("{}: it is neither file nor folder", fail())));
        }
        walk.walk(&real, &metadata).context(fail)?;
    }
    let (walk, _) = walk.ok_or_else(|| Error::usage("failed to map paths: none was named"))?;
    Ok(Mapped { disk: walk.disk, extents: walk.extents, counts: walk.counts })
}

/// What of an image file is written, in its own sectors; `None` where its filesystem does not tell, or all of it is.
pub fn written(file: &File) -> Option<ExtentSet> {
    let bytes = file.metadata().ok().filter(Metadata::is_file)?.len();
    let mut written = ExtentSet::new();
    fiemap::each(file, |piece| {
        // Allocated and never written reads as zeroes; whatever else it is, somebody wrote it.
        let length = piece.length.min(bytes.saturating_sub(piece.offset));
        if let Some(extent) =
            Extent::of_bytes(piece.offset, length).filter(|_| piece.place != Place::Unwritten)
        {
            written.insert(extent);
        }
    })
    .ok()?;
    let whole = Extent::of_bytes(0, bytes)?;
    (!written.covers(whole)).then_some(written)
}

/// The disk that a filesystem lies on, and where on it.
fn disk_of(root: &Path, path: &Path, metadata: &Metadata) -> Result<Disk> {
    let number = DeviceNumber::from_rdev(metadata.dev());
    let shown = path.display();
    if number.major == 0 {
        let name = filesystem_name(path);
        let error =
            format!("failed to map path `{shown}`: it lies on {name}, which is on no one place of a disk");
        return Err(Error::failed(error).hint(match name.as_str() {
            "overlay" => "name the files in the folders below the overlay, on ext4 or XFS",
            _ => "record a workload that reads them instead: `ebs-prewarm record`",
        }));
    }
    if sysfs::is_layered(root, number) {
        let error =
            format!("failed to map path `{shown}`: its filesystem lies on a mapper or RAID, device {number}");
        return Err(Error::failed(error)
            .hint("record a workload that reads them instead: `ebs-prewarm record` sees the disk below"));
    }
    whole_disk(root, number).context(|| format!("failed to map path `{shown}`"))
}

/// The filesystem's name, for the error.
fn filesystem_name(path: &Path) -> String {
    let magic = CString::new(path.as_os_str().as_bytes()).ok().and_then(|path| {
        // SAFETY: statfs is plain numbers, for which zero is a value.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends in a zero byte and the kernel writes one statfs to a live one.
        (unsafe { libc::statfs(path.as_ptr(), &mut stat) } == 0).then_some(stat.f_type as u32)
    });
    // linux/magic.h
    match magic {
        Some(0x9123_683e) => "btrfs".into(),
        Some(0x794c_7630) => "overlay".into(),
        Some(0x0102_1994) => "tmpfs".into(),
        Some(0x6573_5546) => "fuse".into(),
        Some(0x9fa0) => "proc".into(),
        Some(0x6265_6572) => "sysfs".into(),
        Some(magic) => format!("a filesystem without a block device (type {magic:#x})"),
        None => "a filesystem without a block device".into(),
    }
}

struct Walk {
    disk: Disk,
    device: u64,
    extents: Vec<Extent>,
    counts: Counts,
}

impl Walk {
    fn new(disk: Disk, device: u64) -> Walk {
        Walk { disk, device, extents: Vec::new(), counts: Counts::default() }
    }

    /// One named path; what fails below it is logged and counted.
    fn walk(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        if metadata.is_file() {
            return self.file(path);
        }
        let mut folders = vec![names(path)?];
        self.folder(path)?;
        while let Some(folder) = folders.last_mut() {
            let Some(path) = folder.next() else {
                folders.pop();
                continue;
            };
            match self.entry(&path) {
                Ok(Some(below)) => folders.push(below),
                Ok(None) => {}
                Err(error) => {
                    self.counts.failed += 1;
                    tracing::warn!("failed to map path `{}`: {}", path.display(), error.full_text());
                }
            }
            if self.extents.len() > EXTENTS_MAX {
                return Err(
                    Error::failed(format!("more than {EXTENTS_MAX} extents")).hint("name fewer folders")
                );
            }
        }
        Ok(())
    }

    /// What a folder holds; its own entries where it is a folder.
    fn entry(&mut self, path: &Path) -> Result<Option<std::vec::IntoIter<PathBuf>>> {
        let metadata = path.symlink_metadata().context(|| "failed to look it up".into())?;
        let kind = metadata.file_type();
        if kind.is_symlink() {
            self.counts.symlinks += 1;
        } else if metadata.dev() != self.device {
            self.counts.mounts += 1;
        } else if kind.is_dir() {
            let names = names(path)?;
            self.folder(path)?;
            return Ok(Some(names));
        } else if kind.is_file() {
            self.file(path)?;
        } else {
            self.counts.special += 1;
        }
        Ok(None)
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let file = open(path).context(|| "failed to open it".into())?;
        let size = file.metadata().context(|| "failed to look it up".into())?.len();
        let mut end = 0;
        self.map(&file, |counts, piece| {
            counts.hole_bytes += piece.offset.min(size).saturating_sub(end);
            end = piece.offset.saturating_add(piece.length);
        })
        .context(|| "failed to ask for its map".into())?;
        self.counts.hole_bytes += size.saturating_sub(end);
        self.counts.files += 1;
        Ok(())
    }

    /// The blocks that hold a folder's names, where the filesystem maps them (ext4 does, XFS does not).
    fn folder(&mut self, path: &Path) -> Result<()> {
        let folder = open(path).context(|| "failed to open it".into())?;
        self.counts.folders += 1;
        match self.map(&folder, |_, _| ()) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EBADR)) =>
            {
                Ok(())
            }
            other => other.context(|| "failed to ask for its map".into()),
        }
    }

    fn map(&mut self, file: &File, mut seen: impl FnMut(&mut Counts, fiemap::Piece)) -> io::Result<()> {
        let (counts, extents) = (&mut self.counts, &mut self.extents);
        let disk_offset = self.disk.start * SECTOR_BYTES;
        fiemap::each(file, |piece| {
            seen(counts, piece);
            let at = match piece.place {
                Place::Device(at) => {
                    at.checked_add(disk_offset).and_then(|at| Extent::of_bytes(at, piece.length))
                }
                _ => None,
            };
            match (piece.place, at) {
                (Place::Inline, _) => counts.inline += 1,
                (Place::Unwritten, _) => counts.unwritten += 1,
                (Place::NotWrittenBack, _) => counts.not_written_back += 1,
                (Place::Unknown | Place::Device(_), None) => counts.unknown += 1,
                (_, Some(extent)) => {
                    counts.bytes += piece.length;
                    extents.push(extent);
                }
            }
        })
    }
}

/// The paths of a folder's entries, by name.
fn names(path: &Path) -> Result<std::vec::IntoIter<PathBuf>> {
    let read = std::fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<PathBuf>>>()
    });
    let mut paths = read.context(|| "failed to read the folder".into())?;
    paths.sort();
    Ok(paths.into_iter())
}

/// Never follows a link nor waits for a pipe that took the file's place.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_an_image_is_what_its_filesystem_has_for_it() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        let Some(written) = written(&file) else { return };
        assert!(written.overlaps(Extent::of_bytes(1 << 20, 4096).unwrap()));
        assert!(written.sectors() * SECTOR_BYTES < 1 << 20, "{written:?}");
    }

    #[test]
    fn what_lies_on_no_disk_is_refused_with_a_remedy() {
        let error = map(Path::new("/"), &["/proc/version".into()]).unwrap_err().full_text();
        assert!(error.contains("lies on proc") && error.contains("record"), "{error}");
        let error = map(Path::new("/"), &["/nonexistent/a".into()]).unwrap_err().full_text();
        assert!(error.contains("`/nonexistent/a`"), "{error}");
        assert!(map(Path::new("/"), &[]).is_err());
    }
}
