//! A daemon's life: the warming on a thread of its own, clients and duties on this one, until both have ended.
//!
//! Holds: whatever happens to the socket, to clients or to the manager, the warming goes on; whatever the warming does, a
//! stop is obeyed in time; a report is there at the end.

use super::listen::Socket;
use super::notify::{Environment, Notifier, Now};
use super::protocol::Waited;
use super::serve::{Plane, Shared, accept};
use super::state::State;
use super::watch::{self, Event, Watch};
use crate::error::{Context, Result};
use crate::files::replace_readable;
use crate::plan::REST;
use crate::process;
use crate::report::{SCHEMA, WarmReport};
use crate::warm::Control;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use std::path::PathBuf;
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
/// Whoever waits is told the end, and gets as long to take it.
const FAREWELL: Duration = Duration::from_millis(100);
/// How often the file of metrics is written anew; it is collected every 15 s at the most.
const METRICS_PERIOD: Duration = Duration::from_secs(5);

/// What a daemon is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    /// As it was named, for those who ask.
    pub device: String,
    /// The stage after which the manager is told that it is ready; `None` for at once.
    pub ready: Option<String>,
    /// File that the metrics are written to.
    pub metrics: Option<PathBuf>,
    /// Whether it ends with the warming, instead of answering on.
    pub exit: bool,
    /// Whether there is a rest after the stages.
    pub rest_expected: bool,
}

/// What warms: it is told when to stop and what else to do, and tells how far it is.
pub type Work = Box<dyn FnOnce(&AtomicBool, &Control, &mut Watch) -> WarmReport + Send>;

/// A daemon that has ended. Whoever has asked for that is told when the process has: what is to be written is written
/// before.
#[derive(Debug)]
pub struct Finished {
    /// What came of it.
    pub report: WarmReport,
    _socket: Socket,
}

/// Warms beside answering. An error means that it did not begin; how it ended is in the report.
pub fn run(options: &Options, work: Work) -> Result<Finished> {
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
    let (mut watch, events) = watch::channel();
    let state = State::new(options.device.clone(), pid, options.rest_expected, 0);
    std::thread::Builder::new()
        .name("warm".into())
        .spawn(move || {
            let mut report = work(stop, control, &mut watch);
            // What waited for a disk or for another process was told to end, too.
            if stop.load(Ordering::Relaxed) && ["stopped", "refused"].contains(&report.end.as_str()) {
                (report.end, report.error) = ("stopped".into(), Some("it was told to end".into()));
            }
            watch.ended(report);
        })
        .context(|| "failed to start the thread that warms".into())?;
    let plane = Plane::new(state, control, stop, started);
    let mut round = Round {
        options,
        events,
        notifier,
        metrics: options.metrics.clone().and_then(MetricsFile::new),
        metrics_at: None,
        stopping_since: None,
        warned: false,
        report: None,
    };
    let report = on_runtime(|ring| async move {
        tokio::task::spawn_local(accept(plane.clone(), listener, ring));
        round.all(&plane).await
    })?;
    Ok(Finished { report, _socket: socket })
}

/// Runs it on a ring, or without one where it is refused.
fn on_runtime<F: Future<Output = WarmReport>>(work: impl FnOnce(bool) -> F) -> Result<WarmReport> {
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => {
            let report = runtime.block_on(work(true));
            // Who has asked for the end is told of it by the end of the process; and its own would wait for clients.
            std::mem::forget(runtime);
            Ok(report)
        }
        Err(error) => {
            tracing::info!("io_uring is refused ({error}); clients are answered without");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context(|| "failed to prepare the control plane".into())?;
            let tasks = tokio::task::LocalSet::new();
            let report = tasks.block_on(&runtime, work(false));
            // Who has asked for the end is told of it by the end of the process.
            std::mem::forget((tasks, runtime));
            Ok(report)
        }
    }
}

/// What is done again and again.
struct Round<'a> {
    options: &'a Options,
    events: Receiver<Event>,
    notifier: Option<Notifier>,
    metrics: Option<MetricsFile>,
    metrics_at: Option<Instant>,
    stopping_since: Option<Instant>,
    /// Whether it was told that there is no such stage to be ready after.
    warned: bool,
    report: Option<WarmReport>,
}

