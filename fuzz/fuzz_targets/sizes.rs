//! Any text: an error, or a value that prints and parses to itself.
#![no_main]

use ebs_prewarm::units::{ByteSize, Rate, parse_duration};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse::<ByteSize>().expect("what was printed"), size);
    }
    if let Ok(rate) = text.parse::<Rate>() {
        assert_eq!(rate.to_string().parse::<Rate>().expect("what was printed"), rate);
    }
    let _ = parse_duration(text);
});
