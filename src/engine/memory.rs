//! Memory that reads land in. Nobody looks at it: warming wants the read, not the data.
//!
//! Holds: it is page-aligned, of fixed size, and stays mapped while a read may still be on its way to it. Reads
//! may share a place in it, which is why it is never seen as a slice.

use std::io;

/// More than this buys nothing: full reads of 256 KiB share 16 places.
const BYTES_MAX: usize = 4 << 20;

/// Anonymous pages that only the kernel writes.
#[derive(Debug)]
pub struct Sink {
    start: *mut libc::c_void,
    bytes: usize,
    place_bytes: usize,
}

// SAFETY: the memory is never read or written through this value, only addressed; the kernel is the only writer.
unsafe impl Send for Sink {}
// SAFETY: as above; there is nothing to race on, its content is never used.
unsafe impl Sync for Sink {}

impl Sink {
    /// Places of `place_bytes` for up to `slots` reads.
    pub fn new(place_bytes: u32, slots: u32) -> io::Result<Sink> {
        let place_bytes = (place_bytes as usize).next_multiple_of(4096).max(4096);
        let places = (BYTES_MAX / place_bytes).clamp(1, slots.max(1) as usize);
        let bytes = place_bytes * places;
        // SAFETY: a new private mapping, no address asked for; failure is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Sink { start, bytes, place_bytes })
    }

    /// Where the read of a slot lands.
    pub fn place(&self, slot: u32) -> *mut u8 {
        let places = self.bytes / self.place_bytes;
        let offset = (slot as usize % places) * self.place_bytes;
        self.start.cast::<u8>().wrapping_add(offset)
    }

    /// Bytes of one place.
    pub fn place_bytes(&self) -> usize {
        self.place_bytes
    }

    /// All of it, to register.
    pub fn iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.start, iov_len: self.bytes }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whoever may still write to it has kept it from being dropped.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}
