//! `warm`, `plan`, `daemon` and `demo`, by the real program on emulated cold volumes behind loop devices: what they do
//! when all is well, and what when nothing is. The judge of what was warmed is the emulator's own list.

#![cfg(feature = "lab")]

#[cfg(feature = "control")]
mod daemon;
mod devices;
#[cfg(feature = "report")]
pub(crate) mod effect;
mod faults;
mod good;
#[cfg(feature = "control")]
mod hostile;
mod kernel;
mod known;
mod limits;
#[cfg(feature = "control")]
mod manager;
mod measure;
mod once;
mod outputs;
mod profiles;
mod several;
#[cfg(feature = "control")]
mod several_daemon;
mod signals;
mod syscalls;
mod vanish;

use crate::support::{BIN, ColdLoop, ebs, require_root};
use ebs_prewarm::device::Device;
use ebs_prewarm::extent::Extent;
use ebs_prewarm::lab::{self, Stats};
use ebs_prewarm::profile::{Entry, Profile, Stage, compiled};
use ebs_prewarm::volume::Region;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) const KIB: u64 = 1 << 10;
/// The unit that is assumed where none is given.
pub(crate) const UNIT: u64 = 512 * KIB;
/// Sectors of such a unit.
pub(crate) const UNIT_SECTORS: u64 = UNIT / 512;
/// Nothing here takes so long on any machine: what does has hung.
const HANG: Duration = Duration::from_secs(120);

/// A cold volume with a loop device on it, and room for a test's files.
pub(crate) struct Volume {
    pub(crate) cold: ColdLoop,
}

impl Volume {
    /// Of so many units of 512 KiB, all zeros.
    pub(crate) fn new(units: u64, model: &str, sets: &[&str]) -> Volume {
        Volume { cold: ColdLoop::sparse(units * UNIT, model, sets) }
    }

    pub(crate) fn device(&self) -> String {
        self.cold.device().to_str().unwrap().into()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.cold.file().scratch().join(name).to_str().unwrap().into()
    }

    pub(crate) fn stats(&self) -> Stats {
        lab::stats(self.cold.file().dir()).unwrap()
    }

    /// Units of the model that were read, in order of their numbers.
    pub(crate) fn hydrated(&self) -> Vec<u64> {
        self.stats().touched_units()
    }

    /// Waits until so many units were touched.
    pub(crate) fn wait_for(&self, units: usize) {
        self.wait_until(|stats| stats.touched.len() >= units);
    }

    /// Waits until the emulator says so.
    pub(crate) fn wait_until(&self, is: impl Fn(&Stats) -> bool) {
        wait_until("the emulator says so", || is(&self.stats()));
    }

    /// A compiled profile, unbound, of stages with ranges in bytes.
    pub(crate) fn profile(&self, stages: &[(&str, &[(u64, u64)])]) -> String {
        let sectors = Device::open(self.cold.device()).unwrap().sectors();
        let path = self.path("profile.bin");
        fs::write(&path, compiled::encode(&profile_of(sectors, stages))).unwrap();
        path
    }

    /// One that touches these units, at a place of each that is not its start.
    pub(crate) fn profile_of_units(&self, units: impl IntoIterator<Item = u64>) -> String {
        let ranges: Vec<(u64, u64)> =
            units.into_iter().map(|unit| (unit * UNIT + 64 * KIB, 8 * KIB)).collect();
        self.profile(&[("ready", &ranges)])
    }

    /// `warm --device DEVICE --report FILE` with further arguments, split at spaces.
    pub(crate) fn warm(&self, args: &str) -> Command {
        let mut command = self.verb("warm", args);
        command.args(["--report", &self.path("report.json")]);
        command
    }

    /// A verb on the device.
    pub(crate) fn verb(&self, verb: &str, args: &str) -> Command {
        let mut command = Command::new(BIN);
        command.args([verb, "--device", &self.device()]).args(args.split_whitespace());
        command
    }

    pub(crate) fn report(&self) -> Value {
        read_report(Path::new(&self.path("report.json")))
    }

    /// Makes it cold again.
    pub(crate) fn reset(&self) {
        self.cold.reset();
    }

