//! The emulator's life: how it starts, for whom, how it ends, what it refuses.

use crate::support::{
    BIN, ColdFile, ColdLoop, ebs, ebs_fails, heeding_signals, output, pattern, patterned_image, read_direct,
    require, require_root, run, shown,
};
use ebs_prewarm::cold::Model;
use ebs_prewarm::lab::{LoopDevice, LoopOptions, Mount, Options, Stats};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const UNIT: u64 = 512 << 10;
/// Fast enough to wait for, slow enough to be a wait.
const QUICK: [&str; 2] = ["first_read=2ms", "hydration=0"];

fn touched(stats: &Stats) -> Vec<u64> {
    stats.touched.iter().map(|touch| touch.unit).collect()
}

/// Whether a process runs; one that only waits to be reaped does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: sends a signal to a process that this test started.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

#[test]
fn an_unmounting_ends_the_process_and_frees_the_directory() {
    if !require_root() {
        return;
    }
    let cold = ColdFile::new(4 * MIB, "gp3", &QUICK);
    let dir = cold.dir().to_str().unwrap();
    let pid = cold.stats().daemon_pid.unwrap();
    assert!(runs(pid));
    ebs(["lab", "umount", dir]);
    assert!(!runs(pid));
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);

    // Mounted at once where another was unmounted behind its back, a volume stays.
    let image = cold.image().to_str().unwrap();
    for _ in 0..10 {
        ebs(["lab", "mount", image, dir]);
        let old = cold.stats().daemon_pid.unwrap();
        run(Command::new("umount").arg(dir));
        ebs(["lab", "mount", image, dir]);
        while runs(old) {
            std::thread::yield_now();
        }
        assert_ne!(cold.stats().daemon_pid, Some(old));
        ebs(["lab", "umount", dir]);
    }

    ebs(["lab", "mount", image, dir]);
    let pid = cold.stats().daemon_pid.unwrap();
    signal(pid, libc::SIGTERM);
    while runs(pid) {
        std::thread::yield_now();
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "a signal unmounts too");
    ebs(["lab", "mount", image, dir]);
}

#[test]
fn a_mount_in_use_is_not_taken_away() {
    if !require_root() {
        return;
    }
    let cold = ColdLoop::new(4 * MIB, "gp3", &QUICK);
    let dir = cold.file().dir().to_str().unwrap();
    let text = ebs_fails(1, ["lab", "umount", dir]);
    assert!(text.contains("in use") && text.contains(dir), "{text}");
    assert!(text.contains(&format!("losetup -d {}", cold.device().display())), "{text}");
    assert_eq!(read_direct(cold.device(), 0, 4096).unwrap(), pattern(0, 4096));

    let file = ColdFile::new(4 * MIB, "gp3", &QUICK);
    let open = File::open(file.volume()).unwrap();
    let text = ebs_fails(1, ["lab", "umount", file.dir().to_str().unwrap()]);
    assert!(text.contains("in use") && text.contains("fuser -vm"), "{text}");
    drop(open);
}

#[test]
fn a_killed_emulator_fails_its_readers_and_can_be_cleared_away() {
    if !require_root() {
        return;
    }
    let cold = ColdFile::new(4 * MIB, "gp3", &["first_read=1h", "sigma=0"]);
    let dir = cold.dir().to_str().unwrap();
    let volume = cold.volume();
    let reader = std::thread::spawn(move || read_direct(&volume, 0, 4096));
    while cold.stats().in_flight == 0 {
        std::thread::yield_now();
    }
    signal(cold.stats().daemon_pid.unwrap(), libc::SIGKILL);
    let error = reader.join().unwrap().unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::ENOTCONN)), "{error}");
    let text = ebs_fails(1, ["lab", "stats", dir]);
    assert!(text.contains("has ended") && text.contains(&format!("lab umount {dir}")), "{text}");
    let text = ebs_fails(1, ["lab", "mount", cold.image().to_str().unwrap(), dir]);
    assert!(text.contains(&format!("lab umount {dir}")), "{text}");
    ebs(["lab", "umount", dir]);
    ebs(["lab", "mount", cold.image().to_str().unwrap(), dir]);
}

