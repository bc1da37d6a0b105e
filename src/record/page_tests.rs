use super::super::format::tests::kernels;
use super::*;
use proptest::prelude::*;

/// A reader for the n-th of the kernels whose descriptions are kept.
pub fn reader(kernel: usize) -> PageReader {
    let kernel = &kernels()[kernel];
    PageReader {
        page: PageLayout::parse(kernel.header_page).unwrap(),
        issue: EventLayout::parse(kernel.issue, "block_rq_issue").unwrap(),
        complete: EventLayout::parse(kernel.complete, "block_rq_complete").unwrap(),
        device: DEVICE,
    }
}

/// The disk that is recorded: 259:0, as NVMe disks have it.
const DEVICE: u32 = 259 << 20;

/// Writes pages as the kernel does.
pub struct PageWriter<'a> {
    reader: &'a PageReader,
    bytes: Vec<u8>,
    time_ns: u64,
    device: u32,
}

impl<'a> PageWriter<'a> {
    pub fn new(reader: &'a PageReader, time_ns: u64) -> Self {
        let mut bytes = vec![0; reader.page.data];
        bytes[..8].copy_from_slice(&time_ns.to_le_bytes());
        PageWriter { reader, bytes, time_ns, device: DEVICE }
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }

    fn head(&mut self, kind: u32, delta: u64) {
        self.word(kind | (delta as u32) << 5);
    }

    fn record(&self, event: &Event) -> Vec<u8> {
        let layout = match event.what {
            What::Issue => &self.reader.issue,
            What::Complete => &self.reader.complete,
        };
        let mut record = vec![0; 64];
        let mut put = |field: Field, bytes: &[u8]| {
            let length = bytes.len().min(field.bytes);
            record[field.offset..][..length].copy_from_slice(&bytes[..length]);
        };
        put(layout.common_type, &layout.id.to_le_bytes());
        put(layout.pid, &event.pid.to_le_bytes());
        put(layout.dev, &self.device.to_le_bytes());
        put(layout.sector, &event.sector.to_le_bytes());
        put(layout.sectors, &event.sectors.to_le_bytes());
        let letters = [(Flags::READ, b'R'), (Flags::WRITE, b'W'), (Flags::DISCARD, b'D')]
            .into_iter()
            .chain([(Flags::READ_AHEAD, b'A'), (Flags::SYNC, b'S'), (Flags::METADATA, b'M')])
            .filter_map(|(flag, letter)| event.flags.has(flag).then_some(letter));
        put(layout.rwbs, &letters.collect::<Vec<_>>());
        if let Some(comm) = layout.comm {
            put(comm, &event.comm);
        }
        record
    }

    /// False where it does not fit any more.
    pub fn push(&mut self, event: &Event) -> bool {
        let delta = event.time_ns - self.time_ns;
        let record = self.record(event);
        if self.bytes.len() + 8 + 8 + record.len() > self.reader.page.bytes {
            return false;
        }
        if delta >> DELTA_BITS != 0 {
            self.head(TYPE_TIME_EXTEND, delta & ((1 << DELTA_BITS) - 1));
            self.word((delta >> DELTA_BITS) as u32);
            self.head(record.len() as u32 / 4, 0);
        } else {
            self.head(record.len() as u32 / 4, delta);
        }
        self.bytes.extend_from_slice(&record);
        self.time_ns = event.time_ns;
        true
    }

    pub fn finish(mut self) -> Vec<u8> {
        let commit = (self.bytes.len() - self.reader.page.data) as u64;
        self.bytes[8..16].copy_from_slice(&commit.to_le_bytes());
        self.bytes.resize(self.reader.page.bytes, 0);
        self.bytes
    }
}

pub fn event(time_ns: u64, what: What, sector: u64) -> Event {
    let mut comm = [0; COMM_BYTES];
    if what == What::Issue {
        comm[..7].copy_from_slice(b"systemd");
    }
    let flags = Flags::READ.with(Flags::READ_AHEAD);
    Event { time_ns, sector, sectors: 8, pid: 4321, what, flags, comm }
}

use super::super::format::Field;

#[test]
fn what_a_kernel_writes_is_read_back() {
    for kernel in 0..kernels().len() {
        let reader = reader(kernel);
        let events = [
            event(1_000, What::Issue, 2048),
            event(1_010, What::Complete, 2048),
            event(1_000_000_000_000, What::Issue, u64::MAX / 512),
        ];
        let mut page = PageWriter::new(&reader, 1_000);
        assert!(events.iter().all(|event| page.push(event)));
        let mut read = Vec::new();
        let facts = reader.read(&page.finish(), &mut read);
        assert!(!facts.damaged && !facts.missed);
        assert_eq!(read, events, "kernel {kernel}");
        assert_eq!(read[0].process(), "systemd");
    }
}

#[test]
fn other_disks_are_left_out_and_the_page_says_from_when_to_when() {
    let reader = reader(1);
    let mut page = PageWriter::new(&reader, 900);
    page.device = DEVICE + 1;
    assert!(page.push(&event(1_000, What::Issue, 2048)));
    page.device = DEVICE;
    assert!(page.push(&event(1_010, What::Issue, 8)));
    // What passes through to the device has no disk in it.
    page.device = 0;
    assert!(page.push(&event(1_020, What::Complete, u64::MAX)));
    let mut read = Vec::new();
    let facts = reader.read(&page.finish(), &mut read);
    assert_eq!(read, [event(1_010, What::Issue, 8)]);
    assert_eq!((facts.from_ns, facts.until_ns), (900, 1_020));
}

