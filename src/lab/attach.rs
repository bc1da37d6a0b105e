//! Attaching a FUSE connection to a directory and taking it away again: `mount(2)` where we may, the setuid
//! helper `fusermount3` where we may not.
//!
//! Done here and not by fuser, which unmounts a directory a second time after somebody else did: by then another
//! volume may be mounted there.

use crate::error::{Context, Error, Result};
use fuser::SessionACL;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The type that the mount table shows, by which our mounts are known.
pub const FS_TYPE: &str = "fuse.ebs-prewarm";
/// The mount table's source.
const SOURCE: &str = "ebs-prewarm";
const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
/// Tells the helper over which socket to hand us the connection (its documented interface).
const HELPER_SOCKET: &str = "_FUSE_COMMFD";

/// How an unmounting went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// It is gone.
    Done,
    /// Nothing was mounted there.
    NotMounted,
    /// Somebody has it open.
    Busy,
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).context(|| "failed to pass a path that holds a zero byte".into())
}

/// Mounts at `dir`; gives the connection and who may use it.
pub fn attach(dir: &Path) -> Result<(OwnedFd, SessionACL)> {
    let failed = || format!("failed to mount on `{}`", dir.display());
    match attach_directly(dir) {
        Ok(fd) => return Ok((fd, SessionACL::All)),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        Err(error) => {
            let failure = Error::failed(failed());
            return Err(match error.kind() {
                ErrorKind::NotFound => failure.hint("load the module: `modprobe fuse`"),
                ErrorKind::PermissionDenied => failure.hint("run as root, or let your user open /dev/fuse"),
                _ => failure,
            }
            .because(error));
        }
    }
    match attach_by_helper(dir, true) {
        Ok(fd) => Ok((fd, SessionACL::All)),
        // Other users are let in only where /etc/fuse.conf says so.
        Err(error) if error.to_string().contains("user_allow_other") => {
            attach_by_helper(dir, false).context(failed).map(|fd| (fd, SessionACL::Owner))
        }
        Err(error) => Err(Error::failed(failed()).hint("run as root, or install fusermount3").because(error)),
    }
}

fn attach_directly(dir: &Path) -> std::io::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| {
        // EPERM here is a sandbox's refusal, which the helper meets as well: it is told as what it is.
        std::io::Error::new(error.kind(), format!("{DEVICE}: {error}"))
    })?;
    // SAFETY: both calls only return a number of this process and cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let data = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},default_permissions,allow_other",
        device.as_raw_fd()
    );
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| std::io::Error::from(ErrorKind::InvalidInput));
    let (source, target) = (text(SOURCE.as_bytes())?, text(dir.as_os_str().as_bytes())?);
    let (kind, data) = (text(FS_TYPE.as_bytes())?, text(data.as_bytes())?);
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all pointers are to zero-terminated strings that outlive the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if result != 0 { Err(std::io::Error::last_os_error()) } else { Ok(device.into()) }
}

