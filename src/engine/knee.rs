//! Finds how many reads in flight the storage's rate needs, and holds that. A pure step function over completions.
//!
//! Beyond the knee more in flight raises no rate: each read, the boot's own among them, only waits longer. At the knee
//! as many are in flight as end within the latency of an idle volume (Little's law: depth = rate * latency), so these
//! two are what is measured, and [`ROOM`] times the knee is what is held.
//!
//! It begins with a burst and doubles while that raises the rate. Where it did not, the volume was full from the start:
//! the depth falls step by step until the rate falls with it, which tells the latency. From then on the depth follows
//! the rate. A rate that falls for long is looked into, downwards first, since it may be the boot that takes its share;
//! and now and then the latency is measured anew.
//!
//! Holds: no latency, rate or kind of volume is assumed; time is that of completions.

/// Half of the burst tells the rate within a quarter, and a volume that serves but one at a time is through with it
/// before a boot has read its first program.
pub const BURST: u32 = 32;
/// The fetches at once of the largest volume in the facts.
pub const MAX: u32 = 256;
/// The least that is held: a read that stalls must not stop all others.
const MIN: u32 = 4;
/// What is held, by what the rate needs. Above 1, so that a rate that rises shows; the rest is for the error that a
/// window of [`WINDOW`] completions leaves. This and the numbers below were chosen over 50 volumes of each model
/// (`knee_tests`).
const ROOM: f64 = 1.65;
/// Steps on the way down.
const STEP: f64 = 0.65;
/// A smaller depth is as good where it keeps this much of the rate.
const KEPT: f64 = 0.95;
/// Doubling has helped where the rate rose by this: twice the noise of 32 completions. The first time more is asked
/// for: the rate of the burst is that of a few completions on a machine that has just started.
const GAINED: f64 = 1.2;
const GAINED_FIRST: f64 = 1.4;
/// And where each read took hardly longer: a processor that is busy with the start of everything shows as a burst of a
/// low rate, after which any depth seems to help.
const LONGER_MAX: f64 = 1.6;
/// And where reads do not take so long that a boot feels each of them, whatever more in flight would bring.
const LONG_S: f64 = BURST_NS_MAX as f64 / 2e9;
/// A latency counts up to so many times that of the burst: a read that stalls says nothing of the queue.
const LATENCY_CAP: f64 = 6.0;
/// A rate is another one beyond these: above the noise of a window.
const RISEN: f64 = 1.15;
const FALLEN: f64 = 0.8;
/// A trial on the way down ends early where it keeps less than this.
const HOPELESS: f64 = 0.8;
const HOPELESS_COMPLETIONS: u32 = 12;
/// The fewest completions that a rate is taken from.
const WINDOW: u32 = 24;
/// Completions that a trial takes: that a depth is too small shows in 49 of 50.
const TRIAL: u32 = 32;
/// A burst that takes longer than this stands in a queue that makes a boot wait: what helps is less, not more.
const BURST_NS_MAX: u64 = 300_000_000;
/// How long the latency of the burst is believed.
const BURST_BELIEVED_NS: u64 = 1_000_000_000;
/// How long a latency is believed that a trial has shown, and for so many completions: a trial costs some of the rate.
const BELIEVED_NS: u64 = 4_000_000_000;
const BELIEVED_COMPLETIONS: u32 = 20 * TRIAL;
/// Below this depth there is nothing to win by a smaller one.
const SHALLOW: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first reads of all.
    Burst,
    /// Doubling; how often it has helped so far.
    Up { helped: u32 },
    /// A smaller depth is tried; the last that was good enough, where one is known.
    Down { good: Option<u32> },
    /// Following the rate.
    Hold,
}

/// The search for the knee.
#[derive(Clone, Debug)]
pub struct Knee {
    depth: u32,
    max: u32,
    phase: Phase,
    /// Completions a second that the volume gives at most, as far as known.
    rate: f64,
    /// Seconds from submission to completion where nothing queues.
    latency_s: f64,
    /// Completions that still show what was before.
    skip: u32,
    /// Completions that the window takes, and has.
    want: u32,
    have: u32,
    window_ns: u64,
    /// Sum of the latencies in the window.
    sum_s: f64,
    /// When the first read was submitted.
    began_ns: Option<u64>,
    /// The latency is believed until then, and for so many completions more.
    believed_ns: u64,
    believed: u32,
    /// Windows in a row in which the rate had fallen.
    falls: u32,
}

impl Knee {
    /// Never more than `max` in flight, which is at least 1.
    pub fn new(max: u32) -> Knee {
        let depth = BURST.min(max);
        Knee {
            depth,
            max,
            phase: Phase::Burst,
            rate: 0.0,
            latency_s: 0.0,
            skip: 1,
            want: (depth / 2).saturating_sub(1).max(1),
            have: 0,
            window_ns: 0,
            sum_s: 0.0,
            began_ns: None,
            believed_ns: 0,
            believed: 0,
            falls: 0,
        }
    }

    /// Reads that may be in flight now.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Reads are submitted.
    pub fn on_submission(&mut self, now_ns: u64) {
        self.began_ns.get_or_insert(now_ns);
    }

    /// Something else than the depth held reads back: what ends until all of them are new says nothing of the depth.
    pub fn on_starved(&mut self) {
        self.skip = self.depth.max(1);
        self.have = 0;
    }

