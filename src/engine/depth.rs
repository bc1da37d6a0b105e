//! How many reads are in flight: a fixed number, or what the knee needs; never more than the device was seen to take.
//! A pure step function over completions.

use super::knee::Knee;
pub use super::knee::{BURST as INITIAL, MAX};

/// Largest depth that can be asked for: io_uring's rings stay under 1 MiB.
pub const LIMIT: u32 = 4096;
/// Rounds without a refusal before more is tried: so that of all reads, one in a hundred is refused at the most.
const CALM_ROUNDS: u32 = 12;
/// At the end of a plan the last reads go together, this many times the depth, so that the slowest of them begins as
/// early as it can.
const AT_END: u32 = 3;

/// Reads in flight, fixed or found.
#[derive(Clone, Debug)]
pub struct Depth {
    wanted: Wanted,
    max: u32,
    initial: u32,
    largest: u32,
    ceiling: Ceiling,
}

#[derive(Clone, Debug)]
enum Wanted {
    Fixed(u32),
    Found(Knee),
}

/// What the device takes.
#[derive(Clone, Debug)]
struct Ceiling {
    at: u32,
    /// Completions since the last refusal; `None` where there never was one.
    calm: Option<u32>,
}

impl Depth {
    /// Always the same.
    pub fn fixed(depth: u32) -> Self {
        let depth = depth.clamp(1, LIMIT);
        Self::new(Wanted::Fixed(depth), depth, depth)
    }

    /// Finds itself; never more than the device's request queue takes, where that is known.
    pub fn auto(queue: Option<u32>) -> Self {
        let max = MAX.min(queue.unwrap_or(MAX)).max(1);
        let knee = Knee::new(max);
        let initial = knee.depth();
        Self::new(Wanted::Found(knee), max, initial)
    }

    fn new(wanted: Wanted, max: u32, initial: u32) -> Self {
        Depth { wanted, max, initial, largest: initial, ceiling: Ceiling { at: max, calm: None } }
    }

    /// Reads that may be in flight now.
    pub fn limit(&self) -> u32 {
        let wanted = match &self.wanted {
            Wanted::Fixed(depth) => *depth,
            Wanted::Found(knee) => knee.depth(),
        };
        wanted.min(self.ceiling.at)
    }

    /// The same, with so many reads of the plan left, and of those in flight so many stalled: a read that stalls
    /// takes part in nothing, and its place is another's.
    pub fn limit_with(&self, left: Option<u64>, stalled: u32) -> u32 {
        let limit = self.limit();
        if matches!(self.wanted, Wanted::Fixed(_)) {
            return limit;
        }
        let at_end = left.is_some_and(|left| left <= u64::from(limit) * u64::from(AT_END - 1));
        let wider = if at_end { limit * AT_END } else { limit };
        (wider + stalled).min(self.ceiling.at)
    }

    /// Where it started.
    pub fn initial(&self) -> u32 {
        self.initial
    }

    /// The most it allowed so far.
    pub fn largest(&self) -> u32 {
        self.largest
    }

    /// The most it will ever allow.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// A read is submitted.
    pub fn on_submission(&mut self, now_ns: u64) {
        if let Wanted::Found(knee) = &mut self.wanted {
            knee.on_submission(now_ns);
        }
    }

    /// Fewer are in flight than may be, since nothing was to be submitted yet.
    pub fn on_starved(&mut self) {
        if let Wanted::Found(knee) = &mut self.wanted {
            knee.on_starved();
        }
    }

    /// A read ended well, so long after it was submitted.
    pub fn on_completion(&mut self, now_ns: u64, latency_ns: u64) {
        if let Wanted::Found(knee) = &mut self.wanted {
            knee.on_completion(now_ns, latency_ns);
        }
        self.ceiling.recover(self.max);
        self.largest = self.largest.max(self.limit());
    }

    /// Of so many in flight, the device refused these. What it took is the most from now on; half of what was asked
    /// for at the least, since others may have filled its queue for a moment.
    pub fn on_refusals(&mut self, in_flight: u32, refused: u32) {
        let taken = in_flight.saturating_sub(refused).max(in_flight / 2);
        self.ceiling = Ceiling { at: taken.clamp(1, self.ceiling.at), calm: Some(0) };
        self.on_starved();
    }
}

impl Ceiling {
    /// Long after a refusal, an eighth more is tried: the others may be gone.
    fn recover(&mut self, max: u32) {
        let Some(calm) = &mut self.calm else { return };
        *calm += 1;
        if *calm >= CALM_ROUNDS * self.at && self.at < max {
            self.at = (self.at + self.at / 8 + 1).min(max);
            *calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_of_the_device_is_a_ceiling() {
        assert_eq!(Depth::auto(Some(16)).limit(), 16);
        assert_eq!(Depth::auto(Some(0)).limit(), 1);
        assert_eq!(Depth::auto(Some(128)).max(), 128);
        let mut depth = Depth::auto(Some(2));
        (0..10_000).for_each(|n| depth.on_completion(n * 1_000, 1_000));
        assert!((1..=2).contains(&depth.limit()));
        assert_eq!(depth.limit_with(Some(0), 7), 2);
    }

    #[test]
    fn a_refusal_lowers_the_depth_to_what_was_taken_and_calm_raises_it() {
        let mut depth = Depth::fixed(256);
        depth.on_refusals(256, 129);
        assert_eq!((depth.limit(), depth.largest()), (128, 256), "half at the least");
        depth.on_refusals(128, 1);
        assert_eq!(depth.limit(), 127);
        (0..CALM_ROUNDS * 127).for_each(|n| depth.on_completion(u64::from(n), 1));
        assert_eq!(depth.limit(), 143);
        // A queue that others have filled: everything is refused, again and again.
        (0..20).for_each(|_| depth.on_refusals(depth.limit(), depth.limit()));
        assert_eq!(depth.limit(), 1);
        (0..100_000).for_each(|n| depth.on_completion(n, 1));
        assert_eq!(depth.limit(), 256, "what was asked for, and never more");
    }

    #[test]
    fn the_last_reads_go_together_and_a_stalled_one_leaves_its_place() {
        let depth = Depth::auto(None);
        assert_eq!(depth.limit_with(Some(1000), 0), INITIAL);
        assert_eq!(depth.limit_with(Some(u64::from(INITIAL)), 0), AT_END * INITIAL);
        assert_eq!(depth.limit_with(None, 3), INITIAL + 3);
        assert_eq!(Depth::fixed(8).limit_with(Some(1), 3), 8);
    }
}
