//! The two questions a block device is asked.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `BLKGETSIZE64`, `_IOR(0x12, 114, size_t)` in linux/fs.h.
const BLKGETSIZE64: u64 = 0x8008_1272;
/// `BLKSSZGET`, `_IO(0x12, 104)` in linux/fs.h.
const BLKSSZGET: u64 = 0x1268;

/// Size in bytes.
pub fn size_bytes(file: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: the descriptor is open and the kernel writes one u64 to a live u64.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as _, &mut bytes) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

/// Logical block in bytes.
pub fn logical_block_bytes(file: &File) -> io::Result<u32> {
    let mut bytes = 0i32;
    // SAFETY: the descriptor is open and the kernel writes one int to a live i32.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET as _, &mut bytes) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.max(512) as u32) }
}
