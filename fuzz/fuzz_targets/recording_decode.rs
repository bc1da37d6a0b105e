//! Any bytes under a good checksum, and any bytes: an error, or a recording that is written back to the same.
#![no_main]

use ebs_prewarm::codec::seal;
use ebs_prewarm::profile::build::{Options, build};
use ebs_prewarm::recording::format::{MAGIC, VERSION, decode, encode, validate};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes);
    if let Ok(recording) = decode(&seal(MAGIC, VERSION, bytes)) {
        validate(&recording).expect("what decodes is valid");
        assert_eq!(decode(&encode(&recording)).expect("what was written"), recording);
        if let Ok(profile) = build("fuzz", &[recording], Options::default()) {
            profile.validate().expect("what is built is valid");
        }
    }
});
