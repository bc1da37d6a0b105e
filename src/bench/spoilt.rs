//! What spoilt a measurement. Pure.

use super::tally::Row;
use crate::report::{Evidence, Foreground};
use crate::units::human_bytes;

/// Where no more than this is cold, it is told.
const COLD_SHARE: f64 = 0.9;
/// A limit that was exceeded for this share of the time.
const LIMIT_SHARE: f64 = 0.05;
/// Parts of one method differ by chance; not by this factor.
const DRIFT: f64 = 1.6;
/// Others on the device: so many operations, or so many bytes.
const OTHERS: (u64, u64) = (32, 1 << 20);

/// Whether others used a device so much that it may show.
pub fn is_busy(foreground: Option<Foreground>) -> bool {
    foreground.is_some_and(|others| {
        others.operations >= OTHERS.0 || others.read_bytes + others.written_bytes >= OTHERS.1
    })
}

/// Everything that speaks against the measurements.
pub fn spoilt(evidence: &Evidence, rows: &[Row]) -> Vec<String> {
    let share = &evidence.cold_share;
    let mut all = Vec::new();
    if share.high < COLD_SHARE {
        let (low, high) = (100.0 * (1.0 - share.high), 100.0 * (1.0 - share.low));
        all.push(format!(
            "already warm, or never written: {low:.0} to {high:.0} % of the volume; rates count what was cold"
        ));
    }
    if evidence.errors > 0 {
        let (errors, stalled) = (evidence.errors, evidence.stalled);
        all.push(format!(
            "first reads: {errors} of them failed, {stalled} of these stalled; latencies are of all others"
        ));
    }
    all.extend(others(evidence.foreground).map(|what| format!("first reads, one at a time: {what}")));
    for row in rows {
        let name = row.name();
        all.extend(limits(row).into_iter().map(|what| format!("{name}: {what}")));
        all.extend(drift(row).map(|what| format!("{name}: {what}")));
        all.extend(others(row.foreground).map(|what| format!("{name}: {what}")));
    }
    all
}

fn others(foreground: Option<Foreground>) -> Option<String> {
    let others = foreground.filter(|_| is_busy(foreground))?;
    let bytes = human_bytes(others.read_bytes + others.written_bytes);
    Some(format!("others used the device meanwhile: {} operations, {bytes}", others.operations))
}

fn limits(row: &Row) -> Vec<String> {
    let Some(limits) = row.limits() else { return Vec::new() };
    let all = [
        ("the volume's IOPS limit was reached", limits.volume_iops),
        ("the volume's throughput limit was reached", limits.volume_throughput),
        ("the instance's IOPS limit was reached", limits.instance_iops),
        ("the instance's throughput limit was reached", limits.instance_throughput),
    ];
    let reached = all.into_iter().filter(|(_, share)| *share >= LIMIT_SHARE);
    reached
        .map(|(what, share)| format!("{what} for {:.0} % of the time, as EBS counts", 100.0 * share))
        .collect()
}

fn drift(row: &Row) -> Option<String> {
    let (first, last) = (row.rates.first()?, row.rates.last()?);
    let most = row.rates.iter().copied().fold(0.0, f64::max);
    let least = row.rates.iter().copied().fold(f64::INFINITY, f64::min);
    if most < least * DRIFT {
        return None;
    }
    let shown = |rate: f64| format!("{:.1} MB/s", rate / 1e6);
    // Credits are spent once: the rate falls and does not come back.
    let falls = *first == most && *last == least;
    let limits = row.limits().unwrap_or_default();
    let volume = limits.volume_iops.max(limits.volume_throughput) >= LIMIT_SHARE;
    let instance = limits.instance_iops.max(limits.instance_throughput) >= LIMIT_SHARE;
    Some(match (falls, volume || instance) {
        (true, true) => {
            let whose = if volume { "the volume's" } else { "the instance's" };
            format!(
                "its rate fell from {} to {} at {whose} limit: burst credits ended",
                shown(most),
                shown(least)
            )
        }
        (true, false) => format!(
            "its rate fell from {} to {}: burst credits that end do that, or others on the storage",
            shown(most),
            shown(least)
        ),
        (false, _) => format!("a rate that drifts, from {} to {}", shown(least), shown(most)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::bed::Look;
    use super::super::method::Method;
    use super::super::sweep::Point;
    use super::super::tally::Part;
    use super::*;
    use crate::device::nvme::Statistics;
    use crate::report::ColdShare;

    /// A method whose parts had these rates, in bytes a nanosecond, and what EBS counted by the end of each.
    fn row(rates: &[u64], exceeded_us: &[u64]) -> Row {
        let mut row = Row::new(Method::Touch(None), Some(64));
        for (at, rate) in rates.iter().enumerate() {
            let mut part = Part::new(Vec::new());
            part.steady = Some(Point { bytes: rate * 1_000_000, ns: 1_000_000, ..Point::default() });
            part.elapsed_ns = 1_000_000;
            let look = |at: Option<usize>| Look {
                ebs: exceeded_us.first().map(|_| Statistics {
                    volume_iops_exceeded_us: at.map_or(0, |at| exceeded_us[at]),
                    ..Statistics::default()
                }),
                ..Look::default()
            };
            row.add(part, &look(at.checked_sub(1)), &look(Some(at)));
        }
        row
    }

    fn all_cold() -> Evidence {
        let cold_share = ColdShare { low: 0.95, high: 1.0, first_reads: 64, cold: 64 };
        Evidence { cold_share, ..Evidence::default() }
    }

    #[test]
    fn what_spoils_is_named() {
        assert!(spoilt(&all_cold(), &[row(&[100, 110, 90], &[])]).is_empty());
        let cold_share = ColdShare { low: 0.5, high: 0.7, first_reads: 64, cold: 38 };
        let others = Foreground { read_bytes: 4 << 20, written_bytes: 0, operations: 1024 };
        for (evidence, row, named) in [
            (
                Evidence { foreground: Some(others), ..all_cold() },
                row(&[100], &[]),
                "first reads, one at a time: others used the device meanwhile: 1024 operations",
            ),
            (
                Evidence { errors: 3, stalled: 2, ..all_cold() },
                row(&[100], &[]),
                "first reads: 3 of them failed, 2 of these stalled",
            ),
            (
                Evidence { cold_share, ..all_cold() },
                row(&[100], &[]),
                "already warm, or never written: 30 to 50 %",
            ),
            (
                all_cold(),
                row(&[100, 90, 40], &[]),
                "fell from 100000.0 MB/s to 40000.0 MB/s: burst credits that end",
            ),
            (all_cold(), row(&[100, 90, 40], &[0, 0, 900]), "at the volume's limit: burst credits ended"),
            (all_cold(), row(&[100, 40, 90], &[]), "a rate that drifts"),
            (
                all_cold(),
                row(&[100], &[500]),
                "touch@64: the volume's IOPS limit was reached for 50 % of the time",
            ),
        ] {
            let found = spoilt(&evidence, &[row]);
            assert!(found.iter().any(|what| what.contains(named)), "{named}: {found:?}");
        }
    }

    #[test]
    fn a_few_operations_of_others_are_no_reason() {
        let others = |operations, read_bytes| Some(Foreground { operations, read_bytes, written_bytes: 0 });
        assert!(!is_busy(None) && !is_busy(others(5, 20_480)));
        assert!(is_busy(others(100, 409_600)) && is_busy(others(2, 4 << 20)));
    }
}