#[test]
fn padding_absolute_times_long_and_foreign_records_are_stepped_over() {
    let reader = reader(3);
    let mut page = PageWriter::new(&reader, 500);
    // A discarded record of 8 bytes whose time counts.
    page.head(TYPE_PADDING, 100);
    page.word(8);
    page.word(0);
    // A record of another event.
    page.head(2, 1);
    page.word(77);
    page.word(0);
    page.time_ns = 601;
    assert!(page.push(&event(700, What::Issue, 8)));
    page.head(TYPE_TIME_STAMP, 5);
    page.word(1);
    page.time_ns = (1 << DELTA_BITS) + 5;
    assert!(page.push(&event((1 << DELTA_BITS) + 6, What::Complete, 8)));
    // The long form, as machines with 8-byte alignment write all records.
    let long = page.record(&event(0, What::Issue, 16));
    page.head(0, 10);
    page.word(long.len() as u32 + 4);
    page.bytes.extend_from_slice(&long);
    // The page ends early: what follows is old bytes.
    page.head(TYPE_PADDING, 0);
    page.word(0xffff_ffff);
    let mut read = Vec::new();
    assert!(!reader.read(&page.finish(), &mut read).damaged);
    let times: Vec<u64> = read.iter().map(|event| event.time_ns).collect();
    assert_eq!(times, [700, (1 << 27) + 6, (1 << 27) + 16]);
    assert_eq!(read[2].sector, 16);
}

#[test]
fn a_time_that_wraps_at_59_bits_keeps_its_upper_bits() {
    assert_eq!(absolute(5, 9), 9);
    let upper = 3u64 << ABSOLUTE_BITS;
    assert_eq!(absolute(upper | 5, 9), upper | 9);
    assert_eq!(absolute(upper | 9, 5), (4 << ABSOLUTE_BITS) | 5);
}

#[test]
fn lost_events_are_said_with_their_count() {
    let reader = reader(3);
    let mut page = PageWriter::new(&reader, 0);
    page.push(&event(1, What::Issue, 8));
    let mut bytes = page.finish();
    let commit = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    let end = 16 + commit as usize;
    bytes[end..end + 8].copy_from_slice(&41u64.to_le_bytes());
    bytes[8..16].copy_from_slice(&(commit | MISSED | MISSED_STORED).to_le_bytes());
    let facts = reader.read(&bytes, &mut Vec::new());
    assert!(facts.missed && !facts.damaged);
    assert_eq!(facts.missed_events, 41);
    bytes[8..16].copy_from_slice(&(commit | MISSED).to_le_bytes());
    let facts = reader.read(&bytes, &mut Vec::new());
    assert_eq!((facts.missed, facts.missed_events), (true, 0));
}

#[test]
fn a_page_that_lies_about_its_length_is_damaged() {
    let reader = reader(0);
    let mut page = PageWriter::new(&reader, 0);
    page.push(&event(1, What::Issue, 8));
    page.head(28, 1);
    let mut read = Vec::new();
    assert!(reader.read(&page.finish(), &mut read).damaged);
    assert_eq!(read.len(), 1, "what came before the damage is kept");
    for short in [0, 1, 15, 16] {
        assert_eq!(reader.read(&vec![0; short], &mut read).damaged, short < 16);
    }
    let mut absurd = vec![0; 4096];
    absurd[8..16].copy_from_slice(&COMMIT_MASK.to_le_bytes());
    assert!(reader.read(&absurd, &mut read).damaged);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kernel in 0usize..4) {
        let mut read = Vec::new();
        reader(kernel).read(&bytes, &mut read);
    }

    /// Random bytes are seldom taken for records; a page with its header right and its body torn is.
    #[test]
    fn no_torn_page_panics(
        body in prop::collection::vec(any::<u8>(), 0..600),
        kinds in prop::collection::vec((0usize..600, any::<u8>()), 0..8),
        flags in 0u64..4,
    ) {
        let reader = reader(3);
        let mut bytes = vec![0; 16];
        bytes[8..16].copy_from_slice(&(body.len() as u64 | flags << 30).to_le_bytes());
        bytes.extend_from_slice(&body);
        for (at, kind) in kinds {
            if let Some(byte) = bytes.get_mut(16 + at / 4 * 4) {
                *byte = kind;
            }
        }
        let mut read = Vec::new();
        let facts = reader.read(&bytes, &mut read);
        prop_assert!(read.len() <= body.len() / 8);
        prop_assert_eq!(facts.missed, flags & 2 != 0);
    }

    #[test]
    fn what_is_written_is_read(
        steps in prop::collection::vec((0u64..1 << 40, any::<bool>(), 0u64..1 << 50), 1..40),
        kernel in 0usize..4,
    ) {
        let reader = reader(kernel);
        let mut page = PageWriter::new(&reader, 7);
        let mut time_ns = 7;
        let mut written = Vec::new();
        for (step, issue, sector) in steps {
            time_ns += step;
            let next = event(time_ns, if issue { What::Issue } else { What::Complete }, sector);
            prop_assert!(page.push(&next));
            written.push(next);
        }
        let mut read = Vec::new();
        prop_assert!(!reader.read(&page.finish(), &mut read).damaged);
        prop_assert_eq!(read, written);
    }
}
