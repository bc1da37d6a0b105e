//! From issues and completions to first touches.

use super::{Flags, Header, OWN_MAX, PROCESSES_MAX, Packed, Recording, TOUCHES_MAX, Touch};
use crate::extent::{Extent, ExtentSet};
use std::collections::HashMap;

/// Requests in flight that are remembered; no queue is that deep, so more means lost completions.
const IN_FLIGHT_MAX: usize = 1 << 16;

#[derive(Debug)]
struct InFlight {
    issued_us: u64,
    /// Index of the first touch it made, and how many.
    touch: usize,
    pieces: usize,
}

/// Takes block events in order of time, keeps first touches.
#[derive(Debug, Default)]
pub struct TouchLog {
    seen: ExtentSet,
    own: ExtentSet,
    touches: Vec<Packed>,
    processes: Vec<String>,
    process_ids: HashMap<String, u16>,
    in_flight: HashMap<u64, InFlight>,
    /// Issues and completions taken.
    pub events: u64,
    /// First touches that did not fit.
    pub overflowed: u64,
}

impl TouchLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// First touches so far.
    pub fn len(&self) -> usize {
        self.touches.len()
    }

    /// Whether nothing was touched yet.
    pub fn is_empty(&self) -> bool {
        self.touches.is_empty()
    }

    /// A request was sent to the device. Only reads and writes are touches; what a discard or a write of zeroes
    /// drops is no longer seen as cold.
    pub fn issue(&mut self, time_us: u64, extent: Extent, flags: Flags, process: &str) {
        self.events += 1;
        let touch = self.touches.len();
        if self.seen.covers(extent) {
            return;
        }
        if (flags.has(Flags::READ) || flags.has(Flags::WRITE)) && !flags.has(Flags::DISCARD) {
            let process = self.process_id(process);
            for piece in self.seen.missing_from(extent) {
                let packed = Packed::new(Touch { extent: piece, time_us, latency_us: None, flags, process });
                match packed {
                    Some(packed) if self.touches.len() < TOUCHES_MAX => self.touches.push(packed),
                    _ => self.overflowed += 1,
                }
            }
        }
        self.seen.insert(extent);
        let pieces = self.touches.len() - touch;
        if pieces > 0 && self.in_flight.len() < IN_FLIGHT_MAX {
            self.in_flight.insert(extent.start(), InFlight { issued_us: time_us, touch, pieces });
        }
    }

    /// A request of the recorder's own was sent.
    pub fn own(&mut self, extent: Extent) {
        if self.own.len() < OWN_MAX {
            self.seen.missing_from(extent).into_iter().for_each(|piece| _ = self.own.insert(piece));
        }
    }

    /// The request that starts at a sector was completed.
    pub fn complete(&mut self, time_us: u64, start: u64) {
        self.events += 1;
        if let Some(request) = self.in_flight.remove(&start) {
            for packed in &mut self.touches[request.touch..request.touch + request.pieces] {
                packed.set_latency(time_us.saturating_sub(request.issued_us));
            }
        }
    }

    /// Events were lost here: what was in flight may have been completed unseen, so a completion of the same
    /// sector later on says nothing about it.
    pub fn gap(&mut self) {
        self.in_flight.clear();
    }

    /// The recording; the header's event counts are filled in.
    pub fn finish(mut self, mut header: Header) -> Recording {
        header.events = self.events;
        header.overflowed = self.overflowed;
        let own: Vec<Extent> = self.own.iter().take(OWN_MAX).collect();
        // Given back first: sorting takes memory of its own.
        (self.seen, self.in_flight) = (ExtentSet::new(), HashMap::new());
        // An importer's events need not be in order; the recorder's are.
        self.touches.sort_by_key(|packed| packed.time_us());
        Recording { header, processes: self.processes, touches: self.touches, own }
    }

    /// Touches that were recorded before, in order of time after those that are here.
    fn replay(&mut self, recording: &Recording) {
        for touch in recording.touches() {
            let process = recording.processes.get(usize::from(touch.process)).map_or("?", String::as_str);
            self.issue(touch.time_us, touch.extent, touch.flags, process);
            if let Some(latency_us) = touch.latency_us {
                self.complete(touch.time_us + u64::from(latency_us), touch.extent.start());
            }
        }
        recording.own.iter().for_each(|extent| self.own(*extent));
    }

    fn process_id(&mut self, name: &str) -> u16 {
        if let Some(&id) = self.process_ids.get(name) {
            return id;
        }
        // The last place is for all that find none.
        let name = if self.processes.len() < PROCESSES_MAX - 1 { name } else { "?" };
        if let Some(&id) = self.process_ids.get(name) {
            return id;
        }
        let id = self.processes.len() as u16;
        self.processes.push(name.into());
        self.process_ids.insert(name.into(), id);
        id
    }
}

