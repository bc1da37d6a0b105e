//! The promise that nothing opens a device for writing, by the system calls of whole runs.

use super::*;
use crate::support::require;

/// Calls that open, write, or ask a device for something.
const WATCHED: &str = "trace=open,openat,openat2,creat,open_by_handle_at,write,writev,pwrite64,pwritev,pwritev2,\
    fallocate,ftruncate,truncate,ioctl,sendfile,splice,copy_file_range,io_submit,mmap,unlink,unlinkat,mknod,mknodat";

/// The calls of a run that name the device, by path or by a descriptor of it.
fn calls_on_device(volume: &Volume, mut command: Command) -> Vec<String> {
    let log = volume.path("strace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-s", "256", "-e", WATCHED, "-o", &log]).arg(command.get_program());
    traced.args(command.get_args());
    command = traced;
    let ran = run(command);
    assert!([Some(0), Some(3)].contains(&ran.code), "{}{}", ran.out, ran.err);
    let (device, cold) = (volume.device(), volume.cold.file().volume());
    let text = fs::read_to_string(&log).unwrap();
    let on_device = |line: &&str| {
        let path = |end: &str| line.contains(&format!("{device}{end}"));
        path("\"") || path(">") || path("<") || line.contains(cold.to_str().unwrap())
    };
    // The end of a call that another thread's cut in two: its beginning has said what was asked for.
    let whole = |line: &&str| !line.contains(" resumed>");
    text.lines().filter(whole).filter(on_device).map(str::to_owned).collect()
}

#[track_caller]
fn only_reads(calls: &[String]) {
    let opened = calls.iter().filter(|call| call.contains("open"));
    assert!(opened.clone().count() > 0, "the device was never opened: {calls:#?}");
    for call in opened {
        assert!(call.contains("O_RDONLY"), "{call}");
        for word in ["O_WRONLY", "O_RDWR", "O_TRUNC", "O_CREAT", "O_APPEND"] {
            assert!(!call.contains(word), "{call}");
        }
    }
    for call in calls {
        let asks = call.contains("ioctl(");
        assert!(!asks || call.contains("BLKGETSIZE64") || call.contains("BLKSSZGET"), "{call}");
        let name = call.split('(').next().unwrap().rsplit(' ').next().unwrap();
        let harmless = name.starts_with("open") || name == "ioctl" || (name == "write" && is_about(call));
        assert!(harmless, "{call}");
    }
}

/// Whether a write only has the device's name in what it writes, such as a report.
fn is_about(call: &str) -> bool {
    let target = call.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
    target.is_some_and(|path| !path.starts_with("/dev/loop") && !path.contains("/cold/"))
}

#[test]
fn no_verb_opens_a_device_for_writing() {
    if !require_root() || !require("strace") {
        return;
    }
    let volume = Volume::new(400, "io2", &["first_read=20ms", "sigma=0", "eio_units=7"]);
    let profile = volume.profile_of_units(0..30);
    let report = volume.path("report.json");
    let warm = format!("--profile {profile} --report {report}");
    for (verb, args) in [
        ("warm", format!("{warm} --mode touch")),
        ("warm", format!("{warm} --mode full --rest all")),
        ("warm", "--rest all --unit 4KiB --depth 1024".into()),
        ("plan", format!("--profile {profile} --rest all")),
        ("bench", format!("--methods dd,touch@8 --budget 160MiB --report {report}")),
    ] {
        volume.reset();
        only_reads(&calls_on_device(&volume, volume.verb(verb, &args)));
    }
    if Path::new("/sys/kernel/tracing/instances").exists() {
        let rec = volume.path("a.rec");
        only_reads(&calls_on_device(&volume, volume.verb("record", &format!("-o {rec} -- true"))));
    }
    let list = volume.path("list");
    fs::write(&list, "0 4096\n").unwrap();
    let mut import = Command::new(BIN);
    import.args(["profile", "import", "-o", &volume.path("l.rec"), "--format", "list", &list]);
    import.args(["--device", &volume.device()]);
    only_reads(&calls_on_device(&volume, import));
}

#[test]
fn the_pool_of_threads_does_not_either() {
    if !require_root() || !require("strace") {
        return;
    }
    let volume = Volume::new(64, "io2", &["first_read=1ms"]);
    // The emulator's file itself, read without a ring.
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "inject=io_uring_setup:error=ENOSYS", "-o", "/dev/null", BIN, "warm"]);
    command.args(["--rest", "all", "--json", "--device", &volume.device()]);
    let report: Value = serde_json::from_str(&run(command).ok()).unwrap();
    assert!(report["engine"].as_str().unwrap().starts_with("pread ("));
    volume.reset();
    let mut traced = Command::new("strace");
    let log = volume.path("strace");
    traced.args(["-f", "-y", "-e", "inject=io_uring_setup:error=ENOSYS", "-o", &log]);
    traced.args([BIN, "warm", "--rest", "all", "--device", &volume.device()]);
    run(traced).ok();
    let text = fs::read_to_string(&log).unwrap();
    let on_device: Vec<String> = text
        .lines()
        .filter(|line| line.contains(&format!("{}>", volume.device())))
        .map(str::to_owned)
        .collect();
    assert!(on_device.iter().any(|line| line.contains("pread64(")), "{on_device:#?}");
    for line in &on_device {
        let wrong = ["write", "O_RDWR", "O_WRONLY", "fallocate", "BLKDISCARD", "BLKZEROOUT"];
        assert!(!wrong.iter().any(|word| line.contains(word)), "{line}");
    }
}
