//! A daemon's life: the warming of each volume on a thread of its own, clients and duties on this one, until all have ended.
//!
//! Holds: whatever happens to the socket, to clients, to the manager or to another volume, the warming goes on; whatever the
//! warming does, a stop is obeyed in time; what came of each volume is there at the end.

use super::listen::Socket;
use super::notify::{Environment, Notifier, Now};
use super::protocol::Waited;
use super::serve::{Plane, Shared, accept};
use super::state::State;
use super::volumes::Volumes;
use super::watch::{self, Event, Watch};
use crate::error::{Context, Result};
use crate::files::replace_readable;
use crate::plan::REST;
use crate::process;
use crate::report::{Totals, WarmReport};
use crate::warm::{self, Control};
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often news of the warming is taken, and when there is none to come.
const PERIOD: Duration = Duration::from_millis(20);
const PERIOD_IDLE: Duration = Duration::from_millis(100);
/// A stop is waited for so long: a read that stalls has a second, a verification sees it between two reads, and a unit is
/// killed after five.
const STOP_MAX: Duration = Duration::from_secs(4);
/// So many periods whoever has just come is answered, and so many at the most whoever waits is told the end and takes it.
/// Counted, not timed: after a pause of the machine each gets its turn.
const FAREWELLS: std::ops::Range<u32> = 5..25;
/// Why it has ended where somebody asked for it.
const TOLD_TO_END: &str = "it was told to end";
/// How long the last metrics may take to be written: the report comes after them.
const METRICS_LAST_MAX: Duration = Duration::from_secs(2);
/// How often the file of metrics is written anew; it is collected every 15 s at the most.
const METRICS_PERIOD: Duration = Duration::from_secs(5);

/// What a daemon is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    /// The stage after which the manager is told that it is ready; `None` for at once.
    pub ready: Option<String>,
    /// File that the metrics are written to.
    pub metrics: Option<PathBuf>,
    /// Whether it ends with the warming, instead of answering on.
    pub exit: bool,
}

/// What warms a volume: it is told when to stop and what else to do, and tells how far it is.
pub type Work = Box<dyn FnOnce(&AtomicBool, &Control, &mut Watch) -> Result<WarmReport> + Send>;

/// A volume that is to be warmed.
pub struct Volume {
    /// As it was named, for those who ask.
    pub device: String,
    /// What tells it from the others, where there are others.
    pub among_several: Option<Several>,
    /// Whether there is a rest after the stages.
    pub rest_expected: bool,
    /// What warms it.
    pub work: Work,
}

/// What tells a volume from others.
#[derive(Clone, Debug)]
pub struct Several {
    /// What it is called, for those who ask and in metrics.
    pub name: String,
    /// The names of its profile's stages, where that could be loaded.
    pub stages: Option<Vec<String>>,
}

/// A daemon that has ended. Whoever has asked for that is told when the process has: what is to be written is written
/// before.
#[derive(Debug)]
pub struct Finished {
    /// What came of each volume, in their order; an error where nothing was read of it.
    pub volumes: Vec<Result<WarmReport>>,
    _socket: Socket,
}

/// Warms volumes beside answering. An error means that it did not begin.
pub fn run(options: &Options, volumes: Vec<Volume>) -> Result<Finished> {
    let started = Instant::now();
    let socket = Socket::new(&options.socket)?;
    let listener = socket.listener.try_clone().context(|| "failed to listen".into())?;
    let pid = std::process::id();
    let notifier = Notifier::of(&Environment::of_process(), pid).unwrap_or_else(|error| {
        tracing::warn!("{}", error.full_text());
        None
    });
    // They live as long as the process: a warming that does not end is left behind with them.
    let (stop, control): (&AtomicBool, &Control) = (Box::leak(Box::default()), Box::leak(Box::default()));
    let (states, warmings) = volumes.into_iter().map(|volume| begin(volume, pid, stop, control)).unzip();
    let plane = Plane::new(Volumes::new(states), control, stop, started);
    let mut round = Round {
        options,
        warmings,
        notifier,
        metrics: options.metrics.clone().and_then(MetricsFile::new),
        metrics_at: None,
        stopping_since: None,
        warned: false,
    };
    let volumes = on_runtime(|ring| async move {
        tokio::task::spawn_local(accept(plane.clone(), listener, ring));
        round.all(&plane).await
    })?;
    Ok(Finished { volumes, _socket: socket })
}

