//! The foreground first: what nobody in the boot waits for stands back while the disk has others' requests. Pure.
//!
//! Holds: while others read or write, at most one read of the plan is in flight, and at most one is given out in
//! [`TRICKLE_NS`], so that it comes to an end under any load; [`CALM_NS`] after they were seen last, all of the depth
//! is back. Not here: which stages stand back, and how the disk is looked at.

/// How often the disk is looked at: a look costs microseconds.
pub const LOOK_NS: u64 = 10_000_000;
/// Two looks and more: a boot that computes between two reads is still reading.
const CALM_NS: u64 = 50_000_000;
/// Ten reads a second: of a volume of 3,000 IOPS and 267 units a second nobody notices these.
const TRICKLE_NS: u64 = 100_000_000;

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
    /// For how long it was closed.
    pub closed_ns: u64,
    looked_ns: u64,
}

impl Gate {
    /// Whether it is time to look again.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.last.is_none() || now_ns >= self.looked_ns + LOOK_NS
    }

    /// The disk as it is, of whose requests so many are our own.
    pub fn look(&mut self, now_ns: u64, look: Look, own_ended: u64, own_in_flight: u64) {
        if let Some(last) = self.last {
            let ended = look.ended.saturating_sub(last.ended);
            let own = own_ended.saturating_sub(self.own_ended);
            // Ours may have ended in the disk and not yet been seen to: then they are in flight for us alone.
            let theirs = (ended + look.in_flight).saturating_sub(own + own_in_flight);
            if theirs > 0 {
                self.busy_until_ns = now_ns + CALM_NS;
            }
            if self.busy_until_ns > now_ns {
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
        let next_ns = self.given_ns.map_or(0, |given_ns| given_ns + TRICKLE_NS);
        let waits = in_flight > 0 || next_ns > now_ns;
        waits.then(|| next_ns.max(now_ns + LOOK_NS).min(self.busy_until_ns.max(now_ns + 1)))
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
        gate.look(0, look(1000, 0), 0, 0);
        assert_eq!(gate.not_before(0, 30), None);
        // 12 requests ended, 10 of them ours.
        gate.look(10 * MS, look(1012, 16), 10, 16);
        assert!(gate.not_before(10 * MS, 16).is_some());
        // Nobody since then: open after a while, not at once.
        gate.look(20 * MS, look(1020, 8), 18, 8);
        assert!(gate.not_before(20 * MS, 8).is_some());
        gate.look(70 * MS, look(1028, 0), 26, 0);
        assert_eq!(gate.not_before(70 * MS, 0), None);
        assert!(gate.closed_ns >= 20 * MS && gate.closed_ns <= 60 * MS, "{}", gate.closed_ns);
    }

    #[test]
    fn own_requests_never_close_it_whichever_moment_they_are_seen_in() {
        let mut gate = Gate::default();
        gate.look(0, look(0, 4), 0, 4);
        // Three ended in the disk, of which we have seen one; two more were submitted and have not reached it.
        gate.look(10 * MS, look(3, 1), 1, 5);
        gate.look(20 * MS, look(6, 0), 6, 0);
        assert_eq!(gate.not_before(20 * MS, 9), None);
    }

    #[test]
    fn a_request_that_stalls_keeps_it_closed_and_a_trickle_goes_on() {
        let mut gate = Gate::default();
        let (mut given, mut now_ns) = (0, 0);
        gate.look(0, look(0, 0), 0, 0);
        while now_ns < 10_000 * MS {
            now_ns += LOOK_NS;
            gate.look(now_ns, look(given, 1), given, 0);
            if gate.not_before(now_ns, 0).is_none() {
                gate.given(now_ns);
                given += 1;
            }
        }
        assert!((95..=101).contains(&given), "{given}");
        assert!(gate.not_before(now_ns, 1).is_some_and(|at_ns| at_ns > now_ns));
    }
}
