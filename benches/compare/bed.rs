//! What is read: volumes that the emulator serves from a process of its own, and loop devices.

use super::run;
use ebs_prewarm::error::{Context, Error, Result};
use ebs_prewarm::lab::{self, LoopDevice, LoopOptions, Stats};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A fetch with the worst tail of the models used here is over by then.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// A loop device closes its file a moment after it was detached.
const UNMOUNT_MAX: Duration = Duration::from_secs(5);

/// A directory that goes away, with a name for each file in it.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Result<Place> {
        tempfile::tempdir().map(Place).context(|| "failed to make a folder for the benchmark".into())
    }

    /// In memory, where reads wait for nothing.
    pub fn in_memory() -> Result<Place> {
        tempfile::tempdir_in("/dev/shm").map(Place).context(|| "failed to make a folder in /dev/shm".into())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same as text: the folder's name is made of ASCII.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// A file of holes.
    pub fn image(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.path(name);
        let made = File::create(&path).and_then(|file| file.set_len(bytes));
        made.context(|| format!("failed to make `{}`", path.display()))?;
        Ok(path)
    }
}

/// A cold volume: a file of the emulator, and a loop device on it.
pub struct Cold {
    device: Option<LoopDevice>,
    dir: PathBuf,
    model: ebs_prewarm::cold::Model,
}

impl Cold {
    /// Mounts an image in `place`, by a process of its own.
    pub fn mount(place: &Place, image: &Path, model: &str, seed: u64, sets: &[&str]) -> Result<Cold> {
        let dir = place.path("cold");
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).context(|| format!("failed to make `{}`", dir.display()));
            }
            _ => {}
        }
        let mut known = ebs_prewarm::cold::Model::named(model)?;
        let mut command = std::process::Command::new(run::BINARY);
        command.arg("lab").arg("mount").arg(image).arg(&dir).args(["--model", model]);
        command.args(["--seed", &seed.to_string()]);
        for set in sets {
            let (key, value) = set.split_once('=').ok_or_else(|| Error::usage(format!("no value: {set}")))?;
            known.set(key, value)?;
            command.args(["--set", set]);
        }
        // Not through a pipe: the emulator would keep it open.
        let status = command.stdout(std::process::Stdio::null()).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(Error::failed(format!("failed to mount the emulator: {status}"))),
            Err(error) => return Err(error).context(|| "failed to mount the emulator".into()),
        }
        let mut cold = Cold { device: None, dir, model: known };
        cold.device = Some(LoopDevice::attach(&cold.file(), LoopOptions::default())?);
        Ok(cold)
    }

    /// The law it obeys.
    pub fn model(&self) -> &ebs_prewarm::cold::Model {
        &self.model
    }

    /// The emulator's file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("volume")
    }

    /// The loop device on it.
    pub fn device(&self) -> PathBuf {
        self.device.as_ref().map_or_else(PathBuf::new, |device| device.path().into())
    }

    /// Never read, for the kernel and for the volume.
    pub fn reset(&self) -> Result<()> {
        if let Some(device) = &self.device {
            device.forget_cached()?;
        }
        self.quiet()?;
        lab::reset(&self.dir)
    }

    pub fn stats(&self) -> Result<Stats> {
        lab::stats(&self.dir)
    }

    /// What it says once no fetch is under way any more.
    pub fn quiet(&self) -> Result<Stats> {
        let until = Instant::now() + QUIET_MAX;
        loop {
            let stats = self.stats()?;
            if stats.in_flight == 0 && stats.counters.fetches == stats.counters.hydrated {
                return Ok(stats);
            }
            if Instant::now() > until {
                return Err(Error::failed("failed to wait for the emulator's last fetch"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Cold {
    fn drop(&mut self) {
        // The mount is busy while the device has its file open.
        self.device = None;
        let until = Instant::now() + UNMOUNT_MAX;
        while let Err(error) = lab::umount(&self.dir) {
            if Instant::now() > until {
                eprintln!("error: {}", error.full_text());
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
