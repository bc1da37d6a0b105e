//! One plan or two, run: read, verified, reported.

use super::feed::{Control, Skipped, Surroundings, WarmFeed};
use super::gate::Look;
use super::journal::Journal;
use super::{Bound, Options, Rest, report, stamp};
use crate::device::{Device, Load};
use crate::engine::{
    self, Depth, End, Options as EngineOptions, Outcome, Pace, Progress, Sample, Share, Verdict,
};
use crate::error::{Context, Error, Result};
use crate::extent::Extent;
use crate::files::plain_name;
use crate::plan::{Mode, Plan, PlannedRead, REST};
use crate::process;
use crate::report::WarmReport;
use crate::units::{SECTOR_BYTES, as_ns, as_s};
use crossbeam_channel::Receiver;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Units that are verified: 16 that are warm leave less than 1 % for a quarter of the units being cold.
const SAMPLES: usize = 16;
/// Verification gives up after this.
const VERIFY_NS_MAX: u64 = 3_000_000_000;
/// Stages of these names run with idle priority and stand back: nothing in the boot waits for them.
const IDLE_STAGES: [&str; 2] = ["later", REST];
/// How often a journal that another process has is asked for.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// What a run is told and asked by those around it.
pub struct Hooks<'a> {
    /// Ends it.
    pub stop: &'a AtomicBool,
    /// Orders while it runs.
    pub control: &'a Control,
    /// Extents that the boot has read by itself: their units are left out.
    pub seen: Option<Receiver<Extent>>,
    /// A share of the limits on all volumes together.
    pub budget: Option<Share>,
    /// Who looks on.
    pub progress: &'a mut dyn Progress,
    /// When each read of the stages was made, where somebody wants to know.
    pub timed: Option<&'a mut Vec<Timed>>,
}

/// A read of a stage. Times are microseconds since the kernel started; `None` where it was not made by this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    pub read: PlannedRead,
    pub submitted_us_ended_us: Option<(u64, u64)>,
}

/// Reads of which the times are kept at the most, 24 MB of them: volumes of 512 GiB.
const TIMED_MAX: u64 = 1 << 20;

/// Warms, and says what came of it. An error means that nothing was read; what went wrong later is in the report.
pub fn warm<'a>(bound: &'a Bound, options: &'a Options, hooks: Hooks<'a>) -> Result<WarmReport> {
    let disk = Disk::of(&bound.device, options);
    let mut run = Run { bound, options, hooks, disk };
    let mut report = run.all()?;
    report.notes.splice(0..0, bound.known.iter().cloned());
    Ok(report)
}

/// One run of a plan.
pub(super) struct Pass {
    pub outcome: Outcome,
    /// Units that were not read throughout, by stage and by cell of the report's map.
    pub cells_left: Vec<Vec<u64>>,
    /// Where units were touched.
    pub verdict: Option<Verdict>,
    /// When its first read was submitted, nanoseconds since the kernel started.
    pub uptime_ns: u64,
    /// What was left out.
    pub skipped: Skipped,
    /// Units that were looked into, out of turn, to find out whether they are warm.
    pub looked_into: u64,
}

/// What one run of a plan must keep to.
#[derive(Clone, Copy)]
struct Limits {
    pace: Pace,
    deadline: Option<Deadline>,
    reads_max: u64,
    warm_ns: Option<u64>,
}

/// So long after its run has begun, or after a moment before that, in nanoseconds since the kernel started.
#[derive(Clone, Copy)]
struct Deadline {
    after: Duration,
    since_ns: Option<u64>,
}

impl Deadline {
    /// When, for a run that begins now, by two clocks.
    fn at_ns(self, now_ns: u64, uptime_ns: u64) -> u64 {
        let spent_ns = self.since_ns.map_or(0, |since_ns| uptime_ns.saturating_sub(since_ns));
        now_ns.saturating_add(as_ns(self.after).saturating_sub(spent_ns))
    }
}

struct Run<'a> {
    bound: &'a Bound,
    options: &'a Options,
    hooks: Hooks<'a>,
    disk: Disk,
}

/// What the kernel says of the disk. Asked once: after the change of root there may be no `/sys` where it was.
struct Disk {
    /// What files about it are called.
    name: String,
    serial: Option<String>,
    queue: Option<u32>,
    request_bytes: u64,
    /// Its counters, where something is to stand back.
    load: Option<Load>,
}

