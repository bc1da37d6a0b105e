//! Any text as the kernel's description of a page or an event: an error, or fields that lie where they may.
#![no_main]

use ebs_prewarm::record::format::{EventLayout, PageLayout};
use ebs_prewarm::record::page::PageReader;

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &[u8])| {
    let (page, event, bytes) = input;
    if let (Ok(page), Ok(issue)) = (PageLayout::parse(page), EventLayout::parse(event, "event")) {
        let mut events = Vec::new();
        PageReader { page, issue, complete: issue }.read(bytes, &mut events);
    }
});
