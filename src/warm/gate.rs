//! The foreground first: what nobody in the boot waits for stands back while the disk has others' requests. Pure.
//!
//! Holds: while others read or write, at most one read of the plan is in flight, and at most one is given out in
//! [`TRICKLE_NS`], or in the time in which the volume gives [`TRICKLE_OF`], so that it comes to an end under any load;
//! [`CALM_NS`] after they were seen last, all of the depth is back. Not here: which stages stand back, and how the disk is
//! looked at.

/// How often the disk is looked at: a look costs microseconds.
pub const LOOK_NS: u64 = 10_000_000;
/// Two looks and more: a boot that computes between two reads is still reading.
const CALM_NS: u64 = 50_000_000;
/// Ten reads a second: of a volume of 3,000 IOPS and 267 units a second nobody notices these.
const TRICKLE_NS: u64 = 100_000_000;
/// And at most one of so many that the volume gives: of one that hydrates 19 units a second, ten would be half.
const TRICKLE_OF: u64 = 25;
/// What the volume gives shows where so many of ours end in a row, each with this many more in flight.
const WINDOW: u64 = 16;
const WINDOW_IN_FLIGHT: usize = 6;

/// What a look at the disk shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Requests that ended since the disk is there, of reads and writes.
    pub ended: u64,
    /// Requests in flight.
    pub in_flight: u64,
}

/// Opens and closes.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    last: Option<Look>,
    /// Own requests that ended, when it was looked at last.
    own_ended: u64,
    busy_until_ns: u64,
    given_ns: Option<u64>,
    /// When the first of the reads ended that show what the volume gives, and how many have since.
    window: Option<(u64, u64)>,
    /// How long the volume takes for each, with many in flight; 0 where that is not known.
    each_ns: u64,
    /// For how long it was closed.
    pub closed_ns: u64,
    looked_ns: u64,
}

impl Gate {
    /// Whether it is time to look again.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.last.is_none() || now_ns >= self.looked_ns + LOOK_NS
    }

    /// The disk as it is, of whose requests so many are our own. It was closed to somebody where reads `wait` behind it.
    pub fn look(&mut self, now_ns: u64, look: Look, own_ended: u64, own_in_flight: u64, wait: bool) {
        if let Some(last) = self.last {
            let ended = look.ended.saturating_sub(last.ended);
            let own = own_ended.saturating_sub(self.own_ended);
            // Ours may have ended in the disk and not yet been seen to: then they are in flight for us alone.
            let theirs = (ended + look.in_flight).saturating_sub(own + own_in_flight);
            if theirs > 0 {
                self.busy_until_ns = now_ns + CALM_NS;
            }
            if wait && self.busy_until_ns > now_ns {
                self.closed_ns += now_ns - self.looked_ns;
            }
        }
        (self.last, self.own_ended, self.looked_ns) = (Some(look), own_ended, now_ns);
    }

    /// When the next read may be given out, with so many of the plan in flight; `None` for now.
    pub fn not_before(&self, now_ns: u64, in_flight: u32) -> Option<u64> {
        if now_ns >= self.busy_until_ns {
            return None;
        }
        let next_ns =
            self.given_ns.map_or(0, |given_ns| given_ns + TRICKLE_NS.max(self.each_ns * TRICKLE_OF));
        let waits = in_flight > 0 || next_ns > now_ns;
        waits.then(|| next_ns.max(now_ns + LOOK_NS).min(self.busy_until_ns.max(now_ns + 1)))
    }

    /// A read of ours ended, with so many more in flight. One that is alone shows its latency and no rate.
    pub fn ended(&mut self, at_ns: u64, in_flight: usize) {
        let since = self.window.filter(|_| in_flight >= WINDOW_IN_FLIGHT);
        self.window = match since {
            _ if in_flight < WINDOW_IN_FLIGHT => None,
            Some((since_ns, count)) if count + 1 < WINDOW => Some((since_ns, count + 1)),
            Some((since_ns, _)) => {
                self.each_ns = at_ns.saturating_sub(since_ns) / WINDOW;
                Some((at_ns, 0))
            }
            None => Some((at_ns, 0)),
        };
    }

    /// A read was given out.
    pub fn given(&mut self, now_ns: u64) {
        self.given_ns = Some(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn look(ended: u64, in_flight: u64) -> Look {
        Look { ended, in_flight }
    }

    #[test]
    fn it_closes_for_others_and_opens_when_they_are_done() {
        let mut gate = Gate::default();
        gate.look(0, look(1000, 0), 0, 0, true);
        assert_eq!(gate.not_before(0, 30), None);
        // 12 requests ended, 10 of them ours.
        gate.look(10 * MS, look(1012, 16), 10, 16, true);
        assert!(gate.not_before(10 * MS, 16).is_some());
        // Nobody since then: open after a while, not at once.
        gate.look(20 * MS, look(1020, 8), 18, 8, true);
        assert!(gate.not_before(20 * MS, 8).is_some());
        gate.look(70 * MS, look(1028, 0), 26, 0, true);
        assert_eq!(gate.not_before(70 * MS, 0), None);
        assert!(gate.closed_ns >= 20 * MS && gate.closed_ns <= 60 * MS, "{}", gate.closed_ns);
    }

    #[test]
    fn own_requests_never_close_it_whichever_moment_they_are_seen_in() {
        let mut gate = Gate::default();
        gate.look(0, look(0, 4), 0, 4, true);
        // Three ended in the disk, of which we have seen one; two more were submitted and have not reached it.
        gate.look(10 * MS, look(3, 1), 1, 5, true);
        gate.look(20 * MS, look(6, 0), 6, 0, true);
        assert_eq!(gate.not_before(20 * MS, 9), None);
    }

    /// Reads that it gives out in ten seconds in which others are seen in each look.
    fn trickle(gate: &mut Gate) -> u64 {
        let (mut given, mut now_ns) = (0, gate.looked_ns);
        let until_ns = now_ns + 10_000 * MS;
        while now_ns < until_ns {
            now_ns += LOOK_NS;
            gate.look(now_ns, look(given, 1), given, 0, true);
            if gate.not_before(now_ns, 0).is_none() {
                gate.given(now_ns);
                given += 1;
            }
        }
        given
    }

    #[test]
    fn a_scarce_volume_gives_less_of_what_others_need() {
        // 19 units a second, and 267.
        for (each_ms, least, most) in [(52, 7, 8), (4, 95, 101)] {
            let mut gate = Gate::default();
            (0..40).for_each(|number| gate.ended(number * each_ms * MS, 7));
            // Alone, at long distances: that says nothing of it.
            (0..40).for_each(|number| gate.ended((2000 + number * 500) * MS, 1));
            assert_eq!(gate.each_ns, each_ms * MS);
            let given = trickle(&mut gate);
            assert!((least..=most).contains(&given), "{each_ms} ms each: {given}");
        }
    }

    #[test]
    fn a_request_that_stalls_keeps_it_closed_and_a_trickle_goes_on() {
        let mut gate = Gate::default();
        gate.look(0, look(0, 0), 0, 0, true);
        let given = trickle(&mut gate);
        assert!((95..=101).contains(&given), "{given}");
        let now_ns = gate.looked_ns;
        assert!(gate.not_before(now_ns, 1).is_some_and(|at_ns| at_ns > now_ns));
    }
}
