//! Any bytes as a page of the kernel's ring: events, or a page that says it is damaged; never more than fit in it.
#![no_main]

use ebs_prewarm::record::format::{EventLayout, PageLayout};
use ebs_prewarm::record::page::PageReader;
use std::sync::LazyLock;

const PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
";
const EVENT: &str = "format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
\tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;
\tfield:char rwbs[8];\toffset:32;\tsize:8;\tsigned:0;
\tfield:char comm[16];\toffset:40;\tsize:16;\tsigned:0;
";

static READER: LazyLock<PageReader> = LazyLock::new(|| {
    let event = |id| EventLayout::parse(&format!("ID: {id}\n{EVENT}"), "event").expect("a good description");
    PageReader {
        page: PageLayout::parse(PAGE).expect("a good description"),
        issue: event(1),
        complete: event(2),
    }
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut events = Vec::new();
    let facts = READER.read(bytes, &mut events);
    assert!(events.len() * 8 <= bytes.len());
    assert!(facts.data_bytes <= bytes.len());
});
