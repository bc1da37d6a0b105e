//! What a supervisor is told by a daemon, as systemd hears it: the test is the supervisor.

use super::daemon::{daemon, socket};
use super::*;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Messages until one has all of these lines; each is a list of lines.
pub fn until(manager: &UnixDatagram, wanted: &[&str]) -> Vec<Vec<String>> {
    let mut heard = Vec::new();
    loop {
        let mut message = [0; 4096];
        let bytes = manager.recv(&mut message).unwrap_or_else(|error| panic!("{error}: {heard:#?}"));
        let text = std::str::from_utf8(&message[..bytes]).unwrap();
        heard.push(text.lines().map(str::to_string).collect::<Vec<_>>());
        let last = heard.last().unwrap();
        if wanted.iter().all(|line| last.iter().any(|heard| heard.starts_with(line))) {
            return heard;
        }
    }
}

pub fn said(heard: &[Vec<String>], what: &str) -> usize {
    heard.iter().flatten().filter(|line| line.starts_with(what)).count()
}

#[test]
fn ready_is_told_when_the_chosen_stage_is_warm_and_not_before() {
    if !require_root() {
        return;
    }
    for abstract_name in [true, false] {
        // The last unit of `later` stalls: nothing but `ready` can be the reason. It is the last that is asked for, as reads
        // are one at a time.
        let sets = ["hydration=20MB/s", "first_read=10ms", "sigma=0", "stall_fetch=29", "stall=300s"];
        let volume = Volume::new(200, "gp3", &sets);
        let at = |units: std::ops::Range<u64>| units.map(|unit| (unit * UNIT, 4096)).collect::<Vec<_>>();
        let profile = volume.profile(&[("ready", &at(100..120)), ("later", &at(60..70))]);
        let name = format!("ebs-prewarm-{}", std::process::id());
        let (manager, told) = match abstract_name {
            true => {
                (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()), format!("@{name}"))
            }
            false => (UnixDatagram::bind(volume.path("notify")), volume.path("notify")),
        };
        let manager = manager.unwrap();
        manager.set_read_timeout(Some(HANG)).unwrap();
        let mut command = daemon(&volume, &format!("--profile {profile} --mode touch --depth 1"));
        command.env("NOTIFY_SOCKET", told).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
        let warm = start(command);
        let heard = until(&manager, &["READY=1"]);
        assert!(set(volume.hydrated()).is_superset(&set(100..120)), "{heard:#?}");
        assert!(volume.stats().counters.hydrated >= 20, "{heard:#?}");
        assert_eq!((said(&heard, "READY=1"), said(&heard, "STOPPING=1")), (1, 0));
        assert!(
            said(&heard, "STATUS=starting") + said(&heard, "STATUS=warming, stage ready") > 0,
            "{heard:#?}"
        );
        // It lives, also when nothing happens.
        for _ in 0..5 {
            until(&manager, &["WATCHDOG=1"]);
        }
        warm.signal(libc::SIGTERM);
        let heard = until(&manager, &["STOPPING=1"]);
        assert_eq!(said(&heard, "READY=1"), 0, "once");
        warm.end().exits(0, &["stopped; "]);
    }
}

#[test]
fn nobody_is_held_up_for_what_will_not_come() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(16, "io2", &["first_read=1ms"]);
    for (args, what) in
        [("--rest all --device /none", "failed: failed to"), ("--rest all --ready mine", "warm")]
    {
        let path = volume.path("notify");
        let _ = fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(HANG)).unwrap();
        let mut command = Command::new(BIN);
        command.arg("daemon").args(args.split_whitespace()).args(["--socket", &socket(&volume)]);
        if !args.contains("--device") {
            command.args(["--device", &volume.device()]);
        }
        let warm = start({
            command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC");
            command
        });
        let heard = until(&manager, &["READY=1"]);
        let last = heard.last().unwrap();
        assert!(last.iter().any(|line| line.starts_with(&format!("STATUS={what}"))), "{last:?}");
        assert_eq!(said(&heard, "WATCHDOG"), 0, "nobody asked for it");
        warm.signal(libc::SIGTERM);
        let ran = warm.end();
        assert_eq!(ran.err.contains("no stage `mine`"), args.contains("mine"), "{}", ran.err);
    }
}

#[test]
fn a_manager_that_is_not_there_is_no_reason_not_to_warm() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(16, "io2", &["first_read=1ms"]);
    for manager in ["/none/notify", "@ebs-prewarm-none", "nonsense", ""] {
        volume.reset();
        let mut command = daemon(&volume, "--rest all --exit");
        command.env("NOTIFY_SOCKET", manager);
        run(command).exits(0, &["complete; 16 of 16 units"]);
        assert_eq!(volume.stats().cold_units, 0);
    }
}
