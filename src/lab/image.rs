//! The bytes behind the emulated volume: an image file or a block device, read and, if asked, written in place.

use crate::error::{Context, Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::units::SECTOR_BYTES;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

/// An opened image.
#[derive(Debug)]
pub struct Image {
    file: File,
    /// Its size in bytes, fixed when it was opened.
    pub bytes: u64,
    /// Owner, group and permissions, which the volume takes over.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u16,
    writable: bool,
}

impl Image {
    /// Opens an image for reading, and for writing where that is asked.
    pub fn open(path: &Path, writable: bool) -> Result<Image> {
        let failed = || format!("failed to open image `{}`", path.display());
        let mut file = OpenOptions::new().read(true).write(writable).open(path).context(failed)?;
        let meta = file.metadata().context(failed)?;
        if !meta.is_file() && !meta.file_type().is_block_device() {
            return Err(Error::failed(failed()).because("it is neither a file nor a block device"));
        }
        let bytes = file.seek(SeekFrom::End(0)).context(failed)?;
        if bytes < SECTOR_BYTES {
            return Err(Error::failed(failed())
                .because(format!("it has {bytes} bytes, a volume has at least one sector"))
                .hint("make one with `truncate -s 1G IMAGE` or `mkfs.ext4 IMAGE 1G`"));
        }
        let mode = (meta.mode() & if writable { 0o666 } else { 0o444 }) as u16;
        Ok(Image { file, bytes, owner: (meta.uid(), meta.gid()), mode, writable })
    }

    /// Whether it was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Fills the buffer from `offset`; what an image cut short meanwhile no longer has is an error.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Writes all of the buffer at `offset`.
    pub fn write_at(&self, buffer: &[u8], offset: u64) -> std::io::Result<()> {
        self.file.write_all_at(buffer, offset)
    }

    /// Makes what was written last.
    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }

    /// Has the kernel read a range ahead, so that the backing disk's time passes while the law's does.
    pub fn prefetch(&self, offset: u64, bytes: u32) {
        // SAFETY: no memory is passed; the descriptor is open as long as `self`. A refusal costs only time.
        unsafe {
            libc::posix_fadvise(
                self.file.as_raw_fd(),
                offset as libc::off_t,
                libc::off_t::from(bytes),
                libc::POSIX_FADV_WILLNEED,
            )
        };
    }

    /// The holes of a sparse image, in whole sectors.
    pub fn holes(&self) -> Result<ExtentSet> {
        let mut holes = ExtentSet::new();
        let mut at = 0;
        while at < self.bytes {
            let data = self.seek(at, libc::SEEK_DATA)?.unwrap_or(self.bytes);
            let (start, end) = (at.div_ceil(SECTOR_BYTES), data / SECTOR_BYTES);
            if let Some(hole) = Extent::new(start, end) {
                holes.insert(hole);
            }
            if data >= self.bytes {
                break;
            }
            at = self.seek(data, libc::SEEK_HOLE)?.unwrap_or(self.bytes);
        }
        Ok(holes)
    }

    /// Position of the next data or hole from `at`; `None` where there is none.
    fn seek(&self, at: u64, whence: libc::c_int) -> Result<Option<u64>> {
        // SAFETY: lseek touches no memory; all reads and writes name their offset, so nobody uses the position.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), at as libc::off_t, whence) };
        if let Ok(found) = u64::try_from(found) {
            return Ok(Some(found));
        }
        let error = std::io::Error::last_os_error();
        match (error.raw_os_error(), error.kind()) {
            (Some(libc::ENXIO), _) => Ok(None),
            (_, ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                Err(Error::failed("failed to find the holes of the image")
                    .because(error)
                    .hint("its filesystem does not tell; mount it without --holes-unallocated"))
            }
            _ => Err(Error::failed("failed to find the holes of the image").because(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_what_was_never_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        file.as_file().write_all_at(&[7; 4096], 2 << 20).unwrap();
        let image = Image::open(file.path(), false).unwrap();
        let holes = image.holes().unwrap();
        let written = Extent::of_bytes(2 << 20, 4096).unwrap();
        assert!(!holes.overlaps(written));
        assert!(holes.covers(Extent::at(0, 4096).unwrap()), "{holes:?}");
        assert!(holes.covers(Extent::new(4104, 16_384).unwrap()), "{holes:?}");
    }

    #[test]
    fn what_is_no_volume_is_refused() {
        let text = |path: &Path| Image::open(path, false).unwrap_err().full_text();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(text(file.path()).contains("has 0 bytes"), "{}", text(file.path()));
        assert!(text(Path::new("/tmp")).contains("neither a file nor a block device"));
        assert!(text(Path::new("/no/such")).contains("`/no/such`"));
    }
}
