//! Clients: taken in, asked for their line, answered, and let go; and the round that looks after all of them.
//!
//! Holds: at most so many at once, each with a line of limited length and a time to send it and to take the answer; who
//! has not asked makes room for who comes; nothing of this is done by the thread that warms.

use super::metrics::{self, Counts};
use super::protocol::{self, Answer, LINE_BYTES_MAX, Request, WAIT_MAX, Waited};
use super::stream::Stream;
use super::volumes::Volumes;
use super::{CLIENTS_MAX, WAITERS_MAX};
use crate::process;
use crate::units::as_ns;
use crate::warm::Control;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// To send a line, and to take an answer: a client that lives needs a thousandth of it.
const CLIENT_NS_MAX: u64 = 5_000_000_000;
/// How often those who wait are looked after.
const WAIT_PERIOD: Duration = Duration::from_millis(20);
/// How often one who waits gets a sign of life.
const SIGN_NS: u64 = 1_000_000_000;
/// So many are taken in before those that came are asked; then the ring gets its turn.
const ACCEPTED_TOGETHER: usize = 16;
const ACCEPT_PAUSE: Duration = Duration::from_millis(1);
/// Where the kernel has no descriptor left.
const ACCEPT_FAILED_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It has not asked yet.
    Asks,
    /// It takes its answer.
    Takes,
    /// For a stage.
    Waits,
    /// It has asked for the end, and is told by that.
    Stays,
    /// Its connection is shut.
    Leaves,
}

struct Client {
    stream: Rc<Stream>,
    does: Does,
    until_ns: u64,
}

/// What clients see and what they may change.
pub struct Plane {
    pub volumes: Volumes,
    pub counts: Counts,
    control: &'static Control,
    /// Ends the warming.
    stop: &'static AtomicBool,
    started: Instant,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

/// One thread has it, and no borrow lives while something is awaited.
pub type Shared = Rc<RefCell<Plane>>;

impl Plane {
    /// Without clients.
    pub fn new(
        volumes: Volumes,
        control: &'static Control,
        stop: &'static AtomicBool,
        started: Instant,
    ) -> Shared {
        let (clients, counts) = (BTreeMap::new(), Counts::default());
        Rc::new(RefCell::new(Plane { volumes, counts, control, stop, started, clients, next: 0 }))
    }

    /// Since the daemon began.
    pub fn now_ns(&self) -> u64 {
        as_ns(self.started.elapsed())
    }

    /// Metrics as they are now.
    pub fn metrics(&self) -> String {
        let counts = Counts { clients: self.clients.len() as u64, ..self.counts.clone() };
        metrics::text(&self.volumes, &counts, process::cpu_s(), self.now_ns())
    }

    /// Asks the warming to end.
    pub fn end(&mut self) {
        self.volumes.stopping = true;
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Lets go whoever takes too long.
    pub fn sweep(&mut self) {
        let now_ns = self.now_ns();
        let slow = self.clients.values_mut().filter(|it| it.until_ns <= now_ns && it.does != Does::Leaves);
        for client in slow {
            client.does = Does::Leaves;
            client.stream.shut();
            self.counts.drop_one("slow");
        }
    }

    /// Whether somebody has yet to be told something.
    pub fn is_awaited(&self) -> bool {
        self.doing(&[Does::Takes, Does::Waits]) > 0
    }

    /// How many do one of that.
    fn doing(&self, does: &[Does]) -> usize {
        self.clients.values().filter(|client| does.contains(&client.does)).count()
    }

    /// Takes one in; the oldest that has not asked makes room. `None` where nobody can.
    fn take_in(&mut self, stream: Stream) -> Option<(u64, Rc<Stream>)> {
        if self.doing(&[Does::Asks, Does::Takes]) >= CLIENTS_MAX {
            self.counts.drop_one("crowded");
            let oldest = self.clients.values_mut().find(|client| client.does == Does::Asks)?;
            oldest.does = Does::Leaves;
            oldest.stream.shut();
        }
        let (number, stream) = (self.next, Rc::new(stream));
        self.next += 1;
        let until_ns = self.now_ns() + CLIENT_NS_MAX;
        self.clients.insert(number, Client { stream: stream.clone(), does: Does::Asks, until_ns });
        Some((number, stream))
    }

    /// What a client does from now on, and for how long at most.
    fn does(&mut self, number: u64, does: Does, for_ns: u64) {
        let until_ns = self.now_ns().saturating_add(for_ns);
        if let Some(client) = self.clients.get_mut(&number).filter(|client| client.does != Does::Leaves) {
            (client.does, client.until_ns) = (does, until_ns);
        }
    }

    /// What is answered at once; `None` where that takes time.
    fn answer(&mut self, request: &Request) -> Option<Answer> {
        self.counts.request(request.verb());
        Some(match request {
            Request::Status {} => self.status(),
            Request::Metrics {} => Answer::Metrics(self.metrics()),
            Request::Pause {} if self.volumes.have_ended() => {
                Answer::Error("there is nothing to pause".into())
            }
            Request::Pause {} => self.pause(true),
            Request::Resume {} => self.pause(false),
            Request::Stop {} => {
                self.end();
                Answer::Done("it ends".into())
            }
            Request::Wait { .. } if self.doing(&[Does::Waits, Does::Stays]) >= WAITERS_MAX => {
                Answer::Error(format!("{WAITERS_MAX} wait already"))
            }
            Request::Wait { .. } => return None,
        })
    }

    fn status(&self) -> Answer {
        Answer::Status(Box::new(self.volumes.status(self.now_ns())))
    }

    fn pause(&mut self, pause: bool) -> Answer {
        self.control.pause.store(pause, Ordering::Relaxed);
        self.volumes.pause(pause);
        Answer::Done(if pause { "it waits" } else { "it goes on" }.into())
    }
}

/// Takes clients in, for ever.
pub async fn accept(plane: Shared, listener: UnixListener, ring: bool) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("failed to listen: {error}; nobody is answered"),
    };
    loop {
        for _ in 0..ACCEPTED_TOGETHER {
            match listener.accept().await.and_then(|(accepted, _)| Stream::new(accepted, ring)) {
                Ok(stream) => {
                    let taken_in = plane.borrow_mut().take_in(stream);
                    if let Some((number, stream)) = taken_in {
                        tokio::task::spawn_local(client(plane.clone(), number, stream));
                    }
                }
                Err(error) => {
                    tracing::debug!("failed to take in a client: {error}");
                    sleep(ACCEPT_FAILED_PAUSE).await;
                }
            }
        }
        sleep(ACCEPT_PAUSE).await;
    }
}

