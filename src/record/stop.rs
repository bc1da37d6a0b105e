//! Reasons to stop recording.
//!
//! Holds: each is looked at in every period, whether events come or not. Times are arguments.

use super::wait::Signal;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// When to stop by itself.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    /// This long after the start.
    pub after: Option<Duration>,
    /// When there was no request for this long.
    pub idle: Option<Duration>,
    /// When this file exists.
    pub until_file: Option<PathBuf>,
    /// When this systemd unit is active, and so long after that.
    pub until_unit: Option<String>,
    pub linger: Duration,
}

/// Why it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The time was over.
    After(Duration),
    /// No request for so long.
    Idle(Duration),
    /// The file is there.
    File(PathBuf),
    /// The unit is active.
    Unit(String),
    /// The command ended.
    Command(ExitStatus),
    /// It was asked to.
    Signal(Signal),
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stopped::After(time) => write!(f, "{time:?} were over"),
            Stopped::Idle(time) => write!(f, "no request for {time:?}"),
            Stopped::File(path) => write!(f, "`{}` exists", path.display()),
            Stopped::Unit(unit) => write!(f, "unit `{unit}` is active"),
            Stopped::Command(status) => write!(f, "the command ended ({status})"),
            Stopped::Signal(signal) => match signal.number {
                libc::SIGINT => f.write_str("SIGINT"),
                libc::SIGTERM => f.write_str("SIGTERM"),
                libc::SIGHUP => f.write_str("SIGHUP"),
                number => write!(f, "signal {number}"),
            },
        }
    }
}

fn ns(duration: Duration) -> u64 {
    crate::units::as_ns(duration)
}

impl Stops {
    /// How long to wait for the next look: a period, or what is left of the time.
    pub fn next_look(&self, elapsed_ns: u64, period: Duration) -> Duration {
        let left = self.after.map_or(u64::MAX, |after| ns(after).saturating_sub(elapsed_ns));
        period.min(Duration::from_nanos(left))
    }

    /// The one that asks since when the unit is active; times since the kernel started.
    pub fn by_unit(&self, active_us: Option<u64>, now_ns: u64) -> Option<Stopped> {
        let until_ns = active_us?.saturating_mul(1_000).saturating_add(ns(self.linger));
        (now_ns >= until_ns).then(|| Stopped::Unit(self.until_unit.clone().unwrap_or_default()))
    }

    /// Those that need no event.
    pub fn before_drain(&self, elapsed_ns: u64) -> Option<Stopped> {
        if let Some(file) = self.until_file.as_ref().filter(|path| path.exists()) {
            return Some(Stopped::File(file.clone()));
        }
        self.after.filter(|after| elapsed_ns >= ns(*after)).map(Stopped::After)
    }

    /// The one that asks how long ago the last event was.
    pub fn after_drain(&self, idle_ns: u64) -> Option<Stopped> {
        self.idle.filter(|idle| idle_ns >= ns(*idle)).map(Stopped::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_holds_from_its_moment_on() {
        let second = Duration::from_secs(1);
        let stops = Stops { after: Some(second), idle: Some(second / 2), ..Stops::default() };
        assert_eq!(stops.before_drain(999_999_999), None);
        assert_eq!(stops.before_drain(1_000_000_000), Some(Stopped::After(second)));
        assert_eq!(stops.after_drain(499_999_999), None);
        assert_eq!(stops.after_drain(500_000_000), Some(Stopped::Idle(second / 2)));
        let period = Duration::from_millis(50);
        assert_eq!(stops.next_look(990_000_000, period), Duration::from_millis(10));
        assert_eq!(stops.next_look(0, period), period);
        assert_eq!(stops.next_look(2_000_000_000, period), Duration::ZERO);
    }

    #[test]
    fn a_unit_stops_it_when_it_is_active_and_the_rest_of_its_time_is_over() {
        let stops = Stops { until_unit: Some("a.service".into()), ..Stops::default() };
        let stopped = Some(Stopped::Unit("a.service".into()));
        assert_eq!(stops.by_unit(None, u64::MAX), None);
        assert_eq!(stops.by_unit(Some(5_000), 5_000_000), stopped);
        let stops = Stops { linger: Duration::from_secs(1), ..stops };
        assert_eq!(stops.by_unit(Some(5_000), 1_004_999_999), None);
        assert_eq!(stops.by_unit(Some(5_000), 1_005_000_000), stopped);
        assert_eq!(stops.by_unit(Some(u64::MAX), u64::MAX - 1), None);
    }

    #[test]
    fn a_file_stops_when_it_appears() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up");
        let stops = Stops { until_file: Some(path.clone()), ..Stops::default() };
        assert_eq!(stops.before_drain(u64::MAX), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(stops.before_drain(0), Some(Stopped::File(path)));
        assert_eq!(Stops::default().before_drain(u64::MAX), None);
    }
}
