//! What systemd is told: when the chosen stage is warm, how far it is, that it lives, that it ends.
//!
//! Holds: nothing here waits; what was not taken is told again; without a manager nothing is told.

use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// How often the state is told where it has changed.
const STATUS_NS: u64 = 1_000_000_000;

/// What the environment of the process says.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `NOTIFY_SOCKET`.
    pub socket: Option<std::ffi::OsString>,
    /// `WATCHDOG_USEC`.
    pub watchdog_us: Option<String>,
    /// `WATCHDOG_PID`.
    pub watchdog_pid: Option<String>,
}

impl Environment {
    /// Of this process.
    pub fn of_process() -> Environment {
        let text = |name| std::env::var(name).ok();
        Environment {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_us: text("WATCHDOG_USEC"),
            watchdog_pid: text("WATCHDOG_PID"),
        }
    }

    /// How often a sign of life is due: at half the time after which one is missed.
    fn watchdog_ns(&self, pid: u32) -> Option<u64> {
        let is_ours = self.watchdog_pid.as_ref().is_none_or(|text| text.parse() == Ok(pid));
        let us: u64 = self.watchdog_us.as_ref()?.parse().ok()?;
        (is_ours && us > 0).then(|| us.saturating_mul(1000) / 2)
    }
}

/// What holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Whether what others may wait for is there, or will not come.
    pub ready: bool,
    /// Whether it ends.
    pub stopping: bool,
    /// A line for people.
    pub status: String,
}

/// Knows what was told, and so what is to be told. Pure.
#[derive(Debug, Default)]
struct Duties {
    told: Option<Now>,
    status_at_ns: u64,
    watchdog_ns: Option<u64>,
    watchdog_at_ns: u64,
}

impl Duties {
    /// What is due, if anything.
    fn due(&self, time_ns: u64, now: &Now) -> Option<String> {
        let told = self.told.as_ref();
        let mut lines = Vec::new();
        if now.ready && !told.is_some_and(|told| told.ready) {
            lines.push("READY=1".to_string());
        }
        if now.stopping && !told.is_some_and(|told| told.stopping) {
            lines.push("STOPPING=1".into());
        }
        let status_due = told.is_none_or(|told| {
            told.status != now.status && time_ns.saturating_sub(self.status_at_ns) >= STATUS_NS
        });
        if status_due || !lines.is_empty() {
            // The end of a line is the end of what is told.
            lines.push(format!("STATUS={}", now.status.replace(char::is_control, " ")));
        }
        if self
            .watchdog_ns
            .is_some_and(|every_ns| told.is_none() || time_ns.saturating_sub(self.watchdog_at_ns) >= every_ns)
        {
            lines.push("WATCHDOG=1".into());
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// A message was taken.
    fn told(&mut self, time_ns: u64, message: &str, now: &Now) {
        let says = |what: &str| message.lines().any(|line| line.starts_with(what));
        let before = self.told.take();
        let status = match before {
            Some(before) if !says("STATUS=") => before.status,
            _ => {
                self.status_at_ns = time_ns;
                now.status.clone()
            }
        };
        if says("WATCHDOG=") {
            self.watchdog_at_ns = time_ns;
        }
        self.told = Some(Now { status, ..now.clone() });
    }
}

/// Tells the manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    duties: Duties,
}

impl Notifier {
    /// Where the manager wants to be told; `None` where there is none.
    pub fn of(environment: &Environment, pid: u32) -> Result<Option<Notifier>> {
        let Some(name) = environment.socket.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let fail = || format!("failed to reach the manager at `{}`", name.display());
        let opened = address(name).and_then(|manager| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, manager))
        });
        let (socket, manager) = opened.map_err(|error| {
            Error::failed(fail())
                .hint("NOTIFY_SOCKET names a socket by its path, or after an @")
                .because(error)
        })?;
        let watchdog_ns = environment.watchdog_ns(pid);
        Ok(Some(Notifier { socket, manager, duties: Duties { watchdog_ns, ..Duties::default() } }))
    }

    /// Tells what is due; what the manager does not take now is due once more.
    pub fn tell(&mut self, time_ns: u64, now: &Now) {
        let Some(message) = self.duties.due(time_ns, now) else { return };
        match self.socket.send_to_addr(message.as_bytes(), &self.manager) {
            Ok(_) => self.duties.told(time_ns, &message, now),
            Err(error) => tracing::debug!("the manager did not take a message: {error}"),
        }
    }
}

