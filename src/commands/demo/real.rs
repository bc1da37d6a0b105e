//! The demo on a real block device: each step is the command that a user would give.

use super::{Findings, workload};
use crate::cold::Model;
use crate::commands::output::tell;
use crate::error::{Context, Error, Result};
use crate::lab::{LoopDevice, LoopOptions, Mount, Options};
use crate::units::{ByteSize, as_s};
use crate::{process, record};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Size of the volume: sparse, of which a tenth is written.
const VOLUME_BYTES: u64 = 2 << 30;

/// How often a child is looked at, and for how long after a signal: two seconds.
const POLL: Duration = Duration::from_millis(10);
const STOP_POLLS: u32 = 200;

/// Where systems mount tracefs.
const TRACEFS: &str = "/sys/kernel/tracing";

/// What this machine lacks for the real thing.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !process::is_root() {
        missing.push("root, for loop devices, mounts and tracing".into());
        return missing;
    }
    for (path, what) in
        [("/dev/fuse", "FUSE (modprobe fuse)"), ("/dev/loop-control", "loop devices (modprobe loop)")]
    {
        if !Path::new(path).exists() {
            missing.push(what.into());
        }
    }
    if !Path::new(TRACEFS).is_dir() {
        missing.push(format!("tracing in the kernel ({TRACEFS})"));
    }
    for program in ["mkfs.ext4", "mount", "umount"] {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
            .iter()
            .any(|dir| Path::new(dir).join(program).exists());
        if !found {
            missing.push(format!("{program} (package e2fsprogs or util-linux)"));
        }
    }
    missing
}

/// A directory that goes away at the end.
struct Workplace(PathBuf);

impl Workplace {
    fn new() -> Result<Workplace> {
        let path = std::env::temp_dir().join(format!("ebs-prewarm-demo-{}", std::process::id()));
        fs::create_dir(&path).context(|| format!("failed to create folder `{}`", path.display()))?;
        Ok(Workplace(path))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.at(name);
        fs::create_dir(&path).context(|| format!("failed to create folder `{}`", path.display()))?;
        Ok(path)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::error!("failed to remove `{}`: {error}", self.0.display());
        }
    }
}

/// Containers and bare systems have not mounted tracefs: mounted for the demo, unmounted after it.
struct Tracefs {
    ours: bool,
}

impl Tracefs {
    fn ensure() -> Result<Tracefs> {
        let ours = record::available(Path::new("/")).is_err();
        if ours {
            workload::call("mount", &["-t", "tracefs", "tracefs", TRACEFS].map(Path::new))?;
        }
        Ok(Tracefs { ours })
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = workload::call("umount", &[Path::new(TRACEFS)])
        {
            tracing::error!("{}", error.full_text());
        }
    }
}

struct Stage {
    exe: PathBuf,
    mount: PathBuf,
    seconds: PathBuf,
    // Before the volume: dropped in this order.
    device: LoopDevice,
    volume: Mount,
}

impl Drop for Stage {
    /// A workload that was killed has left its filesystem mounted, and with it the device in use.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if mounts.contains(&format!(" {} ", self.mount.display()))
            && let Err(error) = workload::call("umount", &[&self.mount])
        {
            tracing::error!("{}", error.full_text());
        }
    }
}

/// A child that does not outlive us: what it holds open is ours to take away.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            process::terminate(&self.0);
            let _ = self.0.wait();
        }
    }
}

impl Stage {
    fn tell(&self, arguments: &[&str]) {
        tell(format_args!("$ ebs-prewarm {}", arguments.join(" ")));
    }

    fn ours(&self, arguments: &[&str]) -> Result<()> {
        self.tell(arguments);
        finished(self.start(arguments)?, arguments)
    }

    fn start(&self, arguments: &[&str]) -> Result<Running> {
        if process::stop_asked() {
            return Err(stopped());
        }
        let mut command = Command::new(&self.exe);
        command.args(arguments).stdout(Stdio::null());
        command.spawn().map(Running).context(|| format!("failed to run `{}`", self.exe.display()))
    }

    fn workload_arguments(&self) -> [&str; 5] {
        ["demo", "--workload", self.device_text(), path_text(&self.mount), path_text(&self.seconds)]
    }

    fn device_text(&self) -> &str {
        path_text(self.device.path())
    }

    /// Runs the workload and gives its seconds.
    fn workload(&self, name: &str) -> Result<f64> {
        tell(format_args!("  running the workload ({name})"));
        finished(self.start(&self.workload_arguments())?, &["demo", "--workload"])?;
        self.took()
    }

    fn took(&self) -> Result<f64> {
        let text =
            fs::read_to_string(&self.seconds).context(|| "failed to read the workload's time".into())?;
        text.parse().map_err(|_| Error::failed(format!("failed to parse the workload's time `{text}`")))
    }

