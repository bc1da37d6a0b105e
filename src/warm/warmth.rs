//! Whether the volume is warm already: restored from a fast snapshot, or warmed yesterday. Pure.
//!
//! Holds: no latency is assumed. What was read is read again, which is warm for certain, while the same others are in
//! flight. On a cold volume this costs [`AGAIN`] warm reads and holds nothing back. Where first reads took no longer,
//! the same is asked with hardly anything in flight, since reads that queue look alike; then reads all over the
//! plan, and only when these agree is the volume called warm. To warm a warm volume costs little, to leave a cold one
//! costs a boot: where even warm reads are slow, on a host that is starved or a slow disk, it is called cold.

use crate::plan::PlannedRead;

/// First reads that are looked at.
const FIRST: usize = 16;
/// Of these, so many are read again.
const AGAIN: usize = 6;
/// Reads all over the plan: 40 that are all warm leave 2 % for one unit in eleven being cold.
pub const SPREAD: usize = 40;
/// A read took as long as a warm one up to this many times the median of those: a busy host holds some up.
const ALIKE: u64 = 6;
/// And their median up to this many hundredths of it.
const MEDIAN_ALIKE: u64 = 150;
/// Volumes answer warm reads in one millisecond, cold ones in tens (vendor documentation): what is slower than this
/// cannot be told apart.
const WARM_NS_MAX: u64 = 3_000_000;
/// So many that took longer, and the volume is asked once more; and then so many: 4 % for one in eleven.
const SLOW_ONCE: usize = 2;
const SLOW_TWICE: usize = 1;
/// In flight at most where a read must not queue behind others.
const ALONE: u32 = 4;
/// So many of a hundred must be alike.
const MOST: usize = 90;

/// What is known so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too little.
    Unknown,
    /// There is something to warm.
    Cold,
    /// There is not.
    Warm,
}

/// What the volume should be asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing; go on with the plan.
    Plan,
    /// This read, once more.
    Again(PlannedRead),
    /// Choose [`SPREAD`] reads all over the plan.
    SpreadOut,
    /// One of these.
    Spread,
    /// Nothing until what was asked is answered.
    Wait,
}

#[derive(Clone, Debug)]
enum State {
    First,
    /// Reads still to be repeated, and those on their way.
    Again {
        todo: Vec<PlannedRead>,
        under_way: usize,
        /// Whether nothing else is in flight.
        alone: bool,
    },
    /// Reads all over the plan are to be chosen, and to be read.
    SpreadOut,
    Spreading,
    Known(Verdict),
}

/// Finds out.
#[derive(Clone, Debug)]
pub struct Warmth {
    state: State,
    /// Reads of the plan, and how long they took.
    first: Vec<(PlannedRead, u64)>,
    again_ns: Vec<u64>,
    spread_ns: Vec<u64>,
    /// Spread reads that are to come.
    expected: usize,
    /// Whether they were asked for once more.
    twice: bool,
}

impl Warmth {
    /// Nothing is known; but how long a warm read takes may be, and then that need not be asked.
    pub fn new(warm_ns: Option<u64>) -> Warmth {
        let state = if warm_ns.is_some() { State::SpreadOut } else { State::First };
        Warmth {
            state,
            first: Vec::new(),
            again_ns: warm_ns.into_iter().collect(),
            spread_ns: Vec::new(),
            expected: 0,
            twice: false,
        }
    }

    /// There is something to warm; nothing is asked.
    pub fn known_cold() -> Warmth {
        Warmth { state: State::Known(Verdict::Cold), ..Warmth::new(None) }
    }

    /// How long a warm read takes, where that was found out and first reads took no longer.
    pub fn warm_ns(&self) -> Option<u64> {
        if self.verdict() == Verdict::Warm { self.median() } else { None }
    }

    fn median(&self) -> Option<u64> {
        self.again_ns.get(self.again_ns.len() / 2).copied()
    }

    /// What is known.
    pub fn verdict(&self) -> Verdict {
        match self.state {
            State::Known(verdict) => verdict,
            _ => Verdict::Unknown,
        }
    }

    /// What to ask next, with so many in flight.
    pub fn ask(&mut self, in_flight: u32) -> Ask {
        match &mut self.state {
            State::Again { alone: true, .. } | State::Spreading if in_flight >= ALONE => Ask::Wait,
            State::Again { todo, under_way, alone } => match todo.pop() {
                Some(read) => {
                    *under_way += 1;
                    Ask::Again(read)
                }
                None if *alone => Ask::Wait,
                None => Ask::Plan,
            },
            State::SpreadOut => Ask::SpreadOut,
            State::Spreading => Ask::Spread,
            State::First | State::Known(_) => Ask::Plan,
        }
    }

    /// So many reads all over the plan are asked for.
    pub fn spreading(&mut self, reads: usize) {
        self.expected = reads;
        self.state = State::Spreading;
        self.judge_spread();
    }

    /// The answers take too long.
    pub fn give_up(&mut self) {
        self.state = State::Known(Verdict::Cold);
    }

