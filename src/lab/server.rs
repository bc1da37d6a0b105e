//! Carries the law in real time: takes operations from the kernel, asks the law when they are due, and answers
//! them then.
//!
//! Holds: nothing is answered before its time; one lock guards the law; data moves outside of it. Answers that
//! are due at once leave on the thread that took the operation. For all others one worker, the leader, waits
//! for the next due time and answers. It hands the watch to another worker before it answers where answering
//! takes long; else not, since waking another takes longer than a small answer.
//!
//! The law's time is the reader's: a read that comes alone is taken to have been asked for before it reached us,
//! by the shortest time that a read can take through the mount. It still never sees its answer too early.

use super::clock::{monotonic_ns, wait};
use super::image::Image;
use super::punctual::Punctual;
use super::stats::{Late, Stats};
use crate::cold::{ColdVolume, Op};
use crate::extent::Extent;
use fuser::{Errno, ReplyData, ReplyWrite};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Answers that one worker takes at a time: enough to share the cost of waking it, few enough that the last one
/// is not kept waiting.
const ANSWERS_AT_ONCE: usize = 8;
/// Data that takes longer to move than another worker takes to wake.
const HAND_OVER_BYTES: u64 = 64 << 10;
/// With more in flight the volume's limits decide when a read is answered, not its own latency; a timer that is
/// late is then made up for by the next answer, and spinning would take the processor from the readers.
const PUNCTUAL_MAX: usize = 16;
/// Lateness beyond a minute is recorded as a minute.
const LATE_NS_MAX: u64 = 60_000_000_000;

/// An operation of the kernel that waits for its answer.
pub enum Operation {
    /// A read inside the volume.
    Read { offset: u64, bytes: u32, reply: ReplyData },
    /// A write inside the volume.
    Write { offset: u64, data: Vec<u8>, reply: ReplyWrite },
}

/// An operation whose time has come.
struct Due {
    operation: Operation,
    at_ns: u64,
    failed: bool,
}

struct Core {
    law: ColdVolume,
    /// Operations by the number that the law knows them by.
    waiting: Vec<Option<Operation>>,
    free: Vec<usize>,
    /// What the leader waits for; `None` where nobody leads.
    watch: Option<Watch>,
    punctual: Punctual,
    stopped: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Watch {
    /// The leader waits for a first operation.
    ForWork,
    /// It waits for this due time.
    Until(u64),
    /// It is answering, and looks again right after.
    Answering,
}

/// The law, its image, and who waits for what.
pub struct Server {
    core: Mutex<Core>,
    /// The leader waits here for the next due time.
    due: Condvar,
    /// All other workers wait here to lead.
    lead: Condvar,
    /// Tells a leader that spins to look again.
    changed: AtomicBool,
    image: Image,
    seed: u64,
    started_ns: u64,
    /// Shortest way there and back, as measured from outside; 0 until then.
    way_ns: Arc<AtomicU64>,
    late: Mutex<Histogram<u64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Serves `image` by `law`, whose time begins now.
    pub fn new(law: ColdVolume, image: Image, seed: u64, way_ns: Arc<AtomicU64>) -> Server {
        let core = Core {
            law,
            waiting: Vec::new(),
            free: Vec::new(),
            watch: None,
            punctual: Punctual::default(),
            stopped: false,
        };
        Server {
            core: Mutex::new(core),
            due: Condvar::new(),
            lead: Condvar::new(),
            changed: AtomicBool::new(false),
            image,
            seed,
            started_ns: monotonic_ns(),
            way_ns,
            late: Mutex::new(new_histogram()),
        }
    }

    /// The image it serves.
    pub fn image(&self) -> &Image {
        &self.image
    }

    fn now_ns(&self) -> u64 {
        monotonic_ns() - self.started_ns
    }

