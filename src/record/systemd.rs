//! Watches for a systemd unit to become active, and asks for the moments of the boot.
//!
//! Holds: systemd is never waited for longer than [`ANSWER_WAIT`] while recording, and may come late, be busy, or
//! go away; no unit is loaded for our sake. Not here: the messages' bytes ([`super::dbus`]), what the moments
//! mean ([`super::stages`]). The root of `/run` is an argument.
//!
//! Why this way. systemd's own socket (`/run/systemd/private`) answers from the moment systemd is up, long before
//! there is a message bus, and knows every kind of unit; the file of a unit's invocation or its cgroup show only
//! that a service was started, not that it is ready. But to be asked costs process 1: measured on systemd 252, a
//! connection 2.5 ms of its processor time, a question on an open one 0.1 ms, and an open connection is sent
//! all news of all units, 0.5 ms for each unit that starts. So for a service the connection is opened when its
//! invocation (`/run/systemd/units/invocation:NAME`, to see which costs systemd nothing) shows that it is being
//! started, and closed after one question otherwise. For targets and other kinds it stays open, and the news
//! themselves say when to ask.

use super::dbus::{self, Call, Kind, Message};
use super::stages::BootTimes;
use super::wait::now_ns;
use crate::error::{Context, Error, Result};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one look may wait for an answer, which takes well below a millisecond; one that takes longer is
/// picked up by the next look.
const ANSWER_WAIT: Duration = Duration::from_millis(20);
/// How long the moments of the boot are waited for, once, when recording is over.
const BOOT_TIMES_WAIT: Duration = Duration::from_secs(5);
/// Looks until an open connection is asked although nothing was heard: a second, should news be lost.
const LOOKS_UNASKED: u32 = 20;
/// Looks until systemd is tried again after it refused or hung up: a second.
const LOOKS_AFTER_ERROR: u32 = 20;
/// Looks until a service that is not being started is asked for all the same, as one that starts and ends between
/// two looks is never seen: five seconds.
const LOOKS_CLOSED: u32 = 100;

const MANAGER: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// What is asked of a unit.
const UNIT_PROPERTIES: [&str; 3] =
    ["ActiveState", "ActiveEnterTimestampMonotonic", "InactiveEnterTimestampMonotonic"];

fn socket(root: &Path) -> PathBuf {
    root.join("run/systemd/private")
}

/// A connection.
#[derive(Debug)]
struct Talk {
    stream: UnixStream,
    received: Vec<u8>,
    /// What is sent when we are let in.
    held: Option<Vec<u8>>,
    serial: u32,
}

impl Talk {
    fn open(socket: &Path) -> Result<Talk> {
        let connect = || -> io::Result<UnixStream> {
            let mut stream = UnixStream::connect(socket)?;
            // The few bytes of a question always fit; a wait here would be a systemd that hangs.
            stream.set_write_timeout(Some(ANSWER_WAIT))?;
            stream.write_all(dbus::AUTHENTICATE)?;
            Ok(stream)
        };
        let stream =
            connect().context(|| format!("failed to connect to systemd at `{}`", socket.display()))?;
        Ok(Talk { stream, received: Vec::new(), held: Some(Vec::new()), serial: 0 })
    }

    /// Sends a call; its number.
    fn call(&mut self, call: &Call<'_>) -> Result<u32> {
        self.serial += 1;
        let bytes = call.encode(self.serial);
        match &mut self.held {
            Some(held) => held.extend_from_slice(&bytes),
            None => self.send(&bytes)?,
        }
        Ok(self.serial)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context(|| "failed to ask systemd".into())
    }

    fn call_unit(&mut self, unit: &str) -> Result<u32> {
        let call =
            Call { path: MANAGER, interface: MANAGER_INTERFACE, member: "GetUnit", arguments: &[unit] };
        self.call(&call)
    }

    fn call_property(&mut self, path: &str, interface: &str, name: &str) -> Result<u32> {
        self.call(&Call { path, interface: PROPERTIES, member: "Get", arguments: &[interface, name] })
    }

    /// The next message; `None` when there is none by then.
    fn receive(&mut self, until: Instant) -> Result<Option<Message>> {
        loop {
            if self.held.is_some() {
                if let Some(length) = dbus::authenticated(&self.received)? {
                    self.received.drain(..length);
                    let held = self.held.take().unwrap_or_default();
                    self.send(&held)?;
                }
            } else if let Some((message, length)) = dbus::next(&self.received)? {
                self.received.drain(..length);
                return Ok(Some(message));
            }
            let left = until.saturating_duration_since(Instant::now());
            if !self.read_more(left)? {
                return Ok(None);
            }
        }
    }

