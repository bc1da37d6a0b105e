//! `record`: which disk, until when, to which file.

use super::common::parsed;
use super::output::{Output, tell};
use crate::device::{Device, DeviceNumber, disk_path, whole_disk};
use crate::error::{Context, Error, Result};
use crate::extent::Extent;
use crate::files;
use crate::record::{Options, Session, Signals, Stopped, Stops, forward};
use crate::recording::{Recording, Summary, format};
use crate::units::parse_duration;
use crate::volume::Identity;
use clap::Parser;
use serde::Serialize;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Record which blocks of a disk are touched, when, and how long each read waited
///
/// Stops at the first condition met: --for, --idle, --until-unit, --until-file, the end of COMMAND, SIGINT, SIGTERM
/// or SIGHUP. Then the file is written, and COMMAND, if it still runs, is waited for. A signal is passed on to
/// COMMAND. The exit code is 1 when COMMAND fails; the recording is written all the same.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  ebs-prewarm record -o boot.rec --idle 10s
  ebs-prewarm record -o app.rec --device /dev/nvme1n1 -- find /data -type f
  ebs-prewarm record -o boot.rec --boot-ring --until-unit multi-user.target --linger 10s --for 10m

Needs root and tracefs (mount -t tracefs tracefs /sys/kernel/tracing).

For --boot-ring give the kernel these parameters, on 5.10 and newer:
  trace_event=block:block_rq_issue,block:block_rq_complete trace_buf_size=8M trace_clock=mono
The size is for each processor and holds some 60,000 requests; it is given back when the recording ends. Without
trace_clock=mono the kernel may change the clock while it starts, which empties the ring. From 6.3 on an instance
works as well:
  trace_instance=ebs-prewarm,block:block_rq_issue,block:block_rq_complete trace_buf_size=8M")]
pub struct Args {
    /// File to write; it appears whole or not at all
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Disk to record; a partition stands for its whole disk, `auto` for the disk that carries /
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: PathBuf,
    /// Begin with what the kernel traced since it started, as its parameters below tell it to
    ///
    /// Where it did not, recording begins now, the file is written, and the exit code is 1.
    #[arg(long)]
    boot_ring: bool,
    /// Stop after this time
    #[arg(long = "for", value_name = "TIME", value_parser = parsed(parse_duration))]
    after: Option<Duration>,
    /// Stop when there was no request for this time
    #[arg(long, value_name = "TIME", value_parser = parsed(parse_duration))]
    idle: Option<Duration>,
    /// Stop when this file exists
    #[arg(long, value_name = "PATH")]
    until_file: Option<PathBuf>,
    /// Stop when this systemd unit is active; a name without a suffix is a service's
    #[arg(long, value_name = "UNIT", value_parser = parse_unit)]
    until_unit: Option<String>,
    /// Go on for this time after --until-unit; what is touched then is of the stage `later`
    #[arg(long, value_name = "TIME", value_parser = parsed(parse_duration), requires = "until_unit")]
    linger: Option<Duration>,
    /// Command to run and record; with --json its output goes to standard error
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct Done {
    file: PathBuf,
    file_bytes: usize,
    stopped: String,
    #[serde(flatten)]
    summary: Summary,
}

/// A disk that has request events of its own.
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) number: DeviceNumber,
    sectors: u64,
}

/// Runs the verb.
pub fn run(args: Args, output: Output) -> Result<()> {
    let root = Path::new("/");
    let disk = find_disk(root, &args.device)?;
    files::check_writable(&args.output)?;
    let signals = Signals::hold()?;
    let options = Options {
        device: disk.number.kernel(),
        own_threads: vec![std::process::id()],
        ring_bytes: None,
        boot_ring: args.boot_ring,
        ..Options::default()
    };
    let mut session = Session::start(root, &options)?;
    let mut child = spawn(&args.command, &signals, output)?;
    tell(format_args!("recording {} ({})", disk.path.display(), disk.number));
    let stops = Stops {
        after: args.after,
        idle: args.idle,
        until_file: args.until_file,
        until_unit: args.until_unit,
        linger: args.linger.unwrap_or_default(),
    };
    let stopped = session.run(&stops, &signals, child.as_mut())?;
    if let (Stopped::Signal(signal), Some(child)) = (&stopped, &child)
        && !signal.from_terminal
    {
        forward(child, signal.number);
    }
    let finished = session.finish()?;
    let mut recording = finished.recording;
    recording.header.device = disk.path.display().to_string();
    // Only now: recognising the volume reads from it.
    let mut volume = identity(root, &disk, &recording);
    // A disk that shrank meanwhile: what was touched is kept all the same.
    let end = recording.touches().map(|touch| touch.extent.end()).max().unwrap_or(0);
    volume.sectors = volume.sectors.max(end);
    recording.header.volume = Some(volume);
    warn_of_losses(&recording);
    let bytes = format::encode(&recording);
    files::write_atomically(&args.output, &bytes)?;
    let summary = Summary::of(&recording);
    let done = Done { file: args.output, file_bytes: bytes.len(), stopped: stopped.to_string(), summary };
    output.print(&done, |done| {
        let (file, bytes) = (done.file.display(), done.file_bytes);
        format!("{}stopped    {}\nwritten    {file}, {bytes} bytes", done.summary.text(), done.stopped)
    })?;
    let ended = child.map_or(Ok(()), |child| end_of_command(child, &args.command, &stopped, &signals));
    finished.undone?;
    finished.no_boot_ring.map_or(Ok(()), Err)?;
    ended
}

