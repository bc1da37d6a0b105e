//! Any line to the daemon: an error of a limited length, or a request that survives its own line.
#![no_main]

use ebs_prewarm::control::protocol;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match protocol::request(bytes) {
        Ok(request) => {
            let line = protocol::line(&request);
            let line = line.strip_suffix(b"\n").expect("a line has an end");
            assert!(!line.contains(&b'\n'), "one line");
            assert_eq!(protocol::request(line).expect("what was written"), request);
        }
        Err(error) => assert!(error.full_text().len() < 1024 + bytes.len()),
    }
});