/// The whole of one client.
async fn client(plane: Shared, number: u64, stream: Rc<Stream>) {
    let stays = match ask(&plane, &stream).await {
        Some(request) => answer(&plane, number, &stream, request).await,
        None => false,
    };
    // Who asked for the end is told of it by the end of the process.
    if !stays {
        plane.borrow_mut().clients.remove(&number);
        stream.shut();
    }
}

/// What it asks; it is told where that cannot be understood.
async fn ask(plane: &Shared, stream: &Stream) -> Option<Request> {
    let mut buffer = Vec::with_capacity(LINE_BYTES_MAX);
    let why = loop {
        let (result, read) = stream.read(buffer).await;
        buffer = read;
        if !matches!(result, Ok(bytes) if bytes > 0) {
            return None;
        }
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            match protocol::request(&buffer[..end]) {
                Ok(request) => return Some(request),
                Err(error) => break ("request", error.full_text()),
            }
        }
        if buffer.len() >= LINE_BYTES_MAX {
            break ("line", format!("a request has at most {LINE_BYTES_MAX} bytes"));
        }
    };
    plane.borrow_mut().counts.drop_one(why.0);
    // Where it does not take that either, it is let go as slow.
    let _ = stream.write_all(protocol::line(&Answer::Error(why.1))).await;
    None
}

/// Answers; whether the client stays until the end.
async fn answer(plane: &Shared, number: u64, stream: &Stream, request: Request) -> bool {
    let (answer, stays) = {
        let mut plane = plane.borrow_mut();
        plane.does(number, Does::Takes, CLIENT_NS_MAX);
        (plane.answer(&request), request == Request::Stop {})
    };
    let answer = match (answer, request) {
        (Some(answer), _) => answer,
        (None, Request::Wait { stage, timeout_ms }) => {
            let wait = Duration::from_millis(timeout_ms).min(WAIT_MAX);
            match wait_for(plane, number, stream, &stage, as_ns(wait)).await {
                Some(waited) => Answer::Waited(waited),
                None => return false,
            }
        }
        (None, _) => return false,
    };
    let taken = stream.write_all(protocol::line(&answer)).await.is_ok();
    if stays && taken {
        plane.borrow_mut().does(number, Does::Stays, u64::MAX);
    }
    stays && taken
}

/// Waits for a stage; `None` where the client has gone.
async fn wait_for(plane: &Shared, number: u64, stream: &Stream, stage: &str, for_ns: u64) -> Option<Waited> {
    let until_ns = plane.borrow().now_ns().saturating_add(for_ns);
    let mut sign_ns = 0;
    plane.borrow_mut().does(number, Does::Waits, u64::MAX);
    loop {
        let (waited, now_ns, status) = {
            let plane = plane.borrow();
            (plane.volumes.stage(stage), plane.now_ns(), plane.status())
        };
        if waited != (Waited::Timeout {}) || now_ns >= until_ns {
            plane.borrow_mut().does(number, Does::Takes, CLIENT_NS_MAX);
            return Some(waited);
        }
        if now_ns >= sign_ns {
            let Answer::Status(status) = status else { return None };
            plane.borrow_mut().does(number, Does::Waits, CLIENT_NS_MAX);
            stream.write_all(protocol::line(&Answer::Waiting(status))).await.ok()?;
            plane.borrow_mut().does(number, Does::Waits, u64::MAX);
            sign_ns = now_ns + SIGN_NS;
        }
        sleep(WAIT_PERIOD).await;
    }
}