    /// Takes an operation, and answers what is due.
    pub fn submit(&self, operation: Operation, buffer: &mut Vec<u8>) {
        let (op, offset, bytes) = match &operation {
            Operation::Read { offset, bytes, .. } => (Op::Read, *offset, u64::from(*bytes)),
            Operation::Write { offset, data, .. } => (Op::Write, *offset, data.len() as u64),
        };
        let Some(extent) = Extent::of_bytes(offset, bytes) else { return operation.fail() };
        let mut core = locked(&self.core);
        let now_ns = self.now_ns();
        // Among others its way is shorter: nobody has to be woken.
        let way_ns = if core.in_flight() == 0 { self.way_ns.load(Ordering::Relaxed) } else { 0 };
        let unit = extent.units(core.law.model().unit_sectors()).start;
        let cold = !core.law.is_warm(unit);
        let id = core.keep(operation);
        core.law.submit(now_ns.saturating_sub(way_ns), id as u64, op, extent);
        let mut first = core.take_due(now_ns);
        self.watch_for(&core);
        drop(core);
        if cold && op == Op::Read {
            self.image.prefetch(offset, bytes as u32);
        }
        while let Some(due) = first.take() {
            self.answer(due, buffer);
            first = locked(&self.core).take_due(now_ns);
        }
    }

    /// Wakes the leader where the next due time is before what it waits for.
    fn watch_for(&self, core: &Core) {
        let Some(next_ns) = core.law.next_due_ns() else { return };
        match core.watch {
            Some(Watch::Answering) => {}
            Some(Watch::Until(at_ns)) if at_ns <= next_ns => {}
            Some(_) => {
                self.changed.store(true, Ordering::Relaxed);
                self.due.notify_one();
            }
            None => self.lead.notify_one(),
        }
    }

    /// A worker's life: lead, answer, and so on until [`Server::stop`].
    pub fn work(&self) {
        let mut buffer = Vec::new();
        let mut taken = Vec::with_capacity(ANSWERS_AT_ONCE);
        let mut leading = false;
        loop {
            let mut core = locked(&self.core);
            while !leading && core.watch.is_some() && !core.stopped {
                core = wait(&self.lead, core, None);
            }
            while taken.is_empty() {
                if core.stopped {
                    return;
                }
                core = self.wait_for_due(core);
                core.take_all_due(self.now_ns(), &mut taken);
            }
            let bytes: u64 = taken.iter().map(|due| due.operation.bytes()).sum();
            leading = taken.len() < ANSWERS_AT_ONCE && bytes < HAND_OVER_BYTES;
            core.watch = leading.then_some(Watch::Answering);
            drop(core);
            if !leading {
                self.lead.notify_one();
            }
            for due in taken.drain(..) {
                self.answer(due, &mut buffer);
            }
        }
    }

    /// Returns when something may be due.
    fn wait_for_due<'a>(&'a self, mut core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        let Some(due_ns) = core.law.next_due_ns() else {
            core.watch = Some(Watch::ForWork);
            return wait(&self.due, core, None);
        };
        core.watch = Some(Watch::Until(due_ns));
        let now_ns = self.now_ns();
        if due_ns <= now_ns {
            return core;
        }
        let wake_ns = match core.in_flight() {
            ..=PUNCTUAL_MAX => core.punctual.wake_at(now_ns, due_ns),
            _ => due_ns,
        };
        if wake_ns > now_ns {
            core = wait(&self.due, core, Some(wake_ns + self.started_ns));
            let now_ns = self.now_ns();
            if now_ns >= wake_ns {
                core.punctual.woke(wake_ns, now_ns);
            }
            // Something else may be due by now; if not, the next turn spins.
            return core;
        }
        self.changed.store(false, Ordering::Relaxed);
        drop(core);
        while self.now_ns() < due_ns && !self.changed.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        core = locked(&self.core);
        core.punctual.spun(self.now_ns() - now_ns);
        core
    }