/// Bytes of a unit's name (`UNIT_NAME_MAX` of systemd, with its final zero).
const UNIT_NAME_BYTES_MAX: usize = 255;

/// What a unit's name ends in.
const UNIT_KINDS: [&str; 11] = [
    "service",
    "target",
    "socket",
    "mount",
    "automount",
    "device",
    "swap",
    "timer",
    "path",
    "slice",
    "scope",
];

/// A unit's name as systemd has it.
pub(super) fn parse_unit(text: &str) -> Result<String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ":-_.\\@".contains(letter);
    if text.is_empty() || text.len() > UNIT_NAME_BYTES_MAX || !text.chars().all(is_plain) {
        return Err(Error::usage(format!("`{}` is no name of a unit", text.escape_debug()))
            .hint("name it as systemctl does, such as multi-user.target"));
    }
    let is_whole = text.rsplit_once('.').is_some_and(|(_, kind)| UNIT_KINDS.contains(&kind));
    Ok(if is_whole { text.to_owned() } else { format!("{text}.service") })
}

pub(super) fn find_disk(root: &Path, named: &Path) -> Result<Disk> {
    let device = Device::open(&disk_path(root, named)?)?;
    let shown = device.path().display();
    let number = device.number().ok_or_else(|| {
        Error::failed(format!("failed to record `{shown}`: an image file has no request events"))
            .hint("attach it and name the loop device: losetup -f --show FILE")
    })?;
    // A node outside /dev, made by mknod, may be that of a partition too.
    let number = whole_disk(root, number)?.number;
    Ok(Disk { path: device.path().into(), number, sectors: device.sectors() })
}

fn spawn(command: &[OsString], signals: &Signals, output: Output) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(arguments);
    if output.json {
        command.stdout(Stdio::from(std::io::stderr()));
    }
    let child = signals.spawn(&mut command);
    child.map(Some).context(|| format!("failed to run command `{}`", program.to_string_lossy()))
}

/// What the volume is recognised by. A disk that is gone by now keeps its size alone.
pub(super) fn identity(root: &Path, disk: &Disk, recording: &Recording) -> Identity {
    let of_size = |error: Error| {
        tracing::warn!("{}; the recording is bound to the size alone", error.full_text());
        Identity::of_size(disk.sectors)
    };
    let device = match Device::open(&disk.path) {
        Ok(device) => device,
        Err(error) => return of_size(error),
    };
    let bare = match device.identity(root, |_| false) {
        Ok(identity) => identity,
        Err(error) => return of_size(error),
    };
    // Each filesystem that is looked up is a first read of a cold volume: only where something was touched.
    let touched = |partuuid: &str| {
        let partition = bare.partitions.iter().find(|part| part.partuuid.as_deref() == Some(partuuid));
        let place = partition.and_then(|part| Extent::at(part.start, part.sectors));
        place.is_some_and(|place| recording.touches().any(|touch| touch.extent.overlaps(place)))
    };
    device.identity(root, touched).unwrap_or_else(of_size)
}

fn warn_of_losses(recording: &Recording) {
    let header = &recording.header;
    for (cpu, lost) in header.lost_by_cpu.iter().enumerate().filter(|(_, lost)| **lost > 0) {
        tracing::warn!("CPU {cpu} lost {lost} events: what they touched is missing from the recording");
    }
    if header.overflowed > 0 {
        tracing::warn!("{} first touches did not fit into the recording", header.overflowed);
    }
    if recording.touches.is_empty() {
        tracing::warn!("nothing was touched on `{}` while it was recorded", header.device);
    }
}

/// Waits for the command and passes signals on until it ends.
fn end_of_command(
    mut child: Child,
    command: &[OsString],
    stopped: &Stopped,
    signals: &Signals,
) -> Result<()> {
    let mut passed_on = match stopped {
        Stopped::Signal(signal) => Some(signal.number),
        _ => None,
    };
    let shown = || command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let status: ExitStatus = loop {
        let status = child.try_wait().context(|| format!("failed to wait for command `{}`", shown()))?;
        if let Some(status) = status {
            break status;
        }
        if let Some(signal) = signals.wait(crate::record::PERIOD) {
            passed_on = Some(signal.number);
            if !signal.from_terminal {
                forward(&child, signal.number);
            }
        }
    };
    // Ended by the signal that ended us: as it was asked to.
    if status.success() || (passed_on.is_some() && status.signal() == passed_on) {
        return Ok(());
    }
    Err(Error::failed(format!("failed to run command `{}`: {status}", shown()))
        .hint("the recording was written; whether it is of use is for you to say"))
}
