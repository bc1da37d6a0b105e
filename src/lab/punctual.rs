//! When to be woken for something that is due: sleeping threads wake late, on virtual machines by 50 us and more,
//! which is a tenth of a warm read.
//!
//! Holds: the sleep is cut short by about as much as wakings were late before, and what is left is spun, within
//! a budget. Pure: the clock is an argument.

/// Waking later than this is the load's doing, not the timer's, and is not spun for.
const MARGIN_NS_MAX: u64 = 150_000;
/// How fast the margin follows.
const STEP_NS: u64 = 1_000;
/// Three late wakings out of four are covered: it grows by three steps when late, falls by one when early.
const LATE_STEPS: u64 = 3;
/// Of all time, at most the fourth part is spun, so that an emulator at its limit leaves the processor to its
/// readers.
const SPIN_SHARE: u64 = 4;
/// Spinning saved up while idle.
const CREDIT_NS_MAX: u64 = 2_000_000;

/// One waiter's knowledge of how late it is woken.
#[derive(Debug, Default)]
pub struct Punctual {
    margin_ns: u64,
    credit_ns: u64,
    seen_ns: u64,
}

impl Punctual {
    /// When to wake for something due at `due_ns`; later than `now_ns`, or it is time to spin.
    pub fn wake_at(&mut self, now_ns: u64, due_ns: u64) -> u64 {
        let passed_ns = now_ns.saturating_sub(self.seen_ns);
        self.seen_ns = now_ns;
        self.credit_ns = (self.credit_ns + passed_ns / SPIN_SHARE).min(CREDIT_NS_MAX);
        if self.credit_ns < self.margin_ns { due_ns } else { due_ns.saturating_sub(self.margin_ns) }
    }

    /// A sleep that was to end at `asked_ns` ended at `now_ns`.
    pub fn woke(&mut self, asked_ns: u64, now_ns: u64) {
        let late_ns = now_ns.saturating_sub(asked_ns);
        self.margin_ns = if late_ns > self.margin_ns {
            (self.margin_ns + LATE_STEPS * STEP_NS).min(MARGIN_NS_MAX)
        } else {
            self.margin_ns.saturating_sub(STEP_NS)
        };
    }

    /// So long was spun.
    pub fn spun(&mut self, ns: u64) {
        self.credit_ns = self.credit_ns.saturating_sub(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sleeps and spins towards due times `gap_ns` apart with a timer that is `late_ns` late; gives the last
    /// lateness and the share that was spun.
    fn run(late_ns: u64, gap_ns: u64, rounds: u64) -> (u64, f64) {
        let mut punctual = Punctual::default();
        let (mut now, mut spun, mut late) = (0, 0, 0);
        for round in 1..=rounds {
            let due = round * gap_ns;
            let wake = punctual.wake_at(now, due);
            if wake > now {
                now = wake + late_ns;
                punctual.woke(wake, now);
            }
            if now < due && wake < due {
                punctual.spun(due - now);
                spun += due - now;
                now = due;
            }
            now = now.max(due);
            late = now - due;
        }
        (late, spun as f64 / now as f64)
    }

    #[test]
    fn a_steady_lateness_is_made_up_for() {
        let (late, spun) = run(50_000, 1_000_000, 1000);
        assert!(late < 3_000, "{late}");
        assert!(spun < 0.01, "{spun}");
    }

    #[test]
    fn lateness_beyond_the_margin_is_not_spun_for() {
        let (late, _) = run(1_000_000, 10_000_000, 1000);
        assert!((800_000..=1_000_000).contains(&late), "{late}");
    }

    #[test]
    fn spinning_stays_within_its_share() {
        let (_, spun) = run(20_000, 25_000, 20_000);
        assert!(spun < 0.26, "{spun}");
    }
}