    /// A read of the plan took so long.
    pub fn on_first(&mut self, read: PlannedRead, latency_ns: u64) {
        if matches!(self.state, State::First | State::Again { .. }) {
            self.first.push((read, latency_ns));
        }
        if matches!(self.state, State::First) && self.first.len() >= FIRST {
            self.state = self.again(false);
        }
    }

    fn again(&self, alone: bool) -> State {
        let todo = self.first.iter().step_by(FIRST / AGAIN).take(AGAIN).map(|(read, _)| *read).collect();
        State::Again { todo, under_way: 0, alone }
    }

    /// A read that was repeated took so long; `None` where it failed.
    pub fn on_again(&mut self, latency_ns: Option<u64>) {
        self.again_ns.extend(latency_ns);
        let State::Again { todo, under_way, alone } = &mut self.state else { return };
        *under_way -= 1;
        if !todo.is_empty() || *under_way > 0 {
            return;
        }
        self.again_ns.sort_unstable();
        if *alone {
            // What is asked next has no queue before it either.
            self.state = State::SpreadOut;
            return;
        }
        let alike = self.alike(self.first.iter().map(|(_, ns)| *ns));
        let seems_warm = alike * 100 >= self.first.len() * MOST;
        self.again_ns.clear();
        self.state = if seems_warm { self.again(true) } else { State::Known(Verdict::Cold) };
    }

    /// One of the reads all over the plan took so long; `None` where it failed.
    pub fn on_spread(&mut self, latency_ns: Option<u64>) {
        // One that failed is not warm.
        self.spread_ns.push(latency_ns.unwrap_or(u64::MAX));
        self.judge_spread();
    }

    /// One that is cold may stall for a minute: the last are not waited for where enough others are cold.
    fn judge_spread(&mut self) {
        let slow = self.spread_ns.len() - self.alike(self.spread_ns.iter().copied());
        let is_clear = slow > if self.twice { SLOW_TWICE } else { SLOW_ONCE };
        if !matches!(self.state, State::Spreading) || (self.spread_ns.len() < self.expected && !is_clear) {
            return;
        }
        let slow_max = if self.twice { SLOW_TWICE } else { 0 };
        // A plan that was over by then says nothing, and has no need to.
        let may_be_warm = self.expected > 0 && self.medians_are_alike();
        self.state = if may_be_warm && slow <= slow_max {
            State::Known(Verdict::Warm)
        } else if may_be_warm && !self.twice && slow <= SLOW_ONCE {
            self.twice = true;
            self.spread_ns.clear();
            State::SpreadOut
        } else {
            State::Known(Verdict::Cold)
        };
    }

    fn medians_are_alike(&mut self) -> bool {
        self.spread_ns.sort_unstable();
        let (Some(warm_ns), Some(spread_ns)) = (self.median(), self.spread_ns.get(self.spread_ns.len() / 2))
        else {
            return false;
        };
        warm_ns <= WARM_NS_MAX && spread_ns.saturating_mul(100) <= warm_ns * MEDIAN_ALIKE
    }