    /// Cuts the connection of the filesystem that serves it: whoever reads gets an error.
    fn abort(&self) {
        let minor = libc::minor(fs::metadata(self.cold.file().dir()).unwrap().dev());
        let control = "/sys/fs/fuse/connections";
        if !Path::new(control).join(minor.to_string()).exists() {
            crate::support::run(Command::new("mount").args(["-t", "fusectl", "fusectl", control]));
        }
        fs::write(format!("{control}/{minor}/abort"), "1").unwrap();
    }

    /// The kernel's name of the loop device, as under /sys/block.
    pub(crate) fn loop_name(&self) -> String {
        self.device().trim_start_matches("/dev/").into()
    }
}

impl Drop for Volume {
    /// A read that stalls would keep the loop device and the mount for a minute.
    fn drop(&mut self) {
        if lab::stats(self.cold.file().dir()).is_ok_and(|stats| stats.in_flight > 0) {
            self.abort();
        }
    }
}

fn profile_of(sectors: u64, stages: &[(&str, &[(u64, u64)])]) -> Profile {
    let entry = |(offset, bytes): &(u64, u64)| Entry {
        region: 0,
        extent: Extent::of_bytes(*offset, *bytes).unwrap(),
        first_use_ms: 0,
        stall_ms: 0,
    };
    Profile {
        name: "test".into(),
        volume: None,
        regions: vec![Region { partuuid: None, fs_uuid: None, start: 0, sectors }],
        stages: stages
            .iter()
            .map(|(name, ranges)| Stage { name: (*name).into(), entries: ranges.iter().map(entry).collect() })
            .collect(),
        ..Profile::default()
    }
}

/// Reads a report: there, whole, and with an end.
pub(crate) fn read_report(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["schema"], 1);
    assert!(!report["end"].as_str().unwrap().is_empty(), "{text}");
    let dir = path.parent().unwrap();
    let left = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|name| name.ends_with(".tmp")).collect();
    assert!(left.is_empty(), "half-written files: {left:?}");
    report
}

/// Waits until something is so, which is looked at again and again.
fn wait_until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < HANG, "it did not come to it: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a process has something open whose name contains this.
fn wait_for_file(pid: i32, name: &str) {
    let is_it = |entry: std::io::Result<fs::DirEntry>| {
        entry
            .and_then(|entry| fs::read_link(entry.path()))
            .is_ok_and(|to| to.to_string_lossy().contains(name))
    };
    let is_open = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().any(is_it);
    wait_until(&format!("{name} is open"), is_open);
}

/// How a program ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        self.exits(0, &[]).out
    }

    /// Ended with the code, and all of this is on stderr.
    #[track_caller]
    pub(crate) fn exits(self, code: i32, named: &[&str]) -> Ran {
        let Ran { out, err, .. } = &self;
        assert_eq!((self.code, self.signal), (Some(code), None), "{out}{err}");
        assert!(!err.contains("panicked"), "{err}");
        for what in named {
            assert!(err.contains(what), "`{what}` is not in: {err}");
        }
        self
    }
}

/// A program under way; killed at the latest when the test ends.
pub(crate) struct Started {
    child: Child,
    out: Option<JoinHandle<String>>,
    err: Option<JoinHandle<String>>,
}

/// Starts it, with what it writes being read.
pub(crate) fn start(mut command: Command) -> Started {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    start_as_is(command)
}

fn start_as_is(mut command: Command) -> Started {
    fn reader(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let child = crate::support::heeding_signals(&mut command).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (child.stdout.take().map(reader), child.stderr.take().map(reader));
    Started { child, out, err }
}

impl Started {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: plain numbers; the child was not waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        let start = Instant::now();
        while !self.has_ended() {
            assert!(start.elapsed() < HANG, "it hung");
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.child.wait().unwrap();
        let text =
            |reader: Option<JoinHandle<String>>| reader.map_or_else(String::new, |it| it.join().unwrap());
        let (out, err) = (text(self.out.take()), text(self.err.take()));
        Ran { code: status.code(), signal: status.signal(), out, err }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(command: Command) -> Ran {
    start(command).end()
}

pub(crate) fn number(value: &Value, path: &str) -> u64 {
    let found = value.pointer(path).unwrap_or_else(|| panic!("no {path} in {value}"));
    found.as_u64().unwrap_or_else(|| panic!("{path} is {found}"))
}

pub(crate) fn seconds(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).unwrap_or_else(|| panic!("no {path} in {value}"));
    found.as_f64().unwrap_or_else(|| panic!("{path} is {found}"))
}

pub(crate) fn set(units: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    units.into_iter().collect()
}
