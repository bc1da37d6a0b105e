//! Any line from the daemon: an error, or an answer whose text for people leaves a terminal as it is.
#![no_main]

use ebs_prewarm::control::protocol::{self, Answer};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(answer) = protocol::answer(bytes) else { return };
    let line = protocol::line(&answer);
    let line = line.strip_suffix(b"\n").expect("a line has an end");
    assert!(!line.contains(&b'\n'), "one line");
    if let Answer::Status(status) | Answer::Waiting(status) = &answer {
        assert!(!status.line().contains(char::is_control));
        assert!(!status.text().contains(|letter: char| letter.is_control() && letter != '\n'));
    }
    // A rate may lose its last digit on the way; numbers and names do not.
    if line.len() <= protocol::ANSWER_BYTES_MAX {
        protocol::answer(line).expect("what was written");
    }
});
