//! The boot's ring: switched on by hand as the kernel's command line does, filled, taken over, undone.

use super::*;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

const TRACEFS: &str = "/sys/kernel/tracing";
const EVENTS: [&str; 2] = ["events/block/block_rq_issue", "events/block/block_rq_complete"];
const BLOCK: u64 = 4096;

/// One test at a time, in whatever process: there is one ring of the boot.
struct Turn(#[allow(dead_code)] fs::File);

impl Turn {
    fn wait() -> Turn {
        let path = std::env::temp_dir().join("ebs-prewarm-test-boot-ring.lock");
        let file = fs::File::create(path).unwrap();
        // SAFETY: the descriptor is open, the rest are plain numbers.
        assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
        Turn(file)
    }
}

fn get(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap().trim().to_string()
}

fn set(dir: &Path, name: &str, value: &str) {
    let path = dir.join(name);
    fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A ring that traces since the kernel started, as far as anyone can tell.
struct Ring {
    dir: PathBuf,
    clock_before: Option<String>,
    _turn: Turn,
}

impl Ring {
    /// The kernel's own, as `trace_event=` and `trace_clock=mono` leave it.
    fn top() -> Ring {
        let turn = Turn::wait();
        let dir = PathBuf::from(TRACEFS);
        assert!(EVENTS.iter().all(|event| get(&dir, &format!("{event}/enable")) == "0"), "somebody traces");
        let clock = get(&dir, "trace_clock");
        let clock = clock.split(['[', ']']).nth(1).unwrap().to_string();
        let ring = Ring { dir, clock_before: Some(clock), _turn: turn };
        ring.switch_on("mono", "8192");
        ring
    }

    /// An instance, as `trace_instance=` leaves it.
    fn instance(clock: &str, kib: &str) -> Ring {
        let turn = Turn::wait();
        let dir = Path::new(TRACEFS).join("instances/ebs-prewarm");
        fs::create_dir(&dir).unwrap();
        let ring = Ring { dir, clock_before: None, _turn: turn };
        ring.switch_on(clock, kib);
        ring
    }

    fn switch_on(&self, clock: &str, kib: &str) {
        set(&self.dir, "buffer_size_kb", kib);
        // Empties the ring, so no more of what others traced is in it.
        set(&self.dir, "trace_clock", if clock == "mono" { "boot" } else { "mono" });
        set(&self.dir, "trace_clock", clock);
        EVENTS.iter().for_each(|event| set(&self.dir, &format!("{event}/enable"), "1"));
    }

    fn is_gone(&self) -> bool {
        match self.clock_before {
            None => !self.dir.exists(),
            Some(_) => EVENTS.iter().all(|event| {
                get(&self.dir, &format!("{event}/enable")) == "0"
                    && get(&self.dir, &format!("{event}/filter")) == "none"
            }),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock_before {
            for event in EVENTS {
                set(&self.dir, &format!("{event}/enable"), "0");
                set(&self.dir, &format!("{event}/filter"), "0");
            }
            set(&self.dir, "trace_clock", clock);
        } else {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn now_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Reads one block after the other around the page cache, each once.
struct Reader {
    file: fs::File,
    next: u64,
}

#[repr(align(4096))]
struct Page([u8; BLOCK as usize]);

impl Reader {
    fn new(disk: &Disk) -> Reader {
        let file = fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(&disk.device).unwrap();
        Reader { file, next: 0 }
    }

    fn read(&mut self, count: u64) {
        for _ in 0..count {
            self.file.read_exact_at(&mut Page([0; BLOCK as usize]).0, self.next * BLOCK).unwrap();
            // Every other block, so that no two requests or touches become one.
            self.next += 2;
        }
    }

    fn read_blocks(&self) -> u64 {
        self.next / 2
    }
}

/// Every request is there once, with its latency, and its completion too.
fn assert_all(recording: &Recording, blocks: u64) {
    let touches: Vec<_> = recording.touches().collect();
    let places: BTreeSet<u64> = touches.iter().map(|touch| touch.extent.start()).collect();
    let expected: BTreeSet<u64> = (0..blocks).map(|block| block * 2 * BLOCK / 512).collect();
    let missing: Vec<_> = expected.difference(&places).take(5).collect();
    assert!(missing.is_empty(), "missing {missing:?} of {blocks}");
    assert_eq!((places.len(), touches.len()), (blocks as usize, blocks as usize));
    assert_eq!(recording.header.events, 2 * blocks, "each issue and each completion once");
    assert_eq!(recording.header.lost(), 0);
    assert!(touches.iter().all(|touch| touch.latency_us.is_some()));
}

/// Reads before, while and after the ring is taken over; the recording, and when reading began.
fn record_through(disk: &Disk, other: &Disk, more: &[&str]) -> (Recording, u64, u64) {
    let mut reader = Reader::new(disk);
    let began_us = now_us();
    // The kernel's ring has all disks in it.
    dd(&other.device, 0, 64);
    reader.read(1000);
    let stop = AtomicBool::new(false);
    let blocks = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // The ring holds a hundred thousand, however late it is read.
                match reader.read_blocks() < 30_000 {
                    true => reader.read(1),
                    false => std::thread::sleep(std::time::Duration::from_millis(1)),
                }
            }
            reader.read(500);
            reader.read_blocks()
        });
        let running = Running::start(disk.record("a.rec", &[&["--boot-ring"], more].concat()));
        dd(&other.device, 100, 64);
        stop.store(true, Ordering::Relaxed);
        let blocks = reading.join().unwrap();
        running.signal("TERM");
        let (code, text) = running.end();
        assert_eq!(code, Some(0), "{text}");
        blocks
    });
    (disk.read("a.rec"), blocks, began_us)
}

#[test]
fn the_kernels_own_ring_is_read_without_gap_or_double_and_given_back() {
    if !can_record() {
        return;
    }
    let (disk, other) = (Disk::new(4096 * MIB, |_| {}), Disk::plain());
    // All disks are in that ring, and others are at work already.
    let before_us = now_us();
    let ring = Ring::top();
    let (recording, blocks, _) = record_through(&disk, &other, &[]);
    assert_all(&recording, blocks);
    let header = &recording.header;
    let first_us = recording.touches().next().unwrap().time_us;
    assert!(before_us <= header.from_us && header.from_us <= first_us, "{before_us} {header:?} {first_us}");
    assert!(recording.touches().all(|touch| touch.time_us <= header.until_us));
    assert!(ring.is_gone());
    // In whole pages of the ring.
    let kib: u64 = get(&ring.dir, "buffer_size_kb").parse().unwrap();
    assert!((1408..1424).contains(&kib), "{kib}");
}

#[test]
fn an_instance_is_read_whatever_its_clock_and_removed() {
    if !can_record() {
        return;
    }
    let (disk, other) = (Disk::new(4096 * MIB, |_| {}), Disk::plain());
    // TAI is half a century away from the time since the kernel started.
    for clock in ["tai", "local"] {
        let ring = Ring::instance(clock, "8192");
        let (recording, blocks, began_us) = record_through(&disk, &other, &[]);
        assert_all(&recording, blocks);
        let first_us = recording.touches().next().unwrap().time_us;
        const SECOND: u64 = 1_000_000;
        let span = began_us.saturating_sub(SECOND)..=recording.header.until_us + SECOND;
        assert!(
            recording.touches().all(|touch| span.contains(&touch.time_us)),
            "{clock}: {first_us} {span:?}"
        );
        assert!(ring.is_gone());
    }
}

#[test]
fn a_ring_that_overflowed_says_from_when_it_saw_all() {
    if !can_record() {
        return;
    }
    let disk = Disk::new(4096 * MIB, |_| {});
    let ring = Ring::instance("mono", "16");
    // Others' requests would push ours out before the ring is taken over.
    let ours = format!("dev == {}", options(&disk.device).device);
    EVENTS.iter().for_each(|event| set(&ring.dir, &format!("{event}/filter"), &ours));
    let mut reader = Reader::new(&disk);
    let began_us = now_us();
    reader.read(4000);
    let filled_us = now_us();
    let output = disk.record("a.rec", &["--boot-ring", "--for", "1ms"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("lost"), "{text}");
    let recording = disk.read("a.rec");
    let header = &recording.header;
    assert!(header.lost() > 0 && header.lost() + header.events >= 8000, "{header:?}");
    assert!(began_us < header.from_us && header.from_us < filled_us, "{began_us} {header:?} {filled_us}");
    // What was kept is the end, and of it nothing is missing.
    let kept: Vec<u64> = recording
        .touches()
        .filter(|touch| touch.time_us > header.from_us)
        .map(|touch| touch.extent.start())
        .collect();
    let last = (reader.next - 2) * BLOCK / 512;
    assert!(kept.len() > 50 && kept.last() == Some(&last), "{} {:?}", kept.len(), kept.last());
    assert!(kept.windows(2).all(|two| two[1] == two[0] + 2 * BLOCK / 512));
    assert!(ring.is_gone());
}

#[test]
fn a_boot_that_was_not_traced_is_recorded_from_now_on_and_the_remedy_named() {
    if !can_record() {
        return;
    }
    let _turn = Turn::wait();
    let disk = Disk::plain();
    let began_us = now_us();
    let input = format!("if={}", disk.device);
    let reading = ["dd", &input, "of=/dev/null", "bs=4k", "iflag=direct", "count=1", "skip=5"];
    let output = disk.record("a.rec", &[&["--boot-ring", "--"][..], &reading].concat()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(ebs_prewarm::record::BOOT_PARAMETERS) && text.contains("from now on"), "{text}");
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(40, 48)]);
    assert!(recording.header.from_us >= began_us);
}

