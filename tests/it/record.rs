//! Recording on loop devices, through the real tracefs.

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
    eprintln!("SKIPPED: a test of recording needs {}", missing.join(", "));
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nothing may be skipped where CI=true");
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
        let image = image.to_str().unwrap();
        // Another process can take the device that was free a moment ago.
        let attach = || run("losetup", &["-f", "--show", "-P", image]);
        let attached = std::iter::repeat_with(attach).take(20).find(|output| output.status.success());
        let output = attached.expect("a free loop device");
        let device = String::from_utf8(output.stdout).unwrap().trim().to_string();
        Disk { dir, device, mounted: false, made: None }
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
        run_well("umount", &[&self.path("mnt")]);
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
        if self.mounted {
            run("umount", &[&self.path("mnt")]);
        }
        run("losetup", &["-d", &self.device]);
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
        let mut child = command.spawn().unwrap();
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

#[test]
fn what_was_read_is_what_is_recorded() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let script = format!(
        "for at in 3000 7 900; do dd if={} of=/dev/null bs=4k iflag=direct count=2 skip=$at; done",
        disk.device
    );
    let output = disk.record("a.rec", &["--", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(56, 72), (7200, 7216), (24000, 24016)]);
    let order: Vec<u64> = recording.touches().map(|touch| touch.extent.start()).collect();
    assert_eq!(order, [24000, 24008, 56, 64, 7200, 7208]);
    assert!(recording.touches().all(|touch| touch.flags.has(Flags::READ) && touch.latency_us.is_some()));
    assert_eq!(recording.processes, ["dd"]);
    let header = &recording.header;
    assert_eq!((header.events, header.lost(), header.own), (12, 0, 0));
    assert_eq!(header.device, disk.device);
    assert_eq!(header.volume.as_ref().unwrap().sectors, 64 * MIB / 512);
    assert_eq!(header.boot_id, fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    let times = [header.from_us].into_iter().chain(recording.touches().map(|touch| touch.time_us));
    assert!(times.chain([header.until_us]).collect::<Vec<_>>().is_sorted(), "times lie in the recording");
}

#[test]
fn at_depth_64_every_block_is_recorded_once_with_its_latency() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let file = format!("--filename={}", disk.device);
    let fio = ["fio", "--name=r", &file, "--rw=randread", "--bs=4k", "--size=64m", "--iodepth=64"];
    let rest = ["--ioengine=io_uring", "--direct=1", "--numjobs=2", "--output-format=terse"];
    let command: Vec<&str> = ["--"].into_iter().chain(fio).chain(rest).collect();
    let output = disk.record("a.rec", &command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(0, 64 * MIB / 512)]);
    assert_eq!(recording.touches.len() as u64, 64 * MIB / 4096);
    let slow = recording.touches().filter(|touch| touch.latency_us.is_none()).count();
    assert_eq!((slow, recording.header.lost()), (0, 0), "each has its latency, none is lost");
    // Two jobs read each block once each; the device's small queue may ask for some again.
    assert!(recording.header.events >= 2 * 2 * 64 * MIB / 4096, "{}", recording.header.events);
}