    /// Cold again: the volume, and what the kernel has kept of the device.
    fn reset(&self) -> Result<()> {
        self.device.forget_cached()?;
        self.volume.reset()
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn stopped() -> Error {
    Error::failed("failed to finish the demo: stopped by a signal")
}

/// Waits for its end. After a signal it gets a moment to end by itself, since a terminal tells it too.
fn finished(mut child: Running, arguments: &[&str]) -> Result<()> {
    let shown = arguments.join(" ");
    let mut patience = STOP_POLLS;
    let status = loop {
        let ended = child.0.try_wait().context(|| format!("failed to wait for `ebs-prewarm {shown}`"))?;
        if let Some(status) = ended {
            break status;
        }
        if process::stop_asked() {
            patience -= 1;
            if patience == 0 {
                return Err(stopped());
            }
        }
        std::thread::sleep(POLL);
    };
    match status.success() {
        _ if process::stop_asked() => Err(stopped()),
        true => Ok(()),
        false => Err(Error::failed(format!("failed to run `ebs-prewarm {shown}`: {status}"))),
    }
}

/// The whole job.
pub fn run(model: Model) -> Result<Findings> {
    process::stop_on_signals();
    let place = Workplace::new()?;
    let _tracefs = Tracefs::ensure()?;
    tell(format_args!(
        "making a volume of 2 GiB with a filesystem on it, cold as the model {} says",
        model.name
    ));
    let image = make_image(&place)?;
    let volume = Mount::new(&image, &place.folder("volume")?, model.clone(), 1, Options::default())?;
    let loop_options = LoopOptions { read_only: true, direct_io: true, ..LoopOptions::default() };
    let device = LoopDevice::attach(&volume.volume_path(), loop_options)?;
    let exe = std::env::current_exe().context(|| "failed to find this program".into())?;
    let stage = Stage { exe, mount: place.folder("mnt")?, seconds: place.at("seconds"), volume, device };
    let file = |name: &str| path_text(&place.at(name)).to_string();
    let (recording, profile, compiled) = (file("demo.rec"), file("demo.yaml"), file("demo.bin"));
    let report = file("warm.json");

    stage.reset()?;
    let mut arguments =
        vec!["record", "-o", &recording, "--device", stage.device_text(), "--", path_text(&stage.exe)];
    arguments.extend(stage.workload_arguments());
    stage.ours(&arguments)?;
    let cold_s = stage.took()?;
    let units_hydrated = stage.volume.stats()?.counters.hydrated;
    stage.ours(&["profile", "build", "-o", &profile, &recording])?;
    stage.ours(&["profile", "compile", "-o", &compiled, &profile])?;

    stage.reset()?;
    // As a user says who has measured it: the bound is that of units of the model.
    let unit = ByteSize(model.unit_bytes).to_string();
    let mut warm = vec!["warm", "--profile", &compiled, "--device", stage.device_text(), "--report", &report];
    warm.extend(["--unit", &unit]);
    stage.ours(&warm)?;
    let warmed = read_report(&place.at("warm.json"))?;
    let warmed_s = stage.workload("warmed")?;
    let already_warm_s = stage.workload("already warm")?;

    stage.reset()?;
    stage.tell(&warm);
    let beside = stage.start(&warm)?;
    let alongside_s = stage.workload("with warming alongside")?;
    finished(beside, &warm)?;

    let units = warmed["totals"]["units"].as_u64().unwrap_or(0);
    let profile_bytes = fs::metadata(&compiled).map(|metadata| metadata.len()).unwrap_or(0);
    Ok(Findings {
        simulated: false,
        missing: Vec::new(),
        units_recorded: units,
        units_hydrated,
        unit_bytes: model.unit_bytes,
        profile_bytes,
        cold_s,
        warmed_s,
        alongside_s: Some(alongside_s),
        already_warm_s,
        warming_s: warmed["totals"]["elapsed_s"].as_f64().unwrap_or(0.0),
        bound_s: as_s(model.bound_ns(units)),
        model: model.name,
        ..Findings::default()
    })
}

fn read_report(path: &Path) -> Result<serde_json::Value> {
    let fail = || format!("failed to read report `{}`", path.display());
    serde_json::from_slice(&fs::read(path).context(fail)?).context(fail)
}

fn make_image(place: &Workplace) -> Result<PathBuf> {
    let tree = place.folder("tree")?;
    workload::make_tree(&tree)?;
    let image = place.at("image");
    File::create(&image)
        .and_then(|file| file.set_len(VOLUME_BYTES))
        .context(|| format!("failed to make `{}`", image.display()))?;
    let output = Command::new("mkfs.ext4").arg("-q").arg("-d").args([&tree, &image]).output();
    let output = output.context(|| "failed to run `mkfs.ext4`".into())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Error::failed(format!("failed to make a filesystem: {said}")));
    }
    fs::remove_dir_all(&tree).context(|| format!("failed to remove `{}`", tree.display()))?;
    Ok(image)
}
