//! The engine's world: something that takes reads, gives completions and knows the time.

use std::io;

/// How urgent a read is to the kernel's I/O schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Best effort, level 4: that of ordinary programs.
    Normal,
    /// Served when nothing else waits.
    Idle,
}

impl Priority {
    /// As the kernel takes it: class in the top three bits, level below (linux/ioprio.h).
    pub fn ioprio(self) -> u16 {
        match self {
            Priority::Normal => 2 << 13 | 4,
            Priority::Idle => 3 << 13,
        }
    }
}

/// One read to submit.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Comes back with the completion; below the source's capacity, and free.
    pub slot: u32,
    /// Offset in bytes, a multiple of the logical block.
    pub offset: u64,
    /// Length in bytes, a multiple of the logical block, at most what the source was made for.
    pub bytes: u32,
    /// How urgent.
    pub priority: Priority,
}

/// The end of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// That of the request.
    pub slot: u32,
    /// When it was seen.
    pub at_ns: u64,
    /// Bytes read, or the positive error number.
    pub result: Result<u32, i32>,
}

/// Takes reads, gives completions, knows the time.
pub trait Source {
    /// Nanoseconds since some fixed moment; never goes back.
    fn now_ns(&self) -> u64;

    /// Queues a read; it starts at the latest with the next [`Source::wait`].
    fn submit(&mut self, request: Request) -> io::Result<()>;

    /// Waits until at least one read has ended, `until_ns` is reached or a signal came; adds what ended.
    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()>;

    /// What carries the reads, for the report.
    fn describe(&self) -> String;
}