/// An MBR with one Linux partition from sector 2048 to the end.
fn one_partition(image: &fs::File, sectors: u32) {
    let mut table = [0u8; 512];
    table[440..444].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    table[446 + 4] = 0x83;
    table[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&(sectors - 2048).to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    image.write_all_at(&table, 0).unwrap();
}

#[test]
fn a_partition_stands_for_its_whole_disk() {
    if !can_record() {
        return;
    }
    let disk = Disk::new(64 * MIB, |image| one_partition(image, (64 * MIB / 512) as u32));
    let partition = format!("{}p1", disk.device);
    if !Path::new(&partition).exists() {
        // A kernel without support for this table is told of the partition by hand.
        let sectors = 64 * MIB / 512 - 2048;
        run_well("addpart", &[&disk.device, "1", "2048", &sectors.to_string()]);
    }
    let mut command = Command::new(BINARY);
    command.args(["--json", "record", "-o", &disk.path("a.rec"), "--device", &partition, "--", "dd"]);
    command.args([&format!("if={partition}"), "of=/dev/null", "bs=4k", "count=1", "skip=10", "iflag=direct"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(2048 + 80, 2048 + 88)]);
    let volume = recording.header.volume.as_ref().unwrap();
    assert_eq!(volume.sectors, 64 * MIB / 512);
    assert_eq!(volume.partitions.iter().map(|part| part.start).collect::<Vec<_>>(), [2048]);
    assert_eq!(recording.header.device, disk.device);
    // One document on stdout, whatever the command prints.
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((shown["touches"].as_u64(), shown["bytes_read"].as_u64()), (Some(1), Some(4096)));
    assert_eq!((shown["units"].as_u64(), shown["lost"].as_u64()), (Some(1), Some(0)));
    assert_eq!(shown["slowest"][0]["process"], "dd");
}

fn this_thread() -> u32 {
    let link = fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

fn options(device: &str) -> Options {
    let path = disk_path(Path::new("/"), Path::new(device)).unwrap();
    let number = Device::open(&path).unwrap().number().unwrap();
    let number = whole_disk(Path::new("/"), number).unwrap().number;
    Options { device: number.kernel(), ..Options::default() }
}

/// A read that goes past the page cache's content: each call reads what no call read before.
fn read_here(device: &str, offset: u64) {
    let mut block = [0; 4096];
    fs::File::open(device).unwrap().read_exact_at(&mut block, offset).unwrap();
}

#[test]
fn own_reads_are_left_out_and_counted() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let options = Options { own_threads: vec![this_thread()], ..options(&disk.device) };
    let mut session = Session::start(Path::new("/"), &options).unwrap();
    read_here(&disk.device, 32 * MIB);
    session.drain().unwrap();
    dd(&disk.device, 5, 1);
    let finished = session.finish().unwrap();
    finished.undone.unwrap();
    assert_eq!(touched(&finished.recording), [(40, 48)]);
    assert!(finished.recording.header.own >= 1, "the read of this thread was counted");
    assert_eq!(finished.recording.header.events, 2);
}

#[test]
fn the_recorder_that_looks_for_its_stop_file_on_the_disk_leaves_that_out() {
    if !can_record() {
        return;
    }
    let mut disk = Disk::plain();
    run_well("mkfs.ext4", &["-q", &disk.device]);
    let place = disk.mount();
    fs::create_dir_all(format!("{place}/deep/down")).unwrap();
    disk.unmount();
    disk.mount();
    // The first look for the file is before the first wait, so there is one however short the time is.
    let file = format!("{place}/deep/down/up");
    let output = disk.record("a.rec", &["--until-file", &file, "--for", "1ms"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    let reads = recording.touches().filter(|touch| touch.flags.has(Flags::READ)).count();
    assert_eq!(reads, 0, "nobody else read");
    let header = recording.header;
    assert!(header.own >= 1, "the look-ups read directories: {header:?}");
    assert!(header.volume.unwrap().fs_uuid.is_some(), "the filesystem is known");
}

#[test]
fn signals_stop_it_and_everything_is_restored() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    for signal in ["TERM", "INT", "HUP"] {
        let running = Running::start(disk.record("a.rec", &[]));
        assert_eq!(running.instances().len(), 1);
        dd(&disk.device, 77, 1);
        let pid = running.child.id();
        running.signal(signal);
        let (code, text) = running.end();
        assert_eq!(code, Some(0), "{text}");
        assert!(instances_of(pid).is_empty(), "{signal}");
        assert_eq!(touched(&disk.read("a.rec")), [(616, 624)]);
        fs::remove_file(disk.path("a.rec")).unwrap();
    }
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let running = Running::start(disk.record("a.rec", &[]));
    let pid = running.child.id();
    running.signal("KILL");
    running.end();
    assert_eq!(instances_of(pid).len(), 1, "nothing can undo after SIGKILL");
    assert!(!Path::new(&disk.path("a.rec")).exists());
    let alive = Running::start(disk.record("b.rec", &[]));
    assert!(instances_of(pid).is_empty());
    // One that is alive is left alone.
    let output = disk.record("c.rec", &["--for", "1ms"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(alive.instances().len(), 1);
    alive.signal("TERM");
    assert_eq!(alive.end().0, Some(0));
}

#[test]
fn it_stops_by_time_by_idleness_by_file_and_by_command() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let stop = |more: &[&str], why: &str| {
        let output = disk.record("a.rec", more).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(why), "{text}");
        disk.read("a.rec").header
    };
    let header = stop(&["--for", "150ms"], "150ms were over");
    assert!(header.until_us - header.from_us >= 150_000);
    let header = stop(&["--idle", "150ms"], "no request for 150ms");
    assert!(header.until_us - header.from_us >= 150_000);
    // The first condition met wins, whatever else was asked for.
    let here = disk.path("image");
    stop(&["--for", "1h", "--idle", "1h", "--until-file", &here], "image` exists");
    stop(&["--for", "1h", "--", "true"], "the command ended");
}

#[test]
fn requests_put_idleness_off() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let running = Running::start(disk.record("a.rec", &["--idle", "1s"]));
    // Each read is at a place of its own; the last one must be in, however late it comes.
    (0..4).for_each(|n| {
        std::thread::sleep(Duration::from_millis(300));
        dd(&disk.device, n * 100, 1);
    });
    let (code, text) = running.end();
    assert_eq!(code, Some(0), "{text}");
    let recording = disk.read("a.rec");
    let times: Vec<u64> = recording.touches().map(|touch| touch.time_us).collect();
    let quiet = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    // On a machine so busy that a second passed between two reads it was right to stop there.
    assert!(times.len() == 4 || quiet < 1_000_000, "{times:?}");
    assert!(recording.header.until_us - times.last().unwrap() >= 1_000_000);
}

#[test]
fn a_command_that_fails_makes_it_fail_and_the_recording_is_there() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let output = disk.record("a.rec", &["--", "sh", "-c", "exit 7"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("command `sh`") && text.contains("exit status: 7"), "{text}");
    disk.read("a.rec");
    let output = disk.record("b.rec", &["--", "/nonexistent/program"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("`/nonexistent/program`: No such file"), "{text}");
    assert!(!Path::new(&disk.path("b.rec")).exists(), "nothing was recorded");
}

#[test]
fn a_signal_is_passed_on_to_the_command() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let (up, got) = (disk.path("up"), disk.path("got"));
    let script = format!("trap 'echo > {got}; exit 0' TERM; echo > {up}; while :; do sleep 0.05; done");
    let running = Running::start(disk.record("a.rec", &["--", "sh", "-c", &script]));
    while !Path::new(&up).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal("TERM");
    let (code, text) = running.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(Path::new(&got).exists(), "the command was told");
    disk.read("a.rec");
    // A command that dies of the signal did as it was told.
    let running = Running::start(disk.record("b.rec", &["--", "sleep", "1h"]));
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn lost_events_are_counted_to_the_last() {
    if !can_record() {
        return;
    }
    const READS: u64 = 4000;
    let disk = Disk::plain();
    let options = Options { ring_bytes: Some(8 << 10), ..options(&disk.device) };
    let session = Session::start(Path::new("/"), &options).unwrap();
    // Nobody looks meanwhile, and 16 KiB of ring hold a hundred requests.
    dd(&disk.device, 0, READS);
    let recording = session.finish().unwrap().recording;
    let header = &recording.header;
    assert!(header.lost() > READS, "{header:?}");
    assert_eq!(header.events + header.lost(), 2 * READS, "{header:?}");
    let read = Extent::at(0, READS * 8).unwrap();
    assert!(!recording.touches.is_empty());
    assert!(recording.touches().all(|touch| read.contains(touch.extent)));
}

#[test]
fn a_small_ring_that_is_drained_in_time_loses_nothing() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let options = Options { ring_bytes: Some(256 << 10), ..options(&disk.device) };
    let mut session = Session::start(Path::new("/"), &options).unwrap();
    for n in 0..20 {
        dd(&disk.device, n * 500, 500);
        session.drain().unwrap();
    }
    let recording = session.finish().unwrap().recording;
    assert_eq!((recording.header.events, recording.header.lost()), (2 * 20 * 500, 0));
    assert_eq!(touched(&recording), [(0, 20 * 500 * 8)]);
    let places: Vec<u64> = recording.touches().map(|touch| touch.extent.start()).collect();
    assert!(places.is_sorted(), "one reader, so the order of time is that of place, over all CPUs");
}

/// Runs `record` as it is; its exit code and stderr.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY).arg("record").args(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_be_recorded_is_refused_with_a_reason() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let (image, out) = (disk.path("image"), disk.path("a.rec"));
    for (device, why) in [
        ("/dev/none", "`/dev/none`: No such file"),
        ("/dev/null", "not a block device"),
        ("/", "not a block device"),
        (&image, "losetup"),
    ] {
        let (code, text) = refused(&["-o", &out, "--device", device, "--for", "1ms"]);
        assert!(code == Some(1) && text.contains(why), "{device}: {code:?} {text}");
    }
    for arguments in [&["--device", "/dev/null"][..], &["-o", &out, "--idle", "5"], &["-o", &out, "--no"]] {
        assert_eq!(refused(arguments).0, Some(2), "{arguments:?}");
    }
    let none = disk.path("none/a.rec");
    let (code, text) = refused(&["-o", &none, "--device", &disk.device, "--for", "1ms"]);
    assert!(code == Some(1) && text.contains("none/a.rec") && text.contains("make the directory"), "{text}");
    let names: BTreeSet<_> =
        fs::read_dir(disk.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "nothing half-written: {names:?}");
}