#[test]
fn a_clock_that_counts_no_time_is_refused_and_one_recorder_at_a_time_reads() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let ring = Ring::instance("counter", "64");
    let output = disk.record("a.rec", &["--boot-ring", "--for", "1ms"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("trace_clock=mono"), "{text}");
    assert!(ring.is_gone(), "what cannot be used is switched off all the same");
    drop(ring);
    let ring = Ring::instance("mono", "1024");
    let running = Running::start(disk.record("b.rec", &["--boot-ring"]));
    let output = disk.record("c.rec", &["--boot-ring", "--for", "1ms"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("another `record --boot-ring`"), "{text}");
    assert!(!ring.is_gone(), "the first goes on");
    dd(&disk.device, 3000, 1);
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
    // Besides what the other one looked at to recognise the volume.
    assert!(touched(&disk.read("b.rec")).contains(&(24_000, 24_008)));
    assert!(ring.is_gone());
}

#[test]
fn units_are_named_as_systemd_does() {
    let refused = |arguments: &[&str]| {
        let output =
            Command::new(BINARY).args(["record", "-o", "/tmp/x.rec"]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for unit in ["", "a/b.service", "a b", "ä.service", &"a".repeat(256)] {
        let (code, text) = refused(&["--until-unit", unit]);
        assert!(code == Some(2) && text.contains("unit"), "{unit}: {text}");
    }
    let (code, text) = refused(&["--linger", "5s"]);
    assert!(code == Some(2) && text.contains("--until-unit"), "{text}");
}
