//! Records what a boot touches: block trace events from the kernel's rings to a recording.
//!
//! Holds: tracing is private, or what the boot switched on, and off again however the run ends; events become touches in order of time over
//! all CPUs; the recorder's own requests are left out and counted; lost events are counted by CPU; a reason to
//! stop is noticed within 100 ms. Not here: which disk is meant and what it is recognised by.
//!
//! Times are CLOCK_MONOTONIC, microseconds since the kernel started; a boot does not sleep.

mod boot;
mod clock;
mod dbus;
pub mod format;
mod live;
mod merge;
pub mod page;
mod rings;
mod stages;
mod stop;
mod systemd;
mod tracefs;
mod wait;

pub use boot::PARAMETERS as BOOT_PARAMETERS;
pub use live::{Live, Watched};
pub use stop::{Stopped, Stops};
pub use wait::{Signal, Signals, forward};

use crate::error::{Context, Error, Result};
use crate::extent::Extent;
use crate::process::is_own_thread;
use crate::recording::{Flags, Header, Recording, TouchLog};
use crate::units::SECTOR_BYTES;
use crossbeam_channel::Sender;
use page::{Event, What};
use rings::{Drained, Rings};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;
use systemd::Watch;
use tracefs::Instance;

/// How often the rings and the reasons to stop are looked at: two looks fit in the 100 ms promised, and
/// twenty wake-ups a second do not show beside a boot.
pub const PERIOD: Duration = Duration::from_millis(50);

/// How soon an answer that did not come in time is looked for.
const PERIOD_WAITING: Duration = Duration::from_millis(10);

/// The recorder's own requests in flight; it makes hardly any.
const OWN_MAX: usize = 4096;

/// Threads of which it is remembered whose they are; a boot has some thousands.
const ASKED_MAX: usize = 1 << 16;

/// What to record.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The whole disk, as trace events carry it: major number above 20 bits of minor number.
    pub device: u32,
    /// Threads whose requests are left out and counted.
    pub own_threads: Vec<u32>,
    /// Bytes of ring for each CPU; `None` takes a share of 64 MiB.
    pub ring_bytes: Option<usize>,
    /// Begin with what the kernel traced since it started.
    pub boot_ring: bool,
    /// Go on with what a process before this one left on for the device, or leave it to one after.
    pub lasting: bool,
    /// Whether the process' threads are asked for where one is not known: all of them are its own.
    pub own_process: bool,
    /// Told of what others read.
    pub others: Option<Sender<Extent>>,
}

/// A recording in progress: tracing is on. Dropped, it undoes all it set.
pub struct Session {
    // Dropped in this order: an instance whose rings are open cannot be removed.
    rings: Rings,
    instance: Instance,
    /// Of the boot's ring, or of what is left for the next, which another recorder may want.
    lock: Option<File>,
    intake: Intake,
    header: Header,
    root: PathBuf,
    began_ns: u64,
    /// Why the boot's ring could not be read, where it was asked for.
    no_boot_ring: Option<Error>,
    /// Whether the stages are asked for.
    is_boot: bool,
    unit: Option<String>,
    /// Since when the unit is active.
    active_us: Option<u64>,
}

/// What a session came to.
#[derive(Debug)]
pub struct Finished {
    /// The recording; the caller adds device and volume.
    pub recording: Recording,
    /// Whether all that was set could be undone.
    pub undone: Result<()>,
    /// Why it does not begin with the boot, where it should have.
    pub no_boot_ring: Option<Error>,
    /// What others asked for.
    pub foreign: Requests,
}

/// Turns events into touches.
#[derive(Debug, Default)]
struct Intake {
    log: TouchLog,
    own_threads: Vec<u32>,
    own_process: bool,
    /// Threads that were asked for, and whether they are ours: one that has ended cannot be asked for.
    asked: HashMap<u32, bool>,
    own_in_flight: HashSet<u64>,
    own: u64,
    others: Option<Sender<Extent>>,
    own_requests: Requests,
    foreign: Requests,
    last_ns: u64,
}

/// What one side asked the disk for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests that read, and their bytes.
    pub reads: u64,
    pub bytes_read: u64,
    /// Requests that write, and their bytes.
    pub writes: u64,
    pub bytes_written: u64,
}

impl Requests {
    fn add(&mut self, extent: Extent, flags: Flags) {
        let bytes = extent.sectors() * SECTOR_BYTES;
        let (requests, sum) = match flags.has(Flags::READ) {
            true => (&mut self.reads, &mut self.bytes_read),
            false if flags.has(Flags::WRITE) => (&mut self.writes, &mut self.bytes_written),
            false => return,
        };
        *requests += 1;
        *sum += bytes;
    }
}

