//! A mounted cold volume, served by threads of this process.

use super::attach::{Detached, attach, detach, own_descriptors};
use super::client;
use super::clock::{fire_timers_when_due, monotonic_ns, run_first};
use super::files::{Files, VOLUME};
use super::image::Image;
use super::server::Server;
use super::stats::Stats;
use crate::cold::{ColdVolume, Model, sectors_of};
use crate::error::{Context, Error, Result};
use crate::extent::ExtentSet;
use fuser::{Config, Session};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Threads that take requests from the kernel; more would only take turns on the law's lock.
const SESSIONS: usize = 2;
/// Workers that answer in due time: one waits while the others move data, of which one may wait for its disk.
const WORKERS: usize = 4;
/// How long a dropped mount waits for whoever still has it open. A loop device closes its file a moment after
/// it was detached.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);
const BUSY_POLL: Duration = Duration::from_millis(10);
/// Reads of nothing that measure the way through the mount; their shortest settles well before so many.
const WAY_READS: u32 = 200;
/// What is taken for the way at most. Later reads may be faster than the measured ones, when a thread is woken on
/// the reader's own processor, and none may be answered before its law. Of 400,000 reads of nothing, on one
/// processor and on two, idle and loaded, the shortest took 8.5 us (AMD EPYC, virtual machine).
const WAY_NS_MAX: u64 = 8_000;

/// How a volume is mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Writes go to the image; without, they are refused.
    pub writable: bool,
    /// The holes of a sparse image are units that the snapshot does not hold.
    pub holes_unallocated: bool,
    /// This process has no other purpose: it is named in the statistics, and an unmounting waits for its end.
    pub daemon: bool,
}

/// A mounted cold volume; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    server: Option<JoinHandle<Result<()>>>,
    ended: Receiver<()>,
}

/// All that the server's thread needs.
struct Plan {
    image: PathBuf,
    dir: PathBuf,
    model: Model,
    seed: u64,
    options: Options,
    way_ns: Arc<AtomicU64>,
}

impl Mount {
    /// Mounts `image` on the empty directory `dir`; it can be used when this returns.
    pub fn new(image: &Path, dir: &Path, model: Model, seed: u64, options: Options) -> Result<Mount> {
        let dir = empty_directory(dir)?;
        let way_ns = Arc::new(AtomicU64::new(0));
        let plan =
            Plan { image: image.into(), dir: dir.clone(), model, seed, options, way_ns: way_ns.clone() };
        let (ready, is_ready) = sync_channel(1);
        let (end, ended) = sync_channel::<()>(1);
        let server = std::thread::Builder::new()
            .name("lab".into())
            .spawn(move || {
                // Dropped at the end, which is what the receiver waits for.
                let _end = end;
                serve(plan, &ready)
            })
            .context(|| "failed to start the server's thread".into())?;
        match is_ready.recv() {
            Ok(()) => {
                let mount = Mount { dir, server: Some(server), ended };
                way_ns.store(mount.measure_way()?, Ordering::Relaxed);
                Ok(mount)
            }
            Err(_) => {
                ended_well(server)?;
                Err(Error::failed(format!("failed to mount on `{}`", dir.display())))
            }
        }
    }

