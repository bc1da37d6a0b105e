use super::super::dbus::tests::{Value, arguments, message};
use super::*;
use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

const RETURN: u8 = 2;
const REFUSAL: u8 = 3;
const SIGNAL: u8 = 4;

/// What a systemd knows, and what it was asked.
#[derive(Default)]
struct World {
    userspace_us: u64,
    /// State, since when active, since when inactive.
    units: HashMap<String, (&'static str, u64, u64)>,
    aliases: HashMap<String, String>,
    connections: Vec<UnixStream>,
    questions: usize,
    /// Answers come one byte at a time.
    is_slow: bool,
}

/// A systemd on a socket below a root of its own.
struct Systemd {
    root: tempfile::TempDir,
    world: Arc<Mutex<World>>,
}

fn object(unit: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' => (byte as char).to_string(),
        _ => format!("_{byte:02x}"),
    };
    format!("/org/freedesktop/systemd1/unit/{}", unit.bytes().map(escape).collect::<String>())
}

impl World {
    fn answer(&mut self, call: &Message) -> Vec<u8> {
        self.questions += 1;
        let arguments = arguments(call);
        let number = |number: u64| message(RETURN, call.serial, "", &Value::Number(number));
        let refusal = || message(REFUSAL, call.serial, "", &Value::Nothing);
        if call.member == "GetUnit" {
            let unit = self.aliases.get(&arguments[0]).unwrap_or(&arguments[0]);
            return match self.units.contains_key(unit) {
                true => message(RETURN, call.serial, "", &Value::Object(&object(unit))),
                false => refusal(),
            };
        }
        let unit = dbus::unit_of(&call.path).and_then(|unit| self.units.get(&unit));
        match (arguments[1].as_str(), unit) {
            ("UserspaceTimestampMonotonic", _) => number(self.userspace_us),
            ("ActiveState", Some(unit)) => message(RETURN, call.serial, "", &Value::String(unit.0)),
            ("ActiveEnterTimestampMonotonic", Some(unit)) => number(unit.1),
            ("InactiveEnterTimestampMonotonic", Some(unit)) => number(unit.2),
            _ => refusal(),
        }
    }
}

/// As systemd does: what comes in one breath with the authentication lies until there is more.
fn serve(mut stream: UnixStream, world: &Mutex<World>) -> Option<()> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while received != dbus::AUTHENTICATE {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        received.extend_from_slice(&buffer[..count]);
    }
    received.clear();
    stream.write_all(b"OK 1a1719603621497d933e3409371b1d22\r\n").ok()?;
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        received.extend_from_slice(&buffer[..count]);
        while let Some((call, length)) = dbus::next(&received).unwrap() {
            received.drain(..length);
            let (answer, is_slow) = {
                let mut world = world.lock().unwrap();
                (world.answer(&call), world.is_slow)
            };
            // Others' news come in between.
            stream.write_all(&message(SIGNAL, 0, &object("other.service"), &Value::Nothing)).ok()?;
            let step = if is_slow { 1 } else { answer.len() };
            answer.chunks(step).try_for_each(|piece| stream.write_all(piece)).ok()?;
        }
    }
}

impl Systemd {
    /// Not up yet.
    fn new() -> Systemd {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/systemd/units")).unwrap();
        Systemd { root, world: Arc::default() }
    }

    fn start(&self) {
        let listener = UnixListener::bind(socket(self.root.path())).unwrap();
        let world = self.world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let world = world.clone();
                world.lock().unwrap().connections.push(stream.try_clone().unwrap());
                std::thread::spawn(move || serve(stream, &world));
            }
        });
    }

    fn up() -> Systemd {
        let systemd = Systemd::new();
        systemd.start();
        systemd
    }

    fn set(&self, unit: &str, state: &'static str, active_us: u64, inactive_us: u64) {
        self.world.lock().unwrap().units.insert(unit.into(), (state, active_us, inactive_us));
    }

    /// Says on every connection that a unit changed.
    fn signal(&self, unit: &str) {
        self.send(&message(SIGNAL, 0, &object(unit), &Value::Nothing));
    }

    /// Says on every connection that a unit was loaded.
    fn signal_new(&self, unit: &str) {
        self.send(&message(SIGNAL, 0, MANAGER, &Value::Name(unit)));
    }

    fn send(&self, news: &[u8]) {
        let mut world = self.world.lock().unwrap();
        world.connections.iter_mut().for_each(|stream| _ = stream.write_all(news));
    }

    fn connections(&self) -> usize {
        self.world.lock().unwrap().connections.len()
    }

    fn questions(&self) -> usize {
        self.world.lock().unwrap().questions
    }

    fn watch(&self, unit: &str) -> Watch {
        Watch::new(self.root.path(), unit)
    }

    fn invocation(&self, unit: &str) -> PathBuf {
        self.root.path().join(format!("run/systemd/units/invocation:{unit}"))
    }
}

