//! What of a disk its filesystems have allocated, by the map of free space that those which are mounted keep.
//!
//! Holds: what is not known to be free counts as allocated; nothing is read but what the kernel reads for the map. Ext4
//! and XFS know the call; another filesystem, and one that is not mounted, counts as allocated throughout.

use super::fsmap;
use super::sysfs::{DeviceNumber, whole_disk};
use crate::error::{Context, Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::units::SECTOR_BYTES;
use crate::volume::Partition;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The table at the beginning of a disk and its copy at the end (UEFI: 34 blocks of 512 bytes; 1 MiB is usual).
const TABLE_SECTORS: u64 = 2048;

/// The sectors of a disk of so many that may be in use; after a stop, more than are. Outside of partitions there is but their table.
pub fn allocated(
    root: &Path,
    disk: DeviceNumber,
    sectors: u64,
    partitions: &[Partition],
    stop: &AtomicBool,
) -> Result<ExtentSet> {
    let mut free = ExtentSet::new();
    for (start, place) in mounts_of(root, disk)? {
        match free_of(&place, start, sectors, stop) {
            Ok(found) => found.iter().for_each(|extent| _ = free.insert(extent)),
            Err(error) => tracing::info!("{}; all of it counts as allocated", error.full_text()),
        }
    }
    let ends = [
        Extent::new(0, sectors.min(TABLE_SECTORS)),
        Extent::new(sectors.saturating_sub(TABLE_SECTORS), sectors),
    ];
    let whole = if partitions.is_empty() { Extent::new(0, sectors) } else { None };
    let parts = partitions.iter().filter_map(|part| Extent::at(part.start, part.sectors));
    Ok(ends
        .into_iter()
        .flatten()
        .chain(whole)
        .chain(parts)
        .flat_map(|place| free.missing_from(place))
        .collect())
}

/// By first sector on the disk: where the filesystem that begins there is mounted.
fn mounts_of(root: &Path, disk: DeviceNumber) -> Result<BTreeMap<u64, PathBuf>> {
    let path = root.join("proc/self/mountinfo");
    let text = std::fs::read_to_string(&path)
        .context(|| format!("failed to read `{}` to find the mounted filesystems", path.display()))?;
    let mut mounts = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(' ').skip(2);
        let (Some(number), Some(_), Some(place)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let Ok(number) = number.parse::<DeviceNumber>() else { continue };
        // A mapper's sectors are not those of the disk below.
        let is_plain = number.major != 0 && !super::sysfs::is_layered(root, number);
        if is_plain && let Ok(found) = whole_disk(root, number).map(|found| (found.number, found.start)) {
            // The first mount of it: one below another mount may be out of sight.
            if found.0 == disk {
                let place = root.join(unescape(place).trim_start_matches('/'));
                mounts.entry(found.1).or_insert(place);
            }
        }
    }
    Ok(mounts)
}

/// In mountinfo a space, tab, newline or backslash is written as `\` and three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

/// The free space of a filesystem that begins at a sector of its disk.
fn free_of(place: &Path, start: u64, sectors: u64, stop: &AtomicBool) -> Result<ExtentSet> {
    let fail = || format!("failed to map the free space of the filesystem on `{}`", place.display());
    let file = File::open(place).context(fail)?;
    let mut free = ExtentSet::new();
    fsmap::each_free(&file, stop, |offset, length| {
        // Whole sectors alone are free.
        let (first, end) = (offset.div_ceil(SECTOR_BYTES), offset.saturating_add(length) / SECTOR_BYTES);
        let extent = Extent::new(start.saturating_add(first), start.saturating_add(end).min(sectors));
        extent.into_iter().for_each(|extent| _ = free.insert(extent));
    })
    .context(fail)?;
    if free.is_empty() {
        return Err(Error::failed(fail()).because(std::io::Error::other("it names none")));
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    static GO: AtomicBool = AtomicBool::new(false);
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn filesystems_that_do_not_tell_count_as_allocated_and_nothing_outside_partitions_does() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for (path, text) in [
            ("sys/devices/a/dev", "259:0\n"),
            ("sys/devices/a/a1/dev", "259:1\n"),
            ("sys/devices/a/a1/partition", "1\n"),
            ("sys/devices/a/a1/start", "4096\n"),
            (
                "proc/self/mountinfo",
                "26 1 259:1 / /m\\040x rw - ext4 /dev/a1 rw\n27 1 0:5 / /p rw - proc p rw\nx\n",
            ),
        ] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        }
        fs::create_dir_all(at("sys/dev/block")).unwrap();
        symlink("../../devices/a", at("sys/dev/block/259:0")).unwrap();
        symlink("../../devices/a/a1", at("sys/dev/block/259:1")).unwrap();
        let disk: DeviceNumber = "259:0".parse().unwrap();
        let mounts = mounts_of(root.path(), disk).unwrap();
        assert_eq!(mounts, BTreeMap::from([(4096, at("m x"))]));
        let part = Partition { number: 1, start: 4096, sectors: 8192, partuuid: None, fs_uuid: None };
        let used = allocated(root.path(), disk, 100_000, &[part], &GO).unwrap();
        let extents: Vec<(u64, u64)> = used.iter().map(|extent| (extent.start(), extent.end())).collect();
        assert_eq!(extents, [(0, 2048), (4096, 12_288), (97_952, 100_000)]);
        assert_eq!(allocated(root.path(), disk, 100_000, &[], &GO).unwrap().sectors(), 100_000);
    }
}