    /// The shortest time that a read past the end took, which the server answers at once and does not count, or
    /// the little that is safe to assume.
    fn measure_way(&self) -> Result<u64> {
        let failed = || format!("failed to read the volume mounted on `{}`", self.dir.display());
        let volume = File::open(self.volume_path()).context(failed)?;
        let end = volume.metadata().context(failed)?.len();
        let mut shortest_ns = WAY_NS_MAX;
        for _ in 0..WAY_READS {
            let before_ns = monotonic_ns();
            volume.read_at(&mut [0], end).context(failed)?;
            shortest_ns = shortest_ns.min(monotonic_ns() - before_ns);
        }
        Ok(shortest_ns)
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that holds the volume's bytes.
    pub fn volume_path(&self) -> PathBuf {
        self.dir.join(VOLUME)
    }

    /// What the emulator says of itself.
    pub fn stats(&self) -> Result<Stats> {
        client::stats(&self.dir)
    }

    /// Makes the volume cold again and forgets what was counted.
    pub fn reset(&self) -> Result<()> {
        client::reset(&self.dir)
    }

    /// Unmounts it, or says who has it open.
    pub fn unmount(mut self) -> Result<()> {
        self.unmount_within(BUSY_WAIT_MAX)
    }

    /// Waits until somebody unmounts it.
    pub fn wait_unmounted(mut self) -> Result<()> {
        // Nothing is ever sent: the sender is dropped when the server ends.
        let _ = self.ended.recv();
        self.server.take().map_or(Ok(()), ended_well)
    }

    fn unmount_within(&mut self, wait: Duration) -> Result<()> {
        let until_ns = monotonic_ns() + crate::units::as_ns(wait);
        while detach(&self.dir, false)? == Detached::Busy {
            if monotonic_ns() >= until_ns {
                return Err(client::busy(Path::new("/"), &self.dir));
            }
            std::thread::sleep(BUSY_POLL);
        }
        self.server.take().map_or(Ok(()), ended_well)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.server.is_none() {
            return;
        }
        if let Err(error) = self.unmount_within(BUSY_WAIT_MAX) {
            tracing::warn!("{}; the mount goes when it is closed", error.full_text());
            if let Err(error) = detach(&self.dir, true) {
                tracing::warn!("{}", error.full_text());
            }
        }
    }
}

fn ended_well(server: JoinHandle<Result<()>>) -> Result<()> {
    server.join().unwrap_or_else(|_| Err(Error::failed("failed to serve the volume: a thread panicked")))
}

/// The directory's full path, if a volume can be mounted there.
fn empty_directory(dir: &Path) -> Result<PathBuf> {
    let failed = || format!("failed to mount on `{}`", dir.display());
    let mut entries = std::fs::read_dir(dir).map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT) => format!("make it first: `mkdir {}`", dir.display()),
            Some(libc::ENOTCONN) => {
                format!("a killed emulator left it: `ebs-prewarm lab umount {}`", dir.display())
            }
            _ => "give an empty directory".into(),
        };
        Error::failed(failed()).hint(hint).because(error)
    })?;
    if entries.next().is_some() {
        return Err(Error::failed(failed()).because("the directory is not empty").hint(
            "give an empty directory; if a volume is mounted there already, `ebs-prewarm lab umount` it",
        ));
    }
    dir.canonicalize().context(failed)
}

/// The server's life. All that it opens lives and dies on this thread and those it starts.
fn serve(plan: Plan, ready: &SyncSender<()>) -> Result<()> {
    own_descriptors()?;
    // The threads started from here inherit it.
    run_first();
    let Plan { image: path, dir, model, seed, options, way_ns } = plan;
    let image = Image::open(&path, options.writable)?;
    let holes = if options.holes_unallocated { image.holes()? } else { ExtentSet::new() };
    let law = ColdVolume::new(model, sectors_of(image.bytes), seed, holes);
    let server = Arc::new(Server::new(law, image, seed, way_ns));
    let files = Files {
        server: server.clone(),
        image: path.display().to_string(),
        daemon_pid: options.daemon.then(std::process::id),
        mounted: SystemTime::now(),
        open_stats: Default::default(),
        next_handle: Default::default(),
    };
    let (connection, acl) = attach(&dir)?;
    let mut config = Config::default();
    config.n_threads = Some(SESSIONS);
    config.clone_fd = true;
    let failed = || format!("failed to serve the volume on `{}`", dir.display());
    let session = Session::from_fd(files, connection, acl, config).context(failed).inspect_err(|_| {
        let _ = detach(&dir, true);
    })?;
    let workers: Vec<_> = (0..WORKERS).map_while(|number| start_worker(&server, number)).collect();
    let ran = if workers.is_empty() {
        let _ = detach(&dir, true);
        Err(Error::failed("failed to start the threads that answer"))
    } else {
        let _ = ready.send(());
        session.run().context(failed)
    };
    server.stop();
    for worker in workers {
        let _ = worker.join();
    }
    ran
}

fn start_worker(server: &Arc<Server>, number: usize) -> Option<JoinHandle<()>> {
    let server = server.clone();
    let builder = std::thread::Builder::new().name(format!("lab-{number}"));
    let run = move || {
        fire_timers_when_due();
        server.work();
    };
    builder.spawn(run).ok()
}