/// Looks until all that was asked is answered, however long the other thread takes.
fn settle(watch: &mut Watch) -> Option<u64> {
    loop {
        let active_us = watch.look();
        if active_us.is_some() || !watch.is_waiting() {
            return active_us;
        }
    }
}

#[test]
fn it_may_not_be_up_yet_nor_know_the_unit_nor_be_the_one_of_the_initramfs() {
    let systemd = Systemd::new();
    let mut watch = systemd.watch("a.target");
    assert_eq!((watch.look(), watch.look()), (None, None));
    systemd.start();
    let release = systemd.root.path().join("etc/initrd-release");
    std::fs::create_dir_all(release.parent().unwrap()).unwrap();
    std::fs::write(&release, "").unwrap();
    systemd.set("a.target", "active", 17, 0);
    assert_eq!((settle(&mut watch), systemd.connections()), (None, 0));
    std::fs::remove_file(&release).unwrap();
    systemd.world.lock().unwrap().units.clear();
    assert_eq!((settle(&mut watch), systemd.connections()), (None, 1));
    systemd.set("a.target", "active", 4711, 0);
    systemd.signal_new("b.target");
    assert_eq!((settle(&mut watch), systemd.connections()), (None, 1));
    systemd.signal_new("a.target");
    assert_eq!((settle(&mut watch), systemd.connections()), (Some(4711), 1));
}

#[test]
fn a_target_is_noticed_by_the_news_of_it_alone() {
    let systemd = Systemd::up();
    systemd.world.lock().unwrap().is_slow = true;
    systemd.set("a.target", "inactive", 0, 0);
    let mut watch = systemd.watch("a.target");
    assert_eq!(settle(&mut watch), None);
    let questions = systemd.questions();
    systemd.signal("b.target");
    assert_eq!((settle(&mut watch), settle(&mut watch)), (None, None));
    assert_eq!(
        (systemd.questions(), systemd.connections()),
        (questions, 1),
        "nothing is asked for others' news"
    );
    systemd.set("a.target", "active", 99, 0);
    systemd.signal("a.target");
    assert_eq!(settle(&mut watch), Some(99));
    assert_eq!(systemd.connections(), 1);
}

#[test]
fn lost_news_are_made_up_for() {
    let systemd = Systemd::up();
    systemd.set("a.target", "activating", 0, 0);
    let mut watch = systemd.watch("a.target");
    assert_eq!(settle(&mut watch), None);
    systemd.set("a.target", "active", 5, 0);
    assert_eq!((0..LOOKS_UNASKED).find_map(|_| settle(&mut watch)), Some(5));
}

#[test]
fn a_service_is_asked_for_once_and_again_when_it_is_started() {
    let systemd = Systemd::up();
    systemd.set("ssh.service", "inactive", 0, 0);
    systemd.world.lock().unwrap().aliases.insert("sshd.service".into(), "ssh.service".into());
    let mut watch = systemd.watch("sshd.service");
    assert!((0..LOOKS_CLOSED - 1).all(|_| settle(&mut watch).is_none()));
    assert_eq!((systemd.connections(), systemd.questions()), (1, 4));
    // Its invocation is that of the name behind the alias.
    systemd.set("ssh.service", "activating", 0, 0);
    std::os::unix::fs::symlink("0123", systemd.invocation("ssh.service")).unwrap();
    assert_eq!((settle(&mut watch), systemd.connections()), (None, 2));
    systemd.set("ssh.service", "active", 12, 0);
    systemd.signal("ssh.service");
    assert_eq!((settle(&mut watch), systemd.connections()), (Some(12), 2));
}

#[test]
fn a_service_that_is_not_loaded_shows_when_it_is_started() {
    let systemd = Systemd::up();
    let mut watch = systemd.watch("a.service");
    assert!((0..LOOKS_CLOSED - 1).all(|_| settle(&mut watch).is_none()));
    assert_eq!(systemd.connections(), 1);
    systemd.set("a.service", "active", 8, 0);
    std::os::unix::fs::symlink("0123", systemd.invocation("a.service")).unwrap();
    assert_eq!((settle(&mut watch), systemd.connections()), (Some(8), 2));
}

