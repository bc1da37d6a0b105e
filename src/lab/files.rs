//! The mounted directory: `volume`, `stats.json` and `control`.
//!
//! Holds: reads of `volume` are never cached above us, so each one meets the law, also after a reset.

use super::server::{Operation, Server, errno};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The volume's bytes.
pub const VOLUME: &str = "volume";
/// Statistics, made anew at each open.
pub const STATS: &str = "stats.json";
/// Takes commands.
pub const CONTROL: &str = "control";
/// The one command: makes the volume cold again.
pub const RESET: &str = "reset";

/// Largest request asked for: the kernel's own bound for an unprivileged server is 256 pages.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way; all that the protocol's field holds, since the law, not the
/// transport, is to decide how many are served at once.
const BACKGROUND_MAX: u16 = u16::MAX;
/// Nothing but the server changes attributes, and it never does.
const ATTRIBUTES_HOLD: Duration = Duration::from_secs(3600);
/// Statistics that readers have open at once; a reader that leaks handles is refused, not fed.
const OPEN_STATS_MAX: usize = 64;

const ROOT_INO: INodeNo = INodeNo(1);
const VOLUME_INO: INodeNo = INodeNo(2);
const STATS_INO: INodeNo = INodeNo(3);
const CONTROL_INO: INodeNo = INodeNo(4);
const ENTRIES: [(INodeNo, FileType, &str); 5] = [
    (ROOT_INO, FileType::Directory, "."),
    (ROOT_INO, FileType::Directory, ".."),
    (VOLUME_INO, FileType::RegularFile, VOLUME),
    (STATS_INO, FileType::RegularFile, STATS),
    (CONTROL_INO, FileType::RegularFile, CONTROL),
];

thread_local! {
    /// Where data passes through, one a thread, as large as the largest read it served.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The filesystem.
pub struct Files {
    pub server: Arc<Server>,
    /// The image's path as it was given.
    pub image: String,
    /// The process that has no other purpose than this mount.
    pub daemon_pid: Option<u32>,
    pub mounted: SystemTime,
    /// Statistics by handle, as they were when opened.
    pub open_stats: Mutex<HashMap<u64, Arc<Vec<u8>>>>,
    pub next_handle: AtomicU64,
}

impl Files {
    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let image = self.server.image();
        // SAFETY: both calls only return a number of this process and cannot fail.
        let own = unsafe { (libc::geteuid(), libc::getegid()) };
        let (kind, perm, size, (uid, gid)) = match ino {
            ROOT_INO => (FileType::Directory, 0o755, 0, own),
            VOLUME_INO => (FileType::RegularFile, image.mode, image.bytes, image.owner),
            STATS_INO => (FileType::RegularFile, 0o444, 0, own),
            CONTROL_INO => (FileType::RegularFile, 0o200, 0, own),
            _ => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: self.mounted,
            mtime: self.mounted,
            ctime: self.mounted,
            crtime: self.mounted,
            kind,
            perm,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid,
            gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn document(&self) -> Vec<u8> {
        let mut stats = self.server.stats();
        stats.image = self.image.clone();
        stats.daemon_pid = self.daemon_pid;
        serde_json::to_vec(&stats).unwrap_or_default()
    }

    fn open_document(&self) -> Result<FileHandle, Errno> {
        let document = Arc::new(self.document());
        let mut open = self.open_stats.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_STATS_MAX {
            return Err(Errno::EMFILE);
        }
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        open.insert(handle, document);
        Ok(FileHandle(handle))
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Without it direct reads are served one at a time; every kernel since 3.13 has it.
        if config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).is_err() {
            return Err(std::io::Error::from_raw_os_error(libc::EPROTO));
        }
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let entry = ENTRIES[2..].iter().find(|(.., known)| parent == ROOT_INO && name == OsStr::new(known));
        match entry.and_then(|(ino, ..)| self.attributes(*ino)) {
            Some(attributes) => reply.entry(&ATTRIBUTES_HOLD, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&ATTRIBUTES_HOLD, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = mode.is_some() || uid.is_some() || gid.is_some();
        // A shell's `>` truncates before it writes; the volume's size is fixed.
        let truncates = size.is_some() && ino != CONTROL_INO;
        match self.attributes(ino) {
            Some(attributes) if !changes && !truncates => reply.attr(&ATTRIBUTES_HOLD, &attributes),
            _ => reply.error(Errno::EPERM),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        let reads_only = flags.acc_mode() == OpenAccMode::O_RDONLY;
        match ino {
            VOLUME_INO if reads_only || self.server.image().is_writable() => {
                reply.opened(FileHandle(0), direct | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
            }
            VOLUME_INO => reply.error(Errno::EROFS),
            STATS_INO if reads_only => match self.open_document() {
                Ok(handle) => reply.opened(handle, direct),
                Err(error) => reply.error(error),
            },
            CONTROL_INO => reply.opened(FileHandle(0), direct),
            _ => reply.error(Errno::EACCES),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if ino == VOLUME_INO {
            let left = self.server.image().bytes.saturating_sub(offset);
            let bytes = size.min(u32::try_from(left).unwrap_or(u32::MAX));
            if bytes == 0 {
                return reply.data(&[]);
            }
            let operation = Operation::Read { offset, bytes, reply };
            return BUFFER.with_borrow_mut(|buffer| self.server.submit(operation, buffer));
        }
        let open = self.open_stats.lock().unwrap_or_else(PoisonError::into_inner);
        let document = open.get(&handle.0).cloned();
        drop(open);
        let Some(document) = document else { return reply.data(&[]) };
        let start = usize::try_from(offset).map_or(document.len(), |start| start.min(document.len()));
        let end = document.len().min(start.saturating_add(size as usize));
        reply.data(&document[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match ino {
            VOLUME_INO => {
                let left = self.server.image().bytes.saturating_sub(offset);
                let data = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
                if data.is_empty() {
                    return reply.error(Errno::ENOSPC);
                }
                let operation = Operation::Write { offset, data: data.to_vec(), reply };
                BUFFER.with_borrow_mut(|buffer| self.server.submit(operation, buffer));
            }
            CONTROL_INO if data.trim_ascii() == RESET.as_bytes() => {
                self.server.reset();
                reply.written(data.len() as u32);
            }
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.server.image().sync() {
            Err(error) if ino == VOLUME_INO && self.server.image().is_writable() => {
                reply.error(errno(&error))
            }
            _ => reply.ok(),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if ino == STATS_INO {
            self.open_stats.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        }
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if ino != ROOT_INO {
            return reply.error(Errno::ENOTDIR);
        }
        for (number, (ino, kind, name)) in ENTRIES.iter().enumerate().skip(offset as usize) {
            if reply.add(*ino, number as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