    fn answer(&self, due: Due, buffer: &mut Vec<u8>) {
        if due.failed {
            due.operation.fail();
        } else {
            self.carry_out(due.operation, buffer);
        }
        let late_ns = self.now_ns().saturating_sub(due.at_ns);
        locked(&self.late).saturating_record(late_ns.min(LATE_NS_MAX));
    }

    fn carry_out(&self, operation: Operation, buffer: &mut Vec<u8>) {
        match operation {
            Operation::Read { offset, bytes, reply } => {
                if buffer.len() < bytes as usize {
                    buffer.resize(bytes as usize, 0);
                }
                let data = &mut buffer[..bytes as usize];
                match self.image.read_at(data, offset) {
                    Ok(()) => reply.data(data),
                    Err(error) => reply.error(errno(&error)),
                }
            }
            Operation::Write { offset, data, reply } => match self.image.write_at(&data, offset) {
                Ok(()) => reply.written(data.len() as u32),
                Err(error) => reply.error(errno(&error)),
            },
        }
    }

    /// Makes the volume cold again and forgets what was counted.
    pub fn reset(&self) {
        locked(&self.core).law.reset();
        locked(&self.late).reset();
    }

    /// What is known now; the caller adds what it alone knows.
    pub fn stats(&self) -> Stats {
        let core = locked(&self.core);
        let mut stats = Stats::of(&core.law, self.seed, self.now_ns());
        stats.in_flight = core.in_flight() as u64;
        drop(core);
        let late = locked(&self.late);
        stats.late = Late {
            ns_p50: late.value_at_quantile(0.5),
            ns_p99: late.value_at_quantile(0.99),
            ns_max: late.max(),
        };
        stats.volume_bytes = self.image.bytes;
        stats.mounted_at_monotonic_ns = self.started_ns;
        stats.way_ns = self.way_ns.load(Ordering::Relaxed);
        stats
    }

    /// Ends the workers; what still waits is answered with EIO.
    pub fn stop(&self) {
        let mut core = locked(&self.core);
        core.stopped = true;
        let left = std::mem::take(&mut core.waiting);
        core.free.clear();
        drop(core);
        self.due.notify_all();
        self.lead.notify_all();
        left.into_iter().flatten().for_each(Operation::fail);
    }
}

/// Two digits: lateness is told, not computed with.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATE_NS_MAX, 2).expect("two digits up to a minute are within its limits")
}

/// The error number that the reader sees.
pub fn errno(error: &std::io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Core {
    fn in_flight(&self) -> usize {
        self.waiting.len() - self.free.len()
    }

    fn keep(&mut self, operation: Operation) -> usize {
        match self.free.pop() {
            Some(id) => {
                self.waiting[id] = Some(operation);
                id
            }
            None => {
                self.waiting.push(Some(operation));
                self.waiting.len() - 1
            }
        }
    }

    fn take_all_due(&mut self, now_ns: u64, taken: &mut Vec<Due>) {
        while taken.len() < ANSWERS_AT_ONCE
            && let Some(due) = self.take_due(now_ns)
        {
            taken.push(due);
        }
    }

    /// One operation that is due by `now_ns`.
    fn take_due(&mut self, now_ns: u64) -> Option<Due> {
        loop {
            let answer = self.law.pop_due(now_ns)?;
            let id = answer.id as usize;
            // After a stop there is nothing left to answer.
            if let Some(operation) = self.waiting.get_mut(id).and_then(Option::take) {
                self.free.push(id);
                return Some(Due { operation, at_ns: answer.at_ns, failed: answer.failed });
            }
        }
    }
}

impl Operation {
    fn bytes(&self) -> u64 {
        match self {
            Operation::Read { bytes, .. } => u64::from(*bytes),
            Operation::Write { data, .. } => data.len() as u64,
        }
    }

    fn fail(self) {
        match self {
            Operation::Read { reply, .. } => reply.error(Errno::EIO),
            Operation::Write { reply, .. } => reply.error(Errno::EIO),
        }
    }
}
