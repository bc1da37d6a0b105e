//! Which bytes of its device a mounted filesystem has free: the GETFSMAP ioctl (ioctl_getfsmap(2)), which ext4 and XFS
//! answer from their own maps.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// `FS_IOC_GETFSMAP`, `_IOWR('X', 59, struct fsmap_head)` in linux/fsmap.h.
const FS_IOC_GETFSMAP: u64 = 0xc0c0_583b;
/// `FMR_OF_SPECIAL_OWNER`: the owner is one of the codes, not an inode.
const SPECIAL_OWNER: u32 = 0x10;
/// `FMR_OF_LAST`: the last record of all.
const LAST: u32 = 0x20;
/// `FMR_OWN_FREE`, `FMR_OWNER(0, 1)`.
const OWN_FREE: u64 = 1;
/// Records asked for at once: 32 KiB of answers.
const BATCH: usize = 512;
/// A filesystem that goes on for longer than this many records is left as it is: 256 million.
const ROUNDS_MAX: usize = 1 << 19;

/// `struct fsmap` in linux/fsmap.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    device: u32,
    flags: u32,
    physical: u64,
    owner: u64,
    offset: u64,
    length: u64,
    reserved: [u64; 3],
}

/// `struct fsmap_head` in linux/fsmap.h, and room for the answers.
#[repr(C)]
struct Request {
    in_flags: u32,
    out_flags: u32,
    count: u32,
    entries: u32,
    reserved: [u64; 6],
    low: Record,
    high: Record,
    records: [Record; BATCH],
}

/// Calls `free` with the first byte and the length of each free range, relative to the filesystem's device. On a cold volume
/// the maps are first reads: a stop is looked at between the calls.
pub fn each_free(file: &File, stop: &AtomicBool, mut free: impl FnMut(u64, u64)) -> io::Result<()> {
    let most = u64::MAX;
    let mut low = Record::default();
    let mut device = None;
    for _ in 0..ROUNDS_MAX {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let mut request = Box::new(Request {
            in_flags: 0,
            out_flags: 0,
            count: BATCH as u32,
            entries: 0,
            reserved: [0; 6],
            low,
            high: Record {
                device: u32::MAX,
                flags: u32::MAX,
                physical: most,
                owner: most,
                offset: most,
                ..Record::default()
            },
            records: [Record::default(); BATCH],
        });
        // SAFETY: the descriptor is open, and `Request` is `struct fsmap_head` followed by room for the `count` records
        // that the kernel may write.
        let code = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFSMAP as _, &mut *request) };
        if code < 0 {
            return Err(io::Error::last_os_error());
        }
        let records = &request.records[..(request.entries as usize).min(BATCH)];
        for record in records {
            // An XFS may have a log or files on other devices; the first is the one that is mounted.
            let of_first = *device.get_or_insert(record.device) == record.device;
            if of_first && record.flags & SPECIAL_OWNER != 0 && record.owner == OWN_FREE {
                free(record.physical, record.length);
            }
        }
        let Some(last) = records.last().filter(|last| last.flags & LAST == 0 && **last != low) else {
            return Ok(());
        };
        // The next begins behind it: the kernel takes the last record for that.
        low = *last;
    }
    Err(io::Error::other("the filesystem names free space without end"))
}