fn attach_by_helper(dir: &Path, allow_other: bool) -> Result<OwnedFd> {
    let failed = || format!("failed to run `{HELPER}`");
    let (ours, theirs) = UnixStream::pair().context(failed)?;
    let mut options = format!("fsname={SOURCE},subtype=ebs-prewarm,default_permissions,nosuid,nodev,noexec");
    if allow_other {
        options.push_str(",allow_other");
    }
    let mut command = Command::new(HELPER);
    command.args(["-o", &options, "--"]).arg(dir).stdin(Stdio::null()).stdout(Stdio::null());
    let socket = theirs.as_raw_fd();
    command.stderr(Stdio::piped()).env(HELPER_SOCKET, socket.to_string());
    // SAFETY: between fork and exec the closure makes one fcntl on a descriptor that is open in the child, and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || match libc::fcntl(socket, libc::F_SETFD, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    let child = command.spawn().context(failed)?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let output = child.wait_with_output().context(failed)?;
    match received {
        Ok(Some(fd)) => Ok(fd),
        Ok(None) => Err(Error::failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(Error::failed(failed()).because(error)),
    }
}

/// The descriptor that came with one byte over the socket; none where the other side just closed it.
fn receive_descriptor(socket: &UnixStream) -> std::io::Result<Option<OwnedFd>> {
    const SPACE: usize = 64;
    let mut byte = [0u8];
    // Aligned as a control message must be.
    let mut control = [0u64; SPACE / 8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = SPACE as _;
    loop {
        // SAFETY: the message points at live buffers of the lengths it states.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
        match got {
            0 => return Ok(None),
            1.. => break,
            _ => {
                let error = std::io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    // SAFETY: the kernel filled the control buffer and set its length; the header is checked before its data is
    // read; a descriptor received by SCM_RIGHTS is ours alone.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null()
            || (*header).cmsg_type != libc::SCM_RIGHTS
            || (*header).cmsg_len < libc::CMSG_LEN(size_of::<RawFd>() as u32) as _
        {
            return Ok(None);
        }
        let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        Ok(Some(OwnedFd::from_raw_fd(fd)))
    }
}

/// Unmounts `dir`; `lazily` also where somebody has it open, who may then keep what he has.
pub fn detach(dir: &Path, lazily: bool) -> Result<Detached> {
    let failed = || format!("failed to unmount `{}`", dir.display());
    let target = c_string(dir.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: the pointer is to a zero-terminated string that outlives the call.
    if unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {
        return Ok(Detached::Done);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EBUSY) => Ok(Detached::Busy),
        Some(libc::EINVAL | libc::ENOENT) => Ok(Detached::NotMounted),
        Some(libc::EPERM) => detach_by_helper(dir, lazily).context(failed),
        _ => Err(Error::failed(failed()).because(error)),
    }
}

fn detach_by_helper(dir: &Path, lazily: bool) -> Result<Detached> {
    let mut command = Command::new(HELPER);
    command.arg("-u").args(lazily.then_some("-z")).arg("--").arg(dir).stdin(Stdio::null());
    let output = command.output().context(|| format!("failed to run `{HELPER}`"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(Detached::Done),
        false if text.contains("busy") => Ok(Detached::Busy),
        false if text.contains("not found") || text.contains("not mounted") => Ok(Detached::NotMounted),
        false => Err(Error::failed(text.trim().to_owned())),
    }
}

/// Gives the calling thread, and the threads it starts, a table of open files of their own, with nothing in it
/// but the standard streams.
///
/// The reason: where the whole process shares one table, the kernel closes the connection only when its last
/// thread has ended, and a thread that waits for a read through the mount never ends while the connection is
/// open. A process that is killed while it reads its own mount would stay for ever.
pub fn own_descriptors() -> Result<()> {
    // SAFETY: closes descriptors in a copy of the table that this call makes for this thread alone. Called first
    // thing on a new thread, which owns none of them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::failed("failed to give the server its own open files")
            .hint("the emulator needs Linux 5.9 or later")
            .because(error));
    }
    Ok(())
}

/// Our mounts in the text of a `mountinfo`: whether `dir` is one, by its last entry there.
pub fn is_ours(mountinfo: &str, dir: &Path) -> bool {
    let entry = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        let point = fields.split(' ').nth(4)?;
        (unescaped(point) == dir.as_os_str().as_bytes()).then(|| rest.split(' ').next() == Some(FS_TYPE))
    };
    mountinfo.lines().filter_map(entry).next_back().unwrap_or(false)
}

/// Undoes `\040` and the like.
fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    plain
}

/// Reads a small file of the kernel's.
pub fn read_proc(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    let mut text = String::new();
    let read = File::open(&path).and_then(|mut file| std::io::Read::read_to_string(&mut file, &mut text));
    read.context(|| format!("failed to read `{}`", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_on_a_directory_counts() {
        let line = |point: &str, kind: &str| {
            format!("36 35 98:0 / {point} rw,noatime shared:1 - {kind} source rw\n")
        };
        let ours = line("/mnt/a\\040b", FS_TYPE);
        let other = line("/mnt/a\\040b", "ext4");
        let dir = Path::new("/mnt/a b");
        assert!(is_ours(&ours, dir));
        assert!(is_ours(&(other.clone() + &ours), dir));
        assert!(!is_ours(&(ours.clone() + &other), dir));
        assert!(!is_ours(&ours, Path::new("/mnt/a")));
        for cut in 0..ours.len() {
            is_ours(&ours[..cut], dir);
        }
    }
}
