//! What reading a whole unit costs, against touching it.

use super::{DEPTH, Probe, READ_BYTES_MAX, TICK_NS};
use crate::engine::{Priority, Request, Source};
use std::io;
use std::sync::atomic::Ordering;

/// Units that are read whole, where their bytes allow it.
const UNITS_MAX: u64 = 8;
/// Bytes for that: with the pairs' own, under 16 MiB.
const BYTES_MAX: u64 = 6 << 20;

impl<S: Source + ?Sized> Probe<'_, S> {
    /// Reads some units of the size that was found, whole and one after the other.
    pub(super) fn whole_units(&mut self) -> io::Result<()> {
        let Some(unit_bytes) = self.belief.best() else { return Ok(()) };
        let apart = unit_bytes.max(self.belief.possible_bytes_max(1e-6));
        let bytes_max = self.options.bytes_max.min(self.bytes_read.saturating_add(BYTES_MAX.max(unit_bytes)));
        // Some that are drawn are warm already, and tell nothing.
        for _ in 0..2 * UNITS_MAX {
            let reads = unit_bytes.div_ceil(u64::from(READ_BYTES_MAX));
            let spent =
                self.bytes_read + unit_bytes > bytes_max || self.reads + reads > self.options.reads_max;
            if spent || self.seen.full.len() as u64 >= UNITS_MAX || self.in_flight() > 0 {
                return Ok(());
            }
            let Some(offset) = self.places.whole(apart, &mut self.draw) else { return Ok(()) };
            if offset + unit_bytes > self.options.volume_bytes {
                continue;
            }
            match self.whole_unit(offset, unit_bytes)? {
                Some(took_ns) if self.kinds.is_cold(took_ns) => self.seen.full.push(took_ns),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Nanoseconds that it took; `None` where it failed or was not waited for.
    fn whole_unit(&mut self, offset: u64, unit_bytes: u64) -> io::Result<Option<u64>> {
        let started_ns = self.source.now_ns();
        let step = u64::from(READ_BYTES_MAX).min(unit_bytes);
        let mut todo = (offset..offset + unit_bytes).step_by(step as usize);
        let mut free: Vec<u32> = (0..DEPTH).collect();
        let mut done = Vec::new();
        loop {
            while let Some(slot) = free.pop() {
                let Some(offset) = todo.next() else {
                    free.push(slot);
                    break;
                };
                let bytes = step as u32;
                self.source.submit(Request { slot, offset, bytes, priority: Priority::Normal })?;
            }
            if free.len() == DEPTH as usize {
                return Ok(Some(self.source.now_ns().saturating_sub(started_ns)));
            }
            let now_ns = self.source.now_ns();
            if now_ns >= self.until_ns || self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.source.wait(Some(now_ns.saturating_add(TICK_NS).min(self.until_ns)), &mut done)?;
            for completion in done.drain(..) {
                if completion.result != Ok(step as u32) {
                    self.errors += u64::from(completion.result != Err(libc::EAGAIN));
                    return Ok(None);
                }
                self.reads += 1;
                self.bytes_read += step;
                free.push(completion.slot);
            }
        }
    }
}