#[test]
fn a_service_that_fails_is_waited_for_and_one_that_is_done_was_ready() {
    let systemd = Systemd::up();
    systemd.set("a.service", "activating", 0, 0);
    let mut watch = systemd.watch("a.service");
    assert_eq!(settle(&mut watch), None);
    systemd.set("a.service", "failed", 0, 70);
    systemd.signal("a.service");
    assert_eq!(settle(&mut watch), None);
    assert_eq!((0..LOOKS_CLOSED - 1).find_map(|_| settle(&mut watch)), None);
    systemd.set("a.service", "activating", 0, 70);
    assert_eq!((0..2).find_map(|_| settle(&mut watch)), None);
    systemd.set("a.service", "inactive", 0, 80);
    systemd.signal("a.service");
    assert_eq!(settle(&mut watch), Some(80));
}

#[test]
fn a_service_that_came_and_went_between_two_questions_was_ready() {
    // What was said of it at first, what later on, and since when it was ready.
    let [inactive, failed] = ["inactive", "failed"];
    for (first, then, since_us) in [
        // One that ends without ever having been active, and one that was.
        (Some((inactive, 0, 0)), (inactive, 0, 80), Some(80)),
        (Some((inactive, 0, 70)), (inactive, 0, 80), Some(80)),
        (Some((inactive, 50, 70)), (inactive, 75, 80), Some(75)),
        (Some((failed, 0, 70)), (inactive, 0, 80), Some(80)),
        (None, (inactive, 0, 80), Some(80)),
        // Nothing was new; it failed; a failure that is forgotten is no success.
        (Some((inactive, 50, 70)), (inactive, 50, 70), None),
        (Some((inactive, 0, 0)), (failed, 0, 80), None),
        (Some((failed, 0, 70)), (inactive, 0, 70), None),
    ] {
        let systemd = Systemd::up();
        let set = |(state, active_us, inactive_us)| systemd.set("a.service", state, active_us, inactive_us);
        first.into_iter().for_each(set);
        let mut watch = systemd.watch("a.service");
        assert_eq!(settle(&mut watch), None, "{first:?}");
        set(then);
        let found = (0..2 * LOOKS_CLOSED).find_map(|_| settle(&mut watch));
        assert_eq!(found, since_us, "{first:?}, {then:?}");
    }
}

#[test]
fn a_systemd_that_hangs_up_is_tried_again() {
    let systemd = Systemd::up();
    systemd.set("a.target", "inactive", 0, 0);
    let mut watch = systemd.watch("a.target");
    assert_eq!(settle(&mut watch), None);
    for stream in systemd.world.lock().unwrap().connections.iter() {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    systemd.set("a.target", "active", 6, 0);
    assert_eq!(watch.look(), None);
    assert_eq!((0..=LOOKS_AFTER_ERROR).find_map(|_| settle(&mut watch)), Some(6));
    assert_eq!(systemd.connections(), 2);
}

#[test]
fn what_speaks_no_dbus_is_left_alone() {
    let systemd = Systemd::new();
    let listener = UnixListener::bind(socket(systemd.root.path())).unwrap();
    std::thread::spawn(move || {
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"OK 1\r\nBllllllllllllllllllll", &[0; 4000]] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer).unwrap();
        }
    });
    for _ in 0..3 {
        let mut watch = systemd.watch("a.service");
        while watch.looks_left == 0 {
            assert_eq!(watch.look(), None);
        }
        assert!(watch.open.is_none());
    }
}

#[test]
fn the_moments_of_the_boot_are_asked_for() {
    let systemd = Systemd::up();
    systemd.world.lock().unwrap().userspace_us = 2_000;
    systemd.set("sysinit.target", "active", 3_000, 0);
    systemd.set("a.service", "active", 4_000, 0);
    let root = systemd.root.path();
    let times = boot_times(root, Some("a.service")).unwrap();
    assert_eq!(times, BootTimes { userspace_us: Some(2_000), sysinit_us: Some(3_000), unit_us: Some(4_000) });
    assert_eq!(boot_times(root, Some("b.service")).unwrap().unit_us, None);
    assert_eq!(boot_times(root, None).unwrap().unit_us, None);
    let error = boot_times(&root.join("none"), None).unwrap_err().full_text();
    assert!(error.contains("none/run/systemd/private"), "{error}");
}