/// Two recordings of one boot as one, of which the second goes on where the first ended. What was lost is the second's to
/// say: it asks the same rings.
pub fn joined(first: &Recording, second: Recording) -> Recording {
    let mut log = TouchLog::new();
    log.replay(first);
    log.replay(&second);
    let events = first.header.events + second.header.events;
    let overflowed = log.overflowed + first.header.overflowed + second.header.overflowed;
    let header =
        Header { from_us: first.header.from_us, own: first.header.own + second.header.own, ..second.header };
    let mut recording = log.finish(header);
    (recording.header.events, recording.header.overflowed) = (events, overflowed);
    recording
}

#[cfg(test)]
mod tests {
    use super::super::format;
    use super::*;

    fn at(start: u64, sectors: u64) -> Extent {
        Extent::at(start, sectors).unwrap()
    }

    #[test]
    fn only_first_touches_are_kept_each_with_its_latency() {
        let mut log = TouchLog::new();
        log.issue(10, at(0, 8), Flags::READ, "init");
        log.issue(11, at(4, 8), Flags::READ, "init");
        log.complete(40, 0);
        log.complete(60, 4);
        log.issue(70, at(0, 12), Flags::READ, "sh");
        log.complete(80, 0);
        let recording = log.finish(Header::default());
        let touches: Vec<Touch> = recording.touches().collect();
        assert_eq!(touches.len(), 2);
        assert_eq!((touches[0].extent, touches[0].latency_us), (at(0, 8), Some(30)));
        assert_eq!((touches[1].extent, touches[1].latency_us), (at(8, 4), Some(49)));
        assert_eq!(recording.header.events, 6);
    }

    #[test]
    fn the_recorders_own_requests_are_kept_apart_and_hide_nothing() {
        let mut log = TouchLog::new();
        log.issue(10, at(0, 8), Flags::READ, "init");
        log.own(at(4, 8));
        log.own(at(100, 8));
        log.issue(20, at(100, 8), Flags::READ, "init");
        let recording = log.finish(Header::default());
        assert_eq!(recording.own, [at(8, 4), at(100, 8)]);
        assert_eq!(recording.touches().map(|touch| touch.extent).collect::<Vec<_>>(), [at(0, 8), at(100, 8)]);
    }

    #[test]
    fn a_requeued_request_keeps_its_first_issue() {
        let mut log = TouchLog::new();
        log.issue(10, at(0, 8), Flags::READ, "a");
        log.issue(20, at(0, 8), Flags::READ, "a");
        log.complete(30, 0);
        let recording = log.finish(Header::default());
        assert_eq!(recording.touches().next().unwrap().latency_us, Some(20));
    }

    #[test]
    fn a_completion_after_a_gap_is_not_taken_for_that_of_an_earlier_request() {
        let mut log = TouchLog::new();
        log.issue(10, at(0, 8), Flags::READ, "a");
        log.gap();
        log.issue(50_000, at(0, 8), Flags::READ, "a");
        log.complete(50_010, 0);
        let recording = log.finish(Header::default());
        assert_eq!(recording.touches().next().unwrap().latency_us, None);
    }

