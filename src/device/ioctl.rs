//! The questions that a block device and its controller are asked.

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

/// `NVME_IOCTL_ADMIN_CMD`, `_IOWR('N', 0x41, struct nvme_admin_cmd)` in linux/nvme_ioctl.h.
const NVME_IOCTL_ADMIN_CMD: u64 = 0xc048_4e41;
/// How long the controller may take: it answers from memory.
const NVME_TIMEOUT_MS: u32 = 5_000;

/// `struct nvme_admin_cmd` in linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct NvmeAdmin {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    dword2: u32,
    dword3: u32,
    metadata: u64,
    address: u64,
    metadata_bytes: u32,
    bytes: u32,
    dwords10: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

/// An admin command that only reads; its answer fills `answer`.
pub fn nvme_admin(
    file: &File,
    opcode: u8,
    namespace: u32,
    dword10: u32,
    answer: &mut [u8],
) -> io::Result<()> {
    let mut command = NvmeAdmin {
        opcode,
        namespace,
        address: answer.as_mut_ptr() as u64,
        bytes: answer.len() as u32,
        dwords10: [dword10, 0, 0, 0, 0, 0],
        timeout_ms: NVME_TIMEOUT_MS,
        ..NvmeAdmin::default()
    };
    // SAFETY: the descriptor is open, the structure is as large as the kernel's, and the kernel writes at most `bytes`
    // bytes to a live slice of that length before the call returns.
    match unsafe { libc::ioctl(file.as_raw_fd(), NVME_IOCTL_ADMIN_CMD as _, &mut command) } {
        0 => Ok(()),
        ..0 => Err(io::Error::last_os_error()),
        status => Err(io::Error::other(format!("the controller answered with status {status:#x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_as_large_as_the_kernels() {
        assert_eq!(size_of::<NvmeAdmin>(), 72);
        assert_eq!(std::mem::offset_of!(NvmeAdmin, dwords10), 40);
    }

    #[test]
    fn what_is_no_controller_refuses() {
        let file = tempfile::tempfile().unwrap();
        let error = nvme_admin(&file, 6, 0, 1, &mut [0; 4096]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