impl Round<'_> {
    /// Until the warming has ended, and the daemon with it where that is wanted or somebody asks.
    async fn all(&mut self, plane: &Shared) -> WarmReport {
        loop {
            self.take_news(plane);
            if process::stop_asked() {
                plane.borrow_mut().end();
            }
            let stopping = plane.borrow().state.stopping;
            if stopping {
                let since = *self.stopping_since.get_or_insert_with(Instant::now);
                if self.report.is_none() && since.elapsed() >= STOP_MAX {
                    self.end(plane, left_behind(self.options));
                }
            }
            plane.borrow_mut().sweep();
            self.tell_manager(plane);
            self.write_metrics(plane);
            if self.report.is_some() && (stopping || self.options.exit) {
                break;
            }
            sleep(if self.report.is_some() { PERIOD_IDLE } else { PERIOD }).await;
        }
        // Those who wait see the end in their next look.
        sleep(FAREWELL).await;
        if let Some(file) = self.metrics.take() {
            file.close(&plane.borrow().metrics());
        }
        self.report.take().unwrap_or_default()
    }

    fn end(&mut self, plane: &Shared, report: WarmReport) {
        plane.borrow_mut().state.on_end(&report);
        tracing::info!("{}", last_line(&report));
        self.report = Some(report);
    }

    fn take_news(&mut self, plane: &Shared) {
        while self.report.is_none() {
            match self.events.try_recv() {
                Ok(Event::Picture(picture)) => {
                    let mut plane = plane.borrow_mut();
                    let now_ns = plane.now_ns();
                    plane.state.on_picture(now_ns, *picture);
                }
                Ok(Event::Ended(report)) => self.end(plane, *report),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.end(plane, failed(self.options, "the thread that warms has broken off"));
                }
            }
        }
    }

    /// Nobody is held up for ever: ready is also what will not become warm any more.
    fn tell_manager(&mut self, plane: &Shared) {
        let Some(notifier) = &mut self.notifier else { return };
        let (plane, ended) = (plane.borrow(), self.report.is_some());
        let waited = self.options.ready.as_ref().map(|stage| plane.state.stage(stage));
        if let Some(Waited::Unknown { stages }) = &waited
            && !std::mem::replace(&mut self.warned, true)
        {
            let list = stages.join(", ");
            tracing::warn!(
                "the profile has no stage `{}` to be ready after, but {list}",
                self.options.ready.as_deref().unwrap_or_default()
            );
        }
        let ready = match waited {
            None | Some(Waited::Warm { .. }) => true,
            // All that there is takes the place of a stage that is not.
            _ => ended,
        };
        let now_ns = plane.now_ns();
        let status = plane.state.status(now_ns).line();
        notifier.tell(now_ns, &Now { ready, stopping: plane.state.stopping, status });
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
    path: PathBuf,
    texts: Sender<String>,
    thread: JoinHandle<()>,
}

impl MetricsFile {
    fn new(path: PathBuf) -> Option<MetricsFile> {
        let (texts, received) = crossbeam_channel::bounded::<String>(1);
        let to = path.clone();
        let write = move || {
            let mut told = false;
            for text in received {
                match replace_readable(&to, text.as_bytes()) {
                    Ok(()) => told = false,
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        tracing::warn!("{}", error.full_text())
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(write).ok()?;
        Some(MetricsFile { path, texts, thread })
    }

    /// Writes the last of them: now nobody is held up by it.
    fn close(self, text: &str) {
        drop(self.texts);
        let _ = self.thread.join();
        if let Err(error) = replace_readable(&self.path, text.as_bytes()) {
            tracing::warn!("{}", error.full_text());
        }
    }
}

/// A warming of which nothing is known but how it ended.
fn failed(options: &Options, error: &str) -> WarmReport {
    WarmReport {
        schema: SCHEMA,
        end: "failed".into(),
        error: Some(error.into()),
        device: options.device.clone(),
        ..WarmReport::default()
    }
}

fn left_behind(options: &Options) -> WarmReport {
    let error = "it was told to end, and what it was at did not end in time";
    WarmReport { end: "stopped".into(), ..failed(options, error) }
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