impl Intake {
    fn take(&mut self, drained: Drained) {
        match drained {
            Drained::Gap => self.log.gap(),
            Drained::Event(event) => self.event(&event),
        }
    }

    fn is_own(&mut self, thread: u32) -> bool {
        if self.own_threads.contains(&thread) {
            return true;
        }
        if !self.own_process {
            return false;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.clear();
        }
        *self.asked.entry(thread).or_insert_with(|| is_own_thread(thread))
    }

    fn event(&mut self, event: &Event) {
        let time_us = event.time_ns / 1_000;
        match event.what {
            What::Issue if self.is_own(event.pid) => {
                self.own += 1;
                if let Some(own) = Extent::at(event.sector, event.sectors.into()) {
                    self.log.own(own);
                    self.own_requests.add(own, event.flags);
                }
                if self.own_in_flight.len() < OWN_MAX {
                    self.own_in_flight.insert(event.sector);
                }
                return;
            }
            What::Complete if self.own_in_flight.remove(&event.sector) => return,
            What::Issue => match Extent::at(event.sector, event.sectors.into()) {
                Some(extent) => {
                    self.log.issue(time_us, extent, event.flags, &event.process());
                    self.foreign.add(extent, event.flags);
                    let reads = event.flags.has(Flags::READ);
                    // Where nobody takes them any more, they are of no use.
                    self.others.iter().filter(|_| reads).for_each(|others| _ = others.try_send(extent));
                }
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

/// Rings that are being written.
struct Opened {
    rings: Rings,
    instance: Instance,
    lock: Option<File>,
    no_boot_ring: Option<Error>,
}

/// What is left of a device for the next process goes by this.
pub fn watch_name(device: u32) -> String {
    format!("watch-{}-{}", device >> 20, device & ((1 << 20) - 1))
}

/// Whether a process has left tracing on for a device.
pub fn is_left_on(root: &Path, device: u32) -> bool {
    tracefs::find(root)
        .is_ok_and(|tracefs| boot::is_traced(&tracefs::lasting_dir(&tracefs, &watch_name(device))))
}

/// The boot's ring where it is asked for, or else an instance of our own. A reference boot happens once: where its
/// beginning was not traced, the rest is recorded all the same, and the caller learns why.
fn open(root: &Path, tracefs: &Path, options: &Options) -> Result<Opened> {
    let mut no_boot_ring = None;
    if options.boot_ring {
        let taken = boot::find(tracefs).and_then(|boot::BootRing { instance, lock }| {
            Ok((rings::take_over(&instance, options.device)?, instance, lock))
        });
        match taken {
            Ok((rings, instance, lock)) => {
                return Ok(Opened { rings, instance, lock: Some(lock), no_boot_ring: None });
            }
            Err(error) => {
                tracing::warn!("{}; recording from now on", error.full_text());
                no_boot_ring = Some(error);
            }
        }
    }
    let (instance, lock, is_on) = if options.lasting {
        let tracefs::Lasting { instance, lock, is_on } =
            Instance::lasting(tracefs, &watch_name(options.device))?;
        (instance, Some(lock), is_on)
    } else {
        (Instance::create(root, tracefs)?, None, false)
    };
    let rings = if is_on {
        rings::take_over(&instance, options.device)?
    } else {
        let rings = rings::set_up(&instance, options.device, options.ring_bytes)?;
        instance.write("tracing_on", "1")?;
        rings
    };
    Ok(Opened { rings, instance, lock, no_boot_ring })
}

impl Session {
    /// Switches tracing on, or takes over what the boot switched on. Signals should be held by then, so that none ends the process with it on.
    pub fn start(root: &Path, options: &Options) -> Result<Session> {
        let tracefs = if options.lasting { tracefs::find_or_mount(root)? } else { tracefs::find(root)? };
        for name in tracefs::remove_leftovers(root, &tracefs) {
            tracing::warn!("removed trace instance `{name}`: the run that made it was killed");
        }
        let header = Header {
            id: read_line(root, "proc/sys/kernel/random/uuid")?,
            kernel: read_line(root, "proc/sys/kernel/osrelease")?,
            boot_id: read_line(root, "proc/sys/kernel/random/boot_id")?,
            stages: stages::unknown(),
            ..Header::default()
        };
        let Opened { rings, instance, lock, no_boot_ring } = open(root, &tracefs, options)?;
        let began_ns = wait::now_ns();
        let intake = Intake {
            own_threads: options.own_threads.clone(),
            own_process: options.own_process,
            others: options.others.clone(),
            last_ns: began_ns,
            ..Intake::default()
        };
        let from_boot = options.boot_ring && no_boot_ring.is_none();
        let mut session = Session {
            rings,
            instance,
            lock,
            intake,
            header,
            root: root.into(),
            began_ns,
            no_boot_ring,
            // What was left on belongs to a boot as well.
            is_boot: options.boot_ring || options.lasting,
            unit: None,
            active_us: None,
        };
        session.header.from_us = began_ns / 1_000;
        if from_boot {
            session.drain()?;
            let from_ns = session.rings.complete_from_ns()?;
            session.header.from_us = from_ns.unwrap_or(began_ns) / 1_000;
        }
        Ok(session)
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
        let began_ns = self.began_ns;
        let mut watch = stops.until_unit.as_ref().map(|unit| Watch::new(&self.root, unit));
        self.unit.clone_from(&stops.until_unit);
        loop {
            if let Some(child) = child.as_deref_mut()
                && let Some(status) = child.try_wait().context(|| "failed to wait for the command".into())?
            {
                return Ok(Stopped::Command(status));
            }
            if let Some(stopped) = stops.before_drain(wait::now_ns().saturating_sub(began_ns)) {
                return Ok(stopped);
            }
            if let Some(active_us) = watch.as_mut().and_then(Watch::look) {
                self.active_us = Some(active_us);
                // What nobody reads would pile up in systemd.
                watch = None;
            }
            if let Some(stopped) = stops.by_unit(self.active_us, wait::now_ns()) {
                return Ok(stopped);
            }
            // The time before the drain: an event that comes after it is news for the next look.
            let now_ns = wait::now_ns();
            self.drain()?;
            if let Some(stopped) = stops.after_drain(now_ns.saturating_sub(self.intake.last_ns)) {
                return Ok(stopped);
            }
            let is_waiting = watch.as_ref().is_some_and(Watch::is_waiting);
            let period = if is_waiting { PERIOD_WAITING } else { PERIOD };
            let wait = stops.next_look(wait::now_ns().saturating_sub(began_ns), period);
            if let Some(signal) = signals.wait(wait) {
                return Ok(Stopped::Signal(signal));
            }
        }
    }

    /// The boot that it records.
    pub fn boot_id(&self) -> &str {
        &self.header.boot_id
    }

    /// Leaves tracing on, and in the rings what is there, for whoever asks next: nothing may have been taken yet.
    pub fn put_back(self) {
        debug_assert_eq!(self.intake.log.events, 0, "what was taken is not in the rings any more");
        drop(self.rings);
        self.instance.leave();
    }

    /// Takes what is there by now, and leaves tracing on for whoever goes on. What was lost is for that one to ask.
    pub fn leave(mut self) -> Result<Watched> {
        // Before it is the time of the end: what comes after is for the next.
        self.header.until_us = wait::now_ns() / 1_000;
        let drained = self.rings.drain_to_the_end(wait::now_ns, |drained| self.intake.take(drained));
        self.header.own = self.intake.own;
        drop(self.rings);
        self.instance.leave();
        drained?;
        let (own, foreign) = (self.intake.own_requests, self.intake.foreign);
        Ok(Watched { recording: self.intake.log.finish(self.header), own, foreign, lock: self.lock })
    }

    /// Switches tracing off, takes what is left, undoes what was set.
    pub fn finish(mut self) -> Result<Finished> {
        self.instance.stop()?;
        self.header.until_us = wait::now_ns() / 1_000;
        self.rings.drain_to_the_end(wait::now_ns, |drained| self.intake.take(drained))?;
        self.header.lost_by_cpu = self.rings.lost_by_cpu()?;
        self.header.own = self.intake.own;
        drop(self.rings);
        let undone = self.instance.remove();
        if self.is_boot || self.unit.is_some() {
            let times = systemd::boot_times(&self.root, self.unit.as_deref());
            match times {
                Ok(mut times) => {
                    times.unit_us = self.active_us.or(times.unit_us);
                    self.header.stages = stages::marks(&times, self.header.until_us);
                }
                Err(error) => tracing::warn!("{}; all is of stage `ready`", error.full_text()),
            }
        }
        let foreign = self.intake.foreign;
        let recording = self.intake.log.finish(self.header);
        Ok(Finished { recording, undone, no_boot_ring: self.no_boot_ring, foreign })
    }
}

#[cfg(test)]
mod tests;
