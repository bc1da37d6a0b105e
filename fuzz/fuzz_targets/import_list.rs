//! Any text: an error, or a recording that is valid and survives its file.
#![no_main]

use ebs_prewarm::recording::{format, import};
use ebs_prewarm::volume::Identity;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for volume in [None, Some(Identity::of_size(1 << 30))] {
        if let Ok(recording) = import::list(bytes, volume) {
            assert_eq!(format::decode(&format::encode(&recording)).expect("what was written"), recording);
        }
    }
});