impl Disk {
    fn of(device: &Device, options: &Options) -> Disk {
        let root = &options.root;
        let load = |number| {
            let load = Load::of(root, number);
            load.inspect_err(|error| tracing::info!("{}; nothing stands back", error.full_text())).ok()
        };
        Disk {
            name: plain_name(&device.name(root)),
            serial: device.serial(root),
            queue: device.queue_requests(root),
            request_bytes: device.request_bytes(root),
            load: device.number().filter(|_| options.stand_back).and_then(load),
        }
    }
}

/// What came of a plan.
struct Done {
    report: WarmReport,
    /// How long a warm read takes, where the volume was found warm.
    warm_ns: Option<u64>,
    /// Whether what was touched is smaller than a unit was thought to be, and every byte was read instead.
    in_full: bool,
}

impl Run<'_> {
    fn all(&mut self) -> Result<WarmReport> {
        let rest = &self.options.rest.what;
        let plan = self.bound.plan(self.options.mode.unwrap_or(Mode::Touch));
        // Without stages the rest is all there is.
        let stages =
            if *rest != Rest::None && plan.totals().reads == 0 { None } else { Some(self.stages(&plan)?) };
        let goes_on = stages.as_ref().is_none_or(|done| done.report.is_complete());
        if *rest == Rest::None || !goes_on {
            return stages
                .map(|done| done.report)
                .ok_or_else(|| Error::failed("failed to find anything to read"));
        }
        let rest = self.rest(&plan, stages.as_ref());
        let Some(Done { report: first, .. }) = stages else { return rest };
        Ok(match rest {
            Ok(rest) => {
                let after_s = rest.first_read_uptime_s - first.first_read_uptime_s;
                first.then(rest, after_s)
            }
            // What came of the stages is told whatever comes after them.
            Err(error) => {
                let end = if self.hooks.stop.load(Ordering::Relaxed) { "stopped" } else { "failed" };
                let mut notes = first.notes;
                notes.push("nothing of the rest was read".into());
                WarmReport { end: end.into(), error: Some(error.full_text()), notes, ..first }
            }
        })
    }

    fn stages(&mut self, plan: &Plan) -> Result<Done> {
        let (bound, options) = (self.bound, self.options);
        let limits = Limits {
            pace: Pace::new(options.iops, options.rate),
            deadline: options.deadline.map(|after| Deadline { after, since_ns: None }),
            reads_max: u64::MAX,
            warm_ns: None,
        };
        let in_full = || Ok((bound.plan(Mode::Full), limits));
        self.verified(plan, limits, "", in_full, "every byte of the profile was read instead")
    }

    /// What no stage has, after the stages and their report.
    fn rest(&mut self, stages: &Plan, first: Option<&Done>) -> Result<WarmReport> {
        process::idle_class();
        self.wait_for_turn(self.options.rest.jitter);
        let (bound, options) = (self.bound, self.options);
        let warm_ns = first.and_then(|done| done.warm_ns);
        let since_ns = first.map(|done| (done.report.first_read_uptime_s * 1e9) as u64);
        let stop = self.hooks.stop;
        let of = |stages: &Plan| {
            let nothing = || Error::failed("failed to find anything to read");
            let plan = bound.rest(stages, options, stop)?.ok_or_else(nothing)?;
            let limits = rest_limits(options, &plan, warm_ns, since_ns);
            Ok::<_, Error>((plan, limits))
        };
        // What the stages have shown of the unit holds for the rest.
        let in_full = || of(&bound.plan(Mode::Full));
        let (plan, limits) = if first.is_some_and(|done| done.in_full) { in_full()? } else { of(stages)? };
        let note = "every byte of the rest was read instead";
        Ok(self.verified(&plan, limits, "-rest", in_full, note)?.report)
    }

    /// Runs a plan: what it touched is verified, and where the unit was wrong and nobody named a mode the same is read
    /// in full, which is noted.
    fn verified(
        &mut self,
        plan: &Plan,
        limits: Limits,
        journal: &str,
        in_full: impl FnOnce() -> Result<(Plan, Limits)>,
        note: &str,
    ) -> Result<Done> {
        let mut journal = self.journal(plan, journal)?;
        let pass = self.pass(plan, limits, &mut journal)?;
        let mut report = report::of(self.bound, plan, &pass);
        let wrong = pass.verdict.as_ref().is_some_and(Verdict::unit_is_wrong);
        if !wrong && pass.verdict.as_ref().is_some_and(|verdict| !verdict.unfinished) {
            journal.set_verified();
        }
        let in_full = match wrong && self.options.mode.is_none() && matches!(pass.outcome.end, End::Complete)
        {
            true => Some(in_full()?),
            false => None,
        };
        if let Some((plan, again)) = &in_full {
            journal.forget();
            let since = |deadline: Deadline| deadline.since_ns.or(Some(pass.uptime_ns));
            let deadline = limits.deadline.map(|deadline| Deadline { since_ns: since(deadline), ..deadline });
            let mut none = Journal::none(plan.totals().reads);
            let second = self.pass(plan, Limits { deadline, ..*again }, &mut none)?;
            let first = std::mem::replace(&mut report, report::of(self.bound, plan, &second));
            report.follow(first, as_s(second.uptime_ns.saturating_sub(pass.uptime_ns)));
            report.notes.push(note.into());
        }
        Ok(Done { report, warm_ns: pass.skipped.warm_ns, in_full: in_full.is_some() })
    }

    /// Sleeps for this volume's share of the jitter; what has no serial has one of this boot.
    fn wait_for_turn(&self, jitter: Duration) {
        let name = self.disk.serial.clone().unwrap_or_else(|| stamp::boot_id(&self.options.root));
        let share = f64::from(crc32fast::hash(name.as_bytes())) / f64::from(u32::MAX);
        let until = std::time::Instant::now() + jitter.mul_f64(share);
        while std::time::Instant::now() < until && !self.hooks.stop.load(Ordering::Relaxed) {
            std::thread::sleep(BUSY_PAUSE);
        }
    }

    /// The journal of a plan; where another process has it, that one is at work, and is waited for.
    fn journal(&self, plan: &Plan, suffix: &str) -> Result<Journal> {
        let reads = plan.totals().reads;
        let Some(dir) = &self.options.journal else { return Ok(Journal::none(reads)) };
        let path = dir.join(format!("{}{suffix}.journal", self.disk.name));
        let mut told = false;
        loop {
            match Journal::open(&path, plan.key(), reads) {
                Ok(Some(journal)) => return Ok(journal),
                Ok(None) if self.hooks.stop.load(Ordering::Relaxed) => {
                    return Err(Error::failed(format!(
                        "failed to wait for journal `{}`: stopped",
                        path.display()
                    )));
                }
                Ok(None) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("another process warms this volume; waiting for it");
                    }
                    std::thread::sleep(BUSY_PAUSE);
                }
                // To read something twice is better than not to read it.
                Err(error) => {
                    tracing::warn!("{}; what an earlier run did is not known", error.full_text());
                    return Ok(Journal::none(reads));
                }
            }
        }
    }

    fn pass(&mut self, plan: &Plan, limits: Limits, journal: &mut Journal) -> Result<Pass> {
        let device = &self.bound.device;
        let depth = self.options.depth.map_or_else(|| Depth::auto(self.disk.queue), Depth::fixed);
        let mut source = engine::open(device.file(), depth.max(), plan.read_bytes_max())
            .context(|| format!("failed to prepare reads of `{}`", device.path().display()))?;
        self.hooks.progress.begin(plan.stages());
        let (now_ns, uptime_ns) = (source.now_ns(), process::uptime_ns());
        let idle = plan.stages().iter().position(|stage| IDLE_STAGES.contains(&stage.name.as_str()));
        let idle = idle.map_or(u16::MAX, |index| index as u16);
        let deadline_ns = limits.deadline.map(|deadline| deadline.at_ns(now_ns, uptime_ns));
        let engine_options = EngineOptions {
            depth,
            pace: limits.pace,
            budget: self.budget(plan, now_ns),
            deadline_ns,
            block_bytes: device.block_bytes(),
            idle_from_stage: idle,
        };
        let surroundings = Surroundings {
            look: self.disk.load.as_ref().map(|load| Box::new(|| look(load)) as Box<_>),
            seen: self.hooks.seen.clone(),
            control: self.hooks.control,
            request_bytes: self.disk.request_bytes,
            reads_max: limits.reads_max,
            warm_ns: limits.warm_ns,
            is_cold: device.number().is_none(),
        };
        let mut feed = WarmFeed::new(plan, journal, surroundings, idle);
        let of_stages = plan.stages().iter().all(|stage| stage.name != REST);
        if self.hooks.timed.is_some() && of_stages && plan.totals().reads <= TIMED_MAX {
            feed.keep_times();
        }
        let (stop, progress) = (self.hooks.stop, &mut *self.hooks.progress);
        let mut outcome = engine::run(&mut *source, &mut feed, engine_options, stop, progress);
        let (skipped, looked_into, times) = (feed.skipped(), feed.looked_into(), feed.times());
        let left = outcome.left.iter().copied().chain(feed.left_over()).filter(|_| !skipped.warm);
        let cells_left = plan.cells_of(left, report::cell_units(plan));
        if let Some((timed, times)) = self.hooks.timed.as_mut().zip(times) {
            let since_ns = |at_ns: u64| (uptime_ns + at_ns.saturating_sub(now_ns)) / 1_000;
            let of = |(submitted_ns, ended_ns)| (since_ns(submitted_ns), since_ns(ended_ns));
            let all = plan.reads().zip(times);
            timed.extend(all.map(|(read, at)| Timed { read, submitted_us_ended_us: at.map(of) }));
        }
        let touched = plan.shape().mode == Mode::Touch && matches!(outcome.end, End::Complete);
        let verdict = if touched && !skipped.warm {
            let until_ns = source.now_ns().saturating_add(VERIFY_NS_MAX);
            let until_ns = Some(deadline_ns.map_or(until_ns, |deadline| deadline.min(until_ns)));
            let read_bytes = device.block_bytes().max(4096);
            let samples = self.samples(plan, journal, &outcome, read_bytes, &looked_into);
            let budget = self.budget(plan, source.now_ns());
            engine::verify(&mut *source, samples, read_bytes, until_ns, budget.as_ref(), stop).ok()
        } else {
            None
        };
        let unfinished = verdict.as_ref().is_some_and(|verdict| verdict.unfinished);
        if unfinished && stop.load(Ordering::Relaxed) {
            outcome.end = End::Stopped;
        }
        // What the run did before its first read is in the time to it.
        let first_ns = outcome.stages.iter().filter_map(|stage| stage.started_ns).min().unwrap_or(now_ns);
        let uptime_ns = uptime_ns + first_ns.saturating_sub(now_ns);
        Ok(Pass { outcome, cells_left, verdict, uptime_ns, skipped, looked_into: looked_into.len() as u64 })
    }

    /// The share of the limits on all volumes, for reads of a plan.
    fn budget(&self, plan: &Plan, now_ns: u64) -> Option<Share> {
        self.hooks.budget.as_ref().map(|share| share.for_stages(plan.stages(), now_ns))
    }

    /// Spread over the run, and only of units that have a far block, which nobody has read. Of a plan that an earlier run
    /// has touched and not verified, any.
    fn samples(
        &self,
        plan: &Plan,
        journal: &Journal,
        outcome: &Outcome,
        read_bytes: u32,
        looked_into: &BTreeSet<u64>,
    ) -> Vec<Sample> {
        let volume_bytes = self.bound.device.sectors() * SECTOR_BYTES;
        let unit_of = |offset: u64| offset / self.bound.unit_bytes;
        let mut all: Vec<(u64, u64)> = outcome.samples.to_vec();
        if all.is_empty() && !journal.is_verified() {
            let step = (plan.totals().reads as usize / SAMPLES).max(1);
            let done = (0..).zip(plan.reads()).filter(|(number, _)| journal.is_done(*number));
            // Others than those which a verification that was broken off has read, and so made warm.
            all.extend(done.skip(step / 2).step_by(step).map(|(_, read)| (read.offset(), 0)));
        }
        all.retain(|(offset, _)| !looked_into.contains(&unit_of(*offset)));
        let count = all.len().min(SAMPLES);
        let chosen = (0..count).map(|number| {
            let (offset, touch_ns) = all[number * all.len() / count];
            Sample::new(offset, touch_ns, self.bound.unit_bytes, volume_bytes, u64::from(read_bytes))
        });
        chosen.filter(|sample| sample.far != sample.touched).collect()
    }
}