/// Begins to warm a volume, on a thread of its own.
fn begin(volume: Volume, pid: u32, stop: &'static AtomicBool, control: &'static Control) -> (State, Warming) {
    let Volume { device, among_several, rest_expected, work } = volume;
    let mut state = State::new(device.clone(), pid, rest_expected, 0);
    if let Some(Several { name, stages }) = among_several {
        state = state.among_several(name, stages);
    }
    let (mut watch, events) = watch::channel();
    let named = device.clone();
    let warm = move || {
        let came = work(stop, control, &mut watch);
        let is_told = stop.load(Ordering::Relaxed);
        watch.ended(match came {
            Ok(report) if is_told && report.end == "stopped" => {
                Ok(WarmReport { error: Some(TOLD_TO_END.into()), ..report })
            }
            // What waited for a disk or for another process was told to end, too.
            Err(_) if is_told => Ok(ended(&named, "stopped", TOLD_TO_END)),
            came => came,
        });
    };
    // One that does not begin has ended: its end of the channel is gone.
    if let Err(error) = std::thread::Builder::new().name("warm".into()).spawn(warm) {
        tracing::error!("failed to start the thread that warms `{device}`: {error}");
    }
    (state, Warming { device, events, came: None })
}

/// Runs it on a ring, or without one where it is refused.
fn on_runtime<F: Future>(work: impl FnOnce(bool) -> F) -> Result<F::Output> {
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => {
            let came = runtime.block_on(work(true));
            // Who has asked for the end is told of it by the end of the process; and its own would wait for clients.
            std::mem::forget(runtime);
            Ok(came)
        }
        Err(error) => {
            tracing::info!("io_uring is refused ({error}); clients are answered without");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context(|| "failed to prepare the control plane".into())?;
            let tasks = tokio::task::LocalSet::new();
            let came = tasks.block_on(&runtime, work(false));
            // Who has asked for the end is told of it by the end of the process.
            std::mem::forget((tasks, runtime));
            Ok(came)
        }
    }
}

/// The warming of one volume, as it is seen from here.
struct Warming {
    device: String,
    events: Receiver<Event>,
    /// What came of it, once it has ended.
    came: Option<Result<WarmReport>>,
}

impl Warming {
    /// The next news; none after the end.
    fn next(&self) -> Option<Event> {
        if self.came.is_some() {
            return None;
        }
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let report = ended(&self.device, "failed", "the thread that warms has broken off");
                Some(Event::Ended(Box::new(Ok(report))))
            }
        }
    }

    fn end(&mut self, state: &mut State, came: Result<WarmReport>) {
        let refused;
        let report = match &came {
            Ok(report) => report,
            Err(error) => {
                refused = warm::refused(Path::new(&self.device), error);
                &refused
            }
        };
        state.on_end(report);
        tracing::info!("{}{}", prefix(state), last_line(report));
        self.came = Some(came);
    }
}

fn prefix(state: &State) -> String {
    state.name().map_or_else(String::new, |name| format!("{name}: "))
}

/// What is done again and again.
struct Round<'a> {
    options: &'a Options,
    /// In the order of the volumes.
    warmings: Vec<Warming>,
    notifier: Option<Notifier>,
    metrics: Option<MetricsFile>,
    metrics_at: Option<Instant>,
    stopping_since: Option<Instant>,
    /// Whether it was told that there is no such stage to be ready after.
    warned: bool,
}