#[test]
fn without_root_or_tracefs_it_says_what_is_missing() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let binary = PathBuf::from(disk.path("ebs-prewarm"));
    fs::copy(BINARY, &binary).unwrap();
    run_well("chmod", &["0777", disk.dir.path().to_str().unwrap()]);
    let as_nobody = |out: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command.args(["record", "-o", &disk.path(out), "--device", &disk.device, "--for", "1ms"]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = as_nobody("a.rec");
    assert!(code == Some(1) && text.contains("run as root"), "{text}");
    // With the right to read the disk it is tracefs that refuses.
    run_well("chmod", &["a+r", &disk.device]);
    let (code, text) = as_nobody("b.rec");
    run_well("chmod", &["go-r", &disk.device]);
    assert!(code == Some(1) && text.contains("tracing/instances/"), "{text}");
    assert!(text.contains("recording needs root"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    let error = Session::start(empty.path(), &options(&disk.device)).err().unwrap().full_text();
    assert!(error.contains("proc/self/mountinfo"), "{error}");
    fs::create_dir_all(empty.path().join("proc/self")).unwrap();
    fs::write(empty.path().join("proc/self/mountinfo"), "").unwrap();
    let error = Session::start(empty.path(), &options(&disk.device)).err().unwrap().full_text();
    assert!(error.contains("mount -t tracefs tracefs /sys/kernel/tracing"), "{error}");
}

/// A small filesystem of its own.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, options: &str) -> Small {
        let place = dir.join("small");
        fs::create_dir_all(&place).unwrap();
        run_well("mount", &["-t", "tmpfs", "-o", options, "none", place.to_str().unwrap()]);
        Small(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_full_or_read_only_filesystem_is_noticed_before_recording() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    for (options, why) in [("size=4k", "No space left"), ("ro", "Read-only file system")] {
        let small = Small::mount(disk.dir.path(), options);
        if options != "ro" {
            fs::write(small.0.join("filler"), [1; 4096]).unwrap();
        }
        let path = small.0.join("a.rec");
        let up = disk.path("command-ran");
        let arguments =
            ["-o", path.to_str().unwrap(), "--device", &disk.device, "--for", "1ms", "--", "touch", &up];
        let (code, text) = refused(&arguments);
        assert!(code == Some(1) && text.contains(why) && text.contains("small/a.rec"), "{text}");
        assert!(text.contains("filesystem"), "it says what helps: {text}");
        assert!(!Path::new(&up).exists(), "the command was not started");
        assert!(fs::read_dir(&small.0).unwrap().all(|entry| entry.unwrap().file_name() == "filler"));
    }
}

#[test]
fn a_filesystem_that_fills_up_keeps_the_older_file_and_nothing_else() {
    if !can_record() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = Small::mount(dir.path(), "size=64k");
    let path = small.0.join("a.rec");
    files::write_atomically(&path, b"older").unwrap();
    let error = files::write_atomically(&path, &vec![1; 1 << 20]).unwrap_err().full_text();
    assert!(error.contains("No space left") && error.contains("make room"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"older");
    assert_eq!(fs::read_dir(&small.0).unwrap().count(), 1);
}

#[test]
fn a_disk_that_goes_away_leaves_a_recording() {
    if !can_record() {
        return;
    }
    let disk = Disk::far_above();
    let running = Running::start(disk.record("a.rec", &[]));
    dd(&disk.device, 9, 1);
    run_well("losetup", &["-d", &disk.device]);
    running.signal("TERM");
    let (code, text) = running.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("bound to the size alone"), "{text}");
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(72, 80)]);
    assert_eq!(recording.header.volume.unwrap().sectors, 64 * MIB / 512);
}
