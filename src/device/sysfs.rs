//! What `/sys` and `/proc` know of a disk: its whole disk, serial and model, and which one carries `/`.

use crate::error::{Context, Error, Result};
use crate::units::SECTOR_BYTES;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DeviceNumber {
    /// From `st_rdev` or `st_dev`.
    pub fn from_rdev(rdev: u64) -> Self {
        DeviceNumber { major: libc::major(rdev), minor: libc::minor(rdev) }
    }

    /// As the kernel holds it, and as block trace events carry it: 20 bits of minor number.
    pub fn kernel(self) -> u32 {
        self.major << 20 | self.minor
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.trim()
            .split_once(':')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }))
            .ok_or_else(|| Error::failed(format!("failed to parse device number `{text}`")))
    }
}

/// A whole disk and what was named on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its number.
    pub number: DeviceNumber,
    /// Its node under `/dev`.
    pub path: PathBuf,
    /// First sector on the disk of what was named; 0 for the disk itself.
    pub start: u64,
}

/// Mappers and RAID on mappers: a chain longer than this is a loop in a broken tree.
const DEPTH_MAX: usize = 8;

/// The disk below a partition or a device mapper with a single disk.
pub fn whole_disk(root: &Path, number: DeviceNumber) -> Result<Disk> {
    let mut number = number;
    for _ in 0..DEPTH_MAX {
        let link = root.join(format!("sys/dev/block/{number}"));
        let fail =
            || format!("failed to find device {number} under `{}`", root.join("sys/dev/block").display());
        let dir = link.canonicalize().context(fail)?;
        if dir.join("partition").exists() {
            let disk = dir.parent().ok_or_else(|| Error::failed(fail()))?;
            let start = read(&dir.join("start")).and_then(|text| text.parse().ok()).unwrap_or(0);
            return disk_at(disk, start);
        }
        match slaves(&dir).as_slice() {
            [] => return disk_at(&dir, 0),
            [one] => {
                number = read(&one.join("dev")).ok_or_else(|| Error::failed(fail()))?.parse()?;
            }
            several => {
                let names: Vec<_> = several.iter().filter_map(|path| path.file_name()?.to_str()).collect();
                return Err(Error::failed(format!(
                    "failed to find one disk below device {number}: it is made of {}",
                    names.join(", ")
                ))
                .hint("name one of these disks with --device"));
            }
        }
    }
    Err(Error::failed(format!("failed to find the disk below device {number}: more than {DEPTH_MAX} layers")))
}

fn disk_at(dir: &Path, start: u64) -> Result<Disk> {
    let fail = || format!("failed to read device `{}`", dir.display());
    let name = dir.file_name().and_then(|name| name.to_str()).ok_or_else(|| Error::failed(fail()))?;
    let number = read(&dir.join("dev")).ok_or_else(|| Error::failed(fail()))?.parse()?;
    // In sysfs a slash in a device's name is written as an exclamation mark.
    Ok(Disk { number, path: Path::new("/dev").join(name.replace('!', "/")), start })
}

/// Whether a device is made of others (a mapper, a RAID): its sectors are not those of the disk below.
pub fn is_layered(root: &Path, number: DeviceNumber) -> bool {
    !slaves(&root.join(format!("sys/dev/block/{number}"))).is_empty()
}

fn slaves(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.join("slaves")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok()?.path().canonicalize().ok()).collect();
    paths.sort();
    paths
}

/// A file of one line, without the blanks around it.
pub(super) fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// Serial and model of a disk, where the kernel shows them.
pub fn serial_and_model(root: &Path, number: DeviceNumber) -> (Option<String>, Option<String>) {
    let Ok(dir) = root.join(format!("sys/dev/block/{number}")).canonicalize() else { return (None, None) };
    let serial = read(&dir.join("device/serial")).or_else(|| read(&dir.join("serial")));
    (serial, read(&dir.join("device/model")))
}

/// The kernel's own name of a device, such as `nvme0n1`.
pub(super) fn kernel_name(root: &Path, number: DeviceNumber) -> Option<String> {
    let dir = root.join(format!("sys/dev/block/{number}")).canonicalize().ok()?;
    dir.file_name()?.to_str().map(str::to_string)
}

