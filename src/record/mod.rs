//! Records what a boot touches: block trace events from the kernel's rings to a recording.
//!
//! Holds: tracing is private, and off again however the run ends; events become touches in order of time over
//! all CPUs; the recorder's own requests are left out and counted; lost events are counted by CPU; a reason to
//! stop is noticed within 100 ms. Not here: which disk is meant and what it is recognised by.
//!
//! Times are CLOCK_MONOTONIC, microseconds since the kernel started; a boot does not sleep.

pub mod format;
mod merge;
pub mod page;
mod rings;
mod stop;
mod tracefs;
mod wait;

pub use stop::{Stopped, Stops};
pub use wait::{Signal, Signals, forward};

use crate::error::{Context, Result};
use crate::extent::Extent;
use crate::recording::{Header, Recording, StageMark, TouchLog};
use page::{Event, What};
use rings::{Drained, Rings};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;
use tracefs::Instance;

/// How often the rings and the reasons to stop are looked at: two looks fit in the 100 ms promised, and
/// twenty wake-ups a second do not show beside a boot.
pub const PERIOD: Duration = Duration::from_millis(50);

/// The recorder's own requests in flight; it makes hardly any.
const OWN_MAX: usize = 4096;

/// What to record.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The whole disk, as trace events carry it: major number above 20 bits of minor number.
    pub device: u32,
    /// Threads whose requests are left out and counted.
    pub own_threads: Vec<u32>,
    /// Bytes of ring for each CPU; `None` takes a share of 64 MiB.
    pub ring_bytes: Option<usize>,
}

/// A recording in progress: tracing is on. Dropped, it undoes all it set.
pub struct Session {
    // Dropped in this order: an instance whose rings are open cannot be removed.
    rings: Rings,
    instance: Instance,
    intake: Intake,
    header: Header,
}

/// What a session came to.
#[derive(Debug)]
pub struct Finished {
    /// The recording; the caller adds device and volume.
    pub recording: Recording,
    /// Whether all that was set could be undone.
    pub undone: Result<()>,
}

/// Turns events into touches.
#[derive(Debug, Default)]
struct Intake {
    log: TouchLog,
    own_threads: Vec<u32>,
    own_in_flight: HashSet<u64>,
    own: u64,
    last_ns: u64,
}

impl Intake {
    fn take(&mut self, drained: Drained) {
        match drained {
            Drained::Gap => self.log.gap(),
            Drained::Event(event) => self.event(&event),
        }
    }

    fn event(&mut self, event: &Event) {
        let time_us = event.time_ns / 1_000;
        match event.what {
            What::Issue if self.own_threads.contains(&event.pid) => {
                self.own += 1;
                if self.own_in_flight.len() < OWN_MAX {
                    self.own_in_flight.insert(event.sector);
                }
                return;
            }
            What::Complete if self.own_in_flight.remove(&event.sector) => return,
            What::Issue => match Extent::at(event.sector, event.sectors.into()) {
                Some(extent) => self.log.issue(time_us, extent, event.flags, &event.process()),
                // A flush has no sectors; it shows that the disk is in use all the same.
                None => self.log.events += 1,
            },
            What::Complete => self.log.complete(time_us, event.sector),
        }
        self.last_ns = self.last_ns.max(event.time_ns);
    }
}

fn read_line(root: &Path, path: &str) -> Result<String> {
    let path = root.join(path);
    let text = fs::read_to_string(&path).context(|| format!("failed to read `{}`", path.display()))?;
    Ok(text.trim().to_string())
}

/// Whether tracing can be reached; the error says what is missing.
pub fn available(root: &Path) -> Result<()> {
    tracefs::find(root).map(drop)
}

impl Session {
    /// Switches tracing on. Signals should be held by then, so that none ends the process with it on.
    pub fn start(root: &Path, options: &Options) -> Result<Session> {
        let tracefs = tracefs::find(root)?;
        for name in tracefs::remove_leftovers(root, &tracefs) {
            tracing::warn!("removed trace instance `{name}`: the run that made it was killed");
        }
        let mut header = Header {
            id: read_line(root, "proc/sys/kernel/random/uuid")?,
            kernel: read_line(root, "proc/sys/kernel/osrelease")?,
            boot_id: read_line(root, "proc/sys/kernel/random/boot_id")?,
            // One boot from the root filesystem; a mark more needs someone who knows the stages.
            stages: vec![StageMark { name: "ready".into(), from_us: 0 }],
            ..Header::default()
        };
        let instance = Instance::create(root, &tracefs)?;
        let rings = rings::set_up(&instance, options.device, options.ring_bytes)?;
        instance.write("tracing_on", "1")?;
        let now_ns = wait::now_ns();
        header.from_us = now_ns / 1_000;
        let intake =
            Intake { own_threads: options.own_threads.clone(), last_ns: now_ns, ..Intake::default() };
        Ok(Session { rings, instance, intake, header })
    }

    /// Takes what the rings hold by now.
    pub fn drain(&mut self) -> Result<()> {
        self.rings.drain(wait::now_ns, |drained| self.intake.take(drained))
    }

    /// Records until there is a reason to stop.
    pub fn run(
        &mut self,
        stops: &Stops,
        signals: &Signals,
        mut child: Option<&mut Child>,
    ) -> Result<Stopped> {
        let began_ns = self.header.from_us * 1_000;
        loop {
            if let Some(child) = child.as_deref_mut()
                && let Some(status) = child.try_wait().context(|| "failed to wait for the command".into())?
            {
                return Ok(Stopped::Command(status));
            }
            if let Some(stopped) = stops.before_drain(wait::now_ns().saturating_sub(began_ns)) {
                return Ok(stopped);
            }
            // The time before the drain: an event that comes after it is news for the next look.
            let now_ns = wait::now_ns();
            self.drain()?;
            if let Some(stopped) = stops.after_drain(now_ns.saturating_sub(self.intake.last_ns)) {
                return Ok(stopped);
            }
            let wait = stops.next_look(wait::now_ns().saturating_sub(began_ns), PERIOD);
            if let Some(signal) = signals.wait(wait) {
                return Ok(Stopped::Signal(signal));
            }
        }
    }

    /// Switches tracing off, takes what is left, undoes what was set.
    pub fn finish(mut self) -> Result<Finished> {
        self.instance.write("tracing_on", "0")?;
        self.header.until_us = wait::now_ns() / 1_000;
        self.rings.drain_to_the_end(|drained| self.intake.take(drained))?;
        self.header.lost_by_cpu = self.rings.lost_by_cpu()?;
        self.header.own = self.intake.own;
        drop(self.rings);
        let undone = self.instance.remove();
        let recording = self.intake.log.finish(self.header);
        Ok(Finished { recording, undone })
    }
}

#[cfg(test)]
mod tests;
