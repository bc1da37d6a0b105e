//! Those who ask a daemon: with a time after which they go on without an answer, whatever the daemon does.
//!
//! Holds: nothing here waits longer than it was told to, or a second, where somebody listens; an answer is read up to its
//! limit.

use super::protocol::{self, ANSWER_BYTES_MAX, Answer, Request, Waited};
use super::status::Status;
use crate::error::{Error, Kind, Result};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A daemon that lives answers within a thousandth of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// To ask once takes far less, and on a machine that is busy booting perhaps as much: also for who does not want to wait.
const TO_ASK: Duration = Duration::from_secs(1);
/// How often it is asked again where it lets us go without an answer: others may have crowded in.
const TRIES: u32 = 5;
/// How often a daemon that is not there yet is looked for.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// A connection, and until when it is of interest.
struct Connection {
    stream: UnixStream,
    until: Instant,
    /// Read, and not looked at yet.
    bytes: Vec<u8>,
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Connects. A daemon that hangs takes nobody in: the kernel would have us wait for ever.
fn connect(path: PathBuf, until: Instant) -> io::Result<UnixStream> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("connect".into()).spawn(move || {
        let _ = sender.send(UnixStream::connect(path));
    })?;
    receiver.recv_timeout(left(until)?).unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

impl Connection {
    /// Where nobody listens, that shows at once.
    fn new(path: &Path, until: Instant, request: &Request) -> io::Result<Connection> {
        let until = until.max(Instant::now() + TO_ASK);
        let mut stream = connect(path.into(), until)?;
        stream.set_write_timeout(Some(left(until)?))?;
        stream.write_all(&protocol::line(request))?;
        Ok(Connection { stream, until, bytes: Vec::new() })
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.bytes[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.bytes.drain(..=searched + end).collect();
                line.pop();
                return Ok(Some(line));
            }
            searched = self.bytes.len();
            if self.bytes.len() > ANSWER_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.stream.set_read_timeout(Some(left(self.until)?))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(bytes) => self.bytes.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// It was there, let us go without an answer, and is there no more.
const HAS_ENDED: io::ErrorKind = io::ErrorKind::NotConnected;

fn is_absent(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is_let_go(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(kind, UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn failed(path: &Path, cause: io::Error) -> Error {
    let shown = path.display();
    let kind = cause.kind();
    if is_absent(kind) {
        return Error::new(Kind::NoDaemon, format!("failed to find a daemon at `{shown}`"))
            .hint("start one with `ebs-prewarm daemon`, or name its socket with --socket")
            .because(cause);
    }
    let error = Error::new(
        if kind == io::ErrorKind::TimedOut { Kind::Deadline } else { Kind::Failed },
        format!("failed to ask the daemon at `{shown}`"),
    );
    match kind {
        io::ErrorKind::PermissionDenied => error.hint("run it as the user who runs the daemon, or as root"),
        io::ErrorKind::TimedOut => error.hint("it hangs, or is stopped: look at its process"),
        _ => error,
    }
    .because(cause)
}

/// Asks, and gives the answer.
pub fn ask(path: &Path, request: &Request) -> Result<Answer> {
    let (_, line) = asked(path, request).map_err(|error| failed(path, error))?;
    understood(path, protocol::answer(&line)?)
}

/// A question, with the first line of the answer.
fn asked(path: &Path, request: &Request) -> io::Result<(Connection, Vec<u8>)> {
    let until = Instant::now() + PATIENCE;
    let mut tries = 1;
    loop {
        match asked_once(path, until, request) {
            Ok(asked) => return Ok(asked),
            Err(error) if is_let_go(error.kind()) && tries < TRIES => tries += 1,
            Err(error) if is_absent(error.kind()) && tries > 1 => return Err(HAS_ENDED.into()),
            Err(error) => return Err(error),
        }
        std::thread::sleep(LOOK_PERIOD);
    }
}

fn asked_once(path: &Path, until: Instant, request: &Request) -> io::Result<(Connection, Vec<u8>)> {
    let mut connection = Connection::new(path, until, request)?;
    match connection.line()? {
        Some(line) => Ok((connection, line)),
        None if connection.bytes.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        // Half an answer is no reason to ask again.
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn understood(path: &Path, answer: Answer) -> Result<Answer> {
    match answer {
        Answer::Error(error) => Err(Error::failed(format!(
            "failed to ask the daemon at `{}`: {}",
            path.display(),
            super::status::plain(&error)
        ))),
        answer => Ok(answer),
    }
}

/// Asks it to end, and waits until it has.
pub fn stop(path: &Path) -> Result<()> {
    let (mut connection, line) = match asked(path, &Request::Stop {}) {
        Ok(asked) => asked,
        Err(error) if error.kind() == HAS_ENDED => return Ok(()),
        Err(error) => return Err(failed(path, error)),
    };
    understood(path, protocol::answer(&line)?)?;
    // The connection ends with the process.
    match connection.line() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(failed(path, error)),
    }
}

/// Waits until a stage is warm, for so long, and for a daemon that is not there yet. Who looks on is told how far it is.
pub fn wait(path: &Path, stage: &str, timeout: Duration, look: &mut dyn FnMut(&Status)) -> Result<()> {
    let until = Instant::now() + timeout.min(protocol::WAIT_MAX);
    let (mut seen, mut tries) = (false, 1);
    loop {
        let error = match wait_once(path, stage, until, &mut seen, look) {
            Ok(done) => return done,
            Err(error) => error,
        };
        // Not there yet, killed and to be started again, or stopped in mid-answer.
        let again = is_absent(error.kind()) || is_let_go(error.kind());
        let timed_out = error.kind() == io::ErrorKind::TimedOut;
        if !again && !timed_out {
            return Err(failed(path, error));
        }
        let let_go = is_let_go(error.kind()) && tries < TRIES;
        let left = until.saturating_duration_since(Instant::now());
        if timed_out || left.is_zero() && !let_go {
            return Err(too_late(path, stage, timeout, seen));
        }
        tries += u32::from(let_go);
        std::thread::sleep(if let_go { LOOK_PERIOD } else { LOOK_PERIOD.min(left) });
    }
}

fn too_late(path: &Path, stage: &str, timeout: Duration, seen: bool) -> Error {
    let for_s = timeout.as_secs_f64();
    if seen {
        return Error::new(Kind::Deadline, format!("failed to see stage `{stage}` warm within {for_s} s"))
            .hint("`ebs-prewarm status` shows how far it is; wait longer with --timeout");
    }
    Error::new(Kind::NoDaemon, format!("failed to find a daemon at `{}` within {for_s} s", path.display()))
        .hint("start one with `ebs-prewarm daemon`, or name its socket with --socket")
}

/// One connection's worth of waiting; the outer error is one of the connection.
fn wait_once(
    path: &Path,
    stage: &str,
    until: Instant,
    seen: &mut bool,
    look: &mut dyn FnMut(&Status),
) -> io::Result<Result<()>> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Wait { stage: stage.into(), timeout_ms };
    let mut connection = Connection::new(path, until, &request)?;
    loop {
        let line = connection.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer = match protocol::answer(&line).and_then(|answer| understood(path, answer)) {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        *seen = true;
        match answer {
            Answer::Waiting(status) => look(&status),
            Answer::Waited(Waited::Timeout {}) => return Err(io::ErrorKind::TimedOut.into()),
            Answer::Waited(waited) => return Ok(verdict(stage, waited)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn verdict(stage: &str, waited: Waited) -> Result<()> {
    match waited {
        Waited::Warm { errors: 0 } | Waited::Timeout {} => Ok(()),
        Waited::Warm { errors } => Err(Error::new(
            Kind::Unreadable,
            format!("failed to read all of stage `{stage}`: {errors} reads failed; all others are warm"),
        )),
        Waited::Never { reason } => Err(Error::new(
            Kind::NotWarm,
            format!(
                "failed to see stage `{stage}` warm: the warming ended before: {}",
                super::status::plain(&reason)
            ),
        )),
        Waited::Unknown { stages } => {
            let list = super::status::plain(&stages.join(", "));
            Err(Error::usage(format!("failed to find stage `{stage}`")).hint(format!("there are: {list}")))
        }
    }
}