/// What passed through a disk since it appeared, whoever asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that ended, after merging.
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    /// Requests under way.
    pub in_flight: u64,
}

/// Of a disk, where the kernel counts it (`Documentation/block/stat.rst` of Linux: fields 1, 3, 5, 7 and 9).
pub fn traffic(root: &Path, number: DeviceNumber) -> Option<Traffic> {
    let text = read(&root.join(format!("sys/dev/block/{number}/stat")))?;
    let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let sectors = |index: usize| fields.get(index)?.checked_mul(SECTOR_BYTES);
    Some(Traffic {
        reads: *fields.first()?,
        read_bytes: sectors(2)?,
        writes: *fields.get(4)?,
        written_bytes: sectors(6)?,
        in_flight: *fields.get(8)?,
    })
}

/// Requests that the queue of a whole disk takes at once.
pub fn queue_requests(root: &Path, number: DeviceNumber) -> Option<u32> {
    let dir = root.join(format!("sys/dev/block/{number}"));
    read(&dir.join("queue/nr_requests")).and_then(|text| text.parse().ok())
}

/// Bytes of the longest request of a whole disk.
pub fn request_bytes(root: &Path, number: DeviceNumber) -> Option<u64> {
    let dir = root.join(format!("sys/dev/block/{number}"));
    let kib: u64 = read(&dir.join("queue/max_sectors_kb"))?.parse().ok()?;
    kib.checked_mul(1024).filter(|bytes| *bytes > 0)
}

/// Virtual disks: nothing that is hydrated is one of these, and what they are made of is looked at itself.
const NO_DISKS: [&str; 8] = ["dm-", "fd", "loop", "md", "nbd", "ram", "sr", "zram"];

/// The disks that the kernel knows by now and that hold anything, by name.
pub fn disks(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join("sys/block")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let real = names.filter(|name| !NO_DISKS.iter().any(|prefix| name.starts_with(prefix)));
    let filled = |name: &String| {
        let size = read(&root.join("sys/block").join(name).join("size"));
        size.is_some_and(|sectors| sectors != "0")
    };
    let mut paths: Vec<PathBuf> =
        real.filter(filled).map(|name| root.join("dev").join(name.replace('!', "/"))).collect();
    paths.sort();
    paths
}