    /// A read ended well, so long after it was submitted.
    pub fn on_completion(&mut self, now_ns: u64, latency_ns: u64) {
        self.believed = self.believed.saturating_sub(1);
        if self.skip > 0 {
            self.skip -= 1;
            (self.window_ns, self.sum_s) = (now_ns, 0.0);
            return;
        }
        self.have += 1;
        self.sum_s += (latency_ns as f64 / 1e9).min(LATENCY_CAP * self.latency_s);
        let elapsed_ns = now_ns.saturating_sub(self.window_ns).max(1);
        let rate = f64::from(self.have) * 1e9 / elapsed_ns as f64;
        let is_trial = matches!(self.phase, Phase::Down { .. });
        let hopeless = is_trial && self.have >= HOPELESS_COMPLETIONS && rate < HOPELESS * self.rate;
        if self.have >= self.want || hopeless {
            self.window(rate, now_ns);
        }
    }

    /// A window has shown a rate.
    fn window(&mut self, rate: f64, now_ns: u64) {
        match self.phase {
            Phase::Burst => self.after_burst(rate, now_ns),
            Phase::Up { helped } => self.after_doubling(rate, helped),
            Phase::Down { good } => {
                (self.believed_ns, self.believed) = (now_ns + BELIEVED_NS, BELIEVED_COMPLETIONS);
                self.after_trial(rate, good);
            }
            Phase::Hold => self.held(rate, now_ns),
        }
    }

    fn after_burst(&mut self, rate: f64, now_ns: u64) {
        let half_ns = now_ns.saturating_sub(self.began_ns.unwrap_or(now_ns));
        self.rate = rate;
        // The mean of latencies as they are found is a fifth above their median.
        self.latency_s = 1.2 * half_ns as f64 / 1e9;
        self.believed_ns = now_ns + BURST_BELIEVED_NS;
        if half_ns * 2 > BURST_NS_MAX || self.depth >= self.max {
            self.lower(f64::from(self.depth) * STEP, None);
        } else {
            self.change(f64::from(self.depth) * 2.0, Phase::Up { helped: 0 });
            self.skip = 1;
        }
    }

    fn after_doubling(&mut self, rate: f64, helped: u32) {
        let is_higher = rate >= self.rate * if helped == 0 { GAINED_FIRST } else { GAINED };
        let latency_s = self.sum_s / f64::from(self.have);
        let gained = is_higher && latency_s < LONG_S.min(self.latency_s * LONGER_MAX);
        if gained && self.depth < self.max {
            self.rate = rate;
            self.change(f64::from(self.depth) * 2.0, Phase::Up { helped: helped + 1 });
            self.skip = self.depth / 4;
            return;
        }
        self.rate = rate.max(self.rate * 0.9);
        if gained || helped > 0 {
            // Far from full when it began: the latency of the burst is that of an idle volume.
            return self.hold();
        }
        // Full before it was doubled, or soon after.
        let good = self.depth / 2;
        let known = ROOM * self.rate * self.latency_s;
        self.lower(known.min(f64::from(good) * STEP), Some(good));
    }

    fn after_trial(&mut self, rate: f64, good: Option<u32>) {
        let depth = f64::from(self.depth);
        if rate >= KEPT * self.rate {
            self.rate = self.rate.max(rate);
            if self.depth > MIN.min(self.max) {
                return self.lower(depth * STEP, Some(self.depth));
            }
            self.latency_s = depth / self.rate;
            return self.hold();
        }
        // Here nothing queued; the depth before it was enough.
        let latency_s = depth / rate;
        let enough_s = good.map_or(latency_s, |good| f64::from(good) / self.rate);
        self.latency_s = latency_s.min(enough_s.max(depth / self.rate * 1.05));
        self.hold();
    }

    fn held(&mut self, rate: f64, now_ns: u64) {
        if rate > self.rate * RISEN {
            self.rate = rate;
            return self.hold();
        }
        if rate < self.rate * FALLEN {
            self.falls += 1;
            if self.falls < 2 {
                return self.again();
            }
            self.rate = rate;
            return self.lower(f64::from(self.depth) * STEP, None);
        }
        self.falls = 0;
        self.rate = 0.8 * self.rate + 0.2 * rate;
        let is_old = self.believed == 0 && now_ns > self.believed_ns;
        if is_old && self.depth > SHALLOW {
            return self.lower(f64::from(self.depth) * STEP, Some(self.depth));
        }
        self.again();
    }

    fn hold(&mut self) {
        self.change(ROOM * self.rate * self.latency_s, Phase::Hold);
    }

    fn lower(&mut self, depth: f64, good: Option<u32>) {
        self.change(depth, Phase::Down { good });
    }

    fn change(&mut self, depth: f64, phase: Phase) {
        let before = self.depth;
        // A float beyond the range of integers becomes the nearest of them.
        self.depth = (depth.round() as u32).clamp(MIN.min(self.max), self.max);
        (self.phase, self.falls) = (phase, 0);
        let is_trial = matches!(phase, Phase::Down { .. });
        self.want = if is_trial { TRIAL } else { self.depth.max(WINDOW) };
        // What was submitted under the depth before ends first.
        self.skip = before.max(self.depth);
        self.have = 0;
    }

    /// One window more of the same.
    fn again(&mut self) {
        (self.skip, self.have) = (1, 0);
        self.want = self.depth.max(WINDOW);
    }
}
