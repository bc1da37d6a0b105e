//! Cold volumes to test on: the real binary's mount, and a loop device on it.

use super::{BIN, ebs, output, patterned_image, run, shown};
use ebs_prewarm::lab::{LoopDevice, LoopOptions, Stats};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An image mounted as a cold volume by the real binary; unmounted and deleted when dropped.
pub struct ColdFile {
    dir: PathBuf,
    image: PathBuf,
    /// Dropped last: it holds the mount's directory and the image.
    temporary: tempfile::TempDir,
}

impl ColdFile {
    /// A volume of so many bytes, all written with `super::pattern`. `sets` are `key=value`.
    pub fn new(bytes: u64, model: &str, sets: &[&str]) -> ColdFile {
        Self::made(|path| patterned_image(path, bytes), model, sets, &[])
    }

    /// A volume of zeros that takes no room, for tests that read only to wait.
    pub fn sparse(bytes: u64, model: &str, sets: &[&str]) -> ColdFile {
        Self::made(|path| File::create(path).unwrap().set_len(bytes).unwrap(), model, sets, &[])
    }

    /// A volume on an image that `make` writes, mounted with further arguments.
    pub fn made(make: impl FnOnce(&Path), model: &str, sets: &[&str], args: &[&str]) -> ColdFile {
        let temporary = tempfile::tempdir().unwrap();
        let (image, dir) = (temporary.path().join("image"), temporary.path().join("cold"));
        make(&image);
        std::fs::create_dir(&dir).unwrap();
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let mut command = Command::new(BIN);
        command.args(["lab", "mount"]).args([&image, &dir]).args(["--model", model]).args(sets).args(args);
        run(&mut command);
        ColdFile { dir, image, temporary }
    }

    /// The directory it is mounted on.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The image behind it.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// A directory for a test's own files.
    pub fn scratch(&self) -> &Path {
        self.temporary.path()
    }

    /// The file that holds the volume.
    pub fn volume(&self) -> PathBuf {
        self.dir.join("volume")
    }

    /// The ground truth, as the binary prints it.
    pub fn stats(&self) -> Stats {
        let dir = self.dir.to_str().unwrap();
        serde_json::from_str(&ebs(["--json", "lab", "stats", dir])).unwrap()
    }

    /// Makes it cold again.
    pub fn reset(&self) {
        ebs(["lab", "reset", self.dir.to_str().unwrap()]);
    }
}

impl Drop for ColdFile {
    fn drop(&mut self) {
        let gone = output(Command::new(BIN).args(["lab", "umount"]).arg(&self.dir));
        if !gone.status.success() && std::fs::read_dir(&self.dir).map_or(true, |mut dir| dir.next().is_some())
        {
            let _ = writeln!(std::io::stderr(), "left `{}` to unmount: {}", self.dir.display(), shown(&gone));
            output(Command::new("umount").arg("-l").arg(&self.dir));
        }
    }
}

/// A loop device, read directly, on a cold volume.
pub struct ColdLoop {
    // In the order in which they are dropped.
    device: LoopDevice,
    file: ColdFile,
}

impl ColdLoop {
    /// A disk of so many bytes, all written with `super::pattern`. `sets` are `key=value`.
    pub fn new(bytes: u64, model: &str, sets: &[&str]) -> ColdLoop {
        Self::on(ColdFile::new(bytes, model, sets))
    }

    /// A disk of zeros that takes no room.
    pub fn sparse(bytes: u64, model: &str, sets: &[&str]) -> ColdLoop {
        Self::on(ColdFile::sparse(bytes, model, sets))
    }

    /// A disk on an image that `make` writes.
    pub fn made(make: impl FnOnce(&Path), model: &str, sets: &[&str]) -> ColdLoop {
        Self::on(ColdFile::made(make, model, sets, &[]))
    }

    /// A disk on a cold volume.
    pub fn on(file: ColdFile) -> ColdLoop {
        let device = LoopDevice::attach(&file.volume(), LoopOptions::default())
            .unwrap_or_else(|error| panic!("{}", error.full_text()));
        ColdLoop { device, file }
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        self.device.path()
    }

    /// The cold volume under it.
    pub fn file(&self) -> &ColdFile {
        &self.file
    }

    /// The ground truth.
    pub fn stats(&self) -> Stats {
        self.file.stats()
    }

    /// Makes it cold again, and empties what the kernel cached of the device. What a mounted filesystem caches
    /// stays: unmount it first.
    pub fn reset(&self) {
        self.device.forget_cached().unwrap_or_else(|error| panic!("{}", error.full_text()));
        self.file.reset();
    }
}
