//! Any text as a model of a cold volume: an error, or a model that answers a read.
#![no_main]

use ebs_prewarm::cold::{ColdVolume, Model, Op};
use ebs_prewarm::extent::{Extent, ExtentSet};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(model) = Model::from_yaml(text) else { return };
    let _ = model.bound_ns(1000);
    let mut volume = ColdVolume::new(model, 1 << 14, 1, ExtentSet::new());
    volume.submit(0, 7, Op::Read, Extent::at(0, 4096).expect("an extent"));
    assert_eq!(volume.pop_due(u64::MAX).map(|answer| answer.id), Some(7));
});
