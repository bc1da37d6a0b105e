//! How many reads are in flight. A pure step function over completions.
//!
//! `auto` doubles from [`INITIAL`] while that raises the rate of completions, and stays where it stops doing so:
//! beyond the knee, more in flight only makes each read, the boot's own among them, wait longer.

/// Where `auto` starts: the fetches at once of the smallest volume in the facts.
pub const INITIAL: u32 = 64;
/// Where it ends: the fetches at once of the largest.
pub const MAX: u32 = 256;
/// Largest depth that can be asked for: io_uring's rings stay under 1 MiB.
pub const LIMIT: u32 = 4096;
/// A doubling must raise the rate by this much to be kept: half of what noise of 128 completions can do is 9 %.
const GAIN: f64 = 1.10;
/// Rounds without a refusal before more is tried: so that of all reads, one in a hundred is refused at the most.
const CALM_ROUNDS: u32 = 12;

/// Reads in flight, fixed or found.
#[derive(Clone, Debug)]
pub struct Depth {
    initial: u32,
    limit: u32,
    largest: u32,
    max: u32,
    searching: bool,
    /// `None` before the first completion.
    window_start_ns: Option<u64>,
    window: u32,
    best_rate: f64,
    /// Completions since the last refusal; `None` where there never was one.
    calm: Option<u32>,
}

impl Depth {
    /// Always the same.
    pub fn fixed(depth: u32) -> Self {
        let depth = depth.clamp(1, LIMIT);
        Self::start(depth, depth, false)
    }

    /// Finds itself; never more than the device's request queue takes, where that is known.
    pub fn auto(queue: Option<u32>) -> Self {
        let max = MAX.min(queue.unwrap_or(MAX)).max(1);
        Self::start(INITIAL.min(max), max, INITIAL < max)
    }

    fn start(initial: u32, max: u32, searching: bool) -> Self {
        Depth {
            initial,
            limit: initial,
            largest: initial,
            max,
            searching,
            window_start_ns: None,
            window: 0,
            best_rate: 0.0,
            calm: None,
        }
    }

    /// Reads that may be in flight now.
    pub fn limit(&self) -> u32 {
        self.limit
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

    /// A read ended well.
    pub fn on_completion(&mut self, now_ns: u64) {
        if !self.searching {
            return self.recover();
        }
        if self.window_start_ns.is_none() {
            // The wait for the first of all says nothing of the rate.
            self.window_start_ns = Some(now_ns);
            return;
        }
        self.window += 1;
        // A window is two rounds, as its first still shows the depth before; the first window has none before it.
        let rounds = if self.best_rate > 0.0 { 2 } else { 1 };
        if self.window < rounds * self.limit {
            return;
        }
        let elapsed_ns = self.window_start_ns.map_or(0, |start_ns| now_ns.saturating_sub(start_ns));
        let rate = f64::from(self.window) / elapsed_ns.max(1) as f64;
        (self.window, self.window_start_ns) = (0, Some(now_ns));
        if rate < self.best_rate * GAIN {
            self.searching = false;
            return;
        }
        self.best_rate = rate;
        self.limit = (self.limit * 2).min(self.max);
        self.largest = self.largest.max(self.limit);
        self.searching = self.limit < self.max;
    }

    /// Of so many in flight, the device refused these. What it took is the limit from now on; half of what was asked
    /// for at the least, since others may have filled its queue for a moment.
    pub fn on_refusals(&mut self, in_flight: u32, refused: u32) {
        let taken = in_flight.saturating_sub(refused).max(in_flight / 2);
        self.limit = taken.clamp(1, self.limit);
        self.searching = false;
        self.calm = Some(0);
    }

    /// Long after a refusal, an eighth more is tried: the others may be gone.
    fn recover(&mut self) {
        let Some(calm) = &mut self.calm else { return };
        *calm += 1;
        if *calm >= CALM_ROUNDS * self.limit && self.limit < self.largest {
            self.limit = (self.limit + self.limit / 8 + 1).min(self.largest);
            *calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_that_helps() {
        let mut depth = Depth::auto(None);
        // A storage that serves 1,000 reads a second at 64, twice that at 128, and no more beyond.
        let mut now_ns = 0;
        for _ in 0..5_000 {
            now_ns += 1_000_000_000 / (u64::from(depth.limit()) * 1_000 / 64).min(2_000);
            depth.on_completion(now_ns);
        }
        assert_eq!(depth.limit(), 256, "one step beyond the knee is tried and kept");
        let mut slow = Depth::auto(None);
        for n in 0..5_000u64 {
            slow.on_completion(n * 1_000_000);
        }
        assert_eq!(slow.limit(), 128);
    }

    #[test]
    fn the_queue_of_the_device_is_a_ceiling() {
        assert_eq!(Depth::auto(Some(32)).limit(), 32);
        assert_eq!(Depth::auto(Some(0)).limit(), 1);
        assert_eq!(Depth::auto(Some(128)).max(), 128);
    }

    #[test]
    fn a_refusal_lowers_the_depth_to_what_was_taken_and_calm_raises_it() {
        let mut depth = Depth::fixed(256);
        depth.on_refusals(256, 129);
        assert_eq!((depth.limit(), depth.largest()), (128, 256), "half at the least");
        depth.on_refusals(128, 1);
        assert_eq!(depth.limit(), 127);
        (0..CALM_ROUNDS * 127).for_each(|n| depth.on_completion(u64::from(n)));
        assert_eq!(depth.limit(), 143);
        // A queue that others have filled: everything is refused, again and again.
        (0..20).for_each(|_| depth.on_refusals(depth.limit(), depth.limit()));
        assert_eq!(depth.limit(), 1);
        (0..100_000).for_each(|n| depth.on_completion(n));
        assert_eq!(depth.limit(), 256, "what was asked for, and never more");
    }
}
