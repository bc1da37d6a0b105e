//! One page of a trace ring, from bytes to block events.
//!
//! Holds: any bytes give events or say that the page is damaged, never a panic; events lost before the page
//! are reported with it. Pure: bytes in, events out. Little-endian machines only, as all with these volumes.
//!
//! The layout is that of the kernel's `include/linux/ring_buffer.h`: a word of 5 bits of type and 27 bits of
//! time since the event before, then the record. Types 1 to 28 count the record in words of 4 bytes, 0 puts
//! the length in the next word, 29 is padding, 30 carries the upper bits of a long time, 31 an absolute time.

use super::format::{EventLayout, PageLayout};
use crate::recording::Flags;

const TYPE_PADDING: u32 = 29;
const TYPE_TIME_EXTEND: u32 = 30;
const TYPE_TIME_STAMP: u32 = 31;
const DELTA_BITS: u32 = 27;
/// An absolute time carries 59 bits; the upper 5 are those of the time before (`TS_MSB` in ring_buffer.c).
const ABSOLUTE_BITS: u32 = 59;

/// Events were lost before this page (`RB_MISSED_EVENTS`).
const MISSED: u64 = 1 << 31;
/// How many is stored behind the data (`RB_MISSED_STORED`).
const MISSED_STORED: u64 = 1 << 30;
/// What remains is the number of bytes (`COMMIT_MASK` of the kernel's own readers).
const COMMIT_MASK: u64 = (1 << DELTA_BITS) - 1;

/// Bytes of a thread's name in the kernel (`TASK_COMM_LEN`), the last one a zero.
pub const COMM_BYTES: usize = 16;

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// It was sent to the device.
    Issue,
    /// The device answered.
    Complete,
}

/// A block event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of the trace clock.
    pub time_ns: u64,
    /// First sector on the whole disk.
    pub sector: u64,
    /// Length in sectors; 0 for a flush.
    pub sectors: u32,
    /// Thread that was running when it happened.
    pub pid: u32,
    /// What happened.
    pub what: What,
    /// What the operation was.
    pub flags: Flags,
    /// Name of the thread, zeros behind it; all zeros for completions.
    pub comm: [u8; COMM_BYTES],
}

impl Event {
    /// The name of the thread.
    pub fn process(&self) -> std::borrow::Cow<'_, str> {
        let end = self.comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_BYTES);
        String::from_utf8_lossy(&self.comm[..end])
    }
}

/// What a page says besides its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageFacts {
    /// Events were lost before this page; the ring's own counters say how many.
    pub missed: bool,
    /// How many, where the page says so.
    pub missed_events: u64,
    /// It could not be read to its end.
    pub damaged: bool,
    /// Bytes of records in it.
    pub data_bytes: usize,
    /// Time of its first record, of whatever kind, and of its last.
    pub from_ns: u64,
    pub until_ns: u64,
}

/// Reads the two block events of one disk; a page may hold others.
#[derive(Clone, Debug)]
pub struct PageReader {
    /// How a page begins.
    pub page: PageLayout,
    /// `block_rq_issue`.
    pub issue: EventLayout,
    /// `block_rq_complete`.
    pub complete: EventLayout,
    /// The whole disk, as events carry it.
    pub device: u32,
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

impl PageReader {
    /// Appends the events of a page in their order.
    pub fn read(&self, bytes: &[u8], events: &mut Vec<Event>) -> PageFacts {
        let mut facts = PageFacts::default();
        let header = self.page.timestamp.number(bytes).zip(self.page.commit.number(bytes));
        let data = bytes.get(self.page.data..);
        let (Some((timestamp, commit)), Some(data)) = (header, data) else {
            return PageFacts { damaged: true, ..facts };
        };
        let length = (commit & COMMIT_MASK) as usize;
        facts.missed = commit & MISSED != 0;
        if commit & MISSED_STORED != 0 {
            let stored = length.checked_add(8).and_then(|end| data.get(length..end)?.try_into().ok());
            facts.missed_events = stored.map_or(0, u64::from_ne_bytes);
        }
        let Some(data) = data.get(..length) else {
            return PageFacts { damaged: true, ..facts };
        };
        facts.data_bytes = length;
        (facts.from_ns, facts.until_ns) = (timestamp, timestamp);
        facts.damaged = self.read_records(data, &mut facts.until_ns, events).is_none();
        facts
    }