    /// Whether more came within this time; none is wasted when it is zero.
    fn read_more(&mut self, wait: Duration) -> Result<bool> {
        let mut buffer = [0; 16 << 10];
        let wait_ever = (!wait.is_zero()).then_some(wait);
        let mut read = || {
            self.stream.set_nonblocking(wait_ever.is_none())?;
            self.stream.set_read_timeout(wait_ever)?;
            self.stream.read(&mut buffer)
        };
        match read() {
            Ok(0) => Err(Error::failed("failed to hear from systemd: it closed the connection")),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                // What is sent while nothing is read does not block us either.
                self.stream.set_nonblocking(false).context(|| "failed to set up a socket".into())?;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.stream.set_nonblocking(false).context(|| "failed to set up a socket".into())?;
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error).context(|| "failed to hear from systemd".into()),
        }
    }

    /// The answer to a call, waited for.
    fn answer(&mut self, serial: u32, until: Instant) -> Result<Message> {
        while let Some(message) = self.receive(until)? {
            if message.reply_to == serial && matches!(message.kind, Kind::Return | Kind::Error) {
                return Ok(message);
            }
        }
        Err(Error::failed("failed to hear from systemd in time"))
    }
}

/// Moments of the boot; asked when recording is over. Those of a unit that is not loaded are `None`.
pub fn boot_times(root: &Path, unit: Option<&str>) -> Result<BootTimes> {
    let until = Instant::now() + BOOT_TIMES_WAIT;
    let mut talk = Talk::open(&socket(root))?;
    let serial = talk.call_property(MANAGER, MANAGER_INTERFACE, "UserspaceTimestampMonotonic")?;
    let userspace_us = talk.answer(serial, until)?.number().filter(|us| *us > 0);
    let mut active = |unit: &str| -> Result<Option<u64>> {
        let serial = talk.call_unit(unit)?;
        let answer = talk.answer(serial, until)?;
        let Some(path) = answer.object() else { return Ok(None) };
        let serial = talk.call_property(path, UNIT_INTERFACE, UNIT_PROPERTIES[1])?;
        Ok(talk.answer(serial, until)?.number().filter(|us| *us > 0))
    };
    let sysinit_us = active("sysinit.target")?;
    let unit_us = unit.map(&mut active).transpose()?.flatten();
    Ok(BootTimes { userspace_us, sysinit_us, unit_us })
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    state: String,
    active_us: u64,
    inactive_us: u64,
}

/// What was asked last.
#[derive(Debug)]
enum Asked {
    /// Nothing that is not answered; so many looks ago.
    Nothing { looks: u32 },
    /// The unit's object.
    Unit { serial: u32 },
    /// Its properties, the first by this number.
    Properties { first: u32, answer: Answer },
}

/// An open connection and what is asked on it.
#[derive(Debug)]
struct Open {
    talk: Talk,
    asked: Asked,
    /// The unit's object, once it is known.
    path: String,
}

impl Open {
    fn new(socket: &Path, unit: &str) -> Result<Open> {
        let mut talk = Talk::open(socket)?;
        let serial = talk.call_unit(unit)?;
        Ok(Open { talk, asked: Asked::Unit { serial }, path: String::new() })
    }

    /// What systemd says, if it says something by now. The outer `None` is no news, the inner an unknown unit.
    fn news(&mut self, unit: &str) -> Result<Option<Option<Answer>>> {
        if let Asked::Nothing { looks } = &mut self.asked {
            *looks += 1;
            if *looks >= LOOKS_UNASKED {
                self.ask(unit)?;
            }
        }
        let until = Instant::now() + ANSWER_WAIT;
        loop {
            let quiet = matches!(self.asked, Asked::Nothing { .. });
            let Some(message) = self.talk.receive(if quiet { Instant::now() } else { until })? else {
                return Ok(None);
            };
            if let Some(news) = self.take(&message, unit)? {
                return Ok(Some(news));
            }
            // However much there is to hear, the rings want to be read.
            if Instant::now() > until {
                return Ok(None);
            }
        }
    }

    fn ask(&mut self, unit: &str) -> Result<()> {
        self.asked = Asked::Unit { serial: self.talk.call_unit(unit)? };
        Ok(())
    }

    fn take(&mut self, message: &Message, unit: &str) -> Result<Option<Option<Answer>>> {
        let is_answer = matches!(message.kind, Kind::Return | Kind::Error);
        // From the unit, or that it was loaded.
        let is_about =
            message.kind == Kind::Signal && (message.path == self.path || message.text() == Some(unit));
        match &mut self.asked {
            // While an answer is awaited it is newer than any news that comes before it.
            Asked::Nothing { .. } if is_about => self.ask(unit)?,
            Asked::Unit { serial } if is_answer && message.reply_to == *serial => {
                let Some(path) = message.object() else {
                    self.asked = Asked::Nothing { looks: 0 };
                    return Ok(Some(None));
                };
                self.path = path.to_owned();
                let mut first = None;
                for name in UNIT_PROPERTIES {
                    let serial = self.talk.call_property(&self.path, UNIT_INTERFACE, name)?;
                    first.get_or_insert(serial);
                }
                self.asked = Asked::Properties { first: first.unwrap_or(0), answer: Answer::default() };
            }
            Asked::Properties { first, answer } if is_answer => match message.reply_to.checked_sub(*first) {
                Some(0) => answer.state = message.string().unwrap_or_default().to_owned(),
                Some(1) => answer.active_us = message.number().unwrap_or(0),
                Some(2) => {
                    answer.inactive_us = message.number().unwrap_or(0);
                    let answer = std::mem::take(answer);
                    self.asked = Asked::Nothing { looks: 0 };
                    return Ok(Some(Some(answer)));
                }
                _ => {}
            },
            _ => {}
        }
        Ok(None)
    }
}

