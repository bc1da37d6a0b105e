//! The clock that a ring is stamped with, and the way from it to CLOCK_MONOTONIC.
//!
//! Holds: the clock of a ring is never changed, that would empty it; every time that leaves this room is one of
//! CLOCK_MONOTONIC, the time since the kernel started.
//!
//! An instance of our own runs on `mono`. The boot's ring has what the command line asked for (`trace_clock=`);
//! an instance from the command line (`trace_instance=`) always has `local`. How far such a clock is from
//! CLOCK_MONOTONIC is measured whenever the ring is read, as the two drift: the ring's counters show its time.

use super::tracefs::{Instance, read_whole};
use super::wait::now_ns;
use crate::error::{Context, Error, Result};
use std::path::{Path, PathBuf};

/// Those that count nanoseconds, as kernels name them (`trace_clocks` in trace.c). `uptime` counts ticks,
/// `counter` events, and the processor's own its cycles.
const IN_NANOSECONDS: [&str; 6] = ["local", "global", "perf", "mono_raw", "boot", "tai"];

/// The measurement with the shortest way round is taken of so many: the others were interrupted.
const MEASUREMENTS: u32 = 3;

/// The clock of a ring.
#[derive(Debug)]
pub enum Clock {
    /// CLOCK_MONOTONIC itself.
    Mono,
    /// Another one in nanoseconds, so far behind CLOCK_MONOTONIC.
    Behind {
        /// Counters that show its time.
        stats: PathBuf,
        /// What is added to its time.
        offset_ns: i64,
    },
}

impl Clock {
    /// The clock that is set in an instance.
    pub fn of(instance: &Instance) -> Result<Clock> {
        let text = instance.read("trace_clock")?;
        match chosen(&text) {
            Some("mono") => Ok(Clock::Mono),
            Some(name) if IN_NANOSECONDS.contains(&name) => {
                // What `tracing_set_default_clock` of trace.c takes instead of `local`.
                if name == "global" {
                    tracing::warn!(
                        "the trace clock is `global`: the kernel may have changed it while it started, which \
                         empties the ring; the parameter trace_clock=mono keeps it from that"
                    );
                }
                let stats = instance.path("per_cpu/cpu0/stats");
                Ok(Clock::Behind { offset_ns: measure(&stats)?, stats })
            }
            other => {
                let name = other.unwrap_or("unknown");
                let path = instance.path("trace_clock");
                Err(Error::failed(format!("failed to use trace clock `{name}` of `{}`", path.display()))
                    .hint("give the kernel the parameter trace_clock=mono"))
            }
        }
    }

    /// Measures again.
    pub fn refresh(&mut self) -> Result<()> {
        if let Clock::Behind { stats, offset_ns } = self {
            *offset_ns = measure(stats)?;
        }
        Ok(())
    }

    /// A time of the ring as one of CLOCK_MONOTONIC.
    pub fn mono_ns(&self, ring_ns: u64) -> u64 {
        match self {
            Clock::Mono => ring_ns,
            Clock::Behind { offset_ns, .. } => ring_ns.saturating_add_signed(*offset_ns),
        }
    }
}

/// The name in brackets.
fn chosen(clocks: &str) -> Option<&str> {
    clocks.split_once('[')?.1.split_once(']').map(|(name, _)| name)
}

/// Nanoseconds in the line `now ts:  1195.414410`.
fn ring_now(stats: &str) -> Option<u64> {
    let value = stats.lines().find_map(|line| line.strip_prefix("now ts:"))?;
    let (s, us) = value.trim().split_once('.')?;
    let (s, us): (u64, u64) = (s.parse().ok()?, us.parse().ok().filter(|us| *us < 1_000_000)?);
    s.checked_mul(1_000_000_000)?.checked_add(us * 1_000)
}

fn measure(stats: &Path) -> Result<i64> {
    let mut best: Option<(u64, i64)> = None;
    for _ in 0..MEASUREMENTS {
        let before_ns = now_ns();
        let text = read_whole(stats).context(|| format!("failed to read `{}`", stats.display()))?;
        let way_ns = now_ns().saturating_sub(before_ns);
        let ring_ns = ring_now(&text).ok_or_else(|| {
            Error::failed(format!("failed to parse `{}`: it does not show the ring's time", stats.display()))
        })?;
        let offset_ns = (before_ns + way_ns / 2).wrapping_sub(ring_ns) as i64;
        if best.is_none_or(|(shortest_ns, _)| way_ns < shortest_ns) {
            best = Some((way_ns, offset_ns));
        }
    }
    Ok(best.map_or(0, |(_, offset_ns)| offset_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_in_brackets_is_the_one_in_use() {
        assert_eq!(
            chosen("local global counter uptime perf [mono] mono_raw boot tai x86-tsc\n"),
            Some("mono")
        );
        assert_eq!(chosen("[local] global"), Some("local"));
        assert_eq!((chosen(""), chosen("local ["), chosen("]mono[")), (None, None, None));
    }

    #[test]
    fn the_counters_show_the_time_of_the_ring() {
        let stats = "entries: 50\noldest event ts:     3.341836\nnow ts:     5.210153\ndropped events: 0\n";
        assert_eq!(ring_now(stats), Some(5_210_153_000));
        for bad in ["", "now ts: 17", "now ts: 1.9999999", "now ts: 99999999999999.1", "now ts: a.b"] {
            assert_eq!(ring_now(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_is_measured_against_the_one_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let place = || Instance::adopt(dir.path().to_path_buf());
        let clock = |text: &str| {
            write("trace_clock", text);
            let place = std::mem::ManuallyDrop::new(place());
            Clock::of(&place)
        };
        write("per_cpu/cpu0/stats", "now ts: 1.000000\n");
        assert!(matches!(clock("[mono]").unwrap(), Clock::Mono));
        let before_ns = now_ns();
        let local = clock("[local]").unwrap();
        let second = local.mono_ns(1_000_000_000);
        assert!(second >= before_ns && second <= now_ns(), "what it shows is now");
        assert_eq!(local.mono_ns(1_000_000_007) - second, 7);
        let error = clock("[counter]").unwrap_err().full_text();
        assert!(error.contains("`counter`") && error.contains("trace_clock=mono"), "{error}");
        write("per_cpu/cpu0/stats", "now ts: 17\n");
        assert!(clock("[local]").unwrap_err().full_text().contains("cpu0/stats"));
    }
}
