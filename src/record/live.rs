//! What others read of a disk while it is being warmed, told at once; and kept, for whoever asks later what the warming did
//! for them.
//!
//! Holds: the warming waits for nothing here, and where tracing is refused it goes on without; tracing is left on, in an
//! instance that goes by the device, for the process that goes on with it.

use super::{Options, Requests, Session};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::recording::Recording;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::fs::File;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

/// A unit is asked for some tens of milliseconds: what the boot has begun is known before half of that is over.
const PERIOD: Duration = Duration::from_millis(10);
/// Of memory for each CPU's ring, which stays when the process is gone: 17,000 requests, of which a boot has as many.
const RING_BYTES: usize = 2 << 20;
/// Extents that were not taken yet; what does not fit is read twice, no more.
const SEEN_MAX: usize = 1 << 16;

/// What was seen until it was handed over.
#[derive(Debug)]
pub struct Watched {
    /// First touches of others.
    pub recording: Recording,
    /// All that the warming asked for, and all that others did.
    pub own: Requests,
    pub foreign: Requests,
    /// Keeps off whoever would go on: to be closed when what was seen is where that one looks for it.
    pub lock: Option<File>,
}

/// A thread that listens.
#[derive(Debug)]
pub struct Live {
    stop: Sender<()>,
    thread: JoinHandle<Result<Watched>>,
}

impl Live {
    /// Listens to a disk from now on; what others read comes out of the channel.
    pub fn start(root: PathBuf, device: u32) -> Result<(Live, Receiver<Extent>)> {
        let (stop, stopped) = bounded::<()>(1);
        let (others, seen) = bounded(SEEN_MAX);
        let options = Options {
            device,
            own_process: true,
            ring_bytes: Some(RING_BYTES),
            lasting: true,
            others: Some(others),
            ..Options::default()
        };
        // To switch it on takes the kernel some milliseconds, in which the first reads are under way.
        let listen = move || {
            let mut session = Session::start(&root, &options)?;
            loop {
                session.drain()?;
                match stopped.recv_timeout(PERIOD) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            session.leave()
        };
        let thread = std::thread::Builder::new().name("listen".into()).spawn(listen);
        let thread = thread.map_err(|error| Error::failed("failed to start a thread").because(error))?;
        Ok((Live { stop, thread }, seen))
    }

    /// Takes what there is and leaves tracing on.
    pub fn hand_over(self) -> Result<Watched> {
        let _ = self.stop.try_send(());
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::failed("failed to listen: the thread has broken off")))
    }
}
