//! Events of several CPUs, put in order of time before they become touches.
//!
//! Holds: an event is released only when no ring can still hold an older one; what is held is bounded, and a
//! release that the bound forces is counted. Pure: the time up to which a ring was read is an argument.
//!
//! Each ring is in order by itself, so one that was read up to an event holds nothing older. A ring read to
//! its end can still get a slightly older event, whose writer took the time but not yet the place; so it
//! counts as read up to a little before the moment it was read ([`HOLD_BACK_NS`]).

use super::page::Event;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How far an event's time can lie before the moment it can be read: its writer runs without preemption, so
/// this is microseconds, and milliseconds where a hypervisor takes the CPU away in between.
pub const HOLD_BACK_NS: u64 = 20_000_000;

/// Events held at most, 10 MB: 20 ms at 6 million events a second; beyond it the oldest are let go.
pub const HELD_MAX: usize = 1 << 17;

/// By time; then an issue before a completion, and then in the order of arrival.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    key: (u64, super::page::What, u64),
    event: Event,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Holds events until their turn.
#[derive(Debug)]
pub struct Merge {
    held: BinaryHeap<Reverse<Held>>,
    /// Per ring: nothing older than this is still in it.
    read_until_ns: Vec<u64>,
    arrived: u64,
    /// Events let go before their turn, because too many were held.
    pub forced: u64,
}

impl Merge {
    /// For a number of rings.
    pub fn new(rings: usize) -> Self {
        Merge { held: BinaryHeap::new(), read_until_ns: vec![0; rings], arrived: 0, forced: 0 }
    }

    /// Takes an event.
    pub fn push(&mut self, event: Event) {
        let key = (event.time_ns, event.what, self.arrived);
        self.arrived += 1;
        self.held.push(Reverse(Held { key, event }));
    }

    /// The ring holds nothing older than this any more.
    pub fn read_until(&mut self, ring: usize, time_ns: u64) {
        if let Some(until) = self.read_until_ns.get_mut(ring) {
            *until = time_ns.max(*until);
        }
    }

    /// Up to where the ring was read.
    pub fn until(&self, ring: usize) -> u64 {
        self.read_until_ns.get(ring).copied().unwrap_or(0)
    }

    /// The next event whose turn it is.
    pub fn next_ready(&mut self) -> Option<Event> {
        let until = self.read_until_ns.iter().copied().min().unwrap_or(u64::MAX);
        let ready = self.held.peek().is_some_and(|Reverse(held)| held.key.0 < until);
        if !ready && self.held.len() <= HELD_MAX {
            return None;
        }
        self.forced += u64::from(!ready);
        self.held.pop().map(|Reverse(held)| held.event)
    }

    /// The next event of all that are left, when the rings were read to their ends.
    pub fn next_last(&mut self) -> Option<Event> {
        self.held.pop().map(|Reverse(held)| held.event)
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::{What, tests::event};
    use super::*;
    use proptest::prelude::*;

    fn ready(merge: &mut Merge) -> Vec<u64> {
        std::iter::from_fn(|| merge.next_ready()).map(|event| event.time_ns).collect()
    }

    #[test]
    fn an_event_waits_for_the_ring_that_is_furthest_behind() {
        let mut merge = Merge::new(2);
        merge.push(event(30, What::Issue, 1));
        merge.read_until(0, 40);
        assert!(ready(&mut merge).is_empty(), "the other ring was not read yet");
        merge.push(event(20, What::Issue, 2));
        merge.read_until(1, 25);
        assert_eq!(ready(&mut merge), [20]);
        merge.read_until(1, 31);
        assert_eq!(ready(&mut merge), [30]);
    }

    #[test]
    fn an_issue_goes_before_a_completion_of_the_same_moment() {
        let mut merge = Merge::new(1);
        merge.push(event(5, What::Complete, 1));
        merge.push(event(5, What::Issue, 1));
        merge.read_until(0, 6);
        assert_eq!(merge.next_ready().map(|event| event.what), Some(What::Issue));
    }

    #[test]
    fn what_is_held_is_bounded_and_the_excess_is_counted() {
        let mut merge = Merge::new(2);
        for n in 0..HELD_MAX as u64 + 3 {
            merge.push(event(1_000 + n, What::Issue, n));
        }
        assert_eq!(ready(&mut merge), [1_000, 1_001, 1_002]);
        assert_eq!((merge.forced, merge.held.len()), (3, HELD_MAX));
        assert_eq!(std::iter::from_fn(|| merge.next_last()).count(), HELD_MAX);
    }

    proptest! {
        /// Rings in order by themselves, read in any turns, come out in order as a whole.
        #[test]
        fn the_whole_comes_out_in_order(
            rings in prop::collection::vec(prop::collection::vec(1u64..50, 0..40), 1..5),
            turns in prop::collection::vec((0usize..5, 1usize..6), 0..80),
        ) {
            let rings: Vec<Vec<u64>> = rings
                .iter()
                .map(|steps| steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect())
                .collect();
            let mut merge = Merge::new(rings.len());
            let mut at = vec![0; rings.len()];
            let mut out = Vec::new();
            for (ring, count) in turns {
                let ring = ring % rings.len();
                for _ in 0..count {
                    let Some(time_ns) = rings[ring].get(at[ring]) else { break };
                    merge.push(event(*time_ns, What::Issue, 0));
                    merge.read_until(ring, *time_ns);
                    at[ring] += 1;
                }
                out.extend(ready(&mut merge));
            }
            for (ring, times) in rings.iter().enumerate() {
                times[at[ring]..].iter().for_each(|time_ns| merge.push(event(*time_ns, What::Issue, 0)));
            }
            out.extend(std::iter::from_fn(|| merge.next_last()).map(|event| event.time_ns));
            let mut sorted = rings.concat();
            sorted.sort_unstable();
            prop_assert_eq!(out, sorted);
        }
    }
}
