//! Block devices and image files: opened for reading, measured, recognised.
//!
//! Holds: nothing is ever opened for writing; what is read to recognise a volume goes through the page cache,
//! where the kernel's own partition scan has left it. The root of `/sys`, `/proc` and `/dev` is an argument.

mod allocated;
mod fiemap;
pub mod files;
pub mod filesystem;
mod fsmap;
mod ioctl;
mod load;
pub mod nvme;
pub mod storage;
mod sysfs;
pub mod table;

pub use load::{Load, Requests};
pub use storage::Storage;
use sysfs::queue_requests;
pub use sysfs::{DeviceNumber, Traffic, auto, disks, traffic, whole_disk};

use crate::error::{Context, Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::units::SECTOR_BYTES;
use crate::volume::{Identity, Partition};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A block device or an image file, open for reading.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: File,
    number: Option<DeviceNumber>,
    sectors: u64,
    block_bytes: u32,
    direct: bool,
}

impl Device {
    /// Opens a device or an image with O_DIRECT where the kernel lets us.
    pub fn open(path: &Path) -> Result<Device> {
        let shown = path.display();
        let fail = || format!("failed to open device `{shown}`");
        let metadata = std::fs::metadata(path).context(fail).map_err(|error| {
            error.hint("name a block device or an image file, or `auto` for the disk that carries /")
        })?;
        let kind = metadata.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(Error::failed(format!("failed to open device `{shown}`: not a block device"))
                .hint("name a block device such as /dev/nvme0n1, or an image file"));
        }
        let (file, direct) = open_direct(path).map_err(|cause| {
            let denied = cause.kind() == io::ErrorKind::PermissionDenied;
            let error = Error::failed(fail()).because(cause);
            if denied {
                error.hint("run as root, or as a user of the group that owns the device")
            } else {
                error
            }
        })?;
        let number = kind.is_block_device().then(|| DeviceNumber::from_rdev(metadata.rdev()));
        let (bytes, block_bytes) = if number.is_some() {
            let size = ioctl::size_bytes(&file)
                .and_then(|bytes| Ok((bytes, ioctl::logical_block_bytes(&file)?)))
                .context(|| format!("failed to measure device `{shown}`"))?;
            (size.0, size.1)
        } else {
            (metadata.len(), SECTOR_BYTES as u32)
        };
        let sectors = bytes / SECTOR_BYTES;
        if sectors == 0 || Extent::at(0, sectors).is_none() {
            return Err(Error::failed(format!("failed to use device `{shown}`: its size is {bytes} bytes"))
                .hint("a detached loop device or an empty file has no blocks to read"));
        }
        Ok(Device { path: path.into(), file, number, sectors, block_bytes, direct })
    }

    /// As it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, read-only.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Major and minor number; `None` for an image file.
    pub fn number(&self) -> Option<DeviceNumber> {
        self.number
    }

    /// Size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Logical block in bytes: the smallest read.
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// Whether reads bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Requests that its queue takes at once, where the kernel shows that.
    pub fn queue_requests(&self, root: &Path) -> Option<u32> {
        self.number.and_then(|number| queue_requests(root, number))
    }

    /// What `/sys` knows of the volume: nothing is read of it.
    pub fn named(&self, root: &Path) -> Identity {
        let mut identity = Identity::of_size(self.sectors);
        if let Some(number) = self.number {
            (identity.serial, identity.model) = sysfs::serial_and_model(root, number);
        }
        identity
    }

    /// Bytes of the longest request that its disk takes: a longer read is several of them.
    pub fn request_bytes(&self, root: &Path) -> u64 {
        self.number.and_then(|number| sysfs::request_bytes(root, number)).unwrap_or(u64::MAX)
    }

    /// The sectors that filesystems on it may have allocated; all where that is not known, or after a stop.
    pub fn allocated(&self, root: &Path, stop: &AtomicBool) -> Result<ExtentSet> {
        let partitions = self.identity(root, |_| false)?.partitions;
        match self.number {
            Some(number) => allocated::allocated(root, number, self.sectors, &partitions, stop),
            None => Ok(Extent::new(0, self.sectors).into_iter().collect()),
        }
    }

    /// The serial of its disk, which costs no read.
    pub fn serial(&self, root: &Path) -> Option<String> {
        sysfs::serial_and_model(root, self.number?).0
    }

    /// A name that no other device has while this machine runs: the serial of its disk and the kernel's name of it, or of an
    /// image its own and where it lies. Nothing is read of it.
    pub fn name(&self, root: &Path) -> String {
        if let Some(kernel) = self.number.and_then(|number| sysfs::kernel_name(root, number)) {
            let serial = self.serial(root).map_or_else(String::new, |serial| serial + "-");
            return serial + &kernel;
        }
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{:08x}-{name}", crc32fast::hash(path.as_os_str().as_encoded_bytes()))
    }

    /// What it can be recognised by when it is met again, given what is known of it: its serial, else its partition
    /// table or filesystem, which is read now if it was not before.
    pub fn recognised(&self, root: &Path, known: Identity) -> Identity {
        if known.serial.is_some() || known.is_bound() {
            return known;
        }
        let named = self.named(root);
        if named.serial.is_some() {
            return named;
        }
        self.identity(root, |_| false).unwrap_or(known)
    }

    /// What the volume can be recognised by. `wanted` says of which partitions, by PARTUUID, the filesystem is
    /// looked up: on a cold volume each look-up is a first read.
    pub fn identity(&self, root: &Path, wanted: impl Fn(&str) -> bool) -> Result<Identity> {
        let shown = self.path.display();
        let file = File::open(&self.path).context(|| format!("failed to open device `{shown}`"))?;
        let read = |offset: u64, length: usize| read_up_to(&file, offset, length);
        let head_bytes = table::head_bytes(self.block_bytes);
        let head =
            read(0, head_bytes).context(|| format!("failed to read the partition table of `{shown}`"))?;
        let table = table::parse(&head, self.block_bytes);
        let mut identity = self.named(root);
        match table {
            Some(table) => {
                identity.table_uuid = Some(table.uuid);
                identity.partitions = table.partitions;
                for partition in &mut identity.partitions {
                    if partition.partuuid.as_deref().is_some_and(&wanted) {
                        partition.fs_uuid = self.fs_uuid_at(partition, &read);
                    }
                }
            }
            None => identity.fs_uuid = filesystem::uuid(|offset, length| read(offset, length).ok()),
        }
        Ok(identity)
    }

    fn fs_uuid_at(
        &self,
        partition: &Partition,
        read: &impl Fn(u64, usize) -> io::Result<Vec<u8>>,
    ) -> Option<String> {
        let place = Extent::at(partition.start, partition.sectors)?;
        filesystem::uuid(|offset, length| read(place.offset() + offset, length).ok())
    }
}

