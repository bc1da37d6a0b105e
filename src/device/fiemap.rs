//! Where a file's bytes lie on its filesystem's device: the FIEMAP ioctl.
//!
//! Holds: nothing is flushed for it (no FIEMAP_FLAG_SYNC), so mapping files writes nothing to any device.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `FS_IOC_FIEMAP`, `_IOWR('f', 11, struct fiemap)` in linux/fs.h.
const FS_IOC_FIEMAP: u64 = 0xc020_660b;

/// `FIEMAP_EXTENT_*` in linux/fiemap.h.
const LAST: u32 = 0x1;
const UNKNOWN: u32 = 0x2;
const DELALLOC: u32 = 0x4;
const ENCODED: u32 = 0x8;
const DATA_ENCRYPTED: u32 = 0x80;
const NOT_ALIGNED: u32 = 0x100;
const DATA_INLINE: u32 = 0x200;
const DATA_TAIL: u32 = 0x400;
const UNWRITTEN: u32 = 0x800;

/// Extents asked for at once: 7 KiB of answers.
const BATCH: usize = 128;

/// `struct fiemap` in linux/fiemap.h.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Answer; BATCH],
}

/// `struct fiemap_extent` in linux/fiemap.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Answer {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// What the place of some of a file's bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the device, from this byte of it.
    Device(u64),
    /// In the inode or packed with other files' bytes.
    Inline,
    /// Allocated but never written: reads as zeroes without a read of the device.
    Unwritten,
    /// Not written back yet.
    NotWrittenBack,
    /// The filesystem does not tell, or compresses.
    Unknown,
}

/// Some of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Where they are.
    pub place: Place,
}

fn place(answer: &Answer) -> Place {
    let has = |flags| answer.flags & flags != 0;
    if has(DELALLOC) {
        Place::NotWrittenBack
    } else if has(DATA_INLINE | DATA_TAIL | NOT_ALIGNED) {
        Place::Inline
    } else if has(UNKNOWN) || (has(ENCODED) && !has(DATA_ENCRYPTED)) {
        Place::Unknown
    } else if has(UNWRITTEN) {
        Place::Unwritten
    } else {
        Place::Device(answer.physical)
    }
}

/// Calls `piece` for each of a file's extents in order of offset; holes are the gaps between them.
pub fn each(file: &File, mut piece: impl FnMut(Piece)) -> io::Result<()> {
    let mut start = 0;
    loop {
        let mut request = Request {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped_extents: 0,
            extent_count: BATCH as u32,
            reserved: 0,
            extents: [Answer::default(); BATCH],
        };
        // SAFETY: the descriptor is open, and `Request` is `struct fiemap` followed by room for the
        // `extent_count` answers that the kernel may write.
        let code = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &mut request) };
        if code < 0 {
            return Err(io::Error::last_os_error());
        }
        let answers = &request.extents[..(request.mapped_extents as usize).min(BATCH)];
        for answer in answers {
            piece(Piece { offset: answer.logical, length: answer.length, place: place(answer) });
        }
        let Some(last) = answers.last() else { return Ok(()) };
        let next = last.logical.saturating_add(last.length);
        // A filesystem that repeats itself must not keep us here.
        if last.flags & LAST != 0 || next <= start {
            return Ok(());
        }
        start = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<Answer>(), 56);
        assert_eq!(std::mem::offset_of!(Request, extents), 32);
    }

    #[test]
    fn flags_say_whether_bytes_have_a_place() {
        for (flags, expected) in [
            (0, Place::Device(4096)),
            (LAST | 0x1000 | 0x2000, Place::Device(4096)),
            (UNKNOWN | DELALLOC, Place::NotWrittenBack),
            (DATA_INLINE | NOT_ALIGNED, Place::Inline),
            (UNWRITTEN, Place::Unwritten),
            (ENCODED, Place::Unknown),
            (ENCODED | DATA_ENCRYPTED, Place::Device(4096)),
            (UNKNOWN, Place::Unknown),
        ] {
            assert_eq!(place(&Answer { physical: 4096, flags, ..Answer::default() }), expected, "{flags:#x}");
        }
    }
}
