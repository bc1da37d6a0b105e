//! Any bytes as findings about a volume: an error, or findings that survive their file.
#![no_main]

use ebs_prewarm::findings::{load, parse, save};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(found) = parse(bytes) else { return };
    let folder = std::env::temp_dir().join(format!("findings-{}", std::process::id()));
    if let Some(path) = save(&folder, &found).expect("what was accepted") {
        assert!(path.starts_with(&folder));
        assert!(load(&folder, &found.volume).expect("what was written").is_some());
        std::fs::remove_file(path).expect("a file of ours");
    }
});
