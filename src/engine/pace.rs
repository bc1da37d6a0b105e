//! Limits on operations and bytes a second. Pure.

use crate::units::NS_PER_S;

/// The generic cell rate algorithm on two limits; no burst, so that the boot's own reads always find a gap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    iops: u64,
    bytes_per_s: u64,
    next_ns: u64,
}

impl Pace {
    /// 0 means no limit.
    pub fn new(iops: u64, bytes_per_s: u64) -> Self {
        Pace { iops, bytes_per_s, next_ns: 0 }
    }

    /// When the next read may start; `None` for now.
    pub fn wait_until_ns(&self, now_ns: u64) -> Option<u64> {
        (self.next_ns > now_ns).then_some(self.next_ns)
    }

    /// A read starts.
    pub fn take(&mut self, now_ns: u64, bytes: u32) {
        let cost = |amount: u64, rate: u64| amount.saturating_mul(NS_PER_S).checked_div(rate).unwrap_or(0);
        let step = cost(1, self.iops).max(cost(u64::from(bytes), self.bytes_per_s));
        self.next_ns = self.next_ns.max(now_ns).saturating_add(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_limit_holds() {
        let mut pace = Pace::new(100, 1 << 20);
        pace.take(0, 4096);
        assert_eq!(pace.wait_until_ns(0), Some(10_000_000));
        pace.take(10_000_000, 1 << 20);
        assert_eq!(pace.wait_until_ns(10_000_000), Some(1_010_000_000));
        assert_eq!(pace.wait_until_ns(2_000_000_000), None);
        let mut free = Pace::new(0, 0);
        free.take(5, u32::MAX);
        assert_eq!(free.wait_until_ns(5), None);
    }
}
