//! Any bytes, sealed and not: an error, or a profile that is written back to the same.
#![no_main]

use ebs_prewarm::profile::yaml::{parse, seal, write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parse(bytes);
    // Sealing does not ask for a checksum, so it gets further than parsing.
    if let Ok(sealed) = seal(bytes) {
        let profile = parse(sealed.as_bytes()).expect("what was sealed");
        assert_eq!(write(&profile), sealed);
    }
});