/// Watches a unit.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    unit: String,
    open: Option<Open>,
    /// Where the invocation of a service shows, under its own name instead of an alias.
    invocation: Option<PathBuf>,
    was_invoked: bool,
    was_activating: bool,
    /// Since when it was active and inactive by the first answer, or when it last failed: what is later is news.
    known_us: Option<(u64, u64)>,
    /// Looks until systemd is asked without a reason.
    looks_left: u32,
}

impl Watch {
    /// Watches a unit, which systemd need not know yet; nor need systemd be up.
    pub fn new(root: &Path, unit: &str) -> Watch {
        let mut watch = Watch {
            root: root.into(),
            unit: unit.into(),
            open: None,
            invocation: None,
            was_invoked: false,
            was_activating: false,
            known_us: None,
            looks_left: 0,
        };
        watch.set_name(unit);
        watch
    }

    /// Takes the unit's own name for what it may be an alias of.
    fn set_name(&mut self, name: &str) {
        let is_service = name.ends_with(".service") && !name.contains('/');
        self.invocation =
            is_service.then(|| self.root.join("run/systemd/units").join(format!("invocation:{name}")));
    }

    /// Since when it is active, in microseconds since the kernel started. To be asked once in a period.
    pub fn look(&mut self) -> Option<u64> {
        if self.open.is_none() {
            if !self.is_due() {
                return None;
            }
            let open = Open::new(&socket(&self.root), &self.unit);
            self.open = self.or_later(open);
        }
        let news = self.open.as_mut()?.news(&self.unit);
        let news = self.or_later(news)??;
        self.judge(news)
    }

    /// Whether an answer is awaited: then it is worth looking again soon.
    pub fn is_waiting(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !matches!(open.asked, Asked::Nothing { .. }))
    }

    /// A value, or a new try after a while.
    fn or_later<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                tracing::debug!("{}; trying again", error.full_text());
                self.close(LOOKS_AFTER_ERROR);
            })
            .ok()
    }

    fn close(&mut self, looks: u32) {
        self.open = None;
        self.looks_left = looks;
        self.was_invoked = self.is_invoked();
    }

    fn is_invoked(&self) -> bool {
        // A link to nowhere: its target is the invocation's id.
        self.invocation.as_ref().is_some_and(|path| path.symlink_metadata().is_ok())
    }

    fn is_due(&mut self) -> bool {
        // The systemd of an initramfs has units of the same names.
        if !socket(&self.root).exists() || self.root.join("etc/initrd-release").exists() {
            return false;
        }
        let is_invoked = self.is_invoked();
        let is_new = is_invoked && !std::mem::replace(&mut self.was_invoked, is_invoked);
        self.looks_left = self.looks_left.saturating_sub(1);
        is_new || self.looks_left == 0
    }

    /// What an answer means.
    fn judge(&mut self, answer: Option<Answer>) -> Option<u64> {
        if let Some(name) = self.open.as_ref().and_then(|open| dbus::unit_of(&open.path)) {
            self.set_name(&name);
        }
        let since_or_now = |since_us: u64| Some(if since_us > 0 { since_us } else { now_ns() / 1_000 });
        let answer = answer.unwrap_or_else(|| Answer { state: "gone".into(), ..Answer::default() });
        let Answer { state, active_us, inactive_us } = answer;
        let was_activating = std::mem::replace(&mut self.was_activating, state == "activating");
        let known_us = *self.known_us.get_or_insert((active_us, inactive_us));
        if state == "failed" {
            self.known_us = Some((active_us, inactive_us));
        }
        match state.as_str() {
            "active" | "reloading" | "refreshing" => since_or_now(active_us),
            // One that does its work and ends was ready when it ended; the failed are kept as such.
            "inactive" | "gone" if was_activating => since_or_now(inactive_us),
            // It came and went between two questions.
            "inactive" if active_us > known_us.0 => Some(active_us),
            "inactive" if inactive_us > known_us.1 => Some(inactive_us),
            "inactive" | "failed" | "gone" if self.invocation.is_some() => {
                self.close(LOOKS_CLOSED);
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;
