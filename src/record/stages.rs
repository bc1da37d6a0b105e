//! The stages of a boot, from the moments that systemd keeps of it.
//!
//! Holds: pure; marks ascend, the first is at 0, none lies behind the end of the recording.

use crate::recording::StageMark;

/// Moments of a boot in microseconds since the kernel started; what did not happen is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootTimes {
    /// The system's own init started: the initramfs, if there was one, is over.
    pub userspace_us: Option<u64>,
    /// `sysinit.target` was reached: what all services need is there.
    pub sysinit_us: Option<u64>,
    /// The unit that the machine is for became active.
    pub unit_us: Option<u64>,
}

/// The stage that a recording has of which no more is known.
pub fn unknown() -> Vec<StageMark> {
    vec![StageMark { name: "ready".into(), from_us: 0 }]
}

/// A boot's stages up to a moment. Those that were over when recording began have their marks too: an earlier recording
/// of the same boot may be put before this one, and a ring keep more than what is complete.
pub fn marks(times: &BootTimes, until_us: u64) -> Vec<StageMark> {
    let Some(userspace_us) = times.userspace_us else { return unknown() };
    // A mark of a unit before this is that of its namesake in the initramfs.
    let since = |us: &u64| *us > userspace_us && *us <= until_us;
    let later_us = times.unit_us.filter(since);
    // What comes after the unit is not what it waited for.
    let ready_us = times.sysinit_us.filter(since).filter(|us| later_us.is_none_or(|later_us| *us < later_us));
    let marks = [
        ("initrd", Some(0)),
        ("sysinit", Some(userspace_us).filter(|us| *us <= until_us)),
        ("ready", ready_us),
        ("later", later_us),
    ];
    marks
        .into_iter()
        .filter_map(|(name, from_us)| Some(StageMark { name: name.into(), from_us: from_us? }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(times: [u64; 3], until_us: u64) -> String {
        let [userspace_us, sysinit_us, unit_us] = times.map(|us| (us > 0).then_some(us));
        let marks = marks(&BootTimes { userspace_us, sysinit_us, unit_us }, until_us);
        let marks: Vec<String> = marks.iter().map(|mark| format!("{} {}", mark.name, mark.from_us)).collect();
        marks.join(", ")
    }

    #[test]
    fn a_boot_falls_into_the_stages_that_were_seen() {
        let all = [2_000, 3_000, 5_000];
        for (times, until_us, expected) in [
            (all, 9_000, "initrd 0, sysinit 2000, ready 3000, later 5000"),
            (all, 4_000, "initrd 0, sysinit 2000, ready 3000"),
            (all, 1_000, "initrd 0"),
            (all, 90_000, "initrd 0, sysinit 2000, ready 3000, later 5000"),
            // The unit was stopped for, or never came up.
            ([2_000, 3_000, 0], 9_000, "initrd 0, sysinit 2000, ready 3000"),
            ([2_000, 0, 0], 9_000, "initrd 0, sysinit 2000"),
            // A unit that is up before sysinit.target: nothing after it was waited for.
            ([2_000, 3_000, 2_500], 9_000, "initrd 0, sysinit 2000, later 2500"),
            // Marks of the initramfs' own systemd.
            ([2_000, 1_000, 5_000], 9_000, "initrd 0, sysinit 2000, later 5000"),
            // No systemd.
            ([0, 0, 0], 9_000, "ready 0"),
            ([0, 3_000, 5_000], 9_000, "ready 0"),
        ] {
            assert_eq!(shown(times, until_us), expected, "{times:?} {until_us}");
        }
    }
}
