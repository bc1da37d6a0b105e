//! The trace rings of an instance: set up, read page by page without waiting, asked what they lost.
//!
//! Holds: a read never waits; events are handed on in order of time over all CPUs; a drain ends, however fast
//! new events come, at those that were there when it began.

use super::clock::Clock;
use super::format::{EventLayout, PAGE_BYTES_MAX, PageLayout};
use super::merge::{HOLD_BACK_NS, Merge};
use super::page::{Event, PageFacts, PageReader};
use super::tracefs::{EVENTS, Instance, read_whole};
use crate::error::{Context, Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Kernel memory for all rings together: 60 bytes an event make it a million events between two looks.
const RING_TOTAL_BYTES: usize = 64 << 20;
/// A CPU that submits 500,000 requests a second fills this in an eighth of a second, twice our period.
const RING_BYTES_MAX: usize = 8 << 20;
/// With very many CPUs each has a small share of the events.
const RING_BYTES_MIN: usize = 1 << 20;
/// Where memory is short, rings are made smaller down to this before recording is refused.
const RING_BYTES_LEAST: usize = 64 << 10;
/// CPUs that are looked for; the kernel's own limit is 8192.
const CPUS_MAX: usize = 8192;

struct Ring {
    cpu: usize,
    file: File,
    stats: PathBuf,
    damaged_pages: u64,
    /// Time of the first record that was read from it.
    first_ns: Option<u64>,
}

/// All rings of an instance.
pub struct Rings {
    rings: Vec<Ring>,
    reader: PageReader,
    clock: Clock,
    merge: Merge,
    page: Vec<u8>,
    events: Vec<Event>,
    /// Events from this time on come after a gap.
    gap_ns: Option<u64>,
}

/// What a drain hands on.
#[derive(Debug)]
pub enum Drained {
    /// An event, in order of time.
    Event(Event),
    /// Events were lost before the next one.
    Gap,
}

/// Prepares an instance of our own: its clock, its size, the filter. The events are on, tracing is still off.
pub fn set_up(instance: &Instance, device: u32, ring_bytes: Option<usize>) -> Result<Rings> {
    // CLOCK_MONOTONIC: it starts with the kernel, and the boot's own stages are stamped with it.
    instance.write("trace_clock", "mono")?;
    // The oldest are overwritten: then pages say where events are missing.
    instance.write("options/overwrite", "1")?;
    size_rings(instance, cpus(instance)?.len(), ring_bytes)?;
    let rings = open(instance, device, Clock::Mono)?;
    instance.write_events("filter", &format!("dev == {device}"))?;
    instance.write_events("enable", "1")?;
    Ok(rings)
}

/// Takes over rings that are being written: nothing is set that would empty them. From now on the kernel leaves
/// the other disks out; those that are in the rings already are left out when they are read.
pub fn take_over(instance: &Instance, device: u32) -> Result<Rings> {
    let clock = Clock::of(instance)?;
    let rings = open(instance, device, clock)?;
    instance.write_events("filter", &format!("dev == {device}"))?;
    Ok(rings)
}

fn open(instance: &Instance, device: u32, clock: Clock) -> Result<Rings> {
    let reader = PageReader {
        page: PageLayout::parse(&instance.read("events/header_page")?)?,
        issue: describe(instance, EVENTS[0])?,
        complete: describe(instance, EVENTS[1])?,
        device,
    };
    let rings = cpus(instance)?
        .into_iter()
        .map(|cpu| {
            let path = instance.path(&format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
            let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
            let file = file.context(|| format!("failed to open trace ring `{}`", path.display()))?;
            let stats = instance.path(&format!("per_cpu/cpu{cpu}/stats"));
            Ok(Ring { cpu, file, stats, damaged_pages: 0, first_ns: None })
        })
        .collect::<Result<Vec<Ring>>>()?;
    let page = vec![0; reader.page.bytes.min(PAGE_BYTES_MAX)];
    let merge = Merge::new(rings.len());
    Ok(Rings { merge, rings, reader, clock, page, events: Vec::new(), gap_ns: None })
}

fn describe(instance: &Instance, event: &str) -> Result<EventLayout> {
    let name = format!("events/block/{event}/format");
    let shown = instance.path(&name).display().to_string();
    EventLayout::parse(&instance.read(&name)?, &shown)
}

/// The CPUs that have a ring, in order.
fn cpus(instance: &Instance) -> Result<Vec<usize>> {
    let dir = instance.path("per_cpu");
    let entries =
        std::fs::read_dir(&dir).context(|| format!("failed to list trace rings `{}`", dir.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut cpus: Vec<usize> = names
        .filter_map(|name| name.strip_prefix("cpu")?.parse().ok())
        .filter(|cpu| *cpu < CPUS_MAX)
        .collect();
    cpus.sort_unstable();
    if cpus.is_empty() {
        return Err(Error::failed(format!("failed to find a trace ring under `{}`", dir.display())));
    }
    Ok(cpus)
}

/// Gives each CPU its share; where the kernel has too little memory, half and half again.
fn size_rings(instance: &Instance, cpus: usize, wanted: Option<usize>) -> Result<()> {
    let share = (RING_TOTAL_BYTES / cpus).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
    let mut bytes = wanted.unwrap_or(share);
    loop {
        match instance.write("buffer_size_kb", &bytes.div_ceil(1024).to_string()) {
            Err(_) if bytes / 2 >= RING_BYTES_LEAST => bytes /= 2,
            other => {
                if wanted.is_none() && bytes < share {
                    tracing::warn!(
                        "trace rings have {bytes} bytes a CPU instead of {share}: memory is short"
                    );
                }
                return other;
            }
        }
    }
}

impl Ring {
    /// One page; `None` where there is nothing to read.
    fn read_page(&mut self, page: &mut [u8]) -> Result<Option<usize>> {
        loop {
            return match self.file.read(page) {
                Ok(0) => Ok(None),
                Ok(length) => Ok(Some(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                // A CPU that the machine could have and that never came up has no ring yet.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error).context(|| format!("failed to read trace ring of CPU {}", self.cpu)),
            };
        }
    }

    /// Events lost by this ring since it was made.
    fn lost(&self) -> Result<u64> {
        let text =
            read_whole(&self.stats).context(|| format!("failed to read `{}`", self.stats.display()))?;
        Ok(lost_in(&text).saturating_add(self.damaged_pages))
    }
}

/// Overwritten before they were read, or refused because the ring was busy or full.
fn lost_in(stats: &str) -> u64 {
    stats
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| matches!(*name, "overrun" | "commit overrun" | "dropped events"))
        .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

impl Rings {
    /// Hands on all events whose turn has come. `now` reads CLOCK_MONOTONIC, and so are the events' times.
    pub fn drain(&mut self, now: impl Fn() -> u64, mut sink: impl FnMut(Drained)) -> Result<()> {
        self.clock.refresh()?;
        let began_ns = now();
        // The ring that is furthest behind is read next, so little has to be held back.
        let mut behind: BinaryHeap<Reverse<(u64, usize)>> =
            (0..self.rings.len()).map(|ring| Reverse((self.merge.until(ring), ring))).collect();
        while let Some(Reverse((_, index))) = behind.pop() {
            let before_ns = now();
            let Some(length) = self.rings[index].read_page(&mut self.page)? else {
                self.merge.read_until(index, before_ns.saturating_sub(HOLD_BACK_NS));
                continue;
            };
            self.take_page(index, length);
            let until_ns = self.merge.until(index);
            // What came after the drain began is left for the next: a fast writer is never caught up with.
            if until_ns < began_ns {
                behind.push(Reverse((until_ns, index)));
            }
            while let Some(event) = self.merge.next_ready() {
                self.hand_on(event, &mut sink);
            }
        }
        while let Some(event) = self.merge.next_ready() {
            self.hand_on(event, &mut sink);
        }
        Ok(())
    }

    /// Hands on all that is left. The events must be off; `now` is a moment after that.
    pub fn drain_to_the_end(&mut self, now: impl Fn() -> u64, mut sink: impl FnMut(Drained)) -> Result<()> {
        self.drain(now, &mut sink)?;
        while let Some(event) = self.merge.next_last() {
            self.hand_on(event, &mut sink);
        }
        if self.merge.forced > 0 {
            tracing::warn!("{} events are not in order of time: too many came at once", self.merge.forced);
        }
        Ok(())
    }

    fn take_page(&mut self, index: usize, length: usize) {
        let facts: PageFacts = self.reader.read(&self.page[..length], &mut self.events);
        let ring = &mut self.rings[index];
        if facts.damaged {
            ring.damaged_pages += 1;
            tracing::warn!("failed to read a page of the trace ring of CPU {}: it is damaged", ring.cpu);
        }
        let first_ns = self.clock.mono_ns(facts.from_ns);
        ring.first_ns.get_or_insert(first_ns);
        if facts.missed || facts.damaged {
            self.gap_ns = Some(self.gap_ns.map_or(first_ns, |gap| gap.max(first_ns)));
        }
        for mut event in self.events.drain(..) {
            event.time_ns = self.clock.mono_ns(event.time_ns);
            self.merge.read_until(index, event.time_ns);
            self.merge.push(event);
        }
        // A page may hold none of ours: it was read all the same.
        if !facts.damaged {
            self.merge.read_until(index, self.clock.mono_ns(facts.until_ns));
        }
    }

    fn hand_on(&mut self, event: Event, sink: &mut impl FnMut(Drained)) {
        if self.gap_ns.is_some_and(|gap_ns| gap_ns <= event.time_ns) {
            self.gap_ns = None;
            sink(Drained::Gap);
        }
        sink(Drained::Event(event));
    }

    /// From when on nothing is missing, of what was there when the rings were first read; `None` where nothing
    /// was. A ring that overflowed begins with what it kept.
    pub fn complete_from_ns(&self) -> Result<Option<u64>> {
        let mut from = None;
        let mut overflowed = None;
        for ring in &self.rings {
            let Some(first_ns) = ring.first_ns else { continue };
            from = Some(from.map_or(first_ns, |from: u64| from.min(first_ns)));
            if ring.lost()? > 0 {
                overflowed = overflowed.max(Some(first_ns));
            }
        }
        Ok(overflowed.or(from))
    }

    /// Events lost so far, by CPU number.
    pub fn lost_by_cpu(&self) -> Result<Vec<u64>> {
        let cpus = self.rings.last().map_or(0, |ring| ring.cpu + 1);
        let mut lost = vec![0; cpus];
        for ring in &self.rings {
            lost[ring.cpu] = ring.lost()?;
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge::HELD_MAX;
    use super::super::page::What;
    use super::super::page::tests::{event, reader};
    use super::*;
    use std::io::Seek;
    use std::sync::Arc;

    #[test]
    fn what_could_not_be_put_in_order_is_told() {
        let mut merge = Merge::new(1);
        (0..HELD_MAX as u64 + 3).for_each(|n| merge.push(event(1_000 + n, What::Issue, n)));
        let (page, events) = (Vec::new(), Vec::new());
        let mut rings = Rings {
            rings: Vec::new(),
            reader: reader(0),
            clock: Clock::Mono,
            merge,
            page,
            events,
            gap_ns: None,
        };
        let log = Arc::new(tempfile::tempfile().unwrap());
        let mut taken = 0;
        let told = tracing_subscriber::fmt().with_writer(log.clone()).finish();
        tracing::subscriber::with_default(told, || rings.drain_to_the_end(|| 0, |_| taken += 1).unwrap());
        assert_eq!(taken, HELD_MAX + 3);
        let mut text = String::new();
        (&*log).rewind().unwrap();
        (&*log).read_to_string(&mut text).unwrap();
        assert!(text.contains("3 events are not in order of time"), "{text}");
    }

    #[test]
    fn lost_events_are_summed_whatever_else_the_kernel_counts() {
        let stats = "entries: 7\noverrun: 5\ncommit overrun: 2\nbytes: 300\noldest event ts:  1195.4\n\
                     now ts:  1195.414410\ndropped events: 10\nread events: 9\n";
        assert_eq!(lost_in(stats), 17);
        assert_eq!(lost_in("overrun: many\n: 3\n\0"), 0);
    }
}
