//! Any bytes as the start of a disk or of a filesystem: a table or none, a UUID or none.
#![no_main]

use ebs_prewarm::device::{filesystem, table};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for block_bytes in [512, 4096] {
        if let Some(table) = table::parse(bytes, block_bytes) {
            assert!(table.partitions.len() <= 128);
        }
    }
    let read = |offset: u64, length: usize| {
        let rest = bytes.get(usize::try_from(offset).ok()?..)?;
        Some(rest[..rest.len().min(length)].to_vec())
    };
    if let Some(uuid) = filesystem::uuid(read) {
        assert!(uuid.is_ascii() && uuid.len() <= 40);
    }
});
