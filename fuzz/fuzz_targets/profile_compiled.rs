//! Any bytes under a good checksum, and any bytes: an error, or a profile that is written back to the same.
#![no_main]

use ebs_prewarm::codec::seal;
use ebs_prewarm::profile::compiled::{MAGIC, VERSION, decode, encode, reduced};
use ebs_prewarm::profile::{bind, load};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = load(bytes);
    if let Ok(profile) = decode(&seal(MAGIC, VERSION, bytes)) {
        profile.validate().expect("what decodes is valid");
        assert_eq!(decode(&encode(&profile)).expect("what was written"), reduced(&profile));
        let _ = bind::recorded(&profile);
        if let Some(volume) = &profile.volume {
            let _ = bind::resolve(&profile, volume);
        }
    }
});