    /// `None` where a length points outside the page.
    fn read_records(&self, data: &[u8], time_ns: &mut u64, events: &mut Vec<Event>) -> Option<()> {
        let mut at = 0;
        while at < data.len() {
            let head = word(data, at)?;
            let (kind, delta) = (head & 0x1f, u64::from(head >> 5));
            let body = at + 4;
            at = match kind {
                // What follows on the page was never written.
                TYPE_PADDING if delta == 0 => return Some(()),
                // A discarded record; the time of what follows still counts from it.
                TYPE_PADDING => {
                    *time_ns = time_ns.wrapping_add(delta);
                    body.checked_add(word(data, body)? as usize)?
                }
                TYPE_TIME_EXTEND => {
                    let high = u64::from(word(data, body)?) << DELTA_BITS;
                    *time_ns = time_ns.wrapping_add(high | delta);
                    body + 4
                }
                TYPE_TIME_STAMP => {
                    let low = u64::from(word(data, body)?) << DELTA_BITS | delta;
                    *time_ns = absolute(*time_ns, low);
                    body + 4
                }
                0 => {
                    // The length counts its own word.
                    let length = word(data, body)? as usize;
                    let end = body.checked_add(length.max(4))?;
                    *time_ns = time_ns.wrapping_add(delta);
                    events.extend(self.event(data.get(body + 4..end)?, *time_ns));
                    end.checked_next_multiple_of(4)?
                }
                words => {
                    let end = body + words as usize * 4;
                    *time_ns = time_ns.wrapping_add(delta);
                    events.extend(self.event(data.get(body..end)?, *time_ns));
                    end
                }
            };
        }
        Some(())
    }

    /// The event in a record; `None` for events of other kinds and other disks.
    fn event(&self, record: &[u8], time_ns: u64) -> Option<Event> {
        let id = self.issue.common_type.number(record)?;
        let (what, layout) = if id == u64::from(self.issue.id) {
            (What::Issue, &self.issue)
        } else if id == u64::from(self.complete.id) {
            (What::Complete, &self.complete)
        } else {
            return None;
        };
        // In a ring that was filled before the disk was known are all disks.
        if layout.dev.number(record)? != u64::from(self.device) {
            return None;
        }
        let mut comm = [0; COMM_BYTES];
        if let Some(name) = layout.comm.and_then(|field| field.of(record)) {
            let length = name.len().min(COMM_BYTES);
            comm[..length].copy_from_slice(&name[..length]);
        }
        Some(Event {
            time_ns,
            sector: layout.sector.number(record)?,
            sectors: u32::try_from(layout.sectors.number(record)?).ok()?,
            pid: layout.pid.number(record)? as u32,
            what,
            flags: Flags::from_rwbs(layout.rwbs.of(record)?),
            comm,
        })
    }
}

/// An absolute time of 59 bits takes its upper bits from the time before, and a carry where it fell behind.
fn absolute(before_ns: u64, low: u64) -> u64 {
    let upper = before_ns >> ABSOLUTE_BITS << ABSOLUTE_BITS;
    let time_ns = upper | (low & ((1 << ABSOLUTE_BITS) - 1));
    if time_ns < before_ns && upper != 0 { time_ns.wrapping_add(1 << ABSOLUTE_BITS) } else { time_ns }
}

#[cfg(test)]
#[path = "page_tests.rs"]
pub(super) mod tests;
