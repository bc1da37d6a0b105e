//! A loop device on a file, for as long as the value lives.
//!
//! A request of a loop device has at most 128 segments, so a read of 1 MiB into scattered pages reaches the file as
//! two or three. Read straight from the file it is one.
//!
//! Holds: the device is marked to clear itself when its last user closes it, so a killed process leaves none.

use crate::error::{Context, Error, Result};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

// <linux/loop.h> and <linux/fs.h>
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const BLKFLSBUF: libc::c_ulong = 0x1261;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_PARTSCAN: u32 = 8;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const NAME_BYTES: usize = 64;

/// Others race for free devices too; so many lost races in a row are no accident.
const ATTEMPTS_MAX: u32 = 64;
/// How long others, such as udev, may keep a detached device open before it is worth a warning.
const DETACH_POLLS_MAX: u32 = 300;
const DETACH_POLL: Duration = Duration::from_millis(10);

/// `struct loop_info64`
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; NAME_BYTES],
    crypt_name: [u8; NAME_BYTES],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`
#[repr(C)]
struct Configuration {
    fd: u32,
    block_bytes: u32,
    info: Info,
    reserved: [u64; 8],
}

/// How a loop device is made.
#[derive(Clone, Copy, Debug)]
pub struct LoopOptions {
    /// Refuses writes.
    pub read_only: bool,
    /// Reads the file with O_DIRECT, so that each read of the device is one of the file.
    pub direct_io: bool,
    /// Logical block size; 0 leaves it to the kernel.
    pub block_bytes: u32,
    /// Has the kernel look for partitions.
    pub partitions: bool,
}

impl Default for LoopOptions {
    fn default() -> Self {
        LoopOptions { read_only: true, direct_io: true, block_bytes: 512, partitions: false }
    }
}

/// An attached loop device; detached when dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    /// Open as long as we live; `None` once detached.
    device: Option<File>,
}

impl LoopDevice {
    /// Attaches a file to a free loop device.
    pub fn attach(file: &Path, options: LoopOptions) -> Result<LoopDevice> {
        let failed = || format!("failed to attach a loop device to `{}`", file.display());
        let backing = OpenOptions::new().read(true).write(!options.read_only).open(file).context(failed)?;
        let control =
            OpenOptions::new().read(true).write(true).open("/dev/loop-control").map_err(|error| {
                Error::failed(failed())
                    .hint("run as root, with the module `loop` loaded")
                    .because(format!("/dev/loop-control: {error}"))
            })?;
        for _ in 0..ATTEMPTS_MAX {
            // SAFETY: takes no argument and returns a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
            if number < 0 {
                return Err(Error::failed(failed()).because(std::io::Error::last_os_error()));
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(!options.read_only).open(&path);
            let device = device.context(|| format!("failed to open `{}`", path.display()))?;
            match configure(&device, &backing, file, options) {
                Ok(()) => return LoopDevice { path, device: Some(device) }.checked(options).context(failed),
                // Somebody was faster: the next free one.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(Error::failed(failed()).because(error)),
            }
        }
        Err(Error::failed(failed()).because(format!("{ATTEMPTS_MAX} free devices were taken by others")))
    }

    /// The kernel drops what it cannot do; here that is an error.
    fn checked(self, options: LoopOptions) -> Result<LoopDevice> {
        let flags = self.device.as_ref().and_then(|device| info(device).ok()).map_or(0, |info| info.flags);
        if options.direct_io && flags & LO_FLAGS_DIRECT_IO == 0 {
            return Err(Error::failed(format!("failed to have `{}` read directly", self.path.display()))
                .hint("the file's filesystem must allow O_DIRECT at this block size"));
        }
        Ok(self)
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the kernel forget what it cached of the device, so that the next read reaches the file.
    pub fn forget_cached(&self) -> Result<()> {
        let Some(device) = &self.device else { return Ok(()) };
        // SAFETY: takes no argument.
        if unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF as _) } != 0 {
            return Err(Error::failed(format!("failed to empty the cache of `{}`", self.path.display()))
                .because(std::io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Detaches it, or says that somebody still has it open.
    pub fn detach(mut self) -> Result<()> {
        self.detach_now()
    }

    fn detach_now(&mut self) -> Result<()> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let failed = || format!("failed to detach `{}`", self.path.display());
        let before = info(&device).context(failed)?;
        // SAFETY: takes no argument.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _) } != 0 {
            return Err(Error::failed(failed()).because(std::io::Error::last_os_error()));
        }
        // The kernel lets go when the last descriptor is closed.
        drop(device);
        for _ in 0..DETACH_POLLS_MAX {
            if !self.still_has(before) {
                return Ok(());
            }
            std::thread::sleep(DETACH_POLL);
        }
        Err(Error::failed(failed())
            .because("it is in use")
            .hint(format!("it goes when it is closed; `fuser -v {}` lists by whom", self.path.display())))
    }

    /// Whether the device is still attached to what it was.
    fn still_has(&self, before: Info) -> bool {
        let now = File::open(&self.path).and_then(|device| info(&device));
        now.is_ok_and(|now| (now.device, now.inode) == (before.device, before.inode))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = self.detach_now() {
            tracing::warn!("{}", error.full_text());
        }
    }
}

fn configure(device: &File, backing: &File, name: &Path, options: LoopOptions) -> std::io::Result<()> {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let mut file_name = [0; NAME_BYTES];
    let shown = name.as_os_str().as_bytes();
    let shown = &shown[..shown.len().min(NAME_BYTES - 1)];
    file_name[..shown.len()].copy_from_slice(shown);
    let info = Info {
        flags: LO_FLAGS_AUTOCLEAR
            | flag(options.read_only, LO_FLAGS_READ_ONLY)
            | flag(options.direct_io, LO_FLAGS_DIRECT_IO)
            | flag(options.partitions, LO_FLAGS_PARTSCAN),
        file_name,
        ..EMPTY
    };
    let fd = backing.as_raw_fd() as u32;
    let configuration = Configuration { fd, block_bytes: options.block_bytes, info, reserved: [0; 8] };
    // SAFETY: the structure has the layout of `struct loop_config` and outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &configuration) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; NAME_BYTES],
    crypt_name: [0; NAME_BYTES],
    encrypt_key: [0; 32],
    init: [0; 2],
};

fn info(device: &File) -> std::io::Result<Info> {
    let mut info = EMPTY;
    // SAFETY: the structure has the layout of `struct loop_info64` and outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &mut info) } {
        0 => Ok(info),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes as in <linux/loop.h>: 232 and 304 bytes.
    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!((size_of::<Info>(), size_of::<Configuration>()), (232, 304));
        assert_eq!(std::mem::offset_of!(Info, flags), 52);
        assert_eq!(std::mem::offset_of!(Configuration, info), 8);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = LoopDevice::attach(Path::new("/no/such"), LoopOptions::default()).unwrap_err();
        assert!(error.full_text().contains("`/no/such`"), "{}", error.full_text());
    }
}
