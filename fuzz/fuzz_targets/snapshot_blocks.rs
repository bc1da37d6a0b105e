//! Any text: an error, or extents of whole blocks.
#![no_main]

use ebs_prewarm::warm::blocks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(extents) = blocks::parse(bytes) {
        let first = extents.iter().next();
        assert!(first.is_none_or(|extent| extent.sectors() > 0));
    }
});