/// What a plan of the rest must keep to, so long after the first read of the stages.
fn rest_limits(options: &Options, plan: &Plan, warm_ns: Option<u64>, since_ns: Option<u64>) -> Limits {
    let rest = &options.rest;
    // What a read hydrates: its unit, or where every byte is read what it reads.
    let bytes = match plan.shape().mode {
        Mode::Touch => plan.shape().unit_bytes,
        Mode::Full => u64::from(plan.read_bytes_max()),
    };
    let iops = match rest.hydrated_bytes_per_s.div_ceil(bytes) {
        0 => rest.iops,
        by_rate if rest.iops == 0 => by_rate,
        by_rate => by_rate.min(rest.iops),
    };
    Limits {
        pace: Pace::new(if iops == 0 { options.iops } else { iops }, options.rate),
        deadline: match rest.deadline {
            Some(after) => Some(Deadline { after, since_ns: None }),
            None => options.deadline.map(|after| Deadline { after, since_ns }),
        },
        reads_max: if rest.budget_bytes == 0 { u64::MAX } else { rest.budget_bytes / bytes },
        warm_ns,
    }
}

fn look(load: &Load) -> Option<Look> {
    let requests = load.look().ok()?;
    Some(Look { ended: requests.ended, in_flight: requests.in_flight })
}
