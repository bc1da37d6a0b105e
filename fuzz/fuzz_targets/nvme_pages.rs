//! Any bytes as what an NVMe controller answers: nothing, or what can be told for people.
#![no_main]

use ebs_prewarm::device::nvme::{controller, statistics};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(controller) = controller(bytes) {
        let _ = (controller.is_ebs(), format!("{controller:?}"));
    }
    if let Some(statistics) = statistics(bytes) {
        let _ = statistics.exceeded_us_since(&statistics);
    }
});
