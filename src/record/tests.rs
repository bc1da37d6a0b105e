use super::page::tests::{PageWriter, event, reader};
use super::*;

fn take_all(own_threads: Vec<u32>, events: &[Event]) -> Intake {
    let mut intake = Intake { own_threads, ..Intake::default() };
    events.iter().for_each(|event| intake.take(Drained::Event(*event)));
    intake
}

#[test]
fn own_requests_are_left_out_and_counted() {
    let own = |mut event: Event| {
        event.pid = 7;
        event
    };
    let intake = take_all(
        vec![7],
        &[
            own(event(1_000, What::Issue, 8)),
            event(2_000, What::Issue, 64),
            // A completion runs in whatever thread was interrupted, ours or another's.
            event(3_000, What::Complete, 8),
            own(event(4_000, What::Complete, 64)),
        ],
    );
    assert_eq!((intake.own, intake.log.events, intake.last_ns), (1, 2, 4_000));
    let recording = intake.log.finish(Header::default());
    let touches: Vec<_> = recording.touches().map(|touch| (touch.extent.start(), touch.latency_us)).collect();
    assert_eq!(touches, [(64, Some(2))]);
    assert_eq!(recording.own, [Extent::at(8, 8).unwrap()]);
}

#[test]
fn a_flush_counts_as_an_event_and_is_no_touch() {
    let flush = Event { sectors: 0, sector: 0, ..event(9_000, What::Issue, 0) };
    let intake = take_all(vec![], &[flush]);
    assert_eq!((intake.log.events, intake.log.len(), intake.last_ns), (1, 0, 9_000));
}

#[test]
fn a_sector_beyond_any_disk_is_no_touch() {
    let intake = take_all(vec![], &[event(1, What::Issue, u64::MAX), event(2, What::Issue, u64::MAX / 512)]);
    assert_eq!((intake.log.events, intake.log.len()), (2, 0));
}

#[test]
fn a_boot_of_which_the_end_was_asked_for_long_after_keeps_its_stages() {
    let record = |requests: &[(u64, u64)], header: Header| {
        let mut log = TouchLog::new();
        for (time_us, cluster) in requests {
            log.issue(*time_us, Extent::at(cluster * 256, 8).unwrap(), Flags::READ, "p");
        }
        log.finish(Header { id: "r".into(), ..header })
    };
    let times =
        stages::BootTimes { userspace_us: Some(2_000), sysinit_us: Some(3_000), unit_us: Some(5_000) };
    let first = record(
        &[(1_000, 0), (2_500, 1), (4_000, 2)],
        Header { from_us: 500, until_us: 4_500, stages: stages::unknown(), ..Header::default() },
    );
    let (from_us, until_us) = (80_000, 90_000);
    let stages = stages::marks(&times, until_us);
    let second = record(&[(4_800, 3), (6_000, 4)], Header { from_us, until_us, stages, ..Header::default() });
    let joined = crate::recording::joined(&first, second);
    let profile = crate::profile::build::build("p", &[joined], Default::default()).unwrap();
    let clusters = |stage: &crate::profile::Stage| -> Vec<u64> {
        stage.entries.iter().map(|entry| entry.extent.start() / 256).collect()
    };
    let found: Vec<_> = profile.stages.iter().map(|stage| (stage.name.as_str(), clusters(stage))).collect();
    let expected = [("initrd", vec![0]), ("sysinit", vec![1]), ("ready", vec![2, 3]), ("later", vec![4])];
    assert_eq!(found, expected);
}

/// Peak memory of this process in bytes.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

const CHILD: &str = "EBS_PREWARM_TEST_MEMORY_CHILD";

/// In a process of its own, for its peak is that of the recording alone.
#[test]
fn a_million_events_stay_under_64_mib() {
    if std::env::var_os(CHILD).is_some() {
        return record_a_million_events();
    }
    let name = "record::tests::a_million_events_stay_under_64_mib";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("peak of a million events"), "the child ran no test: {text}");
}

/// Half a million scattered requests of 4 KiB on four CPUs: no two can be kept as one.
fn record_a_million_events() {
    const EVENTS: u64 = 1_000_000;
    let reader = reader(3);
    let mut merge = merge::Merge::new(4);
    let mut intake = Intake::default();
    let mut events = Vec::new();
    let mut n = 0;
    while n < EVENTS {
        let ring = (n / 50 % 4) as usize;
        let mut page = PageWriter::new(&reader, 1_000_000 + n * 1_000);
        loop {
            let request = n / 2;
            let what = if n.is_multiple_of(2) { What::Issue } else { What::Complete };
            // 7,368,787 is prime to 2^24, so no place comes twice.
            let sector = request * 7_368_787 % (1 << 24) * 16;
            if n == EVENTS || !page.push(&event(1_000_000 + n * 1_000, what, sector)) {
                break;
            }
            n += 1;
        }
        assert!(!reader.read(&page.finish(), &mut events).damaged);
        for event in events.drain(..) {
            merge.read_until(ring, event.time_ns);
            merge.push(event);
        }
        // As a drain does: the other rings were read to their ends a moment ago.
        let behind_ns = (1_000_000 + n * 1_000).saturating_sub(merge::HOLD_BACK_NS);
        (0..4).for_each(|ring| merge.read_until(ring, behind_ns));
        while let Some(event) = merge.next_ready() {
            intake.take(Drained::Event(event));
        }
    }
    while let Some(event) = merge.next_last() {
        intake.take(Drained::Event(event));
    }
    let recording = intake.log.finish(Header { id: "m".into(), ..Header::default() });
    assert_eq!((recording.header.events, recording.touches.len() as u64), (EVENTS, EVENTS / 2));
    assert!(recording.touches().all(|touch| touch.latency_us == Some(1)));
    let bytes = crate::recording::format::encode(&recording);
    let peak = peak_bytes();
    println!("peak of a million events: {} KiB, file of {} bytes", peak / 1024, bytes.len());
    assert!(peak < 64 << 20, "{peak} bytes");
}
