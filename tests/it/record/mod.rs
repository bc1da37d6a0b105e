//! Recording on loop devices, through the real tracefs: the devices and the runs that the tests use.

mod boot;
#[cfg(feature = "lab")]
mod emulated;
mod reads;
mod refusals;
mod stops;

use ebs_prewarm::device::{Device, disk_path, whole_disk};
use ebs_prewarm::extent::{Extent, ExtentSet};
use ebs_prewarm::files;
use ebs_prewarm::record::{Options, Session};
use ebs_prewarm::recording::{Flags, Recording, format};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_ebs-prewarm");
const MIB: u64 = 1 << 20;

/// Whether recording can be tested here. A skip is loud, and a failure where CI=true.
fn can_record() -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    let missing = [
        (!is_root, "root"),
        (!Path::new("/dev/loop-control").exists(), "loop devices"),
        (!Path::new("/sys/kernel/tracing/instances").exists(), "tracefs on /sys/kernel/tracing"),
    ];
    let missing: Vec<&str> = missing.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
    if missing.is_empty() {
        return true;
    }
    crate::support::skip(&format!("recording needs {}", missing.join(", ")));
    false
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn run_well(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

/// A directory with an image on a loop device; both go away with it.
struct Disk {
    dir: tempfile::TempDir,
    device: String,
    mounted: bool,
    /// To be removed, not only detached.
    made: Option<u32>,
}

impl Disk {
    fn new(bytes: u64, content: impl FnOnce(&fs::File)) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let file = fs::File::create(&image).unwrap();
        file.set_len(bytes).unwrap();
        content(&file);
        let mut disk = Disk { dir, device: String::new(), mounted: false, made: None };
        disk.attach(&["-f", "--show", "-P", image.to_str().unwrap()]);
        disk
    }

    fn attach(&mut self, arguments: &[&str]) {
        // Another process can take the device that was free a moment ago.
        let attach = || run("losetup", arguments);
        let attached = std::iter::repeat_with(attach).take(20).find(|output| output.status.success());
        let output = attached.expect("a free loop device");
        self.device = String::from_utf8(output.stdout).unwrap().trim().to_string();
    }

    /// Once: a moment later the device can be another's.
    fn detach(&mut self) {
        if self.mounted {
            self.unmount();
        }
        if !self.device.is_empty() {
            run("losetup", &["-d", &std::mem::take(&mut self.device)]);
        }
    }

    /// On a loop device far above those that are given out: nobody takes it when it is detached.
    fn far_above() -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let minor = 1000 + std::process::id() % 10_000;
        let (image, device) = (dir.path().join("image"), dir.path().join(format!("loop{minor}")));
        let (image, device) = (image.to_str().unwrap(), device.to_str().unwrap().to_string());
        fs::File::create(image).unwrap().set_len(64 * MIB).unwrap();
        run_well("mknod", &[&device, "b", "7", &minor.to_string()]);
        run_well("losetup", &[&device, image]);
        Disk { dir, device, mounted: false, made: Some(minor) }
    }

    fn plain() -> Disk {
        Disk::new(64 * MIB, |_| {})
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_string()
    }

    fn mount(&mut self) -> String {
        let place = self.path("mnt");
        fs::create_dir_all(&place).unwrap();
        run_well("mount", &[&self.device, &place]);
        self.mounted = true;
        place
    }

    fn unmount(&mut self) {
        run("umount", &[&self.path("mnt")]);
        self.mounted = false;
    }

    /// `record -o FILE --device DISK` with further arguments.
    fn record(&self, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["record", "-o", &self.path(output), "--device", &self.device]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn read(&self, output: &str) -> Recording {
        format::decode(&fs::read(self.path(output)).unwrap()).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.detach();
        if let Some(minor) = self.made {
            /// `LOOP_CTL_REMOVE` in linux/loop.h.
            const REMOVE: u64 = 0x4c81;
            let control = fs::File::open("/dev/loop-control").unwrap();
            // SAFETY: the descriptor is open, the argument is a plain number.
            unsafe { libc::ioctl(control.as_raw_fd(), REMOVE as _, libc::c_long::from(minor as i32)) };
        }
    }
}

/// A recording in the background, stopped at the latest when the test ends.
struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Returns when tracing is on.
    fn start(mut command: Command) -> Running {
        let mut child = crate::support::heeding_signals(&mut command).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("recording ") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended before it recorded");
        }
        Running { child, stderr }
    }

    fn signal(&self, name: &str) {
        run_well("kill", &["-s", name, &self.child.id().to_string()]);
    }

    /// Waits for its end; exit code and what it wrote to stderr since.
    fn end(mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }

    fn instances(&self) -> Vec<String> {
        instances_of(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn instances_of(pid: u32) -> Vec<String> {
    let names = fs::read_dir("/sys/kernel/tracing/instances").unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&format!("ebs-prewarm-{pid}-"))).collect()
}

fn dd(device: &str, first_block: u64, blocks: u64) {
    let (skip, count) = (format!("skip={first_block}"), format!("count={blocks}"));
    let input = format!("if={device}");
    run_well("dd", &[&input, "of=/dev/null", "bs=4k", "iflag=direct", "status=none", &skip, &count]);
}

fn touched(recording: &Recording) -> Vec<(u64, u64)> {
    let set: ExtentSet = recording.touches().map(|touch| touch.extent).collect();
    set.iter().map(|extent| (extent.start(), extent.end())).collect()
}

fn options(device: &str) -> Options {
    let path = disk_path(Path::new("/"), Path::new(device)).unwrap();
    let number = Device::open(&path).unwrap().number().unwrap();
    let number = whole_disk(Path::new("/"), number).unwrap().number;
    Options { device: number.kernel(), ..Options::default() }
}