fn address(name: &OsStr) -> std::io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(std::io::Error::from(std::io::ErrorKind::Unsupported)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn now(ready: bool, stopping: bool, status: &str) -> Now {
        Now { ready, stopping, status: status.into() }
    }

    /// Tells in virtual time; gives what was said and when.
    fn told(duties: &mut Duties, steps: &[(u64, Now)]) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        for (at, now) in steps {
            if let Some(message) = duties.due(*at, now) {
                duties.told(*at, &message, now);
                all.push((*at, message));
            }
        }
        all
    }

    #[test]
    fn each_thing_is_told_once_and_the_state_not_too_often() {
        let steps = [
            (0, now(false, false, "a")),
            (1, now(false, false, "b")),
            (S, now(false, false, "b")),
            (S + 1, now(true, false, "c\nSTOPPING=1")),
            (3 * S, now(true, false, "c\nSTOPPING=1")),
            (3 * S + 1, now(true, true, "d")),
            (9 * S, now(true, true, "d")),
        ];
        let all = told(&mut Duties::default(), &steps);
        let expected = [
            (0, "STATUS=a"),
            (S, "STATUS=b"),
            (S + 1, "READY=1\nSTATUS=c STOPPING=1"),
            (3 * S + 1, "STOPPING=1\nSTATUS=d"),
        ];
        assert_eq!(all, expected.map(|(at, text)| (at, text.to_string())));
    }

    #[test]
    fn a_sign_of_life_comes_at_half_the_time_and_is_ours_alone() {
        let with = |us: &str, pid: Option<&str>| Environment {
            watchdog_us: Some(us.into()),
            watchdog_pid: pid.map(Into::into),
            ..Environment::default()
        };
        assert_eq!(with("4000000", None).watchdog_ns(7), Some(2 * S));
        assert_eq!(with("4000000", Some("7")).watchdog_ns(7), Some(2 * S));
        assert_eq!(with("4000000", Some("8")).watchdog_ns(7), None);
        assert_eq!((with("0", None).watchdog_ns(7), with("x", None).watchdog_ns(7)), (None, None));
        let mut duties = Duties { watchdog_ns: Some(2 * S), ..Duties::default() };
        let steps: Vec<(u64, Now)> = (0..100).map(|step| (step * S / 10, now(false, false, "a"))).collect();
        let times: Vec<u64> = told(&mut duties, &steps)
            .into_iter()
            .filter(|(_, message)| message.contains("WATCHDOG=1"))
            .map(|(at, _)| at / S)
            .collect();
        assert_eq!(times, [0, 2, 4, 6, 8]);
    }

    #[test]
    fn what_was_not_taken_is_due_again() {
        let duties = Duties::default();
        let ready = now(true, false, "a");
        assert_eq!(duties.due(0, &ready), duties.due(1, &ready));
    }

    #[test]
    fn a_manager_is_reached_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("ebs-prewarm-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (manager, socket) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            let environment = Environment { socket: Some(socket), ..Environment::default() };
            let mut notifier = Notifier::of(&environment, 1).unwrap().unwrap();
            notifier.tell(0, &now(true, false, "a"));
            let mut message = [0; 100];
            let bytes = manager.recv(&mut message).unwrap();
            assert_eq!(&message[..bytes], b"READY=1\nSTATUS=a");
        }
        assert!(Notifier::of(&Environment::default(), 1).unwrap().is_none());
        let other = Environment { socket: Some("vsock:2:1".into()), ..Environment::default() };
        assert!(Notifier::of(&other, 1).unwrap_err().full_text().contains("vsock:2:1"));
    }
}