/// The process of the next test: it mounts, and reads its own mount, for ever.
#[test]
#[ignore = "run by a_process_that_reads_its_own_mount_can_be_killed"]
fn reads_its_own_mount() {
    let Ok(place) = std::env::var("LAB_TEST_PLACE") else { return };
    let place = Path::new(&place);
    let mut model = Model::named("gp3").unwrap();
    model.set("first_read", "1h").unwrap();
    let mount = Mount::new(&place.join("image"), &place.join("cold"), model, 1, Options::default()).unwrap();
    let _ = read_direct(&mount.volume_path(), 0, 4096);
}

#[test]
fn a_process_that_reads_its_own_mount_can_be_killed() {
    if !require_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("cold");
    File::create(place.path().join("image")).unwrap().set_len(MIB).unwrap();
    std::fs::create_dir(&dir).unwrap();
    let mut reader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lab_life::reads_its_own_mount", "--ignored"])
        .env("LAB_TEST_PLACE", place.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while ebs_prewarm::lab::stats(&dir).map_or(0, |stats| stats.in_flight) == 0 {
        assert!(reader.try_wait().unwrap().is_none(), "it ended before it read");
        std::thread::sleep(Duration::from_millis(5));
    }
    reader.kill().unwrap();
    reader.wait().unwrap();
    run(Command::new("umount").arg(&dir));
}

#[test]
fn a_mount_in_this_process_is_served_and_taken_away() {
    if !require_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (image, dir) = (place.path().join("image"), place.path().join("cold dir"));
    patterned_image(&image, 4 * MIB);
    std::fs::create_dir(&dir).unwrap();
    let mount = |model: &str| {
        Mount::new(&image, &dir, Model::named(model).unwrap(), 7, Options::default())
            .unwrap_or_else(|error| panic!("{}", error.full_text()))
    };
    let first = mount("io2");
    let device = LoopDevice::attach(&first.volume_path(), LoopOptions::default()).unwrap();
    assert_eq!(read_direct(device.path(), UNIT, 4096).unwrap(), pattern(UNIT, 4096));
    let stats = first.stats().unwrap();
    assert_eq!((touched(&stats), stats.seed, stats.daemon_pid), (vec![1], 7, None));
    first.reset().unwrap();
    assert_eq!(first.stats().unwrap().cold_units, 8);
    device.detach().unwrap();
    first.unmount().unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    drop(mount("gp3"));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_mounted_is_refused_with_a_remedy() {
    if !require_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    patterned_image(&place.path().join("image"), MIB);
    for dir in ["empty", "full"] {
        std::fs::create_dir(place.path().join(dir)).unwrap();
    }
    write("full/file", "");
    write("none", "");
    write("wrong.yaml", "unit: 3KiB\n");
    write("unknown.yaml", "units: 4\n");
    write("broken.yaml", "unit: [\n");
    write("huge.yaml", &"#\n".repeat(100_000));
    std::fs::write(place.path().join("binary.yaml"), [0xff, 0xfe, 0]).unwrap();

    let cases: [(i32, &[&str], &[&str]); 17] = [
        (1, &["missing", "empty"], &["/missing`", "help: make one"]),
        (1, &["none", "empty"], &["/none`", "0 bytes", "help: make one"]),
        (1, &["empty", "full"], &["failed to mount on", "/full`", "not empty"]),
        (1, &["empty", "empty"], &["/empty`", "neither a file nor a block device"]),
        (1, &["image", "nowhere"], &["/nowhere`", "help: make it first: `mkdir "]),
        (1, &["image", "none"], &["/none`", "help: give an empty directory"]),
        (1, &["image", "full"], &["/full`", "not empty", "help: "]),
        (2, &["image", "empty", "--model", "gp9"], &["model `gp9`", "gp3, io2", "YAML file"]),
        (2, &["image", "empty", "--model", "@wrong.yaml"], &["/wrong.yaml`", "3072 bytes", "power of two"]),
        (
            2,
            &["image", "empty", "--model", "@unknown.yaml"],
            &["/unknown.yaml`", "`units`", "known parameters"],
        ),
        (2, &["image", "empty", "--model", "@broken.yaml"], &["/broken.yaml`", "YAML", "help: "]),
        (2, &["image", "empty", "--model", "@huge.yaml"], &["/huge.yaml`", "over 65536 bytes"]),
        (1, &["image", "empty", "--model", "@binary.yaml"], &["/binary.yaml`", "UTF-8"]),
        (2, &["image", "empty", "--set", "unit"], &["`--set unit`", "KEY=VALUE"]),
        (2, &["image", "empty", "--set", "warm=3"], &["`--set warm=3`", "duration `3`", "500ms"]),
        (2, &["image", "empty", "--seed", "x"], &["--seed"]),
        (2, &["image"], &["<DIR>"]),
    ];
    for (code, args, texts) in cases {
        let places = args.iter().enumerate().map(|(number, arg)| match arg.strip_prefix('@') {
            Some(file) => at(file),
            None if number < 2 => at(arg),
            None => (*arg).to_owned(),
        });
        let args: Vec<String> = ["lab".into(), "mount".into()].into_iter().chain(places).collect();
        let error = ebs_fails(code, &args);
        for text in texts {
            assert!(error.contains(text), "{args:?}: no `{text}` in {error}");
        }
        assert_eq!(std::fs::read_dir(place.path().join("empty")).unwrap().count(), 0, "{args:?}");
    }
    for verb in ["stats", "reset", "umount"] {
        let error = ebs_fails(1, ["lab", verb, &at("full")]);
        assert!(error.contains("/full`") && error.contains("help: name the directory"), "{error}");
        let error = ebs_fails(1, ["lab", verb, &at("nowhere")]);
        assert!(error.contains("/nowhere`"), "{error}");
    }
}

/// A shell in a mount namespace whose /dev/fuse has these permissions, as a user without rights.
fn as_nobody(fuse_mode: &str, place: &Path, script: &str) -> std::process::Output {
    let script = format!(
        "set -e; mount -t tmpfs none '{0}/dev'; mknod -m {fuse_mode} '{0}/dev/fuse' c 10 229
         mount --bind '{0}/dev/fuse' /dev/fuse
         cd '{0}'; exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec '{script}'",
        place.display()
    );
    output(Command::new("unshare").args(["-m", "sh", "-c", &script]).env("BIN", place.join("bin")))
}

#[test]
fn a_user_without_rights_mounts_where_the_helper_is_there() {
    if !require_root() || !require("fusermount3") || !require("setpriv") || !require("unshare") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let make = |name: &str| std::fs::create_dir(place.path().join(name)).unwrap();
    make("dev");
    make("cold");
    // Where nobody may go, whatever the test's own umask and build directory allow.
    std::fs::copy(BIN, place.path().join("bin")).unwrap();
    patterned_image(&place.path().join("image"), MIB);
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(place.path()));

    let refused = as_nobody("600", place.path(), "\"$BIN\" lab mount image cold");
    let text = shown(&refused);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("/dev/fuse") && text.contains("help: run as root, or let your user"), "{text}");

    let script = "\"$BIN\" lab mount image cold --set first_read=2ms; cmp image cold/volume; \
                  \"$BIN\" --json lab stats cold; \"$BIN\" lab reset cold >&2; \"$BIN\" lab umount cold >&2; \
                  test -z \"$(ls cold)\"";
    let served = as_nobody("666", place.path(), script);
    let text = shown(&served);
    assert!(served.status.success(), "{text}");
    let stdout = String::from_utf8_lossy(&served.stdout);
    let stats: Stats = serde_json::from_str(&stdout[stdout.find('{').unwrap()..]).unwrap();
    assert_eq!(stats.touched_units(), [0, 1], "{text}");
}

#[test]
fn in_the_foreground_it_says_when_it_is_ready_and_ends_when_interrupted() {
    if !require_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (image, dir) = (place.path().join("image"), place.path().join("cold"));
    patterned_image(&image, MIB);
    std::fs::create_dir(&dir).unwrap();
    let mut command = Command::new(BIN);
    command.args(["--json", "lab", "mount", "--foreground"]).args([&image, &dir]).stdout(Stdio::piped());
    let mut emulator = heeding_signals(&mut command).spawn().unwrap();
    let mut lines = BufReader::new(emulator.stdout.take().unwrap()).lines().map_while(Result::ok);
    let document: Vec<String> = lines.by_ref().take_while(|line| line != "}").collect();
    assert!(document.iter().any(|line| line.contains("cold/volume")), "{document:?}");
    let volume =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(dir.join("volume")).unwrap();
    let mut block = [0; 512];
    volume.read_exact_at(&mut block, 512).unwrap();
    assert_eq!(block.to_vec(), pattern(512, 512));
    drop(volume);
    signal(emulator.id(), libc::SIGINT);
    assert!(emulator.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}
