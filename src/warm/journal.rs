//! What is done by now, in a file: so that whoever goes on after a crash, a stop or the change of root reads nothing
//! twice.
//!
//! Holds: a bit is set only when its read has ended, and it is in the file by then (not on the disk under it: below
//! /run a reboot forgets it, as it should); a file of another plan is begun anew; one process has it at a time. Not here:
//! what is planned.
//!
//! The file: magic, version, whether it was verified, key of the plan, number of reads, then a bit a read, the lowest of
//! each byte first.

use crate::error::{Context, Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"\x89EPWJ\r\n\x1a";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;
/// Where the header says 1 when what was touched was verified.
const VERIFIED_AT: usize = 10;
/// Of a file that is believed: 64 million reads.
const BYTES_MAX: u64 = 8 << 20;

/// The journal of one plan.
#[derive(Debug)]
pub struct Journal {
    file: Option<File>,
    path: PathBuf,
    bits: Vec<u8>,
    done: u64,
    verified: bool,
}

impl Journal {
    /// In memory alone, for so many reads.
    pub fn none(reads: u64) -> Journal {
        Journal {
            file: None,
            path: PathBuf::new(),
            bits: vec![0; reads.div_ceil(8) as usize],
            done: 0,
            verified: false,
        }
    }

    /// In a file. `None` where another process has it.
    pub fn open(path: &Path, key: u64, reads: u64) -> Result<Option<Journal>> {
        let fail = || format!("failed to open journal `{}`", path.display());
        let mut options = OpenOptions::new();
        // Nobody is led astray by a link, or reads what is none of their business.
        options
            .read(true)
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let mut file = options.open(path).context(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context(fail),
        }
        let mut journal = Journal { file: None, path: path.into(), ..Journal::none(reads) };
        if journal.bits.len() as u64 > BYTES_MAX {
            return Err(Error::failed(format!("{}: the plan has {reads} reads", fail()))
                .hint("warm without a journal, or with a larger unit"));
        }
        let header = header(key, reads);
        let mut bytes = Vec::new();
        file.by_ref().take(BYTES_MAX + HEADER_BYTES as u64).read_to_end(&mut bytes).context(fail)?;
        let verified = bytes.get_mut(VERIFIED_AT).map(std::mem::take);
        if bytes.starts_with(&header) && bytes.len() == HEADER_BYTES + journal.bits.len() {
            journal.verified = verified == Some(1);
            journal.bits.copy_from_slice(&bytes[HEADER_BYTES..]);
            journal.trim(reads);
        } else {
            file.set_len(0).context(fail)?;
            file.write_all_at(&header, 0).context(fail)?;
            file.set_len((HEADER_BYTES + journal.bits.len()) as u64).context(fail)?;
        }
        journal.done = journal.bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
        journal.file = Some(file);
        Ok(Some(journal))
    }

    /// Bits past the last read mean nothing.
    fn trim(&mut self, reads: u64) {
        if let Some(last) = self.bits.last_mut().filter(|_| !reads.is_multiple_of(8)) {
            *last &= (1 << (reads % 8)) - 1;
        }
    }

    /// Whether the read with this number is done.
    pub fn is_done(&self, number: u64) -> bool {
        self.bits.get((number / 8) as usize).is_some_and(|byte| byte & (1 << (number % 8)) != 0)
    }

    /// Reads that are done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The read with this number is done. Where the file takes it no more, that is said once, and the memory goes on.
    pub fn set(&mut self, number: u64) {
        if self.is_done(number) {
            return;
        }
        let place = (number / 8) as usize;
        let Some(byte) = self.bits.get_mut(place) else { return };
        *byte |= 1 << (number % 8);
        self.done += 1;
        let written =
            self.file.as_ref().map(|file| file.write_all_at(&[*byte], (HEADER_BYTES + place) as u64));
        if let Some(Err(error)) = written {
            self.lost(&error);
        }
    }

    /// Whether units that were touched were found warm throughout: those whose bits are set need no other look.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// They were. What ends before this is verified by whoever goes on.
    pub fn set_verified(&mut self) {
        self.verify(true);
    }

    /// What was done was not enough: an end in what follows would otherwise look like work that is done.
    pub fn forget(&mut self) {
        self.bits.fill(0);
        self.done = 0;
        self.verify(false);
        let written = self.file.as_ref().map(|file| file.write_all_at(&self.bits, HEADER_BYTES as u64));
        if let Some(Err(error)) = written {
            self.lost(&error);
        }
    }

    fn verify(&mut self, verified: bool) {
        self.verified = verified;
        let written =
            self.file.as_ref().map(|file| file.write_all_at(&[verified.into()], VERIFIED_AT as u64));
        if let Some(Err(error)) = written {
            self.lost(&error);
        }
    }

    fn lost(&mut self, error: &io::Error) {
        tracing::warn!(
            "failed to write journal `{}`: {error}; a restart would begin anew",
            self.path.display()
        );
        self.file = None;
    }
}

fn header(key: u64, reads: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&key.to_le_bytes());
    header[24..].copy_from_slice(&reads.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(path: &Path, key: u64, reads: u64) -> Journal {
        Journal::open(path, key, reads).unwrap().unwrap()
    }

    #[test]
    fn what_is_done_is_there_after_a_crash_and_gone_with_another_plan() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = open(&path, 7, 20);
        [3, 19, 3].into_iter().for_each(|number| journal.set(number));
        assert_eq!(journal.done(), 2);
        // A crash runs no destructor; the kernel lets go of the lock.
        drop(journal);
        let journal = open(&path, 7, 20);
        assert_eq!((journal.done(), journal.is_done(3), journal.is_done(4)), (2, true, false));
        drop(journal);
        assert!(!open(&path, 7, 20).is_verified());
        open(&path, 7, 20).set_verified();
        let journal = open(&path, 7, 20);
        assert_eq!((journal.done(), journal.is_verified()), (2, true));
        drop(journal);
        open(&path, 7, 20).forget();
        let journal = open(&path, 7, 20);
        assert_eq!((journal.done(), journal.is_verified()), (0, false));
        drop(journal);
        open(&path, 7, 20).set_verified();
        let other = open(&path, 8, 20);
        assert_eq!((other.done(), other.is_verified()), (0, false));
        drop(other);
        assert_eq!(open(&path, 7, 20).done(), 0, "the other plan's is the file's now");
        assert_eq!(open(&path, 7, 21).done(), 0);
    }

    #[test]
    fn one_at_a_time_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let first = open(&path, 7, 20);
        assert!(Journal::open(&path, 7, 20).unwrap().is_none());
        drop(first);
        assert!(Journal::open(&path, 7, 20).unwrap().is_some());
    }

    #[test]
    fn a_link_and_a_folder_are_refused_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l")).unwrap();
        for name in ["l", "."] {
            let error = Journal::open(&dir.path().join(name), 1, 8).unwrap_err().full_text();
            assert!(error.contains("failed to open journal"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_begun_anew(bytes in prop::collection::vec(any::<u8>(), 0..80), reads in 0u64..300) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("j");
            std::fs::write(&path, &bytes).unwrap();
            prop_assert_eq!(open(&path, 5, reads).done(), 0);
            // The right header, and bits of which some are past the end.
            let all = [&header(5, reads)[..], &vec![0xff; reads.div_ceil(8) as usize]].concat();
            std::fs::write(&path, all).unwrap();
            prop_assert_eq!(open(&path, 5, reads).done(), reads);
        }
    }
}
