//! Any bytes as what a warming left of itself: an error, or units that are each in one state, whatever the boot asked for.
#![no_main]

use ebs_prewarm::effect::{Warmed, of};
use ebs_prewarm::recording::Recording;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(warmed) = Warmed::parse(bytes) else { return };
    let report = of(&warmed, &Recording::default());
    let totals = &report.totals;
    assert_eq!(totals.units, totals.never + totals.left);
    assert!(report.text().contains("own share"));
});