    #[test]
    fn what_is_dropped_or_zeroed_is_no_touch_and_not_cold_any_more() {
        let mut log = TouchLog::new();
        log.issue(10, at(0, 8), Flags::DISCARD, "fstrim");
        log.issue(11, at(8, 8), Flags(0), "mkfs");
        log.issue(20, at(0, 24), Flags::READ, "a");
        let recording = log.finish(Header::default());
        let extents: Vec<Extent> = recording.touches().map(|touch| touch.extent).collect();
        assert_eq!((extents, recording.processes), (vec![at(16, 8)], vec!["a".to_string()]));
    }

    #[test]
    fn process_names_stay_within_their_limit() {
        let mut log = TouchLog::new();
        for n in 0..PROCESSES_MAX as u64 + 5 {
            log.issue(n, at(n * 8, 8), Flags::READ, &n.to_string());
        }
        let recording = log.finish(Header::default());
        assert_eq!(recording.processes.len(), PROCESSES_MAX);
        let last = recording.touches().last().unwrap();
        assert_eq!(recording.processes[usize::from(last.process)], "?");
    }

    #[test]
    fn a_million_touches_fit_the_memory_they_are_given() {
        assert_eq!(size_of::<Packed>(), 24);
        let mut log = TouchLog::new();
        for n in 0..100_000u64 {
            log.issue(n, at(n * 1_000_003 % 10_000_000 * 8, 8), Flags::READ, "fio");
            log.complete(n + 1, n * 1_000_003 % 10_000_000 * 8);
        }
        assert_eq!(log.len(), 100_000);
        assert!(log.in_flight.is_empty());
    }

    #[test]
    fn a_machine_that_has_been_up_for_years_is_recorded_too() {
        const DAY_US: u64 = 86_400_000_000;
        let mut log = TouchLog::new();
        for (n, days) in [(0, 12), (1, 13), (2, 400), (3, 3_000)] {
            log.issue(days * DAY_US + n, at(n * 8, 8), Flags::READ, "a");
            log.complete(days * DAY_US + n + 30, n * 8);
        }
        let recording = log.finish(Header { id: "r".into(), ..Header::default() });
        let times: Vec<u64> = recording.touches().map(|touch| touch.time_us).collect();
        assert_eq!(times, [12 * DAY_US, 13 * DAY_US + 1, 400 * DAY_US + 2, 3_000 * DAY_US + 3]);
        assert!(recording.touches().all(|touch| touch.latency_us == Some(30) && touch.extent.sectors() == 8));
        assert_eq!(recording.header.overflowed, 0);
        assert_eq!(format::decode(&format::encode(&recording)).unwrap(), recording);
    }

    #[test]
    fn a_boot_that_was_recorded_in_two_parts_is_the_same_as_in_one() {
        let requests =
            [(10, at(0, 8), "a"), (20, at(4, 8), "b"), (30, at(100, 8), "a"), (40, at(2, 104), "c")];
        let record = |requests: &[(u64, Extent, &str)], from_us| {
            let mut log = TouchLog::new();
            for (time_us, extent, process) in requests {
                log.issue(*time_us, *extent, Flags::READ, process);
                log.complete(time_us + 5, extent.start());
            }
            log.finish(Header { from_us, until_us: from_us + 20, ..Header::default() })
        };
        let whole = record(&requests, 5);
        for cut in 0..=requests.len() {
            let (first, second) = (record(&requests[..cut], 5), record(&requests[cut..], 6));
            let joined = joined(&first, second);
            let shown = |recording: &Recording| {
                let name = |touch: Touch| recording.processes[usize::from(touch.process)].clone();
                let touches = recording.touches().map(|touch| (touch.extent, touch.time_us, name(touch)));
                touches.collect::<Vec<_>>()
            };
            assert_eq!(shown(&joined), shown(&whole), "cut at {cut}");
            assert_eq!((joined.header.events, joined.header.from_us), (8, 5));
        }
    }

    #[test]
    fn letters_of_the_kernel_become_flags() {
        assert_eq!(Flags::from_rwbs(b"RAM\0\0\0"), Flags::READ.with(Flags::READ_AHEAD).with(Flags::METADATA));
        assert_eq!(Flags::from_rwbs(b"WFS\0"), Flags::WRITE.with(Flags::SYNC));
    }
}