    /// How many took as long as those that are warm for certain.
    fn alike(&self, latencies: impl Iterator<Item = u64>) -> usize {
        let warm_ns = self.median().unwrap_or(0);
        latencies.filter(|ns| *ns <= warm_ns.saturating_mul(ALIKE)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(start: u64) -> PlannedRead {
        PlannedRead { start, sectors: 8, stage: 0 }
    }

    /// Asks a volume whose first reads take `cold_ns` by their number, and others 700 us.
    fn ask(mut cold_ns: impl FnMut(usize) -> u64, spread: usize) -> (Verdict, usize) {
        let mut warmth = Warmth::new(None);
        let mut asked = 0;
        let mut number = 0;
        while warmth.verdict() == Verdict::Unknown {
            asked += 1;
            match warmth.ask(0) {
                Ask::Plan => {
                    warmth.on_first(read(number as u64 * 1024), cold_ns(number));
                    number += 1;
                }
                Ask::Again(_) => warmth.on_again(Some(700_000)),
                Ask::SpreadOut => warmth.spreading(spread),
                Ask::Wait => unreachable!("nothing is in flight"),
                Ask::Spread => {
                    warmth.on_spread(Some(cold_ns(number)));
                    number += 1;
                }
            }
        }
        (warmth.verdict(), asked)
    }

    #[test]
    fn a_cold_volume_is_cold_after_a_few_warm_reads() {
        let (verdict, asked) = ask(|number| 8_000_000 + number as u64 * 1_000_000, SPREAD);
        assert_eq!((verdict, asked), (Verdict::Cold, FIRST + AGAIN));
        assert_eq!(ask(|number| if number < 3 { 700_000 } else { 30_000_000 }, SPREAD).0, Verdict::Cold);
    }

    #[test]
    fn a_warm_volume_costs_a_hundred_reads() {
        let (verdict, asked) = ask(|number| 500_000 + number as u64 * 10_000, SPREAD);
        assert_eq!((verdict, asked), (Verdict::Warm, FIRST + 2 * AGAIN + 1 + SPREAD));
        assert_eq!(ask(|_| 700_000, 0).0, Verdict::Cold, "a plan that is over by then");
        // One that a busy host held up is no cold unit; nor is one each time.
        let held_up =
            |at: &'static [usize]| move |number| if at.contains(&number) { 9_000_000 } else { 700_000 };
        let (verdict, asked) = ask(held_up(&[FIRST + 7, FIRST + SPREAD + 30]), SPREAD);
        assert_eq!((verdict, asked), (Verdict::Warm, FIRST + 2 * AGAIN + 2 + 2 * SPREAD));
        let twice = [FIRST + 7, FIRST + SPREAD + 30, FIRST + SPREAD + 31];
        assert_eq!(
            ask(move |number| if twice.contains(&number) { 9_000_000 } else { 700_000 }, SPREAD).0,
            Verdict::Cold
        );
    }

    #[test]
    fn where_warm_reads_are_slow_themselves_nothing_is_called_warm() {
        // A starved host: what is warm takes 8 ms, what is cold 30.
        let after = |again_ns: u64, spread_ns: u64| {
            let mut warmth = Warmth::new(Some(again_ns));
            warmth.spreading(SPREAD);
            (0..SPREAD).for_each(|_| warmth.on_spread(Some(spread_ns)));
            warmth.verdict()
        };
        assert_eq!(after(8_000_000, 30_000_000), Verdict::Cold);
        assert_eq!(after(8_000_000, 8_000_000), Verdict::Cold);
        assert_eq!(
            after(2_900_000, 9_000_000),
            Verdict::Cold,
            "twice as long at the median is another thing"
        );
        assert_eq!(after(2_900_000, 3_200_000), Verdict::Warm);
    }

    #[test]
    fn a_boot_that_warmed_the_beginning_alone_leaves_the_volume_cold() {
        let (verdict, _) = ask(|number| if number < FIRST { 700_000 } else { 30_000_000 }, SPREAD);
        assert_eq!(verdict, Verdict::Cold);
        // One cold unit in sixteen is found.
        let (verdict, _) =
            ask(|number| if number % 16 == 3 && number > FIRST { 30_000_000 } else { 700_000 }, SPREAD);
        assert_eq!(verdict, Verdict::Cold);
    }

    #[test]
    fn a_failed_read_is_not_warm_and_what_is_known_is_not_asked() {
        let mut warmth = Warmth::new(None);
        (0..FIRST as u64).for_each(|number| warmth.on_first(read(number), 700_000));
        (0..AGAIN).for_each(|_| {
            assert!(matches!(warmth.ask(64), Ask::Again(_)));
        });
        (0..AGAIN).for_each(|_| warmth.on_again(None));
        assert_eq!(warmth.verdict(), Verdict::Cold, "nothing is known to be warm");
        assert_eq!(Warmth::known_cold().verdict(), Verdict::Cold);
        assert_eq!(Warmth::new(Some(700_000)).ask(64), Ask::SpreadOut);
    }

    #[test]
    fn a_read_that_stalls_is_not_waited_for_where_others_are_cold() {
        let mut warmth = Warmth::new(Some(700_000));
        warmth.spreading(SPREAD);
        (0..SLOW_ONCE).for_each(|_| warmth.on_spread(Some(30_000_000)));
        assert_eq!(warmth.verdict(), Verdict::Unknown, "a busy host may have held these up");
        warmth.on_spread(Some(30_000_000));
        assert_eq!((warmth.verdict(), warmth.ask(64)), (Verdict::Cold, Ask::Plan));
        // Those that were on their way come later.
        warmth.on_spread(Some(700_000));
        assert_eq!(warmth.verdict(), Verdict::Cold);
    }

    #[test]
    fn a_queue_that_makes_all_reads_look_alike_does_not_deceive() {
        let mut warmth = Warmth::new(None);
        // A queue of four: what is read again takes as long as what is cold, until nothing else is in flight.
        (0..FIRST as u64).for_each(|number| warmth.on_first(read(number), 900_000_000));
        let ask_again = |warmth: &mut Warmth, latency_ns| {
            (0..AGAIN).for_each(|_| {
                assert!(matches!(warmth.ask(0), Ask::Again(_)));
            });
            (0..AGAIN).for_each(|_| warmth.on_again(Some(latency_ns)));
        };
        ask_again(&mut warmth, 800_000_000);
        assert_eq!(warmth.ask(ALONE), Ask::Wait, "what is in flight ends first");
        ask_again(&mut warmth, 700_000);
        assert_eq!(warmth.ask(64), Ask::SpreadOut);
        warmth.spreading(SPREAD);
        assert_eq!(warmth.ask(ALONE), Ask::Wait);
        assert_eq!(warmth.ask(ALONE - 1), Ask::Spread);
        (0..SPREAD).for_each(|_| warmth.on_spread(Some(30_000_000)));
        assert_eq!(warmth.verdict(), Verdict::Cold);
    }
}