impl Round<'_> {
    /// Until all warming has ended, and the daemon with it where that is wanted or somebody asks.
    async fn all(&mut self, plane: &Shared) -> Vec<Result<WarmReport>> {
        loop {
            self.take_news(plane);
            if process::stop_asked() {
                plane.borrow_mut().end();
            }
            let stopping = plane.borrow().volumes.stopping;
            if stopping && self.stopping_since.get_or_insert_with(Instant::now).elapsed() >= STOP_MAX {
                self.leave_behind(plane);
            }
            plane.borrow_mut().sweep();
            self.tell_manager(plane);
            self.write_metrics(plane);
            let ended = plane.borrow().volumes.have_ended();
            if ended && (stopping || self.options.exit) {
                break;
            }
            sleep(if ended { PERIOD_IDLE } else { PERIOD }).await;
        }
        // Those who wait see the end in their next look.
        for period in 0..FAREWELLS.end {
            if period >= FAREWELLS.start && !plane.borrow().is_awaited() {
                break;
            }
            sleep(PERIOD).await;
            plane.borrow_mut().sweep();
        }
        if let Some(file) = self.metrics.take() {
            file.close(plane.borrow().metrics());
        }
        self.warmings.drain(..).filter_map(|warming| warming.came).collect()
    }

    /// Each volume's warming, with what is known of it.
    fn with_states(&mut self, plane: &Shared, mut each: impl FnMut(u64, &mut Warming, &mut State)) {
        let mut plane = plane.borrow_mut();
        let now_ns = plane.now_ns();
        for (warming, state) in self.warmings.iter_mut().zip(&mut plane.volumes.each) {
            each(now_ns, warming, state);
        }
    }

    fn take_news(&mut self, plane: &Shared) {
        self.with_states(plane, |now_ns, warming, state| {
            while let Some(event) = warming.next() {
                match event {
                    Event::Found(device, id) => state.on_found(device, id),
                    Event::Picture(picture) => state.on_picture(now_ns, *picture),
                    Event::Ended(came) => warming.end(state, *came),
                }
            }
        });
    }

    /// What does not end in time is left to the end of the process.
    fn leave_behind(&mut self, plane: &Shared) {
        let error = "it was told to end, and what it was at did not end in time";
        self.with_states(plane, |_, warming, state| {
            if warming.came.is_none() {
                let (stages, totals) = state.so_far();
                let report = ended(&warming.device, "stopped", error);
                let totals = Totals { cpu_s: report.totals.cpu_s, ..totals };
                warming.end(state, Ok(WarmReport { stages, totals, ..report }));
            }
        });
    }

    /// Nobody is held up for ever: ready is also what will not become warm any more.
    fn tell_manager(&mut self, plane: &Shared) {
        let Some(notifier) = &mut self.notifier else { return };
        let (plane, stage) = (plane.borrow(), self.options.ready.as_deref());
        if let Some(Waited::Unknown { stages }) = stage.map(|stage| plane.volumes.stage(stage))
            && !std::mem::replace(&mut self.warned, true)
        {
            let list = stages.join(", ");
            tracing::warn!(
                "the profile has no stage `{}` to be ready after, but {list}",
                stage.unwrap_or_default()
            );
        }
        // All that there is takes the place of a stage that is not.
        let ready = stage.is_none_or(|stage| plane.volumes.is_over(stage));
        let now_ns = plane.now_ns();
        let status = plane.volumes.status(now_ns).line();
        notifier.tell(now_ns, &Now { ready, stopping: plane.volumes.stopping, status });
    }

    fn write_metrics(&mut self, plane: &Shared) {
        let Some(file) = &self.metrics else { return };
        if self.metrics_at.is_some_and(|at| at.elapsed() < METRICS_PERIOD) {
            return;
        }
        // Where the last is still being written, this one comes later.
        match file.texts.try_send(plane.borrow().metrics()) {
            Ok(()) => self.metrics_at = Some(Instant::now()),
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => self.metrics = None,
        }
    }
}

/// A file that metrics are written to, by a thread of its own: a filesystem may be slow.
struct MetricsFile {
    texts: Sender<String>,
    thread: JoinHandle<()>,
}

impl MetricsFile {
    fn new(path: PathBuf) -> Option<MetricsFile> {
        let (texts, received) = crossbeam_channel::bounded::<String>(1);
        let write = move || {
            let mut told = false;
            for text in received {
                match replace_readable(&path, text.as_bytes()) {
                    Ok(()) => told = false,
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        tracing::warn!("{}", error.full_text())
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(write).ok()?;
        Some(MetricsFile { texts, thread })
    }

    /// Writes the last of them. A filesystem that does not take it in time holds up no end.
    fn close(self, text: String) {
        let until = Instant::now() + METRICS_LAST_MAX;
        let _ = self.texts.send_timeout(text, METRICS_LAST_MAX);
        drop(self.texts);
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(PERIOD);
        }
    }
}

/// A warming of which nothing is known but how it ended.
fn ended(device: &str, end: &str, error: &str) -> WarmReport {
    warm::ended(Path::new(device), end, error.into())
}

/// What came of it, in one line.
fn last_line(report: &WarmReport) -> String {
    let totals = &report.totals;
    let rest: Vec<&str> =
        report.stages.iter().map(|stage| stage.name.as_str()).filter(|name| *name == REST).collect();
    let mut line = format!(
        "{}: {}; {} of {} units, {} reads and {} bytes in {:.3} s, {} errors, {} retries, depth at most {}, \
         {:.3} s of processor time",
        report.device,
        report.end,
        totals.units.saturating_sub(totals.units_left),
        totals.units,
        totals.reads,
        totals.bytes_read,
        totals.elapsed_s,
        totals.errors,
        totals.retries,
        report.depth.max,
        totals.cpu_s,
    );
    if !rest.is_empty() {
        line.push_str(", the rest among them");
    }
    if let Some(error) = &report.error {
        line.push_str("; ");
        line.push_str(&error.replace('\n', "; "));
    }
    line
}
