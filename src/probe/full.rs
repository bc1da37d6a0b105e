//! What touching a unit costs, and reading it whole: one after the other, so that nothing queues up behind anything.

use super::{BLOCK_BYTES, DEPTH, Probe, READ_BYTES_MAX, TICK_NS};
use crate::engine::{Priority, Request, Source};
use std::io;
use std::sync::atomic::Ordering;

/// Units of each, where their bytes allow it: their medians are within a third of the truth.
const UNITS_MAX: usize = 8;
/// Bytes for that: with the pairs' own, under 16 MiB.
const BYTES_MAX: u64 = 6 << 20;

impl<S: Source + ?Sized> Probe<'_, S> {
    /// Touches some units of the size that was found, and reads some whole, in turn.
    pub(super) fn alone(&mut self) -> io::Result<()> {
        let Some(unit_bytes) = self.belief.best() else { return Ok(()) };
        let apart = unit_bytes.max(self.belief.possible_bytes_max(1e-6));
        let bytes_max = self.options.bytes_max.min(self.bytes_read.saturating_add(BYTES_MAX.max(unit_bytes)));
        // Some that are drawn are warm already, and tell nothing.
        for number in 0..4 * UNITS_MAX {
            let whole = number % 2 == 1;
            let seen = if whole { self.seen.full.len() } else { self.seen.touch.len() };
            let bytes = if whole { unit_bytes } else { BLOCK_BYTES };
            let reads = bytes.div_ceil(u64::from(READ_BYTES_MAX));
            let again = if whole { 1 } else { 0 };
            let spent = self.bytes_read + bytes + again * u64::from(READ_BYTES_MAX) > bytes_max
                || self.reads + reads + again > self.options.reads_max;
            if seen >= UNITS_MAX || spent {
                continue;
            }
            let place = if self.in_flight() == 0 { self.places.whole(apart, &mut self.draw) } else { None };
            let Some(offset) = place else { return Ok(()) };
            if offset + bytes > self.options.volume_bytes {
                continue;
            }
            let Some(took_ns) = self.read_alone(offset, bytes)? else { return Ok(()) };
            if !whole {
                self.seen.touch.extend(self.kinds.is_cold(took_ns).then_some(took_ns));
                continue;
            }
            // A large unit that is warm takes long as well: as long as all its parts take now.
            let part = bytes.min(u64::from(READ_BYTES_MAX));
            let Some(again_ns) = self.read_alone(offset, part)? else { return Ok(()) };
            let waited_ns = took_ns.saturating_sub(again_ns.saturating_mul(reads));
            self.seen.full.extend(self.kinds.is_cold(waited_ns).then_some(took_ns));
        }
        Ok(())
    }

    /// Nanoseconds that it took; `None` where it failed or was not waited for.
    fn read_alone(&mut self, offset: u64, bytes: u64) -> io::Result<Option<u64>> {
        let started_ns = self.source.now_ns();
        let step = u64::from(READ_BYTES_MAX).min(bytes);
        let mut todo = (offset..offset + bytes).step_by(step as usize);
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