/// O_DIRECT keeps warmed data out of the page cache; some filesystems refuse it for image files.
fn open_direct(path: &Path) -> io::Result<(File, bool)> {
    let open = |flags| File::options().read(true).custom_flags(flags).open(path);
    match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((open(0)?, false)),
        other => Ok((other?, true)),
    }
}

/// Reads until the end of the file or `length`.
fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The path to use for `--device`: `auto` is the disk that carries `/`, a partition becomes its whole disk.
pub fn disk_path(root: &Path, named: &Path) -> Result<PathBuf> {
    if named == Path::new("auto") {
        return auto(root);
    }
    let Ok(metadata) = std::fs::metadata(named) else { return Ok(named.into()) };
    if !metadata.file_type().is_block_device() {
        return Ok(named.into());
    }
    let number = DeviceNumber::from_rdev(metadata.rdev());
    let disk = whole_disk(root, number)?;
    Ok(if disk.number == number { named.into() } else { disk.path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Device::open(&dir.path().join("none")).unwrap_err().full_text();
        assert!(missing.contains("/none`") && missing.contains("No such file"), "{missing}");
        assert!(Device::open(dir.path()).unwrap_err().full_text().contains("not a block device"));
        assert!(Device::open(Path::new("/dev/null")).unwrap_err().full_text().contains("not a block device"));
        let empty = dir.path().join("empty");
        File::create(&empty).unwrap();
        assert!(Device::open(&empty).unwrap_err().full_text().contains("0 bytes"));
    }

    #[test]
    fn an_image_is_measured_and_has_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let device = Device::open(&path).unwrap();
        assert_eq!((device.sectors(), device.number()), (2048, None));
        let identity = device.identity(dir.path(), |_| true).unwrap();
        assert_eq!(identity, Identity::of_size(2048));
    }

    #[test]
    fn images_of_one_name_and_size_have_names_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let name_of = |folder: &str| {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            let path = dir.path().join(folder).join("a disk.img");
            File::create(&path).unwrap().set_len(1 << 20).unwrap();
            Device::open(&path).unwrap().name(dir.path())
        };
        let (one, other) = (name_of("one"), name_of("other"));
        assert!(one != other && one.ends_with("-a disk.img"), "{one} {other}");
    }
}