/// The disk that carries `/`.
pub fn auto(root: &Path) -> Result<PathBuf> {
    let path = root.join("proc/self/mountinfo");
    let text = std::fs::read_to_string(&path)
        .context(|| format!("failed to read `{}` to find the disk that carries /", path.display()))?;
    let named = |why: String| {
        Error::failed(format!("failed to find the disk that carries /: {why}"))
            .hint("name it with --device, such as --device /dev/nvme0n1")
    };
    // The last mount on a path hides the ones before it.
    let root_mount = text.lines().rev().find(|line| line.split(' ').nth(4) == Some("/"));
    let line = root_mount.ok_or_else(|| named(format!("`{}` lists no mount on /", path.display())))?;
    let number: DeviceNumber = line.split(' ').nth(2).unwrap_or_default().parse()?;
    if number.major != 0 {
        return whole_disk(root, number).map(|disk| disk.path);
    }
    // Filesystems such as btrfs have a number of their own; their source names the device.
    let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1)).unwrap_or_default();
    let name =
        source.strip_prefix("/dev/").ok_or_else(|| named(format!("it is `{source}`, no block device")))?;
    let dev = read(&root.join(format!("sys/class/block/{name}/dev")))
        .ok_or_else(|| named(format!("`{source}` is not under /sys/class/block")))?;
    whole_disk(root, dev.parse()?).map(|disk| disk.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A tree with a disk, a partition on it and a mapper on that.
    fn tree(mountinfo: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        write("sys/devices/nvme0n1/dev", "259:0\n");
        write("sys/devices/nvme0n1/device/serial", "vol0123456789abcdef0\n");
        write("sys/devices/nvme0n1/device/model", "Amazon Elastic Block Store   \n");
        write("sys/devices/nvme0n1/queue/nr_requests", "127\n");
        write("sys/devices/nvme0n1/nvme0n1p1/dev", "259:1\n");
        write("sys/devices/nvme0n1/nvme0n1p1/partition", "1\n");
        write("sys/devices/nvme0n1/nvme0n1p1/start", "2048\n");
        write("sys/devices/dm-0/dev", "252:0\n");
        fs::create_dir_all(at("sys/devices/dm-0/slaves")).unwrap();
        symlink("../../nvme0n1/nvme0n1p1", at("sys/devices/dm-0/slaves/nvme0n1p1")).unwrap();
        fs::create_dir_all(at("sys/dev/block")).unwrap();
        fs::create_dir_all(at("sys/class/block")).unwrap();
        for (number, path) in [("259:0", "nvme0n1"), ("259:1", "nvme0n1/nvme0n1p1"), ("252:0", "dm-0")] {
            symlink(format!("../../devices/{path}"), at(&format!("sys/dev/block/{number}"))).unwrap();
            let name = path.rsplit('/').next().unwrap();
            symlink(format!("../../devices/{path}"), at(&format!("sys/class/block/{name}"))).unwrap();
        }
        write("proc/self/mountinfo", mountinfo);
        root
    }

    const EXT4: &str = "26 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n";

    #[test]
    fn the_disk_that_carries_root_is_found() {
        let disk = PathBuf::from("/dev/nvme0n1");
        let mapper = "26 1 252:0 / / rw - xfs /dev/mapper/root rw\n";
        let btrfs = "26 1 0:22 /@ / rw shared:1 - btrfs /dev/nvme0n1p1 rw\n";
        for mountinfo in [EXT4, mapper, btrfs] {
            assert_eq!(auto(tree(mountinfo).path()).unwrap(), disk, "{mountinfo}");
        }
        let overlay = tree("26 1 0:22 / / rw - overlay overlay rw\n");
        let error = auto(overlay.path()).unwrap_err().full_text();
        assert!(error.contains("no block device") && error.contains("--device"), "{error}");
        assert!(auto(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn disks_are_those_with_sectors_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        for (name, sectors) in [
            ("nvme1n1", "64\n"),
            ("nvme0n1", "16777216\n"),
            ("loop0", "8\n"),
            ("dm-0", "8\n"),
            ("sda", "0\n"),
        ] {
            let dir = root.path().join("sys/block").join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("size"), sectors).unwrap();
        }
        fs::create_dir_all(root.path().join("sys/block/cciss!c0d0")).unwrap();
        fs::write(root.path().join("sys/block/cciss!c0d0/size"), "8\n").unwrap();
        let dev = root.path().join("dev");
        assert_eq!(disks(root.path()), [dev.join("cciss/c0d0"), dev.join("nvme0n1"), dev.join("nvme1n1")]);
        assert!(disks(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn traffic_is_what_the_kernel_counts() {
        let root = tree(EXT4);
        let number = "259:0".parse().unwrap();
        assert_eq!(traffic(root.path(), number), None);
        let stat = root.path().join("sys/devices/nvme0n1/stat");
        fs::write(&stat, "  100  2  800  9   7  1  64  5   3  11  12  0 0 0 0 4 5\n").unwrap();
        let expected =
            Traffic { reads: 100, read_bytes: 800 * 512, writes: 7, written_bytes: 64 * 512, in_flight: 3 };
        assert_eq!(traffic(root.path(), number), Some(expected));
        fs::write(&stat, "1 2 x\n").unwrap();
        assert_eq!(traffic(root.path(), number), None);
    }

    #[test]
    fn a_partition_and_a_mapper_lead_to_their_disk() {
        let root = tree(EXT4);
        let disk = whole_disk(root.path(), "259:1".parse().unwrap()).unwrap();
        assert_eq!((disk.path.to_str(), disk.start), (Some("/dev/nvme0n1"), 2048));
        assert_eq!(whole_disk(root.path(), "252:0".parse().unwrap()).unwrap().number, disk.number);
        assert_eq!(queue_requests(root.path(), disk.number), Some(127));
        assert_eq!(queue_requests(root.path(), "1:1".parse().unwrap()), None);
        assert!(whole_disk(root.path(), "1:1".parse().unwrap()).is_err());
        assert_eq!(serial_and_model(root.path(), disk.number).0.as_deref(), Some("vol0123456789abcdef0"));
    }
}
