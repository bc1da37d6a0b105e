//! One budget of reads and bytes a second for several volumes that are warmed at once, each by a loop of its own: an
//! instance has limits too. Pure, and a handle through which the loops' threads share it.
//!
//! Holds: in any time T the reads granted cost no more than T and [`SLACK_NS`]; while somebody waits with a read that
//! is more urgent, nobody gets one that is less; who waits among equals gets a turn after one turn of each other. Who was
//! told to come back and does not holds nobody up for longer than [`PATIENCE_NS`].

use super::pace::Pace;
use crate::plan::{StagePlan, places};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A thread that is woken late makes up for so much: at 10,000 reads a second one waits 100 us for the next, and is
/// woken later than that on a busy machine.
pub const SLACK_NS: u64 = 5_000_000;
/// Among equals one goes on for so long: to be woken takes a thread longer than one read's share of most budgets.
const TURN_NS: u64 = 10_000_000;
/// Who has to let others go first looks again after this: what they leave over is taken up within the slack.
const LOOK_NS: u64 = 1_000_000;
/// Whoever comes so much later than it was told to has no claim until then: its machine or its disk holds it up.
const PATIENCE_NS: u64 = 20_000_000;

/// How urgent a read is, the most urgent first: the place of its stage in a boot.
pub type Urgency = u8;

/// A read that waits.
#[derive(Clone, Copy, Debug)]
struct Claim {
    urgency: Urgency,
    /// When whoever waits was told to come back.
    back_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    claim: Option<Claim>,
    /// Number of its last turn, from 1.
    last_turn: u64,
}

/// The sum over its members is limited, and the most urgent go first.
#[derive(Clone, Debug)]
pub struct Budget {
    pace: Pace,
    members: Vec<Member>,
    /// Turns so far.
    turns: u64,
    /// Whose turn it is, and until when.
    turn: Option<(usize, u64)>,
}

impl Budget {
    /// For so many members. 0 means no limit.
    pub fn new(iops: u64, bytes_per_s: u64, members: usize) -> Budget {
        Budget {
            pace: Pace::new(iops, bytes_per_s),
            members: vec![Member::default(); members],
            turns: 0,
            turn: None,
        }
    }

    /// Grants a member's read now, or says when to ask again; until then it has a claim.
    pub fn ask(&mut self, member: usize, urgency: Urgency, bytes: u32, now_ns: u64) -> Result<(), u64> {
        self.members[member].claim = Some(Claim { urgency, back_ns: now_ns });
        let is_first = self.first(now_ns) == Some(member);
        let free_ns = self.pace.wait_until_ns(now_ns).unwrap_or(now_ns);
        if is_first && free_ns <= now_ns {
            self.grant(member, bytes, now_ns);
            return Ok(());
        }
        let back_ns = if is_first { free_ns } else { free_ns.max(now_ns + LOOK_NS) };
        self.members[member].claim = Some(Claim { urgency, back_ns });
        Err(back_ns)
    }

    /// A member's read is not wanted any more.
    pub fn withdraw(&mut self, member: usize) {
        self.members[member].claim = None;
    }

    fn grant(&mut self, member: usize, bytes: u32, now_ns: u64) {
        if !self.has_turn(member, now_ns) {
            self.turns += 1;
            self.members[member].last_turn = self.turns;
            self.turn = Some((member, now_ns + TURN_NS));
        }
        self.members[member].claim = None;
        self.pace.take(now_ns.saturating_sub(SLACK_NS), bytes);
    }

    fn has_turn(&self, member: usize, now_ns: u64) -> bool {
        self.turn.is_some_and(|(whose, until_ns)| whose == member && now_ns < until_ns)
    }

    /// Whose read is the next.
    fn first(&self, now_ns: u64) -> Option<usize> {
        let claims = self.members.iter().enumerate().filter_map(|(member, is)| Some((member, is, is.claim?)));
        let live = claims.filter(|(_, _, claim)| now_ns <= claim.back_ns.saturating_add(PATIENCE_NS));
        live.min_by_key(|(member, is, claim)| (claim.urgency, !self.has_turn(*member, now_ns), is.last_turn))
            .map(|(member, _, _)| member)
    }
}

#[derive(Debug)]
struct Shared {
    budget: Mutex<Budget>,
    started: Instant,
}

/// One member's handle on a budget.
#[derive(Debug)]
pub struct Share {
    shared: Arc<Shared>,
    member: usize,
    /// By index of the stage.
    urgencies: Vec<Urgency>,
    /// Of the budget's clock against that of the source.
    ahead_ns: u64,
}

impl Share {
    /// A budget for so many members, a handle for each. 0 means no limit.
    pub fn of_each(iops: u64, bytes_per_s: u64, members: usize) -> Vec<Share> {
        let budget = Mutex::new(Budget::new(iops, bytes_per_s, members));
        let shared = Arc::new(Shared { budget, started: Instant::now() });
        let share = |member| Share { shared: shared.clone(), member, urgencies: Vec::new(), ahead_ns: 0 };
        (0..members).map(share).collect()
    }

    /// For reads of these stages through a source whose clock shows this now.
    pub fn for_stages(&self, stages: &[StagePlan], source_now_ns: u64) -> Share {
        let now_ns = self.shared.started.elapsed().as_nanos() as u64;
        let mut share = self.in_step(stages);
        share.ahead_ns = now_ns.saturating_sub(source_now_ns);
        share
    }

    /// For reads of these stages through a source that has the budget's own clock.
    pub(super) fn in_step(&self, stages: &[StagePlan]) -> Share {
        let (shared, member) = (self.shared.clone(), self.member);
        let urgencies = places(stages.iter().map(|stage| stage.name.as_str()));
        Share { shared, member, urgencies, ahead_ns: 0 }
    }

    /// Grants a read of a stage now, or says when to ask again, by the source's clock. What comes after the last stage
    /// is as urgent as that.
    pub fn ask(&self, stage: u16, bytes: u32, now_ns: u64) -> Result<(), u64> {
        let urgency = self.urgencies.get(usize::from(stage)).or(self.urgencies.last());
        let urgency = urgency.copied().unwrap_or_default();
        let asked = self.budget().ask(self.member, urgency, bytes, now_ns.saturating_add(self.ahead_ns));
        asked.map_err(|back_ns| back_ns.saturating_sub(self.ahead_ns))
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        // Whatever happened to another volume's thread, its numbers hold.
        self.shared.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    /// Nobody waits for one that has ended.
    fn drop(&mut self) {
        self.budget().withdraw(self.member);
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
